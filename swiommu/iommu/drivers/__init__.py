"""The two kinds of domain: `PagedDomain` translates through a page table, `LinearDomain` has one constant and a region.

A driver owns its layer; what both kinds share is in `swiommu.iommu.domain`.
"""

from swiommu.iommu.drivers.linear import LinearDomain
from swiommu.iommu.drivers.paged import PagedDomain

__all__ = ["LinearDomain", "PagedDomain"]
