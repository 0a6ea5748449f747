"""What a contiguous area is aligned to: a page block, whose size follows from the pages' and the kernel's version.

    pages      page block    before 5.18: at least the largest block of free pages
    4 KiB      2 MiB         4 MiB
    16 KiB     32 MiB        32 MiB
    64 KiB     512 MiB       512 MiB

These are the blocks of arm64 and x86-64, as large as a huge page. A kernel without huge pages (32-bit ARM without
LPAE) has blocks of order 10, one that was built with ``CONFIG_PAGE_BLOCK_MAX_ORDER`` smaller ones.
Source: ``CMA_MIN_ALIGNMENT_BYTES`` of ``include/linux/cma.h``, before 5.18 ``cma_init_reserved_mem`` of ``mm/cma.c``;
``pageblock_order`` of ``include/linux/pageblock-flags.h``, ``ARCH_FORCE_MAX_ORDER`` of ``arch/arm64/Kconfig``.
"""

from __future__ import annotations

from typing import Final

from swiommu.address import is_power_of_two
from swiommu.errors import InvalidArgument
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of

__all__ = ["cma_min_alignment"]

_SMALLEST_PAGE: Final = 4096
_MOST_ORDER: Final = 20
_MAX_PAGE_ORDER: Final = {16384: 11, 65536: 13}
"""The order of the largest block of free pages, by page size; 10 for others."""


def cma_min_alignment(
    page_size: int = 4096, *, kernel: Profile | str = DEFAULT_PROFILE, pageblock_order: int | None = None
) -> int:
    """The bytes that start and size of every contiguous area are multiples of (``CMA_MIN_ALIGNMENT_BYTES``).

    ``pageblock_order``: pages of a page block, as a power of two, where it is not that of a huge page. Raises
    `InvalidArgument` for a page size that is no power of two of at least 4096, an order outside 0 to 20, or a version
    that is none.

    >>> [cma_min_alignment(size) >> 20 for size in (4096, 16384, 65536)]
    [2, 32, 512]
    >>> [cma_min_alignment(size, kernel="5.15") >> 20 for size in (4096, 16384, 65536)]
    [4, 32, 512]
    >>> cma_min_alignment(4096, pageblock_order=10), cma_min_alignment(65536, pageblock_order=5)
    (4194304, 2097152)
    """
    if page_size < _SMALLEST_PAGE or not is_power_of_two(page_size):
        raise InvalidArgument(
            f"a page of {page_size} bytes can't be: a power of two of at least {_SMALLEST_PAGE} is needed",
        )
    largest = _MAX_PAGE_ORDER.get(page_size, 10)
    order = min((page_size >> 3).bit_length() - 1, largest) if pageblock_order is None else pageblock_order
    if not 0 <= order <= _MOST_ORDER:
        raise InvalidArgument(f"a page block of order {order} can't be: 0 to {_MOST_ORDER} are possible")
    if profile_of(kernel).cma_aligns_to_largest_block:
        order = max(order, largest)
    return page_size << order
