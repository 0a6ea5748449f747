"""What caches keep and what it costs: hits, misses, blame on hits, tags, upper entries of walks."""

from itertools import pairwise

import pytest

from swiommu.address import Access, PhysSpace, Prot
from swiommu.errors import DeviceFault, InvalidArgument
from swiommu.layer import (
    Chain,
    Fault,
    FaultKind,
    HopKind,
    Identity,
    Layer,
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

RW = Prot.READ | Prot.WRITE
PAGE, LARGE, HUGE = 0x1000, 0x20_0000, 0x4000_0000
TOP, IPA, HIGH, END = 0x7F00_0000_0000, 0x10_0000, 0x8000_0000, 0xC000_0000

# Where the pages of a stage's tables lie (pages 1, 2, ... of its output space) leads, one step further down each time.
TABLES = 0x4000_0000


def stage(name, *maps, tlb=None, iotlb=None, walker=Walker.NESTED, **options):
    table = RadixTable(MOCK, CountingTables())
    for iova, paddr, pgsize, count, *prot in maps:
        table.map_run(iova, paddr, pgsize, count, *prot or [RW])
    return Node(Paged(name, table, **options), tlb=tlb, iotlb=iotlb, walker=walker)


def stack(*nodes):
    for upper, lower in pairwise(nodes):
        connect(upper, lower)
    return nodes[0]


def two(s1=(), s2=(), top=(TOP, IPA, PAGE, 16), below=(IPA, HIGH, PAGE, 16)):
    """Two stages: pages from TOP to IPA to HIGH; the tables of the upper one lead to TABLES."""
    upper = stage("s1", top, **dict(s1))
    lower = stage("s2", (PAGE, TABLES, PAGE, 15), below, **dict(s2))
    stack(upper, lower)
    return upper, lower


def three(s1=(), s2=(), s3=()):
    upper, middle = two(s1, s2)
    lower = stage(
        "s3", (PAGE, 0x1000_0000, PAGE, 15), (TABLES, 0x2000_0000, PAGE, 16), (HIGH, END, PAGE, 16), **dict(s3)
    )
    stack(middle, lower)
    return upper, middle, lower


def read(path, at=TOP, wanted=Access.READ, **options):
    return access(path, at, 4, wanted, **options)


def counts(cache):
    return cache.hits, cache.misses


def tlb(**options):
    return {"tlb": TranslationCache(**options)}


def iotlb(**options):
    return {"iotlb": TranslationCache(**options)}


# -- what a hit costs


def test_one_stage():
    node = stage("s1", (TOP, HIGH, PAGE, 4), **tlb())
    assert [read(node, TOP + PAGE * i).refs for i in (0, 0, 1, 1, 0)] == [4, 0, 4, 0, 0]
    assert counts(node.tlb) == (3, 2)
    assert [(line.place, hex(line.start), line.size, line.block) for line in node.tlb] == [
        ("s1", hex(TOP + PAGE), PAGE, PAGE),
        ("s1", hex(TOP), PAGE, PAGE),
    ]


@pytest.mark.parametrize(
    ("s1", "s2", "refs"),
    [
        ((), (), [24, 24, 24]),
        (tlb, (), [24, 4, 24]),  # the second time only the data page is walked, in the lower stage
        ((), tlb, [24, 4, 8]),  # the upper walk is read through hits; the next page's data is a miss
        (tlb, tlb, [24, 0, 8]),
        (iotlb, (), [24, 0, 24]),
        (iotlb, tlb, [24, 0, 8]),
        ((), iotlb, [24, 20, 24]),  # the lower one's is for data only: the upper walk pays in full
    ],
)
def test_two_stages(s1, s2, refs):
    upper, _ = two(s1() if s1 else (), s2() if s2 else ())
    assert [read(upper, at).refs for at in (TOP, TOP + 8, TOP + PAGE)] == refs


def test_both_modes_ask_the_combined_one_first():
    upper, lower = two({**tlb(), **iotlb()}, tlb())
    assert [read(upper).refs for _ in range(3)] == [24, 0, 0]
    assert counts(upper.iotlb) == (2, 1)
    assert counts(upper.tlb) == (0, 1)
    assert counts(lower.tlb) == (0, 5)  # four pages of tables, one of data


def test_three_stages():
    assert read(three()[0]).refs == 124
    assert [read(three(iotlb())[0]).refs for _ in range(2)] == [124, 124]  # each a stack of its own
    upper, middle, lower = three(tlb(), tlb(), tlb())
    # By hand: 4 entries of s1. s2 is asked for its 4 pages and the data: 5 walks of 4. Those all read the same 4 pages
    # of s2's tables, so s3 is asked for 4 + 5 different pages: 9 walks of 4.
    assert read(upper).refs == 4 + 5 * 4 + 9 * 4
    assert (counts(upper.tlb), counts(middle.tlb), counts(lower.tlb)) == ((0, 1), (0, 5), (4 * 4, 9))
    assert read(upper).refs == 0
    # The next page: 4 entries of s1 by hits; s2 walks once for the data, its tables by hits; s3 once.
    assert read(upper, TOP + PAGE).refs == 4 + 4 + 4


def test_hits_and_misses_are_the_accesses_that_entered():
    upper, lower = two(tlb(), tlb())
    entered = {"s1": 0, "s2": 0}
    for at in (TOP, TOP + PAGE, TOP, TOP - PAGE, 1 << 50):
        for hop in read(upper, at, watched=True).hops:
            if hop.kind is HopKind.ENTER:
                entered[hop.layer] += 1
    assert {node.name: sum(counts(node.tlb)) for node in (upper, lower)} == entered
    assert counts(upper.tlb) == (1, 4)


def test_a_burst_asks_once_for_each_run():
    upper, _ = two(iotlb())
    answer = access(upper, TOP + 8, 3 * PAGE, Access.READ)
    assert (answer.refs, counts(upper.iotlb)) == (96, (0, 4))
    again = access(upper, TOP + 8, 3 * PAGE, Access.READ)
    assert (again.runs, again.refs, counts(upper.iotlb)) == (answer.runs, 0, (4, 4))


# -- upper entries of walks, and tables read by hits (A5)


@pytest.mark.parametrize(("levels", "r"), [(0, 4), (1, 3), (2, 2), (3, 1), (4, 1), (9, 1)])
@pytest.mark.parametrize(
    ("lower_levels", "below", "d"),
    [
        (0, (IPA, HIGH, PAGE, 16), 4),
        (2, (IPA, HIGH, PAGE, 16), 2),
        (3, (IPA, HIGH, PAGE, 16), 1),
        (0, (LARGE, HIGH, LARGE, 1), 0),  # the large leaf was found with the first page already
    ],
)
def test_upper_walk_cache_and_nested_hits_leave_r_plus_d(levels, r, lower_levels, below, d):
    upper, lower = two(tlb(walk_levels=levels), tlb(walk_levels=lower_levels), (TOP, below[0], PAGE, 16), below)
    read(upper)
    hits = lower.tlb.hits
    assert read(upper, TOP + PAGE).refs == r + d
    assert lower.tlb.hits - hits == r + (d == 0)
    assert read(upper, TOP + PAGE).refs == 0


@pytest.mark.parametrize(("pgsize", "s"), [(PAGE, 4), (LARGE, 3), (HUGE, 2)])
@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_the_entry_of_the_leaf_is_never_kept(pgsize, s, levels):
    node = stage("s1", (0, 0, pgsize, 3), **tlb(walk_levels=levels))
    assert [read(node, at * pgsize).refs for at in range(3)] == [s] + [max(s - levels, 1)] * 2
    assert sum(map(len, node.tlb.walks)) == min(levels, s - 1)
    assert node.tlb.walk_hits == 2 * min(levels, s - 1)


def test_holes_leave_nothing():
    node = stage("s1", (TOP, HIGH, PAGE, 1), **tlb(walk_levels=3), **iotlb())
    for at in (TOP + PAGE, TOP - LARGE, 0, 1 << 50):
        assert read(node, at).fault is not None
    assert (len(node.tlb), len(node.iotlb), sum(map(len, node.tlb.walks))) == (0, 0, 0)


def test_upper_entries_are_bounded_too():
    node = stage("s1", *((at * HUGE, at * HUGE, PAGE, 1) for at in range(4)), **tlb(entries=3, walk_levels=3))
    for at in range(4):
        read(node, at * HUGE)
    assert [len(level) for level in node.tlb.walks] == [1, 3, 3]
    assert [level.evicted for level in node.tlb.walks] == [0, 1, 1]
    assert read(node, 3 * HUGE).refs == 0


# -- permissions on hits


@pytest.mark.parametrize("mode", [tlb, iotlb, lambda: {**tlb(), **iotlb()}])
@pytest.mark.parametrize("wanted", [Access.WRITE, Access.EXEC, Access.READ | Access.WRITE, Access.WRITE | Access.EXEC])
@pytest.mark.parametrize("third", [RW, Prot.READ, RW | Prot.NOEXEC])
@pytest.mark.parametrize("second", [RW, Prot.READ, RW | Prot.NOEXEC])
@pytest.mark.parametrize("first", [RW, Prot.READ, RW | Prot.NOEXEC])
def test_a_hit_blames_whom_the_walk_blames(mode, wanted, first, second, third):
    nodes = [
        stage("s1", (TOP, IPA, PAGE, 4, first), **mode(), walker=Walker.PHYSICAL),
        stage("s2", (IPA, HIGH, PAGE, 4, second), **mode(), walker=Walker.PHYSICAL),
        stage("s3", (HIGH, END, PAGE, 4, third), **mode(), walker=Walker.PHYSICAL),
    ]
    upper = stack(*nodes)
    assert access(upper, TOP, 4, Access.READ).refs == 12
    seen = {node.name: [] for node in nodes}
    for node in nodes:
        node.handlers.append(seen[node.name].append)
    hit, walk = access(upper, TOP + 0x24, 8, wanted), access(upper, TOP + 0x24, 8, wanted, uncached=True)
    assert (hit.fault, hit.runs, hit.way) == (walk.fault, walk.runs, walk.way)
    assert (hit.refs, hit.stale) == (0, ())
    if hit.fault:
        with pytest.raises(DeviceFault) as caught:
            upper.translate(upper.input_space.at(TOP + 0x24), 8, wanted)
        assert str(caught.value) == str(walk.fault)
        assert {name: len(faults) for name, faults in seen.items() if faults} == {walk.fault.layer: 1}


def test_the_fault_on_a_hit_in_full():
    upper, _ = two(iotlb(), (), (TOP, IPA, PAGE, 1), (IPA, HIGH, PAGE, 1, Prot.READ))
    assert read(upper, TOP + 0x10).refs == 24
    answer = read(upper, TOP + 0x234, Access.WRITE)
    assert answer.fault == Fault("s2", FaultKind.PERMISSION, Access.WRITE, IPA + 0x234, TOP + 0x234)
    assert str(answer.fault) == "permission fault of WRITE access at 0x100234 in layer 's2'"
    assert counts(upper.iotlb) == (1, 1)


def test_a_leaf_that_refuses_is_kept_by_its_stage_but_not_as_a_way():
    upper, _ = two({**tlb(), **iotlb()}, (), (TOP, IPA, PAGE, 1, Prot.READ))
    assert [read(upper, wanted=Access.WRITE).refs for _ in range(2)] == [20, 0]
    assert (len(upper.tlb), len(upper.iotlb)) == (1, 0)


def test_the_implicit_write_of_a_walk_is_refused_on_a_hit_too():
    lower = stage("s2", (PAGE, TABLES, PAGE, 15, Prot.READ), (IPA, HIGH, PAGE, 16), **tlb())
    plain = stack(stage("plain", (TOP, IPA, PAGE, 1)), lower)
    marking = stack(stage("marking", (TOP, IPA, PAGE, 1), hardware_ad=True), lower)
    assert read(plain).refs == 24
    answer = read(marking)
    assert (answer.fault, answer.refs) == (read(marking, uncached=True).fault, 0)
    assert str(answer.fault) == (
        "permission fault at 0x17f0 in layer 's2', reading a table of 'marking' for READ access at 0x7f0000000000"
    )
    assert answer.fault.implicit_write


def test_marks_are_set_on_hits():
    marks = [Marks(), Marks()]
    upper, _ = two({**iotlb(), "marks": marks[0]}, {**tlb(), "marks": marks[1]})
    read(upper)
    assert [each.dirty for each in marks] == [set(), set()]
    read(upper, TOP + 4, Access.WRITE)
    assert [each.dirty for each in marks] == [{(TOP, PAGE)}, {(IPA, PAGE)}]
    assert upper.iotlb.hits == 1


# -- what an entry is good for


def test_what_is_kept_is_the_smallest_block_of_the_way():
    upper, _ = two(iotlb(), (), (TOP, LARGE, LARGE, 1), (LARGE, HIGH, PAGE, 512))
    read(upper)
    assert [(line.start, line.block) for line in upper.iotlb] == [(TOP, PAGE)]
    upper, _ = two(iotlb(), (), (TOP, LARGE, PAGE, 512), (LARGE, HIGH, LARGE, 1))
    read(upper)
    assert [(line.start, line.block) for line in upper.iotlb] == [(TOP, PAGE)]


def test_a_window_makes_blocks_small_and_keeps_runs_whole():
    upper = stage("s1", (TOP, LARGE, LARGE, 1), **iotlb(), walker=Walker.PHYSICAL)
    stack(upper, Node(Window("bus", Span(LARGE, LARGE, 0x3000))))
    for _ in range(2):
        answer = access(upper, TOP + 0x5004, 0x10000, Access.READ)
        assert [(run.output, run.size, run.page_size) for run in answer.runs] == [(LARGE + 0x8004, 0x10000, PAGE)]
    assert [(line.start, line.size, line.block) for line in upper.iotlb] == [(TOP, LARGE, PAGE)]
    assert read(upper, TOP + 0x6000).refs == 3  # another block, although the run reaches it


def test_routers_and_memories_at_the_end():
    memories = [Node(Memory(name, SparseRam(PhysSpace(name)))) for name in ("dram", "vram")]
    router = Node(Router("gpu", Span(0, PAGE, 0x8000), Span(PAGE, PAGE, 0x3000, 1)), **tlb(), **iotlb())
    connect(router, *memories)
    fresh = access(router, 0xFFC, 8, Access.WRITE, uncached=True)
    assert [run.memory for run in fresh.runs] == ["dram", "vram"]
    assert access(router, 0xFFC, 8, Access.WRITE).runs == fresh.runs
    assert access(router, 0xFFC, 8, Access.WRITE).runs == fresh.runs
    assert (counts(router.iotlb), counts(router.tlb)) == ((2, 2), (0, 2))


# -- room


def test_the_least_recently_used_goes_first():
    node = stage("s1", (0, 0, PAGE, 4), **tlb(entries=2))
    assert [read(node, page * PAGE).refs for page in (0, 1, 0, 2, 0, 1)] == [4, 4, 0, 4, 0, 4]
    assert (len(node.tlb), node.tlb.evicted, node.tlb.dropped) == (2, 2, 0)
    assert repr(node.tlb) == "TranslationCache(2 of 2 lines, 2 hits, 4 misses)"


def test_one_entry():
    upper, _ = two(iotlb(entries=1), tlb(entries=1))
    assert [read(upper, TOP + PAGE * i).refs for i in (0, 0, 1, 0)] == [24, 0, 24, 24]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"entries": 0}, "entries is 0, not a whole number from 1 on"),
        ({"walk_levels": -1}, "a cache of -1 levels of a walk: at least 0"),
    ],
)
def test_caches_that_can_not_be(options, text):
    with pytest.raises(InvalidArgument) as caught:
        TranslationCache(**options)
    assert str(caught.value) == text


def test_the_largest_and_the_smallest_block_together():
    node = stage("s1", (0, LARGE, LARGE, 1), (LARGE, 0x5000, PAGE, 1), **tlb())
    for _ in range(2):
        assert [read(node, at).runs[0].output for at in (8, LARGE, LARGE - 4)] == [LARGE + 8, 0x5000, 2 * LARGE - 4]
    assert counts(node.tlb) == (4, 2)


# -- tags


def test_streams_do_not_share_lines():
    upper, _ = two(iotlb(), tlb())
    assert [read(upper, stream=stream).refs for stream in ("nic", "gpu", "nic", None, "gpu")] == [24, 24, 0, 24, 0]
    assert [line.stream for line in upper.iotlb] == ["nic", None, "gpu"]


def test_one_cache_for_many_domains():
    cache = TranslationCache()
    lower = stage("s2", (PAGE, TABLES, PAGE, 15), (IPA, HIGH, PAGE, 16), tlb=cache, iotlb=cache)
    tops = [stage(name, (TOP, IPA + at * PAGE, PAGE, 1), tlb=cache, iotlb=cache) for at, name in enumerate("abc")]
    for top in tops:
        connect(top, lower)
    for _ in range(2):
        assert [read(top).runs[0].output for top in tops] == [HIGH, HIGH + PAGE, HIGH + 2 * PAGE]
    assert sorted({line.place for line in cache}) == ["a", "b", "c", "s2"]
    assert cache.drop(tops[1]) == 2
    assert [read(top).refs for top in tops] == [0, 4, 0]


def test_an_open_end_has_lines_for_each_way_below():
    upper = stage("s1", (TOP, IPA, PAGE, 1), **tlb(), **iotlb())
    lowers = [stage(name, (PAGE, TABLES, PAGE, 15), (IPA, HIGH, PAGE, 1)) for name in ("x", "y")]
    chains = [Chain(upper, lower) for lower in lowers]
    assert [read(chain).refs for chain in chains] == [24, 24]
    assert [read(chain).refs for chain in chains] == [4, 4]
    lowers[1].layer.table.unmap(PAGE, 15 * PAGE)
    assert [(read(chain).refs, len(read(chain).stale)) for chain in chains] == [(4, 0), (4, 1)]
    # A chain binds nothing, and yet: what was found through y is known to come from there.
    assert [step[:2] for step in invalidate(lowers[1], PAGE, 15 * PAGE)] == [("s1", "tlb"), ("s1", "iotlb")]
    assert read(chains[0]).refs == 24
    assert str(read(chains[1]).fault) == (
        "translation fault at 0x17f0 in layer 'y', reading a table of 's1' for READ access at 0x7f0000000000"
    )


def test_a_chain_has_a_combined_cache_of_its_own():
    upper, lower = stage("s1", (TOP, IPA, PAGE, 1)), stage("s2", (PAGE, TABLES, PAGE, 15), (IPA, HIGH, PAGE, 1))
    inner = Chain(upper, lower, iotlb=TranslationCache())
    outer = Chain(inner, Identity("bypass"), iotlb=TranslationCache())
    assert [read(inner).refs for _ in range(2)] == [24, 0]
    assert [read(outer).refs for _ in range(2)] == [24, 0]  # what is below differs, so it is another line
    assert [step[:2] for step in invalidate(lower, IPA, PAGE)] == [("s1", "iotlb"), ("s1", "iotlb")]
    assert (len(inner.iotlb), len(outer.iotlb)) == (0, 0)


# -- seeing it, and not using it


def test_the_tables_alone():
    upper, lower = two({**tlb(walk_levels=2), **iotlb()}, tlb())
    assert read(upper, uncached=True).refs == 24
    assert (len(upper.tlb), len(upper.iotlb), counts(upper.tlb), counts(lower.tlb)) == (0, 0, (0, 0), (0, 0))
    read(upper)
    assert read(upper, uncached=True).refs == 24
    assert (counts(upper.iotlb), upper.feeds, lower.feeds) == ((0, 1), {}, {upper: None})


def test_hits_are_steps():
    upper, _ = two(tlb(walk_levels=2), tlb())
    read(upper)
    hops = read(upper, watched=True).hops
    assert [(hop.kind.name, hop.layer, hop.address, hop.output) for hop in hops] == [
        ("ENTER", "s1", TOP, None),
        ("HIT", "s1", TOP, IPA),
        ("LEAVE", "s1", TOP, IPA),
        ("ENTER", "s2", IPA, None),
        ("HIT", "s2", IPA, HIGH),
        ("LEAVE", "s2", IPA, HIGH),
    ]
    hops = read(upper, TOP + PAGE, watched=True).hops
    kept = [hop for hop in hops if hop.kind is HopKind.HIT and hop.value is not None]
    assert [(hop.layer, hop.nesting, hop.address & -PAGE) for hop in kept] == [("s1", 0, 0x1000), ("s1", 0, 0x2000)]
    assert [hop.ref for hop in hops if hop.kind is HopKind.READ] == [1, 2, 3, 4, 5, 6]


def test_a_combined_hit_is_one_step():
    upper, _ = two(iotlb(), (), (TOP, IPA, PAGE, 16), (IPA, HIGH, PAGE, 16, Prot.READ))
    read(upper)
    steps = [(hop.kind.name, hop.layer, hop.address, hop.output) for hop in read(upper, watched=True).hops]
    assert steps == [("ENTER", "s1", TOP, None), ("HIT", "s1", TOP, HIGH)]
    hops = read(upper, wanted=Access.WRITE, watched=True).hops
    assert [(hop.kind.name, hop.layer, hop.address) for hop in hops][2:] == [("FAULT", "s2", IPA)]


class Counting(Layer):
    """Counts how often it is asked."""

    granule = 1
    input_width = output_width = 16

    def __init__(self):
        super().__init__("counting")
        self.asked = 0
        self.inner = Identity("inner", width=16)

    def look(self, at, read):
        self.asked += 1
        return self.inner.look(at, read)

    def extents(self):
        return self.inner.extents()


@pytest.mark.parametrize(("audit", "asked"), [(False, 1), (True, 3)])
def test_without_an_audit_nobody_pays_for_it(audit, asked):
    layer = Counting()
    node = Node(layer, tlb=TranslationCache(audit=audit))
    for at in (0, 8, 16):
        read(node, at)
    assert layer.asked == asked
