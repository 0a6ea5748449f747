"""One line of a comparison: every measure of one design, null where there is none, with the reason beside it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from swiommu.answers.lending import lending_of
from swiommu.replay import AS_RECORDED, Outcome
from swiommu.replay.as_recorded import recorded
from swiommu.replay.cause import Causes
from swiommu.requests import RequestKind, Workload

if TYPE_CHECKING:
    from swiommu.replay.ledger import Waste
    from swiommu.replay.need import Need

__all__ = ["Row", "recorded_row", "row_of"]

_NO_COST = "no cost vector was given: a cost needs a price per reference, invalidation and copied byte"
_UNBOUNDED = "without translation a freed buffer stays within reach of the device: unbounded"
_FROM_TRACE = "this row comes from the trace, not from a model"


@attrs.define(kw_only=True)
class Row:
    """Measures of one design; bytes, counts and nanoseconds as the names say. ``why`` explains every None.

    The fields are those of the JSON schema ``swiommu.compare/1``; their meaning is fixed in "What compare means".
    ``lending`` is there only where a design lends; ``pool_bytes`` and those below are for sentences.

    >>> from swiommu.answers import compare
    >>> from swiommu.trace import read_trace
    >>> row = compare(read_trace("arm64-6.12-cam-cma64M-s81"), ["cma-bitmap"], with_need=False).rows[0]
    >>> row.lost, row.gained, row.waste.total == row.to_json()["waste_bytes"]
    (0, 25, True)
    """

    name: str
    summary: str
    has_hardware: bool
    same_as: str | None = None
    requests: int
    failed: int
    failed_by_kind: dict[str, int]
    failed_bytes: int
    failed_with_room: int | None
    lost: int
    lost_by_kind: dict[str, int]
    lost_bytes: int
    gained: int
    gained_by_kind: dict[str, int]
    gained_bytes: int
    not_applicable: int
    bytes_needed: int | None
    failed_at_need: int | None = None
    peak_live_bytes: int
    peak_map_bytes: int
    reserved_bytes: int | None
    lendable_bytes: int | None
    waste: Waste | None
    table_bytes: int | None
    maps: int | None
    maps_by_kind: dict[str, int] | None
    unmaps: int | None
    invalidations: int | None
    bytes_copied: int | None
    walk_refs_per_mib: float | None
    exposure_us: int | None
    exposure_ops: int | None
    exposure_bytes: int | None
    enforces: str
    walk_refs: int | None = None
    cost: dict[str, Any] | None = None
    lending: dict[str, Any] | None = None
    pool_bytes: int = 0
    pool_peak: int = 0
    losses: Causes = attrs.field(factory=Causes)
    failures: Causes = attrs.field(factory=Causes)
    why: dict[str, str] = attrs.field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The row as the schema has it; ``waste`` splits ``waste_bytes`` exactly."""
        values = attrs.asdict(self, recurse=False)
        waste: Waste | None = values.pop("waste")
        values["waste_bytes"] = None if waste is None else waste.total
        values["waste"] = None if waste is None else attrs.asdict(waste)
        for field in ("pool_bytes", "pool_peak", "losses", "failures"):
            del values[field]
        if self.lending is None:  # what only some designs do is no measure that others lack
            del values["lending"]
        return values

    def priced(self) -> dict[str, float] | None:
        """How often everything that can have a price happened; None for a row from the trace."""
        if self.walk_refs is None or self.invalidations is None or self.bytes_copied is None:
            return None
        if self.maps is None or self.unmaps is None:
            return None
        return {
            "walk_ref": self.walk_refs,
            "map": self.maps,
            "unmap": self.unmaps,
            "invalidation": self.invalidations,
            "copied_kib": self.bytes_copied / 1024,
        }

    def shared(self) -> dict[str, Any]:
        """What two rows must agree in to be one: all but the names and the words."""
        values = self.to_json()
        for field in ("name", "summary", "same_as"):
            del values[field]
        return values


def _by_kind(counter: Counter[RequestKind]) -> dict[str, int]:
    return {kind.value: counter[kind] for kind in RequestKind}


def recorded_row(workload: Workload) -> Row:
    """The first row: what the recorded kernel did."""
    facts = recorded(workload)
    why = dict.fromkeys(
        (
            "failed_with_room",
            "table_bytes",
            "walk_refs",
            "walk_refs_per_mib",
            "exposure_us",
            "exposure_ops",
            "exposure_bytes",
        ),
        _FROM_TRACE,
    )
    what_it_had = "what it had is what it had: it lost nothing that it served"
    why |= facts.why | {"bytes_needed": what_it_had, "failed_at_need": what_it_had, "cost": _NO_COST}
    if facts.waste is None:
        why["waste_bytes"] = why["waste"]
    if facts.maps is None:
        why["maps_by_kind"] = why["maps"]
    return Row(
        name=AS_RECORDED,
        summary=f"what the recorded kernel did (mode {workload.mode})",
        has_hardware=any(request.translated for request in workload.requests),
        requests=len(workload.requests),
        failed=facts.failed.total(),
        failed_by_kind=_by_kind(facts.failed),
        failed_bytes=facts.failed_bytes,
        failed_with_room=None,
        lost=0,
        lost_by_kind=_by_kind(Counter()),
        lost_bytes=0,
        gained=0,
        gained_by_kind=_by_kind(Counter()),
        gained_bytes=0,
        not_applicable=0,
        bytes_needed=None,
        peak_live_bytes=facts.peak_live_bytes,
        peak_map_bytes=facts.peak_map_bytes,
        reserved_bytes=facts.reserved_bytes,
        lendable_bytes=facts.lendable_bytes,
        waste=facts.waste,
        table_bytes=None,
        maps=facts.maps,
        maps_by_kind=None if facts.maps is None else _maps_by_kind(workload, [each.maps for each in workload.served]),
        unmaps=facts.unmaps,
        invalidations=facts.invalidations,
        bytes_copied=facts.bytes_copied,
        walk_refs=None,
        walk_refs_per_mib=None,
        exposure_us=None,
        exposure_ops=None,
        exposure_bytes=None,
        enforces=facts.enforces,
        why=why,
    )


def row_of(workload: Workload, outcome: Outcome, need: Need | None) -> Row:
    """The row of one design's run; ``need`` is None when it was not asked for."""
    ledger, counters, design = outcome.ledger, outcome.counters, outcome.design
    waste, lendable = ledger.mean()
    why = {"cost": _NO_COST}
    reason = "not asked for" if need is None else need.why
    if need is None or need.bytes is None:
        why["bytes_needed"] = reason
    if need is None or need.failed is None:
        why["failed_at_need"] = reason
    exposure = outcome.exposure
    exposure_bytes = _reachable(workload, why) if exposure is None else exposure.bytes
    if exposure is None:
        why |= {"exposure_us": _UNBOUNDED, "exposure_ops": _UNBOUNDED}
    return Row(
        name=design.name,
        summary=design.summary,
        has_hardware=design.has_hardware,
        requests=len(workload.requests),
        failed=ledger.failed.total(),
        failed_by_kind=_by_kind(ledger.failed),
        failed_bytes=ledger.failed_bytes,
        failed_with_room=ledger.failed_with_room,
        lost=ledger.lost.total(),
        lost_by_kind=_by_kind(ledger.lost),
        lost_bytes=ledger.lost_bytes,
        gained=ledger.gained.total(),
        gained_by_kind=_by_kind(ledger.gained),
        gained_bytes=ledger.gained_bytes,
        not_applicable=ledger.not_applicable,
        bytes_needed=need.bytes if need else None,
        failed_at_need=need.failed if need else None,
        peak_live_bytes=ledger.peak_live_bytes,
        peak_map_bytes=ledger.peak_map_bytes,
        reserved_bytes=outcome.reserved_bytes,
        lendable_bytes=lendable,
        waste=waste,
        table_bytes=counters.table_peak,
        maps=counters.maps,
        maps_by_kind=_maps_by_kind(workload, outcome.maps),
        unmaps=counters.unmaps,
        invalidations=counters.invalidations,
        bytes_copied=counters.bytes_copied,
        walk_refs=counters.walk_refs,
        walk_refs_per_mib=_refs_per_mib(counters.walk_refs, ledger.served_bytes),
        exposure_us=None if exposure is None else exposure.ns // 1000,
        exposure_ops=None if exposure is None else exposure.ops,
        exposure_bytes=exposure_bytes,
        enforces="yes" if design.has_hardware else "no",
        lending=lending_of(workload, outcome),
        pool_bytes=outcome.pool_bytes,
        pool_peak=outcome.pool_peak,
        losses=ledger.losses,
        failures=ledger.failures,
        why=why,
    )


def _maps_by_kind(workload: Workload, maps: Any) -> dict[str, int]:
    counter: Counter[RequestKind] = Counter()
    for request, count in zip(workload.requests, maps, strict=True):
        counter[request.kind] += count
    return _by_kind(counter)


def _refs_per_mib(refs: int, served_bytes: int) -> float:
    return round(refs / (served_bytes / 2**20), 2) if served_bytes else 0.0


def _reachable(workload: Workload, why: dict[str, str]) -> int | None:
    """All RAM under the widest mask: what a device reaches where nothing stops it (rule 21)."""
    if workload.system_map is None:
        why["exposure_bytes"] = "the sidecar does not tell where RAM lies"
        return None
    mask = max((request.mask for request in workload.requests), default=0)
    return sum(max(0, min(ram.stop, mask + 1) - ram.start.value) for ram in workload.system_map.ram())
