"""Who gives out the bus addresses of a domain: policies behind one protocol, and the allocator of Linux.

`TopDownIova` is simple, `LinuxIova` decides as dma-iommu does, with `IovaDomain` (the kernel's ``struct iova_domain``,
which is no `swiommu.iommu.Domain`) and its caches below. Plain numbers only: nothing here maps anything, or knows of
pages, devices or layers.
"""

from swiommu.iommu.iova.iova_domain import IovaDomain, IovaStats
from swiommu.iommu.iova.linux import LinuxIova
from swiommu.iommu.iova.policy import IovaPolicy
from swiommu.iommu.iova.rcache import IovaRcache
from swiommu.iommu.iova.top_down import TopDownIova

__all__ = [
    "IovaDomain",
    "IovaPolicy",
    "IovaRcache",
    "IovaStats",
    "LinuxIova",
    "TopDownIova",
]
