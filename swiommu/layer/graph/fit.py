"""Whether layers fit on each other: widths and granules, with the numbers if they don't.

Asked of a graph whose edges are made already, because a new edge can be wrong for what is far above it. Only what never
changes is judged: entries of tables come and go, and one whose output is no input below is a fault of the access. So
the answer is the same in whatever order edges and entries are made.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE
from swiommu.errors import InvalidArgument, OutOfRange
from swiommu.layer.graph.aperture import Fixed, fixed_pieces, reaches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swiommu.layer.node import Node

__all__ = ["refuse_misfit"]


def refuse_misfit(upper: Node, prefix: str = "") -> None:
    """Refuse, for ``upper`` and all above it, what can't work with what is below; sentences begin with ``prefix``.

    The outputs of a layer that never changes must be inputs of the layers below: `OutOfRange`. Windows beside a page
    table keep its pages whole and aligned: `InvalidArgument`. Mappings of tables are not judged.

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


# -- landing: widths, apertures, memories


def _refuse_landing(node: Node, prefix: str) -> None:
    if not node.layer.fixed:
        return
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
    if not head.layer.fixed:
        for start in head.lowers:
            _refuse_torn(start, head, head.layer.granule, prefix)
    # Each window alone too, as it is seen from a window that may yet be put on it.
    for start in _run([head] if head.layer.fixed else head.lowers):
        _refuse_torn(start, start, 1, prefix)


def _run(starts: Iterable[Node]) -> list[Node]:
    # The fixed layers from ``starts`` on, down to the first that is none, each once.
    found: dict[Node, None] = {}
    todo = list(starts)
    while todo:
        node = todo.pop()
        if node.layer.fixed and node not in found:
            found[node] = None
            todo += node.lowers
    return list(found)


def _refuse_torn(start: Node, head: Node, above: int, prefix: str) -> None:
    # ``above``: the granule of the page table above the windows, 1 if there is none.
    for piece in _merged(fixed_pieces(start)):
        if piece.floor is start:
            continue  # no window between
        if piece.floor.layer.fixed and piece.floor.layer.ports:
            continue  # an open end: judged when it gets something below
        below = 1 if piece.floor.layer.fixed else piece.floor.layer.granule
        granules = [(each, node) for each, node in ((above, head), (below, piece.floor)) if each > 1]
        if not granules:
            continue
        granule, whose = min(granules, key=lambda each: each[0])
        # A large page may be moved by less than its size, as long as what it meets is not cut.
        if piece.delta % (granule if len(granules) > 1 else min(granule, PAGE_SIZE)):
            _refuse(prefix, piece, start, whose, granule, f"moves by {piece.delta:#x}")
        for each, whose in granules:
            shift = piece.delta if whose is piece.floor else 0
            for border in (piece.start + shift, piece.stop + shift):
                if border % each:
                    _refuse(prefix, piece, start, whose, each, f"has a border at {border:#x}")


def _refuse(prefix: str, piece: Fixed, start: Node, whose: Node, granule: int, what: str) -> None:
    raise InvalidArgument(
        f"{prefix}{_range(piece.start, piece.stop)} of {start.name!r} {what}, which tears pages of {whose.name!r}, "
        f"whose granule is {granule:#x}",
    )


def _merged(pieces: Iterable[Fixed]) -> list[Fixed]:
    found: list[Fixed] = []
    for piece in sorted(pieces, key=lambda each: each.start):
        if found and found[-1].stop == piece.start and found[-1][2:] == piece[2:]:
            found[-1] = found[-1]._replace(stop=piece.stop)
        else:
            found.append(piece)
    return found


def _range(start: int, stop: int) -> str:
    return f"[{start:#x}, {stop:#x})"
