"""What exists below every translation: frames that can be taken, and where memory lies.

Here live `Frames` (a buddy system over page frames, with their states). Nothing here knows
of devices, bus addresses, domains or page tables, and nothing here places contiguous regions: that is
`swiommu.region`.
"""

from swiommu.memory.frames import Frames, FrameState

__all__ = ["FrameState", "Frames"]
