import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given

from swiommu.address import Access, PhysSpace, Prot
from swiommu.errors import NotSupported
from swiommu.layer import (
    Chain,
    FaultKind,
    Identity,
    Memory,
    Node,
    Paged,
    Span,
    Walker,
    Window,
    access,
    connect,
    extents,
)
from swiommu.layer.attributes import allowed
from swiommu.layer.extents import pieces
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable

_SPEC = importlib.util.spec_from_file_location("random_stacks", Path(__file__).with_name("random_stacks.py"))
stacks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(stacks)

RW = Prot.READ | Prot.WRITE
PAGE = 0x1000
QUARTER = 0x400


def triples(path):
    return [(piece.input, piece.output, piece.size) for piece in extents(path)]


def paged(name, *runs, **options):
    table = RadixTable(MOCK, CountingTables())
    for iova, paddr, size, count, prot in runs:
        table.map_run(iova, paddr, size, count, prot)
    return Paged(name, table, **options)


def test_leaves_that_go_on_are_one_piece():
    layer = paged(
        "s1",
        (0x1000, 0x8000, PAGE, 3, RW),
        (0x4000, 0xB000, PAGE, 1, Prot.READ),  # goes on, but allows less
        (0x5000, 0xC000, PAGE, 1, Prot.READ | Prot.MMIO),  # goes on, but is another memory type
        (0x200000, 0x400000, 0x200000, 1, RW),
        (0x400000, 0x600000, PAGE, 1, RW),  # goes on: how large the leaves are is no matter
    )
    assert triples(layer) == [
        (0x1000, 0x8000, 0x3000),
        (0x4000, 0xB000, 0x1000),
        (0x5000, 0xC000, 0x1000),
        (0x200000, 0x400000, 0x201000),
    ]
    assert [piece.block for piece in extents(layer)] == [PAGE, PAGE, PAGE, 0x200000]


def test_scattered_below_and_joined_below():
    upper = paged("s1", (0, 0x10000, PAGE, 4, RW))
    reversing = paged("s2", *((0x10000 + k * PAGE, 0x90000 - k * PAGE, PAGE, 1, RW) for k in range(4)))
    assert triples(Chain(upper, reversing)) == [(k * PAGE, 0x90000 - k * PAGE, PAGE) for k in range(4)]
    twice = paged("s1", *((k * PAGE, 0x13000 - k * PAGE, PAGE, 1, RW) for k in range(4)))
    assert triples(Chain(twice, reversing)) == [(0, 0x8D000, 4 * PAGE)]


def test_window_cuts_a_large_leaf():
    # 2 MiB through two windows: 1 MiB and a bit of it, by a delta that is a multiple of 64 KiB.
    upper = paged("s1", (0, 0x4000_0000, 0x200000, 1, RW))
    lower = Window("w", Span(0x4000_0000, 0x10_0000, 0x1_0000), Span(0x4010_0000, 0x3000, 0x8000_0000))
    [first, second] = extents(Chain(upper, lower))
    assert first[:3] == (0, 0x4001_0000, 0x10_0000)
    assert second[:3] == (0x10_0000, 0xC010_0000, 0x3000)
    assert (first.block, first.alignment) == (0x1_0000, 0x1_0000)
    assert (second.block, second.alignment) == (0x2000, 0x4000_0000)
    assert [node.name for node, _ in first.way] == ["s1", "w"]


def test_input_beyond_the_width_is_no_piece():
    chain = Chain(Window("w", Span(0, 0x4000, 0x7000)), Identity("bypass", width=15))
    assert triples(chain) == [(0, 0x7000, 0x1000)]
    assert access(chain, 0x1000, 1, Access.READ).fault.layer == "bypass"


def test_output_beyond_the_width_is_no_piece():
    class Narrow(Window):
        """Promises more than its outputs can hold: what is beyond them is an address-size fault of its own."""

    narrow = Narrow("narrow", Span(0, 0x2000, 0x7000), Span(0x2000, 0x1000, 0x7000))
    narrow.output_width = 15
    assert triples(narrow) == [(0, 0x7000, 0x1000)]
    for at in 0x1000, 0x2000:
        assert access(narrow, at, 1, Access.READ).fault.kind is FaultKind.ADDRESS_SIZE


def test_what_nobody_may_use_is_a_piece_all_the_same():
    chain = Chain(paged("s1", (0, 0, PAGE, 1, Prot.READ)), paged("s2", (0, 0, PAGE, 1, Prot.WRITE | Prot.NOEXEC)))
    [piece] = extents(chain)
    assert allowed(piece.prot) == 0


@pytest.mark.parametrize("order", ["connect first", "chain first"])
def test_nothing_is_below_the_memory_that_an_upper_path_is_connected_to(order):
    """A chain on a node that ends in a memory ends there, by what is walked and by what is listed."""
    window, below = Node(Window("bus", Span(0, 0x1000, 0x5000))), Window("below", Span(0x5000, 0x1000, 0x1000))
    memory = Node(Memory("ram", SparseRam(PhysSpace("ram"))))
    if order == "connect first":
        connect(window, memory)
    chain = Chain(window, below)
    if order == "chain first":
        assert access(chain, 0x10, 1, Access.READ).runs[0].output == 0x6010  # an open end so far
        connect(window, memory)
    run = access(chain, 0x10, 1, Access.READ).runs[0]
    [piece] = extents(chain)
    assert (run.output, run.memory) == (0x5010, "ram")
    assert (piece.output, piece.memory) == (0x5000, memory.layer)


def test_hidden_ways_are_refused():
    class Tunnel:
        def travel(self, at, why, trip, rest):
            raise AssertionError

        def __repr__(self):
            return "<tunnel>"

    with pytest.raises(NotSupported) as caught:
        list(extents(Chain(Identity("id"), Tunnel())))
    assert str(caught.value) == "<tunnel> can't list what it maps: only nodes and chains of them can"


@given(stacks.ways(unit=QUARTER, walkers=(Walker.PHYSICAL,)))
def test_pieces_say_what_walks_find(path):
    found = list(extents(path))
    at = 0
    for quarter in range(stacks.PAGES * PAGE // QUARTER):
        at = quarter * QUARTER
        piece = next((each for each in found if each.input <= at < each.stop), None)
        for wanted in Access.READ, Access.WRITE, Access.EXEC:
            answer = access(path, at, QUARTER, wanted)
            if piece is None or not allowed(piece.prot) & wanted:
                assert answer.fault is not None
                assert answer.fault.iova == at
                continue
            memory = "" if piece.memory is None else piece.memory.name
            [run] = answer.runs
            assert run[1:3] == (piece.output + at - piece.input, QUARTER)
            assert run[4:] == (piece.prot, piece.attributes, memory, piece.memory)
            if at == piece.input:
                assert run.page_size == piece.block


@given(stacks.ways(unit=QUARTER))
def test_pieces_are_ascending_and_as_few_as_can_be(path):
    merged, single = list(extents(path)), list(pieces(path))
    for one, other in pairwise(merged):
        joined = one.stop == other.input and one.output + one.size == other.output
        assert one.stop <= other.input
        assert not joined or one[3:6] != other[3:6]
    for one, other in pairwise(single):
        assert one.stop <= other.input
    assert sum(piece.size for piece in merged) == sum(piece.size for piece in single)
    for piece in single:
        at = piece.input
        for _, own in piece.way:
            assert own.input <= at
            assert at + piece.size <= own.input + own.size
            at += own.output - own.input


def test_a_layer_alone_and_its_node_are_the_same():
    layer = Window("w", Span(0, 0x100, 0x10))
    assert triples(layer) == triples(Node(layer)) == [(0, 0x10, 0x100)]
    [piece] = extents(layer)
    assert (piece.block, piece.alignment) == (0x10, 0x10)
