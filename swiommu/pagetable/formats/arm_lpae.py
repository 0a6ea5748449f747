"""ARMv8 LPAE, the tables of an SMMU: granules of 4, 16 or 64 KiB, stage 1 (a process's or driver's) and 2 (a guest's).

    bits     stage 1                                          stage 2
    1:0      01 block, 11 page of the last level or table     the same
    4:2      AttrIndx: 0 not cached, 1 CACHE, 2 MMIO          5:2 MemAttr: 0101 not cached, 1111 CACHE, 0001 MMIO
    6, 7     AP: unless PRIV; unless WRITE                    S2AP: READ; WRITE
    9:8      SH: 11 inner if CACHE, else 10 outer             the same
    10       AF: 1                                            1
    11       nG: 1                                            0
    47:g     address; of the 64 KiB granule 51:48 in 15:12    the same
    54:53    XN: both if NOEXEC                               the same

A table word is the address and 11. Of tables that something else wrote stage 1 reads the hierarchical bits too: 62 no
WRITE below, 61 PRIV below, 60 NOEXEC below. Read access can't be withheld at stage 1: WRITE alone comes out as both.
A word without AF, of an unknown memory type, or with an address beyond ``oas`` is refused; NS, the contiguous hint,
DBM and the bits for software are ignored, and so are the address bits below the size of a block.

Source: ``drivers/iommu/io-pgtable-arm.c``. Linux writes no contiguous hint.

>>> from swiommu.pagetable.formats import arm_lpae
>>> one, two = arm_lpae(), arm_lpae(stage=2, ias=44)
>>> [hex(one.leaf_entry(0x89abc000, 3, prot, 0)) for prot in (7, 5, 0x1a)]
['0x89abcf47', '0x89abcfc7', '0x60000089abce4b']
>>> hex(two.leaf_entry(0x89abc000, 3, 7, 0)), hex(two.leaf_entry(0x40000000, 1, 7, 0)), hex(one.table_entry(0x5000, 0))
('0x89abc7ff', '0x400007fd', '0x5003')
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from swiommu.address import Prot
from swiommu.pagetable.format import EMPTY, Format, Item, Leaf, Table, remembered
from swiommu.pagetable.formats.arm_shape import LpaeShape
from swiommu.pagetable.formats.shape import PROTS
from swiommu.pagetable.rules import rules_of
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["arm_lpae"]

_BLOCK, _PAGE_OR_TABLE = 0b01, 0b11
_AF: Final = 1 << 10
_NG: Final = 1 << 11
_BIT6, _BIT7 = 1 << 6, 1 << 7
_SH_INNER, _SH_OUTER = 3 << 8, 2 << 8
_XN: Final = 3 << 53
_UXN, _PXN = 1 << 54, 1 << 53
_NO_WRITE_BELOW, _PRIV_BELOW, _NO_EXEC_BELOW = 1 << 62, 1 << 61, 1 << 60
_TYPE_SHIFT: Final = 2
_READ, _WRITE, _CACHE, _MMIO = int(Prot.READ), int(Prot.WRITE), int(Prot.CACHE), int(Prot.MMIO)
_NOEXEC, _PRIV = int(Prot.NOEXEC), int(Prot.PRIV)
# What AttrIndx means with the MAIR that Linux writes, whose upper bytes are 0, a device's.
_TYPES_1: Final = (0, _CACHE, _MMIO, 0, _MMIO, _MMIO, _MMIO, _MMIO)
# MemAttr: the outer cache's bits above the inner's; 00 outside is a device, and reserved inside.
_TYPES_2: Final = (_MMIO, _MMIO, _MMIO, _MMIO, None, 0, 0, 0, None, 0, 0, 0, None, 0, 0, _CACHE)


def _attributes_1(prot: int) -> int:
    kind = 2 if prot & _MMIO else 1 if prot & _CACHE else 0
    access = (0 if prot & _PRIV else _BIT6) | (0 if prot & _WRITE else _BIT7)
    return kind << _TYPE_SHIFT | access | _NG


def _attributes_2(prot: int) -> int:
    kind = 0b0001 if prot & _MMIO else 0b1111 if prot & _CACHE else 0b0101
    return kind << _TYPE_SHIFT | (_BIT6 if prot & _READ else 0) | (_BIT7 if prot & _WRITE else 0)


def _prot_1(word: int) -> int:
    kind = _TYPES_1[word >> _TYPE_SHIFT & 0b111]
    # Who may fetch: everybody by one bit, and where only the privileged have access they by the other.
    rest = (_NOEXEC if word & _UXN else 0) if word & _BIT6 else _PRIV | (_NOEXEC if word & _PXN else 0)
    return _READ | (0 if word & _BIT7 else _WRITE) | kind | rest


def _prot_2(word: int) -> int | None:
    kind = _TYPES_2[word >> _TYPE_SHIFT & 0b1111]
    if kind is None:
        return None
    access = (_READ if word & _BIT6 else 0) | (_WRITE if word & _BIT7 else 0)
    return access | kind | (_NOEXEC if word & _UXN else 0)


def _table_1(oa: int, word: int) -> Table:
    allows = _READ | (0 if word & _NO_WRITE_BELOW else _WRITE)
    sticky = (_PRIV if word & _PRIV_BELOW else 0) | (_NOEXEC if word & _NO_EXEC_BELOW else 0)
    return Table(oa, PROTS[allows], PROTS[sticky])


def _table_2(oa: int, _word: int) -> Table:
    return Table(oa)


def _address(shape: LpaeShape) -> tuple[Callable[[int], int], Callable[[int], int]]:
    """How an address becomes bits of a word, and back."""
    low = (1 << 48) - shape.granule
    if shape.granule != 65536:
        return lambda oa: oa, lambda word: word & low
    return lambda oa: oa & low | oa >> 48 << 12, lambda word: word & low | (word >> 12 & 0xF) << 48


@remembered
def arm_lpae(
    granule: int = 4096, stage: int = 1, ias: int = 48, oas: int = 48, profile: Profile | str = DEFAULT_PROFILE
) -> Format:
    """The format of a ``granule`` in bytes, of ``ias`` bits of input and ``oas`` of output, for ``profile``.

    Raises `InvalidArgument` for what there is not, see `LpaeShape`.

    >>> form = arm_lpae(65536, ias=52, oas=52)
    >>> form.name, [level.bits for level in form.levels], hex(form.pgsize_bitmap)
    ('arm-lpae-64k-s1-52-52', [10, 13, 13], '0x40020010000')
    >>> hex(form.leaf_entry(0xF_0000_0001_0000, 2, 7, 0)), arm_lpae(stage=2, ias=40).levels[0].table_bytes
    ('0x1ff47', 8192)
    """
    profile = profile_of(profile)
    shape = LpaeShape(granule, stage, ias, oas, profile)
    levels = shape.levels
    last = len(levels) - 1
    into, out_of = _address(shape)
    attributes, prot_of, table = (
        (_attributes_1, _prot_1, _table_1) if stage == 1 else (_attributes_2, _prot_2, _table_2)
    )

    def leaf_entry(oa: int, depth: int, prot: int, _order: int) -> int:
        shared = _SH_INNER if prot & _CACHE else _SH_OUTER
        kind = _PAGE_OR_TABLE if depth == last else _BLOCK
        return into(oa) | attributes(prot) | shared | _AF | kind | (_XN if prot & _NOEXEC else 0)

    def decode(word: int, depth: int) -> Item:
        kind, oa = word & 0b11, out_of(word)
        if oa >> oas or not kind & 1 or (depth == last and kind == _BLOCK):
            return EMPTY
        if depth != last and kind == _PAGE_OR_TABLE:
            return table(oa, word)
        prot = prot_of(word)
        if not word & _AF or prot is None:
            return EMPTY
        return Leaf(oa & -levels[depth].pgsize, PROTS[prot])

    return Format(
        name=f"arm-lpae-{granule >> 10}k-s{stage}{'' if (ias, oas) == (48, 48) else f'-{ias}-{oas}'}",
        levels=levels,
        output_width=oas,
        leaf_entry=leaf_entry,
        table_entry=lambda oa, _depth: into(oa) | _PAGE_OR_TABLE,
        decode=decode,
        even=granule != 65536 or oas <= 48,
        rules=rules_of("arm", profile),
        profile=profile,
    )
