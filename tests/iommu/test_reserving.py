"""Reserved regions of stacked domains: what is refused and withheld is the same in whatever order things come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import Access, BusSpace, PhysSpace
from swiommu.device import BusDevice
from swiommu.errors import AddressInUse, NoMemory, OutOfRange, SwiommuError
from swiommu.iommu import LinearDomain, LinuxIova, PagedDomain
from swiommu.layer import Reserved, ReservedKind, reserved_regions
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import CountingTables
from swiommu.region import Region

MIB = 1 << 20
PAGE = 0x1000
WHERE = 0x8000_0000
ram = PhysSpace("ram", width=40)
DIRECT = Reserved(WHERE, 2 * PAGE, "direct")
MESSAGES = Reserved(0xFEE0_0000, MIB, "msi")
NEVER = Reserved(WHERE, 2 * PAGE)


def host(**options):
    return PagedDomain(BusSpace("host", width=40), frames=Frames(ram.at(0), 16 * MIB), output_space=ram, **options)


def on(lower, name="guest", **options):
    return PagedDomain(BusSpace(name, width=40), below=lower, **options)


def shim(lower, start=WHERE - MIB, size=4 * MIB, delta=0):
    region = Region(lower.input_space.at(start), size)
    return LinearDomain(BusSpace("shim", width=41), region, delta=delta, below=lower)


def at(domain, value):
    return domain.input_space.at(value)


# -- what must not be led to


@pytest.mark.parametrize("region", [NEVER, MESSAGES], ids=["reserved", "msi"])
def test_a_region_that_is_led_to_from_above_is_not_reserved(region):
    lower = host()
    upper = on(lower)
    upper.map(at(upper, 0x10_0000), at(lower, region.start), PAGE)
    with pytest.raises(AddressInUse) as caught:
        lower.reserve(region)
    assert str(caught.value) == (
        f"the {region} can't be reserved in the domain of 'host': 0x1000 bytes at {region.start:#x} are mapped by the "
        "domain of 'guest' at 0x100000"
    )
    assert (lower.node.reserved, upper.node.reserved) == ((), ())
    upper.unmap(at(upper, 0x10_0000), PAGE)
    lower.reserve(region)
    with pytest.raises(OutOfRange):
        upper.map(at(upper, 0x10_0000), at(lower, region.start), PAGE)


def test_a_region_behind_a_window_is_not_reserved_while_it_is_led_to():
    lower = host()
    window = shim(lower, delta=1 << 40)
    upper = on(window, tables=CountingTables())
    upper.map(at(upper, 0x10_0000), at(window, (1 << 40) + WHERE + PAGE), PAGE)
    with pytest.raises(AddressInUse) as caught:
        lower.reserve(NEVER)
    assert str(caught.value) == (
        "the reserved region [0x10080000000, 0x10080002000) can't be reserved in the domain of 'shim': 0x1000 bytes at "
        "0x10080001000 are mapped by the domain of 'guest' at 0x100000"
    )
    assert (lower.node.reserved, window.region.users) == ((), 0)


@pytest.mark.parametrize("first", ["region", "window"])
def test_chunks_that_lead_to_a_reserved_region_are_not_given_out(first):
    """The window shows it, so that no chunk may be there; a window around it is no mistake."""
    lower = host()
    if first == "region":
        lower.reserve(NEVER)
    window = shim(lower)
    if first == "window":
        lower.reserve(NEVER)
    chunks = [window.alloc(PAGE) for _ in range(4 * MIB // PAGE - 2)]
    with pytest.raises(NoMemory):
        window.alloc(PAGE)
    assert not any(chunk.iova.start.value in range(NEVER.start, NEVER.stop) for chunk in chunks)
    assert reserved_regions(window.node) == [NEVER]
    with pytest.raises(OutOfRange):
        window.map(at(window, WHERE), at(lower, WHERE), PAGE)
    for chunk in chunks:
        window.release(chunk)
    window.check()


def test_a_chunk_that_was_given_out_is_not_reserved():
    lower = host()
    window = shim(lower, start=WHERE)
    chunk = window.region.alloc(PAGE)
    with pytest.raises(AddressInUse) as caught:
        lower.reserve(NEVER)
    assert str(caught.value) == (
        "0x80000000 to 0x80001fff can't be reserved in the domain of 'shim': its region has given out "
        "Chunk(host:0x80000000+0x1000)"
    )
    assert lower.node.reserved == ()
    window.region.free(chunk)
    lower.reserve(NEVER)
    lower.reserve(Reserved(WHERE + PAGE, 2 * PAGE))  # a part of it is withheld already
    assert window.region.free_space == 4 * MIB - 3 * PAGE


# -- messages: the same numbers in every domain above


@pytest.mark.parametrize("first", ["region", "stack"])
def test_messages_are_a_hole_in_every_domain_above(first):
    lower = host()
    if first == "region":
        lower.reserve(MESSAGES)
    middle = on(lower, "middle")
    top = on(middle, "top")
    if first == "stack":
        lower.reserve(MESSAGES)
    for domain in (middle, top):
        assert domain.node.reserved == (MESSAGES,)
        with pytest.raises(AddressInUse):
            domain.map(at(domain, MESSAGES.start), at(domain.below, 0x5000), PAGE)
        assert domain.alloc(PAGE, limit=MESSAGES.stop - 1).iova.stop == MESSAGES.start
        domain.check()


def test_messages_that_are_in_use_far_above_are_not_reserved_anywhere():
    lower = host()
    middle = on(lower, "middle")
    top = on(middle, "top")
    top.map(at(top, MESSAGES.start), at(middle, 0x5000), PAGE)
    with pytest.raises(AddressInUse) as caught:
        lower.reserve(MESSAGES)
    assert str(caught.value) == "0xfee00000 to 0xfeefffff can't be reserved: part of it is taken"
    for domain in (lower, middle, top):
        assert domain.node.reserved == ()
        domain.check()
    middle.map(at(middle, MESSAGES.start), at(lower, 0x5000), PAGE)  # nothing was withheld on the way


# -- direct regions: withheld, but for the owner to map


@pytest.mark.parametrize("policy", [None, LinuxIova])
@pytest.mark.parametrize("kind", ["direct", "direct-relaxable"])
@pytest.mark.parametrize("order", ["map", "reserve", "half"])
def test_a_direct_region_is_mapped_before_or_after(kind, order, policy):
    domain = host(iova=None if policy is None else policy())
    region = Reserved(WHERE, 2 * PAGE, kind)
    if order == "half":
        domain.map(at(domain, WHERE), ram.at(WHERE), PAGE)
    elif order == "map":
        domain.map(at(domain, WHERE), ram.at(WHERE), 2 * PAGE)
    domain.reserve(region)
    if order == "reserve":
        domain.map(at(domain, WHERE), ram.at(WHERE), 2 * PAGE)
    elif order == "half":
        domain.map(at(domain, WHERE + PAGE), ram.at(WHERE + PAGE), PAGE)
    assert domain.translate(at(domain, WHERE), 2 * PAGE, Access.READ)[0].output == WHERE
    for _ in range(2):
        assert domain.alloc(PAGE, limit=WHERE + 2 * PAGE - 1).iova.stop <= WHERE
        assert domain.unmap(at(domain, WHERE), 2 * PAGE) == 2 * PAGE
        domain.check()
        domain.map(at(domain, WHERE), ram.at(WHERE), 2 * PAGE)
    domain.map(at(domain, WHERE - 4 * PAGE), ram.at(0), 2 * PAGE)  # its neighbours come and go as ever
    domain.unmap(at(domain, WHERE - 4 * PAGE), 2 * PAGE)
    domain.check()


def test_a_map_over_the_border_of_a_direct_region():
    domain = host()
    domain.reserve(DIRECT)
    domain.map(at(domain, WHERE - PAGE), ram.at(WHERE - PAGE), 4 * PAGE)
    domain.unmap(at(domain, WHERE - PAGE), 4 * PAGE)
    domain.check()
    domain.iova.take(WHERE - PAGE, PAGE)  # the neighbours went back
    domain.iova.take(WHERE + 2 * PAGE, PAGE)
    with pytest.raises(AddressInUse):
        domain.iova.take(WHERE, PAGE)


def test_a_direct_region_where_a_mapping_is():
    domain = host()
    mapping = domain.alloc(PAGE, limit=WHERE + PAGE - 1)
    with pytest.raises(AddressInUse) as caught:
        domain.reserve(DIRECT)
    assert str(caught.value) == ("0x80000000 to 0x80001fff can't be reserved: a mapping owns 0x80000000 to 0x80000fff")
    domain.release(mapping)
    domain.reserve(DIRECT)


@pytest.mark.parametrize("first", ["region", "stack"])
def test_a_device_is_attached_through_direct_regions(first):
    """Nobody else gets these addresses in any domain of the stack, and the owner can map them in all."""
    lower = host()
    nic = BusDevice("nic", SparseRam(ram))
    lower.attach(nic)
    if first == "region":
        lower.reserve(DIRECT)
    upper = on(lower)
    if first == "stack":
        lower.reserve(DIRECT)
    assert upper.alloc(PAGE, limit=DIRECT.stop - 1).iova.stop <= DIRECT.start
    lower.map(at(lower, WHERE), ram.at(WHERE), 2 * PAGE)
    upper.map(at(upper, WHERE), at(lower, WHERE), 2 * PAGE)
    upper.attach(nic)
    nic.write(at(upper, WHERE + PAGE), b"firmware")
    assert nic.ram.read(ram.at(WHERE + PAGE), 8) == b"firmware"
    for domain in (lower, upper):
        domain.check()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["map lower", "map upper", "lead", "reserve"]),
        st.integers(0, 5),
        st.sampled_from(list(ReservedKind)),
    ),
    max_size=6,
)


@given(STEPS, st.randoms(use_true_random=False))
def test_the_order_of_maps_and_regions_does_not_matter(steps, random):
    """If all steps are done in one order they are in any other, and the domains are sound after each."""

    def run(order):
        lower = host()
        upper = on(lower)
        done = True
        for what, page, kind in order:
            where = 0x10_0000 + page * PAGE
            try:
                if what == "map lower":
                    lower.map(at(lower, where), ram.at(where), PAGE)
                elif what == "map upper":
                    upper.map(at(upper, where), at(lower, 0x5000), PAGE)
                elif what == "lead":
                    upper.map(at(upper, 0x50_0000 + page * PAGE), at(lower, where), PAGE)
                else:
                    lower.reserve(Reserved(where, PAGE, kind))
            except SwiommuError:
                done = False
            lower.check()
            upper.check()
        return done

    unique = list({(what, page): (what, page, kind) for what, page, kind in steps}.values())  # one region a page
    shuffled = unique[:]
    random.shuffle(shuffled)
    assert run(unique) == run(shuffled)
