"""Layers put on each other by name: what may sit on what, what is reserved, and the graph that stays whole.

A step here is checked before it is taken: loops, ports, widths, granules. What tables map is not judged: an entry whose
output is no input below is a fault of the access, and one against a reserved region is found by `require_no_conflict`.
What an access meets in a finished graph is not looked at here, nor what any one kind of layer does: see `Layer.fixed`
and `Layer.transparent` for all that is asked of one.
"""

from swiommu.layer.graph.aperture import allocatable, reachable, reserved_regions
from swiommu.layer.graph.conflicts import missing_direct, require_no_conflict
from swiommu.layer.graph.connect import connect, disconnect, read_through, require_unused
from swiommu.layer.graph.graph import Graph
from swiommu.layer.graph.reserved import Reserved, ReservedKind

__all__ = [
    "Graph",
    "Reserved",
    "ReservedKind",
    "allocatable",
    "connect",
    "disconnect",
    "missing_direct",
    "reachable",
    "read_through",
    "require_no_conflict",
    "require_unused",
    "reserved_regions",
]
