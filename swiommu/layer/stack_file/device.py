"""A device as a stack file knows it: the top of its ways."""

from __future__ import annotations

from typing import ClassVar

from swiommu.layer.kinds import Identity

__all__ = ["Device"]


class Device(Identity):
    """A device's own end of its bus: it drives ``width`` bits of address and no more (its DMA mask).

    >>> Device("camera", width=32).describe()
    'drives 32 bits'
    """

    kind: ClassVar[str] = "device"

    def describe(self) -> str:
        """Its mask."""
        return f"drives {self.input_width} bits"
