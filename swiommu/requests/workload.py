"""What a workload is: the requests of a recording, in order, without what the kernel did about them.

A *request* is one driver call (`ALLOC`, `MAP`) or one user-space mapping (`USERMAP`). A design is shown requests
only: time, device, kind, size, gfp flags, a MAP's physical pieces, direction, mask, and whether the recorded kernel
translated the device. What the kernel answered stands apart, in `Served`, and is read by the ``as-recorded`` row and
by the checks alone. Requests that failed when recorded are *censored*: their end, and so their demand, is unknown.

The meaning of every field is fixed by the page "What compare means" in the docs (rules 1 to 6).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE
from swiommu.errors import InputError
from swiommu.trace import may_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.memory import SystemMap
    from swiommu.profile import Profile

__all__ = [
    "GENERATED",
    "Area",
    "Occupancy",
    "Op",
    "OpCode",
    "Request",
    "RequestKind",
    "Served",
    "Sync",
    "Unused",
    "Workload",
    "may_block",
]

GENERATED = "generated"
"""The mode of a workload that nobody recorded."""


class RequestKind(enum.StrEnum):
    """The three things a driver, or user space, asks for."""

    ALLOC = "ALLOC"
    MAP = "MAP"
    USERMAP = "USERMAP"


@attrs.define(eq=False)
class Request:
    """One call, as a design sees it; sizes in bytes, ``time`` in nanoseconds of the trace's clock.

    ``pieces`` are (physical address, bytes) pairs of a MAP; ``iova`` is set for a USERMAP only, which chooses its own.
    ``mask`` is the highest bus address the device can issue; ``group`` names the devices that share a domain;
    ``min_align_mask`` are the address bits that a bounce buffer must keep for this device.
    """

    index: int
    kind: RequestKind
    device: str
    group: str
    size: int
    time: int
    line: int
    mask: int
    translated: bool
    censored: bool
    gfp: str = ""
    direction: str = ""
    pieces: tuple[tuple[int, int], ...] = ()
    iova: int | None = None
    is_iommu: bool = False
    is_pci: bool = True
    min_align_mask: int = 0


@attrs.define(eq=False)
class Served:
    """What the recorded kernel did for one request; never shown to a design.

    ``pfn`` is the page frame that the area gave (None: not from the area), ``busy_pfns`` the candidates that the log
    shows as busy on the way, ``fell_back`` whether the area was asked in vain before another allocator answered.
    ``bounced`` bytes went through a bounce buffer, ``synced`` bytes were copied again by syncs. ``moved``: the device
    got another address than the physical one, and neither the trace nor the sidecar says why.
    """

    pfn: int | None = None
    fell_back: bool = False
    busy_pfns: tuple[int, ...] = ()
    maps: int = 0
    unmaps: int = 0
    bounced: int = 0
    synced: int = 0
    moved: bool = False


class OpCode(enum.IntEnum):
    """What happens at one point of the replay; ``index`` is that of a request, an occupancy or a sync."""

    NOTHING = 0
    BEGIN = 1
    END = 2
    OCCUPY = 3
    VACATE = 4
    SYNC = 5


Op = tuple[int, int, int]
"""(`OpCode`, index, time in ns)."""


@attrs.frozen
class Sync:
    """A driver handed a live MAP over for a moment: ``size`` bytes, to the CPU or back to the device."""

    request: int
    for_cpu: bool
    size: int


@attrs.frozen
class Occupancy:
    """Pages of the area that no request covers: the boot's own allocations, or another driver's (rule 2).

    ``was_start_extent``: part of what the sidecar says was in use when the recording began; no page of it twice.
    """

    pfn: int
    count: int
    align: int
    busy_pfns: tuple[int, ...] = ()
    was_start_extent: bool = False


@attrs.frozen
class Area:
    """The recorded contiguous area: its place, and the extents in use when the recording begins (pages).

    ``start_extents`` are (offset, count) pairs, or None where nobody wrote them down.

    >>> Area(0xb9a00, 16384, ((0, 192),)).bytes >> 20
    64
    """

    base_pfn: int
    total_pages: int
    start_extents: tuple[tuple[int, int], ...] | None

    @property
    def bytes(self) -> int:
        """Size in bytes (4 KiB pages)."""
        return self.total_pages * PAGE_SIZE

    def __contains__(self, pfn: int) -> bool:
        return self.base_pfn <= pfn < self.base_pfn + self.total_pages


@attrs.define
class Unused:
    """What was read and did not become part of a request, counted.

    ``unmatched`` ends have no begin (``unmatched_releases`` of them gave pages of an area back), ``ambiguous`` lists
    have no lengths; ``unattributed_maps`` are MAPs all the same, but
    of a device that nobody tells. ``msi_maps`` are doorbells, ``identity_maps`` the kernel's own, ``freed_nothing``
    calls of ``dma_free`` without memory, ``other_events`` those that say nothing of a request.
    """

    unmatched: int = 0
    unmatched_releases: int = 0
    ambiguous: int = 0
    unattributed_maps: int = 0
    refused_usermaps: int = 0
    msi_maps: int = 0
    identity_maps: int = 0
    freed_nothing: int = 0
    other_events: int = 0


@attrs.define
class Workload:
    """Requests and operations of one recording; ``unused`` is the account of what could not become one.

    ``served`` runs parallel to ``requests``. ``ops`` is in trace order. ``bounce_pool`` is the recorded pool's size in
    bytes, None if there was none. ``notes`` are sentences for the reader. ``path`` is the file that lines are of.

    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> workload = workload_of(read_trace("arm64-6.12-smmu-camnvme-cma128M-s89"))
    >>> workload.count(RequestKind.MAP), workload.censored, workload.unused.msi_maps
    (4211, 16, 2)
    """

    name: str
    requests: Sequence[Request]
    served: Sequence[Served]
    ops: Sequence[Op]
    occupancies: Sequence[Occupancy]
    area: Area | None
    system_map: SystemMap | None
    profile: Profile
    page_size: int
    mode: str
    start_time: int
    stop_time: int
    has_dma_events: bool
    unused: Unused = attrs.field(factory=Unused)
    invalidations: int | None = None
    syncs: Sequence[Sync] = ()
    bounce_pool: int | None = None
    notes: list[str] = attrs.field(factory=list)
    path: str = ""

    def error(self, reason: str, line: int | None = None) -> InputError:
        """The sentence about what can't be replayed, at a line of the recording."""
        return InputError(reason, path=self.path or self.name, line=line)

    @property
    def censored(self) -> int:
        """How many requests failed in the recording."""
        return sum(request.censored for request in self.requests)

    def count(self, kind: RequestKind) -> int:
        """How many requests of one kind were made."""
        return sum(request.kind is kind for request in self.requests)

    @property
    def has_area_events(self) -> bool:
        """Whether the trace has events of a contiguous area, known or not."""
        if self.occupancies or (self.has_allocs and not self.has_dma_events and self.mode != GENERATED):
            return True
        return any(served.pfn is not None or served.fell_back or served.busy_pfns for served in self.served)

    @property
    def has_allocs(self) -> bool:
        """Whether there is any ALLOC: only then does a design need memory for data."""
        return any(request.kind is RequestKind.ALLOC for request in self.requests)
