"""Whether layers fit on each other: widths, granules and reserved regions, with the numbers if they don't.

Asked of a graph whose edges are made already, because a new edge can be wrong for what is far above it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from swiommu.address import PAGE_SIZE
from swiommu.errors import AddressInUse, InvalidArgument, OutOfRange
from swiommu.layer.graph.aperture import Fixed, fixed_pieces, reaches, reserved_regions
from swiommu.layer.graph.reserved import Reserved, ReservedKind
from swiommu.ranges import joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swiommu.layer.node import Node

__all__ = ["missing_direct", "refuse_misfit"]


def refuse_misfit(upper: Node, prefix: str = "") -> None:
    """Refuse, for ``upper`` and all above it, what can't work with what is below; sentences begin with ``prefix``.

    What never changes has to lead somewhere, and so has what page tables map now: `OutOfRange`. Windows beside a page
    table keep its pages whole and aligned: `InvalidArgument`. No mapping lies in, or leads to, a reserved region:
    `AddressInUse`. A direct region is found at the same address in memory, as far as it is mapped: `InvalidArgument`.

    >>> from swiommu.layer import Identity, Node, Span, Window, connect
    >>> lower, upper = Node(Identity("bypass", width=32)), Node(Window("bus", Span(0, 0x1000, 1 << 32)))
    >>> connect(upper, lower)
    Traceback (most recent call last):
    ...
    swiommu.errors.OutOfRange: 'bus' can't be put on 'bypass': [0x0, 0x1000) of 'bus' leads to [0x100000000, \
0x100001000), and 'bypass' takes [0x0, 0x100000000)
    """
    _refuse_landing(upper, prefix)
    for head in _heads(upper):
        _refuse_tear(head, prefix)
    for node in _upwards(upper):
        if not node.layer.fixed:
            _refuse_reserved(node, prefix)
        if not node.uppers:
            for region in _direct(node):
                for way in _follow(node, region.start, region.stop):
                    _refuse_moved(node, region, way, prefix)


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


# -- landing: widths, apertures, memories


def _refuse_landing(node: Node, prefix: str) -> None:
    if node.layer.transparent:
        # A bypass is no promise that all of its width leads somewhere; but what is above it, and is one, shows through.
        for upper in node.uppers:
            _refuse_landing(upper, prefix)
        return
    targets = [reaches(lower) for lower in node.lowers]
    starts = [[start for start, _ in ranges] for ranges in targets]
    for extent in node.layer.extents():
        place = bisect_right(starts[extent.port], extent.output) - 1
        if place >= 0 and extent.output + extent.size <= targets[extent.port][place][1]:
            continue
        lower = node.lowers[extent.port]
        taken = ", ".join(_range(start, stop) for start, stop in targets[extent.port]) or "nothing"
        raise OutOfRange(
            f"{prefix}{_range(extent.input, extent.input + extent.size)} of {node.name!r} leads to "
            f"{_range(extent.output, extent.output + extent.size)}, and {lower.name!r} takes {taken}",
            upper=node.name,
            lower=lower.name,
            iova=extent.input,
            paddr=extent.output,
            size=extent.size,
        )


# -- granules


def _heads(node: Node) -> Iterator[Node]:
    # The nodes at the upper end of the run of fixed layers that ``node`` belongs to.
    if node.uppers and node.layer.fixed:
        for upper in node.uppers:
            yield from _heads(upper)
    else:
        yield node


def _refuse_tear(head: Node, prefix: str) -> None:
    fixed = head.layer.fixed
    for start in [head] if fixed else head.lowers:
        _refuse_torn(start, head, 1 if fixed else head.layer.granule, prefix)


def _refuse_torn(start: Node, head: Node, above: int, prefix: str) -> None:
    # ``above``: the granule of the page table above the windows, 1 if there is none.
    for piece in _merged(fixed_pieces(start)):
        if piece.floor is start:
            continue  # no window between
        below = 1 if piece.floor.layer.fixed else piece.floor.layer.granule
        granules = [(each, node) for each, node in ((above, head), (below, piece.floor)) if each > 1]
        if not granules:
            continue
        granule, whose = min(granules, key=lambda each: each[0])
        # A large page may be moved by less than its size, as long as what it meets is not cut.
        if piece.delta % (granule if len(granules) > 1 else min(granule, PAGE_SIZE)):
            _refuse(prefix, piece, start, whose, granule, f"moves by {piece.delta:#x}", piece.delta)
        for each, whose in granules:
            shift = piece.delta if whose is piece.floor else 0
            for border in (piece.start + shift, piece.stop + shift):
                if border % each:
                    _refuse(prefix, piece, start, whose, each, f"has a border at {border:#x}", border)


def _refuse(prefix: str, piece: Fixed, start: Node, whose: Node, granule: int, what: str, number: int) -> None:
    raise InvalidArgument(
        f"{prefix}{_range(piece.start, piece.stop)} of {start.name!r} {what}, which tears pages of {whose.name!r}, "
        f"whose granule is {granule:#x}",
        window=start.name,
        paged=whose.name,
        number=number,
        granule=granule,
    )


def _merged(pieces: Iterable[Fixed]) -> list[Fixed]:
    found: list[Fixed] = []
    for piece in sorted(pieces, key=lambda each: each.start):
        if found and found[-1].stop == piece.start and found[-1][2:] == piece[2:]:
            found[-1] = found[-1]._replace(stop=piece.stop)
        else:
            found.append(piece)
    return found


# -- reserved regions


def _upwards(node: Node) -> list[Node]:
    # The node and all that sits on it, each once.
    found = {node: None}
    todo = [node]
    while todo:
        new = [upper for upper in todo.pop().uppers if upper not in found]
        found.update(dict.fromkeys(new))
        todo += new
    return list(found)


def _refuse_reserved(node: Node, prefix: str) -> None:
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
                _refuse_extent(prefix, node, extent.input, extent.size, "lies in", region, node)
        lower, regions = never[extent.port]
        for region in regions:
            if region.start < extent.output + extent.size and extent.output < region.stop:
                _refuse_extent(prefix, node, extent.input, extent.size, "leads to", region, lower)


def _refuse_extent(prefix: str, node: Node, at: int, size: int, what: str, region: Reserved, whose: Node) -> None:
    raise AddressInUse(
        f"{prefix}the mapping {_range(at, at + size)} of {node.name!r} {what} the {region} of {whose.name!r}",
        upper=node.name,
        iova=at,
        size=size,
        region=region,
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


def _refuse_moved(top: Node, region: Reserved, way: _Way, prefix: str) -> None:
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
        f"{prefix}the {region} has to be at the same address in memory, "
        f"and from {top.name!r} {way.start:#x} leads {found}",
        top=top.name,
        region=region,
        iova=way.start,
        paddr=way.start + way.delta,
    )


def _range(start: int, stop: int) -> str:
    return f"[{start:#x}, {stop:#x})"
