"""Layers: how an access finds its memory, and the record of one that does not.

A layer alone (`swiommu.layer.kinds`) answers for one step. Here they are put on each other: a `Node` is a layer in its
place, a `Chain` two ways one below the other, `access` sends a burst down and tells where it went, what it cost and
who refused. Nothing here allocates bus addresses or decides what to map: that is the domains' business, above.
"""

from swiommu.layer.attributes import NEUTRAL, Attributes, MemoryType, Shareability, meet_prot
from swiommu.layer.base import Extent, Fault, FaultClass, FaultKind, Layer, Read, Run
from swiommu.layer.cache import (
    EVERY,
    CacheShape,
    Change,
    ChangeLog,
    Dropped,
    Line,
    ReplacementPolicy,
    Stale,
    TranslationCache,
    invalidate,
    invalidation,
)
from swiommu.layer.doors import access, picture
from swiommu.layer.extents import End, Piece, end_of, extents, place_of, terminals
from swiommu.layer.graph import (
    Graph,
    Reserved,
    ReservedKind,
    allocatable,
    connect,
    disconnect,
    missing_direct,
    reachable,
    read_through,
    require_no_conflict,
    require_unused,
    reserved_regions,
)
from swiommu.layer.kinds import (
    Blocked,
    Device,
    FlatTable,
    Identity,
    Memory,
    Paged,
    Router,
    Shadow,
    Span,
    Window,
    flatten,
)
from swiommu.layer.marks import Marks
from swiommu.layer.node import Chain, Node
from swiommu.layer.path import Hop, HopKind, Path, Walker
from swiommu.layer.placed_tables import PlacedTables
from swiommu.layer.transfer import load, save
from swiommu.layer.translation import Translation, deliver

__all__ = [
    "EVERY",
    "NEUTRAL",
    "Attributes",
    "Blocked",
    "CacheShape",
    "Chain",
    "Change",
    "ChangeLog",
    "Device",
    "Dropped",
    "End",
    "Extent",
    "Fault",
    "FaultClass",
    "FaultKind",
    "FlatTable",
    "Graph",
    "Hop",
    "HopKind",
    "Identity",
    "Layer",
    "Line",
    "Marks",
    "Memory",
    "MemoryType",
    "Node",
    "Paged",
    "Path",
    "Piece",
    "PlacedTables",
    "Read",
    "ReplacementPolicy",
    "Reserved",
    "ReservedKind",
    "Router",
    "Run",
    "Shadow",
    "Shareability",
    "Span",
    "Stale",
    "Translation",
    "TranslationCache",
    "Walker",
    "Window",
    "access",
    "allocatable",
    "connect",
    "deliver",
    "disconnect",
    "end_of",
    "extents",
    "flatten",
    "invalidate",
    "invalidation",
    "load",
    "meet_prot",
    "missing_direct",
    "picture",
    "place_of",
    "reachable",
    "read_through",
    "require_no_conflict",
    "require_unused",
    "reserved_regions",
    "save",
    "terminals",
]
