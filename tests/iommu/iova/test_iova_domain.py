"""The allocator against drivers/iommu/iova.c as a linked list: two CPUs, tiny magazines, little room."""

import importlib.util
import random
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.errors import InvalidArgument, NoSpace, NotFound
from swiommu.iommu import IovaDomain
from swiommu.profile import DEFAULT_PROFILE, profile_of

_SPEC = importlib.util.spec_from_file_location("iova_twin", Path(__file__).with_name("iova_twin.py"))
iova_twin = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(iova_twin)

LIMIT_32 = 0xFFFFF


class Small(IovaDomain):
    """Magazines that fill up and go to the depot within a few calls."""

    RANGE_CACHE_MAX_SIZE = 3
    profile = attrs.evolve(DEFAULT_PROFILE, iova_magazine=2)

    def __init__(self, *args, **options):
        super().__init__(*args, profile=self.profile, **options)


class OfLinux510(IovaDomain):
    profile = profile_of("5.10")

    def __init__(self, *args, **options):
        super().__init__(*args, profile=self.profile, **options)


class Pair:
    """The same calls to both, the same answers and the same state after each."""

    def __init__(self, *, cpus=2, kind=Small, granule=4096, start_pfn=1):
        self.domain = kind(granule, start_pfn, cpus=cpus)
        self.twin = iova_twin.Twin(
            getattr(kind, "profile", DEFAULT_PROFILE).iova_magazine, kind.RANGE_CACHE_MAX_SIZE, cpus, start_pfn, granule
        )
        self.live = []

    def alloc(self, size, limit, *, flush, cpu):
        try:
            pfn = self.domain.alloc_iova_fast(size, limit, flush_rcache=flush, cpu=cpu)
        except NoSpace:
            pfn = None
        assert pfn == self.twin.alloc_iova_fast(size, limit, flush, cpu)
        if pfn is not None:
            assert pfn + size - 1 <= limit
            self.live.append((pfn, size))

    def slow_alloc(self, size, limit, *, aligned):
        try:
            pfn = self.domain.alloc_iova(size, limit, size_aligned=aligned)
        except NoSpace:
            pfn = None
        assert pfn == self.twin.alloc_iova(size, limit, aligned)
        if pfn is not None:
            self.domain.free_iova(pfn)
            self.twin.free_iova(pfn)

    def free(self, index, *, cpu):
        if self.live:
            pfn, size = self.live.pop(index % len(self.live))
            self.domain.free_iova_fast(pfn, size, cpu=cpu)
            self.twin.free_iova_fast(pfn, size, cpu)

    def check(self):
        self.domain.check()
        assert self.domain.ranges() == self.twin.ranges()
        assert self.domain.cached32_node == self.twin.cached32_node.pfn_lo
        assert self.domain.cached_node == self.twin.cached_node.pfn_lo
        assert self.domain.max32_alloc_size == self.twin.max32_alloc_size
        assert self.domain.stats.visited == self.twin.visited
        for order, rcache in enumerate(self.domain._rcaches):
            held = (rcache.loaded, rcache.prev, rcache.depot)
            assert held == (self.twin.loaded[order], self.twin.prev[order], self.twin.depot[order])


SIZES = st.one_of(st.integers(1, 9), st.integers(1, 70))
LIMITS = st.one_of(st.sampled_from([40, 63, 100, 0xFFFFF, 0x100000, (1 << 24) - 1]), st.integers(0, 200))
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("alloc"), SIZES, LIMITS, st.booleans(), st.integers(0, 1)),
        st.tuples(st.just("free"), st.integers(0, 99), st.integers(0, 1)),
        st.tuples(st.just("slow"), SIZES, LIMITS, st.booleans()),
        st.tuples(st.just("again"), st.integers(0, 99), LIMITS, st.integers(0, 1)),
        st.tuples(st.just("flush")),
    ),
    max_size=60,
)


def run(pair, calls):
    for call in calls:
        match call:
            case ("alloc", size, limit, flush, cpu):
                pair.alloc(size, limit, flush=flush, cpu=cpu)
            case ("free", index, cpu):
                pair.free(index, cpu=cpu)
            case ("slow", size, limit, aligned):
                pair.slow_alloc(size, limit, aligned=aligned)
            case ("again", index, limit, cpu) if pair.live:
                size = pair.live[index % len(pair.live)][1]
                pair.free(index, cpu=cpu)
                pair.alloc(size, limit, flush=True, cpu=cpu)
        pair.check()


@given(CALLS)
def test_every_call_is_answered_as_by_the_linked_list(calls):
    run(Pair(), calls)


@given(CALLS, st.integers(1, 60), st.lists(st.tuples(st.integers(0, 220), st.integers(0, 30)), max_size=5))
def test_reserved_ranges_grow_as_in_the_linked_list(calls, start_pfn, reserved):
    pair = Pair(start_pfn=start_pfn)
    for lo, length in reserved:
        pair.domain.reserve_iova(lo, lo + length)
        pair.twin.reserve_iova(lo, lo + length)
        pair.check()
    run(pair, calls)


@pytest.mark.parametrize("seed", range(4))
def test_a_full_space_with_many_calls(seed):
    randomly = random.Random(seed)
    pair = Pair(granule=1 << 24)  # 256 pages below 4 GiB, so that the cursors and max32_alloc_size matter
    for _ in range(500):
        if randomly.random() < 0.55:
            size, limit = randomly.choice([1, 1, 2, 3, 4, 5, 9, 17, 40]), randomly.choice([255, 255, 127, 300, 511])
            pair.alloc(size, limit, flush=randomly.random() < 0.5, cpu=randomly.randrange(2))
        else:
            pair.free(randomly.randrange(1000), cpu=randomly.randrange(2))
        pair.check()
    assert pair.domain.stats.failed > 10
    assert pair.domain.stats.flushed > 5


@pytest.mark.slow
@settings(max_examples=3000)
@given(CALLS)
def test_every_call_is_answered_as_by_the_linked_list_long(calls):
    run(Pair(), calls)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [IovaDomain, OfLinux510])
@pytest.mark.parametrize("seed", range(5))
def test_real_magazines_under_a_long_churn(seed, kind):
    randomly = random.Random(seed)
    pair = Pair(kind=kind)
    for step in range(6000):
        if randomly.random() < 0.52 - (step % 2000 > 1000) * 0.1:
            size, limit = randomly.choice([1, 1, 1, 2, 3, 4, 16, 32, 33]), randomly.choice([LIMIT_32, (1 << 30) - 1])
            pair.alloc(size, limit, flush=True, cpu=randomly.randrange(2))
        else:
            pair.free(randomly.randrange(1000), cpu=randomly.randrange(2))
        if step % 100 == 0:
            pair.check()


# -- what the kernel's rules lead to


def test_a_hole_above_the_cursor_is_found_only_after_the_walk_fails():
    domain = IovaDomain(1 << 24, 1)  # 256 pages below 4 GiB
    got = [domain.alloc_iova(32, 255) for _ in range(7)]
    assert got == [224, 192, 160, 128, 96, 64, 32]
    domain.free_iova(192)
    assert domain.alloc_iova(1, 255) == 223  # the free moved the cursor up
    assert domain.alloc_iova(16, 255) == 192
    assert domain.alloc_iova(16, 255) == 16
    assert domain.alloc_iova(8, 255) == 8
    assert domain.alloc_iova(8, 255) == 208  # nothing is left below: the second pass looks above
    with pytest.raises(NoSpace) as caught:
        domain.alloc_iova(16, 255)
    assert str(caught.value) == "no 16 free pages at or below pfn 0xff"
    assert (caught.value.size, caught.value.limit, domain.max32_alloc_size) == (16, 255, 16)


def test_a_failed_size_is_refused_at_once_until_something_is_freed():
    domain = IovaDomain(1 << 24, 1)
    pfn = domain.alloc_iova(200, 255, size_aligned=False)
    with pytest.raises(NoSpace):
        domain.alloc_iova(100, 255)
    visited = domain.stats.visited
    with pytest.raises(NoSpace):
        domain.alloc_iova(128, 255)
    assert domain.stats.visited == visited
    domain.free_iova(pfn)
    assert domain.alloc_iova(100, 255) == 128


def test_lowering_a_mask_drags_the_cursor_down():
    domain = IovaDomain()
    assert domain.alloc_iova_fast(1, LIMIT_32, flush_rcache=True) == 0xFFFFF
    assert domain.alloc_iova_fast(1, 0xFF, flush_rcache=True) == 0xFF
    assert domain.alloc_iova_fast(1, LIMIT_32, flush_rcache=True) == 0xFE


def test_a_cached_range_keeps_its_place_until_the_caches_are_flushed():
    domain = IovaDomain(1 << 24, 1)
    taken = [domain.alloc_iova_fast(16, 255, flush_rcache=False) for _ in range(15)]
    for pfn in taken:
        domain.free_iova_fast(pfn, 16)
    with pytest.raises(NoSpace):
        domain.alloc_iova_fast(64, 255, flush_rcache=False)
    assert domain.alloc_iova_fast(64, 255, flush_rcache=True) == 192
    assert domain.stats.flushed == 1


def test_the_depot_is_trimmed_one_magazine_each_100_ms():
    domain = Small()
    got = [domain.alloc_iova_fast(1, LIMIT_32, flush_rcache=True) for _ in range(10)]
    for pfn in got:
        domain.free_iova_fast(pfn, 1)
    depot = domain._rcaches[0].depot
    assert len(depot) == 3
    domain.advance(99_999_999)
    assert len(depot) == 3
    domain.advance(100_000_000)
    assert (len(depot), len(domain.ranges())) == (2, 8)
    domain.advance(1_000_000_000)
    assert (len(depot), len(domain.ranges())) == (1, 6)  # no more than there are CPUs
    domain.advance(0)
    assert domain.now == 1_000_000_000
    domain.check()


def test_copies_go_their_own_ways():
    domain = Small()
    for size in (1, 2, 4, 9):
        domain.free_iova_fast(domain.alloc_iova_fast(size, LIMIT_32, flush_rcache=True), size)
    twin = domain.copy()
    assert twin.decides_like(domain)
    assert isinstance(twin, Small)
    twin.alloc_iova_fast(1, LIMIT_32, flush_rcache=True)
    assert not twin.decides_like(domain)
    assert domain.alloc_iova_fast(1, LIMIT_32, flush_rcache=True)
    assert twin.decides_like(domain)


# -- callers' mistakes


def test_what_is_not_allocated_can_not_be_freed():
    domain = IovaDomain()
    pfn = domain.alloc_iova_fast(4, LIMIT_32, flush_rcache=True)
    domain.free_iova_fast(pfn, 4)
    before = domain.ranges()
    for attempt, text in [
        (lambda: domain.free_iova_fast(pfn, 4), "4 pages at pfn 0xffffc are not allocated"),
        (lambda: domain.free_iova(pfn), "pfn 0xffffc is in a cache, not allocated"),
        (lambda: domain.free_iova(7), "pfn 0x7 is not allocated"),
        (lambda: domain.free_iova_fast(7, 1), "pfn 0x7 is not allocated"),
        (lambda: domain.free_iova((1 << 64) - 1), "pfn 0xffffffffffffffff is not allocated"),
    ]:
        with pytest.raises(NotFound) as caught:
            attempt()
        assert str(caught.value) == text
    assert domain.ranges() == before
    other = domain.alloc_iova_fast(1, LIMIT_32, flush_rcache=True)
    with pytest.raises(NotFound):
        domain.free_iova_fast(other, 8)
    domain.check()


def test_what_can_not_be_asked():
    domain = IovaDomain(cpus=2)
    for attempt, text in [
        (lambda: domain.alloc_iova(0, 5), "no 0 pages up to pfn 0x5 can be meant"),
        (lambda: domain.alloc_iova(1, (1 << 64) - 1), "no 1 pages up to pfn 0xffffffffffffffff can be meant"),
        (lambda: domain.alloc_iova_fast(1, 5, flush_rcache=True, cpu=2), "no CPU 2: there are 2"),
        (lambda: domain.free_iova_fast(1, 1, cpu=-1), "no CPU -1: there are 2"),
        (lambda: domain.reserve_iova(5, 4), "pfn 0x5 to 0x4 is no range that can be reserved"),
        (lambda: IovaDomain(3), "no allocator with granule 3, first pfn 0x1 and 1 CPUs"),
        (lambda: IovaDomain(4096, 0), "no allocator with granule 4096, first pfn 0x0 and 1 CPUs"),
    ]:
        with pytest.raises(InvalidArgument) as caught:
            attempt()
        assert str(caught.value) == text


def test_the_nth_allocation_fails_and_changes_nothing():
    domain = IovaDomain()
    domain.fail_nth(2)
    domain.alloc_iova(1, LIMIT_32)
    before = domain.ranges()
    with pytest.raises(NoSpace) as caught:
        domain.alloc_iova_fast(2, LIMIT_32, flush_rcache=True)
    assert str(caught.value) == "no 2 pages: this call was told to fail"
    assert domain.ranges() == before
    domain.alloc_iova(1, LIMIT_32)


@pytest.mark.parametrize("falsify", ["cursor", "order", "cached", "overfull"])
def test_check_finds_what_is_falsified(falsify):
    domain = Small()
    for _ in range(3):
        pfn = domain.alloc_iova_fast(1, LIMIT_32, flush_rcache=True)
    domain.free_iova_fast(pfn, 1)
    domain.check()
    match falsify:
        case "cursor":
            domain.cached32_node = 5
        case "order":
            domain._keys.reverse()
        case "cached":
            domain._cached.clear()
        case "overfull":
            domain._rcaches[0].loaded[0].extend([1, 2])
    with pytest.raises(AssertionError):
        domain.check()


@pytest.mark.parametrize(("kernel", "size"), [("5.10", 128), ("6.1", 127), ("6.12", 127)])
def test_a_magazine_of_each_kernel_goes_to_the_depot_when_it_is_full(kernel, size):
    domain = IovaDomain(profile=kernel)
    pfns = [domain.alloc_iova_fast(1, LIMIT_32, flush_rcache=True) for _ in range(2 * size + 1)]
    for pfn in pfns[:-1]:
        domain.free_iova_fast(pfn, 1)
    assert [len(rcache.depot) for rcache in domain._rcaches] == [0] * 6
    domain.free_iova_fast(pfns[-1], 1)
    assert [len(magazine) for magazine in domain._rcaches[0].depot] == [size]
