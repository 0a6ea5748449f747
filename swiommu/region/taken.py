"""The ranges that an allocator has handed out, for allocators that can't tell from their holes alone what is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.undo import Undoable

if TYPE_CHECKING:
    from swiommu.undo import UndoLog

__all__ = ["Taken"]


class Taken(Undoable):
    """Ranges by start. Some are followed by padding: held with them, never asked for, given back with their last byte.

    Starts and sizes are multiples of ``unit``. Giving back a whole range costs one look-up; a part of one costs a
    search backwards for its start, never longer than the fewer of the units before it and the ranges there are.

    >>> taken = Taken(1)
    >>> taken.add(4, 3, padding=1)
    >>> taken.remove(5, 1), taken.remove(5, 1), taken.remove(6, 1), taken.ranges
    ((5, 1), None, (6, 2), {4: 1})
    """

    __slots__ = ("_paddings", "_unit", "padding", "ranges")

    def __init__(self, unit: int) -> None:
        self._unit = unit
        self.ranges: dict[int, int] = {}
        self.padding = 0
        # One past the last byte that was asked for -> bytes of padding from there.
        self._paddings: dict[int, int] = {}
        self.undo_log = None

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`."""
        log.save(self, "padding")
        return ()

    def add(self, start: int, size: int, *, padding: int = 0) -> None:
        """Note a range that was free."""
        if self.undo_log is not None:
            self._keep(self.ranges, start)
            self._keep(self._paddings, start + size)
        self.ranges[start] = size
        if padding:
            self._paddings[start + size] = padding
            self.padding += padding

    def remove(self, start: int, size: int) -> tuple[int, int] | None:
        """Forget ``size`` from ``start`` and answer what is free now, as (start, size), padding included.

        None, and nothing changed, if any of it is not in a range.
        """
        if self.undo_log is not None:
            self._keep(self._paddings, start + size)
        if self.ranges.get(start) == size:
            if self.undo_log is not None:
                self._keep(self.ranges, start)
            del self.ranges[start]
        elif not self._cut(start, size):
            return None
        if not self._paddings:
            return start, size
        # A range whose last byte stays keeps its padding: nothing is noted at `start + size` then.
        padding = self._paddings.pop(start + size, 0)
        self.padding -= padding
        return start, size + padding

    def check(self) -> None:
        """Raise AssertionError with the ranges if two overlap or paddings follow none."""
        dump = f"taken {sorted(self.ranges.items())}, padding {self._paddings}"
        last = -1
        stops = set()
        for start, size in sorted(self.ranges.items()):
            stops.add(start + size)
            assert size > 0, f"nothing is taken at {start:#x}: {dump}"
            assert start >= last, f"{start:#x} is taken twice: {dump}"
            last = start + size + self._paddings.get(start + size, 0)
        assert self._paddings.keys() <= stops, f"padding follows nothing: {dump}"
        assert self.padding == sum(self._paddings.values()), f"{self.padding} bytes of padding: {dump}"

    def _cut(self, start: int, size: int) -> bool:
        stop = start + size
        if size < 1 or start % self._unit or size % self._unit:
            return False
        first = self._holder(start)
        covered, end = [], first
        while end is not None and end < stop:
            length = self.ranges.get(end)
            if length is None:
                return False
            covered.append(end)
            end += length
        if first is None or end is None or end <= start or not covered:
            return False
        if self.undo_log is not None:
            self._keep(self.ranges, *covered, stop)
        for each in covered:
            del self.ranges[each]
        if first < start:
            self.ranges[first] = start - first
        if stop < end:
            self.ranges[stop] = end - stop
        return True

    def _keep(self, table: dict[int, int], *keys: int) -> None:
        """Rolling back gives these keys of a table the values that they have now."""
        assert self.undo_log is not None, "no transaction is open"
        self.undo_log.note(_put_back, table, [(key, table.get(key)) for key in keys])

    def _holder(self, start: int) -> int | None:
        """The start of the last range that begins at or before ``start``."""
        place = start
        for _ in range(len(self.ranges)):
            if place in self.ranges:
                return place
            place -= self._unit
            if place < 0:
                return None
        return max((each for each in self.ranges if each <= start), default=None)


def _put_back(table: dict[int, int], values: list[tuple[int, int | None]]) -> None:
    for key, value in values:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
