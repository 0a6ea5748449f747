"""Domains: one API that fills a device's bus address space, with translation hardware or without.

`Domain` is that API: public verbs, and the register of its mappings. It owns a *mapper* (a page table, a window, or
nothing at all), a *backing* that memory comes from, and its *place* in a stack of domains; the choice of bus addresses
and the gathering of invalidations belong to the paged mapper. Nothing here copies data: that is `swiommu.dma`. Page
tables and allocators come from below.
"""

from swiommu.iommu.attaching import Attachable, AttachPolicy
from swiommu.iommu.domain import Domain
from swiommu.iommu.flush_queue import DEFAULT_HZ, Exposure, FlushQueue
from swiommu.iommu.gather import IotlbGather
from swiommu.iommu.invalidation import FlushPolicy
from swiommu.iommu.iova import IovaDomain, IovaPolicy, IovaStats, LinuxIova, TopDownIova
from swiommu.iommu.linear_domain import LinearDomain
from swiommu.iommu.mapper import DomainStats, Mapper
from swiommu.iommu.mapping import MappedSpan, Mapping
from swiommu.iommu.paged_domain import PagedDomain
from swiommu.iommu.partial import PartialUnmap
from swiommu.iommu.reverse_map import Reference, ReverseMap
from swiommu.iommu.scatterlist import Scatterlist
from swiommu.iommu.stacking import BusyPolicy

__all__ = [
    "DEFAULT_HZ",
    "AttachPolicy",
    "Attachable",
    "BusyPolicy",
    "Domain",
    "DomainStats",
    "Exposure",
    "FlushPolicy",
    "FlushQueue",
    "IotlbGather",
    "IovaDomain",
    "IovaPolicy",
    "IovaStats",
    "LinearDomain",
    "LinuxIova",
    "MappedSpan",
    "Mapper",
    "Mapping",
    "PagedDomain",
    "PartialUnmap",
    "Reference",
    "ReverseMap",
    "Scatterlist",
    "TopDownIova",
]
