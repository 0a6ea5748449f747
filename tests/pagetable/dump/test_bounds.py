"""Dumps that were made to be hard: tables within themselves, tables that all lead to all others, budgets."""

import random
import time

import pytest

from swiommu.errors import InvalidArgument, NotFound, OutOfRange
from swiommu.pagetable import MOCK, CountingTables, Leaf, RadixTable
from swiommu.pagetable.dump import MemoryDump, RowKind, decode_dump, dump_table, walk_dump
from swiommu.pagetable.formats import AMD_V1, FORMATS, x86_64

PAGE = 4096


def words(*entries):
    return b"".join(entry.to_bytes(8, "little") for entry in entries).ljust(PAGE, b"\0")


def table(phys):
    return MOCK.table_entry(phys, 0)


def test_a_table_inside_of_itself_is_told_and_not_followed():
    dump = decode_dump(MemoryDump({0x1000: words(*[table(0x1000)] * 512)}), MOCK, 0x1000)
    [row] = dump.top.rows
    assert (row.kind, row.number, row.to, dump.tables) == (RowKind.LOOP, 512, 0x1000, 1)
    assert not dump.top.leaves


def test_a_loop_over_two_tables():
    pieces = {0x1000: words(table(0x2000)), 0x2000: words(0, table(0x1000), table(0x2000))}
    dump = decode_dump(MemoryDump(pieces), MOCK, 0x1000)
    assert [(row.kind, row.to) for row in dump.top.rows[0].below.rows] == [
        (RowKind.LOOP, 0x1000),
        (RowKind.LOOP, 0x2000),
    ]


def test_tables_that_lead_to_each_other_are_read_once_at_a_level():
    count, source = 60, random.Random(1)
    pages = [0x1000 * n for n in range(1, count + 1)]
    pieces = {page: words(*(table(source.choice(pages)) for _ in range(512))) for page in pages}
    begin = time.process_time()
    dump = decode_dump(MemoryDump(pieces), MOCK, pages[0])
    assert time.process_time() - begin < 20  # 512 ** 3 ways would take weeks
    assert dump.tables <= 1 + 3 * count
    assert not dump.exhausted


def test_sizes_of_what_is_told_once_are_products():
    full = words(*(MOCK.leaf_entry(n << 12, 3, 3, 0) for n in range(512)))
    pieces = {0x1000 * n: words(*[table(0x1000 * n + 0x1000)] * 512) for n in (1, 2, 3)} | {0x4000: full}
    dump = decode_dump(MemoryDump(pieces), MOCK, 0x1000)
    assert (dump.tables, dump.top.leaves, dump.mapped) == (4, {PAGE: 512**4}, 1 << 48)
    assert len(dump.top.rows) == 1


def test_the_reading_ends_with_its_budget():
    made = RadixTable(MOCK, CountingTables())
    for n in range(64):
        made.map_run(n << 30, n << 30, PAGE, 1, 3)
    memory = MemoryDump(dump_table(made))
    whole = decode_dump(memory, MOCK, made.root)
    short = decode_dump(memory, MOCK, made.root, most=500)
    assert (whole.exhausted, short.exhausted) == (False, True)
    assert 0 < len(list(short.each_run())) < 64 == len(list(whole.each_run()))
    assert short.top.rows[0].below.rows[-1].kind is RowKind.UNREAD


def test_noise_takes_no_longer_than_its_words():
    source = random.Random(2)
    pieces = {0x1000 * n: source.randbytes(PAGE) for n in range(1, 40)}
    for form in (MOCK, AMD_V1, x86_64()):
        dump = decode_dump(MemoryDump(pieces), form, 0x1000)
        assert dump.tables <= 39 * 6


def test_tables_with_equal_contents_are_one_but_not_if_words_are_untold():
    leaf = MOCK.leaf_entry(0x8000_0000, 1, 3, 0)
    refused = [MOCK.leaf_entry(0x1000, 1, 3, 0), MOCK.leaf_entry(0x2000, 1, 3, 0), MOCK.leaf_entry(0x3000, 1, 3, 0)]
    pieces = {
        0x1000: words(table(0x2000), 0, table(0x3000), 0, table(0x4000), 0, table(0x5000)),
        0x2000: words(leaf & -(1 << 30) | 0xF),
        0x3000: words(leaf & -(1 << 30) | 0xF),
        0x4000: words(refused[0], refused[1]),
        0x5000: words(refused[0], refused[2]),
    }
    rows = decode_dump(MemoryDump(pieces), MOCK, 0x1000).top.rows
    assert rows[0].below is rows[1].below
    assert rows[2].below is not rows[3].below
    assert [row.to for row in rows] == [0x2000, 0x3000, 0x4000, 0x5000]


def test_a_run_ends_where_the_upper_half_begins():
    form = x86_64()
    pieces = {0x1000: words(*[form.table_entry(0x2000, 0)] * 512), 0x2000: words(form.leaf_entry(0, 1, 3, 0))}
    dump = decode_dump(MemoryDump(pieces), form, 0x1000)
    assert [(row.offset, row.number) for row in dump.top.rows] == [(0, 256), (1 << 47, 256)]


def test_what_a_table_entry_withholds_is_withheld_below():
    form = x86_64()
    read_only = form.table_entry(0x2000, 0) & ~2
    pieces = {0x1000: words(read_only, form.table_entry(0x2000, 0)), 0x2000: words(form.leaf_entry(0, 1, 3, 0))}
    dump = decode_dump(MemoryDump(pieces), form, 0x1000)
    first, second = (run.prot for _, run in dump.each_run())
    assert (first & 3, second & 3) == (1, 3)
    assert walk_dump(MemoryDump(pieces), form, 0x1000, 0).outcome.prot == first


@pytest.mark.parametrize(
    ("root", "levels", "error", "text"),
    [
        (0x1008, None, InvalidArgument, "the root 0x1008 is not aligned to its 0x1000 bytes"),
        (-0x1000, None, InvalidArgument, "the root -0x1000 is not aligned to its 0x1000 bytes"),
        (0x1000, 5, InvalidArgument, "format 'mock' has 1 to 4 levels, not 5"),
        (0x1000, 0, InvalidArgument, "format 'mock' has 1 to 4 levels, not 0"),
        (0x2000, None, NotFound, "the root, 0x1000 bytes at 0x2000, is not all in the dump"),
    ],
)
def test_refused(root, levels, error, text):
    memory = MemoryDump({0x1000: bytes(PAGE), 0x2000: bytes(PAGE - 1)})
    for call in (
        lambda: decode_dump(memory, MOCK, root, levels=levels),
        lambda: walk_dump(memory, MOCK, root, 0, levels=levels),
    ):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == text


def test_an_address_that_is_no_input():
    with pytest.raises(OutOfRange) as caught:
        walk_dump(MemoryDump({0: bytes(PAGE)}), MOCK, 0, 1 << 48)
    assert str(caught.value) == "0x1000000000000 is beyond the 48-bit input of format 'mock'"


def test_a_root_of_fewer_levels():
    made = RadixTable(AMD_V1, CountingTables())
    made.map_run(0x1000, 0x8000_0000, PAGE, 2, 3)
    made.map_run(1 << 50, 0x9000_0000, PAGE, 1, 3)  # it grows
    levels = len(AMD_V1.levels) - made.root_depth
    memory = MemoryDump(dump_table(made))
    assert levels == 5
    assert [iova for iova, _ in decode_dump(memory, AMD_V1, made.root, levels=levels).each_run()] == [0x1000, 1 << 50]
    inner = made.nodes.by_depth[3][0].phys
    assert [iova for iova, _ in decode_dump(memory, AMD_V1, inner, levels=3).each_run()] == [0x1000]
    beyond = walk_dump(memory, AMD_V1, inner, 1 << 50, levels=3)
    assert (beyond.steps, beyond.output) == ((), None)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ({0: bytes(16), 8: bytes(8)}, "two pieces of the dump hold 0x8"),
        ({(1 << 64) - 8: bytes(16)}, "0x10 bytes at 0xfffffffffffffff8 leave the addresses from 0 to 2**64 - 1"),
        ({-8: bytes(8)}, "0x8 bytes at -0x8 leave the addresses from 0 to 2**64 - 1"),
    ],
)
def test_pieces_that_are_no_memory(pieces, text):
    with pytest.raises(InvalidArgument) as caught:
        MemoryDump(pieces)
    assert str(caught.value) == text


def test_a_table_over_several_pieces_is_one():
    memory = MemoryDump({0x800: bytes(range(8)) * 2, 0x810: b"\xff" * 8, 0x820: b"\1" * 8})
    assert memory.words(0x808, 2).tolist() == [int.from_bytes(bytes(range(8)), "little"), (1 << 64) - 1]
    assert memory.words(0x810, 2) is None
    assert (memory.word(0x820), memory.word(0x7F8), memory.word(0x824)) == (0x0101010101010101, None, None)


@pytest.mark.parametrize("gone", [0, 1])
@pytest.mark.parametrize("form", [FORMATS["amd-v1"], FORMATS["riscv-sv48-napot"]], ids=lambda form: form.name)
def test_a_leaf_of_many_entries_of_which_one_differs_is_told_in_parts(form, gone):
    depth = len(form.levels) - 1
    pgsize = form.levels[depth].sizes[form.levels[depth].orders[-1]]
    table = RadixTable(form, CountingTables())
    base = 0x20_0000 - pgsize  # the last one of a table
    table.map_run(base, pgsize, pgsize, 1, 3)
    table.nodes.by_depth[depth][0].words[512 - (pgsize >> 12) + gone] = 0
    memory = MemoryDump(dump_table(table))
    found = list(decode_dump(memory, form, table.root).each_run())
    parts = [(0, 1), (2, pgsize >> 12)] if gone else [(1, pgsize >> 12)]
    assert [(iova - base, run.to - pgsize, run.size) for iova, run in found] == [
        (first << 12, first << 12, stop - first << 12) for first, stop in parts
    ]
    assert {run.why for _, run in found} == {f"part of a page of {pgsize:#x} bytes whose other words differ"}
    assert isinstance(walk_dump(memory, form, table.root, base + 0x2000).outcome, Leaf)
