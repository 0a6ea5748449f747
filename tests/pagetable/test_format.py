import attrs
import pytest

from swiommu.address import Prot
from swiommu.errors import InvalidArgument
from swiommu.pagetable import EMPTY, MOCK, Leaf, Level, Table

FORMATS = [MOCK]
PROTS = [Prot.READ, Prot.WRITE, Prot.READ | Prot.WRITE, Prot(0x3F)]


@pytest.fixture(params=FORMATS, ids=lambda f: f.name)
def fmt(request):
    return request.param


def leaf_depths(fmt):
    return [depth for depth, level in enumerate(fmt.levels) if level.can_leaf]


@pytest.mark.parametrize("prot", PROTS)
def test_a_leaf_decodes_to_what_was_encoded(fmt, prot):
    for depth in leaf_depths(fmt):
        top = (1 << fmt.output_width) - fmt.levels[depth].pgsize
        for oa in (0, fmt.levels[depth].pgsize, top):
            entry = fmt.leaf_entry(oa, depth, prot, 0)
            assert 0 < entry < 1 << 64
            assert fmt.decode(entry, depth) == Leaf(oa, prot)


def test_a_table_decodes_to_its_address(fmt):
    for oa in (0, 0x1000, (1 << fmt.output_width) - 0x1000):
        for depth in range(len(fmt.levels) - 1):
            assert fmt.decode(fmt.table_entry(oa, depth), depth) == Table(oa)


def test_zero_is_empty(fmt):
    assert all(fmt.decode(0, depth) is EMPTY for depth in range(len(fmt.levels)))


def test_a_run_is_its_leaves(fmt):
    for depth in leaf_depths(fmt):
        pgsize = fmt.levels[depth].pgsize
        run = fmt.leaf_run(7 * pgsize, depth, Prot.READ, 0, 5)
        assert list(run) == [fmt.leaf_entry((7 + i) * pgsize, depth, Prot.READ, 0) for i in range(5)]


def test_mock_is_what_its_table_says():
    assert MOCK.leaf_entry(0x12345000, 3, Prot.READ | Prot.WRITE, 0) == 0x12345000 | 0b11 << 2 | 0b10 | 0b1
    assert MOCK.table_entry(0x7000, 0) == 0x7001
    assert (MOCK.input_width, MOCK.output_width, MOCK.pgsize_bitmap) == (48, 52, 0x4020_1000)


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        ((), "format 'mock': the last level must be able to hold leaves"),
        ((Level(12, 9, can_leaf=False),), "format 'mock': the last level must be able to hold leaves"),
        (
            (Level(22, 9, can_leaf=True), Level(12, 9, can_leaf=True)),
            "format 'mock': an entry of level 0 covers 2**22 bytes, its table 2**21",
        ),
        ((Level(12, 17, can_leaf=True),), "format 'mock': a table holds at most 65536 entries"),
    ],
)
def test_levels_that_do_not_follow(levels, text):
    with pytest.raises(InvalidArgument) as caught:
        attrs.evolve(MOCK, levels=levels)
    assert str(caught.value) == text
