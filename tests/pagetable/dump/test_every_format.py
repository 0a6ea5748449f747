"""What our tables are in memory is read back as what was mapped, and whatever stands in memory as hardware walks it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import Prot
from swiommu.errors import SwiommuError
from swiommu.pagetable import CountingTables, RadixTable
from swiommu.pagetable.door import TableDoor
from swiommu.pagetable.dump import MemoryDump, RowKind, decode_dump, dump_table, walk_dump
from swiommu.pagetable.formats import FORMATS

pytestmark = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)

PROTS = [Prot.READ, Prot.READ | Prot.WRITE, Prot.READ | Prot.CACHE | Prot.NOEXEC]
LARGEST = 1 << 40
maps = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=6, max_size=6),  # a digit for each level
        st.integers(0, 9),
        st.integers(1, 40),
        st.sampled_from(PROTS),
        st.booleans(),
        st.integers(0, 3),
        st.booleans(),  # each to the same page
    ),
    max_size=8,
)


def mapped(form, wanted):
    """A table with as much of what is wanted as fits; outputs that follow one another, or are equal, are frequent."""
    table = RadixTable(form, CountingTables())
    sizes = [size for level in form.levels for size in level.sizes.values() if size <= LARGEST]
    for digits, which, count, prot, upper, to, same in wanted:
        size = sizes[which % len(sizes)]
        at = sum(d << level.shift for d, level in zip(digits[::-1], form.levels[::-1], strict=False)) & -size
        at &= (1 << form.aperture_width) - 1
        if upper and form.sign_extended:
            at += (1 << 64) - (1 << form.aperture_width)
        output = (at + to * size) & (1 << form.output_width - 1) - 1
        runs = [(at + n * size, 1) for n in range(count)] if same else [(at, count)]
        for start, number in runs:
            try:
                table.map_run(start, output, size, number, prot)
            except SwiommuError:
                break
    return table


def levels_of(table):
    return len(table.format.levels) - table.root_depth


def leaves(dump):
    for iova, run in dump.each_run():
        for n in range(run.number):
            yield iova + n * run.pgsize, run.output(n), run.prot, run.pgsize


@settings(max_examples=25)
@given(wanted=maps)
def test_what_was_mapped_is_read(form, wanted):
    table = mapped(form, wanted)
    memory = MemoryDump(dump_table(table))
    dump = decode_dump(memory, form, table.root, levels=levels_of(table))
    assert list(leaves(dump)) == [(at, leaf.oa, leaf.prot, pgsize) for at, leaf, pgsize in table.each_leaf()]
    assert dump.top.leaves == {size: n for size, n in sorted(table.leaves.items()) if n}
    assert sum(len(piece) for piece in dump_table(table).values()) == 4096 * table.table_pages


@settings(max_examples=25)
@given(wanted=maps, seed=st.integers(0, 1 << 32))
def test_memory_that_others_wrote_is_read_as_it_is_walked(form, wanted, seed):
    """Bits flipped, words copied elsewhere, tables cut off: what the tree says of an address is what a walk finds."""
    table = mapped(form, wanted)
    source = random.Random(seed)
    pieces = {phys: bytearray(data) for phys, data in dump_table(table).items()}
    for _ in range(source.randrange(24)):
        corrupt(form, pieces, source)
    if len(pieces) > 2 and source.random() < 0.3:
        del pieces[source.choice([phys for phys in pieces if phys != table.root])]
    memory = MemoryDump(pieces)
    dump = decode_dump(memory, form, table.root, levels=levels_of(table))
    outer = TableDoor(form).outer
    for at in some_addresses(dump, form, table.root_depth, source):
        row, offset = told(dump.top, at)
        walk = walk_dump(memory, form, table.root, outer(at), levels=levels_of(table))
        if row is None:
            assert walk.output is None
            assert walk.steps[-1].word == 0
        elif row.kind is RowKind.LEAVES:
            place, inside = divmod(offset, row.pgsize)
            assert (walk.output, walk.outcome.prot) == (row.output(place) + inside, row.prot)
            assert walk.pgsize == row.pgsize or row.why
        elif row.kind is RowKind.REFUSED:
            assert walk.output is None
            assert walk.steps[-1].why == row.why
        elif row.kind is RowKind.MISSING:
            assert walk.output is None
        else:
            assert row.kind in {RowKind.LOOP, RowKind.EMPTY}


def corrupt(form, pieces, source):
    page = pieces[source.choice(list(pieces))]
    place = 8 * source.randrange(min(len(page) // 8, 6))
    word = int.from_bytes(page[place : place + 8], "little")
    how = source.randrange(4)
    if how == 0:
        word ^= 1 << source.randrange(64)
    elif how == 1:
        word = form.table_entry(source.choice(list(pieces)), source.randrange(len(form.levels) - 1))
    elif how == 2:
        word = source.getrandbits(64)
    else:
        depth = source.choice([depth for depth, level in enumerate(form.levels) if level.sizes])
        order = source.choice(list(form.levels[depth].sizes))
        oa = source.randrange(4) * form.levels[depth].sizes[order] & (1 << form.output_width) - 1
        word = form.leaf_entry(oa, depth, source.choice(PROTS), order)
    page[place : place + 8] = word.to_bytes(8, "little")


def some_addresses(dump, form, depth, source):
    """The first and last bytes of rows, holes beside them, and addresses at random; as decoded bits."""
    limit = dump.top.span
    found = [0, limit - 1, source.randrange(limit)]
    todo, met = [(dump.top, 0)], set()
    while todo and len(found) < 200:
        table, base = todo.pop()
        for row in table.rows:
            start = base + row.offset
            found += [start, start + row.size - 1, min(start + row.size, limit - 1), max(start - 1, 0)]
            found.append(start + source.randrange(row.size))
            if row.kind is RowKind.TABLE and row.below not in met:
                met.add(row.below)
                todo.append((row.below, start))
    return found


def told(table, at):
    """The row without a table below that the tree has for an address, and the offset in it."""
    for row in table.rows:
        if row.offset <= at < row.offset + row.size:
            if row.kind is RowKind.TABLE:
                return told(row.below, (at - row.offset) % row.pgsize)
            return row, at - row.offset
    return None, 0
