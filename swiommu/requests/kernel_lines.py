"""Lines that tell how the kernel served its drivers: page-table maps and area allocations.

They are never requests, with the exceptions of rule 2: maps that no dma event covers are one MAP per run, an area
allocation that no dma_alloc covers is background occupancy, and in a trace without dma events both stand for
themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.ranges import RangeSet, joined
from swiommu.requests.workload import Occupancy, OpCode, RequestKind, Served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.requests.book import Book
    from swiommu.trace import Call, Calls, Event

__all__ = ["AreaLines", "MapLines", "busy_pfns", "pfn_of"]


def pfn_of(finish: Event) -> int | None:
    """The first page frame that an area gave, None if it gave nothing.

    >>> from swiommu.trace import Kind, open_bundled
    >>> table = open_bundled("arm64-6.12-cam-cma64M-s81").table
    >>> pfn_of(next(event for event in table if event.kind is Kind.CMA_FINISH)) == 0xb9b00
    True
    """
    return finish.addr if finish.err == 0 and finish.size else None


def busy_pfns(finish: Call) -> tuple[int, ...]:
    """The candidates that an area call found busy, in order."""
    return tuple(retry.event.addr for retry in finish.inside)


class _Own(NamedTuple):
    """A ``map`` line that no call claims, its place among the operations, and from which address on it is mapped."""

    event: Event
    place: int
    iova: int


class MapLines:
    """``iommu:map`` and ``iommu:unmap`` that no dma event covers: a MAP of their own."""

    def __init__(self, book: Book, calls: Calls) -> None:
        self.book = book
        self.calls = calls
        self._own: dict[int, _Own] = {}

    def map(self, call: Call) -> None:
        """A range was entered in some page table."""
        if call.outer < 0 and call.event.size:
            self._own[call.row] = _Own(call.event, self.book.hold(call.event.time), call.event.addr)

    def unmap(self, call: Call) -> None:
        """A range was taken out: what ends here and is no dma event's was a run of maps, or one without such events."""
        ended = [self._own.pop(each.row) for each in call.ended]
        ended.sort(key=lambda line: line.event.addr)
        for lines in self._runs(ended) if ended else ():
            index = self.request(lines, unmaps=1)
            if index is not None:
                self.book.op(OpCode.END, index, call.event.time)

    def finish(self) -> None:
        """End of the trace: what is still mapped is a live MAP, a doorbell or an identity."""
        for left in self.calls.still_mapped:
            for lines in self._runs([self._own[row]._replace(iova=iova) for row, iova in left]):
                if all(each.event.addr == each.event.phys for each in lines) and not self.is_doorbell(lines[0]):
                    self.book.unused.identity_maps += len(lines)
                else:
                    self.request(lines, unmaps=0)

    def _runs(self, lines: list[_Own]) -> Sequence[Sequence[_Own]]:
        """With dma events a run of maps is one request, without them each map is."""
        return [lines] if self.calls.has_dma else [[line] for line in lines]

    def is_doorbell(self, line: _Own) -> bool:
        """Whether it leads elsewhere, to what is known to be no memory."""
        return line.iova != line.event.phys and not self.book.machine.may_be_ram(line.event.phys)

    def request(self, lines: Sequence[_Own], *, unmaps: int) -> int | None:
        """A MAP of an unknown device, begun where its first line stands; None for doorbells."""
        first, place, _ = lines[0]
        if self.is_doorbell(lines[0]):
            self.book.unused.msi_maps += len(lines)
            return None
        self.book.unused.unattributed_maps += 1
        index = self.book.add(
            RequestKind.MAP,
            device="",
            time=first.time,
            line=first.line,
            size=sum(line.event.size for line in lines),
            served=Served(maps=len(lines), unmaps=unmaps),
            translated=True,
            pieces=tuple((line.event.phys, line.event.size) for line in lines),
        )
        self.book.patch(place, OpCode.BEGIN, index)
        return index


class AreaLines:
    """``cma:*`` that no ``dma_alloc`` covers: background occupancy; without any dma events each is an ALLOC."""

    def __init__(self, book: Book, *, has_dma: bool) -> None:
        self.book = book
        self.has_dma = has_dma
        self._by_pfn: dict[int, int] = {}
        self._background: dict[int, int] = {}
        self._in_use = _start_extents(book)

    def done(self, call: Call) -> None:
        """The area answered."""
        event, pfn = call.event, pfn_of(call.event)
        if not self.has_dma:
            index = self.book.add(
                RequestKind.ALLOC,
                device=event.name,
                time=event.time,
                line=event.line,
                size=event.size * self.book.machine.page_size,
                served=Served(pfn=pfn, busy_pfns=busy_pfns(call)),
                censored=pfn is None,
                gfp="GFP_KERNEL",
            )
            self.book.op(OpCode.BEGIN, index, event.time)
            if pfn is not None:
                self._by_pfn[pfn] = index
        elif call.outer < 0 and pfn is not None:
            index = self._note(Occupancy(pfn, event.size, event.extra, busy_pfns(call)))
            self._background[pfn] = index
            self.book.op(OpCode.OCCUPY, index, event.time)

    def owned(self, pfn: int, index: int) -> None:
        """A request holds the pages from ``pfn`` on."""
        self._by_pfn[pfn] = index

    def release(self, call: Call) -> None:
        """Pages go back: a request's, the background's, or those known to be in use since before the recording."""
        event, pfn = call.event, call.event.addr
        index = self._by_pfn.pop(pfn, None)
        if index is not None:
            if not self.has_dma:
                self.book.op(OpCode.END, index, event.time)
        elif pfn in self._background:
            self.book.op(OpCode.VACATE, self._background.pop(pfn), event.time)
        else:
            self._release_start_extent(event)

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
