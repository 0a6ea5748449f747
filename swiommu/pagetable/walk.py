"""What a table answers: the references of a walk, and runs of leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from swiommu.pagetable.format import Item

__all__ = ["LeafRun", "Step", "Walk", "append_leaves"]


class LeafRun(NamedTuple):
    """``leaves`` leaves of ``pgsize`` bytes at consecutive input addresses from ``iova``.

    >>> LeafRun(0x1000, 0x1000, 3).size
    12288
    """

    iova: int
    pgsize: int
    leaves: int

    @property
    def size(self) -> int:
        """Bytes covered."""
        return self.pgsize * self.leaves


class Step(NamedTuple):
    """One reference of a walk: the entry read, and where (``depth`` 0 is the root)."""

    depth: int
    table: int
    slot: int
    entry: int


class Walk(NamedTuple):
    """The references of one walk, and how it ended: `Empty` or `Leaf`."""

    steps: tuple[Step, ...]
    outcome: Item


def append_leaves(runs: list[LeafRun], iova: int, pgsize: int, leaves: int) -> None:
    """Add leaves that follow the last run to it if they are of its size, else as a run of their own.

    >>> runs = [LeafRun(0x1000, 0x1000, 1)]
    >>> append_leaves(runs, 0x2000, 0x1000, 2); runs
    [LeafRun(iova=4096, pgsize=4096, leaves=3)]
    """
    if runs and runs[-1].pgsize == pgsize:
        runs[-1] = runs[-1]._replace(leaves=runs[-1].leaves + leaves)
    else:
        runs.append(LeafRun(iova, pgsize, leaves))
