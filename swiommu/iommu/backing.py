"""Where a domain's memory comes from: frames, or the domain below, which has its own to ask."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Protocol

from swiommu.address import PAGE_SIZE, PhysAddr
from swiommu.errors import InvalidArgument, SpaceMismatch
from swiommu.pagetable import FrameTables, TablePages, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import AddressRange, PhysSpace, Prot, Space
    from swiommu.iommu.domain import Domain
    from swiommu.iommu.mapping import Mapping
    from swiommu.iommu.stacked import Stacked
    from swiommu.layer import Node
    from swiommu.memory import Frames
    from swiommu.pagetable import Format, TableMemory, Words

__all__ = [
    "Backing",
    "FrameBacking",
    "LowerBacking",
    "LowerTables",
    "backing",
    "require_sources",
    "table_pages",
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

    def take(self, size: int, prot: Prot) -> tuple[Runs, Mapping[Any] | None]:
        """See `Backing.take`."""
        del prot  # memory itself has none
        shift = self._shift
        taken = self._frames.take_largest_first(size >> shift, self._orders)
        return [(pfn << shift, pfn + count << shift) for pfn, count in taken], None

    def give(self, pieces: Sequence[AddressRange[Any]], below: Mapping[Any] | None) -> None:
        """See `Backing.give`."""
        del below  # there is none
        frames, shift = self._frames, self._shift
        for piece in pieces:
            frames.give(piece.start.value >> shift, piece.size >> shift)


class LowerBacking:
    """One mapping of the domain below for each request: contiguous there, whatever lies behind it.

    The lower domain picks the address, none above ``highest``, at a multiple of ``align``.
    """

    def __init__(self, below: Domain[Any], highest: int, align: int) -> None:
        self._below = below
        self._highest = highest
        self._align = align

    def take(self, size: int, prot: Prot) -> tuple[Runs, Mapping[Any] | None]:
        """See `Backing.take`."""
        mapping = self._below.alloc(size, self._align, prot=prot, limit=self._highest)
        return [(mapping.iova.start.value, mapping.iova.stop)], mapping

    def give(self, pieces: Sequence[AddressRange[Any]], below: Mapping[Any] | None) -> None:
        """See `Backing.give`; what the lower domain has given up already is not given back twice."""
        del pieces
        if below is not None and self._below.held(below):
            self._below.let_go(below)


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
        if not free:
            mapping = self._below.alloc(size, size, limit=self._highest)
            start, stop = mapping.iova.start.value, mapping.iova.stop
            self._below.uses.add_tables(self._user, start, stop - start)
            cut = range(start, stop, size)
            self._from.update(dict.fromkeys(cut, mapping))
            free.extend(reversed(cut))
        return self.add(free[-1], self._fresh(free.pop(), size))

    def free(self, phys: int) -> None:
        """See `TableMemory.free`."""
        size = self.remove(phys)
        self._free[size].append(phys)
        mapping = self._from[phys]
        start = mapping.iova.start.value
        cut = range(start, mapping.iova.stop, size)
        if not any(self.holds(page) for page in cut):
            for page in cut:
                del self._from[page]
            self._free[size] = [page for page in self._free[size] if page not in cut]
            self._below.uses.remove_tables(self._user, start)
            # Nobody is asked: an empty table can't be kept because somebody maps its page, who faults from now on.
            if self._below.held(mapping):
                self._below.let_go(mapping)

    def _fresh(self, at: int, size: int) -> Words:
        return joined([self._page(page) for page in range(at, at + size, PAGE_SIZE)])

    def _page(self, page: int) -> array[int]:
        ram = self._below.ram
        place = None if ram is None else self._below.iova_to_memory(self._below.input_space.at(page))
        if ram is None or place is None:
            return array("Q", bytes(PAGE_SIZE))
        return ram.words(PhysAddr(ram.space, place.value))


def require_sources(
    form: Format,
    frames: Frames | None,
    output_space: PhysSpace | None,
    memory: Node | None,
    below: Domain[Any] | None,
    walker: str,
) -> Space:
    """The output space of a paged domain; `InvalidArgument` or `SpaceMismatch` for sources that don't go together."""
    if walker not in {"nested", "physical"}:
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
        return output_space
    if output_space is not None or memory is not None:
        raise InvalidArgument(f"a domain on that of {below.input_space.name!r} leads there, and nowhere else")
    if (walker == "physical") != (frames is not None):
        raise InvalidArgument("frames below a stacked domain are for page tables that are physical, and only for those")
    if frames is not None:
        _require_space(frames, below.memory_space)
    return below.input_space


def _require_space(frames: Frames, space: Space) -> None:
    if frames.range.start.space is not space:
        raise SpaceMismatch(f"{frames.range!r} is no memory of the output space {space.name!r}")


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
    if below is not None:
        return FrameTables(frames, below.ram)
    end = None if memory is None else memory.layer.as_memory()
    return FrameTables(frames, None if end is None else end.ram)


def backing(
    frames: Frames | None, orders: Sequence[int], below: Domain[Any] | None, highest: int, granule: int
) -> Backing:
    """Where `Domain.alloc` takes memory: from the domain below if there is one, else frames."""
    if below is not None:
        return LowerBacking(below, highest, granule)
    assert frames is not None, "no source of memory"
    return FrameBacking(frames, orders)
