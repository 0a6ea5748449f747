"""The bitmap allocator of mainline Linux (``mm/cma.c``): first fit by address, one bit for 2**order_per_bit pages.

Kernels differ in what a failure is called (`swiommu.profile`): up to 6.14 they answer ENOMEM when nothing fits and
EBUSY only after a busy range was met; from 6.15 on EBUSY for both, and they refuse early when more pages are asked for
than are available. Source: ``cma_alloc`` and ``cma_release`` of these kernels.
"""

from __future__ import annotations

import copy
import errno
from bisect import bisect_left
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from swiommu.address import as_integer, as_integers
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NoMemory, NotFound, OutOfRange, SwiommuError
from swiommu.locking import no_shallow_copy
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of
from swiommu.region.allocator import FailSwitch, check_range, check_request
from swiommu.region.reports import Reports
from swiommu.region.runs import FreeRuns
from swiommu.undo import Undoable, UndoLog

__all__ = ["Bitmap", "Migrate"]

Migrate: TypeAlias = Callable[[int, int], int]
"""``migrate(pfn, count)``: move whatever uses these pages away; 0, or a positive errno (EBUSY: try elsewhere)."""


_MIGRATION_ERRNO = {0: 0, 1: errno.EBUSY, 2: errno.ENOMEM}


class Bitmap(Undoable, Reports):
    """One contiguous area of ``size`` bytes from the absolute address ``start``, as mainline CMA serves it.

    Addresses are in bytes in the `Allocator` methods and in pages (pfn, count, alignment *orders*) in `alloc_pages`
    and `release`, which are the kernel's own calls. ``order_per_bit`` may leave a partial last bit, whose pages are
    never handed out. `retries` counts the busy ranges that the last allocation stepped over.

    Raises `InvalidArgument` for a start or size that is not a whole number of pages.

    >>> area = Bitmap(0x4000_0000, 64 << 20)
    >>> hex(area.alloc_pages(507, 8)), hex(area.alloc_pages(1, 0)), hex(area.alloc_pages(507, 8))
    ('0x40000', '0x401fb', '0x40200')
    >>> area.release(0x40000, 507), area.free_runs()
    (True, [(0, 507), (508, 4), (1019, 15365)])
    """

    __slots__ = (
        "_busy",
        "_busy_pfns",
        "_fail",
        "_runs",
        "available",
        "base_pfn",
        "count",
        "order_per_bit",
        "page_size",
        "profile",
        "retries",
        "size",
        "start",
    )

    __copy__ = no_shallow_copy

    name = "bitmap"

    def __init__(
        self,
        start: int,
        size: int,
        *,
        page_size: int = 4096,
        order_per_bit: int = 0,
        profile: Profile | str = DEFAULT_PROFILE,
    ) -> None:
        start, size, page_size = check_range(start, size, page_size)
        if start % page_size or size % page_size:
            raise InvalidArgument(
                f"{size:#x} bytes at {start:#x} are not whole pages of {page_size} bytes", start=start, size=size
            )
        order_per_bit = as_integer(order_per_bit, "order_per_bit")
        if order_per_bit < 0:
            raise InvalidArgument(f"a bit can't stand for 2**{order_per_bit} pages")
        self.start = start
        self.size = size
        self.page_size = page_size
        self.order_per_bit = order_per_bit
        self.profile = profile_of(profile)
        self.base_pfn = start // page_size
        self.count = size // page_size
        self.retries = 0
        # The kernel's available_count: pages, and allocations count as asked for, not rounded up to whole bits.
        self.available = self.count
        self._runs = FreeRuns(self.count >> order_per_bit)
        self._busy: dict[int, int] = {}
        self._busy_pfns: list[int] = []
        self._fail = FailSwitch()
        self.undo_log = None

    @property
    def parts(self) -> list[Bitmap]:
        """The bitmap of each range: this one, as the area is a single range."""
        return [self]

    # -- the kernel's calls, in pages ---------------------------------------------------------------------------

    def alloc_pages(self, count: int, align_order: int, *, migrate: Migrate | None = None) -> int:
        """Take ``count`` pages at a pfn that is a multiple of ``2**align_order`` and return the first pfn.

        The alignment is of the absolute pfn, to the granularity of one bit. Each candidate is offered to
        ``migrate`` (after the pages marked by `set_busy`): 0 takes it, EBUSY tries the next, another errno ends.
        Raises `NoMemory` or `Busy` by the profile (the module's docstring), with ``retries`` and ``kernel_errno``,
        the positive errno that the kernel prints; `InvalidArgument` for a count below 1 or a negative order.

        >>> Bitmap(0, 1 << 20, profile="7.3").alloc_pages(257, 0)
        Traceback (most recent call last):
        ...
        swiommu.errors.Busy: 257 pages were asked for and 256 are available
        """
        if type(count) is not int or type(align_order) is not int:
            count, align_order = as_integers(count=count, align_order=align_order)
        self._check_pages(count, align_order)
        self.retries = 0
        self._fail.refuse(count * self.page_size)
        if self._refused_early(count):
            raise self._failure(f"{count} pages were asked for and {self.available} are available", count, errno.EBUSY)
        code, pfn = self.search_and_take(count, align_order, migrate)
        if code:
            raise self._failure(self._sentence(count, align_order, pfn, code), count, code)
        self.available -= count
        assert pfn is not None
        return pfn

    def search_and_take(self, count: int, align_order: int, migrate: Migrate | None) -> tuple[int, int | None]:
        """(0 or errno, the pfn taken or failed at): what one range of an area does, which keeps the area's account.

        Unlike `alloc_pages` it raises nothing, leaves `available` alone and is not refused by it.
        """
        if type(count) is not int or type(align_order) is not int:
            count, align_order = as_integers(count=count, align_order=align_order)
        code, bit, self.retries = self._search(count, align_order, migrate)
        if bit is None:
            return code, None
        if not code:
            self._runs.take(bit, self._bits(count))
        return code, self.base_pfn + (bit << self.order_per_bit)

    def try_pages(self, count: int, align_order: int) -> int:
        """0 or errno of `search_and_take` without a migration; takes nothing."""
        if type(count) is not int or type(align_order) is not int:
            count, align_order = as_integers(count=count, align_order=align_order)
        return self._search(count, align_order, None)[0]

    def candidate(self, count: int, align_order: int, *, after_pfn: int | None = None) -> int | None:
        """The pfn that `alloc_pages` would try first, or next after ``after_pfn`` was busy; None if there is none.

        Takes nothing and asks nobody about busy pages: one step of the kernel's loop, for a caller that is told how
        each migration ended. Arguments and `InvalidArgument` as `alloc_pages`.

        >>> area = Bitmap(0x4000_0000, 64 << 20)
        >>> hex(area.candidate(300, 8)), hex(area.candidate(300, 8, after_pfn=0x40000)), area.candidate(16385, 0)
        ('0x40000', '0x40100', None)
        """
        if type(count) is not int or type(align_order) is not int:
            count, align_order = as_integers(count=count, align_order=align_order)
        self._check_pages(count, align_order)
        if self._refused_early(count):
            return None
        step, offset = self._steps(align_order)
        start = 0 if after_pfn is None else max(((after_pfn - self.base_pfn) >> self.order_per_bit) + step, 0)
        bit = self._runs.find(self._bits(count), step=step, offset=offset, start=start)
        return None if bit is None else self.base_pfn + (bit << self.order_per_bit)

    def release(self, pfn: int, count: int) -> bool:
        """Clear the bits of ``count`` pages from ``pfn``, set or not; False if they are not this area's.

        Only the first page decides, as in the kernel; the area keeps no record of what was allocated. A run over
        the end is False from 6.15 on and stops an older kernel: `OutOfRange` here. `InvalidArgument` for a negative
        count.
        """
        if type(pfn) is not int or type(count) is not int:
            pfn, count = as_integers(pfn=pfn, count=count)
        if count < 0:
            raise InvalidArgument(f"{count} pages can't be released", count=count)
        if count > self.count or not self.base_pfn <= pfn < self.base_pfn + self.count:
            return False
        if pfn + count > self.base_pfn + self.count:
            if self.profile.cma_counts_pages:
                return False
            raise OutOfRange(
                f"{count} pages from pfn {pfn:#x} run over the end of the area at {self.base_pfn + self.count:#x}",
                pfn=pfn,
                count=count,
            )
        bit = (pfn - self.base_pfn) >> self.order_per_bit
        length = min(self._bits(count), self._runs.count - bit)
        if length > 0:
            self._runs.give(bit, length)
        self.available += count
        return True

    def set_busy(self, pfn: int, count: int, state: int) -> None:
        """Say how migrating these pages ends: 1 busy (tried elsewhere), 2 a hard failure, 0 normal again.

        The first page of a candidate that is not in state 0 decides; padding up to a whole bit is not asked.
        """
        if type(pfn) is not int or type(count) is not int or type(state) is not int:
            pfn, count, state = as_integers(pfn=pfn, count=count, state=state)
        if state not in _MIGRATION_ERRNO:
            raise InvalidArgument(f"state {state} is none of 0 (normal), 1 (busy), 2 (fails)")
        if self.undo_log is not None:
            self.undo_log.note(self._mark_busy, {page: self._busy.get(page, 0) for page in range(pfn, pfn + count)})
        self._mark_busy(dict.fromkeys(range(pfn, pfn + count), state))

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`; `retries` and `fail_nth` come back too."""
        log.save(self, "available", "retries")
        log.save(self._fail, "left")
        return (self._runs,)

    def copy(self) -> Bitmap:
        """The same area, of its own."""
        return copy.deepcopy(self)

    @property
    def busy(self) -> Mapping[int, int]:
        """State by pfn of every page that `set_busy` marked."""
        return MappingProxyType(self._busy)

    @property
    def free_bits(self) -> int:
        """Number of clear bits."""
        return self._runs.total

    def free_runs(self) -> list[tuple[int, int]]:
        """Runs of clear bits as (first bit, length), by position."""
        return self._runs.runs()

    def free_extents(self) -> str:
        """What the kernel prints of an area after a failed allocation: every clear run as ``<pages>@<bit>``.

        Source: ``cma_debug_show_areas``. From 6.15 on the pages free are the account `available`, and every run
        that does not begin at bit 0 has a plus sign before it.

        >>> area = Bitmap(0x4000_0000, 64 << 20)
        >>> pfn = area.alloc_pages(507, 8), area.alloc_pages(1, 0), area.release(0x40000, 507)
        >>> area.free_extents()
        '507@0+15876@508=> 16383 free of 16384 total pages'
        """
        free = self.available if self.profile.cma_counts_pages else self._runs.total << self.order_per_bit
        return f"{self.extents_of_range()}=> {free} free of {self.count} total pages"

    def extents_of_range(self) -> str:
        """The clear runs alone, as `free_extents` begins."""
        runs = [f"{length << self.order_per_bit}@{bit}" for bit, length in self._runs.runs()]
        plus = self.profile.cma_counts_pages and bool(runs) and not runs[0].endswith("@0")
        return "+" * plus + "+".join(runs)

    # -- the allocator protocol, in bytes -----------------------------------------------------------------------

    @property
    def free_space(self) -> int:
        """Bytes behind clear bits; padding of the last bit of each allocation is not free."""
        return self._runs.total * self._bit_size

    def alloc(self, size: int, align: int) -> int:
        """Take ``size`` bytes at a multiple of ``align`` bytes and return the address; errors as `alloc_pages`.

        >>> hex(Bitmap(0x1000, 0x8000).alloc(0x1000, 0x4000))
        '0x4000'
        """
        size, align = check_request(size, align, self.page_size)
        return self.alloc_pages(size // self.page_size, self._order(align)) * self.page_size

    def free(self, start: int, size: int) -> None:
        """Give ``size`` bytes at ``start`` back, a whole allocation or whole bits of it.

        Unlike `release` this wants every bit to be set: else `NotFound` and nothing changed.
        """
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        bit, length = self._range_bits(start, size)
        if length < 1 or self._runs.any_clear(bit, length):
            raise NotFound(f"{size} bytes at {start:#x} are not allocated", start=start, size=size)
        self._runs.give(bit, length)
        self.available += size // self.page_size

    def reserve(self, start: int, size: int) -> None:
        """Take exactly these bytes (whole pages, from the start of a bit); `AddressInUse` if any is not free."""
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        bit, length = self._range_bits(start, size)
        if length < 1 or not self._runs.take(bit, length):
            raise AddressInUse(f"{size} bytes at {start:#x} are not all free", start=start, size=size)
        self.available -= size // self.page_size

    def fits(self, size: int, align: int) -> bool:
        """Whether `alloc` would succeed now, busy pages considered; nothing changes.

        >>> Bitmap(0x1000, 0x8000).fits(0x6000, 0x4000)
        False
        """
        size, align = check_request(size, align, self.page_size)
        count = size // self.page_size
        if self._refused_early(count):
            return False
        return self._search(count, self._order(align), None)[0] == 0

    def holes(self) -> list[tuple[int, int]]:
        """Every free range as (start, size) in bytes, by address, merged."""
        unit = self._bit_size
        return [(self.start + bit * unit, length * unit) for bit, length in self._runs.runs()]

    def fail_nth(self, n: int) -> None:
        """Make the ``n``-th following `alloc` or `alloc_pages` (1 = the next) raise `NoMemory`, once."""
        self._fail.arm(n)

    def check(self) -> None:
        """Raise AssertionError with a dump if the runs or the list of busy pages contradict themselves."""
        self._runs.check()
        assert self._runs.count == self.count >> self.order_per_bit, f"{self!r} has {self._runs.count} bits"
        assert self._busy_pfns == sorted(self._busy), f"busy pages {self._busy_pfns} are not {self._busy}"

    def __repr__(self) -> str:
        return (
            f"Bitmap({self.start:#x}, {self.size:#x}, order_per_bit={self.order_per_bit}, "
            f"profile={self.profile.name!r}, free_bits={self._runs.total})"
        )

    # -- inside --------------------------------------------------------------------------------------------------

    def _mark_busy(self, states: dict[int, int]) -> None:
        for page, state in states.items():
            if state:
                self._busy[page] = state
            else:
                self._busy.pop(page, None)
        self._busy_pfns = sorted(self._busy)

    @property
    def _bit_size(self) -> int:
        return self.page_size << self.order_per_bit

    def _bits(self, count: int) -> int:
        return -(-count >> self.order_per_bit)

    def _order(self, align: int) -> int:
        return (align // self.page_size).bit_length() - 1

    def _check_pages(self, count: int, align_order: int) -> None:
        if align_order >= 64:  # 2**align_order is computed
            raise InvalidArgument(f"an alignment of 2**{align_order} pages is beyond 64 bits")
        if count < 1 or align_order < 0:
            raise InvalidArgument(f"{count} pages aligned to 2**{align_order} pages can't be allocated", count=count)

    def _refused_early(self, count: int) -> bool:
        return self.profile.cma_counts_pages and count > self.available

    def _steps(self, align_order: int) -> tuple[int, int]:
        """Distance of aligned places and offset of the area's base from one, in bits."""
        step = 1 << max(align_order - self.order_per_bit, 0)
        return step, (self.base_pfn & ((1 << align_order) - 1)) >> self.order_per_bit

    def _range_bits(self, start: int, size: int) -> tuple[int, int]:
        """First bit and number of bits of a byte range; length 0 if it isn't made of this area's bits."""
        offset = start - self.start
        if offset < 0 or offset % self._bit_size or size < 1 or size % self.page_size:
            return 0, 0
        bit, length = offset // self._bit_size, self._bits(size // self.page_size)
        return (bit, length) if bit + length <= self._runs.count else (0, 0)

    def _search(self, count: int, align_order: int, migrate: Migrate | None) -> tuple[int, int | None, int]:
        """(0 or errno, bit where the search ended or None, busy ranges met): ``cma_alloc`` without its effects."""
        step, offset = self._steps(align_order)
        need = self._bits(count)
        code = self.profile.cma_full_errno
        retries = start = 0
        while (bit := self._runs.find(need, step=step, offset=offset, start=start)) is not None:
            pfn = self.base_pfn + (bit << self.order_per_bit)
            code = self._migrate(pfn, count) or (migrate(pfn, count) if migrate else 0)
            if code != errno.EBUSY:
                return code, bit, retries
            more = self._also_busy(bit, step, need) if migrate else 0
            retries += 1 + more
            start = bit + (1 + more) * step
        return code, None, retries

    def _also_busy(self, bit: int, step: int, need: int) -> int:
        """How many places of the search behind ``bit``, which was busy just now, are known to be busy as well."""
        del bit, step, need
        return 0

    def _migrate(self, pfn: int, count: int) -> int:
        index = bisect_left(self._busy_pfns, pfn)
        if index == len(self._busy_pfns) or self._busy_pfns[index] >= pfn + count:
            return 0
        return _MIGRATION_ERRNO[self._busy[self._busy_pfns[index]]]

    def _sentence(self, count: int, align_order: int, pfn: int | None, code: int) -> str:
        asked = f"{count} pages aligned to 2**{align_order} pages"
        if pfn is not None:
            return f"migrating pfn {pfn:#x} for {asked} failed with errno {code} after {self.retries} busy places"
        return (
            f"no place for {asked}: {self.free_bits} of {self._runs.count} bits are clear, at most "
            f"{self._runs.longest} in a row, and {self.retries} places were busy"
        )

    def _failure(self, sentence: str, count: int, code: int) -> SwiommuError:
        kind = Busy if code == errno.EBUSY else NoMemory
        return kind(sentence, count=count, retries=self.retries, kernel_errno=code)
