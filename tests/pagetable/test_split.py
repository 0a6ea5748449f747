"""Splitting large leaves: what is reached stays the same, all or nothing, and one table for each leaf split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import Prot
from swiommu.errors import InvalidArgument, NoMemory
from swiommu.pagetable import MOCK, MOCK64K, CountingTables, LeafRun, RadixTable
from swiommu.pagetable.formats import FORMATS, amd_v1, arm_lpae, riscv, vtd_ss, x86_64

PAGE, MEG2, GIG = 0x1000, 0x20_0000, 0x4000_0000
RW = Prot.READ | Prot.WRITE


def table(limit=None, form=MOCK):
    return RadixTable(form, CountingTables(limit=limit))


def test_2_mib_become_511_pages_and_one_more_table():
    t = table()
    t.map_run(0, MEG2, MEG2, 1, RW)
    pages = t.table_pages
    assert t.split([PAGE, 2 * PAGE]) == 1
    t.check()
    assert t.unmap(PAGE, PAGE) == [LeafRun(PAGE, PAGE, 1)]
    assert (t.leaves[PAGE], t.leaves[MEG2], t.table_pages) == (511, 0, pages + 1)
    assert t.lookup(0x1FF123) == (MEG2 + 0x1FF123, PAGE, RW)


def test_1_gib_is_split_twice_at_a_page_and_once_at_2_mib():
    t = table()
    t.map_run(GIG, GIG, GIG, 1, Prot.READ)
    assert t.split([GIG + MEG2]) == 1
    assert (t.leaves[MEG2], t.leaves[PAGE]) == (512, 0)
    t = table()
    t.map_run(GIG, GIG, GIG, 1, Prot.READ)
    assert t.split([GIG + PAGE, GIG + 2 * PAGE]) == 2
    assert (t.leaves[GIG], t.leaves[MEG2], t.leaves[PAGE]) == (0, 511, 512)
    t.check()


def test_all_or_nothing_when_no_page_is_left():
    t = table(limit=3)  # the root, the table of the 1 GiB leaf, and one more: two are needed
    t.map_run(0, 0, GIG, 1, Prot.READ)
    before = [(iova, leaf.oa, size) for iova, leaf, size in t.each_leaf()]
    with pytest.raises(NoMemory) as caught:
        t.split([PAGE])
    assert str(caught.value) == "no table page: all 3 are in use"
    assert [(iova, leaf.oa, size) for iova, leaf, size in t.each_leaf()] == before
    assert len(t.nodes.memory) == t.table_pages == 2
    t.check()


def test_nothing_to_split():
    t = table()
    t.map_run(0, 0, PAGE, 4, Prot.READ)
    t.map_run(MEG2, MEG2, MEG2, 2, Prot.READ)
    assert t.split([0, PAGE, 8 * PAGE, MEG2, 2 * MEG2, 5 * MEG2]) == 0


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (MOCK, "a leaf of 0x1000 bytes can't be split at 0x800"),
        (MOCK64K, "a leaf of 0x10000 bytes can't be split at 0x800"),
    ],
)
def test_the_smallest_leaf_has_no_inside(form, text):
    t = table(form=form)
    t.map_run(0, 0, t.granule, 1, Prot.READ)
    with pytest.raises(InvalidArgument) as caught:
        t.split([0x800])
    assert str(caught.value) == text


def test_64_kib_granules():
    t = table(form=MOCK64K)
    assert (MOCK64K.input_width, hex(MOCK64K.pgsize_bitmap)) == (48, "0x2010000")
    t.map_run(0, 0, 32 << 20, 1, RW)
    assert t.split([0x10000]) == 1
    assert t.leaves == {32 << 20: 0, 0x10000: 512}
    assert [run.leaves for run in t.met(0, 32 << 20)] == [512]
    t.check()


@given(
    st.lists(st.tuples(st.integers(0, 7), st.booleans()), unique_by=lambda leaf: leaf[0]),
    st.lists(st.integers(0, 8 * 512), max_size=4),
)
def test_what_is_reached_stays_the_same(leaves, cuts):
    t, twin = table(), table()
    for place, large in leaves:
        size, count = (MEG2, 1) if large else (PAGE, 512)
        for each in (t, twin):
            each.map_run(place * MEG2, (place ^ 1) * MEG2, size, count, RW)
    t.split([cut * PAGE for cut in cuts])
    t.check()
    for page in range(0, 8 * 512, 37):
        one, other = t.lookup(page * PAGE), twin.lookup(page * PAGE)
        assert (one and (one[0], one[2])) == (other and (other[0], other[2]))
    for cut in cuts:
        runs = t.met(0, cut * PAGE) if cut else []
        assert not runs or runs[-1].iova + runs[-1].size <= cut * PAGE
    assert t.met(0, 8 * MEG2) == t.unmap(0, 8 * MEG2)


LARGE = [
    (form, pgsize)
    for form in FORMATS.values()
    for pgsize in sorted({size for level in form.levels for size in level.sizes.values()})
    if form.granule < pgsize <= GIG
]
PROTS = (1, 2, 0x17, 0x2B, 0x3F)


def named(value):
    return f"{value:#x}" if isinstance(value, int) else value.name


def next_size(form, pgsize):
    """What a leaf of ``pgsize`` bytes is split into by a cut behind its first granule, as the kernel walks down."""
    return max(level.pgsize for level in form.levels if level.can_leaf and level.pgsize < pgsize)


@pytest.mark.parametrize(("form", "pgsize"), LARGE, ids=named)
def test_a_split_keeps_every_attribute(form, pgsize):
    small = next_size(form, pgsize)
    at, oa = GIG, 4 * GIG
    for prot in PROTS:
        t = table(form=form)
        t.map_run(at, oa, pgsize, 1, prot)
        t.split([at + small])
        for offset in (0, small, pgsize - small):
            step = t.walk(at + offset).steps[-1]
            assert f"{step.entry:#x}" == f"{form.leaf_entry(oa + offset, step.depth, prot, 0):#x}", f"{prot:#x}"
    t.check()


@pytest.mark.parametrize(
    ("form", "bits"),
    [
        (vtd_ss(), 1 << 8 | 1 << 9 | 1 << 11 | 1 << 62),
        (x86_64(), 1 << 3 | 1 << 4 | 1 << 9 | 1 << 58 | 1 << 63),
        (amd_v1(), 1 << 6 | 1 << 59),
        (arm_lpae(), 1 << 51 | 1 << 55 | 1 << 58 | 1 << 5),
        (arm_lpae(65536, ias=52, oas=52), 1 << 51 | 1 << 55),
        (riscv(), 1 << 61 | 1 << 8 | 1 << 5),
    ],
    ids=named,
)
def test_a_split_keeps_what_hardware_and_software_wrote_beside(form, bits):
    large = sorted(level.pgsize for level in form.levels if level.can_leaf)[1]
    t = table(form=form)
    t.map_run(large, 4 * large, large, 1, RW)
    step = t.walk(large).steps[-1]
    t.nodes.memory.entries(step.table)[step.slot] |= bits
    t.split([large + form.granule])
    for offset in (0, form.granule, large - form.granule):
        assert t.walk(large + offset).steps[-1].entry & bits == bits
    assert t.lookup(large + form.granule + 5)[:2] == (4 * large + form.granule + 5, form.granule)


def test_a_block_of_prot_0x17_keeps_its_bits():
    t = table(form=arm_lpae())
    t.map_run(MEG2, GIG, MEG2, 1, 0x17)
    assert f"{t.walk(MEG2).steps[-1].entry:#x}" == "0x40000f49"
    assert t.unmap(MEG2, PAGE) == [LeafRun(MEG2, PAGE, 1)]
    assert f"{t.walk(MEG2 + PAGE).steps[-1].entry:#x}" == "0x40001f4b"
