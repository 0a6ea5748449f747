"""VT-d second stage: what Intel's IOMMU walks for a whole device, 3, 4 or 5 levels of nine bits.

    bits     name     leaf                         table
    0        R        READ; up to 6.18: always     1
    1        W        WRITE                        1
    7        PS       1 for 2 MiB and 1 GiB        0
    8, 9     A, D     hardware's                   ignored
    11       SNP      once coherency is enforced   0
    51:12    address  of the page                  of the table
    2, 3-6, 10, 63:52 are ignored

There is no present bit: a word without R and W leads nowhere. PS is reserved above 1 GiB, and so are address bits
below the size of a large page: such a word is refused. Access is coherent whatever the word says; SNP makes it so for
devices that ask for it not to be.

39, 48 or 57-bit input, 52-bit output. Source: ``drivers/iommu/intel/iommu.h`` (6.12) and
``drivers/iommu/generic_pt/fmt/vtdss.h``; that 6.12 sets R for write-only pages is seen in recordings.

>>> from swiommu.pagetable.formats import vtd_ss
>>> [hex(vtd_ss().leaf_entry(0x89abc000, 3, prot, 0)) for prot in (3, 1, 2)]
['0x89abc003', '0x89abc001', '0x89abc003']
>>> hex(vtd_ss(profile="7.3").leaf_entry(0x40000000, 1, 2, 0)), hex(vtd_ss().table_entry(0x5000, 0))
('0x40000082', '0x5003')
"""

from __future__ import annotations

from typing import Final

from swiommu.address import Prot
from swiommu.pagetable.format import EMPTY, Format, Item, Leaf, Table, remembered
from swiommu.pagetable.formats.shape import PROTS, chosen, equal_levels
from swiommu.pagetable.rules import rules_of
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of

__all__ = ["vtd_ss"]

_ACCESS: Final = 0b11
_PS: Final = 1 << 7
_SNP: Final = 1 << 11
_ADDRESS: Final = (1 << 52) - (1 << 12)
_CACHE: Final = int(Prot.CACHE)


@remembered
def vtd_ss(levels: int = 4, profile: Profile | str = DEFAULT_PROFILE) -> Format:
    """The second-stage format of 3, 4 or 5 ``levels``, as a kernel of ``profile`` writes it.

    Raises `InvalidArgument` for another number of levels or text that is no version.

    >>> form = vtd_ss(levels=3)
    >>> form.name, form.input_width, hex(form.pgsize_bitmap)
    ('vtd-ss-3', 39, '0x40201000')
    >>> form.effective(Prot.WRITE), vtd_ss(profile="7.3").effective(Prot.WRITE)
    (<Prot.READ|WRITE|CACHE: 7>, <Prot.WRITE|CACHE: 6>)
    """
    last = chosen("levels of VT-d's second stage", levels, (3, 4, 5)) - 1
    profile = profile_of(profile)
    always = int(Prot.READ) if profile.vtd_reads_always else 0

    def leaf_entry(oa: int, depth: int, prot: int, _order: int) -> int:
        return oa | prot & _ACCESS | always | (0 if depth == last else _PS)

    def decode(word: int, depth: int) -> Item:
        access = word & _ACCESS
        if not access:
            return EMPTY
        if depth == last or word & _PS:
            return Leaf(word & _ADDRESS, PROTS[access | _CACHE])
        return Table(word & _ADDRESS, PROTS[access])

    return Format(
        name=f"vtd-ss-{levels}",
        levels=equal_levels(levels, leaves=3),
        output_width=52,
        leaf_entry=leaf_entry,
        table_entry=lambda oa, _depth: oa | _ACCESS,
        decode=decode,
        coherent=_SNP,
        rules=rules_of("vtd", profile),
        profile=profile,
    )
