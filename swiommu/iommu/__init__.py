"""Domains: one API that fills a device's bus address space, with translation hardware or without.

Here are the API (`Domain`, `Mapping`), the drivers behind it, what it means to stand on another domain, the choice of
bus addresses and the gathering of invalidations. Nothing here copies data: bouncing has its own room. Page tables
and allocators come from below.
"""

from swiommu.iommu.domain import Attachable, Domain, DomainStats
from swiommu.iommu.drivers import LinearDomain, PagedDomain
from swiommu.iommu.flush_queue import DEFAULT_HZ, Exposure, FlushQueue
from swiommu.iommu.gather import IotlbGather
from swiommu.iommu.iova import IovaDomain, IovaPolicy, IovaStats, LinuxIova, TopDownIova
from swiommu.iommu.mapping import Mapping
from swiommu.iommu.scatterlist import Scatterlist
from swiommu.iommu.uses import Use, Uses

__all__ = [
    "DEFAULT_HZ",
    "Attachable",
    "Domain",
    "DomainStats",
    "Exposure",
    "FlushQueue",
    "IotlbGather",
    "IovaDomain",
    "IovaPolicy",
    "IovaStats",
    "LinearDomain",
    "LinuxIova",
    "Mapping",
    "PagedDomain",
    "Scatterlist",
    "TopDownIova",
    "Use",
    "Uses",
]
