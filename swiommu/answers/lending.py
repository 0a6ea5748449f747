"""What a design that lends assumed, and what it took to get pages back; both stand in its row and in the notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiommu.address import PAGE_SIZE
from swiommu.replay import Lends, pinned_share
from swiommu.replay.pins import MILLION, RECORDED
from swiommu.words import counted, mib

if TYPE_CHECKING:
    from swiommu.replay import Outcome
    from swiommu.requests import Workload

__all__ = ["lending_notes", "lending_of"]


def lending_of(workload: Workload, outcome: Outcome) -> dict[str, Any] | None:
    """Assumptions and counts of a run as JSON; None where the design says nothing of lending.

    ``lent`` and ``pinned`` are parts of 1; ``pinned_from`` is ``design``, ``recording`` or ``recorded ranges``. Moved
    and dropped bytes include those ``in_vain``, in ranges that were ``busy`` after all.
    """
    design, returns = outcome.design, outcome.counters.returns
    if not design.lends:
        return None
    source = "design"
    if design.pinned == RECORDED and design.lends is Lends.MOVABLE:
        source = "recorded ranges" if outcome.plan.fallback else "recording"
    return {
        "to": design.lends,
        "lent": design.lent / MILLION,
        "pinned": pinned_share(design, outcome.plan, workload),
        "pinned_from": source,
        "asked": returns.asked,
        "busy": returns.busy,
        "moved_bytes": returns.moved * PAGE_SIZE,
        "dropped_bytes": returns.dropped * PAGE_SIZE,
        "in_vain_bytes": returns.in_vain * PAGE_SIZE,
    }


def lending_notes(name: str, lending: dict[str, Any], seed: int) -> list[str]:
    """Two sentences for the reader: what was assumed of those who use lent pages, and what taking back took.

    >>> from swiommu.answers import compare
    >>> from swiommu.trace import read_trace
    >>> answer = compare(read_trace("arm64-6.12-cam-cma64M-s81"), ["gcma"], with_need=False)
    >>> for note in answer.notes: print(note)
    gcma: who uses lent pages is not in the trace; assumed: 100 % of the idle pages are lent, none of these ever pinned
    gcma: taking lent pages back dropped 1,619 MiB of clean copies
    """
    share = f"{lending['pinned'] * 100:.3g} % of these are" if lending["pinned"] else "none of these is"
    pinned = {
        "design": f"{share} pinned when a request comes",
        "recording": f"{share} pinned when a request comes (as the recording's busy ranges tell)",
        "recorded ranges": "those of these are pinned that the recording shows as busy",
    }[lending["pinned_from"]]
    took = f"moved {mib(lending['moved_bytes'])}"
    if lending["to"] == "droppable":
        pinned, took = "none of these ever pinned", f"dropped {mib(lending['dropped_bytes'])} of clean copies"
    drawn = f", seed {seed}" if lending["pinned"] or 0 < lending["lent"] < 1 else ""
    busy = f", {mib(lending['in_vain_bytes'])} in vain at {counted(lending['busy'], 'busy place')}"
    lent = f"{lending['lent'] * 100:.3g} % of the idle pages are lent"
    return [
        f"{name}: who uses lent pages is not in the trace; assumed: {lent}, {pinned}{drawn}",
        f"{name}: taking lent pages back {took}{busy if lending['busy'] else ''}",
    ]
