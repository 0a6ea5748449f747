"""A page table as a layer: the walk of `swiommu.pagetable.RadixTable`, with permissions and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.layer.base import Fault, FaultKind, Run, require_range

if TYPE_CHECKING:
    from swiommu.address import Access
    from swiommu.pagetable import RadixTable

__all__ = ["Paged"]


class Paged:
    """Translates by reading ``table`` from its root, leaf by leaf; holds nothing of its own.

    >>> from swiommu.address import Access, Prot
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x1000, 0x8000, 0x1000, 2, Prot.READ)
    >>> Paged("iommu", table).translate(0x1800, 0x1000, Access.READ)
    [Run(input=6144, output=34816, size=4096, page_size=4096, prot=<Prot.READ: 1>)]
    """

    __slots__ = ("name", "table")

    def __init__(self, name: str, table: RadixTable) -> None:
        self.name = name
        self.table = table

    def translate(self, start: int, size: int, access: Access) -> list[Run]:
        """Merged runs, or `DeviceFault` at the first failing byte; see `swiommu.layer.Layer`.

        Kinds: range beyond the input width, translation in a hole, permission where the leaf refuses.
        """
        require_range(start, size)
        runs: list[Run] = []
        at, stop, wanted = start, start + size, int(access)
        limit = 1 << self.table.format.input_width
        while at < stop:
            found = self.table.lookup(at) if at < limit else None
            if found is None:
                kind = FaultKind.TRANSLATION if at < limit else FaultKind.RANGE
                raise Fault(self.name, kind, access, at, at).error(runs)
            output, pgsize, prot = found
            if wanted & ~int(prot):
                raise Fault(self.name, FaultKind.PERMISSION, access, at, at).error(runs)
            length = min(stop - at, pgsize - (at & (pgsize - 1)))
            _append(runs, Run(at, output, length, pgsize, prot))
            at += length
        return runs


def _append(runs: list[Run], run: Run) -> None:
    if runs:
        last = runs[-1]
        if last.output + last.size == run.output and last[3:] == run[3:]:
            runs[-1] = last._replace(size=last.size + run.size)
            return
    runs.append(run)
