"""Where table pages come from: a protocol, pages out of `swiommu.memory.Frames`, and pages out of thin air."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Protocol

from swiommu.address import PAGE_SIZE, PhysAddr
from swiommu.errors import InvalidArgument, NoMemory, NotFound, SpaceMismatch
from swiommu.pagetable.format import TABLE_ENTRIES

if TYPE_CHECKING:
    from swiommu.memory import Frames, SparseRam

__all__ = ["CountingTables", "FrameTables", "TableMemory"]

_ZERO_PAGE = bytes(PAGE_SIZE)
assert array("Q", _ZERO_PAGE).buffer_info()[1] == TABLE_ENTRIES


class TableMemory(Protocol):
    """Gives 4 KiB pages for tables, each readable as 512 entries of 64 bits; all addresses are physical."""

    def alloc(self) -> int:
        """The physical address of a zeroed page; `NoMemory` when there is none."""
        ...

    def free(self, phys: int) -> None:
        """Give the page at ``phys`` back; `NotFound` if it is no table page."""
        ...

    def entries(self, phys: int) -> array[int]:
        """The live contents of the page at ``phys``; `NotFound` if it is no table page."""
        ...


class _Pages:
    """The contents of the table pages that live, by physical address."""

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def entries(self, phys: int) -> array[int]:
        """The live contents of the page at ``phys``; `NotFound` if it is no table page."""
        try:
            return self._pages[phys]
        except KeyError:
            raise NotFound(f"{phys:#x} is no table page", phys=phys) from None

    def _add(self, phys: int) -> int:
        self._pages[phys] = self._fresh(phys)
        return phys

    def _fresh(self, phys: int) -> array[int]:
        del phys  # these pages lie nowhere
        return array("Q", _ZERO_PAGE)

    def _remove(self, phys: int) -> None:
        if self._pages.pop(phys, None) is None:
            raise NotFound(f"{phys:#x} is no table page", phys=phys)


class FrameTables(_Pages):
    """Table pages that each take one frame of ``frames``: tables and data compete for the same memory.

    With ``ram`` the entries are bytes there, which devices can read and overwrite if something leads them to it; a
    page that is given back keeps its bytes. Raises what ``frames.take`` raises; `InvalidArgument` if the frames are
    not of 4 KiB, `SpaceMismatch` if they are of another memory than ``ram``.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.memory import Frames, SparseRam
    >>> space = PhysSpace("ram")
    >>> frames, ram = Frames(space.at(0x4000_0000), 1 << 20), SparseRam(space)
    >>> tables = FrameTables(frames, ram)
    >>> page = tables.alloc(); hex(page), frames.free_count
    ('0x40000000', 255)
    >>> ram.fill(space.at(page), 8, 0xFF); hex(tables.entries(page)[0])
    '0xffffffffffffffff'
    """

    def __init__(self, frames: Frames, ram: SparseRam | None = None) -> None:
        super().__init__()
        if ram is not None and frames.range.start.space is not ram.space:
            raise SpaceMismatch(f"{frames.range!r} is no memory of the space {ram.space.name!r}")
        if frames.page_size != PAGE_SIZE:
            raise InvalidArgument(
                f"a table page is {PAGE_SIZE} bytes, a frame {frames.page_size}", page_size=frames.page_size
            )
        self._frames = frames
        self._ram = ram

    def alloc(self) -> int:
        """The physical address of a zeroed page; `NoMemory` when no frame is free."""
        return self._add(self._frames.take(0) * PAGE_SIZE)

    def free(self, phys: int) -> None:
        """Give the frame back; `NotFound` if it is no table page."""
        self._remove(phys)
        self._frames.give(phys // PAGE_SIZE, 1)

    def _fresh(self, phys: int) -> array[int]:
        if self._ram is None:
            return super()._fresh(phys)
        words = self._ram.words(PhysAddr(self._ram.space, phys))
        memoryview(words).cast("B")[:] = _ZERO_PAGE  # it may hold what a former owner of the frame left
        return words


class CountingTables(_Pages):
    """Table pages that cost no memory of the model and are only counted (``len()``), up to ``limit`` pages.

    >>> tables = CountingTables()
    >>> hex(tables.alloc()), len(tables)
    ('0x1000', 1)
    """

    def __init__(self, *, limit: int | None = None) -> None:
        super().__init__()
        self._limit = limit
        self._next = PAGE_SIZE
        self._recycled: list[int] = []
        self._countdown = 0

    def fail_nth(self, n: int) -> None:
        """Let the ``n``-th following `alloc` (1: the next) raise `NoMemory`, once."""
        self._countdown = n

    def alloc(self) -> int:
        """The address of a zeroed page, never 0; `NoMemory` beyond ``limit``."""
        if self._countdown:
            self._countdown -= 1
            if not self._countdown:
                raise NoMemory("no table page: this call was told to fail")
        if self._limit is not None and len(self) >= self._limit:
            raise NoMemory(f"no table page: all {self._limit} are in use", limit=self._limit)
        if self._recycled:
            return self._add(self._recycled.pop())
        self._next += PAGE_SIZE
        return self._add(self._next - PAGE_SIZE)

    def free(self, phys: int) -> None:
        """Give the page back; `NotFound` if it is no table page."""
        self._remove(phys)
        self._recycled.append(phys)
