"""The policy of dma-iommu: who gets addresses below 4 GiB, and what callers may take and give back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import AddressInUse, InvalidArgument, NoSpace, NotFound
from swiommu.iommu import IovaDomain, LinuxIova

PAGE = 4096
LAST_32, LAST_48 = (1 << 32) - 1, (1 << 48) - 1


def crowded():
    """Nothing but one page is free below 4 GiB."""
    iova = LinuxIova()
    iova.reserve(0, LAST_32 - PAGE)
    return iova


def test_a_pci_device_gets_the_full_range_from_its_first_failure_on():
    iova = crowded()
    iova.device = "nvme"
    assert iova.alloc(PAGE, LAST_48, 1) == 0xFFFFF000
    assert not iova.uses_full_range
    assert iova.alloc(PAGE, LAST_48, 1) == LAST_48 + 1 - PAGE
    assert iova.uses_full_range
    iova.free(0xFFFFF000, PAGE)
    assert iova.alloc(2 * PAGE, LAST_48, 1) == LAST_48 + 1 - 4 * PAGE  # it does not look below again
    iova.device = "nic"
    assert not iova.uses_full_range
    assert iova.alloc(PAGE, LAST_48, 1) == 0xFFFFF000
    iova.check()


def test_the_attempt_below_4_gib_does_not_empty_the_caches():
    iova = crowded()
    at = iova.alloc(PAGE, LAST_32, 1)
    iova.free(at, PAGE)
    assert iova.alloc(64 * PAGE, LAST_48, 1) > LAST_32
    assert iova.allocator.stats.flushed == 0


@pytest.mark.parametrize("options", [{"pci": False}, {"forcedac": True}])
def test_other_devices_go_straight_to_the_full_range(options):
    assert LinuxIova(**options).alloc(PAGE, LAST_48, 1) == LAST_48 + 1 - PAGE


def test_a_limit_inside_a_granule_is_not_passed():
    iova = LinuxIova()
    assert iova.alloc(PAGE, 0x5234, 1) == 0x4000
    with pytest.raises(NoSpace) as caught:
        iova.alloc(PAGE, 0xFFF, 1)
    assert str(caught.value) == "no 4096 free bus bytes at or below 0xfff"


def test_more_alignment_than_the_size_has_by_nature_widens_the_range():
    iova = LinuxIova()
    at = iova.alloc(3 * PAGE, LAST_32, 1 << 20)
    assert at == 0xFFF00000
    with pytest.raises(AddressInUse):
        iova.take(at + 8 * PAGE, PAGE)
    iova.check()
    iova.free(at, 3 * PAGE)
    iova.allocator.flush_rcaches()
    assert iova.allocator.ranges() == []


def test_what_was_taken_goes_back_in_parts():
    iova = LinuxIova()
    iova.take(0x10000, 8 * PAGE)
    iova.free(0x12000, 2 * PAGE)
    iova.check()
    assert iova.allocator.ranges() == [(0x10, 0x11), (0x14, 0x17)]
    with pytest.raises(NotFound) as caught:
        iova.free(0x10000, 8 * PAGE)
    assert str(caught.value) == "0x8000 bus bytes at 0x10000 are not all taken"
    iova.take(0x12000, 2 * PAGE)
    iova.free(0x10000, 8 * PAGE)
    assert iova.allocator.ranges() == []


def test_an_address_that_lies_free_in_a_cache_can_be_taken():
    iova = LinuxIova()
    at = iova.alloc(PAGE, LAST_32, 1)
    iova.free(at, PAGE)
    iova.take(at, PAGE)
    with pytest.raises(AddressInUse) as caught:
        iova.take(at, PAGE)
    assert str(caught.value) == "0x1000 bus bytes at 0xfffff000 are not all free"
    assert iova.alloc(PAGE, LAST_32, 1) != at
    iova.check()


def test_what_is_taken_can_not_be_reserved_and_what_is_reserved_stays_so():
    iova = LinuxIova()
    iova.take(0x5000, PAGE)
    with pytest.raises(AddressInUse) as caught:
        iova.reserve(0x4000, 0x5FFF)
    assert str(caught.value) == "0x4000 to 0x5fff can't be reserved: part of it is taken"
    iova.reserve(0x6000, 0x7FFF)
    iova.reserve(0x7000, 0x8FFF)
    with pytest.raises(NotFound):
        iova.free(0x6000, PAGE)
    assert iova.alloc(PAGE, 0x8FFF, 1) == 0x4000
    iova.check()


def test_callers_mistakes():
    iova = LinuxIova()
    at = iova.alloc(4 * PAGE, LAST_32, 1)
    for attempt, kind, text in [
        (
            lambda: iova.alloc(0, LAST_32, 1),
            InvalidArgument,
            "0 bus bytes with alignment 1: at least 1 byte and a power of two are needed",
        ),
        (lambda: iova.free(at, 0), InvalidArgument, "a bus range of 0 bytes at 0xffffc000: at least 1 is needed"),
        (lambda: iova.free(at, PAGE), NotFound, "0x1000 bus bytes at 0xffffc000 are not all taken"),
        (lambda: iova.free(0x9000, PAGE), NotFound, "0x1000 bus bytes at 0x9000 are not all taken"),
    ]:
        with pytest.raises(kind) as caught:
            attempt()
        assert str(caught.value) == text
    iova.fail_nth(1)
    with pytest.raises(NoSpace) as caught:
        iova.alloc(PAGE, LAST_48, 1)
    assert str(caught.value) == "no 4096 bus bytes: this call was told to fail"
    assert not iova.uses_full_range
    iova.free(at, 4 * PAGE)
    iova.check()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("alloc"), st.integers(1, 40), st.sampled_from([1, PAGE, 8 * PAGE, 64 * PAGE])),
            st.tuples(st.just("free"), st.integers(0, 50)),
            st.tuples(st.just("take"), st.integers(0, 300), st.integers(1, 20)),
            st.tuples(st.just("cut"), st.integers(0, 300), st.integers(1, 20)),
        ),
        max_size=40,
    )
)
def test_nothing_is_handed_out_twice_and_nothing_leaks(calls):
    iova, given_out, taken = LinuxIova(IovaDomain(cpus=2), pci=False), [], set()
    last = 300 * PAGE - 1
    for number, call in enumerate(calls):
        iova.cpu = number % 2
        owned = taken | {page for at, size in given_out for page in range(at // PAGE, (at + size) // PAGE)}
        match call:
            case ("alloc", pages, align):
                try:
                    at = iova.alloc(pages * PAGE, last, align)
                except NoSpace:
                    continue
                assert at % align == 0
                assert at + pages * PAGE <= last + 1
                assert owned.isdisjoint(range(at // PAGE, at // PAGE + pages))
                given_out.append((at, pages * PAGE))
            case ("free", index) if given_out:
                iova.free(*given_out.pop(index % len(given_out)))
            case ("take", page, pages):
                wanted = set(range(page, page + pages))
                try:
                    iova.take(page * PAGE, pages * PAGE)
                except AddressInUse:
                    # A given range is wider than what was asked for, so its neighbours may be refused too.
                    assert given_out or owned & wanted
                else:
                    assert not owned & wanted
                    taken |= wanted
            case ("cut", page, pages):
                wanted = set(range(page, page + pages))
                try:
                    iova.free(page * PAGE, pages * PAGE)
                    taken -= wanted
                except NotFound:
                    assert not wanted <= taken
        iova.check()
    for at, size in given_out:
        iova.free(at, size)
    for page in taken:
        iova.free(page * PAGE, PAGE)
    iova.allocator.flush_rcaches()
    assert iova.allocator.ranges() == []
