"""The constants of the IOMMU API, by the kernel's names and with its values (include/linux/iommu.h, gfp_types.h)."""

from __future__ import annotations

from typing import Final

from swiommu.address import Prot
from swiommu.iommu.groups import FAULT_READ, FAULT_WRITE, Capability, DomainType, Gfp, Hwpt, ResvType

__all__ = [
    "GFP_ATOMIC",
    "GFP_KERNEL",
    "IOMMU_CACHE",
    "IOMMU_CAP_CACHE_COHERENCY",
    "IOMMU_CAP_DEFERRED_FLUSH",
    "IOMMU_CAP_DIRTY_TRACKING",
    "IOMMU_CAP_ENFORCE_CACHE_COHERENCY",
    "IOMMU_CAP_NOEXEC",
    "IOMMU_CAP_PCI_ATS_SUPPORTED",
    "IOMMU_CAP_PRE_BOOT_PROTECTION",
    "IOMMU_DOMAIN_BLOCKED",
    "IOMMU_DOMAIN_DMA",
    "IOMMU_DOMAIN_DMA_FQ",
    "IOMMU_DOMAIN_IDENTITY",
    "IOMMU_DOMAIN_NESTED",
    "IOMMU_DOMAIN_PLATFORM",
    "IOMMU_DOMAIN_SVA",
    "IOMMU_DOMAIN_UNMANAGED",
    "IOMMU_FAULT_READ",
    "IOMMU_FAULT_WRITE",
    "IOMMU_HWPT_ALLOC_DIRTY_TRACKING",
    "IOMMU_HWPT_ALLOC_NEST_PARENT",
    "IOMMU_HWPT_ALLOC_PASID",
    "IOMMU_HWPT_FAULT_ID_VALID",
    "IOMMU_MMIO",
    "IOMMU_NOEXEC",
    "IOMMU_PRIV",
    "IOMMU_READ",
    "IOMMU_RESV_DIRECT",
    "IOMMU_RESV_DIRECT_RELAXABLE",
    "IOMMU_RESV_MSI",
    "IOMMU_RESV_RESERVED",
    "IOMMU_RESV_SW_MSI",
    "IOMMU_WRITE",
]

# What a mapping allows; READ means that the device reads memory.
IOMMU_READ: Final = Prot.READ
IOMMU_WRITE: Final = Prot.WRITE
IOMMU_CACHE: Final = Prot.CACHE
IOMMU_NOEXEC: Final = Prot.NOEXEC
IOMMU_MMIO: Final = Prot.MMIO
IOMMU_PRIV: Final = Prot.PRIV

# The types of domains, `iommu_domain.type`.
IOMMU_DOMAIN_BLOCKED: Final = DomainType.BLOCKED
IOMMU_DOMAIN_IDENTITY: Final = DomainType.IDENTITY
IOMMU_DOMAIN_UNMANAGED: Final = DomainType.UNMANAGED
IOMMU_DOMAIN_DMA: Final = DomainType.DMA
IOMMU_DOMAIN_DMA_FQ: Final = DomainType.DMA_FQ
IOMMU_DOMAIN_SVA: Final = DomainType.SVA
IOMMU_DOMAIN_PLATFORM: Final = DomainType.PLATFORM
IOMMU_DOMAIN_NESTED: Final = DomainType.NESTED

# What regions are reserved for: `ResvType.of` of one of `iommu_get_group_resv_regions`.
IOMMU_RESV_DIRECT: Final = ResvType.DIRECT
IOMMU_RESV_DIRECT_RELAXABLE: Final = ResvType.DIRECT_RELAXABLE
IOMMU_RESV_RESERVED: Final = ResvType.RESERVED
IOMMU_RESV_MSI: Final = ResvType.MSI
IOMMU_RESV_SW_MSI: Final = ResvType.SW_MSI

# What `device_iommu_capable` is asked.
IOMMU_CAP_CACHE_COHERENCY: Final = Capability.CACHE_COHERENCY
IOMMU_CAP_NOEXEC: Final = Capability.NOEXEC
IOMMU_CAP_PRE_BOOT_PROTECTION: Final = Capability.PRE_BOOT_PROTECTION
IOMMU_CAP_ENFORCE_CACHE_COHERENCY: Final = Capability.ENFORCE_CACHE_COHERENCY
IOMMU_CAP_DEFERRED_FLUSH: Final = Capability.DEFERRED_FLUSH
IOMMU_CAP_DIRTY_TRACKING: Final = Capability.DIRTY_TRACKING
IOMMU_CAP_PCI_ATS_SUPPORTED: Final = Capability.PCI_ATS_SUPPORTED

# Flags of `iommu_paging_domain_alloc_flags`.
IOMMU_HWPT_ALLOC_NEST_PARENT: Final = Hwpt.NEST_PARENT
IOMMU_HWPT_ALLOC_DIRTY_TRACKING: Final = Hwpt.DIRTY_TRACKING
IOMMU_HWPT_FAULT_ID_VALID: Final = Hwpt.FAULT_ID_VALID
IOMMU_HWPT_ALLOC_PASID: Final = Hwpt.PASID

# Flags of a fault.
IOMMU_FAULT_READ: Final = FAULT_READ
IOMMU_FAULT_WRITE: Final = FAULT_WRITE

# How an allocation may wait.
GFP_KERNEL: Final = Gfp.KERNEL
GFP_ATOMIC: Final = Gfp.ATOMIC
