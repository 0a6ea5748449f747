"""The cost of a walk, counted by walking: every number that the theory gives for stages on each other."""

from itertools import product
from math import prod

import attrs
import pytest

from swiommu.address import Access, Prot
from swiommu.layer import Chain, HopKind, Node, Paged, Walker, access
from swiommu.pagetable import MOCK, CountingTables, Level, RadixTable

RW = Prot.READ | Prot.WRITE
KB4, MB2, GB1 = 1 << 12, 1 << 21, 1 << 30


def levels_of(number):
    """A format of so many levels of 9 bits over pages of 4 KiB; all but a root of 512 GiB and more can hold leaves."""
    levels = tuple(Level(shift=12 + 9 * k, bits=9, can_leaf=k < 3) for k in reversed(range(number)))
    return attrs.evolve(MOCK, name=f"levels{number}", levels=levels)


FORMATS = {number: levels_of(number) for number in range(1, 6)}


def stage(name, levels=4, *runs):
    table = RadixTable(FORMATS[levels], CountingTables())
    for iova, paddr, size, count in runs:
        table.map_run(iova, paddr, size, count, RW)
    return Paged(name, table)


def stack(stages, walker=Walker.NESTED):
    path = Node(stages[-1], walker=walker)
    for upper in reversed(stages[:-1]):
        path = Chain(Node(upper, walker=walker), path)
    return path


def reads_of(path, at):
    """References of an access that must succeed: as counted, and as seen one by one."""
    answer = access(path, at, 8, Access.READ, watched=True)
    assert answer.fault is None
    numbers = [hop.ref for hop in answer.hops if hop.kind is HopKind.READ]
    assert numbers == list(range(1, answer.refs + 1))
    return answer.refs


# Tables lie in the first 64 KiB of what is below, and data does too: an identity of small pages serves both.
def small_pages(depths):
    return [stage(f"s{place}", levels, (0, 0, KB4, 64)) for place, levels in enumerate(depths, 1)]


STAGES = {
    (2,): 2,
    (3,): 3,
    (4,): 4,
    (5,): 5,
    (2, 2): 8,
    (3, 3): 15,
    (3, 4): 19,
    (4, 3): 19,
    (4, 4): 24,
    (4, 5): 29,
    (5, 4): 29,
    (5, 5): 35,
    (2, 2, 2): 26,
    (3, 3, 3): 63,
    (3, 4, 5): 119,
    (5, 4, 3): 119,
    (4, 4, 4): 124,
    (5, 5, 5): 215,
    (4, 4, 4, 4): 624,
}


@pytest.mark.parametrize(("depths", "refs"), STAGES.items(), ids=str)
def test_nested_stages_cost_the_product(depths, refs):
    assert reads_of(stack(small_pages(depths)), 0x5008) == refs == prod(levels + 1 for levels in depths) - 1


@pytest.mark.parametrize("depths", STAGES, ids=str)
def test_stages_with_physical_tables_cost_the_sum(depths):
    assert reads_of(stack(small_pages(depths), Walker.PHYSICAL), 0x5008) == sum(depths)


@pytest.mark.parametrize(("upper", "lower"), [*product(range(1, 6), repeat=2)])
def test_grid_of_two_stages(upper, lower):
    stages = small_pages((upper, lower))
    assert reads_of(stack(stages), 0x5008) == (upper + 1) * (lower + 1) - 1
    assert reads_of(stack(stages, Walker.PHYSICAL), 0x5008) == upper + lower
    mixed = Chain(Node(stages[0], walker=Walker.PHYSICAL), Node(stages[1]))
    assert reads_of(mixed, 0x5008) == upper + lower  # the walker of the lowest stage has nothing below it


def test_one_stage_read_physically_between_nested_ones():
    # T = L (W + 1) + the rest, from below: 4; 4 * 1 + 4 = 8; 4 * (8 + 1) + 8 = 44.
    one, two, three = small_pages((4, 4, 4))
    assert reads_of(Chain(one, Chain(Node(two, walker=Walker.PHYSICAL), three)), 0x5008) == 44


# Two stages of four levels with leaves of their own: the tables of the upper stage lie in the first GiB below, the data
# in the fifth.
LEVELS = {KB4: 4, MB2: 3, GB1: 2}
DATA = 4 * GB1


def two_stages(leaf, under_tables, under_data):
    upper = stage("s1", 4, (DATA, DATA, leaf, 1))
    pages = 8 if under_tables == KB4 else 1
    lower = stage("s2", 4, (0, 8 * GB1, under_tables, pages), (DATA, 2 * GB1, under_data, 1))
    return Chain(upper, lower)


COLUMNS = [(KB4, KB4), (KB4, MB2), (MB2, KB4), (MB2, MB2), (GB1, GB1)]
TABLE = {KB4: [24, 23, 20, 19, 14], MB2: [19, 18, 16, 15, 11], GB1: [14, 13, 12, 11, 8]}


@pytest.mark.parametrize(
    ("leaf", "tables", "data", "refs"),
    [(leaf, *column, refs) for leaf, row in TABLE.items() for column, refs in zip(COLUMNS, row, strict=True)],
)
def test_two_stages_with_leaves_of_their_own_as_published(leaf, tables, data, refs):
    assert reads_of(two_stages(leaf, tables, data), DATA + 0x10) == refs


@pytest.mark.parametrize(("leaf", "tables", "data"), [*product(LEVELS, repeat=3)])
def test_two_stages_with_leaves_of_their_own(leaf, tables, data):
    s, t, d = LEVELS[leaf], LEVELS[tables], LEVELS[data]
    assert reads_of(two_stages(leaf, tables, data), DATA + 0x10) == s * (t + 1) + d
    answer = access(two_stages(leaf, tables, data), DATA + 0x10, 8, Access.WRITE)
    assert (answer.runs[0].output, answer.runs[0].page_size) == (2 * GB1 + 0x10, min(leaf, data))


def test_cost_does_not_depend_on_how_much_is_read():
    path = stack(small_pages((4, 4)))
    assert access(path, 0x5000, KB4, Access.READ).refs == access(path, 0x5FFF, 1, Access.READ).refs == 24
    assert access(path, 0x5000, 3 * KB4, Access.READ).refs == 3 * 24


@pytest.mark.parametrize(
    ("leaf", "below", "refs"), [(KB4, None, 1024), (MB2, None, 1.5), (KB4, KB4, 6144), (MB2, MB2, 7.5)]
)
def test_references_of_a_stream_per_mebibyte(leaf, below, refs):
    span = 4 << 20  # so that there are whole large pages
    upper = stage("s1", 4, (DATA, DATA, leaf, span // leaf))
    path = upper
    if below is not None:  # everything below in leaves of one size, tables too
        path = Chain(upper, stage("s2", 4, (0, 0, below, (1 << 21) // below), (DATA, DATA, below, span // below)))
    assert access(path, DATA, span, Access.READ).refs / 4 == refs
