"""A simple policy for bus addresses: from the top down.

Simple is not exact: Linux keeps a cursor and size classes with caches, this one always takes the highest place
there is. Both align a range to the next power of two of its size and start at the top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE, as_integers, is_power_of_two
from swiommu.errors import AddressInUse, InvalidArgument, NoSpace, NotFound
from swiommu.iommu.iova.free_space import FreeSpace
from swiommu.iommu.iova.policy import CheckedRequests
from swiommu.locking import no_shallow_copy
from swiommu.ranges import RangeSet

if TYPE_CHECKING:
    from swiommu.undo import Undoable, UndoLog

__all__ = ["TopDownIova"]


class TopDownIova(CheckedRequests):
    """First fit from the top of ``start`` to ``last`` (inclusive), aligned to the next power of two of the size.

    The default start leaves the first page out, as Linux does: bus address 0 is too easily taken for none. Free runs
    are kept by length class (powers of two), so that a search asks each class for its highest run that fits and
    does not walk past small holes. Raises `InvalidArgument` for bounds that are not whole granules.

    >>> iova = TopDownIova()
    >>> [hex(iova.alloc(pages * 4096, 0xFFFF_FFFF, 4096)) for pages in (1, 4, 1, 40, 2)]
    ['0xfffff000', '0xffff8000', '0xffffe000', '0xfffc0000', '0xffffc000']
    """

    __slots__ = ("_bounds", "_reserved", "_shift", "_space", "cpu", "granule", "last", "start")

    __copy__ = no_shallow_copy

    def __init__(self, start: int = PAGE_SIZE, last: int = (1 << 48) - 1, *, granule: int = PAGE_SIZE) -> None:
        if type(start) is not int or type(last) is not int or type(granule) is not int:
            start, last, granule = as_integers(start=start, last=last, granule=granule)
        if not is_power_of_two(granule) or (start | last + 1) & (granule - 1) or not 0 <= start < last:
            raise InvalidArgument(
                f"{start:#x} to {last:#x} is no range of whole granules of {granule} bytes",
                start=start,
            )
        super().__init__()
        self.start = start
        self.last = last
        self.granule = granule
        self.cpu = 0
        self._shift = granule.bit_length() - 1
        self._bounds = start >> self._shift, last + 1 >> self._shift
        self._space = FreeSpace(*self._bounds)
        self._reserved = RangeSet()

    @property
    def free_bytes(self) -> int:
        """Bytes that are neither taken nor reserved."""
        return self._space.size << self._shift

    def alloc(self, size: int, limit_inclusive: int, align: int = 1) -> int:
        """See `IovaPolicy.alloc`; ``align`` is a power of two. `InvalidArgument` for a size below 1."""
        if type(size) is not int or type(limit_inclusive) is not int or type(align) is not int:
            size, limit_inclusive, align = as_integers(size=size, limit_inclusive=limit_inclusive, align=align)
        self.admit(size, align)
        pages = size + self.granule - 1 >> self._shift
        step = max(1 << (pages - 1).bit_length(), align >> self._shift)
        place = self._space.highest(pages, step, limit_inclusive + 1 >> self._shift)
        if place < 0:
            raise NoSpace(
                f"no {size} free bus bytes aligned to {step << self._shift:#x} at or below {limit_inclusive:#x}",
                size=size,
                limit=limit_inclusive,
            )
        self._space.take(place, place + pages)
        return place << self._shift

    def free(self, iova: int, size: int) -> None:
        """See `IovaPolicy.free`; nothing is changed when it raises."""
        low, high = self._clip(iova, size)
        if low >= high:
            return
        if self._reserved.first_over(low, high) or not self._space.give(low, high):
            raise NotFound(f"{size:#x} bus bytes at {iova:#x} are not all taken", iova=iova, size=size)

    def take(self, iova: int, size: int) -> None:
        """See `IovaPolicy.take`."""
        low, high = self._clip(iova, size)
        if low >= high:
            return
        if not self._space.take(low, high):
            raise AddressInUse(f"{size:#x} bus bytes at {iova:#x} are not all free", iova=iova, size=size)

    def reserve(self, low: int, high: int) -> None:
        """See `IovaPolicy.reserve`; reserving what is reserved already is allowed."""
        low, high = as_integers(low=low, high=high)
        start, stop = self._clip(low, high + 1 - low)
        wanted = list(self._reserved.gaps(start, stop))
        if not all(self._space.is_free(gap_start, gap_stop) for gap_start, gap_stop in wanted):
            raise AddressInUse(f"{low:#x} to {high:#x} can't be reserved: part of it is taken", start=low)
        for gap_start, gap_stop in wanted:
            self._space.take(gap_start, gap_stop)
            self._reserved.add(gap_start, gap_stop)
            if self.undo_log is not None:
                self.undo_log.note(self._reserved.remove, gap_start)

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`."""
        log.save(self, "_countdown", "cpu")
        return (self._space,)

    def advance(self, now_ns: int) -> None:
        """See `IovaPolicy.advance`; nothing here depends on time."""

    def check(self) -> None:
        """Free runs are sound, inside the bounds and not reserved; `AssertionError` with a dump."""
        self._space.check()
        self._reserved.check()
        dump = list(self._space)
        for start, stop in dump:
            inside = self.start >> self._shift <= start < stop <= self.last + 1 >> self._shift
            assert inside, f"run {start:#x} leaves the bounds: {dump}"
            assert self._reserved.first_over(start, stop) is None, f"run {start:#x} is reserved: {dump}"

    def _clip(self, iova: int, size: int) -> tuple[int, int]:
        # In granules, widened to whole ones, and cut to the bounds of the policy.
        if type(iova) is not int or type(size) is not int:
            iova, size = as_integers(iova=iova, size=size)
        if size < 1:
            raise InvalidArgument(f"a bus range of {size} bytes at {iova:#x}: at least 1 is needed", size=size)
        low, high = iova >> self._shift, iova + size + self.granule - 1 >> self._shift
        first, stop = self._bounds
        return (low, high) if first <= low and high <= stop else (max(low, first), min(high, stop))
