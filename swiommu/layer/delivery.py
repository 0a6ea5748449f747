"""Who is told of a fault: the owner of the layer that refused, in full; owners above, only if it lets them know."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.layer.base import Fault
    from swiommu.layer.node import Node

__all__ = ["deliver"]


def deliver(fault: Fault, way: Sequence[Node]) -> None:
    """Call the handlers of the last node of ``way``, which refused; then upward as far as each lower one ``forwards``.

    What goes upward is sanitised: an owner never learns addresses below its own layer. `Node.translate` does this;
    it is for those who use `access`, whose answer has the ``way``.

    >>> from swiommu.address import Access
    >>> from swiommu.layer import Blocked, Identity, Node, access, connect
    >>> upper, lower = Node(Identity("guest")), Node(Blocked("host"))
    >>> connect(upper, lower)
    >>> lower.forwards = True
    >>> for node in (upper, lower):
    ...     node.handlers.append(lambda fault, name=node.name: print(f"{name} is told: {fault}"))
    >>> answer = access(upper, 0x1000, 4, Access.READ)
    >>> deliver(answer.fault, answer.way)
    host is told: translation fault of READ access at 0x1000 in layer 'host'
    guest is told: translation fault of READ access in layer 'host'
    """
    for handler in tuple(way[-1].handlers):
        handler(fault)
    told = fault.sanitised()
    for lower, upper in pairwise(reversed(way)):
        if not lower.forwards:
            return
        for handler in tuple(upper.handlers):
            handler(told)
