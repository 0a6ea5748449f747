"""The shape of ARM's LPAE tables: how many levels an input width takes, how wide the root is, what the registers say.

    granule   bits   leaves
    4 KiB     9      4 KiB, 2 MiB, 1 GiB
    16 KiB    11     16 KiB, 32 MiB
    64 KiB    13     64 KiB, 512 MiB, 4 TiB if the output has 52 bits

ARM counts levels so that the lowest is 3; a walk starts at the level that the width needs. At stage 2 up to 16 tables
of the first level may lie side by side as one root, and then the walk starts one level lower. Kernels to 6.13 do so
whenever that saves level 0; later ones where the architecture asks for it.

Source: ``arm_lpae_alloc_pgtable``, ``arm_lpae_concat_mandatory`` and ``arm_64_lpae_alloc_pgtable_s1`` and ``_s2`` of
``drivers/iommu/io-pgtable-arm.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from swiommu.errors import InvalidArgument
from swiommu.pagetable.formats.shape import chosen, equal_levels
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of

if TYPE_CHECKING:
    from swiommu.pagetable.format import Level

__all__ = ["LpaeShape"]

_NARROWEST: Final = 25  # what the largest T0SZ leaves
_MOST_BESIDE: Final = 16
_SHIFTS: Final = {4096: 12, 16384: 14, 65536: 16}
_PS: Final = {32: 0, 36: 1, 40: 2, 42: 3, 44: 4, 48: 5, 52: 6}
_TG0: Final = {4096: 0, 65536: 1, 16384: 2}


@attrs.frozen
class LpaeShape:
    """Levels and registers of a table of ``granule`` bytes for ``ias`` bits of input and ``oas`` of output.

    Raises `InvalidArgument` for a granule, stage or width that there is not, and for a root that would be
    more than 16 tables.

    >>> one, two = LpaeShape(4096, 1, 48, 48), LpaeShape(4096, 2, 40, 48)
    >>> one.first_level, one.beside, two.first_level, two.beside
    (0, 1, 1, 2)
    >>> LpaeShape(4096, 2, 40, 48, "7.3").first_level
    0
    >>> one.t0sz, one.tg0, one.ps, two.sl0, hex(one.mair)
    (16, 0, 5, 1, '0xf404ff44')
    """

    granule: int
    stage: int
    ias: int
    oas: int
    profile: Profile = attrs.field(default=DEFAULT_PROFILE, converter=profile_of)

    def __attrs_post_init__(self) -> None:
        chosen("LPAE granules", self.granule, _SHIFTS)
        chosen("LPAE stages", self.stage, (1, 2))
        widest = 52 if self.granule == 65536 else 48
        chosen("LPAE output widths", self.oas, (width for width in _PS if width <= widest))
        if not _NARROWEST <= self.ias <= widest:
            raise InvalidArgument(
                f"LPAE tables of {self.granule} bytes decode {_NARROWEST} to {widest} bits, not {self.ias}",
            )
        if self.beside > _MOST_BESIDE:
            raise InvalidArgument(
                f"a root for {self.ias} bits of input would be {self.beside} tables side by side, "
                f"{_MOST_BESIDE} are allowed"
            )

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, top first, as a `Format` has them."""
        count = 4 - self.first_level
        rest = self.ias - self.shift - self.bits * count
        return equal_levels(count, leaves=self._leaves, page=self.shift, bits=self.bits, top=rest)

    @property
    def shift(self) -> int:
        """The granule is ``2**shift`` bytes."""
        return _SHIFTS[self.granule]

    @property
    def bits(self) -> int:
        """Bits of input that one whole table decodes."""
        return self.shift - 3

    @property
    def first_level(self) -> int:
        """The level, as ARM counts, where a walk starts."""
        return self._alone + self._concatenates

    @property
    def beside(self) -> int:
        """How many tables side by side are the root."""
        return 1 << self._top_bits if self._concatenates else 1

    @property
    def t0sz(self) -> int:
        """``TCR.T0SZ``."""
        return 64 - self.ias

    @property
    def tg0(self) -> int:
        """``TCR.TG0``: the granule."""
        return _TG0[self.granule]

    @property
    def ps(self) -> int:
        """``TCR.IPS`` or ``VTCR.PS``: the output width."""
        return _PS[self.oas]

    @property
    def sl0(self) -> int:
        """``VTCR.SL0``, of stage 2: where the walk starts."""
        return ~(self.first_level + (self.granule == 4096)) & 3

    @property
    def mair(self) -> int:
        """``MAIR``, of stage 1: not cached, write-back, device, outer write-back, one byte each from the lowest."""
        return 0x44 | 0xFF << 8 | 0x04 << 16 | 0xF4 << 24

    @property
    def _leaves(self) -> int:
        return {4096: 3, 16384: 2, 65536: 3 if self.oas > 48 else 2}[self.granule]

    @property
    def _alone(self) -> int:
        return 4 + (self.shift - self.ias) // self.bits

    @property
    def _top_bits(self) -> int:
        return self.ias - self.shift - self.bits * (3 - self._alone)

    @property
    def _concatenates(self) -> bool:
        if self.stage == 1:
            return False
        if self.profile.arm_concatenates_where_it_can:
            return self._alone == 0 and 1 << self._top_bits <= _MOST_BESIDE
        if self.granule == 16384:
            return (self._alone == 0 and 48 in {self.ias, self.oas}) or (self._alone == 1 and self.oas == 40)
        return self.granule == 4096 and self._alone == 0 and self.oas in {40, 42}
