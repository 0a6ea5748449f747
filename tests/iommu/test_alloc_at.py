"""Memory behind bus addresses that the caller chose: on every kind of domain, all or nothing."""

from itertools import pairwise

import pytest

from swiommu.address import BusRange, BusSpace, PhysRange, PhysSpace
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NoMemory, NotSupported, OutOfRange, SwiommuError
from swiommu.iommu import LinearDomain, PagedDomain, TopDownIova
from swiommu.iommu.groups import IdentityDomain
from swiommu.memory import Frames
from swiommu.region import Region

PAGE, BASE, DELTA = 4096, 0x4000_0000, 0x1000_0000


class World:
    """A domain of some kind, where its addresses are, and all that it could lose."""

    def __init__(self, kind):
        self.ram = PhysSpace("ram", width=32)
        self.bus = BusSpace("nic", width=32)
        self.frames, self.region, self.lower = None, None, None
        self.first = 0x8000_0000
        if kind == "linear":
            self.region = Region(self.ram.at(BASE), 64 * PAGE)
            self.domain = LinearDomain(self.bus, self.region, delta=DELTA)
            self.first = BASE + DELTA
        else:
            self.frames = Frames(self.ram.at(BASE), 64 * PAGE)
            self.domain = self.lower = PagedDomain(self.bus, frames=self.frames, output_space=self.ram)
        if kind == "stacked":
            self.domain = PagedDomain(BusSpace("guest", width=32), below=self.lower)

    def range(self, page, pages):
        return BusRange(self.domain.input_space.at(self.first + page * PAGE), pages * PAGE)

    def free(self):
        free = self.region.free_space if self.region is not None else self.frames.free_count
        policies = [each.iova.free_bytes for each in (self.domain, self.lower) if isinstance(each, PagedDomain)]
        return free, policies, [] if self.lower is None else self.lower.mappings()


@pytest.fixture(params=["paged", "linear", "stacked"])
def world(request):
    return World(request.param)


def test_it_is_where_the_caller_said(world):
    before = world.free()
    mapping = world.domain.alloc_at(world.range(2, 3))
    assert mapping.iova == world.range(2, 3)
    assert (mapping.owns_memory, sum(piece.size for piece in mapping.memory)) == (True, 3 * PAGE)
    assert world.domain.iova_to_memory(mapping.iova.start) == mapping.memory[0].start
    others = [
        world.domain.alloc(PAGE),
        world.domain.alloc_at(world.range(5, 1)),
        world.domain.alloc_at(world.range(1, 1)),
    ]
    spans = sorted((each.iova.start.value, each.iova.stop) for each in [mapping, *others])
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    world.domain.check()
    for each in [mapping, *others]:
        world.domain.release(each)
    world.domain.check()
    assert world.free() == before


@pytest.mark.parametrize(("page", "pages"), [(2, 3), (1, 2), (4, 2), (3, 1), (0, 9)])
def test_what_is_in_use_is_refused_and_nothing_is_taken(world, page, pages):
    world.domain.alloc_at(world.range(2, 3))
    before, mappings = world.free(), world.domain.mappings()
    with pytest.raises(AddressInUse):
        world.domain.alloc_at(world.range(page, pages))
    world.domain.check()
    assert (world.free(), world.domain.mappings()) == (before, mappings)


def test_torn_granules_and_what_is_beyond_the_aperture_are_refused(world):
    domain, space = world.domain, world.domain.input_space
    before = world.free()
    for start, size in ((world.first + 8, PAGE), (world.first, PAGE - 8), (world.first, 0)):
        with pytest.raises((InvalidArgument, OutOfRange)):
            domain.alloc_at(BusRange(space.at(start), size))
    if domain.aperture_last < space.limit - PAGE:
        with pytest.raises(InvalidArgument) as caught:
            domain.alloc_at(BusRange(space.at(domain.aperture_last + 1), PAGE))
        first = f"from {domain.aperture_first:#x} " if domain.aperture_first else "up "
        assert str(caught.value) == (
            f"BusRange(nic:{domain.aperture_last + 1:#x}+0x1000) is not whole granules of 0x1000 bytes {first}to "
            f"{domain.aperture_last:#x}"
        )
    domain.check()
    assert world.free() == before


def test_a_range_below_the_window_is_no_chunk_of_the_region():
    world = World("linear")
    with pytest.raises(SwiommuError):
        world.domain.alloc_at(BusRange(world.bus.at(world.first - PAGE), PAGE))
    world.domain.check()
    assert world.region.free_space == 64 * PAGE


@pytest.mark.parametrize("nth", range(1, 5))
@pytest.mark.parametrize("kind", ["paged", "stacked"])
def test_when_memory_or_a_table_fails_everything_is_given_back(kind, nth):
    """The next is the memory, those after it are tables, of both stages in a stack."""
    world = World(kind)
    before = world.free()
    world.frames.fail_nth(nth)
    with pytest.raises(NoMemory):
        world.domain.alloc_at(world.range(0, 9))
    world.domain.check()
    assert world.free() == before
    world.domain.release(world.domain.alloc_at(world.range(0, 9)))
    assert world.free() == before


def test_over_a_window_a_chunk_under_what_is_bound_goes_back():
    """The region gives the chunk, and then the record refuses it."""
    world = World("linear")
    domain, ram = world.domain, world.ram
    bound = domain.bind([PhysRange(ram.at(BASE + 3 * PAGE + 8), 16)])
    before = world.free()
    with pytest.raises(AddressInUse) as caught:
        domain.alloc_at(world.range(2, 2))
    assert str(caught.value) == (
        f"[{world.first + 2 * PAGE:#x}, {world.first + 4 * PAGE:#x}) overlaps "
        f"[{world.first + 3 * PAGE + 8:#x}, {world.first + 3 * PAGE + 24:#x}), which is in use"
    )
    domain.check()
    assert (world.free(), domain.mappings()) == (before, [bound])
    domain.release(bound)
    domain.release(domain.alloc_at(world.range(2, 2)))
    assert world.free() == before


def test_a_policy_that_fails_costs_no_memory():
    class Refuses(TopDownIova):
        def take(self, iova, size):
            raise AddressInUse(f"{iova:#x} is mine", iova=iova, size=size)

    ram = PhysSpace("ram", width=32)
    frames = Frames(ram.at(BASE), 64 * PAGE)
    domain = PagedDomain(BusSpace("nic", width=32), frames=frames, output_space=ram, iova=Refuses(PAGE, 0xFFFF_FFFF))
    free = frames.free_count
    with pytest.raises(AddressInUse, match="0x8000 is mine"):
        domain.alloc_at(BusRange(domain.input_space.at(0x8000), PAGE))
    domain.check()
    assert frames.free_count == free


def test_where_nothing_is_allocated_it_says_so():
    ram, bus = PhysSpace("ram", width=32), BusSpace("nic", width=32)
    with pytest.raises(NotSupported) as caught:
        IdentityDomain(bus, ram).alloc_at(BusRange(bus.at(0x8000), PAGE))
    assert str(caught.value) == "4096 bytes can't be allocated in an identity domain: it gives out no addresses"


@pytest.mark.parametrize("kind", ["paged", "linear"])
def test_memory_is_put_into_what_a_caller_holds(kind):
    """The range stays held when the mapping goes; over a window its memory was taken with it."""
    world = World(kind)
    domain, held = world.domain, world.range(4, 8)
    before = world.free()
    domain.hold(held)
    holding = world.free()
    mappings = [domain.alloc_at(world.range(page, pages)) for page, pages in ((4, 1), (6, 3), (11, 1))]
    others = [domain.alloc(PAGE) for _ in range(4)]
    assert all(each.iova.stop <= held.start.value or held.stop <= each.iova.start.value for each in others)
    for page, pages in ((4, 1), (8, 2), (10, 2), (3, 2), (11, 2)):
        with pytest.raises(AddressInUse):
            domain.alloc_at(world.range(page, pages))
    domain.check()
    with pytest.raises(Busy) as caught:
        domain.drop(held)
    assert str(caught.value) == f"some of {held!r} is mapped in the domain of 'nic'"
    for each in [*mappings, *others]:
        domain.release(each)
    domain.check()
    assert world.free() == holding
    domain.release(domain.alloc_at(held))
    assert all(each.iova.start.value not in range(held.start.value, held.stop) for each in [domain.alloc(PAGE)])
    for each in domain.mappings():
        domain.release(each)
    domain.drop(held)
    assert world.free() == before
    domain.check()


def test_a_map_by_hand_and_a_mapping_share_a_held_range():
    world = World("paged")
    domain, held = world.domain, world.range(0, 8)
    domain.hold(held)
    mapping = domain.alloc_at(world.range(2, 2))
    hand = held.start + 5 * PAGE
    domain.map(hand, world.ram.at(0x5000_0000), PAGE)
    with pytest.raises(AddressInUse) as caught:
        domain.map(held.start + PAGE, world.ram.at(0x5000_0000), 2 * PAGE)
    assert str(caught.value) == "0x2000 bytes at 0x80001000 lie partly in the live mapping at 0x80002000"
    with pytest.raises(AddressInUse):
        domain.alloc_at(world.range(5, 1))
    domain.check()
    assert domain.unmap(hand, PAGE) == PAGE
    domain.release(mapping)
    domain.drop(held)
    domain.check()
