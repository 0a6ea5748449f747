"""``swiommu explain table``: the tables in a dump of memory, or the walk to one address through them."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

import attrs

from swiommu.address import Prot
from swiommu.pagetable import Leaf, Table
from swiommu.pagetable.dump import MOST_ROWS, RowKind, decode_dump, walk_dump

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.pagetable import Format
    from swiommu.pagetable.dump import DumpedTable, DumpRow, DumpStep, DumpWalk, MemoryDump, TableDump

__all__ = ["TableExplanation", "explain_table"]


@attrs.frozen
class TableExplanation:
    """Tables of ``format`` from ``root`` on, of which ``levels`` are walked: all of them, or the walk to one address.

    >>> from swiommu.pagetable import MOCK
    >>> from swiommu.pagetable.dump import MemoryDump
    >>> answer = explain_table(MemoryDump({0x1000: bytes(4096)}), MOCK, 0x1000)
    >>> answer.levels, answer.to_json()["tables"][0]["rows"]
    (4, [])
    """

    format: Format
    root: int
    levels: int
    dump: TableDump | None
    walk: DumpWalk | None

    def tables(self) -> Iterator[DumpedTable]:
        """Each table that was found, once, in the order in which they are first met."""
        yield from _below(self.dump.top, set()) if self.dump is not None else ()

    def to_json(self) -> dict[str, Any]:
        """The document ``swiommu.explain.table/1``; addresses and words are hexadecimal texts.

        Tables are told up to 65,536 rows, those that are met first; ``left_out`` counts the others and their rows.
        """
        numbers = {table: number for number, table in enumerate(self.tables())}
        ends = list(accumulate((len(table.rows) for table in numbers), initial=0))
        told = bisect_right(ends, MOST_ROWS) - 1
        return {
            "schema": "swiommu.explain.table/1",
            "format": self.format.name,
            "root": hex(self.root),
            "levels": self.levels,
            "leaves": None if self.dump is None else {str(size): n for size, n in self.dump.top.leaves.items()},
            "mapped": None if self.dump is None else self.dump.mapped,
            "exhausted": None if self.dump is None else self.dump.exhausted,
            "tables": None
            if self.dump is None
            else [_table(table, number, numbers) for table, number in islice(numbers.items(), told)],
            "left_out": None if self.dump is None else {"tables": len(numbers) - told, "rows": ends[-1] - ends[told]},
            "walk": None if self.walk is None else _walk(self.walk),
        }


def explain_table(
    memory: MemoryDump, form: Format, root: int, *, levels: int | None = None, at: int | None = None
) -> TableExplanation:
    """What stands in ``memory`` from ``root`` on; with ``at`` only the walk to that address.

    Raises what `swiommu.pagetable.dump.decode_dump` and `swiommu.pagetable.dump.walk_dump` raise.

    >>> from swiommu.pagetable import MOCK
    >>> from swiommu.pagetable.dump import MemoryDump
    >>> explain_table(MemoryDump({0x1000: bytes(4096)}), MOCK, 0x1000, at=0).walk.output is None
    True
    """
    dump = decode_dump(memory, form, root, levels=levels) if at is None else None
    walk = None if at is None else walk_dump(memory, form, root, at, levels=levels)
    return TableExplanation(form, root, levels or len(form.levels) - form.start, dump, walk)


def _below(table: DumpedTable, met: set[DumpedTable]) -> Iterator[DumpedTable]:
    met.add(table)
    yield table
    for row in table.rows:
        if row.kind is RowKind.TABLE and row.below is not None and row.below not in met:
            yield from _below(row.below, met)


def _prot(prot: Prot) -> list[str]:
    return [each.name for each in Prot if each & prot and each.name]


def _table(table: DumpedTable, number: int, numbers: dict[DumpedTable, int]) -> dict[str, Any]:
    return {
        "id": number,
        "address": hex(table.address),
        "depth": table.depth,
        "span": hex(table.span),
        "leaves": {str(size): n for size, n in table.leaves.items()},
        "rows": [_row(row, numbers) for row in table.rows],
    }


def _row(row: DumpRow, numbers: dict[DumpedTable, int]) -> dict[str, Any]:
    return {
        "kind": row.kind.value,
        "offset": hex(row.offset),
        "size": hex(row.size),
        "number": row.number,
        "to": hex(row.to),
        "advances": row.advances if row.kind is RowKind.LEAVES else None,
        "prot": _prot(row.prot) if row.kind is RowKind.LEAVES else None,
        "why": row.why or None,
        "table": numbers.get(row.below) if row.below is not None else None,
        "in_tables": row.tables,
        "first_table": hex(row.first) if row.tables else None,
    }


def _walk(walk: DumpWalk) -> dict[str, Any]:
    return {
        "iova": hex(walk.iova),
        "steps": [_step(step) for step in walk.steps],
        "output": None if walk.output is None else hex(walk.output),
        "page_size": walk.pgsize or None,
        "prot": _prot(walk.outcome.prot) if isinstance(walk.outcome, Leaf) else None,
    }


def _step(step: DumpStep) -> dict[str, Any]:
    kind = "table" if isinstance(step.item, Table) else "leaf" if isinstance(step.item, Leaf) else "nothing"
    return {
        "depth": step.depth,
        "address": hex(step.address),
        "word": None if step.word is None else hex(step.word),
        "says": kind,
        "to": hex(step.item.oa) if isinstance(step.item, Table | Leaf) else None,
        "why": step.why or None,
    }
