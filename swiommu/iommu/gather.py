"""Gathering what an unmap took away, so that one invalidation can cover it (``struct iommu_iotlb_gather``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiommu.address import as_integers

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["IotlbGather"]

_ALL_ONES = (1 << 64) - 1


class IotlbGather:
    """A range of bus addresses to invalidate; ``flush(start, last)`` is called by `sync`, once per command.

    ``last`` is inclusive, as in the kernel (its field is called ``end``). ``waiting`` is what a domain gives back when
    it has flushed, which ``done`` is called for; ``queued``: a flush of everything follows, so that nobody need look at
    single pages. Source: include/linux/iommu.h.

    >>> gather = IotlbGather(lambda start, last: print(f"{start:#x}-{last:#x}"))
    >>> gather.add_range(0x3000, 0x1000); gather.add_range(0x1000, 0x1000); gather.sync()
    0x1000-0x3fff
    """

    __slots__ = ("done", "flush", "last", "pgsize", "queued", "start", "waiting")

    def __init__(
        self,
        flush: Callable[[int, int], None],
        *,
        queued: bool = False,
        done: Callable[[IotlbGather], None] | None = None,
    ) -> None:
        self.flush = flush
        self.done = done
        self.queued = queued
        self.waiting: list[Any] = []
        self.start, self.last, self.pgsize = _ALL_ONES, 0, 0

    def add_range(self, iova: int, size: int) -> None:
        """Widen the range to take in ``size`` bytes at ``iova``: what formats of range invalidation use."""
        if type(iova) is not int or type(size) is not int:
            iova, size = as_integers(iova=iova, size=size)
        self.start = min(self.start, iova)
        self.last = max(self.last, iova + size - 1)

    def is_disjoint(self, iova: int, size: int) -> bool:
        """Whether a gap lies between the range and ``size`` bytes at ``iova``; touching is not disjoint."""
        return self.last != 0 and (iova + size < self.start or iova > self.last + 1)

    def add_page(self, iova: int, size: int, count: int = 1) -> None:
        """Add ``count`` pages of ``size`` bytes; another size before, or a gap, is flushed first.

        >>> gather = IotlbGather(lambda start, last: print(f"{start:#x}-{last:#x}"))
        >>> gather.add_page(0x1000, 0x1000, 3); gather.add_page(0x20_0000, 0x20_0000); gather.sync()
        0x1000-0x3fff
        0x200000-0x3fffff
        """
        if type(iova) is not int or type(size) is not int or type(count) is not int:
            iova, size, count = as_integers(iova=iova, size=size, count=count)
        if self.last and ((self.pgsize and self.pgsize != size) or self.is_disjoint(iova, size * count)):
            self.sync()
        self.pgsize = size
        self.add_range(iova, size * count)

    def sync(self) -> None:
        """Flush if anything was gathered, and begin anew."""
        start, last = self.start, self.last
        self.start, self.last, self.pgsize = _ALL_ONES, 0, 0
        if start < last:
            self.flush(start, last)
            if self.done is not None:
                self.done(self)
