"""The account of one run: what lived, what failed, and byte-time integrals for the means (rules 16 to 18)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from swiommu.replay.cause import Causes
from swiommu.requests import Request, RequestKind

if TYPE_CHECKING:
    from swiommu.replay.backends import Usage
    from swiommu.replay.cause import Cause

__all__ = ["Ledger", "Waste"]


@attrs.frozen
class Waste:
    """Mean bytes over trace time; ``total`` is the sum of the parts, exactly."""

    internal: int
    idle: int
    tables: int
    pool: int

    @property
    def total(self) -> int:
        """What was charged and served nobody."""
        return self.internal + self.idle + self.tables + self.pool


@attrs.define
class Ledger:
    """Counts and sums of one run; ``advance`` before every change, so that each state counts for as long as it held.

    ``failures`` and ``losses`` are `failed` and `lost` by cause.
    """

    now: int
    start: int
    failed: Counter[RequestKind] = attrs.field(factory=Counter)
    failed_bytes: int = 0
    failed_with_room: int = 0
    lost: Counter[RequestKind] = attrs.field(factory=Counter)
    lost_bytes: int = 0
    failures: Causes = attrs.field(factory=Causes)
    losses: Causes = attrs.field(factory=Causes)
    gained: Counter[RequestKind] = attrs.field(factory=Counter)
    gained_bytes: int = 0
    not_applicable: int = 0
    served_bytes: int = 0
    live_bytes: int = 0
    map_bytes: int = 0
    peak_live_bytes: int = 0
    peak_map_bytes: int = 0
    _sums: list[int] = attrs.field(factory=lambda: [0] * 6)
    _last: Usage | None = None

    def advance(self, time: int, usage: Usage) -> None:
        """The state ``usage`` held from the last moment until ``time`` (ns); time never runs backwards."""
        self._last = usage
        elapsed = time - self.now
        if elapsed > 0:
            self.now = time
            self._sums = [total + value * elapsed for total, value in zip(self._sums, usage, strict=True)]

    def serve(self, request: Request) -> None:
        """A request was served and lives."""
        self.served_bytes += request.size
        if request.kind is RequestKind.ALLOC:
            self.live_bytes += request.size
            self.peak_live_bytes = max(self.peak_live_bytes, self.live_bytes)
        elif request.kind is RequestKind.MAP:
            self.map_bytes += request.size
            self.peak_map_bytes = max(self.peak_map_bytes, self.map_bytes)

    def release(self, request: Request) -> None:
        """A served request ended."""
        if request.kind is RequestKind.ALLOC:
            self.live_bytes -= request.size
        elif request.kind is RequestKind.MAP:
            self.map_bytes -= request.size

    def refuse(self, request: Request, cause: Cause, *, with_room: bool) -> None:
        """The design could not serve it, for this cause: lost if the recorded kernel could."""
        self.failed[request.kind] += 1
        self.failed_bytes += request.size
        self.failed_with_room += with_room
        self.failures.add(request, cause)
        if not request.censored:
            self.losses.add(request, cause)
            self.lost[request.kind] += 1
            self.lost_bytes += request.size

    def gain(self, request: Request) -> None:
        """A censored request that this design could have served."""
        self.gained[request.kind] += 1
        self.gained_bytes += request.size

    def mean(self) -> tuple[Waste, int]:
        """(mean waste, mean lendable bytes) over the time seen; of the last state if no time passed."""
        span = self.now - self.start
        means = [total // span for total in self._sums] if span else list(self._last or (0,) * 6)
        internal, idle, tables, pool, _, lendable = means
        return Waste(internal, idle, tables, pool), lendable
