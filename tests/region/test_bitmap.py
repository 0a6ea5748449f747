import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import AddressInUse, Busy, InvalidArgument, NoMemory, NotFound, OutOfRange
from swiommu.region import Bitmap

PAGE = 4096


class BitLoop:
    """cma_alloc and cma_release with a real bit for each 2**order_per_bit pages, one bit looked at after another."""

    def __init__(self, base_pfn, count, order_per_bit):
        self.base_pfn, self.count, self.o = base_pfn, count, order_per_bit
        self.used = [False] * (count >> order_per_bit)
        self.states = {}

    def need(self, count):
        return -(-count // 2**self.o)

    def alloc(self, count, align):
        step = 2 ** (align - self.o) if align > self.o else 1
        off = (self.base_pfn % 2**align) >> self.o
        need, retries, start = self.need(count), 0, 0
        while True:
            for b in range(start, len(self.used) - need + 1):
                if (b + off) % step == 0 and not any(self.used[b : b + need]):
                    break
            else:
                return None, retries, errno.EBUSY if retries else errno.ENOMEM
            pfn = self.base_pfn + (b << self.o)
            states = [self.states[page] for page in range(pfn, pfn + count) if self.states.get(page)]
            if not states:
                self.used[b : b + need] = [True] * need
                return pfn, retries, 0
            if states[0] == 2:
                return None, retries, errno.ENOMEM
            retries += 1
            start = b + 1

    def release(self, pfn, count):
        if count > self.count or not self.base_pfn <= pfn < self.base_pfn + self.count:
            return False
        b = (pfn - self.base_pfn) >> self.o
        for bit in range(b, min(b + self.need(count), len(self.used))):
            self.used[bit] = False
        return True


def runs_of(used):
    text = "".join(".#"[bit] for bit in used)
    runs, at = [], 0
    for part in text.split("#"):
        if part:
            runs.append((at, len(part)))
        at += len(part) + 1
    return runs


def ask(area, count, align):
    try:
        return area.alloc_pages(count, align), area.retries, 0
    except (NoMemory, Busy) as error:
        return None, error.retries, error.kernel_errno


steps = st.lists(
    st.tuples(st.sampled_from("aaarrb"), st.integers(0, 70), st.integers(1, 20), st.integers(0, 5)), max_size=40
)


@given(steps, st.integers(0, 40), st.integers(1, 70), st.integers(0, 3))
def test_the_search_over_runs_is_the_loop_over_bits(operations, base_pfn, pages, order_per_bit):
    area = Bitmap(base_pfn * PAGE, pages * PAGE, order_per_bit=order_per_bit)
    twin = BitLoop(base_pfn, pages, order_per_bit)
    for operation, where, count, order in operations:
        pfn = base_pfn + where
        if operation == "a":
            fits = area.fits(count * PAGE, PAGE << order)
            expected = twin.alloc(count, order)
            assert ask(area, count, order) == expected
            assert fits is (expected[0] is not None)
        elif operation == "r" and where + count <= pages:
            assert area.release(pfn, count) is twin.release(pfn, count)
        elif operation == "b":
            state = order % 3
            area.set_busy(pfn, count, state)
            twin.states |= dict.fromkeys(range(pfn, pfn + count), state)
        area.check()
        assert area.free_runs() == runs_of(twin.used)
        assert area.free_bits == twin.used.count(False)
        assert dict(area.busy) == {page: state for page, state in twin.states.items() if state}


@given(
    st.lists(st.booleans(), min_size=1, max_size=40),
    st.integers(0, 40),
    st.integers(1, 9),
    st.integers(0, 4),
    st.integers(0, 2),
)
def test_stepping_through_candidates_is_an_allocation_that_meets_only_busy_pages(used, base_pfn, count, order, unit):
    area, met = Bitmap(base_pfn * PAGE, (len(used) << unit) * PAGE, order_per_bit=unit), []
    for bit, is_used in enumerate(used):
        if is_used:
            area.reserve((base_pfn + (bit << unit)) * PAGE, PAGE)
    with pytest.raises((NoMemory, Busy)):
        area.alloc_pages(count, order, migrate=lambda pfn, _: met.append(pfn) or errno.EBUSY)
    stepped, pfn = [], area.candidate(count, order)
    while pfn is not None:
        stepped.append(pfn)
        pfn = area.candidate(count, order, after_pfn=pfn)
    assert stepped == met


byte_steps = st.lists(
    st.tuples(st.sampled_from(["free", "reserve"]), st.integers(-2, 20), st.integers(-1, 20)), max_size=30
)


@given(byte_steps, st.integers(0, 2))
def test_ranges_reserved_and_freed_behave_like_a_set_of_bits(operations, order_per_bit):
    area, unit = Bitmap(5 * PAGE, 18 * PAGE, order_per_bit=order_per_bit), 1 << order_per_bit
    bits = set(range(18 >> order_per_bit))
    free = set(bits)
    for operation, first, count in operations:
        wanted = set(range(first // unit, first // unit + -(-count // unit)))
        state = free if operation == "reserve" else bits - free
        call = getattr(area, operation)
        if count > 0 and first % unit == 0 and wanted <= state:
            call((5 + first) * PAGE, count * PAGE)
            free ^= wanted
        else:
            with pytest.raises(AddressInUse if operation == "reserve" else NotFound):
                call((5 + first) * PAGE, count * PAGE)
        area.check()
        assert {bit for start, length in area.free_runs() for bit in range(start, start + length)} == free
        assert area.free_space == len(free) * unit * PAGE == sum(size for _, size in area.holes())


@pytest.mark.parametrize(("profile", "error"), [("6.12", NoMemory), ("7.3", Busy)])
def test_profiles_name_a_full_area_differently(profile, error):
    area = Bitmap(0, 8 * PAGE, profile=profile)
    area.reserve(2 * PAGE, 2 * PAGE)
    area.reserve(6 * PAGE, 2 * PAGE)
    with pytest.raises(error) as caught:
        area.alloc_pages(3, 0)
    assert str(caught.value) == (
        "no place for 3 pages aligned to 2**0 pages: 4 of 8 bits are clear, at most 2 in a row, and 0 places were busy"
    )
    assert (caught.value.kernel_errno, caught.value.retries) == (error.errno, 0)


def odd_area(profile):
    """One bit of 4 pages is clear but only 1 page counts as available: a part of an allocation was released."""
    area = Bitmap(0, 8 * PAGE, order_per_bit=2, profile=profile)
    area.alloc_pages(4, 0)
    area.alloc_pages(4, 0)
    area.release(0, 1)
    assert (area.available, area.free_bits) == (1, 1)
    return area


def test_only_the_newer_profile_refuses_before_it_searches():
    assert odd_area("6.12").fits(2 * PAGE, PAGE)
    assert odd_area("6.12").alloc_pages(2, 0) == 0
    assert odd_area("6.12").candidate(2, 0) == 0
    assert not odd_area("7.3").fits(2 * PAGE, PAGE)
    assert odd_area("7.3").candidate(2, 0) is None
    with pytest.raises(Busy) as caught:
        odd_area("7.3").alloc_pages(2, 0, migrate=lambda *_: pytest.fail("searched"))
    assert str(caught.value) == "2 pages were asked for and 1 are available"
    assert caught.value.retries == 0


@pytest.mark.parametrize("profile", ["6.12", "7.3"])
def test_a_busy_range_is_stepped_over_and_a_full_area_after_it_is_busy(profile):
    area, asked = Bitmap(8 * PAGE, 16 * PAGE, profile=profile), []

    def migrate(pfn, count):
        asked.append((pfn, count))
        return errno.EBUSY if pfn < 16 else 0

    assert area.alloc_pages(3, 2, migrate=migrate) == 16
    assert (area.retries, asked) == (2, [(8, 3), (12, 3), (16, 3)])
    with pytest.raises(Busy) as caught:
        area.alloc_pages(3, 3, migrate=lambda *_: errno.EBUSY)
    assert str(caught.value) == (
        "no place for 3 pages aligned to 2**3 pages: 13 of 16 bits are clear, at most 8 in a row, "
        "and 1 places were busy"
    )
    assert (caught.value.retries, caught.value.kernel_errno, area.free_bits) == (1, errno.EBUSY, 13)


@pytest.mark.parametrize("profile", ["6.12", "7.3"])
@pytest.mark.parametrize("code", [errno.EINTR, errno.ENOMEM])
def test_a_hard_failure_ends_the_search_and_keeps_its_errno(profile, code):
    area, answers = Bitmap(0, 16 * PAGE, profile=profile), [errno.EBUSY, code, 0]
    with pytest.raises(NoMemory) as caught:
        area.alloc_pages(4, 2, migrate=lambda *_: answers.pop(0))
    assert str(caught.value) == (
        f"migrating pfn 0x4 for 4 pages aligned to 2**2 pages failed with errno {code} after 1 busy places"
    )
    assert (caught.value.kernel_errno, answers, area.free_bits) == (code, [0], 16)


def test_padding_of_a_bit_is_taken_but_not_migrated():
    area = Bitmap(0, 16 * PAGE, order_per_bit=2)
    area.set_busy(3, 1, 1)
    assert area.alloc_pages(3, 0) == 0
    assert (area.free_bits, area.available) == (3, 13)


def test_release_tests_the_first_page_and_keeps_no_record():
    area = Bitmap(0x100 * PAGE, 16 * PAGE)
    assert area.alloc_pages(8, 0) == 0x100
    assert [area.release(0xFF, 1), area.release(0x110, 1), area.release(0x100, 17)] == [False] * 3
    assert area.release(0x102, 3)
    assert area.free_runs() == [(2, 3), (8, 8)]
    with pytest.raises(OutOfRange) as caught:
        area.release(0x10F, 2)
    assert str(caught.value) == "2 pages from pfn 0x10f run over the end of the area at 0x110"
    assert not Bitmap(0, 16 * PAGE, profile="7.3").release(15, 2)


def test_an_area_smaller_than_a_bit_has_none():
    area = Bitmap(0, 3 * PAGE, order_per_bit=2)
    area.check()
    assert (area.free_space, area.holes(), area.release(0, 1)) == (0, [], True)
    with pytest.raises(NoMemory):
        area.alloc_pages(1, 0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda area: area.alloc_pages(0, 0), "0 pages aligned to 2**0 pages can't be allocated"),
        (lambda area: area.alloc_pages(1, -1), "1 pages aligned to 2**-1 pages can't be allocated"),
        (lambda area: area.release(0, -1), "-1 pages can't be released"),
        (lambda area: area.set_busy(0, 1, 3), "state 3 is none of 0 (normal), 1 (busy), 2 (fails)"),
        (lambda area: area.alloc(PAGE + 1, PAGE), "4097 bytes are not a whole number of pages of 4096 bytes"),
        (lambda _: Bitmap(1, PAGE), "0x1000 bytes at 0x1 are not whole pages of 4096 bytes"),
        (lambda _: Bitmap(0, PAGE, order_per_bit=-1), "a bit can't stand for 2**-1 pages"),
        (lambda _: Bitmap(0, PAGE, profile="new"), "'new' is no version of a kernel: one is needed such as 6.12"),
    ],
)
def test_wrong_calls_are_refused_in_a_sentence(call, text):
    area = Bitmap(0, 8 * PAGE)
    with pytest.raises(InvalidArgument) as caught:
        call(area)
    assert str(caught.value) == text
    assert area.free_bits == 8


def test_check_finds_a_lost_bit():
    area = Bitmap(0, 8 * PAGE)
    area._runs.total = 7
    with pytest.raises(AssertionError, match="miscounted: FreeRuns of 8 bits, total 7"):
        area.check()
