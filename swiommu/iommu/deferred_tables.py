"""Table pages that must outlive the unmap that emptied them: a walk of the IOMMU may still be in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE

if TYPE_CHECKING:
    from swiommu.pagetable import TableMemory, Words

__all__ = ["DeferredTables"]


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

    def __init__(self, tables: TableMemory) -> None:
        self._tables = tables
        self._freelist: list[int] = []
        self.pages = self.waiting = 0

    def __len__(self) -> int:
        """How many pages of 4 KiB were freed by the table, but not yet given back."""
        return self.waiting

    def alloc(self, size: int = PAGE_SIZE) -> int:
        """See `TableMemory.alloc`."""
        phys = self._tables.alloc(size)
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
        self.waiting += self._size(phys)
        self._freelist.append(phys)

    def collect(self) -> list[int]:
        """What was freed since the last call; it belongs to the caller, who ends with `free_now`."""
        freelist, self._freelist = self._freelist, []
        return freelist

    def free_now(self, freelist: list[int]) -> None:
        """Give these pages back."""
        for phys in freelist:
            size = self._size(phys)
            self._tables.free(phys)
            self.waiting -= size
            self.pages -= size

    def _size(self, phys: int) -> int:
        return 8 * len(self._tables.entries(phys)) // PAGE_SIZE
