"""The DMA front: what drivers call, and the backends that serve a device.

Here live the slots of the bounce pool so far. Nothing here makes page tables or places chunks: that is the business
of the rooms below.
"""

from swiommu.dma.swiotlb import (
    IO_TLB_DEFAULT_SLOTS,
    IO_TLB_SEGSIZE,
    IO_TLB_SHIFT,
    IO_TLB_SIZE,
    Slots,
    SwiotlbPool,
)

__all__ = [
    "IO_TLB_DEFAULT_SLOTS",
    "IO_TLB_SEGSIZE",
    "IO_TLB_SHIFT",
    "IO_TLB_SIZE",
    "Slots",
    "SwiotlbPool",
]
