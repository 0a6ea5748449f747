"""Tables in a dump of raw memory: what stands there, whoever wrote it, and the bytes that our own tables are.

Memory is bytes at addresses and nothing is believed of them: what can't be read as the format says is told apart with
its reason, and tables that lead to themselves or to a million others end the reading, not the reader.
"""

from __future__ import annotations

from swiommu.pagetable.dump.decode import MOST, MOST_ROWS, TableDump, decode_dump
from swiommu.pagetable.dump.memory import FileBytes, MemoryDump, dump_table
from swiommu.pagetable.dump.rows import DumpedTable, DumpRow, RowKind
from swiommu.pagetable.dump.steps import DumpStep, DumpWalk, refusal, walk_dump

__all__ = [
    "MOST",
    "MOST_ROWS",
    "DumpRow",
    "DumpStep",
    "DumpWalk",
    "DumpedTable",
    "FileBytes",
    "MemoryDump",
    "RowKind",
    "TableDump",
    "decode_dump",
    "dump_table",
    "refusal",
    "walk_dump",
]
