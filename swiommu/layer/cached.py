"""Answers by way of a cache: a hit in place of a walk, a walk that fills, and the audit of hits against the tables.

What is kept must be what would be found: the same refusal by the same layer, the same marks. Only the cost differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import Access
from swiommu.errors import NotFound
from swiommu.layer.attributes import allowed
from swiommu.layer.base import Extent, FaultKind, Run
from swiommu.layer.cache import Composite, Stale, Tag
from swiommu.layer.path import Hop, HopKind, Purpose, Reach, Refused, Trip

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.layer.base import Read
    from swiommu.layer.cache import Place, TranslationCache
    from swiommu.layer.node import Node
    from swiommu.layer.path import Path

__all__ = ["own_answer", "whole_answer"]

_WRITE = int(Access.WRITE)


class _Walk:
    """The entries of one walk, the upper ones from the cache where it has them."""

    def __init__(self, cache: TranslationCache, tag: Tag, read: Read, node: Node, why: Purpose, trip: Trip) -> None:
        self._cache, self._tag, self._read = cache, tag, read
        self._node, self._why, self._trip = node, why, trip
        self._words: list[tuple[int, int]] = []
        self._depth = 0
        self.used = False

    def __call__(self, address: int, width: int = 8) -> int:
        depth, self._depth = self._depth, self._depth + 1
        upper = depth < self._cache.walk_levels
        word = self._cache.word(self._tag, address) if upper else None
        if word is not None:
            self.used = True
            if self._trip.hops is not None:
                hop = Hop(self._why.nesting, HopKind.HIT, self._node.layer.name, address, None, word)
                self._trip.hops.append(hop)
            return word
        try:
            word = self._read(address, width)
        except NotFound:
            if not self.used:
                raise
            word = 0  # a kept entry led to a page that is no table any more: there is nothing
        if upper:
            self._words.append((address, word))
        return word

    def keep(self) -> None:
        # All but the leaf: it is what the lines are for.
        for address, word in self._words if self._depth > self._cache.walk_levels else self._words[:-1]:
            self._cache.keep_word(self._tag, address, word)


def own_answer(
    node: Node, cache: TranslationCache, at: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]
) -> Extent | FaultKind:
    """What the layer of ``node`` says of ``at``, from ``cache`` or by a walk that fills it."""
    tag = Tag(node, False, trip.stream, rest)
    kept = cache.find(tag, at)
    if isinstance(kept, Extent):
        if trip.hops is not None:
            trip.hops.append(Hop(why.nesting, HopKind.HIT, node.name, at, kept.output + at - kept.input))
        if cache.audit:
            _audit_own(node, cache, at, why, trip, rest, kept)
        return kept
    walk = _Walk(cache, tag, node.reader(why, trip, rest), node, why, trip)
    trip.fillers.append(node)
    try:
        found = node.layer.look(at, walk)
    finally:
        trip.fillers.pop()
    if walk.used and cache.audit:
        _audit_own(node, cache, at, why, trip, rest, found)
    if isinstance(found, Extent):
        walk.keep()
        cache.keep(tag, at, found, found)
    return found


def whole_answer(
    place: Place,
    cache: TranslationCache,
    walk: Callable[[int, Purpose, Trip, tuple[Path, ...]], Reach],
    at: int,
    why: Purpose,
    trip: Trip,
    rest: tuple[Path, ...],
) -> Reach:
    """Where the way from ``place`` ends, from ``cache`` or by ``walk``, which fills it; raises `Refused`."""
    tag = Tag(place, True, trip.stream, rest)
    kept = cache.find(tag, at)
    if isinstance(kept, Composite):
        return _replay(place, cache, walk, at, why, trip, rest, kept)
    entered = len(trip.way)
    trip.fillers.append(place)
    try:
        reach = walk(at, why, trip, rest)
    finally:
        trip.fillers.pop()
    cache.keep(tag, at, reach, Composite(reach, at, tuple(trip.way[entered:])))
    return reach


def _replay(
    place: Place,
    cache: TranslationCache,
    walk: Callable[[int, Purpose, Trip, tuple[Path, ...]], Reach],
    at: int,
    why: Purpose,
    trip: Trip,
    rest: tuple[Path, ...],
    kept: Composite,
) -> Reach:
    # What each layer said is kept apart, so that the uppermost that lacks a permission is blamed at its own address.
    reach, shift = kept.reach, at - kept.at
    if trip.hops is not None:
        name = kept.nodes[0].layer.name
        trip.hops.append(Hop(why.nesting, HopKind.ENTER, name, at))
        trip.hops.append(Hop(why.nesting, HopKind.HIT, name, at, reach.to(at)))
    if cache.audit:
        _audit_whole(place, cache, walk, at, why, trip, rest, reach)
    parts = tuple(part._replace(address=part.address + shift) for part in reach.parts)
    for node, part in zip(kept.nodes, parts, strict=True):
        trip.way.append(node)
        if why.wanted & ~allowed(part.prot):
            raise node.refusal(FaultKind.PERMISSION, part.address, why, trip)
        if node.layer.keeps_marks:
            trip.touches.append((node.layer, part.address, bool(why.wanted & _WRITE)))
    return reach._replace(parts=parts)


# -- the audit


def _apart(trip: Trip) -> Trip:
    # The same access by the tables alone, at nobody's cost.
    other = Trip(trip.access, stream=trip.stream, uncached=True)
    other.iova = trip.iova
    return other


def _audit_own(
    node: Node,
    cache: TranslationCache,
    at: int,
    why: Purpose,
    trip: Trip,
    rest: tuple[Path, ...],
    said: Extent | FaultKind,
) -> None:
    try:
        now = node.layer.look(at, node.reader(why, _apart(trip), rest))
    except Refused:
        now = FaultKind.TRANSLATION  # its table is not reached
    was_extent = said if isinstance(said, Extent) else None
    now_extent = now if isinstance(now, Extent) else None
    if _essence(was_extent) != _essence(now_extent):
        was, is_now = (_run(each, "") if each else None for each in (was_extent, now_extent))
        _note(cache, node.name, at, was, is_now, trip)


def _audit_whole(
    place: Place,
    cache: TranslationCache,
    walk: Callable[[int, Purpose, Trip, tuple[Path, ...]], Reach],
    at: int,
    why: Purpose,
    trip: Trip,
    rest: tuple[Path, ...],
    said: Reach,
) -> None:
    try:
        now = walk(at, why._replace(wanted=0), _apart(trip), rest)
    except Refused:
        now = None
    if now is None or _essence_of_way(now) != _essence_of_way(said):
        was, is_now = (_run(each, each.memory.name if each.memory else "") if each else None for each in (said, now))
        _note(cache, place.name, at, was, is_now, trip)


def _essence(extent: Extent | None) -> object:
    return extent and (extent.output - extent.input, extent.prot, extent.attributes, extent.port)


def _essence_of_way(reach: Reach) -> object:
    # Also who allows what: on it depends who is blamed.
    who = [(part.layer, part.prot) for part in reach.parts]
    return reach.output - reach.input, reach.prot, reach.attributes, reach.memory, who


def _run(found: Extent | Reach, memory: str) -> Run:
    return Run(found.input, found.output, found.size, found.block, found.prot, found.attributes, memory)


def _note(cache: TranslationCache, name: str, at: int, was: Run | None, now: Run | None, trip: Trip) -> None:
    # The block that answered, cut to what the tables say one thing of.
    runs = [run for run in (was, now) if run is not None]
    start = max(max(run.input, at & -run.page_size) for run in runs)
    stop = min(min(run.input + run.size, (at & -run.page_size) + run.page_size) for run in runs)
    cut = [
        None if run is None else run._replace(input=start, output=run.output + start - run.input, size=stop - start)
        for run in (was, now)
    ]
    stale = Stale(name, start, stop - start, *cut)
    cache.stale[stale] += 1
    trip.stale.append(stale)
