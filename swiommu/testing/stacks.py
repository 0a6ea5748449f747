"""Stacks of layers as values: small enough that every border is met, described so that a failing one can be read.

A `Recipe` says what lies where; `Recipe.build` makes layers of it, as often as a law needs. Addresses are counted from
the beginning of each space, and each space has a base of its own far from the others', so that an address of one
space, taken for one of another, reaches nothing.

In every space the first 32 pages are for data. Behind them lies, for each stage, the place of its tables, which the
stages below map on: 32 pages each, from page 64 on. Tables that are too large for that lie 1 MiB from the beginning,
where nobody maps: their walkers do not go through the stages below.
"""

from __future__ import annotations

import sys
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import attrs

from swiommu.address import PAGE_SIZE, PhysSpace, Prot
from swiommu.errors import InvalidArgument, NoMemory
from swiommu.layer import (
    Chain,
    FlatTable,
    Identity,
    Layer,
    Marks,
    Memory,
    Node,
    Paged,
    Router,
    Shadow,
    Span,
    Walker,
    Window,
)
from swiommu.memory import SparseRam
from swiommu.pagetable import CountingTables, RadixTable, TablePages, blank
from swiommu.testing.formats import LAW_FORMATS, leaf_size, replaces_live_pages
from swiommu.testing.twin import Twin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.layer import Path
    from swiommu.pagetable import Format, TableMemory

__all__ = ["BASES", "DATA", "SLOT", "TABLES", "Patch", "Recipe", "SlotTables", "Stack", "Stage", "chained"]

DATA = 32 * PAGE_SIZE
"""Bytes for data at the beginning of each space."""
TABLES = 64 * PAGE_SIZE
"""Where the tables of the first stage lie, in the space below it."""
SLOT = 32 * PAGE_SIZE
"""Bytes for the tables of one stage."""
BASES = tuple(n << 20 for n in (3, 17, 5, 40, 28))
"""Where each space of a stack begins, top first: far apart, in no order."""

FAR_TABLES = 1 << 20
"""Where the tables of a stage lie that are too large for its slot."""
FAR_SIZE = 128 * PAGE_SIZE
"""Bytes for these: two such page tables, as a shadow has them while it is filled."""


class Patch(NamedTuple):
    """``size`` bytes of a stage: from ``start`` to ``output``, each counted from the beginning of its space.

    ``page`` is the size of the leaves, where there are any, as far as the format has that one: else they are smaller.
    """

    start: int
    output: int
    size: int
    prot: Prot = Prot.READ | Prot.WRITE
    page: int = PAGE_SIZE


@attrs.frozen
class Stage:
    """One layer of a recipe: ``kind`` is "paged", "flat" (page by page), "shadow", "window", "router" or "identity".

    A shadow is that of a page table which nobody else sees; its faults bear its own name.

    ``walker``: where its tables are read: "nested" (through the stages below), "physical" (as they stand) or "own" (a
    memory of its own). ``format``: the name, in `LAW_FORMATS`, of that of a paged stage's table, or a shadow's.

    >>> Stage("paged", format="arm-lpae-64k-s1").granule, Stage("paged", format="arm-lpae-64k-s1").fits_slot
    (65536, False)
    """

    kind: str
    pieces: tuple[Patch, ...] = ()
    walker: str = "nested"
    hardware_ad: bool = False
    marked: bool = False
    format: str = "tiny"

    @property
    def form(self) -> Format:
        """The format itself."""
        return LAW_FORMATS[self.format]

    @property
    def granule(self) -> int:
        """The smallest page: what its pieces are whole multiples of."""
        return self.form.granule

    @property
    def fits_slot(self) -> bool:
        """Whether its tables have room where walkers get to through the stages below."""
        return sum(level.table_bytes for level in self.form.levels[self.form.start :]) <= SLOT

    def fitted(self, piece: Patch) -> Patch:
        """``piece``, or the whole pages around it if it is smaller than those of the stage.

        >>> Stage("paged", format="mock64k").fitted(Patch(0x1_3000, 0x2_5000, 0x1000))[:3]
        (65536, 131072, 65536)
        """
        page = max(piece.page, self.granule)
        if page == piece.page:
            return piece
        size = -(-piece.size // page) * page
        return Patch(piece.start & -page, piece.output & -page, size, piece.prot, page)


class SlotTables(TablePages):
    """Table pages one behind the other from ``base``, at most as many as a stage has ``room`` for.

    >>> tables = SlotTables(0x40000)
    >>> hex(tables.alloc()), hex(tables.alloc()), tables.pages()
    ('0x40000', '0x41000', [262144, 266240])
    """

    def __init__(self, base: int, room: int = SLOT) -> None:
        super().__init__()
        self._base = base
        self._room = room

    def alloc(self, size: int = PAGE_SIZE) -> int:
        """The lowest place for a table that is free; `NoMemory` beyond the slot."""
        for phys in range(self._base, self._base + self._room, size):
            if not any(self.holds(page) for page in range(phys, phys + size, PAGE_SIZE)):
                return self.add(phys, blank(size))
        raise NoMemory(f"no table page: all {self._room // PAGE_SIZE} from {self._base:#x} on are in use")

    def free(self, phys: int) -> None:
        """Give the page at ``phys`` back; `NotFound` if it is no table page."""
        self.remove(phys)


@attrs.define(eq=False)
class Stack:
    """What a recipe builds: open ``nodes``, top first, the ``memory`` below them, if any, and all of it as a ``path``.

    With an ``other`` memory the last node is a router, on both of them: its second port leads to the other.
    ``bases`` are those of the spaces, the last one the memory's.

    >>> stack = Recipe((Stage("paged"), Stage("window", (Patch(0, 0, 1 << 20),))), memory=1 << 20).build()
    >>> stack.map(0, Patch(0x1000, 0x3000, 0x1000))
    >>> [node.name for node in stack.linked()], len(stack.table_bytes(0))
    (['paged0', 'window1', 'ram'], 4)
    """

    nodes: list[Node]
    memory: Memory | None
    bases: tuple[int, ...]
    tables: list[SlotTables | None]
    other: Memory | None = None

    @property
    def layers(self) -> list[Layer]:
        """The layers, top first, the memory included."""
        return [node.layer for node in self.parts]

    @property
    def parts(self) -> list[Node]:
        """The nodes, top first, the memory's included, unless the last one is a router to two."""
        return self.nodes + ([Node(self.memory)] if self.memory and self.other is None else [])

    @property
    def path(self) -> Path:
        """All of it, top to bottom."""
        return chained(self.parts)

    def linked(self) -> list[Node]:
        """The same layers in nodes that sit on each other, top first."""
        nodes = [Node(node.layer, walker=node.walker) for node in self.parts]
        nodes[-1].lowers = list(self.parts[-1].lowers)
        for upper, lower in pairwise(nodes):
            upper.lowers = [lower] * len(upper.layer.ports)
            lower.uppers.append(upper)
        return nodes

    def has_table(self, stage: int) -> bool:
        """Whether `map` and `unmap` are for that stage."""
        return isinstance(self.nodes[stage].layer, Paged | FlatTable)

    def map(self, stage: int, piece: Patch) -> None:
        """One more piece in the table of a stage, its bytes where they belong; `AddressInUse` as the table has it."""
        layer, at, to = self.nodes[stage].layer, self.bases[stage] + piece.start, self.bases[stage + 1] + piece.output
        if isinstance(layer, Paged):
            _write(layer.table, at, to, piece)
        elif isinstance(layer, FlatTable):
            layer.map(at, to, piece.size, coherent=bool(piece.prot & Prot.CACHE))
        self.write_tables()

    def replaces_live_pages(self, stage: int, piece: Patch) -> bool:
        """Whether `map` would take live pages away; see `swiommu.testing.formats.replaces_live_pages`."""
        layer, at = self.nodes[stage].layer, self.bases[stage] + piece.start
        return isinstance(layer, Paged) and replaces_live_pages(layer.table, at, piece.size, piece.page)

    def unmap(self, stage: int, piece: Patch) -> None:
        """Take a piece out of the table of a stage."""
        layer, at = self.nodes[stage].layer, self.bases[stage] + piece.start
        if isinstance(layer, Paged):
            layer.table.unmap(at, piece.size)
        elif isinstance(layer, FlatTable):
            layer.unmap(at, piece.size)
        self.write_tables()

    def table_bytes(self, stage: int) -> dict[int, bytes]:
        """The pages of a stage's table, by address."""
        slots = self.tables[stage]
        return {} if slots is None else {page: slots.page(page).tobytes() for page in slots.pages()}

    def write_tables(self) -> None:
        """Put the bytes of all tables to where their walkers read them: to be called after every change of a table."""
        for stage in reversed(range(len(self.nodes))):
            slots, node = self.tables[stage], self.nodes[stage]
            if slots is None:
                continue
            if isinstance(node.walker, Node) and isinstance(node.walker.layer, Memory):
                below, memories = Twin([]), [node.walker.layer]
            elif node.walker is Walker.NESTED and self.memory is not None:
                # Into both, if there are two: whichever way leads there finds the same table.
                below = Twin(self.layers[stage + 1 :])
                memories = [memory for memory in (self.memory, self.other) if memory is not None]
            else:
                continue
            for page in slots.pages():
                data = _little_endian(slots.page(page))
                for at, output, size in below.pieces(page, PAGE_SIZE):
                    for memory in memories:
                        memory.ram.write(memory.ram.space.at(output), data[at - page : at - page + size])


@attrs.frozen
class Recipe:
    """Stages, top first; ``memory`` says how many bytes of memory lie below (0: the stack stays open).

    ``split``: where the last stage is a router, there are two memories below it, each of a whole space.

    >>> page = Patch(0x1000, 0x3000, 0x1000)
    >>> stack = Recipe((Stage("paged", (page,)), Stage("window", (Patch(0, 0, 1 << 20),))), memory=1 << 20).build()
    >>> from swiommu.testing import Probe, tell
    >>> tell(Probe(BASES[0] + 0x1000).on(stack.path))
    '0x301000+0x1 -> ram:0x503000 READ|WRITE NON_CACHEABLE/OUTER in blocks of 0x1000; 4 references'
    """

    stages: tuple[Stage, ...]
    memory: int = 0
    split: bool = False
    bases: tuple[int, ...] = BASES

    def build(self, *, shifts: Sequence[int] = ()) -> Stack:
        """Layers as the recipe says; ``shifts`` moves the spaces, top first, by so many bytes each."""
        bases = [self.bases[0]]
        for number, stage in enumerate(self.stages):
            bases.append(bases[-1] if stage.kind == "identity" else self.bases[number + 1])
        for number, shift in enumerate(shifts):
            bases[number] += shift
        nodes, tables = [], []
        for number, stage in enumerate(self.stages):
            node, slots = _node(number, stage, bases[number], bases[number + 1])
            nodes.append(node)
            tables.append(slots)
        ram = other = None
        if self.memory and self.split and self.stages[-1].kind == "router":
            ram, other = (Memory(name, SparseRam(PhysSpace(name, width=40))) for name in ("ram", "vram"))
            nodes[-1].lowers = [Node(ram), Node(other)]
        elif self.memory:
            ram = Memory("ram", SparseRam(PhysSpace("ram", width=40)), base=bases[-1], size=self.memory)
        stack = Stack(nodes, ram, tuple(bases), tables, other)
        stack.write_tables()
        return stack


def _little_endian(entries: array[int]) -> bytes:
    words = array("Q", entries)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def _node(number: int, stage: Stage, base: int, below: int) -> tuple[Node, SlotTables | None]:
    name = f"{stage.kind}{number}"
    if stage.kind == "identity":
        return Node(Identity(name, width=48)), None
    if stage.kind in {"window", "router"}:
        delta = below - base
        spans = [Span(base + p.start, p.size, delta + p.output - p.start, n % 2) for n, p in enumerate(stage.pieces)]
        if stage.kind == "router":
            return Node(Router(name, *spans)), None
        return Node(Window(name, *[span._replace(port=0) for span in spans])), None
    near = stage.kind == "flat" or stage.fits_slot
    slots = SlotTables(below + TABLES + number * SLOT) if near else SlotTables(below + FAR_TABLES, FAR_SIZE)
    layer: Layer
    if stage.kind == "flat":
        layer = _flat(name, stage, base, below, slots)
    elif stage.kind == "shadow":
        source = Node(Paged(f"source{number}", _filled(stage, base, below, CountingTables())), walker=Walker.PHYSICAL)
        layer = Shadow(name, source, format=stage.form, tables=slots, labelled=False)
    else:
        table = _filled(stage, base, below, slots)
        layer = Paged(name, table, hardware_ad=stage.hardware_ad, marks=Marks() if stage.marked else None)
    if stage.walker == "own":
        local = Memory(f"tables{number}", SparseRam(PhysSpace(f"tables{number}", width=40)))
        return Node(layer, walker=Node(local)), slots
    return Node(layer, walker=Walker(stage.walker)), slots


def _filled(stage: Stage, base: int, below: int, tables: TableMemory) -> RadixTable:
    table = RadixTable(stage.form, tables)
    for piece in stage.pieces:
        _write(table, base + piece.start, below + piece.output, piece)
    return table


def _write(table: RadixTable, at: int, to: int, piece: Patch) -> None:
    pgsize = leaf_size(table.format, piece.page)
    table.map_run(at, to, pgsize, piece.size // pgsize, piece.prot)


def _flat(name: str, stage: Stage, base: int, below: int, slots: SlotTables) -> FlatTable:
    place = slots.alloc()
    flat = FlatTable(name, base=base, size=TABLES + 4 * SLOT, table=place, pages=[slots.page(place)])
    for piece in stage.pieces:
        flat.map(base + piece.start, below + piece.output, piece.size, coherent=bool(piece.prot & Prot.CACHE))
    return flat


def chained(paths: Sequence[Path]) -> Path:
    """Many paths as one, the first on top; `InvalidArgument` for none.

    >>> from swiommu.testing import Probe
    >>> [run.output for run in Probe(0x10).on(chained([Node(Identity("a")), Node(Identity("b"))])).runs]
    [16]
    """
    if not paths:
        raise InvalidArgument("no path to chain: at least one is needed")
    path = paths[-1]
    for upper in reversed(paths[:-1]):
        path = Chain(upper, path)
    return path
