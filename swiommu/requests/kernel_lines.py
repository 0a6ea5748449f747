"""Lines that tell how the kernel served its drivers: page-table maps and area allocations.

They are never requests, with the exceptions of rule 2: maps that no dma event covers are one MAP per run, an area
allocation that no dma_alloc covers is background occupancy, and in a trace without dma events both stand for
themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.ranges import RangeSet, joined
from swiommu.requests.waiting import AreaCall, AreaLedger, MapLedger, MapLine
from swiommu.requests.workload import Occupancy, OpCode, RequestKind, Served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.requests.book import Book
    from swiommu.trace import Context, Event

__all__ = ["AreaLines", "MapLines"]


class MapLines:
    """``iommu:map`` and ``iommu:unmap``: claimed by the dma event beside them, or a MAP of their own."""

    def __init__(self, book: Book, *, has_dma: bool) -> None:
        self.book = book
        self.has_dma = has_dma
        self._ledger = MapLedger()
        self._expected: dict[Context, int] = {}
        self._held: dict[Context, tuple[Event, int]] = {}

    def map(self, event: Event, context: Context) -> None:
        """A range was entered in some page table; the call that wanted it prints later."""
        place = self.book.hold(event.time)
        if event.size:
            line = MapLine(event.addr, event.size, event.phys, event.size, context, place, event.time, event.line)
            self._ledger.add(line)

    def unmap(self, event: Event, context: Context) -> None:
        """A range was taken out: by the call just seen, by the one about to print, or by nobody's call."""
        if self._expected.pop(context, None) == event.addr or not self._ledger.knows(event.addr):
            return
        if self.has_dma:
            # The unmap of a dma_unmap_page comes just before it: this context's next event tells.
            self._held[context] = (event, self.book.hold(event.time))
        else:
            for line in self._ledger.unmap(event.addr, event.size, place=len(self.book.ops)):
                index = self.request([line], unmaps=1)
                if index is not None:
                    self.book.op(OpCode.END, index, event.time)

    def claim(self, context: Context, start: int, stop: int) -> list[MapLine]:
        """The lines that served a call, as `MapLedger.claim`."""
        return self._ledger.claim(context, start, stop)

    def expect(self, context: Context, iova: int) -> None:
        """dma_unmap_sg and dma_free print before the unmap that they cause."""
        self._expected[context] = iova

    def is_of(self, context: Context, addr: int) -> bool:
        """Whether the unmap held back in this context was for this bus address; if so it is settled."""
        held = self._held.get(context)
        if held is None or not held[0].addr <= addr < held[0].addr + held[0].size:
            return False
        del self._held[context]
        return True

    def settle(self, context: Context) -> None:
        """The unmap held back here belonged to no dma event: it ends a run of maps of its own."""
        held = self._held.pop(context, None)
        if held is None:
            return
        event, place = held
        ended = self._ledger.unmap(event.addr, event.size, place=place)
        index = self.request(ended, unmaps=1) if ended else None
        if index is not None:
            self.book.patch(place, OpCode.END, index)

    def finish(self) -> None:
        """End of the trace: held unmaps are settled, what is still mapped is a live MAP, a doorbell or an identity."""
        for context in list(self._held):
            self.settle(context)
        for run in list(self._ledger.runs()):
            for lines in [run] if self.has_dma else [[line] for line in run]:
                self.request(lines, unmaps=0)

    def request(self, lines: Sequence[MapLine], *, unmaps: int) -> int | None:
        """A MAP of an unknown device, begun where its first line stands; None for doorbells and identity ranges."""
        first, unused = lines[0], self.book.unused
        if first.iova != first.paddr and not self.book.machine.may_be_ram(first.paddr):
            unused.msi_maps += len(lines)
            return None
        if all(line.iova + line.left - line.size == line.paddr for line in lines):
            unused.identity_maps += len(lines)
            return None
        unused.unattributed_maps += 1
        index = self.book.add(
            RequestKind.MAP,
            device="",
            time=first.time,
            line=first.line,
            size=sum(line.size for line in lines),
            served=Served(maps=len(lines), unmaps=unmaps),
            translated=True,
            pieces=tuple((line.paddr, line.size) for line in lines),
        )
        self.book.patch(first.place, OpCode.BEGIN, index)
        return index


class AreaLines:
    """``cma:*``: claimed by the dma_alloc that follows in the same context, or background occupancy."""

    def __init__(self, book: Book, *, has_dma: bool) -> None:
        self.book = book
        self.has_dma = has_dma
        self._ledger = AreaLedger()
        self._by_pfn: dict[int, int] = {}
        self._background: dict[int, int] = {}
        self._in_use = _start_extents(book)

    def start(self, event: Event, context: Context) -> None:
        """A new call: what this context left unclaimed was nobody's."""
        del event
        for call in self._ledger.start(context):
            self._occupy(call)

    def retry(self, event: Event, context: Context) -> None:
        """A candidate was busy."""
        self._ledger.retry(context, event.addr)

    def done(self, event: Event, context: Context) -> None:
        """The area answered; without dma events that is an ALLOC in itself."""
        pfn = event.addr if event.err == 0 and event.size else None
        place = self.book.hold(event.time)
        call = self._ledger.finish(context, count=event.size, align=event.extra, pfn=pfn, place=place)
        if self.has_dma:
            return
        self._ledger.claim(context, event.size, at=event.addr, asks=True)
        index = self.book.add(
            RequestKind.ALLOC,
            device=event.name,
            time=event.time,
            line=event.line,
            size=event.size * self.book.machine.page_size,
            served=Served(pfn=pfn, busy_pfns=call.busy),
            censored=pfn is None,
            gfp="GFP_KERNEL",
        )
        self.book.patch(place, OpCode.BEGIN, index)
        if pfn is not None:
            self._by_pfn[pfn] = index

    def claim(self, context: Context, pages: int, *, at: int, asks: bool) -> list[AreaCall]:
        """The calls made for a dma_alloc, as `AreaLedger.claim`; others that waited here were background."""
        mine, others = self._ledger.claim(context, pages, at=at, asks=asks)
        for call in others:
            self._occupy(call)
        return mine

    def owned(self, pfn: int, index: int) -> None:
        """A request holds the pages from ``pfn`` on."""
        self._by_pfn[pfn] = index

    def release(self, event: Event, context: Context) -> None:
        """Pages go back: a request's, the background's, or those known to be in use since before the recording."""
        del context
        pfn = event.addr
        index = self._by_pfn.pop(pfn, None)
        if index is not None:
            if not self.has_dma:
                self.book.op(OpCode.END, index, event.time)
            return
        if pfn not in self._background:
            waiting = self._ledger.take(pfn)
            if waiting is not None:
                self._occupy(waiting)
        if pfn in self._background:
            self.book.op(OpCode.VACATE, self._background.pop(pfn), event.time)
        else:
            self._release_start_extent(event)

    def finish(self) -> None:
        """End of the trace: what nobody claimed was background."""
        for call in self._ledger.rest():
            self._occupy(call)

    def _occupy(self, call: AreaCall) -> None:
        if call.pfn is None:
            return
        index = self._note(Occupancy(call.pfn, call.count, call.align, call.busy))
        self._background[call.pfn] = index
        self.book.patch(call.place, OpCode.OCCUPY, index)

    def _release_start_extent(self, event: Event) -> None:
        """Pages in use when the recording began go back once; any other release has no begin and changes nothing."""
        first, stop = event.addr, event.addr + event.size
        held = self._in_use.at(first)
        if first == stop or held is None or stop > held[1]:
            area = self.book.machine.area
            self.book.unused.unmatched += 1
            self.book.unused.unmatched_releases += area is not None and first in area
            return
        self._in_use.cut(first, stop)
        index = self._note(Occupancy(first, event.size, 0, was_start_extent=True))
        self.book.op(OpCode.VACATE, index, event.time)

    def _note(self, occupancy: Occupancy) -> int:
        self.book.occupancies.append(occupancy)
        return len(self.book.occupancies) - 1


def _start_extents(book: Book) -> RangeSet:
    """The page frames of the area that the sidecar says were in use when the recording began."""
    area, in_use = book.machine.area, RangeSet()
    if area is not None:
        for first, stop in joined((offset, offset + count) for offset, count in area.start_extents or ()):
            in_use.add(area.base_pfn + first, area.base_pfn + stop)
    return in_use
