"""What holds of every format there is: a new one is tried here as soon as it stands in the list."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from swiommu.address import Prot
from swiommu.errors import InvalidArgument, OutOfRange
from swiommu.pagetable import CountingTables, RadixTable
from swiommu.pagetable import formats as room
from swiommu.pagetable.format import EMPTY, Leaf, Table
from swiommu.pagetable.formats import FORMATS, format_named

RW = Prot.READ | Prot.WRITE
LARGEST = 1 << 40  # of the leaves that are mapped: an unmap looks for a table at every place in its range
PROTS = st.sampled_from([Prot(bits) for bits in range(64) if bits & RW])

FEW = settings(max_examples=settings.default.max_examples // 4)  # of each format, and there are many

pytestmark = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)


def places(form):
    return [(depth, order) for depth, level in enumerate(form.levels) for order in level.sizes]


def output(draw, form, alignment):
    pages = 1 << max(0, form.output_width - alignment.bit_length() + 1)
    return draw(st.sampled_from([0, pages - 1]) | st.integers(0, pages - 1)) * alignment


@st.composite
def leaves(draw, form):
    depth, order = draw(st.sampled_from(places(form)))
    return depth, order, output(draw, form, form.levels[depth].sizes[order]), draw(PROTS)


@st.composite
def tables(draw, form):
    depth = draw(st.integers(0, len(form.levels) - 2))
    return depth, output(draw, form, form.levels[depth + 1].table_bytes)


@st.composite
def words(draw, form):
    """Any word: of no format, or one that the format writes with a few bits flipped."""
    word = draw(st.integers(0, (1 << 64) - 1))
    kind = draw(st.sampled_from(["any", "leaf", "table"]))
    if kind == "leaf":
        depth, order, oa, prot = draw(leaves(form))
        word = form.leaf_entry(oa, depth, prot, order)
    elif kind == "table":
        depth, oa = draw(tables(form))
        word = form.table_entry(oa, depth)
    for bit in draw(st.lists(st.integers(0, 63), max_size=3)):
        word ^= 1 << bit
    return word, draw(st.integers(0, len(form.levels) - 1))


@FEW
@given(data=st.data())
def test_a_leaf_is_read_as_it_was_written(form, data):
    depth, order, oa, prot = data.draw(leaves(form))
    word = form.leaf_entry(oa, depth, prot, order)
    assert 0 < word < 1 << 64
    read = form.checked(form.decode(word, depth), depth)
    assert read == Leaf(oa, form.effective(prot), order)


@FEW
@given(data=st.data())
def test_a_protection_gains_no_right_but_read(form, data):
    """Nothing is let through that was not asked for, but READ where a format can't withhold it."""
    prot = data.draw(PROTS)
    got = form.effective(prot)
    assert got & RW
    assert not got & Prot.WRITE & ~prot
    assert form.effective(got) == got
    assert isinstance(got, Prot)


@FEW
@given(data=st.data())
def test_a_table_is_read_as_it_was_written(form, data):
    depth, oa = data.draw(tables(form))
    word = form.table_entry(oa, depth)
    assert 0 < word < 1 << 64
    assert form.checked(form.decode(word, depth), depth) == Table(oa)


@FEW
@given(data=st.data())
def test_any_word_is_read_as_something_that_can_be_there(form, data):
    word, depth = data.draw(words(form))
    read = form.checked(form.decode(word, depth), depth)
    if read is EMPTY:
        return
    assert 0 <= read.oa < 1 << form.output_width
    level = form.levels[depth]
    if isinstance(read, Table):
        assert depth + 1 < len(form.levels)
        assert read.oa % form.levels[depth + 1].table_bytes == 0
        assert not read.allows & ~RW
        assert not read.prot & RW
    else:
        assert read.oa % level.sizes[read.order] == 0
        assert 0 <= read.prot < 64


@FEW
@given(data=st.data())
def test_a_run_is_its_leaves(form, data):
    depth, order, oa, prot = data.draw(leaves(form))
    pgsize, count = form.levels[depth].sizes[order], data.draw(st.integers(1, 4))
    assume(oa + pgsize * count <= 1 << form.output_width)
    expected = [form.leaf_entry(oa + pgsize * n, depth, prot, order) for n in range(count) for _ in range(1 << order)]
    assert list(form.leaf_run(oa, depth, prot, order, count)) == expected


@FEW
@given(data=st.data())
def test_coherency_changes_nothing_else(form, data):
    if form.coherent is not None:
        depth, order, oa, prot = data.draw(leaves(form))
        word = form.leaf_entry(oa, depth, prot, order)
        assert form.decode(word | form.coherent, depth) == form.decode(word, depth)


def test_zero_is_empty(form):
    assert all(form.decode(0, depth) is EMPTY for depth in range(len(form.levels)))


@FEW
@given(data=st.data())
def test_what_is_mapped_is_found_and_goes_without_a_trace(form, data):
    depth, order, oa, prot = data.draw(leaves(form))
    pgsize = form.levels[depth].sizes[order]
    assume(pgsize <= LARGEST)
    table = RadixTable(form, CountingTables())
    pages = 1 << max(0, form.aperture_width - pgsize.bit_length() + 1)
    iova = data.draw(st.sampled_from([0, pages - 1]) | st.integers(0, pages - 1)) * pgsize
    offset = data.draw(st.integers(0, pgsize - 1))
    table.map_run(iova, oa, pgsize, 1, prot)
    table.check()
    assert table.lookup(iova + offset) == (oa + offset, pgsize, form.effective(prot))
    with pytest.raises(form.rules.occupied):
        table.map_run(iova, oa, pgsize, 1, prot)
    assert sum(run.size for run in table.unmap(iova, pgsize)) == pgsize
    assert table.lookup(iova + offset) is None
    table.check()


def test_what_a_map_refuses(form):
    table = RadixTable(form, CountingTables())
    page = form.granule
    with pytest.raises(form.rules.misaligned):
        table.map_run(page // 2, 0, page, 1, RW)
    with pytest.raises(form.rules.misaligned):
        table.map_run(0, page // 2, page, 1, RW)
    if form.rules.no_access is not None:
        with pytest.raises(form.rules.no_access):
            table.map_run(0, 0, page, 1, Prot.CACHE)
    with pytest.raises(InvalidArgument, match=rf"^format '{form.name}' has no leaf of {page // 2:#x} bytes$"):
        table.map_run(0, 0, page // 2, 1, RW)
    with pytest.raises(OutOfRange, match=rf"leave the {form.output_width}-bit output of format '{form.name}'$"):
        table.map_run(0, 1 << form.output_width, page, 1, RW)
    if form.aperture_width < 64:
        with pytest.raises(OutOfRange, match=rf"leave the .*{form.input_width}-bit input of format '{form.name}'$"):
            table.map_run(1 << form.aperture_width, 0, page, 1, RW)
    assert list(table.each_leaf()) == []


def test_it_has_a_name_that_can_be_typed_and_stands_in_the_rooms_docstring(form):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", form.name)
    assert format_named(form.name) is form
    words = re.findall(r"^    (\S.*?)  ", room.__doc__, re.MULTILINE)
    assert form.name in {name for text in words for name in names(text)}


def names(text):
    """The names that an entry of the docstring stands for: ``a-3, -4`` are two, and so are ``a-{x,y}``."""
    first, *rest = text.split(", ") if "{" not in text else [text]
    if "{" in first:
        before, inside, after = re.fullmatch(r"([^{]*)\{([^}]*)\}(.*)", first).groups()
        return [name for each in inside.split(",") for name in names(before + each + after)]
    return [first, *(first.rpartition("-")[0] + other if other[0] == "-" else other for other in rest)]
