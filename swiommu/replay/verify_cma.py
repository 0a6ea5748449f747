"""Does the bitmap model decide what the recorded kernel decided? Every busy retry and every ``cma_alloc_finish``.

The prediction is made when the kernel made it: the candidate range is chosen at ``cma_alloc_start`` (or at a busy
retry, which names the range that was given up) and its pages are taken from that moment on, so that calls of several
CPUs interleave as they did. Only then is the result read, and the recorded state adopted.

A record that contradicts the prediction leaves two possible worlds: the model is wrong, or the record is. Both are
carried on until a later line rules one of them out, so that one bad record costs one mismatch, not a cascade; a wrong
rule still mismatches again and again, in every world.

Source: mm/cma.c (``cma_alloc``, ``cma_release``); the specification's decision class ``cma``.
"""

from __future__ import annotations

import copy
import errno
from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE
from swiommu.region import Bitmap
from swiommu.replay.checks import DecisionClass
from swiommu.trace import Event, Kind, Sidecar, Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.replay.service import Context

__all__ = ["verify_cma"]

_WORLDS = 8  # how many histories are carried at most; a recording that needs more is beyond telling
_NO_ROOM = (-errno.ENOMEM, -errno.EBUSY)


def verify_cma(trace: Trace) -> DecisionClass | None:
    """Predict every decision of the recorded area; None if the trace has no CMA events at all.

    Undetermined: decisions of an area that the sidecar does not describe, whose start is not in the trace, that come
    after lost events, or that ended for a reason of migration other than a busy page.

    >>> from swiommu.trace import read_trace
    >>> tally = verify_cma(read_trace("arm64-6.12-cam-cma64M-s81"))
    >>> tally.total, tally.matched
    (740, 740)
    """
    if Kind.CMA_FINISH not in trace.table.counts():
        return None
    tally = DecisionClass("cma")
    cause = _undescribed(trace.sidecar)
    if cause is None and trace.sidecar is not None:
        _Checker(tally, _World.of(trace.sidecar), _area_name(trace)).run(trace)
    else:
        for event in trace.table:
            if event.kind in {Kind.CMA_FINISH, Kind.CMA_BUSY_RETRY}:
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
    names = {event.name for event in trace.table if event.kind == Kind.CMA_FINISH}
    return "reserved" if "reserved" in names or len(names) != 1 else names.pop()


@attrs.define
class _Call:
    """One ``cma_alloc`` under way: what it wants, and the range it is trying (None: there is none)."""

    count: int
    align: int
    candidate: int | None
    retried: bool = False


class _World:
    """One possible state of the area, with the calls under way in it."""

    def __init__(self, area: Bitmap) -> None:
        self.area = area
        self.calls: dict[Context, _Call] = {}

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
        return copy.deepcopy(self)

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
        no_room = errno.EBUSY if self.area.profile == "7.3" or call.retried else errno.ENOMEM
        return f"errno {-no_room}"

    def settle(self, context: Context) -> None:
        """It ended as predicted: the candidate stays taken."""
        del self.calls[context]

    def adopt(self, context: Context, pfn: int | None) -> None:
        """It ended otherwise: the recorded range is taken instead, whatever we thought of it."""
        call = self.calls.pop(context)
        self._give(call)
        if pfn is not None:
            self._force(pfn, call.count)

    def abandon(self, context: Context) -> None:
        """A call whose end is not in the trace."""
        call = self.calls.pop(context, None)
        if call is not None:
            self._give(call)

    def can_release(self, pfn: int, count: int) -> bool:
        """Whether all these pages are taken in this world."""
        first = pfn - self.area.base_pfn
        return not any(bit < first + count and first < bit + length for bit, length in self.area.free_runs())

    def release(self, pfn: int, count: int) -> None:
        """``cma_release``; pages that are free already stay so."""
        stop = min(pfn + count, self.area.base_pfn + self.area.count)
        start = max(pfn, self.area.base_pfn)
        if start >= stop:
            return
        free = self._free_inside(start, stop)
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
        base = self.area.base_pfn
        for bit, length in self.area.free_runs():
            low, high = max(base + bit, pfn), min(base + bit + length, pfn + count)
            if low < high:
                self.area.reserve(low * PAGE_SIZE, (high - low) * PAGE_SIZE)

    def _free_inside(self, start: int, stop: int) -> int:
        base = self.area.base_pfn
        spans = ((max(base + bit, start), min(base + bit + length, stop)) for bit, length in self.area.free_runs())
        return sum(high - low for low, high in spans if low < high)


class _Checker:
    """Walks the events, asks every world, judges by what was recorded."""

    def __init__(self, tally: DecisionClass, world: _World, name: str) -> None:
        self.tally = tally
        self.worlds = [world]
        self.name = name
        self.lost = False

    def run(self, trace: Trace) -> None:
        handlers: dict[Kind, Callable[[Event, Context], None]] = {
            Kind.CMA_START: self.start,
            Kind.CMA_BUSY_RETRY: self.retry,
            Kind.CMA_FINISH: self.finish,
            Kind.CMA_RELEASE: self.release,
        }
        for event in trace.table:
            if event.kind == Kind.LOST:
                self.lost = True
            handler = handlers.get(event.kind)
            if handler is None:
                continue
            if self.lost or event.name != self.name:
                self.set_aside(event)
            else:
                handler(event, (event.cpu, event.pid, event.context))

    def set_aside(self, event: Event) -> None:
        if event.kind in {Kind.CMA_FINISH, Kind.CMA_BUSY_RETRY}:
            self.tally.leave("events were lost before it" if self.lost else "an area that the sidecar doesn't describe")

    def start(self, event: Event, context: Context) -> None:
        for world in self.worlds:
            world.start(context, event.size, event.extra)

    def retry(self, event: Event, context: Context) -> None:
        if not self.known(context):
            return
        recorded = f"pfn {event.addr:#x}"
        right = self.judge("busy retry", event, context, recorded)
        if right:
            for world in self.worlds:
                world.retry_from(context, event.addr)
            return
        doubted = [world.fork() for world in self.worlds[: _WORLDS // 2]]
        for world in self.worlds:
            world.retry_from(context, event.addr)
        for world in doubted:
            candidate = world.calls[context].candidate
            world.retry_from(context, event.addr if candidate is None else candidate)
        self.worlds = (self.worlds + doubted)[:_WORLDS]

    def finish(self, event: Event, context: Context) -> None:
        if not self.known(context):
            return
        if event.err not in {0, *_NO_ROOM}:
            self.tally.leave(f"migration failed with errno {event.err}")
            for world in self.worlds:
                world.abandon(context)
            return
        pfn = event.addr if event.err == 0 else None
        if self.judge("alloc", event, context, f"errno {event.err}" if pfn is None else f"pfn {pfn:#x}"):
            for world in self.worlds:
                world.settle(context)
            return
        doubted = [world.fork() for world in self.worlds[: _WORLDS // 2]]
        for world in self.worlds:
            world.adopt(context, pfn)
        for world in doubted:
            world.settle(context)
        self.worlds = (self.worlds + doubted)[:_WORLDS]

    def judge(self, kind: str, event: Event, context: Context, recorded: str) -> bool:
        """Compare every world's prediction with the record; worlds that are wrong where another is right end here."""
        predictions = [world.predict(context) for world in self.worlds]
        right = [world for world, said in zip(self.worlds, predictions, strict=True) if said == recorded]
        self.tally.judge(kind, event.line, predicted=recorded if right else predictions[0], recorded=recorded)
        if right:
            self.worlds = right
        return bool(right)

    def known(self, context: Context) -> bool:
        if context in self.worlds[0].calls:
            return True
        self.tally.leave("its start is not in the trace")
        return False

    def release(self, event: Event, context: Context) -> None:
        del context
        possible = [world for world in self.worlds if world.can_release(event.addr, event.size)]
        self.worlds = possible or self.worlds
        for world in self.worlds:
            world.release(event.addr, event.size)
