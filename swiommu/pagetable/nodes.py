"""The tables of one page table as software knows them: an index beside the entries, as a kernel has their addresses.

A `Node` is one live table. Writers find theirs by (depth, address prefix) and touch no upper level on the way; readers
never look here. Everything that makes, links, unlinks or frees a table is in this file.
"""

from __future__ import annotations

from array import array
from itertools import compress
from typing import TYPE_CHECKING

from swiommu.errors import NoMemory
from swiommu.pagetable.walk import leaves_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.pagetable.format import Format
    from swiommu.pagetable.tables import TableMemory, Words

__all__ = ["Node", "Nodes"]

_PAGE_SHIFT = 12


class Node:
    """A live table: its words, how many of them are in use, how many of these lead to tables, and the table above.

    The root has none above it.
    """

    __slots__ = ("above", "depth", "live", "phys", "prefix", "tables", "words")

    def __init__(self, phys: int, words: Words, depth: int, prefix: int, above: Node | None) -> None:
        self.phys = phys
        self.words = words
        self.depth = depth
        self.prefix = prefix
        self.above = above
        self.live = self.tables = 0


class Nodes:
    """The tables of ``format`` out of ``memory``; the root is taken at once, at the format's ``start``.

    ``pages`` counts what they hold of pages of 4 KiB, ``peak`` the most so far, ``leaves`` the live leaves by size.
    ``shape`` is (shift, span, mask) by depth: bits below an entry's index, below the table, and of the index.

    >>> from swiommu.pagetable import MOCK, CountingTables
    >>> nodes = Nodes(MOCK, CountingTables())
    >>> nodes.descend(3, 0x1000).depth, nodes.pages
    (3, 4)
    >>> nodes.remove(nodes.at(1, 0)); nodes.pages
    1
    """

    def __init__(self, format: Format, memory: TableMemory) -> None:  # noqa: A002 - the word of the field
        self.format = format
        self.memory = memory
        self.shape = [(level.shift, level.shift + level.bits, (1 << level.bits) - 1) for level in format.levels]
        self.by_depth: list[dict[int, Node]] = [{} for _ in format.levels]
        self.last_depth = len(format.levels) - 1
        self.pages = self.peak = 0
        self.leaves = {size: 0 for level in format.levels for size in level.sizes.values()}
        self.zeroes = array("Q", bytes(8 << max(level.bits for level in format.levels)))
        self._reach = 1 << format.output_width
        self._cost = [level.table_bytes >> _PAGE_SHIFT for level in format.levels]
        self.root = self._enter(self._take(format.start), format.start, 0, None)

    # -- finding

    def at(self, depth: int, at: int) -> Node:
        """The table at ``depth`` over ``at``, which is there."""
        return self.by_depth[depth][at >> self.shape[depth][1]]

    def deepest(self, at: int) -> Node | None:
        """The deepest table that covers ``at``: what it holds for ``at`` is a leaf or nothing; None beyond the root."""
        for depth in range(self.last_depth, self.root.depth - 1, -1):
            node = self.by_depth[depth].get(at >> self.shape[depth][1])
            if node is not None:
                return node
        return None

    def below(self, node: Node, index: int) -> Node | None:
        """The table that the entry ``index`` of ``node`` leads to, if it leads to one."""
        if node.depth == self.last_depth:
            return None
        return self.by_depth[node.depth + 1].get((node.prefix << self.shape[node.depth][2].bit_length()) + index)

    def start(self, node: Node) -> int:
        """The first input that ``node`` covers."""
        return node.prefix << self.shape[node.depth][1]

    def within(self, node: Node) -> Iterator[Node]:
        """``node`` and all tables below it, each before those that it leads to."""
        yield node
        if node.tables:
            for index in compress(range(len(node.words)), node.words):
                below = self.below(node, index)
                if below is not None:
                    yield from self.within(below)

    def holds_leaves(self, node: Node) -> bool:
        """Whether any leaf stands in ``node`` or below it."""
        return any(each.live > each.tables for each in self.within(node))

    # -- making

    def descend(self, depth: int, at: int) -> Node | None:
        """The table at ``depth`` over ``at``, made with the missing ones above it; None if a leaf is in the way.

        Those made on the way are gone again if memory runs out.
        """
        node = self.deepest(at)
        assert node is not None, f"{at:#x} is beyond the root"
        made: Node | None = None
        while node.depth < depth:
            shift, _, mask = self.shape[node.depth]
            index = at >> shift & mask
            if node.words[index]:
                return None
            try:
                node = self.link(node, index, self._take(node.depth + 1))
            except BaseException:
                if made is not None:
                    self.remove(made)
                raise
            made = made or node
        return node

    def link(self, above: Node, index: int, phys: int) -> Node:
        """Let the free entry ``index`` of ``above`` lead to the new table at ``phys``."""
        depth = above.depth + 1
        node = self._enter(phys, depth, (above.prefix << self.shape[above.depth][2].bit_length()) + index, above)
        above.words[index] = self.format.table_entry(phys, above.depth)
        above.live += 1
        above.tables += 1
        return node

    def reserve(self, depths: list[int]) -> list[int]:
        """A zeroed table for each of ``depths``, linked nowhere yet: all of them, or what the memory raises."""
        taken: list[int] = []
        try:
            taken.extend(self._take(depth) for depth in depths)
        except BaseException:
            for depth, phys in zip(depths, taken, strict=False):
                self._give(phys, depth)
            raise
        return taken

    def grow(self, depth: int, last: int) -> None:
        """Put roots above the root until it stands at ``depth`` or above and covers ``last``: all of them or none.

        Source: ``increase_top`` of the generic page table.
        """
        wanted = self.root.depth
        while wanted and (wanted > depth or last >> self.shape[wanted][1]):
            wanted -= 1
        depths = list(range(self.root.depth - 1, wanted - 1, -1))
        for above, phys in zip(depths, self.reserve(depths), strict=True):
            former, self.root = self.root, self._enter(phys, above, 0, None)
            former.above = self.root
            self.root.words[0] = self.format.table_entry(former.phys, above)
            self.root.live = self.root.tables = 1

    # -- removing

    def prune(self, node: Node) -> None:
        """Free ``node`` if nothing is in it, and every table above that this empties; never the root."""
        while not node.live and node.above is not None:
            above = node.above
            self.remove(node)
            node = above

    def clear(self, node: Node, first: int, count: int) -> None:
        """Empty ``count`` entries of leaves."""
        if count == 1:
            node.words[first] = 0
        else:
            node.words[first : first + count] = self.zeroes[:count]
        node.live -= count

    def drop(self, node: Node) -> tuple[int, int]:
        """`remove`, and count the leaves that go with it; the range that it covered, as decoded start and size."""
        start = self.start(node)
        for _, _, pgsize in leaves_in(self.format, node.phys, node.depth, start, self.memory.entries):
            self.leaves[pgsize] -= 1
        self.remove(node)
        return start, 1 << self.shape[node.depth][1]

    def remove(self, node: Node) -> None:
        """Unlink ``node``, and free it and everything below it, whatever is mapped there."""
        above = node.above
        assert above is not None, "the root stays"
        above.words[node.prefix & self.shape[above.depth][2]] = 0
        above.live -= 1
        above.tables -= 1
        self._free_within(node)

    def close(self) -> None:
        """Free every table, the root too."""
        self.leaves = dict.fromkeys(self.leaves, 0)
        self._free_within(self.root)

    def _free_within(self, node: Node) -> None:
        for each in list(self.within(node)) if node.tables else (node,):
            del self.by_depth[each.depth][each.prefix]
            self._give(each.phys, each.depth)

    def _enter(self, phys: int, depth: int, prefix: int, above: Node | None) -> Node:
        try:
            words = self.memory.entries(phys)
        except BaseException:
            self._give(phys, depth)
            raise
        node = self.by_depth[depth][prefix] = Node(phys, words, depth, prefix, above)
        return node

    def _take(self, depth: int) -> int:
        size = self._cost[depth] << _PAGE_SHIFT
        phys = self.memory.alloc(size)
        if phys + size > self._reach:
            self.memory.free(phys)
            raise NoMemory(
                f"no table can be at {phys:#x}: an entry of format {self.format.name!r} has "
                f"{self.format.output_width} bits of address, and a walk sees a table at its own address only",
                paddr=phys,
            )
        self.pages += self._cost[depth]
        self.peak = max(self.peak, self.pages)
        return phys

    def _give(self, phys: int, depth: int) -> None:
        self.memory.free(phys)
        self.pages -= self._cost[depth]
