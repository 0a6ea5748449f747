"""Does the pool of bounce buffers choose the slots that the recorded kernel chose? Every ``swiotlb_bounced``.

The line is printed before the search, so the slots are predicted there; the address that the device got stands in the
``dma_map_*`` line that follows in the same context. A list that meets a full pool in its middle prints no such line:
what it had is given back at once, and the place of the next search has moved all the same. Slots are released at the
unmap.

A record that contradicts the prediction is carried on as two histories, with it and without it
(`swiommu.verify.worlds`).

Source: kernel/dma/swiotlb.c; the specification's decision class ``swiotlb``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE, align_up
from swiommu.dma import IO_TLB_SEGSIZE, IO_TLB_SHIFT, SwiotlbPool
from swiommu.errors import AddressInUse, InvalidArgument, NoMemory
from swiommu.trace import DMA_MAPPING_ERROR, Context, Event, Kind, Sidecar, Trace
from swiommu.verify.beginning import set_aside
from swiommu.verify.tally import Tally
from swiommu.verify.worlds import DOUBTS, likely

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence


__all__ = ["verify_swiotlb"]

_BOUNDARY = (1 << 32) - 1
_UNKNOWN_START = "buffers were unmapped that were not known to be in use: the beginning of the recording is lost"


def verify_swiotlb(trace: Trace) -> Tally | None:
    """Predict the slots of every bounce; None if the trace has none.

    Undetermined: everything when the sidecar doesn't tell where the pool lies; what comes after lost events; elements
    of a list that failed later, whose addresses are not printed; entries that a printed list leaves out; and all, if
    some are mismatches, where buffers were in use before the trace began.

    >>> from swiommu.trace import open_bundled
    >>> verify_swiotlb(open_bundled("arm64-6.12-cam-cma64M-s81")) is None
    True
    """
    if Kind.BOUNCED not in trace.table.counts():
        return None
    sidecar = trace.sidecar
    pool = None if sidecar is None else sidecar.bounce_pool
    if sidecar is None or pool is None or pool.lowest_seen is None or pool.lowest_seen % PAGE_SIZE:
        tally = Tally("swiotlb")
        for _ in range(trace.table.count(Kind.BOUNCED)):
            tally.leave("the sidecar doesn't tell where the pool lies")
        return tally
    slots = align_up(pool.size >> IO_TLB_SHIFT, IO_TLB_SEGSIZE)
    found = SwiotlbPool(pool.lowest_seen, slots, areas=_areas(slots, pool.areas or sidecar.cpus or 1))
    return _Checker(trace, found, sidecar).run()


def _areas(slots: int, cpus: int) -> int:
    """One for each CPU, rounded up to a power of two, as long as they are whole segments."""
    areas = 1 << (cpus - 1).bit_length()
    while areas > 1 and slots % (areas * IO_TLB_SEGSIZE):
        areas //= 2
    return areas


@attrs.define(eq=False)
class _Bounce:
    """One bounce: the request, the slots predicted (None: the pool is full), and whether they are held."""

    line: int
    phys: int
    size: int
    place: int | None
    held: bool

    def predicted(self) -> str:
        return _say(self.place)


def _say(place: int | None) -> str:
    return "full" if place is None else f"{place:#x}"


class _World:
    """One possible history: the pool, what waits for its map line, which lists are mapped, and what it predicted.

    ``impossible`` counts lines that can't be true in it: slots given that were taken, slots released that were free
    (``stray`` of them are unmaps).
    """

    def __init__(self, pool: SwiotlbPool) -> None:
        self.pool = pool
        self.waiting: dict[Context, list[_Bounce]] = {}
        self.lists: dict[tuple[str, tuple[int, ...]], list[list[int]]] = {}
        self.tally = Tally("swiotlb")
        self.impossible = self.stray = 0

    @property
    def rank(self) -> tuple[int]:
        """What speaks against this history, and nothing else."""
        return (self.tally.mismatched + self.impossible,)

    def state(self) -> Hashable:
        """Histories of equal state predict the same from here on."""
        waiting = [
            (context, bounce.line, bounce.place) for context, all_of in self.waiting.items() for bounce in all_of
        ]
        return tuple(self.pool.live()), self.pool.indices, tuple(waiting)

    def fork(self) -> _World:
        other = _World(self.pool.copy())
        other.waiting = {context: [attrs.evolve(each) for each in waiting] for context, waiting in self.waiting.items()}
        other.lists = {key: held.copy() for key, held in self.lists.items()}
        other.tally, other.impossible, other.stray = self.tally.copy(), self.impossible, self.stray
        return other

    def give_back(self, bounce: _Bounce) -> None:
        if bounce.held and bounce.place is not None:
            self.release(bounce.place)
        bounce.held = False

    def release(self, place: int) -> None:
        if self.pool.slots_of(place) is None:
            self.impossible += 1
        else:
            self.pool.release(place)

    def settle(
        self, bounces: Sequence[_Bounce], recorded: Sequence[int | None], *, kind: str, line: int
    ) -> list[_World]:
        """Judge bounces that one line answers; the histories that remain possible, first this one with the record."""
        served = list(zip(bounces, recorded, strict=True))
        for bounce, place in served:
            self.tally.judge(kind, line, predicted=bounce.predicted(), recorded=_say(place))
        if all(bounce.place == place for bounce, place in served):
            return [self]
        after = [self]
        if self.rank[0] <= DOUBTS:
            after.append(self.fork())
        for bounce, place in served:
            if bounce.place != place:
                self.give_back(bounce)
        for bounce, place in served:
            if not bounce.held:
                self.adopt(place, bounce.size)
        return after

    def adopt(self, place: int | None, size: int) -> None:
        if place is not None:
            try:
                self.pool.occupy(place, size)
            except (AddressInUse, InvalidArgument):
                self.impossible += 1


class _Checker:
    """Walks the events; every possible history predicts, is judged, and goes on."""

    def __init__(self, trace: Trace, pool: SwiotlbPool, sidecar: Sidecar) -> None:
        self.trace = trace
        self.devices = sidecar.devices
        self.worlds = [_World(pool)]

    def run(self) -> Tally:
        handlers: dict[Kind, Callable[[_World, Event, Context], list[_World]]] = {
            Kind.BOUNCED: self.bounced,
            Kind.DMA_MAP: self.mapped,
            Kind.DMA_MAP_SG: self.mapped_list,
            Kind.DMA_UNMAP: self.unmapped,
            Kind.DMA_UNMAP_SG: self.unmapped_list,
        }
        lost = 0
        losing = False
        for event in self.trace.table.of({*handlers, Kind.LOST}):
            losing = losing or event.kind == Kind.LOST
            if losing:
                lost += event.kind == Kind.BOUNCED
                continue
            handler, context = handlers[event.kind], event.context
            self.worlds = likely([after for world in self.worlds for after in handler(world, event, context)])
        return self.answer(lost)

    def answer(self, lost: int) -> Tally:
        world = self.worlds[0]
        for waiting in world.waiting.values():
            if waiting and waiting[-1].place is None:
                self.list_failed(world, waiting)
                continue
            for _ in waiting:
                world.tally.leave("its map line is not in the trace")
        for _ in range(lost):
            world.tally.leave("events were lost before it")
        return set_aside(world.tally, _UNKNOWN_START) if world.stray else world.tally

    # -- what the lines say

    def bounced(self, world: _World, event: Event, context: Context) -> list[_World]:
        waiting = world.waiting.setdefault(context, [])
        if waiting and waiting[-1].place is None:
            # A failure without a map line of its own ended a list.
            self.list_failed(world, waiting)
            waiting.clear()
        device = self.devices.get(event.device)
        align = device.min_align_mask if device else 0
        place = None
        if not event.size:
            world.tally.impossible("0 bytes are bounced")
            return [world]
        with contextlib.suppress(NoMemory):
            place = world.pool.find_slots(
                event.phys, event.size, min_align_mask=align, boundary_mask=_BOUNDARY, area=event.cpu
            )
        if place is None:
            for earlier in waiting:
                world.give_back(earlier)
        waiting.append(_Bounce(event.line, event.phys, event.size, place, held=place is not None))
        return [world]

    @staticmethod
    def list_failed(world: _World, bounces: Sequence[_Bounce]) -> None:
        """The last of these found the pool full, as predicted or not; the others were given back."""
        *earlier, last = bounces
        for _ in earlier:
            world.tally.leave("an element of a list that failed later: its address is not printed")
        world.tally.judge("list", last.line, predicted=last.predicted(), recorded="full")

    def before(self, world: _World, others: Sequence[_Bounce]) -> None:
        """Bounces that the map line of their context doesn't name: a list that failed, though none was predicted to."""
        if others:
            for bounce in others:
                world.give_back(bounce)
            self.list_failed(world, others)

    def mapped(self, world: _World, event: Event, context: Context) -> list[_World]:
        waiting = world.waiting.get(context)
        if not waiting or waiting[-1].phys != event.phys:
            return [world]  # not bounced at all
        *others, bounce = world.waiting.pop(context)
        self.before(world, others)
        return world.settle(
            [bounce], [None if event.addr == DMA_MAPPING_ERROR else event.addr], kind="single", line=event.line
        )

    def mapped_list(self, world: _World, event: Event, context: Context) -> list[_World]:
        printed = self.trace.table.sg(event.sg)
        waiting = world.waiting.pop(context, [])
        own = _last_run(waiting, printed.phys_addrs, cut=printed.is_cut)
        self.before(world, waiting[: len(waiting) - len(own)])
        recorded = _addresses(own, printed.phys_addrs, printed.dma_addrs)
        told = [(bounce, place) for bounce, place in zip(own, recorded, strict=True) if place is not None]
        left_out = [bounce.place for bounce in own[len(told) :] if bounce.held and bounce.place is not None]
        predicted = [bounce.place for bounce, _ in told if bounce.held and bounce.place is not None]
        for _ in own[len(told) :]:
            world.tally.leave("an entry that the printed list leaves out")
        after = world.settle([bounce for bounce, _ in told], [place for _, place in told], kind="list", line=event.line)
        for each, places in zip(after, ([place for _, place in told], predicted), strict=False):
            if own:
                each.lists.setdefault((event.device, printed.phys_addrs), []).append([*places, *left_out])
        return after

    @staticmethod
    def unmapped(world: _World, event: Event, _context: Context) -> list[_World]:
        if event.addr in world.pool:
            world.stray += world.pool.slots_of(event.addr) is None
            world.release(event.addr)
        return [world]

    def unmapped_list(self, world: _World, event: Event, _context: Context) -> list[_World]:
        key = event.device, self.trace.table.sg(event.sg).phys_addrs
        held = world.lists.get(key)
        if held:
            for place in held.pop(0):
                world.release(place)
            if not held:
                del world.lists[key]
        return [world]


def _last_run(bounced: Sequence[_Bounce], phys_addrs: Sequence[int], *, cut: bool) -> Sequence[_Bounce]:
    """The last of ``bounced`` that can be this list's, in its order; of a list printed in part, all that begin so."""
    for first in range(len(bounced)):
        rest = iter(phys_addrs)
        own = bounced[first:]
        if all(bounce.phys in rest for bounce in (own[: len(phys_addrs)] if cut else own)):
            return own
    return []


def _addresses(own: Sequence[_Bounce], phys_addrs: Sequence[int], dma_addrs: Sequence[int]) -> list[int | None]:
    """What each bounce got, by its place in the list; None where the line doesn't print it."""
    entries = iter(zip(phys_addrs, dma_addrs, strict=False))
    return [next((address for phys, address in entries if phys == bounce.phys), None) for bounce in own]
