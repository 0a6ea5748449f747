"""Where a domain's memory comes from: frames, or the domain below, which has its own to ask."""

from __future__ import annotations

from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from swiommu.address import PAGE_SIZE, PhysAddr
from swiommu.errors import InvalidArgument, NoMemory, NoSpace, NotSupported, OutOfRange, SpaceMismatch
from swiommu.layer import Walker, end_of, reachable, terminals
from swiommu.pagetable import FrameTables, TablePages, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import AddressRange, PhysSpace, Prot, Space
    from swiommu.iommu.domain import Domain
    from swiommu.iommu.mapping import Mapping
    from swiommu.iommu.stacked import Stacked
    from swiommu.layer import Node
    from swiommu.memory import Frames
    from swiommu.pagetable import Format, RadixTable, TableMemory, Words

__all__ = [
    "Backing",
    "FrameBacking",
    "LowerBacking",
    "LowerTables",
    "ReachedTables",
    "backing",
    "require_sources",
    "table_pages",
    "walker_of",
]


Runs = list[tuple[int, int]]


class Backing(Protocol):
    """Gives memory to `Domain.alloc`; sizes are multiples of the largest granule of the stack."""

    def take(self, size: int, prot: Prot) -> tuple[Runs, Mapping[Any] | None]:
        """``size`` bytes of the output space as (start, stop), in order, and the lower domain's mapping of them.

        All or nothing; `NoMemory` or `NoSpace`.
        """
        ...

    def give(self, pieces: Sequence[AddressRange[Any]], below: Mapping[Any] | None) -> None:
        """Take it all back."""
        ...

    def require_givable(self, pieces: Sequence[AddressRange[Any]], below: Mapping[Any] | None) -> None:
        """`Busy` if `give` would not take all of it back now."""
        ...

    def may_refuse(self) -> bool:
        """Whether `require_givable` of anything could raise now."""
        ...

    def check(self, live: Sequence[tuple[Sequence[AddressRange[Any]], Mapping[Any] | None]]) -> None:
        """Assert that what was taken and not given is what ``live`` holds, as pieces and the mapping below."""
        ...


class FrameBacking:
    """Frames, largest ``orders`` first, as dma-iommu takes them.

    >>> from swiommu.address import PhysSpace, Prot
    >>> from swiommu.memory import Frames
    >>> FrameBacking(Frames(PhysSpace("ram").at(0), 1 << 20), (9, 0)).take(0x3000, Prot.READ)
    ([(0, 12288)], None)
    """

    def __init__(self, frames: Frames, orders: Sequence[int]) -> None:
        self._frames = frames
        self._orders = tuple(orders)
        self._shift = frames.page_size.bit_length() - 1
        self._taken = 0  # frames

    def take(self, size: int, prot: Prot) -> tuple[Runs, Mapping[Any] | None]:
        """See `Backing.take`."""
        del prot  # memory itself has none
        shift = self._shift
        taken = self._frames.take_largest_first(size >> shift, self._orders)
        self._taken += size >> shift
        return [(pfn << shift, pfn + count << shift) for pfn, count in taken], None

    def give(self, pieces: Sequence[AddressRange[Any]], below: Mapping[Any] | None) -> None:
        """See `Backing.give`."""
        del below  # there is none
        frames, shift = self._frames, self._shift
        runs = [(piece.start.value >> shift, piece.size >> shift) for piece in pieces]
        frames.give_all(runs)
        for _, count in runs:
            self._taken -= count

    def require_givable(self, pieces: Sequence[AddressRange[Any]], below: Mapping[Any] | None) -> None:
        """See `Backing.require_givable`: pinned frames stay."""
        del below
        for piece in pieces:
            self._frames.require_givable(piece.start.value >> self._shift, piece.size >> self._shift)

    def may_refuse(self) -> bool:
        """See `Backing.may_refuse`."""
        return self._frames.pinned > 0

    def check(self, live: Sequence[tuple[Sequence[AddressRange[Any]], Mapping[Any] | None]]) -> None:
        """See `Backing.check`; and all of these frames are taken."""
        pieces = [piece for held, _ in live for piece in held]
        frames, shift = self._frames, self._shift
        held = sum(piece.size for piece in pieces) >> shift
        assert self._taken == held, f"{self._taken} frames were taken and not given back, mappings have {held}"
        for piece in pieces:
            pfn, count = piece.start.value >> shift, piece.size >> shift
            assert frames.are_taken(pfn, count), f"{piece!r} is mapped, and not all of its frames are taken"


class LowerBacking:
    """One mapping of the domain below for each request: contiguous there, whatever is behind it.

    The lower domain picks the address, none above ``highest``, at a multiple of ``align``. If there is such a place it
    is one for leaves of the uppermost level of ``form`` that has leaves no larger than the request, else of the next:
    each saves a walk one read. Larger leaves of the same level save none.
    """

    def __init__(self, below: Domain[Any], highest: int, align: int, form: Format) -> None:
        self._below = below
        self._highest = highest
        self._align = align
        self._pgsizes = [min(level.sizes.values()) for level in form.levels if level.sizes]  # the largest first
        self._taken: set[Mapping[Any]] = set()

    def take(self, size: int, prot: Prot) -> tuple[Runs, Mapping[Any] | None]:
        """See `Backing.take`."""
        mapping = None
        for align in self._pgsizes:
            if mapping is None and self._align < align <= size:
                with suppress(NoMemory, NoSpace, NotSupported):
                    mapping = self._below.alloc(size, align, prot=prot, limit=self._highest)
        if mapping is None:
            mapping = self._below.alloc(size, self._align, prot=prot, limit=self._highest)
        self._taken.add(mapping)
        return [(mapping.iova.start.value, mapping.iova.stop)], mapping

    def give(self, pieces: Sequence[AddressRange[Any]], below: Mapping[Any] | None) -> None:
        """See `Backing.give`; what the lower domain has given up already is not given back twice."""
        del pieces
        if below is not None:
            if self._below.held(below):
                self._below.let_go(below)
            self._taken.discard(below)

    def require_givable(self, pieces: Sequence[AddressRange[Any]], below: Mapping[Any] | None) -> None:
        """See `Backing.require_givable`."""
        del pieces
        if below is not None and self._below.held(below):
            self._below.require_givable(below)

    def may_refuse(self) -> bool:
        """See `Backing.may_refuse`."""
        return True

    def check(self, live: Sequence[tuple[Sequence[AddressRange[Any]], Mapping[Any] | None]]) -> None:
        """See `Backing.check`; what the lower domain has given up already is nobody's."""
        held = {below for _, below in live}
        lost = [mapping for mapping in self._taken if mapping not in held and self._below.held(mapping)]
        assert not lost, f"{lost} were taken in the domain of {self._below.input_space.name!r}, and no mapping has them"


class LowerTables(TablePages):
    """Table pages of ``user`` in memory of the domain below it: a walk reads them through that domain.

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

    def __init__(self, user: Stacked[Any], below: Domain[Any], highest: int) -> None:
        super().__init__()
        self._user = user
        self._below = below
        self._highest = highest
        self._from: dict[int, Mapping[Any]] = {}  # page -> the mapping that it was cut from, free pages too
        self._free: dict[int, list[int]] = {}  # by the size that the mapping was cut into

    def alloc(self, size: int = PAGE_SIZE) -> int:
        """The address, in the lower domain's bus space, of a zeroed table; raises as its `Domain.alloc`."""
        free = self._free.setdefault(size, [])
        if free:
            words = _words(self._below.node, free[-1], size)
            return self.add(free.pop(), words)
        mapping = self._below.alloc_for_tables(size, limit=self._highest)
        start, stop = mapping.iova.start.value, mapping.iova.stop
        try:
            words = _words(self._below.node, start, size)
        except BaseException:
            self._below.let_go(mapping)
            raise
        self._below.uses.add_tables(self._user, start, stop - start)
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
            self._below.uses.remove_tables(self._user, start)


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
        raise OutOfRange(f"a table page at {page:#x} ends in no memory below {through.name!r}", address=page)
    if end.memory is None:
        return array("Q", bytes(PAGE_SIZE))
    if end.address % PAGE_SIZE:
        raise InvalidArgument(
            f"a table page at {page:#x} would begin inside of a page, at {end.address:#x} of {end.memory.name!r}",
            address=page,
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
            address=table.root,
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


def require_sources(
    form: Format,
    frames: Frames | None,
    output_space: PhysSpace | None,
    memory: Node | None,
    below: Domain[Any] | None,
    walker: str | None,
    tables: TableMemory | None,
) -> Space:
    """The output space of a paged domain; raises for sources that don't go together.

    `InvalidArgument`, `SpaceMismatch`, and `OutOfRange` for frames that are not where ``memory`` leads.
    """
    if walker not in {None, "nested", "physical"}:
        raise InvalidArgument(f"no walker {walker!r}: tables are read 'nested' or 'physical'")
    if below is None:
        if frames is None or output_space is None:
            raise InvalidArgument("a domain needs frames and their space, or a domain below")
        granule = form.granule
        if frames.range.start.space is output_space and frames.page_size != granule:
            raise InvalidArgument(
                f"frames of {frames.page_size} bytes under format {form.name!r}, whose smallest page is {granule}"
            )
        _require_space(frames, output_space)
        if memory is not None:
            _require_reachable(frames, memory)
        return output_space
    if output_space is not None or memory is not None:
        raise InvalidArgument(f"a domain on that of {below.input_space.name!r} leads there, and nowhere else")
    if (walker == "physical" and tables is None) != (frames is not None):
        raise InvalidArgument("frames below a stacked domain are for page tables that are physical, and only for those")
    if frames is not None:
        _require_space(frames, below.memory_space)
        if below.bottom is not None:
            _require_reachable(frames, below.bottom)
    return below.input_space


def _require_space(frames: Frames, space: Space) -> None:
    if frames.range.start.space is not space:
        raise SpaceMismatch(f"{frames.range!r} is no memory of the output space {space.name!r}")


def _require_reachable(frames: Frames, memory: Node) -> None:
    # Pages of tables below a node that may change are looked for when they are taken.
    first, stop = frames.range.start.value, frames.range.stop
    ranges = reachable(memory)
    if memory.input_space is frames.range.start.space and not any(
        low <= first and stop <= high for low, high in ranges
    ):
        taken = ", ".join(f"[{low:#x}, {high:#x})" for low, high in ranges) or "nothing"
        raise OutOfRange(
            f"the frames [{first:#x}, {stop:#x}) are not all in {memory.name!r}, which takes {taken}",
            start=first,
            size=stop - first,
        )


def table_pages(
    user: Stacked[Any],
    form: Format,
    frames: Frames | None,
    memory: Node | None,
    below: Domain[Any] | None,
) -> TableMemory:
    """Where the page tables of ``user`` lie: in frames if there are some, else in memory of the domain below."""
    if frames is None:
        assert below is not None, "no source of tables"
        return LowerTables(user, below, (1 << form.output_width) - 1)
    through = memory if below is None else below.bottom
    return FrameTables(frames) if through is None else ReachedTables(frames, through)


def backing(
    frames: Frames | None,
    orders: Sequence[int],
    below: Domain[Any] | None,
    highest: int,
    granule: int,
    form: Format,
) -> Backing:
    """Where `Domain.alloc` takes memory: from the domain below if there is one, else frames."""
    if below is not None:
        return LowerBacking(below, highest, granule, form)
    assert frames is not None, "no source of memory"
    return FrameBacking(frames, orders)
