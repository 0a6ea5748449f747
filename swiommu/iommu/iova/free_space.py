"""Free runs of bus addresses, kept by length, so that a search from the top down does not walk past small holes."""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, Self

from swiommu.undo import Undoable

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["FreeSpace"]


class FreeSpace(Undoable):
    """The free parts of ``start`` to ``stop`` (exclusive), all of it at first; plain numbers of any unit.

    Runs stand in classes by length (powers of two): a search asks each class that can serve it for its highest run.

    >>> space = FreeSpace(0, 0x100)
    >>> space.take(0xF0, 0xF1), space.take(0xE0, 0xF1), space.give(0, 1)
    (True, False, False)
    >>> hex(space.highest(4, 4, 0x100)), hex(space.highest(32, 32, 0x100)), list(space)
    ('0xfc', '0xc0', [(0, 240), (241, 256)])
    """

    __slots__ = ("_by_class", "_starts", "_stops")

    def __init__(self, start: int, stop: int) -> None:
        self._starts: list[int] = []
        self._stops: dict[int, int] = {}
        self._by_class: list[list[int]] = [[] for _ in range((stop - start).bit_length() + 1)]
        self.undo_log = None
        self._insert(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((start, self._stops[start]) for start in self._starts)

    @property
    def size(self) -> int:
        """How much is free."""
        return sum(stop - start for start, stop in self)

    def highest(self, size: int, step: int, top: int) -> int:
        """The highest multiple of ``step`` with ``size`` free from there on, all below ``top``; -1 if there is none."""
        # Runs of one class are disjoint, so the first that fits from the top is the best of its class.
        best = -1
        for starts in self._by_class[size.bit_length() :]:
            if not starts:
                continue
            for index in range(bisect_left(starts, top) - 1, -1, -1):
                start = starts[index]
                stop = min(self._stops[start], top)
                if stop - size <= best:
                    break
                place = stop - size & -step
                if place >= start:
                    best = max(best, place)
                    break
        return best

    def is_free(self, low: int, high: int) -> bool:
        """Whether all of ``low`` to ``high`` (exclusive) is free."""
        index = bisect_right(self._starts, low) - 1
        return index >= 0 and self._stops[self._starts[index]] >= high

    def take(self, low: int, high: int) -> bool:
        """Take ``low`` to ``high``; False, and nothing is changed, unless all of it is free."""
        index = bisect_right(self._starts, low) - 1
        if index < 0:
            return False
        start = self._starts[index]
        stop = self._stops[start]
        if stop < high:
            return False
        if self.undo_log is not None:
            self.undo_log.note(self.give, low, high)
        if start < low:
            self._resize(start, low)
        else:
            self._remove(start)
        if high < stop:
            self._insert(high, stop)
        return True

    def give(self, low: int, high: int) -> bool:
        """Give back ``low`` to ``high``; False, and nothing is changed, if any of it is free."""
        starts, stops = self._starts, self._stops
        index = bisect_right(starts, low)
        before = stops[starts[index - 1]] if index else -1
        if before > low or (index < len(starts) and starts[index] < high):
            return False
        if self.undo_log is not None:
            self.undo_log.note(self.take, low, high)
        stop = high
        if high in stops:
            stop = stops[high]
            self._remove(high)
        if before == low:
            self._resize(starts[index - 1], stop)
        else:
            self._insert(low, stop)
        return True

    def copy(self) -> Self:
        """A space of its own with the same runs."""
        twin = copy.copy(self)
        twin.undo_log = None
        twin._starts, twin._stops = self._starts.copy(), self._stops.copy()  # noqa: SLF001 - a copy of ourselves
        twin._by_class = [starts.copy() for starts in self._by_class]  # noqa: SLF001 - same
        return twin

    def check(self) -> None:
        """Runs are apart, merged, in order and each in its class; `AssertionError` with a dump."""
        dump = [(start, self._stops.get(start)) for start in self._starts]
        assert self._stops.keys() == set(self._starts), f"starts and stops differ: {dump}"
        last = -1
        for start, stop in self:
            assert last < start < stop, f"run {start:#x} is empty, out of order or not merged: {dump}"
            kind = (stop - start).bit_length()
            assert any(start in starts for starts in self._by_class[kind : kind + 1]), (
                f"{start:#x} has no class: {dump}"
            )
            last = stop
        assert sum(map(len, self._by_class)) == len(self._starts), f"classes hold more than the runs: {dump}"
        assert all(starts == sorted(starts) for starts in self._by_class), f"a class is out of order: {dump}"

    def _insert(self, start: int, stop: int) -> None:
        insort(self._starts, start)
        self._stops[start] = stop
        insort(self._by_class[(stop - start).bit_length()], start)

    def _resize(self, start: int, stop: int) -> None:
        # A run changes its stop; most often it stays in its class and nothing moves.
        old, new = (self._stops[start] - start).bit_length(), (stop - start).bit_length()
        self._stops[start] = stop
        if old != new:
            starts = self._by_class[old]
            del starts[bisect_left(starts, start)]
            insort(self._by_class[new], start)

    def _remove(self, start: int) -> None:
        starts = self._by_class[(self._stops.pop(start) - start).bit_length()]
        del starts[bisect_left(starts, start)]
        del self._starts[bisect_left(self._starts, start)]
