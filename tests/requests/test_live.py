"""Live requests against a list that is searched from its oldest entry on."""

import time

from hypothesis import given
from hypothesis import strategies as st

from swiommu.requests.live import LiveRequests

KEYS, DIRECTIONS, SIZES = st.sampled_from("ab"), st.sampled_from(["TO", "FROM"]), st.sampled_from([0, 512, 4096])
STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "leave", "leave", "oldest"]), KEYS, DIRECTIONS, SIZES), max_size=60
)


class Searched:
    def __init__(self):
        self.live = []

    def enter(self, key, index, direction, size):
        self.live.append((key, index, direction, size))

    def leave(self, key, direction, size):
        own = [one for one in self.live if one[0] == key]
        agreeing = [one for one in own if one[2] == direction and size in {one[3], 0}]
        if not own:
            return None
        ended = (agreeing or own)[0]
        self.live.remove(ended)
        return ended[1]

    def oldest(self, key):
        return next((one[1] for one in self.live if one[0] == key), None)


@given(STEPS)
def test_the_same_as_a_search(steps):
    live, searched = LiveRequests(), Searched()
    for index, (step, key, direction, size) in enumerate(steps):
        if step == "enter":
            live.enter(key, index, direction=direction, size=size)
            searched.enter(key, index, direction, size)
        elif step == "leave":
            assert live.leave(key, direction=direction, size=size) == searched.leave(key, direction, size)
        else:
            assert live.oldest(key) == searched.oldest(key)


def test_a_hundred_thousand_under_one_key_take_no_longer_each():
    live, begin = LiveRequests(), time.process_time()
    for index in range(100_000):
        live.enter("same", index, direction="FROM", size=4096)
    assert [live.leave("same", direction="TO", size=4096) for _ in range(100_000)] == list(range(100_000))
    assert live.leave("same", direction="TO", size=4096) is None
    assert time.process_time() - begin < 10  # minutes, were it searched
