"""What domains of one region keep from it together: it goes back with the last, and to nobody else before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import BusSpace, PhysSpace
from swiommu.errors import AddressInUse, InvalidArgument
from swiommu.iommu import LinearDomain
from swiommu.iommu.withheld import Withheld
from swiommu.layer import Reserved
from swiommu.region import Region

BASE, PAGE, PAGES = 0x4000_0000, 4096, 16


def make():
    ram = PhysSpace("ram", width=40)
    region = Region(ram.at(BASE), PAGES * PAGE)
    return ram, region, Withheld(region)


def taken(region):
    return {at for chunk in region.chunks() for at in range(chunk.start.value, chunk.stop, PAGE)}


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.none() | st.tuples(st.integers(0, PAGES - 1), st.integers(1, 6))), max_size=20
)


@given(STEPS)
def test_holders_keep_at_least_what_they_took_and_the_last_gives_all_back(steps):
    _, region, withheld = make()
    kept = {}
    for holder, what in steps:
        if what is None:
            withheld.give(holder)
            kept.pop(holder, None)
        else:
            first, count = what[0], min(what[1], PAGES - what[0])
            withheld.take(holder, BASE + first * PAGE, BASE + (first + count) * PAGE)
            kept.setdefault(holder, set()).update(BASE + at * PAGE for at in range(first, first + count))
        assert taken(region) >= set().union(*kept.values())
        region.check()
    for holder in "abc":
        withheld.give(holder)
    assert region.users == 0


def test_a_part_that_was_given_out_is_refused_and_nothing_is_kept():
    ram, region, withheld = make()
    region.reserve(ram.at(BASE + PAGE), PAGE)
    with pytest.raises(AddressInUse) as caught:
        withheld.take("nic", BASE + PAGE, BASE + 2 * PAGE)
    assert str(caught.value) == (
        "4096 bytes at PhysAddr(ram:0x40001000) can't be reserved: Chunk(ram:0x40001000+0x1000) is there"
    )
    withheld.give("nic")
    assert region.users == 1


def test_two_domains_of_a_region_reserve_the_same_addresses():
    _, region, withheld = make()
    one, two = (LinearDomain(BusSpace(name, width=32), region, withheld=withheld) for name in ("one", "two"))
    messages = Reserved(BASE + PAGE, 2 * PAGE, "msi")
    one.reserve(messages)
    two.reserve(messages)
    assert taken(region) == {BASE + PAGE, BASE + 2 * PAGE}
    one.destroy()
    assert taken(region) == {BASE + PAGE, BASE + 2 * PAGE}
    two.destroy()
    assert region.users == 0


def test_without_sharing_the_second_is_refused():
    _, region, _ = make()
    one, two = (LinearDomain(BusSpace(name, width=32), region) for name in ("one", "two"))
    one.reserve(Reserved(BASE, PAGE, "msi"))
    with pytest.raises(AddressInUse) as caught:
        two.reserve(Reserved(BASE, PAGE, "msi"))
    assert str(caught.value) == (
        "0x40000000 to 0x40000fff can't be reserved in the domain of 'two': its region has given out "
        "Chunk(ram:0x40000000+0x1000)"
    )


def test_what_is_withheld_from_another_region_is_refused():
    _, region, _ = make()
    _, other, withheld = make()
    with pytest.raises(InvalidArgument) as caught:
        LinearDomain(BusSpace("one", width=32), region, withheld=withheld)
    assert str(caught.value) == f"{other!r} is withheld from, not {region!r}"
