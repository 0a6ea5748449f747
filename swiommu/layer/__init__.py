"""Layers: how an access finds its memory, and the record of one that does not.

A layer translates ranges of plain ints into runs (`Layer.translate`) and knows neither who mapped them nor who
asks. Nothing here allocates, maps or keeps statistics. Two layers so far: `Window` and `Paged`.
"""

from swiommu.layer.base import Fault, FaultKind, Layer, Run
from swiommu.layer.paged import Paged
from swiommu.layer.window import Window

__all__ = ["Fault", "FaultKind", "Layer", "Paged", "Run", "Window"]
