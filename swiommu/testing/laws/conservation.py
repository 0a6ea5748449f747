"""The law of everything that is handed out and comes back: nothing is lost, nothing is given twice."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from swiommu.testing.statements import broken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.memory import Frames
    from swiommu.region import Region

__all__ = ["Grant", "Holdings", "account_of_frames", "account_of_region", "conservation"]


class Grant(NamedTuple):
    """``size`` units from ``start``, handed out with an alignment of ``align``."""

    start: int
    size: int
    align: int = 1


class Holdings(NamedTuple):
    """What an allocator of ``size`` units from ``start`` has handed out, and what it says is ``free``.

    ``holes`` are the free ranges as (start, stop), if it tells them; ``padding`` is what it holds back of ``free`` by
    rounding up what was asked for.
    """

    start: int
    size: int
    live: Sequence[Grant]
    free: int
    holes: Sequence[tuple[int, int]] | None = None
    padding: int = 0


def conservation(account: Holdings) -> None:
    """Law 18: live and free add up to everything; what is live is disjoint, aligned and inside.

    >>> conservation(Holdings(0, 16, [Grant(4, 2, 4), Grant(8, 8)], 6, [(0, 4), (6, 8)]))
    """
    live = sorted(account.live)
    stop = account.start + account.size
    for grant in live:
        if grant.start < account.start or grant.size < 1 or grant.start + grant.size > stop:
            raise broken(18, f"{grant} is not inside [{account.start:#x}, {stop:#x})")
        if grant.start % grant.align:
            raise broken(18, f"{grant} is not aligned")
    for one, other in pairwise(live):
        if one.start + one.size > other.start:
            raise broken(18, f"{one} and {other} overlap")
    taken = sum(grant.size for grant in live)
    if taken + account.free != account.size:
        raise broken(18, f"{taken:#x} live and {account.free:#x} free are not {account.size:#x}")
    for one, other in pairwise(sorted([*live, *(Grant(start, stop - start) for start, stop in account.holes or ())])):
        if one.start + one.size > other.start:
            raise broken(18, f"{one} and {other} overlap, and one of them is free")
    free = sum(hole_stop - start for start, hole_stop in account.holes or ())
    if account.holes is not None and free + account.padding != account.free:
        raise broken(18, f"{free:#x} in holes and {account.padding:#x} of padding are not the {account.free:#x} free")


def account_of_region(region: Region[Any], aligns: dict[int, int]) -> Holdings:
    """The account of a region; ``aligns`` says by start address which alignment was asked for.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.region import Region
    >>> region = Region(PhysSpace("ram").at(0x4000_0000), 1 << 20)
    >>> chunk = region.alloc(5000, 0x4000)
    >>> conservation(account_of_region(region, {chunk.start.value: 0x4000}))
    """
    live = [Grant(chunk.start.value, chunk.size, aligns.get(chunk.start.value, 1)) for chunk in region.chunks()]
    holes = [(hole.start.value, hole.stop) for hole in region.holes()]
    padding = region.free_space - region.allocator.free_space
    return Holdings(region.start.value, region.size, live, region.free_space, holes, padding)


def account_of_frames(frames: Frames, taken: Sequence[tuple[int, int]]) -> Holdings:
    """The account of a memory's frames, in frames; ``taken`` are blocks as (first frame number, order).

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.memory import Frames
    >>> frames = Frames(PhysSpace("ram").at(0), 1 << 20)
    >>> conservation(account_of_frames(frames, [(frames.take(2), 2)]))
    """
    shift = frames.page_size.bit_length() - 1
    live = [Grant(pfn, 1 << order, 1 << order) for pfn, order in taken]
    start = frames.range.start.value >> shift
    holes = [(pfn, pfn + count) for pfn, count in frames.free_runs()]
    return Holdings(start, frames.range.size >> shift, live, frames.free_count, holes)
