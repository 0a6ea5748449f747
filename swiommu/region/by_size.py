"""Holes in the order in which best fit tries them, found without a walk past those that their alignment refuses."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BySize", "Key"]

Key: TypeAlias = tuple[int, int, int]
"""(size, minus the number of its insertion, start): ascending sizes, of equal ones the newest first."""

_BUCKET = 256


class BySize:
    """A sorted list of keys, in buckets of bounded length.

    A bucket that was searched in vain for an alignment remembers that, until a hole comes into it: a search steps over
    it with one look. So a hundred thousand holes that don't serve are walked once, not by every request.

    >>> order = BySize()
    >>> for key in ((8, -1, 100), (8, -2, 64), (16, -3, 8)):
    ...     order.add(key)
    >>> order.first(8, 4), order.first(8, 8), order.first(8, 16)
    (((8, -2, 64), 64, 0), ((8, -2, 64), 64, 0), ((8, -2, 64), 64, 0))
    >>> order.first(12, 8), order.first(12, 16)
    (((16, -3, 8), 8, 0), (None, 0, 1))
    """

    __slots__ = ("_bucket", "_buckets", "_lasts", "_refused", "number")

    def __init__(self, *, bucket: int = _BUCKET) -> None:
        self._bucket = bucket
        self._buckets: list[list[Key]] = []
        self._lasts: list[Key] = []
        # alignment -> the smallest size for which no hole of the bucket had an aligned place.
        self._refused: list[dict[int, int]] = []
        self.number = 0

    def __iter__(self) -> Iterator[Key]:
        return (key for bucket in self._buckets for key in bucket)

    def copy(self) -> BySize:
        """The same keys, of its own."""
        other = BySize(bucket=self._bucket)
        other._buckets = [bucket.copy() for bucket in self._buckets]
        other._refused = [{} for _ in self._buckets]
        other._lasts, other.number = self._lasts.copy(), self.number
        return other

    @property
    def largest(self) -> int:
        """Size of the largest hole, 0 if there is none."""
        return self._lasts[-1][0] if self._lasts else 0

    def add(self, key: Key) -> None:
        """Put a key in its place."""
        self.number += 1
        if not self._buckets:
            self._buckets, self._lasts, self._refused = [[key]], [key], [{}]
            return
        at = min(bisect_left(self._lasts, key), len(self._lasts) - 1)
        bucket = self._buckets[at]
        insort(bucket, key)
        self._lasts[at] = bucket[-1]
        if self._refused[at]:
            self._refused[at] = {}
        if len(bucket) > self._bucket:
            half = len(bucket) // 2
            self._buckets[at : at + 1] = [bucket[:half], bucket[half:]]
            self._lasts[at : at + 1] = [bucket[half - 1], bucket[-1]]
            self._refused[at : at + 1] = [{}, {}]

    def remove(self, key: Key) -> None:
        """Take a key out; it must be there."""
        at = bisect_left(self._lasts, key)
        bucket = self._buckets[at]
        del bucket[bisect_left(bucket, key)]
        self.number -= 1
        if bucket:
            # What the bucket refused stays refused when a hole goes; only one that comes could serve.
            self._lasts[at] = bucket[-1]
        else:
            del self._buckets[at], self._lasts[at], self._refused[at]

    def first(self, size: int, align: int) -> tuple[Key | None, int, int]:
        """The first hole with ``size`` at a multiple of ``align``, that place, and how many large enough were refused.

        Without one (None, 0, all that are large enough).
        """
        low, skipped = align - 1, 0
        start = bisect_left(self._lasts, (size,))
        for at in range(start, len(self._buckets)):
            bucket, refused = self._buckets[at], self._refused[at]
            index = bisect_left(bucket, (size,)) if at == start else 0
            if size < refused.get(align, size + 1):
                for number in range(index, len(bucket)):
                    key = bucket[number]
                    place = (key[2] + low) & -align  # align_up, without a call for each refused hole
                    if place + size <= key[2] + key[0]:
                        return key, place, skipped + number - index
                # What stands before `index` is smaller than the size, so this holds for all of the bucket.
                refused[align] = size
            skipped += len(bucket) - index
        return None, 0, skipped

    def check(self) -> None:
        """Raise AssertionError with the keys if they are out of order or a bucket remembers what is not so."""
        dump = f"BySize {self._buckets}"
        keys = list(self)
        assert keys == sorted(keys), f"size order is broken: {dump}"
        assert self.number == len(keys), f"{self.number} keys are counted: {dump}"
        assert all(self._buckets), f"empty bucket: {dump}"
        assert self._lasts == [bucket[-1] for bucket in self._buckets], f"lasts {self._lasts}: {dump}"
        assert all(len(bucket) <= self._bucket for bucket in self._buckets), f"a bucket over {self._bucket}: {dump}"
        for bucket, refused in zip(self._buckets, self._refused, strict=True):
            for align, size in refused.items():
                room = max(start + length - ((start + align - 1) & -align) for length, _, start in bucket)
                assert room < size, f"{size} aligned to {align} does fit from {bucket[0]} on: {dump}"
