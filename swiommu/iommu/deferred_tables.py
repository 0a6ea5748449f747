"""Table pages that must outlive the unmap that emptied them: a walk of the IOMMU may still be in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE
from swiommu.locking import Running

if TYPE_CHECKING:
    from swiommu.pagetable import TableMemory, Words

__all__ = ["DeferredTables"]

_TABLES = "a table memory"


class DeferredTables:
    """A `TableMemory` over ``tables`` that holds back what is freed until its owner asks for it.

    ``pages`` counts, in pages of 4 KiB, what was not given back yet, ``waiting`` what of that the table has freed.
    Source: the ``freelist`` of ``struct iommu_iotlb_gather``.

    >>> from swiommu.pagetable import CountingTables
    >>> tables = DeferredTables(CountingTables())
    >>> page = tables.alloc(); tables.free(page)
    >>> freelist = tables.collect(); len(freelist), len(tables), tables.pages
    (1, 1, 1)
    >>> tables.free_now(freelist); len(tables), tables.pages
    (0, 0)
    """

    def __init__(self, tables: TableMemory, running: Running | None = None) -> None:
        self._tables = tables
        self._freelist: list[int] = []
        self._sizes: dict[int, int] = {}  # in pages of 4 KiB, of each table that was not given back
        self.pages = self.waiting = 0
        self.running = running or Running()

    def __len__(self) -> int:
        """How many pages of 4 KiB were freed by the table, but not yet given back."""
        return self.waiting

    def alloc(self, size: int = PAGE_SIZE) -> int:
        """See `TableMemory.alloc`."""
        before, self.running.what = self.running.what, _TABLES
        try:
            phys = self._tables.alloc(size)
        finally:
            self.running.what = before
        self._sizes[phys] = size // PAGE_SIZE
        self.pages += size // PAGE_SIZE
        return phys

    def entries(self, phys: int) -> Words:
        """See `TableMemory.entries`."""
        return self._tables.entries(phys)

    def word(self, address: int) -> int:
        """See `TableMemory.word`."""
        return self._tables.word(address)

    def free(self, phys: int) -> None:
        """Hold the page for `collect`."""
        self.waiting += self._sizes[phys]
        self._freelist.append(phys)

    def collect(self) -> list[int]:
        """What was freed since the last call; it belongs to the caller, who ends with `free_now`."""
        freelist, self._freelist = self._freelist, []
        return freelist

    def free_collected(self) -> None:
        """Give back what no caller has collected; what is left if this raises is collected next time."""
        self.free_now(self._freelist)

    def hold(self, freelist: list[int]) -> None:
        """Have what a caller had collected back, to be given back later."""
        self._freelist += freelist

    def free_now(self, freelist: list[int]) -> None:
        """Give these pages back; those that are left in ``freelist`` if this raises are still held."""
        before, self.running.what = self.running.what, _TABLES
        try:
            while freelist:
                phys = freelist[0]
                self._tables.free(phys)
                del freelist[0]
                size = self._sizes.pop(phys)
                self.waiting -= size
                self.pages -= size
        finally:
            self.running.what = before

    def check(self) -> None:
        """The pages counted are those of the tables that were not given back; `AssertionError` with a dump."""
        held = {phys: self._sizes.get(phys, 0) for phys in self._freelist}
        dump = f"{self.pages} pages, {self.waiting} waiting; tables {self._sizes}, freed {self._freelist}"
        assert self.pages == sum(self._sizes.values()), dump
        assert len(held) == len(self._freelist), f"freed twice: {dump}"
        assert sum(held.values()) <= self.waiting <= self.pages, dump
