"""A region beside a plain dict, over every allocator that serves whatever fits (a buddy system rounds up)."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swiommu.address import PhysSpace
from swiommu.errors import AddressInUse, NoMemory, NotFound
from swiommu.region import Region

PAGE = 4096
PAGES = 40

sizes = st.integers(1, 9 * PAGE)
aligns = st.sampled_from([0, 1, 64, PAGE, 2 * PAGE, 4 * PAGE, 16 * PAGE])
values = st.integers(-PAGE, (PAGES + 2) * PAGE)


class AgainstADict(RuleBasedStateMachine):
    """A region beside a plain dict {start: size}, which knows nothing of placement but what is impossible."""

    allocator = "best_fit"
    base = 0x1000_3000

    def __init__(self):
        super().__init__()
        self.space = PhysSpace("ram", width=40)
        self.region = Region(self.space.at(self.base), PAGES * PAGE, allocator=self.allocator)
        self.twin = {}
        self.dead = []

    def room(self, size, align):
        """Whether any aligned place is free, looked for at every page."""
        return any(
            self.is_free(place, size) for place in range(self.base, self.region.stop, PAGE) if place % align == 0
        )

    def is_free(self, place, size):
        inside = self.base <= place and place + size <= self.region.stop
        return inside and not any(
            place < start + length and start < place + size for start, length in self.twin.items()
        )

    @rule(size=sizes, align=aligns)
    def alloc(self, size, align):
        rounded, aligned = -(-size // PAGE) * PAGE, max(align, PAGE)
        room = self.room(rounded, aligned)
        assert self.region.fits(size, align) is room
        if not room:
            with pytest.raises(NoMemory):
                self.region.alloc(size, align)
            return
        chunk = self.region.alloc(size, align)
        assert chunk.size == rounded
        assert chunk.start.is_aligned(aligned)
        assert self.is_free(chunk.start.value, chunk.size)
        self.twin[chunk.start.value] = chunk.size

    @rule(page=st.integers(-1, PAGES), size=sizes)
    def reserve(self, page, size):
        place, rounded = self.base + page * PAGE, -(-size // PAGE) * PAGE
        if self.is_free(place, rounded):
            assert self.region.reserve(self.space.at(place), size).size == rounded
            self.twin[place] = rounded
        else:
            with pytest.raises(AddressInUse):
                self.region.reserve(self.space.at(place), size)

    @precondition(lambda self: self.twin)
    @rule(data=st.data(), by_address=st.booleans())
    def free(self, data, by_address):
        start = data.draw(st.sampled_from(sorted(self.twin)))
        chunk = self.region.chunk_at(self.space.at(start))
        self.region.free(chunk.start if by_address else chunk)
        del self.twin[start]
        self.dead.append(chunk)

    @rule(offset=values)
    def free_an_address(self, offset):
        value = self.base + offset
        if value in self.twin:
            self.region.free(self.space.at(value))
            del self.twin[value]
        else:
            with pytest.raises(NotFound):
                self.region.free(self.space.at(value))

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def free_twice(self, data):
        with pytest.raises(NotFound):
            self.region.free(data.draw(st.sampled_from(self.dead)))

    @rule(size=sizes)
    def a_failed_call(self, size):
        if not self.region.fits(size):
            return
        self.region.allocator.fail_nth(1)
        with pytest.raises(NoMemory):
            self.region.alloc(size)

    @rule(offset=values)
    def look_up(self, offset):
        value = self.base + offset
        chunk = self.region.chunk_at(self.space.at(value))
        holding = [start for start, size in self.twin.items() if start <= value < start + size]
        assert ([chunk.start.value] if chunk else []) == holding

    @invariant()
    def agree(self):
        region = self.region
        region.check()
        assert [(chunk.start.value, chunk.size) for chunk in region.chunks()] == sorted(self.twin.items())
        assert (region.users, region.free_space) == (len(self.twin), PAGES * PAGE - sum(self.twin.values()))
        assert sum(hole.size for hole in region.holes()) == region.free_space

    def teardown(self):
        for chunk in self.region.chunks():
            self.region.free(chunk)
        assert [(hole.start.value, hole.size) for hole in self.region.holes()] == [(self.base, PAGES * PAGE)]


class BitmapAgainstADict(AgainstADict):
    allocator = "bitmap"


class FirstFitAgainstADict(AgainstADict):
    allocator = "first_fit"


class TlsfAgainstADict(AgainstADict):
    allocator = "tlsf"


AgainstADict.TestCase.settings = settings(max_examples=30, stateful_step_count=30)
BitmapAgainstADict.TestCase.settings = AgainstADict.TestCase.settings
FirstFitAgainstADict.TestCase.settings = settings(max_examples=15, stateful_step_count=30)
TlsfAgainstADict.TestCase.settings = FirstFitAgainstADict.TestCase.settings
TestBestFitRegion = AgainstADict.TestCase
TestBitmapRegion = BitmapAgainstADict.TestCase
TestFirstFitRegion = FirstFitAgainstADict.TestCase
TestTlsfRegion = TlsfAgainstADict.TestCase
