from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import Access, PhysSpace, Prot
from swiommu.errors import AddressInUse, InvalidArgument, OutOfRange
from swiommu.layer import (
    Attributes,
    Chain,
    Fault,
    FaultClass,
    FaultKind,
    FlatTable,
    Memory,
    MemoryType,
    Node,
    Paged,
    Router,
    Run,
    Shareability,
    Span,
    Walker,
    access,
    connect,
)
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable

RW = Prot.READ | Prot.WRITE
PAGE = 0x1000
APERTURE = 0x8000_0000
SNOOPED = Attributes(MemoryType.WRITE_BACK, Shareability.INNER)
UNSNOOPED = Attributes(MemoryType.NON_CACHEABLE, Shareability.OUTER)


def gart(**options):
    return FlatTable("gart", base=APERTURE, size=64 << 20, **options)


@pytest.mark.parametrize(
    ("output", "coherent", "entry"),
    [
        (0x0, True, 0x0000_0003),
        (0x1000, False, 0x0000_1001),
        (0xFFFF_F000, True, 0xFFFF_F003),
        (0x12_3456_7000, True, 0x3456_7123),
        (0xFF_FFFF_F000, False, 0xFFFF_FFF1),
        (0xA0_0000_0000, True, 0x0000_0A03),
    ],
)
def test_entries_are_those_of_the_hardware(output, coherent, entry):
    table = gart(table=0x7000)
    table.map(APERTURE + 5 * PAGE, output, PAGE, coherent=coherent)
    assert table.stored(0x7000 + 5 * 4, 4) == entry
    attributes = SNOOPED if coherent else UNSNOOPED
    assert access(table, APERTURE + 5 * PAGE + 8, 4, Access.WRITE).runs == (
        Run(APERTURE + 5 * PAGE + 8, output + 8, 4, PAGE, RW, attributes),
    )


def test_one_reference_a_page_and_pages_in_a_row_are_one_run():
    table = gart()
    table.map(APERTURE, 0x40_0000, 4 * PAGE)
    table.map(APERTURE + 4 * PAGE, 0x40_4000, PAGE, coherent=False)  # goes on, but is seen differently
    answer = access(table, APERTURE + 0x800, 4 * PAGE, Access.READ | Access.WRITE | Access.EXEC)
    assert [(run.output, run.size) for run in answer.runs] == [(0x40_0800, 0x3800), (0x40_4000, 0x800)]
    assert answer.refs == 5


@pytest.mark.parametrize(
    ("at", "kind"),
    [
        (APERTURE - 1, FaultKind.RANGE),
        (0, FaultKind.RANGE),
        (APERTURE + (64 << 20), FaultKind.RANGE),
        (APERTURE + PAGE, FaultKind.TRANSLATION),
        (APERTURE + (64 << 20) - 1, FaultKind.TRANSLATION),
    ],
)
def test_what_it_refuses(at, kind):
    table = gart()
    table.map(APERTURE, 0x40_0000, PAGE)
    answer = access(table, at, 1, Access.READ)
    assert answer.fault == Fault("gart", kind, Access.READ, at, at)
    assert answer.refs == (kind is FaultKind.TRANSLATION)


def test_map_is_all_or_nothing_and_unmap_counts():
    table = gart()
    table.map(APERTURE + 2 * PAGE, 0x40_0000, PAGE)
    with pytest.raises(AddressInUse) as caught:
        table.map(APERTURE, 0x50_0000, 4 * PAGE)
    assert str(caught.value) == "flat table 'gart': a live entry is at 0x80002000"
    assert [extent.input for extent in table.extents()] == [APERTURE + 2 * PAGE]
    assert table.unmap(APERTURE, 4 * PAGE) == PAGE
    assert list(table.extents()) == []
    assert table.unmap(APERTURE, 4 * PAGE) == 0


@pytest.mark.parametrize(
    ("at", "to", "size", "error", "text"),
    [
        (
            APERTURE,
            0x800,
            PAGE,
            InvalidArgument,
            "0x1000 bytes at 0x80000000 to 0x800 are not aligned to the granule 0x1000",
        ),
        (APERTURE, 0, 0, InvalidArgument, "0x0 bytes at 0x80000000 to 0x0 are not aligned to the granule 0x1000"),
        (
            APERTURE - PAGE,
            0,
            2 * PAGE,
            OutOfRange,
            "0x2000 bytes at 0x7ffff000 leave the aperture [0x80000000, 0x84000000) of flat table 'gart'",
        ),
        (
            APERTURE,
            (1 << 40) - PAGE,
            2 * PAGE,
            OutOfRange,
            "0x2000 bytes at output 0xfffffff000 leave the 40-bit output of flat table 'gart'",
        ),
    ],
)
def test_map_refuses(at, to, size, error, text):
    with pytest.raises(error) as caught:
        gart().map(at, to, size)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"base": 0x800, "size": PAGE},
            "flat table 'gart': an aperture of 0x1000 bytes at 0x800 with its table at 0x0 is not whole pages",
        ),
        (
            {"base": 0, "size": 0},
            "flat table 'gart': an aperture of 0x0 bytes at 0x0 with its table at 0x0 is not whole pages",
        ),
        (
            {"base": 0, "size": PAGE, "table": 4},
            "flat table 'gart': an aperture of 0x1000 bytes at 0x0 with its table at 0x4 is not whole pages",
        ),
        ({"base": 0, "size": 8 << 20, "pages": []}, "flat table 'gart': 2048 entries need 2 pages, not 0"),
    ],
)
def test_table_that_can_not_be(options, text):
    with pytest.raises(InvalidArgument) as caught:
        FlatTable("gart", **options)
    assert str(caught.value) == text


def test_it_says_what_it_is():
    table = gart(table=0x7000)
    table.map(APERTURE, 0, 3 * PAGE)
    assert table.describe() == "[0x80000000, 0x84000000), 3 of 16384 entries mapped, table at 0x7000"
    assert (table.table_size, table.granule, table.input_width, table.output_width) == (65536, PAGE, 32, 40)
    assert list(table.accepts()) == [(APERTURE, APERTURE + (64 << 20))]


def test_a_large_aperture_lists_what_is_mapped_and_nothing_else():
    table = FlatTable("gart", base=APERTURE, size=2 << 30)
    wanted = [APERTURE, APERTURE + (1 << 30) + PAGE, APERTURE + (2 << 30) - PAGE]
    for number, at in enumerate(wanted):
        table.map(at, number * PAGE, PAGE)
    assert [(extent.input, extent.output) for extent in table.extents()] == [
        (at, number * PAGE) for number, at in enumerate(wanted)
    ]
    assert table.describe() == "[0x80000000, 0x100000000), 3 of 524288 entries mapped, table at 0x0"


def test_words_behind_the_last_entry_are_not_its_own():
    page = array("Q", [0xFFFF_FFFF_FFFF_FFFF] * 512)
    table = FlatTable("gart", base=0, size=3 * PAGE, pages=[page])
    assert [extent.input for extent in table.extents()] == [0, PAGE, 2 * PAGE]


# -- where the table lies


@pytest.fixture
def ram():
    return SparseRam(PhysSpace("dram", width=40))


def system_iommu(*runs):
    table = RadixTable(MOCK, CountingTables())
    for iova, paddr, size, count in runs:
        table.map_run(iova, paddr, size, count, RW)
    return Node(Paged("iommu", table), walker=Walker.PHYSICAL)


def graphics(ram, walker, table_at, table_lies, *runs):
    """A flat table above an IOMMU above memory; its entries are bytes of that memory."""
    pages = [ram.words(ram.space.at(table_lies + page)) for page in range(0, 0x1_0000, PAGE)]
    node = Node(gart(table=table_at, pages=pages))
    memory = Node(Memory("dram", ram))
    iommu = system_iommu(*runs)
    connect(iommu, memory)
    connect(node, iommu)
    node.walker = memory if walker == "stolen" else walker
    return node


@pytest.mark.parametrize(
    ("walker", "table_at", "refs"),
    [
        (Walker.NESTED, 0x2_0000, 1 * (4 + 1) + 4),  # the entry is read through the IOMMU below, as data is
        ("stolen", 0x70_0000, 1 + 4),  # a memory node: physical, and counted, and read from its bytes
        (Walker.PHYSICAL, 0x70_0000, 1 + 4),
    ],
    ids=["nested", "stolen", "physical"],
)
def test_physical_and_nested_table(ram, walker, table_at, refs):
    node = graphics(ram, walker, table_at, 0x70_0000, (0x2_0000, 0x70_0000, PAGE, 16), (0x40_0000, 0x50_0000, PAGE, 2))
    node.layer.map(APERTURE + 0x3000, 0x40_0000, 2 * PAGE)
    assert ram.read(ram.space.at(0x70_000C), 8) == bytes.fromhex("03004000 03104000")
    answer = access(node, APERTURE + 0x3FFE, 4, Access.WRITE)
    assert [(run.output, run.size, run.memory) for run in answer.runs] == [(0x50_0FFE, 4, "dram")]
    assert answer.refs == 2 * refs
    # Its table is bytes: who overwrites them, leads the device elsewhere. Physically: its own pages are the same bytes.
    ram.write(ram.space.at(0x70_000C), bytes.fromhex("01104000"))
    assert access(node, APERTURE + 0x3000, 4, Access.WRITE).runs[0].output == 0x50_1000
    assert next(node.layer.extents()).attributes == UNSNOOPED


def test_nested_table_scattered_below(ram):
    # The second page of the table lies elsewhere; entry 1024 is its first.
    runs = (0x2_0000, 0x70_0000, PAGE, 1), (0x2_1000, 0x30_0000, PAGE, 1), (0x40_0000, 0x50_0000, PAGE, 1)
    node = graphics(ram, Walker.NESTED, 0x2_0000, 0x70_0000, *runs)
    pages = [ram.words(ram.space.at(at)) for at in (0x70_0000, 0x30_0000)]
    node.layer = FlatTable("gart", base=APERTURE, size=8 << 20, table=0x2_0000, pages=pages)
    node.layer.map(APERTURE + (4 << 20), 0x40_0000, PAGE)
    assert ram.read(ram.space.at(0x30_0000), 4) == bytes.fromhex("03004000")
    answer = access(node, APERTURE + (4 << 20) + 0x18, 8, Access.READ)
    assert (answer.runs[0].output, answer.refs) == (0x50_0018, 9)


def test_unmapped_table_page_is_the_fault_of_the_layer_below(ram):
    node = graphics(ram, Walker.NESTED, 0x2_0000, 0x70_0000, (0x40_0000, 0x50_0000, PAGE, 1))
    node.layer.map(APERTURE, 0x40_0000, PAGE)
    answer = access(node, APERTURE + 0x123, 4, Access.WRITE)
    assert answer.fault == Fault(
        "iommu", FaultKind.TRANSLATION, Access.WRITE, 0x2_0000, APERTURE + 0x123, FaultClass.WALK, "gart"
    )
    assert str(answer.fault) == (
        "translation fault at 0x20000 in layer 'iommu', reading a table of 'gart' for WRITE access at 0x80000123"
    )


def test_unmapped_output_is_found_after_the_entry(ram):
    node = graphics(ram, "stolen", 0x70_0000, 0x70_0000)
    node.layer.map(APERTURE, 0x40_0000, PAGE)
    answer = access(node, APERTURE + 0x123, 4, Access.WRITE)
    assert answer.fault == Fault("iommu", FaultKind.TRANSLATION, Access.WRITE, 0x40_0123, APERTURE + 0x123)


def test_aperture_or_direct(ram):
    # A north bridge: the aperture goes through the table, everything below it straight to memory.
    memory = Node(Memory("dram", ram, size=APERTURE))
    table = Node(gart(table=0x70_0000), walker=Walker.PHYSICAL)
    table.layer.map(APERTURE, 0x12_3000, PAGE)
    connect(table, memory)
    spans = Span(0, APERTURE), Span(APERTURE, 64 << 20, port=1)
    bridge = Node(Router("bridge", *spans, ports=("direct", "aperture")))
    connect(bridge, memory, table)
    assert [access(bridge, at, 1, Access.READ).refs for at in (0x12_3004, APERTURE + 4)] == [0, 1]
    assert {access(bridge, at, 1, Access.READ).runs[0].output for at in (0x12_3004, APERTURE + 4)} == {0x12_3004}
    assert access(bridge, APERTURE + PAGE, 1, Access.READ).fault.layer == "gart"
    assert access(bridge, APERTURE + (64 << 20), 1, Access.READ).fault.layer == "bridge"


def test_a_chain_reads_it_through_all_that_is_below():
    upper, lower = gart(table=0x2_0000), system_iommu((0x2_0000, 0x9_0000, PAGE, 1), (0x40_0000, 0x50_0000, PAGE, 1))
    upper.map(APERTURE, 0x40_0000, PAGE)
    lowest = system_iommu((0x9_0000, 0x0, PAGE, 1), (0x50_0000, 0xF000, PAGE, 1))
    path = Chain(Chain(upper, lower), lowest)
    answer = access(path, APERTURE, 4, Access.READ)
    assert (answer.runs[0].output, answer.refs) == (0xF000, 1 + (4 + 4) + (4 + 4))  # the entry, its way, the data's way


steps = st.tuples(st.sampled_from(["map", "unmap"]), st.integers(0, 15), st.integers(0, 15), st.integers(1, 6))


@given(st.lists(steps, max_size=12))
def test_it_equals_a_dictionary(steps):
    table, twin = FlatTable("flat", base=0x10_0000, size=16 * PAGE), {}
    for verb, page, to, count in steps:
        pages = range(page, min(page + count, 16))
        at, size = 0x10_0000 + page * PAGE, len(pages) * PAGE
        if verb == "unmap":
            assert table.unmap(at, size) == PAGE * sum(page in twin for page in pages)
            twin = {page: to for page, to in twin.items() if page not in pages}
        elif twin.keys() & set(pages):
            with pytest.raises(AddressInUse):
                table.map(at, to * PAGE, size)
        else:
            table.map(at, to * PAGE, size)
            twin |= {page: to + step for step, page in enumerate(pages)}
    mapped = {(extent.input - 0x10_0000) // PAGE: extent.output // PAGE for extent in table.extents()}
    assert mapped == twin
    for page in range(16):
        answer = access(table, 0x10_0000 + page * PAGE, PAGE, Access.READ)
        assert [run.output // PAGE for run in answer.runs] == ([twin[page]] if page in twin else [])
