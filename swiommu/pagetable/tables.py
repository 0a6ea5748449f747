"""Where tables lie: a protocol, tables in frames of `swiommu.memory.Frames`, and tables out of thin air."""

from __future__ import annotations

from array import array
from itertools import chain
from typing import TYPE_CHECKING, Protocol, TypeAlias, overload

from swiommu.address import PAGE_SIZE, PhysAddr, order_of
from swiommu.errors import InvalidArgument, NoMemory, NotFound, SpaceMismatch, SwiommuError
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.memory import Frames, SparseRam

__all__ = ["CountingTables", "FrameTables", "JoinedPages", "TableMemory", "TablePages", "Words", "blank", "joined"]

_ZERO_PAGE = bytes(PAGE_SIZE)
_PER_PAGE = PAGE_SIZE // 8


class JoinedPages:
    """The words of a table that is larger than the pages its bytes are kept in.

    >>> table = JoinedPages([array("Q", [1, 2] + [0] * 510), array("Q", [3] * 512)])
    >>> len(table), table[1], table[511:514].tolist()
    (1024, 2, [0, 3, 3])
    >>> table[511:513] = array("Q", [8, 9]); table[511], table[512]
    (8, 9)
    """

    __slots__ = ("pages",)

    def __init__(self, pages: Sequence[array[int]]) -> None:
        self.pages = pages

    def __len__(self) -> int:
        return _PER_PAGE * len(self.pages)

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> array[int]: ...

    def __getitem__(self, place: int | slice) -> int | array[int]:
        if isinstance(place, int):
            return self.pages[place // _PER_PAGE][place % _PER_PAGE]
        found = array("Q")
        for page, low, high in self._parts(place):
            found += page[low:high]
        return found

    @overload
    def __setitem__(self, place: int, word: int) -> None: ...

    @overload
    def __setitem__(self, place: slice, word: array[int]) -> None: ...

    def __setitem__(self, place: int | slice, word: int | array[int]) -> None:
        if isinstance(place, int):
            assert isinstance(word, int), "one word for one place"
            self.pages[place // _PER_PAGE][place % _PER_PAGE] = word
            return
        assert isinstance(word, array), "words for places"
        done = 0
        for page, low, high in self._parts(place):
            page[low:high] = word[done : done + high - low]
            done += high - low

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.pages)

    def _parts(self, place: slice) -> list[tuple[array[int], int, int]]:
        start, stop, _ = place.indices(len(self))
        return [
            (page, max(0, start - base), min(_PER_PAGE, stop - base))
            for base, page in zip(range(0, len(self), _PER_PAGE), self.pages, strict=True)
            if start < base + _PER_PAGE and base < stop
        ]


Words: TypeAlias = "array[int] | JoinedPages"
"""The live contents of a table: 64-bit entries, by index and by slice."""


class TableMemory(Protocol):
    """Gives tables of 4 KiB and more, each readable as entries of 64 bits; all addresses are physical."""

    def alloc(self, size: int = PAGE_SIZE) -> int:
        """The address, a multiple of ``size``, of ``size`` zeroed bytes, a power of two; `NoMemory` without room."""
        ...

    def free(self, phys: int) -> None:
        """Give the table at ``phys`` back; `NotFound` if there is none."""
        ...

    def entries(self, phys: int) -> Words:
        """The live contents of the table at ``phys``; `NotFound` if there is none."""
        ...

    def word(self, address: int) -> int:
        """The entry at ``address``, anywhere in a table; `NotFound` elsewhere."""
        ...


class TablePages:
    """The tables that live, by address, with their words: what every `TableMemory` keeps.

    >>> pages = TablePages()
    >>> _ = pages.add(0x8000, joined([array("Q", bytes(4096)) for _ in range(4)]))
    >>> pages.page(0x9000)[1] = 7; pages.word(0x9008), len(pages)
    (7, 1)
    """

    __copy__ = no_shallow_copy

    def __init__(self) -> None:
        self._tables: dict[int, Words] = {}
        self._inside: dict[int, int] = {}  # the table of each further page of a larger one

    def __len__(self) -> int:
        return len(self._tables)

    def entries(self, phys: int) -> Words:
        """The live contents of the table at ``phys``; `NotFound` if there is none."""
        try:
            return self._tables[phys]
        except KeyError:
            raise NotFound(f"{phys:#x} is no table page", paddr=phys) from None

    def word(self, address: int) -> int:
        """The entry at ``address``, anywhere in a table; `NotFound` elsewhere."""
        page = address & -PAGE_SIZE
        base = self._inside.get(page, page)
        return self.entries(base)[address - base >> 3]

    def holds(self, page: int) -> bool:
        """Whether the page of 4 KiB at ``page`` is a table, or a part of one."""
        return page in self._tables or page in self._inside

    def pages(self) -> list[int]:
        """The pages of 4 KiB that tables take, ascending."""
        return sorted([*self._tables, *self._inside])

    def page(self, page: int) -> array[int]:
        """The live words of the page of 4 KiB at ``page``, a table or a part of one; `NotFound` elsewhere."""
        base = self._inside.get(page, page)
        words = self.entries(base)
        return words.pages[(page - base) // PAGE_SIZE] if isinstance(words, JoinedPages) else words

    def add(self, phys: int, words: Words) -> int:
        """A table lives at ``phys`` from now on; answers the address."""
        self._tables[phys] = words
        for page in range(phys + PAGE_SIZE, phys + 8 * len(words), PAGE_SIZE):
            self._inside[page] = phys
        return phys

    def remove(self, phys: int) -> int:
        """The table at ``phys`` is none any more; the bytes that it had, `NotFound` if it was none."""
        size = 8 * len(self.entries(phys))
        del self._tables[phys]
        for page in range(phys + PAGE_SIZE, phys + size, PAGE_SIZE):
            del self._inside[page]
        return size


def joined(pages: Sequence[array[int]]) -> Words:
    """The words of a table from those of its pages, all zeroed; one page is its own table.

    >>> joined([array("Q", [5] * 512)])[0]
    0
    """
    for page in pages:
        memoryview(page).cast("B")[:] = _ZERO_PAGE  # it may hold what a former owner left
    return pages[0] if len(pages) == 1 else JoinedPages(pages)


def blank(size: int) -> Words:
    """The words of an empty table of ``size`` bytes that lies nowhere.

    >>> len(blank(16384))
    2048
    """
    pages = [array("Q", _ZERO_PAGE) for _ in range(0, size, PAGE_SIZE)]
    return pages[0] if len(pages) == 1 else JoinedPages(pages)


class FrameTables(TablePages):
    """Tables in frames of ``frames``, as many as they are large: tables and data compete for the same memory.

    With ``ram`` the entries are bytes there, which devices can read and overwrite if something leads them to it; a
    page that is given back keeps its bytes. ``highest``: the last address that the IOMMU's walker reads, its own DMA
    mask; there is no table beyond it, for the walker sees each table at its own address. Raises what ``frames.take``
    raises; `InvalidArgument` if the frames are smaller than a page of 4 KiB, `SpaceMismatch` if they are of another
    memory than ``ram``.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.memory import Frames, SparseRam
    >>> space = PhysSpace("ram")
    >>> frames, ram = Frames(space.at(0x4000_0000), 1 << 20), SparseRam(space)
    >>> tables = FrameTables(frames, ram)
    >>> page = tables.alloc(); hex(page), frames.free_count
    ('0x40000000', 255)
    >>> ram.fill(space.at(page), 8, 0xFF); hex(tables.entries(page)[0])
    '0xffffffffffffffff'
    >>> root = tables.alloc(16384); hex(root), frames.free_count
    ('0x40004000', 251)
    """

    def __init__(self, frames: Frames, ram: SparseRam | None = None, *, highest: int | None = None) -> None:
        super().__init__()
        self._highest = highest
        if ram is not None and frames.range.start.space is not ram.space:
            raise SpaceMismatch(f"{frames.range!r} is no memory of the space {ram.space.name!r}")
        if frames.page_size % PAGE_SIZE:
            raise InvalidArgument(f"a table page is {PAGE_SIZE} bytes, a frame {frames.page_size}")
        self._frames = frames
        self._ram = ram

    def alloc(self, size: int = PAGE_SIZE) -> int:
        """The physical address of a zeroed table of ``size`` bytes; `NoMemory` when none is free, or reached."""
        page_size = self._frames.page_size
        order = 0 if size == page_size else order_of(size, page_size)
        phys = self._frames.take(order) * page_size
        try:
            if self._highest is not None and phys + size - 1 > self._highest:
                raise NoMemory(
                    f"no table can be at {phys:#x}: the walker reads up to {self._highest:#x}, and sees a table at its "
                    "own address only",
                    paddr=phys,
                )
            words = self._words(phys, size)
        except SwiommuError:
            self._frames.give(phys // page_size, 1 << order)
            raise
        return self.add(phys, words)

    def free(self, phys: int) -> None:
        """Give the frames back; `NotFound` if it is no table."""
        size = self.remove(phys)
        page_size = self._frames.page_size
        self._frames.give(phys // page_size, 1 if size == page_size else 1 << order_of(size, page_size))

    def _words(self, phys: int, size: int) -> Words:
        if self._ram is None:
            return blank(size)
        ram = self._ram
        return joined([ram.words(PhysAddr(ram.space, page)) for page in range(phys, phys + size, PAGE_SIZE)])


class CountingTables(TablePages):
    """Tables that cost no memory of the model and are only counted (``len()``), up to ``limit`` of them.

    >>> tables = CountingTables()
    >>> hex(tables.alloc()), hex(tables.alloc(16384)), len(tables)
    ('0x1000', '0x4000', 2)
    """

    def __init__(self, *, limit: int | None = None) -> None:
        super().__init__()
        self._limit = limit
        self._next = PAGE_SIZE
        self._recycled: dict[int, list[int]] = {}
        self._countdown = 0

    def fail_nth(self, n: int) -> None:
        """Let the ``n``-th following `alloc` (1: the next) raise `NoMemory`, once."""
        self._countdown = n

    def alloc(self, size: int = PAGE_SIZE) -> int:
        """The address of a zeroed table of ``size`` bytes, never 0; `NoMemory` beyond ``limit``."""
        if self._countdown:
            self._countdown -= 1
            if not self._countdown:
                raise NoMemory("no table page: this call was told to fail")
        if self._limit is not None and len(self) >= self._limit:
            raise NoMemory(f"no table page: all {self._limit} are in use", limit=self._limit)
        recycled = self._recycled.get(size)
        if recycled:
            phys = recycled.pop()
        else:
            phys = (self._next + size - 1) & -size
            self._next = phys + size
        return self.add(phys, blank(size))

    def free(self, phys: int) -> None:
        """Give the table back; `NotFound` if it is none."""
        self._recycled.setdefault(self.remove(phys), []).append(phys)
