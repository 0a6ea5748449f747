"""The headline: the smallest memory at which a design loses nothing that the recorded kernel served (rule 7).

Losing is not monotone in size: best fit that loses nothing in 158 MiB may lose again in 160. So the answer is the
smallest size in steps of 2 MiB from the least that could do upward, each step tried, as long as the steps are few; a
run that loses stops at once, which keeps that cheap. Beyond that the size is doubled until it suffices and then
bisected. With frames at random (one seed of many, and dear to run) the steps are fewer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE, align_up
from swiommu.replay.backends import make_backend
from swiommu.replay.designs import Driver, FrameOrder, Knobs
from swiommu.replay.engine import losses, nothing_is_lost
from swiommu.replay.memory_plan import BLOCK_LIMIT, MOST, STEP, peak_live_bytes, plan_of_size
from swiommu.requests import RequestKind
from swiommu.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.replay.designs import Design
    from swiommu.requests import Workload

__all__ = ["Need", "bytes_needed", "smallest"]

_SCAN = 64  # steps tried one by one: 128 MiB above the true peak
_SCAN_DRAWN = 4  # where each try draws other frames, so that no answer is more than one seed's
_CEILING = 16  # times the peak: more than Robson's bound asks for any workload here
_REACH = 3 << 30  # no more than a region that every 32-bit device reaches whole


@attrs.frozen
class Need:
    """``bytes`` that suffice (None: no size does), and how many of all requests fail in them (None: not counted).

    ``why`` says why one of them is None.
    """

    bytes: int | None
    why: str = ""
    failed: int | None = None


def bytes_needed(workload: Workload, design: Design, knobs: Knobs | None = None) -> Need:
    """The smallest B, a multiple of 2 MiB, at which the design loses nothing.

    >>> from swiommu.replay import find_design
    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> bytes_needed(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")), find_design("iommu-strict")).bytes >> 20
    78
    """
    if not workload.has_allocs:
        return Need(None, "the trace has no ALLOC, so no memory for data is needed")
    if peak_live_bytes(workload) > MOST:
        return Need(None, f"live ALLOCs peak above what can be replayed, {MOST} bytes")
    if not design.has_hardware and (why := _why_maps_are_lost(workload, design, knobs)):
        return Need(None, why)
    if design.driver is Driver.NONE and not design.allocator:
        served = (r.size for r in workload.requests if r.kind is RequestKind.ALLOC and not r.censored)
        largest = max(served, default=0)
        if largest > BLOCK_LIMIT:
            return Need(None, f"an ALLOC of {largest} bytes is beyond the largest block of pages, {BLOCK_LIMIT}")
    low = least_bytes(workload, design)
    ceiling = max(min(max(low * _CEILING, 1 << 30), _REACH), low)
    enough = _MemoryTest(workload, design, knobs or Knobs())
    if not enough(ceiling):
        return Need(None, f"requests are lost at any size up to {ceiling >> 20} MiB: memory is not what they lack")
    scan = _SCAN_DRAWN if enough.draws else _SCAN
    return Need(smallest(enough, max(low, enough.least()), ceiling, scan))


def least_bytes(workload: Workload, design: Design) -> int:
    """Where the search begins: the true peak, and in a design with an area what is occupied in it from the start.

    >>> from swiommu.replay import find_design
    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> workload = workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))
    >>> least_bytes(workload, find_design("cma-bitmap")) >> 20
    78
    """
    extents = (workload.area.start_extents or ()) if workload.area and design.has_area else ()
    occupied = max(((offset + count) * PAGE_SIZE for offset, count in extents), default=0)
    return max(align_up(max(peak_live_bytes(workload), occupied), STEP), STEP)


def _why_maps_are_lost(workload: Workload, design: Design, knobs: Knobs | None) -> str:
    """Without translation a MAP takes no memory (rule 10): whether all succeed is told by any size; if not, why."""
    plan = plan_of_size(workload, least_bytes(workload, design))
    backend = make_backend(design, plan, workload, knobs or Knobs())
    lost = losses(workload, design, backend, (RequestKind.MAP,))
    number = lost.of(RequestKind.MAP).total()
    if not number:
        return ""
    verb = "is" if number == 1 else "are"
    return (
        f"{counted(number, 'MAP')} {verb} lost at any size: {lost.sentence(RequestKind.MAP, pool=backend.pool_bytes)}"
    )


class _MemoryTest:
    """Whether so many bytes are enough; and, of a run in plenty, how much it took at its fullest."""

    def __init__(self, workload: Workload, design: Design, knobs: Knobs) -> None:
        self._workload, self._design, self._knobs = workload, design, knobs
        self._kinds = tuple(RequestKind) if design.has_hardware else (RequestKind.ALLOC,)
        self._fullest = 0
        self.draws = design.has_hardware and knobs.frames is FrameOrder.RANDOM

    def __call__(self, size: int) -> bool:
        backend = make_backend(self._design, plan_of_size(self._workload, size), self._workload, self._knobs)
        enough = nothing_is_lost(self._workload, self._design, backend, self._kinds)
        self._fullest = backend.fullest
        return enough

    def least(self) -> int:
        """What no run takes less than, told by the last one if that had more than enough; 0 if nothing tells.

        Behind an IOMMU any frame will do, and bus addresses don't depend on frames: less memory can only mean smaller
        pages, and so more tables; single frames at random are the smallest in any. With chunks in the domain's own
        space it might be otherwise.
        """
        if self._design.allocator:
            return 0
        return align_up(self._fullest, STEP)


def smallest(enough: Callable[[int], bool], low: int, ceiling: int, scan: int = _SCAN) -> int:
    """The smallest multiple of `STEP` from ``low`` on for which ``enough`` says yes, as it does for ``ceiling``.

    Exact for the first ``scan`` steps; beyond, a size that suffices where one step less does not.

    >>> smallest(lambda size: size >= 7 * STEP, STEP, 100 * STEP) == 7 * STEP
    True
    """
    for step in range(scan):
        size = low + step * STEP
        if size >= ceiling:
            return ceiling
        if enough(size):
            return size
    fails = low + (scan - 1) * STEP
    suffices = min(low + 2 * scan * STEP, ceiling)
    while not enough(suffices):
        fails, suffices = suffices, min(suffices * 2, ceiling)
    while suffices - fails > STEP:
        middle = fails + align_up((suffices - fails) // 2, STEP)
        fails, suffices = (fails, middle) if enough(middle) else (middle, suffices)
    return suffices
