"""The mock format with a granule of 64 KiB, as some machines have it: for stacks whose stages differ in page size.

The bits are those of `swiommu.pagetable.formats.mock`. Four levels, of 5, 9, 9 and 9 bits; leaves of 64 KiB and
32 MiB; 48-bit input, 52-bit output. A table is a page of 4 KiB all the same.
"""

from __future__ import annotations

import attrs

from swiommu.pagetable.format import Level
from swiommu.pagetable.formats.mock import MOCK

__all__ = ["MOCK64K"]

_LEVELS = (
    Level(shift=43, bits=5),
    Level(shift=34, bits=9),
    Level(shift=25, bits=9, can_leaf=True),
    Level(shift=16, bits=9, can_leaf=True),
)

MOCK64K = attrs.evolve(MOCK, name="mock64k", levels=_LEVELS)
"""The format itself."""
