"""What kernels do where their versions differ: a `Profile` is one kernel's answers, each a named fact.

No other module compares versions. A new fact is one line here; a new kernel is none, its version decides.

>>> profile_of("6.12").cma_full_errno, profile_of("7.3").cma_full_errno
(12, 16)
>>> profile_of("6.16-rc1").name, profile_of("6.16").generic_page_table
('6.16', frozenset())
"""

from __future__ import annotations

import errno
import re
from functools import cache
from typing import Any, Final

import attrs

from swiommu.errors import InvalidArgument

__all__ = ["DEFAULT_PROFILE", "Profile", "Version", "kernel_version", "profile_of"]

Version = tuple[int, int]

_VERSION: Final = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})(?![0-9])")


def kernel_version(text: str) -> Version:
    """The first two numbers of a kernel's version, as ``uname -r`` prints it; `InvalidArgument` for other text.

    >>> kernel_version("6.12"), kernel_version("5.15.167-v8+")
    ((6, 12), (5, 15))
    >>> kernel_version("new")
    Traceback (most recent call last):
    swiommu.errors.InvalidArgument: 'new' is no version of a kernel: one is needed such as 6.12
    """
    found = _VERSION.match(text)
    if found is None:
        raise InvalidArgument(f"{text[:40]!r} is no version of a kernel: one is needed such as 6.12")
    return int(found[1]), int(found[2])


def _fact(first: Any, *changes: tuple[Version, Any]) -> Any:
    """A fact that is ``first`` in the oldest kernels, and what each of the ascending ``changes`` says since then."""
    return attrs.field(metadata={"steps": (((0, 0), first), *changes)})


def _since(major: int, minor: int) -> Any:
    return _fact(False, ((major, minor), True))


def _until(major: int, minor: int) -> Any:
    return _fact(True, ((major, minor), False))


@attrs.frozen(kw_only=True, order=False)
class Profile:
    """One kernel's behaviour where versions differ; `profile_of` makes it. ``name`` is its version, as ``6.12``."""

    name: str

    # The contiguous allocator: mm/cma.c, mm/cma_debug.c, mm/cma_sysfs.c.
    cma_full_errno: int = _fact(errno.ENOMEM, ((6, 15), errno.EBUSY))
    """What a request gets that fits nowhere."""
    cma_counts_pages: bool = _since(6, 15)
    """``available_count`` is kept: refused early against it, printed, and in sysfs; a release is checked to its end."""
    cma_several_ranges: bool = _since(6, 15)
    """One area may have several ranges, each a folder of debugfs."""
    cma_aligns_to_largest_block: bool = _until(5, 18)
    """An area is aligned to the largest block of free pages, not only to a page block (``cma_init_reserved_mem``)."""

    # Page tables: drivers/iommu/generic_pt, drivers/iommu/io-pgtable-arm.c and the drivers' own before.
    generic_page_table: frozenset[str] = _fact(
        frozenset(), ((6, 19), frozenset({"vtd", "amd"})), ((7, 1), frozenset({"vtd", "amd", "riscv"}))
    )
    """The families of formats whose driver uses the generic page table; x86-64 is ``vtd``'s."""
    arm_splits_blocks: bool = _until(6, 13)
    """An unmap of a part of a block splits it; since then it is refused (``arm_lpae_split_blk_unmap``)."""
    arm_concatenates_where_it_can: bool = _until(6, 14)
    """Stage 2 starts a level lower whenever 16 tables suffice; since then where the architecture asks for it."""
    vtd_reads_always: bool = _until(6, 19)
    """VT-d's second stage sets R in leaves mapped for writing alone, as recordings of 6.12 show."""

    # The IOMMU core: drivers/iommu/iommu.c.
    gfp_checked_first: bool = _until(6, 16)
    """``iommu_map`` refuses zones in its gfp mask before anything else."""
    fault_handler_replaces_cookie: bool = _until(6, 15)
    """``iommu_set_fault_handler`` takes a domain that has a cookie of another kind."""
    core_keeps_direct_regions: bool = _since(6, 7)
    """The core refuses to block a device with direct regions; before, VT-d refused its owner (``require_direct``)."""

    # Bus addresses: drivers/iommu/iova.c, and VT-d's own DMA code before it used dma-iommu.
    iova_magazine: int = _fact(128, ((6, 1), 127))
    """Ranges in a magazine (``IOVA_MAG_SIZE``)."""


@cache
def _of_version(version: Version) -> Profile:
    facts = {}
    for field in attrs.fields(Profile):
        if "steps" in field.metadata:
            facts[field.name] = [value for since, value in field.metadata["steps"] if since <= version][-1]
    return Profile(name=f"{version[0]}.{version[1]}", **facts)


def profile_of(kernel: Profile | str | Version) -> Profile:
    """The profile of a kernel by its version, as text or two numbers; a `Profile` is answered as it is.

    Raises `InvalidArgument` for text that is no version.

    >>> profile_of("6.12.107-cloud") is profile_of((6, 12)) is DEFAULT_PROFILE
    True
    """
    if isinstance(kernel, Profile):
        return kernel
    return _of_version(kernel_version(kernel) if isinstance(kernel, str) else kernel)


DEFAULT_PROFILE: Final = profile_of("6.12")
"""What hardware, formats and allocators follow where no kernel is named."""
