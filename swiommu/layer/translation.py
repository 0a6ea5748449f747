"""Accesses: a burst of bytes, split at the borders of what it meets, up to the first byte that fails; who is told."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import attrs

from swiommu.address import as_integers
from swiommu.layer.base import Fault, FaultClass, Run, require_range
from swiommu.layer.path import Hop, Purpose, Refused, Trip

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from swiommu.address import Access
    from swiommu.layer.base import Layer
    from swiommu.layer.cache.changes import Stale
    from swiommu.layer.path import Path, Stage

__all__ = ["Translation", "burst", "deliver"]


@attrs.frozen
class Translation:
    """What became of an access: the runs it reached, ascending, the table entries read, the record if it failed.

    ``hops`` tells the way step by step, if that was asked for; ``way`` are the names of the layers entered by the
    last address, top first: the failing one, if any, is its last. ``stale`` are the cached answers among it that the
    tables contradict.

    >>> from swiommu.address import Access
    >>> from swiommu.layer import Span, Window, access
    >>> answer = access(Window("bus", Span(0x1000, 0x1000, 0)), 0x1800, 0x1000, Access.WRITE)
    >>> answer.size, str(answer.fault)
    (2048, "range fault of WRITE access at 0x2000 in layer 'bus'")
    """

    runs: tuple[Run, ...]
    refs: int
    fault: Fault | None
    hops: tuple[Hop, ...] = ()
    way: tuple[Stage, ...] = attrs.field(default=(), repr=False, eq=False)
    stale: tuple[Stale, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that were reached."""
        return sum(run.size for run in self.runs)

    def or_raise(self) -> list[Run]:
        """The runs; raises `DeviceFault` with ``fault`` and the ``runs`` before it if the access failed."""
        if self.fault is not None:
            raise self.fault.error(self.runs)
        return list(self.runs)


def burst(
    top: Path,
    start: int,
    size: int,
    wanted: Access,
    *,
    stream: Hashable = None,
    atomic: bool = False,
    watched: bool = False,
    uncached: bool = False,
) -> Translation:
    """What `access` answers, for what is a way already."""
    if type(start) is not int or type(size) is not int:
        start, size = as_integers(start=start, size=size)
    require_range(start, size)
    trip = Trip(wanted, stream=stream, watched=watched, uncached=uncached)
    why = Purpose(int(wanted), FaultClass.DATA)
    runs: list[Run] = []
    touches: list[tuple[Layer, int, bool]] = []
    fault = None
    at, stop = start, start + size
    while at < stop:
        trip.begin(at)
        try:
            reach = top.travel(at, why, trip, ())
        except Refused as refused:
            fault = refused.fault
            if atomic:  # nothing was transferred, so nothing is marked
                runs.clear()
                touches.clear()
            break
        touches += trip.touches
        length = min(stop, reach.input + reach.size) - at
        memory = reach.memory.name if reach.memory else ""
        _append(runs, Run(at, reach.to(at), length, reach.block, reach.prot, reach.attributes, memory, reach.memory))
        at += length
    if not uncached:
        for layer, where, write in touches:
            layer.touched(where, write=write)
    return Translation(tuple(runs), trip.refs, fault, tuple(trip.hops or ()), tuple(trip.way), tuple(trip.stale))


def _append(runs: list[Run], run: Run) -> None:
    if runs:
        last = runs[-1]
        if last.output + last.size == run.output and last[3:] == run[3:]:
            runs[-1] = last._replace(size=last.size + run.size)
            return
    runs.append(run)


def deliver(fault: Fault, way: Sequence[Stage]) -> None:
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
