"""Page-table formats, one module each: level shapes and pure functions, no walking and no memory.

`MOCK` is a format of no hardware: four levels, 4 KiB, 2 MiB and 1 GiB leaves. `MOCK64K` is the same with larger pages.
"""

from swiommu.pagetable.formats.mock import MOCK
from swiommu.pagetable.formats.mock64k import MOCK64K

__all__ = ["MOCK", "MOCK64K"]
