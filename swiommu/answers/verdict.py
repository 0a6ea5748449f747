"""The verdict in a sentence or three (rule 23): what each way needs, what hardware buys, what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from swiommu.answers.row import Row
from swiommu.replay import AS_RECORDED, MemoryPlan, Workload

__all__ = ["mib", "verdict_of"]


def mib(size: int) -> str:
    """Bytes in binary units, as few digits as tell sizes apart.

    >>> mib(158 << 20), mib(303104), mib(0), mib(1_500_000_000)
    ('158 MiB', '296 KiB', '0', '1431 MiB')
    """
    if size == 0:
        return "0"
    if size < 1 << 20:
        return f"{-(-size // 1024)} KiB"
    whole = size / 2**20
    return f"{whole:.0f} MiB" if whole >= 100 or whole == int(whole) else f"{whole:.1f} MiB"


def verdict_of(workload: Workload, plan: MemoryPlan, rows: Sequence[Row]) -> str:
    """The sentences for these rows; what was not run is not judged."""
    designs = [row for row in rows if row.name != AS_RECORDED]
    without = _best([row for row in designs if not row.has_hardware], workload)
    with_ = _best([row for row in designs if row.has_hardware], workload)
    sentences = [*_needs(workload, without, with_), *_hardware(workload, without, with_)]
    if not sentences:
        sentences = [_single(row, plan) for row in designs[:1]] or ["Nothing was asked but what was recorded."]
    if workload.censored:
        sentences.append(
            f"{_count(workload.censored, 'request')} failed when recorded and the driver's next step is unknown, so "
            "demand is understated."
        )
    return " ".join(sentences)


def _best(rows: Sequence[Row], workload: Workload) -> Row | None:
    """Fewest lost requests first, then least memory; a tie goes to the row named first."""
    best: Row | None = None
    for row in rows:
        if best is None or _beats(row, best, workload):
            best = row
    return best


def _beats(row: Row, other: Row, workload: Workload) -> bool:
    """A difference of one request, or under 1 % of the offered bytes, is a tie; so is one under 1 % of the need."""
    offered = sum(request.size for request in workload.requests)
    tie = abs(row.lost - other.lost) <= 1 or abs(row.lost_bytes - other.lost_bytes) * 100 < offered
    if not tie:
        return row.lost < other.lost
    if row.bytes_needed is None or other.bytes_needed is None:
        return row.bytes_needed is not None
    return (other.bytes_needed - row.bytes_needed) * 100 >= other.bytes_needed


def _needs(workload: Workload, without: Row | None, with_: Row | None) -> list[str]:
    """What it takes to lose nothing."""
    known = [(row, row.bytes_needed) for row in (without, with_) if row is not None and row.bytes_needed is not None]
    if not workload.has_allocs or not known:
        return []
    needs = " and ".join(
        f"{row.name} {mib(need)} {'with' if row.has_hardware else 'without'} translation hardware"
        for row, need in known
    )
    peak = known[0][0].peak_live_bytes if known[0][0].lost == 0 else None
    live = f" (live data peaked at {mib(peak)})" if peak else ""
    return [f"To lose nothing that the kernel served, {needs}{live}.".replace(", ", ", the least is: ", 1)]


def _hardware(workload: Workload, without: Row | None, with_: Row | None) -> list[str]:
    """What translation buys and what it costs."""
    if without is None or with_ is None:
        return []
    buys = ["isolation"]
    if without.bytes_needed is not None and with_.bytes_needed is not None:
        saved = without.bytes_needed - with_.bytes_needed
        if abs(saved) * 100 < without.bytes_needed:
            buys.insert(0, "no memory to speak of (a tie)")
        elif saved > 0:
            buys.insert(0, f"{mib(saved)} less memory ({saved * 100 // without.bytes_needed} %)")
        else:
            buys.insert(0, f"nothing in memory ({mib(-saved)} more)")
    costs = [f"{_count(with_.unmaps, 'unmap')} with {_count(with_.invalidations or 0, 'invalidation')}"]
    if with_.table_bytes:
        costs.append(f"{mib(with_.table_bytes)} of page tables")
    if with_.walk_refs_per_mib:
        costs.append(f"up to {with_.walk_refs_per_mib:g} walk references per MiB")
    if with_.lost > without.lost:
        costs.append(f"{_count(with_.lost - without.lost, 'lost request')}")
    del workload
    return [f"The hardware buys {' and '.join(buys)}; it costs {', '.join(costs)}."]


def _single(row: Row, plan: MemoryPlan) -> str:
    return f"In {mib(plan.bytes)} ({plan.mode}) {row.name} loses {_count(row.lost, 'request')} of {row.requests}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
