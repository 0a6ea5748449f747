from hypothesis import given
from hypothesis import strategies as st

from swiommu.region.by_size import BySize


def first_in(keys, size, align):
    skipped = 0
    for key in sorted(keys):
        if key[0] >= size:
            place = -(-key[2] // align) * align
            if place + size <= key[2] + key[0]:
                return key, place, skipped
            skipped += 1
    return None, 0, skipped


steps = st.lists(
    st.tuples(
        st.booleans(), st.integers(1, 12), st.integers(0, 63), st.integers(1, 12), st.sampled_from([1, 2, 4, 8, 16])
    ),
    max_size=60,
)


@given(steps, st.integers(2, 5))
def test_the_first_that_serves_is_that_of_a_plain_walk(operations, bucket):
    order, keys, sequence = BySize(bucket=bucket), [], 0
    for add, size, start, wanted, align in operations:
        if add or not keys:
            sequence += 1
            keys.append((size, -sequence, start))
            order.add(keys[-1])
        else:
            order.remove(keys.pop(start % len(keys)))
        # Twice: the second is answered from what the first has left behind.
        assert order.first(wanted, align) == order.first(wanted, align) == first_in(keys, wanted, align)
        order.check()
        assert (list(order), order.number) == (sorted(keys), len(keys))
        assert order.largest == max([key[0] for key in keys], default=0)
        twin = order.copy()
        assert twin.first(wanted, align) == order.first(wanted, align)


def test_holes_that_do_not_serve_are_walked_once():
    order = BySize()
    for number in range(20_000):
        order.add((16, -number, 64 * number + 1))
    assert order.first(16, 16) == (None, 0, 20_000)
    walked = [
        key for bucket, refused in zip(order._buckets, order._refused, strict=True) if not refused for key in bucket
    ]
    assert walked == []
    order.add((16, 1, 64))
    assert order.first(16, 16) == ((16, 1, 64), 64, 20_000)
