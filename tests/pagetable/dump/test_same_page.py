"""Leaves that all lead to one page, as with a page of zeros, are one row, and say so."""

from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import Prot
from swiommu.answers.table import explain_table
from swiommu.pagetable import MOCK, CountingTables, RadixTable
from swiommu.pagetable.dump import DumpRow, MemoryDump, RowKind, decode_dump, dump_table
from swiommu.pagetable.dump.rows import append_row
from swiommu.pagetable.formats import amd_v1, format_named, x86_64
from swiommu.report.table import table_text

K4, M2, ZERO = 1 << 12, 1 << 21, 0x97000
R, RW = Prot.READ, Prot.READ | Prot.WRITE


def words(*entries):
    return b"".join(entry.to_bytes(8, "little") for entry in entries).ljust(K4, b"\0")


def leaf(to, depth=3, prot=R):
    return MOCK.leaf_entry(to, depth, prot, 0)


def rows(*entries):
    pieces = {0x1000 * n: words(MOCK.table_entry(0x1000 * n + 0x1000, 0)) for n in (1, 2, 3)} | {
        0x4000: words(*entries)
    }
    dump = decode_dump(MemoryDump(pieces), MOCK, 0x1000)
    return [(row.offset >> 12, row.number, row.to, row.prot, row.advances) for _, row in dump.each_run()]


def test_sixteen_leaves_are_one_line():
    table = RadixTable(MOCK, CountingTables())
    for n in range(16, 32):
        table.map_run(n * K4, ZERO, K4, 1, R)
    answer = explain_table(MemoryDump(dump_table(table)), MOCK, table.root)
    assert table_text(answer).splitlines()[-1].strip() == "0x10000-0x1ffff -> 0x97000  16 x 4K R, all the same page"
    [row] = answer.to_json()["tables"][-1]["rows"]
    assert (row["number"], row["to"], row["advances"]) == (16, "0x97000", False)
    assert answer.to_json()["tables"][0]["rows"][0]["advances"] is None
    assert answer.dump.mapped == 16 * K4


def test_what_goes_on_and_what_stays_are_two():
    assert rows(leaf(ZERO), leaf(ZERO + K4), leaf(ZERO + K4), leaf(ZERO + K4), leaf(ZERO + 2 * K4)) == [
        (0, 2, ZERO, R, True),
        (2, 2, ZERO + K4, R, False),
        (4, 1, ZERO + 2 * K4, R, True),
    ]
    assert rows(leaf(ZERO), leaf(ZERO), leaf(ZERO + 2 * K4)) == [(0, 2, ZERO, R, False), (2, 1, ZERO + 2 * K4, R, True)]


def test_a_hole_and_a_protection_part_them():
    assert rows(leaf(ZERO), leaf(ZERO), 0, leaf(ZERO), leaf(ZERO, prot=RW)) == [
        (0, 2, ZERO, R, False),
        (3, 1, ZERO, R, True),
        (4, 1, ZERO, RW, True),
    ]


def test_what_hardware_marked_is_the_same_all_the_same():
    form = x86_64()
    word = form.leaf_entry(ZERO, 3, int(RW), 0)
    accessed = [word & ~0x60 | bits for bits in (0, 0x20, 0x60, 0x60)]
    pieces = {0x1000 * n: words(form.table_entry(0x1000 * n + 0x1000, 0)) for n in (1, 2, 3)} | {
        0x4000: words(*accessed)
    }
    [(_, row)] = decode_dump(MemoryDump(pieces), form, 0x1000).each_run()
    assert (row.number, row.to, row.advances) == (4, ZERO, False)


def tables_of_zeros(*order):
    """A table of 2 MiB each whose first entries lead to full tables, by their numbers."""
    pieces = {0x1000: words(MOCK.table_entry(0x2000, 0)), 0x2000: words(MOCK.table_entry(0x3000, 1))}
    pieces[0x3000] = words(*(MOCK.table_entry(0x4000 + K4 * n, 2) for n in order))
    pieces |= {0x4000 + K4 * n: words(*[leaf(ZERO)] * 512) for n in order}
    return explain_table(MemoryDump(pieces), MOCK, 0x1000)


def test_tables_full_of_them_are_counted():
    answer = tables_of_zeros(0, 1, 2)
    text = "0x0-0x5fffff -> 0x97000  1,536 x 4K R, all the same page, in 3 tables, the first 0x4000"
    assert " ".join(table_text(answer).split()).endswith(" ".join(text.split()))
    assert answer.dump.top.leaves == {K4: 1536}


def test_one_table_met_often_is_one_table():
    answer = tables_of_zeros(*[0] * 512)
    assert table_text(answer).splitlines()[-2:] == [
        "    0x0-0x3fffffff: 512 x table 0x4000, the first:",
        "      0x0-0x1fffff -> 0x97000  512 x 4K R, all the same page",
    ]
    assert len(list(answer.dump.each_run())) == 512
    assert answer.dump.top.leaves == {K4: 512 * 512}


def test_a_run_ends_where_the_upper_half_begins():
    form = x86_64(levels=4)
    memory = MemoryDump(
        {0x1000: words(*[form.table_entry(0x2000, 0)] * 512), 0x2000: words(*[form.leaf_entry(0, 1, 3, 0)] * 512)}
    )
    dump = decode_dump(memory, form, 0x1000)
    assert [(row.offset, row.number) for row in dump.top.rows] == [(0, 256), (1 << 47, 256)]
    assert {(row.number, row.advances) for _, row in dump.each_run()} == {(512, False)}
    sv39 = format_named("riscv-sv39")
    memory = MemoryDump({0x1000: words(*[sv39.leaf_entry(0, 0, 3, 0)] * 512)})
    assert [(iova, row.number) for iova, row in decode_dump(memory, sv39, 0x1000).each_run()] == [
        (0, 256),
        ((1 << 64) - (1 << 38), 256),
    ]


def test_large_leaves_of_many_entries():
    table = RadixTable(amd_v1(), CountingTables())
    for n in range(3):
        table.map_run(n << 16, 0x10_0000, 1 << 16, 1, RW)
    dump = decode_dump(MemoryDump(dump_table(table)), table.format, table.root, levels=3)
    assert [(iova, row.pgsize, row.number, row.advances) for iova, row in dump.each_run()] == [(0, 1 << 16, 3, False)]


def test_a_gigabyte_of_zeros_is_not_too_many_words():
    pieces = {0x1000: words(MOCK.table_entry(0x2000, 0)), 0x2000: words(*[MOCK.table_entry(0x3000, 1)] * 2)}
    pieces[0x3000] = words(*(MOCK.table_entry(0x10_0000 + K4 * n, 2) for n in range(512)))
    pieces |= {0x10_0000 + K4 * n: words(*[leaf(ZERO)] * 512) for n in range(512)}
    dump = decode_dump(MemoryDump(pieces), MOCK, 0x1000, most=1 << 13)
    assert (dump.exhausted, dump.mapped) == (False, 2 << 30)


singles = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([R, RW]), st.sampled_from([0, 0, 0, 1])), max_size=12)


@given(singles)
def test_rows_say_what_the_leaves_said_and_are_as_few_as_can_be(leaves):
    folded, said, at = [], [], 0
    for to, prot, hole in leaves:
        at += hole * K4
        said.append((at, to * K4, prot))
        append_row(folded, DumpRow(RowKind.LEAVES, at, K4, 1, to * K4, prot), None)
        at += K4
    assert [(row.offset + n * K4, row.output(n), row.prot) for row in folded for n in range(row.number)] == said
    for row in folded:
        assert row.advances or row.number > 1
    # Read from the start on, a row is as long as one rule for all of it allows.
    start = 0
    for row in folded:
        longest = max(n for n in range(1, len(said) - start + 1) if one_row(said[start : start + n]))
        assert row.number == longest
        start += longest


def one_row(leaves):
    return any(
        leaves == [(leaves[0][0] + n * K4, leaves[0][1] + n * step, leaves[0][2]) for n in range(len(leaves))]
        for step in (0, K4)
    )
