"""Shadows: one page table that stands for a whole way. Dear to keep, cheap to walk, and the same to look at.

What a hypervisor does that has no nested hardware: it mirrors what the guest's table and its own lead to together.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, ClassVar, cast

import attrs

from swiommu.address import Access, Prot
from swiommu.errors import InvalidArgument
from swiommu.layer.attributes import NEUTRAL, PERMISSIONS, READ_WRITE, MemoryType, allowed
from swiommu.layer.base import Extent, Fault, FaultClass, FaultKind, Layer, Read
from swiommu.layer.doors import access
from swiommu.layer.extents import Piece, pieces, terminals
from swiommu.layer.kinds.identity import Identity
from swiommu.layer.node import Chain, Node, as_path
from swiommu.layer.path import Walker
from swiommu.pagetable import MOCK, CountingTables, Leaf, RadixTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.layer.kinds.memory import Memory
    from swiommu.layer.path import Path
    from swiommu.pagetable import Format, TableMemory

__all__ = ["Shadow", "flatten"]

_TYPE_BITS = {MemoryType.DEVICE: Prot.MMIO, MemoryType.WRITE_BACK: Prot.CACHE}


class Shadow(Layer):
    """Translates as ``source`` did at the last `sync` (the first is now), by one table of ``format``.

    What a walker of the source would not get through to is not held, nor what neither reads nor writes and the format
    can't say (leaves that only let execute, in some). ``labelled``: a fault names the layer of the source that raises
    it, found out when it happens, as far as the source still refuses. Memory types and shareability are kept beside the
    table, and so is the memory that a page leads to: ``ports`` are the source's memories (see `flatten`).

    Leaves are never larger than the blocks of the source. Raises as `sync` does.

    >>> from swiommu.layer import Paged, Span, Window
    >>> guest = RadixTable(MOCK, CountingTables())
    >>> guest.map_run(0x1000, 0x8000, 0x1000, 1, Prot.READ)
    >>> upper = Node(Paged("guest", guest), walker=Walker.PHYSICAL)
    >>> lower = Window("host", Span(0x8000, 0x1000, 0x30_0000))
    >>> shadow = Shadow("shadow", Chain(upper, lower))
    >>> answer = access(shadow, 0x1800, 4, Access.READ); hex(answer.runs[0].output), answer.refs
    ('0x308800', 4)
    >>> print(access(shadow, 0x1800, 4, Access.WRITE).fault)
    permission fault of WRITE access at 0x1800 in layer 'guest'
    >>> guest.map_run(0x2000, 0x8000, 0x1000, 1, Prot.READ)
    >>> print(access(shadow, 0x2000, 4, Access.READ).fault)
    translation fault of READ access at 0x2000 in layer 'shadow'
    >>> shadow.sync(), access(shadow, 0x2000, 4, Access.READ).size
    ([(8192, 4096)], 4)
    """

    kind: ClassVar[str] = "shadow"

    def __init__(
        self,
        name: str,
        source: Path | Layer,
        *,
        format: Format = MOCK,  # noqa: A002 - the word for it
        tables: TableMemory | None = None,
        labelled: bool = True,
    ) -> None:
        super().__init__(name)
        self.source = as_path(source)
        self.labelled = labelled
        self.granule = format.granule
        self.input_width = format.aperture_width
        self.output_width = format.output_width
        self.memories = terminals(self.source)
        self.ports = tuple("out" if memory is None else memory.name for memory in self.memories)
        self._tables = CountingTables() if tables is None else tables
        self._pieces: list[Piece] = []
        self._starts: list[int] = []
        self.table = RadixTable(format, self._tables, rightless=True)
        try:
            self.sync()
        except BaseException:
            self.table.dissolve()
            raise

    def sync(self) -> list[tuple[int, int]]:
        """Take over what the source maps now; the ranges (start, size) whose translation differs, ascending.

        What caches hold of these is stale now. All or nothing: a new table is filled before the old one goes. Raises
        `InvalidArgument` where the source has a block smaller than the format's smallest page, allows what a leaf of
        the format can't say, or leads to a memory that it did not lead to when the shadow was made, `OutOfRange` where
        it reaches further than the format does, and what ``tables`` raises.
        """
        fresh = list(self._reached())
        self._require_ports(fresh)
        table = RadixTable(self.table.format, self._tables, rightless=True)
        try:
            for piece in fresh:
                self._hold(table, piece)
        except BaseException:
            table.dissolve()
            raise
        self.table.dissolve()
        changed = {piece[:6] for piece in fresh} ^ {piece[:6] for piece in self._pieces}
        self.table = table
        self._pieces = fresh
        self._starts = [piece.input for piece in fresh]
        ranges = sorted({(start, size) for start, _, size, *_ in changed})
        if self.watch is not None:
            for start, size in ranges:
                self.watch("sync", start, size)
        return ranges

    def look(self, at: int, read: Read) -> Extent | FaultKind:
        """The leaf around ``at``; RANGE beyond the input width, TRANSLATION in a hole."""
        if at >> self.input_width:
            return FaultKind.RANGE
        _, item, pgsize = self.table.walk(at, read)
        if not isinstance(item, Leaf):
            return FaultKind.TRANSLATION
        return self._extent(at & -pgsize, item, pgsize)

    def extents(self) -> Iterator[Extent]:
        """The leaves, ascending."""
        return (self._extent(start, leaf, pgsize) for start, leaf, pgsize in self.table.each_leaf())

    def stored(self, address: int, width: int) -> int:
        """The entry in the table's own page."""
        del width  # entries of a radix table are 64 bits
        return self.table.entry_at(address)

    def blame(self, fault: Fault) -> Fault:
        """The same refusal, as the source words it now; left as it is if unlabelled, or if the source would not refuse.

        Source: a hypervisor that walks the guest's table after a shadow page fault, to see whose fault it is.
        """
        if not self.labelled or fault.address is None:
            return fault
        wanted = fault.access
        if fault.fault_class is FaultClass.WALK:
            wanted = Access.READ | Access.WRITE if fault.implicit_write else Access.READ
        found = access(self.source, fault.address, 1, wanted, uncached=True).fault
        if found is None:
            return fault
        if found.fault_class is FaultClass.WALK:
            return attrs.evolve(found, access=fault.access, iova=fault.iova)
        return attrs.evolve(fault, layer=found.layer, kind=found.kind, address=found.address)

    def describe(self) -> str:
        """The format, and how much it holds."""
        form, count = self.table.format, sum(self.table.leaves.values())
        leaves = "1 leaf" if count == 1 else f"{count} leaves"
        return f"{form.name}, {form.input_width} to {form.output_width} bits, {leaves}"

    def check(self) -> None:
        """Assert: 1. the table is sound, 2. it holds the pieces of the last sync and nothing else."""
        self.table.check()
        held = sum(pgsize * leaves for pgsize, leaves in self.table.leaves.items())
        wanted = sum(piece.size for piece in self._pieces)
        assert held == wanted, f"{held:#x} bytes in the table, {wanted:#x} in {self._pieces}"
        for start, leaf, pgsize in self.table.each_leaf():
            piece = self._piece(start)
            assert piece is not None, f"a leaf at {start:#x}, but no piece"
            assert start + pgsize <= piece.stop, f"the leaf at {start:#x} leaves {piece}"
            assert leaf.oa - start == piece.output - piece.input, f"the leaf at {start:#x} leads to {leaf.oa:#x}"

    def _reached(self) -> Iterator[Piece]:
        # What software knows, as far as the walkers of the source find the same. One walk a piece says it for all of
        # it: its pages share every entry.
        form = self.table.format
        for piece in pieces(self.source):
            rights = allowed(piece.prot)
            held = _held(form, piece)
            if held != rights and not piece.prot & READ_WRITE:
                continue
            if rights:
                answer = access(self.source, piece.input, piece.size, Access(rights & -rights), uncached=True)
                if answer.fault is not None or answer.runs[0][:3] != piece[:3]:
                    continue
            if held != rights:
                raise InvalidArgument(
                    f"shadow {self.name!r}: {piece.size:#x} bytes at {piece.input:#x} allow {_words(rights)}, "
                    f"and a leaf of format {form.name!r} for them would allow {_words(held)}",
                    iova=piece.input,
                    size=piece.size,
                )
            yield piece

    def _require_ports(self, fresh: Sequence[Piece]) -> None:
        for piece in fresh:
            if piece.memory not in self.memories:
                name = None if piece.memory is None else piece.memory.name
                raise InvalidArgument(
                    f"shadow {self.name!r}: {piece.input:#x} leads to memory {name!r} now, "
                    f"but it was made for {list(self.ports)}"
                )

    def _hold(self, table: RadixTable, piece: Piece) -> None:
        limit = (piece.alignment << 1) - 1
        at, to, size = piece[:3]
        if (at | to | size | piece.alignment) & (self.granule - 1):
            raise InvalidArgument(
                f"shadow {self.name!r}: {size:#x} bytes at {at:#x} to {to:#x} in blocks of {piece.block:#x} "
                f"can't be held in pages of {self.granule:#x}",
                iova=at,
                size=size,
            )
        prot = piece.prot & PERMISSIONS | _TYPE_BITS.get(piece.attributes.memory_type, Prot.NONE)
        table.map(at, to, size, prot, pgsizes=limit)

    def _piece(self, at: int) -> Piece | None:
        place = bisect_right(self._starts, at) - 1
        return self._pieces[place] if place >= 0 and at < self._pieces[place].stop else None

    def _extent(self, start: int, leaf: Leaf, pgsize: int) -> Extent:
        piece = self._piece(start)
        attributes, port = NEUTRAL, 0
        if piece is not None:
            attributes, port = piece.attributes, self.memories.index(piece.memory)
        return Extent(start, leaf.oa, pgsize, pgsize, leaf.prot & PERMISSIONS, attributes, port)


def flatten(
    path: Path | Layer,
    *,
    name: str = "flat",
    format: Format = MOCK,  # noqa: A002 - the word for it
    tables: TableMemory | None = None,
    labelled: bool = True,
) -> Node:
    """A `Shadow` of ``path`` in its place: over the same memories, entered by the same space, its table physical.

    Raises as `Shadow` does.

    >>> from swiommu.layer import Paged
    >>> stages = [Paged(word, RadixTable(MOCK, CountingTables())) for word in ("s1", "s2")]
    >>> for stage in stages:
    ...     stage.table.map_run(0, 0, 0x1000, 16, Prot.READ | Prot.WRITE)
    >>> nested = Chain(*stages)
    >>> access(nested, 0x5000, 8, Access.READ).refs, access(flatten(nested), 0x5000, 8, Access.READ).refs
    (24, 4)
    """
    source = as_path(path)
    shadow = Shadow(name, source, format=format, tables=tables, labelled=labelled)
    top = source
    while isinstance(top, Chain):
        top = top.upper
    node = Node(shadow, input_space=top.input_space if isinstance(top, Node) else None, walker=Walker.PHYSICAL)
    if shadow.memories != (None,):
        for memory in shadow.memories:
            lower = Node(Identity("open") if memory is None else cast("Memory", memory))
            lower.uppers.append(node)
            node.lowers.append(lower)
    return node


def _held(form: Format, piece: Piece) -> int:
    # The accesses that a leaf for the piece allows: an entry without rights is an empty one in some formats, and in
    # others one that can be read.
    depth = len(form.levels) - 1
    leaf = form.decode(form.leaf_entry(0, depth, int(piece.prot & PERMISSIONS), 0), depth)
    return allowed(leaf.prot) if isinstance(leaf, Leaf) else 0


def _words(rights: int) -> str:
    return "|".join(flag.name or "" for flag in Access if flag & rights) or "nothing"
