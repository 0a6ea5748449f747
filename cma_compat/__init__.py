"""The contiguous memory API of 2010 (CMA, RFC v4) by its own names: a shim over `swiommu`.

Here live the calls, their error-encoded addresses, their structures and the two little languages that configured
them; nothing that `swiommu` would import. The shim chooses a region, takes a chunk and makes it visible to the
device, whatever stands between the device and memory; what it answers is a bus address. The functions below work on
one default context, as the kernel has one; `CmaContext` makes more, and has a method that raises beside each.

>>> frame_buffer = cma_region(0x8000_0000, 8 << 20, name="video")
>>> cma_region_register(frame_buffer), cma_set_defaults(None, "camera/frames=video")
(0, 0)
>>> buffer = cma_alloc(cma_device("camera"), "frames", 1 << 20, 0)
>>> IS_ERR_VALUE(buffer), cma_free(buffer), cma_region_unregister(frame_buffer)
(False, 0, 0)
>>> cma_set_defaults(None, "")
0
"""

from cma_compat.backends import DomainBackend, MemoryBackend
from cma_compat.context import CmaContext
from cma_compat.core import ContiguousMemory
from cma_compat.structures import Backend, CmaInfo, Device, cma_allocator, cma_chunk, cma_device, cma_region
from cma_compat.values import IS_ERR_VALUE, errno_of, error_value

__all__ = [
    "IS_ERR_VALUE",
    "Backend",
    "CmaContext",
    "CmaInfo",
    "ContiguousMemory",
    "Device",
    "DomainBackend",
    "MemoryBackend",
    "cma_alloc",
    "cma_alloc_from",
    "cma_alloc_from_region",
    "cma_allocator",
    "cma_allocator_register",
    "cma_chunk",
    "cma_device",
    "cma_early_region_register",
    "cma_early_region_reserve",
    "cma_early_regions_reserve",
    "cma_free",
    "cma_info",
    "cma_info_about",
    "cma_init",
    "cma_region",
    "cma_region_register",
    "cma_region_unregister",
    "cma_set_defaults",
    "default_context",
    "errno_of",
    "error_value",
]

default_context = CmaContext()

cma_alloc = default_context.cma_alloc
cma_alloc_from = default_context.cma_alloc_from
cma_alloc_from_region = default_context.cma_alloc_from_region
cma_allocator_register = default_context.cma_allocator_register
cma_early_region_register = default_context.cma_early_region_register
cma_early_region_reserve = default_context.cma_early_region_reserve
cma_early_regions_reserve = default_context.cma_early_regions_reserve
cma_free = default_context.cma_free
cma_info = default_context.cma_info
cma_info_about = default_context.cma_info_about
cma_init = default_context.cma_init
cma_region_register = default_context.cma_region_register
cma_region_unregister = default_context.cma_region_unregister
cma_set_defaults = default_context.cma_set_defaults
