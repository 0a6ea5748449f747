"""The doors for those who hold a bare layer: an access through it, and a picture of it, as for a way of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.layer.node import as_path
from swiommu.layer.picture import tree
from swiommu.layer.translation import burst

if TYPE_CHECKING:
    from collections.abc import Hashable

    from swiommu.address import Access
    from swiommu.layer.base import Layer
    from swiommu.layer.path import Path
    from swiommu.layer.translation import Translation

__all__ = ["access", "picture"]


def access(
    path: Path | Layer,
    start: int,
    size: int,
    wanted: Access,
    *,
    stream: Hashable = None,
    atomic: bool = False,
    watched: bool = False,
    uncached: bool = False,
) -> Translation:
    """What ``size`` bytes from ``start`` reach, entered at the top of ``path``; a fault is part of the answer.

    Bytes before the first failing one are reached, none at or after it; with ``atomic`` none at all then. ``watched``
    tells every step, ``uncached`` goes by the tables alone and leaves caches and marks as they are. `InvalidArgument`
    for a range that is empty or negative.

    >>> from swiommu.address import Access, Prot
    >>> from swiommu.layer import Chain, Paged
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> stages = [Paged(name, RadixTable(MOCK, CountingTables())) for name in ("s1", "s2")]
    >>> for stage in stages:
    ...     stage.table.map_run(0, 0, 0x1000, 16, Prot.READ | Prot.WRITE)
    >>> access(Chain(*stages), 0x5000, 8, Access.READ).refs
    24
    """
    return burst(
        as_path(path),
        start,
        size,
        wanted,
        stream=stream,
        atomic=atomic,
        watched=watched,
        uncached=uncached,
    )


def picture(*tops: Path | Layer, width: int = 80) -> str:
    """The tree of what is below each of ``tops``, at most ``width`` columns wide where names allow.

    What only tables are read through stands last.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.layer import Chain, Memory, Span, Window
    >>> from swiommu.memory import SparseRam
    >>> ram = Memory("ram", SparseRam(PhysSpace("ram")), base=0x8000_0000, size=0x4000_0000)
    >>> print(picture(Chain(Window("bus", Span(0, 0x4000_0000, 0x8000_0000)), ram)))
    bus     window  [0x0, 0x40000000) +0x80000000
    └─ ram  memory  [0x80000000, 0xc0000000)
    """
    return tree([as_path(top) for top in tops], width)
