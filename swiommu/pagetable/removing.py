"""Removing leaves: what becomes of a leaf that goes in part, and of tables that become empty, is the format's rule."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING

from swiommu.errors import NoMemory, NoSpace
from swiommu.pagetable.format import Leaf
from swiommu.pagetable.pgsize import page_size_choice
from swiommu.pagetable.splitting import split_at
from swiommu.pagetable.walk import LeafRun, append_leaves

if TYPE_CHECKING:
    from swiommu.pagetable.door import TableDoor
    from swiommu.pagetable.nodes import Node, Nodes

__all__ = ["Removing"]


class Removing:
    """The remover of a table.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x1000, 0x8000, 0x1000, 2, Prot.READ)
    >>> Removing(table.nodes, table.door).remove(0x2000, 0x8000)
    [LeafRun(iova=8192, pgsize=4096, leaves=1)]
    """

    def __init__(self, nodes: Nodes, door: TableDoor) -> None:
        self._nodes = nodes
        self._door = door
        self._rules = nodes.format.rules
        self._pgsizes = nodes.format.pgsize_bitmap
        self._many = [bool(level.orders) for level in nodes.format.levels]
        self._emptied: list[Node] = []

    def remove(self, start: int, stop: int) -> list[LeafRun]:
        """What went of the decoded range, from its start up to the first hole; see `RadixTable.unmap`."""
        take = self._take_block if self._rules.drops_tables else self._take_leaves
        runs: list[LeafRun] = []
        at = start
        while at < stop:
            taken = take(at, stop, runs)
            if not taken:
                break
            at += taken
        if self._emptied:
            self._free_covered(start, stop)
        return runs

    def extent(self, at: int, stop: int) -> tuple[bool, int]:
        """Whether a leaf stands over the decoded input ``at``, and up to where, in its table, that is so.

        The end is that of an entry: it can lie behind ``stop``, where nothing is looked at.
        """
        node = self._nodes.deepest(at)
        if node is None:  # beyond the root, or before it has grown
            return False, 1 << 64
        shift, _, mask = self._nodes.shape[node.depth]
        first = at >> shift & mask
        limit = min(mask + 1 - first, -(at - stop >> shift))
        if node.words[first]:
            return True, (at >> shift) + self._alike(node, first, limit) << shift
        hole = next(compress(range(limit), node.words[first : first + limit]), limit)
        return False, (at >> shift) + hole << shift

    def stretch(self, at: int, stop: int) -> tuple[Node, int, int, int] | None:
        """The table with the leaf over ``at``, the leaf's first entry and order, how many alike follow one another."""
        node = self._nodes.deepest(at)
        if node is None:
            return None
        shift, _, mask = self._nodes.shape[node.depth]
        first = at >> shift & mask
        if not node.words[first]:
            return None
        limit = min(mask + 1 - first, -(at - stop >> shift))
        if not self._many[node.depth]:
            return node, first, 0, self._alike(node, first, limit)
        item = self._nodes.format.decode(node.words[first], node.depth)
        order = item.order if isinstance(item, Leaf) else 0
        first &= -1 << order
        step, count = 1 << order, 1
        for index in range(first + step, first + limit, step):
            following = self._nodes.format.decode(node.words[index], node.depth)
            if not isinstance(following, Leaf) or following.order != order:
                break
            count += 1
        return node, first, order, count

    def _alike(self, node: Node, first: int, limit: int) -> int:
        # How many of the `limit` entries from `first` on are leaves without a hole; the first one is.
        if limit == 1:
            return 1
        words = node.words[first : first + limit]
        if node.depth == self._nodes.last_depth:
            return limit if all(words) else words.index(0)
        below = self._nodes.below
        return next((i for i, word in enumerate(words) if not word or below(node, first + i) is not None), limit)

    def _take_leaves(self, at: int, stop: int, runs: list[LeafRun]) -> int:
        # Removes leaves of one size from one table; the bytes that went.
        found = self.stretch(at, stop)
        if found is None:
            return 0
        node, first, order, count = found
        pgsize = 1 << self._nodes.shape[node.depth][0] + order
        torn = at & (pgsize - 1) or pgsize > stop - at
        if torn:
            if self._rules.short_unmap == "split":
                end = (at & -pgsize) + pgsize
                return self._take_leaves(at, stop, runs) if self._split_for([at, min(stop, end)]) else 0
            if at & (pgsize - 1) or self._rules.short_unmap == "refuse":
                return 0
        elif pgsize * count > stop - at and self._rules.short_unmap != "whole":
            count = (stop - at) // pgsize
        self._nodes.clear(node, first, count << order)
        self._nodes.leaves[pgsize] -= count
        if not self._rules.keeps_empty:
            self._nodes.prune(node)
        elif not node.live:
            self._emptied.append(node)
        append_leaves(runs, self._door.outer(at), pgsize, count)
        return pgsize * count

    def _take_block(self, at: int, stop: int, runs: list[LeafRun]) -> int:
        # What one call of the driver removes: so many blocks of one size, leaves or whatever tables stand for them.
        pgsize, count = page_size_choice(self._pgsizes, at, at, stop - at)
        depth, _ = self._door.leaf_of[pgsize]
        node = self._nodes.by_depth[depth].get(at >> self._nodes.shape[depth][1])
        if node is None:  # an upper leaf covers it, or nothing does
            return self._take_leaves(at, stop, runs)
        shift, _, mask = self._nodes.shape[depth]
        first = at >> shift & mask
        taken = 0
        for index in range(first, min(first + count, mask + 1)):
            if not node.words[index]:
                break
            below = self._nodes.below(node, index)
            if below is None:
                self._nodes.clear(node, index, 1)
                self._nodes.leaves[pgsize] -= 1
            else:
                self._nodes.drop(below)
            taken += pgsize
        if taken and not node.live:
            self._emptied.append(node)
        if taken:
            append_leaves(runs, self._door.outer(at), pgsize, taken // pgsize)
        return taken

    def _split_for(self, cuts: list[int]) -> bool:
        # A kernel that finds no page for the smaller leaves, or in a stack no address, unmaps nothing more.
        try:
            split_at(self._nodes, cuts)
        except (NoMemory, NoSpace):
            return False
        return True

    def _free_covered(self, start: int, stop: int) -> None:
        # Tables go that this removal has emptied and the range covers; the others wait for one that does.
        nodes = self._nodes
        emptied, self._emptied = self._emptied, []
        for node in emptied:
            while node.above is not None and not node.live:
                first, span = nodes.start(node), nodes.shape[node.depth][1]
                if first < start or first + (1 << span) > stop:
                    break
                above = node.above
                nodes.remove(node)
                node = above  # noqa: PLW2901 - the way up
