"""What is forgotten, in which order, and what a cache says that nobody told (law 13)."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import Access, PhysSpace, Prot
from swiommu.errors import InvalidArgument
from swiommu.layer import (
    EVERY,
    Attributes,
    Chain,
    Dropped,
    FaultClass,
    Identity,
    Memory,
    Node,
    Paged,
    Router,
    Run,
    Span,
    Stale,
    TranslationCache,
    Walker,
    Window,
    access,
    connect,
    disconnect,
    invalidate,
    invalidation,
    read_through,
)
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable

RW = Prot.READ | Prot.WRITE
PAGE, LARGE = 0x1000, 0x20_0000
TOP, IPA, HIGH, END = 0x7F00_0000_0000, 0x10_0000, 0x8000_0000, 0xC000_0000
TABLES = 0x4000_0000
PAGES = 4


def stage(name, *maps, caches="", walker=Walker.NESTED, **options):
    table = RadixTable(MOCK, CountingTables())
    for iova, paddr, pgsize, count in maps:
        table.map_run(iova, paddr, pgsize, count, RW)
    tlb = TranslationCache(**options) if "t" in caches else None
    iotlb = TranslationCache() if "c" in caches else None
    return Node(Paged(name, table), tlb=tlb, iotlb=iotlb, walker=walker)


def two(upper="", lower="", **options):
    """Pages from TOP to IPA to HIGH; caches by letters, t for per stage and c for combined."""
    s1 = stage("s1", (TOP, IPA, PAGE, PAGES), caches=upper, **options)
    s2 = stage("s2", (PAGE, TABLES, PAGE, 15), (IPA, HIGH, PAGE, PAGES + 2), caches=lower)
    connect(s1, s2)
    return s1, s2


def three(upper="tc", middle="tc", lower="t"):
    s1, s2 = two(upper, middle)
    s3 = stage("s3", (PAGE, 0x1000_0000, PAGE, 15), (TABLES, 0x2000_0000, PAGE, 16), (HIGH, END, PAGE, 8), caches=lower)
    connect(s2, s3)
    return s1, s2, s3


def bypass(name, caches="t"):
    tlb, iotlb = (TranslationCache() if letter in caches else None for letter in "tc")
    return Node(Identity(name), tlb=tlb, iotlb=iotlb)


def read(path, at=TOP, wanted=Access.READ, **options):
    return access(path, at, 4, wanted, **options)


def remap(node, at, to, prot=RW):
    node.layer.table.unmap(at, PAGE)
    if to is not None:
        node.layer.table.map_run(at, to, PAGE, 1, prot)


def said(answer):
    return answer.runs, answer.fault


def all_said(path, **options):
    return [said(read(path, TOP + page * PAGE, wanted, **options)) for page in range(PAGES) for wanted in (1, 2)]


# -- what is forgotten


def warm(*nodes):
    for page in range(PAGES):
        for stream in (None, "nic"):
            read(nodes[0], TOP + page * PAGE, stream=stream)
    return [len(cache) for node in nodes for cache in (node.tlb, node.iotlb) if cache is not None]


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ((TOP, 1), 6),  # by address: that page, of both streams
        ((TOP + PAGE - 1, 2), 4),  # by range: each page that it touches
        ((TOP + PAGE, None), 2),
        ((TOP, PAGES * PAGE), 0),
        ((0, TOP), 8),
        ((TOP + PAGES * PAGE, None), 8),
        ((0, None), 0),  # the whole domain
    ],
)
def test_by_address_range_and_domain(scope, left):
    s1, s2 = two("tc", "t")
    assert warm(s1, s2) == [8, 8, 16]
    invalidate(s1, *scope)
    assert (len(s1.tlb), len(s1.iotlb), len(s2.tlb)) == (left, left, 16)
    assert s1.tlb.dropped == s1.iotlb.dropped == 8 - left


@pytest.mark.parametrize(("stream", "left"), [(None, 4), ("nic", 4), ("gpu", 8), (EVERY, 0)])
def test_by_stream(stream, left):
    s1, s2 = two("tc", "t")
    warm(s1, s2)
    invalidate(s2, IPA, PAGES * PAGE, stream=stream)
    assert (len(s1.tlb), len(s1.iotlb), len(s2.tlb)) == (left, left, 8 + left)


def test_all_of_a_cache():
    cache = TranslationCache()
    nodes = [Node(Identity(name), tlb=cache, iotlb=cache) for name in "ab"]
    for node in nodes:
        read(node)
    assert len(cache) == 4
    assert (cache.drop(nodes[0]), cache.drop(stream="nic"), cache.drop(), len(cache)) == (2, 0, 2, 0)


def test_a_large_leaf_goes_by_any_of_its_pages():
    node = stage("s1", (TOP, LARGE, LARGE, 1), caches="tc")
    read(node)
    assert invalidate(node, TOP + 5 * PAGE, PAGE) == [Dropped("s1", "tlb", 1), Dropped("s1", "iotlb", 1)]


def test_an_answer_goes_by_all_that_it_is_good_for():
    # The block is small because of the window; the answer is good for the large leaf, and is used for all of it.
    node = stage("s1", (TOP, LARGE, LARGE, 1), caches="c", walker=Walker.PHYSICAL)
    connect(node, Node(Window("bus", Span(LARGE, LARGE, 0x1000))))
    read(node)
    assert [(line.block, line.size) for line in node.iotlb] == [(PAGE, LARGE)]
    assert invalidate(node, TOP + 5 * PAGE, PAGE) == [Dropped("s1", "iotlb", 1)]


@pytest.mark.parametrize(("start", "size"), [(0, 0), (0x1000, -1), (-1, None), (-4, 4)])
def test_ranges_that_are_none(start, size):
    with pytest.raises(InvalidArgument) as caught:
        invalidate(bypass("s1"), start, size)
    size = 1 if size is None else size
    assert str(caught.value) == f"{size} bytes at {start:#x} can't be accessed: at least 1 at 0 or above"


# -- the order


def steps(node, *scope):
    return [f"{step.place}.{step.cache}" for step in invalidation(node, *scope)]


def test_bottom_up_through_three_stages():
    s1, s2, s3 = three()
    warm(s1)
    assert invalidate(s3, HIGH, PAGE) == [
        Dropped("s3", "tlb", 2),
        Dropped("s2", "tlb", 16),
        Dropped("s2", "iotlb", 8),
        Dropped("s1", "tlb", 8),
        Dropped("s1", "iotlb", 8),
    ]
    assert steps(s2, IPA, PAGE) == ["s2.tlb", "s2.iotlb", "s1.tlb", "s1.iotlb"]
    assert steps(s1, TOP, PAGE) == ["s1.tlb", "s1.iotlb"]


def test_fan_in_all_of_them():
    shared = bypass("shared")
    tops = [bypass(name) for name in "abc"]
    for top in tops:
        connect(top, shared)
        read(top)
    assert steps(shared, 0, 1) == ["shared.tlb", "a.tlb", "b.tlb", "c.tlb"]
    assert [len(top.tlb) for top in tops] == [0, 0, 0]
    read(tops[0])
    read(tops[1])
    invalidate(tops[0])
    assert [len(top.tlb) for top in tops] == [0, 1, 0]


def test_diamond_each_once_and_after_what_is_below():
    nodes = {name: bypass(name) for name in ("memory", "left", "right", "long")}
    router = Node(Router("router", Span(0, PAGE), Span(PAGE, PAGE, 0, 1)), tlb=TranslationCache())
    connect(nodes["left"], nodes["memory"])
    connect(nodes["right"], nodes["memory"])
    connect(nodes["long"], nodes["right"])
    connect(router, nodes["left"], nodes["long"])
    order = steps(nodes["memory"])
    assert sorted(order) == ["left.tlb", "long.tlb", "memory.tlb", "right.tlb", "router.tlb"]
    for one, other in pairwise(["memory.tlb", "right.tlb", "long.tlb", "router.tlb"]):
        assert order.index(one) < order.index(other)


def test_those_that_read_tables_through_it():
    stolen, below, device = bypass("stolen"), bypass("below"), bypass("device")
    gart = stage("gart", (TOP, HIGH, PAGE, 1), caches="t")
    read_through(gart, stolen)
    connect(gart, below)
    connect(device, gart)
    read(device)
    assert steps(stolen) == ["stolen.tlb", "gart.tlb", "device.tlb"]
    assert steps(below) == ["below.tlb", "gart.tlb", "device.tlb"]


def test_a_chain_as_walker():
    inner, outer = bypass("inner"), bypass("outer")
    table = stage("s1", (TOP, HIGH, PAGE, 1), caches="t", walker=Chain(outer, inner))
    read(table)
    assert steps(inner) == ["inner.tlb", "s1.tlb"]  # what "outer" says of an address comes from no table below it
    assert (len(inner.tlb), len(outer.tlb), len(table.tlb)) == (0, 1, 0)


def test_edges_that_a_chain_left_are_forgotten():
    upper, lower = stage("s1", (TOP, IPA, PAGE, 1), caches="t"), bypass("s2")
    read(Chain(upper, lower))
    assert steps(lower, 0, 1) == ["s2.tlb", "s1.tlb"]
    assert (lower.feeds, upper.fed_by) == ({}, {})
    assert steps(lower, 0, 1) == ["s2.tlb"]
    read(Chain(upper, lower))
    assert steps(lower, 0, 1) == ["s2.tlb", "s1.tlb"]


def test_connecting_anew_forgets():
    upper, one = stage("s1", (TOP, IPA, PAGE, 1), caches="c", walker=Walker.PHYSICAL), bypass("one")
    other = Node(Window("other", Span(IPA, PAGE, 0x1000)))
    connect(upper, one)
    assert [read(upper).refs for _ in range(2)] == [4, 0]
    disconnect(upper)
    connect(upper, other)
    assert read(upper).runs[0].output == IPA + 0x1000


def test_top_down_refills_from_what_is_stale_below():
    for order in ("top-down", "bottom-up"):
        s1, s2 = two("c", "t")
        read(s1)
        remap(s2, IPA, HIGH + 4 * PAGE)
        caches = [(s2, s2.tlb), (s1, s1.iotlb)]
        for node, cache in caches if order == "bottom-up" else reversed(caches):
            cache.drop(node)
            read(s1)  # somebody comes in between
        answer = read(s1)
        if order == "top-down":
            assert (answer.runs[0].output, len(answer.stale)) == (HIGH, 1)
            assert invalidate(s2, IPA, PAGE) == [Dropped("s2", "tlb", 0), Dropped("s1", "iotlb", 1)]
        assert read(s1).runs[0].output == HIGH + 4 * PAGE


def test_telling_only_the_upper_tag_is_not_enough():
    # Tearing a nested domain down by its own tag leaves what the lower stage has of it.
    s1, s2 = two("tc", "t")
    read(s1, stream="pasid 1")
    remap(s2, IPA, None)
    assert [step.lines for step in invalidate(s1, stream="pasid 1")] == [1, 1]
    assert read(s1, stream="pasid 1").stale[0] == Stale(
        "s2", IPA, PAGE, Run(IPA, HIGH, PAGE, PAGE, RW, Attributes.of(RW)), None
    )
    invalidate(s2, IPA, PAGE, stream="pasid 1")
    assert str(read(s1, stream="pasid 1").fault) == "translation fault of READ access at 0x100000 in layer 's2'"


# -- law 13

MODES = [(upper, lower) for upper in ("", "t", "c", "tc") for lower in ("", "t", "c", "tc")]
CHANGES = {
    "unmap above": lambda s1, s2: (remap(s1, TOP, None), (s1, TOP)),
    "remap above": lambda s1, s2: (remap(s1, TOP, IPA + 4 * PAGE), (s1, TOP)),
    "read only above": lambda s1, s2: (remap(s1, TOP, IPA, Prot.READ), (s1, TOP)),
    "unmap below": lambda s1, s2: (remap(s2, IPA, None), (s2, IPA)),
    "remap below": lambda s1, s2: (remap(s2, IPA, HIGH + 5 * PAGE), (s2, IPA)),
    "read only below": lambda s1, s2: (remap(s2, IPA, HIGH, Prot.READ), (s2, IPA)),
}


@pytest.mark.parametrize(("upper", "lower"), MODES)
@pytest.mark.parametrize("change", CHANGES)
def test_the_old_or_the_new_and_after_the_last_step_the_new(upper, lower, change):
    s1, s2 = two(upper, lower)
    old = all_said(s1)
    _, (node, at) = CHANGES[change](s1, s2)
    new = all_said(s1, uncached=True)
    assert old[:2] != new[:2]
    assert old[2:] == new[2:]

    def check():
        for got, before, after in zip(all_said(s1), old, new, strict=True):
            assert got in (before, after)

    check()
    told = False
    for _ in invalidation(node, at, PAGE):
        told = True
        check()
    if told or not (upper + lower):
        assert all_said(s1) == new
    assert not any(read(s1, TOP + page * PAGE).stale for page in range(PAGES))


def test_only_what_comes_from_the_changed_leaf_is_stale():
    s1, s2 = two("tc", "tc")
    all_said(s1)
    remap(s2, IPA + PAGE, None)
    found = [read(s1, TOP + page * PAGE).stale for page in range(PAGES)]
    assert [len(each) for each in found] == [0, 1, 0, 0]
    assert found[1][0][:3] == ("s1", TOP + PAGE, PAGE)


@pytest.mark.parametrize("upper", ["t", "tc"])
def test_a_table_that_moved_away_below(upper):
    s1, s2 = two(upper, "t")
    read(s1)
    remap(s2, 4 * PAGE, None)  # the page that holds the last table of s1
    answer = read(s1)
    assert (answer.fault, answer.stale[0].layer, answer.stale[0].now) == (None, "s1", None)
    assert read(s1, TOP + PAGE).stale[0].layer == "s2"  # read through what s2 still has
    invalidate(s2, 4 * PAGE, PAGE)
    assert str(read(s1).fault) == (
        "translation fault at 0x4000 in layer 's2', reading a table of 's1' for READ access at 0x7f0000000000"
    )


def test_a_leaf_that_holds_both_tables_and_data_has_two_uses():
    # Old is success, new a fault in s2 while reading s1's table. A stale s1 alone gets as far as the data: a fault of
    # the same layer, and of the same kind, but of another class. Nothing is reached that was reached by neither.
    s1 = stage("s1", (TOP, IPA, PAGE, PAGES), caches="t")
    s2 = stage("s2", (0, HIGH, LARGE, 1))
    connect(s1, s2)
    read(s1)
    s2.layer.table.unmap(0, LARGE)
    stale, new = read(s1).fault, read(s1, uncached=True).fault
    assert (stale.layer, stale.kind) == (new.layer, new.kind)
    assert (stale.fault_class, new.fault_class) == (FaultClass.DATA, FaultClass.WALK)


def test_the_bytes_of_a_table_change_under_the_cache():
    space = PhysSpace("ram")
    ram = SparseRam(space)
    table = RadixTable(MOCK, CountingTables())
    table.map_run(TOP, HIGH, PAGE, 1, RW)
    for page in range(1, 5):
        ram.write(space.at(page * PAGE), table.dump_bytes(page * PAGE))
    s1 = Node(Paged("s1", table), tlb=TranslationCache())
    connect(s1, Node(Memory("ram", ram)))
    assert read(s1).runs[0].output == HIGH
    ram.write(space.at(4 * PAGE), bytes(8))  # a device scribbles over the leaf
    assert read(s1).stale == (Stale("s1", TOP, PAGE, Run(TOP, HIGH, PAGE, PAGE, RW, Attributes.of(RW)), None),)
    invalidate(s1, TOP, PAGE)
    assert str(read(s1).fault) == "translation fault of READ access at 0x7f0000000000 in layer 's1'"


CACHE = st.sampled_from(["", "t", "c", "tc"])
CHANGE = st.tuples(
    st.integers(0, 2),
    st.integers(0, PAGES - 1),
    st.none() | st.integers(0, PAGES - 1),
    st.sampled_from([RW, Prot.READ]),
)
PROBE = st.tuples(
    st.integers(0, PAGES - 1), st.sampled_from([Access.READ, Access.WRITE]), st.sampled_from([None, "nic"])
)


@settings(max_examples=40)
@given(
    st.tuples(CACHE, CACHE, CACHE),
    st.sampled_from([None, 1, 3]),
    st.integers(0, 3),
    st.lists(st.tuples(CHANGE, st.lists(PROBE, max_size=4)), max_size=6),
)
def test_with_invalidation_a_cached_stack_is_an_uncached_one(caches, entries, levels, history):
    s1, s2, s3 = nodes = three(*caches)
    for node in nodes:
        if node.tlb is not None:
            node.tlb = TranslationCache(entries, walk_levels=levels)
    bases = [(s1, TOP, IPA), (s2, IPA, HIGH), (s3, HIGH, END)]
    for (which, page, to, prot), probes in history:
        node, start, target = bases[which]
        remap(node, start + page * PAGE, None if to is None else target + to * PAGE, prot)
        invalidate(node, start + page * PAGE, PAGE)
        for at, wanted, stream in probes:
            cached = access(s1, TOP + at * PAGE, 2 * PAGE, wanted, stream=stream)
            fresh = access(s1, TOP + at * PAGE, 2 * PAGE, wanted, stream=stream, uncached=True)
            assert (said(cached), cached.way) == (said(fresh), fresh.way)
            assert cached.stale == ()
            assert cached.refs <= fresh.refs


@settings(max_examples=40)
@given(st.tuples(CACHE, CACHE, CACHE), st.lists(PROBE, max_size=6), CHANGE, st.lists(PROBE, min_size=1, max_size=6))
def test_one_change_that_nobody_tells(caches, before, change, after):
    s1, s2, s3 = three(*caches)
    for at, wanted, stream in before:
        read(s1, TOP + at * PAGE, wanted, stream=stream)
    old = all_said(s1, uncached=True)
    which, page, to, prot = change
    node, start, target = [(s1, TOP, IPA), (s2, IPA, HIGH), (s3, HIGH, END)][which]
    remap(node, start + page * PAGE, None if to is None else target + to * PAGE, prot)
    new = all_said(s1, uncached=True)
    for at, wanted, stream in after:
        answer = read(s1, TOP + at * PAGE, wanted, stream=stream)
        place = 2 * at + (wanted is Access.WRITE)
        assert said(answer) in (old[place], new[place])
        if said(answer) != new[place]:
            assert answer.stale
    for _ in invalidation(node, start + page * PAGE, PAGE):
        for at, wanted, stream in after:
            place = 2 * at + (wanted is Access.WRITE)
            assert said(read(s1, TOP + at * PAGE, wanted, stream=stream)) in (old[place], new[place])
    assert all_said(s1) == new


# -- stale hits


def test_stale_hits_are_counted_with_their_range():
    s1, s2 = two("c")
    read(s1)
    remap(s2, IPA, HIGH + 5 * PAGE, Prot.READ)
    was = Run(TOP, HIGH, PAGE, PAGE, RW, Attributes.of(RW))
    now = Run(TOP, HIGH + 5 * PAGE, PAGE, PAGE, Prot.READ, Attributes.of(Prot.READ))
    for _ in range(3):
        assert read(s1, TOP + 0x100).stale == (Stale("s1", TOP, PAGE, was, now),)
    assert s1.iotlb.stale == {Stale("s1", TOP, PAGE, was, now): 3}
    assert s1.iotlb.stale_hits == 3
    assert read(s1, wanted=Access.WRITE).fault is None  # and it writes where it may not any more
    invalidate(s2, IPA, PAGE)
    read(s1)
    assert s1.iotlb.stale_hits == 4


def test_a_range_is_cut_to_what_the_tables_say_one_thing_of():
    node = stage("s1", (TOP, LARGE, LARGE, 1), caches="t")
    read(node)
    node.layer.table.unmap(TOP, LARGE)
    node.layer.table.map_run(TOP, LARGE, PAGE, 5, RW)
    node.layer.table.map_run(TOP + 5 * PAGE, HIGH, PAGE, 1, RW)
    assert read(node).stale == ()  # smaller leaves that say the same are no lie
    assert [stale[:3] for stale in read(node, TOP + 5 * PAGE).stale] == [("s1", TOP + 5 * PAGE, PAGE)]
    assert [stale[:3] for stale in read(node, TOP + 6 * PAGE).stale] == [("s1", TOP, LARGE)]


def test_who_is_to_blame_is_part_of_the_truth():
    s1, s2 = two("c")
    remap(s1, TOP, IPA, Prot.READ)
    read(s1)
    remap(s2, IPA, HIGH, Prot.READ)
    assert len(read(s1).stale) == 1
    remap(s1, TOP, IPA, RW)
    assert read(s1, wanted=Access.WRITE).fault.layer == "s1"
    invalidate(s1, TOP, PAGE)
    assert read(s1, wanted=Access.WRITE).fault.layer == "s2"


# -- upper entries of walks that nobody dropped


def test_a_kept_entry_leads_to_a_table_that_was_freed():
    node = stage("s1", (TOP, HIGH, PAGE, 1), caches="t", walk_levels=3)
    read(node)
    remap(node, TOP, None)  # and with it the tables above the leaf
    node.tlb.drop(node, TOP, PAGE)  # drops the entries of the walk too
    assert read(node).stale == ()
    node.layer.table.map_run(TOP, HIGH, PAGE, 1, RW)
    read(node)
    remap(node, TOP, None)
    answer = read(node, TOP + PAGE)  # no line of this page, but the entries above it
    assert str(answer.fault) == "translation fault of READ access at 0x7f0000001000 in layer 's1'"
    assert (answer.refs, answer.stale) == (1, ())


def test_a_kept_entry_leads_to_a_table_of_somebody_else():
    # Why tables are freed only after the flush: the page is another table by now, and its entries are believed.
    node = stage("s1", (TOP, HIGH, PAGE, 1), caches="t", walk_levels=3)
    read(node)
    remap(node, TOP, None)
    node.layer.table.map_run(0, END, PAGE, 2, RW)
    answer = read(node, TOP + PAGE)
    assert answer.runs[0].output == END + PAGE  # never mapped there, neither before nor after
    assert answer.stale[0][:3] == ("s1", TOP + PAGE, PAGE)
    assert answer.stale[0].now is None
    # It left a line outside of what was unmapped: the range to tell is all that the freed table was for.
    invalidate(node, TOP, PAGE)
    assert read(node, TOP + PAGE).stale
    invalidate(node, TOP, LARGE)
    assert read(node, TOP + PAGE).fault is not None


def test_any_invalidation_of_a_place_drops_the_entries_of_its_walks():
    node = stage("s1", (TOP, HIGH, PAGE, 2), (0, END, PAGE, 1), caches="t", walk_levels=3)
    assert [read(node, at).refs for at in (TOP, TOP + PAGE)] == [4, 1]
    invalidate(node, 0, PAGE)
    invalidate(node, TOP + PAGE, PAGE)
    assert [read(node, at).refs for at in (TOP, TOP + PAGE)] == [0, 4]
