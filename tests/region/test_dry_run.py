"""A region that was tried serves what follows as one that was not."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import PhysSpace
from swiommu.errors import NoMemory, NotSupported, SwiommuError
from swiommu.memory import Frames, FrameState, SparseRam
from swiommu.region import BestFit, Bitmap, Lending, LentPages, Region
from swiommu.undo import Undoable

PAGE = 4096
PAGES = 64
SPACE = PhysSpace("ram")


def lending(start, size):
    area = Lending(start, size, standing=bytes((FrameState.MOVABLE, FrameState.FREE, FrameState.DROPPABLE, 2)) * 16)
    area.pin(area.base_pfn + 40)
    area.set_busy(area.base_pfn + 8, 1, 1)
    return area


def bitmap(start, size):
    area = Bitmap(start, size, profile="7.3")
    area.set_busy(area.base_pfn + 8, 1, 1)
    return area


def made(name):
    start = SPACE.at(PAGES * PAGE)
    makers = {"lending": lending, "bitmap": bitmap}
    allocator = makers[name](start.value, PAGES * PAGE) if name in makers else name
    return Region(start, PAGES * PAGE, allocator=allocator)


def act(region, live, step):
    """What was answered: an address, or the error."""
    number, pages, order = step
    if number % 3 == 0 and live:
        chunk = live.pop(number % len(live))
        region.free(chunk)
        return chunk.start.value
    try:
        live.append(region.alloc(pages * PAGE, PAGE << order))
    except SwiommuError as error:
        return str(error)
    return live[-1].start.value


STEPS = st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9), st.integers(0, 4)), max_size=25)


@given(name=st.sampled_from(["best_fit", "bitmap", "lending", "tlsf"]), before=STEPS, tried=STEPS, after=STEPS)
@settings(max_examples=200)
def test_what_follows_is_as_if_nothing_had_been_tried(name, before, tried, after):
    region, live = made(name), []
    for step in before:
        act(region, live, step)
    other, others = made(name), []
    for step in before:
        act(other, others, step)
    with region.dry_run():
        inside = live.copy()
        for step in tried:
            act(region, inside, step)
    region.check()
    assert getattr(region.allocator, "returns", None) == getattr(other.allocator, "returns", None)
    for step in after:
        assert act(region, live, step) == act(other, others, step)


class Foreign:
    """An allocator of somebody else's: no more than the protocol asks for."""

    name = "foreign"

    def __init__(self, start, size):
        self.inner, self.start, self.size, self.page_size = BestFit(start, size), start, size, PAGE

    def __getattr__(self, name):
        if name in {"inner", "undo_log", "__deepcopy__", "__setstate__"}:
            raise AttributeError(name)
        return getattr(self.inner, name)


class Joining(Foreign, Undoable):
    """The same, which says how it takes part."""

    undo_log = None

    def begin_undo(self, log):
        log.note(self.__setattr__, "inner", copy.deepcopy(self.inner))
        return ()


@pytest.mark.parametrize("kind", [Foreign, Joining])
def test_an_allocator_of_somebody_else(kind):
    start = SPACE.at(PAGES * PAGE)
    allocator = kind(start.value, PAGES * PAGE)
    region = Region(start, PAGES * PAGE, allocator=allocator)
    kept = region.reserve(start + PAGE, PAGE)
    with region.dry_run():
        region.alloc(5 * PAGE)
        region.free(kept)
        assert (region.allocator is allocator) == (kind is Joining)
    region.check()
    assert (region.chunks(), region.allocator) == ([kept], allocator)

    def refused():
        with region.transaction():
            region.alloc(3 * PAGE)
            region.alloc(PAGES * PAGE)

    with pytest.raises(NoMemory):
        refused()
    assert region.chunks() == [kept]
    with region.transaction():
        chunk = region.alloc(3 * PAGE)
    region.check()
    assert region.chunks() == [kept, chunk]
    assert (region.allocator is allocator) == (kind is Joining)


def test_tenants_are_not_moved_for_a_trial():
    ram = SparseRam(SPACE)
    area = Lending(0x4000_0000, 1 << 20, tenants=LentPages(ram, Frames(SPACE.at(0), 1 << 20)))
    with pytest.raises(NotSupported) as caught, area.dry_run():
        pass
    assert str(caught.value) == (
        "Bitmap(0x40000000, 0x100000, order_per_bit=0, profile='6.12', free_bits=256) has tenants, which a dry run "
        "would move"
    )
