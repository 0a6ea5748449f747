"""The account of a run: integrals against a sum over every nanosecond, peaks, and parts that add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.replay.backends import Usage
from swiommu.replay.cause import Cause
from swiommu.replay.ledger import Ledger, Waste

usages = st.builds(Usage, *[st.integers(0, 1 << 40)] * 6)


@given(start=st.integers(0, 20), steps=st.lists(st.tuples(st.integers(0, 60), usages), min_size=1, max_size=12))
def test_means_are_sums_over_every_nanosecond(start, steps):
    """A state holds from the latest moment seen until a later one comes; earlier times change nothing."""
    ledger = Ledger(now=start, start=start)
    at = {}
    now = start
    for time, usage in steps:
        before = ledger.now
        ledger.advance(time, usage)
        assert ledger.now >= before
        for ns in range(now, time):
            at[ns] = usage
        now = max(now, time)
    waste, lendable = ledger.mean()
    if now == start:
        expected = steps[-1][1]
    else:
        expected = [sum(values) // (now - start) for values in zip(*at.values(), strict=True)]
    assert [waste.internal, waste.idle, waste.tables, waste.pool, lendable] == [*expected[:4], expected[5]]
    assert waste.total == sum(expected[:4])


def test_before_anything_happened_nothing_is_wasted():
    assert Ledger(now=5, start=5).mean() == (Waste(0, 0, 0, 0), 0)


def test_peaks_are_of_what_lives_and_kinds_are_kept_apart(make_request):
    ledger = Ledger(now=0, start=0)
    alloc, map_, user = make_request(0, size=10), make_request(1, "MAP", 7), make_request(2, "USERMAP", 5)
    ledger.serve(alloc)
    ledger.serve(map_)
    ledger.release(alloc)
    ledger.serve(make_request(3, size=4))
    ledger.serve(user)
    ledger.release(map_)
    assert (ledger.live_bytes, ledger.peak_live_bytes) == (4, 10)
    assert (ledger.map_bytes, ledger.peak_map_bytes) == (0, 7)  # of MAPs: what user space maps is no driver's
    assert ledger.served_bytes == 26


@pytest.mark.parametrize("censored", [False, True])
def test_a_refusal_is_lost_only_if_the_kernel_served_it(censored, make_request):
    ledger = Ledger(now=0, start=0)
    ledger.refuse(make_request(0, size=10, censored=censored), Cause.MEMORY, with_room=True)
    ledger.refuse(make_request(1, "MAP", 3, censored=censored), Cause.POOL, with_room=False)
    assert dict(ledger.failed) == {"ALLOC": 1, "MAP": 1}
    assert (ledger.failed_bytes, ledger.failed_with_room) == (13, 1)
    assert dict(ledger.lost) == ({} if censored else {"ALLOC": 1, "MAP": 1})
    assert ledger.lost_bytes == (0 if censored else 13)
    assert ledger.failures.counts == {("ALLOC", "memory"): 1, ("MAP", "pool"): 1}
    assert ledger.losses.counts == ({} if censored else ledger.failures.counts)


def test_a_gain_is_no_failure_and_is_not_held(make_request):
    ledger = Ledger(now=0, start=0)
    ledger.gain(make_request(0, size=10, censored=True))
    assert (dict(ledger.gained), ledger.gained_bytes) == ({"ALLOC": 1}, 10)
    assert (ledger.failed.total(), ledger.live_bytes, ledger.served_bytes) == (0, 0, 0)
