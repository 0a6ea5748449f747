"""Two orders brought together: a bad record costs one decision, and two lines of execution may overtake one another."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.verify.emulated.order import align

ITEMS = [random.Random(n).randrange(60) for n in range(300)]


def faults(order, expected, recorded):
    wrong = sum(place is None or expected[place] != key for place, key in zip(order.pairs, recorded, strict=True))
    return wrong + len(order.missing)


def test_the_same():
    order = align(ITEMS, ITEMS)
    assert (order.pairs, order.end, order.swapped, order.missing) == (list(range(300)), 300, set(), [])


@given(st.lists(st.integers(0, 9), unique=True, min_size=1, max_size=4), st.sampled_from(["other", "none", "twice"]))
def test_every_fault_costs_one(tens, fault):
    recorded = list(ITEMS)
    for place in sorted((30 * ten + 7 for ten in tens), reverse=True):
        recorded[place : place + 1] = {"other": ["X"], "none": [], "twice": ["X", recorded[place]]}[fault]
    order = align(ITEMS, recorded)
    assert faults(order, ITEMS, recorded) == len(tens)
    assert order.end == 300


@pytest.mark.parametrize("cut", [1, 50, 290])
def test_parts(cut):
    assert align(ITEMS, ITEMS[:cut]).end == cut
    behind = align(ITEMS[cut:], ITEMS)
    assert (behind.before, behind.pairs[cut:]) == (cut, list(range(300 - cut)))
    within = align(ITEMS, ITEMS[cut:], whole=False)
    assert (within.first, within.ambiguous) == (cut, False)
    assert align([1] * 300, [1] * (300 - cut), whole=False).ambiguous


@given(st.integers(10, 280), st.integers(1, 100))
def test_a_line_of_execution_that_stalls(place, delay):
    expected = list(range(300))
    contexts = [int(item == place) for item in expected]
    recorded = [item for item in expected if item != place]
    recorded.insert(place + delay, place)
    order = align(expected, recorded, contexts)
    assert faults(order, expected, recorded) == 0
    assert [order.pairs[came] for came in sorted(order.swapped)][-1:] in ([place], [])


def test_nothing_in_common_ends_soon():
    order = align(list(range(3000)), [-1] * 3000)
    assert faults(order, list(range(3000)), [-1] * 3000) >= 3000
