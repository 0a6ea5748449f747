"""The kinds of layers, one module each: what an address becomes in one step, without knowing what is below.

Putting them on each other, permissions, blame and cost are in the room around this one.
"""

from swiommu.layer.kinds.flat_table import FlatTable
from swiommu.layer.kinds.identity import Blocked, Device, Identity
from swiommu.layer.kinds.memory import Memory
from swiommu.layer.kinds.paged import Paged
from swiommu.layer.kinds.router import Router
from swiommu.layer.kinds.shadow import Shadow, flatten
from swiommu.layer.kinds.window import Span, Window

__all__ = [
    "Blocked",
    "Device",
    "FlatTable",
    "Identity",
    "Memory",
    "Paged",
    "Router",
    "Shadow",
    "Span",
    "Window",
    "flatten",
]
