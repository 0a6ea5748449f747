"""The best-fit allocator of the 2010 Contiguous Memory Allocator, placement by placement.

The smallest hole that can hold the request serves it; among holes of equal size the one that changed last is
tried first. A hole is cut at its low end if that is aligned, at its high end if the chunk is aligned there, and
only otherwise in the middle. Source: RFC v4 patch 2 (``cma-best-fit.c``), restated in section 14 of our notes.
"""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right, insort

from swiommu.errors import AddressInUse, NoMemory, NotFound
from swiommu.region.allocator import FailSwitch, check_range, check_request

__all__ = ["BestFit"]


class BestFit:
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
        "_holes",
        "_sequence",
        "_starts",
        "free_space",
        "page_size",
        "size",
        "skipped",
        "start",
    )

    name = "best_fit"

    def __init__(self, start: int, size: int, *, page_size: int = 4096) -> None:
        check_range(start, size, page_size)
        self.start = start
        self.size = size
        self.page_size = page_size
        self.free_space = 0
        self.skipped = 0
        # Holes in three views: by address, by (size, newest first), and start -> key in the second view.
        self._starts: list[int] = []
        self._by_size: list[tuple[int, int, int]] = []
        self._holes: dict[int, tuple[int, int, int]] = {}
        self._sequence = 0
        self._fail = FailSwitch()
        self._insert(start, size)

    def __deepcopy__(self, memo: object) -> BestFit:
        # The generic way looks at every number; whoever tries a request out copies the region for it.
        other = copy.copy(self)
        for name in ("_starts", "_by_size", "_holes", "_fail"):
            setattr(other, name, copy.copy(getattr(self, name)))
        return other

    def alloc(self, size: int, align: int) -> int:
        """Take ``size`` bytes (whole pages) at a multiple of ``align`` bytes; `NoMemory` if no hole serves.

        >>> BestFit(0x3000, 0x3000).alloc(0x1000, 0x2000) == 0x4000
        True
        """
        check_request(size, align, self.page_size)
        self.skipped = 0
        self._fail.refuse(size)
        key, place, self.skipped = self._find(size, align)
        if key is None:
            raise NoMemory(self._no_hole(size, align), size=size, align=align, free_space=self.free_space)
        return self._take(key, size, align, place)

    def fits(self, size: int, align: int) -> bool:
        """Whether `alloc` would succeed now; nothing changes, not even `skipped`.

        >>> BestFit(0x3000, 0x3000).fits(0x2000, 0x8000)
        False
        """
        check_request(size, align, self.page_size)
        return self._find(size, align)[0] is not None

    def free(self, start: int, size: int) -> None:
        """Give ``size`` bytes at ``start`` back, merging with the holes on both sides.

        Every byte must be taken, else `NotFound` and nothing changed.
        """
        stop = start + size
        at = bisect_right(self._starts, start)
        before = self._starts[at - 1] if at else -1
        before_stop = before + self._holes[before][0] if at else -1
        after = self._starts[at] if at < len(self._starts) else self.start + self.size
        if size < 1 or start < self.start or stop > self.start + self.size or before_stop > start or after < stop:
            raise NotFound(f"{size} bytes at {start:#x} are not allocated", start=start, size=size)
        if before_stop == start:
            self._remove(before)
            start = before
        if after in self._holes and after == stop:
            stop += self._holes[after][0]
            self._remove(after)
        self._insert(start, stop - start)

    def reserve(self, start: int, size: int) -> None:
        """Take exactly ``size`` bytes at ``start``; `AddressInUse` if any of them is taken or outside.

        What is left of the hole becomes the newest of its size, the part below last.
        """
        stop = start + size
        at = bisect_right(self._starts, start)
        hole = self._starts[at - 1] if at else -1
        hole_stop = hole + self._holes[hole][0] if at else -1
        if size < 1 or stop > hole_stop:
            raise AddressInUse(f"{size} bytes at {start:#x} are not all free", start=start, size=size)
        self._remove(hole)
        if stop < hole_stop:
            self._insert(stop, hole_stop - stop)
        if hole < start:
            self._insert(hole, start - hole)

    def holes(self) -> list[tuple[int, int]]:
        """Every hole as (start, size), by address; two holes never touch."""
        return [(start, self._holes[start][0]) for start in self._starts]

    def fail_nth(self, n: int) -> None:
        """Make the ``n``-th following `alloc` (1 = the next) raise `NoMemory`, once."""
        self._fail.arm(n)

    def check(self) -> None:
        """Raise AssertionError with the holes if they overlap, touch, leave the range or are miscounted."""
        dump = f"BestFit {self.start:#x}+{self.size:#x} holes {self.holes()} by size {self._by_size}"
        last = -1
        for start, size in self.holes():
            assert size > 0, f"empty hole at {start:#x}: {dump}"
            assert start >= self.start, f"hole at {start:#x} is below the range: {dump}"
            assert start + size <= self.start + self.size, f"hole at {start:#x} leaves the range: {dump}"
            assert start > last, f"hole at {start:#x} overlaps or touches the one before: {dump}"
            last = start + size
        assert self._by_size == sorted(self._holes.values()), f"size order is broken: {dump}"
        assert all(key[2] == start for start, key in self._holes.items()), f"keys name other holes: {dump}"
        assert self.free_space == sum(key[0] for key in self._by_size), f"free space {self.free_space}: {dump}"

    def __repr__(self) -> str:
        return f"BestFit({self.start:#x}, {self.size:#x}, free_space={self.free_space}, holes={len(self._starts)})"

    def _find(self, size: int, align: int) -> tuple[tuple[int, int, int] | None, int, int]:
        """The hole that serves, the first aligned place in it, and how many holes were refused on the way."""
        keys = self._by_size
        first = bisect_left(keys, (size,))
        low = align - 1
        for index in range(first, len(keys)):
            key = keys[index]
            place = (key[2] + low) & -align  # align_up, without a call for each refused hole
            if place + size <= key[2] + key[0]:
                return key, place, index - first
        return None, 0, len(keys) - first

    def _take(self, key: tuple[int, int, int], size: int, align: int, place: int) -> int:
        hole_size, _, start = key
        end = start + hole_size
        if place != start and (end - size) % align == 0:
            place = end - size  # push the chunk to the end of the hole: one hole is left instead of two
        self._remove(start)
        # The part below is inserted last: it is the newest of its size.
        if place + size != end:
            self._insert(place + size, end - place - size)
        if place != start:
            self._insert(start, place - start)
        return place

    def _insert(self, start: int, size: int) -> None:
        self._sequence += 1
        key = (size, -self._sequence, start)
        self._holes[start] = key
        insort(self._by_size, key)
        insort(self._starts, start)
        self.free_space += size

    def _remove(self, start: int) -> None:
        key = self._holes.pop(start)
        del self._by_size[bisect_left(self._by_size, key)]
        del self._starts[bisect_left(self._starts, start)]
        self.free_space -= key[0]

    def _no_hole(self, size: int, align: int) -> str:
        largest = self._by_size[-1][0] if self._by_size else 0
        return (
            f"no hole for {size} bytes aligned to {align}: {self.free_space} bytes are free in "
            f"{len(self._starts)} holes, the largest of {largest}; {self.skipped} were refused for their alignment"
        )
