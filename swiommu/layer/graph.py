"""A graph of layers by name: who sits on whom, built and changed only by steps that leave it whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import InvalidArgument, NotFound
from swiommu.layer.connect import below, connect, disconnect, read_through, require_unused, way_to
from swiommu.layer.node import Node, Walker, members

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swiommu.address import Space
    from swiommu.layer.base import Layer
    from swiommu.layer.reserved import Reserved

__all__ = ["Graph"]


class Graph:
    """Named nodes on each other, in the order of adding; what can't work is refused, and the graph stays as it was.

    >>> from swiommu.address import Access, PhysSpace
    >>> from swiommu.layer import Memory, Span, Window
    >>> from swiommu.memory import SparseRam
    >>> graph = Graph()
    >>> ram = graph.add(Memory("ram", SparseRam(PhysSpace("ram")), base=0x4000_0000, size=1 << 20))
    >>> bus = graph.add(Window("bus", Span(0x1000_0000, 1 << 20, 0x3000_0000)), on="ram")
    >>> [node.name for node in graph.tops()]
    ['bus']
    >>> bus.translate(bus.input_space.at(0x1000_0010), 4, Access.READ)[0].memory
    'ram'
    >>> graph.remove("ram")
    Traceback (most recent call last):
    ...
    swiommu.errors.Busy: 'ram' can't be removed: 'bus' sits on it
    """

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def add(
        self,
        layer: Layer | Node,
        on: str | Node | Iterable[str | Node] = (),
        *,
        walker: Walker | str | Node = Walker.NESTED,
        reserved: Iterable[Reserved] = (),
        input_space: Space | None = None,
    ) -> Node:
        """A node of ``layer``, put ``on`` nodes of the graph: one for each of its ports, none to leave it open.

        ``walker`` says where its tables are read, ``reserved`` which of its inputs are. A node is taken as it
        is: walker and regions are then its own. Raises `InvalidArgument` for a name that is taken or no name,
        `NotFound` for a name that is not there, and what `connect` raises.
        """
        node = layer if isinstance(layer, Node) else Node(layer, input_space=input_space)
        if not node.name or node.name in self._nodes:
            raise InvalidArgument(
                f"a layer can't be named {node.name!r}: {'the name is taken' if node.name else 'that is no name'}",
                name=node.name,
            )
        lowers = self._found(on)
        through = self[walker] if isinstance(walker, str) else walker
        if through is not Walker.NESTED:
            read_through(node, through)
        node.reserved += tuple(reserved)
        if lowers:
            connect(node, *lowers)
        self._nodes[node.name] = node
        return node

    def move(self, name: str, on: str | Node | Iterable[str | Node]) -> None:
        """Put a node, and with it all that sits on it, on others."""
        node = self[name]
        disconnect(node)
        connect(node, *self._found(on))

    def remove(self, name: str) -> None:
        """Take a node out; `Busy` while others sit on it or read their tables through it."""
        node = self[name]
        require_unused(node)
        if node.lowers:
            disconnect(node)
        node.walker = Walker.PHYSICAL
        del self._nodes[name]

    def tops(self) -> list[Node]:
        """The nodes that nothing sits on: what devices see."""
        return [node for node in self if not node.uppers]

    def check(self) -> None:
        """State what must be true of every graph; `AssertionError` with the names otherwise."""
        for node in self:
            for lower in below(node):
                assert way_to(lower, node) is None, f"{node.name} is found below itself"
                assert self._nodes.get(lower.name) is lower, f"{node.name} needs {lower.name}, which is not here"
            for lower in node.lowers:
                assert lower.uppers.count(node) == 1, f"{lower.name} does not know that {node.name} sits on it"
            for lower in members(node.walker):
                assert node in lower.readers, f"{lower.name} does not know that {node.name} reads through it"

    def __getitem__(self, name: str) -> Node:
        try:
            return self._nodes[name]
        except KeyError:
            raise NotFound(f"no layer is named {name!r}", name=name) from None

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def _found(self, on: str | Node | Iterable[str | Node]) -> list[Node]:
        wanted = [on] if isinstance(on, (str, Node)) else list(on)
        return [self[each] if isinstance(each, str) else self._own(each) for each in wanted]

    def _own(self, node: Node) -> Node:
        if self._nodes.get(node.name) is not node:
            raise NotFound(f"the node {node.name!r} is not of this graph", name=node.name)
        return node
