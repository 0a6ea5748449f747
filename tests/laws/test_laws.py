"""All laws over random stacks, domains, caches and allocators; with --slow over many more."""

import pytest
from hypothesis import given

from swiommu.address import Access, BusSpace, PhysRange, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.layer import Chain, Extent, FaultKind, Layer, Node, Paged, Span, Walker, Window
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable
from swiommu.pagetable.formats import FORMATS
from swiommu.region import Region
from swiommu.testing import LAWS, Probe, laws, strategies
from swiommu.testing.cases import CASES, cases_of
from swiommu.testing.formats import DRAWN, LAW_FORMATS

EXAMPLES, MANY = 30, 600


def by_name(case):
    return str(case).replace(" ", "_").replace(",", "")


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_law(case):
    case.hold(examples=EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_law_for_long(case):
    case.hold(examples=MANY)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAW_FORMATS)
def test_laws_on_one_format_only(name):
    for case in cases_of([name]):
        case.hold(examples=EXAMPLES)


def test_every_format_is_drawn():
    assert set(DRAWN) == set(LAW_FORMATS)
    assert set(FORMATS) < set(LAW_FORMATS)
    assert {form.rules for form in LAW_FORMATS.values()} > {form.rules for form in FORMATS.values()}


def test_every_law_is_there_and_tried():
    assert sorted(LAWS) == [number for number in range(1, 24) if number != 17]
    assert {case.number for case in CASES} == set(LAWS)
    assert all(law.number == number and law.statement for number, law in LAWS.items())


# -- the worked numbers of the theory


@pytest.mark.parametrize(
    ("levels", "refs"),
    [
        ([4], 4),
        ([5], 5),
        ([3, 3], 15),
        ([3, 4], 19),
        ([4, 3], 19),
        ([4, 4], 24),
        ([4, 5], 29),
        ([5, 4], 29),
        ([5, 5], 35),
        ([2, 2], 8),
        ([3, 3, 3], 63),
        ([4, 4, 4], 124),
        ([3, 4, 5], 119),
        ([5, 5, 5], 215),
        ([2, 2, 2], 26),
        ([4, 4, 4, 4], 624),
    ],
)
def test_references(levels, refs):
    assert laws.references(levels, [True] * len(levels)) == refs
    assert laws.references(levels, [False] * len(levels)) == sum(levels)


# -- a layer of one's own


class Sloppy(Layer):
    """A window that says of its last page that it is there, but does not translate it."""

    kind, granule, input_width, output_width = "sloppy", 0x1000, 16, 16

    def look(self, at, read):
        return FaultKind.TRANSLATION if at >= 0xF000 else Extent(0, 0, 0x10000, 0x1000, Prot.READ)

    def extents(self):
        yield Extent(0, 0, 0x10000, 0x1000, Prot.READ)


def test_a_layer_that_breaks_a_law_is_told_which():
    @given(strategies.probes(0xE000, 0x2000))
    def held(probes):
        laws.hold(Sloppy("mine"), probes)

    with pytest.raises(AssertionError, match=r"^law (11|15) \((no leak|segments)\): "):
        held()


def test_what_is_said_of_a_broken_law():
    with pytest.raises(AssertionError) as caught:
        laws.segments(Sloppy("mine"), [Probe(0xE800, 0x1000)])
    assert str(caught.value) == (
        "law 15 (segments): READ of 0x1000 bytes at 0xe800: 0xe800+0x1000 -> 0xe800 READ in blocks of 0x1000; "
        "0 references: the byte at 0xf000 alone: translation fault of READ access at 0xf000 in layer 'mine'; "
        "0 references"
    )
    with pytest.raises(AssertionError) as caught:
        laws.no_leak([Node(Sloppy("mine"))], [Probe(0xF000)])
    assert str(caught.value) == (
        "law 11 (no leak): 0xf000 leads to translation fault of READ access at 0xf000 in layer 'mine'; 0 references, "
        "though 0xf000 is mapped there"
    )


# -- cases by hand, at the edges of the laws


def paged(name, *maps, walker=Walker.NESTED):
    table = RadixTable(MOCK, CountingTables())
    for iova, paddr, pages, prot in maps:
        table.map_run(iova, paddr, 0x1000, pages, prot)
    return Node(Paged(name, table), walker=walker)


def test_walk_faults_of_walks_are_attributed():
    # The first table of s1 is mapped by s2, whose own table s3 does not map: s3 refuses, reading for s2.
    s1, s2, s3 = paged("s1", (0, 0, 1, Prot(3))), paged("s2", (0, 0, 64, Prot(3))), paged("s3")
    laws.attribution([s1, s2, s3], [Probe(0)])
    fault = Probe(0).on(Chain(s1, Chain(s2, s3))).fault
    assert (fault.layer, fault.walk_of) == ("s3", "s2")


def test_flattening_may_cost_more_where_a_window_is_odd():
    # 1 GiB in two references; over a window that is off by one page it takes pages of 4 KiB: four.
    table = RadixTable(MOCK, CountingTables())
    table.map_run(0, 0, 1 << 30, 1, Prot(3))
    over = Chain(Paged("huge", table), Window("odd", Span(0, 1 << 22, 0x1000)))
    laws.flattening(over, [Probe(0, 0x3000)])
    with pytest.raises(
        AssertionError, match=r"^law 5 \(flattening\): 0x0 costs more flat: .*2 references .*4 references"
    ):
        laws.flattening(over, [Probe(0)], one_geometry=True)


def test_linear_domains_keep_isolation_one_way_only():
    space = PhysSpace("ram", width=32)
    ram = SparseRam(space)
    frames = Frames(space.at(0x4000_0000), 1 << 20)
    region = Region(space.at(0x4000_0000), 0x1_0000)
    linear = LinearDomain(BusSpace("a", width=32), region, window=PhysRange(space.at(0x4000_0000), 1 << 20))
    victim = PagedDomain(BusSpace("b", width=32), frames=frames, output_space=space)
    buffer = victim.alloc(0x1000)
    device = BusDevice("camera", ram)
    linear.attach(device)
    aim = linear.input_space.at(buffer.pieces[0].start.value)  # not mapped in `a`, but the window is open

    def held():
        return ram.read(buffer.pieces[0].start, 4)

    asked = [Probe(buffer.iova.start.value, 0x1000)]
    laws.isolation(linear, victim, asked, [lambda: device.write(aim, b"oops")], held)
    assert (linear.enforces, held()) == (False, b"oops")
    # A device behind hardware has no such address: nothing of the other's is mapped in its domain.
    other = PagedDomain(BusSpace("c", width=32), frames=frames, output_space=space)
    with pytest.raises(AssertionError) as caught:
        laws.isolation(other, victim, asked, [lambda: ram.fill(buffer.pieces[0].start, 1, 0)], held)
    assert str(caught.value) == (
        "law 12 (isolation): operation 1 of the device in 'c' changed what 'b' holds: b'oops' before, b'\\x00ops' after"
    )


def test_an_atomic_access_that_fails_leaves_no_mark():
    from swiommu.layer import Marks, access

    table = RadixTable(MOCK, CountingTables())
    table.map_run(0x1000, 0x8000, 0x1000, 1, Prot(3))
    layer = Paged("iommu", table, marks=Marks())
    assert access(layer, 0x1800, 0x1000, Access.WRITE, atomic=True).size == 0
    assert layer.marks.accessed == layer.marks.dirty == set()
    assert access(layer, 0x1800, 0x1000, Access.WRITE).size == 0x800
    assert layer.marks.dirty == {(0x1000, 0x1000)}
