"""The best designs of a comparison, without translation hardware and with it.

A difference of one request, or under 1 % of the offered bytes, is a tie; so is a need that differs by under 1 %. Where
a design bounces, its pool is part of what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.replay import AS_RECORDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.answers.row import Row
    from swiommu.requests import Workload

__all__ = ["best_designs", "fewest_lost", "is_tie", "sides", "total_need"]


def best_designs(
    workload: Workload, rows: Sequence[Row], *, require_isolation: bool = False
) -> tuple[list[Row], list[Row]]:
    """The best designs without translation hardware and those with it, ties included, the best of each first.

    They lose as little as the one that loses least, and of these need as little as the one that needs least. The
    recording's own row is no design; ``require_isolation`` leaves out designs that can't enforce it.
    """
    designs = [row for row in rows if row.enforces == "yes" or not require_isolation]
    without, with_ = sides(designs)
    return _best(without, workload), _best(with_, workload)


def sides(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The designs without translation hardware, and those with it."""
    without, with_ = (
        [row for row in rows if row.name != AS_RECORDED and row.has_hardware is side] for side in (False, True)
    )
    return without, with_


def fewest_lost(rows: Sequence[Row], workload: Workload) -> list[Row]:
    """Those that lose as little as the one that loses least."""
    if not rows:
        return []
    least = min(rows, key=_losses)
    return [row for row in rows if is_tie(row, least, workload)]


def is_tie(row: Row, other: Row, workload: Workload) -> bool:
    """Whether the losses are as good as equal: within one request, or 1 % of the offered bytes."""
    offered = sum(request.size for request in workload.requests)
    return abs(row.lost - other.lost) <= 1 or abs(row.lost_bytes - other.lost_bytes) * 100 < offered


def total_need(row: Row) -> int | None:
    """Bytes that the design needs, its bounce pool included; None where the need is not known."""
    return None if row.bytes_needed is None else row.bytes_needed + row.pool_bytes


def _best(rows: Sequence[Row], workload: Workload) -> list[Row]:
    """Who ties with the fewest losses, and then with the least need; a tie is no order, so who is beaten is not asked.

    Where any need is known, a design without one is not among the best.
    """
    fewest = fewest_lost(rows, workload)
    known = [(needed, row) for row in fewest if (needed := total_need(row)) is not None]
    if not known:
        return sorted(fewest, key=_losses)
    enough = min(needed for needed, _ in known)
    best = [(needed, row) for needed, row in known if (needed - enough) * 100 < needed]
    return [row for _, row in sorted(best, key=lambda each: (each[0], _losses(each[1])))]


def _losses(row: Row) -> tuple[int, int]:
    return row.lost, row.lost_bytes
