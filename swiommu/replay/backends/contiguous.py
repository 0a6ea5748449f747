"""An ALLOC is one run of a region; in mode ``machine`` with the page allocator behind it (rules 9 and 11)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE, PhysAddr, order_of
from swiommu.errors import OutOfRange, SwiommuError
from swiommu.ranges import joined
from swiommu.region import Chunk, Migrating, Region
from swiommu.replay.backends.direct import DirectBackend, block_of
from swiommu.replay.cause import Cause, cause_of
from swiommu.replay.memory_plan import BLOCK_LIMIT, MemoryPlan
from swiommu.requests import Occupancy, Request, Workload, may_block

if TYPE_CHECKING:
    from swiommu.replay.backends.base import Extent
    from swiommu.replay.designs import Design, Knobs

__all__ = ["RegionBackend"]


class RegionBackend(DirectBackend):
    """A contiguous region of B bytes at the plan's base, with the start extents occupied."""

    def __init__(self, design: Design, plan: MemoryPlan, workload: Workload, knobs: Knobs) -> None:
        super().__init__(design, plan, workload)
        self._lends = design.registered is not None and design.registered.lending is not None
        self._align_order = knobs.align_order
        self._area_pfn = workload.area.base_pfn if workload.area else plan.base // PAGE_SIZE
        self._start_extents: dict[int, Chunk[PhysAddr]] = {}  # by page offset; never a chunk that serves a request
        self.region = self._build(design, plan, workload) if plan.bytes else None

    def _build(self, design: Design, plan: MemoryPlan, workload: Workload) -> Region[PhysAddr]:
        # Kernels differ in what they call a failure, and from 6.15 refuse early; best fit is of 2010 alone.
        options = design.allocator_options(workload.profile)
        region = Region(self.space.at(plan.base), plan.bytes, allocator=design.allocator, **options)
        self._reserve_extents(region, plan, workload)
        return region

    def _reserve_extents(self, region: Region[PhysAddr], plan: MemoryPlan, workload: Workload) -> None:
        for offset, count in _cut(plan.start_extents, self._released_later(workload)):
            chunk = region.reserve(region.start + offset * PAGE_SIZE, count * PAGE_SIZE)
            self._start_extents[offset] = chunk

    def _released_later(self, workload: Workload) -> list[tuple[int, int]]:
        """Parts of the start extents that the recording gives back, as (offset, count) pages."""
        return [(o.pfn - self._area_pfn, o.count) for o in workload.occupancies if o.was_start_extent]

    # -- ALLOC ------------------------------------------------------------------------------------------------------

    def _alloc(self, request: Request, busy: tuple[int, ...]) -> object:
        if not self.plan.fallback:
            return self._take(request, busy)
        if not self._area_serves(request):
            return self._page_block(request)
        try:
            return self._take(request, busy)
        except SwiommuError:
            if block_of(request) > BLOCK_LIMIT:
                raise  # the page allocator would refuse it too, but the area's limit is the one that counts
            return self._page_block(request)

    def _refusal(self, request: Request, busy: tuple[int, ...]) -> Cause | None:
        asks = self._area_serves(request)
        refusal = self._area_refusal(request, busy) if asks else Cause.BLOCK
        return None if self.plan.fallback and block_of(request) <= BLOCK_LIMIT else refusal

    def _area_serves(self, request: Request) -> bool:
        """Whether the region may be asked at all (dma_alloc_contiguous; only mode ``machine`` is choosy)."""
        if self.region is None:
            return False
        if not self.plan.fallback:
            return True
        return request.size > PAGE_SIZE and may_block(request.gfp) and not request.translated

    def _take(self, request: Request, busy: tuple[int, ...]) -> object:
        """A chunk of the region under the device's mask."""
        region = self._region()
        self._set_busy(busy, 1)
        try:
            chunk = region.alloc(request.size, self._alignment(request))
        finally:
            self._set_busy(busy, 0)
        if chunk.stop - 1 > request.mask:
            region.free(chunk)
            raise OutOfRange(f"{chunk!r} is beyond the mask {request.mask:#x}", mask=request.mask)
        return chunk

    def _give(self, handle: object) -> None:
        assert isinstance(handle, Chunk)
        self._region().free(handle)

    def extents(self, handle: object) -> list[Extent]:
        """See `Backend.extents`."""
        return [(handle.start.value, handle.size)] if isinstance(handle, Chunk) else []

    def _area_refusal(self, request: Request, busy: tuple[int, ...]) -> Cause | None:
        region = self._region()
        self._set_busy(busy, 1)
        try:
            fits = region.fits(request.size, self._alignment(request))
        finally:
            self._set_busy(busy, 0)
        if not fits:
            return Cause.MEMORY
        return None if self._reaches_all(request) else self._tried(request, busy)

    def _reaches_all(self, request: Request) -> bool:
        """Whether the device reaches the whole region."""
        return self._region().stop - 1 <= request.mask

    def _tried(self, request: Request, busy: tuple[int, ...]) -> Cause | None:
        """The region reaches beyond the mask, so only the place itself tells."""
        with self._region().dry_run():
            try:
                self._try(request, busy)
            except SwiommuError as error:
                return cause_of(error)
        return None

    def _try(self, request: Request, busy: tuple[int, ...]) -> None:
        """Take what the request asks for; the dry run around it gives it back."""
        self._take(request, busy)

    def _set_busy(self, busy: tuple[int, ...], state: int) -> None:
        """Pages that can't move just now; only an allocator that migrates can meet them."""
        allocator = self._region().allocator
        if busy and self.plan.fallback and isinstance(allocator, Migrating):
            for pfn in busy:
                allocator.set_busy(pfn, 1, state)

    def _alignment(self, request: Request) -> int:
        return PAGE_SIZE << min(order_of(request.size), self._align_order)

    def _region(self) -> Region[PhysAddr]:
        assert self.region is not None, "a design without a region was asked for one"
        return self.region

    # -- background, account ----------------------------------------------------------------------------------------

    def occupy(self, occupancy: Occupancy) -> object:
        """See `Backend.occupy`."""
        if self.region is None:
            return None
        self._set_busy(occupancy.busy_pfns, 1)
        try:
            return self.region.alloc(occupancy.count * PAGE_SIZE, PAGE_SIZE << occupancy.align)
        except SwiommuError:
            return None  # a background allocation that this region can't hold: the design never sees it
        finally:
            self._set_busy(occupancy.busy_pfns, 0)

    def vacate(self, occupancy: Occupancy, handle: object) -> None:
        """See `Backend.vacate`."""
        if self.region is None:
            return
        if isinstance(handle, Chunk):
            self.region.free(handle)
        elif occupancy.was_start_extent:
            chunk = self._start_extents.pop(occupancy.pfn - self._area_pfn, None)
            if chunk is not None:
                self.region.free(chunk)

    def _idle(self) -> tuple[int, int, int]:
        """What is in use since before the trace is neither live nor idle."""
        idle = self.room()
        return idle, self.plan.bytes, idle if self._lends else 0

    def room(self) -> int:
        """See `Backend.room`; what the page allocator behind the region has is not counted."""
        return self.region.allocator.free_space if self.region else 0


def _cut(extents: tuple[tuple[int, int], ...], parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The extents, those that touch joined, cut where a part is given back by itself later.

    >>> _cut(((0, 100), (100, 92)), [(64, 64)])
    [(0, 64), (64, 64), (128, 64)]
    """
    edges = sorted({edge for offset, count in parts for edge in (offset, offset + count)})
    cut = []
    for start, stop in joined((offset, offset + count) for offset, count in extents):
        inside = edges[bisect_right(edges, start) : bisect_left(edges, stop)]
        cut += [(low, high - low) for low, high in pairwise([start, *inside, stop])]
    return cut
