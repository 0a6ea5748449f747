"""Tables of a dump as text: a line for each run of leaves and for each table, and whatever is told once only once."""

from __future__ import annotations

import textwrap
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from swiommu.address import Prot
from swiommu.pagetable import Leaf, Table
from swiommu.pagetable.door import TableDoor
from swiommu.pagetable.dump import MOST_ROWS, RowKind
from swiommu.words import counted, mib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.answers.table import TableExplanation
    from swiommu.pagetable import Format, Item
    from swiommu.pagetable.dump import DumpedTable, DumpRow, DumpStep, DumpWalk

__all__ = ["LINES", "table_text"]

LINES: Final = 200
_WIDTH: Final = 80
_NARROW: Final = 60  # from here on indentation is as small as it can be
_UNITS: Final = ("", "K", "M", "G", "T", "P", "E")
_READ_WRITE: Final = Prot.READ | Prot.WRITE


def table_text(answer: TableExplanation, *, width: int = _WIDTH, limit: int | None = LINES) -> str:
    """The whole answer; of the tree no more than ``limit`` lines, None for all up to 65,536.

    >>> from swiommu.answers.table import explain_table
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> from swiommu.pagetable.dump import MemoryDump, dump_table
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x1000, 0x8000_0000, 0x1000, 9, 3)
    >>> table.map_run(0x20_0000, 0x4000_0000, 0x20_0000, 1, 5)
    >>> memory = MemoryDump(dump_table(table))
    >>> print(table_text(explain_table(memory, MOCK, table.root)))
    mock, 4 levels from root 0x1000: 10 leaves (9 x 4K, 1 x 2M) map 2.0 MiB.
    <BLANKLINE>
    0x0-0x7fffffffff: table 0x2000
      0x0-0x3fffffff: table 0x3000
        0x0-0x1fffff: table 0x4000
          0x1000-0x9fff -> 0x80000000  9 x 4K RW
        0x200000-0x3fffff -> 0x40000000  1 x 2M R cached
    >>> print(table_text(explain_table(memory, MOCK, table.root, at=0x20_0010)))
    mock, 4 levels from root 0x1000: the walk to 0x200010
    <BLANKLINE>
      1  at 0x1000: 0x2001, next table at 0x2000
      2  at 0x2000: 0x3001, next table at 0x3000
      3  at 0x3008: 0x40000017, page of 2M at 0x40000000, R cached
    <BLANKLINE>
    0x200010 leads to 0x40000010, R cached.
    """
    head = f"{answer.format.name}, {counted(answer.levels, 'level')} from root {answer.root:#x}"
    words = _Words(answer.format, width)
    if answer.walk is not None:
        return "\n".join(_walk(answer.walk, head, words))
    assert answer.dump is not None, "neither all tables nor a walk"
    leaves = answer.dump.top.leaves
    sizes = f" ({', '.join(f'{n:,} x {_short(size)}' for size, n in leaves.items())})" if leaves else ""
    total = sum(leaves.values())
    verb = "maps" if total == 1 else "map"
    says = (
        f"{counted(total, 'leaf') if total == 1 else f'{total:,} leaves'}{sizes} {verb} {_amount(answer.dump.mapped)}."
    )
    lines = [*words.wrapped(f"{head}: {says if total else 'nothing is mapped.'}"), ""]
    everything = sum(len(table.rows) for table in answer.tables())
    limit = MOST_ROWS if limit is None else min(limit, MOST_ROWS)
    for line in islice(_tree(answer.dump.top, words), limit):
        lines += words.row(line)
    if everything > limit:
        lines.append(f"... and {counted(everything - limit, 'more line')}.")
    trouble = _trouble(answer)
    if trouble:
        lines += ["", *words.wrapped(trouble)]
    return "\n".join(lines if lines[-1] else lines[:-1])


class _Line(NamedTuple):
    nesting: int
    at: int
    row: DumpRow
    told: int | None  # where the table was told before, if it was


class _Words:
    """What depends on the format and on the width."""

    def __init__(self, form: Format, width: int) -> None:
        self.form = form
        self.width, self.indent = width, 1 if width <= _NARROW else 2
        self.outer = TableDoor(form).outer
        self.tells_cache = form.effective(_READ_WRITE) != form.effective(_READ_WRITE | Prot.CACHE)

    def wrapped(self, text: str, first: str = "", further: str = "") -> list[str]:
        return textwrap.wrap(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def row(self, line: _Line) -> list[str]:
        row = line.row
        last = self.outer(line.at) + row.size - 1
        margin = " " * (self.indent * line.nesting)
        text = f"{self.outer(line.at):#x}-{last:#x}{self._says(line)}"
        if len(margin + text) <= self.width:
            return [margin + text]
        return self.wrapped(text, margin, margin + " " * (self.indent + 2))

    def _says(self, line: _Line) -> str:
        row = line.row
        if row.kind is RowKind.LEAVES:
            inside = f", in {counted(row.tables, 'table')}, the first {row.first:#x}" if row.tables else ""
            part = f", {row.why}" if row.why else ""
            same = "" if row.advances else ", all the same page"
            return f" -> {row.to:#x}  {row.number:,} x {_short(row.pgsize)} {self.prot(row.prot)}{same}{part}{inside}"
        if row.kind is RowKind.TABLE:
            return f": {self._table(row, line.told)}"
        several = row.number > 1
        if row.kind is RowKind.EMPTY:
            return f": {row.number:,} empty tables, the first {row.to:#x}" if several else f": empty table {row.to:#x}"
        if row.kind is RowKind.REFUSED:
            which = f"{row.number:,} words are refused, the first {row.to:#x}" if several else f"{row.to:#x} is refused"
            return f": {which}: {row.why}"
        if row.kind is RowKind.UNREAD:
            return f": {row.number:,} tables not read" if several else f": table {row.to:#x}, not read"
        times = f"{row.number:,} x " if several else ""
        if row.kind is RowKind.MISSING:
            return f": {times}table {row.to:#x}, not in the dump"
        return f": {times}table {row.to:#x}, a loop: it is inside of itself"

    @staticmethod
    def _table(row: DumpRow, told: int | None) -> str:
        assert row.below is not None, "a table is known"
        text = f"{row.number:,} x table {row.to:#x}" if row.number > 1 else f"table {row.to:#x}"
        if told is None:
            return f"{text}, the first:" if row.number > 1 else text
        if row.below.address == row.to:
            return f"{text}, as at {told:#x}"
        return f"{text}, like table {row.below.address:#x} at {told:#x}"

    def prot(self, prot: Prot) -> str:
        """A protection in words."""
        cached = ["cached"] if self.tells_cache and prot & Prot.CACHE else []
        return " ".join([_access(prot), *cached, *_flags(prot)])

    @staticmethod
    def narrowing(table: Table) -> str:
        """What a table entry says of all that is below."""
        allowed = [] if table.allows == _READ_WRITE else [f"{_access(table.allows)} only"]
        return ", ".join([*allowed, *_flags(table.prot)])


def _access(prot: Prot) -> str:
    return ("R" if prot & Prot.READ else "") + ("W" if prot & Prot.WRITE else "") or "no access"


def _flags(prot: Prot) -> list[str]:
    return [word for flag, word in ((Prot.MMIO, "mmio"), (Prot.NOEXEC, "noexec"), (Prot.PRIV, "priv")) if prot & flag]


def _tree(top: DumpedTable, words: _Words) -> Iterator[_Line]:
    told: dict[DumpedTable, int] = {}

    def lines(table: DumpedTable, base: int, nesting: int) -> Iterator[_Line]:
        for row in table.rows:
            below = row.below if row.kind is RowKind.TABLE else None
            before = told.get(below) if below is not None else None
            at = base + row.offset
            yield _Line(nesting, at, row, before)
            if below is not None and before is None:
                told[below] = words.outer(at)
                yield from lines(below, at, nesting + 1)

    return lines(top, 0, 0)


def _trouble(answer: TableExplanation) -> str:
    """What the tree has of rows that lead nowhere, for those who see only its beginning."""
    assert answer.dump is not None, "there is a tree"
    found: Counter[RowKind] = Counter()
    for table in answer.tables():
        for row in table.rows:
            found[row.kind] += row.number
    names = {RowKind.REFUSED: "refused word", RowKind.MISSING: "table", RowKind.LOOP: "loop", RowKind.UNREAD: "table"}
    ends = {RowKind.MISSING: " not in the dump", RowKind.UNREAD: " not read (there are too many words)"}
    said = [f"{counted(found[kind], name)}{ends.get(kind, '')}" for kind, name in names.items() if found[kind]]
    return f"In the tables read: {', '.join(said)}." if said else ""


def _walk(walk: DumpWalk, head: str, words: _Words) -> Iterator[str]:
    yield from words.wrapped(f"{head}: the walk to {walk.iova:#x}")
    yield ""
    for number, step in enumerate(walk.steps, 1):
        yield from words.wrapped(f"at {step.address:#x}: {_step(step, words)}", f"{number:>3}  ", " " * 7)
    if walk.steps:
        yield ""
    if walk.output is None:
        beyond = "" if walk.steps else ": it is beyond what the root covers"
        yield from words.wrapped(f"{walk.iova:#x} leads nowhere{beyond}.")
    else:
        assert isinstance(walk.outcome, Leaf), "it has an output"
        yield from words.wrapped(f"{walk.iova:#x} leads to {walk.output:#x}, {words.prot(walk.outcome.prot)}.")


def _step(step: DumpStep, words: _Words) -> str:
    if step.word is None:
        return step.why
    if step.why:
        return f"{step.word:#x}, refused: {step.why}"
    return f"{step.word:#x}, {_meaning(step.item, step.depth, words)}"


def _meaning(item: Item, depth: int, words: _Words) -> str:
    if isinstance(item, Leaf):
        pgsize = 1 << words.form.levels[depth].shift + item.order
        return f"page of {_short(pgsize)} at {item.oa:#x}, {words.prot(item.prot)}"
    if not isinstance(item, Table):
        return "empty"
    narrowed = words.narrowing(item)
    return f"next table at {item.oa:#x}{f' ({narrowed})' if narrowed else ''}"


def _short(size: int) -> str:
    """A page size as few characters.

    >>> _short(4096), _short(2 << 20), _short(1 << 51)
    ('4K', '2M', '2P')
    """
    unit = (size.bit_length() - 1) // 10
    return f"{size >> 10 * unit}{_UNITS[unit]}"


def _amount(size: int) -> str:
    """Bytes, where there may be more of them than a machine has.

    >>> _amount(2 << 20), _amount(1 << 50)
    ('2 MiB', '1 PiB')
    """
    unit = min((size.bit_length() - 1) // 10, 6)
    if unit < 3:
        return mib(size)
    whole, exact = size / (1 << 10 * unit), size >> 10 * unit
    return f"{exact} {_UNITS[unit]}iB" if whole == exact else f"{whole:.1f} {_UNITS[unit]}iB"
