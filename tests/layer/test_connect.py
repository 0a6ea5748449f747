"""Putting nodes on each other: what is refused, in which words, and that a refusal changes nothing."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import Access, PhysSpace, Prot
from swiommu.errors import AddressInUse, Busy, InvalidArgument, Loop, NotFound, OutOfRange, SpaceMismatch
from swiommu.layer import (
    Blocked,
    Chain,
    FlatTable,
    Graph,
    Identity,
    Memory,
    Node,
    Paged,
    Reserved,
    Router,
    Span,
    TranslationCache,
    Walker,
    Window,
    access,
    connect,
    disconnect,
    missing_direct,
    read_through,
    require_no_conflict,
    require_unused,
)
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable
from swiommu.pagetable.formats import FORMATS, MOCK64K

RW = Prot.READ | Prot.WRITE
MiB = 1 << 20


def ram(name="ram", base=0x4000_0000, size=MiB, width=64):
    return Node(Memory(name, SparseRam(PhysSpace(name, width=width)), base=base, size=size))


def paged(name, *maps, form=MOCK, **options):
    """A page table with (input, output, size) mapped in pages of the format's granule."""
    table = RadixTable(form, CountingTables())
    for at, to, size in maps:
        table.map_run(at, to, table.granule, size // table.granule, RW)
    return Node(Paged(name, table), **options)


def bus(name, *spans):
    return Node(Window(name, *(Span(*span) for span in spans)))


def state(*nodes):
    return [(node.lowers[:], node.uppers[:], node.readers, node.walker, node.reserved) for node in nodes]


def refused(kind, call, *nodes):
    """The error of a call that must change nothing."""
    before = state(*nodes)
    with pytest.raises(kind) as caught:
        call()
    assert state(*nodes) == before
    return caught.value


# -- edges


def test_edges_are_known_at_both_ends():
    one, two, memory = paged("one"), paged("two"), ram()
    connect(one, memory)
    connect(two, memory)
    assert (memory.uppers, one.lowers, two.lowers) == ([one, two], [memory], [memory])
    disconnect(one)
    assert (memory.uppers, one.lowers) == ([two], [])


def test_two_ports_to_one_node_are_one_user():
    router = Node(Router("gpu", Span(0, 0x1000, 0x4000_0000), Span(0x1000, 0x1000, 0x4000_0000, port=1)))
    memory = ram()
    connect(router, memory, memory)
    assert (memory.uppers, router.lowers) == ([router], [memory, memory])
    disconnect(router)
    assert memory.uppers == []


def test_number_of_ports():
    router, memory, bypass = Node(Router("gpu", Span(0, 1), ports=("dram", "vram"))), ram(), Node(Identity("bypass"))
    error = refused(InvalidArgument, lambda: connect(router, memory), router, memory)
    assert str(error) == "'gpu' can't be put on 'ram': it has 2 ports (dram, vram), not 1"
    assert error.name == "gpu"
    error = refused(InvalidArgument, lambda: connect(bypass, memory, router), bypass, memory, router)
    assert str(error) == "'bypass' can't be put on 'ram', 'gpu': it has 1 port, not 2"
    error = refused(InvalidArgument, lambda: connect(bypass), bypass)
    assert str(error) == "'bypass' can't be put on nothing: it has 1 port, not 0"
    error = refused(InvalidArgument, lambda: connect(memory, bypass), bypass, memory)
    assert str(error) == "'ram' can't be put on anything: it is a memory"


def test_a_node_sits_in_one_place():
    upper, memory, other = paged("iommu"), ram(), ram("other")
    connect(upper, memory)
    error = refused(Busy, lambda: connect(upper, other), upper, memory, other)
    assert str(error) == "'iommu' can't be put on 'other': it sits on 'ram' already"
    assert (error.name, error.errno) == ("iommu", errno.EBUSY)


def test_nothing_is_taken_from_under_others():
    one, two, lower, memory = paged("one"), paged("two"), paged("lower"), ram()
    connect(lower, memory)
    connect(one, lower)
    connect(two, lower)
    error = refused(Busy, lambda: disconnect(lower), one, two, lower, memory)
    assert str(error) == "'lower' can't be taken off 'ram': 'one', 'two' sit on it"
    disconnect(two)
    disconnect(one)
    disconnect(lower)
    error = refused(NotFound, lambda: disconnect(lower), lower)
    assert str(error) == "'lower' can't be taken off anything: it sits on nothing"


def test_readers_need_what_they_read_through():
    stolen, memory = ram("stolen"), ram()
    gart = Node(FlatTable("gart", base=0x8000_0000, size=MiB), walker=stolen)
    gtt = Node(FlatTable("gtt", base=0x8000_0000, size=MiB))
    connect(gart, memory)
    error = refused(Busy, lambda: require_unused(stolen), stolen)
    assert str(error) == "'stolen' can't be removed: 'gart' reads its table through it"
    read_through(gtt, Chain(Identity("side"), stolen))
    error = refused(Busy, lambda: require_unused(stolen), stolen)
    assert str(error) == "'stolen' can't be removed: 'gart', 'gtt' read their tables through it"
    read_through(gart, Walker.PHYSICAL)
    read_through(gtt, Walker.NESTED)
    require_unused(stolen)


def test_a_forgotten_node_is_no_reader():
    stolen = ram("stolen")
    Node(Identity("short-lived"), walker=stolen)
    assert stolen.readers == []


# -- loops


def test_loop_by_data():
    one, two, three = (Node(Identity(name)) for name in ("one", "two", "three"))
    connect(one, two)
    connect(two, three)
    error = refused(Loop, lambda: connect(three, one), one, two, three)
    assert str(error) == "'three' can't be put on 'one': it would be found below itself, by three > one > two > three"
    assert (error.names, error.errno) == (["three", "one", "two", "three"], errno.ELOOP)
    error = refused(Loop, lambda: connect(three, three), three)
    assert str(error) == "'three' can't be put on 'three': it would be found below itself, by three > three"


def test_loop_by_table_reads():
    upper, lower, side = paged("upper"), paged("lower"), Node(Identity("side"))
    connect(upper, lower)
    read_through(lower, side)
    error = refused(Loop, lambda: connect(side, upper), upper, lower, side)
    assert str(error) == (
        "'side' can't be put on 'upper': it would be found below itself, by side > upper > lower > side"
    )
    error = refused(Loop, lambda: read_through(lower, upper), upper, lower, side)
    assert (
        str(error) == "'lower' can't be read through 'upper': it would be found below itself, by lower > upper > lower"
    )
    error = refused(Loop, lambda: read_through(lower, Chain(Identity("new"), lower)), upper, lower, side)
    assert str(error) == "'lower' can't be read through 'lower': it would be found below itself, by lower > lower"


def test_two_that_read_each_other():
    one, two = paged("one"), paged("two")
    read_through(one, two)
    error = refused(Loop, lambda: read_through(two, one), one, two)
    assert error.names == ["two", "one", "two"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), max_size=14))
def test_loops_against_a_closure(edges):
    """Whatever is tried, exactly what would close a loop is refused: the twin is the closure by Warshall."""
    nodes = [Node(Identity(str(number))) for number in range(6)]
    data: dict[int, int] = {}
    reads: dict[int, int] = {}
    for by_data, upper, lower in edges:
        if by_data and upper in data:
            continue
        known = {*data.items(), *((u, v) for u, v in reads.items() if by_data or u != upper)}
        below = {(a, b) for a in range(6) for b in range(6) if (a, b) in known or a == b}
        for middle in range(6):
            below |= {(a, b) for a in range(6) for b in range(6) if (a, middle) in below and (middle, b) in below}
        call = connect if by_data else read_through
        if (lower, upper) in below:
            refused(Loop, lambda call=call, u=upper, v=lower: call(nodes[u], nodes[v]), *nodes)
        else:
            call(nodes[upper], nodes[lower])
            (data if by_data else reads)[upper] = lower


# -- widths


def test_a_window_leads_into_the_memory():
    memory = ram(size=0x10000)
    window = bus("bus", (0, 0x8000, 0x4000_0000), (0x10000, 0x8001, 0x3FFF_8000))
    error = refused(OutOfRange, lambda: connect(window, memory), window, memory)
    assert str(error) == (
        "'bus' can't be put on 'ram': [0x10000, 0x18001) of 'bus' leads to [0x40008000, 0x40010001), "
        "and 'ram' takes [0x40000000, 0x40010000)"
    )
    assert (error.iova, error.paddr, error.size) == (
        0x10000, 0x4000_8000, 0x8001,
    )  # fmt: skip
    connect(bus("bus", (0, 0x8000, 0x4000_0000), (0x10000, 0x8000, 0x3FFF_8000)), memory)


BELOW = {
    "window": lambda: bus("below", (0x8000_0000, 0x4000, -0x8000_0000)),
    "aperture": lambda: Node(FlatTable("below", base=0x8000_0000, size=0x4000)),
    "router": lambda: Node(Router("below", Span(0x8000_0000, 0x4000), ports=("dram",))),
    "memory": lambda: ram("below", base=0x8000_0000, size=0x4000),
    "table": lambda: Node(Paged("below", RadixTable(FORMATS["vtd-ss-3"], CountingTables()))),
    "bypass": lambda: Node(Identity("below", width=39)),
}


@pytest.mark.parametrize("below", BELOW)
@pytest.mark.parametrize("table", ["paged", "flat"])
@pytest.mark.parametrize("mapped", ["before", "after", "moved"])
def test_an_entry_that_leads_nowhere_is_a_fault_whenever_it_was_made(below, table, mapped):
    """Outside of what is below, as in a hole: the access faults there, and neither `connect` nor `check` minds."""
    outside = 0x80_0000_0000
    graph = Graph()
    lower = graph.add(BELOW[below]())
    if table == "flat":
        layer = FlatTable("table", base=0, size=0x4000)
        made = lambda: layer.map(0x1000, outside, 0x1000)  # noqa: E731
    else:
        layer = Paged("table", RadixTable(MOCK, CountingTables()))
        made = lambda: layer.table.map_run(0x1000, outside, 0x1000, 1, Prot.READ)  # noqa: E731
    if mapped == "before":
        made()
    upper = graph.add(layer, on=() if mapped == "moved" else lower, walker=Walker.PHYSICAL)
    if mapped != "before":
        made()
    if mapped == "moved":
        graph.move("table", lower)
    graph.check()
    answer = access(upper, 0x1010, 1, Access.READ)
    assert (str(answer.fault), answer.fault.iova) == (
        "range fault of READ access at 0x8000000010 in layer 'below'",
        0x1010,
    )


def test_a_hole_between_windows_is_no_place():
    lower = bus("lower", (0x4000, 0x1000), (0x5000, 0x1000, 0x7000), (0x8000, 0x1000))
    connect(bus("across-a-seam", (0, 0x2000, 0x4000)), lower)
    window = bus("across-a-hole", (0, 0x3000, 0x4000))
    error = refused(OutOfRange, lambda: connect(window, lower), window, lower)
    assert str(error) == (
        "'across-a-hole' can't be put on 'lower': [0x0, 0x3000) of 'across-a-hole' leads to [0x4000, 0x7000), "
        "and 'lower' takes [0x4000, 0x6000), [0x8000, 0x9000)"
    )


def test_a_bypass_shows_what_is_below():
    memory, bypass, upper = ram(), Node(Identity("bypass")), bus("bus", (0, 0x1000))
    connect(bypass, memory)  # 64 bits on 1 MiB: nobody promised all of them
    error = refused(OutOfRange, lambda: connect(upper, bypass), upper, bypass, memory)
    assert str(error) == (
        "'bus' can't be put on 'bypass': [0x0, 0x1000) of 'bus' leads to [0x0, 0x1000), "
        "and 'bypass' takes [0x40000000, 0x40100000)"
    )
    disconnect(bypass)
    connect(upper, bypass)
    error = refused(OutOfRange, lambda: connect(bypass, memory), upper, bypass, memory)
    assert str(error) == (
        "'bypass' can't be put on 'ram': [0x0, 0x1000) of 'bus' leads to [0x0, 0x1000), "
        "and 'bypass' takes [0x40000000, 0x40100000)"
    )


def test_a_window_on_a_blocked_layer_is_no_mistake():
    window = bus("bus", (0, 0x1000))
    connect(window, Node(Blocked("off")))
    assert str(access(window, 0, 1, Access.READ).fault) == ("translation fault of READ access at 0x0 in layer 'off'")


# -- granules


@pytest.mark.parametrize(
    ("span", "text"),
    [
        ((0, 0x2000, 0x800), "[0x0, 0x2000) of 'bus' moves by 0x800"),
        ((0x800, 0x2000, 0), "[0x800, 0x2800) of 'bus' has a border at 0x800"),
        ((0x1000, 0x2800, 0x1000), "[0x1000, 0x3800) of 'bus' has a border at {}"),
    ],
)
@pytest.mark.parametrize("page_table", ["above", "below"])
def test_windows_beside_a_page_table_keep_its_pages(span, text, page_table):
    window = bus("bus", span)
    table = paged("iommu")
    if page_table == "above":
        connect(window, ram(base=0))
        upper, lower = table, window
    else:
        upper, lower = window, table
    error = refused(InvalidArgument, lambda: connect(upper, lower), upper, lower)
    border = 0x3800 if page_table == "above" else 0x4800
    assert str(error) == (
        f"'{upper.name}' can't be put on '{lower.name}': {text.format(hex(border))}, "
        "which tears pages of 'iommu', whose granule is 0x1000"
    )


WINDOWS = st.lists(
    st.tuples(
        st.sampled_from([0, 0x800, 0x1000, 0x8000]),
        st.sampled_from([0x1000, 0x1800, 0x4000]),
        st.sampled_from([-0x1000, -0x800, 0, 0x800, 0x1000, 0x8000]),
    ).filter(lambda span: span[0] + span[2] >= 0),
    min_size=1,
    max_size=1,
)
LAYERS = st.one_of(
    st.tuples(st.just("window"), WINDOWS),
    st.tuples(st.just("paged"), st.sampled_from([MOCK, MOCK64K])),
    st.tuples(st.just("identity"), st.sampled_from([12, 16, 64])),
    st.tuples(st.just("flat"), st.sampled_from([0, 0x8000])),
)


def made(number, kind, value):
    if kind == "window":
        return bus(f"n{number}", *value)
    if kind == "paged":
        return paged(f"n{number}", form=value)
    if kind == "identity":
        return Node(Identity(f"n{number}", width=value))
    return Node(FlatTable(f"n{number}", base=value, size=0x8000))


@given(st.lists(LAYERS, min_size=2, max_size=4), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_the_edges_does_not_matter(layers, with_memory, random):
    """What is one stack in the end is refused, or not, in whatever order its layers were put on each other."""

    def verdict(order):
        nodes = [made(number, *layer) for number, layer in enumerate(layers)]
        if with_memory:
            nodes.append(ram(base=0, size=0x1_0000))
        try:
            for number in order:
                connect(nodes[number], nodes[number + 1])
        except (OutOfRange, InvalidArgument):
            return "refused"
        return "whole"

    order = list(range(len(layers) - 1 + with_memory))
    bottom_up, top_down = verdict(order[::-1]), verdict(order)
    random.shuffle(order)
    assert bottom_up == top_down == verdict(order)


def test_borders_where_nothing_changes_tear_nothing():
    halves = bus("bus", (0, 0x800, 0x4000_0000), (0x800, 0x800, 0x4000_0000))
    connect(halves, ram())
    connect(paged("iommu"), halves)


def test_windows_that_undo_each_other():
    down, up, memory = bus("down", (0x800, 0x2000, -0x800)), bus("up", (0, 0x2000, 0x800)), ram(base=0)
    connect(down, memory)
    connect(up, down)
    connect(paged("iommu"), up)
    assert [(run.output, run.memory) for run in access(up, 0x1234, 1, Access.READ).runs] == [(0x1234, "ram")]


def test_a_tear_far_above_is_found_when_the_lowest_edge_is_made():
    top, bypass, window = paged("iommu"), Node(Identity("bypass")), bus("bus", (0, 0x1000, 0x4000_0800))
    memory = ram()
    connect(top, bypass)
    connect(window, memory)
    error = refused(InvalidArgument, lambda: connect(bypass, window), top, bypass, window, memory)
    assert str(error) == (
        "'bypass' can't be put on 'bus': [0x0, 0x1000) of 'bypass' moves by 0x40000800, "
        "which tears pages of 'iommu', whose granule is 0x1000"
    )


@pytest.mark.parametrize(("upper", "lower", "start"), [(MOCK64K, MOCK, 0x2_0000), (MOCK, MOCK64K, 0xF000)])
def test_mixed_granules_are_legal_both_ways(upper, lower, start):
    """64 KiB over 4 KiB scatters, 4 KiB over 64 KiB nests; a window between may move by the smaller one."""
    connect(paged("upper", form=upper), paged("lower", form=lower))
    window = bus("bus", (start, 0x2_0000, 0x1000))
    connect(window, paged("lower", form=lower))
    connect(paged("upper", form=upper), window)


def test_large_pages_are_not_moved_by_less_onto_large_pages():
    window, lower, upper = bus("bus", (0, 1 << 32, 0x1000)), Node(Identity("bypass")), paged("upper", form=MOCK64K)
    connect(window, lower)
    connect(upper, window)  # onto memory, or what may be one: 4 KiB blocks of a 64 KiB page
    error = refused(InvalidArgument, lambda: connect(lower, paged("lower", form=MOCK64K)), upper, window, lower)
    assert str(error) == (
        "'bypass' can't be put on 'lower': [0x0, 0x100000000) of 'bus' moves by 0x1000, "
        "which tears pages of 'upper', whose granule is 0x10000"
    )


# -- reserved regions and direct ones: the rest is in test_reserved.py


def test_mappings_against_reserved_regions_are_no_matter_of_the_graph():
    """Whether they were made before or after; who lets a device in asks `require_no_conflict`."""
    sentence = "the mapping [0x3000, 0x4000) of 's1' leads to the reserved region [0xa000, 0xb000) of 's2'"
    for late in (False, True):
        lower, upper = paged("s2"), paged("s1")
        lower.reserved = (Reserved(0xA000, 0x1000),)
        if late:
            connect(upper, lower)
        upper.layer.table.map_run(0x1000, 0x8000, 0x1000, 4, Prot.READ)
        if not late:
            connect(upper, lower)
        with pytest.raises(AddressInUse) as caught:
            require_no_conflict(upper)
        assert str(caught.value) == sentence
        error = caught.value
        assert (error.iova, error.size) == (0x3000, 0x1000)
        upper.layer.table.unmap(0x3000, 0x1000)
        require_no_conflict(upper)


def test_nothing_missing_without_direct_regions():
    assert missing_direct(paged("iommu")) == []


# -- what was kept, and whose addresses


def test_what_was_kept_goes_with_the_edge():
    first, second = ram("first"), ram("second")
    window = Node(Window("bus", Span(0, 0x1000, 0x4000_0000)), iotlb=TranslationCache())
    connect(window, first)
    assert [access(window, 0, 4, Access.READ).runs[0].memory for _ in range(2)] == ["first", "first"]
    disconnect(window)
    assert access(window, 0, 4, Access.READ).runs[0].memory == ""
    connect(window, second)
    assert access(window, 0, 4, Access.READ).runs[0].memory == "second"
    assert window.iotlb.stale_hits == 0


def test_another_way_of_reading_is_heeded_at_once():
    table = paged("iommu", (0x1000, 0x8000, 0x1000), tlb=TranslationCache(walk_levels=3))
    assert access(table, 0x1000, 4, Access.READ).fault is None
    read_through(table, Node(Blocked("off")))
    fault = access(table, 0x1000, 4, Access.READ).fault
    assert (fault.layer, fault.walk_of) == ("off", "iommu")


def test_addresses_belong_to_the_node_that_they_enter():
    """A device that goes elsewhere has to ask for new addresses: the old ones are wrong, and say so."""
    memory = ram(base=0)
    one = paged("one", (0x1000, 0x1000, 0x1000), walker=Walker.PHYSICAL)
    two = paged("one", (0x1000, 0x2000, 0x1000), walker=Walker.PHYSICAL)
    connect(one, memory)
    connect(two, memory)
    old = one.input_space.at(0x1000)
    assert one.translate(old, 4, Access.READ)[0].output == 0x1000
    with pytest.raises(TypeError) as caught:
        two.translate(old, 4, Access.READ)
    assert isinstance(caught.value, SpaceMismatch)
    assert str(caught.value) == "BusAddr(one:0x1000) is no address of the space 'one'"
    assert two.translate(two.input_space.at(0x1000), 4, Access.READ)[0].output == 0x2000
    with pytest.raises(SpaceMismatch) as caught:
        one.translate(memory.input_space.at(0x1000), 4, Access.READ)
    assert str(caught.value) == "PhysAddr(ram:0x1000) is no address of the space 'one'"
    with pytest.raises(SpaceMismatch) as caught:
        one.translate(0x1000, 4, Access.READ)
    assert str(caught.value) == "4096 is no address of the space 'one'"
