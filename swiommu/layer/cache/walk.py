"""Walks that begin where entries are kept: what is known of the upper levels is not read again.

A line of a level says how a walk came to an entry: the addresses and words from the root down to it. It has its place
by what it is for, (depth, prefix of the input), not by the order of reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.layer.cache.sets import Sets

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.layer.cache.place import Tag
    from swiommu.layer.cache.shape import CacheShape

__all__ = ["Trail", "WalkCache"]


class Trail(NamedTuple):
    """What one level keeps: the entries, as (address, word), from the root to that of ``prefix`` at this level.

    ``filled`` as that of a line.
    """

    tag: Tag
    shift: int
    prefix: int
    entries: tuple[tuple[int, int], ...]
    filled: int = 0


class WalkCache:
    """The kept entries of one level of walks; `hits` and `misses` count the walks that asked.

    >>> from swiommu.layer.cache.shape import CacheShape
    >>> WalkCache(CacheShape(16, ways=4))
    WalkCache(0 of 16 entries, 4 ways, lru; 0 hits, 0 misses)
    """

    def __init__(self, shape: CacheShape) -> None:
        self.shape = shape
        self.hits = self.misses = self.dropped = 0
        self._trails: Sets[Trail] = Sets(shape)

    def __len__(self) -> int:
        return len(self._trails)

    def __repr__(self) -> str:
        return f"WalkCache({len(self)} of {self.shape}; {self.hits} hits, {self.misses} misses)"

    @property
    def evicted(self) -> int:
        """Entries that went for want of room."""
        return self._trails.conflicts + self._trails.overflows

    def find(self, tag: Tag, shift: int, at: int) -> Trail | None:
        """The way to the entry that decides on ``at``, counted."""
        trail = self._trails.get(at >> shift, (tag, shift, at >> shift))
        if trail is None:
            self.misses += 1
        else:
            self.hits += 1
        return trail

    def keep(self, trail: Trail) -> None:
        """Keep it."""
        self._trails.put(trail.prefix, (trail.tag, trail.shift, trail.prefix), trail)

    def drop(self, matches: Callable[[Tag], bool]) -> None:
        """Forget those of tags that match."""
        for trail in [trail for trail in self._trails if matches(trail.tag)]:
            self._trails.remove(trail.prefix, (trail.tag, trail.shift, trail.prefix))
            self.dropped += 1
