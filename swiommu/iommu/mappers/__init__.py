"""What can stand between a domain's bus addresses and memory: a page table, a window, nothing that can be mapped.

Each is a `swiommu.iommu.mapper.Mapper`, and knows no domain: only its own addresses, and its place in the stack.
"""

from swiommu.iommu.mappers.fixed import FixedMapper
from swiommu.iommu.mappers.linear import LinearMapper
from swiommu.iommu.mappers.paged import PagedMapper

__all__ = ["FixedMapper", "LinearMapper", "PagedMapper"]
