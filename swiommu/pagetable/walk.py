"""Reading a table as hardware does, and what it answers: the references of a walk, and runs of leaves.

Nothing here knows who owns a table: an address of the root and a way to read words are all that is needed, so that
a dump of memory is read by the same code.
"""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from swiommu.address import Prot
from swiommu.pagetable.format import EMPTY, Leaf, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swiommu.pagetable.format import Format, Item
    from swiommu.pagetable.tables import Words

__all__ = ["LeafRun", "Narrowing", "Step", "Walk", "append_leaves", "leaves_in", "walk"]

_READ_WRITE = Prot.READ | Prot.WRITE


class LeafRun(NamedTuple):
    """``leaves`` leaves of ``pgsize`` bytes at consecutive input addresses from ``iova``.

    >>> LeafRun(0x1000, 0x1000, 3).size
    12288
    """

    iova: int
    pgsize: int
    leaves: int

    @property
    def size(self) -> int:
        """Bytes covered."""
        return self.pgsize * self.leaves


class Step(NamedTuple):
    """One reference of a walk: the entry read, and where (``depth`` as in `Format.levels`)."""

    depth: int
    table: int
    slot: int
    entry: int


class Walk(NamedTuple):
    """The references of one walk, and how it ended: `Empty` or `Leaf`, then of ``pgsize`` bytes (else 0)."""

    steps: tuple[Step, ...]
    outcome: Item
    pgsize: int = 0


class Narrowing(NamedTuple):
    """What the table entries on the way so far let through: READ and WRITE must be let through by all of them.

    >>> Narrowing().through(Table(0x1000, Prot.READ)).leaf(Leaf(0, Prot.READ | Prot.WRITE)).prot
    <Prot.READ: 1>
    """

    allows: Prot = _READ_WRITE
    prot: Prot = Prot.NONE

    def through(self, table: Table) -> Narrowing:
        """The same, one table further."""
        if table.allows is _READ_WRITE and not table.prot:
            return self
        return Narrowing(self.allows & table.allows, self.prot | table.prot)

    def leaf(self, leaf: Leaf) -> Leaf:
        """``leaf`` as it is seen at the end of this way."""
        if self == _WIDE:
            return leaf
        return Leaf(leaf.oa, leaf.prot & (~_READ_WRITE | self.allows) | self.prot, leaf.order)


_WIDE = Narrowing()


def walk(form: Format, root: int, start: int, at: int, read: Callable[[int], int]) -> Walk:
    """Read the entries from ``root``, a table at depth ``start``, to the input whose decoded bits are ``at``.

    ``read`` answers the word at an address. What can't be there, a leaf in an upper level or a misaligned one, a table
    below the last level, is empty: others may write where tables lie.

    >>> from swiommu.pagetable.formats import MOCK
    >>> words = {0x1000: 0x2001, 0x2000: 0x3001, 0x3000: 0x8000_0007}
    >>> found = walk(MOCK, 0x1000, 0, 0x1234, words.__getitem__)
    >>> found.outcome, found.pgsize, len(found.steps)
    (Leaf(oa=2147483648, prot=<Prot.READ: 1>, order=0), 2097152, 3)
    """
    levels, decode = form.levels, form.decode
    steps: list[Step] = []
    if at >> levels[start].shift + levels[start].bits:
        return Walk((), EMPTY)
    phys, seen = root, _WIDE
    for depth in range(start, len(levels)):
        level = levels[depth]
        index = at >> level.shift & (1 << level.bits) - 1
        entry = read(phys + 8 * index)
        steps.append(Step(depth, phys, index, entry))
        item = decode(entry, depth)
        if isinstance(item, Table):
            phys, seen = item.oa, seen.through(item)
            continue
        if isinstance(item, Leaf) and isinstance(form.checked(item, depth), Leaf):
            return Walk(tuple(steps), seen.leaf(item), 1 << level.shift + item.order)
        break
    return Walk(tuple(steps), EMPTY)


def leaves_in(
    form: Format, phys: int, depth: int, base: int, words_of: Callable[[int], Words], seen: Narrowing = _WIDE
) -> Iterator[tuple[int, Leaf, int]]:
    """Every leaf of the table at ``phys`` and below as (decoded input, leaf, page size), ascending from ``base`` on.

    ``words_of`` answers the words of a table.

    >>> from array import array
    >>> from swiommu.pagetable.formats import MOCK
    >>> words = array("Q", bytes(4096)); words[3] = 0x8000_0007
    >>> [(hex(at), hex(leaf.oa), size) for at, leaf, size in leaves_in(MOCK, 0, 3, 0x20_0000, lambda phys: words)]
    [('0x203000', '0x80000000', 4096)]
    """
    shift = form.levels[depth].shift
    covered = 0
    words = words_of(phys)
    for index in compress(range(len(words)), words):
        if index < covered:
            continue
        item = form.checked(form.decode(words[index], depth), depth)
        if isinstance(item, Leaf):
            first = index >> item.order << item.order
            covered = first + (1 << item.order)
            yield base + (first << shift), seen.leaf(item), 1 << shift + item.order
        elif isinstance(item, Table):
            yield from leaves_in(form, item.oa, depth + 1, base + (index << shift), words_of, seen.through(item))


def append_leaves(runs: list[LeafRun], iova: int, pgsize: int, leaves: int) -> None:
    """Add leaves that follow the last run to it if they are of its size, else as a run of their own.

    >>> runs = [LeafRun(0x1000, 0x1000, 1)]
    >>> append_leaves(runs, 0x2000, 0x1000, 2); runs
    [LeafRun(iova=4096, pgsize=4096, leaves=3)]
    """
    if runs and runs[-1].pgsize == pgsize and runs[-1].iova + runs[-1].size == iova:
        runs[-1] = runs[-1]._replace(leaves=runs[-1].leaves + leaves)
    else:
        runs.append(LeafRun(iova, pgsize, leaves))
