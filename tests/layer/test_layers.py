import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import Access, PhysSpace, Prot
from swiommu.errors import DeviceFault, InvalidArgument
from swiommu.layer import Attributes, Chain, Fault, FaultKind, Memory, Node, Paged, Run, Span, Window
from swiommu.layer import access as access_of
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable

RW = Prot.READ | Prot.WRITE
PAGE = 0x1000


def translate(layer, start, size, wanted):
    return access_of(layer, start, size, wanted).or_raise()


def faulted(layer, start, size, access):
    with pytest.raises(DeviceFault) as caught:
        translate(layer, start, size, access)
    return caught.value


def byte_by_byte(runs, start):
    """Outputs of consecutive bytes; also that the runs follow one another."""
    out, at = [], start
    for run in runs:
        assert run.input == at
        assert run.size > 0
        out += range(run.output, run.output + run.size)
        at += run.size
    return out


# -- window


def test_window_is_one_run_whatever_the_access():
    window = Window("ram", Span(0x9000, 0x3000, -0x4000))
    for access in (Access.READ, Access.WRITE, Access.READ | Access.WRITE):
        assert translate(window, 0x9001, 0x2FFF, access) == [Run(0x9001, 0x5001, 0x2FFF, 0x1000, RW)]


@pytest.mark.parametrize(
    ("start", "size", "failing", "before"),
    [(0x8FFF, 2, 0x8FFF, 0), (0xBFFF, 2, 0xC000, 1), (0xC000, 1, 0xC000, 0), (0x10000, 8, 0x10000, 0)],
)
def test_window_faults_at_the_first_byte_outside(start, size, failing, before):
    error = faulted(Window("ram", Span(0x9000, 0x3000, -0x4000)), start, size, Access.WRITE)
    assert error.fault == Fault("ram", FaultKind.RANGE, Access.WRITE, failing, failing)
    assert sum(run.size for run in error.runs) == before
    assert str(error) == f"range fault of WRITE access at {failing:#x} in layer 'ram'"


@pytest.mark.parametrize(
    ("base", "size", "delta", "block"),
    [
        (0x4000, 0x4000, 0, 0x4000),
        (0x4000, 0x3000, 0, 0x2000),
        (0x5000, 0x3000, 0, 0x1000),
        (0, 0x10000, -0x8000, 0x8000),
        (0, 1 << 40, 0, 1 << 40),
    ],
)
def test_window_block(base, size, delta, block):
    assert translate(Window("w", Span(base, size, -delta)), base, 1, Access.READ)[0].page_size == block


@pytest.mark.parametrize(("base", "size", "delta"), [(0, 0, 0), (-1, 4, -4), (0x1000, 0x1000, 0x2000)])
def test_window_that_can_not_be(base, size, delta):
    with pytest.raises(InvalidArgument) as caught:
        Window("w", Span(base, size, -delta))
    assert str(caught.value) == f"no window of {size:#x} bytes at {base:#x} with delta {-delta:#x}"


# -- paged


@pytest.fixture
def table():
    return RadixTable(MOCK, CountingTables())


def test_paged_merges_what_agrees(table):
    table.map_run(0x1000, 0x8000, PAGE, 2, RW)
    table.map_run(0x3000, 0xA000, PAGE, 1, RW)  # goes on in the output
    table.map_run(0x4000, 0xB000, PAGE, 1, Prot.READ)  # so does this one, but it allows less
    table.map_run(0x5000, 0x20000, PAGE, 1, Prot.READ)
    assert translate(Paged("iommu", table), 0x1800, 0x4000, Access.READ) == [
        Run(0x1800, 0x8800, 0x2800, PAGE, RW, Attributes.of(RW)),
        Run(0x4000, 0xB000, 0x1000, PAGE, Prot.READ, Attributes.of(Prot.READ)),
        Run(0x5000, 0x20000, 0x800, PAGE, Prot.READ, Attributes.of(Prot.READ)),
    ]


def test_paged_does_not_merge_page_sizes(table):
    table.map_run(0x200000, 0x400000, 0x200000, 1, RW)
    table.map_run(0x400000, 0x600000, PAGE, 1, RW)
    runs = translate(Paged("iommu", table), 0x3FFFFF, 2, Access.READ)
    assert [(run.size, run.page_size) for run in runs] == [(1, 0x200000), (1, PAGE)]


@pytest.mark.parametrize(
    ("start", "size", "access", "kind", "failing"),
    [
        (0, 1, Access.READ, FaultKind.TRANSLATION, 0),
        (0x1FF0, 0x20, Access.READ, FaultKind.TRANSLATION, 0x2000),
        (0x1FF0, 0x20, Access.WRITE, FaultKind.PERMISSION, 0x1FF0),
        (0x1000, 1, Access.READ | Access.WRITE, FaultKind.PERMISSION, 0x1000),
        (1 << 48, 1, Access.READ, FaultKind.RANGE, 1 << 48),
        ((1 << 48) - 1, 2, Access.READ, FaultKind.RANGE, 1 << 48),
    ],
)
def test_paged_blames_the_first_failing_byte(table, start, size, access, kind, failing):
    table.map_run(0x1000, 0x8000, PAGE, 1, Prot.READ)
    table.map_run((1 << 48) - PAGE, 0x9000, PAGE, 1, RW)
    error = faulted(Paged("iommu", table), start, size, access)
    assert error.fault == Fault("iommu", kind, access, failing, failing)
    assert len(byte_by_byte(error.runs, start)) == failing - start


@pytest.mark.parametrize(("start", "size"), [(0, 0), (0x1000, -1), (-1, 4)])
def test_a_range_that_is_none(table, start, size):
    for layer in (Paged("iommu", table), Window("ram", Span(0, 0x1000, 0))):
        with pytest.raises(InvalidArgument) as caught:
            translate(layer, start, size, Access.READ)
        assert str(caught.value) == f"{size} bytes at {start:#x} can't be accessed: at least 1 at 0 or above"


@given(
    st.dictionaries(st.integers(0, 5), st.tuples(st.integers(0, 4), st.sampled_from([Prot.READ, RW]))),
    st.integers(0, 6 * PAGE),
    st.integers(1, 3 * PAGE),
    st.sampled_from([Access.READ, Access.WRITE]),
)
def test_paged_equals_byte_by_byte(pages, start, size, access):
    table = RadixTable(MOCK, CountingTables())
    for page, (output, prot) in pages.items():
        table.map_run(page * PAGE, output * PAGE, PAGE, 1, prot)
    wanted = []
    for at in range(start, start + size):
        output, prot = pages.get(at // PAGE, (0, Prot.NONE))
        if not int(prot) & access:
            break
        wanted.append(output * PAGE + at % PAGE)
    layer = Paged("iommu", table)
    if len(wanted) == size:
        runs = translate(layer, start, size, access)
    else:
        error = faulted(layer, start, size, access)
        assert error.fault.address == error.fault.iova == start + len(wanted)
        runs = error.runs
    assert byte_by_byte(runs, start) == wanted


# -- chains


def test_nothing_is_below_a_memory():
    ram = Memory("ram", SparseRam(PhysSpace("ram")))
    window = Window("bus", Span(0, 0x1000))
    for upper in (ram, Chain(window, ram), Chain(window, Node(ram))):
        with pytest.raises(InvalidArgument) as caught:
            Chain(upper, window)
        assert str(caught.value) == "nothing can be below 'ram': it is a memory"


def test_what_comes_before_a_fault_is_told_unless_the_access_is_atomic():
    window = Window("ram", Span(0x9000, 0x3000, -0x4000))
    answer = access_of(window, 0xBFF0, 0x20, Access.WRITE)
    assert answer.runs == (Run(0xBFF0, 0x7FF0, 0x10, 0x2000, RW),)
    assert answer.size == 0x10
    atomic = access_of(window, 0xBFF0, 0x20, Access.WRITE, atomic=True)
    assert (atomic.runs, atomic.size) == ((), 0)
    assert atomic.fault == answer.fault == Fault("ram", FaultKind.RANGE, Access.WRITE, 0xC000, 0xC000)
