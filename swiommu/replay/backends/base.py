"""The protocol between the replay loop and a design's machinery, and the numbers that pass between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from swiommu.region import Returns

if TYPE_CHECKING:
    from swiommu.replay.cause import Cause
    from swiommu.requests import Occupancy, Request

__all__ = ["Backend", "Counters", "Exposure", "Extent", "Usage"]

Extent = tuple[int, int]
"""(start, size) in bytes."""


class Usage(NamedTuple):
    """Bytes at one moment (rule 18): ``internal`` rounding, ``idle`` reserved bytes, page ``tables``, bounce ``pool``.

    ``reserved`` is what the design withholds from the rest of the system, ``lendable`` the part that mainline lends.
    """

    internal: int
    idle: int
    tables: int
    pool: int
    reserved: int
    lendable: int


@attrs.frozen
class Exposure:
    """The worst of a run, between an unmap and the moment when nobody reaches the bytes any more (rule 21).

    ``ns`` of trace time, ``ops`` of the domain in between, ``bytes`` reachable at one moment, whole granules.
    """

    ns: int
    ops: int
    bytes: int


@attrs.define
class Counters:
    """Operations of a run (rule 19 and 20); ``map_bytes`` are the requested bytes whose leaves ``walk_refs`` touch.

    ``returns`` is what it took to get lent pages back, where a design lends.
    """

    maps: int = 0
    unmaps: int = 0
    invalidations: int = 0
    bytes_copied: int = 0
    walk_refs: int = 0
    table_peak: int = 0
    flushes: int = 0
    returns: Returns = attrs.field(factory=Returns)


class Backend(Protocol):
    """What a design must be able to do for the replay loop.

    ``begin`` serves a request and answers a handle for ``end``; a request that can't be served raises a
    `swiommu.errors.SwiommuError` and changes nothing. ``busy`` are page frames that the log shows as immovable at that
    moment: part of the environment, not of the answer. ``fullest`` are the bytes of frames in use at the fullest
    moment, tables included, where any frame will do; 0 where places matter. ``pool_bytes`` is the size of the bounce
    pool, 0 without; ``tried`` counts the pieces of memory that probes took, where trying costs more than asking.
    """

    counters: Counters
    fullest: int
    pool_bytes: int
    tried: int

    @property
    def pool_peak(self) -> int:
        """Bytes of the pool's slots in use at the fullest moment."""

    def begin(self, request: Request, busy: tuple[int, ...]) -> object:
        """Serve a request."""

    def end(self, request: Request, handle: object) -> None:
        """The driver is done with it."""

    def extents(self, handle: object) -> list[Extent]:
        """Memory behind an ALLOC's or an occupancy's handle; nothing if its place is no matter."""

    def probe(self, request: Request, busy: tuple[int, ...]) -> Cause | None:
        """Why ``begin`` would fail now, None if it would not; no state and no count changes (rule 4)."""

    def sync(self, request: Request, handle: object, *, for_cpu: bool, size: int) -> None:
        """The driver hands ``size`` bytes of a live MAP to the CPU, or back to the device."""

    def advance(self, time: int) -> None:
        """It is ``time`` (ns) now: what waits for time may happen."""

    def occupy(self, occupancy: Occupancy) -> object:
        """Somebody who is no request takes pages of the area; None if there was no room."""

    def vacate(self, occupancy: Occupancy, handle: object) -> None:
        """These pages of the area go back."""

    def usage(self) -> Usage:
        """Bytes in use now."""

    def room(self) -> int:
        """Free bytes that could serve an ALLOC if placement were no matter."""

    def exposure(self) -> Exposure | None:
        """How long what was unmapped stayed reachable; None: without a bound."""
