"""Bus addresses that a caller keeps for himself."""

import pytest

from swiommu.address import BusRange, BusSpace, PhysRange, PhysSpace
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NotFound, SpaceMismatch
from swiommu.iommu import PagedDomain
from swiommu.memory import Frames

PAGE = 4096
MIB = 1 << 20
ram = PhysSpace("ram", width=40)


@pytest.fixture
def domain():
    return PagedDomain(BusSpace("nic", width=32), frames=Frames(ram.at(0), 4 * MIB), output_space=ram)


def bus(domain, start, size=MIB):
    return BusRange(domain.input_space.at(start), size)


def test_nobody_is_given_what_is_held(domain):
    top = bus(domain, 0xFFF0_0000)
    domain.hold(top)
    assert domain.alloc(PAGE).iova.stop <= top.start.value
    assert domain.bind([PhysRange(ram.at(0x9000_0000), PAGE)]).iova.stop <= top.start.value
    domain.map(top.start, ram.at(0x5000), PAGE)
    assert domain.unmap(top.start, PAGE) == PAGE
    assert domain.alloc(PAGE).iova.stop <= top.start.value  # unmapping gives nothing back
    domain.check()
    domain.drop(top)
    assert domain.alloc(PAGE).iova.start.value == 0xFFFF_F000
    domain.check()


def test_what_can_not_be_held_and_dropped(domain):
    held = bus(domain, 0x10_0000)
    domain.hold(held)
    mapping = domain.alloc(PAGE)
    domain.map(domain.input_space.at(0x8000_0000), ram.at(0), PAGE)
    for where, error in [
        (held, AddressInUse),
        (bus(domain, 0x1F_F000), AddressInUse),
        (mapping.iova, AddressInUse),
        (bus(domain, 0x8000_0000), AddressInUse),
        (bus(domain, 0x4000_0800), InvalidArgument),
        (bus(domain, 0x4000_0000, 5000), InvalidArgument),
        (BusRange(BusSpace("other").at(0), PAGE), SpaceMismatch),
    ]:
        with pytest.raises(error):
            domain.hold(where)
    domain.check()
    for where in (bus(domain, 0x10_0000, PAGE), bus(domain, 0x11_0000), mapping.iova):
        with pytest.raises(NotFound):
            domain.drop(where)
    domain.map(domain.input_space.at(0x18_0000), ram.at(0), PAGE)
    with pytest.raises(Busy) as caught:
        domain.drop(held)
    assert str(caught.value) == "some of BusRange(nic:0x100000+0x100000) is mapped in the domain of 'nic'"
    domain.unmap(domain.input_space.at(0x18_0000), PAGE)
    domain.release(mapping)
    with pytest.raises(Busy) as destroyed:
        domain.destroy()
    assert str(destroyed.value) == "the domain of 'nic' has 1 ranges held"
    domain.drop(held)
    domain.unmap(domain.input_space.at(0x8000_0000), PAGE)
    domain.destroy()


def test_addresses_beyond_the_policy_are_held_only_once(domain):
    zero = bus(domain, 0, PAGE)  # the default policy leaves the first page out
    domain.hold(zero)
    with pytest.raises(AddressInUse):
        domain.hold(zero)
    domain.check()
    domain.drop(zero)


def test_binding_keeps_an_alignment(domain):
    pieces = [PhysRange(ram.at(0x9000_1000), PAGE)]
    assert [domain.bind(pieces, align=MIB).iova.start.value % MIB for _ in range(3)] == [0, 0, 0]
