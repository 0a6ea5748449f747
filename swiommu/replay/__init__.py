"""From requests to numbers: designs, and the replay itself.

`replay` runs the requests of a `swiommu.requests.Workload` through a `Design` over a `MemoryPlan`, `bytes_needed`
finds the smallest memory, `recorded_history` and `design_history` tell where buffers lay. What the numbers mean is
fixed by "What compare means" in the docs. No printing and no verdicts here: those are answers. Whether the models
decide what a kernel decided is checked by `swiommu.verify`.
"""

from __future__ import annotations

from swiommu.replay.design_files import read_designs
from swiommu.replay.designs import (
    AS_RECORDED,
    DEFAULT_DESIGNS,
    PRESETS,
    Bounce,
    Design,
    Driver,
    FrameOrder,
    Knobs,
    Lends,
    find_design,
)
from swiommu.replay.engine import Outcome, Status, loses_nothing, replay
from swiommu.replay.history import (
    NOBODY,
    AreaHistory,
    Rectangle,
    Refusal,
    design_history,
    failure_times,
    recorded_history,
)
from swiommu.replay.memory_plan import MemoryMode, MemoryPlan, equal_plan, machine_plan, peak_live_bytes, plan_of_size
from swiommu.replay.need import Need, bytes_needed
from swiommu.replay.pins import pinned_share, recorded_share

__all__ = [
    "AS_RECORDED",
    "DEFAULT_DESIGNS",
    "NOBODY",
    "PRESETS",
    "AreaHistory",
    "Bounce",
    "Design",
    "Driver",
    "FrameOrder",
    "Knobs",
    "Lends",
    "MemoryMode",
    "MemoryPlan",
    "Need",
    "Outcome",
    "Rectangle",
    "Refusal",
    "Status",
    "bytes_needed",
    "design_history",
    "equal_plan",
    "failure_times",
    "find_design",
    "loses_nothing",
    "machine_plan",
    "peak_live_bytes",
    "pinned_share",
    "plan_of_size",
    "read_designs",
    "recorded_history",
    "recorded_share",
    "replay",
]
