"""Frames against a plain dict (pfn -> state) that looks for its blocks by trying all of them."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from swiommu.address import PhysSpace
from swiommu.errors import AddressInUse, Busy, NoMemory, NotFound, OutOfRange
from swiommu.memory import Frames, FrameState

counts = st.integers(1, 24)
positions = st.integers(-2, 72)
orders = st.integers(0, 5)


class FramesMachine(RuleBasedStateMachine):
    @initialize(start=st.integers(0, 20), count=st.integers(1, 70), max_order=st.integers(0, 5))
    def begin(self, start, count, max_order):
        self.start, self.count, self.max_order = start, count, max_order
        self.frames = Frames(PhysSpace("ram").at(start * 4096), count * 4096, max_order=max_order)
        self.twin = dict.fromkeys(range(start, start + count), FrameState.FREE)
        self.fail_in = 0

    # The twin's own search, by the definition of a buddy system.
    def whole(self, start, order):
        return all(self.twin.get(pfn) == FrameState.FREE for pfn in range(start, start + (1 << order)))

    def lowest(self, order):
        for size in range(order, self.max_order + 1):
            for start in range(0, self.start + self.count, 1 << size):
                parent = start & -(2 << size)
                in_larger = size < self.max_order and self.whole(parent, size + 1)
                if self.whole(start, size) and not in_larger:
                    return start
        return None

    def fails_on_purpose(self):
        self.fail_in = max(self.fail_in - 1, -1)
        return self.fail_in == 0

    def pfns(self, pfn, count):
        return range(pfn, pfn + count)

    @rule(order=orders)
    def take(self, order):
        expected = None if self.fails_on_purpose() else self.lowest(order)
        if expected is None:
            with pytest.raises(NoMemory):
                self.frames.take(order)
        else:
            assert self.frames.take(order) == expected
            self.twin.update(dict.fromkeys(self.pfns(expected, 1 << order), FrameState.TAKEN))

    @rule(n=counts, wanted=st.lists(orders, min_size=1, max_size=3))
    def take_largest_first(self, n, wanted):
        before, pfns = dict(self.twin), []
        failed = self.fails_on_purpose()
        for order in sorted(wanted, reverse=True):
            while n - len(pfns) >= 1 << order and (start := self.lowest(order)) is not None:
                taken = self.pfns(start, 1 << order)
                pfns += taken
                self.twin.update(dict.fromkeys(taken, FrameState.TAKEN))
        if failed or len(pfns) < n:
            self.twin = before
            with pytest.raises(NoMemory):
                self.frames.take_largest_first(n, wanted)
        else:
            runs = self.frames.take_largest_first(n, wanted)
            assert [pfn for run in runs for pfn in self.pfns(*run)] == pfns

    @rule(n=counts)
    def take_pages(self, n):
        free = sorted(pfn for pfn, state in self.twin.items() if state == FrameState.FREE)
        if self.fails_on_purpose() or n > len(free):
            with pytest.raises(NoMemory):
                self.frames.take_pages(n)
            return
        pfns = []
        for _ in range(n):
            pfns.append(self.lowest(0))
            self.twin[pfns[-1]] = FrameState.TAKEN
        runs = self.frames.take_pages(n)
        assert [pfn for run in runs for pfn in self.pfns(*run)] == pfns

    @rule(at=positions, count=counts)
    def give(self, at, count):
        pfn = self.start + at
        states = [self.twin.get(frame, FrameState.FREE) for frame in self.pfns(pfn, count)]
        if FrameState.FREE in states or FrameState.PINNED in states:
            with pytest.raises(NotFound if FrameState.FREE in states else Busy):
                self.frames.give(pfn, count)
        else:
            self.frames.give(pfn, count)
            self.twin.update(dict.fromkeys(self.pfns(pfn, count), FrameState.FREE))

    @rule(data=st.data())
    def give_a_taken_run(self, data):
        taken = [pfn for pfn, state in self.twin.items() if state in {FrameState.TAKEN, FrameState.MOVABLE}]
        if taken:
            pfn = end = data.draw(st.sampled_from(taken))
            while end in taken:
                end += 1
            self.give(pfn - self.start, end - pfn)

    @rule(at=positions, count=counts)
    def occupy(self, at, count):
        pfn = self.start + at
        states = [self.twin.get(frame) for frame in self.pfns(pfn, count)]
        if set(states) == {FrameState.FREE}:
            self.frames.occupy(pfn, count)
            self.twin.update(dict.fromkeys(self.pfns(pfn, count), FrameState.TAKEN))
        else:
            with pytest.raises(OutOfRange if None in states else AddressInUse):
                self.frames.occupy(pfn, count)

    @rule(data=st.data())
    def occupy_each(self, data):
        free = [pfn for pfn, state in self.twin.items() if state is FrameState.FREE]
        pfns = data.draw(st.lists(st.sampled_from(free), unique=True)) if free else []
        if data.draw(st.integers(0, 7)) == 0:
            pfns.append(data.draw(st.integers(self.start - 1, self.start + self.count)))
        states = [self.twin.get(pfn) for pfn in pfns]
        if set(states) <= {FrameState.FREE} and len(set(pfns)) == len(pfns):
            self.frames.occupy_each(pfns)
            self.twin.update(dict.fromkeys(pfns, FrameState.TAKEN))
        else:
            with pytest.raises((OutOfRange, AddressInUse)):
                self.frames.occupy_each(pfns)

    @rule(
        at=positions,
        count=counts,
        state=st.sampled_from([FrameState.TAKEN, FrameState.MOVABLE, FrameState.PINNED]),
    )
    def set_state(self, at, count, state):
        pfn = self.start + at
        states = [self.twin.get(frame, FrameState.FREE) for frame in self.pfns(pfn, count)]
        if FrameState.FREE in states:
            with pytest.raises(NotFound):
                self.frames.set_state(pfn, count, state)
        else:
            self.frames.set_state(pfn, count, state)
            self.twin.update(dict.fromkeys(self.pfns(pfn, count), state))

    @rule(n=st.integers(1, 3))
    def fail_nth(self, n):
        self.frames.fail_nth(n)
        self.fail_in = n

    @invariant()
    def agree(self):
        if not hasattr(self, "frames"):
            return
        self.frames.check()
        assert {pfn: self.frames.state(pfn) for pfn in self.twin} == self.twin
        free = [pfn for pfn, state in self.twin.items() if state == FrameState.FREE]
        assert [pfn for run in self.frames.free_runs() for pfn in self.pfns(*run)] == free
        assert self.frames.free_count == len(free)
        for order in range(7):
            assert self.frames.has_room(order) == (self.lowest(order) is not None)

    def teardown(self):
        """Nothing leaks: unpin and give back what the twin knows of, and one whole memory is left."""
        if not hasattr(self, "frames"):
            return
        for pfn, state in self.twin.items():
            if state != FrameState.FREE:
                self.frames.set_state(pfn, 1, FrameState.TAKEN)
                self.frames.give(pfn, 1)
        self.frames.check()
        assert self.frames.free_runs() == [(self.start, self.count)]


def test_frames_do_what_a_dict_does():
    run_state_machine_as_test(FramesMachine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))


@pytest.mark.slow
def test_frames_do_what_a_dict_does_for_longer():
    run_state_machine_as_test(FramesMachine, settings=settings(max_examples=400, stateful_step_count=50, deadline=None))
