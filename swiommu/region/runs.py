"""The clear bits of an allocation bitmap, kept as runs so that a search costs by the run and not by the bit.

Runs live in buckets of bounded length, each with its longest run, and buckets in groups, each with its longest too: a
first-fit search steps over a whole group or bucket that holds nothing long enough. A bucket that was searched in vain
for an alignment remembers it until one of its runs changes. So half a million runs cost little more than a thousand.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from swiommu.undo import Undoable

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["FreeRuns"]

_BUCKET = 128
_GROUP = 64


class FreeRuns(Undoable):
    """Which of ``count`` bits are clear; all are at the start. Positions and lengths are in bits.

    >>> runs = FreeRuns(10)
    >>> runs.take(2, 3), runs.runs(), runs.total
    (True, [(0, 2), (5, 5)], 7)
    >>> runs.find(2, step=4, offset=1, start=0)
    7
    """

    __slots__ = (
        "_bucket",
        "_firsts",
        "_groups",
        "_lengths",
        "_longest",
        "_refused",
        "_starts",
        "count",
        "total",
    )

    def __init__(self, count: int, *, bucket: int = _BUCKET) -> None:
        self.count = count
        self.total = 0
        self._bucket = bucket
        # Parallel lists, one entry a bucket: starts and lengths of its runs, its first start, its longest run.
        self._starts: list[list[int]] = []
        self._lengths: list[list[int]] = []
        self._firsts: list[int] = []
        self._longest: list[int] = []
        # (step, offset) -> the shortest need that found no aligned place in the bucket, as long as nothing changed.
        self._refused: list[dict[tuple[int, int], int]] = []
        # The longest run of each _GROUP buckets; None when buckets have come or gone since.
        self._groups: list[int] | None = None
        self.undo_log = None
        if count:
            self._insert(0, count)

    def copy(self) -> FreeRuns:
        """The same runs, of its own."""
        other = FreeRuns(0, bucket=self._bucket)
        other.count, other.total = self.count, self.total
        other._starts = [starts.copy() for starts in self._starts]
        other._lengths = [lengths.copy() for lengths in self._lengths]
        other._firsts, other._longest = self._firsts.copy(), self._longest.copy()
        other._refused, other._groups = [{} for _ in self._refused], None
        return other

    def __deepcopy__(self, memo: object) -> FreeRuns:
        # The generic way looks at every number; histories of an area are copied often.
        return self.copy()

    def find(self, need: int, *, step: int, offset: int, start: int) -> int | None:
        """The lowest clear ``b >= start`` with room for ``need`` bits and ``(b + offset) % step == 0``, if any.

        ``step`` is a power of two. Source: ``bitmap_find_next_zero_area_off``.
        """
        key = (step, offset)
        for bucket in self._long_enough(max(bisect_right(self._firsts, start) - 1, 0), need):
            refused = self._refused[bucket]
            if need >= refused.get(key, need + 1):
                continue
            for run, length in zip(self._starts[bucket], self._lengths[bucket], strict=True):
                if length >= need:
                    low = max(run, start)
                    place = ((low + offset + step - 1) & -step) - offset
                    if place + need <= run + length:
                        return place
            if start <= self._firsts[bucket]:  # all of the bucket was looked at
                refused[key] = need
        return None

    def take(self, bit: int, length: int) -> bool:
        """Set ``length`` bits from ``bit``; False, and nothing changed, unless all of them were clear."""
        bucket, index = self._at(bit)
        if index < 0:
            return False
        run = self._starts[bucket][index]
        stop = run + self._lengths[bucket][index]
        if bit + length > stop:
            return False
        if self.undo_log is not None:
            self.undo_log.note(self.give, bit, length)
        if run == bit and bit + length == stop:
            self._remove(bucket, index)
            return True
        # A run that is cut stays where it is in the order; no bucket that refused it will want what is left.
        was = self._lengths[bucket][index]
        if run == bit:
            self._starts[bucket][index] = bit + length
            self._lengths[bucket][index] = was - length
            self._firsts[bucket] = self._starts[bucket][0]
        else:
            self._lengths[bucket][index] = bit - run
        self.total -= was - self._lengths[bucket][index]
        if was == self._longest[bucket]:
            self._set_longest(bucket, max(self._lengths[bucket]))
        if run < bit and bit + length < stop:
            self._insert(bit + length, stop - bit - length)
        return True

    def give(self, bit: int, length: int) -> int:
        """Clear ``length`` bits from ``bit``, whether set or not, and return how many were set."""
        before = self.total
        low, high = bit, bit + length
        if self.undo_log is not None:
            for start, stop in self._set_parts(low, high):
                self.undo_log.note(self.take, start, stop - start)
        while True:
            # The last run that begins at or before the end: absorb it as long as it touches the range.
            bucket, index = self._at(high)
            if index < 0:
                break
            run = self._starts[bucket][index]
            stop = run + self._lengths[bucket][index]
            if stop < low:
                break
            low, high = min(low, run), max(high, stop)
            self._remove(bucket, index)
        self._insert(low, high - low)
        return self.total - before

    def any_clear(self, bit: int, length: int) -> bool:
        """Whether at least one of ``length`` bits from ``bit`` is clear."""
        bucket, index = self._at(bit + length - 1)
        return index >= 0 and self._starts[bucket][index] + self._lengths[bucket][index] > bit

    def run_at(self, bit: int) -> tuple[int, int] | None:
        """The run that ``bit`` lies in, as (first bit, length); None if it is set."""
        bucket, index = self._at(bit)
        if index < 0 or self._starts[bucket][index] + self._lengths[bucket][index] <= bit:
            return None
        return self._starts[bucket][index], self._lengths[bucket][index]

    def runs(self) -> list[tuple[int, int]]:
        """Every run as (first bit, length), by position; two runs never touch."""
        return [
            pair
            for starts, lengths in zip(self._starts, self._lengths, strict=True)
            for pair in zip(starts, lengths, strict=True)
        ]

    @property
    def longest(self) -> int:
        """Length of the longest run, 0 if no bit is clear."""
        return max(self._longest, default=0)

    @property
    def number(self) -> int:
        """How many runs there are."""
        return sum(map(len, self._starts))

    def check(self) -> None:
        """Raise AssertionError with the buckets if runs overlap, touch, leave the bitmap or are miscounted."""
        dump = f"FreeRuns of {self.count} bits, total {self.total}, starts {self._starts}, lengths {self._lengths}"
        last = -1
        for start, length in self.runs():
            assert length > 0, f"empty run at {start}: {dump}"
            assert start > last, f"the run at {start} overlaps or touches the one before: {dump}"
            last = start + length
        assert last <= self.count, f"a run ends at {last}: {dump}"
        assert self.total == sum(map(sum, self._lengths)), f"miscounted: {dump}"
        assert all(self._starts), f"empty bucket: {dump}"
        assert self._firsts == [starts[0] for starts in self._starts], f"firsts {self._firsts}: {dump}"
        assert self._longest == [max(lengths) for lengths in self._lengths], f"longest {self._longest}: {dump}"
        assert self._groups is None or self._groups == self._grouped(), f"groups {self._groups}: {dump}"
        for starts, lengths, refused in zip(self._starts, self._lengths, self._refused, strict=True):
            for (step, offset), need in refused.items():
                rooms = [
                    r + n - (((r + offset + step - 1) & -step) - offset) for r, n in zip(starts, lengths, strict=True)
                ]
                assert max(rooms) < need, f"{need} bits at steps of {step} from {offset} do fit at {starts[0]}: {dump}"
        assert all(len(starts) <= self._bucket for starts in self._starts), f"a bucket over {self._bucket}: {dump}"

    def _long_enough(self, first: int, need: int) -> Iterator[int]:
        """The buckets from ``first`` on whose longest run has ``need`` bits; nothing may change meanwhile."""
        longest = self._longest
        stop = min((first // _GROUP + 1) * _GROUP, len(longest))
        for bucket in range(first, stop):
            if longest[bucket] >= need:
                yield bucket
        if stop == len(longest):
            return
        if self._groups is None:
            self._groups = self._grouped()
        for group in range(stop // _GROUP, len(self._groups)):
            if self._groups[group] >= need:
                for bucket in range(group * _GROUP, min((group + 1) * _GROUP, len(longest))):
                    if longest[bucket] >= need:
                        yield bucket

    def _grouped(self) -> list[int]:
        return [max(self._longest[at : at + _GROUP]) for at in range(0, len(self._longest), _GROUP)]

    def _set_longest(self, bucket: int, length: int) -> None:
        before = self._longest[bucket]
        self._longest[bucket] = length
        groups, group = self._groups, bucket // _GROUP
        if groups is None:
            return
        if length > groups[group]:
            groups[group] = length
        elif before == groups[group]:
            groups[group] = max(self._longest[group * _GROUP : (group + 1) * _GROUP])

    def _set_parts(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """The parts of ``low`` to ``high`` (exclusive) that are set, descending."""
        while high > low:
            bucket, index = self._at(high - 1)
            if index < 0:
                yield low, high
                return
            start = self._starts[bucket][index]
            stop = min(start + self._lengths[bucket][index], high)
            if max(stop, low) < high:
                yield max(stop, low), high
            high = start

    def _at(self, bit: int) -> tuple[int, int]:
        """Bucket and index of the last run that begins at or before ``bit`` and reaches it or ends before it.

        The index is -1 if every run begins behind ``bit``.
        """
        bucket = bisect_right(self._firsts, bit) - 1
        if bucket < 0:
            return 0, -1
        return bucket, bisect_right(self._starts[bucket], bit) - 1

    def _insert(self, start: int, length: int) -> None:
        self.total += length
        if not self._firsts:
            self._starts, self._lengths = [[start]], [[length]]
            self._firsts, self._longest = [start], [length]
            self._refused, self._groups = [{}], None
            return
        bucket = max(bisect_right(self._firsts, start) - 1, 0)
        starts, lengths = self._starts[bucket], self._lengths[bucket]
        index = bisect_right(starts, start)
        starts.insert(index, start)
        lengths.insert(index, length)
        self._firsts[bucket] = starts[0]
        if self._refused[bucket]:
            self._refused[bucket] = {}
        if length > self._longest[bucket]:
            self._set_longest(bucket, length)
        if len(starts) > self._bucket:
            self._split(bucket)

    def _split(self, bucket: int) -> None:
        starts, lengths = self._starts[bucket], self._lengths[bucket]
        half = len(starts) // 2
        self._starts[bucket : bucket + 1] = [starts[:half], starts[half:]]
        self._lengths[bucket : bucket + 1] = [lengths[:half], lengths[half:]]
        self._firsts[bucket : bucket + 1] = [starts[0], starts[half]]
        self._longest[bucket : bucket + 1] = [max(lengths[:half]), max(lengths[half:])]
        self._refused[bucket : bucket + 1] = [{}, {}]
        self._groups = None

    def _remove(self, bucket: int, index: int) -> None:
        starts, lengths = self._starts[bucket], self._lengths[bucket]
        del starts[index]
        length = lengths.pop(index)
        self.total -= length
        if not starts:
            del self._starts[bucket], self._lengths[bucket], self._firsts[bucket], self._longest[bucket]
            del self._refused[bucket]
            self._groups = None
            return
        self._firsts[bucket] = starts[0]
        # What a bucket refused stays refused when a run goes; only one that comes could serve.
        if length == self._longest[bucket]:
            self._set_longest(bucket, max(lengths))
