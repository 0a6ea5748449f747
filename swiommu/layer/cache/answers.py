"""Answers by way of a cache: a hit in place of a walk, or a walk that fills.

What is kept must be what would be found: the same refusal by the same layer, the same marks. Only the cost differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import Access
from swiommu.errors import NotFound
from swiommu.layer.attributes import allowed
from swiommu.layer.base import Extent, FaultKind
from swiommu.layer.cache.ask import Ask
from swiommu.layer.cache.audit import audit_own, audit_whole
from swiommu.layer.cache.place import Tag
from swiommu.layer.cache.store import Composite
from swiommu.layer.cache.walk import Trail
from swiommu.layer.path import HopKind, Purpose, Reach, Trip

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.layer.base import Read
    from swiommu.layer.cache.place import CacheHolder
    from swiommu.layer.cache.store import TranslationCache
    from swiommu.layer.path import Path, Stage

__all__ = ["own_answer", "whole_answer"]

_WRITE = int(Access.WRITE)


class _Walk:
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


def own_answer(
    node: Stage, cache: TranslationCache, at: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]
) -> Extent | FaultKind:
    """What the layer of ``node`` says of ``at``, from ``cache`` or by a walk that fills it."""
    ask = Ask(cache, node, at, why, trip, rest)
    tag = Tag(node, False, trip.stream, rest)
    line = cache.find(tag, at)
    if line is not None and isinstance(kept := line.answer, Extent):
        ask.tell(HopKind.HIT, at, kept.output + at - kept.input)
        if cache.audit:
            audit_own(ask, node, kept, line.filled)
        return kept
    walk = _Walk(ask, tag, node.layer.levels() if cache.walks else (), node.reader(why, trip, rest))
    trip.fillers.append(node)
    try:
        found = node.layer.look(at, walk)
    finally:
        trip.fillers.pop()
    if walk.used and cache.audit:
        audit_own(ask, node, found, walk.filled)
    if isinstance(found, Extent):
        walk.keep()
        cache.keep(tag, at, found, found)
    return found


def whole_answer(
    place: CacheHolder,
    cache: TranslationCache,
    walk: Callable[[int, Purpose, Trip, tuple[Path, ...]], Reach],
    at: int,
    why: Purpose,
    trip: Trip,
    rest: tuple[Path, ...],
) -> Reach:
    """Where the way from ``place`` ends, from ``cache`` or by ``walk``, which fills it; raises `Refused`."""
    ask = Ask(cache, place, at, why, trip, rest)
    tag = Tag(place, True, trip.stream, rest)
    line = cache.find(tag, at)
    if line is not None and isinstance(kept := line.answer, Composite):
        ask.tell(HopKind.ENTER, at)
        ask.tell(HopKind.HIT, at, kept.reach.to(at))
        if cache.audit:
            audit_whole(ask, walk, kept, line.filled)
        return _go_again(kept, at, why, trip)
    entered = len(trip.way)
    trip.fillers.append(place)
    try:
        reach = walk(at, why, trip, rest)
    finally:
        trip.fillers.pop()
    cache.keep(tag, at, reach, Composite(reach, at, tuple(trip.way[entered:])))
    return reach


def _go_again(kept: Composite, at: int, why: Purpose, trip: Trip) -> Reach:
    # What each layer said is kept apart, so that the uppermost that lacks a permission is blamed at its own address.
    shift = at - kept.at
    parts = tuple(part._replace(address=part.address + shift) for part in kept.reach.parts)
    for node, part in zip(kept.nodes, parts, strict=True):
        trip.way.append(node)
        if why.wanted & ~allowed(part.prot):
            raise node.refusal(FaultKind.PERMISSION, part.address, why, trip)
        if node.layer.keeps_marks:
            trip.touches.append((node.layer, part.address, bool(why.wanted & _WRITE)))
    return kept.reach._replace(parts=parts)
