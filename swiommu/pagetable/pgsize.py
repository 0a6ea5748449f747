"""Which page size maps the head of a range, and how many of them: the kernel's ``iommu_pgsize``."""

from __future__ import annotations

from swiommu.errors import InvalidArgument

__all__ = ["page_size_choice"]


def page_size_choice(bitmap: int, iova: int, paddr: int, size: int) -> tuple[int, int]:
    """Page size (bytes) and count for the head of ``size`` bytes at ``iova``, mapped to ``paddr``.

    ``bitmap`` has one bit per page size. The largest size is taken that divides both addresses and does not
    exceed the range; the count ends where the next larger size can take over, if at least one of those still
    fits behind. Raises `InvalidArgument` when no page size fits. Source: ``iommu_pgsize`` of
    drivers/iommu/iommu.c.

    >>> bitmap, iova, paddr, size = 0x4020_1000, 0x1FE000, 0x5FE000, 0x804000
    >>> while size:
    ...     pgsize, count = page_size_choice(bitmap, iova, paddr, size)
    ...     print(f"{count} x {pgsize:#x}")
    ...     done = pgsize * count
    ...     iova, paddr, size = iova + done, paddr + done, size - done
    2 x 0x1000
    4 x 0x200000
    2 x 0x1000
    """
    merged = iova | paddr
    sizes = bitmap & ((1 << size.bit_length()) - 1)
    if merged:
        sizes &= ((merged & -merged) << 1) - 1
    if size < 1 or not sizes:
        raise InvalidArgument(
            f"no page size of {bitmap:#x} maps {size:#x} bytes at {iova:#x} to {paddr:#x}",
            iova=iova,
            paddr=paddr,
            size=size,
        )
    pgsize = 1 << (sizes.bit_length() - 1)
    larger = bitmap & -(pgsize << 1)
    pgsize_next = larger & -larger
    if pgsize_next and not (iova ^ paddr) & (pgsize_next - 1):
        offset = pgsize_next - (merged & (pgsize_next - 1))
        if offset + pgsize_next <= size:
            return pgsize, offset // pgsize
    return pgsize, size // pgsize
