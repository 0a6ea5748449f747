"""Putting nodes on each other: what can't work is refused here, before anything is changed.

An edge leads down: by data, from a node to those that its ports lead to, and by table reads, from a node to the one
that its walker names. Over both kinds together no node may be found below itself. Whoever kept answers that came by
another way forgets them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import Busy, InvalidArgument, Loop, NotFound
from swiommu.layer.cache import invalidate
from swiommu.layer.graph.fit import refuse_misfit
from swiommu.layer.node import members

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.layer.node import Node
    from swiommu.layer.path import Path, Walker

__all__ = ["connect", "disconnect", "read_through", "require_free", "require_unused"]


def connect(upper: Node, *lowers: Node) -> None:
    """Put ``upper`` on ``lowers``, one for each of its ports, in their order; all or nothing.

    Raises `Busy` if it sits somewhere already or a domain owns it, `InvalidArgument` for another number of nodes than
    it has ports, `Loop` if it would be found below itself, and what `swiommu.layer.graph.fit.refuse_misfit` says of
    widths and granules.

    >>> from swiommu.layer import Identity, Node, Span, Window
    >>> window, bypass = Node(Window("bus", Span(0, 0x1000, 0x4000))), Node(Identity("bypass"))
    >>> connect(window, bypass)
    >>> window.lowers == [bypass], bypass.uppers == [window]
    (True, True)
    >>> connect(bypass, window)
    Traceback (most recent call last):
    ...
    swiommu.errors.Loop: 'bypass' can't be put on 'bus': it would be found below itself, by bypass > bus > bypass
    """
    _require_ports(upper, lowers)
    require_free(upper, f"put on {_names(lowers)}")
    if upper.lowers:
        raise Busy(
            f"{upper.name!r} can't be put on {_names(lowers)}: it sits on {_names(upper.lowers)} already",
            name=upper.name,
        )
    for lower in lowers:
        _refuse_loop(upper, lower, f"put on {lower.name!r}")
    join(upper, lowers)
    try:
        refuse_misfit(upper, f"{upper.name!r} can't be put on {_names(lowers)}: ")
    except BaseException:
        part(upper)
        raise
    invalidate(upper)


def disconnect(upper: Node) -> None:
    """Take ``upper`` off what it sits on; it is an open end then.

    Raises `NotFound` if it sits nowhere, `Busy` if others sit on it or read tables through it: they would lead nowhere;
    also if a domain owns it.

    >>> from swiommu.layer import Identity, Node
    >>> one, two, three = (Node(Identity(name)) for name in ("one", "two", "three"))
    >>> connect(two, three); connect(one, two)
    >>> disconnect(two)
    Traceback (most recent call last):
    ...
    swiommu.errors.Busy: 'two' can't be taken off 'three': 'one' sits on it
    >>> disconnect(one); disconnect(two)
    >>> three.uppers
    []
    """
    if not upper.lowers:
        raise NotFound(f"{upper.name!r} can't be taken off anything: it sits on nothing", name=upper.name)
    require_free(upper, f"taken off {_names(upper.lowers)}")
    require_unused(upper, f"taken off {_names(upper.lowers)}")
    part(upper)
    invalidate(upper)


def read_through(node: Node, walker: Walker | Path) -> None:
    """Read the tables of ``node`` by another way: a `Walker`, or a node.

    Raises `Loop` if that node is above ``node``, or reads its own tables through it, `Busy` if a domain owns ``node``.

    >>> from swiommu.layer import Identity, Node
    >>> upper, lower = Node(Identity("upper")), Node(Identity("lower"))
    >>> connect(upper, lower)
    >>> read_through(lower, upper)
    Traceback (most recent call last):
    ...
    swiommu.errors.Loop: 'lower' can't be read through 'upper': it would be found below itself, by lower > upper > lower
    """
    require_free(node, "read by another way")
    for lower in members(walker):
        _refuse_loop(node, lower, f"read through {lower.name!r}")
    node.walker = walker
    invalidate(node)


def require_free(node: Node, done: str) -> None:
    """Refuse, with `Busy`, what can't be ``done`` to a node of a domain: the domain would not know of it."""
    if node.owner is not None:
        raise Busy(
            f"{node.name!r} can't be {done}: it is the node of a domain, which decides what is below it", name=node.name
        )


def require_unused(node: Node, done: str = "removed") -> None:
    """Refuse, with `Busy`, what can't be ``done`` to a node that others need.

    >>> from swiommu.layer import Identity, Node
    >>> table, memory = Node(Identity("gart")), Node(Identity("stolen"))
    >>> read_through(table, memory)
    >>> require_unused(memory)
    Traceback (most recent call last):
    ...
    swiommu.errors.Busy: 'stolen' can't be removed: 'gart' reads its table through it
    """
    if node.uppers:
        sits = "sits" if len(node.uppers) == 1 else "sit"
        raise Busy(
            f"{node.name!r} can't be {done}: {_names(node.uppers)} {sits} on it",
            name=node.name,
        )
    if node.readers:
        reads = "reads its table" if len(node.readers) == 1 else "read their tables"
        raise Busy(
            f"{node.name!r} can't be {done}: {_names(node.readers)} {reads} through it",
            name=node.name,
        )


def join(upper: Node, lowers: Sequence[Node]) -> None:
    """Make the edges, unchecked."""
    upper.lowers = list(lowers)
    for lower in dict.fromkeys(lowers):
        lower.uppers.append(upper)


def part(upper: Node) -> None:
    """Remove the edges, unchecked."""
    for lower in dict.fromkeys(upper.lowers):
        lower.uppers.remove(upper)
    upper.lowers = []


def below(node: Node) -> Iterator[Node]:
    """The nodes that ``node`` needs directly: what its ports lead to, and where its tables are read."""
    yield from node.lowers
    yield from members(node.walker)


def way_to(start: Node, goal: Node) -> list[Node] | None:
    """A way down from ``start`` to ``goal`` over data and table reads; None if there is none."""
    came: dict[Node, Node | None] = {start: None}
    todo = [start]
    while todo:
        node = todo.pop()
        if node is goal:
            way = [node]
            while (before := came[way[-1]]) is not None:
                way.append(before)
            return way[::-1]
        for lower in below(node):
            if lower not in came:
                came[lower] = node
                todo.append(lower)
    return None


def _require_ports(upper: Node, lowers: Sequence[Node]) -> None:
    ports = upper.layer.ports
    if len(lowers) == len(ports) and lowers:
        return
    if not ports:
        raise InvalidArgument(f"{upper.name!r} can't be put on anything: it is a {upper.layer.kind}", name=upper.name)
    listed = f" ({', '.join(ports)})" if len(ports) > 1 else ""
    raise InvalidArgument(
        f"{upper.name!r} can't be put on {_names(lowers)}: it has {len(ports)} "
        f"{'port' if len(ports) == 1 else 'ports'}{listed}, not {len(lowers)}",
        name=upper.name,
    )


def _refuse_loop(upper: Node, lower: Node, done: str) -> None:
    way = way_to(lower, upper)
    if way is not None:
        names = [node.name for node in (upper, *way)]
        raise Loop(
            f"{upper.name!r} can't be {done}: it would be found below itself, by {' > '.join(names)}",
            names=names,
        )


def _names(nodes: Sequence[Node]) -> str:
    return ", ".join(repr(node.name) for node in nodes) or "nothing"
