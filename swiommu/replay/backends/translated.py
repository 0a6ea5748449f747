"""Every device translated: frames of B behind a page table, one domain per group, strict invalidation (rule 13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

from swiommu.address import PAGE_SIZE, BusSpace, PhysAddr, PhysRange, PhysSpace, align_down, align_up, order_of
from swiommu.errors import SwiommuError
from swiommu.iommu import Mapping, PagedDomain
from swiommu.memory import Frames
from swiommu.replay.backends.base import Counters, Usage
from swiommu.replay.backends.random_frames import RandomFrames
from swiommu.replay.requests import Occupancy, Request, RequestKind, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.replay.designs import Knobs
    from swiommu.replay.memory_plan import MemoryPlan

__all__ = ["PagedBackend"]

_R = TypeVar("_R")
_RAM_UNKNOWN = 64 << 30  # mode ``machine`` without a sidecar: more than any recorded machine had


@attrs.frozen(eq=False)
class _Untranslated:
    """Memory of an IOMMU's own device: one block, seen directly."""

    pfn: int
    order: int


@attrs.frozen(eq=False)
class _User:
    """A user mapping, at the addresses that user space chose."""

    domain: PagedDomain
    start: int
    size: int


class PagedBackend:
    """Domains over one pool of frames that holds data and page tables; B is a limit here, not a charge."""

    def __init__(self, plan: MemoryPlan, workload: Workload, knobs: Knobs) -> None:
        self.counters = Counters()
        self.space = PhysSpace("memory")
        self._knobs = knobs
        self.frames = Frames(self.space.at(0), plan.bytes if not plan.fallback else _all_ram(workload))
        self._pool = RandomFrames(self.frames, knobs.seed)
        self._domains: dict[str, PagedDomain] = {}
        self._table_pages = 0
        self._internal = 0

    def _domain(self, group: str) -> PagedDomain:
        domain = self._domains.get(group)
        if domain is None:
            domain = PagedDomain(BusSpace(group), frames=self.frames, output_space=self.space)
            self._domains[group] = domain
            self._table_pages += domain.stats.table_pages
            self.counters.table_peak = max(self.counters.table_peak, self._table_pages * PAGE_SIZE)
        return domain

    # -- requests ---------------------------------------------------------------------------------------------------

    def begin(self, request: Request, busy: tuple[int, ...]) -> object:
        """See `Backend.begin`."""
        del busy  # any frame will do, so a page that can't move is in nobody's way
        if request.kind is RequestKind.ALLOC:
            handle = self._alloc(request)
            self._internal += _charged(handle) - request.size
            return handle
        domain = self._domain(request.group)
        if request.iova is not None:
            return self._count(domain, lambda: self._map_user(domain, request))
        pieces = [self._granules(phys, size) for phys, size in request.pieces]
        return self._count(domain, lambda: domain.bind(pieces, limit=request.mask))

    def end(self, request: Request, handle: object) -> None:
        """See `Backend.end`."""
        if request.kind is RequestKind.ALLOC:
            self._internal -= _charged(handle) - request.size
        if isinstance(handle, _Untranslated):
            self.frames.give(handle.pfn, 1 << handle.order)
        elif isinstance(handle, _User):
            self._count(handle.domain, lambda: _unmap_user(handle))
        else:
            assert isinstance(handle, Mapping)
            self._count(self._domain(request.group), lambda: handle.domain.release(handle))
            if request.kind is RequestKind.ALLOC and not handle.owns_memory:
                self._pool.give(handle)

    def probe(self, request: Request, busy: tuple[int, ...]) -> bool:
        """Try and give back at once: a buddy that coalesces, and a policy that forgets, are then as before."""
        counters, known = attrs.evolve(self.counters), request.group in self._domains
        try:
            self.end(request, self.begin(request, busy))
        except SwiommuError:
            return False
        else:
            return True
        finally:
            self.counters = counters
            if not known and request.group in self._domains:
                domain = self._domains.pop(request.group)
                self._table_pages -= domain.stats.table_pages
                domain.destroy()

    def _alloc(self, request: Request) -> object:
        if request.is_iommu:
            order = order_of(request.size)
            return _Untranslated(self.frames.take(order), order)
        domain = self._domain(request.group)
        if self._knobs.frames == "random":
            return self._alloc_random(domain, request)
        size = align_up(request.size, PAGE_SIZE)
        return self._count(domain, lambda: domain.alloc(size, limit=request.mask))

    def _alloc_random(self, domain: PagedDomain, request: Request) -> Mapping[PhysAddr]:
        pieces = self._pool.take(align_up(request.size, PAGE_SIZE) // PAGE_SIZE)
        try:
            return self._count(domain, lambda: domain.bind(pieces, limit=request.mask))
        except SwiommuError:
            self._pool.give_pieces(pieces)
            raise

    def _granules(self, phys: int, size: int) -> PhysRange:
        """The whole pages that hold a piece: what dma-iommu maps for it."""
        start = align_down(phys, PAGE_SIZE)
        return PhysRange(self.space.at(start), align_up(phys + size, PAGE_SIZE) - start)

    def _map_user(self, domain: PagedDomain, request: Request) -> _User:
        assert request.iova is not None
        at = request.iova
        try:
            for phys, size in request.pieces:
                domain.map(domain.input_space.at(at), self.space.at(phys), size)
                at += size
        except SwiommuError:
            if at > request.iova:
                domain.unmap(domain.input_space.at(request.iova), at - request.iova)
            raise
        return _User(domain, request.iova, at - request.iova)

    # -- account ----------------------------------------------------------------------------------------------------

    def _count(self, domain: PagedDomain, operation: Callable[[], _R]) -> _R:
        """Run an operation of a domain and add what it cost to the counters."""
        counters, before = self.counters, attrs.evolve(domain.stats)
        try:
            result = operation()
        finally:
            after = domain.stats
            self._table_pages += after.table_pages - before.table_pages
        counters.maps += after.maps - before.maps
        counters.unmaps += after.unmaps - before.unmaps
        counters.invalidations += after.invalidations - before.invalidations
        counters.walk_refs += after.walk_refs - before.walk_refs
        counters.table_peak = max(counters.table_peak, self._table_pages * PAGE_SIZE)
        return result

    def occupy(self, occupancy: Occupancy) -> object:
        """There is no area, so nobody takes pages of it."""
        del occupancy
        return None

    def vacate(self, occupancy: Occupancy, handle: object) -> None:
        """See `occupy`."""

    def usage(self) -> Usage:
        """See `Backend.usage`."""
        return Usage(
            internal=self._internal, idle=0, tables=self._table_pages * PAGE_SIZE, pool=0, reserved=0, lendable=0
        )

    def room(self) -> int:
        """See `Backend.room`."""
        return self.frames.free_count * PAGE_SIZE


def _charged(handle: object) -> int:
    """Bytes of frames behind an ALLOC."""
    if isinstance(handle, _Untranslated):
        return PAGE_SIZE << handle.order
    assert isinstance(handle, Mapping)
    return handle.size


def _unmap_user(handle: _User) -> None:
    """A user mapping ends as one unmap, whatever it was made of."""
    unmaps = handle.domain.stats.unmaps
    at = 0
    while at < handle.size:
        at += handle.domain.unmap(handle.domain.input_space.at(handle.start + at), handle.size - at) or PAGE_SIZE
    handle.domain.stats.unmaps = unmaps + 1


def _all_ram(workload: Workload) -> int:
    if workload.system_map is None:
        return _RAM_UNKNOWN
    return align_down(sum(ram.size for ram in workload.system_map.ram()), PAGE_SIZE)
