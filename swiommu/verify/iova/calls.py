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
from swiommu.trace import MAP_PROBES, Call, Calls, Context, Event, Kind, is_flush_all

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = ["IovaCall", "read_calls"]

_Range: TypeAlias = tuple[int, int]

_RING: Final = FlushQueue.SIZE - 1
_DMA_MAPS: Final = frozenset({Kind.DMA_MAP, Kind.DMA_MAP_SG, Kind.DMA_ALLOC})
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


def read_calls(calls: Calls) -> list[IovaCall]:
    """Every call to every allocator, missed frees restored; empty if the recording has no probe lines.

    >>> from swiommu.trace import read_trace
    >>> read_calls(read_trace("arm64-6.12-cam-cma64M-s81").calls)
    []
    """
    if not calls.table.count(Kind.IOVA_ALLOC):
        return []
    return _Reader(calls).read()


def _survey(calls: Calls) -> tuple[bool, dict[int, int]]:
    """Whether frees follow their unmaps at once (strict), and which allocator each flushed domain id belongs to."""
    table, following, frees = calls.table, 0, 0
    allocator_of: dict[int, int] = {}
    for row, kind in enumerate(table.kind):
        if kind != Kind.IOVA_FREE:
            continue
        frees += 1
        cause = calls.outer[row]
        if cause >= 0 and table.kind[cause] == Kind.IOMMU_UNMAP:
            following += table.addr[cause] == table.addr[row] * PAGE_SIZE
        elif cause >= 0:
            allocator_of.setdefault(table.extra[cause], table.extra[row])
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
    """Walks the calls once; knows who is who by what calls stand side by side."""

    def __init__(self, calls: Calls) -> None:
        self.calls, self.table = calls, calls.table
        self.strict, self.allocator_of = _survey(calls)
        # The calls, in groups: a group can still grow when frees turn out to be missing there.
        self.groups: list[list[IovaCall]] = []
        self.by_domain: dict[int, int] = {}
        self.by_device: dict[str, int] = {}
        self.live = _Live()
        self.given: dict[Context, tuple[int, int]] = {}
        self.flushing: dict[int, Event] = {}
        self.unowned: dict[Context, Call] = {}
        self.full: dict[Context, tuple[int, _Range]] = {}
        self.expected: dict[Context, _Expected] = {}
        self.rings: dict[int, dict[int, _Ring]] = {}
        self.flushes: Counter[int] = Counter()

    def read(self) -> list[IovaCall]:
        handlers: dict[Kind, Callable[[Call, Context], None]] = {
            Kind.IOVA_INIT: self.init,
            Kind.IOVA_RESERVE: self.reserve,
            Kind.IOVA_ALLOC: self.alloc,
            Kind.IOVA_ALLOC_RET: self.answer,
            Kind.IOVA_FREE: self.free,
            Kind.IOMMU_UNMAP: self.unmap,
            **dict.fromkeys(MAP_PROBES, self.learn_domain),
            **dict.fromkeys(_DMA_MAPS, self.learn_device),
        }
        for call in self.calls:
            event = call.event
            context = event.context
            if is_flush_all(event):
                self.flush_all(event, context)
            elif event.kind not in _IN_BETWEEN:
                self.flushing.pop(event.cpu, None)
                if event.kind is not Kind.IOVA_FREE:
                    self.settle(context)
                handler = handlers.get(event.kind)
                if handler is not None:
                    handler(call, context)
        for context in list(self.expected):
            self.settle(context)
        return [call for group in self.groups for call in group]

    # -- calls that are recorded

    def note(self, event: Event, context: Context, iovad: int, pfn: int, size: int) -> list[IovaCall]:
        """Append a call in a group of its own."""
        call = IovaCall(event.kind, event.line, event.time, context, iovad, pfn, size, flush=event.flags == "1")
        self.groups.append([call])
        return self.groups[-1]

    def init(self, call: Call, context: Context) -> None:
        """A new allocator; whatever had this pointer before is gone."""
        event = call.event
        self.live.forget(event.extra)
        self.rings.pop(event.extra, None)
        self.note(event, context, event.extra, event.addr, event.size)

    def reserve(self, call: Call, context: Context) -> None:
        self.note(call.event, context, call.event.extra, call.event.addr, call.event.phys)

    def alloc(self, call: Call, context: Context) -> None:
        self.note(call.event, context, call.event.extra, call.event.addr, call.event.size)

    def answer(self, call: Call, context: Context) -> None:
        pfn, asked = call.event.addr, call.begin
        iovad = self.table.extra[asked] if asked >= 0 else 0
        self.note(call.event, context, iovad, pfn, 0)
        if asked >= 0 and pfn:
            self.given[context] = (iovad, pfn)
            self.live.given(iovad, pfn, self.table.size[asked])

    def learn_domain(self, call: Call, context: Context) -> None:
        """A range is mapped right after it was given."""
        iovad, pfn = self.given.get(context, (0, 0))
        if call.event.addr == pfn * PAGE_SIZE and iovad:
            self.by_domain[call.event.extra] = iovad

    def learn_device(self, call: Call, context: Context) -> None:
        iovad, pfn = self.given.pop(context, (0, 0))
        if call.event.addr // PAGE_SIZE == pfn and iovad:
            self.by_device[call.event.device] = iovad

    def free(self, call: Call, context: Context) -> None:
        """Recorded, so it happened here."""
        event = call.event
        unowned = self.unowned.pop(context, None)
        if unowned is not None:
            self.unmapped(unowned.event, context, event.extra)
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

    def unmap(self, call: Call, context: Context) -> None:
        """Whose range it is, is told by the probe before it, the dma event it is of, or who has it live."""
        iovad: int | None = None
        if call.begin >= 0:
            iovad = self.by_domain.get(self.table.extra[call.begin])
        elif 0 <= call.outer < call.row:
            iovad = self.by_device.get(self.device(call))
        if iovad is None:
            self.unowned[context] = call
        else:
            self.unmapped(call.event, context, iovad)

    def device(self, unmap: Call) -> str:
        """The device of the dma event that an unmap is of."""
        return self.table.names[self.table.device[unmap.outer]]

    def settle(self, context: Context) -> None:
        """The context goes on with something else: what it was expected to free was freed unseen."""
        unowned = self.unowned.pop(context, None)
        if unowned is not None:
            iovad = self.owner(unowned)
            if iovad is not None:
                self.unmapped(unowned.event, context, iovad)
        expected = self.expected.pop(context, None)
        if expected is not None and expected.seen:
            self.keep_waiting(expected)
        elif expected is not None:
            for missed in expected.ranges:
                self.restore(expected, context, missed)
        waiting = self.full.pop(context, None)
        if waiting is not None:
            self.enqueue(context, *waiting)

    def owner(self, unmap: Call) -> int | None:
        if unmap.outer > unmap.row:
            return self.by_device.get(self.device(unmap))
        return self.live.owner(unmap.event.addr // PAGE_SIZE, unmap.event.size // PAGE_SIZE)

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
        self.settle(context)
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
