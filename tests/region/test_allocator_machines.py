"""First fit, TLSF and the buddy system beside their twins, call by call: the same places, the same refusals."""

import copy
import importlib.util
import random
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swiommu.errors import AddressInUse, NoMemory, NotFound
from swiommu.region import Cause, make_allocator

PAGE = 4096
PAGES = 100
BASE = 0x1000_3000

_spec = importlib.util.spec_from_file_location("allocator_twins", Path(__file__).with_name("allocator_twins.py"))
twins = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(twins)

sizes = st.one_of(st.integers(1, 9), st.integers(1, 60)).map(lambda pages: pages * PAGE)
aligns = st.integers(0, 6).map(lambda order: PAGE << order)


class BesideItsTwin(RuleBasedStateMachine):
    name = "first_fit"
    twin_class = twins.FirstFitTwin
    options: ClassVar = {}

    def __init__(self):
        super().__init__()
        self.allocator = make_allocator(self.name, BASE, PAGES * PAGE, **self.options)
        self.twin = self.twin_class(BASE, PAGES * PAGE, **self.options)
        self.live = {}

    @rule(size=sizes, align=aligns)
    def alloc(self, size, align):
        fits = self.allocator.fits(size, align)
        facts = self.allocator.explain_failure(size, align)
        place = self.twin.alloc(size, align)
        assert fits is (place is not None) is (facts.cause is Cause.NONE)
        if place is None:
            with pytest.raises(NoMemory):
                self.allocator.alloc(size, align)
        else:
            assert self.allocator.alloc(size, align) == place
            self.live[place] = size

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data):
        start = data.draw(st.sampled_from(sorted(self.live)))
        size = self.live.pop(start)
        self.allocator.free(start, size)
        self.twin.free(start, size)

    @rule(page=st.integers(-1, PAGES), size=sizes)
    def reserve(self, page, size):
        start = BASE + page * PAGE
        if any(low <= start and start + size <= low + length for low, length in self.twin.by_address()):
            self.allocator.reserve(start, size)
            self.twin.reserve(start, size)
            self.live[start] = size
        else:
            with pytest.raises(AddressInUse):
                self.allocator.reserve(start, size)

    @rule(page=st.integers(-1, PAGES), size=sizes)
    def free_what_is_not_taken(self, page, size):
        start = BASE + page * PAGE
        taken = {each for low, length in self.live.items() for each in range(low, low + length, PAGE)}
        if not taken.issuperset(range(start, start + size, PAGE)):
            with pytest.raises(NotFound):
                self.allocator.free(start, size)

    @rule(size=sizes)
    def a_failed_call(self, size):
        self.allocator.fail_nth(1)
        with pytest.raises(NoMemory):
            self.allocator.alloc(size, PAGE)

    @rule(size=sizes)
    def a_copy_goes_its_own_way(self, size):
        other = copy.deepcopy(self.allocator)
        if other.fits(size, PAGE):
            other.alloc(size, PAGE)
        for start, length in self.live.items():
            other.free(start, length)
        other.check()

    @invariant()
    def agree(self):
        self.allocator.check()
        assert self.allocator.holes() == self.twin.by_address()
        assert self.allocator.free_space == sum(size for _, size in self.allocator.holes())
        counted = self.allocator.statistics()
        assert counted.taken == sum(self.live.values()) + counted.padding

    def teardown(self):
        for start, size in self.live.items():
            self.allocator.free(start, size)
        assert self.allocator.holes() == [(BASE, PAGES * PAGE)]
        self.allocator.check()


class TlsfMachine(BesideItsTwin):
    name = "tlsf"
    twin_class = twins.TlsfTwin


class BuddyMachine(BesideItsTwin):
    name = "buddy"
    twin_class = twins.BuddyTwin


class SmallBuddyMachine(BuddyMachine):
    options: ClassVar = {"max_order": 3}


TestFirstFit, TestTlsf, TestBuddy, TestSmallBuddy = (
    machine.TestCase for machine in (BesideItsTwin, TlsfMachine, BuddyMachine, SmallBuddyMachine)
)
for case in (TestFirstFit, TestTlsf, TestBuddy, TestSmallBuddy):
    case.settings = settings(max_examples=25, stateful_step_count=30)
del case  # or it is run once more


@pytest.mark.parametrize("sizes", [(1, 2, 3), (1, 5, 33, 34, 35, 47), range(1, 80)])
@pytest.mark.parametrize("machine", [BesideItsTwin, TlsfMachine, BuddyMachine], ids=lambda machine: machine.name)
def test_a_long_run_at_a_nearly_full_range_goes_the_same_ways(machine, sizes):
    chance, room = random.Random(machine.name), 1000 * PAGE
    allocator, live, refused = make_allocator(machine.name, BASE, room), [], 0
    twin = machine.twin_class(BASE, room)
    for _ in range(1200):
        if live and (chance.random() < 0.3 or refused % 4 == 3):
            refused = 0
            chunk = live.pop(chance.randrange(len(live)))
            allocator.free(*chunk)
            twin.free(*chunk)
            continue
        size, align = chance.choice(sizes) * PAGE, PAGE << chance.choice([0, 0, 0, 1, 3, 5])
        place = twin.alloc(size, align)
        assert allocator.fits(size, align) is (place is not None)
        if place is None:
            refused += 1
        else:
            assert allocator.alloc(size, align) == place
            live.append((place, size))
    allocator.check()
    assert allocator.holes() == twin.by_address()


@pytest.mark.slow
@pytest.mark.parametrize("machine", [BesideItsTwin, TlsfMachine, BuddyMachine, SmallBuddyMachine])
def test_for_long(machine):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=settings(max_examples=500, stateful_step_count=60))
