"""Does the bitmap model decide what the recorded kernel decided? Every busy retry and every ``cma_alloc_finish``.

The prediction is made when the kernel made it: the candidate range is chosen at ``cma_alloc_start`` (or at a busy
retry, which names the range that was given up) and its pages are taken from that moment on, so that calls of several
CPUs interleave as they did. Only then is the result read, and the recorded state adopted.

A record that contradicts the prediction is carried on as two histories, with it and without it
(`swiommu.verify.worlds`).

Source: mm/cma.c (``cma_alloc``, ``cma_release``); the specification's decision class ``cma``.
"""

from __future__ import annotations

import copy
import errno
from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE
from swiommu.ranges import RangeSet
from swiommu.region import Bitmap
from swiommu.trace import Call, Context, Event, Kind, Sidecar, Trace
from swiommu.verify.tally import Tally
from swiommu.verify.worlds import DOUBTS, likely

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator


__all__ = ["verify_cma"]

_NO_ROOM = (-errno.ENOMEM, -errno.EBUSY)
_UNKNOWN_START = "pages were released that were not known to be in use: the beginning of the recording is lost"


def verify_cma(trace: Trace) -> Tally | None:
    """Predict every decision of the recorded area; None if the trace has no CMA events at all.

    Undetermined: decisions of an area that the sidecar does not describe, whose start is not in the trace, that come
    after lost events, or that ended for a reason of migration other than a busy page; and all, where pages are released
    that were not known to be in use, so that the beginning is lost.

    >>> from swiommu.trace import read_trace
    >>> tally = verify_cma(read_trace("arm64-6.12-cam-cma64M-s81"))
    >>> tally.total, tally.matched
    (740, 740)
    """
    if Kind.CMA_FINISH not in trace.table.counts():
        return None
    cause = _undescribed(trace.sidecar)
    if cause is None and trace.sidecar is not None:
        return _Checker(trace, _World.of(trace.sidecar)).run()
    tally = Tally("cma")
    for _ in trace.table.of({Kind.CMA_FINISH, Kind.CMA_BUSY_RETRY}):
        tally.leave(cause or "")
    return tally


def _undescribed(sidecar: Sidecar | None) -> str | None:
    if sidecar is None:
        return "no sidecar tells where the area lies"
    if sidecar.cma_area is None:
        return "the sidecar describes no area"
    if sidecar.cma_area.start_extents is None:
        return "the sidecar doesn't tell which pages were in use when the trace began"
    return None


def _area_name(trace: Trace) -> str:
    """The sidecar describes the default area, which mainline names ``reserved``; else the only one there is."""
    names = {event.name for event in trace.table.of({Kind.CMA_FINISH})}
    return "reserved" if "reserved" in names or len(names) != 1 else names.pop()


@attrs.define
class _Call:
    """One ``cma_alloc`` under way: what it wants, and the range it is trying (None: there is none)."""

    count: int
    align: int
    candidate: int | None
    retried: bool = False


class _World:
    """One possible history: the state of the area, the calls under way in it, and what it said of each decision.

    ``impossible`` counts lines that can't be true in it: pages given that were taken, pages released that were free
    (``stray`` of them).
    """

    def __init__(self, area: Bitmap) -> None:
        self.area = area
        self.calls: dict[Context, _Call] = {}
        self.tally = Tally("cma")
        self.adopted = self.doubted = self.impossible = self.stray = 0

    @classmethod
    def of(cls, sidecar: Sidecar) -> _World:
        described = sidecar.cma_area
        assert described is not None
        assert described.start_extents is not None
        area = Bitmap(described.base_pfn * PAGE_SIZE, described.total_pages * PAGE_SIZE, profile=sidecar.profile)
        for offset, count in described.start_extents:
            area.reserve((described.base_pfn + offset) * PAGE_SIZE, count * PAGE_SIZE)
        return cls(area)

    def fork(self) -> _World:
        other = copy.copy(self)
        other.area = self.area.copy()  # both histories go on, so that neither is undone
        other.calls = {context: attrs.evolve(call) for context, call in self.calls.items()}
        other.tally = self.tally.copy()
        return other

    @property
    def rank(self) -> tuple[int, int]:
        """Of equals, who always believed the records or always the model is less contrived."""
        return self.tally.mismatched + self.impossible, min(self.adopted, self.doubted)

    def state(self) -> Hashable:
        """Histories of equal state predict the same from here on."""
        calls = tuple(sorted((context, attrs.astuple(call)) for context, call in self.calls.items()))
        return tuple(self.area.free_runs()), self.area.available, calls

    # -- what the kernel does ---------------------------------------------------------------------------------------

    def start(self, context: Context, count: int, align: int) -> None:
        """The first candidate is chosen, and its pages are taken before anything is migrated."""
        self.abandon(context)
        call = self.calls[context] = _Call(count, align, None)
        self._choose(call, None)

    def retry_from(self, context: Context, pfn: int) -> None:
        """The candidate at ``pfn`` was busy: its bits are cleared, the search goes on behind it."""
        call = self.calls[context]
        self._give(call)
        call.retried = True
        self._choose(call, pfn)

    def predict(self, context: Context) -> str:
        """How this call will end."""
        call = self.calls[context]
        if call.candidate is not None:
            return f"pfn {call.candidate:#x}"
        no_room = errno.EBUSY if call.retried else self.area.profile.cma_full_errno
        return f"errno {-no_room}"

    def settle(self, context: Context) -> None:
        """It ended as predicted: the candidate stays taken."""
        del self.calls[context]

    def adopt(self, context: Context, pfn: int | None, count: int) -> None:
        """It ended otherwise: the recorded range is taken instead, whatever we thought of it."""
        self.abandon(context)
        if pfn is not None:
            self._force(pfn, count)

    def abandon(self, context: Context) -> None:
        """A call whose end is not in the trace."""
        call = self.calls.pop(context, None)
        if call is not None:
            self._give(call)

    def release(self, pfn: int, count: int) -> None:
        """``cma_release``; pages that are free already stay so."""
        stop = min(pfn + count, self.area.base_pfn + self.area.count)
        start = max(pfn, self.area.base_pfn)
        if start >= stop:
            return
        free = sum(high - low for low, high in self._free_inside(start, stop))
        self.impossible += free > 0
        self.stray += free > 0
        self.area.release(start, stop - start)
        self.area.available -= free

    # -- inside -----------------------------------------------------------------------------------------------------

    def _choose(self, call: _Call, busy_pfn: int | None) -> None:
        call.candidate = self.area.candidate(call.count, call.align, after_pfn=busy_pfn)
        if call.candidate is not None:
            self.area.reserve(call.candidate * PAGE_SIZE, call.count * PAGE_SIZE)

    def _give(self, call: _Call) -> None:
        if call.candidate is not None:
            self.area.release(call.candidate, call.count)
            call.candidate = None

    def _force(self, pfn: int, count: int) -> None:
        free = list(self._free_inside(pfn, pfn + count))
        self.impossible += sum(high - low for low, high in free) < count
        for low, high in free:
            self.area.reserve(low * PAGE_SIZE, (high - low) * PAGE_SIZE)

    def _free_inside(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        base = self.area.base_pfn
        for bit, length in self.area.free_runs():
            low, high = max(base + bit, start), min(base + bit + length, stop)
            if low < high:
                yield low, high


class _Checker:
    """Walks the calls, asks every world, judges by what was recorded."""

    def __init__(self, trace: Trace, world: _World) -> None:
        self.worlds = [world]
        self.undetermined = world.tally.undetermined
        self.name = _area_name(trace)
        self.lost = False
        self.asked = trace.table.size
        self.trace = trace

    def run(self) -> Tally:
        handlers: dict[Kind, Callable[[Call], None]] = {
            Kind.CMA_START: self.start,
            Kind.CMA_BUSY_RETRY: self.retry,
            Kind.CMA_FINISH: self.finish,
            Kind.CMA_RELEASE: self.release,
        }
        for call in self.trace.calls.of({*handlers, Kind.LOST}):
            event = call.event
            if event.kind == Kind.LOST:
                self.lost = True
            elif self.lost or event.name != self.name:
                self.set_aside(event)
            else:
                handlers[event.kind](call)
        tally = self.worlds[0].tally
        if self.worlds[0].stray and self.has_stray_release():
            self.undetermined[_UNKNOWN_START] += tally.total
            tally = Tally("cma")
        tally.undetermined = self.undetermined
        return tally

    def has_stray_release(self) -> bool:
        """Whether, by the records alone, pages are released that nothing took: the area began otherwise than told."""
        assert self.trace.sidecar is not None
        area = self.trace.sidecar.cma_area
        assert area is not None
        in_use = RangeSet()
        for offset, count in area.start_extents or ():
            in_use.add(area.base_pfn + offset, area.base_pfn + offset + count)
        for event in self.trace.table.of({Kind.CMA_FINISH, Kind.CMA_RELEASE, Kind.LOST}):
            if event.kind == Kind.LOST:
                break
            start, stop = event.addr, event.addr + event.size
            if event.name != self.name or start == stop:
                continue
            if event.kind == Kind.CMA_FINISH and event.err == 0:
                in_use.clear(start, stop)
                in_use.add(start, stop)
            elif event.kind == Kind.CMA_RELEASE:
                if any(in_use.gaps(start, stop)):
                    return True
                in_use.clear(start, stop)
        return False

    def set_aside(self, event: Event) -> None:
        if event.kind in {Kind.CMA_FINISH, Kind.CMA_BUSY_RETRY}:
            cause = "events were lost before it" if self.lost else "an area that the sidecar doesn't describe"
            self.undetermined[cause] += 1

    def start(self, call: Call) -> None:
        event = call.event
        for world in self.worlds:
            if event.size:
                world.start(event.context, event.size, event.extra)
            else:
                world.abandon(event.context)

    def retry(self, call: Call) -> None:
        event, context = call.event, call.event.context
        if not self.known(call):
            return

        def believe(world: _World) -> None:
            world.retry_from(context, event.addr)

        def doubt(world: _World) -> None:
            candidate = world.calls[context].candidate
            world.retry_from(context, event.addr if candidate is None else candidate)

        self.decide("busy retry", event, context, f"pfn {event.addr:#x}", believe, doubt)

    def finish(self, call: Call) -> None:
        event, context = call.event, call.event.context
        if any(start.event.size == 0 for start in call.ended):
            self.undetermined["an impossible line: 0 pages are asked for"] += 1
            return
        pfn = event.addr if event.err == 0 else None

        def believe(world: _World) -> None:
            world.adopt(context, pfn, event.size)

        if not self.known(call):
            for world in self.worlds:
                believe(world)
        elif event.err in {0, *_NO_ROOM}:
            recorded = f"errno {event.err}" if pfn is None else f"pfn {pfn:#x}"
            self.decide("alloc", event, context, recorded, believe, lambda world: world.settle(context))
        else:
            self.undetermined[f"migration failed with errno {event.err}"] += 1
            for world in self.worlds:
                world.abandon(context)

    def decide(
        self,
        kind: str,
        event: Event,
        context: Context,
        recorded: str,
        believe: Callable[[_World], None],
        doubt: Callable[[_World], None],
    ) -> None:
        """Every world predicts; one that is contradicted goes on as two, with the record and without it."""
        worlds = []
        for world in self.worlds:
            predicted = world.predict(context)
            world.tally.judge(kind, event.line, predicted=predicted, recorded=recorded)
            if predicted != recorded and world.rank[0] <= DOUBTS:
                other = world.fork()
                doubt(other)
                other.doubted += 1
                worlds.append(other)
                world.adopted += 1
            believe(world)
            worlds.append(world)
        self.worlds = likely(worlds)

    def known(self, call: Call) -> bool:
        if call.begin >= 0 and self.asked[call.begin]:
            return True
        self.undetermined["its start is not in the trace"] += 1
        return False

    def release(self, call: Call) -> None:
        for world in self.worlds:
            world.release(call.event.addr, call.event.size)
        self.worlds = likely(self.worlds)
