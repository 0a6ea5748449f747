"""Removing leaves: what becomes of a leaf that goes in part, and of tables that become empty, is the format's rule."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from swiommu.errors import NoMemory, NoSpace
from swiommu.pagetable.format import Leaf
from swiommu.pagetable.pgsize import page_size_choice
from swiommu.pagetable.rules import Entered, ShortUnmap
from swiommu.pagetable.splitting import split_at
from swiommu.pagetable.walk import LeafRun, append_leaves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.pagetable.door import TableDoor
    from swiommu.pagetable.nodes import Node, Nodes

__all__ = ["DataPageWrite", "Removal", "Removing"]


class DataPageWrite(NamedTuple):
    """A leaf of ``pgsize`` bytes at ``iova`` that stays, while the kernel takes its page, at ``page``, for a table.

    The kernel would clear the words there that look like entries: a driver's or a device's data. No model writes them.

    >>> print(DataPageWrite(0x20_0000, 0x20_0000, 0x4000_0000))
    the kernel would write into the data page at 0x40000000: it takes the leaf of 0x200000 bytes at 0x200000 for a table
    """

    iova: int
    pgsize: int
    page: int

    def __str__(self) -> str:
        return (
            f"the kernel would write into the data page at {self.page:#x}: it takes the leaf of {self.pgsize:#x} bytes "
            f"at {self.iova:#x} for a table"
        )


class Removal(NamedTuple):
    """What an unmap took away: ``runs`` of leaves, and the bytes that the kernel's code answers, ``size``.

    They are the same bytes but where a driver is called in the middle of a large leaf (`Rules.entered`): these
    ``calls`` as (input, bytes that it counts), and the leaves that stay while their pages are written (``walked``).

    >>> Removal([LeafRun(0x20_0000, 0x20_0000, 1)], 0x20_0000, [(0x20_1000, 0x20_0000)]).stretches
    [(2097152, 4194304)]
    """

    runs: list[LeafRun]
    size: int
    calls: Sequence[tuple[int, int]] = ()
    walked: Sequence[DataPageWrite] = ()

    @property
    def irregular(self) -> bool:
        """Whether more is answered than what went, or other bytes."""
        return bool(self.calls or self.walked)

    @property
    def stretches(self) -> list[tuple[int, int]]:
        """From where to where leaves went, ascending; those that touch are one."""
        found: list[tuple[int, int]] = []
        for run in self.runs:
            stop = run.iova + run.size
            if found and found[-1][1] == run.iova:
                found[-1] = (found[-1][0], stop)
            else:
                found.append((run.iova, stop))
        return found


class Removing:
    """The remover of a table.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x1000, 0x8000, 0x1000, 2, Prot.READ)
    >>> Removing(table.nodes, table.door).remove(0x2000, 0x8000)
    Removal(runs=[LeafRun(iova=8192, pgsize=4096, leaves=1)], size=4096, calls=(), walked=())
    """

    def __init__(self, nodes: Nodes, door: TableDoor) -> None:
        self._nodes = nodes
        self._door = door
        self._rules = nodes.format.rules
        self._pgsizes = nodes.format.pgsize_bitmap
        self._many = [bool(level.orders) for level in nodes.format.levels]
        self._limit = 1 << nodes.format.input_width
        self._dry = False
        self._emptied: list[Node] = []

    def remove(self, start: int, stop: int, *, dry: bool = False) -> Removal:
        """Take away the decoded range, from its start up to the first hole; see `RadixTable.unmap`.

        ``dry``: only say what would go; not where leaves would be split.
        """
        self._dry = dry
        try:
            if self._rules.entered is not Entered.STOP and self._rules.short_unmap is ShortUnmap.WHOLE:
                return self._remove_by_calls(start, stop)
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
            return Removal(runs, at - start)
        finally:
            self._dry = False

    def _remove_by_calls(self, start: int, stop: int) -> Removal:
        # What drivers of 6.12 do. All the same where the range has its ends between leaves.
        runs: list[LeafRun] = []
        calls: list[tuple[int, int]] = []
        walked: list[DataPageWrite] = []
        walks = self._rules.entered is Entered.WALK
        begun = at = start  # where the core began to cut the range up into calls of the driver
        while at < stop:
            found = self.stretch(at, stop)
            if found is None:
                break
            node, first, order, _ = found
            pgsize = 1 << self._nodes.shape[node.depth][0] + order
            inside = at & (pgsize - 1)
            if inside:
                counted = pgsize
                if walks:
                    counted = max(pgsize, self._asked(at, stop))
                    if at + counted <= self._limit:  # else the driver warns, and does nothing
                        self._walk_on(at - inside, node, first, order, walked)
                        self._take_covered(at - inside + pgsize, at + counted, runs, walked)
                else:
                    self._drop(node, first, order, 1)
                    append_leaves(runs, self._door.outer(at - inside), pgsize, 1)
                calls.append((self._door.outer(at), counted))
                at += counted
                begun = at
            elif walks and pgsize > stop - at and (end := self._end_of_call(begun, stop, at)) > at:
                self._walk_on(at, node, first, order, walked)
                begun = at = end
            else:
                at += self._take_leaves(at, stop, runs, found)
        if self._emptied:
            self._free_covered(start, max(at, stop))
        return Removal(runs, at - start, calls, walked)

    def _asked(self, at: int, stop: int) -> int:
        # The bytes of the next call of the driver, as the core cuts the rest of a range up.
        pgsize, count = page_size_choice(self._pgsizes, at, at, stop - at)
        return pgsize * count

    def _end_of_call(self, begun: int, stop: int, at: int) -> int:
        # Of the one that reaches beyond `at`; `at` itself if none does because one begins there.
        while begun < at:
            begun += self._asked(begun, stop)
        return begun

    def _walk_on(self, start: int, node: Node, first: int, order: int, walked: list[DataPageWrite]) -> None:
        item = self._nodes.format.decode(node.words[first], node.depth)
        assert isinstance(item, Leaf), f"{node.words[first]:#x} is no leaf"
        found = DataPageWrite(self._door.outer(start), 1 << self._nodes.shape[node.depth][0] + order, item.oa)
        if found not in walked:
            walked.append(found)

    def _take_covered(self, at: int, stop: int, runs: list[LeafRun], walked: list[DataPageWrite]) -> None:
        # All leaves that the range covers, over holes; into one that it covers in part the driver walks.
        while at < stop:
            is_leaf, end = self.extent(at, stop)
            found = self.stretch(at, stop) if is_leaf else None
            if found is None:
                node = self._nodes.deepest(at)
                if node is not None and not (node.live or self._dry or node in self._emptied):
                    self._emptied.append(node)  # that was empty before: it goes as well
                at = end
                continue
            node, first, order, count = found
            pgsize = 1 << self._nodes.shape[node.depth][0] + order
            count = min(count, (stop - at) // pgsize)
            if not count:
                self._walk_on(at, node, first, order, walked)
                return
            self._drop(node, first, order, count)
            append_leaves(runs, self._door.outer(at), pgsize, count)
            at += pgsize * count

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

    def _take_leaves(
        self, at: int, stop: int, runs: list[LeafRun], found: tuple[Node, int, int, int] | None = None
    ) -> int:
        # Removes leaves of one size from one table, as `stretch` found them; the bytes that went.
        found = found or self.stretch(at, stop)
        if found is None:
            return 0
        node, first, order, count = found
        pgsize = 1 << self._nodes.shape[node.depth][0] + order
        torn = at & (pgsize - 1) or pgsize > stop - at
        if torn:
            if self._rules.short_unmap is ShortUnmap.SPLIT:
                end = (at & -pgsize) + pgsize
                return self._take_leaves(at, stop, runs) if self._split_for([at, min(stop, end)]) else 0
            if at & (pgsize - 1) or self._rules.short_unmap is ShortUnmap.REFUSE:
                return 0
        elif pgsize * count > stop - at and self._rules.short_unmap is not ShortUnmap.WHOLE:
            count = (stop - at) // pgsize
        self._drop(node, first, order, count)
        append_leaves(runs, self._door.outer(at), pgsize, count)
        return pgsize * count

    def _drop(self, node: Node, first: int, order: int, count: int) -> None:
        # Empties the entries of leaves.
        if self._dry:
            return
        self._nodes.clear(node, first, count << order)
        self._nodes.leaves[1 << self._nodes.shape[node.depth][0] + order] -= count
        if not self._rules.keeps_empty:
            self._nodes.prune(node)
        elif not node.live:
            self._emptied.append(node)

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
