"""Where the page tables of a domain are: in frames that its walker reads, or in memory of the domain below."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from swiommu.address import PAGE_SIZE, PhysAddr
from swiommu.errors import InvalidArgument, OutOfRange
from swiommu.layer import Walker, end_of, terminals
from swiommu.pagetable import FrameTables, TablePages, joined

if TYPE_CHECKING:
    from swiommu.iommu.backing import LowerDomain
    from swiommu.layer import Node
    from swiommu.memory import Frames
    from swiommu.pagetable import Format, RadixTable, TableMemory, Words

__all__ = ["LowerTables", "ReachedTables", "table_pages", "walker_of"]


class LowerTables(TablePages):
    """Table pages of the domain of ``name`` in memory of the domain below it: a walk reads them through that domain.

    Each mapping taken there is cut into pages, and given back with its last one. Where the memory at the end is
    modelled the entries are its bytes.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram")
    >>> lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
    >>> upper = PagedDomain(BusSpace("nic", width=32), below=lower)
    >>> lower.mappings(), hex(upper.table.root)
    ([Mapping(ipa:0xfffffff000+0x1000, 1 pieces)], '0xfffffff000')
    """

    def __init__(self, name: str, below: LowerDomain, highest: int) -> None:
        super().__init__()
        self._name = name
        self._below = below
        self._highest = highest
        self._from: dict[int, Any] = {}  # page -> the mapping that it was cut from, free pages too
        self._free: dict[int, list[int]] = {}  # by the size that the mapping was cut into

    def alloc(self, size: int = PAGE_SIZE) -> int:
        """The address, in the lower domain's bus space, of a zeroed table; raises as its `Domain.alloc`."""
        free = self._free.setdefault(size, [])
        if free:
            words = _words(self._below.place.node, free[-1], size)
            return self.add(free.pop(), words)
        mapping = self._below.alloc_for_tables(size, limit=self._highest)
        start, stop = mapping.iova.start.value, mapping.iova.stop
        try:
            words = _words(self._below.place.node, start, size)
        except BaseException:
            self._below.let_go(mapping)
            raise
        self._below.place.references.add_tables(self._name, start, stop - start)
        cut = range(start, stop, size)
        self._from.update(dict.fromkeys(cut, mapping))
        free.extend(reversed(cut[1:]))
        return self.add(start, words)

    def free(self, phys: int) -> None:
        """See `TableMemory.free`; what giving the last page of a mapping back raises leaves all as it was."""
        mapping = self._from[phys]
        start, stop = mapping.iova.start.value, mapping.iova.stop
        size = 8 * len(self.entries(phys))
        cut = range(start, stop, size)
        last = not any(self.holds(page) for page in cut if page != phys)
        # Nobody is asked: an empty table can't be kept because somebody maps its page, who faults from now on.
        if last and self._below.held(mapping):
            self._below.let_go(mapping)
        self.remove(phys)
        self._free[size].append(phys)
        if last:
            for page in cut:
                del self._from[page]
            self._free[size] = [page for page in self._free[size] if page not in cut]
            self._below.place.references.remove_tables(start)


class ReachedTables(FrameTables):
    """Tables in frames whose entries are the bytes that ``through`` ends in: there a walker reads them.

    Where no memory is modelled at the end the entries are kept aside. ``highest`` as `FrameTables` has it. Raises also
    `OutOfRange` for a page that ends nowhere, `InvalidArgument` for one that would begin inside of a page.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.layer import Memory, Node, Span, Window, connect
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram, soc = PhysSpace("ram"), PhysSpace("soc")
    >>> memory = Memory("ram", SparseRam(ram))
    >>> bus = Node(Window("bus", Span(0x1000_0000, 1 << 20, 0x3000_0000)), input_space=soc)
    >>> connect(bus, Node(memory))
    >>> tables = ReachedTables(Frames(soc.at(0x1000_0000), 1 << 20), bus)
    >>> page = tables.alloc(); tables.entries(page)[1] = 7; hex(page), memory.word(0x4000_0008, 8)
    ('0x10000000', 7)
    """

    def __init__(self, frames: Frames, through: Node, *, highest: int | None = None) -> None:
        super().__init__(frames, highest=highest)
        self._through = through

    def _words(self, phys: int, size: int) -> Words:
        return _words(self._through, phys, size)


def _words(through: Node, at: int, size: int) -> Words:
    return joined([_page(through, page) for page in range(at, at + size, PAGE_SIZE)])


def _page(through: Node, page: int) -> array[int]:
    end = end_of(through, page)
    if end is None:
        if terminals(through) == (None,):
            return array("Q", bytes(PAGE_SIZE))
        raise OutOfRange(f"a table page at {page:#x} ends in no memory below {through.name!r}", start=page)
    if end.memory is None:
        return array("Q", bytes(PAGE_SIZE))
    if end.address % PAGE_SIZE:
        raise InvalidArgument(
            f"a table page at {page:#x} would begin inside of a page, at {end.address:#x} of {end.memory.name!r}",
            start=page,
        )
    ram = end.memory.ram
    return ram.words(PhysAddr(ram.space, end.address))


def walker_of(table: RadixTable, through: Node | None, wanted: str | None, user: str) -> Walker:
    """Where the walker of ``user`` reads ``table``: through the node below, if the root is there.

    Tables that a caller brought may be in no memory of the model: then they are read at their own addresses, unless
    ``wanted`` is "nested", which is `InvalidArgument` then.
    """
    if wanted == "physical" or through is None or _is_at(table, through):
        return Walker(wanted or "nested")
    if wanted == "nested":
        raise InvalidArgument(
            f"the tables of {user!r} are not where its walker reads: it finds no root at {table.root:#x} of "
            f"{through.name!r}",
            start=table.root,
        )
    return Walker.PHYSICAL


def _is_at(table: RadixTable, through: Node) -> bool:
    # Whether what the walker would read at the root are the words of the root.
    end = end_of(through, table.root)
    if end is None or end.memory is None:
        return end is not None
    words = table.nodes.memory.entries(table.root)
    before, words[0] = words[0], 0xA5
    try:
        return end.memory.word(end.address, 8) == 0xA5
    finally:
        words[0] = before


def table_pages(
    name: str,
    form: Format,
    frames: Frames | None,
    memory: Node | None,
    below: LowerDomain | None,
) -> TableMemory:
    """Where the page tables of the domain of ``name`` are: in frames if there are some, else in memory below."""
    if frames is None:
        assert below is not None, "no source of tables"
        return LowerTables(name, below, (1 << form.output_width) - 1)
    through = memory if below is None else below.place.bottom
    return FrameTables(frames) if through is None else ReachedTables(frames, through)
