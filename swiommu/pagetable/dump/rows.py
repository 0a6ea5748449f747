"""What a decoded table is made of: rows, and which of them are told as one."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

import attrs

from swiommu.address import Prot

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DumpRow", "DumpedTable", "RowKind", "append_row"]


class RowKind(enum.Enum):
    """What a row says: leaves, a table below, and the ways in which there is none."""

    LEAVES = "leaves"
    TABLE = "table"
    EMPTY = "empty tables"
    REFUSED = "refused"
    MISSING = "missing"
    LOOP = "loop"
    UNREAD = "unread"


class DumpRow(NamedTuple):
    """``number`` leaves or entries, which cover ``size`` bytes of the input of their table, from ``offset`` on.

    ``to`` is the output of the first leaf, the address of the (first) table, or the (first) refused word, and ``why``
    it is refused; of a leaf ``why`` says what it is a part of. ``tables`` are how many tables leaves were found in, if
    these stand for whole tables, the first of them at ``first``; one that is met again counts again. ``advances``:
    each leaf leads one page further than the one before it, not all of them to the same page.

    >>> row = DumpRow(RowKind.LEAVES, 0, 0x3000, 3, 0x8000_0000, Prot.READ)
    >>> row.pgsize, hex(row.output(2)), hex(row._replace(advances=False).output(2))
    (4096, '0x80002000', '0x80000000')
    """

    kind: RowKind
    offset: int
    size: int
    number: int
    to: int
    prot: Prot = Prot.NONE
    why: str = ""
    below: DumpedTable | None = None
    tables: int = 0
    first: int = 0
    advances: bool = True

    @property
    def pgsize(self) -> int:
        """Bytes of one leaf, or of what one entry covers."""
        return self.size // self.number

    def output(self, place: int) -> int:
        """Where the first byte of the leaf number ``place``, from 0 on, leads."""
        return self.to + place * self.pgsize if self.advances else self.to


@attrs.frozen(eq=False)
class DumpedTable:
    """A table that was read, at ``address`` the first time: equal ones are the same object.

    ``depth`` is as in `Format.levels`, ``span`` the bytes that it covers; ``leaves`` are counted by size, with all that
    is below.

    >>> row = DumpRow(RowKind.LEAVES, 0x1000, 0x2000, 2, 0x8000_0000, Prot.READ)
    >>> list(DumpedTable(0x4000, 3, 0x20_0000, (row,), {0x1000: 2}).each_run(0x20_0000)) == [(0x20_1000, row)]
    True
    """

    address: int
    depth: int
    span: int
    rows: tuple[DumpRow, ...] = attrs.field(repr=False)
    leaves: dict[int, int]

    def each_run(self, base: int = 0) -> Iterator[tuple[int, DumpRow]]:
        """Every row of leaves with the input of its first byte, if the table begins at ``base``; ascending."""
        for row in self.rows:
            if row.kind is RowKind.LEAVES:
                yield base + row.offset, row
            elif row.below is not None:
                for place in range(row.number):
                    yield from row.below.each_run(base + row.offset + place * row.pgsize)


def append_row(rows: list[DumpRow], row: DumpRow, border: int | None) -> None:
    """Add what follows ``rows`` in a table: to the last of them if both say the same, but not across ``border``.

    Leaves that go on where the last ones ended are one run, or that all lead to the same page, and so are whole tables
    full of such leaves.

    >>> rows = [DumpRow(RowKind.LEAVES, 0x1000, 0x2000, 2, 0x8000_0000, Prot.READ)]
    >>> append_row(rows, DumpRow(RowKind.LEAVES, 0x3000, 0x1000, 1, 0x8000_2000, Prot.READ), None)
    >>> len(rows), rows[0].number
    (1, 3)
    """
    if not rows or rows[-1].offset + rows[-1].size != row.offset or row.offset == border:
        rows.append(row)
        return
    last = rows[-1]
    if last.kind is row.kind and _alike(last, row):
        rows[-1] = _both(last, row)
        return
    before, after = _solid(last), _solid(row)
    if before is not None and after is not None and _goes_on(before, after):
        rows[-1] = _both(before, after)
    else:
        rows.append(row)


def _both(last: DumpRow, row: DumpRow) -> DumpRow:
    return last._replace(
        size=last.size + row.size,
        number=last.number + row.number,
        tables=last.tables + row.tables,
        advances=last.kind is not RowKind.LEAVES or last.to != row.to,
    )


def _alike(last: DumpRow, row: DumpRow) -> bool:
    if row.kind is RowKind.LEAVES:
        return not last.tables and not row.tables and _goes_on(last, row)
    if row.kind in {RowKind.EMPTY, RowKind.UNREAD, RowKind.REFUSED}:
        return last.why == row.why
    return last.to == row.to and last.below is row.below


def _goes_on(last: DumpRow, row: DumpRow) -> bool:
    if (last.pgsize, last.prot, last.why) != (row.pgsize, row.prot, row.why):
        return False
    if last.to == row.to:
        return all(each.number == 1 or not each.advances for each in (last, row))
    return last.advances and row.advances and last.to + last.size == row.to


def _solid(row: DumpRow) -> DumpRow | None:
    """The leaves that one table is full of, or that several were found to be full of."""
    if row.kind is RowKind.LEAVES and row.tables:
        return row
    if row.kind is not RowKind.TABLE or row.number > 1 or row.below is None or len(row.below.rows) > 1:
        return None
    inner = row.below.rows[0]
    if inner.kind is not RowKind.LEAVES or inner.size != row.size:
        return None
    return inner._replace(offset=row.offset, tables=inner.tables + 1, first=row.to)
