"""From events to requests: who asked for what, when it ended, and which kernel lines served it (rules 1 to 6).

`workload_of` makes one pass over a trace's events. Ends are paired with begins by (device, address), and where several
are live, by size and direction too, oldest first. Lines that tell how the kernel *served* a call are handled in
`swiommu.requests.kernel_lines`. What cannot be paired is counted, never guessed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Final

from swiommu.errors import InputError
from swiommu.requests.book import Book
from swiommu.requests.kernel_lines import AreaLines, MapLines, busy_pfns, pfn_of
from swiommu.requests.machine import Machine
from swiommu.requests.workload import OpCode, RequestKind, Served, Sync, Workload
from swiommu.trace import DMA_MAPPING_ERROR, Call, Kind, Trace, parse_mark

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["UserMaps", "workload_of"]

_PATIENCE: Final = 10_000_000  # mappings passed by in vain; those of one container don't even overlap

# Events that handlers meet inside of others, and one that the account of the lines has.
_NOT_OTHER = frozenset({Kind.CMA_START, Kind.CMA_BUSY_RETRY, Kind.BOUNCED, Kind.LOST})


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
    """One pass over the calls; a handler per kind."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.machine = Machine(trace.sidecar, trace.path)
        self.book = Book(self.machine)
        self.maps = MapLines(self.book, trace.calls)
        self.areas = AreaLines(self.book, has_dma=trace.calls.has_dma)
        self.usermaps = UserMaps(trace.path)
        self.invalidations: int | None = None

    def run(self) -> Workload:
        handlers: dict[Kind, Callable[[Call], None]] = {
            Kind.DMA_MAP: self.dma_map,
            Kind.DMA_UNMAP: self.dma_unmap,
            Kind.DMA_MAP_SG: self.dma_map_sg,
            Kind.DMA_UNMAP_SG: self.dma_unmap_sg,
            Kind.DMA_MAP_SG_ERR: self.dma_map_sg_err,
            Kind.DMA_ALLOC: self.dma_alloc,
            Kind.DMA_FREE: self.dma_free,
            Kind.IOMMU_MAP: self.maps.map,
            Kind.IOMMU_UNMAP: self.maps.unmap,
            Kind.CMA_FINISH: self.areas.done,
            Kind.CMA_RELEASE: self.areas.release,
            Kind.DMA_SYNC_CPU: self.dma_sync,
            Kind.DMA_SYNC_DEVICE: self.dma_sync,
            Kind.MARK: self.mark,
        }
        if Kind.QI_SUBMIT in self.trace.table.kinds():
            handlers[Kind.QI_SUBMIT] = self.flush
        else:
            handlers |= {Kind.FLUSH_RANGE: self.flush, Kind.FLUSH_ALL: self.flush}
        table = self.trace.table
        known = {*handlers, *_NOT_OTHER}
        self.book.unused.other_events += sum(n for kind, n in table.counts().items() if kind not in known)
        for call in self.trace.calls.of(known):
            handler = handlers.get(call.event.kind)
            if handler is not None:
                handler(call)
        self.maps.finish()
        return self.workload(min(table.time, default=0), max(table.time, default=0))

    # -- streaming DMA ----------------------------------------------------------------------------------------------

    def dma_map(self, call: Call) -> None:
        event, failed = call.event, call.event.addr == DMA_MAPPING_ERROR
        maps, bounced = len(call.inside_of(Kind.IOMMU_MAP)), bytes_bounced(call)
        index = self.book.add(
            RequestKind.MAP,
            device=event.device,
            time=event.time,
            line=event.line,
            size=event.size,
            served=Served(
                maps=maps,
                bounced=0 if failed else bounced,
                moved=event.addr != event.phys
                and not (failed or maps or bounced)
                and self.is_unexplained(event.device),
            ),
            translated=maps > 0,
            censored=failed,
            direction=event.name,
            pieces=((event.phys, event.size),),
        )
        self.book.enter((event.device, event.addr), index, event.time)

    def is_unexplained(self, device: str) -> bool:
        """Whether nothing says why this device is given other addresses than the physical ones."""
        return not self.machine.says_untranslated and not self.machine.device(device).translated

    def dma_unmap(self, call: Call) -> None:
        event = call.event
        index = self.book.leave((event.device, event.addr), event)
        if index is not None and (call.inside or self.book.served[index].maps):
            self.book.served[index].unmaps += 1

    def dma_map_sg(self, call: Call) -> None:
        event, sg = call.event, self.trace.table.sg(call.event.sg)
        lines = [inner.event for inner in call.inside_of(Kind.IOMMU_MAP)]
        joined = len(sg.dma_addrs) < len(sg.phys_addrs)
        if lines and (joined or sg.is_cut):
            # Lengths are printed of what the device sees, so only the map lines tell those of the joined pieces.
            pieces = tuple((line.phys, line.size) for line in lines)
        else:
            pieces = tuple(zip(sg.phys_addrs, sg.sizes, strict=False))
            self.book.unused.ambiguous += sg.is_cut or len(sg.phys_addrs) != len(sg.sizes)
        bounced = bytes_bounced(call)
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
        self.book.enter((event.device, sg.phys_addrs), index, event.time)

    def dma_unmap_sg(self, call: Call) -> None:
        event = call.event
        self.ended(self.book.leave((event.device, self.trace.table.sg(event.sg).phys_addrs), event))

    def dma_map_sg_err(self, call: Call) -> None:
        """A list that failed; its lengths aren't printed, so each piece stands for the one byte that is certain."""
        event = call.event
        phys_addrs = self.trace.table.sg(event.sg).phys_addrs
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

    def dma_sync(self, call: Call) -> None:
        """A sync copies only in its own direction, and only what was bounced (swiotlb_sync_single_for_*)."""
        event = call.event
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

    def dma_alloc(self, call: Call) -> None:
        event, maps, answers = call.event, len(call.inside_of(Kind.IOMMU_MAP)), call.inside_of(Kind.CMA_FINISH)
        failed = event.extra == 0 or event.size == 0  # which no kernel serves
        pfn = next((pfn for answer in reversed(answers) if (pfn := pfn_of(answer.event)) is not None), None)
        index = self.book.add(
            RequestKind.ALLOC,
            device=event.device,
            time=event.time,
            line=event.line,
            size=event.size,
            served=Served(
                pfn=pfn,
                fell_back=bool(answers) and pfn is None and not failed,
                busy_pfns=tuple(busy for answer in answers for busy in busy_pfns(answer)),
                maps=maps,
            ),
            translated=maps > 0,
            censored=failed,
            gfp=event.flags,
            direction=event.name,
        )
        if pfn is not None:
            self.areas.owned(pfn, index)
        self.book.enter(("alloc", event.device, event.extra), index, event.time)

    def dma_free(self, call: Call) -> None:
        event = call.event
        if event.size == 0 or event.extra == 0:
            self.book.unused.freed_nothing += 1
        else:
            self.ended(self.book.leave(("alloc", event.device, event.extra), event))

    # -- the rest ---------------------------------------------------------------------------------------------------

    def flush(self, call: Call) -> None:
        """One command to the invalidation queue, or, of a driver that prints none, one flush."""
        if call.event.kind != Kind.QI_SUBMIT or call.event.name == "iotlb_inv":
            self.invalidations = (self.invalidations or 0) + 1

    def mark(self, call: Call) -> None:
        event = call.event
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
            lines = [inner.event for inner in call.inside]
            index = self.book.add(
                RequestKind.USERMAP,
                device="",
                time=event.time,
                line=event.line,
                size=mark.size,
                served=Served(maps=len(lines)),
                translated=True,
                iova=mark.iova,
                pieces=tuple((line.phys, line.size) for line in lines),
            )
            self.book.op(OpCode.BEGIN, index, event.time)
            self.usermaps.add(index, mark.iova, mark.size)

    def ended(self, index: int | None) -> None:
        """A list or memory ends: what was mapped for it is unmapped at once."""
        if index is not None and self.book.served[index].maps:
            self.book.served[index].unmaps += 1

    def workload(self, start: int, stop: int) -> Workload:
        return Workload(
            name=self.trace.name,
            path=self.trace.path,
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
            has_dma_events=self.trace.calls.has_dma,
            invalidations=self.invalidations,
            notes=list(self.trace.notes),
            unused=self.book.unused,
        )


def bytes_bounced(call: Call) -> int:
    """Bytes that went through the bounce pool for a call."""
    return sum(inner.event.size for inner in call.inside_of(Kind.BOUNCED))


class UserMaps:
    """Live user mappings by iova; an unmap ends every mapping inside its range (VFIO never cuts one).

    Those of several containers may overlap. ``path`` is the trace's, for the refusal of one where they overlap so much
    that it could not be followed to its end.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._maps: list[tuple[int, int, int]] = []  # first and stop address, request
        self._passed = 0

    def add(self, index: int, iova: int, size: int) -> None:
        """Request ``index`` maps [iova, iova + size)."""
        insort(self._maps, (iova, iova + size, index))

    def take(self, iova: int, size: int, *, line: int | None = None) -> list[int]:
        """The requests that an unmap of [iova, iova + size) ends, by iova; ``line`` is where it stands."""
        first, last = bisect_left(self._maps, (iova,)), bisect_left(self._maps, (iova + size,))
        begun = self._maps[first:last]
        kept = [each for each in begun if each[1] > iova + size]
        self._passed += len(kept)
        if self._passed > _PATIENCE:
            raise InputError("so many user mappings overlap that they can't be followed", path=self._path, line=line)
        self._maps[first:last] = kept
        return [index for _, stop, index in begun if stop <= iova + size]
