"""The tables of an x86-64 CPU: also VT-d's first stage and AMD's v2 (guest) tables, 4 or 5 levels of nine bits.

    bits     name      leaf                    table
    0        P         1                       1
    1        R/W       WRITE                   1
    2        U/S       1                       1
    3, 4     PWT, PCD  0                       0
    5        A         1                       1
    6        D         1 if WRITE              0, ignored
    7        PS        1 for 2 MiB and 1 GiB   0
    12       PAT       large pages only: 0     (address)
    51:12    address   of the page             of the table
    63       XD        0                       0
    8-11, 62:52 are ignored, and bit 7 of a 4 KiB page, which is PAT there

READ cannot be withheld, NOEXEC and PRIV are not written. Of a word that something else wrote, XD is read as NOEXEC and
U/S = 0 as PRIV, in leaves and tables. PS above 1 GiB and address bits below the size of a large page, but PAT, are
reserved: such a word is refused. A is hardware's to set, a word without it is as good.

48 or 57-bit input, sign extended; 52-bit output. Source: ``drivers/iommu/generic_pt/fmt/x86_64.h``.

>>> from swiommu.pagetable.formats import x86_64
>>> [hex(x86_64().leaf_entry(0x89abc000, 3, prot, 0)) for prot in (3, 2, 1)]
['0x89abc067', '0x89abc067', '0x89abc025']
>>> hex(x86_64().leaf_entry(0x40000000, 2, 3, 0)), hex(x86_64().table_entry(0x5000, 0))
('0x400000e7', '0x5027')
"""

from __future__ import annotations

from typing import Final

from swiommu.address import Prot
from swiommu.pagetable.format import EMPTY, Format, Item, Leaf, Table, remembered
from swiommu.pagetable.formats.shape import PROTS, chosen, equal_levels
from swiommu.pagetable.rules import rules_of
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of

__all__ = ["x86_64"]

_P: Final = 1 << 0
_RW: Final = 1 << 1
_US: Final = 1 << 2
_A: Final = 1 << 5
_D: Final = 1 << 6
_PS: Final = 1 << 7
_PAT_LARGE: Final = 1 << 12
_XD: Final = 1 << 63
_ADDRESS: Final = (1 << 52) - (1 << 12)
_TABLE: Final = _P | _RW | _US | _A
_WRITE, _CACHE = int(Prot.WRITE), int(Prot.CACHE)


@remembered
def x86_64(levels: int = 4, profile: Profile | str = DEFAULT_PROFILE) -> Format:
    """The format of 4 or 5 ``levels``; its words are the same in every kernel, its rules are those of ``profile``.

    Raises `InvalidArgument` for another number of levels or text that is no version.

    >>> form = x86_64(levels=5)
    >>> form.name, form.input_width, form.aperture_width, hex(form.pgsize_bitmap)
    ('x86-64-5', 57, 56, '0x40201000')
    >>> form.effective(Prot.WRITE)
    <Prot.READ|WRITE|CACHE: 7>
    """
    profile = profile_of(profile)
    last = chosen("levels of x86-64", levels, (4, 5)) - 1

    def leaf_entry(oa: int, depth: int, prot: int, _order: int) -> int:
        written = _RW | _D if prot & _WRITE else 0
        return oa | _P | _US | _A | written | (0 if depth == last else _PS)

    def decode(word: int, depth: int) -> Item:
        if not word & _P:
            return EMPTY
        allows = Prot.READ | (Prot.WRITE if word & _RW else 0)
        sticky = (0 if word & _US else Prot.PRIV) | (Prot.NOEXEC if word & _XD else 0)
        if depth == last:
            return Leaf(word & _ADDRESS, PROTS[allows | sticky | _CACHE])
        if word & _PS:
            return Leaf(word & _ADDRESS & ~_PAT_LARGE, PROTS[allows | sticky | _CACHE])
        return Table(word & _ADDRESS, PROTS[allows], PROTS[sticky])

    return Format(
        name=f"x86-64-{levels}",
        levels=equal_levels(levels, leaves=3),
        output_width=52,
        leaf_entry=leaf_entry,
        table_entry=lambda oa, _depth: oa | _TABLE,
        decode=decode,
        sign_extended=True,
        coherent=0,
        rules=rules_of("vtd", profile),
        profile=profile,
    )
