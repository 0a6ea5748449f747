"""The mock format: four levels of nine bits, the shape of the common 48-bit tables, the bits of none of them.

    bit 0        V     the entry is valid
    bit 1        L     it is a leaf (else it points to a table)
    bits 2-7     P     the six bits of `swiommu.address.Prot`, leaves only
    bits 12-51   OA    output address, of the page or of the table

48-bit input, 52-bit output; leaves of 4 KiB, 2 MiB and 1 GiB. Entry 0 is empty.
"""

from __future__ import annotations

from swiommu.address import Prot
from swiommu.pagetable.format import EMPTY, Format, Item, Leaf, Level, Table
from swiommu.pagetable.rules import SWIOMMU

__all__ = ["MOCK"]

_VALID = 1 << 0
_LEAF = 1 << 1
_PROT_SHIFT = 2
_PROT_MASK = 0x3F
_OA_MASK = (1 << 52) - (1 << 12)

_LEVELS = (
    Level(shift=39, bits=9),
    Level(shift=30, bits=9, can_leaf=True),
    Level(shift=21, bits=9, can_leaf=True),
    Level(shift=12, bits=9, can_leaf=True),
)


def _leaf_entry(oa: int, _depth: int, prot: int, _order: int) -> int:
    return oa | prot << _PROT_SHIFT | _LEAF | _VALID


def _table_entry(oa: int, _depth: int) -> int:
    return oa | _VALID


def _decode(entry: int, _depth: int) -> Item:
    if not entry & _VALID:
        return EMPTY
    if entry & _LEAF:
        return Leaf(entry & _OA_MASK, Prot(entry >> _PROT_SHIFT & _PROT_MASK))
    return Table(entry & _OA_MASK)


MOCK = Format(
    name="mock",
    levels=_LEVELS,
    output_width=52,
    leaf_entry=_leaf_entry,
    table_entry=_table_entry,
    decode=_decode,
    rules=SWIOMMU,
)
"""The format itself."""
