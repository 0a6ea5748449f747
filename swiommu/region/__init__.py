"""Regions of contiguous addresses and the allocators that place chunks in them.

Here live `Region` and `Chunk`, the `Allocator` protocol with its register of names, and the allocators whose
placements are known exactly: ``best_fit`` (the 2010 contiguous memory allocator) and ``bitmap`` (mainline's). A
region may lie in any space. Nothing here knows of devices, domains, page tables or traces.
"""

from swiommu.region.allocator import (
    Allocator,
    AllocatorFactory,
    FailSwitch,
    allocator_names,
    make_allocator,
    register_allocator,
)
from swiommu.region.best_fit import BestFit
from swiommu.region.bitmap import Bitmap, Migrate, Profile
from swiommu.region.region import Chunk, Region

__all__ = [
    "Allocator",
    "AllocatorFactory",
    "BestFit",
    "Bitmap",
    "Chunk",
    "FailSwitch",
    "Migrate",
    "Profile",
    "Region",
    "allocator_names",
    "make_allocator",
    "register_allocator",
]

register_allocator(BestFit.name, BestFit)
register_allocator(Bitmap.name, Bitmap)
