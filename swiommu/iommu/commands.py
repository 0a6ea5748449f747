"""What a driver tells its hardware to forget: the invalidation commands of an unmap (and, for AMD, of a map).

Pure functions, one family for each kind of hardware: first what the driver gathers of an unmap, as ranges of bus
addresses with inclusive ends, then how a range becomes commands. The gathering follows from how the core cuts an unmap
up: by the page sizes that its addresses allow, whatever was mapped there (`swiommu.pagetable.page_size_choice`).

Source: ``drivers/iommu/intel/cache.c`` and ``iommu.c``, ``drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c`` and
``drivers/iommu/io-pgtable-arm.c``, ``drivers/iommu/amd/iommu.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from swiommu.address import PAGE_SHIFT, PAGE_SIZE
from swiommu.iommu.gather import IotlbGather
from swiommu.pagetable import page_size_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "VTD_MAX_MASK",
    "SmmuRange",
    "aligned_pieces",
    "amd_pieces",
    "chunks",
    "smmu_commands",
    "smmu_unmap",
    "vtd_block",
    "vtd_unmap",
]

VTD_MAX_MASK: Final = 18
"""Log2 of the pages that one page-selective command covers at most (MAMV), of the emulated unit and of many others."""

_AMD_LARGEST: Final = 1 << 63
_RANGE_NUM_MAX: Final = 31
_SMMU_SIZES: Final = 1 << 12 | 1 << 21 | 1 << 30


def chunks(bitmap: int, iova: int, size: int) -> Iterator[tuple[int, int, int]]:
    """The driver calls of one unmap: (bus address, page size, count), page sizes being those of ``bitmap``.

    Raises `InvalidArgument` if the range is not made of whole pages. Source: ``__iommu_unmap``.

    >>> [(hex(iova), hex(pgsize), count) for iova, pgsize, count in chunks(0x40201000, 0x1fe000, 0x404000)]
    [('0x1fe000', '0x1000', 2), ('0x200000', '0x200000', 2), ('0x600000', '0x1000', 2)]
    """
    stop = iova + size
    while iova < stop:
        pgsize, count = page_size_choice(bitmap, iova, iova, stop - iova)
        yield iova, pgsize, count
        iova += pgsize * count


def aligned_pieces(start: int, last: int) -> Iterator[tuple[int, int]]:
    """The range as naturally aligned blocks of powers of two, (address, size), each as large as it can be.

    So an emulated unit notes a range command, block by block.

    >>> [(hex(start), hex(size)) for start, size in aligned_pieces(0x3000, 0x8fff)]
    [('0x3000', '0x1000'), ('0x4000', '0x4000'), ('0x8000', '0x1000')]
    """
    while start <= last:
        left = last - start + 1
        size = 1 << (left.bit_length() - 1)
        if start:
            size = min(size, start & -start)
        yield start, size
        start += size


# -- VT-d -----------------------------------------------------------------------------------------------------------


def vtd_unmap(iova: int, size: int, *, bitmap: int, by_chunk: bool = True) -> list[tuple[int, int]]:
    """The ranges that an unmap flushes: one; ``by_chunk``, where calls of one length are gathered, one a length.

    The driver gathers by chunk until it uses the generic page table (`Rules.gathers`).

    >>> [(hex(start), hex(last)) for start, last in vtd_unmap(0x1fe000, 0x404000, bitmap=0x40201000)]
    [('0x1fe000', '0x1fffff'), ('0x200000', '0x5fffff'), ('0x600000', '0x601fff')]
    >>> len(vtd_unmap(0x1fe000, 0x404000, bitmap=0x40201000, by_chunk=False))
    1
    """
    flushed: list[tuple[int, int]] = []
    gather = IotlbGather(lambda start, last: flushed.append((start, last)))
    for start, pgsize, count in chunks(bitmap, iova, size):
        if by_chunk:
            gather.add_page(start, pgsize * count)
        else:
            gather.add_range(start, pgsize * count)
    gather.sync()
    return flushed


def vtd_block(start: int, last: int) -> tuple[int, int]:
    """The smallest aligned block of a power of two of pages that covers the range: (address, log2 of the pages).

    A range that does not begin where a block of its own size does takes the smallest block in which both of its ends
    lie. A block of more than `VTD_MAX_MASK` is not sent: the whole domain is flushed instead.
    Source: ``calculate_psi_aligned_address``.

    >>> vtd_block(0xfffc0000, 0xfffcffff) == (0xfffc0000, 4)
    True
    >>> vtd_block(0x3000, 0x4fff), vtd_block(0x4000, 0x6fff)
    ((0, 3), (16384, 2))
    """
    pfn, end = start >> PAGE_SHIFT, last >> PAGE_SHIFT
    mask = (end - pfn).bit_length()
    if pfn & ((1 << mask) - 1):
        mask = (pfn ^ end).bit_length()
    return (pfn >> mask << mask) << PAGE_SHIFT, mask


# -- SMMUv3 ---------------------------------------------------------------------------------------------------------


class SmmuRange(NamedTuple):
    """One range command: ``pages`` of 4 KiB from ``iova`` on; ``ttl`` is the level of the leaves, 0 for any.

    ``leaf``: only leaves are to be forgotten, not the tables on the way to them.
    """

    iova: int
    pages: int
    ttl: int
    leaf: bool


def smmu_commands(iova: int, size: int, granule: int, *, leaf: bool) -> list[SmmuRange]:
    """A range in commands of at most 31 times a power of two of pages; ``granule`` is the size of its leaves.

    >>> [(hex(each.iova), each.pages) for each in smmu_commands(0x10000, 0x47000, 4096, leaf=True)]
    [('0x10000', 7), ('0x17000', 64)]
    """
    pages = size >> PAGE_SHIFT
    ttl = 4 - (granule.bit_length() - 4) // 9 if leaf else 0
    if not leaf and pages & _RANGE_NUM_MAX == 1:
        pages += 1
    commands = []
    stop = iova + size
    while iova < stop:
        scale = (pages & -pages).bit_length() - 1
        covered = (pages >> scale & _RANGE_NUM_MAX) << scale
        commands.append(SmmuRange(iova, covered, ttl, leaf))
        pages -= covered
        iova += covered << PAGE_SHIFT
    return commands


def smmu_unmap(
    iova: int, size: int, is_leaf: Callable[[int, int], bool], *, bitmap: int = _SMMU_SIZES
) -> list[SmmuRange]:
    """The commands of an unmap; ``is_leaf(iova, pgsize)`` tells whether a leaf of that size stands there, or a table.

    Leaves are gathered while they follow one another and are of one size. A table that the unmap takes away as a whole
    is forgotten at once, with all that was walked through it.

    >>> smmu_unmap(0xfffc0000, 0x3000, lambda iova, pgsize: pgsize == 4096)
    [SmmuRange(iova=4294705152, pages=3, ttl=3, leaf=True)]
    >>> [each.leaf for each in smmu_unmap(0x200000, 0x200000, lambda iova, pgsize: False)]
    [False, True]
    """
    commands: list[SmmuRange] = []

    def flush(start: int, last: int) -> None:
        commands.extend(smmu_commands(start, last - start + 1, granule, leaf=True))

    gather, granule = IotlbGather(flush), PAGE_SIZE
    for start, pgsize, count in chunks(bitmap, iova, size):
        pages = range(start, start + pgsize * count, pgsize)
        if pgsize > PAGE_SIZE:
            for page in pages:
                if not is_leaf(page, pgsize):
                    commands.extend(smmu_commands(page, pgsize, PAGE_SIZE, leaf=False))
        if gather.pgsize not in {0, pgsize} or gather.is_disjoint(start, pgsize):
            gather.sync()  # which flushes leaves of the size so far
        granule = gather.pgsize = pgsize
        gather.add_range(start, pgsize * count)
    gather.sync()
    return commands


# -- AMD ------------------------------------------------------------------------------------------------------------


def amd_pieces(start: int, last: int) -> list[tuple[int, int]]:
    """The commands for a range where the unit caches absent entries, as an emulated one does: aligned blocks.

    Each is as large as the alignment of its address and what is left of the range allow; there is one completion wait
    behind all of them. Source: ``amd_iommu_domain_flush_pages``.

    >>> [hex(size) for _, size in amd_pieces(0xffffd000, 0xffffffff)]
    ['0x1000', '0x2000']
    """
    return list(aligned_pieces(start, min(last, _AMD_LARGEST - 1)))
