import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import AddressInUse, InvalidArgument, NoMemory, NotFound
from swiommu.region import BestFit

PAGE = 4096


class Transcription:
    """Section 14 of the notes line by line: holes as [start, size, stamp] in no order, sorted for every search."""

    def __init__(self, start, size):
        self.stamp = 0
        self.holes = []
        self.skipped = 0
        self.insert([start, size, 0])

    def insert(self, hole):
        self.stamp += 1
        hole[2] = self.stamp
        self.holes.append(hole)

    def alloc(self, size, align):
        self.skipped = 0
        for hole in sorted(self.holes, key=lambda hole: (hole[1], -hole[2])):
            if hole[1] < size:
                continue
            a = -(-hole[0] // align) * align
            end = hole[0] + hole[1]
            if a < end and end - a >= size:
                return self.take(hole, size, align, a)
            self.skipped += 1
        return None

    def take(self, hole, size, align, a):
        end = hole[0] + hole[1]
        if size == hole[1]:
            self.holes.remove(hole)
            return hole[0]
        if a not in {hole[0], end - size}:
            left = end - (a + size)
            if left % align == 0:
                a += left
            else:
                self.insert([a + size, left, 0])
                hole[1] = a + size - hole[0]
        if a == hole[0]:
            hole[0] += size
        hole[1] -= size
        self.holes.remove(hole)
        self.insert(hole)
        return a

    def free(self, start, size):
        for hole in list(self.holes):
            if hole[0] + hole[1] == start or hole[0] == start + size:
                self.holes.remove(hole)
                start, size = min(start, hole[0]), size + hole[1]
        self.insert([start, size, 0])


def by_address(twin):
    return sorted((start, size) for start, size, _ in twin.holes)


steps = st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9), st.integers(0, 4)), max_size=60)


@given(steps, st.sampled_from([0, 3 * PAGE, 0x1234]), st.integers(8 * PAGE, 64 * PAGE))
def test_best_fit_is_section_14(operations, start, size):
    fit, twin, live = BestFit(start, size), Transcription(start, size), []
    for choice, pages, order in operations:
        if choice < 40 and live:
            chunk = live.pop(choice % len(live))
            fit.free(*chunk)
            twin.free(*chunk)
        else:
            wanted, align = pages * PAGE, PAGE << order
            fits = fit.fits(wanted, align)
            place = twin.alloc(wanted, align)
            assert fits is (place is not None)
            if place is None:
                with pytest.raises(NoMemory):
                    fit.alloc(wanted, align)
            else:
                assert fit.alloc(wanted, align) == place
                live.append((place, wanted))
            assert fit.skipped == twin.skipped
        fit.check()
        assert fit.holes() == by_address(twin)
        # The order among equal holes shows only in later placements: compare it now.
        ours = [(key[2], key[0]) for key in fit._by_size]
        assert ours == [(h[0], h[1]) for h in sorted(twin.holes, key=lambda h: (h[1], -h[2]))]
    for chunk in live:
        fit.free(*chunk)
    assert fit.holes() == [(start, size)]
    assert fit.free_space == size


pages = st.tuples(st.integers(-2, 18), st.integers(-1, 18))


@given(st.lists(st.tuples(st.booleans(), pages), max_size=40))
def test_ranges_reserved_and_freed_behave_like_a_set_of_pages(operations):
    fit, free = BestFit(0, 16 * PAGE), set(range(16))
    for give, (first, count) in operations:
        wanted = set(range(first, first + count))
        before = (fit.holes(), list(fit._by_size))
        error = NotFound if give else AddressInUse
        right = bool(wanted) and wanted <= set(range(16)) and (not wanted & free if give else wanted <= free)
        call = fit.free if give else fit.reserve
        if right:
            call(first * PAGE, count * PAGE)
            free = free | wanted if give else free - wanted
        else:
            with pytest.raises(error):
                call(first * PAGE, count * PAGE)
            assert (fit.holes(), list(fit._by_size)) == before
        fit.check()
        assert {page for start, size in fit.holes() for page in range(start // PAGE, (start + size) // PAGE)} == free


def test_the_newest_of_equal_holes_serves_first():
    fit = BestFit(0, 8 * PAGE)
    fit.alloc(8 * PAGE, PAGE)
    for page in (1, 5, 3):
        fit.free(page * PAGE, PAGE)
    assert [fit.alloc(PAGE, PAGE) // PAGE for _ in range(3)] == [3, 5, 1]


def test_a_chunk_is_pushed_to_the_end_of_the_hole_only_if_it_is_aligned_there():
    assert BestFit(PAGE, 7 * PAGE).alloc(2 * PAGE, 2 * PAGE) == 6 * PAGE
    assert BestFit(PAGE, 6 * PAGE).alloc(2 * PAGE, 2 * PAGE) == 2 * PAGE


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda fit: fit.alloc(4 * PAGE, 4 * PAGE),
            NoMemory,
            (
                "no hole for 16384 bytes aligned to 16384: 20480 bytes are free in 1 holes, the largest of 20480; "
                "1 were refused for their alignment"
            ),
        ),
        (lambda fit: fit.free(PAGE, PAGE), NotFound, "4096 bytes at 0x1000 are not allocated"),
        (lambda fit: fit.reserve(0, PAGE), AddressInUse, "4096 bytes at 0x0 are not all free"),
        (lambda fit: fit.alloc(100, PAGE), InvalidArgument, "100 bytes are not a whole number of pages of 4096 bytes"),
        (
            lambda fit: fit.fits(PAGE, 6144),
            InvalidArgument,
            "an alignment of 6144 bytes is not a power of two of at least a page of 4096 bytes",
        ),
        (lambda fit: BestFit(0, 0), InvalidArgument, "0 bytes at 0x0 can't be allocated from"),
        (lambda fit: BestFit(0, 1, page_size=3), InvalidArgument, "a page of 3 bytes is not a power of two"),
    ],
)
def test_errors_are_sentences(call, error, text):
    fit = BestFit(PAGE, 5 * PAGE)
    with pytest.raises(error) as caught:
        call(fit)
    assert str(caught.value) == text
    assert fit.holes() == [(PAGE, 5 * PAGE)]


def test_check_finds_what_is_broken():
    fit = BestFit(0, 4 * PAGE)
    fit._runs.total -= 1
    with pytest.raises(AssertionError, match="miscounted: FreeRuns of 16384 bits, total 16383"):
        fit.check()
    fit = BestFit(0, 4 * PAGE)
    fit._insert(2 * PAGE, PAGE)
    with pytest.raises(AssertionError, match="keys are others: BestFit 0x0"):
        fit.check()
