"""A page table as a layer: the walk of `swiommu.pagetable.RadixTable`, its entries read by the way of the walker."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from swiommu.layer.attributes import PERMISSIONS, Attributes
from swiommu.layer.base import Extent, FaultKind, Layer, Read
from swiommu.pagetable import Leaf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swiommu.layer.marks import Marks
    from swiommu.pagetable import RadixTable

__all__ = ["Paged"]


class Paged(Layer):
    """Translates by reading ``table`` from its root, entry by entry; holds nothing of its own but ``marks``.

    ``hardware_ad``: the walker keeps accessed and dirty bits, so that reading an entry may write it, and the pages that
    hold the table have to be writable below. ``force_write_back``: its memory types replace those of the layers above.

    >>> from swiommu.address import Access, Prot
    >>> from swiommu.layer import access
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x1000, 0x8000, 0x1000, 2, Prot.READ)
    >>> answer = access(Paged("iommu", table), 0x1800, 0x1000, Access.READ)
    >>> [(hex(run.output), run.size) for run in answer.runs], answer.refs
    ([('0x8800', 4096)], 8)
    """

    kind: ClassVar[str] = "paged"

    def __init__(
        self,
        name: str,
        table: RadixTable,
        *,
        marks: Marks | None = None,
        hardware_ad: bool = False,
        force_write_back: bool = False,
    ) -> None:
        super().__init__(name)
        self.table = table
        self.marks = marks
        self.keeps_marks = marks is not None
        self.hardware_ad = hardware_ad
        self.force_write_back = force_write_back
        self.granule = table.granule
        self._shifts = tuple(level.shift for level in table.format.levels)
        self.input_width = 64 if table.format.sign_extended else table.format.input_width
        self.output_width = table.format.output_width

    def look(self, at: int, read: Read) -> Extent | FaultKind:
        """The leaf around ``at``; RANGE beyond the input width, TRANSLATION in a hole."""
        if not self.table.door.holds(at):
            return FaultKind.RANGE
        _, item, pgsize = self.table.walk(at, read)
        if not isinstance(item, Leaf):
            return FaultKind.TRANSLATION
        return self._extent(at & -pgsize, item, pgsize)

    def levels(self) -> tuple[int, ...]:
        """The shifts of the format's levels, from the root down."""
        return self._shifts[self.table.root_depth :]

    @property
    def watch(self) -> Callable[[str, int, int], None] | None:
        """Who is told of changes: the table itself tells."""
        return self.table.watch

    @watch.setter
    def watch(self, told: Callable[[str, int, int], None] | None) -> None:
        self.table.watch = told

    def accepts(self) -> Iterator[tuple[int, int]]:
        """The inputs of the format: of a sign-extended one the halves at both ends of 64 bits."""
        half = 1 << self.table.format.aperture_width
        yield 0, half
        if self.table.format.sign_extended:
            yield (1 << 64) - half, 1 << 64

    def extents(self) -> Iterator[Extent]:
        """The leaves, ascending."""
        return (self._extent(iova, leaf, pgsize) for iova, leaf, pgsize in self.table.each_leaf())

    def stored(self, address: int, width: int) -> int:
        """The entry in the table's own page."""
        del width  # entries of a radix table are 64 bits
        return self.table.entry_at(address)

    def touched(self, at: int, *, write: bool) -> None:
        """Mark the leaf around ``at`` accessed, and dirty if written."""
        found = self.table.lookup(at)
        if self.marks is not None and found is not None:
            self.marks.note(at & -found[1], found[1], write=write)

    def describe(self) -> str:
        """The format, and how much is mapped."""
        form, count = self.table.format, sum(self.table.leaves.values())
        leaves = "1 leaf" if count == 1 else f"{count} leaves"
        return f"{form.name}, {form.input_width} to {form.output_width} bits, {leaves}"

    def _extent(self, start: int, leaf: Leaf, pgsize: int) -> Extent:
        attributes = Attributes.of(leaf.prot, forced=self.force_write_back)
        return Extent(start, leaf.oa, pgsize, pgsize, leaf.prot & PERMISSIONS, attributes)
