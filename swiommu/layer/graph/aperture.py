"""What the layers below leave of a space: limits and reserved regions, brought up to where addresses are chosen.

Through layers whose answer never changes (windows, routers, bypasses) a limit below is known exactly above, shifted.
Through a page table it is not: there it limits what the table may lead to, and says nothing of its inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.errors import InvalidArgument
from swiommu.layer.graph.reserved import Reserved, ReservedKind
from swiommu.ranges import joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.layer.node import Node

__all__ = ["Fixed", "allocatable", "fixed_pieces", "reachable", "reaches", "reserved_regions"]

# A message is taken out before anything is translated, and firmware's memory must be found where it is: for these the
# number that a device says counts, not what becomes of it in a page table.
_THROUGH_TABLES = (ReservedKind.DIRECT, ReservedKind.MSI)


class Fixed(NamedTuple):
    """Inputs ``[start, stop)`` that come to ``floor``, moved by ``delta``, through layers that never change."""

    start: int
    stop: int
    delta: int
    floor: Node


def allocatable(top: Node, mask: int | None = None) -> list[tuple[int, int]]:
    """Where in the input space of ``top`` addresses may be given out, as (start, stop), ascending and apart.

    That is what it accepts, what windows below lead somewhere, up to ``mask`` (the highest address that a device can
    drive, as ``dma_mask``; default: all), less all regions that `reserved_regions` tells. `InvalidArgument` for a
    mask below 0.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.layer import Graph, Memory, Span, Window
    >>> from swiommu.memory import SparseRam
    >>> graph, vectors = Graph(), Reserved(0x4008_0000, 0x1000)
    >>> ram = Memory("ram", SparseRam(PhysSpace("ram")), base=0x4000_0000, size=1 << 20)
    >>> _ = graph.add(ram, reserved=[vectors])
    >>> bus = graph.add(Window("bus", Span(0x1000_0000, 1 << 20, 0x3000_0000)), on="ram")
    >>> [(hex(start), hex(stop)) for start, stop in allocatable(bus, mask=0x100F_FFFF)]
    [('0x10000000', '0x10080000'), ('0x10081000', '0x10100000')]
    """
    if mask is not None and mask < 0:
        raise InvalidArgument(f"a mask of {mask:#x} can't be: 0 or above is needed", mask=mask)
    limit = top.input_space.limit if mask is None else min(top.input_space.limit, mask + 1)
    free = [(start, min(stop, limit)) for start, stop in reachable(top) if start < limit]
    return list(_without(free, joined((region.start, region.stop) for region in reserved_regions(top))))


def reachable(node: Node) -> list[tuple[int, int]]:
    """The inputs of ``node`` that windows below do not refuse, as (start, stop), ascending and apart.

    >>> from swiommu.layer import Identity, Node, Span, Window, connect
    >>> bypass, bus = Node(Identity("bypass")), Node(Window("bus", Span(0x4000, 0x1000), Span(0x5000, 0x1000, 8)))
    >>> connect(bypass, bus)
    >>> reachable(bypass) == [(0x4000, 0x6000)]
    True
    """
    return joined((piece.start, piece.stop) for piece in fixed_pieces(node, clipped=True))


def reserved_regions(node: Node) -> list[Reserved]:
    """The regions that whoever gives out addresses of ``node``'s input space has to keep clear of, ascending.

    Its own, and those of the layers below. Through windows, routers and bypasses these appear shifted, cut to what
    leads there, except for DIRECT ones, which are at the same address everywhere. Through a page table only DIRECT
    and MSI regions are seen, unshifted; the others limit its outputs, see `require_no_conflict`.

    >>> from swiommu.layer import Identity, Node, Span, Window, connect
    >>> lower, upper = Node(Identity("bypass")), Node(Window("bus", Span(0, 0x10_0000, 0x8000_0000)))
    >>> lower.reserved = (Reserved(0x8008_0000, 0x1000), Reserved(0x800F_0000, 0x20_0000, "msi"))
    >>> connect(upper, lower)
    >>> print(*reserved_regions(upper), sep="; ")
    reserved region [0x80000, 0x81000); msi region [0xf0000, 0x100000)
    """
    found = set(node.reserved)
    below = [reserved_regions(lower) for lower in node.lowers]
    numbers = (ReservedKind.DIRECT,) if node.layer.fixed else _THROUGH_TABLES
    found.update(region for regions in below for region in regions if region.kind in numbers)
    if node.layer.fixed and node.lowers:
        for extent in node.layer.extents():
            delta = extent.output - extent.input
            found.update(_shifted(below[extent.port], extent.input, extent.input + extent.size, delta))
    return sorted(found)


def fixed_pieces(node: Node, *, clipped: bool = False) -> Iterator[Fixed]:
    """The ways from ``node`` through layers that never change, down to the first that does, a memory or an end.

    ``clipped``: only as far as that one accepts them. Not merged, in the order of the uppermost layer's extents.

    >>> from swiommu.layer import Identity, Node, Span, Window, connect
    >>> upper, lower = Node(Window("up", Span(0, 0x1000, 0x4000))), Node(Identity("down"))
    >>> connect(upper, lower)
    >>> [(piece.start, piece.delta, piece.floor.name) for piece in fixed_pieces(upper)]
    [(0, 16384, 'down')]
    """
    if not node.layer.fixed or not node.lowers:
        whole = [(extent.input, extent.input + extent.size) for extent in node.layer.extents()]
        accepted = whole if node.layer.fixed else node.layer.accepts()
        for start, stop in accepted if clipped else [(0, 1 << 64)]:
            yield Fixed(start, stop, 0, node)
        return
    for extent in node.layer.extents():
        delta = extent.output - extent.input
        for piece in fixed_pieces(node.lowers[extent.port], clipped=clipped):
            start = max(extent.input, piece.start - delta)
            stop = min(extent.input + extent.size, piece.stop - delta)
            if start < stop:
                yield Fixed(start, stop, delta + piece.delta, piece.floor)


def reaches(node: Node) -> list[tuple[int, int]]:
    """The inputs of ``node`` that are no range fault in it, nor below it if it is a bypass; as `allocatable`'s answer.

    >>> from swiommu.layer import Identity, Node, Span, Window, connect
    >>> bypass, bus = Node(Identity("bypass")), Node(Window("bus", Span(0x4000, 0x1000), Span(0x5000, 0x1000, 8)))
    >>> connect(bypass, bus)
    >>> reaches(bypass) == [(0x4000, 0x6000)]
    True
    """
    own = list(node.layer.accepts())
    if not (node.layer.transparent and node.lowers):
        return own
    return [
        (max(start, low), min(stop, high))
        for start, stop in own
        for low, high in reaches(node.lowers[0])
        if max(start, low) < min(stop, high)
    ]


def _without(ranges: list[tuple[int, int]], holes: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, stop in ranges:
        at = start
        for low, high in holes:
            if high <= at or low >= stop:
                continue
            if at < low:
                yield at, low
            at = high
        if at < stop:
            yield at, stop


def _shifted(regions: list[Reserved], start: int, stop: int, delta: int) -> Iterator[Reserved]:
    # The part of each region that is led to from [start, stop), as it looks from there.
    for region in regions:
        low, high = max(start, region.start - delta), min(stop, region.stop - delta)
        if low < high and region.kind is not ReservedKind.DIRECT:
            yield Reserved(low, high - low, region.kind)
