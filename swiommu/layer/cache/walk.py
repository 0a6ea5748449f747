"""Walks that begin where entries are kept: what is known of the upper levels is not read again.

A line of a level says how a walk came to an entry: the addresses and words from the root down to it. It has its place
by what it is for, (depth, prefix of the input), not by the order of reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.errors import NotFound
from swiommu.layer.cache.sets import Sets
from swiommu.layer.path import HopKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.layer.base import Read
    from swiommu.layer.cache.ask import Ask
    from swiommu.layer.cache.shape import CacheShape
    from swiommu.layer.cache.store import Tag

__all__ = ["Trail", "Walk", "WalkCache"]


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


class Walk:
    """The entries of one walk, the upper ones from the cache where it has them; ``used``: it had, since ``filled``."""

    def __init__(self, ask: Ask, tag: Tag, shifts: tuple[int, ...], read: Read) -> None:
        self._ask, self._tag, self._read = ask, tag, read
        self._levels = list(zip(ask.cache.walks, shifts, strict=False))
        self._entries: list[tuple[int, int]] = []
        self._trail: tuple[tuple[int, int], ...] = ()
        self._kept = 0
        self.filled = 0
        self.used = False
        for depth, (level, shift) in enumerate(self._levels, 1):
            trail = level.find(tag, shift, ask.at)
            if trail is not None:  # the deepest one counts
                self._trail, self._kept, self.filled = trail.entries, depth, trail.filled

    def __call__(self, address: int, width: int = 8) -> int:
        """The next entry of this walk."""
        depth = len(self._entries)
        ask = self._ask
        if depth < len(self._trail):
            known, word = self._trail[depth]
            if known == address:
                self.used = True
                ask.tell(HopKind.HIT, address, value=word)
                self._entries.append((address, word))
                return word
            self._trail, self._kept = (), 0  # the root moved
        try:
            word = self._read(address, width)
        except NotFound:
            if not self.used:
                raise
            word = 0  # a kept entry led to a page that is no table any more: there is nothing
        self._entries.append((address, word))
        return word

    def keep(self) -> None:
        """Keep what was read, all but the leaf: it is what the lines are for."""
        log = self._ask.cache.log
        filled = log.number if log is not None else 0
        for depth, (level, shift) in enumerate(self._levels[: len(self._entries) - 1], 1):
            if depth > self._kept:
                entries = tuple(self._entries[:depth])
                since = min(filled, self.filled) if self.used else filled
                level.keep(Trail(self._tag, shift, self._ask.at >> shift, entries, since))
