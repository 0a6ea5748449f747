"""The verdict in a few sentences (rule 23): what each way needs, what translation hardware buys and what it costs.

A difference of one request, or under 1 % of the offered bytes, is a tie; so is a need that differs by under 1 %.
Isolation is named, never ranked: whether it is needed is for the reader to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.replay import AS_RECORDED, RequestKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.answers.row import Row
    from swiommu.replay import MemoryPlan, Workload

__all__ = ["mib", "verdict_of"]


def mib(size: int) -> str:
    """Bytes in binary units, as few digits as tell sizes apart.

    >>> mib(158 << 20), mib(303104), mib(0), mib(1_500_000_000)
    ('158 MiB', '296 KiB', '0', '1,431 MiB')
    """
    if size == 0:
        return "0"
    if size < 1 << 20:
        return f"{-(-size // 1024)} KiB"
    whole = size / 2**20
    return f"{whole:,.0f} MiB" if whole >= 100 or whole == int(whole) else f"{whole:.1f} MiB"


def verdict_of(workload: Workload, plan: MemoryPlan, rows: Sequence[Row]) -> str:
    """The sentences for these rows; what was not run is not judged."""
    designs = [row for row in rows if row.name != AS_RECORDED]
    without = _best([row for row in designs if not row.has_hardware], workload)
    with_ = _best([row for row in designs if row.has_hardware], workload)
    sentences = [*_needs(without, with_), *_losses(without + with_, plan), *_hardware(without, with_)]
    if not sentences:
        sentences = [f"In {mib(plan.bytes)} ({plan.mode}) no request is lost by {_names(designs)}."] if designs else []
    if workload.count(RequestKind.USERMAP) and without:
        sentences.append("User-space mappings need translation: the other designs can't be compared on them.")
    if workload.censored:
        sentences.append(
            f"{_count(workload.censored, 'request')} failed when recorded, and what the driver would have done next is "
            "unknown: demand is understated."
        )
    return " ".join(sentences) or "Nothing was asked but what was recorded."


def _best(rows: Sequence[Row], workload: Workload) -> list[Row]:
    """The rows that no other one beats, ties included: fewest lost, then least memory."""
    return [row for row in rows if not any(_beats(other, row, workload) for other in rows)]


def _beats(row: Row, other: Row, workload: Workload) -> bool:
    offered = sum(request.size for request in workload.requests)
    tie = abs(row.lost - other.lost) <= 1 or abs(row.lost_bytes - other.lost_bytes) * 100 < offered
    if not tie:
        return row.lost < other.lost
    if row.bytes_needed is None or other.bytes_needed is None:
        return row.bytes_needed is not None and other.bytes_needed is None
    return (other.bytes_needed - row.bytes_needed) * 100 >= other.bytes_needed


def _needs(without: Sequence[Row], with_: Sequence[Row]) -> list[str]:
    """What it takes to lose nothing."""
    parts = [
        f"{mib(rows[0].bytes_needed)} {how} ({_names(rows)})"
        for rows, how in ((without, "without translation hardware"), (with_, "with it"))
        if rows and rows[0].bytes_needed is not None
    ]
    if not parts:
        return []
    if not (without and without[0].bytes_needed is not None):
        parts = [part.replace("with it", "with translation hardware") for part in parts]
    lossless = [row.peak_live_bytes for row in (*without, *with_) if not row.lost]
    peak = f"; live data peaks at {mib(max(lossless))}" if lossless else ""
    return [f"To lose nothing that the kernel served takes {' and '.join(parts)}{peak}."]


def _losses(best: Sequence[Row], plan: MemoryPlan) -> list[str]:
    """What is lost at the memory of the table, where something is."""
    return [
        f"In {mib(plan.bytes)} ({plan.mode}) {row.name} loses {_count(row.lost, 'request')}."
        for row in best
        if row.lost
    ]


def _hardware(without: Sequence[Row], with_: Sequence[Row]) -> list[str]:
    """What translation buys and what it costs."""
    if not without or not with_:
        return []
    row = with_[0]
    costs = [f"{_count(row.unmaps, 'unmap')} with {_count(row.invalidations or 0, 'invalidation')}"]
    if row.table_bytes:
        costs.append(f"{mib(row.table_bytes)} of page tables")
    if row.walk_refs_per_mib:
        costs.append(f"{row.walk_refs_per_mib:,.0f} page-table reads per MiB touched cold")
    return [f"Translation buys {_bought(without[0], row)} and isolation; it costs {', '.join(costs)}."]


def _bought(without: Row, with_: Row) -> str:
    """The memory that translation saves, if both needs are known."""
    if without.bytes_needed is None or with_.bytes_needed is None:
        return "reach" if with_.lost < without.lost else "no memory"
    saved = without.bytes_needed - with_.bytes_needed
    if abs(saved) * 100 < without.bytes_needed:
        return "no memory (a tie)"
    if saved < 0:
        return f"no memory ({mib(-saved)} more are needed)"
    return f"{mib(saved)} ({100 * saved / without.bytes_needed:.0f} %)"


def _names(rows: Sequence[Row]) -> str:
    """The rows' names; one that merely repeats another is left to the table."""
    return ", ".join(row.name for row in rows if row.same_as is None or len(rows) == 1)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
