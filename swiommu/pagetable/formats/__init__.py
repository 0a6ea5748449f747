"""Page-table formats, one module each: level shapes and pure functions, no walking and no memory.

`MOCK` is a format of no hardware: four levels, 4 KiB, 2 MiB and 1 GiB leaves.
"""

from swiommu.pagetable.formats.mock import MOCK

__all__ = ["MOCK"]
