"""The layers without any table: what changes nothing, the top of a device's path, and what lets nothing through."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from swiommu.address import as_integer
from swiommu.layer.attributes import NEUTRAL, READ_WRITE
from swiommu.layer.base import Extent, FaultKind, Layer, Read

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Blocked", "Device", "Identity"]


class Identity(Layer):
    """Every address of ``width`` bits leads to itself (``IOMMU_DOMAIN_IDENTITY``, a bypassed stage).

    >>> from swiommu.address import Access
    >>> from swiommu.layer import access
    >>> access(Identity("bypass", width=32), 0x1000, 4, Access.WRITE).runs[0].output
    4096
    """

    kind: ClassVar[str] = "identity"
    granule = 1
    fixed = True
    transparent = True

    def __init__(self, name: str, *, width: int = 64) -> None:
        width = as_integer(width, "width")
        super().__init__(name)
        self.input_width = self.output_width = width
        limit = 1 << width
        self._all = Extent(0, 0, limit, limit, READ_WRITE, NEUTRAL)

    def look(self, at: int, read: Read) -> Extent | FaultKind:  # noqa: ARG002 - nothing to walk
        """Everything; RANGE beyond the width."""
        return self._all if at < self._all.size else FaultKind.RANGE

    def extents(self) -> Iterator[Extent]:
        """One."""
        yield self._all


class Device(Identity):
    """A device's own end of its bus: it drives ``width`` bits of address and no more (its DMA mask).

    >>> Device("camera", width=32).describe()
    'drives 32 bits'
    """

    kind: ClassVar[str] = "device"

    def describe(self) -> str:
        """Its mask."""
        return f"drives {self.input_width} bits"


class Blocked(Layer):
    """No address leads anywhere (``IOMMU_DOMAIN_BLOCKED``).

    >>> from swiommu.address import Access
    >>> from swiommu.layer import access
    >>> print(access(Blocked("off"), 0x1000, 4, Access.READ).fault)
    translation fault of READ access at 0x1000 in layer 'off'
    """

    kind: ClassVar[str] = "blocked"
    granule = 1
    fixed = True

    def __init__(self, name: str, *, width: int = 64) -> None:
        width = as_integer(width, "width")
        super().__init__(name)
        self.input_width = self.output_width = width

    def look(self, at: int, read: Read) -> Extent | FaultKind:  # noqa: ARG002 - nothing to walk
        """TRANSLATION; RANGE beyond the width."""
        return FaultKind.RANGE if at >> self.input_width else FaultKind.TRANSLATION

    def extents(self) -> Iterator[Extent]:
        """None."""
        return iter(())
