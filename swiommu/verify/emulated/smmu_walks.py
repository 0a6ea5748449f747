"""Walks of an emulated SMMUv3, table by table: indexes, entries, leaves, and what accesses come to.

Where the kernel puts its tables is its own choice, so an address is taken from the first line that tells it. From then
on it stands for one table, which is one (ASID, level, upper bits of the address), and that table for it, until an unmap
takes the table away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from swiommu.address import Prot
from swiommu.pagetable import Leaf
from swiommu.pagetable.formats import arm_lpae
from swiommu.trace.emulator import Command, LeafWord, Lookup, Step, Translated
from swiommu.verify.emulated.windows import Beliefs, Windows

if TYPE_CHECKING:
    from swiommu.trace.emulator import Record
    from swiommu.verify.emulated.log import Emulated
    from swiommu.verify.tally import Tally
    from swiommu.verify.timeline import Op

__all__ = ["Walks"]

_IAS: Final = (48, 39, 30)  # by the level at which walks begin
_TABLE_ADDRESS: Final = (1 << 48) - (1 << 12)
_ACCESS: Final = int(Prot.READ | Prot.WRITE)


class _Place(NamedTuple):
    """Which table."""

    domain: int
    depth: int
    prefix: int


@attrs.define(eq=False)
class _Table:
    """Where it lies; where one contradicting line says it lies; of which age of its domain both are."""

    address: int
    other: int | None
    age: int


class Walks:
    """The walk under way, the tables known, and a tally of all that was noted of them."""

    def __init__(self, tally: Tally, emulated: Emulated) -> None:
        self.tally = tally
        self.emulated = emulated
        self.top = min(emulated.top_level, len(_IAS) - 1)
        self.form = arm_lpae(ias=_IAS[self.top], profile=emulated.profile)
        self.beliefs = Beliefs(tally)
        self.tables: dict[_Place, _Table] = {}
        self.places: dict[int, _Place] = {}
        self.ages: dict[int, int] = {}
        self.lookup: Lookup | None = None
        self.depth = 0
        self.windows = Windows(tally, emulated, self.unmapped)

    def do(self, record: Record) -> None:
        """Judge whatever the log says next."""
        if isinstance(record, Step):
            self.step(record)
        elif isinstance(record, Lookup):
            self.lookup, self.depth = record, 0
        elif isinstance(record, Translated):
            self.translated(record)
        elif isinstance(record, LeafWord):
            self.leaf_word(record)
        elif isinstance(record, Command):
            self.ages[record.domain] = self.ages.get(record.domain, 0) + 1

    def leaf_of(self, op: Op, iova: int, prot: int) -> tuple[int, int, int]:
        """Depth, word and address of the leaf."""
        leaf = self.windows.leaf(op, iova, self.form.pgsize_bitmap)
        depth = next(d for d, level in enumerate(self.form.levels) if level.pgsize == leaf.size)
        return depth, self.form.leaf_entry(leaf.output, depth, prot, 0), leaf.output

    def walked(self, kind: str, line: int, recorded: int) -> tuple[Lookup, Op, tuple[int, int, int]] | None:
        """The lookup that this is the walk of, who mapped that, and its leaf; None if that is settled already."""
        lookup = self.lookup
        if lookup is None or lookup.hit or self.depth > len(self.form.levels):
            self.tally.leave("no lookup stands before it")
            return None
        op = self.windows.mapped(kind, line, self.emulated.owners.get(lookup.domain), lookup.iova, recorded)
        prot = None if op is None else self.windows.prot(op)
        return None if op is None or prot is None else (lookup, op, self.leaf_of(op, lookup.iova, prot))

    # -- tables

    def place(self, domain: int, depth: int, iova: int) -> _Place:
        """Which table of that depth an address is looked up in."""
        level = self.form.levels[depth]
        return _Place(domain, depth, iova >> level.shift + level.bits)

    def believed(self, place: _Place, recorded: int) -> int:
        """Where that table lies; the recorded address if it was not known, or if the domain was forgotten since."""
        age = self.ages.get(place.domain, 0)
        table = self.tables.get(place)
        if table is not None and table.age != age and recorded not in {table.address, table.other}:
            self.forget(place)
            table = None
        if table is None:
            if recorded in self.places:
                return -1  # that is another table already
            self.tables[place] = _Table(recorded, None, age)
            self.places[recorded] = place
            return recorded
        table.age = age
        if recorded == table.other:
            self.places.pop(table.address, None)
            self.places[recorded] = place
            table.address = recorded
        table.other = recorded if recorded != table.address else None
        return table.address

    def forget(self, place: _Place) -> None:
        """That table may lie elsewhere from now on, and another where it lay."""
        table = self.tables.pop(place)
        if self.places.get(table.address) == place:
            del self.places[table.address]

    def unmapped(self, owner: str, start: int, stop: int) -> None:
        """Tables whose whole range was unmapped, or taken by a block, may be gone."""
        if stop - start < self.form.levels[-2].pgsize:
            return
        for place in list(self.tables):
            level = self.form.levels[place.depth]
            first = place.prefix << level.shift + level.bits
            covered = start <= first and first + (1 << level.shift + level.bits) <= stop
            if covered and place.depth and self.emulated.owners.get(place.domain) == owner:
                self.forget(place)

    def step(self, record: Step) -> None:
        """Two lines for each entry that is read; the second tells the level."""
        depth = self.depth
        self.depth += record.level >= 0
        walked = self.walked("step", record.line, record.word)
        if walked is None or depth >= len(self.form.levels):
            return
        lookup, op, (end, word, _) = walked
        base, index = self.entry(lookup, depth, record.base)
        if depth < end:
            below = self.believed(self.place(lookup.domain, depth + 1, lookup.iova), record.word & _TABLE_ADDRESS)
            word = self.form.table_entry(below, depth) if below >= 0 else 0
        elif depth == end:
            word = self.beliefs.believe("step", op.line, word, record.word)
        predicted, recorded = [base, index, word], [record.base, record.slot, record.word]
        if record.level >= 0:
            predicted, recorded = [self.top + depth, *predicted], [record.level, *recorded]
        else:
            predicted, recorded = [*predicted, base + 8 * index], [*recorded, record.address]
        self.tally.judge("step", record.line, predicted=_told(predicted), recorded=_told(recorded))

    def entry(self, lookup: Lookup, depth: int, recorded: int) -> tuple[int, int]:
        """The table and the index in it of an address at ``depth``."""
        level = self.form.levels[depth]
        base = self.believed(self.place(lookup.domain, depth, lookup.iova), recorded)
        return base, lookup.iova >> level.shift & (1 << level.bits) - 1

    def leaf_word(self, record: LeafWord) -> None:
        """The line that sums a walk up."""
        walked = self.walked("leaf", record.line, record.word)
        if walked is None:
            return
        lookup, op, (depth, word, output) = walked
        base, index = self.entry(lookup, depth, record.base)
        word = self.beliefs.believe("leaf", op.line, word, record.word)
        output = self.beliefs.believe("page", op.line, output, record.output)
        told = (
            _told([word, self.top + depth, lookup.iova, base, base + 8 * index, output]),
            _told([record.word, record.level, record.iova, record.base, record.address, record.output]),
        )
        self.tally.judge("leaf", record.line, predicted=told[0], recorded=told[1])

    def translated(self, record: Translated) -> None:
        """Where the access went, and what it may do."""
        owner = self.emulated.timeline.owners.get(record.sid)
        op = self.windows.mapped("translation", record.line, owner, record.iova, record.output)
        prot = None if op is None else self.windows.prot(op)
        self.lookup = None
        if op is None or prot is None:
            return
        depth, word, output = self.leaf_of(op, record.iova, prot)
        item = self.form.decode(word, depth)
        allowed = int(item.prot) & _ACCESS if isinstance(item, Leaf) else 0
        output += record.iova & self.form.levels[depth].pgsize - 1
        more = f", perm {allowed:#x}", f", perm {record.perm:#x}"
        self.beliefs.judge("translation", record.line, op.line, output, record.output, more=more)


def _told(numbers: list[int]) -> str:
    return " ".join(f"{number:#x}" if number >= 0 else "another" for number in numbers)
