"""The audit: each hit held against the tables, at nobody's cost. What they contradict was true once, or never."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.layer.base import Extent, FaultKind, Run
from swiommu.layer.path import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.layer.cache.ask import Ask
    from swiommu.layer.node import Node
    from swiommu.layer.path import Path, Purpose, Reach, Trip

__all__ = ["Stale", "audit_own", "audit_whole"]


class Stale(NamedTuple):
    """A hit that the tables contradict: what the cache of ``layer`` said of a range, and what is true now.

    None where nothing was, or is, mapped. The range is the block that answered, as far as the tables say one thing of
    it now.
    """

    layer: str
    start: int
    size: int
    was: Run | None
    now: Run | None


def audit_own(ask: Ask, node: Node, said: Extent | FaultKind) -> None:
    """Hold what a cache said for the layer of ``node`` alone against its table."""
    was = said if isinstance(said, Extent) else None
    try:
        found = node.layer.look(ask.at, node.reader(ask.why, ask.by_tables(), ask.rest))
    except Refused:  # its table is not reached
        now = None
    else:
        now = found if isinstance(found, Extent) else None
    if _essence(was) != _essence(now):
        _note(ask, was and _run(was, ""), now and _run(now, ""))


def audit_whole(ask: Ask, walk: Callable[[int, Purpose, Trip, tuple[Path, ...]], Reach], said: Reach) -> None:
    """Hold what a cache said of the whole way against a walk of it."""
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


def _note(ask: Ask, was: Run | None, now: Run | None) -> None:
    # The block that answered, as far as the tables say one thing of it.
    runs = [run for run in (was, now) if run is not None]
    start = max(max(run.input, ask.at & -run.page_size) for run in runs)
    stop = min(min(run.input + run.size, (ask.at & -run.page_size) + run.page_size) for run in runs)
    stale = Stale(ask.place.name, start, stop - start, _cut(was, start, stop), _cut(now, start, stop))
    ask.cache.stale[stale] += 1
    ask.trip.stale.append(stale)


def _cut(run: Run | None, start: int, stop: int) -> Run | None:
    return run and run._replace(input=start, output=run.output + start - run.input, size=stop - start)
