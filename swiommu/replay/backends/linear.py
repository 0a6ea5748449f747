"""The software IOMMU: the same region behind linear domains, one per group of devices, no hardware (rule 11)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE, BusSpace, PhysAddr, PhysRange, align_up
from swiommu.errors import AddressInUse, OutOfRange
from swiommu.iommu import LinearDomain, Mapping
from swiommu.replay.backends.contiguous import RegionBackend

if TYPE_CHECKING:
    from swiommu.replay.backends.base import Extent
    from swiommu.replay.designs import Design, Knobs
    from swiommu.replay.memory_plan import MemoryPlan
    from swiommu.requests import Request, Workload

__all__ = ["LinearBackend"]


class LinearBackend(RegionBackend):
    """Drivers talk to a domain: ``alloc`` takes a chunk of the region, a MAP is bound piece by piece.

    The window is the whole space, shifted by the design's delta (0: bus = phys). Where pieces of one group share bytes
    (an unmodified driver may map a page twice), the second is served by the window and not recorded again; nor is a
    piece inside the region, which is the allocator's. Nothing is enforced either way: a device reaches the window.
    """

    def __init__(self, design: Design, plan: MemoryPlan, workload: Workload, knobs: Knobs) -> None:
        super().__init__(design, plan, workload, knobs)
        self._domains: dict[str, LinearDomain[PhysAddr]] = {}
        self._delta = design.delta

    def _domain(self, group: str) -> LinearDomain[PhysAddr]:
        domain = self._domains.get(group)
        if domain is None:
            first = max(0, -self._delta)
            window = PhysRange(self.space.at(first), self.space.limit - abs(self._delta))
            domain = LinearDomain(BusSpace(group), self._region(), window=window, delta=self._delta)
            self._domains[group] = domain
        return domain

    def _take(self, request: Request, busy: tuple[int, ...]) -> object:
        self._set_busy(busy, 1)
        try:
            mapping = self._domain(request.group).alloc(align_up(request.size, PAGE_SIZE), self._alignment(request))
        finally:
            self._set_busy(busy, 0)
        if mapping.iova.stop - 1 > request.mask:
            mapping.domain.release(mapping)
            raise OutOfRange(f"{mapping.iova!r} is beyond the mask {request.mask:#x}", mask=request.mask)
        return mapping

    def _try(self, request: Request, busy: tuple[int, ...]) -> None:
        self._give(self._take(request, busy))  # the dry run is the region's, not the domain's

    def _reaches_all(self, request: Request) -> bool:
        region = self._region()
        return region.start.value + self._delta >= 0 and region.stop - 1 + self._delta <= request.mask

    def _give(self, handle: object) -> None:
        assert isinstance(handle, Mapping)
        handle.domain.release(handle)

    def extents(self, handle: object) -> list[Extent]:
        """See `Backend.extents`; an occupancy is a chunk of the region, which asks no domain."""
        if isinstance(handle, Mapping):
            return [(piece.start.value, piece.size) for piece in handle.pieces]
        return super().extents(handle)

    def _map(self, request: Request) -> object:
        super()._map(request)  # refuses what the device does not reach, all or nothing
        if self.region is None:
            return []
        domain = self._domain(request.group)
        bound: list[Mapping[PhysAddr]] = []
        for phys, size in request.pieces:
            if self.region.start.value < phys + size and phys < self.region.stop:
                # A page of the region that was lent to somebody: an ALLOC takes its place, whoever was told of it.
                continue
            with suppress(AddressInUse):  # recorded already: the group has one domain
                bound.append(domain.bind([PhysRange(self.space.at(phys), size)], limit=request.mask))
        return bound

    def _reaches(self, request: Request) -> bool:
        return all(
            phys + self._delta >= 0 and phys + size - 1 + self._delta <= request.mask for phys, size in request.pieces
        )

    def _unmap(self, request: Request, handle: object) -> None:
        del request
        assert isinstance(handle, list)
        for mapping in handle:
            mapping.domain.release(mapping)
