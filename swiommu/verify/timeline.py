"""What a trace tells of page tables: who mapped and unmapped what, in order, with whose domain it was told beside it.

The events ``map`` and ``unmap`` name no domain. It is that of the device in the dma event in which they happened
(`swiommu.trace.Calls`). Probe lines give the domain's pointer, which a dma event ties to a device once; then it serves
where there is none (message interrupts, the API of two steps). What is left belongs to whoever has that range mapped.
"""

from __future__ import annotations

from typing import Final

import attrs

from swiommu.address import PAGE_SIZE, Prot
from swiommu.requests.machine import Machine
from swiommu.trace import Call, Context, Kind, Trace, is_flush_all

__all__ = ["DOORBELL", "NOBODY", "Op", "Timeline", "prot_of", "read_timeline"]

NOBODY: Final = "nobody known"
"""The owner of a range of whom the trace tells nothing."""

_SPACE: Final = 1 << 64
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
    """What one line of execution has done that no dma event was for."""

    maps: list[Op] = attrs.field(factory=list)
    stop: int = -1  # where its last map ends, if no dma event was behind it
    unmap: Op | None = None
    unmap_row: int = -1
    assigned: list[int] = attrs.field(factory=list)


class _Reader:
    """Walks the calls once; owners are settled at the end, when every pointer is known."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.table = trace.table
        self.timeline = Timeline()
        self.contexts: dict[Context, _Context] = {}
        self.live: dict[int, list[Op]] = {}
        self.pointers: dict[int, str] = {}
        self.calls = 0
        self.groups = dict(trace.sidecar.group_of) if trace.sidecar else {}
        self.machine = Machine(trace.sidecar, trace.path)
        kinds = self.table.kind
        self.lost = kinds.index(Kind.LOST) if Kind.LOST in kinds else len(kinds)

    def read(self) -> Timeline:
        handlers = {
            Kind.IOMMU_MAP: self.map,
            Kind.IOMMU_UNMAP: self.unmap,
            Kind.DMA_MAP: self.mapped,
            Kind.DMA_ALLOC: self.mapped,
            Kind.DMA_MAP_SG: self.mapped,
            Kind.FLUSH_RANGE: self.flush,
            Kind.FLUSH_ALL: self.flush,
            Kind.TAG_ASSIGN: self.assign,
            Kind.DOMAIN_ATTACH: self.attach,
            Kind.GROUP_ADD: self.group_add,
        }
        for call in self.trace.calls.of({*handlers, Kind.LOST}):
            if call.row == self.lost:
                self.timeline.lost = call.event.line
                break
            context = call.event.context
            state = self.contexts.get(context)
            if state is None:
                state = self.contexts[context] = _Context()
            handlers[call.event.kind](call, state)
        self.settle()
        return self.timeline

    # -- maps and unmaps

    def map(self, call: Call, state: _Context) -> None:
        event = call.event
        if not _is_range(event.addr, event.size):
            return
        op = Op(Kind.IOMMU_MAP, event.line, event.context, event.addr, event.size, event.phys)
        self.calls += state.stop != op.iova
        op.call, state.stop = self.calls, op.stop
        op.doorbell = op.size == PAGE_SIZE and not self.machine.may_be_ram(op.paddr)
        if call.begin >= 0:
            op.pointer = self.table.extra[call.begin]
            op.told = _number(self.table.names[self.table.flags[call.begin]])
        device = self.device(call)
        if device:
            self.own(op, device)
            is_alloc = self.table.kind[call.outer] == Kind.DMA_ALLOC
            op.direction = "BIDIRECTIONAL" if is_alloc else self.table.names[self.table.name[call.outer]]
        else:
            state.maps.append(op)
        self.live.setdefault(op.iova, []).append(op)
        self.timeline.ops.append(op)

    def device(self, call: Call) -> str:
        """The device of the dma event that a map or an unmap is of; empty if there is none before the loss."""
        return self.table.names[self.table.device[call.outer]] if 0 <= call.outer < self.lost else ""

    def mapped(self, call: Call, state: _Context) -> None:
        """A dma event: what its context mapped before it for no call was for its device's interrupts."""
        for op in state.maps:
            if op.doorbell:
                self.own(op, call.event.device)
        state.maps, state.stop = [], -1

    def own(self, op: Op, device: str) -> None:
        op.owner = self.owner(device)
        if op.pointer:
            self.pointers[op.pointer] = op.owner

    def unmap(self, call: Call, state: _Context) -> None:
        event = call.event
        if not _is_range(event.addr, event.extra):
            return
        op = Op(Kind.IOMMU_UNMAP, event.line, event.context, event.addr, event.extra)
        if call.begin >= 0:
            op.pointer = self.table.extra[call.begin]
        device = self.device(call)
        if device:
            self.own(op, device)
        likes = self.live.get(op.iova, [])
        mine = [
            like for like in likes if like.owner == op.owner or (op.pointer and like.pointer == op.pointer)
        ] or likes
        if len(mine) == 1:
            op.like = mine[0]
            likes.remove(mine[0])
        state.unmap, state.unmap_row = op, call.row
        self.timeline.ops.append(op)

    # -- who is who

    def owner(self, device: str) -> str:
        group = self.groups.get(device)
        return f"group {group}" if group is not None else device or NOBODY

    def flush(self, call: Call, state: _Context) -> None:
        event, unmap = call.event, state.unmap
        if event.flags != "iotlb":
            return
        if is_flush_all(event):
            self.timeline.ops.append(Op(Kind.FLUSH_ALL, event.line, event.context, 0, 0, number=event.extra))
        elif unmap is None or call.outer != state.unmap_row:
            return
        elif event.addr <= unmap.iova and unmap.stop - 1 <= event.phys:
            unmap.number = event.extra

    def assign(self, call: Call, state: _Context) -> None:
        if call.event.flags == "iotlb":
            state.assigned.append(call.event.extra)

    def attach(self, call: Call, state: _Context) -> None:
        owner = self.owner(call.event.device)
        self.timeline.attached.add(owner)
        self.timeline.numbers.update(dict.fromkeys(state.assigned, owner))
        for op in state.maps:
            if op.iova == op.paddr:  # a direct-mapped region of its group
                op.owner = owner
        state.assigned, state.maps, state.stop = [], [], -1

    def group_add(self, call: Call, _state: _Context) -> None:
        self.groups[call.event.device] = call.event.extra

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
    return 0 < size <= _MOST and not (iova | size) % PAGE_SIZE and iova + size <= _SPACE


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
