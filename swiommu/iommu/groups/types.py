"""What kinds of domains, capabilities and cookies a kernel knows: names, numbers and words."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

import attrs

if TYPE_CHECKING:
    from swiommu.layer import Reserved

__all__ = ["Capability", "Cookie", "DomainType", "Geometry", "Gfp", "Hwpt", "ResvType"]

_PAGING, _DMA_API, _PT, _DMA_FQ, _SVA, _PLATFORM, _NESTED = (1 << bit for bit in range(7))


class _Words(NamedTuple):
    log: str
    sysfs: str


class DomainType(enum.IntEnum):
    """What a domain is (``IOMMU_DOMAIN_*``); its value is an OR of features, as the kernel's.

    >>> DomainType.DMA_FQ.value, DomainType.DMA_FQ.sysfs_word, DomainType.IDENTITY.log_name
    (11, 'DMA-FQ', 'Passthrough')
    >>> [kind.name for kind in DomainType if kind.paging]
    ['UNMANAGED', 'DMA', 'DMA_FQ']
    """

    BLOCKED = 0
    UNMANAGED = _PAGING
    DMA = _PAGING | _DMA_API
    IDENTITY = _PT
    DMA_FQ = _PAGING | _DMA_API | _DMA_FQ
    SVA = _SVA
    PLATFORM = _PLATFORM
    NESTED = _NESTED

    @property
    def paging(self) -> bool:
        """Whether it can be mapped into."""
        return bool(self & _PAGING)

    @property
    def dma_api(self) -> bool:
        """Whether the kernel's DMA API chooses its addresses."""
        return bool(self & _DMA_API)

    @property
    def log_name(self) -> str:
        """How the boot log calls it (``iommu_domain_type_str``)."""
        return _WORDS[self].log

    @property
    def sysfs_word(self) -> str:
        """How ``/sys/kernel/iommu_groups/N/type`` calls it."""
        return _WORDS[self].sysfs


_WORDS = {
    DomainType.BLOCKED: _Words("Blocked", "blocked"),
    DomainType.IDENTITY: _Words("Passthrough", "identity"),
    DomainType.UNMANAGED: _Words("Unmanaged", "unmanaged"),
    DomainType.DMA: _Words("Translated", "DMA"),
    DomainType.DMA_FQ: _Words("Translated", "DMA-FQ"),
    DomainType.SVA: _Words("Unknown", "unknown"),
    DomainType.PLATFORM: _Words("Platform", "unknown"),
    DomainType.NESTED: _Words("Unknown", "unknown"),
}


class Capability(enum.IntEnum):
    """What an IOMMU may be able to do (``IOMMU_CAP_*``), by the kernel's numbers."""

    CACHE_COHERENCY = 0
    NOEXEC = 1
    PRE_BOOT_PROTECTION = 2
    ENFORCE_CACHE_COHERENCY = 3
    DEFERRED_FLUSH = 4
    DIRTY_TRACKING = 5
    PCI_ATS_SUPPORTED = 6


class ResvType(enum.IntEnum):
    """What a region is reserved for (``IOMMU_RESV_*``), by the kernel's numbers.

    >>> from swiommu.layer import Reserved
    >>> ResvType.of(Reserved(0xFEE0_0000, 0x10_0000, "msi"))
    <ResvType.MSI: 3>
    """

    DIRECT = 0
    DIRECT_RELAXABLE = 1
    RESERVED = 2
    MSI = 3
    SW_MSI = 4

    @classmethod
    def of(cls, region: Reserved) -> ResvType:
        """That of ``region``."""
        return cls[region.kind.name]


class Cookie(enum.Enum):
    """Whose private data hangs on a domain: of one kind at most."""

    NONE = "NONE"
    DMA_IOVA = "DMA_IOVA"
    DMA_MSI = "DMA_MSI"
    FAULT_HANDLER = "FAULT_HANDLER"
    SVA = "SVA"
    IOMMUFD = "IOMMUFD"


class Hwpt(enum.IntFlag):
    """What may be asked of a new paging domain (``IOMMU_HWPT_*``)."""

    NONE = 0
    NEST_PARENT = 1
    DIRTY_TRACKING = 2
    FAULT_ID_VALID = 4
    PASID = 8


class Gfp(enum.IntFlag):
    """The bits of a gfp mask that ``iommu_map`` looks at, and the usual masks, by the numbers of Linux 6.12."""

    DMA = 1 << 0
    HIGHMEM = 1 << 1
    DMA32 = 1 << 2
    COMP = 1 << 18
    KERNEL = 0xCC0
    ATOMIC = 0x820


@attrs.frozen
class Geometry:
    """Which bus addresses a domain can translate: up to ``aperture_end``, inclusive; ``force``: no others get out."""

    aperture_start: int = 0
    aperture_end: int = (1 << 64) - 1
    force_aperture: bool = False
