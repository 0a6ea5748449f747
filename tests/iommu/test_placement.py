"""Where a domain's page tables are, and that its node stays where the domain believes it to be."""

import pytest

from swiommu.address import Access, BusSpace, PhysSpace
from swiommu.device import BusDevice
from swiommu.dma import IommuDma, LinearDma
from swiommu.errors import Busy, InvalidArgument, NoMemory, OutOfRange, SpaceMismatch
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.layer import (
    Graph,
    Memory,
    Node,
    Paged,
    Router,
    Span,
    Walker,
    Window,
    access,
    connect,
    disconnect,
    read_through,
)
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK, CountingTables, FrameTables, RadixTable
from swiommu.pagetable.formats import FORMATS
from swiommu.region import Region, allocator_names

MIB = 1 << 20
PAGE = 0x1000
M2 = 2 * MIB
BASE = 0x4000_0000
ram = PhysSpace("ram", width=40)
soc = PhysSpace("soc", width=32)


def memory(base=BASE, size=64 * MIB):
    return Node(Memory("ram", SparseRam(ram), base=base, size=size))


def bus_window(below, delta=0x3000_0000):
    """A bus whose addresses are ``delta`` below those of the memory."""
    node = Node(Window("soc", Span(BASE - delta, 16 * MIB, delta)), input_space=soc)
    connect(node, below)
    return node


def paged(space=ram, start=BASE, size=16 * MIB, **options):
    return PagedDomain(BusSpace("nic", width=32), frames=Frames(space.at(start), size), output_space=space, **options)


def on(lower, name="guest", **options):
    return PagedDomain(BusSpace(name, width=32), below=lower, **options)


def device_writes(domain, bytes_ram):
    """A device writes through the domain's own mapping; where the bytes are then."""
    mapping = domain.alloc(2 * PAGE)
    device = BusDevice("nic", bytes_ram)
    domain.attach(device)
    device.write(mapping.iova.start + PAGE, b"frame")
    runs = domain.translate(mapping.iova.start, 2 * PAGE, Access.WRITE)
    assert sum(run.size for run in runs) == 2 * PAGE
    return [run.output for run in runs]


# -- tables are where the memory's node leads


@pytest.mark.parametrize("delta", [0x3000_0000, 0, -0x1000_0000])
def test_a_domain_over_a_bus_window(delta):
    below = memory()
    domain = paged(soc, BASE - delta, memory=bus_window(below, delta))
    domain.check()
    walk = domain.table.walk(0x8000)
    assert below.layer.word(walk.steps[0].table + delta, 8) == walk.steps[0].entry
    [output] = device_writes(domain, below.layer.ram)
    assert below.layer.ram.read(ram.at(output + PAGE), 5) == b"frame"
    assert domain.ram is below.layer.ram


def test_a_domain_over_a_router_keeps_its_tables_in_the_memory_of_its_frames():
    dram, vram = memory(), Node(Memory("vram", SparseRam(PhysSpace("vram")), size=16 * MIB))
    spans = Span(0, 16 * MIB, BASE), Span(0x1000_0000, 16 * MIB, -0x1000_0000, port=1)
    router = Node(Router("bus", *spans), input_space=soc)
    connect(router, dram, vram)
    domain = paged(soc, 0x1000_0000, memory=router)
    [output] = device_writes(domain, dram.layer.ram)
    assert vram.layer.ram.read(vram.input_space.at(output + PAGE), 5) == b"frame"
    root = domain.table.walk(0).steps[0]
    assert vram.layer.word(root.table - 0x1000_0000, 8) == root.entry
    assert (domain.ram, dram.layer.ram.resident_bytes) == (None, 0)
    assert domain.end_spaces == (dram.input_space, vram.input_space)


def test_a_domain_over_a_page_table():
    below, table = memory(), RadixTable(MOCK, CountingTables())
    host = Node(Paged("host", table), input_space=soc)
    table.map_run(0, BASE, M2, 8, 3)
    connect(host, below)
    read_through(host, Walker.PHYSICAL)
    domain = paged(soc, 0, memory=host)
    [output] = device_writes(domain, below.layer.ram)
    assert below.layer.ram.read(ram.at(output + PAGE), 5) == b"frame"
    table.unmap(4 * M2, 4 * M2)
    with pytest.raises(OutOfRange) as caught:
        paged(soc, 4 * M2, M2, memory=host)
    assert str(caught.value) == "a table page at 0x800000 ends in no memory below 'host'"


@pytest.mark.parametrize(
    ("node", "start", "text"),
    [
        (
            lambda: memory(size=MIB),
            BASE,
            "the frames [0x40000000, 0x41000000) are not all in 'ram', which takes [0x40000000, 0x40100000)",
        ),
        (
            lambda: memory(base=BASE + MIB),
            BASE,
            "the frames [0x40000000, 0x41000000) are not all in 'ram', which takes [0x40100000, 0x44100000)",
        ),
    ],
)
def test_frames_that_are_not_in_the_memory(node, start, text):
    frames = Frames(ram.at(start), 16 * MIB)
    with pytest.raises(OutOfRange) as caught:
        PagedDomain(BusSpace("nic"), frames=frames, output_space=ram, memory=node())
    assert str(caught.value) == text
    assert (caught.value.start, caught.value.size, frames.free_count) == (BASE, 16 * MIB, 4096)


def test_frames_beside_the_window():
    below = memory()
    with pytest.raises(OutOfRange) as caught:
        paged(soc, 0x1080_0000, memory=bus_window(below))
    assert str(caught.value) == (
        "the frames [0x10800000, 0x11800000) are not all in 'soc', which takes [0x10000000, 0x11000000)"
    )
    assert below.layer.ram.resident_bytes == 0


def test_frames_of_physical_tables_are_in_the_memory_at_the_bottom():
    lower = paged(memory=memory())
    with pytest.raises(OutOfRange) as caught:
        on(lower, walker="physical", frames=Frames(ram.at(0x8000_0000), MIB))
    assert str(caught.value) == (
        "the frames [0x80000000, 0x80100000) are not all in 'ram', which takes [0x40000000, 0x44000000)"
    )


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stacks_over_a_bus_window(stages):
    below = memory()
    domain = paged(soc, 0x1000_0000, memory=bus_window(below))
    for stage in range(stages):
        domain = on(domain, f"stage{stage}")
    [output] = device_writes(domain, below.layer.ram)
    assert below.layer.ram.read(ram.at(output + PAGE), 5) == b"frame"
    domain.check()


def test_a_linear_domain_between():
    below = memory()
    linear = LinearDomain(BusSpace("shim", width=40), Region(soc.at(0x1000_0000), 8 * MIB), memory=bus_window(below))
    [output] = device_writes(on(linear), below.layer.ram)
    assert below.layer.ram.read(ram.at(output + PAGE), 5) == b"frame"


def test_tables_of_a_region_that_nothing_backs():
    lower = paged(memory=memory())
    shim = LinearDomain(BusSpace("shim", width=40), Region(lower.input_space.at(BASE), 8 * MIB), below=lower)
    with pytest.raises(OutOfRange) as caught:
        on(shim)
    assert str(caught.value) == "a table page at 0x407ff000 ends in no memory below 'shim'"
    assert (shim.mappings(), len(shim.uses), shim.region.users) == ([], 0, 0)
    backing = lower.alloc(8 * MIB)
    shim = LinearDomain(BusSpace("shim", width=40), Region(backing.iova.start, 8 * MIB), below=lower)
    upper = on(shim)
    device_writes(upper, lower.ram)


def test_a_processor_that_would_see_other_bytes_than_the_device():
    below = memory()
    window = bus_window(below)
    domain = paged(soc, 0x1000_0000, memory=window)
    linear = LinearDomain(BusSpace("shim", width=40), Region(soc.at(0x1000_0000), 8 * MIB), memory=window)
    for backend, over in ((IommuDma, domain), (LinearDma, linear)):
        with pytest.raises(SpaceMismatch) as caught:
            backend(over, SparseRam(soc))
        assert str(caught.value) == (f"the domain of {over.input_space.name!r} leads to memory 'ram', not to 'soc'")
    stranger = BusDevice("nic", SparseRam(PhysSpace("vram")))
    domain.attach(stranger)
    with pytest.raises(SpaceMismatch) as caught:
        stranger.read(domain.input_space.at(0), 1)
    assert str(caught.value) == "device 'nic' is on memory 'vram', its domain leads to 'ram'"


# -- tables that the caller brings


def test_tables_in_no_memory_are_read_at_their_own_addresses():
    """`CountingTables` cost no memory of the model, so no walk could find them in one."""
    for domain in (
        paged(memory=memory(), tables=CountingTables()),
        on(paged(memory=memory()), tables=CountingTables()),
        on(paged(), tables=CountingTables()),
        on(paged(memory=memory()), tables=CountingTables(), walker="physical"),
    ):
        mapping = domain.alloc(PAGE)
        assert access(domain.node, mapping.iova.start.value, 1, Access.READ).fault is None


def test_tables_where_the_walker_reads_are_read_there():
    below, frames = memory(), Frames(ram.at(BASE), MIB)
    domain = paged(memory=below, tables=FrameTables(frames, below.layer.ram))
    mapping = domain.alloc(PAGE)
    assert access(domain.node, mapping.iova.start.value, 1, Access.READ).fault is None
    below.layer.ram.fill(ram.at(domain.table.root), PAGE, 0)
    assert access(domain.node, mapping.iova.start.value, 1, Access.READ).fault.layer == "nic"


def test_tables_that_a_nested_walker_can_not_find():
    with pytest.raises(InvalidArgument) as caught:
        on(paged(memory=memory()), tables=CountingTables(), walker="nested")
    assert str(caught.value) == (
        "the tables of 'guest' are not where its walker reads: it finds no root at 0x1000 of 'nic'"
    )


# -- a domain's node is connected by the domain alone


def stack():
    graph = Graph()
    bottom = graph.add(memory())
    lower = paged(memory=bottom)
    upper = on(lower)
    graph.add(lower.node)
    graph.add(upper.node)
    return graph, lower, upper


BY_DOMAIN = "it is the node of a domain, which decides what is below it"


@pytest.mark.parametrize(
    ("step", "done"),
    [
        (lambda graph, node: graph.move(node.name, "ram"), "moved"),
        (lambda graph, node: graph.remove(node.name), "removed"),
        (lambda graph, node: disconnect(node), "taken off '{on}'"),
        (lambda graph, node: connect(node, graph["ram"]), "put on 'ram'"),
        (lambda graph, node: read_through(node, graph["ram"]), "read by another way"),
    ],
)
@pytest.mark.parametrize("which", ["lower", "upper"])
def test_nobody_else_moves_the_node_of_a_domain(step, done, which):
    graph, lower, upper = stack()
    domain = lower if which == "lower" else upper
    mapping = domain.alloc(PAGE)
    with pytest.raises(Busy) as caught:
        step(graph, domain.node)
    name = domain.node.name
    assert str(caught.value) == f"{name!r} can't be {done.format(on=domain.node.lowers[0].name)}: {BY_DOMAIN}"
    for each in (graph, lower, upper):
        each.check()
    assert domain.translate(mapping.iova.start, PAGE, Access.READ)[0].output == mapping.memory[0].start.value


def test_a_domain_without_memory_gets_none_later():
    """Its tables would not be in that memory, so every walk would fault."""
    domain, graph = paged(), Graph()
    graph.add(memory())
    with pytest.raises(Busy) as caught:
        graph.add(domain.node, on="ram")
    assert str(caught.value) == f"'nic' can't be put on 'ram': {BY_DOMAIN}"
    graph.add(domain.node)
    graph.check()


def test_others_go_on_top_of_the_node_of_a_domain():
    graph, _, upper = stack()
    mapping = upper.alloc(PAGE)
    start = mapping.iova.start.value
    bus = graph.add(Window("bus", Span(0, PAGE, start)), on="guest")
    assert access(bus, 0, 1, Access.READ).runs[0].output == mapping.memory[0].start.value
    graph.move("bus", "nic")
    graph.remove("bus")
    graph.check()


def test_a_destroyed_domain_lets_its_node_go():
    graph, lower, upper = stack()
    upper.destroy()
    graph.check()
    graph.remove("guest")
    lower.destroy()
    graph.remove("nic")
    assert [node.name for node in graph] == ["ram"]


def test_a_domain_that_tables_are_read_through_stays():
    lower = paged(memory=memory())
    reader = Node(Paged("reader", RadixTable(MOCK, CountingTables())), walker=lower.node)
    with pytest.raises(Busy) as caught:
        lower.destroy()
    assert str(caught.value) == "tables of 'reader' are read through the domain of 'nic'"
    mapping = lower.alloc(PAGE)  # it lives
    lower.release(mapping)
    del reader


def test_checks_see_a_node_that_was_taken_away_by_force():
    graph, lower, upper = stack()
    upper.node.lowers = [graph["ram"]]
    for check in (upper.check, graph.check):
        with pytest.raises(AssertionError) as caught:
            check()
        assert "guest" in str(caught.value)
    with pytest.raises(AssertionError) as caught:
        upper.check()
    assert str(caught.value) == "the node of the domain of 'guest' is on ['ram'], the domain on 'nic'"
    lower.check()


def test_checks_see_a_walker_that_was_changed_by_force():
    _, lower, _ = stack()
    lower.node.walker = Walker.PHYSICAL
    with pytest.raises(AssertionError) as caught:
        lower.check()
    assert str(caught.value) == ("tables of the domain of 'nic' are read Walker.NESTED, by its node Walker.PHYSICAL")


# -- a paged domain over a linear one


def shim(size=64 * MIB, *, start=BASE, delta=0, **options):
    return LinearDomain(BusSpace("shim", width=40), Region(ram.at(start), size, **options), delta=delta)


def reads_per_page(domain, mappings):
    pages = [at for m in mappings for at in range(m.iova.start.value, m.iova.stop, PAGE)]
    return sum(access(domain.node, at, 1, Access.READ).refs for at in pages) / len(pages)


@pytest.mark.parametrize("allocator", sorted({"best_fit", "bitmap", "buddy", "tlsf"} & set(allocator_names())))
def test_large_leaves_form_over_a_linear_domain(allocator):
    lower = shim(allocator=allocator)
    upper = on(lower)
    buffers = [upper.alloc(size) for size in (PAGE, 4 * MIB, 3 * PAGE, 4 * MIB)]
    assert upper.table.leaves[M2] == 4
    assert reads_per_page(upper, buffers[1::2]) == 3.0
    lower.check()
    lower.region.check()
    for buffer in buffers:
        upper.release(buffer)
    upper.destroy()
    assert (lower.mappings(), lower.region.free_space) == ([], 64 * MIB)


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
def test_every_format_walks_its_tables_at_the_end_of_a_region(form):
    lower = LinearDomain(BusSpace("shim", width=38), Region(ram.at(BASE), 4 << 30), memory=memory(size=4 << 30))
    upper = on(lower, format=form)
    sizes = [min(level.sizes.values()) for level in form.levels if level.sizes][-2:]
    buffers = [upper.alloc(size) for size in (sizes[1], sizes[0], 3 * sizes[1], sizes[0])]
    assert upper.table.leaves[sizes[0]] == 2
    for buffer in buffers:
        for offset in (0, buffer.size - 1):
            assert access(upper.node, buffer.iova.start.value + offset, 1, Access.WRITE).fault is None
    upper.check()
    for buffer in buffers:
        upper.release(buffer)
    upper.destroy()
    assert lower.mappings() == []


def test_leaves_of_many_entries_cost_no_room():
    """128, 256 and 512 MiB fit into 1 GiB: AMD has leaves of all these sizes, but only 2 MiB and 1 GiB save reads."""
    upper = on(shim(1 << 30), format=FORMATS["amd-v1"])
    for size in (128 * MIB, 256 * MIB, 512 * MIB):
        upper.alloc(size)
    assert not upper.table.leaves[PAGE]


def test_tables_are_at_the_other_end_of_the_region():
    lower = shim()
    upper = on(lower)
    buffer = upper.alloc(M2)
    assert buffer.memory[0].start.value == BASE
    top = BASE + 64 * MIB
    assert [use.start for use in lower.uses if use.iova is None] == [top - 3 * PAGE, top - 2 * PAGE, top - PAGE]


def test_tables_and_data_share_what_is_left():
    """A region that is full but for pages below everything else serves tables from there."""
    lower = shim(size=6 * PAGE)
    upper = on(lower)  # its root is the last page
    buffer = upper.alloc(2 * PAGE)  # two pages, and three tables from the end
    assert lower.region.free_space == 0
    with pytest.raises(NoMemory):
        upper.alloc(PAGE)
    upper.release(buffer)
    upper.check()


def test_an_address_limit_holds_for_tables():
    lower = shim(delta=1 << 38)
    with pytest.raises(NoMemory):
        lower.alloc_for_tables(PAGE, limit=1 << 32)
    mapping = lower.alloc_for_tables(PAGE, limit=(1 << 38) + BASE + 2 * PAGE - 1)
    assert mapping.iova.stop == (1 << 38) + BASE + 2 * PAGE


def test_without_a_place_for_large_leaves_there_are_small_ones():
    upper = on(shim(size=M2 + 16 * PAGE, start=BASE + PAGE))
    buffer = upper.alloc(M2)
    assert (upper.table.leaves[M2], upper.table.leaves[PAGE]) == (0, 512)
    assert buffer.memory[0].start.value == BASE + PAGE
    moved = on(shim(delta=PAGE))  # whose window keeps no alignment above a page
    moved.alloc(M2)
    assert moved.table.leaves[PAGE] == 512
