"""Bounce buffers: slots of a pool, and the copies between them and the memory that they stand in for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import PhysAddr
from swiommu.locking import locked, no_shallow_copy

if TYPE_CHECKING:
    from swiommu.dma.swiotlb import SwiotlbPool
    from swiommu.memory import SparseRam

__all__ = ["BounceBuffers"]


class BounceBuffers:
    """``pool`` says where, ``ram`` holds the bytes of both sides; ``copied`` counts bytes, in both directions.

    Addresses are physical, plain ints. A bounce buffer's address is what `SwiotlbPool.find_slots` answered.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.dma import SwiotlbPool
    >>> from swiommu.memory import SparseRam
    >>> space = PhysSpace("ram")
    >>> buffers = BounceBuffers(SwiotlbPool(0x1000_0000, 128), SparseRam(space))
    >>> buffers.ram.write(space.at(0x5_0000_0000), b"frame")
    >>> address = buffers.map(0x5_0000_0000, 5)
    >>> buffers.ram.read(space.at(address), 5), buffers.copied
    (b'frame', 5)
    """

    __copy__ = no_shallow_copy

    def __init__(self, pool: SwiotlbPool, ram: SparseRam) -> None:
        self.pool = pool
        self.ram = ram
        self.copied = 0
        self.lock = pool.lock
        self._originals: dict[int, tuple[int, int]] = {}

    @locked
    def map(
        self,
        phys: int,
        size: int,
        *,
        min_align_mask: int = 0,
        boundary_mask: int = (1 << 64) - 1,
        alloc_align_mask: int = 0,
        delta: int = 0,
    ) -> int:
        """Take slots and fill them, whatever the direction; the address in the pool.

        Else a device that writes less than all would leave what the slots held before as data of the buffer. Raises
        as `SwiotlbPool.find_slots`.
        """
        address = self.pool.find_slots(
            phys,
            size,
            min_align_mask=min_align_mask,
            boundary_mask=boundary_mask,
            alloc_align_mask=alloc_align_mask,
            delta=delta,
        )
        self._originals[address] = (phys, size)
        try:
            self.copy_in(address, 0, size)
        except BaseException:  # the memory, or the pool, is not all bytes of `ram`
            self.unmap(address, copy_back=False)
            raise
        return address

    @locked
    def copy_in(self, address: int, offset: int, size: int) -> None:
        """Copy ``size`` bytes from ``offset`` on from the original memory into the bounce buffer at ``address``."""
        self._copy(self._originals[address][0] + offset, address + offset, size)

    @locked
    def copy_back(self, address: int, offset: int, size: int) -> None:
        """Copy ``size`` bytes from ``offset`` on from the bounce buffer at ``address`` to the original memory."""
        self._copy(address + offset, self._originals[address][0] + offset, size)

    @locked
    def clear_around(self, address: int, size: int, granule: int) -> None:
        """Zero what else of the buffer's granules a device could read. Source: ``iommu_dma_map_swiotlb``."""
        before = address & (granule - 1)
        after = -(address + size) & (granule - 1)
        self.ram.fill(self._at(address - before), before, 0)
        self.ram.fill(self._at(address + size), after, 0)

    @locked
    def unmap(self, address: int, *, copy_back: bool) -> None:
        """Give the slots back, after copying all of it back if asked to; `NotFound` for no live buffer's address."""
        if copy_back and address in self._originals:
            self.copy_back(address, 0, self._originals[address][1])
        self.pool.release(address)
        del self._originals[address]

    def _at(self, phys: int) -> PhysAddr:
        return PhysAddr(self.ram.space, phys)

    def _copy(self, source: int, target: int, size: int) -> None:
        self.ram.write(self._at(target), self.ram.read(self._at(source), size))
        self.copied += size
