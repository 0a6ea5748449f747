"""Graphs by name: the topologies there are, and steps that leave a graph whole or as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import Access, PhysSpace, Prot
from swiommu.errors import Busy, DeviceFault, InvalidArgument, Loop, NotFound, OutOfRange, SpaceMismatch
from swiommu.layer import (
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
    flatten,
)
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable

RW = Prot.READ | Prot.WRITE
READ = Access.READ


def memory(name="ram", base=0, size=1 << 32):
    return Memory(name, SparseRam(PhysSpace(name)), base=base, size=size)


def paged(name, *maps):
    table = RadixTable(MOCK, CountingTables())
    for at, to, size in maps:
        table.map_run(at, to, 0x1000, size // 0x1000, RW)
    return Paged(name, table)


def state(graph):
    return [
        (node.name, node.lowers[:], node.uppers[:], node.readers, node.walker, node.reserved, node.input_space)
        for node in graph
    ]


def refused(kind, graph, call):
    before = state(graph)
    with pytest.raises(kind) as caught:
        call()
    assert state(graph) == before
    graph.check()
    return caught.value


def ends(node, at, size=1, wanted=READ):
    return [(run.memory, run.output, run.size) for run in access(node, at, size, wanted).or_raise()]


def host_and_guests():
    graph = Graph()
    graph.add(memory())
    graph.add(paged("host", (0x10_0000, 0x80_0000, 0x4000)), on="ram", walker=Walker.PHYSICAL)
    graph.add(paged("one", (0x1000, 0x10_0000, 0x2000)), on="host", walker=Walker.PHYSICAL)
    graph.add(paged("two", (0x1000, 0x10_2000, 0x2000)), on="host", walker=Walker.PHYSICAL)
    graph.check()
    return graph


# -- topologies


@pytest.mark.parametrize("stages", range(5))
def test_chain(stages):
    graph = Graph()
    top = graph.add(memory())
    for stage in range(stages):
        layer = paged(f"s{stage}", (0, 0x1000, 0x1000), (0x1000, 0x2000, 0x4000))
        top = graph.add(layer, on=top, walker=Walker.PHYSICAL)
    graph.check()
    assert [node.name for node in graph.tops()] == [top.name]
    assert ends(top, 0x10) == [("ram", 0x10 + 0x1000 * stages, 1)]
    assert access(top, 0x10, 1, READ).refs == 4 * stages


def test_fan_in():
    graph = host_and_guests()
    assert [node.name for node in graph.tops()] == ["one", "two"]
    assert graph["host"].uppers == [graph["one"], graph["two"]]
    assert ends(graph["one"], 0x1FFF, 2) == [("ram", 0x80_0FFF, 2)]
    assert ends(graph["two"], 0x1FFF, 2) == [("ram", 0x80_2FFF, 2)]


def gpu():
    """A router: low addresses by the host's table to its memory, high ones to its own; and one shared by both."""
    graph = Graph()
    graph.add(memory("dram"))
    graph.add(memory("vram", size=1 << 20))
    graph.add(paged("host", (0x1000, 0x8000, 0x1000)), on="dram", walker=Walker.PHYSICAL)
    low, high = Span(0x1_0000, 0x1_0000, -0x1_0000), Span(0x10_0000, 0x1_0000, -0x10_0000, port=1)
    graph.add(Router("gpu", low, high, ports=("dram", "vram")), on=("host", "vram"))
    graph.check()
    return graph


def test_windowed_router_and_two_memories():
    graph = gpu()
    assert ends(graph["gpu"], 0x1_1004) == [("dram", 0x8004, 1)]
    assert ends(graph["gpu"], 0x10_0004) == [("vram", 4, 1)]
    assert (
        str(access(graph["gpu"], 0x1_2000, 1, READ).fault)
        == "translation fault of READ access at 0x2000 in layer 'host'"
    )
    assert str(access(graph["gpu"], 0x2_0000, 1, READ).fault) == "range fault of READ access at 0x20000 in layer 'gpu'"


def test_burst_over_two_ports_and_up_to_a_hole():
    graph = Graph()
    graph.add(memory("a", size=0x1000))
    graph.add(memory("b", size=0x1000))
    top = graph.add(Router("bus", Span(0, 0x1000), Span(0x1000, 0x1000, -0x1000, 1), ports=("a", "b")), on=["a", "b"])
    assert ends(top, 0xFF0, 0x20) == [("a", 0xFF0, 0x10), ("b", 0, 0x10)]
    answer = access(top, 0xFF0, 0x1011, READ)
    assert [(run.memory, run.size) for run in answer.runs] == [("a", 0x10), ("b", 0x1000)]
    assert (answer.fault.iova, answer.fault.address, answer.fault.layer) == (0x2000, 0x2000, "bus")
    answer = access(top, 0xFF0, 0x1011, READ, atomic=True)
    assert (answer.runs, answer.fault.iova) == ((), 0x2000)


def test_diamond():
    graph = Graph()
    graph.add(memory(size=0x1_0000))
    graph.add(Window("left", Span(0, 0x1000, 0x4000)), on="ram")
    graph.add(Window("right", Span(0, 0x1000, 0x4000), Span(0x1000, 0x1000, 0x8000)), on="ram")
    spans = Span(0, 0x1000), Span(0x1000, 0x2000, -0x1000, port=1)
    top = graph.add(Router("bus", *spans, ports=("left", "right")), on=("left", "right"))
    graph.check()
    assert [node.name for node in graph["ram"].uppers] == ["left", "right"]
    assert ends(top, 0x10) == ends(top, 0x1010) == [("ram", 0x4010, 1)]  # two ways to one byte
    assert ends(top, 0x2010) == [("ram", 0x9010, 1)]
    # Neither way is longer: runs that go on in memory are one, whichever way each half came.
    assert ends(graph["right"], 0xFFF, 2) == [("ram", 0x4FFF, 1), ("ram", 0x9000, 1)]


def test_walker_edges():
    """One translation, three ways to its table: through the stage below, physically, through a node beside it."""
    refs = {}
    for name, walker in (("nested", Walker.NESTED), ("physical", Walker.PHYSICAL), ("side", "side")):
        graph = Graph()
        ram = graph.add(memory())
        graph.add(paged("host", (0, 0, 0x10_0000)), on="ram", walker=Walker.PHYSICAL)
        graph.add(Window("side", Span(0, 0x10_0000)), on="ram")
        upper = graph.add(paged("guest", (0x5000, 0x6000, 0x1000)), on="host", walker=walker)
        for address, words in upper.layer.table.nodes.memory._tables.items():
            ram.layer.ram.write(ram.input_space.at(address), words.tobytes())
        graph.check()
        assert ends(upper, 0x5008) == [("ram", 0x6008, 1)]
        refs[name] = access(upper, 0x5000, 8, READ).refs
    assert refs == {"nested": 24, "physical": 8, "side": 8}


def test_gart_with_its_table_in_stolen_memory():
    graph = Graph()
    graph.add(memory("dram"))
    stolen = graph.add(memory("stolen", base=0xF000, size=0x1000))
    gart = FlatTable(
        "gart",
        base=0x8000_0000,
        size=0x4000,
        table=0xF000,
        pages=[stolen.layer.ram.words(stolen.input_space.at(0xF000))],
    )
    top = graph.add(gart, on="dram", walker="stolen")
    gart.map(0x8000_1000, 0x7000, 0x1000)
    assert ends(top, 0x8000_1234) == [("dram", 0x7234, 1)]
    assert access(top, 0x8000_1234, 1, READ).refs == 1
    stolen.layer.ram.fill(stolen.input_space.at(0xF000), 0x1000, 0)  # whoever owns that memory owns the table
    with pytest.raises(DeviceFault) as caught:
        ends(top, 0x8000_1234)
    assert str(caught.value) == "translation fault of READ access at 0x80001234 in layer 'gart'"
    error = refused(Busy, graph, lambda: graph.remove("stolen"))
    assert str(error) == "'stolen' can't be removed: 'gart' reads its table through it"
    graph.remove("gart")
    graph.remove("stolen")
    assert [node.name for node in graph] == ["dram"]


# -- names


def test_names_are_unique_and_known():
    graph = host_and_guests()
    error = refused(InvalidArgument, graph, lambda: graph.add(Identity("one"), on="host"))
    assert str(error) == "a layer can't be named 'one': the name is taken"
    error = refused(InvalidArgument, graph, lambda: graph.add(Identity("")))
    assert str(error) == "a layer can't be named '': that is no name"
    for call in (lambda: graph.add(Identity("new"), on="hots"), lambda: graph["hots"], lambda: graph.remove("hots")):
        error = refused(NotFound, graph, call)
        assert str(error) == "no layer is named 'hots'"
        assert error.name == "hots"
    assert ("host" in graph, "hots" in graph, len(graph)) == (True, False, 4)


def test_nodes_of_others():
    graph, other = host_and_guests(), host_and_guests()
    error = refused(NotFound, graph, lambda: graph.add(Identity("new"), on=other["host"]))
    assert str(error) == "the node 'host' is not of this graph"
    error = refused(NotFound, graph, lambda: graph.add(paged("new"), on="host", walker=other["ram"]))
    assert str(error) == "the node 'ram' is not of this graph"
    assert other["ram"].readers == []
    stranger = Node(Identity("stranger"))
    connect(stranger, other["host"])
    error = refused(NotFound, graph, lambda: graph.add(stranger))
    assert str(error) == "'stranger' needs 'host', which is not of this graph"


def test_a_node_that_is_there_already_comes_with_its_edges():
    graph = host_and_guests()
    node = Node(Identity("new"))
    connect(node, graph["one"])
    assert graph.add(node) is node
    graph.check()
    assert [top.name for top in graph.tops()] == ["two", "new"]


def test_a_flattened_stack_is_added_over_the_same_memories():
    """`flatten` puts its table over the memories of the source, which are nodes of the graph that it came from."""
    graph = host_and_guests()
    flat = graph.add(flatten(graph["one"], name="shadow"))
    graph.check()
    assert (flat.lowers, graph["ram"].uppers) == ([graph["ram"]], [graph["host"], flat])
    assert access(flat, 0x1010, 1, READ).runs == access(graph["one"], 0x1010, 1, READ).runs
    assert (
        str(refused(Busy, graph, lambda: graph.remove("ram"))) == "'ram' can't be removed: 'host', 'shadow' sit on it"
    )
    graph.remove("shadow")
    assert graph["ram"].uppers == [graph["host"]]


def test_a_flattened_router_brings_the_ends_that_the_graph_lacks():
    graph = gpu()
    vram = graph["gpu"].lowers[1]
    flat = flatten(graph["gpu"])
    other = Graph()
    other.add(vram.layer)
    assert other.add(flat) is flat
    other.check()
    assert sorted(node.name for node in other) == ["dram", "flat", "vram"]
    assert flat.lowers == [other[name] for name in flat.layer.ports]
    assert ends(flat, 0x10_0004) == [("vram", 4, 1)]
    assert ends(flat, 0x1_1004) == [("dram", 0x8004, 1)]


def test_a_memory_of_the_same_name_is_another_one():
    graph, other = host_and_guests(), host_and_guests()
    flat = flatten(other["one"])
    error = refused(NotFound, graph, lambda: graph.add(flat))
    assert str(error) == "'flat' needs 'ram', which is not of this graph"
    error = refused(NotFound, other, lambda: other.add(flatten(other["one"], name="ram2"), walker=graph["ram"]))
    assert str(error) == "the node 'ram' is not of this graph"


# -- refusals leave the graph as it was


def test_what_does_not_fit_is_not_added():
    graph = host_and_guests()
    node = Node(Window("bus", Span(0, 1 << 49)))
    error = refused(OutOfRange, graph, lambda: graph.add(node, on="host", walker="ram", reserved=[Reserved(0, 1)]))
    assert str(error) == (
        "'bus' can't be put on 'host': [0x0, 0x2000000000000) of 'bus' leads to [0x0, 0x2000000000000), "
        "and 'host' takes [0x0, 0x1000000000000)"
    )
    assert (node.lowers, node.walker, node.reserved, "bus" in graph) == ([], Walker.NESTED, (), False)
    assert graph["ram"].readers == []


def test_loops_are_refused_over_both_kinds_of_edges():
    graph = host_and_guests()
    error = refused(Loop, graph, lambda: graph.move("host", "one"))
    assert str(error) == "'host' can't be put on 'one': it would be found below itself, by host > one > host"
    graph.add(Identity("side"), on="ram")
    graph.add(paged("three"), on="host", walker="side")
    error = refused(Loop, graph, lambda: graph.move("side", "three"))
    assert str(error) == "'side' can't be put on 'three': it would be found below itself, by side > three > side"


def test_remove():
    graph = host_and_guests()
    error = refused(Busy, graph, lambda: graph.remove("host"))
    assert str(error) == "'host' can't be removed: 'one', 'two' sit on it"
    for name in ("two", "one", "host", "ram"):
        graph.remove(name)
        graph.check()
    assert len(graph) == 0


def test_a_removed_node_forgets_what_it_kept():
    graph = host_and_guests()
    node = graph["one"]
    node.iotlb, node.tlb = TranslationCache(), TranslationCache()
    assert ends(node, 0x1000) == ends(node, 0x1000) == [("ram", 0x80_0000, 1)]
    graph.remove("one")
    assert access(node, 0x1000, 1, READ).runs[0][1:3] == (0x10_0000, 1)  # an open end now
    assert node.iotlb.stale_hits == node.tlb.stale_hits == 0


def test_what_is_above_in_no_graph_hides_nothing():
    graph = host_and_guests()
    device = Node(Window("device", Span(0, 0x1000, 0x1000)))
    connect(device, graph["one"])
    assert [node.name for node in graph.tops()] == ["one", "two"]
    assert repr(graph).splitlines()[0].startswith("one ")
    graph.add(device)
    assert [node.name for node in graph.tops()] == ["two", "device"]


# -- moving


def test_move_takes_along_what_sits_on_it():
    graph = host_and_guests()
    graph.add(paged("spare", (0x10_0000, 0xA0_0000, 0x4000)), on="ram", walker=Walker.PHYSICAL)
    graph.add(Window("device", Span(0, 0x1000, 0x1000)), on="one")
    assert ends(graph["device"], 0) == [("ram", 0x80_0000, 1)]
    graph.move("one", "spare")
    graph.check()
    assert ends(graph["device"], 0) == [("ram", 0xA0_0000, 1)]
    assert (graph["host"].uppers, graph["spare"].uppers) == ([graph["two"]], [graph["one"]])


def test_move_that_does_not_fit_changes_nothing():
    graph = host_and_guests()
    graph.add(FlatTable("gart", base=0x8000_0000, size=0x1000), on="ram")
    graph.add(Window("bus", Span(0, 0x1000, 0x1000)), on="one")
    error = refused(OutOfRange, graph, lambda: graph.move("bus", "gart"))
    assert str(error) == (
        "'bus' can't be put on 'gart': [0x0, 0x1000) of 'bus' leads to [0x1000, 0x2000), "
        "and 'gart' takes [0x80000000, 0x80001000)"
    )
    assert graph["one"].uppers == [graph["bus"]]
    assert ends(graph["bus"], 0) == [("ram", 0x80_0000, 1)]
    error = refused(InvalidArgument, graph, lambda: graph.move("ram", "gart"))
    assert str(error) == "'ram' can't be put on anything: it is a memory"


def test_moved_with_a_cache_above():
    graph = host_and_guests()
    graph.add(paged("spare", (0x10_0000, 0xA0_0000, 0x4000)), on="ram", walker=Walker.PHYSICAL)
    one = graph["one"]
    one.iotlb = TranslationCache()
    assert ends(one, 0x1000) == ends(one, 0x1000) == [("ram", 0x80_0000, 1)]
    graph.move("one", "spare")
    assert ends(one, 0x1000) == [("ram", 0xA0_0000, 1)]
    assert one.iotlb.stale_hits == 0


def test_addresses_of_a_node_that_was_there_before():
    """The same name, the same layer, but another place: what was handed out for the old one is of no use."""
    graph = host_and_guests()
    old = graph["one"].input_space.at(0x1000)
    layer = graph["one"].layer
    graph.remove("one")
    graph.add(layer, on="host", walker=Walker.PHYSICAL)
    with pytest.raises(TypeError) as caught:
        graph["one"].translate(old, 4, READ)
    assert isinstance(caught.value, SpaceMismatch)
    assert str(caught.value) == "BusAddr(one:0x1000) is no address of the space 'one'"
    new = graph["one"].input_space.at(0x1000)
    assert graph["one"].translate(new, 4, READ)[0].output == 0x80_0000
    with pytest.raises(SpaceMismatch):
        old == new  # noqa: B015


# -- any sequence of steps


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "move", "remove"]),
        st.integers(0, 4),
        st.integers(0, 4),
        st.sampled_from([Walker.NESTED, Walker.PHYSICAL, 0, 1, 2, 3, 4]),
    ),
    max_size=25,
)


@given(steps)
def test_any_sequence_leaves_the_graph_whole(sequence):
    graph = Graph()
    graph.add(memory("m"))
    for what, number, other, walker in sequence:
        name = f"n{number}"
        on = "m" if other == number else f"n{other}"
        before = state(graph)
        try:
            if what == "add":
                graph.add(Identity(name), on=on, walker=f"n{walker}" if isinstance(walker, int) else walker)
            elif what == "move":
                graph.move(name, on)
            else:
                graph.remove(name)
        except (Busy, InvalidArgument, Loop, NotFound):
            assert state(graph) == before
        graph.check()
        for top in graph.tops():
            assert ends(top, 0x1000) == [("m", 0x1000, 1)]
