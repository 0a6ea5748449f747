"""Recorded traces: ftrace text and its sidecar into one event table, with an account of every line.

What lives here: the events, each declared once (`events`, `EventSpec`), the event table (`table`), the readers of
event texts (`texts`) and of lines (`reading`), which events make one kernel call (`calls`), the account, the sidecar,
the bundled recordings. What may not: deciding what a request is, or any model of a kernel; that is `swiommu.requests`
and what stands on it. Nothing here guesses: what can't be read is counted and named.
"""

from swiommu.trace.account import Account, Malformed
from swiommu.trace.bundled import bundled_names, bundled_path
from swiommu.trace.calls import DMA_KINDS, MAP_PROBES, Call, Calls, is_flush_all, may_block
from swiommu.trace.events import KIND_OF, SPEC_OF, Kind
from swiommu.trace.eventspec import EventSpec, Text
from swiommu.trace.ftrace import RECORD_COMMAND, Trace, open_bundled, read_trace
from swiommu.trace.marks import Mark, parse_mark
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
from swiommu.trace.table import (
    DMA_MAPPING_ERROR,
    LEVELS,
    Context,
    Event,
    EventTable,
    InterruptLevel,
    ScatterList,
)
from swiommu.trace.texts import write_text

__all__ = [
    "DMA_KINDS",
    "DMA_MAPPING_ERROR",
    "KIND_OF",
    "LEVELS",
    "MAP_PROBES",
    "RECORD_COMMAND",
    "SPEC_OF",
    "Account",
    "BouncePool",
    "Call",
    "Calls",
    "CmaArea",
    "Context",
    "DeviceFacts",
    "Event",
    "EventSpec",
    "EventTable",
    "GroupFacts",
    "InterruptLevel",
    "Kind",
    "Malformed",
    "Mark",
    "ReservedRegion",
    "ScatterList",
    "Sidecar",
    "Text",
    "Trace",
    "bundled_names",
    "bundled_path",
    "find_sidecar",
    "is_flush_all",
    "may_block",
    "open_bundled",
    "parse_mark",
    "read_sidecar",
    "read_trace",
    "trace_name",
    "write_text",
]
