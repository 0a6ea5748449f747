"""Page tables as layers: attributes, the override of memory types, marks, and tables that are bytes of a memory."""

import sys

import pytest

from swiommu.address import Access, PhysSpace, Prot
from swiommu.layer import (
    NEUTRAL,
    Attributes,
    Chain,
    Fault,
    FaultClass,
    FaultKind,
    Marks,
    Memory,
    MemoryType,
    Node,
    Paged,
    Shareability,
    Span,
    Walker,
    Window,
    access,
)
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK, CountingTables, FrameTables, RadixTable

RW = Prot.READ | Prot.WRITE
PAGE, MB2 = 0x1000, 0x20_0000
DEVICE = Attributes(MemoryType.DEVICE, Shareability.OUTER)
CACHED = Attributes(MemoryType.WRITE_BACK, Shareability.INNER)
UNCACHED = Attributes(MemoryType.NON_CACHEABLE, Shareability.OUTER)


def paged(name, *runs, tables=None, **options):
    table = RadixTable(MOCK, CountingTables() if tables is None else tables)
    for iova, paddr, size, count, prot in runs:
        table.map_run(iova, paddr, size, count, prot)
    return Paged(name, table, **options)


def one(path, at=0, wanted=Access.READ):
    [run] = access(path, at, 8, wanted).runs
    return run


# -- attributes


@pytest.mark.parametrize(
    ("prot", "attributes"),
    [(RW, UNCACHED), (RW | Prot.CACHE, CACHED), (RW | Prot.MMIO, DEVICE), (RW | Prot.MMIO | Prot.CACHE, DEVICE)],
)
def test_a_leaf_says_how_memory_is_seen(prot, attributes):
    run = one(paged("s1", (0, 0x8000, PAGE, 1, prot)))
    assert (run.prot, run.attributes) == (RW, attributes)


@pytest.mark.parametrize(
    ("upper", "lower", "forced", "memory_type", "shareability"),
    [
        (Prot.CACHE, Prot.CACHE, False, MemoryType.WRITE_BACK, Shareability.INNER),
        (Prot.CACHE, Prot.NONE, False, MemoryType.NON_CACHEABLE, Shareability.OUTER),
        (Prot.CACHE, Prot.MMIO, False, MemoryType.DEVICE, Shareability.OUTER),
        (Prot.MMIO, Prot.CACHE, False, MemoryType.DEVICE, Shareability.OUTER),
        (Prot.MMIO, Prot.CACHE, True, MemoryType.WRITE_BACK, Shareability.OUTER),
        (Prot.NONE, Prot.CACHE, True, MemoryType.WRITE_BACK, Shareability.OUTER),
        (Prot.CACHE, Prot.MMIO, True, MemoryType.DEVICE, Shareability.OUTER),
    ],
)
def test_attributes_of_two_stages_meet_unless_the_lower_one_forces_its_own(
    upper, lower, forced, memory_type, shareability
):
    path = Chain(
        Node(paged("s1", (0, 0, PAGE, 1, RW | upper)), walker=Walker.PHYSICAL),
        paged("s2", (0, 0x8000, PAGE, 1, RW | lower), force_write_back=forced),
    )
    assert one(path).attributes == Attributes(memory_type, shareability, forced)


def test_forcing_above_forces_nothing_below():
    upper = Node(paged("s1", (0, 0, PAGE, 1, RW | Prot.CACHE), force_write_back=True), walker=Walker.PHYSICAL)
    assert one(Chain(upper, paged("s2", (0, 0, PAGE, 1, RW)))).attributes.memory_type is MemoryType.NON_CACHEABLE


def test_layers_without_an_opinion_change_nothing():
    window = Window("w", Span(0, 0x10000, 0))
    assert one(Chain(window, paged("s1", (0, 0, PAGE, 1, RW | Prot.CACHE)))).attributes == CACHED
    assert one(Chain(window, window)).attributes == NEUTRAL


# -- permissions


@pytest.mark.parametrize(
    ("upper", "lower", "wanted", "blamed"),
    [
        (RW, RW, Access.READ | Access.WRITE, None),
        (Prot.READ, RW, Access.WRITE, "s1"),
        (RW, Prot.READ, Access.WRITE, "s2"),
        (Prot.READ, Prot.READ, Access.WRITE, "s1"),  # the uppermost
        (Prot.READ, Prot.WRITE, Access.READ, "s2"),
        (Prot.READ, Prot.WRITE, Access.WRITE, "s1"),
        (RW | Prot.NOEXEC, RW, Access.EXEC, "s1"),
        (RW, RW | Prot.NOEXEC, Access.EXEC, "s2"),
        (Prot.READ, Prot.WRITE, Access.EXEC, None),  # nobody forbids it
    ],
)
def test_permissions_are_those_of_all_and_the_uppermost_that_lacks_one_is_blamed(upper, lower, wanted, blamed):
    path = Chain(
        Node(paged("s1", (0x1000, 0x5000, PAGE, 1, upper)), walker=Walker.PHYSICAL),
        paged("s2", (0x5000, 0x9000, PAGE, 1, lower)),
    )
    answer = access(path, 0x1010, 4, wanted)
    if blamed is None:
        assert (answer.fault, answer.runs[0].output) == (None, 0x9010)
    else:
        address = 0x1010 if blamed == "s1" else 0x5010
        assert answer.fault == Fault(blamed, FaultKind.PERMISSION, wanted, address, 0x1010)


def test_an_upper_permission_beats_a_lower_hole_and_a_torn_table_beats_both():
    upper = paged("s1", (0x1000, 0x5000, PAGE, 1, Prot.READ))  # its tables lie at 0x1000 to 0x4fff below
    lower = paged("s2", (0x1000, 0x81000, PAGE, 4, RW))
    assert access(Chain(upper, lower), 0x1010, 4, Access.WRITE).fault.layer == "s1"
    assert access(Chain(upper, lower), 0x1010, 4, Access.READ).fault == Fault(
        "s2", FaultKind.TRANSLATION, Access.READ, 0x5010, 0x1010
    )
    lower.table.unmap(0x4000, PAGE)  # the page that holds the leaf
    assert access(Chain(upper, lower), 0x1010, 4, Access.WRITE).fault == Fault(
        "s2", FaultKind.TRANSLATION, Access.WRITE, 0x4008, 0x1010, FaultClass.WALK, "s1"
    )


@pytest.mark.parametrize("hardware_ad", [False, True])
def test_a_table_that_is_kept_up_by_hardware_needs_pages_that_can_be_written(hardware_ad):
    upper = paged("s1", (0x1000, 0x5000, PAGE, 1, RW), hardware_ad=hardware_ad)
    lower = paged("s2", (0x1000, 0x81000, PAGE, 4, Prot.READ), (0x5000, 0x9000, PAGE, 1, RW))
    fault = access(Chain(upper, lower), 0x1010, 4, Access.READ).fault
    if hardware_ad:
        assert fault == Fault(
            "s2", FaultKind.PERMISSION, Access.READ, 0x1000, 0x1010, FaultClass.WALK, "s1", implicit_write=True
        )
    else:
        assert fault is None


# -- marks


def test_marks_are_per_leaf_of_each_layer_and_only_of_what_went_through():
    upper = paged("s1", (0, 0x40_0000, PAGE, 4, RW), (0x10_0000, 0x80_0000, PAGE, 1, RW), marks=Marks())
    lower = paged("s2", (0x40_0000, 0, MB2, 1, RW), marks=Marks())
    path = Chain(Node(upper, walker=Walker.PHYSICAL), lower)
    access(path, 0x800, PAGE, Access.READ)
    assert upper.marks.accessed == {(0, PAGE), (0x1000, PAGE)}
    assert lower.marks.accessed == {(0x40_0000, MB2)}
    assert upper.marks.dirty == lower.marks.dirty == set()
    access(path, 0x2FFF, 1, Access.WRITE)
    assert (upper.marks.dirty, lower.marks.dirty) == ({(0x2000, PAGE)}, {(0x40_0000, MB2)})
    access(path, 0x3000, 1, Access.WRITE, uncached=True)
    access(path, 0x10_0000, 1, Access.WRITE)  # faults below: above, nothing was touched
    assert upper.marks.dirty == {(0x2000, PAGE)}
    assert lower.marks.read_and_clear() == {(0x40_0000, MB2)}
    assert lower.marks.dirty == set()


def test_reading_a_table_marks_the_pages_that_hold_it():
    for hardware_ad, dirty in (False, set()), (True, {(at, PAGE) for at in (0x1000, 0x2000, 0x3000, 0x4000)}):
        upper = paged("s1", (0x1000, 0x5000, PAGE, 1, RW), hardware_ad=hardware_ad)
        lower = paged("s2", (0x1000, 0x81000, PAGE, 8, RW), marks=Marks())
        assert access(Chain(upper, lower), 0x1010, 4, Access.READ).fault is None
        assert lower.marks.accessed == {(at, PAGE) for at in range(0x1000, 0x6000, PAGE)}
        assert lower.marks.dirty == dirty


# -- a table in memory


def test_the_walker_reads_what_is_in_memory():
    space = PhysSpace("dram", width=40)
    ram = SparseRam(space)
    frames = Frames(space.at(0x8000_0000), 64 * PAGE)
    layer = paged("iommu", (0x1000, 0x9000_0000, PAGE, 1, RW), tables=FrameTables(frames, ram))
    path = Chain(layer, Memory("dram", ram, base=0x8000_0000, size=0x4000_0000))
    answer = access(path, 0x1008, 4, Access.READ)
    assert (answer.runs[0].output, answer.refs) == (0x9000_0008, 4)
    # The leaf is the second entry of the last table taken; a device that writes there leads itself elsewhere.
    leaf = space.at(0x8000_3008)
    assert int.from_bytes(ram.read(leaf, 8), sys.byteorder) == MOCK.leaf_entry(0x9000_0000, 3, int(RW), 0)
    ram.write(leaf, MOCK.leaf_entry(0xA000_0000, 3, int(Prot.READ), 0).to_bytes(8, sys.byteorder))
    assert access(path, 0x1008, 4, Access.READ).runs[0].output == 0xA000_0008
    assert access(path, 0x1008, 4, Access.WRITE).fault.kind is FaultKind.PERMISSION
    assert layer.table.lookup(0x1008) == (0xA000_0008, PAGE, Prot.READ)
    ram.fill(leaf, 8, 0)
    assert access(path, 0x1008, 4, Access.READ).fault.kind is FaultKind.TRANSLATION


def test_it_says_what_it_is():
    assert paged("s1", (0, 0, PAGE, 3, RW)).describe() == "mock, 48 to 52 bits, 3 leaves"
