"""From events to requests: who asked for what, when it ended, and which kernel lines served it (rules 1 to 6).

`workload_of` makes one pass over a trace's events. Ends are paired with begins by (device, address), and where several
are live, by size and direction too, oldest first. Lines that tell how the kernel *served* a call are handled in
`swiommu.requests.kernel_lines`. What cannot be paired is counted, never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import align_down, align_up
from swiommu.requests.book import Book
from swiommu.requests.kernel_lines import AreaLines, MapLines
from swiommu.requests.machine import Machine
from swiommu.requests.usermaps import UserMaps, parse_mark
from swiommu.requests.waiting import BounceLedger
from swiommu.requests.workload import OpCode, RequestKind, Served, Sync, Workload, may_block
from swiommu.trace import DMA_MAPPING_ERROR, Context, Event, Kind, ScatterList, Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.requests.waiting import MapLine

__all__ = ["workload_of"]

_ANYWHERE = 1 << 64  # above every bus address
_DMA_KINDS = frozenset(
    {
        Kind.DMA_MAP,
        Kind.DMA_UNMAP,
        Kind.DMA_MAP_SG,
        Kind.DMA_UNMAP_SG,
        Kind.DMA_MAP_SG_ERR,
        Kind.DMA_ALLOC,
        Kind.DMA_FREE,
    }
)


def workload_of(trace: Trace) -> Workload:
    """The requests of a trace, with everything that could not be used counted; `Workload` says what is in it.

    `InputError` for a recording that can't be replayed: pages of another size, thousands of devices.

    >>> from swiommu.trace import read_trace
    >>> workload = workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))
    >>> len(workload.requests), workload.censored, workload.requests[0].size
    (740, 27, 348160)
    """
    return _Pairing(trace).run()


class _Pairing:
    """One pass over the events; a handler per kind, each given the event and its context."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.machine = Machine(trace.sidecar, trace.path)
        self.has_dma = not _DMA_KINDS.isdisjoint(trace.table.counts())
        self.book = Book(self.machine)
        self.maps = MapLines(self.book, has_dma=self.has_dma)
        self.areas = AreaLines(self.book, has_dma=self.has_dma)
        self.usermaps = UserMaps(trace.path)
        self.bounces = BounceLedger()
        self.iova_of: dict[int, int] = {}
        self.invalidations: int | None = None

    def run(self) -> Workload:
        handlers: dict[Kind, Callable[[Event, Context], None]] = {
            Kind.DMA_MAP: self.dma_map,
            Kind.DMA_UNMAP: self.dma_unmap,
            Kind.DMA_MAP_SG: self.dma_map_sg,
            Kind.DMA_UNMAP_SG: self.dma_unmap_sg,
            Kind.DMA_MAP_SG_ERR: self.dma_map_sg_err,
            Kind.DMA_ALLOC: self.dma_alloc,
            Kind.DMA_FREE: self.dma_free,
            Kind.IOMMU_MAP: self.maps.map,
            Kind.IOMMU_UNMAP: self.maps.unmap,
            Kind.CMA_START: self.areas.start,
            Kind.CMA_BUSY_RETRY: self.areas.retry,
            Kind.CMA_FINISH: self.areas.done,
            Kind.CMA_RELEASE: self.areas.release,
            Kind.BOUNCED: self.swiotlb_bounced,
            Kind.DMA_SYNC_CPU: self.dma_sync,
            Kind.DMA_SYNC_DEVICE: self.dma_sync,
            Kind.MARK: self.mark,
        }
        if Kind.QI_SUBMIT in self.trace.table.kinds():
            handlers[Kind.QI_SUBMIT] = self.flush
        else:
            handlers |= {Kind.FLUSH_RANGE: self.flush, Kind.FLUSH_ALL: self.flush}
        start = stop = None
        for event in self.trace.table:
            start = event.time if start is None else min(start, event.time)
            stop = event.time if stop is None else max(stop, event.time)
            handler = handlers.get(event.kind)
            if handler is None:
                self.book.unused.other_events += event.kind is not Kind.LOST  # which the account of the lines has
                continue
            context = event.context
            if event.kind is not Kind.DMA_UNMAP:  # which may be what a held unmap waits for
                self.maps.settle(context)
            handler(event, context)
        self.maps.finish()
        self.areas.finish()
        return self.workload(start or 0, stop or 0)

    # -- streaming DMA ----------------------------------------------------------------------------------------------

    def dma_map(self, event: Event, context: Context) -> None:
        failed = event.addr == DMA_MAPPING_ERROR
        lines = [] if failed else self.claim(context, event.addr, event.size)
        bounced = self.bounces.claim(context, event.device, [event.phys])
        index = self.book.add(
            RequestKind.MAP,
            device=event.device,
            time=event.time,
            line=event.line,
            size=event.size,
            served=Served(
                maps=len(lines),
                bounced=0 if failed else bounced,
                moved=event.addr != event.phys
                and not (failed or lines or bounced)
                and self.is_unexplained(event.device),
            ),
            translated=bool(lines),
            censored=failed,
            direction=event.name,
            pieces=((event.phys, event.size),),
        )
        self.book.enter((event.device, event.addr), index, event.time)

    def is_unexplained(self, device: str) -> bool:
        """Whether nothing says why this device is given other addresses than the physical ones."""
        return not self.machine.says_untranslated and not self.machine.device(device).translated

    def dma_unmap(self, event: Event, context: Context) -> None:
        unmapped = self.maps.is_of(context, event.addr)
        self.maps.settle(context)
        index = self.book.leave((event.device, event.addr), event)
        if index is not None and (unmapped or self.book.served[index].maps):
            self.book.served[index].unmaps += 1

    def dma_map_sg(self, event: Event, context: Context) -> None:
        sg = self.trace.table.sg(event.sg)
        lines = self.claim_list(context, sg)
        joined = len(sg.dma_addrs) < len(sg.phys_addrs)
        if lines and (joined or sg.is_cut):
            # Lengths are printed of what the device sees, so only the map lines tell those of the joined pieces.
            pieces = tuple((line.paddr, line.size) for line in lines)
        else:
            pieces = tuple(zip(sg.phys_addrs, sg.sizes, strict=False))
            self.book.unused.ambiguous += sg.is_cut or len(sg.phys_addrs) != len(sg.sizes)
        bounced = self.bounces.claim(context, event.device, sg.phys_addrs)
        index = self.book.add(
            RequestKind.MAP,
            device=event.device,
            time=event.time,
            line=event.line,
            size=sum(size for _, size in pieces) if len(sg.sizes) < sg.ents else sum(sg.sizes),
            served=Served(
                maps=len(lines),
                bounced=bounced,
                moved=sg.dma_addrs != sg.phys_addrs and not (lines or bounced) and self.is_unexplained(event.device),
            ),
            translated=bool(lines),
            direction=event.name,
            pieces=pieces,
        )
        if lines:
            self.iova_of[index] = lines[0].iova
        self.book.enter((event.device, sg.phys_addrs), index, event.time)

    def dma_unmap_sg(self, event: Event, context: Context) -> None:
        self.ended(self.book.leave((event.device, self.trace.table.sg(event.sg).phys_addrs), event), context)

    def dma_map_sg_err(self, event: Event, context: Context) -> None:
        """A list that failed; its lengths aren't printed, so each piece stands for the one byte that is certain."""
        phys_addrs = self.trace.table.sg(event.sg).phys_addrs
        self.bounces.claim(context, event.device, ())
        self.book.unused.ambiguous += 1
        index = self.book.add(
            RequestKind.MAP,
            device=event.device,
            time=event.time,
            line=event.line,
            size=len(phys_addrs),
            served=Served(),
            censored=True,
            direction=event.name,
            pieces=tuple((phys, 1) for phys in phys_addrs),
        )
        self.book.enter((event.device, phys_addrs), index, event.time)

    def swiotlb_bounced(self, event: Event, context: Context) -> None:
        self.bounces.add(context, event.device, event.phys, event.size)

    def dma_sync(self, event: Event, context: Context) -> None:
        """A sync copies only in its own direction, and only what was bounced (swiotlb_sync_single_for_*)."""
        del context
        index = self.book.oldest((event.device, event.addr))
        if index is None:
            return
        for_cpu = event.kind == Kind.DMA_SYNC_CPU
        self.book.syncs.append(Sync(index, for_cpu, event.size))
        self.book.op(OpCode.SYNC, len(self.book.syncs) - 1, event.time)
        copies = "FROM_DEVICE" if for_cpu else "TO_DEVICE"
        if self.book.served[index].bounced and event.name in {copies, "BIDIRECTIONAL"}:
            self.book.served[index].synced += event.size

    # -- coherent memory --------------------------------------------------------------------------------------------

    def dma_alloc(self, event: Event, context: Context) -> None:
        failed = event.extra == 0 or event.size == 0  # which no kernel serves
        lines = [] if failed else self.claim(context, event.addr, event.size)
        page = self.machine.page_size
        calls = self.areas.claim(
            context,
            -(-event.size // page),
            at=(lines[0].paddr if lines else event.addr) // page,
            asks=not lines and event.size > page and may_block(event.flags),
        )
        pfn = next((call.pfn for call in reversed(calls) if call.pfn is not None), None)
        index = self.book.add(
            RequestKind.ALLOC,
            device=event.device,
            time=event.time,
            line=event.line,
            size=event.size,
            served=Served(
                pfn=pfn,
                fell_back=bool(calls) and pfn is None and not failed,
                busy_pfns=tuple(busy for call in calls for busy in call.busy),
                maps=len(lines),
            ),
            translated=bool(lines),
            censored=failed,
            gfp=event.flags,
            direction=event.name,
        )
        if lines:
            self.iova_of[index] = lines[0].iova
        if pfn is not None:
            self.areas.owned(pfn, index)
        self.book.enter(("alloc", event.device, event.extra), index, event.time)

    def dma_free(self, event: Event, context: Context) -> None:
        if event.size == 0 or event.extra == 0:
            self.book.unused.freed_nothing += 1
        else:
            self.ended(self.book.leave(("alloc", event.device, event.extra), event), context)

    # -- the rest ---------------------------------------------------------------------------------------------------

    def flush(self, event: Event, context: Context) -> None:
        """One command to the invalidation queue, or, of a driver that prints none, one flush."""
        del context
        if event.kind != Kind.QI_SUBMIT or event.name == "iotlb_inv":
            self.invalidations = (self.invalidations or 0) + 1

    def mark(self, event: Event, context: Context) -> None:
        mark = parse_mark(event.flags)
        if mark is None:
            return
        if mark.refused:
            self.book.unused.refused_usermaps += 1
        elif not mark.is_map:
            ended = self.usermaps.take(mark.iova, mark.size, line=event.line)
            self.book.unused.unmatched += not ended and mark.unmapped != 0
            for index in ended:
                self.book.served[index].unmaps += 1
                self.book.op(OpCode.END, index, event.time)
        else:
            lines = self.maps.claim(context, mark.iova, mark.iova + mark.size)
            index = self.book.add(
                RequestKind.USERMAP,
                device="",
                time=event.time,
                line=event.line,
                size=mark.size,
                served=Served(maps=len(lines)),
                translated=True,
                iova=mark.iova,
                pieces=tuple((line.paddr, line.size) for line in lines),
            )
            self.book.op(OpCode.BEGIN, index, event.time)
            self.usermaps.add(index, mark.iova, mark.size)

    def claim(self, context: Context, addr: int, size: int) -> list[MapLine]:
        page = self.machine.page_size
        return self.maps.claim(context, align_down(addr, page), align_up(addr + max(size, 1), page))

    def claim_list(self, context: Context, sg: ScatterList) -> list[MapLine]:
        if not sg.dma_addrs:
            return []
        page = self.machine.page_size
        stop = max(addr + size for addr, size in zip(sg.dma_addrs, sg.sizes, strict=False)) if sg.sizes else 0
        # A cut list does not say where it ends; its maps are the newest of the context above its first address.
        is_cut = len(sg.dma_addrs) < sg.ents
        return self.maps.claim(context, align_down(min(sg.dma_addrs), page), _ANYWHERE if is_cut else stop)

    def ended(self, index: int | None, context: Context) -> None:
        """dma_unmap_sg and dma_free print before the unmap they cause."""
        iova = None if index is None else self.iova_of.pop(index, None)
        if index is not None and iova is not None:
            self.maps.expect(context, iova)
            self.book.served[index].unmaps += 1

    def workload(self, start: int, stop: int) -> Workload:
        return Workload(
            name=self.trace.name,
            requests=self.book.requests,
            served=self.book.served,
            ops=[op for op in self.book.ops if op[0] is not OpCode.NOTHING],
            occupancies=self.book.occupancies,
            syncs=self.book.syncs,
            bounce_pool=self.machine.bounce_pool,
            area=self.machine.area,
            system_map=self.machine.system_map,
            profile=self.machine.profile,
            page_size=self.machine.page_size,
            mode=self.machine.mode,
            start_time=start,
            stop_time=stop,
            has_dma_events=self.has_dma,
            invalidations=self.invalidations,
            notes=list(self.trace.notes),
            unused=self.book.unused,
        )
