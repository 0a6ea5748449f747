"""A contiguous area made of several ranges, as mainline has them from 6.15 on: one account, a bitmap for each range.

Kernels build such an area when no single range is large enough. Source: ``cma_alloc``, ``cma_range_alloc`` and
``cma_release`` of these kernels: ranges are tried in their order, and the next one only while the answer is EBUSY.
"""

from __future__ import annotations

import errno
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from swiommu.address import as_integers
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NoMemory, NotFound
from swiommu.locking import no_shallow_copy
from swiommu.profile import profile_of
from swiommu.region.allocator import FailSwitch, check_range, check_request
from swiommu.region.bitmap import Bitmap
from swiommu.region.reports import Reports
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.region.allocator import Allocator
    from swiommu.region.bitmap import Migrate
    from swiommu.undo import UndoLog

__all__ = ["BitmapRanges", "make_bitmap"]

_MOST_RANGES = 8


class BitmapRanges(Undoable, Reports):
    """An area of several ``ranges`` within ``size`` bytes from ``start``; what lies between them is never handed out.

    ``ranges`` are (start, size) in bytes, ascending, at most 8, none touching the next; they behave as from 6.15 on
    `Bitmap`: `available` counts the pages of all of them, a request for more is refused before any is searched, and an
    allocation never crosses from one range into another. `retries` counts the busy places of the last allocation.

    Raises `InvalidArgument` for ranges that are none of that, or not whole pages.

    >>> area = BitmapRanges(0, 0x10000, ranges=[(0, 0x3000), (0x8000, 0x8000)])
    >>> area.alloc_pages(4, 0), area.alloc_pages(3, 0), area.free_extents()
    (8, 0, 'range 0: range 1: +4@4=> 4 free of 11 total pages')
    """

    __slots__ = (
        "_fail",
        "available",
        "count",
        "order_per_bit",
        "page_size",
        "parts",
        "retries",
        "size",
        "start",
    )

    __copy__ = no_shallow_copy

    name = "bitmap"
    profile = profile_of((6, 15))

    def __init__(
        self,
        start: int,
        size: int,
        *,
        ranges: Sequence[tuple[int, int]],
        page_size: int = 4096,
        order_per_bit: int = 0,
    ) -> None:
        start, size, page_size = check_range(start, size, page_size)
        if not 1 <= len(ranges) <= _MOST_RANGES:
            raise InvalidArgument(f"an area has 1 to {_MOST_RANGES} ranges, not {len(ranges)}", count=len(ranges))
        if any(low + length >= after for (low, length), (after, _) in pairwise(ranges)):
            raise InvalidArgument(f"ranges {_text(ranges)} are not ascending and apart")
        self.parts = [
            Bitmap(low, length, page_size=page_size, order_per_bit=order_per_bit, profile=self.profile)
            for low, length in ranges
        ]
        if ranges[0][0] < start or sum(ranges[-1]) > start + size:
            raise InvalidArgument(
                f"ranges {_text(ranges)} are not all within {size:#x} bytes at {start:#x}", start=start, size=size
            )
        self.start = start
        self.size = size
        self.page_size = page_size
        self.order_per_bit = order_per_bit
        self.retries = 0
        self.count = sum(part.count for part in self.parts)
        self.available = self.count
        self._fail = FailSwitch()
        self.undo_log = None

    def alloc_pages(self, count: int, align_order: int, *, migrate: Migrate | None = None) -> int:
        """Take ``count`` pages at a pfn that is a multiple of ``2**align_order`` and return the first pfn.

        Arguments and errors as `Bitmap.alloc_pages` from 6.15 on: the first range that has a place serves.
        """
        if type(count) is not int or type(align_order) is not int:
            count, align_order = as_integers(count=count, align_order=align_order)
        if count < 1 or align_order < 0:
            raise InvalidArgument(f"{count} pages aligned to 2**{align_order} pages can't be allocated", count=count)
        self.retries = 0
        self._fail.refuse(count * self.page_size)
        if count > self.available:
            raise self._failure(f"{count} pages were asked for and {self.available} are available", count, errno.EBUSY)
        for part in self.parts:
            code, pfn = part.search_and_take(count, align_order, migrate)
            self.retries += part.retries
            if not code:
                assert pfn is not None
                self.available -= count
                return pfn
            if code != errno.EBUSY:
                asked = f"{count} pages aligned to 2**{align_order} pages"
                raise self._failure(f"migrating pfn {pfn:#x} for {asked} failed with errno {code}", count, code)
        raise self._failure(
            f"no range has a place for {count} pages aligned to 2**{align_order} pages: {self.available} of "
            f"{self.count} pages are available in {len(self.parts)} ranges, and {self.retries} places were busy",
            count,
            errno.EBUSY,
        )

    def release(self, pfn: int, count: int) -> bool:
        """Clear the bits of ``count`` pages from ``pfn``, set or not; False if they are not all in one range.

        `InvalidArgument` for a negative count. Source: ``cma_release``.
        """
        if type(pfn) is not int or type(count) is not int:
            pfn, count = as_integers(pfn=pfn, count=count)
        part = self._part(pfn * self.page_size)
        if part is None:
            if count < 0:
                raise InvalidArgument(f"{count} pages can't be released", count=count)
            return False
        if not part.release(pfn, count):
            return False
        self.available += count
        return True

    def set_busy(self, pfn: int, count: int, state: int) -> None:
        """Say how migrating these pages ends, as `Bitmap.set_busy`; in whatever range each of them is."""
        if type(pfn) is not int or type(count) is not int or type(state) is not int:
            pfn, count, state = as_integers(pfn=pfn, count=count, state=state)
        for part in self.parts:
            low, high = max(pfn, part.base_pfn), min(pfn + count, part.base_pfn + part.count)
            part.set_busy(low, max(high - low, 0), state)

    def free_extents(self) -> str:
        """What the kernel prints of an area after a failed allocation, on one line: `Bitmap.free_extents` by range."""
        # Each range is a line of its own in the log.
        ranges = (f"range {number}: {part.extents_of_range()}".strip() for number, part in enumerate(self.parts))
        return f"{' '.join(ranges)}=> {self.available} free of {self.count} total pages"

    @property
    def free_bits(self) -> int:
        """Number of clear bits of all ranges."""
        return sum(part.free_bits for part in self.parts)

    @property
    def free_space(self) -> int:
        """Bytes behind clear bits of all ranges."""
        return sum(part.free_space for part in self.parts)

    def alloc(self, size: int, align: int) -> int:
        """Take ``size`` bytes at a multiple of ``align`` bytes and return the address; errors as `alloc_pages`."""
        size, align = check_request(size, align, self.page_size)
        order = (align // self.page_size).bit_length() - 1
        return self.alloc_pages(size // self.page_size, order) * self.page_size

    def free(self, start: int, size: int) -> None:
        """Give ``size`` bytes at ``start`` back as `Bitmap.free`; `NotFound` unless all are taken in one range."""
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        part = self._part(start)
        if part is None:
            raise NotFound(f"{size} bytes at {start:#x} are not allocated", start=start, size=size)
        part.free(start, size)
        self.available += size // self.page_size

    def reserve(self, start: int, size: int) -> None:
        """Take exactly these bytes as `Bitmap.reserve`; `AddressInUse` unless all are free in one range."""
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        part = self._part(start)
        if part is None:
            raise AddressInUse(f"{size} bytes at {start:#x} are not all free", start=start, size=size)
        part.reserve(start, size)
        self.available -= size // self.page_size

    def fits(self, size: int, align: int) -> bool:
        """Whether `alloc` would succeed now, busy pages considered; nothing changes."""
        size, align = check_request(size, align, self.page_size)
        if size // self.page_size > self.available:
            return False
        for part in self.parts:
            code = part.try_pages(size // self.page_size, (align // self.page_size).bit_length() - 1)
            if code != errno.EBUSY:
                return not code
        return False

    def holes(self) -> list[tuple[int, int]]:
        """Every free range as (start, size) in bytes, by address; those of two ranges never touch."""
        return list(self._holes())

    def begin_undo(self, log: UndoLog) -> list[Bitmap]:
        """See `Undoable.begin_undo`."""
        log.save(self, "available", "retries")
        log.save(self._fail, "left")
        return self.parts

    def fail_nth(self, n: int) -> None:
        """Make the ``n``-th following `alloc` or `alloc_pages` (1 = the next) raise `NoMemory`, once."""
        self._fail.arm(n)

    def check(self) -> None:
        """Raise AssertionError with a dump if a range contradicts itself or they are out of order."""
        for part in self.parts:
            part.check()
        starts = [part.start for part in self.parts]
        assert starts == sorted(starts), f"ranges of {self!r} are out of order: {starts}"

    def __repr__(self) -> str:
        ranges = _text([(part.start, part.size) for part in self.parts])
        return f"BitmapRanges({ranges}, order_per_bit={self.order_per_bit}, free_bits={self.free_bits})"

    def _holes(self) -> Iterator[tuple[int, int]]:
        for part in self.parts:
            yield from part.holes()

    def _part(self, address: int) -> Bitmap | None:
        return next((part for part in self.parts if part.start <= address < part.start + part.size), None)

    def _failure(self, sentence: str, count: int, code: int) -> Busy | NoMemory:
        kind = Busy if code == errno.EBUSY else NoMemory
        return kind(sentence, count=count, retries=self.retries, kernel_errno=code)


def make_bitmap(start: int, size: int, *, ranges: Sequence[tuple[int, int]] | None = None, **options: Any) -> Allocator:
    """The allocator ``bitmap``: a `BitmapRanges` if ``ranges`` are given, else a `Bitmap`; ``options`` are theirs.

    >>> make_bitmap(0, 0x8000), make_bitmap(0, 0x8000, ranges=[(0, 0x1000), (0x4000, 0x4000)]).free_space
    (Bitmap(0x0, 0x8000, order_per_bit=0, profile='6.12', free_bits=8), 20480)
    """
    if ranges is None:
        return Bitmap(start, size, **options)
    profile = profile_of(options.pop("profile", BitmapRanges.profile))
    if not profile.cma_several_ranges:
        raise InvalidArgument(f"kernel {profile.name} has no areas of several ranges: they came with 6.15")
    return BitmapRanges(start, size, ranges=ranges, **options)


def _text(ranges: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{start:#x}+{size:#x}" for start, size in ranges)
