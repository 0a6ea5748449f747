"""What the recorded kernel itself did, from the trace and no model: the first row of a comparison (rule 22)."""

from __future__ import annotations

from collections import Counter

import attrs

from swiommu.address import PAGE_SIZE, align_up, order_of
from swiommu.replay.ledger import Waste
from swiommu.requests import OpCode, Request, RequestKind, Served, Workload
from swiommu.words import counted, mib

__all__ = ["AREA_UNKNOWN", "Recorded", "recorded"]

AREA_UNKNOWN = (
    "the area is not known: the file NAME.json beside the trace has no cma_area.base_pfn and cma_area.total_pages"
)


@attrs.define
class Recorded:
    """Sums over the trace; None where the trace doesn't tell, with the reason in ``why``."""

    failed: Counter[RequestKind]
    failed_bytes: int
    peak_live_bytes: int
    peak_map_bytes: int
    reserved_bytes: int | None
    maps: int | None
    unmaps: int | None
    invalidations: int | None
    bytes_copied: int | None
    lendable_bytes: int | None
    waste: Waste | None
    enforces: str
    why: dict[str, str]


def recorded(workload: Workload) -> Recorded:
    """The account of what was served, and how, in the recording."""
    translated = any(request.translated for request in workload.requests)
    failed = [request for request in workload.requests if request.censored]
    tour = _Life(workload)
    tour.run()
    row = Recorded(
        failed=Counter(request.kind for request in failed),
        failed_bytes=sum(request.size for request in failed),
        peak_live_bytes=tour.peak_live,
        peak_map_bytes=tour.peak_maps,
        reserved_bytes=(workload.area.bytes if workload.area else 0) + (workload.bounce_pool or 0) * bool(tour.copied),
        maps=sum(served.maps for served in workload.served),
        unmaps=sum(served.unmaps for served in workload.served),
        invalidations=workload.invalidations if translated else 0,
        bytes_copied=tour.copied,
        lendable_bytes=tour.mean_idle(),
        waste=None,
        enforces=_enforces(workload),
        why={},
    )
    if row.invalidations is None:
        row.why["invalidations"] = "this kernel's IOMMU driver prints no invalidations"
    if row.lendable_bytes is None:
        row.why["lendable_bytes"] = tour.why_not_idle()
    if workload.area is None and workload.has_area_events:
        row.reserved_bytes = None
        row.why["reserved_bytes"] = AREA_UNKNOWN
    if translated:
        row.why["waste"] = "page tables are not in the trace"
    elif tour.copied:
        row.why["waste"] = "how much of the bounce pool was free is not in the trace"
    elif row.lendable_bytes is None:
        row.why["waste"] = row.why["lendable_bytes"]
    else:
        row.waste = Waste(internal=tour.mean_internal(), idle=row.lendable_bytes, tables=0, pool=0)
    _leave_out_moved(row, sum(served.moved for served in workload.served))
    return row


def _leave_out_moved(row: Recorded, moved: int) -> None:
    """What depends on why devices got other addresses than the physical ones is not known where nothing says why."""
    if not moved:
        return
    why = (
        f"{counted(moved, 'MAP')} with a device address that is not the physical one: translated, bounced or at an "
        "offset, which neither the trace nor the file beside it says (iommu.mode)"
    )
    row.maps = row.unmaps = row.invalidations = row.bytes_copied = row.waste = None
    row.enforces = "unknown"
    row.why |= dict.fromkeys(("maps", "unmaps", "invalidations", "bytes_copied", "waste"), why)


def _enforces(workload: Workload) -> str:
    devices = {(request.device, request.translated) for request in workload.requests if not request.is_iommu}
    translated = {flag for _, flag in devices}
    return {frozenset({True}): "yes", frozenset({False}): "no"}.get(
        frozenset(translated), "partly" if devices else "unknown"
    )


class _Life:
    """One walk over the operations, as the kernel lived them."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        extents = (workload.area.start_extents if workload.area else ()) or ()
        total = workload.area.total_pages if workload.area else 0
        self.idle = self.least_idle = self.most_idle = (total - sum(count for _, count in extents)) * PAGE_SIZE
        self.live = self.maps = self.peak_live = self.peak_maps = 0
        self.internal = self.copied = 0
        self._idle_time = self._internal_time = 0

    def run(self) -> None:
        now = self.workload.start_time
        for code, index, time in [*self.workload.ops, (OpCode.NOTHING, -1, self.workload.stop_time)]:
            if time > now:
                self._idle_time += self.idle * (time - now)
                self._internal_time += self.internal * (time - now)
                now = time
            if code in {OpCode.BEGIN, OpCode.END}:
                request = self.workload.requests[index]
                if not request.censored:
                    self._step(request, self.workload.served[index], 1 if code == OpCode.BEGIN else -1)
            elif code in {OpCode.OCCUPY, OpCode.VACATE}:
                occupancy = self.workload.occupancies[index]
                self._take(occupancy.pfn, occupancy.count * PAGE_SIZE, -1 if code == OpCode.VACATE else 1)

    def _step(self, request: Request, served: Served, sign: int) -> None:
        if request.kind is RequestKind.ALLOC:
            self.live += sign * request.size
            self.peak_live = max(self.peak_live, self.live)
            charged = _charged(request, served)
            self.internal += sign * (charged - request.size)
            if served.pfn is not None:
                self._take(served.pfn, charged, sign)
            return
        if request.kind is not RequestKind.MAP:
            return
        self.maps += sign * request.size
        self.peak_maps = max(self.peak_maps, self.maps)
        if served.bounced and sign > 0:
            self.copied += served.bounced + served.synced
        elif served.bounced and request.direction in {"FROM_DEVICE", "BIDIRECTIONAL"}:
            self.copied += served.bounced

    def _take(self, pfn: int, size: int, sign: int) -> None:
        """Pages of the area go (1) or come back (-1); those of another area are not its."""
        if self.workload.area is not None and pfn in self.workload.area:
            self.idle -= sign * size
            self.least_idle, self.most_idle = min(self.least_idle, self.idle), max(self.most_idle, self.idle)

    def mean_idle(self) -> int | None:
        """Time mean of the area's idle bytes, which mainline lends to movable pages; see `why_not_idle` for None."""
        return None if self.why_not_idle() else self._mean(self._idle_time, self.idle)

    def why_not_idle(self) -> str:
        """Why the idle bytes of the area are not known; nothing if they are."""
        area, unused = self.workload.area, self.workload.unused
        if area is None:
            return AREA_UNKNOWN if self.workload.has_area_events else ""
        if area.start_extents is None:
            return "the pages of the area in use when the trace began are not known"
        if released := unused.unmatched_releases:
            return (
                f"{counted(released, 'release')} in the area without a begin: not all pages in use when the trace "
                "began are known"
            )
        if self.least_idle < 0 or self.most_idle > area.bytes:
            return (
                f"what was allocated and released does not fit the area of {mib(area.bytes)} and what was in use in "
                "it when the trace began, as the file beside the trace has them"
            )
        return ""

    def mean_internal(self) -> int:
        """Time mean of rounding: to pages in the area, to powers of two in the page allocator."""
        return self._mean(self._internal_time, self.internal)

    def _mean(self, sum_: int, last: int) -> int:
        span = self.workload.stop_time - self.workload.start_time
        return sum_ // span if span else last


def _charged(request: Request, served: Served) -> int:
    """Bytes that serve an ALLOC: pages from the area or behind an IOMMU, else a block of the page allocator."""
    if served.pfn is not None or request.translated:
        return align_up(request.size, PAGE_SIZE)
    return PAGE_SIZE << order_of(request.size)
