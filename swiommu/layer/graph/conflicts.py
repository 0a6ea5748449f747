"""Whether the mappings of a finished stack respect its reserved regions: what its owner asks before a device is let in.

Tables change, so nothing here is a property of the graph: the same questions have other answers after the next map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.errors import AddressInUse, InvalidArgument
from swiommu.layer.graph.aperture import reserved_regions
from swiommu.layer.graph.reserved import Reserved, ReservedKind
from swiommu.ranges import joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.layer.node import Node

__all__ = ["missing_direct", "require_no_conflict"]


def require_no_conflict(top: Node) -> None:
    """Refuse what is mapped now, from ``top`` down, against a reserved region; raises for the first that is found.

    A mapping that lies in a reserved or MSI region, or leads to a reserved one: `AddressInUse`. A direct region that is
    not at the same address in memory, as far as it is mapped: `InvalidArgument`. `missing_direct` has the rest of it.
    Source: ``vfio_iommu_resv_conflict``.

    >>> from swiommu.address import PhysSpace, Prot
    >>> from swiommu.layer import Graph, Memory, Paged, Reserved
    >>> from swiommu.memory import SparseRam
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> graph, table = Graph(), RadixTable(MOCK, CountingTables())
    >>> _ = graph.add(Memory("ram", SparseRam(PhysSpace("ram"))), reserved=[Reserved(0xFEE0_0000, 0x10_0000, "msi")])
    >>> iommu = graph.add(Paged("iommu", table), on="ram")
    >>> require_no_conflict(iommu)
    >>> table.map_run(0xFEE0_0000, 0x8000, 0x1000, 1, Prot.READ)
    >>> require_no_conflict(iommu)
    Traceback (most recent call last):
    ...
    swiommu.errors.AddressInUse: the mapping [0xfee00000, 0xfee01000) of 'iommu' lies in the msi region [0xfee00000, \
0xfef00000) of 'iommu'
    """
    for node in _downwards(top):
        if not node.layer.fixed:
            _refuse_reserved(node)
    for region in _direct(top):
        for way in _follow(top, region.start, region.stop):
            _refuse_moved(top, region, way)


def missing_direct(top: Node) -> list[tuple[int, int]]:
    """What of the direct regions is not mapped yet, as (start, stop) of the input space of ``top``.

    The owner of a page table maps it, each address to what leads to the same address in memory, before a device is
    let in. Empty if there is nothing to do.

    >>> from swiommu.layer import Node, Paged, Reserved
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> from swiommu.address import Prot
    >>> node = Node(Paged("iommu", RadixTable(MOCK, CountingTables())))
    >>> node.reserved = (Reserved(0x8000, 0x3000, "direct"),)
    >>> node.layer.table.map_run(0x9000, 0x9000, 0x1000, 1, Prot.READ)
    >>> [(hex(start), hex(stop)) for start, stop in missing_direct(node)]
    [('0x8000', '0x9000'), ('0xa000', '0xb000')]
    """
    ways = [way for region in _direct(top) for way in _follow(top, region.start, region.stop)]
    return joined((way.start, way.stop) for way in ways if way.hole and not way.floor.layer.fixed)


class _Way(NamedTuple):
    """Inputs of a top that come to ``floor`` with one delta, and end there: ``hole`` if nothing is mapped there."""

    start: int
    stop: int
    delta: int
    floor: Node
    hole: bool


# -- reserved regions


def _downwards(top: Node) -> list[Node]:
    # The node and all that data may pass below it, each once.
    found = {top: None}
    todo = [top]
    while todo:
        new = [lower for lower in todo.pop(0).lowers if lower not in found]
        found.update(dict.fromkeys(new))
        todo += new
    return list(found)


def _refuse_reserved(node: Node) -> None:
    hidden = [each for each in reserved_regions(node) if each.kind in {ReservedKind.RESERVED, ReservedKind.MSI}]
    never = [
        (lower, [each for each in reserved_regions(lower) if each.kind is ReservedKind.RESERVED])
        for lower in node.lowers
    ]
    if not hidden and not any(regions for _, regions in never):
        return
    for extent in node.layer.extents():
        for region in hidden:
            if region.start < extent.input + extent.size and extent.input < region.stop:
                _refuse_extent(node, extent.input, extent.size, "lies in", region, node)
        lower, regions = never[extent.port] if never else (node, [])
        for region in regions:
            if region.start < extent.output + extent.size and extent.output < region.stop:
                _refuse_extent(node, extent.input, extent.size, "leads to", region, lower)


def _refuse_extent(node: Node, at: int, size: int, what: str, region: Reserved, whose: Node) -> None:
    raise AddressInUse(
        f"the mapping {_range(at, at + size)} of {node.name!r} {what} the {region} of {whose.name!r}",
        iova=at,
        size=size,
    )


# -- direct regions


def _direct(top: Node) -> list[Reserved]:
    return [each for each in reserved_regions(top) if each.kind is ReservedKind.DIRECT]


def _follow(node: Node, start: int, stop: int, delta: int = 0) -> Iterator[_Way]:
    """How the inputs ``[start, stop)`` go on, which have come to ``node`` with ``delta``."""
    at = start
    for extent in node.layer.extents():
        low, high = max(at, extent.input - delta), min(stop, extent.input + extent.size - delta)
        if low >= high:
            continue
        if at < low:
            yield _Way(at, low, delta, node, hole=True)
        moved = delta + extent.output - extent.input
        if node.lowers:
            yield from _follow(node.lowers[extent.port], low, high, moved)
        elif node.layer.as_memory() is not None:  # else an open end, judged when it gets something below
            yield _Way(low, high, moved, node, hole=False)
        at = high
    if at < stop:
        yield _Way(at, stop, delta, node, hole=True)


def _refuse_moved(top: Node, region: Reserved, way: _Way) -> None:
    if way.hole:
        low, high = way.start + way.delta, way.stop + way.delta
        inside = any(start <= low and high <= stop for start, stop in way.floor.layer.accepts())
        if inside and not way.floor.layer.fixed:
            return  # not mapped yet: see missing_direct
        found = f"nowhere in {way.floor.name!r}"
    elif way.delta:
        found = f"to {way.start + way.delta:#x} in {way.floor.name!r}"
    else:
        return
    raise InvalidArgument(
        f"the {region} has to be at the same address in memory, and from {top.name!r} {way.start:#x} leads {found}",
        iova=way.start,
        paddr=way.start + way.delta,
    )


def _range(start: int, stop: int) -> str:
    return f"[{start:#x}, {stop:#x})"
