"""What kernels do with a page table beyond its bits: families of code that answer the same call differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from swiommu.errors import AddressInUse, AlreadyMapped, InvalidArgument, NoPageSize, SwiommuError
from swiommu.policy import Policy

if TYPE_CHECKING:
    from swiommu.profile import Profile

__all__ = [
    "ARM_LPAE",
    "ARM_LPAE_SPLITTING",
    "GENERIC_PT",
    "SWIOMMU",
    "Entered",
    "Gathers",
    "Rules",
    "ShortUnmap",
    "rules_of",
]


class ShortUnmap(Policy):
    """What becomes of a large leaf of which a part is unmapped, from its beginning on."""

    WHOLE = "whole"
    SPLIT = "split"
    REFUSE = "refuse"


class Entered(Policy):
    """What becomes of a large leaf in whose middle an unmap begins."""

    STOP = "stop"
    REMOVE = "remove"
    WALK = "walk"


class Gathers(Policy):
    """What one invalidation may cover of an unmap."""

    RANGE = "range"
    CHUNK = "chunk"
    LEAF = "leaf"


@attrs.frozen(kw_only=True)
class Rules:
    """How one family of page-table code behaves.

    ``occupied``: what mapping over a live leaf raises; ``misaligned``: what a range raises that no page size fits;
    ``no_access``: what a map without READ and WRITE raises, None if it is not looked at (the format then allows what it
    can't withhold); ``maps_nothing``: whether mapping 0 bytes is a success. ``short_unmap``: what becomes of a large
    leaf of which a part is unmapped: it goes "whole" if the unmap begins with it, it is "split" into smaller ones
    first, or the unmap stops before it ("refuse"). ``entered``: what, where it goes whole, becomes of a large leaf in
    whose middle an unmap begins: the unmap stops ("stop"); the leaf goes, and all its bytes count ("remove"); they
    count and it stays, while the driver goes on through the page that it maps, as if that were a table ("walk").
    ``replaces_live``: a large leaf replaces a table that stands in its way even if pages live in it. ``drops_tables``:
    an unmap takes a table that it covers away at once, and counts its holes as unmapped. ``keeps_empty``: a table that
    became empty stays until an unmap covers all of it, a large leaf takes its place or the whole table goes.
    ``gathers``: what one invalidation may cover of an unmap: the "range" from its first to its last byte, or stretches
    without a gap, of calls of the driver ("chunk") or of leaves ("leaf") of one size each.

    >>> [str(rules.short_unmap) for rules in (GENERIC_PT, ARM_LPAE_SPLITTING, ARM_LPAE)]
    ['whole', 'split', 'refuse']
    """

    name: str
    occupied: type[SwiommuError] = AddressInUse
    misaligned: type[SwiommuError] = InvalidArgument
    no_access: type[SwiommuError] | None = InvalidArgument
    maps_nothing: bool = False
    short_unmap: ShortUnmap = attrs.field(default=ShortUnmap.WHOLE, converter=ShortUnmap)
    entered: Entered = attrs.field(default=Entered.STOP, converter=Entered)
    replaces_live: bool = False
    drops_tables: bool = False
    keeps_empty: bool = True
    gathers: Gathers = attrs.field(default=Gathers.RANGE, converter=Gathers)


SWIOMMU: Final = Rules(name="swiommu", keeps_empty=False)
"""Formats of no hardware: as the generic page table, but a table goes with its last entry."""

GENERIC_PT: Final = Rules(name="generic_pt", misaligned=NoPageSize)
"""The generic page table of 6.19 and later (drivers/iommu/generic_pt)."""

CLASSIC: Final = Rules(name="classic", maps_nothing=True, gathers=Gathers.CHUNK)
"""A driver's own table code behind ``map_pages``, as VT-d, AMD and RISC-V had it before."""

CLASSIC_VTD: Final = attrs.evolve(CLASSIC, name="classic vtd", entered=Entered.WALK)
"""drivers/iommu/intel/iommu.c: ``intel_iommu_unmap``, ``dma_pte_clear_level``."""

CLASSIC_AMD: Final = attrs.evolve(CLASSIC, name="classic amd", gathers=Gathers.RANGE, entered=Entered.REMOVE)
"""drivers/iommu/amd/io_pgtable.c: ``iommu_v1_unmap_pages``, ``fetch_pte``."""

CLASSIC_RISCV: Final = attrs.evolve(CLASSIC, name="classic riscv", no_access=None, gathers=Gathers.LEAF)
"""drivers/iommu/riscv/iommu.c from 6.13 up to the generic page table: a map without WRITE allows READ."""

ARM_LPAE_SPLITTING: Final = Rules(
    name="arm_lpae",
    occupied=AlreadyMapped,
    maps_nothing=True,
    short_unmap=ShortUnmap.SPLIT,
    replaces_live=True,
    drops_tables=True,
    gathers=Gathers.LEAF,
)
ARM_LPAE: Final = attrs.evolve(ARM_LPAE_SPLITTING, short_unmap=ShortUnmap.REFUSE)
"""drivers/iommu/io-pgtable-arm.c, and before it refused to split blocks (`Profile.arm_splits_blocks`)."""

_DRIVERS: Final = {"vtd": CLASSIC_VTD, "amd": CLASSIC_AMD, "riscv": CLASSIC_RISCV}


def rules_of(family: str, profile: Profile) -> Rules:
    """The rules of a family of formats, "arm", "vtd" (x86-64 too), "amd" or "riscv", in a kernel.

    >>> from swiommu.profile import profile_of
    >>> rules_of("vtd", profile_of("6.18")).name, rules_of("vtd", profile_of("6.19")).name
    ('classic vtd', 'generic_pt')
    """
    if family == "arm":
        return ARM_LPAE_SPLITTING if profile.arm_splits_blocks else ARM_LPAE
    return GENERIC_PT if family in profile.generic_page_table else _DRIVERS[family]
