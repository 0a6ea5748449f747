"""Recorded traces: ftrace text and its sidecar into one event table, with an account of every line.

What lives here: the event table and the meaning of its columns (`table`), the readers of event texts (`texts`)
and of lines (`reading`), the account, the sidecar, the bundled recordings. What may not: deciding what a request
is, pairing begin and end, or any model of a kernel; that is `swiommu.requests` and what stands on it. Nothing here
guesses: what can't be read is counted and named.
"""

from swiommu.trace.account import Account, Malformed
from swiommu.trace.bundled import bundled_names, bundled_path
from swiommu.trace.events import DMA_MAPPING_ERROR, KIND_OF, LEVELS, Context, Event, InterruptLevel, Kind, ScatterList
from swiommu.trace.ftrace import RECORD_COMMAND, Trace, open_bundled, read_trace
from swiommu.trace.sidecar import (
    BouncePool,
    CmaArea,
    DeviceFacts,
    GroupFacts,
    ReservedRegion,
    Sidecar,
    find_sidecar,
    read_sidecar,
    trace_name,
)
from swiommu.trace.table import EventTable

__all__ = [
    "DMA_MAPPING_ERROR",
    "KIND_OF",
    "LEVELS",
    "RECORD_COMMAND",
    "Account",
    "BouncePool",
    "CmaArea",
    "Context",
    "DeviceFacts",
    "Event",
    "EventTable",
    "GroupFacts",
    "InterruptLevel",
    "Kind",
    "Malformed",
    "ReservedRegion",
    "ScatterList",
    "Sidecar",
    "Trace",
    "bundled_names",
    "bundled_path",
    "find_sidecar",
    "open_bundled",
    "read_sidecar",
    "read_trace",
    "trace_name",
]
