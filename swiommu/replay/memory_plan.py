"""How much memory a design gets, and where it lies (rules 7 to 10).

``equal`` gives every design the same B bytes for data and page tables and nothing else. ``machine`` gives it what the
recorded machine had: the area, its start extents occupied, and the rest of RAM behind a page allocator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE, align_down, align_up, order_of
from swiommu.policy import Policy
from swiommu.requests import OpCode, RequestKind, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.requests import Request

__all__ = [
    "BLOCK_LIMIT",
    "MOST",
    "STEP",
    "MemoryMode",
    "MemoryPlan",
    "equal_plan",
    "machine_plan",
    "peak_live_bytes",
    "plan_of_size",
]

STEP = 2 << 20  # every B is a multiple of this
BLOCK_LIMIT = 4 << 20  # the largest block of Linux' page allocator (order 10)
MOST = 1 << 38  # live bytes beyond this are no machine's of today, and a table of their frames no laptop's
_TOP = 1 << 32  # a region ends at or below this, where every device's default mask reaches


class MemoryMode(Policy):
    """Which memory a design gets: the same as every other, or what the recorded machine had."""

    EQUAL = "equal"
    MACHINE = "machine"


@attrs.frozen
class MemoryPlan:
    """``bytes`` for data (and tables) from ``base`` on; ``start_extents`` (offset, count) pages are occupied there.

    ``fallback`` says whether a page allocator stands behind the region (mode ``machine``).
    """

    mode: MemoryMode
    bytes: int
    base: int
    source: str
    start_extents: tuple[tuple[int, int], ...]
    fallback: bool


def peak_live_bytes(workload: Workload) -> int:
    """The true peak: requested bytes of the ALLOCs that the recorded kernel had served and not yet freed.

    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> peak_live_bytes(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")))
    79740928
    """
    return max((live for live, _ in _live_bytes(workload)), default=0)


def _live_bytes(workload: Workload) -> Iterator[tuple[int, Request]]:
    """Requested bytes of live ALLOCs after each of their beginnings and ends, and whose it was."""
    live = 0
    for code, index, _ in workload.ops:
        if code > OpCode.END:
            continue
        request = workload.requests[index]
        if request.kind is RequestKind.ALLOC and not request.censored:
            live += request.size if code == OpCode.BEGIN else -request.size
            yield live, request


def _fallback_peak(workload: Workload) -> int:
    """Peak bytes, in power-of-two blocks, of the ALLOCs that the area refused and another allocator served."""
    live = peak = 0
    for code, index, _ in workload.ops:
        if code <= OpCode.END and workload.served[index].fell_back:
            block = workload.page_size << order_of(workload.requests[index].size, workload.page_size)
            live += block if code == OpCode.BEGIN else -block
            peak = max(peak, live)
    return peak


def equal_plan(workload: Workload) -> MemoryPlan:
    """B by rule 8: the area and what fell back out of it, else 1.25 times the true peak; at least 2 MiB.

    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> equal_plan(workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))).bytes >> 20
    84
    """
    for live, request in _live_bytes(workload):
        _require_no_more_than_most(live, workload, request.line)
    if workload.area is not None:
        _require_no_more_than_most(workload.area.bytes, workload, None)
    if workload.area is not None:
        fell_back = _fallback_peak(workload)
        size = workload.area.bytes + fell_back
        area = f"recorded area {workload.area.bytes >> 20} MiB"
        source = f"{area} + peak of what fell back out of it" if fell_back else f"{area}; nothing fell back out of it"
    else:
        size = peak_live_bytes(workload) * 5 // 4
        rule = "1.25 x the peak of live ALLOC bytes" if size else "the least, as no ALLOC was served"
        source = f"{rule} ({_why_no_area(workload)})"
    return plan_of_size(workload, max(align_up(size, STEP), STEP), source)


def _require_no_more_than_most(size: int, workload: Workload, line: int | None) -> None:
    if size > MOST:
        raise workload.error(f"{size} bytes of contiguous memory are more than can be replayed, {MOST}", line)


def plan_of_size(workload: Workload, size: int, source: str = "asked for") -> MemoryPlan:
    """Equal memory of ``size`` bytes (a multiple of 2 MiB).

    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> plan_of_size(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")), 100 << 20).mode
    <MemoryMode.EQUAL: 'equal'>
    """
    return MemoryPlan(MemoryMode.EQUAL, size, _place(workload, size), source, _extents(workload), fallback=False)


def machine_plan(workload: Workload) -> MemoryPlan:
    """What the machine had: the area as it lay, or none at all, and RAM behind it; `InputError` beyond 256 GiB of area.

    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> plan = machine_plan(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")))
    >>> plan.bytes >> 20, hex(plan.base), plan.start_extents
    (64, '0xb9a00000', ((0, 192),))
    """
    if workload.area is None:
        return MemoryPlan(MemoryMode.MACHINE, 0, 0, _why_no_area(workload), (), fallback=True)
    _require_no_more_than_most(workload.area.bytes, workload, None)
    base = workload.area.base_pfn * PAGE_SIZE
    return MemoryPlan(MemoryMode.MACHINE, workload.area.bytes, base, "recorded area", _extents(workload), fallback=True)


def _why_no_area(workload: Workload) -> str:
    return "area not known" if workload.has_area_events else "no contiguous area recorded"


def _extents(workload: Workload) -> tuple[tuple[int, int], ...]:
    return (workload.area.start_extents or ()) if workload.area else ()


def _place(workload: Workload, size: int) -> int:
    """Where B bytes lie: at the recorded area's base, moved down if the end would leave the 32-bit space.

    Only the base's alignment to the largest allocation alignment matters for what fits; it is kept.
    """
    if workload.area is not None:
        wanted = workload.area.base_pfn * PAGE_SIZE
        excess = max(wanted + size - _TOP, 0)
        return max(wanted - align_up(excess, STEP), wanted % STEP)
    top = min(workload.system_map.top_of_ram(), _TOP) if workload.system_map else _TOP
    return align_down(max(top - size, 0), STEP)
