"""One address through dumped tables, entry by entry, as hardware reads them; and why an entry leads nowhere."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import attrs

from swiommu.errors import InvalidArgument, NotFound
from swiommu.pagetable.door import TableDoor
from swiommu.pagetable.format import EMPTY, Format, Item, Leaf, Table
from swiommu.pagetable.walk import walk

if TYPE_CHECKING:
    from array import array

    from swiommu.pagetable.dump.memory import MemoryDump

__all__ = ["DumpStep", "DumpWalk", "entrance", "refusal", "walk_dump"]

_NEITHER = "it is neither a leaf nor a table"


class DumpStep(NamedTuple):
    """An entry that was read, or is not in the dump (``word`` None); ``item`` is what it says, empty if ``why`` not."""

    depth: int
    address: int
    word: int | None
    item: Item
    why: str = ""


@attrs.frozen
class DumpWalk:
    """The entries on the way to ``iova``; ``outcome`` is the leaf with what the way allows, of ``pgsize`` bytes.

    >>> from swiommu.address import Prot
    >>> DumpWalk(0x1234, (), Leaf(0x8000_0000, Prot.READ), 0x1000).output
    2147484212
    """

    iova: int
    steps: tuple[DumpStep, ...]
    outcome: Item
    pgsize: int

    @property
    def output(self) -> int | None:
        """Where ``iova`` leads to; None if nowhere."""
        return self.outcome.oa + (self.iova & self.pgsize - 1) if isinstance(self.outcome, Leaf) else None


class _NotThere(Exception):
    """The word that a walk wants is not in the dump; never leaves this file."""


def entrance(memory: MemoryDump, form: Format, root: int, levels: int | None) -> tuple[int, array[int]]:
    """The depth of a root from which ``levels`` are walked, by default as many as a new table has, and its words.

    Raises `InvalidArgument` for a number that the format does not have and for a misaligned root, `NotFound` if the
    root is not all in the dump.
    """
    deepest = len(form.levels)
    depth = form.start if levels is None else deepest - levels
    if not 0 <= depth < deepest:
        raise InvalidArgument(f"format {form.name!r} has 1 to {deepest} levels, not {levels}")
    size = 8 << form.levels[depth].bits
    if root % size or root < 0:
        raise InvalidArgument(f"the root {root:#x} is not aligned to its {size:#x} bytes", size=size)
    words = memory.words(root, size >> 3)
    if words is None:
        raise NotFound(f"the root, {size:#x} bytes at {root:#x}, is not all in the dump", size=size)
    return depth, words


def walk_dump(memory: MemoryDump, form: Format, root: int, iova: int, *, levels: int | None = None) -> DumpWalk:
    """Walk to ``iova`` from ``root``, as `decode_dump` reads the whole.

    Raises what that does, and `OutOfRange` if ``iova`` is no input of the format.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> from swiommu.pagetable.dump import MemoryDump, dump_table
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x5000, 0x8000_0000, 0x1000, 1, Prot.READ)
    >>> found = walk_dump(MemoryDump(dump_table(table)), MOCK, table.root, 0x5010)
    >>> hex(found.output), [hex(step.address) for step in found.steps]
    ('0x80000010', ['0x1000', '0x2000', '0x3000', '0x4028'])
    """
    depth, _ = entrance(memory, form, root, levels)
    reads: list[tuple[int, int | None]] = []

    def read(address: int) -> int:
        word = memory.word(address)
        reads.append((address, word))
        if word is None:
            raise _NotThere
        return word

    outcome: Item = EMPTY
    pgsize = 0
    with suppress(_NotThere):  # the last step says so
        _, outcome, pgsize = walk(form, root, depth, TableDoor(form).inner(iova), read)
    steps = tuple(_step(form, depth + number, address, word) for number, (address, word) in enumerate(reads))
    return DumpWalk(iova, steps, outcome, pgsize)


def _step(form: Format, depth: int, address: int, word: int | None) -> DumpStep:
    if word is None:
        return DumpStep(depth, address, None, EMPTY, "it is not in the dump")
    item = form.decode(word, depth)
    checked = form.checked(item, depth)
    return DumpStep(depth, address, word, checked, refusal(form, item, depth) if word and checked == EMPTY else "")


def refusal(form: Format, item: Item, depth: int) -> str:
    """Why an entry that was decoded as ``item`` can't be there; see `Format.checked`.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK
    >>> refusal(MOCK, Leaf(0x1000, Prot.READ), 2)
    'it would be a page of 0x200000 bytes at 0x1000, which is misaligned'
    >>> refusal(MOCK, Leaf(0x1000, Prot.READ), 0), refusal(MOCK, Table(0x1000), 3)
    ('it would be a leaf at a level of tables', 'it would be a table below the last level')
    """
    if isinstance(item, Table):
        return "it would be a table below the last level"
    if not isinstance(item, Leaf):
        return _NEITHER
    level = form.levels[depth]
    pgsize = 1 << level.shift + item.order
    if not level.sizes:
        return "it would be a leaf at a level of tables"
    if item.order not in level.sizes:
        return f"it would be a page of {pgsize:#x} bytes, which this level can't hold"
    return f"it would be a page of {pgsize:#x} bytes at {item.oa:#x}, which is misaligned"
