"""The replay: one workload through one design over one memory, reference engine.

The loop is the definition: operations in trace order, a request that fails takes its own end with it, a censored
request is probed and never held (rules 4 and 5). Everything observable is in the `Outcome`.
"""

from __future__ import annotations

import enum
from array import array
from typing import TYPE_CHECKING, Final

import attrs

from swiommu.address import PAGE_SIZE, align_up
from swiommu.errors import SwiommuError
from swiommu.replay.backends import Backend, Counters, Exposure, Extent, make_backend
from swiommu.replay.cause import Cause, cause_of
from swiommu.replay.designs import Design, Knobs
from swiommu.replay.ledger import Ledger
from swiommu.requests import OpCode, Request, RequestKind, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from swiommu.replay.cause import Causes
    from swiommu.replay.memory_plan import MemoryPlan

__all__ = ["Outcome", "Status", "loses_nothing", "nothing_is_lost", "replay"]


class Status(enum.IntEnum):
    """What became of a request, one byte each in `Outcome.status`."""

    SERVED = 0
    LOST = 1
    GAINED = 2  # censored, and this design could have served it
    CENSORED = 3  # censored, and this design could not have served it either
    NOT_APPLICABLE = 4  # a user-space mapping, where nothing translates


@attrs.frozen
class Outcome:
    """A run's result: the account, the operation counts, and per request its status and its number of maps.

    ``places`` and ``occupied`` hold the backend's handles by request and by occupancy, if they were to be kept;
    ``extents_of`` tells the memory behind a handle.
    """

    design: Design
    plan: MemoryPlan
    ledger: Ledger
    counters: Counters
    reserved_bytes: int
    pool_bytes: int
    pool_peak: int
    status: bytearray
    maps: array[int]
    places: dict[int, object]
    exposure: Exposure | None
    occupied: dict[int, object]
    extents_of: Callable[[object], list[Extent]]


def replay(
    workload: Workload, design: Design, plan: MemoryPlan, knobs: Knobs | None = None, *, keep_places: bool = False
) -> Outcome:
    """Run the whole workload; ``keep_places`` keeps every request's handle (where it was put) in the outcome.

    `InputError` with the line where so many requests are to be probed (rule 4) that it would take hours.

    >>> from swiommu.replay import find_design, machine_plan
    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> workload = workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))
    >>> outcome = replay(workload, find_design("cma-bitmap"), machine_plan(workload))
    >>> outcome.ledger.failed.total(), outcome.ledger.lost.total()
    (27, 0)
    """
    backend = make_backend(design, plan, workload, knobs or Knobs())
    run = _Run(workload, backend, design, keep_places=keep_places)
    run.all()
    return Outcome(
        design=design,
        plan=plan,
        ledger=run.ledger,
        counters=backend.counters,
        reserved_bytes=backend.usage().reserved,
        pool_bytes=backend.pool_bytes,
        pool_peak=backend.pool_peak,
        status=run.status,
        maps=run.maps,
        places=run.places,
        exposure=backend.exposure(),
        occupied=run.occupied,
        extents_of=backend.extents,
    )


def loses_nothing(
    workload: Workload,
    design: Design,
    plan: MemoryPlan,
    knobs: Knobs | None = None,
    *,
    kinds: Collection[RequestKind] = tuple(RequestKind),
) -> bool:
    """Whether this memory is enough: stops at the first request that the recorded kernel served and this design fails.

    Only requests of ``kinds`` are made.

    >>> from swiommu.replay import find_design, plan_of_size
    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> workload = workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))
    >>> [loses_nothing(workload, find_design("cma-bitmap"), plan_of_size(workload, size << 20)) for size in (80, 82)]
    [False, True]
    """
    return nothing_is_lost(workload, design, make_backend(design, plan, workload, knobs or Knobs()), kinds)


def nothing_is_lost(workload: Workload, design: Design, backend: Backend, kinds: Collection[RequestKind]) -> bool:
    """As `loses_nothing`, for a caller who wants to ask the backend afterwards."""
    return _Run(workload, backend, design).until_loss(kinds)


def losses(workload: Workload, design: Design, backend: Backend, kinds: Collection[RequestKind]) -> Causes:
    """Every request of ``kinds`` that the recorded kernel served and this design fails, by cause."""
    run = _Run(workload, backend, design)
    run.until_loss(kinds, most=len(workload.requests))
    return run.ledger.losses


_PATIENCE: Final = 100_000_000  # pieces of memory that probes take and map: minutes


class _Run:
    """The state of one replay."""

    def __init__(self, workload: Workload, backend: Backend, design: Design, *, keep_places: bool = False) -> None:
        self.workload = workload
        self._translates = design.has_hardware
        self.backend = backend
        self.ledger = Ledger(now=workload.start_time, start=workload.start_time)
        self.status = bytearray(len(workload.requests))
        self.maps = array("Q", bytes(8 * len(workload.requests)))
        self.places: dict[int, object] = {}
        self.occupied: dict[int, object] = {}
        self._keep = keep_places
        self._live: dict[int, object] = {}
        self._occupied: dict[int, object] = {}

    def all(self) -> None:
        """Every operation, with the account."""
        ledger, backend = self.ledger, self.backend
        for code, index, time in self.workload.ops:
            backend.advance(time)
            ledger.advance(time, backend.usage())
            self._step(code, index)
        backend.advance(self.workload.stop_time)
        ledger.advance(self.workload.stop_time, backend.usage())

    def until_loss(self, kinds: Collection[RequestKind], *, most: int = 0) -> bool:
        """Only what decides whether more than ``most`` requests are lost: no probes, no account of time."""
        requests = self.workload.requests
        for code, index, time in self.workload.ops:
            self.backend.advance(time)
            if code <= OpCode.END:
                request = requests[index]
                if request.censored or request.kind not in kinds:
                    continue
            self._step(code, index)
            if self.ledger.failed.total() > most:
                return False
        return True

    def _step(self, code: int, index: int) -> None:
        if code == OpCode.BEGIN:
            self._begin(self.workload.requests[index])
        elif code == OpCode.END:
            self._end(self.workload.requests[index])
        elif code == OpCode.OCCUPY:
            self._occupied[index] = handle = self.backend.occupy(self.workload.occupancies[index])
            if self._keep and handle is not None:
                self.occupied[index] = handle
        elif code == OpCode.VACATE:
            self.backend.vacate(self.workload.occupancies[index], self._occupied.pop(index, None))
        elif code == OpCode.SYNC:
            sync = self.workload.syncs[index]
            if sync.request in self._live:
                request = self.workload.requests[sync.request]
                self.backend.sync(request, self._live[sync.request], for_cpu=sync.for_cpu, size=sync.size)

    def _begin(self, request: Request) -> None:
        index, ledger, backend = request.index, self.ledger, self.backend
        busy = self.workload.served[index].busy_pfns
        if request.kind is RequestKind.USERMAP and not self._translates:
            self.status[index] = Status.NOT_APPLICABLE
            ledger.not_applicable += 1
            return
        if request.censored:
            self._probe(request, busy)
            return
        maps = backend.counters.maps
        try:
            handle = backend.begin(request, busy)
        except SwiommuError as error:
            self.status[index] = Status.LOST
            ledger.refuse(request, cause_of(error), with_room=self._had_room(request))
            return
        self.maps[index] = backend.counters.maps - maps
        self._live[index] = handle
        if self._keep:
            self.places[index] = handle
        ledger.serve(request)

    def _probe(self, request: Request, busy: tuple[int, ...]) -> None:
        empty = request.kind is RequestKind.ALLOC and not request.size
        refusal = Cause.SIZE if empty else self.backend.probe(request, busy)
        if self.backend.tried > _PATIENCE:
            raise self.workload.error(
                "so many requests failed when recorded that they can't all be tried", request.line
            )
        if refusal is None:
            self.status[request.index] = Status.GAINED
            self.ledger.gain(request)
        else:
            self.status[request.index] = Status.CENSORED
            self.ledger.refuse(request, refusal, with_room=self._had_room(request))

    def _end(self, request: Request) -> None:
        if request.index not in self._live:
            return  # the design failed it: its end goes with it
        self.backend.end(request, self._live.pop(request.index))
        self.ledger.release(request)

    def _had_room(self, request: Request) -> bool:
        return request.kind is RequestKind.ALLOC and self.backend.room() >= align_up(request.size, PAGE_SIZE)
