"""A device on a bus: it drives bus addresses, and its domain decides where they lead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from swiommu.address import Access, as_integer
from swiommu.dma import DmaDevice
from swiommu.errors import DeviceFault, InvalidArgument, NoDevice, OutOfRange, SpaceMismatch
from swiommu.layer import Node, load, save, terminals
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from swiommu.address import BusAddr, BusSpace, PhysAddr, Space
    from swiommu.dma import SwiotlbPool
    from swiommu.iommu import Domain
    from swiommu.iommu.groups import IommuGroup
    from swiommu.layer import Run
    from swiommu.memory import Frames, SparseRam
    from swiommu.region import Region

__all__ = ["Bus", "BusDevice"]


class Bus(Protocol):
    """What carries a device's accesses when no IOMMU is in the way, such as `swiommu.dma.DirectBus`."""

    @property
    def input_space(self) -> BusSpace:
        """The addresses that devices drive."""
        ...

    @property
    def output_space(self) -> Space:
        """The memory that they lead to."""
        ...

    def translate(self, iova: BusAddr, size: int, access: Access, *, stream: Hashable = None) -> list[Run]:
        """As `Domain.translate`."""
        ...


class BusDevice:
    """A device whose accesses end in ``ram``; ``dma_mask`` is the highest bus address it can drive (default: 32 bits).

    Where its way ends in a memory of another space, the bytes are there.
    They go through the domain that it is attached to; without one through ``bus``, if it sits on one: a bus that shows
    memory, or any node of a graph. ``group`` is the
    IOMMU group that decides on its domain, if it is in one. The device is the stream of its accesses, by which caches
    tell it from others.
    ``dma`` is what its driver calls, served as its default domain says. Coherent memory comes from ``memory`` where no
    IOMMU gives it (in order: its own region, zones), and what is out of reach bounces in ``pool``. The mask is one for
    all of them, and can be set at any time.
    Bursts move ascending: what lies before the first failing byte is transferred, nothing at or after it, and the
    error says how much (``transferred``). `InvalidArgument` for a mask that is not of the form ``2**n - 1``.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu import LinearDomain
    >>> from swiommu.memory import SparseRam
    >>> from swiommu.region import Region
    >>> space, bus = PhysSpace("ram", width=32), BusSpace("camera", width=32)
    >>> device = BusDevice("camera", SparseRam(space))
    >>> domain = LinearDomain(bus, Region(space.at(0x4000_0000), 1 << 20))
    >>> domain.attach(device)
    >>> buffer = domain.alloc(4096)
    >>> device.write(buffer.iova.start, b"frame")
    >>> device.read(buffer.iova.start, 5)
    b'frame'
    """

    __copy__ = no_shallow_copy

    def __init__(
        self,
        name: str,
        ram: SparseRam,
        *,
        dma_mask: int = (1 << 32) - 1,
        bus: Bus | Node | None = None,
        memory: Sequence[Frames | Region[PhysAddr]] = (),
        pool: SwiotlbPool | None = None,
    ) -> None:
        self.name = name
        self.ram = ram
        self.bus = bus
        self.memory = memory
        self.pool = pool
        self.domain: Domain[Any] | None = None
        self.group: IommuGroup | None = None
        self.dma_mask = dma_mask
        self.dma = DmaDevice(self)

    @property
    def dma_mask(self) -> int:
        """The highest bus address that it can drive; a domain that it is attached to keeps to what is set here."""
        return self._dma_mask

    @dma_mask.setter
    def dma_mask(self, mask: int) -> None:
        mask = as_integer(mask, "dma_mask")
        if mask < 1 or mask & (mask + 1):
            raise InvalidArgument(f"a DMA mask is 2**n - 1, not {mask:#x}")
        self._dma_mask = mask
        if self.domain is not None:
            self.domain.follow_masks()

    def read(self, addr: BusAddr, size: int) -> bytes:
        """``size`` bytes of memory from ``addr``.

        Raises `NoDevice` when not attached, `OutOfRange` for an address that the device can't drive, `SpaceMismatch`
        for an address of another bus, `DeviceFault` at the first byte that can't be read: the bytes before it are
        in its field ``data``.
        """
        if type(size) is not int:
            size = as_integer(size, "size")
        runs, fault = self._reach(addr, size, Access.READ)
        data = load(runs, self.ram)
        if fault is not None:
            raise self._cut_short(fault, data, size) from fault
        return data

    def write(self, addr: BusAddr, data: bytes) -> None:
        """Put ``data`` into memory from ``addr`` on; errors as `read`, the bytes before a fault are written."""
        runs, fault = self._reach(addr, len(data), Access.WRITE)
        done = save(runs, data, self.ram)
        if fault is not None:
            raise self._cut_short(fault, data[:done], len(data)) from fault

    def _reach(self, addr: BusAddr, size: int, access: Access) -> tuple[list[Run], DeviceFault | None]:
        path = self.domain or (self.bus if self.group is None else None)
        if path is None:
            raise NoDevice(f"device {self.name!r} is not attached to a domain")
        if isinstance(path, Node):
            self._require_end([None if end is None else end.space for end in terminals(path)], "its bus")
        elif self.domain is None:
            self._require_end([path.output_space], "its bus")
        elif self.domain.memory_space is not self.ram.space:
            self._require_end(self.domain.end_spaces, "its domain")
        # What is no address of this bus has no place under the mask either: `translate` says what it is.
        own = getattr(addr, "space", None) is path.input_space
        if own and size and addr.value + size - 1 > self.dma_mask:
            raise OutOfRange(
                f"device {self.name!r} can't drive {size} bytes at {addr!r}: its mask is {self.dma_mask:#x}",
                start=addr.value,
                size=size,
            )
        try:
            if self.group is not None:
                return self.group.translate(self, addr, size, access), None
            return path.translate(addr, size, access, stream=self), None
        except DeviceFault as fault:
            return list(fault.runs), fault

    def _require_end(self, ends: Iterable[Space | None], what: str) -> None:
        """`SpaceMismatch` unless a way ends in the device's memory, or openly, which is there."""
        ends = list(ends)
        if self.ram.space not in ends and None not in ends:
            named = ", ".join(repr(end.name) for end in ends if end is not None)
            raise SpaceMismatch(f"device {self.name!r} is on memory {self.ram.space.name!r}, {what} leads to {named}")

    def _cut_short(self, fault: DeviceFault, data: bytes, size: int) -> DeviceFault:
        return DeviceFault(
            f"device {self.name!r} transferred {len(data)} of {size} bytes: {fault}",
            fault=fault.fault,
            runs=fault.runs,
            data=data,
            transferred=len(data),
        )
