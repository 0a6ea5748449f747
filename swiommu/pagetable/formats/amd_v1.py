"""AMD v1, the host tables of AMD's IOMMU: up to 6 levels, pages of nearly every power of two.

    bits     name        leaf                                     table
    0        PR          1                                        1
    6        D           hardware's                               ignored
    11:9     next level  0: the natural size of the level         level of the table that it points to,
                         7: a larger size, told in the address    the lowest being 1
    51:12    address     of the page, and its size                of the table
    60       FC          1                                        0
    61       IR          READ                                     1
    62       IW          WRITE                                    1
    1-5, 7, 8, 59:52, 63 are ignored here

A page of 2**k times the natural size is that many equal words with next level 7. Its address field has the low bits
set, one fewer than it has zeroes: the lowest zero tells the size, 8 KiB if it is the first bit. Any size from 4 KiB to
2**51 bytes but 512 GiB, which hardware gets wrong. A table that skips a level, and a size that does not belong to the
level, are refused; no kernel writes them. IR and IW are ANDed down the walk.

64-bit input, the root decoding 7 bits; a new table has three levels and grows. 52-bit output. Source:
``drivers/iommu/amd/io_pgtable.c`` (6.12) and ``drivers/iommu/generic_pt/fmt/amdv1.h``.

>>> from swiommu.pagetable.formats import AMD_V1
>>> hex(AMD_V1.leaf_entry(0x89abc000, 5, 3, 0)), hex(AMD_V1.leaf_entry(0x80000, 5, 3, 4))
('0x7000000089abc001', '0x7000000000087e01')
>>> hex(AMD_V1.table_entry(0x5000, 3)), AMD_V1.decode(0x7000000000087e01, 5)
('0x6000000000005401', Leaf(oa=524288, prot=<Prot.READ|WRITE|CACHE: 7>, order=4))
"""

from __future__ import annotations

from typing import Final

from swiommu.address import Prot
from swiommu.pagetable.format import EMPTY, Format, Item, Leaf, Level, Table, remembered
from swiommu.pagetable.formats.shape import PROTS
from swiommu.pagetable.rules import rules_of
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of

__all__ = ["AMD_V1", "amd_v1"]

_PR: Final = 1 << 0
_NEXT_SHIFT: Final = 9
_NEXT_SIZE: Final = 7
_FC: Final = 1 << 60
_ACCESS_SHIFT: Final = 61
_ACCESS: Final = 0b11 << _ACCESS_SHIFT
_ADDRESS: Final = (1 << 52) - (1 << 12)
_CACHE: Final = int(Prot.CACHE)
_LEVELS: Final = (
    Level(shift=57, bits=7),
    Level(shift=48, bits=9, can_leaf=True, orders=(1, 2, 3)),
    Level(shift=39, bits=9, orders=(1, 2, 3, 4, 5, 6, 7, 8)),
    Level(shift=30, bits=9, can_leaf=True, orders=(1, 2, 3, 4, 5, 6, 7, 8)),
    Level(shift=21, bits=9, can_leaf=True, orders=(1, 2, 3, 4, 5, 6, 7, 8)),
    Level(shift=12, bits=9, can_leaf=True, orders=(1, 2, 3, 4, 5, 6, 7, 8)),
)


def _leaf_entry(oa: int, depth: int, prot: int, order: int) -> int:
    word = oa | (prot & 0b11) << _ACCESS_SHIFT | _FC | _PR
    if not order:
        return word
    ones = (1 << _LEVELS[depth].shift + order - 1) - (1 << 12)
    return word | ones | _NEXT_SIZE << _NEXT_SHIFT


def _table_entry(oa: int, depth: int) -> int:
    return oa | _ACCESS | len(_LEVELS) - 1 - depth << _NEXT_SHIFT | _PR


def _decode(word: int, depth: int) -> Item:
    if not word & _PR:
        return EMPTY
    address, following, access = word & _ADDRESS, word >> _NEXT_SHIFT & 7, word >> _ACCESS_SHIFT & 0b11
    if not following:
        return Leaf(address, PROTS[access | _CACHE])
    if following == _NEXT_SIZE:
        zero = ~(address | 0xFFF) & -~(address | 0xFFF)  # the lowest bit of the field that is not set
        order = zero.bit_length() - _LEVELS[depth].shift
        return Leaf(address & ~(2 * zero - 1), PROTS[access | _CACHE], order) if order > 0 else EMPTY
    if following != len(_LEVELS) - 1 - depth:
        return EMPTY
    return Table(address, PROTS[access])


@remembered
def amd_v1(profile: Profile | str = DEFAULT_PROFILE) -> Format:
    """The format; its words are the same in every kernel, its rules are those of ``profile``.

    Raises `InvalidArgument` for text that is no version.

    >>> form = amd_v1()
    >>> form.name, form.input_width, form.start, hex(form.pgsize_bitmap)
    ('amd-v1', 64, 3, '0xfff7ffffff000')
    """
    profile = profile_of(profile)
    return Format(
        name="amd-v1",
        levels=_LEVELS,
        output_width=52,
        leaf_entry=_leaf_entry,
        table_entry=_table_entry,
        decode=_decode,
        start=3,
        coherent=0,
        rules=rules_of("amd", profile),
        profile=profile,
    )


AMD_V1: Final = amd_v1()
"""The format with the rules of the default profile."""
