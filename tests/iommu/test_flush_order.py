"""What comes first: bus addresses and table pages go back only after the invalidation that covers them (A.6, A.7, A.9).

The order is seen from outside: what the policy, the table memory and the flushes of a domain were told, one behind the
other, whatever its format.
"""

from itertools import pairwise

import pytest

from swiommu.address import BusSpace, PhysRange, PhysSpace, Prot
from swiommu.errors import AlreadyMapped, NoMemory, NoSpace
from swiommu.iommu import PagedDomain, TopDownIova
from swiommu.iommu.deferred_tables import DeferredTables
from swiommu.memory import Frames
from swiommu.pagetable import CountingTables, RadixTable
from swiommu.pagetable.formats import AMD_V1, MOCK, amd_v1, arm_lpae, riscv, vtd_ss, x86_64

RW = Prot.READ | Prot.WRITE
K4, M2 = 1 << 12, 1 << 21
OLD_ARM, NEW_ARM, NEW_VTD = arm_lpae(), arm_lpae(profile="7.3"), vtd_ss(profile="7.3")
FORMS = [MOCK, vtd_ss(), NEW_VTD, AMD_V1, amd_v1(profile="7.3"), x86_64(), riscv(), OLD_ARM, NEW_ARM]


def of(forms):
    return pytest.mark.parametrize("form", forms, ids=lambda form: f"{form.name} {form.rules.name}")


every_form, keeping = of(FORMS), of([form for form in FORMS if form.rules.keeps_empty])


class Tables(CountingTables):
    def __init__(self, told):
        super().__init__()
        self.told = told

    def free(self, phys):
        self.told.append(("table", phys))
        super().free(phys)


class Iova(TopDownIova):
    def __init__(self, told, last):
        super().__init__(K4, last)
        self.told = told

    def free(self, iova, size):
        self.told.append(("iova", iova, iova + size - 1))
        super().free(iova, size)


class World:
    """A domain of which every flush and everything given back is noted, in order."""

    def __init__(self, form, **options):
        self.told = []
        self.ram, self.bus = PhysSpace("ram", width=64), BusSpace("bus", width=40)
        self.tables = Tables(self.told)
        self.domain = PagedDomain(
            self.bus,
            frames=Frames(self.ram.at(0x4000_0000), 64 << 20),
            output_space=self.ram,
            format=form,
            tables=self.tables,
            iova=Iova(self.told, (1 << min(form.aperture_width, 39)) - 1),
            **options,
        )
        invalidation = self.domain.mapper.invalidation
        plain, whole = invalidation.flush_range, invalidation.flush_all
        invalidation.flush_range = lambda start, last: (
            self.told.append(("flush", start, last)),
            plain(start, last),
        )
        queue = self.domain.flush_queue
        if queue is not None:
            queue._flush = lambda now: (self.told.append(("flush", 0, (1 << 64) - 1)), whole(now))

    def map(self, iova, paddr, size):
        self.domain.map(self.bus.at(iova), self.ram.at(paddr), size)

    def unmap(self, iova, size):
        return self.domain.unmap(self.bus.at(iova), size)

    def kinds(self):
        """What was told since the last time, without repetitions."""
        told = [each[0] for each in self.told]
        self.told.clear()
        return [kind for kind, before in zip(told, [None, *told], strict=False) if kind != before]


def emptied_table(form):
    """2 MiB of pages behind which a table goes when they are unmapped."""
    world = World(form)
    world.map(M2, 0x4000_1000, M2)
    return world


@every_form
def test_an_unmap_flushes_first(form):
    world = emptied_table(form)
    assert world.unmap(M2, M2) == M2
    assert world.told[0] == ("flush", M2, 2 * M2 - 1)
    assert world.kinds() == ["flush", "iova", "table"]
    assert (world.domain.stats.invalidations, len(world.domain.mapper.invalidation.tables)) == (1, 0)
    world.domain.check()


@every_form
def test_a_release_flushes_first(form):
    world = World(form)
    mapping = world.domain.alloc(4 * M2)
    world.domain.release(mapping)
    assert world.told[0] == ("flush", mapping.iova.start.value, mapping.iova.stop - 1)
    assert world.kinds()[:2] == ["flush", "iova"]


@every_form
def test_lazily_nothing_goes_before_everything_was_flushed(form):
    world = World(form, flush="lazy")
    world.map(M2, 0x4000_1000, M2)
    world.map(2 * M2, 0x4000_0000, M2)  # leaves of two sizes, which a strict unmap may have to flush apart
    pages = world.domain.stats.table_pages
    assert world.unmap(M2, 2 * M2) == 2 * M2
    assert (world.told, world.domain.stats.table_pages) == ([], pages)
    world.domain.check()
    world.domain.advance(16_000_000)
    assert world.kinds() == ["flush", "iova", "table"]
    assert world.domain.stats.table_pages < pages
    world.domain.check()


@every_form
def test_of_several_unmaps_nothing_goes_before_their_one_flush(form):
    world = emptied_table(form)
    world.map(4 * M2, 0x5000_1000, M2)
    pages = world.domain.stats.table_pages
    gather = world.domain.gather()
    for at in (M2, 4 * M2):
        assert world.domain.unmap_gathered(world.bus.at(at), M2, gather) == M2
    told = world.kinds()
    assert (told or ["flush"])[0] == "flush", "what is apart may be flushed on the way"
    if form.rules.gathers == "range":
        assert (told, world.domain.stats.table_pages) == ([], pages)
    gather.sync()
    assert world.kinds() == [*["flush", "iova", "table"], *["iova", "table"] * (not told)]
    gather.sync()
    assert world.kinds() == []
    world.domain.check()


@pytest.mark.parametrize("flush", ["strict", "lazy"])
@keeping
def test_what_a_failed_map_takes_away_is_flushed_first(form, flush):
    """A table that an earlier unmap left behind, empty, is filled and taken away again: a walk may be in it."""

    def pieces(world):
        return [PhysRange(world.ram.at(0x7000_1000), M2), PhysRange(world.ram.at(0x7800_0000), K4)]

    trial = World(form)
    at = trial.domain.bind(pieces(trial)).iova.start.value
    world = World(form, flush=flush)
    world.map(at, 0x4000_0000, K4)
    assert world.unmap(at, K4) == K4
    world.domain.flush()
    world.kinds()
    pages = world.domain.stats.table_pages
    world.tables.fail_nth(1)
    with pytest.raises(NoMemory):
        world.domain.bind(pieces(world))
    assert world.told[0] == ("flush", at, at + M2 - 1)
    assert world.kinds() == ["flush", "table", "iova"]
    assert world.domain.stats.table_pages == len(world.tables) < pages
    world.domain.check()


@pytest.mark.parametrize("flush", ["strict", "lazy"])
@keeping
def test_a_table_that_a_large_leaf_replaces_is_flushed_first(form, flush):
    world = World(form, flush=flush)
    for n in (1, 2):
        world.map(n * M2 + K4, 0x4000_0000, K4)
        assert world.unmap(n * M2 + K4, K4) == K4
    world.domain.flush()
    world.kinds()
    world.map(M2, 0x4000_0000, 2 * M2)
    assert world.told[0] == ("flush", M2, 3 * M2 - 1)
    assert world.kinds() == ["flush", "table"]
    world.domain.check()


@pytest.mark.parametrize("form", [OLD_ARM, NEW_ARM], ids=["6.12", "7.3"])
def test_pages_replaced_by_a_map_that_fails_are_flushed_too(form):
    world = World(form)
    world.map(M2 + K4, 0x4000_0000, K4)
    pages = world.domain.stats.table_pages
    world.tables.fail_nth(1)  # the table behind the large leaves
    with pytest.raises(NoMemory):
        world.map(M2, 0x4000_0000, (1 << 30) - M2 + K4)
    assert ("flush", M2, 2 * M2 - 1) in world.told
    assert world.kinds()[0] == "flush"
    assert world.domain.stats.table_pages == pages - 1
    world.domain.check()


def test_an_empty_table_that_goes_holds_no_bus_addresses():
    world = World(OLD_ARM)
    world.map(M2, 0x4000_0000, K4)
    assert (world.unmap(M2, K4), world.kinds()) == (K4, ["flush", "iova"])
    assert world.unmap(M2, M2) == M2, "holes count"
    assert world.kinds() == ["flush", "table"]
    world.domain.check()
    world.domain.destroy()


@pytest.mark.parametrize("form", [OLD_ARM, NEW_ARM], ids=["6.12", "7.3"])
def test_only_what_was_mapped_gives_bus_addresses_back(form):
    world = World(form)
    for page in (0, 2, 3, 511):
        world.map(M2 + page * K4, 0x4000_0000, K4)
    assert world.unmap(M2, 3 * K4) == K4, "stopped by a hole"
    assert world.told == [("flush", M2, M2 + K4 - 1), ("iova", M2, M2 + K4 - 1)]
    world.told.clear()
    assert world.unmap(M2, M2) == M2
    assert [each[1:] for each in world.told if each[0] == "iova"] == [
        (M2 + 2 * K4, M2 + 4 * K4 - 1),
        (2 * M2 - K4, 2 * M2 - 1),
    ]
    world.domain.check()


@of([form for form in FORMS if form.rules.short_unmap == "whole"])
def test_a_leaf_that_goes_whole_is_flushed_whole(form):
    world = World(form)
    world.map(M2, 0x4000_0000, 2 * M2)
    assert world.unmap(M2, M2 + K4) == 2 * M2
    flushed = [each[1:] for each in world.told if each[0] == "flush"]
    assert (flushed[0][0], flushed[-1][1]) == (M2, 3 * M2 - 1)
    assert all(last + 1 == start for (_, last), (start, _) in pairwise(flushed))
    world.domain.check()


def test_a_map_that_can_not_have_all_its_bus_addresses_takes_none():
    world = World(OLD_ARM)
    world.map(M2 + K4, 0x4000_0000, K4)
    world.domain.iova.take(M2 + 8 * K4, K4)
    with pytest.raises(AlreadyMapped):
        world.map(M2, 0x4000_0000, M2)
    assert world.told == [("iova", M2, M2 + K4 - 1)]
    assert world.unmap(M2 + K4, K4) == K4


def test_a_block_that_is_refused_keeps_its_bus_addresses():
    world = World(NEW_ARM)
    world.map(M2 - K4, 0x4000_0000 - K4, K4 + M2)
    assert world.unmap(M2 - K4, 2 * K4) == K4
    assert world.told == [("flush", M2 - K4, M2 - 1), ("iova", M2 - K4, M2 - 1)]


@every_form
def test_a_short_unmap_flushes_what_went(form):
    world = World(form)
    world.map(M2, 0x4000_1000, 2 * K4)
    if not form.rules.drops_tables:
        assert world.unmap(M2, M2 + K4) == 2 * K4
        assert [each for each in world.told if each[0] == "flush"] == [("flush", M2, M2 + 2 * K4 - 1)]
    else:
        assert world.unmap(M2, M2 + K4) == M2, "with the table, which is flushed as a whole"
        assert world.told[0] == ("flush", M2, 2 * M2 - 1)


@pytest.mark.parametrize("flush", ["strict", "lazy"])
def test_a_map_on_hardware_that_remembers_holes_is_flushed_once_and_whole(flush):
    world = World(vtd_ss(), caching_mode=True, flush=flush)
    world.map(M2 - K4, 0x4000_0000 - K4, M2 + K4)
    assert world.told == [("flush", M2 - K4, 2 * M2 - 1)]


class NoRoom(CountingTables):
    """Tables in a stack: what runs out first may be the bus addresses below."""

    full = False

    def alloc(self, size=4096):
        if self.full:
            raise NoSpace("no bus addresses below")
        return super().alloc(size)


def test_a_split_for_which_no_address_is_left_below_ends_the_unmap():
    tables = NoRoom()
    table = RadixTable(OLD_ARM, tables)
    table.map_run(M2 - K4, 0, K4, 1, RW)
    table.map_run(M2, 0, M2, 1, RW)
    tables.full = True
    assert [(run.iova, run.size) for run in table.unmap(M2 - K4, 2 * K4)] == [(M2 - K4, K4)], "and tells what went"
    table.check()


@every_form
def test_a_release_does_not_look_at_every_page_that_is_gone(form):
    world = World(form)
    mapping = world.domain.bind([PhysRange(world.ram.at(0x7000_1000), 4 * M2)])
    start = mapping.iova.start.value
    assert world.unmap(start, M2) == M2
    assert world.unmap(start + 2 * M2 + K4, K4) == K4
    calls, plain = [], world.domain.table.remove
    world.domain.table.remove = lambda iova, *asked, **named: (calls.append(iova), plain(iova, *asked, **named))[1]
    world.domain.release(mapping)
    assert len(calls) <= 4
    assert sum(world.domain.table.leaves.values()) == 0
    world.domain.check()


@every_form
def test_what_is_mapped_is_found_table_by_table(form):
    table = RadixTable(form, CountingTables())
    table.map_run(M2 + 3 * K4, 0, K4, 700, RW)
    table.map_run(8 * M2, 0, M2, 2, RW)
    asked, plain = [], table.nodes.deepest
    table.nodes.deepest = lambda at: (asked.append(at), plain(at))[1]
    assert list(table.mapped(0, 1 << 30)) == [(M2 + 3 * K4, M2 + 703 * K4), (8 * M2, 10 * M2)]
    assert len(asked) <= 12


def test_pages_of_large_tables_wait_one_by_one():
    tables = DeferredTables(CountingTables())
    small, large = tables.alloc(), tables.alloc(1 << 16)
    tables.free(small)
    tables.free(large)
    assert len(tables) == 17
    tables.free_now(tables.collect())
    assert len(tables) == 0


@every_form
def test_lazily_leaves_of_two_sizes_are_not_flushed_apart(form):
    world = World(form, flush="lazy")
    world.map(M2 + K4, 0x4000_0000, M2 - K4)
    world.map(2 * M2, 0x5000_0000, M2)
    assert world.unmap(M2 + K4, 2 * M2 - K4) == 2 * M2 - K4
    assert world.told == []
