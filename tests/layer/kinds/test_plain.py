"""The layers without a table: memory, identity, blocked, and windows of several deltas."""

import pytest

from swiommu.address import Access, PhysSpace, Prot
from swiommu.errors import AddressInUse, InvalidArgument, SpaceMismatch
from swiommu.layer import (
    NEUTRAL,
    Blocked,
    Chain,
    Extent,
    Fault,
    FaultKind,
    Identity,
    Memory,
    Node,
    Run,
    Span,
    Window,
    access,
)
from swiommu.memory import SparseRam

RW = Prot.READ | Prot.WRITE


@pytest.fixture
def ram():
    return SparseRam(PhysSpace("ram", width=32))


# -- memory


def test_memory_is_one_run_and_costs_nothing(ram):
    memory = Memory("dram", ram, base=0x8000_0000, size=0x3000)
    assert access(memory, 0x8000_0010, 0x2FF0, Access.READ | Access.WRITE | Access.EXEC).runs == (
        Run(0x8000_0010, 0x8000_0010, 0x2FF0, 0x2000, RW, NEUTRAL, "dram", memory),
    )
    assert access(memory, 0x8000_2000, 1, Access.READ).runs[0].page_size == 0x1000  # the odd page at the end
    assert list(memory.extents()) == [Extent(0x8000_0000, 0x8000_0000, 0x3000, 0x2000, RW)]
    assert (memory.describe(), memory.input_width) == ("[0x80000000, 0x80003000)", 32)


@pytest.mark.parametrize(
    ("start", "size", "failing"),
    [(0x7FFF_FFFF, 2, 0x7FFF_FFFF), (0x8000_2FFF, 2, 0x8000_3000), (0, 1, 0), (1 << 32, 1, 1 << 32)],
)
def test_memory_ends(ram, start, size, failing):
    answer = access(Memory("dram", ram, base=0x8000_0000, size=0x3000), start, size, Access.WRITE)
    assert answer.fault == Fault("dram", FaultKind.RANGE, Access.WRITE, failing, failing)
    assert answer.size == failing - start


def test_memory_is_all_of_its_space_unless_said(ram):
    assert access(Memory("dram", ram), (1 << 32) - 8, 8, Access.READ).runs[0].page_size == 1 << 32


@pytest.mark.parametrize(("base", "size"), [(0, 0), (-1, 8), (1 << 32, 1), (0x1000, 1 << 32)])
def test_memory_that_can_not_be(ram, base, size):
    with pytest.raises(InvalidArgument) as caught:
        Memory("dram", ram, base=base, size=size)
    assert str(caught.value) == f"memory 'dram': {size:#x} bytes at {base:#x} are not in the 32-bit space"


def test_node_of_a_memory_is_entered_by_the_space_of_its_bytes(ram):
    node = Node(Memory("dram", ram))
    assert node.translate(ram.space.at(0x10), 4, Access.READ)[0].output == 0x10
    with pytest.raises(SpaceMismatch) as caught:
        node.translate(PhysSpace("ram", width=32).at(0x10), 4, Access.READ)
    assert str(caught.value) == "PhysAddr(ram:0x10) is no address of the space 'ram'"


# -- identity and blocked


def test_identity_changes_nothing():
    assert access(Identity("bypass", width=40), 0x12345, 77, Access.EXEC).runs == (
        Run(0x12345, 0x12345, 77, 1 << 40, RW),
    )
    assert access(Identity("bypass", width=40), (1 << 40) - 1, 2, Access.READ).fault == Fault(
        "bypass", FaultKind.RANGE, Access.READ, 1 << 40, 1 << 40
    )


def test_identity_shows_what_is_below_and_lets_it_be_blamed(ram):
    memory = Memory("dram", ram, base=0x1000, size=0x1000)
    chain = Chain(Identity("bypass"), memory)
    assert access(chain, 0x1004, 4, Access.READ).runs == (Run(0x1004, 0x1004, 4, 0x1000, RW, NEUTRAL, "dram", memory),)
    assert access(chain, 0x2000, 4, Access.READ).fault.layer == "dram"


@pytest.mark.parametrize("wanted", [Access.READ, Access.WRITE, Access.EXEC])
def test_blocked_lets_nothing_through(ram, wanted):
    memory = Memory("dram", ram)
    for path in (Blocked("off", width=32), Chain(Blocked("off", width=32), memory)):
        assert access(path, 0x4000, 8, wanted).fault == Fault("off", FaultKind.TRANSLATION, wanted, 0x4000, 0x4000)
        assert access(path, 1 << 32, 8, wanted).fault.kind is FaultKind.RANGE
    shifted = Chain(Window("bus", Span(0x4000, 0x1000, 0x1000)), Blocked("off"))
    assert access(shifted, 0x4010, 8, wanted).fault == Fault("off", FaultKind.TRANSLATION, wanted, 0x5010, 0x4010)
    assert list(Blocked("off").extents()) == []


# -- a window of several deltas

SOC = Window(
    "soc",
    Span(0x0, 0x1000_0000, 0x8000_0000),  # memory
    Span(0x1000_0000, 0x0010_0000, 0),  # registers, at their own address
    Span(0x2000_0000, 0x0000_3000, -0x2000_0000 + 0x40_0000),  # on-chip memory
    Span(0x2000_3000, 0x0000_1000, -0x2000_0000 + 0x40_0000),  # its last page, under a name of its own
    Span(0x3000_0000, 0x1000_0000, 0x5000_0000),  # the memory again
)


@pytest.mark.parametrize(
    ("at", "output", "block"),
    [
        (0x0, 0x8000_0000, 0x1000_0000),
        (0x0FFF_FFFF, 0x8FFF_FFFF, 0x1000_0000),
        (0x1000_0000, 0x1000_0000, 0x10_0000),
        (0x2000_0123, 0x40_0123, 0x2000),
        (0x2000_2000, 0x40_2000, 0x1000),
        (0x2000_3FFF, 0x40_3FFF, 0x1000),
        (0x3000_0040, 0x8000_0040, 0x1000_0000),
    ],
)
def test_each_span_has_its_delta(at, output, block):
    [run] = access(SOC, at, 1, Access.WRITE).runs
    assert (run.output, run.page_size) == (output, block)


@pytest.mark.parametrize(
    ("start", "failing"), [(0x100F_FFF8, 0x1010_0000), (0x1FFF_FFFF, 0x1FFF_FFFF), (0x3FFF_FFF8, 0x4000_0000)]
)
def test_between_spans_is_nothing(start, failing):
    assert access(SOC, start, 16, Access.READ).fault == Fault("soc", FaultKind.RANGE, Access.READ, failing, failing)


def test_a_burst_over_spans_is_cut_where_the_delta_changes_and_joined_where_it_does_not():
    runs = access(SOC, 0x0FFF_FFF0, 0x20, Access.READ).runs
    assert [(run.output, run.size) for run in runs] == [(0x8FFF_FFF0, 0x10), (0x1000_0000, 0x10)]
    runs = access(SOC, 0x2000_2FF0, 0x20, Access.READ).runs
    assert [(run.output, run.size) for run in runs] == [(0x40_2FF0, 0x20)]


def test_windows_do_not_overlap():
    with pytest.raises(AddressInUse) as caught:
        Window("soc", Span(0x2000, 0x1000), Span(0, 0x2800))
    assert str(caught.value) == "the windows at 0x0 and 0x2000 overlap by 0x800 bytes"
    assert SOC.describe().startswith("[0x0, 0x10000000) +0x80000000, [0x10000000, 0x10100000) +0x0, ")
    assert "[0x20003000, 0x20004000) -0x1fc00000" in SOC.describe()
    assert Window("none").describe() == "nothing"
    assert access(Window("none"), 0, 1, Access.READ).fault.kind is FaultKind.RANGE
