"""Does the model of the bus address allocator choose what the recorded kernel chose? Every answer to ``iova_alloc``.

Where another call to the same allocator falls between a call and its answer (an interrupt, or another CPU), the trace
does not tell which of the two came first: both histories are carried on, as after a mismatch (see
`swiommu.verify.worlds`), until an answer rules one of them out. Frees that the probes missed are put back first
(`swiommu.verify.iova.calls`).

Source: drivers/iommu/iova.c; the specification's decision class ``iova``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import attrs

from swiommu.address import PAGE_SIZE
from swiommu.errors import InvalidArgument, NoSpace, NotFound
from swiommu.iommu import IovaDomain
from swiommu.iommu.iova.iova_domain import IOVA_ANCHOR
from swiommu.profile import DEFAULT_PROFILE, Profile
from swiommu.trace import Context, Kind, Sidecar, Trace
from swiommu.verify.iova.calls import IovaCall, read_calls
from swiommu.verify.tally import Tally
from swiommu.verify.worlds import DOUBTS

if TYPE_CHECKING:
    from collections.abc import Iterable


__all__ = ["verify_iova"]

_CALLS: Final = 64  # under way at a time in one allocator; more are calls whose answers never come
_RECORDS: Final = 400_000  # lists for the caches of all CPUs of all allocators, which is as many as memory should hold
_WORLDS = 8  # how many histories are carried at most; a recording that needs more is beyond telling

# The windows of the host bridge of the x86 machine (VGA, below and above the extended configuration space, 64-bit), as
# its kernel reserves them where a recording shows it; on others this happens before there are probes.
_HOST_BRIDGE: Final = ((0xA0, 0xBF), (0x80000, 0xAFFFF), (0xC0000, 0xFEBFF), (0x100000, 0x8FFFFF))


def verify_iova(trace: Trace) -> Tally | None:
    """Predict every answer of every allocator; None if the trace has no probe lines of them.

    Undetermined: answers whose call is not in the trace, allocators whose reservations nobody tells, allocators that
    were in use before the trace began, everything after lost events, and what no machine has: hundreds of calls under
    way at a time, and more allocators and CPUs than memory holds.

    >>> from swiommu.trace import read_trace
    >>> verify_iova(read_trace("arm64-6.12-cam-cma64M-s81")) is None
    True
    """
    calls = read_calls(trace.calls)
    if not calls:
        return None
    tally = Tally("iova")
    lost = min((event.line for event in trace.table.of({Kind.LOST})), default=None)
    cpus = max(trace.table.cpu) + 1
    profile = trace.sidecar.profile if trace.sidecar else DEFAULT_PROFILE
    allocators: dict[int, _Allocator] = {}
    most = _RECORDS // (cpus + 12)
    too_many = _Allocator(tally, _Recorded(), "there are more allocators and CPUs than can be followed")
    for call in calls:
        if lost is not None and call.line > lost:
            if call.kind is Kind.IOVA_ALLOC_RET:
                tally.leave("events were lost before it")
        elif call.iovad not in allocators and len(allocators) >= most:
            too_many.do(call)
        elif call.kind is Kind.IOVA_INIT:
            allocators[call.iovad] = _made(tally, call, cpus, profile)
        else:
            if call.iovad not in allocators:
                allocators[call.iovad] = _unseen(tally, call, trace.sidecar, cpus)
            allocators[call.iovad].do(call)
    return tally


def _made(tally: Tally, init: IovaCall, cpus: int, profile: Profile) -> _Allocator:
    """An allocator as its ``init_iova_domain`` made it; nothing is known of one that no kernel makes."""
    try:
        return _Allocator(tally, _Recorded(init.size, init.pfn, cpus=cpus, profile=profile), None)
    except InvalidArgument as error:
        tally.impossible(str(error))
        return _Allocator(tally, _Recorded(), "its allocator was made by an impossible line")


def _unseen(tally: Tally, first: IovaCall, sidecar: Sidecar | None, cpus: int) -> _Allocator:
    """An allocator that was made before the probes were: its reservations are known from elsewhere, or not at all."""
    profile = sidecar.profile if sidecar else DEFAULT_PROFILE
    domain = _Recorded(PAGE_SIZE, 1, cpus=cpus, profile=profile)
    cause = None
    if not first.iovad:
        cause = "its call is not in the trace"
    elif first.kind is Kind.IOVA_FREE:
        cause = "the allocator was in use before the trace began"
    elif sidecar is None:
        cause = "no sidecar tells which ranges are reserved"
    else:
        for lo, hi in _reservations(sidecar):
            domain.reserve_iova(lo, hi)
    return _Allocator(tally, domain, cause)


def _reservations(sidecar: Sidecar) -> Iterable[tuple[int, int]]:
    """What every group reserves; a range of one group only (the identity range of x86) is far from all others."""
    if sidecar.arch.startswith("x86"):
        yield from _HOST_BRIDGE
    common = set.intersection(*(set(group.reserved) for group in sidecar.groups)) if sidecar.groups else set()
    for region in sorted(common, key=lambda region: region.start):
        yield region.start // PAGE_SIZE, region.last // PAGE_SIZE


class _Recorded(IovaDomain):
    """An allocator that can be brought into the recorded state when it had predicted another."""

    def alloc_after_miss(self, size: int, limit_pfn: int, *, flush_rcache: bool) -> int:
        """The second half of `alloc_iova_fast`, for a call that found the caches without what it wants."""
        return self._alloc_or_flush(self.rounded(size), limit_pfn, flush_rcache=flush_rcache)

    def undo(self, pfn: int, size: int, *, hit: bool, cpu: int) -> None:
        """Give back what was predicted, to where it came from; or nothing, if a free has named it already."""
        with contextlib.suppress(NotFound):
            if hit:
                self.free_iova_fast(pfn, size, cpu=cpu)
            else:
                self.free_iova(pfn)

    def has(self, pfn: int) -> bool:
        """Whether the address of this page has 64 bits at most."""
        return pfn <= IOVA_ANCHOR // self.granule

    def exchange(self, pfn: int, size: int, recorded: int) -> bool:
        """Put a predicted ``pfn`` in the place of the ``recorded`` one if that is in the same cache: an order error."""
        order = (size - 1).bit_length()
        if pfn in self._cached or pfn not in self._hi:  # a free has named the predicted one already
            return False
        if order >= self.RANGE_CACHE_MAX_SIZE or not self._rcaches[order].replace(recorded, pfn):
            return False
        self._cached.remove(recorded)
        self._cached.add(pfn)
        return True

    def force(self, pfn: int, size: int) -> None:
        """Take the recorded range out of the free space; not if it is taken already."""
        last = pfn + self.rounded(size) - 1
        if self.overlapping(pfn, last) or not self.has(last):
            return
        self.reserve_iova(pfn, last)
        if last < self.dma_32bit_pfn:
            self.cached32_node = pfn
        else:
            self.cached_node = pfn


@attrs.define
class _Answer:
    """A pfn, 0 for none, and whether it came out of a cache."""

    pfn: int
    hit: bool


class _World:
    """One possible state of an allocator.

    ``early`` are answers that the trace has not come to yet, ``missed`` are calls that found nothing in the caches and
    have not searched the tree yet.
    """

    def __init__(self, domain: _Recorded) -> None:
        self.domain = domain
        self.early: dict[Context, _Answer] = {}
        self.missed: set[Context] = set()

    def fork(self) -> _World:
        twin = _World(self.domain.copy())
        twin.early, twin.missed = self.early.copy(), self.missed.copy()
        return twin

    def answer(self, call: IovaCall) -> _Answer:
        """What `alloc_iova_fast` says, or has said already."""
        early = self.early.pop(call.context, None)
        if early is not None:
            return early
        domain, hits = self.domain, self.domain.stats.hits
        try:
            if call.context in self.missed:
                self.missed.remove(call.context)
                pfn = domain.alloc_after_miss(call.size, call.pfn, flush_rcache=call.flush)
            else:
                pfn = domain.alloc_iova_fast(call.size, call.pfn, flush_rcache=call.flush, cpu=call.context[0])
        except NoSpace:
            pfn = 0
        return _Answer(pfn, domain.stats.hits > hits)

    def forget(self, context: Context) -> None:
        """A call whose answer is not in the trace."""
        self.early.pop(context, None)
        self.missed.discard(context)

    def before(self, call: IovaCall) -> list[_World]:
        """The worlds in which the call, or its look into the caches, comes before what happens next."""
        early = self.fork()
        answer = early.early[call.context] = early.answer(call)
        if answer.hit:
            return [early]
        looked = self.fork()
        looked.missed.add(call.context)
        return [early, looked]

    def adopt(self, call: IovaCall, said: _Answer, pfn: int) -> None:
        if said.pfn and pfn and self.domain.exchange(said.pfn, call.size, pfn):
            return
        if said.pfn:
            self.domain.undo(said.pfn, call.size, hit=said.hit, cpu=call.context[0])
        if pfn:
            self.domain.force(pfn, call.size)

    def free(self, call: IovaCall) -> bool:
        """Whether the range was allocated in this world."""
        try:
            self.domain.free_iova_fast(call.pfn, call.size, cpu=call.context[0])
        except NotFound:
            return False
        return True

    def is_like(self, other: _World) -> bool:
        return self.early == other.early and self.missed == other.missed and self.domain.decides_like(other.domain)


class _Allocator:
    """One ``iovad``: its possible states, and the calls that have not been answered yet."""

    def __init__(self, tally: Tally, domain: _Recorded, cause: str | None) -> None:
        self.tally = tally
        self.worlds = [_World(domain)]
        self.cause = cause
        self.calls: dict[Context, IovaCall] = {}
        self.forked: set[Context] = set()
        self.impossible: set[Context] = set()

    def do(self, call: IovaCall) -> None:
        """Whatever the recording says next of this allocator."""
        if self.cause is not None:
            if call.kind is Kind.IOVA_ALLOC_RET:
                self.tally.leave(self.cause)
        elif call.kind is Kind.IOVA_ALLOC:
            self.abandon(call.context)
            if len(self.calls) >= _CALLS:
                self.abandon(next(iter(self.calls)))
            if 1 <= call.size < IOVA_ANCHOR and call.pfn < IOVA_ANCHOR:
                self.calls[call.context] = call
            else:
                self.impossible.add(call.context)
        elif call.kind is Kind.IOVA_ALLOC_RET:
            self.answered(call)
        else:
            self.changed()
            if call.kind is Kind.IOVA_FREE:
                self.worlds = [world for world in self.worlds if world.free(call)] or self.worlds
            elif call.pfn <= call.size and self.worlds[0].domain.has(call.size):
                for world in self.worlds:
                    world.domain.reserve_iova(call.pfn, call.size)
            else:
                self.tally.impossible(f"pfn {call.pfn:#x} to {call.size:#x} are reserved")

    def changed(self) -> None:
        """Something happens while calls are under way: they may have been served before it, or will be after it."""
        for context, call in self.calls.items():
            if context in self.forked:
                continue
            self.forked.add(context)
            self.worlds = _bounded([w for world in self.worlds for w in (*world.before(call), world)])

    def abandon(self, context: Context) -> None:
        """A call whose answer is not in the trace."""
        self.impossible.discard(context)
        if self.calls.pop(context, None) is not None:
            self.forked.discard(context)
            for world in self.worlds:
                world.forget(context)

    def answered(self, ret: IovaCall) -> None:
        """Compare every world's prediction with the record; worlds that are wrong where another is right end here."""
        context = ret.context
        if context in self.impossible:
            self.impossible.remove(context)
            self.tally.impossible("an answer to a call for no pages, or for more than there are")
            return
        call = self.calls.pop(context, None)
        if call is None:
            self.tally.leave("too many calls were under way")
            return
        self.forked.discard(context)
        self.changed()
        said = [world.answer(call) for world in self.worlds]
        right = [world for world, answer in zip(self.worlds, said, strict=True) if answer.pfn == ret.pfn]
        predicted = ret.pfn if right else said[0].pfn
        self.tally.judge("alloc", ret.line, predicted=_told(predicted), recorded=_told(ret.pfn))
        if right:
            self.worlds = _bounded(right)
            return
        doubted = [world.fork() for world in self.worlds] if self.tally.mismatched <= DOUBTS else []
        for world, answer in zip(self.worlds, said, strict=True):
            world.adopt(call, answer, ret.pfn)
        self.worlds = _bounded(self.worlds + doubted)


def _told(pfn: int) -> str:
    return f"pfn {pfn:#x}" if pfn else "none"


def _bounded(worlds: list[_World]) -> list[_World]:
    """One of each kind, as most histories differ only for a few calls; and not more than can be carried.

    The first ones have believed most of the records, the last ones least: these are the likely histories.
    """
    kept: list[_World] = []
    for world in worlds:
        if not any(world.is_like(other) for other in kept):
            kept.append(world)
    return kept if len(kept) <= _WORLDS else kept[: _WORLDS // 2] + kept[-_WORLDS // 2 :]
