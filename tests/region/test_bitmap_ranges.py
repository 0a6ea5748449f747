"""Areas of several ranges, beside one bit loop for each."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import AddressInUse, Busy, InvalidArgument, NoMemory, NotFound
from swiommu.region import Bitmap, BitmapRanges, make_allocator

PAGE = 4096


def area_of(*ranges, **options):
    low, high = ranges[0][0], sum(ranges[-1])
    pages = [(start * PAGE, count * PAGE) for start, count in ranges]
    return BitmapRanges(low * PAGE, (high - low) * PAGE, ranges=pages, **options)


def place_in(used, pages, count, order, unit, states):
    """(0 or errno, pfn or None, busy places) of one range: every bit looked at, as the kernel's loop would."""
    base, total = pages
    need, busy = -(-count >> unit), 0
    step, offset = 1 << max(order - unit, 0), base % (1 << order) >> unit
    for bit in range((total >> unit) - need + 1):
        pfn = base + (bit << unit)
        if (bit + offset) % step or any(used[base + (each << unit)] for each in range(bit, bit + need)):
            continue
        met = [states[page] for page in range(pfn, pfn + count) if states.get(page)]
        if not met:
            for each in range(bit, bit + need):
                used[base + (each << unit)] = True
            return 0, pfn, busy
        if met[0] == 2:
            return errno.ENOMEM, pfn, busy
        busy += 1
    return errno.EBUSY, None, busy


steps = st.lists(
    st.tuples(st.sampled_from("aaarb"), st.integers(0, 70), st.integers(1, 14), st.integers(0, 4)), max_size=30
)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 24)), min_size=1, max_size=4), steps, st.integers(0, 2))
def test_ranges_are_tried_in_their_order_and_the_next_only_while_busy(gaps, operations, unit):
    ranges, at = [], 3
    for gap, count in gaps:
        ranges.append((at + gap, count))
        at += gap + count
    area = area_of(*ranges, order_per_bit=unit)
    used = {base + (bit << unit): False for base, count in ranges for bit in range(count >> unit)}
    available, states, live = sum(count for _, count in ranges), {}, []
    for operation, where, count, order in operations:
        if operation == "b":
            area.set_busy(where, count, order % 3)
            states |= dict.fromkeys(range(where, where + count), order % 3)
        elif operation == "r" and live:
            pfn, size = live.pop(where % len(live))
            assert area.release(pfn, size)
            for page in range(pfn, pfn + size, 1 << unit):
                used[page] = False
            available += size
        elif operation == "a":
            code, place, retries = errno.EBUSY, None, 0
            fits = area.fits(count * PAGE, PAGE << order)
            for pages in ranges if count <= available else ():
                code, place, busy = place_in(used, pages, count, order, unit, states)
                retries += busy
                if code != errno.EBUSY:
                    break
            assert fits is (code == 0)
            if code:
                with pytest.raises(Busy if code == errno.EBUSY else NoMemory) as caught:
                    area.alloc_pages(count, order)
                assert (caught.value.kernel_errno, caught.value.retries) == (code, retries)
            else:
                assert (area.alloc_pages(count, order), area.retries) == (place, retries)
                available -= count
                live.append((place, count))
        area.check()
        assert area.available == available
        assert area.free_bits == list(used.values()).count(False)


def test_what_lies_between_ranges_is_never_anybodys():
    area = area_of((0, 4), (8, 4))
    assert area.holes() == [(0, 4 * PAGE), (8 * PAGE, 4 * PAGE)]
    for start, pages in [(5, 1), (3, 2), (3, 6)]:
        with pytest.raises(AddressInUse):
            area.reserve(start * PAGE, pages * PAGE)
        with pytest.raises(NotFound):
            area.free(start * PAGE, pages * PAGE)
        assert not area.release(start, pages)
    assert not area.fits(5 * PAGE, PAGE)
    with pytest.raises(Busy) as caught:
        area.alloc(5 * PAGE, PAGE)
    assert str(caught.value) == (
        "no range has a place for 5 pages aligned to 2**0 pages: 8 of 8 pages are available in 2 ranges, and 0 places "
        "were busy"
    )
    assert (area.alloc(4 * PAGE, PAGE), area.alloc(3 * PAGE, PAGE)) == (0, 8 * PAGE)
    assert area.free_extents() == "range 0: range 1: +1@3=> 1 free of 8 total pages"
    with pytest.raises(Busy) as caught:
        area.alloc(2 * PAGE, PAGE)
    assert str(caught.value) == "2 pages were asked for and 1 are available"
    area.free(0, 4 * PAGE)
    area.free(8 * PAGE, 3 * PAGE)
    assert (area.available, area.free_space) == (8, 8 * PAGE)


def test_a_hard_failure_ends_the_search_through_the_ranges():
    area = area_of((0, 4), (8, 4))
    area.set_busy(0, 4, 2)
    assert not area.fits(2 * PAGE, PAGE)
    with pytest.raises(NoMemory) as caught:
        area.alloc_pages(2, 0)
    assert str(caught.value) == "migrating pfn 0x0 for 2 pages aligned to 2**0 pages failed with errno 12"
    asked = []
    area.set_busy(0, 4, 0)
    assert area.alloc_pages(2, 0, migrate=lambda pfn, count: asked.append((pfn, count)) or (pfn < 8) * errno.EBUSY) == 8
    assert (asked, area.retries) == ([(0, 2), (1, 2), (2, 2), (8, 2)], 3)
    area.fail_nth(1)
    with pytest.raises(NoMemory):
        area.alloc_pages(1, 0)
    assert area.available == 6


def test_one_name_makes_both_kinds():
    assert isinstance(make_allocator("bitmap", 0, 8 * PAGE, profile="7.3"), Bitmap)
    made = make_allocator("bitmap", 0, 8 * PAGE, ranges=[(0, PAGE), (4 * PAGE, 4 * PAGE)], profile="7.3")
    assert repr(made) == "BitmapRanges(0x0+0x1000, 0x4000+0x4000, order_per_bit=0, free_bits=5)"


@pytest.mark.parametrize(
    ("ranges", "options", "text"),
    [
        ([], {}, "an area has 1 to 8 ranges, not 0"),
        ([(page * PAGE, 1) for page in range(9)], {}, "an area has 1 to 8 ranges, not 9"),
        (
            [(0, PAGE), (PAGE, PAGE)],
            {},
            "ranges 0x0+0x1000, 0x1000+0x1000 are not ascending and apart",
        ),
        ([(0, 9 * PAGE)], {}, "ranges 0x0+0x9000 are not all within 0x8000 bytes at 0x0"),
        ([(0, 5)], {}, "0x5 bytes at 0x0 are not whole pages of 4096 bytes"),
        ([(0, PAGE)], {"profile": "6.12"}, "kernel 6.12 has no areas of several ranges: they came with 6.15"),
    ],
)
def test_wrong_ranges_are_refused_in_a_sentence(ranges, options, text):
    with pytest.raises(InvalidArgument) as caught:
        make_allocator("bitmap", 0, 8 * PAGE, ranges=ranges, **options)
    assert str(caught.value) == text
