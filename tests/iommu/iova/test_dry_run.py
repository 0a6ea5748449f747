"""Whatever an allocator of bus addresses does in a dry run, afterwards it is as a copy made before."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.errors import AddressInUse, InvalidArgument, NoSpace, NotFound
from swiommu.iommu import IovaDomain, LinuxIova, TopDownIova

PAGE = 4096


class Small(IovaDomain):
    """Magazines that fill up and go to the depot within a few calls."""

    MAG_SIZE = 2
    RANGE_CACHE_MAX_SIZE = 3


def act(domain, live, step):
    what, number, size, cpu = step
    try:
        if what in {"alloc", "low"}:
            limit = 60 if what == "low" else 400
            live.append((domain.alloc_iova_fast(size, limit, flush_rcache=number % 2 == 0, cpu=cpu), size))
        elif what == "free" and live:
            domain.free_iova_fast(*live.pop(number % len(live)), cpu=cpu)
        elif what == "tree":
            live.append((domain.alloc_iova(size, 300, size_aligned=number % 2 == 0), size))
        elif what == "reserve":
            domain.reserve_iova(number, number + size)
        elif what == "advance":
            domain.advance(domain.now + number * 10_000_000)
        elif what == "flush":
            domain.flush_rcaches()
    except (NoSpace, NotFound, InvalidArgument):
        pass


ACTS = st.sampled_from(["alloc", "alloc", "low", "free", "free", "tree", "reserve", "advance", "flush"])
STEPS = st.lists(st.tuples(ACTS, st.integers(0, 400), st.integers(1, 9), st.integers(0, 1)), max_size=60)


@given(before=STEPS, tried=STEPS, after=STEPS)
@settings(max_examples=150)
def test_the_kernels_allocator(before, tried, after):
    domain, live = Small(cpus=2), []
    for step in before:
        act(domain, live, step)
    twin = domain.copy()
    stats = domain.stats
    with domain.dry_run():
        for step in tried:
            act(domain, live.copy(), step)
    domain.check()
    assert domain.decides_like(twin)
    assert (domain._cached, domain._depot_due, domain.now) == (twin._cached, twin._depot_due, twin.now)
    assert domain.stats is stats
    assert domain.stats == twin.stats
    twins = live.copy()
    for step in after:
        act(domain, live, step)
        act(twin, twins, step)
    assert live == twins
    assert domain.decides_like(twin)


def test_a_dry_run_within_another():
    domain = Small()
    taken = domain.alloc_iova_fast(1, 400, flush_rcache=True)
    twin = domain.copy()
    with domain.dry_run():
        domain.free_iova_fast(taken, 1)
        with domain.dry_run():
            domain.alloc_iova_fast(4, 400, flush_rcache=True)
        domain.alloc_iova_fast(2, 400, flush_rcache=True)
    assert domain.decides_like(twin)


@pytest.mark.parametrize("stop", [KeyError, KeyboardInterrupt])
def test_it_is_undone_whatever_is_raised_inside(stop):
    domain = Small()

    def tried():
        with domain.dry_run():
            domain.alloc_iova_fast(1, 400, flush_rcache=True)
            raise stop

    with pytest.raises(stop):
        tried()
    assert domain.ranges() == []


def test_the_policy_of_linux():
    """A device that fails below 4 GiB in a dry run has its attempts there still before it."""
    iova = LinuxIova(IovaDomain(start_pfn=(1 << 20) - 4))
    iova.device = "nic"
    full = [iova.alloc(PAGE, (1 << 48) - 1) for _ in range(4)]
    before = attrs.asdict(iova.allocator.stats)
    with iova.dry_run():
        iova.device = "nvme"
        high = iova.alloc(PAGE, (1 << 48) - 1)
        assert high > 1 << 32
        iova.free(high, PAGE)
        assert iova.uses_full_range
        iova.fail_nth(1)
    iova.check()
    assert (iova.device, attrs.asdict(iova.allocator.stats)) == ("nic", before)
    iova.free(full[0], PAGE)
    assert iova.alloc(PAGE, (1 << 48) - 1) == full[0]
    iova.device = "nvme"
    assert not iova.uses_full_range


def test_the_simple_policy():
    iova = TopDownIova()
    taken = iova.alloc(3 * PAGE, 0xFFFF_FFFF)
    runs = list(iova._space)
    with iova.dry_run():
        iova.cpu = 3
        iova.free(iova.alloc(PAGE, 0xFFFF_FFFF), PAGE)
        with pytest.raises(AddressInUse):
            iova.take(taken, PAGE)
        iova.fail_nth(1)
    assert (list(iova._space), iova.cpu) == (runs, 0)
    iova.alloc(PAGE, 0xFFFF_FFFF)
