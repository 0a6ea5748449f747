"""Regions of contiguous addresses and the allocators that place chunks in them.

Here live `Region` and `Chunk`, the `Allocator` protocol with its register of names, and the allocators: ``best_fit``
(the contiguous memory allocator of 2010) and ``bitmap`` (mainline's), whose placements are those recorded, and the
textbook's ``first_fit``, ``buddy`` and ``tlsf``; also what can be said of any of them (why a request fails, how holes
are spread, a picture). A region may lie in any space. Nothing here knows of devices, domains, page tables or traces.
"""

from swiommu.region.allocator import (
    ALLOCATORS,
    Allocator,
    AllocatorFactory,
    FailSwitch,
    Migrating,
    RegisteredAllocator,
    allocator_names,
    make_allocator,
    register_allocator,
)
from swiommu.region.best_fit import BestFit
from swiommu.region.bitmap import Bitmap, Migrate
from swiommu.region.bitmap_ranges import BitmapRanges, make_bitmap
from swiommu.region.buddy import Buddy
from swiommu.region.first_fit import FirstFit
from swiommu.region.guarantee import Guarantee, first_fit_reserve, robson_bound
from swiommu.region.lending import Lending, LendingAccount, Returns, Tenants
from swiommu.region.lent_pages import LentPage, LentPages
from swiommu.region.picture import area_svg
from swiommu.region.region import Chunk, Region
from swiommu.region.reports import Cause, Reports, Shortage, Statistics, explain_failure, statistics
from swiommu.region.tlsf import Tlsf

__all__ = [
    "ALLOCATORS",
    "Allocator",
    "AllocatorFactory",
    "BestFit",
    "Bitmap",
    "BitmapRanges",
    "Buddy",
    "Cause",
    "Chunk",
    "FailSwitch",
    "FirstFit",
    "Guarantee",
    "Lending",
    "LendingAccount",
    "LentPage",
    "LentPages",
    "Migrate",
    "Migrating",
    "Region",
    "RegisteredAllocator",
    "Reports",
    "Returns",
    "Shortage",
    "Statistics",
    "Tenants",
    "Tlsf",
    "allocator_names",
    "area_svg",
    "explain_failure",
    "first_fit_reserve",
    "make_allocator",
    "make_bitmap",
    "register_allocator",
    "robson_bound",
    "statistics",
]

register_allocator(BestFit.name, BestFit)
register_allocator(Bitmap.name, make_bitmap, by_release=True, lending=Lending)
register_allocator(Buddy.name, Buddy)
register_allocator(FirstFit.name, FirstFit)
register_allocator(Tlsf.name, Tlsf)
