"""What the bus address allocators of a recording were asked, in order, with the frees that the probes missed put back.

A probe is blind while its CPU handles another one, so calls made in an interrupt that hits a probe are not recorded. A
tracepoint is never missed: each ``unmap`` tells of a free. In strict mode that free follows at once. In lazy mode the
range waits in the ring of its CPU until a flush of everything (`swiommu.iommu.FlushQueue` has the rules): the frees
that a flush causes come out in the order of the rings, so those that are missing can be told, and where they belong.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import attrs

from swiommu.address import PAGE_SIZE
from swiommu.iommu import FlushQueue
from swiommu.trace import Context, Event, EventTable, Kind
from swiommu.verify.timeline import is_flush_all

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = ["IovaCall", "read_calls"]

_Range: TypeAlias = tuple[int, int]

_RING: Final = FlushQueue.SIZE - 1
_DMA_MAPS: Final = frozenset({Kind.DMA_MAP, Kind.DMA_MAP_SG, Kind.DMA_ALLOC})
_MAP_CALLS: Final = frozenset({Kind.IOMMU_MAP_CALL, Kind.IOMMU_MAP_NOSYNC_CALL, Kind.IOMMU_MAP_SG_CALL})
_IN_BETWEEN: Final = frozenset({Kind.FLUSH_RANGE, Kind.QI_SUBMIT})  # between an unmap, its flush and its frees


class IovaCall(NamedTuple):
    """One call, or (``IOVA_ALLOC_RET``) its answer.

    ``pfn`` and ``size`` are in pages: of a free its range, of an allocation the size and the highest pfn, of a
    reservation the first and the last pfn (in ``size``), of an init the lowest pfn and the granule in bytes.
    """

    kind: Kind
    line: int
    time: int
    context: Context
    iovad: int
    pfn: int
    size: int
    flush: bool = False


def read_calls(table: EventTable) -> list[IovaCall]:
    """Every call to every allocator, missed frees restored; empty if the recording has no probe lines.

    >>> from swiommu.trace import read_trace
    >>> read_calls(read_trace("arm64-6.12-cam-cma64M-s81").table)
    []
    """
    if not table.count(Kind.IOVA_ALLOC):
        return []
    return _Reader(table).read()


def _survey(table: EventTable) -> tuple[bool, dict[int, int]]:
    """Whether frees follow their unmaps at once (strict), and which allocator each flushed domain id belongs to."""
    last: dict[Context, Event] = {}
    following, frees = 0, 0
    allocator_of: dict[int, int] = {}
    for event in table:
        context = event.context
        if event.kind is Kind.IOVA_FREE:
            frees += 1
            before = last.pop(context, None)
            if before is not None and before.kind is Kind.IOMMU_UNMAP:
                following += before.addr == event.addr * PAGE_SIZE
            elif before is not None:
                allocator_of.setdefault(before.extra, event.extra)
        elif event.kind is Kind.IOMMU_UNMAP or is_flush_all(event):
            last[context] = event
        elif event.kind not in _IN_BETWEEN:
            last.pop(context, None)
    return 2 * following > frees, allocator_of


class _Live:
    """Which ranges of pages are allocated, and of which allocator."""

    def __init__(self) -> None:
        self._pages: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self._owners: defaultdict[_Range, dict[int, None]] = defaultdict(dict)

    def given(self, iovad: int, pfn: int, pages: int) -> None:
        self.gone(iovad, pfn)
        self._pages[iovad][pfn] = pages
        self._owners[pfn, pages][iovad] = None

    def gone(self, iovad: int, pfn: int) -> None:
        pages = self._pages[iovad].pop(pfn, None)
        if pages is not None:
            del self._owners[pfn, pages][iovad]

    def forget(self, iovad: int) -> None:
        for pfn in list(self._pages[iovad]):
            self.gone(iovad, pfn)

    def owner(self, pfn: int, pages: int) -> int | None:
        """Who has exactly this range, if one only has it."""
        owners = self._owners.get((pfn, pages), {})
        return next(iter(owners)) if len(owners) == 1 else None


@attrs.define
class _Expected:
    """Frees that must come next in a context, each with the CPU it waited on, and the place for them in the calls."""

    iovad: int
    ranges: dict[_Range, int]
    place: list[IovaCall]
    trigger: Event
    seen: bool = False


class _Ring:
    """Unmaps that wait on one CPU; each knows how many flushes of its allocator had begun."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, _Range]] = deque()

    def take(self, flushes: int) -> list[_Range]:
        """Those that a flush has covered."""
        taken = []
        while self.waiting and self.waiting[0][0] < flushes:
            taken.append(self.waiting.popleft()[1])
        return taken


class _Reader:
    """Walks the table once; knows who is who by what calls stand side by side."""

    def __init__(self, table: EventTable) -> None:
        self.table = table
        self.strict, self.allocator_of = _survey(table)
        # The calls, in groups: a group can still grow when frees turn out to be missing there.
        self.groups: list[list[IovaCall]] = []
        self.by_domain: dict[int, int] = {}
        self.by_device: dict[str, int] = {}
        self.live = _Live()
        self.asked: dict[Context, Event] = {}
        self.given: dict[Context, tuple[int, int]] = {}
        self.before: dict[Context, Event] = {}
        self.flushing: dict[int, Event] = {}
        self.unowned: dict[Context, Event] = {}
        self.full: dict[Context, tuple[int, _Range]] = {}
        self.expected: dict[Context, _Expected] = {}
        self.rings: dict[int, dict[int, _Ring]] = {}
        self.flushes: Counter[int] = Counter()

    def read(self) -> list[IovaCall]:
        handlers: dict[Kind, Callable[[Event, Context], None]] = {
            Kind.IOVA_INIT: self.init,
            Kind.IOVA_RESERVE: self.reserve,
            Kind.IOVA_ALLOC: self.alloc,
            Kind.IOVA_ALLOC_RET: self.answer,
            Kind.IOVA_FREE: self.free,
            Kind.IOMMU_UNMAP: self.unmap,
            **dict.fromkeys(_MAP_CALLS, self.learn_domain),
            **dict.fromkeys(_DMA_MAPS, self.learn_device),
        }
        for event in self.table:
            context = event.context
            if is_flush_all(event):
                self.flush_all(event, context)
            elif event.kind not in _IN_BETWEEN:
                self.flushing.pop(event.cpu, None)
                if event.kind is not Kind.IOVA_FREE:
                    self.settle(context, event)
                handler = handlers.get(event.kind)
                if handler is not None:
                    handler(event, context)
                self.before[context] = event
        for context in list(self.expected):
            self.settle(context, None)
        return [call for group in self.groups for call in group]

    # -- calls that are recorded

    def note(self, event: Event, context: Context, iovad: int, pfn: int, size: int) -> list[IovaCall]:
        """Append a call in a group of its own."""
        call = IovaCall(event.kind, event.line, event.time, context, iovad, pfn, size, flush=event.flags == "1")
        self.groups.append([call])
        return self.groups[-1]

    def init(self, event: Event, context: Context) -> None:
        """A new allocator; whatever had this pointer before is gone."""
        self.live.forget(event.extra)
        self.rings.pop(event.extra, None)
        self.note(event, context, event.extra, event.addr, event.size)

    def reserve(self, event: Event, context: Context) -> None:
        self.note(event, context, event.extra, event.addr, event.phys)

    def alloc(self, event: Event, context: Context) -> None:
        self.asked[context] = event
        self.note(event, context, event.extra, event.addr, event.size)

    def answer(self, event: Event, context: Context) -> None:
        asked = self.asked.pop(context, None)
        iovad = 0 if asked is None else asked.extra
        self.note(event, context, iovad, event.addr, 0)
        if asked is not None and event.addr:
            self.given[context] = (iovad, event.addr)
            self.live.given(iovad, event.addr, asked.size)

    def learn_domain(self, event: Event, context: Context) -> None:
        """A range is mapped right after it was given."""
        iovad, pfn = self.given.get(context, (0, 0))
        if event.addr == pfn * PAGE_SIZE and iovad:
            self.by_domain[event.extra] = iovad

    def learn_device(self, event: Event, context: Context) -> None:
        iovad, pfn = self.given.pop(context, (0, 0))
        if event.addr // PAGE_SIZE == pfn and iovad:
            self.by_device[event.device] = iovad

    def free(self, event: Event, context: Context) -> None:
        """Recorded, so it happened here."""
        unowned = self.unowned.pop(context, None)
        if unowned is not None:
            self.unmapped(unowned, context, event.extra)
        freed, expected = (event.addr, event.size), self.expected.get(context)
        if expected is not None and expected.iovad == event.extra and freed in expected.ranges:
            del expected.ranges[freed]
            expected.seen = True
        else:
            self.forget(event.extra, freed)
        self.note(event, context, event.extra, *freed)
        self.live.gone(event.extra, event.addr)

    def forget(self, iovad: int, freed: _Range) -> None:
        """A free out of sequence: it waits in no ring any more."""
        for ring in self.rings.get(iovad, {}).values():
            ring.waiting = deque(entry for entry in ring.waiting if entry[1] != freed)

    # -- frees that follow from unmaps

    def unmap(self, event: Event, context: Context) -> None:
        """Whose range it is, is told by the probe before it, the dma event beside it, or who has it live."""
        before = self.before.get(context)
        iovad: int | None = None
        if before is not None and before.kind is Kind.IOMMU_UNMAP_CALL and before.addr == event.addr:
            iovad = self.by_domain.get(before.extra)
        elif before is not None and before.kind in {Kind.DMA_UNMAP_SG, Kind.DMA_FREE}:
            iovad = self.by_device.get(before.device)
        if iovad is None:
            self.unowned[context] = event
        else:
            self.unmapped(event, context, iovad)

    def settle(self, context: Context, event: Event | None) -> None:
        """The context goes on with something else: what it was expected to free was freed unseen."""
        unowned = self.unowned.pop(context, None)
        if unowned is not None:
            iovad = self.owner(unowned, event)
            if iovad is not None:
                self.unmapped(unowned, context, iovad)
        expected = self.expected.pop(context, None)
        if expected is not None and expected.seen:
            self.keep_waiting(expected)
        elif expected is not None:
            for missed in expected.ranges:
                self.restore(expected, context, missed)
        waiting = self.full.pop(context, None)
        if waiting is not None:
            self.enqueue(context, *waiting)

    def owner(self, unmap: Event, event: Event | None) -> int | None:
        if event is not None and event.kind is Kind.DMA_UNMAP and unmap.addr == event.addr // PAGE_SIZE * PAGE_SIZE:
            return self.by_device.get(event.device)
        return self.live.owner(unmap.addr // PAGE_SIZE, unmap.size // PAGE_SIZE)

    def unmapped(self, event: Event, context: Context, iovad: int) -> None:
        """The range was taken out of the page table: it is freed now, or waits for a flush."""
        gone = (event.addr // PAGE_SIZE, event.size // PAGE_SIZE)
        if self.strict:
            self.expect(event, context, iovad, {gone: context[0]})
            return
        ring = self.ring(iovad, context[0])
        flushed = ring.take(self.flushes[iovad])
        if flushed:
            self.expect(event, context, iovad, dict.fromkeys(flushed, context[0]))
        if len(ring.waiting) >= _RING:
            self.full[context] = (iovad, gone)
        else:
            self.enqueue(context, iovad, gone)

    def flush_all(self, event: Event, context: Context) -> None:
        """By a CPU whose ring was full, which then empties its own; or by the timer, which empties all."""
        begun = self.flushing.setdefault(event.cpu, event)
        if begun is not event and begun.extra == event.extra:
            return  # another tag of the same flush
        waiting = self.full.pop(context, None)
        self.settle(context, None)
        iovad = self.allocator_of.get(event.extra) if waiting is None else waiting[0]
        if iovad is None:
            return
        self.flushes[iovad] += 1
        rings = self.rings.get(iovad, {})
        cpus = sorted(rings) if waiting is None else [context[0]]
        flushed = {gone: cpu for cpu in cpus for gone in self.ring(iovad, cpu).take(self.flushes[iovad])}
        self.expect(event, context, iovad, flushed)
        if waiting is not None:
            self.enqueue(context, *waiting)

    def expect(self, event: Event, context: Context, iovad: int, ranges: dict[_Range, int]) -> None:
        self.groups.append([])
        self.expected[context] = _Expected(iovad, ranges, self.groups[-1], event)

    def restore(self, expected: _Expected, context: Context, missed: _Range) -> None:
        event = expected.trigger
        expected.place.append(IovaCall(Kind.IOVA_FREE, event.line, event.time, context, expected.iovad, *missed))
        self.live.gone(expected.iovad, missed[0])

    def keep_waiting(self, expected: _Expected) -> None:
        """The probes saw this sequence, so what it lacks was unmapped before the flush, but queued after it."""
        for gone, cpu in reversed(expected.ranges.items()):
            self.ring(expected.iovad, cpu).waiting.appendleft((self.flushes[expected.iovad], gone))

    def ring(self, iovad: int, cpu: int) -> _Ring:
        return self.rings.setdefault(iovad, {}).setdefault(cpu, _Ring())

    def enqueue(self, context: Context, iovad: int, gone: _Range) -> None:
        self.ring(iovad, context[0]).waiting.append((self.flushes[iovad], gone))
