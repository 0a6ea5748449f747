"""Ranges of plain ints, each from ``start`` to ``stop`` (exclusive): sets of them, and lists joined."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from swiommu.errors import AddressInUse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["RangeSet", "joined"]


class RangeSet:
    """Half-open ranges ``[start, stop)``, disjoint; ranges that touch stay apart, so that each can be found again.

    >>> ranges = RangeSet()
    >>> ranges.add(0x1000, 0x3000); ranges.add(0x3000, 0x4000)
    >>> ranges.cut(0x2000, 0x5000)
    [(8192, 12288), (12288, 16384)]
    >>> list(ranges)
    [(4096, 8192)]
    """

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((start, self._stops[start]) for start in self._starts)

    def at(self, value: int) -> tuple[int, int] | None:
        """The range that holds ``value``."""
        index = bisect_right(self._starts, value)
        if index:
            start = self._starts[index - 1]
            if value < self._stops[start]:
                return start, self._stops[start]
        return None

    def first_over(self, start: int, stop: int) -> tuple[int, int] | None:
        """The lowest range that shares a byte with ``[start, stop)``."""
        index = bisect_right(self._starts, start)
        if index:
            before = self._starts[index - 1]
            if start < self._stops[before]:
                return before, self._stops[before]
        if index < len(self._starts) and self._starts[index] < stop:
            return self._starts[index], self._stops[self._starts[index]]
        return None

    def add(self, start: int, stop: int) -> None:
        """Add ``[start, stop)``; `AddressInUse` if any byte of it is in a range already."""
        # One bisect, as this is the way of every mapping: only the neighbours can collide.
        starts = self._starts
        index = bisect_left(starts, stop)
        if index and self._stops[starts[index - 1]] > start:
            held = self.first_over(start, stop)
            assert held is not None
            raise AddressInUse(
                f"[{start:#x}, {stop:#x}) overlaps [{held[0]:#x}, {held[1]:#x}), which is in use",
                start=start,
            )
        starts.insert(index, start)
        self._stops[start] = stop

    def remove(self, start: int) -> int:
        """Remove the range that begins at ``start``; its stop. KeyError if there is none."""
        stop = self._stops.pop(start)
        del self._starts[bisect_left(self._starts, start)]
        return stop

    def cut(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Remove the bytes from ``start`` to ``stop`` or the first hole; answers what was removed, in pieces."""
        removed: list[tuple[int, int]] = []
        while start < stop and (held := self.at(start)) is not None:
            end = min(stop, held[1])
            self.remove(held[0])
            if held[0] < start:
                self.add(held[0], start)
            if end < held[1]:
                self.add(end, held[1])
            removed.append((start, end))
            start = end
        return removed

    def clear(self, start: int, stop: int) -> None:
        """Remove every byte of ``[start, stop)`` that is there."""
        while (held := self.first_over(start, stop)) is not None:
            self.cut(max(start, held[0]), stop)

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The parts of ``[start, stop)`` that no range holds, ascending."""
        while start < stop:
            held = self.first_over(start, stop)
            if held is None:
                yield start, stop
                return
            if start < held[0]:
                yield start, held[0]
            start = held[1]

    def check(self) -> None:
        """Sorted, non-empty, disjoint, one stop for each start; `AssertionError` with a dump."""
        dump = [(hex(start), hex(self._stops.get(start, -1))) for start in self._starts]
        assert self._stops.keys() == set(self._starts), f"starts and stops differ: {dump}, {self._stops}"
        last = -1
        for start, stop in self:
            assert last <= start < stop, f"[{start:#x}, {stop:#x}) is empty or overlaps the one below: {dump}"
            last = stop


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes as ``ranges``, as (start, stop), ascending and apart; empty ones are left out.

    >>> joined([(8, 9), (1, 3), (3, 5), (7, 7), (2, 4)])
    [(1, 5), (8, 9)]
    """
    found: list[tuple[int, int]] = []
    for start, stop in sorted(each for each in ranges if each[0] < each[1]):
        if found and found[-1][1] >= start:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found
