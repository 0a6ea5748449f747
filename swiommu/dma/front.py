"""What drivers call: the DMA API by the kernel's names, with the kernel's return values.

The same driver runs on every backend. What a driver must expect is answered as the kernel answers it: the error value
of a mapping, 0 segments, None for a NULL pointer, a negative errno; `DmaDevice.last_error` then says why. What a
driver must never do (unmap what is not mapped, with another size or direction; direction NONE; an address of another
bus) raises `InvalidArgument` or `NotFound`, where a kernel goes on with wrong data.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from swiommu.address import PAGE_SHIFT, PAGE_SIZE, BusAddr, BusSpace, PhysAddr, as_integer, as_integers, is_power_of_two
from swiommu.dma.backend import Coherent, DmaLimits
from swiommu.dma.book import Book, Streaming
from swiommu.dma.choice import backend_of, serving_domain
from swiommu.dma.kinds import DMA_MAPPING_ERROR, DmaAttr, DmaDirection
from swiommu.errors import AddressOverflow, InvalidArgument, NotFound, OutOfRange, SpaceMismatch, SwiommuError
from swiommu.locking import Lock, locked, no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.dma.backend import DmaBackend, Segment
    from swiommu.dma.choice import DmaClient
    from swiommu.dma.memory import CpuMemory
    from swiommu.iommu import Domain, Scatterlist

__all__ = ["DmaDevice"]

# ``dma_addr_t`` is wider than most buses: the error value is an address of none of them.
_NOT_MAPPED = BusSpace("dma_addr_t", width=64).at(DMA_MAPPING_ERROR)


class _Named:
    """A device that is a name and a mask."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dma_mask = (1 << 32) - 1


class DmaDevice(DmaLimits):
    r"""A device as its driver holds it (``struct device``). Sizes and offsets in bytes.

    ``device`` is one such as `swiommu.device.BusDevice`, whose ``dma`` this is then, or the name of one that is nothing
    else. A device has one mask: what the driver sets here it drives, and its domain keeps to. Without a ``backend`` it
    is served as its default domain says (`backend_of`); if it gets another default domain, with the first call when no
    mapping is left. A name needs a ``backend`` (`InvalidArgument`), and its masks say what the *driver* believes that
    the device drives: 32 bits, until it sets them. Memory addresses are `PhysAddr` of the backend's memory, bus
    addresses are of its bus.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.dma import DirectBus, DirectDma, DmaDirection
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram = SparseRam(PhysSpace("ram", width=40))
    >>> soc = DirectBus(BusSpace("soc", width=40), ram.space)
    >>> dev = DmaDevice("nic", DirectDma(soc, ram, [Frames(ram.space.at(0x4000_0000), 1 << 20)]))
    >>> cpu, handle = dev.dma_alloc_coherent(256)
    >>> handle, cpu.read(0, 4)
    (BusAddr(soc:0x40000000), b'\x00\x00\x00\x00')
    >>> address = dev.dma_map_single(ram.space.at(0x1_0000_0000), 1500, DmaDirection.TO_DEVICE)
    >>> dev.dma_mapping_error(address), str(dev.last_error)
    (-12, "device 'nic' does not reach 1500 bytes at physical 0x100000000: its mask is 0xffffffff")
    """

    __copy__ = no_shallow_copy

    def __init__(self, device: str | DmaClient, backend: DmaBackend | None = None, *, bus_dma_limit: int = 0) -> None:
        self._device: _Named | DmaClient
        self._client: DmaClient | None = None  # whose backend has to be found
        if backend is not None:
            self._device, self._ram = _Named(device) if isinstance(device, str) else device, backend.ram
        elif isinstance(device, str):
            raise InvalidArgument(f"a device that is the name {device!r} alone needs a backend")
        else:
            self._device, self._client, self._ram = device, device, device.ram
        super().__init__(self._device.name, dma_mask=self._device.dma_mask, bus_dma_limit=bus_dma_limit)
        self.lock = Lock()
        self.last_error: SwiommuError | None = None
        self._backend = backend
        self._served: Domain[Any] | None = None  # by the backend that was found
        self._book = Book()
        self._coherent: dict[int, tuple[int, Coherent]] = {}

    @property
    def backend(self) -> DmaBackend:
        """What serves the device, found if it was not given; raises what `backend_of` raises."""
        if self._client is not None:
            domain = serving_domain(self._client)
            if self._backend is None or (domain is not self._served and not any(self.live)):
                self._backend, self._served = backend_of(self._client), domain
        assert self._backend is not None, f"nothing serves {self.name!r}"
        return self._backend

    @property
    def dma_mask(self) -> int:
        """The highest address of streaming mappings, and of a `BusDevice` the highest that it drives."""
        return self._device.dma_mask

    @dma_mask.setter
    def dma_mask(self, mask: int) -> None:
        self._device.dma_mask = mask

    # -- what the device can

    @locked
    def dma_set_mask(self, mask: int) -> int:
        """Say how far streaming mappings may lie; 0, or -EIO if the platform can't serve such a device."""
        if type(mask) is not int:
            mask = as_integer(mask, "mask")
        if not self._accepts(mask):
            return -errno.EIO
        self.dma_mask = mask
        return 0

    @locked
    def dma_set_coherent_mask(self, mask: int) -> int:
        """Say how far coherent memory may lie; 0 or -EIO, as `dma_set_mask`."""
        if type(mask) is not int:
            mask = as_integer(mask, "mask")
        if not self._accepts(mask):
            return -errno.EIO
        self.coherent_dma_mask = mask
        return 0

    @locked
    def dma_set_mask_and_coherent(self, mask: int) -> int:
        """Both masks at once; 0 or -EIO."""
        return self.dma_set_mask(mask) or self.dma_set_coherent_mask(mask)

    def dma_get_required_mask(self) -> int:
        """The smallest mask that needs no bouncing: up to the top of RAM; 32 bits with an IOMMU."""
        return self.backend.required_mask()

    def dma_addressing_limited(self) -> bool:
        """Whether some memory is out of the device's reach."""
        return self.highest(self.dma_mask) < self.dma_get_required_mask()

    def dma_max_mapping_size(self) -> int:
        """The longest single mapping that can succeed: short where it may have to bounce, else ``2**64 - 1``."""
        return self.backend.max_mapping_size(self)

    @locked
    def dma_set_max_seg_size(self, size: int) -> None:
        """The longest segment of a scatter list that the device takes; `InvalidArgument` below 1."""
        if type(size) is not int:
            size = as_integer(size, "size")
        if size < 1:
            raise InvalidArgument(f"segments of at most {size} bytes can't be: at least 1 is needed", size=size)
        self.max_seg_size = size

    @locked
    def dma_set_seg_boundary(self, mask: int) -> None:
        """What no segment crosses: multiples of ``mask`` + 1, a power of two of pages; else `InvalidArgument`."""
        if type(mask) is not int:
            mask = as_integer(mask, "mask")
        if not is_power_of_two(mask + 1) or mask + 1 < PAGE_SIZE:
            raise InvalidArgument(f"a segment boundary is 2**n - 1 and at least a page, not {mask:#x}", mask=mask)
        self.seg_boundary_mask = mask

    @locked
    def dma_set_min_align_mask(self, mask: int) -> None:
        """Low address bits that a mapping must keep; `InvalidArgument` unless ``2**n - 1``."""
        if type(mask) is not int:
            mask = as_integer(mask, "mask")
        if not is_power_of_two(mask + 1):
            raise InvalidArgument(f"a mask is 2**n - 1, not {mask:#x}", mask=mask)
        self.min_align_mask = mask

    # -- coherent memory

    @locked
    def dma_alloc_coherent(self, size: int) -> tuple[CpuMemory, BusAddr] | None:
        """Zeroed memory that processor and device both see, at least ``size`` bytes; None if there is none.

        `InvalidArgument` for less than 1 byte.
        """
        if type(size) is not int:
            size = as_integer(size, "size")
        if size < 1:
            raise InvalidArgument(f"{size} bytes can't be allocated: at least 1 is needed", size=size)
        try:
            memory = self.backend.alloc(self, size)
        except SwiommuError as error:
            self._note(error)
            return None
        try:
            memory.cpu.zero()
        except BaseException:
            memory.give_back()
            raise
        self._coherent[memory.address] = (size, memory)
        return memory.cpu, self._bus(memory.address)

    @locked
    def dma_free_coherent(self, size: int, cpu: CpuMemory | None, handle: BusAddr) -> None:
        """Give it back; None is ignored. `NotFound` for another handle, `InvalidArgument` for another size or pointer.

        The size is that of the allocation; the kernel frees what it is told to.
        """
        if type(size) is not int:
            size = as_integer(size, "size")
        if cpu is None:
            return
        held = self._coherent.get(self._value(handle))
        if held is None:
            raise NotFound(f"no coherent memory is at bus address {handle.value:#x}", start=handle.value)
        if held[0] != size or held[1].cpu is not cpu:
            raise InvalidArgument(
                f"{held[0]} bytes were allocated at {handle.value:#x}, not {size} bytes of that pointer", size=size
            )
        held[1].give_back()
        del self._coherent[handle.value]

    # -- one buffer

    @locked
    def dma_map_single(
        self, phys: PhysAddr, size: int, direction: DmaDirection, attributes: DmaAttr = DmaAttr.NONE
    ) -> BusAddr:
        """Let the device see ``size`` bytes at ``phys``; its address for them, or one of value `DMA_MAPPING_ERROR`.

        Ask `dma_mapping_error`. Raises `InvalidArgument` (empty, NONE), `SpaceMismatch`, `AddressOverflow`.
        """
        start, size = self._memory(phys, size)
        self._require(direction)
        try:
            part = self.backend.map(self, start, size, direction, attributes)
        except SwiommuError as error:
            self._note(error)
            return _NOT_MAPPED
        if part.address == DMA_MAPPING_ERROR:
            # The last address of a bus of 64 bits has the same value: no driver could tell the two apart.
            self.backend.unmap(part, direction, DmaAttr.SKIP_CPU_SYNC)
            self._note(OutOfRange(f"bus address {part.address:#x} is the error value", start=part.address))
            return _NOT_MAPPED
        self._book.add(Streaming(part.address, size, direction, (part,)))
        return self._bus(part.address)

    dma_map_phys = dma_map_single

    def dma_map_page(
        self, pfn: int, offset: int, size: int, direction: DmaDirection, attributes: DmaAttr = DmaAttr.NONE
    ) -> BusAddr:
        """As `dma_map_single`, of a page; registers are no pages: MMIO is `InvalidArgument`."""
        if type(pfn) is not int or type(offset) is not int:
            pfn, offset = as_integers(pfn=pfn, offset=offset)
        if attributes & DmaAttr.MMIO:
            raise InvalidArgument(f"page {pfn:#x} can't be mapped as MMIO: use dma_map_resource", pfn=pfn)
        start = self._ram.space.at((pfn << PAGE_SHIFT) + offset)
        return self.dma_map_single(start, size, direction, attributes)

    def dma_map_resource(
        self, phys: PhysAddr, size: int, direction: DmaDirection, attributes: DmaAttr = DmaAttr.NONE
    ) -> BusAddr:
        """Let the device see another device's registers; a direct bus answers ``phys`` itself, without its offset."""
        return self.dma_map_single(phys, size, direction, attributes | DmaAttr.MMIO)

    @locked
    def dma_unmap_single(
        self, address: BusAddr, size: int, direction: DmaDirection, attributes: DmaAttr = DmaAttr.NONE
    ) -> None:
        """End a mapping; what the device wrote is in memory then. `NotFound`, or `InvalidArgument` for another size."""
        if type(size) is not int:
            size = as_integer(size, "size")
        self._require(direction)
        self._end(self._book.find(self._value(address), size, direction), attributes)

    dma_unmap_phys = dma_unmap_single
    dma_unmap_page = dma_unmap_single
    dma_unmap_resource = dma_unmap_single

    def dma_mapping_error(self, address: BusAddr) -> int:
        """-ENOMEM for an address of value `DMA_MAPPING_ERROR`, else 0."""
        if getattr(address, "value", None) == DMA_MAPPING_ERROR:
            return -errno.ENOMEM
        self._value(address)
        return 0

    @locked
    def dma_sync_single_for_cpu(self, address: BusAddr, size: int, direction: DmaDirection) -> None:
        """Let the processor read what the device wrote to part of a mapping; `NotFound` beyond one mapping."""
        if type(size) is not int:
            size = as_integer(size, "size")
        self._require(direction)
        mapping = self._book.holding(self._value(address), size)
        self.backend.sync_for_cpu(mapping.parts[0], address.value - mapping.start, size, direction)

    @locked
    def dma_sync_single_for_device(self, address: BusAddr, size: int, direction: DmaDirection) -> None:
        """Let the device read what the processor wrote to part of a mapping; `NotFound` beyond one mapping."""
        if type(size) is not int:
            size = as_integer(size, "size")
        self._require(direction)
        mapping = self._book.holding(self._value(address), size)
        self.backend.sync_for_device(mapping.parts[0], address.value - mapping.start, size, direction)

    # -- scatter lists

    @locked
    def dma_map_sg(
        self, sg: Sequence[Scatterlist], nents: int, direction: DmaDirection, attributes: DmaAttr = DmaAttr.NONE
    ) -> int:
        """Map the first ``nents`` entries; how many segments the device gets, at most as many, 0 on any error.

        Segments stand in the first entries' ``dma_address`` and ``dma_length``.
        """
        entries = self._entries(sg, nents, direction)
        peer = next((place for place, entry in enumerate(entries) if entry.bus_address), None)
        if peer is not None:
            raise InvalidArgument(f"entry {peer} of the scatter list is a peer's bus address: there is nothing to map")
        memory = [self._memory(entry.phys, entry.length) for entry in entries]
        try:
            parts, segments = self.backend.map_sg(self, memory, direction, attributes)
        except SwiommuError as error:
            self._note(error)
            return 0
        self._tell(entries, segments)
        total = sum(entry.length for entry in entries)
        self._book.add(Streaming(segments[0].address, total, direction, parts, nents))
        return len(segments)

    @locked
    def dma_unmap_sg(
        self, sg: Sequence[Scatterlist], nents: int, direction: DmaDirection, attributes: DmaAttr = DmaAttr.NONE
    ) -> None:
        """End it, with the ``nents`` that was *given* to `dma_map_sg`, not the number that it answered."""
        mapping = self._mapped(sg, nents, direction)
        self._end(mapping, attributes)
        self._tell(sg[:nents], ())

    @locked
    def dma_sync_sg_for_cpu(self, sg: Sequence[Scatterlist], nents: int, direction: DmaDirection) -> None:
        """`dma_sync_single_for_cpu` for all of a list."""
        for part in self._mapped(sg, nents, direction).parts:
            self.backend.sync_for_cpu(part, 0, part.size, direction)

    @locked
    def dma_sync_sg_for_device(self, sg: Sequence[Scatterlist], nents: int, direction: DmaDirection) -> None:
        """`dma_sync_single_for_device` for all of a list."""
        for part in self._mapped(sg, nents, direction).parts:
            self.backend.sync_for_device(part, 0, part.size, direction)

    # -- books

    @property
    @locked
    def live(self) -> tuple[int, int]:
        """How many streaming mappings and coherent allocations the driver holds; a driver that is done holds none."""
        return len(self._book), len(self._coherent)

    @locked
    def check(self) -> None:
        """The books are sound; `AssertionError` with a dump."""
        self._book.check()

    # -- inside

    def _accepts(self, mask: int) -> bool:
        if not is_power_of_two(mask + 1) or mask < 1:
            raise InvalidArgument(f"a DMA mask is 2**n - 1, not {mask:#x}", mask=mask)
        return self.backend.supports(mask)

    def _note(self, error: SwiommuError) -> None:
        """Keep why, as the kernel only says that; what no driver may ask for goes on as an error."""
        if isinstance(error, InvalidArgument):
            raise error
        self.last_error = error

    def _bus(self, value: int) -> BusAddr:
        return BusAddr(self.backend.bus, value)

    def _value(self, address: BusAddr) -> int:
        if getattr(address, "space", None) is not self.backend.bus:
            raise SpaceMismatch(f"{address!r} is no address of the bus {self.backend.bus.name!r}")
        return address.value

    def _memory(self, phys: PhysAddr | BusAddr | int, size: int) -> tuple[int, int]:
        if type(size) is not int:
            size = as_integer(size, "size")
        if not isinstance(phys, PhysAddr) or phys.space is not self._ram.space:
            raise SpaceMismatch(f"{phys!r} is no address of the memory {self._ram.space.name!r}")
        if size < 1:
            raise InvalidArgument(f"{size} bytes can't be mapped: at least 1 is needed", size=size)
        if phys.value + size > phys.space.limit:
            raise AddressOverflow(f"{size} bytes at {phys!r} leave the memory", paddr=phys.value, size=size)
        return phys.value, size

    @staticmethod
    def _require(direction: DmaDirection) -> None:
        if direction == DmaDirection.NONE:
            raise InvalidArgument("a mapping has a direction, and NONE is none")

    def _entries(self, sg: Sequence[Scatterlist], nents: int, direction: DmaDirection) -> Sequence[Scatterlist]:
        if type(nents) is not int:
            nents = as_integer(nents, "nents")
        self._require(direction)
        if not 1 <= nents <= len(sg):
            raise InvalidArgument(f"{nents} entries of a scatter list of {len(sg)}", count=nents)
        return sg[:nents]

    def _mapped(self, sg: Sequence[Scatterlist], nents: int, direction: DmaDirection) -> Streaming:
        entries = self._entries(sg, nents, direction)
        first = entries[0].dma_address
        if first is None:
            raise NotFound("the scatter list is not mapped")
        return self._book.find(self._value(first), sum(entry.length for entry in entries), direction, nents)

    def _tell(self, entries: Sequence[Scatterlist], segments: Sequence[Segment]) -> None:
        for entry in entries:
            entry.dma_address, entry.dma_length = None, 0
        for entry, segment in zip(entries, segments, strict=False):
            entry.dma_address, entry.dma_length = self._bus(segment.address), segment.length

    def _end(self, mapping: Streaming, attributes: DmaAttr) -> None:
        # What the backend raises for a part leaves the rest mapped, so that it can be ended again.
        while mapping.parts:
            self.backend.unmap(mapping.parts[0], mapping.direction, attributes)
            mapping.parts = mapping.parts[1:]
        self._book.remove(mapping)
