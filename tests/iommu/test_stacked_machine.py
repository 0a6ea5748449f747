"""Two paged domains on each other under random calls, beside dicts of pages: bytes, blame, who uses what, no leak."""

from contextlib import suppress

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from swiommu.address import Access, BusSpace, PhysRange, PhysSpace
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NoMemory, NoSpace
from swiommu.iommu import PagedDomain
from swiommu.layer import Memory, Node, TranslationCache, access
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK, Level

PAGE = 4096
PAGES = 64  # of each bus space
FIRST = 64  # the first frame that alloc may take; those below exist and are bound
LEVELS = tuple(Level(shift, 2, can_leaf=True) for shift in (16, 14, 12))
TINY = attrs.evolve(
    MOCK,
    name="tiny",
    levels=LEVELS,
    output_width=20,
)


class StackMachine(RuleBasedStateMachine):
    """``high`` is top page -> middle page, ``low`` middle page -> frame; what a device reaches is their composition."""

    def __init__(self):
        super().__init__()
        self.phys = PhysSpace("ram", width=20)
        self.ram = SparseRam(self.phys)

    @initialize(
        policy=st.sampled_from(["refuse", "notify", "force"]),
        partial=st.sampled_from(["refuse", "split"]),
        walker=st.sampled_from(["nested", "physical"]),
        cached=st.booleans(),
    )
    def build(self, policy, partial, walker, cached):
        self.policy, self.partial = policy, partial
        self.frames = Frames(self.phys.at(FIRST * PAGE), 48 * PAGE)
        self.tables = Frames(self.phys.at(128 * PAGE), 24 * PAGE)
        self.lower = PagedDomain(
            BusSpace("low", width=18),
            frames=self.frames,
            output_space=self.phys,
            format=TINY,
            orders=(2, 0),
            in_use=policy,
            partial=partial,
            memory=Node(Memory("ram", self.ram)),
        )
        self.upper = PagedDomain(
            BusSpace("high", width=18),
            below=self.lower,
            walker=walker,
            frames=self.tables if walker == "physical" else None,
            format=TINY,
            partial=partial,
        )
        if cached:
            self.lower.node.tlb, self.upper.node.tlb = TranslationCache(8), TranslationCache(8)
            self.upper.node.iotlb = TranslationCache(8)
        self.high, self.low, self.live, self.lost = {}, {}, [], False
        self.seen = {}  # pages that led somewhere once, in order

    def pages(self, start, size):
        return range(start // PAGE, -(-(start + size) // PAGE))

    def pages_of_tables(self):
        return {use.start // PAGE for use in self.lower.uses if use.iova is None}

    def follow(self, domain, twin):
        """What the domain says is mapped; that it maps this and nothing else is the twin's business."""
        found = {}
        for page in range(PAGES):
            to = domain.iova_to_phys(domain.input_space.at(page * PAGE))
            if to is not None:
                found[page] = to.value // PAGE
        assert {page: found.get(page) for page in twin} == twin
        return found

    def adopt(self, mapping):
        self.live.append(mapping)
        for page, to in zip(
            self.pages(mapping.iova.start.value, mapping.size),
            [page for piece in mapping.pieces for page in self.pages(piece.start.value, piece.size)],
            strict=True,
        ):
            assert page not in self.high
            self.high[page] = to
        below = mapping.below
        for page, to in zip(
            self.pages(below.iova.start.value, below.size),
            [page for piece in below.pieces for page in self.pages(piece.start.value, piece.size)],
            strict=True,
        ):
            assert page not in self.low
            self.low[page] = to

    @rule(size=st.integers(1, 6 * PAGE))
    def alloc(self, size):
        with suppress(NoMemory, NoSpace):
            self.adopt(self.upper.alloc(size))

    @rule(first=st.integers(0, 30), pages=st.integers(1, 5), second=st.integers(32, 60), cut=st.sampled_from([0, 256]))
    def bind_memory(self, first, pages, second, cut):
        pieces = [PhysRange(self.phys.at(first * PAGE + cut), pages * PAGE - cut)]
        pieces.append(PhysRange(self.phys.at(second * PAGE), PAGE - cut))
        with suppress(NoMemory, NoSpace):
            self.adopt(self.upper.bind_memory(pieces))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data):
        mapping = data.draw(st.sampled_from(self.live))
        below = mapping.below
        own = self.pages(mapping.iova.start.value, mapping.size)
        used = set(self.pages(below.iova.start.value, below.size))
        others = [page for page, to in self.high.items() if to in used and page not in own]
        gone = self.lower.held(below) is None
        try:
            self.upper.release(mapping)
        except Busy:  # also on notice, when it is about a part of a leaf
            assert self.policy == "refuse" or (self.policy, self.partial) == ("notify", "refuse")
            assert others
            return
        except NoMemory:  # to split a leaf that somebody else has to give up in part
            assert (self.policy, self.partial) == ("notify", "split")
            self.high = self.follow(self.upper, {})
            return
        assert gone or not others or self.policy != "refuse"
        self.live.remove(mapping)
        for page in own:
            self.high.pop(page, None)
        if not gone:
            self.forget_below(used)

    def forget_below(self, used):
        for page in used:
            self.low.pop(page, None)
        if self.policy == "notify":
            self.high = {page: to for page, to in self.high.items() if to not in used}

    @rule(at=st.integers(0, PAGES - 1), to=st.integers(0, PAGES - 1), pages=st.integers(1, 5))
    def map_above(self, at, to, pages):
        pages = min(pages, PAGES - at, PAGES - to)
        with suppress(AddressInUse, NoMemory, NoSpace):
            self.upper.map(self.upper.input_space.at(at * PAGE), self.lower.input_space.at(to * PAGE), pages * PAGE)
            assert not self.high.keys() & set(range(at, at + pages))
            self.high.update({at + n: to + n for n in range(pages)})

    @rule(at=st.integers(0, PAGES - 1), pages=st.integers(1, 6))
    def unmap_above(self, at, pages):
        pages = min(pages, PAGES - at)
        try:
            done = self.upper.unmap(self.upper.input_space.at(at * PAGE), pages * PAGE) // PAGE
        except InvalidArgument:
            assert self.partial == "refuse"
            return
        except NoMemory:
            assert self.partial == "split"
            return
        assert done <= pages
        assert done == pages or at + done not in self.high
        for page in range(at, at + done):
            del self.high[page]

    @precondition(lambda self: self.live)
    @rule(data=st.data(), pages=st.integers(1, 3))
    def unmap_below(self, data, pages):
        below = data.draw(st.sampled_from(self.live)).below
        at = data.draw(st.sampled_from(self.pages(below.iova.start.value, below.size)))
        pages = min(pages, PAGES - at)
        met = [page for page in range(at, at + pages) if all(held in self.low for held in range(at, page + 1))]
        used = [page for page, to in self.high.items() if to in met]
        before = dict(self.low), dict(self.high)
        try:
            done = self.lower.unmap(self.lower.input_space.at(at * PAGE), pages * PAGE) // PAGE
        except Busy:
            assert self.policy != "force"
            assert used or any(use.iova is None for use in self.lower.uses)
        except InvalidArgument:
            assert self.partial == "refuse"
        except NoMemory:
            # Some above may have unmapped theirs already before one of them had no page to split a leaf with.
            assert self.partial == "split"
            self.high = self.follow(self.upper, {}) if self.policy == "notify" else self.high
        else:
            if any(use.iova is None for use in self.lower.uses.over(at * PAGE, (at + done) * PAGE)):
                self.lost = True  # tables are unreachable now: nothing is said of what devices see
            self.forget_below(set(range(at, at + done)))
            assert self.policy != "refuse" or not used or not done
            return
        assert self.low == before[0]

    @rule(n=st.integers(1, 4))
    def let_memory_fail(self, n):
        self.frames.fail_nth(n)

    @rule(page=st.integers(0, PAGES - 1), value=st.integers(0, 255))
    def device_writes(self, page, value):
        self.seen.update(dict.fromkeys(self.high))
        for each in (page, *list(self.seen)[-10:]):
            self.write(each, value)

    def write(self, page, value):
        middle = self.high.get(page)
        frame = self.low.get(middle)
        answer = access(self.upper.node, page * PAGE, 1, Access.WRITE)
        if self.lost or middle in self.pages_of_tables():  # who maps a table reaches it
            return
        if answer.fault is None:
            assert frame is not None, f"{page} still leads to {answer.runs}"
            assert answer.runs[0].output == frame * PAGE
            if frame < FIRST:
                self.ram.write(self.phys.at(frame * PAGE), bytes((value,)))
        else:
            assert frame is None
            assert answer.fault.layer == ("high" if middle is None else "low")

    @invariant()
    def agrees(self):
        if not hasattr(self, "upper"):
            return
        self.upper.check()
        self.lower.check()
        self.frames.check()
        assert self.follow(self.upper, self.high) == self.high
        data = {
            page for mapping in self.live for page in self.pages(mapping.below.iova.start.value, mapping.below.size)
        }
        found = self.follow(self.lower, self.low)
        tables = self.pages_of_tables()
        assert set(found) - set(self.low) <= tables
        assert not data & tables
        used = {
            (use.iova // PAGE + n, use.start // PAGE + n)
            for use in self.lower.uses
            if use.iova is not None
            for n in range(-(-(use.start % PAGE + use.size) // PAGE))
        }
        assert used == set(self.high.items())

    def teardown(self):
        if not hasattr(self, "upper"):
            return
        self.frames._fail_in = 0
        self.lower.in_use = "force"
        for mapping in self.live:
            self.upper.release(mapping)
            for page in self.pages(mapping.iova.start.value, mapping.size):
                self.high.pop(page, None)
        for _, leaf, size in list(self.upper.table.each_leaf()):
            del leaf, size
            start = next(self.upper.table.each_leaf(), None)
            if start is not None:
                self.upper.unmap(self.upper.input_space.at(start[0]), start[2])
        self.upper.destroy()
        assert (len(self.lower.uses), self.lower.mappings()) == (0, [])
        self.lower.destroy()
        assert (self.frames.free_count, self.tables.free_count) == (self.frames.count, self.tables.count)
        for domain in (self.upper, self.lower):
            assert domain.iova.free_bytes == (PAGES - 1) * PAGE


StackMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
TestStack = StackMachine.TestCase


@pytest.mark.slow
def test_stack_long():
    run_state_machine_as_test(StackMachine, settings=settings(max_examples=400, stateful_step_count=50, deadline=None))
