"""What a page-table format is: level shapes plus a few pure functions. One walker serves all of them.

Levels are written **top first**: ``levels[0]`` is the root, and a level's place in that tuple is its *depth*.
An entry is one 64-bit word; 0 is empty in every format, so that a zeroed page is an empty table. Reading an
entry has exactly three outcomes: `Empty`, `Table`, `Leaf`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import attrs

from swiommu.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.address import Prot

__all__ = ["EMPTY", "TABLE_ENTRIES", "Empty", "Format", "Item", "Leaf", "Level", "Table"]

TABLE_ENTRIES = 512
"""64-bit entries in one 4 KiB table page."""


@attrs.frozen
class Level:
    """One level: an entry covers ``2**shift`` bytes, a table holds ``2**bits`` entries.

    >>> Level(shift=21, bits=9, can_leaf=True).pgsize
    2097152
    """

    shift: int
    bits: int
    can_leaf: bool

    @property
    def pgsize(self) -> int:
        """Bytes that one entry covers."""
        return 1 << self.shift


@attrs.frozen
class Empty:
    """An entry that leads nowhere."""


@attrs.frozen
class Table:
    """An entry that points to the next table, at ``oa``."""

    oa: int


@attrs.frozen
class Leaf:
    """An entry that ends the walk: output address of the entry's first byte, and what is allowed."""

    oa: int
    prot: Prot


Item = Empty | Table | Leaf
EMPTY = Empty()


@attrs.frozen(kw_only=True)
class Format:
    """A page-table format as a value; see `swiommu.pagetable.formats` for the ones there are.

    ``leaf_entry(oa, depth, prot)`` and ``table_entry(oa)`` encode, ``decode(entry, depth)`` is their inverse, and
    ``leaf_run(oa, depth, prot, count)`` is ``count`` leaf entries for consecutive pages, for filling a table at
    once. Raises `InvalidArgument` when the levels do not follow one another without a gap.

    >>> from swiommu.pagetable.formats import MOCK
    >>> hex(MOCK.pgsize_bitmap), MOCK.input_width
    ('0x40201000', 48)
    """

    name: str
    levels: tuple[Level, ...] = attrs.field()
    output_width: int
    leaf_entry: Callable[[int, int, int], int] = attrs.field(repr=False)
    leaf_run: Callable[[int, int, int, int], Sequence[int]] = attrs.field(repr=False)
    table_entry: Callable[[int], int] = attrs.field(repr=False)
    decode: Callable[[int, int], Item] = attrs.field(repr=False)

    @levels.validator
    def _levels_follow(self, _attribute: object, levels: tuple[Level, ...]) -> None:
        if not levels or not levels[-1].can_leaf:
            raise InvalidArgument(f"format {self.name!r}: the last level must be able to hold leaves")
        for depth, (upper, lower) in enumerate(pairwise(levels)):
            if upper.shift != lower.shift + lower.bits:
                raise InvalidArgument(
                    f"format {self.name!r}: an entry of level {depth} covers 2**{upper.shift} bytes, "
                    f"its table 2**{lower.shift + lower.bits}"
                )
        if any(1 << level.bits > TABLE_ENTRIES for level in levels):
            raise InvalidArgument(f"format {self.name!r}: a table holds at most {TABLE_ENTRIES} entries")

    def checked(self, item: Item, depth: int) -> Item:
        """What was decoded, unless it can't be there: a leaf in an upper level or a misaligned one, one table too many.

        >>> from swiommu.pagetable.formats import MOCK
        >>> MOCK.checked(Leaf(0x1000, 3), 2), MOCK.checked(Leaf(0x1000, 3), 3).oa
        (Empty(), 4096)
        """
        level = self.levels[depth]
        if isinstance(item, Leaf):
            return item if level.can_leaf and not item.oa & (level.pgsize - 1) else EMPTY
        return item if depth + 1 < len(self.levels) else EMPTY

    @property
    def input_width(self) -> int:
        """Bits of an input address that the levels decode."""
        return self.levels[0].shift + self.levels[0].bits

    @property
    def pgsize_bitmap(self) -> int:
        """The page sizes that leaves can have, one bit each (the kernel's ``pgsize_bitmap``)."""
        return sum(level.pgsize for level in self.levels if level.can_leaf)
