"""The contiguous API over an IOMMU: contiguous for the device, any frames below (rule 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE, BusAddr, PhysAddr, align_up, order_of
from swiommu.errors import OutOfRange, SwiommuError
from swiommu.region import Chunk, Region
from swiommu.replay.backends.translated import LARGE, Frontier, PagedBackend

if TYPE_CHECKING:
    from swiommu.iommu import PagedDomain
    from swiommu.replay.backends.base import Extent
    from swiommu.requests import Request

__all__ = ["ShimBackend"]

_ROOM = 4  # the region is 4B: bus addresses are cheap, and fragmentation moves there
_MOST = 2 << 30  # it ends in the lower half of 32 bits, and MAPs have the upper one


@attrs.frozen(eq=False)
class _Shimmed:
    """A chunk of the domain's own space and the frames behind it, as (pfn, count) runs."""

    chunk: Chunk[BusAddr]
    runs: list[tuple[int, int]]

    @property
    def size(self) -> int:
        """Bytes of frames."""
        return self.chunk.size


class ShimBackend(PagedBackend):
    """An ALLOC is a best-fit chunk of one region per domain, in the domain's input space, over frames as in rule 13."""

    def _make_domain(self, request: Request) -> Frontier:
        frontier = super()._make_domain(request)
        start, size = frontier.domain.input_space.at(LARGE), self._region_size()
        region = Region(start, size, allocator=self._allocator, page_size=self.granule, **self._options)
        return attrs.evolve(frontier, region=region)

    def _first_iova(self) -> int:
        """MAPs get their bus addresses above the region."""
        return LARGE + self._region_size()

    def _region_size(self) -> int:
        memory = self.frames.range.size if self._plan.fallback else self._plan.bytes
        return min(max(_ROOM * memory, LARGE), _MOST)

    def _take(self, frontier: Frontier, request: Request) -> object:
        region, domain = frontier.region, frontier.domain
        assert region is not None
        size = align_up(request.size, self.granule)
        align = LARGE if size >= LARGE else max(PAGE_SIZE << min(order_of(size), self._knobs.align_order), self.granule)
        chunk = region.alloc(size, align)
        runs: list[tuple[int, int]] = []
        try:
            if chunk.stop - 1 > request.mask:
                raise OutOfRange(f"{chunk!r} is beyond the mask {request.mask:#x}", mask=request.mask)
            runs = self.frames.take_largest_first(size // self.granule, self._orders)
            self._write(domain, chunk, runs)
        except SwiommuError:
            for pfn, count in runs:
                self.frames.give(pfn, count)
            region.free(chunk)
            raise
        return _Shimmed(chunk, runs)

    def extents(self, handle: object) -> list[Extent]:
        """See `Backend.extents`: the frames, not the chunk of bus addresses."""
        if isinstance(handle, _Shimmed):
            return [(pfn * self.granule, count * self.granule) for pfn, count in handle.runs]
        return super().extents(handle)

    def _write(self, domain: PagedDomain[PhysAddr], chunk: Chunk[BusAddr], runs: list[tuple[int, int]]) -> None:
        done = 0
        try:
            for pfn, count in runs:
                domain.map(chunk.start + done, self.space.at(pfn * self.granule), count * self.granule)
                done += count * self.granule
        except SwiommuError:
            if done:
                domain.unmap(chunk.start, done)
            raise

    def _give(self, frontier: Frontier, request: Request, handle: object) -> None:
        if not isinstance(handle, _Shimmed):
            super()._give(frontier, request, handle)
            return
        assert frontier.region is not None
        frontier.domain.unmap(handle.chunk.start, handle.chunk.size)
        for pfn, count in handle.runs:
            self.frames.give(pfn, count)
        frontier.region.free(handle.chunk)
