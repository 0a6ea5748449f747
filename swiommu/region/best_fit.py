"""The best-fit allocator of the 2010 Contiguous Memory Allocator, placement by placement.

The smallest hole that can hold the request serves it; among holes of equal size the one that changed last is
tried first. A hole is cut at its low end if that is aligned, at its high end if the chunk is aligned there, and
only otherwise in the middle. Source: RFC v4 patch 2 (``cma-best-fit.c``), restated in section 14 of our notes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import as_integers
from swiommu.errors import AddressInUse, NoMemory, NotFound
from swiommu.locking import no_shallow_copy
from swiommu.region.allocator import FailSwitch, check_range, check_request
from swiommu.region.by_size import BySize, Key
from swiommu.region.reports import Reports
from swiommu.region.runs import FreeRuns
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from swiommu.undo import UndoLog

__all__ = ["BestFit"]


class BestFit(Undoable, Reports):
    """Best fit over ``size`` bytes from the absolute address ``start``, exactly as published.

    `skipped` is the number of holes that the last `alloc` found large enough but refused for their alignment.
    Raises `InvalidArgument` for an empty range or a page size that is not a power of two. Neither ``start`` nor
    ``size`` must be page aligned (the 2010 code does not ask for it).

    >>> fit = BestFit(0x1000, 0x10000)
    >>> hex(fit.alloc(0x2000, 0x1000)), hex(fit.alloc(0x2000, 0x8000))
    ('0x1000', '0x8000')
    >>> fit.free(0x1000, 0x2000)
    >>> [(hex(start), hex(size)) for start, size in fit.holes()]
    [('0x1000', '0x7000'), ('0xa000', '0x7000')]
    """

    __slots__ = (
        "_by_size",
        "_fail",
        "_keys",
        "_runs",
        "_sequence",
        "_starts",
        "page_size",
        "size",
        "skipped",
        "start",
    )

    __copy__ = no_shallow_copy

    name = "best_fit"

    def __init__(self, start: int, size: int, *, page_size: int = 4096) -> None:
        start, size, page_size = check_range(start, size, page_size)
        self.start = start
        self.size = size
        self.page_size = page_size
        self.skipped = 0
        # Holes in three views: by offset from the start, by (size, newest first), and the latter's keys by start; and
        # start by one past the end, for merging.
        self._runs = FreeRuns(size)
        self._by_size = BySize()
        self._keys: dict[int, Key] = {}
        self._starts: dict[int, int] = {}
        self._sequence = 0
        self._fail = FailSwitch()
        self.undo_log = None
        self._insert(start, size)

    @property
    def free_space(self) -> int:
        """Bytes that are not taken."""
        return self._runs.total

    def alloc(self, size: int, align: int) -> int:
        """Take ``size`` bytes (whole pages) at a multiple of ``align`` bytes; `NoMemory` if no hole serves.

        >>> BestFit(0x3000, 0x3000).alloc(0x1000, 0x2000) == 0x4000
        True
        """
        size, align = check_request(size, align, self.page_size)
        self.skipped = 0
        self._fail.refuse(size)
        key, place, self.skipped = self._by_size.first(size, align)
        if key is None:
            raise NoMemory(self._no_hole(size, align), size=size, align=align, free_space=self.free_space)
        return self._take(key, size, align, place)

    def fits(self, size: int, align: int) -> bool:
        """Whether `alloc` would succeed now; nothing changes, not even `skipped`.

        >>> BestFit(0x3000, 0x3000).fits(0x2000, 0x8000)
        False
        """
        size, align = check_request(size, align, self.page_size)
        return self._by_size.first(size, align)[0] is not None

    def free(self, start: int, size: int) -> None:
        """Give ``size`` bytes at ``start`` back, merging with the holes on both sides.

        Every byte must be taken, else `NotFound` and nothing changed.
        """
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        place = start - self.start
        if size < 1 or place < 0 or place + size > self.size or self._runs.any_clear(place, size):
            raise NotFound(f"{size} bytes at {start:#x} are not allocated", start=start, size=size)
        self._runs.give(place, size)
        stop = start + size
        before = self._starts.get(start)
        if stop in self._keys:
            stop = self._remove(stop)
        if before is not None:
            self._remove(before)
            start = before
        self._insert(start, stop - start)

    def reserve(self, start: int, size: int) -> None:
        """Take exactly ``size`` bytes at ``start``; `AddressInUse` if any of them is taken or outside.

        What is left of the hole becomes the newest of its size, the part below last.
        """
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        run = self._runs.run_at(start - self.start)
        if size < 1 or run is None or not self._runs.take(start - self.start, size):
            raise AddressInUse(f"{size} bytes at {start:#x} are not all free", start=start, size=size)
        self._cut(self.start + run[0], start, start + size)

    def holes(self) -> list[tuple[int, int]]:
        """Every hole as (start, size), by address; two holes never touch."""
        return [(self.start + place, size) for place, size in self._runs.runs()]

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`; the order of holes comes back too.

        >>> fit = BestFit(0, 0x6000)
        >>> fit.reserve(0x2000, 0x1000)  # leaves two holes, of which the lower one is newer
        >>> with fit.dry_run():
        ...     fit.free(fit.alloc(0x3000, 0x1000), 0x3000)
        >>> hex(fit.alloc(0x1000, 0x1000))
        '0x0'
        """
        log.save(self, "_sequence", "skipped")
        log.save(self._fail, "left")
        return (self._runs,)

    def fail_nth(self, n: int) -> None:
        """Make the ``n``-th following `alloc` (1 = the next) raise `NoMemory`, once."""
        self._fail.arm(n)

    def check(self) -> None:
        """Raise AssertionError with the holes if they overlap, touch, leave the range, or the views differ."""
        dump = f"BestFit {self.start:#x}+{self.size:#x} holes {self.holes()} by size {list(self._by_size)}"
        self._runs.check()
        self._by_size.check()
        assert self._runs.count == self.size, f"{self._runs.count} bytes are kept: {dump}"
        assert sorted(self._keys.values()) == list(self._by_size), f"keys {self._keys}: {dump}"
        assert sorted((start, key[0]) for start, key in self._keys.items()) == self.holes(), f"keys are others: {dump}"
        assert all(key[2] == start for start, key in self._keys.items()), f"keys name other holes: {dump}"
        ends = {start + key[0]: start for start, key in self._keys.items()}
        assert self._starts == ends, f"ends are wrong: {dump}"

    def __repr__(self) -> str:
        return f"BestFit({self.start:#x}, {self.size:#x}, free_space={self.free_space}, holes={self._by_size.number})"

    def _take(self, key: Key, size: int, align: int, place: int) -> int:
        hole_size, _, start = key
        end = start + hole_size
        if place != start and (end - size) % align == 0:
            place = end - size  # push the chunk to the end of the hole: one hole is left instead of two
        self._runs.take(place - self.start, size)
        self._cut(start, place, place + size)
        return place

    def _cut(self, hole: int, start: int, stop: int) -> None:
        """Leave of this hole only what is outside of ``start`` to ``stop``."""
        end = self._remove(hole)
        # The part below is inserted last: it is the newest of its size.
        if stop != end:
            self._insert(stop, end - stop)
        if start != hole:
            self._insert(hole, start - hole)

    def _insert(self, start: int, size: int) -> None:
        self._sequence += 1
        self._put((size, -self._sequence, start))

    def _put(self, key: Key) -> None:
        size, _, start = key
        self._keys[start] = key
        self._starts[start + size] = start
        self._by_size.add(key)
        if self.undo_log is not None:
            self.undo_log.note(self._remove, start)

    def _remove(self, start: int) -> int:
        """Forget a hole and answer one past its end."""
        key = self._keys.pop(start)
        self._by_size.remove(key)
        del self._starts[start + key[0]]
        if self.undo_log is not None:
            self.undo_log.note(self._put, key)
        return start + key[0]

    def _no_hole(self, size: int, align: int) -> str:
        return (
            f"no hole for {size} bytes aligned to {align}: {self.free_space} bytes are free in "
            f"{self._by_size.number} holes, the largest of {self._by_size.largest}; "
            f"{self.skipped} were refused for their alignment"
        )
