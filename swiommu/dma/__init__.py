"""The DMA front: what drivers call, by the kernel's names, and the backends that serve a device.

Here live `DmaDevice` (the calls), the backends direct, linear and iommu, the bounce pool and its copies, and the
merging of scatter lists. Bouncing lives here and nowhere else. Nothing here makes page tables, chooses bus addresses
or places chunks: that is the business of the rooms below.
"""

from swiommu.dma.backend import Coherent, DmaBackend, DmaLimits, Mapped, Segment
from swiommu.dma.bounce import BounceBuffers
from swiommu.dma.choice import DmaClient, backend_of
from swiommu.dma.direct import DirectBus, DirectDma
from swiommu.dma.front import DmaDevice
from swiommu.dma.iommu import IommuDma
from swiommu.dma.kinds import DMA_BIT_MASK, DMA_MAPPING_ERROR, DmaAttr, DmaDirection
from swiommu.dma.linear import LinearDma
from swiommu.dma.memory import CpuMemory
from swiommu.dma.merge import join_entries, pad_entries
from swiommu.dma.pool_parameter import PoolParameter, pool_parameter
from swiommu.dma.swiotlb import (
    IO_TLB_DEFAULT_SLOTS,
    IO_TLB_SEGSIZE,
    IO_TLB_SHIFT,
    IO_TLB_SIZE,
    Slots,
    SwiotlbPool,
)
from swiommu.iommu import Scatterlist

__all__ = [
    "DMA_BIT_MASK",
    "DMA_MAPPING_ERROR",
    "IO_TLB_DEFAULT_SLOTS",
    "IO_TLB_SEGSIZE",
    "IO_TLB_SHIFT",
    "IO_TLB_SIZE",
    "BounceBuffers",
    "Coherent",
    "CpuMemory",
    "DirectBus",
    "DirectDma",
    "DmaAttr",
    "DmaBackend",
    "DmaClient",
    "DmaDevice",
    "DmaDirection",
    "DmaLimits",
    "IommuDma",
    "LinearDma",
    "Mapped",
    "PoolParameter",
    "Scatterlist",
    "Segment",
    "Slots",
    "SwiotlbPool",
    "backend_of",
    "join_entries",
    "pad_entries",
    "pool_parameter",
]
