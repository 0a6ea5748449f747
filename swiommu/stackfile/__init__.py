"""Stacks from TOML files: what a person writes of memories, layers and devices, read, checked and built as a graph.

Keys and their mistakes, and bounds against files that would build too much. No layer's behaviour is here: layers know
no files, and a program that builds its own graph needs nothing of this package.
"""

from swiommu.stackfile.building import Builder
from swiommu.stackfile.keys import LayerKeys
from swiommu.stackfile.kinds import LAYER_KINDS, LayerKind
from swiommu.stackfile.reading import bundled_stacks, read_stack

__all__ = ["LAYER_KINDS", "Builder", "LayerKeys", "LayerKind", "bundled_stacks", "read_stack"]
