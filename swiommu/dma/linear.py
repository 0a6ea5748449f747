"""Over a linear domain: no translation hardware, but the one domain API, which records what is mapped."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from swiommu.address import PhysAddr, PhysRange
from swiommu.dma.backend import Coherent, DmaBackend, Mapped
from swiommu.dma.kinds import DmaAttr
from swiommu.dma.memory import CpuMemory
from swiommu.errors import AddressInUse, NotSupported

if TYPE_CHECKING:
    from swiommu.dma.backend import DmaLimits
    from swiommu.dma.kinds import DmaDirection
    from swiommu.dma.swiotlb import SwiotlbPool
    from swiommu.iommu import LinearDomain
    from swiommu.memory import SparseRam

__all__ = ["LinearDma"]


class LinearDma(DmaBackend):
    """``alloc`` takes a chunk of the domain's region; what is mapped is bound, each entry of a list on its own.

    Drivers may map the same bytes twice, and a domain records them once: the later mapping is served by the window and
    leaves no record. With a ``pool`` (inside the window), what the window does not hold bounces. `SpaceMismatch` for a
    domain that leads to no memory of ``ram``'s space.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.dma import DmaDirection, DmaLimits
    >>> from swiommu.iommu import LinearDomain
    >>> from swiommu.memory import SparseRam
    >>> from swiommu.region import Region
    >>> ram = SparseRam(PhysSpace("ram", width=40))
    >>> domain = LinearDomain(BusSpace("soc", width=32), Region(ram.space.at(0x8000_0000), 1 << 20), delta=-0x1000_0000)
    >>> linear = LinearDma(domain, ram)
    >>> hex(linear.map(DmaLimits("nic"), 0x8000_0200, 1500, DmaDirection.TO_DEVICE, DmaAttr.NONE).address)
    '0x70000200'
    """

    def __init__(
        self,
        domain: LinearDomain[PhysAddr],
        ram: SparseRam,
        *,
        pool: SwiotlbPool | None = None,
        force_bounce: bool = False,
    ) -> None:
        self.require_end(domain, ram)
        super().__init__(domain.input_space, ram, pool=pool, force_bounce=force_bounce)
        self.domain = domain

    def reach(
        self, limits: DmaLimits, phys: int, size: int, direction: DmaDirection, attributes: DmaAttr
    ) -> Mapped | None:
        """The window's address, recorded; registers (MMIO) keep theirs. None outside the window or the mask."""
        highest = limits.highest(limits.dma_mask)
        if attributes & DmaAttr.MMIO:
            return Mapped(phys, phys, size) if phys + size - 1 <= min(highest, self.bus.limit - 1) else None
        try:
            mapping = self.domain.bind([PhysRange(self.at(phys), size)], direction.prot, limit=highest)
        except NotSupported:
            return None
        except AddressInUse:
            mapping = None
        return Mapped(phys + self.domain.delta, phys, size, mapping=mapping)

    def let_go(self, part: Mapped) -> None:
        """Release what was recorded, unless an earlier call did so before it raised."""
        if part.mapping is not None and self.domain.held(part.mapping):
            self.domain.release(part.mapping)

    def alloc(self, limits: DmaLimits, size: int) -> Coherent:
        """A chunk of the region; raises as `LinearDomain.alloc`."""
        domain = self.domain
        mapping = domain.alloc(size, limit=limits.highest(limits.coherent_dma_mask))
        return Coherent(mapping.iova.start.value, CpuMemory(self.ram, mapping.pieces), partial(domain.release, mapping))

    def required_mask(self) -> int:
        """All ones up to the end of the window."""
        return (1 << self.domain.aperture_last.bit_length()) - 1

    def pool_delta(self) -> int:
        """That of the window."""
        return self.domain.delta
