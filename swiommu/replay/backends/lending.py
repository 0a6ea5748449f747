"""An area that lends what is idle: `cma-lending` moves its tenants, `gcma` drops them (rule 14).

Who uses lent pages is in no trace. So a seed says which frames are lent whenever they are idle, and, request by
request, which of them are pinned just then: a draw that depends on nothing but the seed and the request, so that
trying a request changes no other one.
"""

from __future__ import annotations

import math
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE
from swiommu.errors import InvalidArgument
from swiommu.memory import FrameState
from swiommu.region import Lending, Region
from swiommu.replay.backends.contiguous import RegionBackend
from swiommu.replay.designs import Lends
from swiommu.replay.pins import MILLION, RECORDED, pinned_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.address import PhysAddr
    from swiommu.replay.cause import Cause
    from swiommu.replay.designs import Design, Knobs
    from swiommu.replay.memory_plan import MemoryPlan
    from swiommu.requests import Occupancy, Request, Workload

__all__ = ["LendingBackend"]

_PERIOD = 1 << 20  # frames: which of 4 GiB are lent is drawn, and repeated in an area beyond that


class LendingBackend(RegionBackend):
    """`RegionBackend` over `swiommu.region.Lending`; where tenants go is on their own account."""

    def __init__(self, design: Design, plan: MemoryPlan, workload: Workload, knobs: Knobs) -> None:
        self._seed = knobs.seed
        self._lender: Lending | None = None
        self._occupied = 0
        super().__init__(design, plan, workload, knobs)
        self._pinned = pinned_share(design, plan, workload)
        self._as_recorded = design.lends is Lends.MOVABLE and design.pinned == RECORDED

    def _allocator(self, design: Design, plan: MemoryPlan, workload: Workload) -> Lending:
        state = FrameState.MOVABLE if design.lends is Lends.MOVABLE else FrameState.DROPPABLE
        count = plan.bytes // PAGE_SIZE
        frames = bytearray((state,)) * min(count, _PERIOD)
        idle = random.Random(f"{self._seed} idle")  # noqa: S311 - reproducible, no secret
        for frame in _drawn(idle, 1 - design.lent / MILLION, len(frames)):
            frames[frame] = FrameState.FREE
        standing = bytes(frames) * (count // len(frames)) + bytes(frames[: count % len(frames)])
        registered = design.registered
        assert registered, "a design that lends has an allocator"
        assert registered.lending, "and one that can lend"
        lender = registered.lending(plan.base, plan.bytes, standing=standing, profile=workload.profile)
        if not isinstance(lender, Lending):
            raise InvalidArgument(
                f"allocator {design.allocator!r} lends by {type(lender).__name__}, which is no Lending"
            )
        return lender

    def _build(self, design: Design, plan: MemoryPlan, workload: Workload) -> Region[PhysAddr]:
        self._lender = self._allocator(design, plan, workload)
        region = Region(self.space.at(plan.base), plan.bytes, allocator=self._lender)
        self._reserve_extents(region, plan, workload)
        self._lender.returns = type(self._lender.returns)()  # these were never lent
        return region

    # -- requests ----------------------------------------------------------------------------------------------------

    def _take(self, request: Request, busy: tuple[int, ...]) -> object:
        try:
            with self._pins(f"{request.index}"):
                return super()._take(request, busy)
        finally:
            self._count()

    def _area_refusal(self, request: Request, busy: tuple[int, ...]) -> Cause | None:
        with self._pins(f"{request.index}"):
            return super()._area_refusal(request, busy)

    def _tried(self, request: Request, busy: tuple[int, ...]) -> Cause | None:
        try:
            return super()._tried(request, busy)
        finally:
            self._count()  # what was tried has left no trace in the area itself

    def occupy(self, occupancy: Occupancy) -> object:
        """See `Backend.occupy`."""
        self._occupied += 1
        if self.region is None:
            return None
        with self._pins(f"background {self._occupied}"):
            handle = super().occupy(occupancy)
        self._count()
        return handle

    def _set_busy(self, busy: tuple[int, ...], state: int) -> None:
        """Recorded busy ranges hold only where the recording is asked, and nothing droppable is ever busy."""
        if self._as_recorded:
            super()._set_busy(busy, state)

    @contextmanager
    def _pins(self, key: str) -> Iterator[None]:
        """Some lent frames can't move while this is served; they are drawn as far as a search comes."""
        if not self._pinned:
            yield
            return
        allocator = self._region().allocator
        assert isinstance(allocator, Lending)
        area = allocator
        draw = random.Random(f"{self._seed} {key}")  # noqa: S311 - reproducible, no secret
        drawn = _drawn(draw, self._pinned, area.count, area.base_pfn)
        pinned: list[int] = []
        coming = next(drawn, None)

        def below(stop: int) -> Iterator[int]:
            nonlocal coming
            while coming is not None and coming < stop:
                yield coming
                coming = next(drawn, None)

        def pin_below(stop: int) -> None:
            if coming is not None and coming < stop:  # a search asks range by range, which often have none
                pinned.extend(area.pin_movable(below(stop)))

        outer, area.before_try = area.before_try, pin_below
        try:
            yield
        finally:
            area.before_try = outer
            area.unpin_all(pinned)

    # -- account -----------------------------------------------------------------------------------------------------

    def _count(self) -> None:
        """What the area has seen so far."""
        if self._lender is not None:
            self.counters.returns = returns = self._lender.returns
            self.counters.bytes_copied = returns.moved * PAGE_SIZE

    def _idle(self) -> tuple[int, int, int]:
        """What is lent serves somebody: it is no waste."""
        lent = self._lender.account().lent * PAGE_SIZE if self._lender else 0
        return self.room() - lent, self.plan.bytes, lent


def _drawn(draw: random.Random, share: float, count: int, first: int = 0) -> Iterator[int]:
    """Numbers of the ``count`` from ``first`` on, each independently with probability ``share``, ascending."""
    if share >= 1:
        yield from range(first, first + count)
    if not 0 < share < 1:
        return
    scale, at, stop = math.log1p(-share), first - 1, first + count
    log, number = math.log, draw.random
    while (at := at + 1 + int(log(1 - number()) / scale)) < stop:
        yield at
