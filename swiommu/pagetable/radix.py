"""The one walker: a radix page table of any `Format`, its tables in real pages.

Beside the pages stands an index from (depth, address prefix) to the table that covers it, as a kernel keeps
virtual addresses of its tables. Writers go through the index and touch one table per 512 leaves; readers
(`RadixTable.walk`, `RadixTable.lookup`) read the entries from the root, as hardware does, and never look
at the index. `RadixTable.check` holds the two against each other.

A table is freed when its last entry goes, so an empty table never stands in the way of a large leaf; the
root stays. Checks are at the door: empty, misaligned, wrapping and over-wide ranges are refused, never masked.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE
from swiommu.errors import AddressInUse, Busy, InvalidArgument, OutOfRange, SwiommuError
from swiommu.pagetable.door import CheckedRanges
from swiommu.pagetable.format import EMPTY, TABLE_ENTRIES, Leaf, Table
from swiommu.pagetable.walk import LeafRun, Step, Walk, append_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from swiommu.address import Prot
    from swiommu.pagetable.format import Format
    from swiommu.pagetable.tables import TableMemory

__all__ = ["RadixTable"]

_ZEROES = array("Q", bytes(8 * TABLE_ENTRIES))


class _Node:
    """A live table: its page, how many of its entries are in use, and the table above (None: the root)."""

    __slots__ = ("above", "depth", "entries", "live", "phys", "prefix")

    def __init__(self, phys: int, entries: array[int], depth: int, prefix: int, above: _Node | None) -> None:
        self.phys = phys
        self.entries = entries
        self.depth = depth
        self.prefix = prefix
        self.above = above
        self.live = 0


class RadixTable(CheckedRanges):
    """A page table of ``format`` whose pages come from ``tables``; the root is taken at once.

    ``leaves`` counts live leaves by size in bytes, ``table_pages`` and ``table_pages_peak`` the pages held, root
    included; ``walk_refs`` says for each leaf size how many entries a cold walk reads, ``granule`` is the smallest
    size. Raises what ``tables.alloc`` raises.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x200000, 0x40000000, 0x1000, 3, Prot.READ)
    >>> table.lookup(0x201234)
    (1073746484, 4096, <Prot.READ: 1>)
    >>> table.unmap(0x200000, 0x3000), table.table_pages
    ([LeafRun(iova=2097152, pgsize=4096, leaves=3)], 1)
    """

    def __init__(self, format: Format, tables: TableMemory) -> None:  # noqa: A002 - the word of the field
        super().__init__(format)
        self._tables = tables
        self._shape = [(level.shift, level.shift + level.bits, (1 << level.bits) - 1) for level in format.levels]
        self.walk_refs = {pgsize: depth + 1 for pgsize, depth in self._depth_of.items()}
        self._last_depth = len(format.levels) - 1
        self.leaves = dict.fromkeys(self._depth_of, 0)
        self._nodes: list[dict[int, _Node]] = [{} for _ in format.levels]
        phys = tables.alloc()
        self._root = _Node(phys, tables.entries(phys), 0, 0, None)
        self._nodes[0][0] = self._root
        self.table_pages = self.table_pages_peak = 1

    @property
    def root(self) -> int:
        """Address of the root table."""
        return self._root.phys

    def map_run(self, iova: int, paddr: int, pgsize: int, count: int, prot: int) -> None:
        """Write ``count`` leaves of ``pgsize`` bytes, from ``iova`` to ``paddr``: all of them or none.

        Raises `InvalidArgument` (size, alignment, no READ or WRITE), `AddressOverflow`, `OutOfRange` (wider than the
        format's input or output), `AddressInUse` (a live leaf, or a table of live leaves), and what the
        table memory raises. Source: the generic page table's ``map_range``.
        """
        depth = self._check_map(iova, paddr, pgsize, count, prot)
        bits = int(prot)
        done = 0
        try:
            while done < count:
                offset = done * pgsize
                done += self._fill(depth, iova + offset, paddr + offset, count - done, bits)
        except SwiommuError:
            self._take_out_all(depth, iova, done)
            raise
        self.leaves[pgsize] += count

    def unmap(self, iova: int, size: int) -> list[LeafRun]:
        """Remove the leaves from ``iova`` on, up to the first hole, and free the tables that became empty.

        A large leaf that the range starts with goes whole, even if it is longer than the range; the removal
        stops before a leaf that it would enter in the middle. Answers the runs removed, in order. Raises
        `InvalidArgument`, `AddressOverflow`, `OutOfRange` for a range that can't be. Source: the generic page
        table's ``unmap_range``.
        """
        self._check_range(iova, size, self.granule)
        runs: list[LeafRun] = []
        at, stop = iova, iova + size
        while at < stop:
            node = self._table_over(at)
            shift, _, mask = self._shape[node.depth]
            first = at >> shift & mask
            if not node.entries[first] or at & ((1 << shift) - 1):
                break
            count = self._leaves_from(node, first, min(mask + 1 - first, -(at - stop >> shift)))
            self._take_out(node, first, count)
            self.leaves[1 << shift] -= count
            append_leaves(runs, at, 1 << shift, count)
            at += count << shift
        return runs

    def met(self, iova: int, size: int) -> list[LeafRun]:
        """The runs that `unmap` would remove now; changes nothing."""
        self._check_range(iova, size, self.granule)
        runs: list[LeafRun] = []
        at, stop = iova, iova + size
        while at < stop:
            node = self._table_over(at)
            shift, _, mask = self._shape[node.depth]
            first = at >> shift & mask
            if not node.entries[first] or at & ((1 << shift) - 1):
                break
            count = self._leaves_from(node, first, min(mask + 1 - first, -(at - stop >> shift)))
            append_leaves(runs, at, 1 << shift, count)
            at += count << shift
        return runs

    def split(self, cuts: Sequence[int]) -> int:
        """Make a border between leaves at each address of ``cuts``, in large leaves there; the tables it took.

        A leaf becomes a table of leaves of the next size with the same outputs and protection, so that nobody who
        reads the table can tell. All or nothing: raises what the table memory raises, `InvalidArgument` for an address
        inside a leaf of the smallest size, or where the next level can't hold leaves. Source: ``arm_lpae_split_blk``.

        >>> from swiommu.address import Prot
        >>> from swiommu.pagetable import MOCK, CountingTables
        >>> table = RadixTable(MOCK, CountingTables())
        >>> table.map_run(0, 0x4000_0000, 0x20_0000, 1, Prot.READ)
        >>> table.split([0x1000]), table.leaves[0x1000], table.lookup(0x1000)
        (1, 512, (1073745920, 4096, <Prot.READ: 1>))
        """
        wanted = sorted({table for cut in cuts for table in self._tables_to_cut(cut)})
        pages: list[int] = []
        try:
            pages.extend(self._tables.alloc() for _ in wanted)
        except SwiommuError:
            for phys in pages:
                self._tables.free(phys)
            raise
        for (depth, prefix), phys in zip(wanted, pages, strict=True):
            self._split_leaf(depth, prefix, phys)
        return len(wanted)

    def _tables_to_cut(self, cut: int) -> Iterator[tuple[int, int]]:
        # (depth, prefix) of the tables that have to stand where a leaf goes over `cut`.
        node = self._table_over(cut)
        shift, _, mask = self._shape[node.depth]
        if not node.entries[cut >> shift & mask]:
            return
        for depth in range(node.depth + 1, len(self._shape) + 1):
            if not cut & (1 << self._shape[depth - 1][0]) - 1:
                return
            if depth > self._last_depth or not self.format.levels[depth].can_leaf:
                pgsize = 1 << self._shape[depth - 1][0]
                raise InvalidArgument(
                    f"a leaf of {pgsize:#x} bytes can't be split at {cut:#x}", iova=cut, pgsize=pgsize
                )
            yield depth, cut >> self._shape[depth][1]

    def _split_leaf(self, depth: int, prefix: int, phys: int) -> None:
        shift, _, mask = self._shape[depth]
        above_shift, above_span, above_mask = self._shape[depth - 1]
        above = self._nodes[depth - 1][prefix << above_shift >> above_span]
        index = prefix & above_mask
        item = self.format.decode(above.entries[index], depth - 1)
        assert isinstance(item, Leaf), f"{item} at {prefix << above_shift:#x} is no leaf to split"
        node = self._nodes[depth][prefix] = _Node(phys, self._tables.entries(phys), depth, prefix, above)
        node.live = mask + 1
        node.entries[: mask + 1] = array("Q", self.format.leaf_run(item.oa, depth, int(item.prot), mask + 1))
        above.entries[index] = self.format.table_entry(phys)
        self.leaves[1 << above_shift] -= 1
        self.leaves[1 << shift] += mask + 1
        self.table_pages += 1
        self.table_pages_peak = max(self.table_pages_peak, self.table_pages)

    def walk(self, iova: int, read: Callable[[int], int] | None = None) -> Walk:
        """Read the entries from the root to ``iova``, as hardware does; `OutOfRange` beyond the input width.

        ``read`` answers the entry at an address, by default as the table's own pages hold it. What can't be there, a
        leaf in an upper level or a misaligned one, a table below the last, is empty: others may write where tables lie.
        """
        read = read or self.entry_at
        if not 0 <= iova < self._limit:
            raise OutOfRange(
                f"{iova:#x} is beyond the {self.format.input_width}-bit input of format {self.format.name!r}", iova=iova
            )
        steps: list[Step] = []
        phys = self._root.phys
        for depth, (shift, _, mask) in enumerate(self._shape):
            index = iova >> shift & mask
            entry = read(phys + 8 * index)
            steps.append(Step(depth, phys, index, entry))
            if not isinstance(item := self.format.decode(entry, depth), Table):
                break
            phys = item.oa
        return Walk(tuple(steps), self.format.checked(item, len(steps) - 1))

    def lookup(self, iova: int) -> tuple[int, int, Prot] | None:
        """Output address of ``iova`` (any byte), page size and protection of its leaf; None in a hole."""
        steps, item = self.walk(iova)
        if not isinstance(item, Leaf):
            return None
        pgsize = 1 << self._shape[steps[-1].depth][0]
        return item.oa + (iova & (pgsize - 1)), pgsize, item.prot

    def entry_at(self, address: int) -> int:
        """The entry at ``address`` of a table page; `NotFound` elsewhere."""
        return self._tables.entries(address & -PAGE_SIZE)[(address & PAGE_SIZE - 1) // 8]

    def each_leaf(self) -> Iterator[tuple[int, Leaf, int]]:
        """Every leaf as (input address, leaf, page size), ascending, by the table's own pages."""
        return self._leaves_in(self._root.phys, 0, 0)

    def _leaves_in(self, phys: int, depth: int, base: int) -> Iterator[tuple[int, Leaf, int]]:
        shift = self._shape[depth][0]
        for index, entry in enumerate(self._tables.entries(phys)):
            item = self.format.checked(self.format.decode(entry, depth), depth) if entry else EMPTY
            if isinstance(item, Leaf):
                yield base + (index << shift), item, 1 << shift
            elif isinstance(item, Table):
                yield from self._leaves_in(item.oa, depth + 1, base + (index << shift))

    def dump_bytes(self, phys: int) -> bytes:
        """The 4 KiB of the table at ``phys`` as memory holds them: little-endian words."""
        words = array("Q", self._tables.entries(phys))
        if sys.byteorder == "big":
            words.byteswap()
        return words.tobytes()

    def close(self) -> None:
        """Free the root; `Busy` while anything is mapped."""
        live = sum(self.leaves.values())
        if live:
            raise Busy(f"a table with {live} live leaves can't be closed", leaves=live)
        self._tables.free(self._root.phys)
        self.table_pages = 0

    # -- writing, by the index

    def _fill(self, depth: int, iova: int, paddr: int, count: int, bits: int) -> int:
        # Writes what falls into one table and says how many leaves that were.
        shift, span, mask = self._shape[depth]
        node = self._nodes[depth].get(iova >> span) or self._grow(depth, iova)
        first = iova >> shift & mask
        entries = node.entries
        if count == 1:
            if entries[first]:
                raise self._in_use(node, first)
            entries[first] = self.format.leaf_entry(paddr, depth, bits)
            node.live += 1
            return 1
        count = min(count, mask + 1 - first)
        if node.live and entries[first : first + count] != _ZEROES[:count]:
            raise self._in_use(node, next(i for i in range(first, first + count) if entries[i]))
        entries[first : first + count] = array("Q", self.format.leaf_run(paddr, depth, bits, count))
        node.live += count
        return count

    def _grow(self, depth: int, iova: int) -> _Node:
        # The table at `depth` over `iova`, made together with the missing ones above it.
        shift, span, mask = self._shape[depth - 1]
        above = self._nodes[depth - 1].get(iova >> span) or self._grow(depth - 1, iova)
        index = iova >> shift & mask
        if above.entries[index]:
            raise self._in_use(above, index)
        try:
            phys = self._tables.alloc()
        except SwiommuError:
            self._prune(above)
            raise
        prefix = iova >> shift
        node = self._nodes[depth][prefix] = _Node(phys, self._tables.entries(phys), depth, prefix, above)
        above.entries[index] = self.format.table_entry(phys)
        above.live += 1
        self.table_pages += 1
        self.table_pages_peak = max(self.table_pages_peak, self.table_pages)
        return node

    def _in_use(self, node: _Node, index: int) -> AddressInUse:
        shift, span, _ = self._shape[node.depth]
        iova = (node.prefix << span) + (index << shift)
        leaf = isinstance(self.format.decode(node.entries[index], node.depth), Leaf)
        what = f"a live leaf of {1 << shift:#x} bytes" if leaf else "a table of smaller live leaves"
        return AddressInUse(f"{what} is at {iova:#x}", iova=iova, pgsize=1 << shift)

    # -- removing, by the index

    def _table_over(self, iova: int) -> _Node:
        # The deepest table that covers `iova`: what it holds for `iova` is a leaf or nothing.
        for depth in range(self._last_depth, 0, -1):
            node = self._nodes[depth].get(iova >> self._shape[depth][1])
            if node is not None:
                return node
        return self._root

    def _leaves_from(self, node: _Node, first: int, limit: int) -> int:
        # How many of the `limit` entries from `first` on are leaves without a hole; the first one is.
        if limit == 1:
            return 1
        entries = node.entries[first : first + limit]
        if node.depth == self._last_depth:
            return limit if all(entries) else entries.index(0)
        below = self._nodes[node.depth + 1]
        base = (node.prefix << self._shape[node.depth][2].bit_length()) + first
        return next((i for i, entry in enumerate(entries) if not entry or base + i in below), limit)

    def _take_out(self, node: _Node, first: int, count: int) -> None:
        if count == 1:
            node.entries[first] = 0
        else:
            node.entries[first : first + count] = _ZEROES[:count]
        node.live -= count
        if not node.live:
            self._prune(node)

    def _take_out_all(self, depth: int, iova: int, count: int) -> None:
        # Undoes what `map_run` has written: exactly `count` leaves, all there.
        shift, span, mask = self._shape[depth]
        while count:
            first = iova >> shift & mask
            n = min(count, mask + 1 - first)
            self._take_out(self._nodes[depth][iova >> span], first, n)
            iova += n << shift
            count -= n

    def _prune(self, node: _Node) -> None:
        # Frees `node` if it is empty, and every table above that this empties; never the root.
        while not node.live and node.above is not None:
            above = node.above
            above.entries[node.prefix & self._shape[above.depth][2]] = 0
            above.live -= 1
            del self._nodes[node.depth][node.prefix]
            self._tables.free(node.phys)
            self.table_pages -= 1
            node = above

    # -- what must hold

    def check(self) -> None:
        """Hold the pages against the index: `AssertionError` with the table that is wrong.

        1. every table entry leads to the indexed table, and every indexed table is reached once;
        2. ``live`` is the number of entries in use, and only the root may have none;
        3. leaves stand at levels that can hold them, aligned, and their number by size is ``leaves``;
        4. ``table_pages`` is the number of tables.
        """
        leaves = dict.fromkeys(self.leaves, 0)
        reached = self._check_table(self._root, leaves)
        indexed = sum(len(nodes) for nodes in self._nodes)
        assert reached == indexed == self.table_pages, f"{reached} tables reached, {indexed} known, {self.table_pages}"
        assert leaves == self.leaves, f"leaves {leaves}, counted {self.leaves}"

    def _check_table(self, node: _Node, leaves: dict[int, int]) -> int:
        shift, _, mask = self._shape[node.depth]
        where = f"table {node.phys:#x} at depth {node.depth}, prefix {node.prefix:#x}"
        live, reached = 0, 1
        for index, entry in enumerate(self._tables.entries(node.phys)):
            item = self.format.decode(entry, node.depth)
            live += bool(entry)
            if isinstance(item, Leaf):
                assert self._depth_of.get(1 << shift) == node.depth, f"{where}: leaf at a level of tables"
                assert item.oa & ((1 << shift) - 1) == 0, f"{where}: leaf {index} leads to {item.oa:#x}"
                leaves[1 << shift] += 1
            elif isinstance(item, Table):
                below = self._nodes[node.depth + 1][(node.prefix << mask.bit_length()) + index]
                assert below.phys == item.oa, f"{where}: entry {index} leads to {item.oa:#x}, not {below.phys:#x}"
                assert below.above is node, f"{where}: the table of entry {index} has another one above it"
                reached += self._check_table(below, leaves)
        assert live == node.live, f"{where}: {live} entries in use, {node.live} counted"
        assert live or node.above is None, f"{where}: empty"
        return reached
