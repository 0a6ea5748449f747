"""From bytes to a tree of tables: each table is read once at a level, and equal ones are one object.

So a dump of tables that lead to each other a thousandfold takes as long as its tables are many, not as its ways are.
Two things end the reading early, and are told: a table inside of itself, which is not followed, and a budget of words.
"""

from __future__ import annotations

from collections import Counter
from itertools import repeat
from typing import TYPE_CHECKING, Final

import attrs

from swiommu.pagetable.door import TableDoor
from swiommu.pagetable.dump.rows import DumpedTable, DumpRow, RowKind, append_row
from swiommu.pagetable.dump.steps import entrance, refusal
from swiommu.pagetable.format import Format, Leaf, Table
from swiommu.pagetable.walk import Narrowing

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator

    from swiommu.pagetable.dump.memory import MemoryDump
    from swiommu.pagetable.format import Item

__all__ = ["MOST", "MOST_ROWS", "TableDump", "decode_dump"]

MOST: Final = 1 << 19
"""Words that are decoded one by one before the reading ends: some seconds of work."""

MOST_ROWS: Final = 1 << 16
"""Rows that are told: some tens of megabytes of text."""

_PER_WORK: Final = 64  # words looked through, not decoded, that count as one
_PART: Final = "part of a page of {:#x} bytes whose other words differ"


@attrs.frozen
class TableDump:
    """What stands at ``root``, a table of ``format`` at ``depth``: the tree from ``top`` on, of ``tables`` read.

    ``exhausted``: whether the reading ended before its end.

    >>> from swiommu.pagetable import MOCK
    >>> TableDump(MOCK, 0x1000, 0, DumpedTable(0x1000, 0, 1 << 48, (), {}), 1).mapped
    0
    """

    format: Format
    root: int
    depth: int
    top: DumpedTable
    tables: int
    exhausted: bool = False

    @property
    def mapped(self) -> int:
        """Bytes of input that lead somewhere."""
        return sum(pgsize * count for pgsize, count in self.top.leaves.items())

    def each_run(self) -> Iterator[tuple[int, DumpRow]]:
        """Every run of leaves with the input address of its first byte; ascending, as often as its table is reached."""
        outer = TableDoor(self.format).outer
        for at, row in self.top.each_run():
            yield outer(at), row


def decode_dump(
    memory: MemoryDump, form: Format, root: int, *, levels: int | None = None, most: int = MOST
) -> TableDump:
    """The tables of ``form`` in ``memory``, from ``root`` on.

    ``levels`` are those of the walk, by default as many as a new table has. Raises `InvalidArgument` for a number that
    the format does not have and for a misaligned root, `NotFound` if the root is not all in the dump.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> from swiommu.pagetable.dump import MemoryDump, dump_table
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x5000, 0x8000_0000, 0x1000, 3, Prot.READ)
    >>> dump = decode_dump(MemoryDump(dump_table(table)), MOCK, table.root)
    >>> [(hex(iova), hex(run.to), run.number, run.pgsize) for iova, run in dump.each_run()]
    [('0x5000', '0x80000000', 3, 4096)]
    """
    depth, words = entrance(memory, form, root, levels)
    reader = _Reader(memory, form, most)
    top = reader.table(root, words, depth, Narrowing())
    return TableDump(form, root, depth, top, len(reader.known), reader.exhausted)


class _Reader:
    """The state of one reading. Recursion is as deep as the format."""

    def __init__(self, memory: MemoryDump, form: Format, most: int) -> None:
        self.memory, self.form = memory, form
        self.left = most
        self.exhausted = False
        self.known: dict[tuple[int, int, Narrowing], DumpedTable] = {}
        self.equal: dict[tuple[int, int, tuple[DumpRow, ...]], DumpedTable] = {}
        self.way: list[int] = []
        self.border = 1 << form.aperture_width if form.sign_extended else None
        # By how much the words of neighbouring leaves of one entry differ, by depth.
        self.steps = [self._difference(depth) if level.can_leaf else 0 for depth, level in enumerate(form.levels)]

    def _difference(self, depth: int) -> int:
        entry = self.form.leaf_entry
        return entry(self.form.levels[depth].pgsize, depth, 1, 0) - entry(0, depth, 1, 0) if self.form.even else 0

    def table(self, phys: int, words: array[int], depth: int, seen: Narrowing) -> DumpedTable:
        level = self.form.levels[depth]
        self.left -= 1 + len(words) // _PER_WORK
        self.way.append(phys)
        rows: list[DumpRow] = []
        border = self.border if depth == 0 else None
        index, end = 0, len(words)
        while index < end:
            word = words[index]
            if not word:
                index += 1
                continue
            self.left -= 1
            row, taken = self._row(words, index, depth, seen)
            append_row(rows, row, border)
            index += taken
        self.way.pop()
        kept = tuple(rows)
        # Where a table below lies does not make its upper one another one; words that are not told do.
        untold = any(row.number > 1 and row.kind in {RowKind.REFUSED, RowKind.UNREAD} for row in kept)
        key = depth, phys if untold else 0, tuple(row if row.below is None else row._replace(to=0) for row in kept)
        found = self.equal.get(key)
        if found is None:
            made = DumpedTable(phys, depth, 1 << level.shift + level.bits, kept, _counted(kept))
            found = self.equal[key] = made
        self.known[phys, depth, seen] = found
        return found

    def _row(self, words: array[int], index: int, depth: int, seen: Narrowing) -> tuple[DumpRow, int]:
        form = self.form
        level, word = form.levels[depth], words[index]
        offset = index << level.shift
        item = form.decode(word, depth)
        checked = form.checked(item, depth)
        if isinstance(checked, Leaf):
            return self._leaf(words, index, depth, checked, seen)
        if isinstance(checked, Table):
            return self._below(checked, offset, depth, seen), 1
        return DumpRow(RowKind.REFUSED, offset, level.pgsize, 1, word, why=refusal(form, item, depth)), 1

    def _leaf(self, words: array[int], index: int, depth: int, leaf: Leaf, seen: Narrowing) -> tuple[DumpRow, int]:
        shift = self.form.levels[depth].shift
        prot, offset = seen.leaf(leaf).prot, index << shift
        if not leaf.order:
            count, advances = self._how_many(words, index, depth, leaf)
            return DumpRow(RowKind.LEAVES, offset, count << shift, count, leaf.oa, prot, advances=advances), count
        entries = 1 << leaf.order
        inside = index & entries - 1
        if not inside and self._all_alike(words[index : index + entries], depth, leaf):
            return DumpRow(RowKind.LEAVES, offset, entries << shift, 1, leaf.oa, prot), entries
        why = _PART.format(entries << shift)
        return DumpRow(RowKind.LEAVES, offset, 1 << shift, 1, leaf.oa + (inside << shift), prot, why), 1

    def _how_many(self, words: array[int], index: int, depth: int, leaf: Leaf) -> tuple[int, bool]:
        # Entries from `index` on that lead one page further each, or all to the same page (False), and differ in
        # nothing else.
        most, shift = len(words) - index, self.form.levels[depth].shift
        if depth == 0 and self.border is not None and index < self.border >> shift:
            most = min(most, (self.border >> shift) - index)
        found = words[index : index + most]
        if most > 1 and found[1] == found[0]:
            return _as_expected(found, repeat(found[0], most)), False
        step, most = self.steps[depth], min(most, ((1 << self.form.output_width) - leaf.oa) >> shift)
        if not step or most < 2:
            return 1, True
        return _as_expected(found[:most], range(found[0], found[0] + step * most, step)), True

    def _all_alike(self, words: array[int], depth: int, leaf: Item) -> bool:
        # Hardware may have marked some of them as accessed.
        different = set(words)
        self.left -= len(different)
        return all(self.form.checked(self.form.decode(word, depth), depth) == leaf for word in different)

    def _below(self, item: Table, offset: int, depth: int, seen: Narrowing) -> DumpRow:
        pgsize = self.form.levels[depth].pgsize
        if item.oa in self.way:
            return DumpRow(RowKind.LOOP, offset, pgsize, 1, item.oa)
        narrowed = seen.through(item)
        below = self.known.get((item.oa, depth + 1, narrowed))
        if below is None:
            if self.left <= 0:
                self.exhausted = True
                return DumpRow(RowKind.UNREAD, offset, pgsize, 1, item.oa)
            words = self.memory.words(item.oa, 1 << self.form.levels[depth + 1].bits)
            if words is None:
                return DumpRow(RowKind.MISSING, offset, pgsize, 1, item.oa)
            below = self.table(item.oa, words, depth + 1, narrowed)
        return DumpRow(RowKind.TABLE if below.rows else RowKind.EMPTY, offset, pgsize, 1, item.oa, below=below)


def _as_expected(found: array[int], expected: Iterable[int]) -> int:
    # How many there are before the first that is another one.
    return next((n for n, (is_, wanted) in enumerate(zip(found, expected, strict=True)) if is_ != wanted), len(found))


def _counted(rows: tuple[DumpRow, ...]) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for row in rows:
        if row.kind is RowKind.LEAVES:
            counts[row.pgsize] += row.number
        elif row.below is not None:
            for pgsize, count in row.below.leaves.items():
                counts[pgsize] += count * row.number
    return dict(sorted(counts.items()))
