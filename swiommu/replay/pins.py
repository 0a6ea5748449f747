"""How often a lent page can't move: as the knob says, or as often as the recording met busy pages."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE
from swiommu.replay.designs import Lends
from swiommu.requests import RequestKind

if TYPE_CHECKING:
    from swiommu.replay.designs import Design
    from swiommu.replay.memory_plan import MemoryPlan
    from swiommu.requests import Workload

__all__ = ["MILLION", "RECORDED", "pinned_share", "recorded_share"]

MILLION = 1_000_000
RECORDED = -1  # the value of the knob `pinned` that asks the recording


def pinned_share(design: Design, plan: MemoryPlan, workload: Workload) -> float:
    """The part of lent pages that is pinned whenever a request comes, as this design assumes.

    0 for droppable pages, and in mode ``machine`` where the recording is asked: its own busy ranges hold then.

    >>> from swiommu.replay import equal_plan, find_design
    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> workload = workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))
    >>> pinned_share(find_design("cma-lending"), equal_plan(workload), workload)
    0.0
    """
    if design.lends is not Lends.MOVABLE or not design.lent:
        return 0.0
    if design.pinned != RECORDED:
        return design.pinned / MILLION
    return 0.0 if plan.fallback else min(recorded_share(workload) * MILLION / design.lent, 1.0)


def recorded_share(workload: Workload) -> float:
    """The part q of an area's pages that makes what was recorded likeliest.

    A try of n pages succeeds with (1 - q)^n; the recording tells the pages of every try that succeeded, and of every
    one that was busy. 0 where none was.

    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> recorded_share(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")))
    0.0
    """
    taken, busy = _tries(workload)
    if not busy:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):  # the likelihood has one peak: halve until a float can't tell
        middle = (low + high) / 2
        if not 0 < middle < 1:
            break
        free = 1 - middle
        rises = sum(n * free**n / (1 - free**n) * times for n, times in busy.items()) > taken
        low, high = (middle, high) if rises else (low, middle)
    return low


def _tries(workload: Workload) -> tuple[int, Counter[int]]:
    """(pages taken in all, {pages of a try: how often it was busy}) of the recorded area."""
    taken, busy = 0, Counter[int]()
    for request, served in zip(workload.requests, workload.served, strict=True):
        if request.kind is RequestKind.ALLOC:
            pages = -(-request.size // PAGE_SIZE)
            taken += pages if served.pfn is not None else 0
            busy[pages] += len(served.busy_pfns)
    for occupancy in workload.occupancies:
        if not occupancy.was_start_extent:
            taken += occupancy.count
            busy[occupancy.count] += len(occupancy.busy_pfns)
    return taken, +busy
