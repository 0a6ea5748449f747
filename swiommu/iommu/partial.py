"""Unmapping that begins or ends inside a large leaf: what to do, and which leaves it would tear.

"kernel": as the generic page table, a leaf goes whole if the range begins with it and stays if the range enters it.
"refuse": neither, nothing is changed (VFIO's second version). "split": the leaf becomes smaller ones first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.policy import Policy

if TYPE_CHECKING:
    from swiommu.pagetable import RadixTable

__all__ = ["PartialUnmap", "Stretch", "mapped_stretch"]


class PartialUnmap(Policy):
    """What an unmap does with a leaf of which it covers only a part."""

    KERNEL = "kernel"
    REFUSE = "refuse"
    SPLIT = "split"


class Stretch(NamedTuple):
    """The leaves without a hole from the one at the start of a range on, and the borders of the range inside of them.

    ``first`` and ``stop`` are borders of leaves, so that they can lie outside the range.
    """

    first: int
    stop: int
    torn: tuple[int, ...]


def mapped_stretch(table: RadixTable, iova: int, size: int) -> Stretch:
    """What of ``size`` bytes from ``iova`` is mapped up to the first hole.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x20_0000, 0, 0x20_0000, 1, Prot.READ)
    >>> mapped_stretch(table, 0x20_1000, 0x40_0000)
    Stretch(first=2097152, stop=4194304, torn=(2101248,))
    """
    runs = table.met(iova, size)  # looks at the range first, so that one that can't be is refused in its words
    first = iova
    if not runs:
        found = table.lookup(iova)
        if found is None:
            return Stretch(iova, iova, ())
        first = iova & -found[1]
        runs = table.met(first, iova + size - first)
    stop = runs[-1].iova + runs[-1].size
    return Stretch(first, stop, tuple(cut for cut in (iova, iova + size) if first < cut < stop))
