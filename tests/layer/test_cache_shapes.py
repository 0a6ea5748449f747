"""Sets, ways, policies, kept entries of walks by level: the knobs, held against caches written the long way."""

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import Access, Prot
from swiommu.errors import InvalidArgument
from swiommu.layer import CacheShape, HopKind, Node, Paged, TranslationCache, access, connect, invalidate
from swiommu.layer.base import Extent
from swiommu.layer.cache.sets import Sets
from swiommu.layer.cache.store import Tag
from swiommu.pagetable import MOCK, CountingTables, RadixTable

RW = Prot.READ | Prot.WRITE
PAGE, LARGE = 0x1000, 0x20_0000


def node(name="s1", maps=((0, 0x100_0000, PAGE, 64),), **options):
    table = RadixTable(MOCK, CountingTables())
    for iova, paddr, pgsize, pages in maps:
        table.map_run(iova, paddr, pgsize, pages, RW)
    return Node(Paged(name, table), **options)


def read(path, at, **options):
    return access(path, at, 4, Access.READ, **options)


# -- twins


class SetTwin:
    """Every set a list of (key, last use, first use, place); who goes is looked for, not kept in order."""

    def __init__(self, shape):
        self.shape, self.clock, self.sets = shape, count(), {}

    def get(self, number, key):
        held = self.sets.setdefault(number % self.shape.sets, {})
        if key in held:
            held[key]["used"] = next(self.clock)
        return key in held

    def put(self, number, key):
        held = self.sets.setdefault(number % self.shape.sets, {})
        gone = None
        if len(held) == self.shape.places and key not in held:
            gone = self.victim(held)
            del held[gone]
        place = min(set(range(len(held) + 1)) - {each["place"] for each in held.values()})
        now = next(self.clock)
        held[key] = {"used": now, "filled": now, "place": place}
        return gone

    def victim(self, held):
        if self.shape.policy == "plru":
            return self.coldest(sorted(held, key=lambda key: held[key]["place"]), held)
        by = {"lru": "used", "fifo": "filled"}[self.shape.policy]
        return min(held, key=lambda key: held[key][by])

    def coldest(self, keys, held):
        # The half that was not used last, and in it again.
        if len(keys) == 1:
            return keys[0]
        half = len(keys) // 2
        low, high = (max(held[key]["used"] for key in part) for part in (keys[:half], keys[half:]))
        return self.coldest(keys[:half] if low < high else keys[half:], held)


SHAPES = [
    CacheShape(4),
    CacheShape(4, 1),
    CacheShape(6, 2, "fifo"),
    CacheShape(5, None, "fifo"),
    CacheShape(8, 4, "lru"),
]
TREES = [CacheShape(4, None, "plru"), CacheShape(16, 8, "plru"), CacheShape(6, 2, "plru"), CacheShape(3, 1, "plru")]


@given(
    st.sampled_from(SHAPES + TREES),
    st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=120),
)
def test_sets_do_as_their_twin(shape, steps):
    sets, twin, gone, apart = Sets(shape), SetTwin(shape), 0, 0
    for fill, number in steps:
        assert (sets.peek(number, number) is not None) == (number in twin.sets.get(number % shape.sets, {}))
        found = sets.get(number, number) is not None
        assert found == twin.get(number, number)
        if fill and not found:
            full = len(sets) == shape.entries
            victim = sets.put(number, number, (number,))
            wanted = twin.put(number, number)
            assert victim == (None if wanted is None else (wanted,))
            gone += wanted is not None
            apart += wanted is not None and not full
    assert {key for held in twin.sets.values() for key in held} == {key for (key,) in sets}
    assert (sets.conflicts, sets.overflows) == (apart, gone - apart)


class CacheTwin:
    """A set-associative cache of blocks of several sizes, as lists; the smallest block is asked first."""

    def __init__(self, shape):
        self.shape, self.sets = shape, [[] for _ in range(shape.sets)]
        self.hits = self.misses = 0

    def set_of(self, block, at):
        return self.sets[at // block % self.shape.sets]

    def find(self, at, blocks):
        for block in blocks:
            line = (block, at // block * block)
            if line in self.set_of(block, at):
                if self.shape.policy == "lru":
                    self.set_of(block, at).remove(line)
                    self.set_of(block, at).append(line)
                self.hits += 1
                return line
        self.misses += 1
        return None

    def keep(self, block, at):
        held = self.set_of(block, at)
        held.append((block, at // block * block))
        if self.shape.places is not None and len(held) > self.shape.places:
            held.pop(0)

    def drop(self, start, size):
        for held in self.sets:
            held[:] = [(block, at) for block, at in held if at + block <= start or at >= start + size]


BLOCKS = (PAGE, 4 * PAGE, 16 * PAGE)


@given(
    st.sampled_from([CacheShape(), *SHAPES, CacheShape(1), CacheShape(4, 4, "fifo")]),
    st.lists(
        st.tuples(
            st.sampled_from(["read", "read", "read", "drop", "peek"]), st.integers(0, 47), st.sampled_from(BLOCKS)
        ),
        max_size=100,
    ),
)
def test_lines_do_as_their_twin(shape, steps):
    cache, twin, holder = (
        TranslationCache(shape.entries, ways=shape.ways, policy=shape.policy),
        CacheTwin(shape),
        node(),
    )
    tag = Tag(holder, False, None, ())
    for what, page, block in steps:
        at = page * PAGE + 8
        if what == "drop":
            cache.drop(holder, page * PAGE, block)
            twin.drop(page * PAGE, block)
        elif what == "peek":
            before = [*cache], cache.hits, cache.misses
            line = cache.peek(holder, at)
            wanted = next((b for b in BLOCKS if (b, at // b * b) in twin.set_of(b, at)), None)
            assert (None if line is None else line.block) == wanted
            assert ([*cache], cache.hits, cache.misses) == before
        else:
            line, wanted = cache.find(tag, at), twin.find(at, BLOCKS)
            assert (None if line is None else (line.block, line.at)) == wanted
            if line is None:
                extent = Extent(at & -block, 0, block, block, RW)
                cache.keep(tag, at, extent, extent)
                twin.keep(block, at)
    assert sorted((line.block, line.at) for line in cache) == sorted(each for held in twin.sets for each in held)
    assert (cache.hits, cache.misses) == (twin.hits, twin.misses)


# -- a hit is what a walk would answer


SHAPE = st.sampled_from(
    [
        None,
        CacheShape(),
        CacheShape(1),
        CacheShape(4, 2),
        CacheShape(4, 2, "fifo"),
        CacheShape(4, 4, "plru"),
        CacheShape(2, 1, "random", 7),
    ]
)


def cache_of(shape, levels):
    if shape is None:
        return None
    walk = [CacheShape(2, 1), CacheShape(4, 2, "fifo"), CacheShape(4, None, "plru")][:levels]
    return TranslationCache(shape.entries, ways=shape.ways, policy=shape.policy, seed=shape.seed, walk=walk)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(SHAPE, SHAPE, st.integers(0, 3)), min_size=2, max_size=2),
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 24),
            st.integers(1, 2 * PAGE),
            st.sampled_from([Access.READ, Access.WRITE]),
        ),
        max_size=25,
    ),
)
def test_a_hit_is_a_walk_in_every_field(caches, steps):
    upper = node("s1", ((0, 0x20_0000, PAGE, 8), (LARGE, 0x40_0000, LARGE, 1), (2 * LARGE, 0x20_0000, PAGE, 8)))
    lower = node("s2", ((0, 0x8000_0000, PAGE, 64), (0x20_0000, 0xA000_0000, PAGE, 512), (0x40_0000, 0, LARGE, 1)))
    connect(upper, lower)
    for each, (own, whole, levels) in zip((upper, lower), caches, strict=True):
        each.tlb, each.iotlb = cache_of(own, levels), cache_of(whole, 0)
    asked = {"s1": 0, "s2": 0}
    for change, page, size, wanted in steps:
        at = page // 8 * LARGE + page % 8 * PAGE + (size & 0xFF0)
        if change and page < 8:
            upper.layer.table.unmap(page * PAGE, PAGE)
            upper.layer.table.map_run(page * PAGE, 0x20_0000 + (page ^ 1) * PAGE, PAGE, 1, Prot.READ)
            invalidate(upper, page * PAGE, PAGE, leaf=True)  # no table came or went
        cached = access(upper, at, size, wanted, watched=True)
        fresh = access(upper, at, size, wanted, uncached=True)
        assert (cached.runs, cached.fault, cached.stale) == (fresh.runs, fresh.fault, ())
        assert cached.refs <= fresh.refs
        for hop in cached.hops:
            asked[hop.layer] += hop.kind is HopKind.ENTER
    for each in (upper, lower):
        for level in each.tlb.walks if each.tlb is not None else ():
            assert level.hits + level.misses == each.tlb.misses  # each walk asks each level, each miss is a walk
        if each.tlb is not None and each.iotlb is None and (upper.iotlb is None or each is lower):
            assert each.tlb.hits + each.tlb.misses == asked[each.name]
        if each is upper and each.iotlb is not None:
            assert each.iotlb.hits + each.iotlb.misses == asked["s1"]


# -- what the knobs do


def test_pages_far_apart_meet_in_one_set():
    direct = node(maps=((0, 0, PAGE, 64),), tlb=TranslationCache(4, ways=1))
    assert [read(direct, page * PAGE).refs for page in (0, 4, 0, 4, 1, 0)] == [4, 4, 4, 4, 4, 4]
    assert (len(direct.tlb), direct.tlb.conflicts, direct.tlb.overflows) == (2, 4, 0)
    whole = node(maps=((0, 0, PAGE, 64),), tlb=TranslationCache(4))
    assert [read(whole, page * PAGE).refs for page in (0, 4, 0, 4, 1, 0)] == [4, 4, 0, 0, 4, 0]
    assert (whole.tlb.conflicts, whole.tlb.overflows) == (0, 0)


def test_large_pages_have_sets_by_their_own_number():
    direct = node(maps=((0, 0, LARGE, 4),), tlb=TranslationCache(4, ways=1))
    assert [read(direct, at * LARGE).refs for at in (0, 1, 2, 3, 0, 1, 2, 3)] == [3, 3, 3, 3, 0, 0, 0, 0]


def test_first_in_first_out_forgets_what_is_in_use():
    fifo = node(tlb=TranslationCache(2, policy="fifo"))
    assert [read(fifo, page * PAGE).refs for page in (0, 1, 0, 2, 0)] == [4, 4, 0, 4, 4]


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_makes_chance_repeatable(seed):
    runs = []
    for _ in range(2):
        chance = node(tlb=TranslationCache(4, policy="random", seed=seed))
        runs.append([read(chance, page * 5 % 16 * PAGE).refs for page in range(200)])
    assert runs[0] == runs[1]
    assert 0 < runs[0].count(0) < 200


def test_lines_say_the_page_of_every_stage():
    upper, lower = node("s1", ((0, 0x40_0000, PAGE, 4),)), node("s2", ((0, 0, LARGE, 4),))
    connect(upper, lower)
    upper.iotlb, lower.tlb = TranslationCache(), TranslationCache()
    read(upper, PAGE)
    assert [(line.block, line.stages) for line in upper.iotlb] == [(PAGE, (("s1", PAGE), ("s2", LARGE)))]
    assert upper.iotlb.peek(upper, PAGE + 8).stages == (("s1", PAGE), ("s2", LARGE))
    assert {line.stages for line in lower.tlb} == {(("s2", LARGE),)}
    assert (upper.iotlb.hits, upper.iotlb.misses) == (0, 1)


def test_a_peek_is_no_use():
    one = node(tlb=TranslationCache(2))
    for page in (0, 1):
        read(one, page * PAGE)
    assert one.tlb.peek(one, 8).start == 0
    assert [line.start for line in one.tlb] == [0, PAGE]  # the order in which they go


def test_a_peek_is_for_one_stream():
    one = node(tlb=TranslationCache())
    read(one, 0, stream="nic")
    assert one.tlb.peek(one, 0) is None
    assert one.tlb.peek(one, 8, stream="nic").start == 0
    assert one.tlb.peek(one, PAGE, stream="nic") is None


def test_a_walk_goes_on_from_the_deepest_entry_kept():
    maps = ((0, 0, PAGE, 2), (LARGE, 0, PAGE, 1), (1 << 30, 0, PAGE, 1))
    walks = [CacheShape(1), CacheShape(1), CacheShape(1)]
    one = node(maps=maps, tlb=TranslationCache(walk=walks))
    assert [read(one, at).refs for at in (0, PAGE, LARGE, 1 << 30)] == [4, 1, 2, 3]
    assert [(level.hits, level.misses) for level in one.tlb.walks] == [(3, 1), (2, 2), (1, 3)]
    # The entry of the middle level alone is enough: what is above it need not be kept.
    deep = node(maps=maps, tlb=TranslationCache(walk=[CacheShape(1), CacheShape(2), CacheShape(2, 1)]))
    read(deep, 0)
    deep.tlb.walks[0].drop(lambda tag: True)
    assert read(deep, LARGE).refs == 2
    assert [(level.hits, level.misses) for level in deep.tlb.walks] == [(0, 2), (1, 1), (0, 2)]


def test_leaf_only_keeps_the_upper_entries():
    one = node(tlb=TranslationCache(walk_levels=3))
    for leaf, refs in ((True, 1), (False, 4)):
        read(one, 0)
        invalidate(one, 0, PAGE, leaf=leaf)
        assert read(one, 0).refs == refs


def test_a_layer_that_tells_no_levels_has_no_entries_kept(monkeypatch):
    monkeypatch.setattr(Paged, "levels", lambda self: ())
    one = node(tlb=TranslationCache(walk_levels=3))
    assert [read(one, page * PAGE).refs for page in (0, 1)] == [4, 4]


# -- refusals


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"entries": 0}, "entries is 0, not a whole number from 1 on"),
        ({"entries": True}, "entries is True, not a whole number from 1 on"),
        ({"entries": 8, "ways": 0}, "ways is 0, not a whole number from 1 on"),
        ({"entries": 8, "ways": 3}, "a cache of 8 entries can't have sets of 3 ways"),
        ({"ways": 2}, "a cache of all entries can't have sets of 2 ways"),
        ({"policy": "mru"}, "policy is 'mru'; did you mean 'lru'?"),
        ({"seed": -1}, "seed is -1, not a whole number from 0 on"),
        ({"policy": "plru"}, "policy plru needs ways that are a power of two, not any number"),
        ({"entries": 12, "policy": "plru"}, "policy plru needs ways that are a power of two, not 12"),
    ],
)
def test_shapes_that_can_not_be(options, text):
    for make in (CacheShape, TranslationCache):
        entries = options.get("entries")
        rest = {key: value for key, value in options.items() if key != "entries"}
        with pytest.raises(InvalidArgument) as caught:
            make(entries, **rest)
        assert str(caught.value) == text


def test_levels_are_counted_or_described():
    with pytest.raises(InvalidArgument) as caught:
        TranslationCache(walk_levels=1, walk=[CacheShape()])
    assert str(caught.value) == "levels of a walk are either counted or described, not both"


def test_a_shape_stands_for_its_knobs():
    shape = CacheShape(8, ways=2, policy="fifo")
    cache = TranslationCache(shape, walk_levels=1)
    assert (cache.shape, cache.entries, cache.walks[0].shape) == (shape, 8, CacheShape(8))
    with pytest.raises(InvalidArgument) as caught:
        TranslationCache(shape, ways=4)
    assert str(caught.value) == "the shape of a cache, 8 entries, 2 ways, fifo, says its ways, policy and seed itself"
