"""Moving bytes to and from where runs lead: each into its own memory, also where a way has several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import PhysAddr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swiommu.layer.base import Run
    from swiommu.memory import SparseRam

__all__ = ["load", "save"]


def load(runs: Iterable[Run], ram: SparseRam) -> bytes:
    """The bytes that ``runs`` lead to, in their order; ``ram`` is the memory of its space, whatever is modelled there.

    Runs that end in a memory of another space go there.

    >>> from swiommu.address import Access, PhysSpace
    >>> from swiommu.layer import Memory, Node, Router, Span, access
    >>> from swiommu.memory import SparseRam
    >>> low, high = Span(0, 0x1000), Span(0x1000, 0x1000, -0x1000, port=1)
    >>> gpu, rams = Node(Router("gpu", low, high)), [SparseRam(PhysSpace(name)) for name in ("dram", "vram")]
    >>> gpu.lowers = [Node(Memory(ram.space.name, ram)) for ram in rams]
    >>> _ = save(access(gpu, 0xFFE, 4, Access.WRITE).runs, b"abcd", rams[0])
    >>> rams[1].read(rams[1].space.at(0), 2), load(access(gpu, 0xFFF, 2, Access.READ).runs, rams[0])
    (b'cd', b'bc')
    """
    parts = []
    for run in runs:
        where = _where(run, ram)
        parts.append(where.read(PhysAddr(where.space, run.output), run.size))
    return b"".join(parts)


def save(runs: Iterable[Run], data: bytes, ram: SparseRam) -> int:
    """Put the first bytes of ``data`` where ``runs`` lead; how many these were. ``ram`` as in `load`.

    >>> from swiommu.address import Access, PhysSpace
    >>> from swiommu.layer import Span, Window, access
    >>> from swiommu.memory import SparseRam
    >>> ram = SparseRam(PhysSpace("ram"))
    >>> save(access(Window("bus", Span(0, 0x1000, 0x8000)), 0x10, 4, Access.WRITE).runs, b"abcd", ram)
    4
    """
    done = 0
    for run in runs:
        where = _where(run, ram)
        where.write(PhysAddr(where.space, run.output), data[done : done + run.size])
        done += run.size
    return done


def _where(run: Run, ram: SparseRam) -> SparseRam:
    return ram if run.store is None or run.store.space is ram.space else run.store.ram
