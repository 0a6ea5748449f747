"""Every device translated: frames of B behind a page table, one domain per group (rule 13)."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import attrs

from swiommu.address import (
    PAGE_SIZE,
    BusAddr,
    BusSpace,
    PhysAddr,
    PhysRange,
    PhysSpace,
    align_down,
    align_up,
    order_of,
)
from swiommu.errors import SwiommuError
from swiommu.iommu import FlushPolicy, IovaDomain, LinuxIova, Mapping, PagedDomain
from swiommu.memory import Frames
from swiommu.pagetable.formats import FORMATS
from swiommu.replay.backends.base import Counters, Exposure, Extent, Usage
from swiommu.replay.backends.random_frames import RandomFrames
from swiommu.replay.cause import Cause, cause_of
from swiommu.replay.designs import FrameOrder
from swiommu.replay.memory_plan import BLOCK_LIMIT, MOST
from swiommu.requests import Occupancy, Request, RequestKind, Workload
from swiommu.undo import UndoLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swiommu.pagetable import Format
    from swiommu.region import Region
    from swiommu.replay.designs import Design, Knobs
    from swiommu.replay.memory_plan import MemoryPlan

__all__ = ["LARGE", "Frontier", "PagedBackend"]

LARGE = 2 << 20
_R = TypeVar("_R")
_MOST_LEAVES = 1 << 23  # of one MAP: 32 GiB in pages of 4 KiB
_MOST_DRAWN = 1 << 30  # bytes of an ALLOC in single frames: a quarter of a million draws and as many leaves
_ANY_REGION = (1 << 32) - 1  # a mask that reaches every region of bus addresses, see `ShimBackend`
_RAM_UNKNOWN = 64 << 30  # mode ``machine`` without a sidecar: more than any recorded machine had


@attrs.frozen(eq=False)
class Frontier:
    """What stands before a group of devices: their domain, and a region of its input space where a design has one."""

    domain: PagedDomain[PhysAddr]
    policy: LinuxIova
    region: Region[BusAddr] | None = None

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """What is made and given back inside leaves nothing behind, not even in the order of holes."""
        with self.domain.dry_run(), self.region.dry_run() if self.region else nullcontext():
            yield


@attrs.frozen(eq=False)
class _Untranslated:
    """Memory of an IOMMU's own device: one block, seen directly."""

    start: int
    size: int


@attrs.frozen(eq=False)
class _User:
    """A user mapping, at the addresses that user space chose."""

    start: int
    size: int


class PagedBackend:
    """Domains over one pool of frames that holds data and page tables; B is a limit here, not a charge."""

    def __init__(self, design: Design, plan: MemoryPlan, workload: Workload, knobs: Knobs) -> None:
        self.counters = Counters()
        self.space = PhysSpace("memory")
        self._plan = plan
        self._knobs = knobs
        self._flush = design.flush
        self._has_dma_events = workload.has_dma_events
        self._format = FORMATS[design.format]
        self.granule = self._format.granule
        self._orders = (order_of(LARGE, self.granule), 0)
        self._allocator = design.allocator
        self._options = design.allocator_options(workload.profile)
        self.frames = Frames(
            self.space.at(0),
            plan.bytes if not plan.fallback else _all_ram(workload, self.granule),
            page_size=self.granule,
            max_order=order_of(BLOCK_LIMIT, self.granule),
        )
        self.fullest = 0  # bytes of frames in use at the fullest moment
        self.pool_bytes = self.pool_peak = 0
        self.tried = 0
        self._pool = RandomFrames(self.frames, knobs.seed)
        _require_mappable(workload, self._format)
        if knobs.frames is FrameOrder.RANDOM:
            _require_drawable(workload, self.frames.range.size)
        self._frontiers: dict[str, Frontier] = {}
        self._table_pages = 0
        self._internal = 0
        self._now = workload.start_time
        self._waiting: dict[str, Frontier] = {}  # whose flush queue has a timer running
        self._due = 0  # no timer of theirs fires earlier

    # -- domains ----------------------------------------------------------------------------------------------------

    def _frontier(self, request: Request) -> Frontier:
        frontier = self._frontiers.get(request.group)
        if frontier is None:
            frontier = self._frontiers[request.group] = self._make_domain(request)
            frontier.domain.advance(self._now)
            self._note_tables(frontier.domain.stats.table_pages)
        elif self._flush is FlushPolicy.LAZY:
            self._count(frontier.domain, partial(frontier.domain.advance, self._now))
        return frontier

    def _make_domain(self, request: Request) -> Frontier:
        policy = LinuxIova(IovaDomain(self.granule, self._first_iova() // self.granule), pci=request.is_pci)
        space = BusSpace(request.group)
        # The flush queue is for unmaps of the DMA API (IOMMU_DOMAIN_DMA_FQ): what user space unmaps is invalidated at
        # once, and so is what was mapped by the two-step API, as lazy recordings show: a MAP beside no dma event.
        dma_api = request.kind is not RequestKind.USERMAP and bool(request.device or not self._has_dma_events)
        flush = self._flush if dma_api else FlushPolicy.STRICT
        domain = PagedDomain(
            space,
            frames=self.frames,
            output_space=self.space,
            iova=policy,
            flush=flush,
            format=self._format,
            orders=self._orders,
            hz=self._knobs.hz,
        )
        return Frontier(domain, policy)

    def _first_iova(self) -> int:
        """Where a domain's own choice of bus addresses begins; page 0 is never used."""
        return self.granule

    def _note_tables(self, more: int) -> None:
        self._table_pages += more
        self.counters.table_peak = max(self.counters.table_peak, self._table_pages * PAGE_SIZE)
        self.fullest = max(self.fullest, (self.frames.count - self.frames.free_count) * self.granule)

    # -- requests ---------------------------------------------------------------------------------------------------

    def begin(self, request: Request, busy: tuple[int, ...]) -> object:
        """See `Backend.begin`."""
        del busy  # any frame will do, so a page that can't move is in nobody's way
        if request.kind is RequestKind.ALLOC:
            handle = self._alloc(request)
            self._internal += handle.size - request.size  # type: ignore[attr-defined] # every handle has one
            return handle
        frontier = self._frontier(request)
        frontier.policy.device = request.device
        if request.iova is not None:
            return self._count(frontier.domain, lambda: self._map_user(frontier.domain, request))
        pieces = [self._granules(phys, size) for phys, size in request.pieces]
        return self._count(frontier.domain, lambda: frontier.domain.bind(pieces, limit=request.mask))

    def end(self, request: Request, handle: object) -> None:
        """See `Backend.end`."""
        if request.kind is RequestKind.ALLOC:
            self._internal -= handle.size - request.size  # type: ignore[attr-defined] # every handle has one
        if isinstance(handle, _Untranslated):
            self.frames.give(handle.start // self.granule, handle.size // self.granule)
            return
        frontier = self._frontier(request)
        if isinstance(handle, _User):
            self._count(frontier.domain, lambda: _unmap_user(frontier.domain, handle))
        else:
            self._count(frontier.domain, lambda: self._give(frontier, request, handle))
        expires = _expires(frontier)
        if expires is not None:
            self._due = min(self._due, expires) if self._waiting else expires
            self._waiting[request.group] = frontier

    def extents(self, handle: object) -> list[Extent]:
        """See `Backend.extents`."""
        if isinstance(handle, Mapping):
            return [(piece.start.value, piece.size) for piece in handle.pieces]
        return [(handle.start, handle.size)] if isinstance(handle, _Untranslated) else []

    def probe(self, request: Request, busy: tuple[int, ...]) -> Cause | None:
        """Try and give back at once; see `Backend.probe`. It costs what is tried, however much lives."""
        known = self._frontiers.get(request.group)
        self.tried += self._pieces_of(request)
        if known is None and self._exceeds_memory(request):
            return Cause.MEMORY
        log = UndoLog()
        log.save(self, "_due", "_internal", "counters", "fullest")
        if known is None:
            log.note(self._remove_domain, request.group)
        self.counters = attrs.evolve(self.counters)
        try:
            with self._pool.dry_run(), known.dry_run() if known else nullcontext():
                self.end(request, self.begin(request, busy))
        except SwiommuError as error:
            return cause_of(error)
        else:
            return None
        finally:
            log.rollback()

    def _exceeds_memory(self, request: Request) -> bool:
        """Whether an ALLOC asks for more than is free, whatever its bus address: no domain has to be made to tell."""
        is_alloc = request.kind is RequestKind.ALLOC and not request.is_iommu
        return is_alloc and request.mask >= _ANY_REGION and request.size > self.room()

    def _remove_domain(self, group: str) -> None:
        """What was made for a trial goes, if it was."""
        made = self._frontiers.pop(group, None)
        if made is not None:
            self._waiting.pop(group, None)
            self._table_pages -= made.domain.stats.table_pages
            made.domain.destroy()

    def _pieces_of(self, request: Request) -> int:
        """At most so many are taken and mapped for a request, and one if there is no room for it."""
        if request.kind is not RequestKind.ALLOC or request.size > self.room():
            return 1 + len(request.pieces)
        return 1 + request.size // (self.granule if self._knobs.frames is FrameOrder.RANDOM else LARGE)

    def sync(self, request: Request, handle: object, *, for_cpu: bool, size: int) -> None:
        """See `Backend.sync`; nothing is copied behind an IOMMU."""

    def advance(self, time: int) -> None:
        """See `Backend.advance`: flush queues have timers."""
        self._now = time
        if not self._waiting or time < self._due:
            return
        waiting = self._waiting
        for frontier in waiting.values():
            self._count(frontier.domain, partial(frontier.domain.advance, time))
        due = {group: at for group, frontier in waiting.items() if (at := _expires(frontier)) is not None}
        self._waiting = {group: waiting[group] for group in due}
        self._due = min(due.values(), default=0)

    # -- ALLOC ------------------------------------------------------------------------------------------------------

    def _alloc(self, request: Request) -> object:
        if request.is_iommu:
            order = order_of(request.size, self.granule)
            return _Untranslated(self.frames.take(order) * self.granule, self.granule << order)
        frontier = self._frontier(request)
        frontier.policy.device = request.device
        return self._count(frontier.domain, lambda: self._take(frontier, request))

    def _take(self, frontier: Frontier, request: Request) -> object:
        """Frames and a bus range for an ALLOC."""
        size = align_up(request.size, self.granule)
        if self._knobs.frames is not FrameOrder.RANDOM:
            return frontier.domain.alloc(size, limit=request.mask)
        pieces = self._pool.take(size // self.granule)
        try:
            return frontier.domain.bind(pieces, limit=request.mask)
        except SwiommuError:
            self._pool.give_pieces(pieces)
            raise

    def _give(self, frontier: Frontier, request: Request, handle: object) -> None:
        """Undo `_take`, or a MAP's bind."""
        assert isinstance(handle, Mapping)
        mapping: Mapping[PhysAddr] = handle
        frontier.domain.release(mapping)
        # By the request, not by the frames: a MAP of driver memory may have the numbers of drawn ones.
        if request.kind is RequestKind.ALLOC and self._knobs.frames is FrameOrder.RANDOM:
            self._pool.give_pieces(mapping.pieces)

    # -- MAP --------------------------------------------------------------------------------------------------------

    def _granules(self, phys: int, size: int) -> PhysRange:
        """The whole granules that hold a piece: what dma-iommu maps for it."""
        start = align_down(phys, self.granule)
        return PhysRange(self.space.at(start), align_up(phys + size, self.granule) - start)

    def _map_user(self, domain: PagedDomain[PhysAddr], request: Request) -> _User:
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
        return _User(request.iova, at - request.iova)

    # -- account ----------------------------------------------------------------------------------------------------

    def _count(self, domain: PagedDomain[PhysAddr], operation: Callable[[], _R]) -> _R:
        """Run an operation of a domain and add what it cost to the counters."""
        stats, counters = domain.stats, self.counters
        tables, maps, unmaps = stats.table_pages, stats.maps, stats.unmaps
        invalidations, walk_refs = stats.invalidations, stats.walk_refs
        try:
            result = operation()
        finally:
            stats = domain.stats
            self._note_tables(stats.table_pages - tables)
        counters.maps += stats.maps - maps
        counters.unmaps += stats.unmaps - unmaps
        counters.invalidations += stats.invalidations - invalidations
        counters.walk_refs += stats.walk_refs - walk_refs
        return result

    def occupy(self, occupancy: Occupancy) -> object:
        """There is no area, so nobody takes pages of it."""
        del occupancy
        return None

    def vacate(self, occupancy: Occupancy, handle: object) -> None:
        """See `occupy`."""

    def usage(self) -> Usage:
        """See `Backend.usage`."""
        return Usage(self._internal, 0, self._table_pages * PAGE_SIZE, 0, 0, 0)

    def room(self) -> int:
        """See `Backend.room`."""
        return self.frames.free_count * self.granule

    def exposure(self) -> Exposure | None:
        """See `Backend.exposure`: the worst of all domains; nothing with strict invalidation."""
        for frontier in self._waiting.values():
            frontier.domain.advance(self._now)  # what is not flushed yet counts as far as it has come
        worst = [frontier.domain.exposure for frontier in self._frontiers.values()]
        return Exposure(
            ns=max((seen.ns for seen in worst), default=0),
            ops=max((seen.ops for seen in worst), default=0),
            bytes=max((seen.bytes for seen in worst), default=0),
        )


def _expires(frontier: Frontier) -> int | None:
    """When the timer of its flush queue fires; None if it doesn't run."""
    queue = frontier.domain.flush_queue
    return None if queue is None else queue.expires


def _unmap_user(domain: PagedDomain[PhysAddr], handle: _User) -> None:
    """A user mapping ends as one unmap, whatever it was made of."""
    unmaps = domain.stats.unmaps
    at = 0
    while at < handle.size:
        at += domain.unmap(domain.input_space.at(handle.start + at), handle.size - at) or domain.granule
    domain.stats.unmaps = unmaps + 1


def _all_ram(workload: Workload, granule: int) -> int:
    """RAM in bytes, up to what a replay can hold a table of the frames of."""
    if workload.system_map is None:
        return _RAM_UNKNOWN
    return min(align_down(sum(ram.size for ram in workload.system_map.ram()), granule), MOST)


def _require_mappable(workload: Workload, form: Format) -> None:
    """`InputError` with the line of a MAP whose page-table entries take more than a few seconds to write.

    What no domain has room for fails at once, as a request.
    """
    for request in workload.requests:
        size, at = request.size, request.iova or 0  # an address that a domain chooses is aligned to the size
        room = min(1 << form.aperture_width, request.mask + 1 if request.iova is None else 1 << 64)
        if request.kind is RequestKind.ALLOC or not _MOST_DRAWN < size <= room:
            continue
        if any(phys + length > 1 << form.output_width for phys, length in request.pieces):
            continue
        leaves = 0
        for phys, length in request.pieces:
            leaves += length // _page_size(form, at ^ align_down(phys, form.granule))
            at += length
        if leaves > _MOST_LEAVES:
            raise workload.error(
                f"a MAP of {size} bytes needs {leaves} page-table entries under format {form.name}, more than can be "
                f"replayed, {_MOST_LEAVES}",
                request.line,
            )


def _page_size(form: Format, apart: int) -> int:
    """The largest page that two addresses allow, bus and memory, which differ in the bits ``apart``; bytes."""
    sizes = form.pgsize_bitmap & (((apart & -apart) << 1) - 1 if apart else -1)
    return 1 << (sizes.bit_length() - 1) if sizes else form.granule


def _require_drawable(workload: Workload, available: int) -> None:
    """`InputError` with the line of an ALLOC that takes so many frames that drawing them one by one is a long wait."""
    for request in workload.requests:
        if request.kind is RequestKind.ALLOC and _MOST_DRAWN < request.size <= available:
            raise workload.error(
                f"an ALLOC of {request.size} bytes is too large to be drawn from single frames (--frames random), "
                f"{_MOST_DRAWN} at most",
                request.line,
            )
