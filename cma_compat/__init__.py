"""The contiguous memory API of 2010 (CMA, RFC v4) by its own names: a shim over `swiommu.region`.

Here live the calls, their error-encoded addresses and their structures; no allocator of its own, nothing that
`swiommu` would import. So far: regions, allocating from a region, freeing. The functions below work on one default
context, as the kernel has one; `CmaContext` makes more.

>>> frame_buffer = cma_region(0x8000_0000, 8 << 20)
>>> cma_region_register(frame_buffer)
0
>>> buffer = cma_alloc_from_region(frame_buffer, 1 << 20, 0)
>>> IS_ERR_VALUE(buffer), cma_free(buffer), cma_region_unregister(frame_buffer)
(False, 0, 0)
"""

from cma_compat.context import CmaContext, cma_region
from cma_compat.values import IS_ERR_VALUE, error_value

__all__ = [
    "IS_ERR_VALUE",
    "CmaContext",
    "cma_alloc_from_region",
    "cma_free",
    "cma_region",
    "cma_region_register",
    "cma_region_unregister",
    "default_context",
    "error_value",
]

default_context = CmaContext()

cma_alloc_from_region = default_context.cma_alloc_from_region
cma_free = default_context.cma_free
cma_region_register = default_context.cma_region_register
cma_region_unregister = default_context.cma_region_unregister
