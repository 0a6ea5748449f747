"""The walker, blind to the format: every test runs on every one, at every level that can hold leaves."""

import struct

import attrs
import pytest

from swiommu.address import Prot
from swiommu.errors import AddressInUse, AddressOverflow, Busy, InvalidArgument, NoMemory, NotFound, OutOfRange
from swiommu.pagetable import EMPTY, MOCK, CountingTables, Leaf, LeafRun, Level, RadixTable

RW = Prot.READ | Prot.WRITE
_TINY_LEVELS = tuple(Level(shift, 2, can_leaf=True) for shift in (16, 14, 12))
TINY = attrs.evolve(
    MOCK,
    name="tiny",
    levels=_TINY_LEVELS,
    output_width=20,
)
FORMATS = [MOCK, TINY]
LEAVES = [(fmt, depth) for fmt in FORMATS for depth, level in enumerate(fmt.levels) if level.can_leaf]


def leaf_id(value):
    return f"{value[0].name}-{value[0].levels[value[1]].pgsize:#x}"


@pytest.fixture(params=LEAVES, ids=leaf_id)
def world(request):
    """A fresh table, and the page size under test."""
    fmt, depth = request.param
    return RadixTable(fmt, CountingTables()), fmt.levels[depth].pgsize, depth


@pytest.fixture(params=FORMATS, ids=lambda f: f.name)
def table(request):
    return RadixTable(request.param, CountingTables())


def test_map_lookup_unmap(world):
    table, pgsize, depth = world
    table.map_run(pgsize, 2 * pgsize, pgsize, 2, RW)
    table.check()
    assert table.leaves[pgsize] == 2
    assert table.lookup(0) is None
    assert table.lookup(pgsize + 5) == (2 * pgsize + 5, pgsize, RW)
    assert table.lookup(3 * pgsize - 1) == (4 * pgsize - 1, pgsize, RW)
    assert table.table_pages == depth + 1
    assert table.walk_refs[pgsize] == len(table.walk(pgsize).steps) == depth + 1
    assert table.unmap(pgsize, 2 * pgsize) == [LeafRun(pgsize, pgsize, 2)]
    assert (table.table_pages, table.table_pages_peak, table.leaves[pgsize]) == (1, depth + 1, 0)
    table.check()


@pytest.mark.parametrize("world", [leaf for leaf in LEAVES if leaf[1]], ids=leaf_id, indirect=True)
def test_a_run_over_the_border_of_tables(world):
    table, pgsize, depth = world
    entries = 1 << table.format.levels[depth].bits
    first = (entries - 1) * pgsize
    table.map_run(first, 0, pgsize, 3, RW)
    table.check()
    assert [table.lookup(first + i * pgsize)[0] for i in range(3)] == [0, pgsize, 2 * pgsize]
    assert table.unmap(first, 3 * pgsize) == [LeafRun(first, pgsize, 3)]
    assert table.table_pages == 1


def test_the_last_byte_of_the_input(world):
    table, pgsize, _ = world
    last = (1 << table.format.input_width) - pgsize
    table.map_run(last, 0, pgsize, 1, Prot.READ)
    assert table.lookup(last + pgsize - 1) == (pgsize - 1, pgsize, Prot.READ)
    assert table.unmap(last, pgsize) == [LeafRun(last, pgsize, 1)]


def test_a_walk_names_every_reference(table):
    granule = table.granule
    table.map_run(granule, 0, granule, 1, Prot.WRITE)
    steps, outcome, pgsize = table.walk(granule + 1)
    assert (outcome, pgsize) == (Leaf(0, Prot.WRITE), granule)
    assert steps[0].table == table.root
    assert [step.depth for step in steps] == list(range(len(table.format.levels)))
    for step in steps:
        words = struct.unpack("<512Q", table.dump_bytes(step.table))
        assert words[step.slot] == step.entry
        assert sum(map(bool, words)) == 1
    assert table.walk(0).outcome == EMPTY
    with pytest.raises(NotFound):
        table.dump_bytes(0x123)


def test_live_leaves_are_never_overwritten(world):
    table, pgsize, _ = world
    table.map_run(pgsize, 0, pgsize, 1, RW)
    for count in (1, 2):
        with pytest.raises(AddressInUse) as caught:
            table.map_run((2 - count) * pgsize, 0, pgsize, count, RW)
        assert str(caught.value) == f"a live leaf of {pgsize:#x} bytes is at {pgsize:#x}"
        assert table.leaves[pgsize] == 1
        table.check()


def test_a_large_leaf_over_small_ones_and_under(table):
    small, large = sorted(table.leaves)[:2]
    table.map_run(0, 0, small, 1, RW)
    with pytest.raises(AddressInUse) as caught:
        table.map_run(0, 0, large, 1, RW)
    assert str(caught.value) == "a table of smaller live leaves is at 0x0"
    table.unmap(0, small)
    table.map_run(0, 0, large, 1, RW)  # the emptied table is out of the way
    with pytest.raises(AddressInUse) as caught:
        table.map_run(large - small, 0, small, 1, RW)
    assert str(caught.value) == f"a live leaf of {large:#x} bytes is at 0x0"
    table.check()


def test_a_failure_in_the_middle_takes_all_back(table):
    small = table.granule
    entries = 1 << table.format.levels[-1].bits
    table.map_run(2 * entries * small, 0, small, 1, RW)
    pages = table.table_pages
    with pytest.raises(AddressInUse):
        table.map_run(0, 0, small, 2 * entries + 1, RW)
    assert (table.table_pages, table.leaves[small]) == (pages, 1)
    assert table.lookup(0) is None
    table.check()


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.name)
def test_no_table_page_at_any_call_leaves_nothing_behind(fmt):
    small, count = fmt.levels[-1].pgsize, 3 << fmt.levels[-1].bits
    failures = 0
    while True:
        tables = CountingTables()
        table = RadixTable(fmt, tables)
        tables.fail_nth(failures + 1)
        try:
            table.map_run(0, 0, small, count, RW)
        except NoMemory:
            failures += 1
            assert (len(tables), table.table_pages, table.leaves[small]) == (1, 1, 0)
            table.check()
        else:
            break
    assert failures == table.table_pages - 1 == len(fmt.levels) - 2 + 3


def test_unmap_stops_at_a_hole(table):
    small = table.granule
    table.map_run(0, 0, small, 2, RW)
    table.map_run(3 * small, 0, small, 1, RW)
    assert table.unmap(0, 4 * small) == [LeafRun(0, small, 2)]
    assert table.unmap(0, 4 * small) == []
    assert table.leaves[small] == 1


def test_unmap_and_a_large_leaf(table):
    small, large = sorted(table.leaves)[:2]
    table.map_run(large, large, large, 2, RW)
    table.map_run(large - small, 0, small, 1, RW)
    assert table.unmap(large + small, small) == []  # from its middle: nothing
    assert table.unmap(large - small, 2 * small) == [LeafRun(large - small, small, 1), LeafRun(large, large, 1)]
    assert table.unmap(2 * large, small) == [LeafRun(2 * large, large, 1)]  # from its first byte: all of it
    assert table.table_pages == 1
    table.check()


def test_unmap_stops_where_leaves_change_to_tables_and_goes_on_below(table):
    small, large = sorted(table.leaves)[:2]
    per = large // small
    table.map_run(0, 0, large, 1, RW)
    table.map_run(large, 0, small, per, RW)
    table.map_run(2 * large, 0, large, 1, RW)
    assert table.unmap(0, 3 * large) == [LeafRun(0, large, 1), LeafRun(large, small, per), LeafRun(2 * large, large, 1)]
    assert table.table_pages == 1
    table.check()


DOOR = [
    ((0, 0, 0x1000, 0, RW), InvalidArgument, "a range of 0 bytes at 0x0: at least 4096 are needed"),
    ((0, 0, 0x2000, 1, RW), InvalidArgument, "format 'mock' has no leaf of 0x2000 bytes"),
    ((0x800, 0, 0x1000, 1, RW), InvalidArgument, "0x1000 bytes at 0x800 are not aligned to the page size 0x1000"),
    ((0, 0x1000, 0x200000, 1, RW), InvalidArgument, "output 0x1000 is not aligned to the page size 0x200000"),
    ((0, 0, 0x1000, 1, 0), InvalidArgument, "protection 0x0: READ or WRITE is needed, no bit above PRIV exists"),
    ((0, 0, 0x1000, 1, 0x43), InvalidArgument, "protection 0x43: READ or WRITE is needed, no bit above PRIV exists"),
    (((1 << 64) - 0x1000, 0, 0x1000, 2, RW), AddressOverflow, "0x2000 bytes at 0xfffffffffffff000 wrap around 64 bits"),
    ((-0x1000, 0, 0x1000, 2, RW), AddressOverflow, "0x2000 bytes at -0x1000 wrap around 64 bits"),
    (
        ((1 << 48) - 0x1000, 0, 0x1000, 2, RW),
        OutOfRange,
        "0x2000 bytes at 0xfffffffff000 leave the 48-bit input of format 'mock'",
    ),
    (
        (0, (1 << 52) - 0x1000, 0x1000, 2, RW),
        OutOfRange,
        "0x2000 bytes at output 0xffffffffff000 leave the 52-bit output of format 'mock'",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), DOOR, ids=[text[:40] for _, _, text in DOOR])
def test_the_door(call, error, text):
    table = RadixTable(MOCK, CountingTables())
    with pytest.raises(error) as caught:
        table.map_run(*call)
    assert (type(caught.value), str(caught.value)) == (error, text)
    assert table.table_pages == 1


def test_the_door_of_unmap_and_walk():
    table = RadixTable(MOCK, CountingTables())
    for iova, size in ((0, 0), (0x800, 0x1000), (0, 0x800)):
        with pytest.raises(InvalidArgument):
            table.unmap(iova, size)
    with pytest.raises(OutOfRange):
        table.unmap(1 << 48, 0x1000)
    for iova in (1 << 48, -1):
        with pytest.raises(OutOfRange) as caught:
            table.walk(iova)
        assert str(caught.value) == f"{iova:#x} is beyond the 48-bit input of format 'mock'"


def test_close_gives_the_root_back_once_nothing_lives():
    tables = CountingTables()
    table = RadixTable(MOCK, tables)
    table.map_run(0, 0, 0x1000, 2, RW)
    with pytest.raises(Busy) as caught:
        table.close()
    assert str(caught.value) == "a table with 2 live leaves can't be closed"
    table.unmap(0, 0x2000)
    table.close()
    assert len(tables) == table.table_pages == 0


@pytest.mark.parametrize("falsify", ["clear a leaf", "add a leaf", "move a table", "count"])
def test_check_finds_what_is_falsified(falsify):
    table = RadixTable(MOCK, CountingTables())
    table.map_run(0, 0, 0x1000, 3, RW)
    table.check()
    steps = table.walk(0).steps
    entries = table.nodes.memory.entries(steps[-1].table)
    if falsify == "clear a leaf":
        entries[1] = 0
    elif falsify == "add a leaf":
        entries[9] = MOCK.leaf_entry(0, 3, RW, 0)
    elif falsify == "move a table":
        table.nodes.memory.entries(steps[1].table)[0] = MOCK.table_entry(steps[0].table, 1)
    else:
        table.leaves[0x1000] += 1
    with pytest.raises(AssertionError):
        table.check()


def test_a_table_that_was_dissolved_counts_no_leaves(table):
    for size in table.leaves:
        table.map_run(2 * size, 0, size, 2, RW)
    assert set(table.leaves.values()) == {2}
    table.dissolve()
    assert set(table.leaves.values()) == {0}
