"""What a trace tells of page tables: who mapped and unmapped what, in order, with whose domain it was told beside it.

The events ``map`` and ``unmap`` name no domain. It is that of the device in the dma event of the same context: behind a
map or an unmap of ``dma_unmap_page``, before one of ``dma_unmap_sg`` and ``dma_free``. Probe lines give the domain's
pointer, which a dma event ties to a device once; then it serves where there is none (message interrupts, the API of two
steps). What is left belongs to whoever has that range mapped.
"""

from __future__ import annotations

from typing import Final

import attrs

from swiommu.address import PAGE_SIZE, Prot, align_down
from swiommu.requests.machine import Machine
from swiommu.trace import Context, Event, Kind, Trace

__all__ = ["DOORBELL", "NOBODY", "Op", "Timeline", "is_flush_all", "prot_of", "read_timeline"]

NOBODY: Final = "nobody known"
"""The owner of a range of whom the trace tells nothing."""

_ERROR: Final = (1 << 64) - 1
_MAP_CALLS: Final = frozenset({Kind.IOMMU_MAP_CALL, Kind.IOMMU_MAP_NOSYNC_CALL, Kind.IOMMU_MAP_SG_CALL})
_BETWEEN: Final = frozenset({Kind.FLUSH_RANGE, Kind.QI_SUBMIT, Kind.IOVA_FREE, Kind.IOMMU_UNMAP_CALL})
_MOST: Final = 1 << 42  # bytes of a range; no call maps more
_COHERENT: Final = {
    "TO_DEVICE": Prot.READ | Prot.CACHE,
    "FROM_DEVICE": Prot.WRITE | Prot.CACHE,
    "BIDIRECTIONAL": Prot.READ | Prot.WRITE | Prot.CACHE,
}
DOORBELL: Final = int(Prot.WRITE | Prot.NOEXEC | Prot.MMIO)
"""With what the page is mapped to which a device writes its message interrupts."""


def prot_of(direction: str) -> int | None:
    """The ``prot`` that dma-iommu maps with for a direction and a coherent device; None for no direction.

    >>> [prot_of(name) for name in ("TO_DEVICE", "FROM_DEVICE", "BIDIRECTIONAL", "NONE")]
    [5, 6, 7, None]
    """
    prot = _COHERENT.get(direction)
    return None if prot is None else int(prot)


def is_flush_all(event: Event) -> bool:
    """Whether a domain is flushed as a whole; 7.3 prints it as a range of everything.

    >>> from swiommu.trace import open_bundled
    >>> any(is_flush_all(event) for event in open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89").table)
    False
    """
    return event.kind is Kind.FLUSH_ALL or (event.kind is Kind.FLUSH_RANGE and event.addr == 0 and event.phys == _ERROR)


@attrs.define(eq=False)
class Op:
    """A range was mapped or unmapped, or a domain flushed as a whole (``kind``: IOMMU_MAP, IOMMU_UNMAP, FLUSH_ALL).

    ``owner`` is the group of the device, or `NOBODY`; ``call`` numbers runs of maps that one call made; ``prot`` is as
    a probe printed it (``told``), else as the direction or the target implies, None if nothing does. ``doorbell``: one
    page that is no memory, to which message interrupts are written. ``number`` is the domain's in the hardware, -1
    where the trace does not tell.
    """

    kind: Kind
    line: int
    context: Context
    iova: int
    size: int
    paddr: int = 0
    owner: str = NOBODY
    call: int = 0
    prot: int | None = None
    told: int | None = None
    direction: str = ""
    doorbell: bool = False
    number: int = -1
    pointer: int = 0
    like: Op | None = None

    @property
    def stop(self) -> int:
        """The first address behind the range."""
        return self.iova + self.size


@attrs.define(eq=False)
class Timeline:
    """The operations in order, and who is who.

    ``owners``: by bus, device and function in 16 bits, as hardware knows devices. ``numbers``: owner by the domain's
    number in the hardware. ``attached``: owners whose domain was made while the trace ran, so that nothing was mapped
    before. ``lost``: the line from which on events were lost.
    """

    ops: list[Op] = attrs.field(factory=list)
    owners: dict[int, str] = attrs.field(factory=dict)
    numbers: dict[int, str] = attrs.field(factory=dict)
    attached: set[str] = attrs.field(factory=set)
    lost: int | None = None

    @property
    def told_numbers(self) -> set[int]:
        """Numbers of domains of which it is known whose they are: flushes stand beside unmaps of a device."""
        told = {op.number for op in self.ops if op.number >= 0 and op.owner != NOBODY}
        return told | {number for number, owner in self.numbers.items() if owner in self.owned}

    @property
    def owned(self) -> set[str]:
        """Owners that unmapped something and said so."""
        return {op.owner for op in self.ops if op.kind is Kind.IOMMU_UNMAP and op.owner != NOBODY}


def read_timeline(trace: Trace) -> Timeline:
    """What the page tables of a trace went through, up to the first lost event.

    >>> from swiommu.trace import open_bundled
    >>> timeline = read_timeline(open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89"))
    >>> len(timeline.ops), timeline.ops[0].owner, timeline.ops[0].prot
    (8968, 'group 1', 26)
    """
    return _Reader(trace).read()


@attrs.define(eq=False)
class _Context:
    """What one line of execution is in the middle of."""

    call: Event | None = None
    unmap_call: Event | None = None
    maps: list[Op] = attrs.field(factory=list)
    unmap: Op | None = None
    ended: str = ""  # the device whose list or memory is being unmapped
    assigned: list[int] = attrs.field(factory=list)


class _Reader:
    """Walks the table once; owners are settled at the end, when every pointer is known."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.timeline = Timeline()
        self.contexts: dict[Context, _Context] = {}
        self.live: dict[int, list[Op]] = {}
        self.pointers: dict[int, str] = {}
        self.calls = 0
        self.groups = dict(trace.sidecar.group_of) if trace.sidecar else {}
        self.machine = Machine(trace.sidecar, trace.path)

    def read(self) -> Timeline:
        handlers = {
            Kind.IOMMU_MAP: self.map,
            Kind.IOMMU_UNMAP: self.unmap,
            Kind.IOMMU_UNMAP_CALL: self.unmap_call,
            Kind.DMA_MAP: self.mapped,
            Kind.DMA_ALLOC: self.mapped,
            Kind.DMA_MAP_SG: self.mapped,
            Kind.DMA_UNMAP: self.unmapped,
            Kind.DMA_UNMAP_SG: self.unmapping,
            Kind.DMA_FREE: self.unmapping,
            Kind.FLUSH_RANGE: self.flush,
            Kind.FLUSH_ALL: self.flush,
            Kind.TAG_ASSIGN: self.assign,
            Kind.DOMAIN_ATTACH: self.attach,
            Kind.GROUP_ADD: self.group_add,
            **dict.fromkeys(_MAP_CALLS, self.map_call),
        }
        for event in self.trace.table:
            if event.kind is Kind.LOST:
                self.timeline.lost = event.line
                break
            context = event.context
            state = self.contexts.get(context)
            if state is None:
                state = self.contexts[context] = _Context()
            handler = handlers.get(event.kind)
            if state.unmap is not None and event.kind not in _BETWEEN and event.kind is not Kind.DMA_UNMAP:
                self.close(state)
            if handler is not None:
                handler(event, state)
        for state in self.contexts.values():
            self.close(state)
        self.settle()
        return self.timeline

    # -- maps

    def map_call(self, event: Event, state: _Context) -> None:
        state.call = event

    def map(self, event: Event, state: _Context) -> None:
        if not _is_range(event.addr, event.size):
            return
        op = Op(Kind.IOMMU_MAP, event.line, event.context, event.addr, event.size, event.phys)
        if not (state.maps and state.maps[-1].stop == op.iova):
            self.calls += 1
        op.call = self.calls
        op.doorbell = op.size == PAGE_SIZE and not self.machine.may_be_ram(op.paddr)
        call = state.call
        if call is not None and call.addr <= op.iova:
            op.pointer, op.told = call.extra, _number(call.flags)
        state.maps.append(op)
        self.live.setdefault(op.iova, []).append(op)
        self.timeline.ops.append(op)

    def mapped(self, event: Event, state: _Context) -> None:
        """A dma event: the maps before it in its context were its own, or for its device's interrupts."""
        addr = event.addr
        failed = addr == _ERROR if event.kind is Kind.DMA_MAP else event.kind is Kind.DMA_ALLOC and not event.extra
        if event.kind is Kind.DMA_MAP_SG:
            printed = self.trace.table.sg(event.sg).dma_addrs
            addr, failed = (printed[0], False) if printed else (0, True)
        page = align_down(addr, PAGE_SIZE)
        served = 0 if failed else next((op.call for op in reversed(state.maps) if op.iova <= page < op.stop), 0)
        direction = "BIDIRECTIONAL" if event.kind is Kind.DMA_ALLOC else event.name
        for op in state.maps:
            if served and op.call == served:
                self.own(op, event.device)
                op.direction = direction
            elif op.doorbell:
                self.own(op, event.device)
        state.maps, state.call, state.ended = [], None, ""

    def own(self, op: Op, device: str) -> None:
        op.owner = self.owner(device)
        if op.pointer:
            self.pointers[op.pointer] = op.owner

    # -- unmaps

    def unmap_call(self, event: Event, state: _Context) -> None:
        state.unmap_call = event

    def unmap(self, event: Event, state: _Context) -> None:
        op = Op(Kind.IOMMU_UNMAP, event.line, event.context, event.addr, event.extra)
        call, state.unmap_call = state.unmap_call, None
        if not _is_range(event.addr, event.extra):
            return
        if call is not None and call.addr == op.iova:
            op.pointer = call.extra
        if state.ended:
            self.own(op, state.ended)
            state.ended = ""
        state.unmap = op
        self.timeline.ops.append(op)

    def unmapped(self, event: Event, state: _Context) -> None:
        """The unmap before it in its context was its own."""
        op = state.unmap
        if op is None:
            return
        if op.iova == align_down(event.addr, PAGE_SIZE):
            self.own(op, event.device)
        self.close(state)

    def unmapping(self, event: Event, state: _Context) -> None:
        state.ended = event.device

    def close(self, state: _Context) -> None:
        """All is known that stands beside an unmap; what it took away is live no longer."""
        op, state.unmap = state.unmap, None
        if op is None:
            return
        likes = self.live.get(op.iova, [])
        mine = [
            like for like in likes if like.owner == op.owner or (op.pointer and like.pointer == op.pointer)
        ] or likes
        if len(mine) == 1:
            op.like = mine[0]
            likes.remove(mine[0])

    # -- who is who

    def owner(self, device: str) -> str:
        group = self.groups.get(device)
        return f"group {group}" if group is not None else device or NOBODY

    def flush(self, event: Event, state: _Context) -> None:
        if event.flags != "iotlb":
            return
        if is_flush_all(event):
            self.timeline.ops.append(Op(Kind.FLUSH_ALL, event.line, event.context, 0, 0, number=event.extra))
        elif state.unmap is not None and event.addr <= state.unmap.iova and state.unmap.stop - 1 <= event.phys:
            state.unmap.number = event.extra

    def assign(self, event: Event, state: _Context) -> None:
        if event.flags == "iotlb":
            state.assigned.append(event.extra)

    def attach(self, event: Event, state: _Context) -> None:
        owner = self.owner(event.device)
        self.timeline.attached.add(owner)
        self.timeline.numbers.update(dict.fromkeys(state.assigned, owner))
        for op in state.maps:
            if op.iova == op.paddr:  # a direct-mapped region of its group
                op.owner = owner
        state.assigned, state.maps = [], []

    def group_add(self, event: Event, _state: _Context) -> None:
        self.groups[event.device] = event.extra

    def settle(self) -> None:
        """What pointers and live ranges tell, for those that no dma event stood beside."""
        numbers = self.timeline.numbers
        for op in self.timeline.ops:
            if op.owner == NOBODY and op.pointer:
                op.owner = self.pointers.get(op.pointer, NOBODY)
            if op.owner == NOBODY and op.like is not None:
                op.owner = op.like.owner
            if op.kind is Kind.IOMMU_MAP:
                op.prot = self.prot(op)
            elif op.number >= 0 and op.owner != NOBODY:
                numbers.setdefault(op.number, op.owner)
        for op in self.timeline.ops:
            if op.kind is Kind.FLUSH_ALL:
                op.owner = numbers.get(op.number, NOBODY)
        for device in {*self.groups, *(self.trace.sidecar.devices if self.trace.sidecar else ())}:
            sid = _sid(device)
            if sid is not None:
                self.timeline.owners[sid] = self.owner(device)

    def prot(self, op: Op) -> int | None:
        if op.told is not None:
            return op.told
        if op.direction:
            return prot_of(op.direction)
        return DOORBELL if op.doorbell else None


def _is_range(iova: int, size: int) -> bool:
    """Whether that can be mapped at all: whole pages, within the address space."""
    return 0 < size <= _MOST and not (iova | size) % PAGE_SIZE and iova + size <= _ERROR + 1


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _sid(device: str) -> int | None:
    """Bus, device and function of ``0000:00:1f.2`` in 16 bits."""
    try:
        _, bus, rest = device.split(":")
        slot, function = rest.split(".")
        return int(bus, 16) << 8 | int(slot, 16) << 3 | int(function, 16)
    except ValueError:
        return None
