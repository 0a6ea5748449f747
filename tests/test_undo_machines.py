"""Everything that is `Undoable`: after any operations and a roll-back it is what a deep copy from before is.

All attributes are compared, but for those that say how fast something is found, not what: buckets, heaps, bounds.
"""

import copy
import random
import sys

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swiommu.address import PhysSpace
from swiommu.dma import SwiotlbPool
from swiommu.errors import SwiommuError
from swiommu.iommu import IovaDomain, LinuxIova, TopDownIova
from swiommu.iommu.groups.untracked_iova import UntrackedIova
from swiommu.memory import Frames, FrameState
from swiommu.memory.blocks import FreeBlocks
from swiommu.region import BestFit, Bitmap, Buddy, FirstFit, Lending, Region, Tlsf, make_allocator
from swiommu.region.by_size import BySize
from swiommu.region.runs import FreeRuns
from swiommu.replay.backends.random_frames import RandomFrames, _Drawable
from swiommu.undo import UndoLog

PAGE = 4096
PAGES = 48
START = 0x4000_0000
SPACE = PhysSpace("ram")

IGNORED = {"undo_log", "lock", "_state_is_in"}
BY_CONTENT = {
    FreeRuns: lambda runs: (runs.count, runs.total, runs.runs()),
    FreeBlocks: lambda blocks: [sorted(starts) for starts in blocks._starts],
    BySize: list,
    _Drawable: lambda frames: [frames._at(place) for place in range(len(frames))],
    random.Random: lambda draw: draw.getstate(),
}


def dump(thing):
    """All that a thing is made of, as plain values."""
    if type(thing) in BY_CONTENT:
        return BY_CONTENT[type(thing)](thing)
    if isinstance(thing, (int, str, bytes, bytearray, type(None), PhysSpace)) or callable(thing):
        return (
            bytes(thing) if isinstance(thing, bytearray) else thing if isinstance(thing, (int, bytes)) else str(thing)
        )
    if isinstance(thing, (list, tuple)):
        return [dump(each) for each in thing]
    if isinstance(thing, (set, frozenset)):
        return sorted(map(repr, thing))
    if isinstance(thing, dict):
        return sorted((repr(dump(key)), dump(value)) for key, value in thing.items())
    if attrs.has(type(thing)):
        return [type(thing).__name__, *(text_of(getattr(thing, each.name)) for each in attrs.fields(type(thing)))]
    names = {name for kind in type(thing).__mro__ for name in vars(kind).get("__slots__", ())}
    names |= vars(thing).keys() if hasattr(thing, "__dict__") else set()
    return {name: dump(getattr(thing, name)) for name in sorted(names - IGNORED) if hasattr(thing, name)}


def text_of(value):
    """A value as text; a copy of a set may have another order."""
    return str(sorted(value)) if isinstance(value, frozenset) else str(value)


# -- what is done to each kind of thing: three numbers choose what


def allocate(allocator, live, what, where, size):
    if what < 5:
        place = allocator.alloc(size * PAGE, PAGE << where % 5)
        live.append((place, size * PAGE))
    elif what < 9 and live:
        place, length = live.pop(where % len(live))
        if what == 8 and length > PAGE:  # from the middle on
            middle = length // PAGE // 2 * PAGE
            allocator.free(place + middle, length - middle)
            live.append((place, middle))
        else:
            allocator.free(place, length)
    elif what == 9:
        allocator.reserve(allocator.start + where * PAGE, size * PAGE)
        live.append((allocator.start + where * PAGE, size * PAGE))
    elif what == 10:
        allocator.fail_nth(size)
    elif what == 11:
        allocator.fits(size * PAGE, PAGE << where % 5)
    else:
        page(allocator, what, allocator.start // PAGE + where, size)


def page(allocator, what, pfn, size):
    """What areas of mainline alone do."""
    if isinstance(allocator, Lending) and what in {12, 13, 14}:
        {12: allocator.lend, 13: allocator.give_back}.get(what, lambda pfn, _: allocator.pin(pfn))(pfn, size)
    elif isinstance(allocator, Lending) and what == 15:
        allocator.unpin_all(allocator.pin_movable(range(pfn, pfn + size))[1:])
    elif hasattr(allocator, "set_busy") and what < 15:
        allocator.set_busy(pfn, size, size % 3)
    elif hasattr(allocator, "release"):  # whatever is taken there, and what is not
        allocator.release(pfn, size)


def use_region(region, live, what, where, size):
    if what < 7:
        live.append(region.alloc(size * PAGE, PAGE << where % 4))
    elif what < 12 and live:
        region.free(live.pop(where % len(live)))
    else:
        live.append(region.reserve(region.start + where * PAGE, size * PAGE))


def use_frames(frames, live, what, where, size):
    if what < 4:
        live.append((frames.take(size % 4), 1 << size % 4))
    elif what < 7:
        live += frames.take_largest_first(size, (2, 0))
    elif what < 11 and live:
        frames.give(*live.pop(where % len(live)))
    elif what == 11:
        frames.fail_nth(size)
    elif what < 14:
        frames.occupy(frames.start_pfn + where, size)
        live.append((frames.start_pfn + where, size))
    elif live:
        frames.set_state(*live[where % len(live)], FrameState(1 + size % 4))


def use_pool(pool, live, what, where, size):
    if what < 8:
        live.append(pool.find_slots(where << 11, size << 10, min_align_mask=0xFFF if what == 7 else 0, area=where % 2))
    elif what < 13 and live:
        pool.release(live.pop(where % len(live)))
    elif what == 13:
        pool.fail_nth(size)
    else:
        pool.occupy(pool.start + (where << 11), size << 10)
        live.append(pool.start + (where << 11))


def use_kernel_iova(domain, live, what, where, size):
    if what < 6:
        flush, cpu = where % 2 == 0, what % 2
        live.append((domain.alloc_iova_fast(size, 60 if what == 5 else 400, flush_rcache=flush, cpu=cpu), size))
    elif what < 11 and live:
        domain.free_iova_fast(*live.pop(where % len(live)), cpu=what % 2)
    elif what == 11:
        domain.advance(domain.now + where * 10_000_000)
    elif what == 12:
        domain.reserve_iova(where, where + size)
    elif what == 13:
        domain.flush_rcaches()
    elif what == 14:
        domain.fail_nth(size)
    else:
        live.append((domain.alloc_iova(size, 300, size_aligned=where % 2 == 0), size))


def use_policy(policy, live, what, where, size):
    policy.cpu = 0
    if what < 7:
        if isinstance(policy, LinuxIova):
            policy.device = f"dev{where % 2}"
        limit = (1 << 48) - 1 if what < 5 else (64 * PAGE) - 1
        live.append((policy.alloc(size * PAGE, limit, PAGE << where % 6), size * PAGE))
    elif what < 12 and live:
        policy.free(*live.pop(where % len(live)))
    elif what == 12:
        policy.take(where * PAGE, size * PAGE)
        live += [(where * PAGE, PAGE), (where * PAGE + PAGE, (size - 1) * PAGE)][: 1 + (size > 1)]
    elif what == 13:
        policy.reserve(where * PAGE, (where + size) * PAGE - 1)
    elif what == 14:
        policy.advance(where * 10_000_000)
    elif hasattr(policy, "fail_nth"):
        policy.fail_nth(size)


def draw_frames(drawn, live, what, where, size):
    if what < 9:
        live.append(drawn.take(size))
    elif live:
        drawn.give_pieces(live.pop(where % len(live)))


class SmallCaches(IovaDomain):
    """Magazines that go to the depot within a few calls."""

    RANGE_CACHE_MAX_SIZE = 3

    def __init__(self):
        super().__init__(cpus=2)
        for rcache in self._rcaches:
            rcache.mag_size = 2


def lending():
    standing = bytes((FrameState.MOVABLE, FrameState.FREE, FrameState.DROPPABLE)) * (PAGES // 3)
    return Lending(START, PAGES * PAGE, standing=standing)


def random_frames():
    return RandomFrames(Frames(SPACE.at(START), PAGES * PAGE), 7)


def ranges():
    parts = [(START, 16 * PAGE), (START + 20 * PAGE, 28 * PAGE)]
    return make_allocator("bitmap", START, PAGES * PAGE, ranges=parts)


SIZED = {"start": START, "size": PAGES * PAGE}
KINDS = {
    "best_fit": (lambda: BestFit(**SIZED), allocate),
    "first_fit": (lambda: FirstFit(**SIZED), allocate),
    "bitmap": (lambda: Bitmap(**SIZED), allocate),
    "bitmap-7.3": (lambda: Bitmap(**SIZED, order_per_bit=1, profile="7.3"), allocate),
    "ranges": (ranges, allocate),
    "buddy": (lambda: Buddy(**SIZED, max_order=3), allocate),
    "tlsf": (lambda: Tlsf(**SIZED), allocate),
    "lending": (lending, allocate),
    "region": (lambda: Region(SPACE.at(START), PAGES * PAGE), use_region),
    "frames": (lambda: Frames(SPACE.at(START), PAGES * PAGE, max_order=3), use_frames),
    "pool": (lambda: SwiotlbPool(START, 256, areas=2), use_pool),
    "kernel-iova": (SmallCaches, use_kernel_iova),
    "linux": (lambda: LinuxIova(SmallCaches()), use_policy),
    "linux-full": (lambda: LinuxIova(IovaDomain(start_pfn=(1 << 20) - 16)), use_policy),
    "top-down": (lambda: TopDownIova(PAGE, (1 << 20) - 1), use_policy),
    "untracked": (lambda: UntrackedIova(TopDownIova(PAGE, (1 << 20) - 1)), use_policy),
    "random": (random_frames, draw_frames),
}


def parts_of(thing):
    """What changes with a thing and is a thing of its own."""
    return [thing._frames] if isinstance(thing, RandomFrames) else []


class Transactions:
    """Of a thing and what it changes, as one."""

    def __init__(self, thing):
        self.open = [each.transaction() for each in (thing, *parts_of(thing))]
        for each in self.open:
            each.__enter__()

    def close(self, *raised):
        for each in reversed(self.open):
            each.__exit__(*raised)


class Machine(RuleBasedStateMachine):
    """Operations, and transactions within each other, of a thing of any kind."""

    @initialize(kind=st.sampled_from(sorted(KINDS)))
    def make(self, kind):
        make, self.act = KINDS[kind]
        self.thing, self.live, self.open = make(), [], []

    @rule(what=st.integers(0, 15), where=st.integers(0, PAGES - 1), size=st.integers(1, 9))
    def do(self, what, where, size):
        try:
            self.act(self.thing, self.live, what, where, size)
        except SwiommuError:
            self.refused = True

    @precondition(lambda self: len(self.open) < 3)
    @rule()
    def begin(self):
        before = [dump(each) for each in copy.deepcopy((self.thing, *parts_of(self.thing)))]
        self.open.append((before, self.live.copy(), Transactions(self.thing)))

    @precondition(lambda self: self.open)
    @rule()
    def commit(self):
        now = dump(self.thing)
        self.open.pop()[2].close(None, None, None)
        assert dump(self.thing) == now

    @precondition(lambda self: self.open)
    @rule()
    def roll_back(self):
        before, self.live, transactions = self.open.pop()
        transactions.close(KeyError, KeyError("stop"), None)
        assert [dump(each) for each in (self.thing, *parts_of(self.thing))] == before

    @invariant()
    def it_is_sound(self):
        if hasattr(self, "thing"):
            for each in (self.thing, *parts_of(self.thing)):
                getattr(each, "check", lambda: None)()

    def teardown(self):
        while getattr(self, "open", None):
            self.roll_back()


TestMachine = Machine.TestCase
TestMachine.settings = settings(stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_operations_of_each_kind_are_undone(kind):
    """Enough of them that every kind of inverse runs, seeded."""
    make, act = KINDS[kind]
    draw = random.Random(kind)
    refused = 0
    for _ in range(12):
        thing, live = make(), []
        for _ in range(60):
            before = [dump(each) for each in (thing, *parts_of(thing))]
            transactions, kept = Transactions(thing), live.copy()
            for _ in range(draw.randrange(6)):
                try:
                    act(thing, live, draw.randrange(16), draw.randrange(PAGES), draw.randrange(1, 10))
                except SwiommuError:
                    refused += 1
            if draw.random() < 0.4:
                transactions.close(KeyError, KeyError("stop"), None)
                assert [dump(each) for each in (thing, *parts_of(thing))] == before
                live = kept
            else:
                transactions.close(None, None, None)
            for each in (thing, *parts_of(thing)):
                getattr(each, "check", lambda: None)()
    assert refused


def test_the_comparison_sees_every_attribute():
    """One that is changed behind the back of the log is noticed, whatever it is."""
    for make, _ in KINDS.values():
        thing = make()
        before = dump(thing)
        assert isinstance(before, dict)
        assert before.keys() >= {"start"} or len(before) > 1
        for name, value in before.items():
            if type(value) is int:
                setattr(thing, name, value + 1) if not isinstance(getattr(type(thing), name, None), property) else None
                assert dump(thing) != before, name
                setattr(thing, name, value)
        assert dump(thing) == before


def calls_of(block):
    """How many functions are called, ours and those of C: the same in every run."""
    count = 0

    def trace(_frame, event, _arg):
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(trace)
    try:
        block()
    finally:
        sys.setprofile(None)
    return count


def fragmented(make, holes):
    """An allocator with so many holes of one page."""
    allocator = make(START, 2 * holes * PAGE)
    for number in range(holes):
        allocator.reserve(START + 2 * number * PAGE, PAGE)
    return allocator


@pytest.mark.parametrize("kind", [BestFit, FirstFit, Bitmap, Buddy, Tlsf, Lending])
def test_a_trial_costs_what_it_changes_whatever_there_is(kind):
    def trial(allocator):
        with allocator.dry_run():
            for _ in range(4):
                allocator.alloc(PAGE, PAGE)
            allocator.free(START, PAGE)

    few, many = (fragmented(kind, holes) for holes in (50, 4000))
    small, large = (calls_of(lambda each=each: trial(each)) for each in (few, many))
    assert large <= small * 1.3 + 20, (small, large)
    few.check()


def test_a_trial_of_bus_addresses_costs_what_it_changes():
    def trial(domain):
        with domain.dry_run():
            for size in (1, 2, 4):
                domain.free_iova_fast(domain.alloc_iova_fast(size, 1 << 20, flush_rcache=True), size)

    counts = []
    for ranges_ in (50, 5000):
        domain = IovaDomain()
        pfns = [domain.alloc_iova_fast(1, 1 << 20, flush_rcache=True) for _ in range(ranges_)]
        for pfn in pfns[::2]:
            domain.free_iova_fast(pfn, 1)
        counts.append(calls_of(lambda domain=domain: trial(domain)))
    assert counts[1] <= counts[0] * 1.3 + 20, counts


def test_a_copy_of_a_thing_has_no_transaction_open():
    allocator = BestFit(**SIZED)
    with allocator.dry_run():
        allocator.alloc(PAGE, PAGE)
        twin = copy.deepcopy(allocator)
        assert isinstance(allocator.undo_log, UndoLog)
        assert twin.undo_log is None
        assert twin.holes() == allocator.holes()
    assert twin.holes() != allocator.holes()
