"""Where buffers lay and for how long: rectangles of time x address, for the recorded kernel or for a design's run.

A history shows ALLOCs that a pool of memory served. What lies elsewhere (another allocator's blocks, memory that a
MAP points at) is counted, not placed. A refused ALLOC keeps what was free at that moment, and the largest hole.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import attrs

from swiommu.address import PAGE_SIZE, align_down, align_up
from swiommu.ranges import RangeSet, joined
from swiommu.replay.designs import AS_RECORDED
from swiommu.replay.engine import Outcome, Status
from swiommu.replay.memory_plan import STEP, MemoryPlan
from swiommu.requests import Occupancy, OpCode, RequestKind, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from swiommu.replay.backends import Extent

__all__ = [
    "NOBODY",
    "AreaHistory",
    "Rectangle",
    "Refusal",
    "design_history",
    "failure_times",
    "recorded_history",
]

NOBODY = -1  # the request of memory that no request asked for: in use before the trace, or another driver's

_MEASURED = 1000  # refusals whose holes are measured; a hostile trace can refuse without end


class Rectangle(NamedTuple):
    """``size`` bytes from ``start`` held from ``begin`` to ``end`` (ns); ``ended`` is False if the trace ends first."""

    request: int
    start: int
    size: int
    begin: int
    end: int
    ended: bool


class Refusal(NamedTuple):
    """An ALLOC that was not served at ``time``: bytes free then, and the largest hole among them."""

    request: int
    time: int
    free: int
    hole_start: int
    hole: int


@attrs.define
class AreaHistory:
    """The memory ``[base, base + size)`` from ``begin`` to ``end`` (ns of the trace's clock).

    ``elsewhere`` counts served ALLOCs that lay outside of it, ``unmeasured`` refusals beyond the first thousand.
    ``is_part``: there is more memory than this, and nobody can say how much was free; then no refusal is measured.

    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> history = recorded_history(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")))
    >>> history.check()
    >>> len(history.rectangles), len(history.refusals), history.elsewhere
    (692, 27, 22)
    """

    name: str
    base: int
    size: int
    begin: int
    end: int
    rectangles: Sequence[Rectangle]
    refusals: Sequence[Refusal]
    elsewhere: int
    unmeasured: int = 0
    is_part: bool = False

    def check(self) -> None:
        """Every rectangle lies inside, and no two hold the same byte at the same time."""
        events = []
        for rectangle in self.rectangles:
            assert self.base <= rectangle.start, f"{rectangle} begins before {self.base:#x}"
            assert rectangle.start + rectangle.size <= self.base + self.size, f"{rectangle} leaves the memory"
            assert self.begin <= rectangle.begin <= rectangle.end <= self.end, f"{rectangle} leaves the time"
            if rectangle.begin < rectangle.end:
                events += [(rectangle.begin, 1, rectangle.start, rectangle.size)]
                events += [(rectangle.end, 0, rectangle.start, rectangle.size)]
        held: list[Extent] = []
        for time, is_begin, start, size in sorted(events):
            if is_begin:
                insort(held, (start, size))
                for (low, length), (high, _) in pairwise(held):
                    assert low + length <= high, f"at {time} ns {low:#x}+{length:#x} and {high:#x} overlap"
            else:
                held.remove((start, size))


def recorded_history(workload: Workload) -> AreaHistory | None:
    """The recorded contiguous area; None if the recording has none.

    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> first = recorded_history(workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))).refusals[0]
    >>> first.free >> 20, first.hole >> 20
    (32, 11)
    """
    area = workload.area
    if area is None:
        return None
    base = area.base_pfn * PAGE_SIZE

    def request(index: int) -> list[Extent]:
        pfn = workload.served[index].pfn
        return [] if pfn is None else [(pfn * PAGE_SIZE, align_up(workload.requests[index].size, PAGE_SIZE))]

    def occupancy(index: int) -> list[Extent]:
        occupied = workload.occupancies[index]
        return [(occupied.pfn * PAGE_SIZE, occupied.count * PAGE_SIZE)]

    tour = _Tour(workload, request, occupancy, lambda index: workload.requests[index].censored)
    extents = [(base + offset * PAGE_SIZE, count * PAGE_SIZE) for offset, count in area.start_extents or ()]
    return tour.run(AS_RECORDED, base, area.bytes, extents)


def design_history(workload: Workload, outcome: Outcome) -> AreaHistory | None:
    """A run's memory, from an outcome that kept its places; None if it placed nothing that could be drawn.

    >>> from swiommu.replay import equal_plan, find_design, replay
    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> workload = workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))
    >>> outcome = replay(workload, find_design("cma-bitmap"), equal_plan(workload), keep_places=True)
    >>> history = design_history(workload, outcome)
    >>> history.check()
    >>> first = history.refusals[0]
    >>> len(history.refusals), first.free >> 20, first.hole >> 20
    (2, 26, 23)
    """
    plan, requests = outcome.plan, workload.requests

    def request(index: int) -> list[Extent]:
        return _joined(outcome.extents_of(outcome.places[index])) if index in outcome.places else []

    def occupancy(index: int) -> list[Extent]:
        return _joined(outcome.extents_of(outcome.occupied[index])) if index in outcome.occupied else []

    def refused(index: int) -> bool:
        return outcome.status[index] in {Status.LOST, Status.CENSORED}

    lows = [
        low for index in outcome.places if requests[index].kind is RequestKind.ALLOC for low in _span(request(index))
    ]
    if not lows:
        return None
    base, size, is_part = _frame(min(lows), max(lows), plan)
    extents = [(plan.base + offset * PAGE_SIZE, count * PAGE_SIZE) for offset, count in plan.start_extents]
    if not outcome.design.has_area:
        extents = []
    history = _Tour(workload, request, occupancy, refused).run(outcome.design.name, base, size, extents)
    if is_part:
        history = attrs.evolve(
            history, refusals=[], unmeasured=len(history.refusals) + history.unmeasured, is_part=True
        )
    return history


def failure_times(workload: Workload, outcome: Outcome | None) -> list[int]:
    """When each request failed (ns), in the recording or in a run.

    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> len(failure_times(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")), None))
    27
    """
    if outcome is None:
        return [request.time for request in workload.requests if request.censored]
    failed = {Status.LOST, Status.CENSORED}
    return [request.time for request in workload.requests if outcome.status[request.index] in failed]


def _joined(extents: Iterable[Extent]) -> list[Extent]:
    joined: list[Extent] = []
    for start, size in sorted(extents):
        if joined and joined[-1][0] + joined[-1][1] == start:
            joined[-1] = (joined[-1][0], joined[-1][1] + size)
        else:
            joined.append((start, size))
    return joined


def _span(extents: Sequence[Extent]) -> list[int]:
    return [edge for start, size in extents for edge in (start, start + size)]


def _frame(low: int, high: int, plan: MemoryPlan) -> tuple[int, int, bool]:
    """(base, size, whether it is a part) of what to show: the plan's memory, whose frames may be numbered from 0.

    Where buffers leave it (mode ``machine`` has all RAM), only as much as they use.
    """
    for start in (plan.base, 0):
        if start <= low and high <= start + plan.bytes:
            return start, plan.bytes, plan.fallback and start == 0
    start = align_down(low, STEP)
    return start, align_up(high, STEP) - start, True


class _Tour:
    """One walk over the operations that opens and closes rectangles; only order decides, not time."""

    def __init__(
        self,
        workload: Workload,
        request: Callable[[int], list[Extent]],
        occupancy: Callable[[int], list[Extent]],
        refused: Callable[[int], bool],
    ) -> None:
        self.workload = workload
        self.request, self.occupancy, self.refused = request, occupancy, refused
        self._open: dict[tuple[bool, int], tuple[int, list[Extent]]] = {}
        self._held: list[Extent] = []
        self._live = self._elsewhere = self._unmeasured = 0
        self._rectangles: list[Rectangle] = []
        self._refusals: list[Refusal] = []

    def run(self, name: str, base: int, size: int, extents: Sequence[Extent]) -> AreaHistory:
        workload = self.workload
        now = workload.start_time
        self._start(extents, base, now)
        for code, index, time in workload.ops:
            now = max(now, time)
            if code == OpCode.BEGIN and workload.requests[index].kind is RequestKind.ALLOC:
                self._begin(index, now, base, size)
            elif code == OpCode.END:
                self._close((False, index), now)
            elif code == OpCode.OCCUPY:
                self._hold((True, index), now, self.occupancy(index))
            elif code == OpCode.VACATE:
                self._close((True, index), now)
        stop = max(now, workload.stop_time)
        for key in list(self._open):
            self._close(key, stop, ended=False)
        return AreaHistory(
            name=name,
            base=base,
            size=size,
            begin=workload.start_time,
            end=stop,
            rectangles=self._rectangles,
            refusals=self._refusals,
            elsewhere=self._elsewhere,
            unmeasured=self._unmeasured,
        )

    def _start(self, extents: Sequence[Extent], base: int, now: int) -> None:
        """What was in use when the trace began; parts that are given back later are held by their occupancy."""
        area = self.workload.area
        shift = base - area.base_pfn * PAGE_SIZE if area else 0
        later: dict[int, Occupancy] = {
            index: each for index, each in enumerate(self.workload.occupancies) if each.was_start_extent
        }
        parts = {index: (each.pfn * PAGE_SIZE + shift, each.count * PAGE_SIZE) for index, each in later.items()}
        for number, extent in enumerate(_without(extents, list(parts.values())), 1):
            self._hold((True, -number), now, [extent])
        if extents:
            for index, part in parts.items():
                self._hold((True, index), now, [part])

    def _begin(self, index: int, now: int, base: int, size: int) -> None:
        if self.refused(index):
            if len(self._refusals) < _MEASURED:
                self._refusals.append(Refusal(index, now, size - self._live, *self._largest_hole(base, size)))
            else:
                self._unmeasured += 1
            return
        extents = self.request(index)
        if extents:
            self._hold((False, index), now, extents)
        elif not self.workload.requests[index].censored:
            self._elsewhere += 1

    def _hold(self, key: tuple[bool, int], now: int, extents: list[Extent]) -> None:
        if not extents:
            return
        self._open[key] = now, extents
        for extent in extents:
            insort(self._held, extent)
            self._live += extent[1]

    def _close(self, key: tuple[bool, int], now: int, *, ended: bool = True) -> None:
        if key not in self._open:
            return  # never served, or served elsewhere
        begin, extents = self._open.pop(key)
        is_occupancy, index = key
        for extent in extents:
            del self._held[bisect_left(self._held, extent)]
            self._live -= extent[1]
            request = NOBODY if is_occupancy else index
            self._rectangles.append(Rectangle(request, *extent, begin, now, ended))

    def _largest_hole(self, base: int, size: int) -> Extent:
        """(start, bytes) of the largest run that nobody holds; the lowest of several."""
        edges = [base, *_span(self._held), base + size]
        holes = [(high - low, -low) for low, high in zip(edges[::2], edges[1::2], strict=True)]
        length, negative = max(holes)
        return -negative, length


def _without(extents: Iterable[Extent], parts: Iterable[Extent]) -> list[Extent]:
    """The extents less the parts, those that touch joined.

    >>> _without([(0, 100), (100, 92)], [(64, 64)])
    [(0, 64), (128, 64)]
    """
    taken = RangeSet()
    for start, stop in joined((start, start + size) for start, size in parts):
        taken.add(start, stop)
    wanted = joined((start, start + size) for start, size in extents)
    return [(low, high - low) for start, stop in wanted for low, high in taken.gaps(start, stop)]
