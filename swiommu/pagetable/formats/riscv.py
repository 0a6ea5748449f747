"""RISC-V: Sv39, Sv48 and Sv57, and the G-stage Sv39x4, Sv48x4 and Sv57x4 with a root of four tables.

    bits     name  leaf                                     table
    0        V     1                                        1
    1        R     1 (READ, or WRITE which needs it)        0
    2        W     WRITE                                    0
    3        X     unless NOEXEC                            0
    4        U     1                                        0
    5        G     0, ignored                               0, ignored
    6        A     1                                        0
    7        D     1 if WRITE                               0
    9:8      RSW   software's                               software's
    53:10    PPN   address >> 12                            address >> 12
    60:54          0                                        0
    62:61    PBMT  0; 1 not cached, 2 MMIO, 3 reserved      0
    63       N     1 for 64 KiB (Svnapot)                   0

A leaf has R, W or X; each level can hold them. A page of 64 KiB is 16 equal words whose PPN ends in 1000. Hardware here
updates neither A nor D: a leaf without A is refused, one without D can't be written. U = 0 is PRIV, in the G-stage it
is refused, as are W without R, PBMT 3, misaligned leaves, a table with one of the bits of leaves, bits 60:54, and N
where it has no meaning.

Sign extended, 39, 48 or 57 bits; the G-stage zero extended, 41, 50 or 59 bits. 56-bit output. Source: the privileged
architecture, "Sv39" and "Hypervisor"; ``drivers/iommu/riscv/iommu.c`` and ``drivers/iommu/generic_pt/fmt/riscv.h``.

>>> from swiommu.pagetable.formats import riscv
>>> hex(riscv().leaf_entry(0x89abc000, 3, 0b1011, 0)), hex(riscv().leaf_entry(0x89abc000, 3, 0b0011, 0))
('0x226af0d7', '0x226af0df')
>>> hex(riscv(napot=True).leaf_entry(0x80000, 3, 0b1011, 4)), hex(riscv().table_entry(0x5000, 0))
('0x80000000000220d7', '0x1401')
"""

from __future__ import annotations

from typing import Final

from swiommu.address import Prot
from swiommu.pagetable.format import EMPTY, Format, Item, Leaf, Table, remembered
from swiommu.pagetable.formats.shape import PROTS, chosen, equal_levels
from swiommu.pagetable.rules import rules_of
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of

__all__ = ["riscv"]

_V, _R, _W, _X, _U, _A, _D, _N = (1 << bit for bit in (0, 1, 2, 3, 4, 6, 7, 63))
_ANY_ACCESS: Final = _R | _W | _X
_PPN: Final = (1 << 44) - 1
_PPN_SHIFT: Final = 10
_PBMT_SHIFT: Final = 61
_RESERVED: Final = 0x7F << 54
_NOT_OF_TABLES: Final = _U | _A | _D | _N | 3 << _PBMT_SHIFT
_NAPOT_ORDER: Final = 4
_MEMORY_TYPES: Final = (Prot.CACHE, Prot.NONE, Prot.MMIO)
_READ, _WRITE, _NOEXEC = int(Prot.READ), int(Prot.WRITE), int(Prot.NOEXEC)


def _leaf_entry(oa: int, _depth: int, prot: int, order: int) -> int:
    written = _W | _D if prot & _WRITE else 0
    executed = 0 if prot & _NOEXEC else _X
    size = _N | 1 << _NAPOT_ORDER - 1 + _PPN_SHIFT if order else 0
    return oa >> 12 << _PPN_SHIFT | _A | _U | executed | written | _R | _V | size


def _leaf_prot(word: int) -> Prot:
    writable = word & _W and word & _D
    return PROTS[
        (_READ if word & _R else 0)
        | (_WRITE if writable else 0)
        | (0 if word & _X else _NOEXEC)
        | (0 if word & _U else Prot.PRIV)
        | _MEMORY_TYPES[word >> _PBMT_SHIFT & 3]
    ]


@remembered
def riscv(
    levels: int = 4, *, gstage: bool = False, napot: bool = False, profile: Profile | str = DEFAULT_PROFILE
) -> Format:
    """Sv39, Sv48 or Sv57 (3, 4 or 5 ``levels``) or, with ``gstage``, what a guest's addresses are walked by.

    ``napot``: whether there are pages of 64 KiB. The words are the same in every kernel, the rules are those of
    ``profile``. Raises `InvalidArgument` for another number of levels or text that is no version.

    >>> form = riscv(3, gstage=True, napot=True)
    >>> form.name, form.input_width, form.levels[0].table_bytes, hex(form.pgsize_bitmap)
    ('riscv-sv39x4-napot', 41, 16384, '0x40211000')
    >>> form.effective(Prot.WRITE)
    <Prot.READ|WRITE|CACHE: 7>
    """
    chosen("levels of RISC-V", levels, (3, 4, 5))
    profile = profile_of(profile)
    last = levels - 1
    needed = _A | _U if gstage else _A

    def decode(word: int, depth: int) -> Item:
        if not word & _V or word & _RESERVED:
            return EMPTY
        ppn = word >> _PPN_SHIFT & _PPN
        if not word & _ANY_ACCESS:
            return EMPTY if word & _NOT_OF_TABLES else Table(ppn << 12)
        no_right = word & _W and not word & _R
        if word & needed != needed or no_right or word >> _PBMT_SHIFT & 3 == 3:
            return EMPTY
        if not word & _N:
            return Leaf(ppn << 12, _leaf_prot(word))
        if not napot or depth != last or ppn & 0xF != 1 << _NAPOT_ORDER - 1:
            return EMPTY
        return Leaf((ppn & ~0xF) << 12, _leaf_prot(word), _NAPOT_ORDER)

    return Format(
        name=f"riscv-sv{9 * levels + 12}{'x4' if gstage else ''}{'-napot' if napot else ''}",
        levels=equal_levels(levels, leaves=levels, top=2 if gstage else 0, orders=(_NAPOT_ORDER,) if napot else ()),
        output_width=56,
        leaf_entry=_leaf_entry,
        table_entry=lambda oa, _depth: oa >> 12 << _PPN_SHIFT | _V,
        decode=decode,
        sign_extended=not gstage,
        coherent=0,
        rules=rules_of("riscv", profile),
        profile=profile,
    )
