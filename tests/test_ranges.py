import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import AddressInUse
from swiommu.ranges import RangeSet

SPAN = st.tuples(st.integers(0, 30), st.integers(1, 8)).map(lambda t: (t[0], t[0] + t[1]))
OPS = st.lists(st.tuples(st.sampled_from(["add", "cut", "clear"]), SPAN), max_size=40)


@given(OPS)
def test_equals_a_set_of_numbers(ops):
    ranges, twin = RangeSet(), set()
    for op, (start, stop) in ops:
        wanted = set(range(start, stop))
        if op == "add":
            try:
                ranges.add(start, stop)
            except AddressInUse:
                assert wanted & twin
            else:
                assert not wanted & twin
                twin |= wanted
        elif op == "cut":
            gone = {n for piece in ranges.cut(start, stop) for n in range(*piece)}
            first_hole = next((n for n in range(start, stop) if n not in twin), stop)
            assert gone == set(range(start, first_hole))
            twin -= gone
        else:
            ranges.clear(start, stop)
            twin -= wanted
        ranges.check()
        assert {n for piece in ranges for n in range(*piece)} == twin
        assert {n for piece in ranges.gaps(0, 40) for n in range(*piece)} == set(range(40)) - twin
        for n in range(40):
            held = ranges.at(n)
            assert (held is not None) == (n in twin)
            assert held is None or held[0] <= n < held[1]
        low = min(wanted & twin, default=None)
        held = ranges.first_over(start, stop)
        assert (held is None) == (low is None)
        assert held is None or (max(held[0], start) == low and held == ranges.at(low))


def test_ranges_that_touch_stay_apart():
    ranges = RangeSet()
    ranges.add(4, 8)
    ranges.add(8, 9)
    assert (list(ranges), len(ranges)) == ([(4, 8), (8, 9)], 2)
    ranges.remove(4)
    assert list(ranges) == [(8, 9)]
    with pytest.raises(KeyError):
        ranges.remove(4)


def test_the_sentence():
    ranges = RangeSet()
    ranges.add(0x1000, 0x3000)
    with pytest.raises(AddressInUse) as caught:
        ranges.add(0x2000, 0x4000)
    assert str(caught.value) == "[0x2000, 0x4000) overlaps [0x1000, 0x3000), which is in use"


@pytest.mark.parametrize(
    "falsify", [lambda r: r._starts.reverse(), lambda r: r._stops.update({4: 99}), lambda r: r._stops.pop(4)]
)
def test_check_finds_what_is_falsified(falsify):
    ranges = RangeSet()
    ranges.add(4, 8)
    ranges.add(20, 30)
    ranges.check()
    falsify(ranges)
    with pytest.raises(AssertionError):
        ranges.check()
