"""A promise to a device: so many bytes in blocks up to so many, whatever the neighbours in its region do.

Free bytes alone promise nothing: blocks that can't move leave holes between them. The theory says how much more must be
set aside. Below Robson's bound no allocator can keep the promise; what first fit needs is bounded from above, by the
harmonic number of the largest block, and that is what `Guarantee` sets aside: by the worst case some seven times what a
common workload would need. Sizes of blocks are in whole pages, alignment is that of a page.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

from swiommu.address import PAGE_SIZE, BusAddr, PhysAddr, align_up, as_integer, as_integers
from swiommu.errors import Busy, InvalidArgument, NoMemory
from swiommu.locking import locked, no_shallow_copy
from swiommu.region.region import Chunk, Region

__all__ = ["Guarantee", "first_fit_reserve", "robson_bound"]

A = TypeVar("A", PhysAddr, BusAddr)


def robson_bound(total: int, largest: int, page_size: int = PAGE_SIZE) -> int:
    """Bytes below which no allocator can promise ``total`` live bytes in blocks of up to ``largest``.

    n (lg m / 2 + 1) - m + 1 pages for n live pages in power-of-two blocks up to m pages; what of ``largest`` is no
    power of two, and what of ``total`` no multiple of that, is left out: a lower bound all the same. Source: Robson.
    `InvalidArgument` unless both are at least a page and ``largest`` is not above ``total``.

    >>> [robson_bound(total << 20, largest << 20) // 4096 for total, largest in ((256, 16), (64, 8), (32, 1))]
    [454657, 104449, 40705]
    """
    total, largest, page_size = as_integers(total=total, largest=largest, page_size=page_size)
    n, m = _pages(total, largest, page_size)
    order = m.bit_length() - 1
    m = 1 << order
    n -= n % m
    return (n * (order + 2) // 2 - m + 1) * page_size


def first_fit_reserve(total: int, largest: int, page_size: int = PAGE_SIZE) -> int:
    """Bytes in which first fit never fails while at most ``total`` bytes live in blocks of up to ``largest``.

    n H(m) / ln 2 pages, H the harmonic number; just ``total`` where every block is one page. Source: Knuth, The Art of
    Computer Programming, volume 1, section 2.5. Errors as `robson_bound`.

    >>> round(first_fit_reserve(256 << 20, 16 << 20) / (256 << 20), 2)
    12.83
    """
    total, largest, page_size = as_integers(total=total, largest=largest, page_size=page_size)
    n, m = _pages(total, largest, page_size)
    if m == 1:
        return n * page_size
    return math.ceil(n * _harmonic(m) / math.log(2)) * page_size


def _harmonic(m: int) -> float:
    return math.fsum(1 / k for k in range(1, m + 1))


def _pages(total: int, largest: int, page_size: int) -> tuple[int, int]:
    if not page_size <= largest <= total:
        raise InvalidArgument(
            f"{total} bytes in blocks of up to {largest}: neither can be less than a page of {page_size}, "
            "nor a block larger than all of them",
        )
    return -(-total // page_size), -(-largest // page_size)


class Guarantee(Generic[A]):
    """A dedicated part of ``region``, large enough that ``total`` bytes in blocks up to ``largest`` never fail.

    `NoMemory` if the region has no room for the part now. Every block counts with its whole pages.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.region import Region
    >>> region = Region(PhysSpace("ram").at(0x4000_0000), 64 << 20)
    >>> promise = Guarantee(region, 1 << 20, 256 << 10)
    >>> promise.reserved_bytes >> 10, region.free_space == (64 << 20) - promise.reserved_bytes
    (7012, True)
    >>> chunk = promise.alloc(200_000); promise.live_bytes
    200704
    >>> promise.alloc(300_000)
    Traceback (most recent call last):
    ...
    swiommu.errors.NoMemory: 303104 bytes are more than was promised: 1048576 in blocks of up to 262144, 200704 are live
    >>> promise.free(chunk); promise.end(); region.free_space >> 20
    64
    """

    __copy__ = no_shallow_copy

    def __init__(self, region: Region[A], total: int, largest: int) -> None:
        total, largest = as_integers(total=total, largest=largest)
        self.total = align_up(total, region.page_size)
        self.largest = align_up(largest, region.page_size)
        self.live_bytes = 0
        self._region: Region[A] = region
        self._page_size = region.page_size
        self._part: Chunk[A] = region.alloc(first_fit_reserve(total, largest, region.page_size))
        self._own: Region[A] = Region(
            self._part.start, self._part.size, allocator="first_fit", page_size=region.page_size
        )
        self.lock = self._own.lock

    @property
    def reserved_bytes(self) -> int:
        """What the promise takes from the region."""
        return self._part.size

    @locked
    def alloc(self, size: int) -> Chunk[A]:
        """``size`` bytes, rounded up to pages; `NoMemory` only for what was not promised, `InvalidArgument` below 1."""
        size = as_integer(size, "size")
        rounded = align_up(size, self._page_size)
        if rounded > self.largest or self.live_bytes + rounded > self.total:
            raise NoMemory(
                f"{rounded} bytes are more than was promised: {self.total} in blocks of up to {self.largest}, "
                f"{self.live_bytes} are live",
                size=rounded,
            )
        chunk = self._own.alloc(size)
        self.live_bytes += chunk.size
        return chunk

    @locked
    def free(self, chunk: Chunk[A]) -> None:
        """Give a block back; `NotFound` unless it is a live one of this promise."""
        self._own.free(chunk)
        self.live_bytes -= chunk.size

    @locked
    def end(self) -> None:
        """Give the part back to the region; `Busy` while blocks of it live."""
        if self._own.users:
            raise Busy(f"{self._own.users} blocks of {self.live_bytes} bytes live in the part")
        self._region.free(self._part)

    @locked
    def check(self) -> None:
        """Assert: the part is sound, and what lives in it is what was counted and no more than was promised."""
        self._own.check()
        assert self.live_bytes == self._own.size - self._own.free_space, f"counted {self.live_bytes}: {self._own!r}"
        assert self.live_bytes <= self.total, f"{self.live_bytes} of {self.total} bytes live"
