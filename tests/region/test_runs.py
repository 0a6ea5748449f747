import random
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from swiommu.region import runs as module
from swiommu.region.runs import FreeRuns

BITS = 48


def runs_of(clear):
    """Runs of True, the long way."""
    found, start = [], None
    for bit, is_clear in enumerate([*clear, False]):
        if is_clear and start is None:
            start = bit
        if not is_clear and start is not None:
            found.append((start, bit - start))
            start = None
    return found


def find_in(clear, need, step, offset, start):
    for bit in range(start, len(clear) - need + 1):
        if (bit + offset) % step == 0 and all(clear[bit : bit + need]):
            return bit
    return None


ranges = st.tuples(st.integers(0, BITS - 1), st.integers(1, 12)).filter(lambda pair: sum(pair) <= BITS)
searches = st.tuples(
    st.integers(1, 12), st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 15), st.integers(0, BITS + 2)
)


@mock.patch.object(module, "_GROUP", 2)
@given(st.lists(st.tuples(st.booleans(), ranges, searches), max_size=40), st.integers(2, 5))
def test_runs_answer_like_a_list_of_bits(operations, bucket):
    runs, clear = FreeRuns(BITS, bucket=bucket), [True] * BITS
    for give, (bit, length), (need, step, offset, start) in operations:
        here = clear[bit : bit + length]
        assert runs.any_clear(bit, length) is any(here)
        if give:
            assert runs.give(bit, length) == here.count(False)
            clear[bit : bit + length] = [True] * length
        else:
            assert runs.take(bit, length) is all(here)
            if all(here):
                clear[bit : bit + length] = [False] * length
        runs.check()
        assert runs.runs() == runs_of(clear)
        assert runs.total == sum(clear)
        assert runs.longest == max((length for _, length in runs_of(clear)), default=0)
        found = runs.find(need, step=step, offset=offset % step, start=start)
        assert found == find_in(clear, need, step, offset % step, start)


def test_a_bitmap_without_bits_holds_nothing():
    runs = FreeRuns(0)
    runs.check()
    assert (runs.find(1, step=1, offset=0, start=0), runs.runs(), runs.longest) == (None, [], 0)
    assert not runs.take(0, 1)
    assert not runs.any_clear(0, 1)


@mock.patch.object(module, "_GROUP", 2)
def test_many_buckets_in_many_groups_stay_sound():
    chance, count = random.Random(7), 400
    runs, clear = FreeRuns(count, bucket=3), [True] * count
    for _ in range(1500):
        length = chance.choice([1, 1, 1, 2, 6])
        bit = chance.randrange(count - length + 1)
        if chance.random() < 0.5:
            runs.give(bit, length)
            clear[bit : bit + length] = [True] * length
        elif runs.take(bit, length):
            clear[bit : bit + length] = [False] * length
        need, start = chance.randint(1, 9), chance.randrange(count)
        assert runs.find(need, step=2, offset=1, start=start) == find_in(clear, need, 2, 1, start)
        runs.check()
