"""What a stack does by software's knowledge alone: the extents of its layers, composed by the definition.

No node, no walk, no table bytes, no cache: this is what the laws hold the real ones against.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from swiommu.address import Prot
from swiommu.layer import NEUTRAL, Attributes, meet_prot
from swiommu.layer.attributes import allowed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.address import Access
    from swiommu.layer import Extent, Layer

__all__ = ["Place", "Twin"]


class Place(NamedTuple):
    """Where an address leads: the output, how many bytes from here on go the same way, and what is allowed."""

    output: int
    left: int
    prot: Prot
    attributes: Attributes


class Twin:
    """The layers of a chain, top first, as their `Layer.extents` are at this moment.

    >>> from swiommu.layer import Span, Window
    >>> twin = Twin([Window("up", Span(0, 0x3000, 0x1000)), Window("down", Span(0x2000, 0x1000, 0x4000))])
    >>> twin.at(0x1000).output == 0x6000, twin.at(0x800), list(twin.pieces(0, 0x4000))
    (True, None, [(4096, 24576, 4096)])
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers: list[tuple[list[int], list[Extent]]] = []
        for layer in layers:
            extents = list(layer.extents())
            self.layers.append(([extent.input for extent in extents], extents))

    def at(self, address: int) -> Place | None:
        """Where ``address`` leads, whatever is allowed there; None where it leads nowhere."""
        here, left, prot, attributes = address, 1 << 64, Prot.READ | Prot.WRITE, NEUTRAL
        for starts, extents in self.layers:
            place = bisect_right(starts, here) - 1
            if place < 0 or here >= extents[place].input + extents[place].size:
                return None
            extent = extents[place]
            left = min(left, extent.input + extent.size - here)
            prot, attributes = meet_prot(prot, extent.prot), attributes.then(extent.attributes)
            here += extent.output - extent.input
        return Place(here, left, prot, attributes)

    def allows(self, address: int, wanted: Access) -> Place | None:
        """As `at`, but None also where ``wanted`` is not allowed."""
        place = self.at(address)
        return None if place is None or int(wanted) & ~allowed(place.prot) else place

    def pieces(self, start: int, size: int) -> Iterator[tuple[int, int, int]]:
        """What of a range leads somewhere, as (input, output, bytes), by extents of the layers."""
        at, stop = start, start + size
        while at < stop:
            place = self.at(at)
            if place is None:
                at = self._next(at, stop)
            else:
                length = min(place.left, stop - at)
                yield at, place.output, length
                at += length

    def _next(self, at: int, stop: int) -> int:
        # The first address behind `at` where a layer changes its mind: no later than the next one that leads somewhere.
        here = at
        nearest = stop - at
        for starts, extents in self.layers:
            place = bisect_right(starts, here)
            if place < len(starts):
                nearest = min(nearest, starts[place] - here)
            if not place or here >= extents[place - 1].input + extents[place - 1].size:
                break
            extent = extents[place - 1]
            nearest = min(nearest, extent.input + extent.size - here)
            here += extent.output - extent.input
        return at + nearest
