"""Stacks from files: what a person writes of memories, layers and devices, read and checked, and built as a graph.

Keys and their mistakes, bounds against files that would build too much, table pages at addresses that a file chose,
and the device as a file knows it. No layer's behaviour, and nothing that a program that builds its own graph needs.
"""

from swiommu.layer.stack_file.device import Device
from swiommu.layer.stack_file.placed_tables import PlacedTables
from swiommu.layer.stack_file.reading import bundled_stacks, read_stack

__all__ = ["Device", "PlacedTables", "bundled_stacks", "read_stack"]
