"""What can be said of any allocator: why a request fails and what would not, how its holes are spread, a picture."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from swiommu.region.allocator import Allocator, check_request
from swiommu.region.picture import area_svg

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Cause", "Reports", "Shortage", "Statistics", "explain_failure", "statistics"]


class Cause(enum.Enum):
    """Why a request can't be served now, the first of these that is true."""

    NONE = "it fits"
    TOO_LITTLE = "too little is free"
    FRAGMENTED = "enough is free, but not in one hole"
    MISALIGNED = "a hole is large enough, but has no aligned place"
    REFUSED = "there is an aligned place, but the allocator may not use it"


@attrs.frozen
class Shortage:
    """The facts about one request for ``size`` bytes aligned to ``align``; all in bytes, counts in holes.

    ``large_enough`` counts holes of at least the size, ``aligned`` those of them with an aligned place. ``largest`` is
    the largest hole, ``largest_aligned`` the most that any hole has from an aligned place on: the difference is what
    the alignment costs. What would succeed now: ``would_fit_size`` at this alignment (0: nothing), and this size at
    ``would_fit_align`` (0: at none). ``extents`` are the free extents as the kernel prints them, where it has a form.

    >>> from swiommu.region import Bitmap
    >>> facts = Bitmap(0x1000, 0x6000).explain_failure(0x4000, 0x4000)
    >>> facts.cause, facts.alignment_cost, facts.would_fit_size, facts.would_fit_align
    (<Cause.MISALIGNED: 'a hole is large enough, but has no aligned place'>, 12288, 12288, 8192)
    """

    size: int
    align: int
    cause: Cause
    free_space: int
    holes: int
    largest: int
    large_enough: int
    aligned: int
    largest_aligned: int
    would_fit_size: int
    would_fit_align: int
    extents: str | None = None

    @property
    def alignment_cost(self) -> int:
        """Bytes of the largest hole that the alignment makes useless."""
        return self.largest - self.largest_aligned

    def __str__(self) -> str:
        """The facts as sentences."""
        said = [
            f"{self.size} bytes aligned to {self.align}: {self.cause.value}.",
            f"{self.free_space} bytes are free in {self.holes} holes, the largest of {self.largest};",
            f"{self.large_enough} holes are large enough, {self.aligned} of them with an aligned place.",
        ]
        if self.alignment_cost:
            said.append(f"The alignment leaves {self.largest_aligned} bytes of the largest place.")
        if self.cause is not Cause.NONE:
            size = f"{self.would_fit_size} bytes" if self.would_fit_size else "nothing"
            said.append(f"At this alignment {size} would fit, this size at {self._align_text()}.")
        if self.extents is not None:
            said.append(self.extents)
        return " ".join(said)

    def _align_text(self) -> str:
        return f"an alignment of {self.would_fit_align}" if self.would_fit_align else "no alignment"


def explain_failure(allocator: Allocator, size: int, align: int) -> Shortage:
    """Why ``allocator`` can't serve ``size`` bytes (whole pages) aligned to ``align``, and what it could serve.

    Changes nothing. Works for any allocator by its holes and `Allocator.fits`, and costs a look at every hole. A
    request that fits is explained as well (`Cause.NONE`). `InvalidArgument` as `Allocator.alloc`.

    >>> from swiommu.region import BestFit
    >>> fit = BestFit(0x1000, 0x5000)
    >>> fit.reserve(0x3000, 0x1000)
    >>> explain_failure(fit, 0x2000, 0x4000).cause
    <Cause.NONE: 'it fits'>
    >>> for sentence in str(explain_failure(fit, 0x3000, 0x1000)).split(". "):
    ...     print(sentence)
    12288 bytes aligned to 4096: enough is free, but not in one hole
    16384 bytes are free in 2 holes, the largest of 8192; 0 holes are large enough, 0 of them with an aligned place
    At this alignment 8192 bytes would fit, this size at no alignment.
    """
    check_request(size, align, allocator.page_size)
    holes = allocator.holes()
    largest = max((length for _, length in holes), default=0)
    rooms = [start + length - ((start + align - 1) & -align) for start, length in holes]
    large_enough = sum(length >= size for _, length in holes)
    aligned = sum(room >= size for room in rooms)
    if allocator.fits(size, align):
        cause = Cause.NONE
    elif allocator.free_space < size:
        cause = Cause.TOO_LITTLE
    elif not large_enough:
        cause = Cause.FRAGMENTED
    elif not aligned:
        cause = Cause.MISALIGNED
    else:
        cause = Cause.REFUSED
    extents: Callable[[], str] | None = getattr(allocator, "free_extents", None)
    return Shortage(
        size=size,
        align=align,
        cause=cause,
        free_space=allocator.free_space,
        holes=len(holes),
        largest=largest,
        large_enough=large_enough,
        aligned=aligned,
        largest_aligned=max((0, *rooms)),
        would_fit_size=_largest_size(allocator, largest, align),
        would_fit_align=_largest_align(allocator, size, largest),
        extents=None if extents is None else extents(),
    )


def _largest_size(allocator: Allocator, largest: int, align: int) -> int:
    """The largest whole number of pages that fits at this alignment: what fits a size fits every smaller one."""
    page = allocator.page_size
    low, high = 0, largest // page
    while low < high:
        middle = (low + high + 1) // 2
        if allocator.fits(middle * page, align):
            low = middle
        else:
            high = middle - 1
    return low * page


def _largest_align(allocator: Allocator, size: int, largest: int) -> int:
    """The largest alignment at which this size fits, up to the first that no address but 0 has; 0 if there is none."""
    if size > largest:
        return 0
    align = 1 << (allocator.start + allocator.size - 1).bit_length()
    while align >= allocator.page_size:
        if allocator.fits(size, align):
            return align
        align >>= 1
    return 0


@attrs.frozen
class Statistics:
    """How full an allocator is and how its holes are spread; bytes, and counts of holes.

    ``padding`` is held by allocations beyond what they asked for, as far as the allocator knows. ``by_order`` counts
    the holes of at least ``2**k`` and less than ``2**(k + 1)`` pages at index k.

    >>> Statistics(0x8000, 0x4000, 0, 2, 0x3000, 0x1000, (1, 1)).fragmentation
    0.25
    """

    size: int
    free_space: int
    padding: int
    holes: int
    largest: int
    smallest: int
    by_order: tuple[int, ...]

    @property
    def taken(self) -> int:
        """Bytes that are not free."""
        return self.size - self.free_space

    @property
    def mean(self) -> float:
        """Bytes of a hole on average, 0 if there is none."""
        return self.free_space / self.holes if self.holes else 0.0

    @property
    def fragmentation(self) -> float:
        """The share of what is free that lies outside the largest hole: 0 is one hole, near 1 is dust."""
        return 1 - self.largest / self.free_space if self.free_space else 0.0


def statistics(allocator: Allocator) -> Statistics:
    """Count the holes of any allocator.

    >>> from swiommu.region import FirstFit
    >>> fit = FirstFit(0, 0x8000)
    >>> fit.reserve(0x1000, 0x1000)
    >>> counted = statistics(fit)
    >>> counted.by_order, counted.taken, counted.mean, round(counted.fragmentation, 3)
    ((1, 0, 1), 4096, 14336.0, 0.143)
    """
    lengths = [length for _, length in allocator.holes()]
    orders = [(length // allocator.page_size).bit_length() - 1 for length in lengths]
    by_order = [0] * (max(orders, default=-1) + 1)
    for order in orders:
        by_order[max(order, 0)] += 1
    return Statistics(
        size=allocator.size,
        free_space=allocator.free_space,
        padding=getattr(allocator, "padding", 0),
        holes=len(lengths),
        largest=max(lengths, default=0),
        smallest=min(lengths, default=0),
        by_order=tuple(by_order),
    )


class Reports:
    """An allocator's own methods for what this module says of any; a base class without state.

    >>> from swiommu.region import Bitmap
    >>> area = Bitmap(0, 0x8000)
    >>> area.reserve(0x2000, 0x1000)
    >>> area.explain_failure(0x6000, 0x1000).extents
    '2@0+5@3=> 7 free of 8 total pages'
    >>> area.statistics().largest, area.svg()[:4]
    (20480, '<svg')
    """

    __slots__ = ()

    def explain_failure(self: Allocator, size: int, align: int) -> Shortage:
        """Why this many bytes can't be had at this alignment now, and what could: `explain_failure` of this room."""
        return explain_failure(self, size, align)

    def statistics(self: Allocator) -> Statistics:
        """How full it is and how its holes are spread."""
        return statistics(self)

    def svg(self: Allocator, title: str | None = None) -> str:
        """A picture of what is free and what is taken, as SVG; ``title`` is escaped."""
        return area_svg(self.start, self.size, self.holes(), title=self.name if title is None else title)

    def _repr_html_(self: Allocator) -> str:
        return area_svg(self.start, self.size, self.holes(), title=self.name)
