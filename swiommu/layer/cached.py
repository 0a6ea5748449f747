"""Answers by way of a cache: a hit in place of a walk, a walk that fills, and the audit of hits against the tables.

What is kept must be what would be found: the same refusal by the same layer, the same marks. Only the cost differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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


class _Ask(NamedTuple):
    """A question to a cache: asked at ``place``, on its way to ``at``."""

    cache: TranslationCache
    place: Place
    at: int
    why: Purpose
    trip: Trip
    rest: tuple[Path, ...]

    def tell(self, kind: HopKind, address: int, output: int | None = None, value: int | None = None) -> None:
        """Let those see it who watch."""
        if self.trip.hops is not None:
            name = self.place.name
            self.trip.hops.append(Hop(self.why.nesting, kind, name, address, output, value))

    def by_tables(self) -> Trip:
        """The same access, by the tables alone and at nobody's cost."""
        trip = Trip(self.trip.access, stream=self.trip.stream, uncached=True)
        trip.iova = self.trip.iova
        return trip


class _Walk:
    """The entries of one walk, the upper ones from the cache where it has them."""

    def __init__(self, ask: _Ask, tag: Tag, read: Read) -> None:
        self._ask, self._tag, self._read = ask, tag, read
        self._words: list[tuple[int, int]] = []
        self._depth = 0
        self.used = False

    def __call__(self, address: int, width: int = 8) -> int:
        depth, self._depth = self._depth, self._depth + 1
        ask = self._ask
        upper = depth < ask.cache.walk_levels
        word = ask.cache.word(self._tag, address) if upper else None
        if word is not None:
            self.used = True
            ask.tell(HopKind.HIT, address, value=word)
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
        cache = self._ask.cache
        for address, word in self._words if self._depth > cache.walk_levels else self._words[:-1]:
            cache.keep_word(self._tag, address, word)


def own_answer(
    node: Node, cache: TranslationCache, at: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]
) -> Extent | FaultKind:
    """What the layer of ``node`` says of ``at``, from ``cache`` or by a walk that fills it."""
    ask = _Ask(cache, node, at, why, trip, rest)
    tag = Tag(node, False, trip.stream, rest)
    kept = cache.find(tag, at)
    if isinstance(kept, Extent):
        ask.tell(HopKind.HIT, at, kept.output + at - kept.input)
        if cache.audit:
            _audit_own(ask, node, kept)
        return kept
    walk = _Walk(ask, tag, node.reader(why, trip, rest))
    trip.fillers.append(node)
    try:
        found = node.layer.look(at, walk)
    finally:
        trip.fillers.pop()
    if walk.used and cache.audit:
        _audit_own(ask, node, found)
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
    ask = _Ask(cache, place, at, why, trip, rest)
    tag = Tag(place, True, trip.stream, rest)
    kept = cache.find(tag, at)
    if isinstance(kept, Composite):
        ask.tell(HopKind.ENTER, at)
        ask.tell(HopKind.HIT, at, kept.reach.to(at))
        if cache.audit:
            _audit_whole(ask, walk, kept.reach)
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


# -- the audit


def _audit_own(ask: _Ask, node: Node, said: Extent | FaultKind) -> None:
    was = said if isinstance(said, Extent) else None
    try:
        found = node.layer.look(ask.at, node.reader(ask.why, ask.by_tables(), ask.rest))
    except Refused:  # its table is not reached
        now = None
    else:
        now = found if isinstance(found, Extent) else None
    if _essence(was) != _essence(now):
        _note(ask, was and _run(was, ""), now and _run(now, ""))


def _audit_whole(ask: _Ask, walk: Callable[[int, Purpose, Trip, tuple[Path, ...]], Reach], said: Reach) -> None:
    try:
        now = walk(ask.at, ask.why._replace(wanted=0), ask.by_tables(), ask.rest)
    except Refused:
        now = None
    if now is None or _essence_of_way(now) != _essence_of_way(said):
        _note(ask, _run(said, _memory(said)), now and _run(now, _memory(now)))


def _essence(extent: Extent | None) -> object:
    return extent and (extent.output - extent.input, extent.prot, extent.attributes, extent.port)


def _essence_of_way(reach: Reach) -> object:
    # Also who allows what: on it depends who is blamed.
    who = [(part.layer, part.prot) for part in reach.parts]
    return reach.output - reach.input, reach.prot, reach.attributes, reach.memory, who


def _memory(reach: Reach) -> str:
    return reach.memory.name if reach.memory else ""


def _run(found: Extent | Reach, memory: str) -> Run:
    return Run(found.input, found.output, found.size, found.block, found.prot, found.attributes, memory)


def _note(ask: _Ask, was: Run | None, now: Run | None) -> None:
    # The block that answered, as far as the tables say one thing of it.
    runs = [run for run in (was, now) if run is not None]
    start = max(max(run.input, ask.at & -run.page_size) for run in runs)
    stop = min(min(run.input + run.size, (ask.at & -run.page_size) + run.page_size) for run in runs)
    stale = Stale(ask.place.name, start, stop - start, _cut(was, start, stop), _cut(now, start, stop))
    ask.cache.stale[stale] += 1
    ask.trip.stale.append(stale)


def _cut(run: Run | None, start: int, stop: int) -> Run | None:
    return run and run._replace(input=start, output=run.output + start - run.input, size=stop - start)
