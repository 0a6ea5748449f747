"""What serves a device's DMA calls, and what all ways to serve them share: bouncing, and lists entry by entry.

A backend raises errors; the kernel's return values are made in `swiommu.dma.front`. It trusts its caller: sizes are
positive, directions are not NONE, what is unmapped was mapped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import attrs

from swiommu.address import PhysAddr, as_integer
from swiommu.dma.bounce import BounceBuffers
from swiommu.dma.kinds import DmaAttr
from swiommu.errors import InvalidArgument, OutOfRange, SpaceMismatch
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.address import BusSpace
    from swiommu.dma.kinds import DmaDirection
    from swiommu.dma.memory import CpuMemory
    from swiommu.dma.swiotlb import SwiotlbPool
    from swiommu.iommu import Domain, Mapping
    from swiommu.memory import SparseRam

__all__ = ["Coherent", "DmaBackend", "DmaLimits", "Mapped", "Segment"]


def _number(value: SupportsIndex) -> int:
    return as_integer(value, "a limit of a device")


@attrs.define(eq=False, slots=False)
class DmaLimits:
    """What a device can drive and wants, as ``struct device`` and its ``dma_parms`` say it.

    Masks are highest addresses; ``bus_dma_limit`` is that of the bus it sits on, 0 for none. ``max_seg_size`` in
    bytes, ``seg_boundary_mask`` and ``min_align_mask`` are ``2**n - 1``. The defaults are the kernel's.

    >>> limits = DmaLimits("emmc", bus_dma_limit=0x3fff_ffff)
    >>> hex(limits.highest(limits.dma_mask)), limits.max_seg_size
    ('0x3fffffff', 65536)
    """

    name: str
    dma_mask: int = attrs.field(default=(1 << 32) - 1, kw_only=True, converter=_number)
    coherent_dma_mask: int = attrs.field(default=(1 << 32) - 1, kw_only=True, converter=_number)
    bus_dma_limit: int = attrs.field(default=0, kw_only=True, converter=_number)
    max_seg_size: int = attrs.field(default=1 << 16, kw_only=True, converter=_number)
    seg_boundary_mask: int = attrs.field(default=(1 << 64) - 1, kw_only=True, converter=_number)
    min_align_mask: int = attrs.field(default=0, kw_only=True, converter=_number)

    def highest(self, mask: int) -> int:
        """The highest address under ``mask`` that the bus passes on as well."""
        return min(mask, self.bus_dma_limit) if self.bus_dma_limit else mask


@attrs.define(eq=False)
class Mapped:
    """One contiguous stretch of a mapping: what to undo, and what to copy.

    ``address`` on the bus and ``phys`` of the memory are plain ints, ``size`` is in bytes; ``bounce`` is the address
    in the pool, ``mapping`` the domain's, each None where there is none.
    """

    address: int
    phys: int
    size: int
    bounce: int | None = None
    mapping: Mapping[PhysAddr] | None = None


class Segment(NamedTuple):
    """What a device is told: ``length`` bytes at the bus address ``address``."""

    address: int
    length: int


@attrs.frozen(eq=False)
class Coherent:
    """A coherent allocation: its bus address, the processor's view, and the way to give it back."""

    address: int
    cpu: CpuMemory
    give_back: Callable[[], None]


class DmaBackend(ABC):
    """``bus`` is the space of the addresses it answers, ``ram`` the memory they lead to.

    With a ``pool``, what the device does not reach is bounced; ``force_bounce`` bounces everything, as
    ``swiotlb=force`` does (`InvalidArgument` without a pool). `DirectDma`, `LinearDma` and `IommuDma` are the kinds.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.dma import DirectBus, DirectDma, DmaDirection, SwiotlbPool
    >>> from swiommu.memory import SparseRam
    >>> ram, bus = SparseRam(PhysSpace("ram", width=40)), BusSpace("soc", width=32)
    >>> direct = DirectDma(DirectBus(bus, ram.space), ram, pool=SwiotlbPool(0x7800_0000))
    >>> part = direct.map(DmaLimits("nic"), 0x5_0000_0200, 1500, DmaDirection.TO_DEVICE, DmaAttr.NONE)
    >>> hex(part.address), direct.buffers.copied
    ('0x78000000', 1500)
    """

    __copy__ = no_shallow_copy

    def __init__(
        self, bus: BusSpace, ram: SparseRam, *, pool: SwiotlbPool | None = None, force_bounce: bool = False
    ) -> None:
        if force_bounce and pool is None:
            raise InvalidArgument("bouncing everything needs a pool")
        self.bus = bus
        self.ram = ram
        self.buffers = None if pool is None else BounceBuffers(pool, ram)
        self.force_bounce = force_bounce

    @staticmethod
    def require_end(domain: Domain[Any], ram: SparseRam) -> None:
        """Refuse, with `SpaceMismatch`, a domain whose devices reach other bytes than the processor does in ``ram``."""
        if ram.space not in domain.end_spaces:
            ends = ", ".join(repr(space.name) for space in domain.end_spaces)
            raise SpaceMismatch(
                f"the domain of {domain.input_space.name!r} leads to memory {ends}, not to {ram.space.name!r}"
            )

    # -- how a kind reaches memory

    @abstractmethod
    def alloc(self, limits: DmaLimits, size: int) -> Coherent:
        """Memory that the device and the processor both see, under the coherent mask; whole pages, not cleared."""

    @abstractmethod
    def reach(
        self, limits: DmaLimits, phys: int, size: int, direction: DmaDirection, attributes: DmaAttr
    ) -> Mapped | None:
        """Let the device reach these bytes where they are; None if it can't."""

    @abstractmethod
    def let_go(self, part: Mapped) -> None:
        """Undo `reach`."""

    @abstractmethod
    def required_mask(self) -> int:
        """The smallest mask with which nothing has to be bounced or refused."""

    def supports(self, mask: int) -> bool:
        """Whether a driver may set this mask; here: any."""
        del mask
        return True

    def max_mapping_size(self, limits: DmaLimits) -> int:
        """What a bounce buffer holds, if the device needs one for some of the memory; else no limit."""
        bounces = self.force_bounce or limits.highest(limits.dma_mask) < self.required_mask()
        if self.buffers is None or not bounces:
            return (1 << 64) - 1
        return self.buffers.pool.max_mapping(limits.min_align_mask)

    def pool_delta(self) -> int:
        """Bus minus physical address of the pool, as far as it decides on the alignment of slots."""
        return 0

    # -- streaming

    def map(self, limits: DmaLimits, phys: int, size: int, direction: DmaDirection, attributes: DmaAttr) -> Mapped:
        """One contiguous buffer. `OutOfRange` if it can't be reached and not bounced, `NoMemory` for a full pool."""
        if attributes & DmaAttr.MMIO or not self.force_bounce:
            part = self.reach(limits, phys, size, direction, attributes)
            if part is not None:
                return part
        if self.buffers is None or attributes & DmaAttr.MMIO:
            raise OutOfRange(
                f"device {limits.name!r} does not reach {size} bytes at physical {phys:#x}: its mask is "
                f"{limits.highest(limits.dma_mask):#x}",
                paddr=phys,
                size=size,
            )
        return self.bounced(self.buffers, limits, phys, size, direction, attributes)

    def map_sg(
        self,
        limits: DmaLimits,
        entries: Sequence[tuple[int, int]],
        direction: DmaDirection,
        attributes: DmaAttr,
    ) -> tuple[list[Mapped], list[Segment]]:
        """A scatter list (physical address, length), each entry on its own; all or nothing."""
        parts: list[Mapped] = []
        try:
            for phys, length in entries:
                parts.append(self.map(limits, phys, length, direction, attributes))
        except BaseException:
            for part in parts:
                self.unmap(part, direction, attributes | DmaAttr.SKIP_CPU_SYNC)
            raise
        return parts, [Segment(part.address, part.size) for part in parts]

    def unmap(self, part: Mapped, direction: DmaDirection, attributes: DmaAttr) -> None:
        """Undo one part; what a device wrote to a bounce buffer comes back first."""
        self.let_go(part)
        if part.bounce is not None and self.buffers is not None:
            back = direction.device_writes and not attributes & DmaAttr.SKIP_CPU_SYNC
            self.buffers.unmap(part.bounce, copy_back=back)

    def sync_for_cpu(self, part: Mapped, offset: int, size: int, direction: DmaDirection) -> None:
        """Let the processor see what the device wrote; without a bounce buffer it does already."""
        if part.bounce is not None and self.buffers is not None and direction.device_writes:
            self.buffers.copy_back(part.bounce, offset, size)

    def sync_for_device(self, part: Mapped, offset: int, size: int, direction: DmaDirection) -> None:
        """Let the device see what the processor wrote; without a bounce buffer it does already."""
        if part.bounce is not None and self.buffers is not None and direction.device_reads:
            self.buffers.copy_in(part.bounce, offset, size)

    def bounced(
        self,
        buffers: BounceBuffers,
        limits: DmaLimits,
        phys: int,
        size: int,
        direction: DmaDirection,
        attributes: DmaAttr,
        *,
        alloc_align_mask: int = 0,
    ) -> Mapped:
        """Copy to slots and let the device reach those. Source: ``swiotlb_map``."""
        slots = buffers.map(
            phys,
            size,
            min_align_mask=limits.min_align_mask,
            boundary_mask=limits.seg_boundary_mask,
            alloc_align_mask=alloc_align_mask,
            delta=self.pool_delta(),
        )
        try:
            if alloc_align_mask:
                buffers.clear_around(slots, size, alloc_align_mask + 1)
            part = self.reach(limits, slots, size, direction, attributes)
        except BaseException:
            buffers.unmap(slots, copy_back=False)
            raise
        if part is None:
            buffers.unmap(slots, copy_back=False)
            raise OutOfRange(
                f"device {limits.name!r} does not reach the bounce buffer at physical {slots:#x} either",
                paddr=slots,
                size=size,
            )
        part.phys, part.bounce = phys, slots
        return part

    def at(self, phys: int) -> PhysAddr:
        """The address of the memory with this number."""
        return PhysAddr(self.ram.space, phys)
