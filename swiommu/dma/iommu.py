"""Over a domain that translates: any memory, one bus range for a whole scatter list. dma-iommu."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from swiommu.address import PhysRange, Prot
from swiommu.dma.backend import Coherent, DmaBackend, Mapped, Segment
from swiommu.dma.kinds import DmaAttr
from swiommu.dma.memory import CpuMemory
from swiommu.dma.merge import join_entries, pad_entries
from swiommu.errors import InvalidArgument, NotSupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.dma.backend import DmaLimits
    from swiommu.dma.kinds import DmaDirection
    from swiommu.dma.swiotlb import SwiotlbPool
    from swiommu.iommu import Domain, Mapping
    from swiommu.memory import SparseRam

__all__ = ["IommuDma"]


class IommuDma(DmaBackend):
    """Each mapping is a bus range of whole granules in ``domain``, under the device's mask.

    In a stack it is mapped through all domains, from the bottom up.

    ``untrusted`` devices get a bounce buffer of ``pool`` for what does not begin and end with a granule, its padding
    zeroed; their lists are not merged. Coherent memory is scattered. Raises `InvalidArgument` for a domain that does
    not translate, or an untrusted device without a pool, `SpaceMismatch` for one that leads to no memory of ``ram``'s
    space. Source: drivers/iommu/dma-iommu.c.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.dma import DmaDirection, DmaLimits
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram = SparseRam(PhysSpace("ram", width=40))
    >>> frames = Frames(ram.space.at(0x4000_0000), 1 << 20)
    >>> domain = PagedDomain(BusSpace("iova", width=48), frames=frames, output_space=ram.space)
    >>> iommu = IommuDma(domain, ram)
    >>> list_of_three = [(0x8000_0400, 0xc00), (0x9000_0000, 0x2000), (0xa000_0000, 0x300)]
    >>> parts, segments = iommu.map_sg(DmaLimits("nvme"), list_of_three, DmaDirection.TO_DEVICE, DmaAttr.NONE)
    >>> [(hex(address), hex(length)) for address, length in segments]
    [('0xffffc400', '0x2f00')]
    """

    def __init__(
        self,
        domain: Domain[Any],
        ram: SparseRam,
        *,
        pool: SwiotlbPool | None = None,
        untrusted: bool = False,
    ) -> None:
        if not domain.enforces:
            raise InvalidArgument(f"the domain of {domain.input_space.name!r} does not translate: LinearDma serves it")
        if untrusted and pool is None:
            raise InvalidArgument("an untrusted device needs a pool to bounce in")
        self.require_end(domain, ram)
        super().__init__(domain.input_space, ram, pool=pool)
        self.domain = domain
        self.untrusted = untrusted

    def map(self, limits: DmaLimits, phys: int, size: int, direction: DmaDirection, attributes: DmaAttr) -> Mapped:
        """Bounced for untrusted devices unless it is whole granules, else reached where it is."""
        torn = (phys | size) & (self.domain.finest_granule - 1)
        if self.untrusted and torn and self.buffers is not None and not attributes & DmaAttr.MMIO:
            mask = self.domain.finest_granule - 1
            return self.bounced(self.buffers, limits, phys, size, direction, attributes, alloc_align_mask=mask)
        return self.reach(limits, phys, size, direction, attributes)

    def reach(self, limits: DmaLimits, phys: int, size: int, direction: DmaDirection, attributes: DmaAttr) -> Mapped:
        """Bind it; `NoSpace` without bus addresses under the mask, `NoMemory` without memory for tables."""
        self._require_alignment(limits)
        highest = limits.highest(limits.dma_mask)
        mapping = self.domain.bind_memory([PhysRange(self.at(phys), size)], _prot(direction, attributes), limit=highest)
        return Mapped(mapping.iova.start.value, phys, size, mapping=mapping)

    def let_go(self, part: Mapped) -> None:
        """Unmap, flush as the domain does, and give the bus range back, unless a call that raised has done it."""
        if part.mapping is not None and self.domain.held(part.mapping):
            self.domain.release(part.mapping)

    def map_sg(
        self,
        limits: DmaLimits,
        entries: Sequence[tuple[int, int]],
        direction: DmaDirection,
        attributes: DmaAttr,
    ) -> tuple[list[Mapped], list[Segment]]:
        """One bus range for all entries, merged to as few segments as the device's limits allow."""
        if self.untrusted:
            return super().map_sg(limits, entries, direction, attributes)
        self._require_alignment(limits)
        granule, boundary = self.domain.memory_granule, limits.seg_boundary_mask
        padded = pad_entries(entries, granule, boundary)
        pieces = [
            PhysRange(self.at(phys - phys % granule), whole) for (phys, _), whole in zip(entries, padded, strict=True)
        ]
        highest = limits.highest(limits.dma_mask)
        mapping = self.domain.bind_memory(pieces, _prot(direction, attributes), limit=highest)
        segments = join_entries(
            mapping.iova.start.value,
            entries,
            padded,
            granule=granule,
            boundary_mask=boundary,
            max_seg_size=limits.max_seg_size,
        )
        part = Mapped(mapping.iova.start.value, pieces[0].start.value, mapping.size, mapping=mapping)
        return [part], [Segment(address, length) for address, length in segments]

    def alloc(self, limits: DmaLimits, size: int) -> Coherent:
        """Frames of the domain, scattered, behind one bus range under the coherent mask."""
        domain = self.domain
        mapping = domain.alloc(size, prot=_READ_WRITE, limit=limits.highest(limits.coherent_dma_mask))
        cpu = CpuMemory(self.ram, mapping.memory)
        return Coherent(mapping.iova.start.value, cpu, partial(self._give_back, mapping))

    def _give_back(self, mapping: Mapping[Any]) -> None:
        if self.domain.held(mapping):
            self.domain.release(mapping)

    def max_mapping_size(self, limits: DmaLimits) -> int:
        """What a bounce buffer holds for an untrusted device; else no limit."""
        if self.untrusted and self.buffers is not None:
            return self.buffers.pool.max_mapping(limits.min_align_mask)
        return (1 << 64) - 1

    def required_mask(self) -> int:
        """32 bits: the domain finds addresses there."""
        return (1 << 32) - 1

    def _require_alignment(self, limits: DmaLimits) -> None:
        if limits.min_align_mask >= self.domain.finest_granule:
            raise NotSupported(
                f"device {limits.name!r} wants address bits {limits.min_align_mask:#x} kept, beyond the granule "
                f"{self.domain.finest_granule:#x}",
            )


_READ_WRITE = Prot.READ | Prot.WRITE | Prot.CACHE


def _prot(direction: DmaDirection, attributes: DmaAttr) -> Prot:
    """Source: ``dma_info_to_prot``, for a coherent device."""
    prot = direction.prot | (Prot.MMIO if attributes & DmaAttr.MMIO else Prot.CACHE)
    return prot | Prot.PRIV if attributes & DmaAttr.PRIVILEGED else prot
