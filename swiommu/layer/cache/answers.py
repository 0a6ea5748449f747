"""Answers by way of a cache: a hit in place of a walk, or a walk that fills.

What is kept must be what would be found: the same refusal by the same layer, the same marks. Only the cost differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import Access
from swiommu.layer.attributes import allowed
from swiommu.layer.base import Extent, FaultKind
from swiommu.layer.cache.ask import Ask
from swiommu.layer.cache.audit import audit_own, audit_whole
from swiommu.layer.cache.store import Composite, Tag
from swiommu.layer.cache.walk import Walk
from swiommu.layer.path import HopKind, Purpose, Reach, Trip

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.layer.cache.place import CacheHolder
    from swiommu.layer.cache.store import TranslationCache
    from swiommu.layer.node import Node
    from swiommu.layer.path import Path

__all__ = ["own_answer", "whole_answer"]

_WRITE = int(Access.WRITE)


def own_answer(
    node: Node, cache: TranslationCache, at: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]
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
    walk = Walk(ask, tag, node.layer.levels() if cache.walks else (), node.reader(why, trip, rest))
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
