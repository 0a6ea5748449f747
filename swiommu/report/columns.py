"""The columns of the comparison table in the HTML report: heading, unit, meaning, and how a cell looks.

One list drives header, cells, legend and the cards on a narrow screen. A field that is None shows a dash and points
at the reason that its row gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.answers import Comparison, Row

__all__ = ["COLUMNS", "Cell", "Column", "Note", "Table", "Words", "count", "mebibytes", "table_of"]

_MIB = 1 << 20


def mebibytes(size: float) -> str:
    """Bytes as MiB without the unit, three significant digits where they matter.

    >>> mebibytes(158 << 20), mebibytes(33285996), mebibytes(32768), mebibytes(1), mebibytes(0)
    ('158', '31.7', '0.031', '<0.001', '0')
    """
    return _decimal(size / _MIB)


def _kibibytes(size: float) -> str:
    return _decimal(size / 1024)


def _decimal(value: float) -> str:
    if value == 0 or value >= 100 or value == int(value):
        return f"{value:,.0f}"
    if value < 0.001:
        return "<0.001"
    digits = 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}"


def count(number: float) -> str:
    """A count with thousands set apart.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{number:,.0f}"


@attrs.frozen
class Column:
    """One measure: ``field`` of a row, ``show`` makes the cell's text from a value that is not None."""

    group: str
    field: str
    heading: str
    unit: str
    meaning: str
    show: Callable[[float], str]


@attrs.frozen
class Words:
    """A column whose cells are words rather than numbers."""

    group: str
    field: str
    heading: str
    meaning: str
    unit: str = ""


COLUMNS: tuple[Column | Words, ...] = (
    Column(
        "Requests",
        "failed",
        "failed",
        "",
        "Requests that the design does not serve, of those too that failed in the recording.",
        count,
    ),
    Column("Requests", "lost", "lost", "", "Served by the recorded kernel, failed by this design.", count),
    Column("Requests", "gained", "gained", "", "Failed in the recording; this design could have served them.", count),
    Column(
        "Requests",
        "failed_with_room",
        "failed with room",
        "",
        "Failed although as many bytes were free: they were scattered. Of the ALLOCs that failed, the others found too "
        "few bytes free.",
        count,
    ),
    Column(
        "Memory",
        "bytes_needed",
        "needs",
        "MiB",
        "The smallest memory, in steps of 2 MiB, in which the design loses nothing that the kernel served. Every other "
        "column is measured in the memory that the assumptions name; a bounce pool comes on top.",
        mebibytes,
    ),
    Column(
        "Memory",
        "failed_at_need",
        "still fail",
        "",
        "Of all requests, those that failed in the recording included, how many fail in the memory that it needs.",
        count,
    ),
    Column("Memory", "reserved_bytes", "reserved", "MiB", "Withheld from the rest of the system.", mebibytes),
    Column(
        "Memory",
        "waste_bytes",
        "waste",
        "MiB",
        "Charged to the design and used by no request: the mean over the time of the trace.",
        mebibytes,
    ),
    Column(
        "Memory", "lendable_bytes", "lent", "MiB", "The part of the waste that the system may use meanwhile.", mebibytes
    ),
    Column("Memory", "table_bytes", "page tables", "KiB", "Page tables at their peak, roots included.", _kibibytes),
    Column("Work", "maps", "maps", "", "Mappings made, one for each contiguous piece.", count),
    Column("Work", "unmaps", "unmaps", "", "Mappings taken away, one for each request.", count),
    Column("Work", "invalidations", "inval\u00adidations", "", "Commands that empty translation caches.", count),
    Column(
        "Work",
        "bytes_copied",
        "copied",
        "MiB",
        "Bytes copied through bounce buffers, or away from lent pages.",
        mebibytes,
    ),
    Column(
        "Work",
        "walk_refs_per_mib",
        "table reads",
        "per MiB",
        "Page-table reads to touch every leaf once with cold caches, over the bytes requested.",
        _decimal,
    ),
    Words(
        "Safety",
        "enforces",
        "isolates",
        "Whether a device is kept from memory that is not its own: yes, no, or partly (some devices).",
    ),
    Words("Cost", "cost", "cost", "The work, priced by the cost vector; the notes say where each price comes from."),
)


@attrs.frozen
class Cell:
    """``text`` for people, ``key`` to sort by, ``note`` the number of the reason why there is no value."""

    text: str
    key: str
    note: int | None = None


@attrs.frozen
class Note:
    """Why cells are empty: ``who`` lists them."""

    number: int
    reason: str
    who: list[str]


@attrs.frozen
class Table:
    """The table, ready to be set: parallel ``columns`` and cells; a row that repeats another has no cells."""

    columns: Sequence[Column | Words]
    groups: list[tuple[str, int]]
    lines: list[tuple[Row, list[Cell]]]
    notes: list[Note]


def table_of(answer: Comparison) -> Table:
    """Every column that says something for a row; those nobody asked for are left out.

    >>> from swiommu.answers import compare
    >>> from swiommu.trace import read_trace
    >>> table = table_of(compare(read_trace("arm64-6.12-cam-cma64M-s81"), ["cma-bitmap"], with_need=False))
    >>> [cell.text for cell in table.lines[0][1][:3]]
    ['2', '0', '25']
    """
    rows = [row for row in answer.rows if row.same_as is None]
    optional = {"bytes_needed", "failed_at_need", "cost"}
    columns = [column for column in COLUMNS if column.field not in optional or _any(rows, column.field)]
    groups: list[tuple[str, int]] = []
    for column in columns:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    notes: dict[str, Note] = {}
    lines = [(row, [] if row.same_as else [_cell(row, column, notes) for column in columns]) for row in answer.rows]
    return Table(columns, groups, lines, list(notes.values()))


def _any(rows: Sequence[Row], field: str) -> bool:
    return any(row.to_json()[field] is not None for row in rows)


def _cell(row: Row, column: Column | Words, notes: dict[str, Note]) -> Cell:
    value = row.to_json()[column.field]
    if value is None:
        reason = row.why.get(column.field) or row.why.get(column.field.removesuffix("_bytes")) or "not known"
        return Cell("\u2013", "", _note(row, column, reason, notes))
    if isinstance(column, Column):
        return Cell(column.show(value), repr(value))
    if isinstance(value, dict):  # a cost: one number, and everything that says what to think of it
        about = "; ".join(f"{key}: {_told(part)}" for key, part in value.items() if key != "value")
        return Cell(_told(value["value"]), repr(value["value"]), _note(row, column, about, notes))
    return Cell(str(value), str(value))


def _told(part: Any) -> str:
    if isinstance(part, list):
        return " to ".join(map(_told, part))
    return _decimal(part) if isinstance(part, int | float) else str(part)


def _note(row: Row, column: Column | Words, reason: str, notes: dict[str, Note]) -> int:
    note = notes.setdefault(reason, Note(len(notes) + 1, reason, []))
    note.who.append(f"{column.heading.replace(chr(0xAD), '')} of {row.name}")
    return note.number
