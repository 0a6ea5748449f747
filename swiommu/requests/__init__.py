"""From events to requests: who asked for what, when it ended, and which lines of the kernel served it.

`workload_of` pairs the events of a trace into a `Workload`, with an account of what could not be paired;
`swiommu.requests.generated` makes workloads without a trace. What a request is, is fixed by "What compare means" in the
docs. No design and no model of an allocator here: those are `swiommu.replay`.
"""

from __future__ import annotations

from swiommu.requests.pairing import workload_of
from swiommu.requests.workload import (
    GENERATED,
    Area,
    Occupancy,
    OpCode,
    Request,
    RequestKind,
    Served,
    Unused,
    Workload,
    may_block,
)

__all__ = [
    "GENERATED",
    "Area",
    "Occupancy",
    "OpCode",
    "Request",
    "RequestKind",
    "Served",
    "Unused",
    "Workload",
    "may_block",
    "workload_of",
]
