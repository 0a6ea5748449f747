"""An area as mainline keeps it: a name, its pages, and counts of the pages that were asked for and given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import Busy, NoMemory
from swiommu.profile import DEFAULT_PROFILE
from swiommu.region.bitmap import Bitmap
from swiommu.region.bitmap_ranges import BitmapRanges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.profile import Profile
    from swiommu.region.bitmap import Migrate

__all__ = ["CmaArea"]

_LONGEST_NAME = 63


class CmaArea:
    """``struct cma``: an ``allocator`` of pages with a ``name`` and the counts that sysfs shows, all in pages.

    A name is cut after 63 characters. Without one it is ``cma<index>`` and a newline, which mainline stores by mistake.

    >>> area = CmaArea("camera", Bitmap(0x4000_0000, 1 << 20))
    >>> hex(area.alloc(200)), area.release(0x40000, 100)
    ('0x40000', True)
    >>> area.pages_succeeded, area.pages_failed, area.pages_released, area.used
    (200, 0, 100, 100)
    """

    def __init__(self, name: str | None, allocator: Bitmap | BitmapRanges, *, index: int = 0) -> None:
        self.name = f"cma{index}\n" if name is None else name[:_LONGEST_NAME]
        self.allocator = allocator
        self.pages_succeeded = 0
        self.pages_failed = 0
        self.pages_released = 0

    @classmethod
    def over(
        cls,
        name: str | None,
        ranges: Sequence[tuple[int, int]],
        *,
        page_size: int = 4096,
        order_per_bit: int = 0,
        profile: Profile | str = DEFAULT_PROFILE,
    ) -> CmaArea:
        """An area over (start, size) ranges in bytes; several behave as from 6.15 on whatever ``profile`` is.

        >>> CmaArea.over("hugetlb0", [(0x1_0000_0000, 1 << 30), (0x2_0000_0000, 1 << 30)]).count
        524288
        """
        start, size = ranges[0]
        if len(ranges) == 1:
            alone = Bitmap(start, size, page_size=page_size, order_per_bit=order_per_bit, profile=profile)
            return cls(name, alone)
        last, length = ranges[-1]
        whole = last + length - start
        return cls(name, BitmapRanges(start, whole, ranges=ranges, page_size=page_size, order_per_bit=order_per_bit))

    @property
    def ranges(self) -> Sequence[Bitmap]:
        """The bitmap of each range, in the order in which they are tried."""
        return self.allocator.parts

    @property
    def profile(self) -> Profile:
        """The kernel whose text and accounting this is."""
        return self.allocator.profile

    @property
    def count(self) -> int:
        """Pages of all ranges."""
        return self.allocator.count

    @property
    def available(self) -> int:
        """Pages not allocated, by the kernel's own count, which knows nothing of padding to whole bits."""
        return self.allocator.available

    @property
    def used(self) -> int:
        """Pages in use: those that were asked for where the kernel counts them, else those behind set bits."""
        if self.profile.cma_counts_pages:
            return self.count - self.available
        order = self.allocator.order_per_bit
        return sum((part.count >> order) - part.free_bits for part in self.ranges) << order

    @property
    def largest_chunk(self) -> int:
        """Pages of the longest run of clear bits in any range."""
        longest = max((length for part in self.ranges for _, length in part.free_runs()), default=0)
        return longest << self.allocator.order_per_bit

    def alloc(self, count: int, align_order: int = 0, *, migrate: Migrate | None = None) -> int:
        """Take pages as `Bitmap.alloc_pages`, and count them as succeeded or failed; answers and errors are its own.

        A request that is refused as such (`InvalidArgument`) is not counted.
        """
        try:
            pfn = self.allocator.alloc_pages(count, align_order, migrate=migrate)
        except (NoMemory, Busy):
            self.pages_failed += count
            raise
        self.pages_succeeded += count
        return pfn

    def release(self, pfn: int, count: int) -> bool:
        """Give pages back as `Bitmap.release`, and count them if they were this area's."""
        released = self.allocator.release(pfn, count)
        if released:
            self.pages_released += count
        return released
