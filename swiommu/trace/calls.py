"""Kernel calls from events: which event began a call, which ended it, and in which other call it happened.

A trace has one line per event, and a call has several: a ``cma_alloc`` its start, its busy retries and its finish; a
``dma_alloc`` the area call and the ``map`` lines that served it. `Calls` finds out once, for all who read a trace,
which belong together; what a reader makes of a call is its own. Events of one `Context` follow each other as its calls
do, so everything is matched within one. What contradicts is not matched: an end without a begin has none, and a begin
whose end was lost has no end.

These relations are known, each as the number of a row (from 0), -1 for none in the trace:

``begin``  of a busy retry and a finish the ``cma_alloc_start``; of the return of a probe its call; of a ``map`` and an
           ``unmap`` the probe line of the call that did it
``end``    of a ``cma_alloc_start`` its finish; of a probed call its return; of a ``map`` that no call claims the
           ``unmap`` that took its last page
``outer``  of a ``map``, a finish and a bounce the dma event (or the mark of user space) that they served; of a busy
           retry its finish; of an ``unmap`` the dma event that caused it, which stands behind it (``dma_unmap_page``)
           or before it (``dma_unmap_sg``, ``dma_free``); of a flush, a command and a freed bus address the ``unmap``,
           or the flush of everything, that they follow
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from itertools import compress
from typing import TYPE_CHECKING, Final, NamedTuple

from swiommu.address import PAGE_SIZE, align_down, align_up
from swiommu.trace.events import Kind
from swiommu.trace.marks import parse_mark
from swiommu.trace.table import DMA_MAPPING_ERROR, Event, EventTable, ScatterList
from swiommu.trace.waiting import AreaCall, AreaLedger, MapLedger, MapLine

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

__all__ = ["DMA_KINDS", "MAP_PROBES", "Call", "Calls", "is_flush_all", "may_block"]

DMA_KINDS: Final = frozenset(
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
"""Events of the calls that drivers make; no kernel before 6.12 prints them."""

MAP_PROBES: Final = frozenset({Kind.IOMMU_MAP_CALL, Kind.IOMMU_MAP_NOSYNC_CALL, Kind.IOMMU_MAP_SG_CALL})
"""Probe lines of the functions that map a range in a domain."""

_EVERYTHING: Final = (1 << 64) - 1
_ANYWHERE: Final = 1 << 64  # above every bus address
_NONE: Final = -1
_UNKNOWN: Final = -2
# Events that an unmap causes: they stand between it and the dma event behind it.
_OF_UNMAP: Final = frozenset({Kind.FLUSH_RANGE, Kind.QI_SUBMIT, Kind.IOVA_FREE, Kind.IOMMU_UNMAP_CALL})

# gfp names that carry __GFP_DIRECT_RECLAIM: the allocation may sleep, so the area may serve it.
_BLOCKING: Final = frozenset(
    {
        "GFP_KERNEL",
        "GFP_KERNEL_ACCOUNT",
        "GFP_NOIO",
        "GFP_NOFS",
        "GFP_USER",
        "GFP_HIGHUSER",
        "GFP_HIGHUSER_MOVABLE",
        "GFP_TRANSHUGE",
        "__GFP_RECLAIM",
        "__GFP_DIRECT_RECLAIM",
    }
)


def may_block(gfp: str) -> bool:
    """Whether an allocation with these printed gfp flags may sleep (the kernel's ``gfpflags_allow_blocking``).

    >>> may_block("GFP_KERNEL|__GFP_NOWARN"), may_block("GFP_ATOMIC"), may_block("GFP_NOWAIT")
    (True, False, False)
    """
    return any(word in _BLOCKING for word in gfp.split("|"))


def is_flush_all(event: Event) -> bool:
    """Whether a domain is flushed as a whole; 7.3 prints it as a range of everything.

    >>> from swiommu.trace import open_bundled
    >>> any(is_flush_all(event) for event in open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89").table)
    False
    """
    return event.kind is Kind.FLUSH_ALL or (
        event.kind is Kind.FLUSH_RANGE and event.addr == 0 and event.phys == _EVERYTHING
    )


class Call(NamedTuple):
    """One event, with the rows of those that began, ended and caused it, and the calls that it completes.

    ``inside`` are the calls that happened in this one and stand before it; ``ended`` those that end with this event
    (of a finish its start, of an ``unmap`` the maps that no other call claims). Both are in the trace's order.
    """

    row: int
    event: Event
    begin: int
    end: int
    outer: int
    inside: Sequence[Call] = ()
    ended: Sequence[Call] = ()

    def inside_of(self, kind: Kind) -> list[Call]:
        """The calls of one kind that happened in this one.

        >>> from swiommu.trace import Kind, open_bundled
        >>> calls = Calls(open_bundled("arm64-6.12-cam-cma64M-s81").table)
        >>> alloc = next(call for call in calls if call.event.kind is Kind.DMA_ALLOC)
        >>> [hex(call.event.addr) for call in alloc.inside_of(Kind.CMA_FINISH)]
        ['0xb9b00']
        """
        return [call for call in self.inside if call.event.kind is kind]


class Calls:
    """The calls of a table; iterate it for a `Call` per event, in the trace's order, as often as needed.

    ``begin``, ``end`` and ``outer`` hold a number per row, ``still_mapped`` the maps that nothing claims or ends, each
    with the address from which on it is left, in runs of neighbours that one context made. ``has_dma``: whether the
    table has events of drivers' calls.

    >>> from swiommu.trace import Kind, open_bundled
    >>> calls = Calls(open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89").table)
    >>> mapped = next(call for call in calls if call.event.kind is Kind.DMA_MAP_SG)
    >>> [(inner.event.kind.name, inner.outer == mapped.row) for inner in mapped.inside[:2]]
    [('IOMMU_MAP', True), ('IOMMU_MAP', True)]
    """

    def __init__(self, table: EventTable) -> None:
        self.table = table
        none = array("i", [_NONE])
        self.begin, self.end, self.outer = none * len(table), none * len(table), none * len(table)
        self.has_dma = not DMA_KINDS.isdisjoint(table.kinds())
        self.still_mapped = _Reader(self).read()

    def __iter__(self) -> Iterator[Call]:
        return self.of(list(Kind))

    def of(self, kinds: Collection[Kind]) -> Iterator[Call]:
        """The calls of some kinds only, also among those inside of others; what is left out costs next to nothing.

        >>> from swiommu.trace import Kind, open_bundled
        >>> calls = Calls(open_bundled("arm64-6.12-cam-cma64M-s81").table)
        >>> [call.event.line for call in calls.of({Kind.DMA_ALLOC})][:3]
        [18, 21, 24]
        """
        selected = self.table.selects(kinds)
        rows = zip(range(len(self.table)), self.begin, self.end, self.outer, strict=True)
        inside: dict[int, list[Call]] = {}
        ended: dict[int, list[Call]] = {}
        completes = bytearray(len(self.table))  # whether anything is inside of a row or ends there
        make = tuple.__new__
        for event, (row, begin, end, outer) in zip(self.table.of(kinds), compress(rows, selected), strict=True):
            call: Call
            if completes[row]:
                fields = (row, event, begin, end, outer, inside.pop(row, ()), ended.pop(row, ()))
                call = make(Call, fields)
            else:
                call = make(Call, (row, event, begin, end, outer, (), ()))
            if outer > row and selected[outer]:
                inside.setdefault(outer, []).append(call)
                completes[outer] = 1
            if end > row and selected[end]:
                ended.setdefault(end, []).append(call)
                completes[end] = 1
            yield call


class _Context:
    """What one line of execution is in the middle of, as rows."""

    __slots__ = ("area", "bounces", "expected", "iova", "probe", "retries", "slow", "trigger", "unmap", "unmap_probe")

    def __init__(self) -> None:
        self.area = self.iova = self.slow = _NONE
        self.probe = self.unmap_probe = self.unmap = self.trigger = _NONE
        self.expected: tuple[int, int] | None = None  # the dma event whose unmap comes next, and where that begins
        self.retries: list[int] = []
        self.bounces: list[int] = []


class _Reader:
    """Goes over the table once and fills in the relations."""

    def __init__(self, calls: Calls) -> None:
        self.table, self.has_dma = calls.table, calls.has_dma
        self.begin, self.end, self.outer = calls.begin, calls.end, calls.outer
        self.maps, self.areas = MapLedger(), AreaLedger()
        # Lists that are mapped, by device and pieces: where each begins on the bus, the oldest first.
        self.lists: dict[tuple[int, tuple[int, ...]], deque[int]] = {}

    def read(self) -> list[list[tuple[int, int]]]:
        """Fill in everything; the rows of maps that are left and from which address on, in runs."""
        known: dict[Kind, Callable[[int, _Context], None]] = {
            Kind.DMA_MAP: self.dma_map,
            Kind.DMA_UNMAP: self.dma_unmap,
            Kind.DMA_MAP_SG: self.dma_map_sg,
            Kind.DMA_UNMAP_SG: self.dma_unmap_sg,
            Kind.DMA_MAP_SG_ERR: self.dma_map_sg_err,
            Kind.DMA_ALLOC: self.dma_alloc,
            Kind.DMA_FREE: self.dma_free,
            Kind.IOMMU_MAP: self.map,
            Kind.IOMMU_UNMAP: self.unmap,
            Kind.IOMMU_UNMAP_CALL: self.unmap_call,
            Kind.FLUSH_RANGE: self.flush,
            Kind.FLUSH_ALL: self.flush_all,
            Kind.QI_SUBMIT: self.command,
            Kind.CMA_START: self.area_start,
            Kind.CMA_BUSY_RETRY: self.area_retry,
            Kind.CMA_FINISH: self.area_finish,
            Kind.CMA_RELEASE: self.area_release,
            Kind.BOUNCED: self.bounced,
            Kind.MARK: self.mark,
            Kind.IOVA_ALLOC: self.iova_alloc,
            Kind.IOVA_ALLOC_RET: self.iova_alloc_ret,
            Kind.IOVA_SLOW: self.iova_slow,
            Kind.IOVA_SLOW_RET: self.iova_slow_ret,
            Kind.IOVA_FREE: self.iova_free,
            **dict.fromkeys(MAP_PROBES, self.map_call),
        }
        handlers = [known.get(kind) for kind in Kind]
        ends_trigger = [kind not in _OF_UNMAP for kind in Kind]
        closes = [kind not in _OF_UNMAP and kind is not Kind.DMA_UNMAP for kind in Kind]
        contexts: dict[tuple[int, int, int], _Context] = {}
        table = self.table
        for row, (kind, cpu, pid, level) in enumerate(zip(table.kind, table.cpu, table.pid, table.level, strict=True)):
            if kind == Kind.LOST:
                continue
            context = contexts.get((cpu, pid, level))
            if context is None:
                context = contexts[cpu, pid, level] = _Context()
            if context.unmap >= 0 and closes[kind]:
                self.close(context)
            if ends_trigger[kind]:
                context.trigger = _NONE
            handler = handlers[kind]
            if handler is not None:
                handler(row, context)
        for context in contexts.values():
            self.close(context)
        return [[(line.row, line.iova) for line in run] for run in self.maps.runs()]

    # -- page tables

    def map_call(self, row: int, context: _Context) -> None:
        context.probe = row

    def map(self, row: int, context: _Context) -> None:
        iova, size, probe = self.table.addr[row], self.table.size[row], context.probe
        if probe >= 0 and self.table.addr[probe] <= iova:
            self.begin[row] = probe
        if size:
            self.maps.add(MapLine(row, iova, size, context))

    def unmap_call(self, row: int, context: _Context) -> None:
        context.unmap_probe = row

    def unmap(self, row: int, context: _Context) -> None:
        iova, probe = self.table.addr[row], context.unmap_probe
        context.unmap_probe = _NONE
        if probe >= 0 and self.table.addr[probe] == iova:
            self.begin[row] = probe
        expected, context.expected = context.expected, None
        if expected is not None and expected[1] in {iova, _UNKNOWN}:
            self.outer[row] = expected[0]
        context.unmap = context.trigger = row
        if not self.has_dma:
            self.take_out(row)

    def close(self, context: _Context) -> None:
        """All is known that stands beside the last unmap; without a dma event it ends maps without one."""
        row, context.unmap = context.unmap, _NONE
        if row >= 0 and self.has_dma and self.outer[row] < 0:
            self.take_out(row)

    def take_out(self, row: int) -> None:
        for line in self.maps.unmap(self.table.addr[row], self.table.size[row], row=row):
            self.end[line.row] = row

    def claim(self, row: int, context: _Context, start: int, stop: int) -> list[MapLine]:
        """Maps of this context from ``start`` on are those of the call at ``row``."""
        lines = self.maps.claim(context, start, stop)
        for line in lines:
            self.outer[line.row] = row
        return lines

    # -- what an unmap causes

    def flush(self, row: int, context: _Context) -> None:
        self.outer[row] = context.unmap
        if self.table.addr[row] == 0 and self.table.phys[row] == _EVERYTHING:
            context.trigger = row

    def flush_all(self, row: int, context: _Context) -> None:
        context.trigger = row

    def command(self, row: int, context: _Context) -> None:
        self.outer[row] = context.unmap

    def iova_free(self, row: int, context: _Context) -> None:
        self.outer[row] = context.trigger

    # -- streaming DMA

    def dma_map(self, row: int, context: _Context) -> None:
        addr, size = self.table.addr[row], self.table.size[row]
        if addr != DMA_MAPPING_ERROR:
            self.claim(row, context, align_down(addr, PAGE_SIZE), align_up(addr + max(size, 1), PAGE_SIZE))
        self.claim_bounces(row, context, (self.table.phys[row],))
        context.probe = _NONE

    def dma_unmap(self, row: int, context: _Context) -> None:
        unmap = context.unmap
        if unmap >= 0 and 0 <= self.table.addr[row] - self.table.addr[unmap] < self.table.size[unmap]:
            self.outer[unmap] = row
        self.close(context)

    def dma_map_sg(self, row: int, context: _Context) -> None:
        printed = self.table.sg(self.table.sg_index[row])
        lines = self.claim(row, context, *_range_of(printed)) if printed.dma_addrs else []
        self.claim_bounces(row, context, printed.phys_addrs)
        key = self.table.device[row], printed.phys_addrs
        self.lists.setdefault(key, deque()).append(lines[0].iova if lines else _NONE)
        context.probe = _NONE

    def dma_unmap_sg(self, row: int, context: _Context) -> None:
        key = self.table.device[row], self.table.sg(self.table.sg_index[row]).phys_addrs
        mapped = self.lists.get(key)
        iova = mapped.popleft() if mapped else _UNKNOWN
        if not mapped:
            self.lists.pop(key, None)
        context.expected = (row, iova)

    def dma_map_sg_err(self, row: int, context: _Context) -> None:
        self.claim_bounces(row, context, ())

    def bounced(self, row: int, context: _Context) -> None:
        context.bounces.append(row)

    def claim_bounces(self, row: int, context: _Context, pieces: Sequence[int]) -> None:
        """Bounces of these pieces served the call at ``row``; what else waits was of one that failed without a line."""
        if not context.bounces:
            return
        wanted = Counter(pieces)
        for bounce in reversed(context.bounces):
            phys = self.table.phys[bounce]
            if self.table.device[bounce] == self.table.device[row] and wanted[phys]:
                wanted[phys] -= 1
                self.outer[bounce] = row
        context.bounces.clear()

    # -- coherent memory

    def dma_alloc(self, row: int, context: _Context) -> None:
        table = self.table
        addr, size, lines = table.addr[row], table.size[row], []
        if table.extra[row] and size:
            lines = self.claim(row, context, align_down(addr, PAGE_SIZE), align_up(addr + size, PAGE_SIZE))
        calls = self.areas.claim(
            context,
            -(-size // PAGE_SIZE),
            at=(table.phys[lines[0].row] if lines else addr) // PAGE_SIZE,
            asks=not lines and size > PAGE_SIZE and may_block(table.names[table.flags[row]]),
        )
        for call in calls:
            self.outer[call.row] = row
        context.probe = _NONE

    def dma_free(self, row: int, context: _Context) -> None:
        if self.table.size[row] and self.table.extra[row]:
            context.expected = (row, align_down(self.table.addr[row], PAGE_SIZE))

    # -- the area

    def area_start(self, row: int, context: _Context) -> None:
        self.areas.start(context)
        context.area = row
        context.retries.clear()

    def area_retry(self, row: int, context: _Context) -> None:
        self.begin[row] = self.area_of(row, context)
        context.retries.append(row)

    def area_finish(self, row: int, context: _Context) -> None:
        start, context.area = self.area_of(row, context), _NONE
        self.begin[row] = start
        if start >= 0:
            self.end[start] = row
        for retry in context.retries:
            self.outer[retry] = row
        context.retries.clear()
        served = self.table.err[row] == 0 and self.table.size[row]
        pfn = self.table.addr[row] if served else None
        self.areas.finish(AreaCall(row, self.table.size[row], pfn, context))

    def area_of(self, row: int, context: _Context) -> int:
        """The start that this event goes on from: one of the same area."""
        start = context.area
        return start if start >= 0 and self.table.name[start] == self.table.name[row] else _NONE

    def area_release(self, row: int, context: _Context) -> None:
        del context
        self.areas.take(self.table.addr[row])

    # -- bus addresses and user space

    def iova_alloc(self, row: int, context: _Context) -> None:
        context.iova = row

    def iova_alloc_ret(self, row: int, context: _Context) -> None:
        start, context.iova = context.iova, _NONE
        self.returned(start, row)

    def iova_slow(self, row: int, context: _Context) -> None:
        context.slow = row

    def iova_slow_ret(self, row: int, context: _Context) -> None:
        start, context.slow = context.slow, _NONE
        self.returned(start, row)

    def returned(self, start: int, row: int) -> None:
        if start >= 0:
            self.begin[row], self.end[start] = start, row

    def mark(self, row: int, context: _Context) -> None:
        mark = parse_mark(self.table.names[self.table.flags[row]])
        if mark is not None and mark.is_map and not mark.refused:
            self.claim(row, context, mark.iova, mark.iova + mark.size)


def _range_of(printed: ScatterList) -> tuple[int, int]:
    """The bus addresses of a list, from its first page to behind its last byte."""
    stop = _ANYWHERE
    # A cut list does not say where it ends; its maps are the newest of the context above its first address.
    if len(printed.dma_addrs) >= printed.ents:
        sizes = zip(printed.dma_addrs, printed.sizes, strict=False)
        stop = max(addr + size for addr, size in sizes) if printed.sizes else 0
    return align_down(min(printed.dma_addrs), PAGE_SIZE), stop
