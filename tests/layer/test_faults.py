"""Who is blamed, with which numbers, and who is told: also for reads of tables, and of tables of tables.

Three of these are defects that emulators of two-stage IOMMUs really had: the wrong address in the record of a table
read, a table read taken for a write below, and an entry taken for a leaf where there can be none.
"""

from itertools import pairwise, product

import pytest

from swiommu.address import Access, PhysSpace, Prot
from swiommu.errors import DeviceFault
from swiommu.layer import (
    Blocked,
    Fault,
    FaultClass,
    FaultKind,
    FlatTable,
    Identity,
    Marks,
    Memory,
    Node,
    Paged,
    Router,
    Span,
    TranslationCache,
    Walker,
    Window,
    access,
    connect,
    invalidate,
)
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable

R, W, RW = Prot.READ, Prot.WRITE, Prot.READ | Prot.WRITE
READ, WRITE, EXEC = Access.READ, Access.WRITE, Access.EXEC
TABLES, DATA = 0x1000, 0x10_0000
IOVA = 0x5008
LEAF_ENTRY = 0x4000 + 8 * 5  # of page 5, in the fourth and last table page that a table makes


def paged(name, *maps, **options):
    """A page table with (input, output, pages, prot) mapped; its four table pages are at 0x1000 to 0x4fff."""
    table = RadixTable(MOCK, CountingTables())
    for at, to, pages, prot in maps:
        table.map_run(at, to, 0x1000, pages, prot)
    return Paged(name, table, **options)


def stack(*layers):
    """Each layer nested on the next, the last an open end."""
    nodes = [Node(layer) for layer in layers]
    for upper, lower in pairwise(nodes):
        connect(upper, lower)
    return nodes


def two(*, leaf=RW, tables=RW, data=RW, **options):
    """A first stage that maps page 5 to DATA, over one that maps its tables and its data with what is left of them."""
    upper = paged("s1", *([(0x5000, DATA, 1, leaf)] if leaf else [(0x6000, DATA, 1, RW)]), **options)
    lower = [(at, at, pages, prot) for at, pages, prot in ((TABLES, 4, tables), (DATA, 1, data)) if prot]
    return stack(upper, paged("s2", *lower, marks=Marks()))


def fault_of(node, at=IOVA, wanted=READ, size=4, **options):
    return access(node, at, size, wanted, **options).fault


# -- the order of blame, all of it for two stages


def expected(leaf, tables, data, wanted, hardware_ad):
    """The rules as they are written down, one after the other."""
    for_tables = READ | WRITE if hardware_ad else READ
    first_read, walk = 0x1000, {"fault_class": FaultClass.WALK, "walk_of": "s1", "implicit_write": hardware_ad}
    if not tables:
        return Fault("s2", FaultKind.TRANSLATION, wanted, first_read, IOVA, **walk)
    if for_tables & ~int(tables):
        return Fault("s2", FaultKind.PERMISSION, wanted, first_read, IOVA, **walk)
    if not leaf:
        return Fault("s1", FaultKind.TRANSLATION, wanted, IOVA, IOVA)
    if wanted & ~int(leaf):
        return Fault("s1", FaultKind.PERMISSION, wanted, IOVA, IOVA)
    if not data:
        return Fault("s2", FaultKind.TRANSLATION, wanted, DATA + 8, IOVA)
    if wanted & ~int(data):
        return Fault("s2", FaultKind.PERMISSION, wanted, DATA + 8, IOVA)
    return None


@pytest.mark.parametrize("hardware_ad", [False, True])
def test_order_of_blame(hardware_ad):
    for leaf, tables, data in product((Prot.NONE, R, W, RW), repeat=3):
        upper, _ = two(leaf=leaf, tables=tables, data=data, hardware_ad=hardware_ad)
        for wanted in (READ, WRITE, READ | WRITE):
            answer = access(upper, IOVA, 4, wanted)
            assert answer.fault == expected(leaf, tables, data, wanted, hardware_ad), (leaf, tables, data, wanted)
            assert len(answer.runs) == (answer.fault is None)


def test_executing_is_refused_by_the_uppermost_that_forbids_it():
    upper, _ = stack(
        paged("s1", (0x5000, DATA, 1, R)), paged("s2", (TABLES, TABLES, 4, R), (DATA, DATA, 1, R | Prot.NOEXEC))
    )
    assert fault_of(upper, wanted=EXEC) == Fault("s2", FaultKind.PERMISSION, EXEC, DATA + 8, IOVA)
    assert fault_of(upper, wanted=READ) is None


def test_range_comes_first_and_address_size_last():
    upper, _ = stack(paged("s1"), paged("s2"))
    assert fault_of(upper, 1 << 48) == Fault("s1", FaultKind.RANGE, READ, 1 << 48, 1 << 48)
    narrow = FlatTable("gart", base=0, size=0x10000)
    narrow.map(0x5000, 0x8000, 0x1000)
    narrow.output_width = 15
    assert fault_of(Node(narrow, walker=Walker.PHYSICAL)) == Fault("gart", FaultKind.ADDRESS_SIZE, READ, IOVA, IOVA)


# -- defect: the address in the record of a table read


def test_a_failing_table_read_tells_where_the_entry_is():
    """Not where the data is, nor where the device pointed: the entry's address, as the lower stage was asked for it."""
    upper, lower = two()
    lower.layer.table.unmap(0x4000, 0x1000)
    assert fault_of(upper, wanted=WRITE) == Fault(
        "s2", FaultKind.TRANSLATION, WRITE, LEAF_ENTRY, IOVA, FaultClass.WALK, "s1"
    )
    assert str(fault_of(upper, wanted=WRITE)) == (
        "translation fault at 0x4028 in layer 's2', reading a table of 's1' for WRITE access at 0x5008"
    )


@pytest.mark.parametrize(
    ("page", "entry"), [(0x1000, 0x1000), (0x2000, 0x2000), (0x3000, 0x3000), (0x4000, LEAF_ENTRY)]
)
def test_every_level_of_a_walk_can_fail(page, entry):
    upper, lower = two()
    lower.layer.table.unmap(page, 0x1000)
    answer = access(upper, IOVA, 4, READ)
    assert (answer.fault.address, answer.fault.walk_of) == (entry, "s1")
    # Each table page above it cost five references; the failing one what its own walk below had read.
    assert answer.refs == 5 * (page // 0x1000 - 1) + 4


# -- defect: a table read taken for a write


@pytest.mark.parametrize("wanted", [READ, WRITE, READ | WRITE])
def test_reading_a_table_needs_reading_only(wanted):
    upper, lower = two(tables=R)
    assert fault_of(upper, wanted=wanted) is None
    assert lower.layer.marks.dirty == ({(DATA, 0x1000)} if wanted & WRITE else set())
    assert {(page, 0x1000) for page in range(0x1000, 0x5000, 0x1000)} < lower.layer.marks.accessed


@pytest.mark.parametrize("wanted", [READ, WRITE])
def test_a_table_read_that_is_refused_is_no_write(wanted):
    fault = fault_of(two(tables=W)[0], wanted=wanted)
    assert fault == Fault("s2", FaultKind.PERMISSION, wanted, 0x1000, IOVA, FaultClass.WALK, "s1", implicit_write=False)


def test_marks_of_hardware_write_the_table():
    upper, lower = two(hardware_ad=True)
    assert fault_of(upper) is None
    assert lower.layer.marks.dirty == {(page, 0x1000) for page in range(0x1000, 0x5000, 0x1000)}
    fault = fault_of(two(tables=R, hardware_ad=True)[0])
    assert (fault.kind, fault.access, fault.implicit_write) == (FaultKind.PERMISSION, READ, True)


# -- defect: a leaf where there can be none


def forged(depth, entry):
    """A first stage with one entry overwritten, as somebody can who reaches the page."""
    layer = paged("s1", (0x5000, DATA, 1, RW))
    index = 5 if depth == 3 else 0
    layer.table.nodes.memory.entries(0x1000 * (depth + 1))[index] = entry
    return layer


@pytest.mark.parametrize(
    ("depth", "entry"),
    [
        (3, MOCK.table_entry(DATA, 3)),  # the last level points on to a table
        (0, MOCK.leaf_entry(0, 0, RW, 0)),  # a page of 512 GiB
        (1, MOCK.leaf_entry(0x20_0000, 1, RW, 0)),  # 1 GiB at a multiple of 2 MiB
        (2, MOCK.leaf_entry(0x10_1000, 2, RW, 0)),  # 2 MiB at a multiple of 4 KiB
        (2, 0),
    ],
)
def test_what_can_be_no_leaf_is_a_hole(depth, entry):
    lower = paged("s2", (0, 0, 512, RW))
    for top in (Node(forged(depth, entry), walker=Walker.PHYSICAL), stack(forged(depth, entry), lower)[0]):
        assert fault_of(top) == Fault("s1", FaultKind.TRANSLATION, READ, IOVA, IOVA)


def test_the_same_in_the_stage_below():
    upper, _ = stack(paged("s1", (0x5000, DATA, 1, RW)), forged(0, MOCK.leaf_entry(0, 0, RW, 0)))
    upper.lowers[0].layer.name = "s2"
    assert fault_of(upper) == Fault("s2", FaultKind.TRANSLATION, READ, 0x1000, IOVA, FaultClass.WALK, "s1")


def test_a_large_leaf_that_is_aligned_is_one():
    top = Node(forged(2, MOCK.leaf_entry(0x40_0000, 2, RW, 0)), walker=Walker.PHYSICAL)
    [run] = access(top, IOVA, 4, READ).runs
    assert (run.output, run.page_size) == (0x40_5008, 0x20_0000)


# -- walks of walks


def three():
    return stack(
        paged("s1", (0x5000, DATA, 1, RW)),
        paged("s2", (TABLES, 0x4_1000, 4, RW), (DATA, 0x20_0000, 1, RW)),
        paged("s3", (TABLES, 0x7_1000, 4, RW), (0x4_1000, 0x8_1000, 4, RW), (0x20_0000, 0x30_0000, 1, RW)),
    )


def test_three_stages_reach_the_end():
    answer = access(three()[0], IOVA, 4, WRITE)
    assert ([run.output for run in answer.runs], answer.refs) == ([0x30_0008], 124)


@pytest.mark.parametrize(
    ("stage", "hole", "fault"),
    [
        # The third stage misses the root of the second's table, which is read for the first's: the nearest is named.
        (2, 0x1000, Fault("s3", FaultKind.TRANSLATION, WRITE, 0x1000, IOVA, FaultClass.WALK, "s2")),
        # It misses the page where the second put the first's root.
        (2, 0x4_1000, Fault("s3", FaultKind.TRANSLATION, WRITE, 0x4_1000, IOVA, FaultClass.WALK, "s1")),
        (2, 0x4_4000, Fault("s3", FaultKind.TRANSLATION, WRITE, 0x4_4028, IOVA, FaultClass.WALK, "s1")),
        # It misses the data.
        (2, 0x20_0000, Fault("s3", FaultKind.TRANSLATION, WRITE, 0x20_0008, IOVA)),
        (1, 0x4000, Fault("s2", FaultKind.TRANSLATION, WRITE, 0x4028, IOVA, FaultClass.WALK, "s1")),
        (1, DATA, Fault("s2", FaultKind.TRANSLATION, WRITE, DATA + 8, IOVA)),
        (0, 0x5000, Fault("s1", FaultKind.TRANSLATION, WRITE, IOVA, IOVA)),
    ],
)
def test_holes_in_walks_of_walks(stage, hole, fault):
    nodes = three()
    nodes[stage].layer.table.unmap(hole, 0x1000)
    if (stage, hole) == (0, 0x5000):
        nodes[0].layer.table.map_run(0x6000, DATA, 0x1000, 1, RW)  # keeps the tables
    answer = access(nodes[0], IOVA, 4, WRITE)
    assert answer.fault == fault
    assert answer.way[-1].name == fault.layer


def test_a_blocked_walker_blames_the_walker():
    side = Node(Blocked("off"))
    top = Node(paged("s1", (0x5000, DATA, 1, RW)), walker=side)
    connect(top, Node(Identity("bypass")))
    assert fault_of(top) == Fault("off", FaultKind.TRANSLATION, READ, 0x1000, IOVA, FaultClass.WALK, "s1")


# -- bursts


def test_a_burst_tells_the_first_failing_byte_at_every_layer():
    memory = Node(Memory("ram", SparseRam(PhysSpace("ram")), size=0x8000))
    lower = Node(paged("s2", (0x8000, 0x1000, 1, RW), (0x9000, 0x5000, 1, R)), walker=Walker.PHYSICAL)
    upper = Node(paged("s1", (0x1000, 0x8000, 3, RW)), walker=Walker.PHYSICAL)
    window = Node(Window("bus", Span(0x10_0000, 0x10_0000, -0x10_0000)))
    for one, other in ((lower, memory), (upper, lower), (window, upper)):
        connect(one, other)
    answer = access(window, 0x10_1FFC, 0x2000, READ)
    assert answer.fault == Fault("s2", FaultKind.TRANSLATION, READ, 0xA000, 0x10_3000)
    assert [(run.input, run.output, run.size) for run in answer.runs] == [
        (0x10_1FFC, 0x1FFC, 4),
        (0x10_2000, 0x5000, 0x1000),
    ]
    answer = access(window, 0x10_1FFC, 0x2000, WRITE)
    assert answer.fault == Fault("s2", FaultKind.PERMISSION, WRITE, 0x9000, 0x10_2000)
    assert answer.size == 4
    answer = access(window, 0x10_1FFC, 0x2000, WRITE, atomic=True)
    assert (answer.fault.iova, answer.size) == (0x10_2000, 0)


# -- who is told


def told(*nodes):
    """What the owner of each node hears, in order."""
    heard = []
    for node in nodes:
        node.handlers.append(lambda fault, name=node.name: heard.append((name, fault)))
    return heard


def refuse(top, at=IOVA, wanted=READ, size=4):
    with pytest.raises(DeviceFault) as caught:
        top.translate(top.input_space.at(at), size, wanted)
    return caught.value.fault


def test_the_owner_alone_is_told_in_full():
    upper, lower = two(data=Prot.NONE)
    heard = told(upper, lower)
    fault = refuse(upper)
    assert heard == [("s2", fault)]
    assert (fault.address, fault.iova) == (DATA + 8, IOVA)


def test_a_burst_is_told_once():
    upper, lower = two()
    heard = told(upper, lower)
    fault = refuse(upper, size=0x4000)
    assert heard == [("s1", fault)]
    assert fault.iova == 0x6000


def test_what_goes_upward_has_no_lower_address():
    upper, lower = two(data=Prot.NONE)
    lower.forwards = True
    heard = told(upper, lower)
    fault = refuse(upper)
    assert heard == [("s2", fault), ("s1", fault.sanitised())]
    assert heard[1][1].address is None
    assert str(heard[1][1]) == "translation fault of READ access in layer 's2'"


def test_a_walk_fault_goes_upward_too():
    upper, lower = two(tables=Prot.NONE)
    lower.forwards = True
    heard = told(upper, lower)
    refuse(upper)
    assert [name for name, _ in heard] == ["s2", "s1"]
    assert str(heard[1][1]) == "translation fault in layer 's2', reading a table of 's1' for READ access at 0x5008"


@pytest.mark.parametrize(
    ("forwarding", "names"),
    [
        ((), ["s3"]),
        (("s3",), ["s3", "s2"]),
        (("s3", "s2"), ["s3", "s2", "s1"]),
        (("s2", "s1"), ["s3"]),  # what is not let out of the third can't be passed on by the second
    ],
)
def test_each_owner_decides_for_its_own_upward_step(forwarding, names):
    nodes = three()
    nodes[2].layer.table.unmap(0x20_0000, 0x1000)
    for node in nodes:
        node.forwards = node.name in forwarding
    heard = told(*nodes)
    fault = refuse(nodes[0], wanted=WRITE)
    assert [name for name, _ in heard] == names
    assert [record.address for _, record in heard] == [fault.address] + [None] * (len(names) - 1)


def test_only_those_on_the_way_are_told():
    """Two guests on one host: the other guest hears nothing of it."""
    host = Node(paged("host", (TABLES, TABLES, 4, RW)))
    guests = [Node(paged(name, (0x5000, DATA, 1, RW))) for name in ("one", "two")]
    for guest in guests:
        connect(guest, host)
    host.forwards = True
    heard = told(host, *guests)
    refuse(guests[1])
    assert [name for name, _ in heard] == ["host", "two"]


def test_the_way_through_a_router_is_the_one_that_failed():
    left, right = Node(Blocked("left")), Node(Blocked("right"))
    left.forwards = right.forwards = True
    router = Node(Router("bus", Span(0, 0x1000), Span(0x1000, 0x1000, 0, 1), ports=("left", "right")))
    connect(router, left, right)
    heard = told(router, left, right)
    refuse(router, 0x1000)
    assert [name for name, _ in heard] == ["right", "bus"]


def test_a_hit_in_a_combined_cache_tells_the_same_owner():
    upper, lower = two(data=R)
    upper.iotlb = TranslationCache()
    heard = told(upper, lower)
    upper.translate(upper.input_space.at(IOVA), 4, READ)
    assert refuse(upper, wanted=WRITE) == Fault("s2", FaultKind.PERMISSION, WRITE, DATA + 8, IOVA)
    assert upper.iotlb.hits == 1
    assert [name for name, _ in heard] == ["s2"]


# -- defect: flushed by the upper's tag only


def test_flushing_the_upper_stage_only_leaves_what_the_lower_one_kept():
    """One cache for both stages, tagged: the upper one's lines go, and come back with the lower one's old answer."""
    cache = TranslationCache()
    upper, lower = two()
    upper.tlb = upper.iotlb = lower.tlb = cache
    assert access(upper, IOVA, 4, READ).runs[0].output == DATA + 8
    lower.layer.table.unmap(DATA, 0x1000)
    lower.layer.table.map_run(DATA, 0x90_0000, 0x1000, 1, RW)
    invalidate(upper)  # what the tear-down of a nested PASID did
    stale = access(upper, IOVA, 4, READ)
    assert stale.runs[0].output == DATA + 8
    assert [(hit.layer, hit.start, hit.size) for hit in stale.stale] == [("s2", DATA, 0x1000)]
    invalidate(lower, DATA, 0x1000)  # what it has to do: by the lower's tag, and upward from there
    fresh = access(upper, IOVA, 4, READ)
    assert (fresh.runs[0].output, fresh.stale) == (0x90_0008, ())


def test_flushing_by_one_stream_leaves_the_others():
    """Two streams through one guest: the lower stage changed for both of them."""
    upper, lower = two()
    upper.iotlb = TranslationCache()
    for stream in (1, 2):
        access(upper, IOVA, 4, READ, stream=stream)
    lower.layer.table.unmap(DATA, 0x1000)
    invalidate(lower, stream=1)
    assert access(upper, IOVA, 4, READ, stream=1).fault.layer == "s2"
    assert access(upper, IOVA, 4, READ, stream=2).stale != ()
    invalidate(lower)
    assert access(upper, IOVA, 4, READ, stream=2).fault.layer == "s2"
