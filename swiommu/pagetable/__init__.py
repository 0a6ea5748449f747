"""Page tables: what a format is, the formats, and the ONE walker that reads and writes them all.

Tables are real: 512 entries of 64 bits in a page that somebody had to give (`TableMemory`). Nothing here
knows a domain, an IOVA allocator or a device; addresses are plain ints, checked at the door.
"""

from swiommu.pagetable.format import EMPTY, Empty, Format, Item, Leaf, Level, Table, remembered
from swiommu.pagetable.formats import FORMATS, MOCK, MOCK64K, format_named
from swiommu.pagetable.pgsize import page_size_choice
from swiommu.pagetable.radix import RadixTable
from swiommu.pagetable.removing import DataPageWrite, Removal
from swiommu.pagetable.rules import Rules
from swiommu.pagetable.tables import (
    CountingTables,
    FrameTables,
    JoinedPages,
    TableMemory,
    TablePages,
    Words,
    blank,
    joined,
)
from swiommu.pagetable.walk import LeafRun, Step, Walk

__all__ = [
    "EMPTY",
    "FORMATS",
    "MOCK",
    "MOCK64K",
    "CountingTables",
    "DataPageWrite",
    "Empty",
    "Format",
    "FrameTables",
    "Item",
    "JoinedPages",
    "Leaf",
    "LeafRun",
    "Level",
    "RadixTable",
    "Removal",
    "Rules",
    "Step",
    "Table",
    "TableMemory",
    "TablePages",
    "Walk",
    "Words",
    "blank",
    "format_named",
    "joined",
    "page_size_choice",
    "remembered",
]
