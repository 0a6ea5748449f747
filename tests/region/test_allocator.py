"""What every registered allocator promises a region."""

import copy
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import AddressInUse, InvalidArgument, NoMemory, NotFound
from swiommu.region import Allocator, BestFit, FailSwitch, allocator_names, make_allocator, register_allocator

PAGE = 4096
START = 0x4000_0000
BUILT_IN = ["best_fit", "bitmap", "buddy", "first_fit", "tlsf"]


@pytest.fixture(params=BUILT_IN)
def allocator(request):
    return make_allocator(request.param, START, 64 * PAGE)


def test_it_is_an_allocator(allocator):
    assert isinstance(allocator, Allocator)
    assert (allocator.start, allocator.size, allocator.page_size) == (START, 64 * PAGE, PAGE)
    assert allocator.name in allocator_names()


def test_free_is_the_inverse_of_alloc_and_nothing_leaks(allocator):
    taken = [(allocator.alloc(n * PAGE, PAGE << n % 4), n * PAGE) for n in range(1, 9)]
    assert all(start % (PAGE << n % 4) == 0 for n, (start, _) in enumerate(taken, 1))
    for start, size in taken[::2] + taken[1::2]:
        allocator.free(start, size)
        with pytest.raises(NotFound):
            allocator.free(start, size)
        allocator.check()
    assert allocator.holes() == [(START, 64 * PAGE)]
    assert allocator.free_space == 64 * PAGE


def test_a_reserved_range_is_never_handed_out_and_comes_back(allocator):
    allocator.reserve(START + 3 * PAGE, 5 * PAGE)
    for size in (PAGE, 5 * PAGE, 6 * PAGE):
        with pytest.raises(AddressInUse):
            allocator.reserve(START + 7 * PAGE, size)
    taken = []
    while allocator.fits(PAGE, PAGE):
        taken.append(allocator.alloc(PAGE, PAGE))
    assert len(taken) == 59
    assert not {START + page * PAGE for page in range(3, 8)} & set(taken)
    allocator.free(START + 3 * PAGE, 5 * PAGE)
    assert allocator.holes() == [(START + 3 * PAGE, 5 * PAGE)]


def test_whatever_call_fails_nothing_changes(allocator):
    for n in range(1, 6):
        holes = allocator.holes()
        allocator.fail_nth(n)
        taken = [allocator.alloc(2 * PAGE, PAGE) for _ in range(n - 1)]
        before = allocator.holes()
        assert allocator.fits(2 * PAGE, PAGE)  # asking is not allocating: the switch stays armed
        with pytest.raises(NoMemory) as caught:
            allocator.alloc(2 * PAGE, PAGE)
        assert str(caught.value) == "this allocation of 8192 bytes was told to fail"
        assert allocator.holes() == before
        taken.append(allocator.alloc(2 * PAGE, PAGE))
        for start in taken:
            allocator.free(start, 2 * PAGE)
        allocator.check()
        assert allocator.holes() == holes


def test_fits_changes_nothing_that_shows_later(allocator):
    twin = make_allocator(allocator.name, START, 64 * PAGE)
    for each in (allocator, twin):
        taken = [each.alloc(PAGE, PAGE) for _ in range(64)]
        for start in taken[1::3] + taken[0::6]:
            each.free(start, PAGE)
    for n in range(30):
        assert allocator.fits((n % 3 + 1) * PAGE, PAGE << n % 7) in {True, False}
    assert [allocator.alloc(PAGE, PAGE) for _ in range(20)] == [twin.alloc(PAGE, PAGE) for _ in range(20)]


@given(st.lists(st.tuples(st.booleans(), st.integers(-1, 8), st.integers(0, 6)), max_size=40))
@pytest.mark.parametrize("name", BUILT_IN)
def test_parts_of_what_is_taken_may_be_freed_and_nothing_else(name, operations):
    allocator, free = make_allocator(name, 32 * PAGE, 8 * PAGE), set(range(8))
    for give, first, count in operations:
        wanted = set(range(first, first + count))
        before = copy.deepcopy(allocator)
        call = allocator.free if give else allocator.reserve
        if wanted and wanted <= (set(range(8)) - free if give else free):
            call((32 + first) * PAGE, count * PAGE)
            free ^= wanted
        else:
            with pytest.raises(NotFound if give else AddressInUse):
                call((32 + first) * PAGE, count * PAGE)
            assert allocator.holes() == before.holes()
        allocator.check()
        assert {
            page - 32 for start, size in allocator.holes() for page in range(start // PAGE, (start + size) // PAGE)
        } == free


@pytest.mark.parametrize("name", ["buddy", "tlsf"])
def test_some_deal_in_whole_pages_only(name):
    allocator = make_allocator(name, START, 8 * PAGE)
    allocator.reserve(START, 4 * PAGE)
    for start, size in [(START + 1, PAGE), (START, PAGE + 1), (START, PAGE - 1)]:
        with pytest.raises(NotFound) as caught:
            allocator.free(start, size)
        assert str(caught.value) == f"{size} bytes at {start:#x} are not allocated"
        with pytest.raises(AddressInUse) as caught:
            allocator.reserve(start + 4 * PAGE, size)
        assert str(caught.value) == f"{size} bytes at {start + 4 * PAGE:#x} are not all free"
    with pytest.raises(InvalidArgument) as caught:
        make_allocator(name, START + 1, PAGE)
    assert str(caught.value) == "0x1000 bytes at 0x40000001 are not whole pages of 4096 bytes"


def test_padding_goes_with_the_last_byte_of_an_allocation():
    buddy = make_allocator("buddy", 0, 8 * PAGE)
    assert (buddy.alloc(5 * PAGE, PAGE), buddy.padding, buddy.free_space) == (0, 3 * PAGE, 0)
    buddy.free(PAGE, PAGE)
    assert (buddy.padding, buddy.holes()) == (3 * PAGE, [(PAGE, PAGE)])
    with pytest.raises(NotFound):
        buddy.free(4 * PAGE, 2 * PAGE)  # the padding was never asked for
    buddy.free(3 * PAGE, 2 * PAGE)
    assert (buddy.padding, buddy.holes()) == (0, [(PAGE, PAGE), (3 * PAGE, 5 * PAGE)])
    buddy.check()
    with pytest.raises(InvalidArgument) as caught:
        make_allocator("buddy", 0, PAGE, max_order=-1)
    assert str(caught.value) == "a block can't have 2**-1 pages"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("buddy", "no block for 12288 bytes aligned to 4096: 20480 bytes are free, the largest block of 8192"),
        ("first_fit", "no hole for 12288 bytes aligned to 4096: 20480 bytes are free in 3 holes, the largest of 8192"),
        ("tlsf", "no hole for 12288 bytes aligned to 4096: 20480 bytes are free in 3 holes, the largest of 8192"),
    ],
)
def test_refusals_are_sentences(name, text):
    allocator = make_allocator(name, START, 8 * PAGE)
    for page in (2, 5, 6):
        allocator.reserve(START + page * PAGE, PAGE)
    with pytest.raises(NoMemory) as caught:
        allocator.alloc(3 * PAGE, PAGE)
    assert str(caught.value) == text
    assert (caught.value.size, caught.value.align, caught.value.free_space) == (3 * PAGE, PAGE, 5 * PAGE)


def test_names_are_registered_once_and_suggested():
    with pytest.raises(InvalidArgument) as caught:
        register_allocator("best_fit", BestFit)
    assert str(caught.value) == "an allocator named 'best_fit' is registered already"
    with pytest.raises(InvalidArgument) as caught:
        register_allocator("", BestFit)
    assert str(caught.value) == "an allocator needs a name, not ''"
    with pytest.raises(InvalidArgument) as caught:
        make_allocator("best-fit", 0, PAGE)
    assert str(caught.value) == "no allocator is named 'best-fit'; did you mean 'best_fit'?"
    with pytest.raises(InvalidArgument) as caught:
        make_allocator("zz", 0, PAGE)
    assert str(caught.value) == f"no allocator is named 'zz'; there are {', '.join(allocator_names())}"


def test_the_switch_strikes_once():
    switch = FailSwitch()
    assert not switch.strike()
    switch.arm(1)
    assert [switch.strike() for _ in range(3)] == [True, False, False]
    with pytest.raises(InvalidArgument) as caught:
        switch.arm(0)
    assert str(caught.value) == "call number 0 can't be made to fail: the next call is number 1"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("best_fit", "BestFit(0x40000000, 0x40000, free_space=258048, holes=1)"),
        ("buddy", "Buddy(0x40000000, 0x40000, free_space=258048, padding=0)"),
        ("first_fit", "FirstFit(0x40000000, 0x40000, free_space=258048, holes=1)"),
        ("tlsf", "Tlsf(0x40000000, 0x40000, free_space=258048, holes=1)"),
        ("bitmap", "Bitmap(0x40000000, 0x40000, order_per_bit=0, profile='6.12', free_bits=63)"),
    ],
)
def test_repr_says_where_and_how_full(name, text):
    allocator = make_allocator(name, START, 64 * PAGE)
    allocator.alloc(PAGE, PAGE)
    assert repr(allocator) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_many_live_blocks_stay_consistent_and_leak_nothing(name):
    chance, allocator = random.Random(5), make_allocator(name, START, 1 << 32)
    live = []
    for step in range(30_000):
        if step % 3 < 2:
            size = chance.choice([1, 1, 2, 3, 5, 16]) * PAGE
            live.append((allocator.alloc(size, PAGE << chance.randrange(4)), size))
        else:
            index = chance.randrange(len(live))
            live[index], live[-1] = live[-1], live[index]
            allocator.free(*live.pop())
    allocator.check()
    pieces = sorted(live + allocator.holes())
    padded = name == "buddy"
    assert all(
        start + size <= after if padded else start + size == after
        for (start, size), (after, _) in itertools.pairwise(pieces)
    )
    for start, size in live:
        allocator.free(start, size)
    assert allocator.holes() == [(START, 1 << 32)]
