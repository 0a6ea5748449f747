"""Without an IOMMU: a bus shows memory at fixed offsets, and memory has to lie where the device reaches it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE, PhysRange, align_up, as_integer, order_of
from swiommu.dma.backend import Coherent, DmaBackend, Mapped
from swiommu.dma.kinds import DmaAttr
from swiommu.dma.memory import CpuMemory
from swiommu.errors import NoMemory, OutOfRange, SpaceMismatch, SwiommuError
from swiommu.layer import Node, Span, Window
from swiommu.memory import Frames

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from swiommu.address import Access, BusAddr, BusSpace, PhysAddr, PhysSpace
    from swiommu.dma.backend import DmaLimits
    from swiommu.dma.kinds import DmaDirection
    from swiommu.dma.swiotlb import SwiotlbPool
    from swiommu.layer import Run
    from swiommu.memory import SparseRam
    from swiommu.region import Region

__all__ = ["DirectBus", "DirectDma"]

_ZONE_DMA_LIMIT = (1 << 24) - 1
_CMA_MAX_ORDER = 8  # CONFIG_CMA_ALIGNMENT


class DirectBus:
    """What a bus shows of a memory: ``ranges`` of it, each from a bus address on; none given: all, one to one.

    A device that sits on it reaches all of that, mapped or not. Raises `OutOfRange` for a range whose bus side leaves
    the space, `AddressInUse` for ranges that overlap on the bus, `SpaceMismatch` for addresses of other spaces.
    Source: ``dma_range_map``.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> ram, bus = PhysSpace("ram", width=40), BusSpace("soc", width=32)
    >>> soc = DirectBus(bus, ram, [(PhysRange(ram.at(0x8000_0000), 1 << 30), bus.at(0))])
    >>> soc.phys_to_dma(0x8000_1000), soc.phys_to_dma(0x1000), hex(soc.dma_to_phys(0x1000))
    (4096, None, '0x80001000')
    """

    def __init__(
        self, input_space: BusSpace, output_space: PhysSpace, ranges: Sequence[tuple[PhysRange, BusAddr]] = ()
    ) -> None:
        self.input_space = input_space
        self.output_space = output_space
        if not ranges:
            everything = min(input_space.limit, output_space.limit)
            ranges = [(PhysRange(output_space.at(0), everything), input_space.at(0))]
        self._spans = [self._span(memory, start) for memory, start in ranges]
        self.node = Node(Window(input_space.name, *self._spans), input_space=input_space)

    def phys_to_dma(self, phys: int) -> int | None:
        """Where the bus shows this byte of memory, by the first range that holds it; None if nowhere."""
        if type(phys) is not int:
            phys = as_integer(phys, "phys")
        for span in self._spans:
            if span.output <= phys < span.output + span.size:
                return phys - span.delta
        return None

    def dma_to_phys(self, address: int) -> int | None:
        """What memory a bus address leads to; None if to none."""
        if type(address) is not int:
            address = as_integer(address, "address")
        for span in self._spans:
            if span.base <= address < span.stop:
                return address + span.delta
        return None

    def translate(self, iova: BusAddr, size: int, wanted: Access, *, stream: Hashable = None) -> list[Run]:
        """What a device reaches with ``size`` bytes from ``iova``; `DeviceFault` with ``fault`` and ``runs``."""
        return self.node.translate(iova, size, wanted, stream=stream)

    def _span(self, memory: PhysRange, start: BusAddr) -> Span:
        if start.space is not self.input_space or memory.start.space is not self.output_space:
            raise SpaceMismatch(f"{memory!r} at {start!r} is not of the spaces of the bus {self.input_space.name!r}")
        if start.value + memory.size > self.input_space.limit:
            raise OutOfRange(
                f"{memory!r} at {start!r} leaves the {self.input_space.width}-bit bus",
                start=start.value,
                size=memory.size,
            )
        return Span(start.value, memory.size, memory.start.value - start.value)


class DirectDma(DmaBackend):
    """dma-direct: the bus address is what ``bus`` shows the memory at, if the device's masks reach it.

    ``alloc`` tries ``memory`` in order: a region is the device's own CMA area, `Frames` are a zone of the buddy
    allocator (power-of-two blocks); what lies beyond the coherent mask is given back and the next one tried.
    ``top_of_ram`` (one past the last byte; default: that of ``memory``) decides which masks are accepted. With a
    ``pool``, what is out of reach bounces. Source: ``kernel/dma/direct.c``.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.dma import DmaDirection, DmaLimits
    >>> from swiommu.memory import SparseRam
    >>> ram = SparseRam(PhysSpace("ram", width=40))
    >>> soc = DirectBus(BusSpace("soc", width=32), ram.space)
    >>> direct = DirectDma(soc, ram, [Frames(ram.space.at(0x4000_0000), 1 << 20)])
    >>> hex(direct.map(DmaLimits("nic"), 0x5000_0200, 1500, DmaDirection.TO_DEVICE, DmaAttr.NONE).address)
    '0x50000200'
    """

    def __init__(
        self,
        bus: DirectBus,
        ram: SparseRam,
        memory: Sequence[Frames | Region[PhysAddr]] = (),
        *,
        top_of_ram: int | None = None,
        pool: SwiotlbPool | None = None,
        force_bounce: bool = False,
    ) -> None:
        super().__init__(bus.input_space, ram, pool=pool, force_bounce=force_bounce)
        self.ranges = bus
        self.memory = tuple(memory)
        tops = [source.range.stop if isinstance(source, Frames) else source.stop for source in self.memory]
        self.top_of_ram = max(tops, default=ram.space.limit) if top_of_ram is None else top_of_ram

    def reach(
        self, limits: DmaLimits, phys: int, size: int, direction: DmaDirection, attributes: DmaAttr
    ) -> Mapped | None:
        """The address that the bus shows; registers (MMIO) keep theirs. None beyond the mask or the ranges."""
        del direction
        address = phys if attributes & DmaAttr.MMIO else self.ranges.phys_to_dma(phys)
        if address is None or not self._capable(address, size, limits.highest(limits.dma_mask)):
            return None
        return Mapped(address, phys, size)

    def let_go(self, part: Mapped) -> None:
        """Nothing was done."""

    def alloc(self, limits: DmaLimits, size: int) -> Coherent:
        """The first of ``memory`` that has room within reach; `NoMemory` with what the last one said."""
        highest = limits.highest(limits.coherent_dma_mask)
        reason: SwiommuError | None = None
        for source in self.memory:
            try:
                phys, give_back = _take(source, size)
            except NoMemory as error:
                reason = error
                continue
            address = self.ranges.phys_to_dma(phys)
            if address is not None and self._capable(address, size, highest):
                whole = PhysRange(self.at(phys), align_up(size, PAGE_SIZE))
                return Coherent(address, CpuMemory(self.ram, [whole]), give_back)
            give_back()
            reason = NoMemory(
                f"{size} bytes at physical {phys:#x} are beyond the coherent mask {highest:#x}", size=size, paddr=phys
            )
        raise reason or NoMemory(f"device {limits.name!r} has no memory to allocate from", size=size)

    def supports(self, mask: int) -> bool:
        """32 bits always; less only if that covers RAM or the DMA zone. Source: ``dma_direct_supported``."""
        least = min(self.top_of_ram - PAGE_SIZE, _ZONE_DMA_LIMIT)
        address = self.ranges.phys_to_dma(least)
        return mask >= (1 << 32) - 1 or (address is not None and mask >= address)

    def required_mask(self) -> int:
        """All ones up to the last page of RAM as the bus shows it; 64 bits if the bus doesn't show it."""
        last = self.ranges.phys_to_dma(self.top_of_ram - PAGE_SIZE)
        return (1 << 64) - 1 if last is None else (1 << last.bit_length()) - 1

    def pool_delta(self) -> int:
        """By the range that shows the pool."""
        start = 0 if self.buffers is None else self.buffers.pool.start
        shown = self.ranges.phys_to_dma(start)
        return 0 if shown is None else shown - start

    def _capable(self, address: int, size: int, highest: int) -> bool:
        return address + size - 1 <= min(highest, self.bus.limit - 1)


def _take(source: Frames | Region[PhysAddr], size: int) -> tuple[int, Callable[[], None]]:
    """Memory of ``size`` bytes, and how to give it back."""
    if isinstance(source, Frames):
        frames, order = source, order_of(size, source.page_size)
        pfn = frames.take(order)
        return pfn * frames.page_size, partial(frames.give, pfn, 1 << order)
    region, order = source, min(order_of(size, source.page_size), _CMA_MAX_ORDER)
    chunk = region.alloc(size, region.page_size << order)
    return chunk.start.value, partial(region.free, chunk)
