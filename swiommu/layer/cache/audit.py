"""The audit: each hit held against the tables, at nobody's cost. What they contradict was true once, or never."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.layer.base import Extent, FaultKind, Run
from swiommu.layer.cache.changes import Stale
from swiommu.layer.path import Reach, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.layer.cache.ask import Ask
    from swiommu.layer.cache.store import Composite
    from swiommu.layer.path import Path, Purpose, Stage, Trip

__all__ = ["audit_own", "audit_whole"]


def audit_own(ask: Ask, node: Stage, said: Extent | FaultKind, filled: int) -> None:
    """Hold what a cache said for the layer of ``node`` alone against its table."""
    was = said if isinstance(said, Extent) else None
    try:
        found = node.layer.look(ask.at, node.reader(ask.why, ask.by_tables(), ask.rest))
    except Refused:  # its table is not reached
        now = None
    else:
        now = found if isinstance(found, Extent) else None
    if _essence(was) != _essence(now):
        _note(ask, was and _run(was), now and _run(now), [(node, 0)], filled)


def audit_whole(
    ask: Ask, walk: Callable[[int, Purpose, Trip, tuple[Path, ...]], Reach], kept: Composite, filled: int
) -> None:
    """Hold what a cache said of the whole way against a walk of it."""
    said = kept.reach
    try:
        now = walk(ask.at, ask.why._replace(wanted=0), ask.by_tables(), ask.rest)
    except Refused:
        now = None
    if now is None or _essence_of_way(now) != _essence_of_way(said):
        # Where each layer was entered, seen from the top: the range of the answer, moved by this much, was its.
        ways = [(node, part.address - kept.at) for node, part in zip(kept.nodes, said.parts, strict=True)]
        _note(ask, _run(said), now and _run(now), ways, filled)


def _essence(extent: Extent | None) -> object:
    return extent and (extent.output - extent.input, extent.prot, extent.attributes, extent.port)


def _essence_of_way(reach: Reach) -> object:
    # Also who allows what: on it depends who is blamed.
    who = [(part.layer, part.prot) for part in reach.parts]
    return reach.output - reach.input, reach.prot, reach.attributes, reach.memory, who


def _run(found: Extent | Reach) -> Run:
    memory = found.memory if isinstance(found, Reach) else None
    name = memory.name if memory else ""
    return Run(found.input, found.output, found.size, found.block, found.prot, found.attributes, name, memory)


def _note(ask: Ask, was: Run | None, now: Run | None, ways: list[tuple[Stage, int]], filled: int) -> None:
    # The block that answered, as far as the tables say one thing of it.
    runs = [run for run in (was, now) if run is not None]
    start = max(max(run.input, ask.at & -run.page_size) for run in runs)
    stop = min(min(run.input + run.size, (ask.at & -run.page_size) + run.page_size) for run in runs)
    event = None
    if ask.cache.log is not None:
        own = [(node, start + shift, stop - start) for node, shift in ways]
        event = ask.cache.log.cause(filled, own, (*ask.place.fed_by, *(node for node, _ in ways)))
    stale = Stale(ask.place.name, start, stop - start, _cut(was, start, stop), _cut(now, start, stop), event)
    ask.cache.stale[stale] += 1
    ask.trip.stale.append(stale)


def _cut(run: Run | None, start: int, stop: int) -> Run | None:
    return run and run._replace(input=start, output=run.output + start - run.input, size=stop - start)
