"""What the recorded kernel itself did, from the trace and no model: the first row of a comparison (rule 22)."""

from __future__ import annotations

from collections import Counter

import attrs

from swiommu.address import PAGE_SIZE, align_up, order_of
from swiommu.replay.ledger import Waste
from swiommu.requests import OpCode, Request, RequestKind, Served, Workload
from swiommu.words import counted

__all__ = ["Recorded", "recorded"]


@attrs.define
class Recorded:
    """Sums over the trace; None where the trace doesn't tell, with the reason in ``why``."""

    failed: Counter[RequestKind]
    failed_bytes: int
    peak_live_bytes: int
    peak_map_bytes: int
    reserved_bytes: int
    maps: int
    unmaps: int
    invalidations: int | None
    bytes_copied: int
    lendable_bytes: int | None
    waste: Waste | None
    enforces: str
    why: dict[str, str]


def recorded(workload: Workload) -> Recorded:
    """The account of what was served, and how, in the recording."""
    translated = any(request.translated for request in workload.requests)
    failed = [request for request in workload.requests if request.censored]
    why: dict[str, str] = {}
    tour = _Life(workload)
    pool = workload.bounce_pool or 0
    tour.run()
    row = Recorded(
        failed=Counter(request.kind for request in failed),
        failed_bytes=sum(request.size for request in failed),
        peak_live_bytes=tour.peak_live,
        peak_map_bytes=tour.peak_maps,
        reserved_bytes=(workload.area.bytes if workload.area else 0) + (pool if tour.copied else 0),
        maps=sum(served.maps for served in workload.served),
        unmaps=sum(served.unmaps for served in workload.served),
        invalidations=workload.invalidations if translated else 0,
        bytes_copied=tour.copied,
        lendable_bytes=tour.mean_idle(why),
        waste=None,
        enforces=_enforces(workload),
        why=why,
    )
    if translated and workload.invalidations is None:
        why["invalidations"] = "this kernel's IOMMU driver prints no invalidations"
    if translated:
        why["waste"] = "page tables are not in the trace"
    elif tour.copied:
        why["waste"] = "how much of the bounce pool was free is not in the trace"
    elif row.lendable_bytes is None:
        why["waste"] = why["lendable_bytes"]
    else:
        row.waste = Waste(internal=tour.mean_internal(), idle=row.lendable_bytes, tables=0, pool=0)
    return row


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
        extents = workload.area.start_extents if workload.area else ()
        self.extents_known = extents is not None
        total = workload.area.total_pages if workload.area else 0
        self.idle = (total - sum(count for _, count in extents or ())) * PAGE_SIZE
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
                size = self.workload.occupancies[index].count * PAGE_SIZE
                self.idle += size if code == OpCode.VACATE else -size

    def _step(self, request: Request, served: Served, sign: int) -> None:
        if request.kind is RequestKind.ALLOC:
            self.live += sign * request.size
            self.peak_live = max(self.peak_live, self.live)
            charged = _charged(request, served)
            self.internal += sign * (charged - request.size)
            if served.pfn is not None:
                self.idle -= sign * charged
            return
        if request.kind is not RequestKind.MAP:
            return
        self.maps += sign * request.size
        self.peak_maps = max(self.peak_maps, self.maps)
        if served.bounced and sign > 0:
            self.copied += served.bounced + served.synced
        elif served.bounced and request.direction in {"FROM_DEVICE", "BIDIRECTIONAL"}:
            self.copied += served.bounced

    def mean_idle(self, why: dict[str, str]) -> int | None:
        """Time mean of the area's idle bytes, which mainline lends to movable pages."""
        if not self.extents_known:
            why["lendable_bytes"] = "the pages of the area in use when the trace began are not known"
            return None
        if released := self.workload.unused.unmatched_releases:
            why["lendable_bytes"] = (
                f"{counted(released, 'release')} in the area without a begin: not all pages in use when the trace "
                "began are known"
            )
            return None
        return self._mean(self._idle_time, self.idle)

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
