"""``swiommu compare``: one recording under several designs, side by side, with a verdict.

`compare` answers a `Comparison`; its rows and its verdict follow the page "What compare means" rule by rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swiommu.answers.best import best_designs
from swiommu.answers.lending import lending_notes
from swiommu.answers.row import Row, recorded_row, row_of
from swiommu.answers.unusable import no_request
from swiommu.answers.verdict import verdict_of
from swiommu.errors import InputError
from swiommu.iommu import FlushQueue
from swiommu.replay import (
    AS_RECORDED,
    DEFAULT_DESIGNS,
    Design,
    Knobs,
    MemoryMode,
    MemoryPlan,
    Need,
    Outcome,
    bytes_needed,
    equal_plan,
    find_design,
    machine_plan,
    plan_of_size,
    replay,
)
from swiommu.requests import GENERATED, RequestKind, Workload, workload_of
from swiommu.trace import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.answers.cost import CostVector
    from swiommu.trace import Trace

__all__ = ["Comparison", "compare"]


@attrs.define
class Comparison:
    """The answer: a row for the recording itself unless it was left out, then a row a design, in the order asked.

    ``outcomes`` has the runs behind the rows, by name, with the places of their buffers, if they were to be kept.

    >>> from swiommu.trace import read_trace
    >>> answer = compare(read_trace("arm64-6.12-cam-cma64M-s81"), ["cma-bitmap"], with_need=False)
    >>> str(answer.plan.mode), answer.notes, answer.to_json()["schema"]
    ('equal', [], 'swiommu.compare/1')
    """

    workload: Workload
    account: Account
    plan: MemoryPlan
    rows: Sequence[Row]
    verdict: str
    path: str
    with_need: bool = True
    knobs: Knobs = attrs.field(factory=Knobs)
    require_isolation: bool = False
    outcomes: dict[str, Outcome] = attrs.field(factory=dict)

    @property
    def best(self) -> list[Row]:
        """Who stands for the designs without translation hardware and for those with it, where there are any.

        They are the first of those that the verdict calls the best.
        """
        sides = best_designs(self.workload, self.rows, require_isolation=self.require_isolation)
        return [side[0] for side in sides if side]

    @property
    def notes(self) -> list[str]:
        """What was assumed because the recording doesn't tell: sentences for the reader."""
        workload, notes = self.workload, list(self.workload.notes)
        if workload.mode == GENERATED:
            notes.append("a generated workload: nothing was recorded, so every request counts as served")
        if not workload.has_dma_events and len(workload.requests) > workload.count(RequestKind.USERMAP):
            notes.append("the trace has no dma events: each cma_alloc is taken for an ALLOC and each map for a MAP")
        if workload.area is not None and workload.area.start_extents is None:
            notes.append("the pages of the area in use when the trace began are not known: none are occupied")
        if any(row.exposure_us for row in self.rows):
            notes.append(_ticks(self.knobs.hz))
        lending = [(row.name, row.lending) for row in self.rows if row.lending is not None]
        return notes + [note for name, facts in lending for note in lending_notes(name, facts, self.knobs.seed)]

    def to_json(self) -> dict[str, Any]:
        """The document ``swiommu.compare/1``; byte counts are integers, addresses hex strings."""
        workload, plan = self.workload, self.plan
        area = workload.area
        extents = area.start_extents if area else None
        return {
            "schema": "swiommu.compare/1",
            "trace": {
                "name": workload.name,
                "path": self.path,
                "profile": workload.profile.name,
                "mode": workload.mode,
                "requests": len(workload.requests),
                "censored": workload.censored,
                "ignored": self.account.ignored_total,
                "unmatched": workload.unused.unmatched,
                "unattributed_maps": workload.unused.unattributed_maps,
                "ambiguous": workload.unused.ambiguous,
                "refused_usermaps": workload.unused.refused_usermaps,
                "msi_maps": workload.unused.msi_maps,
                "identity_maps": workload.unused.identity_maps,
                "freed_nothing": workload.unused.freed_nothing,
                "lost_events": self.account.lost_total,
                "has_dma_events": workload.has_dma_events,
                "duration_us": (workload.stop_time - workload.start_time) // 1000,
                "account": self.account.as_dict(),
                "notes": self.notes,
            },
            "memory": {
                "mode": plan.mode,
                "bytes": plan.bytes,
                "base": f"{plan.base:#x}",
                "source": plan.source,
                "start_extents": None if extents is None else [list(extent) for extent in extents],
            },
            "designs": [row.to_json() for row in self.rows],
            "verdict": self.verdict,
        }


def compare(
    source: Trace | Workload,
    designs: Sequence[str | Design] = (AS_RECORDED, *DEFAULT_DESIGNS),
    *,
    memory: MemoryMode | str = MemoryMode.EQUAL,
    knobs: Knobs | None = None,
    with_need: bool = True,
    cost: CostVector | None = None,
    require_isolation: bool = False,
    keep_outcomes: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """What each design would have done with the requests of ``source``; ``progress`` is told each step in a word.

    ``source`` is a trace or a generated workload; of the latter there is no recording, so ``as-recorded`` is left out.
    ``memory`` is rule 8 (``equal``) or rule 9 (``machine``); ``require_isolation`` keeps designs that can't enforce it
    out of the verdict; ``keep_outcomes`` keeps the runs, with the places of all buffers. `InputError` for an unknown
    design, and for a source without requests.

    >>> from swiommu.trace import read_trace
    >>> answer = compare(read_trace("arm64-6.12-cam-cma64M-s81"), ["cma-bitmap"], memory="machine", with_need=False)
    >>> answer.rows[0].failed, answer.rows[0].lost
    (27, 0)
    """
    tell, knobs = progress or (lambda _: None), knobs or Knobs()
    wanted = [_design(design) for design in dict.fromkeys(designs)]
    tell("requests")
    workload = source if isinstance(source, Workload) else workload_of(source)
    if not workload.requests:
        raise _nothing_to_replay(source)
    plan = equal_plan(workload) if MemoryMode(memory) is MemoryMode.EQUAL else machine_plan(workload)
    rows: list[Row] = []
    outcomes: dict[str, Outcome] = {}
    for design in wanted:
        if design is None:
            if workload.mode != GENERATED:
                rows.append(_priced(recorded_row(workload), cost))
            continue
        tell(design.name)
        outcome = replay(workload, design, plan, knobs, keep_places=keep_outcomes)
        if keep_outcomes:
            outcomes[design.name] = outcome
        need = bytes_needed(workload, design, knobs) if with_need else None
        row = _priced(row_of(workload, outcome, _with_failures(need, workload, outcome, knobs)), cost)
        row.same_as = next((other.name for other in rows if _same(other, row)), None)
        rows.append(row)
    return Comparison(
        workload=workload,
        account=Account() if isinstance(source, Workload) else source.account,
        plan=plan,
        rows=rows,
        verdict=verdict_of(workload, plan, rows, cost=cost, require_isolation=require_isolation),
        path=workload.path or workload.name,
        with_need=with_need,
        knobs=knobs,
        require_isolation=require_isolation,
        outcomes=outcomes,
    )


def _nothing_to_replay(source: Trace | Workload) -> InputError:
    if isinstance(source, Workload):
        return InputError("holds no request", path=source.name)
    return InputError(no_request(source), path=source.path)


def _ticks(hz: int) -> str:
    """When a lazy timer fires, which no trace tells (`swiommu.iommu.FlushQueue`)."""
    tick = 1000 / hz
    least = -(-FlushQueue.TIMEOUT_NS * hz // 1_000_000_000) * tick
    fires = f"a lazy timer is taken to fire {least:.4g} to {least + tick:.4g} ms after the unmap that starts it"
    exposed = "exposed is the longest time in this replay from an unmap to its flush, in the trace's time"
    return f"{fires}, with {hz} ticks a second (--hz); {exposed}"


def _design(design: str | Design) -> Design | None:
    if isinstance(design, Design):
        return design
    return None if design == AS_RECORDED else find_design(design)


def _with_failures(need: Need | None, workload: Workload, outcome: Outcome, knobs: Knobs) -> Need | None:
    """The need, and how many of all requests fail in that memory: of those that failed when recorded, that is."""
    if need is None or need.bytes is None:
        return need
    if not workload.censored:
        return attrs.evolve(need, failed=0)
    plan = plan_of_size(workload, need.bytes)
    if (plan.mode, plan.bytes) != (outcome.plan.mode, outcome.plan.bytes):
        try:
            outcome = replay(workload, outcome.design, plan, knobs)
        except InputError as error:  # where memory is scarce, trying takes longer
            return attrs.evolve(need, why=error.reason)
    return attrs.evolve(need, failed=outcome.ledger.failed.total())


def _priced(row: Row, cost: CostVector | None) -> Row:
    """The row with its cost, or with the reason why it has none."""
    if cost is None:
        return row
    counts = row.priced()
    if counts is None:
        row.why["cost"] = "not all that has a price is counted in a trace"
    elif not cost.prices_any(counts):
        row.why["cost"] = f"nothing of what it does has a price: there are prices of {', '.join(cost.prices)} only"
    else:
        row.cost = cost.answer(counts)
        del row.why["cost"]
    return row


def _same(one: Row, other: Row) -> bool:
    return one.name != AS_RECORDED and one.shared() == other.shared()
