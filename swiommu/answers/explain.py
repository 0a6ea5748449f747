"""``swiommu explain translate``: one access through a stack, step by step, and who would have refused it.

The hops of a watched access are put together again to what they were: visits of layers, the entries that each read,
and inside these the visits that finding an entry took.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import attrs

from swiommu.address import Access, Prot
from swiommu.layer import FaultKind, FlatTable, HopKind, Node, Shadow, Walker, access
from swiommu.layer.node import members
from swiommu.pagetable import Leaf, RadixTable, Table
from swiommu.pagetable.dump import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from swiommu.layer import Fault, Hop, Run, Translation

__all__ = ["Entry", "Explanation", "Visit", "Way", "explain", "ways"]

_LETTERS: Final = {"r": Access.READ, "w": Access.WRITE, "x": Access.EXEC}
_READ_WRITE: Final = Prot.READ | Prot.WRITE


@attrs.define
class Entry:
    """An entry of a table: at ``address`` of the walker's side, which is ``output`` in the end, holding ``value``.

    ``ref`` is its number among the references, None if a cache knew it; ``inner`` are the visits that finding it took.
    Without a ``value`` it was not found: the last of ``inner`` refused. ``depth`` counts the entries of the walk before
    it: 0 is an entry of the root, at whatever level of the format that is.
    """

    address: int
    inner: list[Visit]
    output: int | None = None
    value: int | None = None
    ref: int | None = None
    depth: int = 0


@attrs.define
class Visit:
    """``address`` at ``layer``: the entries read there, then on to ``output``, or a fault, or the answer of a cache."""

    layer: str
    address: int
    entries: list[Entry] = attrs.Factory(list)
    output: int | None = None
    cached: bool = False
    fault: bool = False


Way = list[Visit]
"""The visits of one address, top first; a new page of a burst begins a new way."""


def ways(hops: Iterable[Hop]) -> list[Way]:
    """The hops of a watched access as ways, one for every piece of the burst that was looked up.

    >>> from swiommu.layer import Chain, Identity, Span, Window
    >>> stack = Chain(Window("bus", Span(0, 0x1000, 0x4000)), Identity("bypass"))
    >>> [way] = ways(access(stack, 0x10, 4, Access.READ, watched=True).hops)
    >>> [(visit.layer, hex(visit.output)) for visit in way]
    [('bus', '0x4010'), ('bypass', '0x4010')]
    """
    found: list[Way] = []
    open_ways: list[Way] = []  # by nesting: the way under way there
    for hop in hops:
        while len(open_ways) > hop.nesting + 1:
            open_ways.pop()
        if hop.kind is HopKind.ENTER:
            if len(open_ways) == hop.nesting:
                open_ways.append([])
                _begin(open_ways, found, hop.address)
            elif not hop.nesting and hop.layer == open_ways[0][0].layer:
                open_ways[0] = []
                found.append(open_ways[0])
            open_ways[hop.nesting].append(Visit(hop.layer, hop.address))
            continue
        visit = open_ways[hop.nesting][-1]
        if hop.kind is HopKind.READ or (hop.kind is HopKind.HIT and hop.value is not None):
            _read(visit, hop)
        elif hop.kind is HopKind.HIT:
            visit.cached, visit.output = True, hop.output
        elif hop.kind is HopKind.LEAVE:
            visit.output = hop.output
        elif hop.layer == visit.layer:
            visit.fault, visit.output = True, None
        else:  # a cache knew the whole path, and what it keeps of a layer below refuses the access there
            visit.output = hop.address
            open_ways[hop.nesting].append(Visit(hop.layer, hop.address, fault=True))
    return found


def _begin(open_ways: list[Way], found: list[Way], address: int) -> None:
    way = open_ways[-1]
    if len(open_ways) == 1:
        found.append(way)
    else:
        outer = open_ways[-2][-1]
        outer.entries.append(Entry(address, way, depth=len(outer.entries)))


def _read(visit: Visit, hop: Hop) -> None:
    if not (visit.entries and visit.entries[-1].inner and visit.entries[-1].value is None):
        visit.entries.append(Entry(hop.address, [], depth=len(visit.entries)))
    entry = visit.entries[-1]
    entry.output, entry.value, entry.ref = hop.output, hop.value, hop.ref


@attrs.frozen
class Explanation:
    """An access, what became of it, and what would become of others: the answer of `explain`.

    ``refusals`` says for r, w and x who would refuse them at the access's first byte, None if nobody. ``nodes`` is
    everything that data and table reads may pass, by name.

    >>> from swiommu.stackfile import read_stack
    >>> answer = explain(read_stack("nested")["camera"], 0x14000, 8, Access.WRITE)
    >>> print(answer.answer.fault); answer.word("host"), answer.refusals["r"]
    permission fault of WRITE access at 0x14000 in layer 'guest'
    ('ipa', None)
    """

    stack: str
    top: Node
    iova: int
    size: int
    wanted: Access
    answer: Translation
    refusals: dict[str, Fault | None]
    nodes: dict[str, Node] = attrs.field(repr=False)

    @property
    def ways(self) -> list[Way]:
        """The visits, a list for every piece of the burst that was looked up."""
        return ways(self.answer.hops)

    def refs_by_layer(self) -> dict[str, int]:
        """References by the layer whose entry was read, in the order of the first."""
        return dict(Counter(hop.layer for hop in self.answer.hops if hop.ref is not None))

    def word(self, layer: str | None) -> str:
        """What an address that enters ``layer`` is called: iova at the top, pa in a memory, ipa between."""
        node = self.nodes.get(layer or "")
        if node is None or node.layer.as_memory() is not None:
            return "pa"
        shadow = next((each for each in self.nodes.values() if node in _sources(each)), None)
        if shadow is not None:  # what a shadow stands for is entered as the shadow is
            return self.word(shadow.name) if node is _sources(shadow)[0] else "ipa"
        above = [upper for upper in node.uppers if upper.name in self.nodes]
        return "iova" if all(upper.layer.kind == "device" for upper in above) else "ipa"

    def word_of_tables(self, layer: str) -> str:
        """What an address of an entry of ``layer`` is called, on the walker's side."""
        node = self.nodes.get(layer)
        if node is None or node.walker is Walker.PHYSICAL:
            return "pa"
        through = node.lowers[:1] if node.walker is Walker.NESTED else members(node.walker)
        return self.word(through[0].name) if through else "pa"

    def meaning(self, visit: Visit, entry: Entry) -> str:
        """What an entry says by itself, in words; nothing for a layer whose table has no format.

        A leaf has the size and the rights that its word encodes; what the tables above it withhold is said there.
        """
        node = self.nodes.get(visit.layer)
        layer = node.layer if node else None
        if entry.value is None:
            return "not found"
        if isinstance(layer, FlatTable):
            return f"page of {pages(layer.granule)}" if entry.value & 1 else "empty"
        table = getattr(layer, "table", None)
        if not isinstance(table, RadixTable):
            return ""
        form, depth = table.format, table.root_depth + entry.depth
        decoded = form.decode(entry.value, depth)
        item = form.checked(decoded, depth)
        if isinstance(item, Table):
            rights = item.allows | item.prot & Prot.NOEXEC
            narrowed = "" if rights == _READ_WRITE else f", {permissions(rights)}"
            return f"next table at {self.word_of_tables(visit.layer)} {item.oa:#x}{narrowed}"
        if isinstance(item, Leaf):
            return f"page of {pages(form.levels[depth].sizes[item.order])}, {permissions(item.prot)}"
        return f"invalid: {refusal(form, decoded, depth)}" if entry.value else "empty"

    def to_json(self) -> dict[str, Any]:
        """The document ``swiommu.explain.translate/1``; addresses are hexadecimal texts."""
        return {
            "schema": "swiommu.explain.translate/1",
            "stack": self.stack,
            "from": self.top.name,
            "iova": hex(self.iova),
            "size": self.size,
            "access": letters(self.wanted),
            "reached": self.answer.size,
            "runs": [_run(run) for run in self.answer.runs],
            "refs": self.answer.refs,
            "refs_by_layer": self.refs_by_layer(),
            "fault": _fault(self.answer.fault),
            "refusals": {letter: _fault(fault) for letter, fault in self.refusals.items()},
            "walk": [[self._visit(visit) for visit in way] for way in self.ways],
        }

    def _visit(self, visit: Visit) -> dict[str, Any]:
        return {
            "layer": visit.layer,
            "address": hex(visit.address),
            "entries": [
                {
                    "ref": entry.ref,
                    "address": hex(entry.address),
                    "found_at": _hex(entry.output),
                    "value": _hex(entry.value),
                    "meaning": self.meaning(visit, entry),
                    "walk": [self._visit(each) for each in entry.inner],
                }
                for entry in visit.entries
            ],
            "output": _hex(visit.output),
            "cached": visit.cached,
            "fault": visit.fault,
        }


def explain(top: Node, iova: int, size: int, wanted: Access, *, stack: str = "", again: bool = False) -> Explanation:
    """The access, watched, and what other accesses to its first byte would meet; caches of the stack are not asked.

    ``again``: they are, by an access that is like one before it, which filled them.

    >>> from swiommu.stackfile import read_stack
    >>> answer = explain(read_stack("nested")["camera"], 0x10010, 8, Access.READ)
    >>> answer.answer.refs, answer.refs_by_layer()
    (24, {'host': 20, 'guest': 4})
    >>> [f"{visit.layer} {visit.address:#x}" for visit in answer.ways[0]]
    ['camera 0x10010', 'guest 0x10010', 'host 0x40800010', 'ram 0x80800010']
    """
    if again:
        access(top, iova, size, wanted)
    return Explanation(
        stack,
        top,
        iova,
        size,
        wanted,
        access(top, iova, size, wanted, watched=True, uncached=not again),
        {letter: access(top, iova, 1, each, uncached=True).fault for letter, each in _LETTERS.items()},
        {each.name: each for node in _below(top) for each in (*_sources(node), node)},
    )


def letters(wanted: Access) -> str:
    """An access as r, w, x.

    >>> letters(Access.READ | Access.EXEC)
    'rx'
    """
    return "".join(letter for letter, each in _LETTERS.items() if wanted & each)


def permissions(prot: int) -> str:
    """What a leaf allows; that it may be executed is said only where it may not.

    >>> permissions(3), permissions(9)
    ('rw', 'r, no x')
    """
    allowed = letters(Access(prot & 3)) or "nothing"
    return f"{allowed}, no x" if prot & 8 else allowed


def pages(size: int) -> str:
    """A page size as people write it.

    >>> pages(4096), pages(2 << 20)
    ('4 KiB', '2 MiB')
    """
    unit = min((size.bit_length() - 1) // 10, 4)
    return f"{size >> 10 * unit} {('byte' if size == 1 else 'bytes', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"


def _sources(node: Node) -> list[Node]:
    """The layers that a shadow stands for and that its faults name, top first; none of any other layer."""
    if not isinstance(node.layer, Shadow):
        return []
    return list(dict.fromkeys(each for start in members(node.layer.source) for each in _below(start)))


def _below(top: Node) -> Iterator[Node]:
    seen: dict[Node, None] = {top: None}
    todo = [top]
    while todo:
        node = todo.pop()
        yield node
        walkers: Sequence[Node] = () if isinstance(node.walker, Walker) else list(members(node.walker))
        for lower in (*node.lowers, *walkers):
            if lower not in seen:
                seen[lower] = None
                todo.append(lower)


def _hex(number: int | None) -> str | None:
    return None if number is None else hex(number)


def _run(run: Run) -> dict[str, Any]:
    return {
        "iova": hex(run.input),
        "output": hex(run.output),
        "size": run.size,
        "page_size": run.page_size,
        "prot": permissions(run.prot),
        "memory": run.memory or None,
    }


def _fault(fault: Fault | None) -> dict[str, Any] | None:
    if fault is None:
        return None
    return {
        "layer": fault.layer,
        "kind": FaultKind(fault.kind).value,
        "class": fault.fault_class.value,
        "walk_of": fault.walk_of,
        "access": letters(fault.access),
        "address": _hex(fault.address),
        "iova": hex(fault.iova),
        "implicit_write": fault.implicit_write,
    }
