"""What exists below every translation: where memory lies, which frames of it are taken, what bytes it holds.

Here live `SystemMap` (the shape of ``/proc/iomem``), `Frames` (a buddy system over page frames, with their states),
`Bootmem` and `Memblock` (who takes memory away before anybody else comes) and `SparseRam` (bytes). Nothing here knows
of devices, bus addresses, domains or page tables, and nothing here places contiguous regions: that is
`swiommu.region`.
"""

from swiommu.memory.frames import Frames, FrameState
from swiommu.memory.ram import SparseRam
from swiommu.memory.reservers import Bootmem, Memblock
from swiommu.memory.system_map import SystemMap

__all__ = ["Bootmem", "FrameState", "Frames", "Memblock", "SparseRam", "SystemMap"]
