"""Laws of what an access reaches: nothing but what is mapped, in segments that are few, at a known cost, with marks."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE, Access
from swiommu.errors import SpaceMismatch
from swiommu.layer import FaultClass, HopKind, Node, Walker, access
from swiommu.testing.probes import Probe, glance, tell, tell_glance
from swiommu.testing.stacks import chained
from swiommu.testing.statements import broken
from swiommu.testing.twin import Twin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.address import Address
    from swiommu.layer import Layer, Marks, Path
    from swiommu.testing.probes import Glance

_MarksOf = dict[str, tuple[set[tuple[int, int]], set[tuple[int, int]]]]
"""Layer -> accessed and dirty leaves."""

__all__ = ["cost", "dirty", "no_leak", "references", "segments"]


def no_leak(nodes: Sequence[Node], probes: Sequence[Probe], foreign: Sequence[Address] = ()) -> None:
    """Law 11: a chain of ``nodes``, top first, leads where the extents of its layers say, and nowhere else.

    ``foreign`` are addresses of other spaces, in ranges that the top does not map: the door refuses them for what
    they are (`SpaceMismatch`), and as plain numbers they reach nothing.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.layer import Span, Window
    >>> up, down = Window("up", Span(0, 0x2000, 0x4000)), Window("down", Span(0x5000, 0x1000))
    >>> no_leak([Node(up), Node(down)], [Probe(0x800, 0x1000)], [PhysSpace("ram").at(0x5000)])
    """
    path, twin = chained(nodes), Twin([node.layer for node in nodes])
    for probe in probes:
        for at in probe.places():
            _where_software_says(glance(path, at, probe.access), twin, at, probe.access)
    for address in foreign:
        seen = glance(path, address.value, Access.READ)
        if seen.reach is not None:
            raise broken(
                11, f"{address!r}, taken for an address of the top, reaches {tell_glance(seen, address.value)}"
            )
        try:
            nodes[0].translate(address, 1, Access.READ)
        except SpaceMismatch:
            continue
        raise broken(11, f"{address!r} was let in at the top, whose space is {nodes[0].input_space!r}")


def _where_software_says(seen: Glance, twin: Twin, at: int, wanted: Access) -> None:
    place = twin.allows(at, wanted)
    told = f"{at:#x} leads to {tell_glance(seen, at)}"
    if seen.reach is None:
        if place is not None and seen.fault is not None and seen.fault.fault_class is FaultClass.DATA:
            raise broken(11, f"{told}, though {place.output:#x} is mapped there")
        return
    if place is None or place.output != seen.reach.to(at):
        raise broken(11, f"{told}, where {'nothing' if place is None else hex(place.output)} is mapped")
    if (place.prot, place.attributes) != (seen.reach.prot, seen.reach.attributes):
        raise broken(11, f"{told}, {seen.reach.attributes}, where {place.prot!r}, {place.attributes} is said")
    reach = seen.reach
    pieces = list(twin.pieces(reach.input, reach.size))
    for start, output, _ in pieces:
        if output - start != reach.output - reach.input:
            raise broken(11, f"{told}, though {start:#x} leads to {output:#x}")
    if sum(size for _, _, size in pieces) != reach.size:
        raise broken(11, f"{told}, though not all of that range is mapped")


def segments(path: Path | Layer, probes: Sequence[Probe]) -> None:
    """Law 15: the runs of a burst are what its bytes are alone, none is missing, and no two could be one.

    Bytes around every border of a run and of a page are tried alone; the first one that fails is the fault's.

    >>> from swiommu.layer import Span, Window
    >>> segments(Window("bus", Span(0, 0x1000, 0x4000), Span(0x1000, 0x1000, 0x9000)), [Probe(0x800, 0x2000)])
    """
    for probe in probes:
        answer = probe.on(path, uncached=True)
        told = f"{probe}: {tell(answer)}"
        stop = probe.start + answer.size
        if (answer.fault is None) != (answer.size == probe.size) or answer.size > probe.size:
            raise broken(15, f"{told}: {answer.size} bytes")
        if answer.fault is not None and answer.fault.iova != stop:
            raise broken(15, f"{told}: the record is not of the first byte that fails, {stop:#x}")
        at = probe.start
        for run in answer.runs:
            if run.input != at or run.size < 1:
                raise broken(15, f"{told}: no run at {at:#x}")
            at += run.size
        for one, other in pairwise(answer.runs):
            if one.output + one.size == other.output and one[3:] == other[3:]:
                raise broken(15, f"{told}: the runs at {one.input:#x} and {other.input:#x} are one")
        for byte in _around(probe, [run.input for run in answer.runs] + [stop]):
            alone = access(path, byte, 1, probe.access, uncached=True)
            inside = [run for run in answer.runs if run.input <= byte < run.input + run.size]
            said = [(run.output + byte - run.input, run.prot, run.attributes, run.memory) for run in inside]
            if said != [(run.output, run.prot, run.attributes, run.memory) for run in alone.runs]:
                raise broken(15, f"{told}: the byte at {byte:#x} alone: {tell(alone)}")
            if byte == stop and alone.fault != answer.fault:
                raise broken(15, f"{told}: the first failing byte alone: {tell(alone)}")


def _around(probe: Probe, borders: list[int]) -> list[int]:
    first, stop = probe.start, probe.start + probe.size
    last_reached = borders[-1]
    pages = range((first & -PAGE_SIZE) + PAGE_SIZE, stop, PAGE_SIZE)
    places = {at + near for at in (*borders, *pages, first, stop) for near in (-1, 0, 1)}
    return sorted(at for at in places if first <= at < stop and at <= last_reached)


def references(levels: Sequence[int], nested: Sequence[bool]) -> int:
    """Table entries read for one address through stages that walk ``levels`` each, top first.

    ``nested`` says of each stage whether its tables are read through the stages below it.

    >>> references([4, 4], [True, True]), references([4, 4, 4], [True, False, True]), references([3, 4], [True] * 2)
    (24, 44, 19)
    """
    total = 0
    for count, through in zip(reversed(levels), reversed(nested), strict=True):
        total += count * ((total if through else 0) + 1)
    return total


def cost(nodes: Sequence[Node], probes: Sequence[Probe], levels: Sequence[int] = ()) -> None:
    """Law 20: an access reads the entries of each layer's table, and for each what its walker reads; data costs none.

    The entries are counted by asking each layer of the chain alone. ``levels``, if given, is how many each of them
    walks, and the closed formula has to hold too (see `references`).

    >>> from swiommu.layer import Paged
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> stages = [Paged(name, RadixTable(MOCK, CountingTables())) for name in ("s1", "s2")]
    >>> for stage in stages:
    ...     stage.table.map_run(0, 0, 0x1000, 16, 3)
    >>> cost([Node(stage) for stage in stages], [Probe(0x5000)], [4, 4])
    """
    path, chain = chained(nodes), list(nodes)
    nested = [node.walker is Walker.NESTED for node in nodes]
    for probe in probes:
        seen = glance(path, probe.start, probe.access)
        if seen.reach is None:
            continue
        told = f"{probe.start:#x} leads to {tell_glance(seen, probe.start)}"
        counted = _counted(chain, probe.start)
        if seen.refs != counted:
            raise broken(20, f"{told}; layer by layer it is {counted}")
        if levels and seen.refs != references(levels, nested):
            raise broken(20, f"{told}; by the formula it is {references(levels, nested)}")
        whole = access(path, seen.reach.input, seen.reach.size, probe.access, uncached=True)
        one = access(path, seen.reach.input, 1, probe.access, uncached=True)
        if whole.refs != one.refs:
            raise broken(20, f"{told}; one byte there costs {one.refs}, {seen.reach.size:#x} bytes {whole.refs}")


def _counted(chain: list[Node], at: int) -> int:
    total = 0
    for number, node in enumerate(chain):
        below = chain[number + 1 :]
        if isinstance(node.walker, Node):
            below = [node.walker]
        elif node.walker is Walker.PHYSICAL:
            below = []
        entries, output = _entries(node.layer, at)
        total += sum(1 + _counted(below, entry) for entry in entries)
        if output is None:
            break
        at = output
    return total


def _entries(layer: Layer, at: int) -> tuple[list[int], int | None]:
    # Addresses of the entries that the layer reads for `at`, and where that leads by the table's own pages.
    entries: list[int] = []

    def read(address: int, width: int = 8) -> int:
        entries.append(address)
        return layer.stored(address, width)

    found = layer.look(at, read)
    return entries, found.output + at - found.input if isinstance(found, tuple) else None


def dirty(nodes: Sequence[Node], probes: Sequence[Probe]) -> None:
    """Law 16: an access marks the leaf of every marked layer on its way; a write makes it dirty; nothing else does.

    So what is dirty below holds the image of what is dirty above, each at its own leaf size. Where a walker writes
    accessed bits (``hardware_ad``), the leaves that hold its tables are dirty too. Bytes that fail leave no mark, nor
    does an access that is ``uncached``.

    >>> from swiommu.layer import Marks, Paged
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> layer = Paged("iommu", RadixTable(MOCK, CountingTables()), marks=Marks())
    >>> layer.table.map_run(0, 0, 0x1000, 2, 3)
    >>> dirty([Node(layer)], [Probe(0x800, 0x2000, Access.WRITE)])
    """
    path, chain = chained(nodes), list(nodes)
    for probe in probes:
        before = _marks(chain)
        answer = access(path, probe.start, probe.size, probe.access, uncached=True)
        _same_marks(probe, "uncached", before, _marks(chain))
        if answer.fault is not None:
            access(path, probe.start, probe.size, probe.access, atomic=True)
            _same_marks(probe, "atomic, and failed", before, _marks(chain))
        for layer, leaf, written in _touched(path, chain, probe):
            before[layer][0].add(leaf)
            if written:
                before[layer][1].add(leaf)
        probe.on(path)
        _same_marks(probe, "each leaf on the way", before, _marks(chain))


def _marks(chain: list[Node]) -> _MarksOf:
    marks: dict[str, Marks] = {node.name: node.layer.marks for node in chain if getattr(node.layer, "marks", None)}  # type: ignore[attr-defined]
    return {name: (set(one.accessed), set(one.dirty)) for name, one in marks.items()}


def _same_marks(probe: Probe, when: str, wanted: _MarksOf, got: _MarksOf) -> None:
    for layer, leaves in got.items():
        for number, word in enumerate(("accessed", "dirty")):
            is_so, should = leaves[number], wanted[layer][number]
            if is_so != should:
                told = f"wrongly {word}: {_told(is_so - should)}, wrongly not: {_told(should - is_so)}"
                raise broken(16, f"{probe} ({when}): leaves of {layer!r} {told}")


def _told(leaves: set[tuple[int, int]]) -> str:
    return ", ".join(f"{start:#x}+{size:#x}" for start, size in sorted(leaves)) or "none"


def _touched(path: Path, chain: list[Node], probe: Probe) -> Iterator[tuple[str, tuple[int, int], bool]]:
    # (layer, leaf, written) of every marked layer, by the extents and by who entered whom on the way.
    layers = {node.name: node.layer for node in chain}
    marked = {name: Twin([layer]).layers[0] for name, layer in layers.items() if getattr(layer, "marks", None)}
    at, stop = probe.start, probe.start + probe.size
    while at < stop:
        seen = glance(path, at, probe.access, watched=True)
        if seen.reach is None:
            return
        readers: dict[int, str] = {}
        for hop in seen.hops:
            if hop.kind is HopKind.ENTER:
                readers[hop.nesting] = hop.layer
                wrote = layers[readers[hop.nesting - 1]].hardware_ad if hop.nesting else bool(probe.access & 2)
                if hop.layer in marked:
                    starts, extents = marked[hop.layer]
                    extent = extents[bisect_right(starts, hop.address) - 1]
                    yield hop.layer, (extent.input, extent.size), wrote
        at = seen.reach.input + seen.reach.size
