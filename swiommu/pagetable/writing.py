"""Writing leaves: room is made for them by the rules of the format, and what was written is taken back on failure."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from swiommu.pagetable.format import Leaf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.errors import SwiommuError
    from swiommu.pagetable.door import TableDoor
    from swiommu.pagetable.nodes import Node, Nodes

__all__ = ["Writing"]


class Writing:
    """The writer of a table; ``coherent`` are bits that every leaf gets, ``on_replace`` is told of replaced tables.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> Writing(table.nodes, table.door).write(0x1000, 0x8000, 3, 0, 2, Prot.READ); table.leaves[4096]
    2
    """

    def __init__(self, nodes: Nodes, door: TableDoor) -> None:
        self.coherent = 0
        self.on_replace: Callable[[int, int], None] | None = None
        self._nodes = nodes
        self._door = door
        self._rules = nodes.format.rules

    def write(self, at: int, paddr: int, depth: int, order: int, count: int, bits: int) -> None:
        """``count`` leaves from the decoded input ``at`` on: all of them or none; see `RadixTable.map_run`."""
        pgsize = 1 << self._nodes.shape[depth][0] + order
        done = 0
        try:
            while done < count:
                offset = done * pgsize
                done += self._fill(depth, order, at + offset, paddr + offset, count - done, bits)
        except BaseException:
            self._take_back(depth, order, at, done)
            raise
        self._nodes.leaves[pgsize] += count

    def undo(self, at: int, depth: int, order: int, count: int) -> None:
        """Take the leaves back that `write` has just written with these arguments."""
        self._take_back(depth, order, at, count)
        self._nodes.leaves[1 << self._nodes.shape[depth][0] + order] -= count

    def _fill(self, depth: int, order: int, at: int, paddr: int, count: int, bits: int) -> int:
        # Writes what falls into one table and says how many leaves that were.
        nodes = self._nodes
        shift, span, mask = nodes.shape[depth]
        node = nodes.by_depth[depth].get(at >> span) or nodes.descend(depth, at)
        if node is None:
            raise self._covered(at)
        first = at >> shift & mask
        words = node.words
        if count == 1 and not order:
            if words[first]:
                self._make_room(node, first, 1)
            words[first] = nodes.format.leaf_entry(paddr, depth, bits, 0) | self.coherent
            node.live += 1
            return 1
        count = min(count, mask + 1 - first >> order)
        stop = first + (count << order)
        if node.live and words[first:stop] != nodes.zeroes[: stop - first]:
            self._make_room(node, first, stop - first)
        run: Sequence[int] = nodes.format.leaf_run(paddr, depth, bits, order, count)
        if self.coherent:
            run = [word | self.coherent for word in run]
        words[first:stop] = array("Q", run)
        node.live += stop - first
        return count

    def _make_room(self, node: Node, first: int, count: int) -> None:
        # Entries for leaves: tables in their place go, if the rules let them.
        nodes, rules = self._nodes, self._rules
        in_the_way = [index for index in range(first, first + count) if node.words[index]]
        tables = [nodes.below(node, index) for index in in_the_way]
        for index, below in zip(in_the_way, tables, strict=True):
            if below is None or (not rules.replaces_live and nodes.holds_leaves(below)):
                raise self._occupied(node, index)
        for below in tables:
            if below is not None:
                start, size = nodes.drop(below)
                if self.on_replace is not None:
                    self.on_replace(self._door.outer(start), size)

    def _take_back(self, depth: int, order: int, at: int, count: int) -> None:
        # Undoes what was written: exactly `count` leaves, all there.
        nodes = self._nodes
        shift, span, mask = nodes.shape[depth]
        items = count << order
        while items:
            first = at >> shift & mask
            n = min(items, mask + 1 - first)
            node = nodes.by_depth[depth][at >> span]
            nodes.clear(node, first, n)
            if not self._rules.keeps_empty:
                nodes.prune(node)
            at += n << shift
            items -= n

    def _covered(self, at: int) -> SwiommuError:
        node = self._nodes.deepest(at)
        assert node is not None, f"{at:#x} is beyond the root"
        shift, _, mask = self._nodes.shape[node.depth]
        return self._occupied(node, at >> shift & mask)

    def _occupied(self, node: Node, index: int) -> SwiommuError:
        nodes = self._nodes
        shift = nodes.shape[node.depth][0]
        iova = self._door.outer(nodes.start(node) + (index << shift))
        if nodes.below(node, index) is not None:
            what, pgsize = "a table of smaller live leaves", 1 << shift
        else:
            item = nodes.format.decode(node.words[index], node.depth)
            pgsize = 1 << shift + (item.order if isinstance(item, Leaf) else 0)
            what = f"a live leaf of {pgsize:#x} bytes"
        return self._rules.occupied(f"{what} is at {iova:#x}", iova=iova)
