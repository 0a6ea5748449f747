"""Stages on each other, computed by hand: three and four of them, mixed granules, reversed frames, two memories."""

from itertools import permutations

import pytest

from swiommu.address import Access, PhysSpace, Prot
from swiommu.layer import (
    Chain,
    Fault,
    FaultClass,
    FaultKind,
    Memory,
    Node,
    Paged,
    Router,
    Span,
    Walker,
    access,
    flatten,
)
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, MOCK64K, CountingTables, RadixTable

RW = Prot.READ | Prot.WRITE
KB4, KB64, MB2, GB1 = 1 << 12, 1 << 16, 1 << 21, 1 << 30


def paged(name, *runs, format=MOCK):  # noqa: A002 - the word for it
    table = RadixTable(format, CountingTables())
    for iova, paddr, size, count, prot in runs:
        table.map_run(iova, paddr, size, count, prot)
    return Paged(name, table)


def chain(*layers):
    path = layers[-1]
    for layer in reversed(layers[:-1]):
        path = Chain(layer, path)
    return path


def pieces(path, start, size, wanted=Access.READ):
    return [(run.input, run.output, run.size) for run in access(path, start, size, wanted).runs]


# -- three and four stages: each leads one page to another, its tables in the first pages of the next


STAGES = {
    "s1": (0x4_1000, 0x5_2000),
    "s2": (0x5_2000, 0x6_3000),
    "s3": (0x6_3000, 0x7_4000),
    "s4": (0x7_4000, 0x8_5000),
}


def stages(number, prots=()):
    prots = dict(prots)
    found = []
    for place, (name, (at, to)) in enumerate(list(STAGES.items())[:number], 1):
        # Only the tables of the stage above are reached here; they lie at 0x1000 and on of its output.
        runs = [(at, to, KB4, 1, prots.get(name, RW))]
        if place > 1:
            runs.append((0x1000, 0x1000, KB4, 7, RW))
        found.append(paged(name, *runs))
    return found


@pytest.mark.parametrize(
    ("number", "output", "refs"), [(1, 0x5_2123, 4), (2, 0x6_3123, 24), (3, 0x7_4123, 124), (4, 0x8_5123, 624)]
)
def test_the_way_through_all_stages(number, output, refs):
    answer = access(chain(*stages(number)), 0x4_1123, 8, Access.WRITE)
    [run] = answer.runs
    assert (run.output, run.size, run.page_size, run.prot, answer.refs) == (output, 8, KB4, RW, refs)


@pytest.mark.parametrize("names", [pair for pair in permutations(STAGES, 2) if pair[0] < pair[1]])
def test_the_uppermost_that_forbids_is_blamed(names):
    layers = stages(4, dict.fromkeys(names, Prot.READ))
    assert access(chain(*layers), 0x4_1123, 8, Access.READ).runs[0].prot == Prot.READ
    fault = access(chain(*layers), 0x4_1123, 8, Access.WRITE).fault
    address = STAGES[names[0]][0] + 0x123
    assert fault == Fault(names[0], FaultKind.PERMISSION, Access.WRITE, address, 0x4_1123)


@pytest.mark.parametrize("name", ["s1", "s2", "s3", "s4"])
def test_a_hole_in_each_stage(name):
    layers = stages(4)
    layer = next(each for each in layers if each.name == name)
    layer.table.unmap(STAGES[name][0], KB4)
    layer.table.map_run(0xFF_0000, 0, KB4, 1, RW)  # so that all its tables stay
    fault = access(chain(*layers), 0x4_1123, 8, Access.READ).fault
    assert fault == Fault(name, FaultKind.TRANSLATION, Access.READ, STAGES[name][0] + 0x123, 0x4_1123)


@pytest.mark.parametrize(
    ("torn", "table_of", "refs"),
    [
        (
            "s2",
            "s1",
            4 * (4 + 1),
        ),  # s2 walks all its levels, each entry through s3, to find that s1's root is not there
        ("s3", "s2", 4),  # s3 walks its own, for the first entry of s2, for the first entry of s1
    ],
)
def test_walks_within_walks_blame_the_layer_that_tore(torn, table_of, refs):
    layers = stages(3)
    layer = next(each for each in layers if each.name == torn)
    layer.table.unmap(0x1000, KB4)  # the root of the stage above it
    answer = access(chain(*layers), 0x4_1123, 8, Access.WRITE)
    assert answer.fault == Fault(torn, FaultKind.TRANSLATION, Access.WRITE, 0x1000, 0x4_1123, FaultClass.WALK, table_of)
    assert answer.refs == refs


def test_leaf_sizes_of_three_stages_meet():
    one = paged("s1", (4 * GB1, 4 * GB1, GB1, 1, RW))
    two = paged("s2", (0, 0, MB2, 1, RW), (4 * GB1, 5 * GB1, MB2, 512, RW))
    three = paged("s3", (0, 0, GB1, 1, RW), (5 * GB1, 2 * GB1, GB1, 1, RW))
    path = chain(one, two, three)
    answer = access(path, 4 * GB1 + 3 * MB2 + 5, 8, Access.READ)
    [run] = answer.runs
    assert (run.output, run.page_size) == (2 * GB1 + 3 * MB2 + 5, MB2)
    # From below: 2; 3 * (2 + 1) + 2 = 11 for s2 and s3; s1 reads two entries, each through both of these.
    assert answer.refs == 2 * (11 + 1) + 11
    # Neighbouring blocks that go on are one run: the top sees one piece.
    assert pieces(path, 4 * GB1, 4 * MB2) == [(4 * GB1, 2 * GB1, 4 * MB2)]


# -- mixed granules


def test_large_granule_over_small_one_scatters_into_sixteen():
    upper = Node(paged("s1", (0, KB64, KB64, 1, RW), format=MOCK64K), walker=Walker.PHYSICAL)
    scattered = [(KB64 + k * KB4, (40 + 7 * k % 16) * KB4, KB4, 1, RW) for k in range(16)]
    path = Chain(upper, paged("s2", *scattered))
    found = access(path, 0, KB64, Access.READ)
    assert [(run.input, run.output, run.size, run.page_size) for run in found.runs] == [
        (k * KB4, (40 + 7 * k % 16) * KB4, KB4, KB4) for k in range(16)
    ]
    assert found.refs == 16 * (4 + 4)


def test_large_granule_over_small_one_that_goes_on_is_one_run_of_small_blocks():
    upper = Node(paged("s1", (0, KB64, KB64, 1, RW), format=MOCK64K), walker=Walker.PHYSICAL)
    path = Chain(upper, paged("s2", (KB64, 0x40_1000, KB4, 16, RW)))  # not even aligned to 64 KiB
    [run] = access(path, 0x800, KB64 - 0x800, Access.READ).runs
    assert (run.output, run.size, run.page_size) == (0x40_1800, KB64 - 0x800, KB4)


def test_a_hole_of_a_small_page_under_a_large_one():
    upper = Node(paged("s1", (0, KB64, KB64, 1, RW), format=MOCK64K), walker=Walker.PHYSICAL)
    path = Chain(upper, paged("s2", (KB64, 0x40_0000, KB4, 9, RW), (KB64 + 10 * KB4, 0x50_0000, KB4, 6, RW)))
    answer = access(path, 0, KB64, Access.WRITE)
    assert answer.size == 9 * KB4
    assert answer.fault == Fault("s2", FaultKind.TRANSLATION, Access.WRITE, KB64 + 9 * KB4, 9 * KB4)


def test_small_granule_over_large_one():
    small = [(k * KB4, KB64 + (15 - k) * KB4, KB4, 1, RW) for k in range(16)]
    path = Chain(
        Node(paged("s1", *small), walker=Walker.PHYSICAL), paged("s2", (KB64, 5 * KB64, KB64, 1, RW), format=MOCK64K)
    )
    assert pieces(path, 0, 3 * KB4) == [(k * KB4, 5 * KB64 + (15 - k) * KB4, KB4) for k in range(3)]
    assert access(path, 0, 1, Access.READ).runs[0].page_size == KB4
    [run] = access(flatten(path), 0x123, 1, Access.READ).runs
    assert (run.output, run.page_size) == (5 * KB64 + 15 * KB4 + 0x123, KB4)


def test_three_granules_deep():
    # 4 KiB over 64 KiB over 4 KiB: blocks of 4 KiB, with the borders of both.
    one = Node(paged("s1", (0, KB64, KB4, 16, RW)), walker=Walker.PHYSICAL)
    two = Node(paged("s2", (KB64, 3 * KB64, KB64, 1, RW), format=MOCK64K), walker=Walker.PHYSICAL)
    three = paged("s3", (3 * KB64, 0x50_0000, KB4, 8, RW), (3 * KB64 + 8 * KB4, 0x90_0000, KB4, 8, RW))
    assert pieces(chain(one, two, three), 0, KB64) == [(0, 0x50_0000, 8 * KB4), (8 * KB4, 0x90_0000, 8 * KB4)]
    assert access(chain(one, two, three), 0, KB64, Access.READ).refs == 16 * 12


# -- reversed frames


def reversing(name, count):
    return Node(
        paged(name, *((k * KB4, (count - 1 - k) * KB4, KB4, 1, RW) for k in range(count))), walker=Walker.PHYSICAL
    )


def test_frames_in_reverse_and_again():
    once = reversing("s1", 8)
    assert pieces(once, 0, 8 * KB4) == [(k * KB4, (7 - k) * KB4, KB4) for k in range(8)]
    # Scattered in the middle, contiguous at both ends: only the top decides what a device sees as one.
    assert pieces(Chain(once, reversing("s2", 8)), 0, 8 * KB4) == [(0, 0, 8 * KB4)]
    assert pieces(chain(once, reversing("s2", 8), reversing("s3", 8)), 0x800, KB4) == [
        (0x800, 7 * KB4 + 0x800, 0x800),
        (0x1000, 6 * KB4, 0x800),
    ]


def test_a_burst_over_reversed_frames_moves_each_byte_where_its_page_is():
    ram = SparseRam(PhysSpace("dram", width=32))
    path = Chain(reversing("s1", 4), Memory("dram", ram))
    data, done = bytes(range(200)) * 50, 0
    for run in access(path, 0x123, len(data), Access.WRITE).runs:
        ram.write(ram.space.at(run.output), data[done : done + run.size])
        done += run.size
    pages = [ram.read(ram.space.at((3 - k) * KB4), KB4) for k in range(4)]
    assert b"".join(pages)[0x123 : 0x123 + len(data)] == data


# -- two memories


def test_one_table_over_two_memories():
    dram, vram = (Memory(name, SparseRam(PhysSpace(name, width=32)), size=MB2) for name in ("dram", "vram"))
    router = Node(Router("bus", Span(0, MB2), Span(GB1, MB2, -GB1, port=1), ports=("dram", "vram")))
    router.lowers = [Node(dram), Node(vram)]
    upper = Node(
        paged("s1", (0, 0x1000, KB4, 1, RW), (KB4, GB1 + 0x2000, KB4, 1, RW), (2 * KB4, GB1 + MB2, KB4, 1, RW))
    )
    upper.walker = Walker.PHYSICAL
    answer = access(Chain(upper, router), 0x800, 2 * KB4, Access.READ)
    assert [(run.memory, run.output, run.size) for run in answer.runs] == [
        ("dram", 0x1800, 0x800),
        ("vram", 0x2000, KB4),
    ]
    assert answer.fault == Fault("bus", FaultKind.RANGE, Access.READ, GB1 + MB2, 2 * KB4)


def test_tables_in_one_memory_data_in_the_other():
    # A device with tables in its own memory and data in the machine's: same numbers, other bytes.
    dram, vram = SparseRam(PhysSpace("dram", width=32)), SparseRam(PhysSpace("vram", width=32))
    layer = paged("mmu", (0x5000, 0x1000, KB4, 1, RW))
    for page in range(0x1000, 0x5000, KB4):
        vram.write(vram.space.at(page), layer.table.nodes.memory.entries(page).tobytes())
        dram.write(dram.space.at(page), bytes([0xA5]) * KB4)
    node = Node(layer, walker=Node(Memory("vram", vram)))
    node.lowers = [Node(Memory("dram", dram))]
    answer = access(node, 0x5010, 8, Access.READ)
    assert [(run.memory, run.output) for run in answer.runs] == [("dram", 0x1010)]
    assert answer.refs == 4
    vram.fill(vram.space.at(0x4000), KB4, 0)
    assert access(node, 0x5010, 8, Access.READ).fault == Fault(
        "mmu", FaultKind.TRANSLATION, Access.READ, 0x5010, 0x5010
    )
