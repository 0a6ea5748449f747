"""A graph of layers by name: who sits on whom, built and changed only by steps that leave it whole."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from swiommu.errors import InvalidArgument, NotFound
from swiommu.layer.cache import invalidate
from swiommu.layer.graph.connect import below, connect, join, part, read_through, require_free, require_unused, way_to
from swiommu.layer.graph.fit import refuse_misfit
from swiommu.layer.node import Node, members
from swiommu.layer.path import Walker
from swiommu.layer.picture import tree
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swiommu.address import Space
    from swiommu.layer.base import Layer
    from swiommu.layer.graph.reserved import Reserved

__all__ = ["Graph"]


class Graph:
    """Named nodes on each other, in the order of adding; what can't work is refused, and the graph stays as it was.

    >>> from swiommu.address import Access, PhysSpace
    >>> from swiommu.layer import Memory, Span, Window
    >>> from swiommu.memory import SparseRam
    >>> graph = Graph()
    >>> ram = graph.add(Memory("ram", SparseRam(PhysSpace("ram")), base=0x4000_0000, size=1 << 20))
    >>> bus = graph.add(Window("bus", Span(0x1000_0000, 1 << 20, 0x3000_0000)), on="ram")
    >>> graph
    bus     window  [0x10000000, 0x10100000) +0x30000000
    └─ ram  memory  [0x40000000, 0x40100000)
    >>> bus.translate(bus.input_space.at(0x1000_0010), 4, Access.READ)[0].memory
    'ram'
    >>> graph.remove("ram")
    Traceback (most recent call last):
    ...
    swiommu.errors.Busy: 'ram' can't be removed: 'bus' sits on it
    """

    __copy__ = no_shallow_copy

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
        is: walker and regions are then its own. What it is connected to has to be of this graph; a memory that only it
        uses, as below `swiommu.layer.flatten`, is replaced by the node of the same `Layer` here, or added too. Raises
        `InvalidArgument` for a name that is taken or no name, `NotFound` for a name that is not there, and what
        `connect` raises.
        """
        node = layer if isinstance(layer, Node) else Node(layer, input_space=input_space)
        if not node.name or node.name in self._nodes:
            raise InvalidArgument(
                f"a layer can't be named {node.name!r}: {'the name is taken' if node.name else 'that is no name'}",
                name=node.name,
            )
        lowers = self._found(on)
        through = self._found([walker])[0] if isinstance(walker, (str, Node)) else walker
        with ExitStack() as undo:
            undo.callback(setattr, node, "reserved", node.reserved)
            node.reserved += tuple(reserved)
            if through is not Walker.NESTED:
                undo.callback(setattr, node, "walker", node.walker)
                read_through(node, through)
            ends = self._ends_of(node)
            if lowers:
                connect(node, *lowers)
            undo.pop_all()
        self._take_ends(node, ends)
        self._nodes[node.name] = node
        return node

    def move(self, name: str, on: str | Node | Iterable[str | Node]) -> None:
        """Put a node, and with it all that sits on it, on others; addresses below it are of other spaces then.

        Raises what `connect` raises.
        """
        node, lowers = self[name], self._found(on)
        require_free(node, "moved")
        before = [(lower, list(lower.uppers)) for lower in node.lowers]
        part(node)
        with ExitStack() as undo:
            undo.callback(setattr, node, "lowers", [lower for lower, _ in before])
            for lower, uppers in before:
                undo.callback(setattr, lower, "uppers", uppers)
            connect(node, *lowers)
            undo.pop_all()

    def remove(self, name: str) -> None:
        """Take a node out; `Busy` while others sit on it or read their tables through it, or a domain owns it."""
        node = self[name]
        require_free(node, "removed")
        require_unused(node)
        part(node)
        node.walker = Walker.PHYSICAL  # it reads through nobody any more
        invalidate(node)
        del self._nodes[name]

    def tops(self) -> list[Node]:
        """The nodes that no node of the graph sits on: what devices see."""
        return [node for node in self if not any(self._nodes.get(upper.name) is upper for upper in node.uppers)]

    def check(self) -> None:
        """State what must be true of every graph: `AssertionError` with the names, or what `refuse_misfit` says."""
        for node in self:
            for lower in below(node):
                assert way_to(lower, node) is None, f"{node.name} is found below itself"
                assert self._nodes.get(lower.name) is lower, f"{node.name} needs {lower.name}, which is not here"
            assert len(node.lowers) in {0, len(node.layer.ports)}, f"{node.name} has not all of its ports connected"
            for lower in node.lowers:
                assert lower.uppers.count(node) == 1, f"{lower.name} does not know that {node.name} sits on it"
            for upper in node.uppers:
                assert node in upper.lowers, f"{node.name} believes that {upper.name} sits on it"
            for lower in members(node.walker):
                assert node in lower.readers, f"{lower.name} does not know that {node.name} reads through it"
            if node.lowers:
                refuse_misfit(node)
            if node.owner is not None:
                node.owner.check_place()

    def __repr__(self) -> str:
        return tree(self.tops()) or "an empty graph"

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

    def _ends_of(self, node: Node) -> list[Node]:
        # For each node that one with connections of its own is on, what it will be on here.
        ends: list[Node] = []
        for lower in below(node):
            mine = self._nodes.get(lower.name)
            if mine is not lower:
                private = not lower.lowers and lower.uppers == [node] and not lower.readers
                if not private or lower.name == node.name or (mine is not None and mine.layer is not lower.layer):
                    raise NotFound(f"{node.name!r} needs {lower.name!r}, which is not of this graph", name=lower.name)
            ends.append(mine or lower)
        return ends[: len(node.lowers)]

    def _take_ends(self, node: Node, ends: list[Node]) -> None:
        if ends and ends != node.lowers:
            part(node)
            join(node, ends)
            invalidate(node)
        for end in ends:
            self._nodes[end.name] = end

    def _own(self, node: Node) -> Node:
        if self._nodes.get(node.name) is not node:
            raise NotFound(f"the node {node.name!r} is not of this graph", name=node.name)
        return node
