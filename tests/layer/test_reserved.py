"""Reserved regions seen from above, direct ones through the composite, and what is left to allocate."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import PhysSpace, Prot
from swiommu.errors import AddressInUse, InvalidArgument
from swiommu.layer import (
    Blocked,
    FlatTable,
    Graph,
    Identity,
    Memory,
    Node,
    Paged,
    Reserved,
    ReservedKind,
    Router,
    Span,
    Window,
    allocatable,
    connect,
    missing_direct,
    require_no_conflict,
    reserved_regions,
)
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable
from swiommu.ranges import joined

RW = Prot.READ | Prot.WRITE
MSI = ReservedKind.MSI
DIRECT = ReservedKind.DIRECT
SW_MSI = ReservedKind.SW_MSI
RESERVED = ReservedKind.RESERVED


def ram(name="ram", base=0, size=1 << 32):
    return Node(Memory(name, SparseRam(PhysSpace(name)), base=base, size=size))


def paged(name, *maps):
    table = RadixTable(MOCK, CountingTables())
    for at, to, size in maps:
        table.map_run(at, to, 0x1000, size // 0x1000, RW)
    return Node(Paged(name, table))


def bus(name, *spans):
    return Node(Window(name, *(Span(*span) for span in spans)))


def on(upper, *lowers, reserved=()):
    upper.reserved = tuple(reserved)
    if lowers:
        connect(upper, *lowers)
    return upper


# -- the record


def test_record():
    region = Reserved(0xFEE0_0000, 0x10_0000, "msi")
    assert (region.kind, region.stop, str(region)) == (MSI, 0xFEF0_0000, "msi region [0xfee00000, 0xfef00000)")


@pytest.mark.parametrize(("start", "size"), [(0, 0), (-1, 4), (4, -1)])
def test_no_region(start, size):
    with pytest.raises(InvalidArgument) as caught:
        Reserved(start, size)
    assert str(caught.value) == f"no region of {size:#x} bytes at {start:#x} can be reserved: at least 1 at 0 or above"


def test_unknown_kind():
    with pytest.raises(ValueError, match="'doorbell' is not a valid ReservedKind"):
        Reserved(0, 1, "doorbell")


# -- upward


def test_through_windows_shifted_and_cut():
    lower = on(ram(), reserved=[Reserved(0x4000_0800, 0x1000), Reserved(0x9000_0000, 0x1000, MSI)])
    twice = on(bus("twice", (0, 0x1000, 0x4000_0000), (0x1_0000, 0x4000, 0x3FFF_0000)), lower)
    assert reserved_regions(twice) == [Reserved(0x800, 0x800), Reserved(0x1_0800, 0x1000)]
    assert reserved_regions(on(Node(Identity("bypass")), twice)) == reserved_regions(twice)


def test_through_a_router_by_port():
    dram = on(ram("dram"), reserved=[Reserved(0x1000, 0x1000)])
    vram = on(ram("vram"), reserved=[Reserved(0x1000, 0x1000, SW_MSI)])
    spans = Span(0, 0x1_0000, 0), Span(0x1_0000, 0x1_0000, -0x1_0000, port=1)
    assert reserved_regions(on(Node(Router("gpu", *spans)), dram, vram)) == [
        Reserved(0x1000, 0x1000),
        Reserved(0x1_1000, 0x1000, SW_MSI),
    ]


def test_through_a_page_table_by_kind():
    """Messages leave before any translation and firmware's memory stays where it is; the rest limits outputs only."""
    every = [Reserved(0x1_0000 * number, 0x1000, kind) for number, kind in enumerate(ReservedKind, 1)]
    lower = on(ram(), reserved=every)
    own = Reserved(0x8000, 0x1000)
    seen = reserved_regions(on(paged("iommu"), lower, reserved=[own]))
    assert seen == sorted([own, *(region for region in every if region.kind in {DIRECT, MSI})])


# -- what never goes together


def conflict(kind, top):
    with pytest.raises(kind) as caught:
        require_no_conflict(top)
    return caught.value


def test_no_mapping_leads_to_what_is_reserved_behind_a_window():
    window = on(bus("bus", (0, 0x1_0000, 0x4000_0000)), on(ram(), reserved=[Reserved(0x4000_3000, 0x1000)]))
    top = on(paged("iommu", (0x7000, 0x3000, 0x1000)), window)
    assert str(conflict(AddressInUse, top)) == (
        "the mapping [0x7000, 0x8000) of 'iommu' leads to the reserved region [0x3000, 0x4000) of 'bus'"
    )
    require_no_conflict(window)  # the table is not below it


def test_no_mapping_hides_messages():
    lower = on(ram(), reserved=[Reserved(0xFEE0_0000, 0x10_0000, MSI)])
    assert str(conflict(AddressInUse, on(paged("iommu", (0xFEE0_0000, 0x8000, 0x1000)), lower))) == (
        "the mapping [0xfee00000, 0xfee01000) of 'iommu' lies in the msi region [0xfee00000, 0xfef00000) of 'iommu'"
    )
    require_no_conflict(on(paged("iommu", (0x8000, 0xFEE0_0000, 0x1000)), lower))  # an output is no message


def test_regions_of_an_open_end():
    top = on(paged("iommu", (0x8000, 0, 0x1000)), reserved=[Reserved(0x8000, 0x1000), Reserved(0, 0x1000, DIRECT)])
    assert str(conflict(AddressInUse, top)) == (
        "the mapping [0x8000, 0x9000) of 'iommu' lies in the reserved region [0x8000, 0x9000) of 'iommu'"
    )


def test_a_conflict_far_below_is_found_from_the_top():
    lower = on(paged("s2", (0x5000, 0x3000, 0x1000)), on(ram(), reserved=[Reserved(0x3000, 0x1000)]))
    top = on(Node(Identity("bypass")), on(paged("s1"), lower))
    assert str(conflict(AddressInUse, top)) == (
        "the mapping [0x5000, 0x6000) of 's2' leads to the reserved region [0x3000, 0x4000) of 'ram'"
    )


def test_software_messages_have_to_be_mapped():
    lower = on(ram(), reserved=[Reserved(0x0800_0000, 0x1000, SW_MSI)])
    top = on(paged("iommu", (0x5000, 0x0800_0000, 0x1000)), lower)
    assert reserved_regions(top) == []  # the owner chose 0x5000 itself


def test_a_region_far_below_meets_a_mapping_far_above():
    top, bypass = paged("iommu", (0xFEE0_0000, 0x8000, 0x1000)), Node(Identity("bypass"))
    connect(top, bypass)
    require_no_conflict(top)
    connect(bypass, on(ram(), reserved=[Reserved(0xFEE0_0000, 0x1000, MSI)]))
    assert str(conflict(AddressInUse, top)) == (
        "the mapping [0xfee00000, 0xfee01000) of 'iommu' lies in the msi region [0xfee00000, 0xfee01000) of 'iommu'"
    )


# -- direct regions


def direct_ram():
    return on(ram(), reserved=[Reserved(0x8000, 0x3000, DIRECT)])


def test_direct_is_identity_through_one_table():
    iommu = on(paged("iommu", (0x9000, 0x9000, 0x1000)), direct_ram())
    assert missing_direct(iommu) == [(0x8000, 0x9000), (0xA000, 0xB000)]
    iommu.layer.table.map_run(0x8000, 0x8000, 0x1000, 1, RW)
    iommu.layer.table.map_run(0xA000, 0xA000, 0x1000, 1, RW)
    assert missing_direct(iommu) == []


def test_direct_elsewhere_is_refused():
    error = conflict(InvalidArgument, on(paged("iommu", (0x9000, 0x1_9000, 0x1000)), direct_ram()))
    assert str(error) == (
        "the direct region [0x8000, 0xb000) has to be at the same address in memory, "
        "and from 'iommu' 0x9000 leads to 0x19000 in 'ram'"
    )
    assert (error.iova, error.paddr) == (0x9000, 0x1_9000)


def test_direct_through_two_tables_counts_at_the_ends():
    """Each may move it, if together they don't: what is checked is the composite."""
    lower = on(paged("s2", (0x5_8000, 0x8000, 0x3000)), direct_ram())
    conflict(InvalidArgument, on(paged("s1", (0x8000, 0x5_9000, 0x1000)), lower))
    upper = on(paged("s1", (0x8000, 0x5_8000, 0x2000)), lower)
    require_no_conflict(upper)
    assert missing_direct(upper) == [(0xA000, 0xB000)]


def test_direct_missing_below():
    upper = on(paged("s1", (0x8000, 0x8000, 0x3000)), on(paged("s2", (0x8000, 0x8000, 0x1000)), direct_ram()))
    assert missing_direct(upper) == [(0x9000, 0xB000)]


def test_direct_does_not_pass_a_window_that_moves():
    window = on(bus("bus", (0, 0x1_0000, 0x1_0000)), direct_ram())
    assert str(conflict(InvalidArgument, window)) == (
        "the direct region [0x8000, 0xb000) has to be at the same address in memory, "
        "and from 'bus' 0x8000 leads to 0x18000 in 'ram'"
    )


@pytest.mark.parametrize("bottom_up", [True, False])
def test_direct_passes_a_pair_of_inverse_windows(bottom_up):
    down, up, memory = bus("down", (0x2_0000, 0x1_0000, -0x2_0000)), bus("up", (0, 0x1_0000, 0x2_0000)), direct_ram()
    edges = [(up, down), (down, memory)]
    for edge in edges[::-1] if bottom_up else edges:
        connect(*edge)
    assert reserved_regions(up) == [Reserved(0x8000, 0x3000, DIRECT)]
    assert missing_direct(up) == []
    require_no_conflict(up)


def test_direct_outside_of_an_aperture():
    gart = on(Node(FlatTable("gart", base=0x9000, size=0x1_0000)), direct_ram())
    assert str(conflict(InvalidArgument, gart)) == (
        "the direct region [0x8000, 0xb000) has to be at the same address in memory, "
        "and from 'gart' 0x8000 leads nowhere in 'gart'"
    )


def test_direct_where_there_is_no_memory():
    memory = on(ram(size=0xA000), reserved=[Reserved(0x8000, 0x3000, DIRECT)])
    assert str(conflict(InvalidArgument, on(Node(Identity("bypass")), memory))) == (
        "the direct region [0x8000, 0xb000) has to be at the same address in memory, "
        "and from 'bypass' 0xa000 leads nowhere in 'ram'"
    )


def test_direct_of_a_device():
    """Said of the top node: an unfinished stack is judged when it ends in a memory."""
    top = paged("iommu", (0x8000, 0x5_8000, 0x1000))
    top.reserved = (Reserved(0x8000, 0x1000, DIRECT),)
    bypass = Node(Identity("bypass"))
    connect(top, bypass)
    require_no_conflict(top)
    connect(bypass, ram())
    assert str(conflict(InvalidArgument, top)) == (
        "the direct region [0x8000, 0x9000) has to be at the same address in memory, "
        "and from 'iommu' 0x8000 leads to 0x58000 in 'ram'"
    )


# -- what may be allocated


def test_mask_aperture_windows_and_regions():
    memory = on(ram(base=0x4000_0000, size=0x1000_0000), reserved=[Reserved(0x4100_0000, 0x10_0000)])
    window = on(
        bus("bus", (0x1000_0000, 0x800_0000, 0x3000_0000), (0x8000_0000, 0x800_0000, -0x3800_0000)),
        memory,
        reserved=[Reserved(0x1200_0000, 0x1000, MSI)],
    )
    ranges = [(0x1000_0000, 0x1100_0000), (0x1110_0000, 0x1200_0000), (0x1200_1000, 0x1800_0000)]
    assert allocatable(window) == [*ranges, (0x8000_0000, 0x8800_0000)]
    assert allocatable(window, mask=0x7FFF_FFFF) == ranges
    assert allocatable(window, mask=0x11FF_FFFF) == ranges[:2]
    assert allocatable(window, mask=0x11FF_FFFE)[-1] == (0x1110_0000, 0x11FF_FFFF)
    assert allocatable(window, mask=0) == []


def test_through_a_page_table_only_outputs_are_limited():
    iommu = on(paged("iommu"), ram(base=0x4000_0000, size=0x1000))
    assert allocatable(iommu, mask=(1 << 32) - 1) == [(0, 1 << 32)]
    assert allocatable(iommu) == [(0, 1 << 48)]


def test_a_window_above_a_page_table_passes_its_width_on():
    iommu = on(paged("iommu"), ram(), reserved=[Reserved(0x8000, 0x1000)])
    assert allocatable(on(bus("bus", (0x1_0000, 0x1_0000, -0x1_0000)), iommu)) == [
        (0x1_0000, 0x1_8000),
        (0x1_9000, 0x2_0000),
    ]


def test_a_bypass_leaves_what_the_memory_has():
    bypass = on(Node(Identity("bypass", width=40)), ram(base=0x4000_0000, size=0x1000))
    assert allocatable(bypass) == [(0x4000_0000, 0x4000_1000)]
    assert allocatable(Node(Identity("open", width=40))) == [(0, 1 << 40)]


def test_a_blocked_layer_leaves_nothing():
    """Every access faults there, whatever is below."""
    assert allocatable(Node(Blocked("off", width=32))) == []
    assert allocatable(on(Node(Blocked("off", width=32)), ram())) == []
    assert allocatable(on(bus("bus", (0, 0x1000)), Node(Blocked("off", width=32)))) == []


def test_a_mask_that_is_none():
    with pytest.raises(InvalidArgument) as caught:
        allocatable(ram(), mask=-1)
    assert str(caught.value) == "a mask of -0x1 can't be: 0 or above is needed"


SMALL = 64
spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12), st.integers(-20, 20)), max_size=3)
regions = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 10), st.sampled_from([RESERVED, MSI, SW_MSI])), max_size=2
)


def legal(layer_spans):
    """Spans that a window takes: inputs apart, outputs above 0."""
    taken, found = set(), []
    for base, size, delta in layer_spans:
        inputs = set(range(base, base + size))
        if base + delta >= 0 and not inputs & taken:
            taken |= inputs
            found.append((base, size, delta))
    return found


@given(spans, spans, regions, regions, regions, st.none() | st.integers(0, SMALL))
def test_allocatable_is_what_byte_by_byte_arrives_unreserved(upper, lower, at_top, at_middle, at_memory, mask):
    """The twin follows each byte down two windows to a memory of 64 bytes and looks at every region on its way."""
    upper, lower = legal(upper), legal(lower)
    nodes = bus("upper", *upper), bus("lower", *lower), ram(size=SMALL)
    for node, told in zip(nodes, (at_top, at_middle, at_memory), strict=True):
        node.reserved = tuple(Reserved(*each) for each in told)
    # By hand: this is not about whether all of the windows arrives, which `connect` wants.
    for one, other in pairwise(nodes):
        one.lowers.append(other)

    def free(at):
        for told, moves in ((at_top, upper), (at_middle, lower), (at_memory, [(0, SMALL, 0)])):
            if any(start <= at < start + size for start, size, _ in told):
                return False
            hit = [delta for base, size, delta in moves if base <= at < base + size]
            if not hit:
                return False
            at += hit[0]
        return True

    limit = 128 if mask is None else mask + 1
    # What lies beyond the upper window's own input space is not there either.
    limit = min(limit, nodes[0].input_space.limit)
    assert allocatable(nodes[0], mask) == joined((at, at + 1) for at in range(limit) if free(at))


# -- in a graph


def test_regions_are_told_when_a_node_is_added():
    graph = Graph()
    graph.add(Memory("ram", SparseRam(PhysSpace("ram")), size=1 << 20), reserved=[Reserved(0x8000, 0x1000)])
    top = graph.add(Window("bus", Span(0x10_0000, 0x10_0000, -0x10_0000)), on="ram", reserved=[Reserved(0x10_0000, 1)])
    assert allocatable(top) == [(0x10_0001, 0x10_8000), (0x10_9000, 0x20_0000)]
