"""Random calls on a page table small enough that they collide, beside a dict of leaves."""

from itertools import pairwise

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from swiommu.address import Prot
from swiommu.errors import AddressInUse, NoMemory
from swiommu.pagetable import MOCK, CountingTables, LeafRun, Level, RadixTable

PAGE = 0x1000
LEVELS = tuple(Level(shift, 2, can_leaf=True) for shift in (16, 14, 12))
TINY = attrs.evolve(
    MOCK,
    name="tiny",
    levels=LEVELS,
    output_width=20,
)
SIZES = tuple(level.pgsize for level in LEVELS)
PAGES = 64


class TableMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.tables = CountingTables(limit=9)
        self.table = RadixTable(TINY, self.tables)
        self.twin: dict[int, tuple[int, int, Prot]] = {}  # iova of a leaf -> size, output, prot

    def holder(self, iova):
        return next(((at, leaf) for at, leaf in self.twin.items() if at <= iova < at + leaf[0]), None)

    @rule(
        slot=st.integers(0, PAGES - 1),
        output=st.integers(0, 30),
        pgsize=st.sampled_from(SIZES),
        count=st.integers(1, 9),
        prot=st.sampled_from([Prot.READ, Prot.READ | Prot.WRITE]),
        fail=st.none() | st.integers(1, 3),
    )
    def map_run(self, slot, output, pgsize, count, prot, fail):
        iova = slot * PAGE & -pgsize
        count = min(count, (PAGES * PAGE - iova) // pgsize)
        paddr = output * PAGE & -pgsize
        collides = any(self.holder(at) for at in range(iova, iova + count * pgsize, PAGE))
        if fail:
            self.tables.fail_nth(fail)
        pages = self.table.table_pages
        try:
            self.table.map_run(iova, paddr, pgsize, count, prot)
        except AddressInUse:
            assert collides
            assert self.table.table_pages == pages
        except NoMemory:
            assert self.table.table_pages == pages
        else:
            assert not collides
            for i in range(count):
                self.twin[iova + i * pgsize] = (pgsize, paddr + i * pgsize, prot)
        self.tables.fail_nth(0)

    @rule(slot=st.integers(0, PAGES - 1), count=st.integers(1, PAGES))
    def unmap(self, slot, count):
        iova = slot * PAGE
        stop = min(iova + count * PAGE, PAGES * PAGE)
        at, gone = iova, []
        while at < stop and at in self.twin:
            gone.append((at, self.twin.pop(at)[0]))
            at += gone[-1][1]
        runs = self.table.unmap(iova, stop - iova)
        assert [(run.iova + i * run.pgsize, run.pgsize) for run in runs for i in range(run.leaves)] == gone
        assert all(isinstance(run, LeafRun) for run in runs)
        assert all(a.pgsize != b.pgsize for a, b in pairwise(runs))

    @invariant()
    def agrees(self):
        self.table.check()
        for iova in range(0x10, PAGES * PAGE, PAGE):
            held = self.holder(iova)
            wanted = held and (held[1][1] + iova - held[0], held[1][0], held[1][2])
            assert self.table.lookup(iova) == wanted

    @invariant()
    def tables_are_those_that_the_leaves_need(self):
        needed = {(0, 0)}
        for iova, (size, _, _) in self.twin.items():
            for depth in range(1, SIZES.index(size) + 1):
                needed.add((depth, iova // SIZES[depth - 1]))
        assert self.table.table_pages == len(self.tables) == len(needed)
        assert self.table.table_pages <= self.table.table_pages_peak
        assert self.table.leaves == {size: sum(leaf[0] == size for leaf in self.twin.values()) for size in SIZES}

    def teardown(self):
        for iova, (size, _, _) in sorted(self.twin.items()):
            assert self.table.unmap(iova, size) == [LeafRun(iova, size, 1)]
        assert self.table.table_pages == 1
        self.table.close()
        assert len(self.tables) == 0


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
