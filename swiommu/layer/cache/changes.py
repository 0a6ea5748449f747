"""The log of changes: which table changed when, so that a stale answer can say what nobody told its cache."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from swiommu.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swiommu.layer.base import Layer, Run

__all__ = ["Change", "ChangeLog", "Stale"]


class Change(NamedTuple):
    """The table of ``layer`` changed for ``size`` bytes from ``start``; ``what``: map, unmap, split or sync."""

    number: int
    layer: str
    what: str
    start: int
    size: int


class Stale(NamedTuple):
    """A hit that the tables contradict: what the cache of ``layer`` said of a range, and what is true now.

    None where nothing was, or is, mapped. The range is the block that answered, as far as the tables say one thing of
    it now. ``event`` is the change that no invalidation followed, if the cache has a log that knows of it.
    """

    layer: str
    start: int
    size: int
    was: Run | None
    now: Run | None
    event: Change | None = None


class Watched(Protocol):
    """A layer in its place, as far as its table can be watched."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def layer(self) -> Layer:
        """Whose table it is."""
        ...


class ChangeLog:
    """The last ``limit`` changes of the tables that it watches, numbered from 1 on.

    A table that is watched tells each of its changes; nobody pays who has no log. `Busy` for a table that somebody
    watches already.

    >>> from swiommu.address import Access, Prot
    >>> from swiommu.layer import Node, Paged, TranslationCache, access
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table, log = RadixTable(MOCK, CountingTables()), ChangeLog()
    >>> iommu = Node(Paged("iommu", table), tlb=TranslationCache(64, log=log))
    >>> log.watch(iommu)
    >>> table.map_run(0x1000, 0x8000, 0x1000, 1, Prot.READ)
    >>> _ = access(iommu, 0x1000, 4, Access.READ), table.unmap(0x1000, 0x1000)
    >>> access(iommu, 0x1000, 4, Access.READ).stale[0].event
    Change(number=2, layer='iommu', what='unmap', start=4096, size=4096)
    """

    def __init__(self, limit: int = 4096) -> None:
        self.number = 0
        self._kept: deque[tuple[Watched, Change]] = deque(maxlen=limit)

    def watch(self, *nodes: Watched) -> None:
        """Note every change of their tables from now on; a layer without a table never tells of one."""
        for node in nodes:
            if node.layer.watch is not None:
                raise Busy(f"the table of {node.name!r} is watched already", name=node.name)
            node.layer.watch = partial(self._note, node)

    def __iter__(self) -> Iterator[Change]:
        return (change for _, change in self._kept)

    def cause(self, since: int, own: Iterable[tuple[Watched, int, int]], others: Iterable[object]) -> Change | None:
        """The first change after number ``since`` that can have made an answer untrue.

        ``own`` are the ranges that the answer spoke of, each (node, start, size): one of these goes first, then any
        of ``others``, through which tables were read. A split changes no answer, and is named last.
        """
        later = [each for each in self._kept if each[1].number > since]
        ranges = list(own)
        places = set(others)
        hits = [
            change
            for node, change in later
            if any(
                node is at and change.start < start + size and start < change.start + change.size
                for at, start, size in ranges
            )
        ]
        hits += [change for node, change in later if node in places]
        return next((change for change in hits if change.what != "split"), hits[0] if hits else None)

    def _note(self, node: Watched, what: str, start: int, size: int) -> None:
        self.number += 1
        self._kept.append((node, Change(self.number, node.name, what, start, size)))
