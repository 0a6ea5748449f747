"""The one walker: a radix page table of any `Format`, its tables in real pages.

Writers (`swiommu.pagetable.writing`, `removing`, `splitting`) go through the index of `swiommu.pagetable.nodes` and
touch one table per run of leaves; readers (`swiommu.pagetable.walk`) read the entries from the root, as hardware
does, and never look at the index. `RadixTable.check` holds the two against each other.

Where the kernel's page-table codes differ, the format's `Rules` say how; where hardware does, its functions. Checks are
at the door: empty, misaligned, wrapping and over-wide ranges are refused, never masked.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from swiommu.address import as_integer, as_integers
from swiommu.errors import Busy
from swiommu.locking import no_shallow_copy
from swiommu.pagetable.door import TableDoor
from swiommu.pagetable.format import Leaf
from swiommu.pagetable.nodes import Nodes
from swiommu.pagetable.pgsize import page_size_choice
from swiommu.pagetable.removing import Removal, Removing
from swiommu.pagetable.soundness import check_table
from swiommu.pagetable.splitting import split_at
from swiommu.pagetable.walk import LeafRun, Walk, append_leaves, leaves_in, walk
from swiommu.pagetable.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from swiommu.address import Prot
    from swiommu.pagetable.format import Format
    from swiommu.pagetable.tables import TableMemory

__all__ = ["RadixTable"]


class RadixTable:
    """A page table of ``format`` whose pages come from ``tables``; the root is taken at once.

    ``leaves`` counts live leaves by size in bytes, ``table_pages`` and ``table_pages_peak`` the pages of 4 KiB held,
    root included; ``walk_refs`` says for each leaf size how many entries a cold walk reads, ``granule`` is the smallest
    size. ``rightless``: leaves that allow nothing can be written too. ``watch``, if set, is told of every change: what
    ("map", "unmap", "split"), and the range. Raises what ``tables.alloc`` raises.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x200000, 0x40000000, 0x1000, 3, Prot.READ)
    >>> table.lookup(0x201234)
    (1073746484, 4096, <Prot.READ: 1>)
    >>> table.unmap(0x200000, 0x3000), table.table_pages
    ([LeafRun(iova=2097152, pgsize=4096, leaves=3)], 1)
    """

    __copy__ = no_shallow_copy

    def __init__(self, format: Format, tables: TableMemory, *, rightless: bool = False) -> None:  # noqa: A002 - the word
        self.format = format
        self.granule = format.granule
        self.door = TableDoor(format, rightless=rightless)
        self.watch: Callable[[str, int, int], None] | None = None
        self.nodes = Nodes(format, tables)
        self._writing = Writing(self.nodes, self.door)
        self._removing = Removing(self.nodes, self.door)
        self.walk_refs = self._refs()

    @property
    def root(self) -> int:
        """Address of the root table."""
        return self.nodes.root.phys

    @property
    def root_depth(self) -> int:
        """Depth of the root: that of the format's start, less the levels by which the table has grown."""
        return self.nodes.root.depth

    @property
    def leaves(self) -> dict[int, int]:
        """How many live leaves there are of each size in bytes."""
        return self.nodes.leaves

    @property
    def on_replace(self) -> Callable[[int, int], None] | None:
        """Who is told the range of a table that a large leaf has replaced: a walk may be in it until a flush."""
        return self._writing.on_replace

    @on_replace.setter
    def on_replace(self, listener: Callable[[int, int], None] | None) -> None:
        self._writing.on_replace = listener

    @property
    def table_pages(self) -> int:
        """Pages of 4 KiB that the tables take now."""
        return self.nodes.pages

    @property
    def table_pages_peak(self) -> int:
        """The most pages that they have taken."""
        return self.nodes.peak

    def enforce_coherency(self) -> bool:
        """Let leaves written from now on ignore what devices say of snooping; False if the format can't say it.

        Source: ``enforce_cache_coherency`` of ``struct iommu_domain_ops``.
        """
        if self.format.coherent is None:
            return False
        self._writing.coherent = self.format.coherent
        return True

    # -- writing

    def map_run(self, iova: int, paddr: int, pgsize: int, count: int, prot: int) -> None:
        """Write ``count`` leaves of ``pgsize`` bytes, from ``iova`` to ``paddr``: all of them or none.

        A table that has become empty is replaced by a large leaf; by some formats' rules any table is, and what lived
        in it is gone even if the call then fails. Raises `InvalidArgument` (size, alignment, no READ or WRITE),
        `AddressOverflow`, `OutOfRange` (wider than the format's input or output), `AddressInUse` (a live leaf, or a
        table of live leaves), and what the table memory raises.
        Source: the generic page table's ``map_range``, ``arm_lpae_map_pages``.
        """
        if type(iova) is not int or type(paddr) is not int or type(pgsize) is not int or type(count) is not int:
            iova, paddr, pgsize, count = as_integers(iova=iova, paddr=paddr, pgsize=pgsize, count=count)
        depth, order = self.door.leaf(iova, paddr, pgsize, count, prot)
        at, bits = iova & self.door.mask, int(prot)
        root = self.nodes.root
        if root.depth and (depth < root.depth or at + pgsize * count > 1 << self.nodes.shape[root.depth][1]):
            self.nodes.grow(depth, at + pgsize * count - 1)
            self.walk_refs = self._refs()
        self._writing.write(at, paddr, depth, order, count, bits)
        if self.watch is not None:
            try:
                self.watch("map", iova, pgsize * count)
            except BaseException:
                self._writing.undo(at, depth, order, count)
                raise

    def map(self, iova: int, paddr: int, size: int, prot: int, *, pgsizes: int = -1) -> None:
        """Map ``size`` bytes at ``iova`` to ``paddr`` in the largest pages that fit: all of them or none.

        ``pgsizes`` has one bit for each page size that may be taken. Raises as `map_run`, and `InvalidArgument` where
        no page size fits. Source: ``iommu_map`` and ``iommu_pgsize``.

        >>> from swiommu.address import Prot
        >>> from swiommu.pagetable import MOCK, CountingTables
        >>> table = RadixTable(MOCK, CountingTables())
        >>> table.map(0x1FF000, 0x7FF000, 0x402000, Prot.READ)
        >>> {hex(size): count for size, count in table.leaves.items() if count}
        {'0x200000': 2, '0x1000': 2}
        """
        if type(iova) is not int or type(paddr) is not int or type(size) is not int or type(pgsizes) is not int:
            iova, paddr, size, pgsizes = as_integers(iova=iova, paddr=paddr, size=size, pgsizes=pgsizes)
        at, to, left, bitmap = iova, paddr, size, self.format.pgsize_bitmap & pgsizes
        try:
            while left or not size:
                pgsize, count = page_size_choice(bitmap, at, to, left)
                self.map_run(at, to, pgsize, count, prot)
                at, to, left = at + pgsize * count, to + pgsize * count, left - pgsize * count
        except BaseException:
            if at > iova:
                self.unmap(iova, at - iova)
            raise

    # -- removing

    def unmap(self, iova: int, size: int) -> list[LeafRun]:
        """Remove the leaves from ``iova`` on, up to the first hole; tables go by the format's rules.

        By these, too, a large leaf of which the range covers a part goes whole, is split first, or ends the removal.
        Answers the runs removed, in order; a table that goes at once is a run of the blocks that it stood for. Raises
        `InvalidArgument`, `AddressOverflow`, `OutOfRange` for a range that can't be. Source: the generic page table's
        ``unmap_range``, ``arm_lpae_unmap_pages``.
        """
        return self.remove(iova, size).runs

    def remove(self, iova: int, size: int, *, dry: bool = False, tell: bool = True) -> Removal:
        """As `unmap`, with the bytes that the kernel's code answers; ``dry``: nothing goes, it is only told what would.

        ``tell``: ``watch`` is told; else a caller does so, who can bear what that raises.

        >>> from swiommu.pagetable import CountingTables, RadixTable
        >>> from swiommu.pagetable.formats import amd_v1, vtd_ss
        >>> for form in (amd_v1(), vtd_ss(), vtd_ss(profile="7.3")):
        ...     table = RadixTable(form, CountingTables())
        ...     table.map_run(0x20_0000, 0x4000_0000, 0x20_0000, 1, 3)
        ...     gone = table.remove(0x20_1000, 0x1000)
        ...     print(form.rules.name, gone.size, gone.stretches, [hex(leaf.page) for leaf in gone.walked])
        classic amd 2097152 [(2097152, 4194304)] []
        classic vtd 2097152 [] ['0x40000000']
        generic_pt 0 [] []
        """
        if type(iova) is not int or type(size) is not int:
            iova, size = as_integers(iova=iova, size=size)
        start = self.door.range(iova, size, self.granule)
        gone = self._removing.remove(start, start + size, dry=dry)
        if tell and self.watch is not None and gone.runs and not dry:
            for first, stop in gone.stretches:
                self.watch("unmap", first, stop - first)
        return gone

    def met(self, iova: int, size: int) -> list[LeafRun]:
        """The leaves, whole, from ``iova`` on up to the first hole; none if ``iova`` is inside of one."""
        if type(iova) is not int or type(size) is not int:
            iova, size = as_integers(iova=iova, size=size)
        at = self.door.range(iova, size, self.granule)
        runs: list[LeafRun] = []
        stop = at + size
        while at < stop:
            found = self._removing.stretch(at, stop)
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
        cuts = [as_integer(cut, "cut") for cut in cuts]
        taken = split_at(self.nodes, [self.door.inner(cut) for cut in cuts])
        if self.watch is not None:
            for cut in cuts:
                self.watch("split", cut, 1)
        return taken

    def _refs(self) -> dict[int, int]:
        return {pgsize: depth + 1 - self.root_depth for pgsize, (depth, _) in self.door.leaf_of.items()}

    # -- reading

    def walk(self, iova: int, read: Callable[[int], int] | None = None) -> Walk:
        """Read the entries from the root to ``iova``, as hardware does; `OutOfRange` beyond the input.

        ``read`` answers the entry at an address, by default as the table's own pages hold it.
        """
        if type(iova) is not int:
            iova = as_integer(iova, "iova")
        return walk(self.format, self.root, self.root_depth, self.door.inner(iova), read or self.nodes.memory.word)

    def lookup(self, iova: int) -> tuple[int, int, Prot] | None:
        """Output address of ``iova`` (any byte), page size and protection of its leaf; None in a hole."""
        if type(iova) is not int:
            iova = as_integer(iova, "iova")
        _, item, pgsize = self.walk(iova)
        if not isinstance(item, Leaf):
            return None
        return item.oa + (iova & (pgsize - 1)), pgsize, item.prot

    def entry_at(self, address: int) -> int:
        """The entry at ``address`` of a table page; `NotFound` elsewhere."""
        return self.nodes.memory.word(address)

    def mapped(self, iova: int, size: int) -> Iterator[tuple[int, int]]:
        """The stretches of a range that are mapped, as (start, stop), ascending and apart.

        >>> from swiommu.address import Prot
        >>> from swiommu.pagetable import MOCK, CountingTables
        >>> table = RadixTable(MOCK, CountingTables())
        >>> table.map_run(0x3000, 0, 0x1000, 2, Prot.READ); table.map_run(0x8000, 0, 0x1000, 1, Prot.READ)
        >>> list(table.mapped(0x4000, 0x1_0000))
        [(16384, 20480), (32768, 36864)]
        """
        if type(iova) is not int or type(size) is not int:
            iova, size = as_integers(iova=iova, size=size)
        inner = self.door.range(iova, size, self.granule)
        at, stop = iova, iova + size
        begun: int | None = None
        while at < stop:
            is_leaf, end = self._removing.extent(at - iova + inner, inner + size)
            if is_leaf and begun is None:
                begun = at
            elif not is_leaf and begun is not None:
                yield begun, at
                begun = None
            at = end - inner + iova
        if begun is not None:
            yield begun, stop

    def each_leaf(self) -> Iterator[tuple[int, Leaf, int]]:
        """Every leaf as (input address, leaf, page size), ascending, by the table's own pages."""
        outer = self.door.outer
        for at, leaf, pgsize in leaves_in(self.format, self.root, self.root_depth, 0, self.nodes.memory.entries):
            yield outer(at), leaf, pgsize

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
            raise Busy(f"a table with {live} live leaves can't be closed")
        self.nodes.close()

    def dissolve(self) -> None:
        """Free every table, whatever is mapped; what a kernel does with a domain's table."""
        self.nodes.close()

    def check(self) -> None:
        """Hold the pages against the index: `AssertionError` with the table that is wrong; see `check_table`."""
        check_table(self.nodes)
