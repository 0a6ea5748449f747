"""Windows: ranges that lead elsewhere by a constant each. What a bus has without translation hardware."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from swiommu.address import as_integers
from swiommu.errors import AddressInUse, InvalidArgument
from swiommu.layer.attributes import NEUTRAL, READ_WRITE
from swiommu.layer.base import Extent, FaultKind, Layer, Read, largest_block

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Span", "Window"]


class Span(NamedTuple):
    """``size`` bytes of input from ``base``, with output = input + ``delta``; ``port`` is the way out of a router.

    >>> Span(0x1000_0000, 0x1000, 0x3000_0000).output == 0x4000_0000
    True
    """

    base: int
    size: int
    delta: int = 0
    port: int = 0

    @property
    def stop(self) -> int:
        """One past the last input."""
        return self.base + self.size

    @property
    def output(self) -> int:
        """Where the first byte leads."""
        return self.base + self.delta

    def __str__(self) -> str:
        return f"[{self.base:#x}, {self.stop:#x}) {'-' if self.delta < 0 else '+'}{abs(self.delta):#x}"


class Window(Layer):
    """Translates inside ``spans`` by their deltas, and nowhere else; allows reading and writing, costs nothing.

    Outputs may overlap: a bus can show the same memory twice. Raises `InvalidArgument` for a span that is empty or
    leaves 64 bits on either side, `AddressInUse` for inputs that overlap. Source: ``dma_range_map``.

    >>> from swiommu.address import Access
    >>> from swiommu.layer import access
    >>> window = Window("soc", Span(0, 0x1000, 0x8000_0000), Span(0x1000, 0x1000, 0x4000_0000))
    >>> [hex(run.output) for run in access(window, 0xFFE, 4, Access.READ).runs]
    ['0x80000ffe', '0x40001000']
    >>> print(access(window, 0x1FFF, 2, Access.WRITE).fault)
    range fault of WRITE access at 0x2000 in layer 'soc'
    """

    kind: ClassVar[str] = "window"
    granule = 1
    fixed = True

    def __init__(self, name: str, *spans: Span) -> None:
        super().__init__(name)
        spans = tuple([Span(*as_integers(**span._asdict())) for span in spans])
        for span in spans:
            if span.size < 1 or min(span.base, span.output) < 0 or max(span.stop, span.output + span.size) > 1 << 64:
                raise InvalidArgument(
                    f"no window of {span.size:#x} bytes at {span.base:#x} with delta {span.delta:#x}", size=span.size
                )
        self.spans = tuple(sorted(spans))
        for one, other in pairwise(self.spans):
            if one.stop > other.base:
                raise AddressInUse(
                    f"the windows at {one.base:#x} and {other.base:#x} overlap by {one.stop - other.base:#x} bytes",
                    iova=other.base,
                )
        self._bases = [span.base for span in self.spans]
        self.input_width = max([(span.stop - 1).bit_length() for span in spans], default=1) or 1
        self.output_width = max([(span.output + span.size - 1).bit_length() for span in spans], default=1) or 1

    def look(self, at: int, read: Read) -> Extent | FaultKind:  # noqa: ARG002 - nothing to walk
        """The span around ``at``; RANGE outside of all."""
        place = bisect_right(self._bases, at) - 1
        if place < 0 or at >= self.spans[place].stop:
            return FaultKind.RANGE
        return _extent(self.spans[place], at)

    def extents(self) -> Iterator[Extent]:
        """The spans."""
        return (_extent(span, span.base) for span in self.spans)

    def accepts(self) -> Iterator[tuple[int, int]]:
        """The spans, those that touch as one."""
        joined: list[tuple[int, int]] = []
        for span in self.spans:
            start = joined.pop()[0] if joined and joined[-1][1] == span.base else span.base
            joined.append((start, span.stop))
        return iter(joined)

    def describe(self) -> str:
        """The spans with their deltas."""
        return ", ".join(str(span) for span in self.spans) or "nothing"


def _extent(span: Span, at: int) -> Extent:
    block = largest_block(span.base, span.size, span.delta, at)
    return Extent(span.base, span.output, span.size, block, READ_WRITE, NEUTRAL, span.port)
