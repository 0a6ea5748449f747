"""Where one bus address leads, and from where something is led to: on every kind of domain, against a dict."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import BusRange, BusSpace, PhysRange, PhysSpace
from swiommu.errors import AddressInUse, SpaceMismatch
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.iommu.groups import BlockedDomain, IdentityDomain
from swiommu.memory import Frames
from swiommu.pagetable.formats import FORMATS
from swiommu.region import Region

PAGE, BASE, DELTA = 4096, 0x4000_0000, 0x1000_0000
LARGE = 0x20_0000


def paged(**options):
    ram = PhysSpace("ram", width=40)
    frames = Frames(ram.at(BASE), 1 << 20)
    return PagedDomain(BusSpace("nic", width=options.pop("width", 40)), frames=frames, output_space=ram, **options)


def linear():
    ram = PhysSpace("ram", width=40)
    return LinearDomain(BusSpace("nic", width=40), Region(ram.at(BASE), 1 << 20), delta=DELTA)


def test_a_leaf_says_how_far_it_holds():
    domain = paged()
    nic, ram = domain.input_space, domain.output_space
    domain.map(nic.at(LARGE), ram.at(BASE), LARGE + PAGE)
    span = domain.at(nic.at(LARGE + 0x1234))
    assert (span.output, span.leaf_size, span.extent) == (ram.at(BASE + 0x1234), LARGE, BusRange(nic.at(LARGE), LARGE))
    span = domain.at(nic.at(2 * LARGE + 8))
    assert (span.output, span.leaf_size) == (ram.at(BASE + LARGE + 8), PAGE)
    assert span.extent == BusRange(nic.at(2 * LARGE), PAGE)
    assert [domain.at(nic.at(at)) for at in (0, LARGE - 1, 2 * LARGE + PAGE)] == [None] * 3


def test_a_window_says_how_far_its_record_goes_to_the_byte():
    domain = linear()
    nic, ram = domain.input_space, domain.output_space
    packet = domain.bind([PhysRange(ram.at(BASE + 0x200), 1500)])
    span = domain.at(packet.iova.start + 100)
    assert (span.output, span.leaf_size, span.extent) == (ram.at(BASE + 0x264), PAGE, packet.iova)
    assert domain.at(nic.at(BASE + DELTA + 0x1FF)) is domain.at(nic.at(BASE + DELTA + 0x200 + 1500)) is None
    assert domain.leading_to(PhysRange(ram.at(BASE), PAGE)) == [packet.iova]
    assert domain.leading_to(PhysRange(ram.at(BASE + 0x300), 8)) == [BusRange(nic.at(BASE + DELTA + 0x300), 8)]


@pytest.mark.parametrize(("wide", "memory", "reach"), [(32, 40, 32), (48, 40, 40), (40, 40, 40)])
def test_where_every_address_leads_to_itself(wide, memory, reach):
    bus, ram = BusSpace("pci", width=wide), PhysSpace("ram", width=memory)
    domain = IdentityDomain(bus, ram)
    span = domain.at(bus.at(0x1234))
    assert (span.output, span.leaf_size, span.extent) == (ram.at(0x1234), 1, BusRange(bus.at(0), 1 << reach))
    assert domain.leading_to(PhysRange(ram.at(0x8000), 24)) == [BusRange(bus.at(0x8000), 24)]
    assert domain.mapped() == [(0, 1 << reach)]
    last = PhysRange(ram.at((1 << memory) - PAGE), PAGE)
    assert domain.leading_to(last) == ([BusRange(bus.at(last.start.value), PAGE)] if reach == memory else [])
    if wide > memory:
        assert domain.at(bus.at(1 << memory)) is domain.iova_to_phys(bus.at(1 << memory)) is None


def test_where_no_address_leads_anywhere():
    bus, ram = BusSpace("pci", width=48), PhysSpace("ram", width=40)
    domain = BlockedDomain(bus, ram)
    assert domain.at(bus.at(0x1234)) is None
    assert domain.leading_to(PhysRange(ram.at(0), 1 << 40)) == domain.mapped() == []


def test_the_upper_half_of_a_sign_extended_format():
    domain = paged(width=64, format=FORMATS["x86-64-4"])
    nic, ram = domain.input_space, domain.output_space
    upper = (1 << 64) - LARGE
    domain.map(nic.at(upper), ram.at(LARGE), LARGE)
    span = domain.at(nic.at(upper + 5))
    assert (span.output, span.leaf_size, span.extent) == (ram.at(LARGE + 5), LARGE, BusRange(nic.at(upper), LARGE))
    assert domain.iova_to_phys(nic.at(upper + 5)) == domain.iova_to_memory(nic.at(upper + 5)) == ram.at(LARGE + 5)
    assert domain.leading_to(PhysRange(ram.at(LARGE + 8), 8)) == [BusRange(nic.at(upper + 8), 8)]
    assert [domain.at(nic.at(at)) for at in (1 << 47, (1 << 63) + 8, upper - 1)] == [None] * 3  # no inputs, and a hole


def test_a_stack_answers_for_its_own_stage():
    lower = paged()
    upper = PagedDomain(BusSpace("guest", width=32), below=lower)
    buffer = upper.alloc(3 * PAGE)
    span = upper.at(buffer.iova.start + 8)
    assert (span.output, span.leaf_size) == (buffer.pieces[0].start + 8, PAGE)
    assert upper.leading_to(buffer.pieces[0]) == [BusRange(buffer.iova.start, buffer.pieces[0].size)]
    assert [each for part in buffer.memory for each in lower.leading_to(part)] == [
        BusRange(piece.start, piece.size) for piece in buffer.pieces
    ]


def test_addresses_of_others_are_refused():
    domain, other = paged(), BusSpace("other", width=40)
    with pytest.raises(SpaceMismatch) as caught:
        domain.at(other.at(8))
    assert str(caught.value) == "BusAddr(other:0x8) is no address of the domain's bus space 'nic'"
    with pytest.raises(SpaceMismatch) as caught:
        domain.leading_to(BusRange(other.at(8), 8))
    assert str(caught.value) == "BusAddr(other:0x8) is no address of the domain's output space 'ram'"


RANGE = st.tuples(st.integers(0, 1100), st.integers(0, 1100), st.sampled_from([1, 2, 3, 512, 513]))


@given(maps=st.lists(RANGE, max_size=8), gone=st.lists(RANGE, max_size=2), asked=RANGE)
@settings(max_examples=60)
def test_both_ways_are_those_of_a_dict(maps, gone, asked):
    """Pages mapped at random, some of them to the same memory, some of them by large leaves."""
    domain = paged(partial="split")
    nic, ram, pages = domain.input_space, domain.output_space, {}
    for at, to, count in maps:
        try:
            domain.map(nic.at(at * PAGE), ram.at(to * PAGE), count * PAGE)
        except AddressInUse:
            continue
        pages |= {at + page: to + page for page in range(count)}
    for at, _, count in gone:
        done = domain.unmap(nic.at(at * PAGE), count * PAGE) // PAGE
        for page in range(at, at + done):
            del pages[page]
    for page in {0, *(page + step for at in pages for page, step in ((at, -1), (at, 0), (at, 1)) if page + step >= 0)}:
        span = domain.at(nic.at(page * PAGE + 7))
        assert (span is None) == (page not in pages)
        if span is not None:
            assert span.output == ram.at(pages[page] * PAGE + 7) == domain.iova_to_phys(nic.at(page * PAGE + 7))
            first, count = span.extent.start.value // PAGE, span.extent.size // PAGE
            assert (span.leaf_size, first % count) == (span.extent.size, 0)
            shift = pages[page] - page
            assert all(pages[each] == each + shift for each in range(first, first + count))
    _, to, count = asked
    found = domain.leading_to(PhysRange(ram.at(to * PAGE), count * PAGE))
    led = {page for each in found for page in range(each.start.value // PAGE, each.stop // PAGE)}
    assert led == {page for page, output in pages.items() if to <= output < to + count}
    assert all(one.stop < other.start.value for one, other in pairwise(found))
