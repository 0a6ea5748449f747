"""The one walker: a radix page table of any `Format`, its tables in real pages.

Writers go through the index of `swiommu.pagetable.nodes` and touch one table per run of leaves; readers
(`RadixTable.walk`, `RadixTable.lookup`) read the entries from the root, as hardware does, and never look at the
index. `RadixTable.check` holds the two against each other.

Where the kernel's page-table codes differ, the format's `Rules` say how; where hardware does, its functions. Checks are
at the door: empty, misaligned, wrapping and over-wide ranges are refused, never masked.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

from swiommu.errors import Busy, NoMemory, SwiommuError
from swiommu.pagetable.door import TableDoor
from swiommu.pagetable.format import Leaf, Table
from swiommu.pagetable.nodes import Nodes
from swiommu.pagetable.pgsize import page_size_choice
from swiommu.pagetable.soundness import check_table
from swiommu.pagetable.splitting import split_at
from swiommu.pagetable.walk import LeafRun, Narrowing, Walk, append_leaves, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from swiommu.address import Prot
    from swiommu.pagetable.format import Format
    from swiommu.pagetable.nodes import Node
    from swiommu.pagetable.tables import TableMemory

__all__ = ["RadixTable"]


class RadixTable:
    """A page table of ``format`` whose pages come from ``tables``; the root is taken at once.

    ``leaves`` counts live leaves by size in bytes, ``table_pages`` and ``table_pages_peak`` the pages of 4 KiB held,
    root included; ``walk_refs`` says for each leaf size how many entries a cold walk reads, ``granule`` is the smallest
    size. ``rightless``: leaves that allow nothing can be written too. ``watch``, if set, is told of every change: what
    ("map", "unmap", "split"), and the range; ``on_replace`` of the range of a table that a large leaf has replaced: a
    walk may be in it until its range is invalidated. Raises what ``tables.alloc`` raises.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x200000, 0x40000000, 0x1000, 3, Prot.READ)
    >>> table.lookup(0x201234)
    (1073746484, 4096, <Prot.READ: 1>)
    >>> table.unmap(0x200000, 0x3000), table.table_pages
    ([LeafRun(iova=2097152, pgsize=4096, leaves=3)], 1)
    """

    def __init__(self, format: Format, tables: TableMemory, *, rightless: bool = False) -> None:  # noqa: A002 - the word
        self.format = format
        self.granule = format.granule
        self.door = TableDoor(format, rightless=rightless)
        self.leaves = dict.fromkeys(self.door.leaf_of, 0)
        self.watch: Callable[[str, int, int], None] | None = None
        self.on_replace: Callable[[int, int], None] | None = None
        self.nodes = Nodes(format, tables)
        self._rules = format.rules
        self._coherent = 0
        most = max(level.bits for level in format.levels)
        self._zeroes = array("Q", bytes(8 << most))

    @property
    def root(self) -> int:
        """Address of the root table."""
        return self.nodes.root.phys

    @property
    def root_depth(self) -> int:
        """Depth of the root: that of the format's start, less the levels by which the table has grown."""
        return self.nodes.root.depth

    @property
    def table_pages(self) -> int:
        """Pages of 4 KiB that the tables take now."""
        return self.nodes.pages

    @property
    def table_pages_peak(self) -> int:
        """The most pages that they have taken."""
        return self.nodes.peak

    @property
    def walk_refs(self) -> dict[int, int]:
        """Entries that a cold walk reads, by the size of the leaf that it ends at."""
        return {pgsize: depth + 1 - self.root_depth for pgsize, (depth, _) in self.door.leaf_of.items()}

    def enforce_coherency(self) -> bool:
        """Let leaves written from now on ignore what devices say of snooping; False if the format can't say it.

        Source: ``enforce_cache_coherency`` of ``struct iommu_domain_ops``.
        """
        if self.format.coherent is None:
            return False
        self._coherent = self.format.coherent
        return True

    # -- writing

    def map_run(self, iova: int, paddr: int, pgsize: int, count: int, prot: int) -> None:
        """Write ``count`` leaves of ``pgsize`` bytes, from ``iova`` to ``paddr``: all of them or none.

        A table that has become empty, or by the format's rules any table, is replaced by a large leaf. Raises
        `InvalidArgument` (size, alignment, no READ or WRITE), `AddressOverflow`, `OutOfRange` (wider than the format's
        input or output), `AddressInUse` (a live leaf, or a table of live leaves), and what the table memory raises.
        Source: the generic page table's ``map_range``, ``arm_lpae_map_pages``.
        """
        depth, order = self.door.leaf(iova, paddr, pgsize, count, prot)
        at, bits = iova & self.door.mask, int(prot)
        root = self.nodes.root
        if root.depth and (depth < root.depth or at + pgsize * count > 1 << self.nodes.shape[root.depth][1]):
            self.nodes.grow(depth, at + pgsize * count - 1)
        done = 0
        try:
            while done < count:
                offset = done * pgsize
                done += self._fill(depth, order, at + offset, paddr + offset, count - done, bits)
        except SwiommuError:
            self._take_back(depth, order, at, done)
            raise
        self.leaves[pgsize] += count
        if self.watch is not None:
            self.watch("map", iova, pgsize * count)

    def _fill(self, depth: int, order: int, at: int, paddr: int, count: int, bits: int) -> int:
        # Writes what falls into one table and says how many leaves that were.
        nodes = self.nodes
        shift, span, mask = nodes.shape[depth]
        node = nodes.by_depth[depth].get(at >> span) or nodes.descend(depth, at)
        if node is None:
            leaf = nodes.deepest(at)
            assert leaf is not None, f"{at:#x} is beyond the root"
            raise self._occupied(leaf, at >> nodes.shape[leaf.depth][0] & nodes.shape[leaf.depth][2])
        first = at >> shift & mask
        words = node.words
        if count == 1 and not order:
            if words[first]:
                self._make_room(node, first, 1)
            words[first] = self.format.leaf_entry(paddr, depth, bits, 0) | self._coherent
            node.live += 1
            return 1
        count = min(count, mask + 1 - first >> order)
        stop = first + (count << order)
        if node.live and words[first:stop] != self._zeroes[: stop - first]:
            self._make_room(node, first, stop - first)
        run: Sequence[int] = self.format.leaf_run(paddr, depth, bits, order, count)
        if self._coherent:
            run = [word | self._coherent for word in run]
        words[first:stop] = array("Q", run)
        node.live += stop - first
        return count

    def _make_room(self, node: Node, first: int, count: int) -> None:
        # Entries for leaves: tables in their place go, if the rules let them.
        nodes, rules = self.nodes, self._rules
        in_the_way = [index for index in range(first, first + count) if node.words[index]]
        tables = [nodes.below(node, index) for index in in_the_way]
        for index, below in zip(in_the_way, tables, strict=True):
            if below is None or (not rules.replaces_live and nodes.holds_leaves(below)):
                raise self._occupied(node, index)
        for below in tables:
            if below is not None:
                start, size = self._drop(below)
                if self.on_replace is not None:
                    self.on_replace(start, size)

    def _drop(self, node: Node) -> tuple[int, int]:
        # A table goes with all that is mapped in it; the range that it covered.
        for _, _, pgsize in self._leaves_in(node.phys, node.depth, self.nodes.start(node), Narrowing()):
            self.leaves[pgsize] -= 1
        self.nodes.remove(node)
        return self.door.outer(self.nodes.start(node)), 1 << self.nodes.shape[node.depth][1]

    def _take_back(self, depth: int, order: int, at: int, count: int) -> None:
        # Undoes what `map_run` has written: exactly `count` leaves, all there.
        shift, span, mask = self.nodes.shape[depth]
        items = count << order
        while items:
            first = at >> shift & mask
            n = min(items, mask + 1 - first)
            node = self.nodes.by_depth[depth][at >> span]
            self._clear(node, first, n)
            if not self._rules.keeps_empty:
                self.nodes.prune(node)
            at += n << shift
            items -= n

    def _occupied(self, node: Node, index: int) -> SwiommuError:
        shift = self.nodes.shape[node.depth][0]
        iova = self.door.outer(self.nodes.start(node) + (index << shift))
        if self.nodes.below(node, index) is not None:
            what, pgsize = "a table of smaller live leaves", 1 << shift
        else:
            item = self.format.decode(node.words[index], node.depth)
            pgsize = 1 << shift + (item.order if isinstance(item, Leaf) else 0)
            what = f"a live leaf of {pgsize:#x} bytes"
        return self._rules.occupied(f"{what} is at {iova:#x}", iova=iova, pgsize=pgsize)

    # -- removing

    def unmap(self, iova: int, size: int) -> list[LeafRun]:
        """Remove the leaves from ``iova`` on, up to the first hole; tables go by the format's rules.

        By these, too, a large leaf of which the range covers a part goes whole, is split first, or ends the removal.
        Answers the runs removed, in order; a table that goes at once is a run of the blocks that it stood for. Raises
        `InvalidArgument`, `AddressOverflow`, `OutOfRange` for a range that can't be. Source: the generic page table's
        ``unmap_range``, ``arm_lpae_unmap_pages``.
        """
        start = self.door.range(iova, size, self.granule)
        take = self._take_block if self._rules.drops_tables else self._take_leaves
        runs: list[LeafRun] = []
        at, stop = start, start + size
        while at < stop:
            taken = take(at, stop, runs)
            if not taken:
                break
            at += taken
        if runs:
            if self._rules.keeps_empty:
                self._free_covered(start, stop, at)
            if self.watch is not None:
                self.watch("unmap", iova, at - start)
        return runs

    def met(self, iova: int, size: int) -> list[LeafRun]:
        """The leaves, whole, from ``iova`` on up to the first hole; none if ``iova`` is inside of one."""
        at = self.door.range(iova, size, self.granule)
        runs: list[LeafRun] = []
        stop = at + size
        while at < stop:
            found = self._stretch(at, stop)
            if found is None:
                break
            node, _, order, count = found
            pgsize = 1 << self.nodes.shape[node.depth][0] + order
            if at & (pgsize - 1):
                break
            append_leaves(runs, self.door.outer(at), pgsize, count)
            at += pgsize * count
        return runs

    def split(self, cuts: Sequence[int]) -> int:
        """Make a border between leaves at each address of ``cuts``, in large leaves there; the tables it took.

        A leaf becomes leaves of the next size with the same outputs and protection, so that nobody who reads the table
        can tell. All or nothing: raises what the table memory raises, `InvalidArgument` for an address inside a leaf of
        the smallest size, or where the next level can't hold leaves. Source: ``arm_lpae_split_blk``.

        >>> from swiommu.address import Prot
        >>> from swiommu.pagetable import MOCK, CountingTables
        >>> table = RadixTable(MOCK, CountingTables())
        >>> table.map_run(0, 0x4000_0000, 0x20_0000, 1, Prot.READ)
        >>> table.split([0x1000]), table.leaves[0x1000], table.lookup(0x1000)
        (1, 512, (1073745920, 4096, <Prot.READ: 1>))
        """
        return split_at(self.nodes, self.leaves, [self.door.inner(cut) for cut in cuts], self.watch)

    def _stretch(self, at: int, stop: int) -> tuple[Node, int, int, int] | None:
        # The table with the leaf over `at`, the leaf's first entry, its order, how many alike follow one another.
        node = self.nodes.deepest(at)
        if node is None:
            return None
        shift, _, mask = self.nodes.shape[node.depth]
        first = at >> shift & mask
        if not node.words[first]:
            return None
        limit = min(mask + 1 - first, -(at - stop >> shift))
        if not self.format.levels[node.depth].orders:
            return node, first, 0, self._alike(node, first, limit)
        item = self.format.decode(node.words[first], node.depth)
        order = item.order if isinstance(item, Leaf) else 0
        first &= -1 << order
        step, count = 1 << order, 1
        for index in range(first + step, first + limit, step):
            following = self.format.decode(node.words[index], node.depth)
            if not isinstance(following, Leaf) or following.order != order or self.nodes.below(node, index) is not None:
                break
            count += 1
        return node, first, order, count

    def _alike(self, node: Node, first: int, limit: int) -> int:
        # How many of the `limit` entries from `first` on are leaves without a hole; the first one is.
        if limit == 1:
            return 1
        words = node.words[first : first + limit]
        if node.depth == self.nodes.last_depth:
            return limit if all(words) else words.index(0)
        below = self.nodes.below
        return next((i for i, word in enumerate(words) if not word or below(node, first + i) is not None), limit)

    def _take_leaves(self, at: int, stop: int, runs: list[LeafRun]) -> int:
        # Removes leaves of one size from one table; the bytes that went.
        found = self._stretch(at, stop)
        if found is None:
            return 0
        node, first, order, count = found
        pgsize = 1 << self.nodes.shape[node.depth][0] + order
        torn = at & (pgsize - 1) or pgsize > stop - at
        if torn:
            if self._rules.short_unmap == "split":
                return self._take_leaves(at, stop, runs) if self._split_for(at, stop) else 0
            if at & (pgsize - 1) or self._rules.short_unmap == "refuse":
                return 0
        elif pgsize * count > stop - at and self._rules.short_unmap != "whole":
            count = (stop - at) // pgsize
        self._clear(node, first, count << order)
        self.leaves[pgsize] -= count
        if not self._rules.keeps_empty:
            self.nodes.prune(node)
        append_leaves(runs, self.door.outer(at), pgsize, count)
        return pgsize * count

    def _take_block(self, at: int, stop: int, runs: list[LeafRun]) -> int:
        # What one call of the driver removes: so many blocks of one size, leaves or whatever tables stand for them.
        pgsize, count = page_size_choice(self.format.pgsize_bitmap, at, at, stop - at)
        depth, _ = self.door.leaf_of[pgsize]
        node = self.nodes.by_depth[depth].get(at >> self.nodes.shape[depth][1])
        if node is None:  # an upper leaf covers it, or nothing does
            return self._take_leaves(at, stop, runs)
        shift, _, mask = self.nodes.shape[depth]
        first = at >> shift & mask
        taken = 0
        for index in range(first, min(first + count, mask + 1)):
            if not node.words[index]:
                break
            below = self.nodes.below(node, index)
            if below is None:
                self._clear(node, index, 1)
                self.leaves[pgsize] -= 1
            else:
                self._drop(below)
            taken += pgsize
        if taken:
            append_leaves(runs, self.door.outer(at), pgsize, taken // pgsize)
        return taken

    def _split_for(self, at: int, stop: int) -> bool:
        # A kernel that finds no page for the smaller leaves unmaps nothing more.
        try:
            return bool(split_at(self.nodes, self.leaves, [at, stop], self.watch))
        except NoMemory:
            return False

    def _clear(self, node: Node, first: int, count: int) -> None:
        if count == 1:
            node.words[first] = 0
        else:
            node.words[first : first + count] = self._zeroes[:count]
        node.live -= count

    def _free_covered(self, start: int, stop: int, at: int) -> None:
        # Empty tables go that the range covered, up to where the removal came.
        nodes = self.nodes
        for depth in range(nodes.last_depth, nodes.root.depth, -1):
            span = nodes.shape[depth][1]
            for prefix in range(-(-start >> span), min(stop, at + (1 << span) - 1) >> span):
                node = nodes.by_depth[depth].get(prefix)
                if node is not None and not node.live:
                    nodes.remove(node)

    # -- reading

    def walk(self, iova: int, read: Callable[[int], int] | None = None) -> Walk:
        """Read the entries from the root to ``iova``, as hardware does; `OutOfRange` beyond the input.

        ``read`` answers the entry at an address, by default as the table's own pages hold it.
        """
        return walk(self.format, self.root, self.root_depth, self.door.inner(iova), read or self.nodes.memory.word)

    def lookup(self, iova: int) -> tuple[int, int, Prot] | None:
        """Output address of ``iova`` (any byte), page size and protection of its leaf; None in a hole."""
        _, item, pgsize = self.walk(iova)
        if not isinstance(item, Leaf):
            return None
        return item.oa + (iova & (pgsize - 1)), pgsize, item.prot

    def entry_at(self, address: int) -> int:
        """The entry at ``address`` of a table page; `NotFound` elsewhere."""
        return self.nodes.memory.word(address)

    def each_leaf(self) -> Iterator[tuple[int, Leaf, int]]:
        """Every leaf as (input address, leaf, page size), ascending, by the table's own pages."""
        outer = self.door.outer
        for at, leaf, pgsize in self._leaves_in(self.root, self.root_depth, 0, Narrowing()):
            yield outer(at), leaf, pgsize

    def _leaves_in(self, phys: int, depth: int, base: int, seen: Narrowing) -> Iterator[tuple[int, Leaf, int]]:
        shift = self.nodes.shape[depth][0]
        covered = 0
        for index, word in enumerate(self.nodes.memory.entries(phys)[:]):
            if not word or index < covered:
                continue
            item = self.format.checked(self.format.decode(word, depth), depth)
            if isinstance(item, Leaf):
                covered = (index >> item.order) + 1 << item.order
                yield base + (index >> item.order << shift + item.order), seen.leaf(item), 1 << shift + item.order
            elif isinstance(item, Table):
                yield from self._leaves_in(item.oa, depth + 1, base + (index << shift), seen.through(item))

    def dump_bytes(self, phys: int) -> bytes:
        """The bytes of the table at ``phys`` as memory holds them: little-endian words."""
        words = self.nodes.memory.entries(phys)[:]
        if sys.byteorder == "big":
            words.byteswap()
        return words.tobytes()

    # -- the end, and what must hold

    def close(self) -> None:
        """Free every table; `Busy` while anything is mapped."""
        live = sum(self.leaves.values())
        if live:
            raise Busy(f"a table with {live} live leaves can't be closed", leaves=live)
        self.nodes.close()

    def dissolve(self) -> None:
        """Free every table, whatever is mapped; what a kernel does with a domain's table."""
        self.leaves = dict.fromkeys(self.leaves, 0)
        self.nodes.close()

    def check(self) -> None:
        """Hold the pages against the index: `AssertionError` with the table that is wrong; see `check_table`."""
        check_table(self.nodes, self.leaves)
