"""Routers: the input range decides the way out. A GPU's aperture beside its own memory, a bus with two memories."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from swiommu.errors import InvalidArgument
from swiommu.layer.kinds.window import Span, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Router"]


class Router(Window):
    """A window with several ways out: each span leaves by its ``port``, a place in ``ports``.

    ``lowers`` of its node are in the order of ``ports``; with an open end, all ports lead to what is below it. Raises
    what `Window` raises; `InvalidArgument` for a port that isn't there, no port at all, or two of one name.

    >>> from swiommu.address import Access, PhysSpace
    >>> from swiommu.layer import Memory, Node, access
    >>> from swiommu.memory import SparseRam
    >>> low, high = Span(0, 0x1000, 0x8000_0000), Span(0x1000, 0x1000, -0x1000, port=1)
    >>> router = Node(Router("gpu", low, high, ports=("dram", "vram")))
    >>> router.lowers = [Node(Memory(name, SparseRam(PhysSpace(name)))) for name in router.layer.ports]
    >>> [(run.memory, hex(run.output)) for run in access(router, 0xFFE, 4, Access.READ).runs]
    [('dram', '0x80000ffe'), ('vram', '0x0')]
    """

    kind: ClassVar[str] = "router"

    def __init__(self, name: str, *spans: Span, ports: Sequence[str] = ("dram", "vram")) -> None:
        super().__init__(name, *spans)
        self.ports = tuple(ports)
        if not self.ports or len(set(self.ports)) < len(self.ports):
            raise InvalidArgument(f"router {name!r}: ports need names, one each, not {list(self.ports)}")
        for span in spans:
            if not 0 <= span.port < len(self.ports):
                raise InvalidArgument(
                    f"router {name!r}: the window at {span.base:#x} leaves by port {span.port} of {len(self.ports)}",
                )

    def describe(self) -> str:
        """The spans with their deltas and ways out."""
        return ", ".join(f"{span} to {self.ports[span.port]}" for span in self.spans) or "nothing"
