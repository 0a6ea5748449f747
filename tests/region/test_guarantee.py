"""A promise kept whatever the neighbours do, and the same workload broken without it."""

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import BusSpace, PhysSpace
from swiommu.errors import Busy, InvalidArgument, NoMemory, NotFound
from swiommu.region import Guarantee, Region, first_fit_reserve, robson_bound

PAGE = 4096
MIB = 1 << 20
# Worst cases of first fit for sizes 1..m with n live units, as {(n, m): units}; found by searching all games.
FIRST_FIT = {(2, 2): 2, (4, 2): 6, (8, 2): 12, (7, 3): 13, (6, 3): 10, (4, 4): 6, (7, 4): 13}
# The same for the best that any allocator could do, sizes {1, 2, 4} or {1, 2}.
OPTIMAL = {(4, 4): 5, (8, 4): 13, (2, 2): 2, (4, 2): 5, (6, 2): 8, (8, 2): 11}


def region_of(pages, space=None):
    return Region((space or PhysSpace("ram", width=40)).at(0x4000_0000), pages * PAGE, allocator="first_fit")


def checkerboard(alloc, free):
    """A neighbour that fills what it can with single pages and gives every other one back."""
    taken = []
    try:
        while True:
            taken.append(alloc(PAGE))
    except NoMemory:
        pass
    for chunk in taken[::2]:
        free(chunk)
    return taken[1::2]


def test_the_same_workload_breaks_without_the_promise():
    """The device lives on half of what is free, and is refused: no hole is two pages long."""
    total, largest, pages = MIB, 16 * PAGE, 4096
    shared = region_of(pages)
    checkerboard(shared.alloc, shared.free)
    assert shared.free_space > 4 * total
    with pytest.raises(NoMemory):
        shared.alloc(largest)
    promised = region_of(pages)
    promise = Guarantee(promised, total, largest)
    checkerboard(promised.alloc, promised.free)
    live = [promise.alloc(largest) for _ in range(total // largest)]
    assert promise.live_bytes == total
    for chunk in live:
        promise.free(chunk)
    promise.check()
    promise.end()
    assert promised.free_space > shared.free_space


def test_robsons_and_first_fits_numbers_are_on_their_sides_of_what_games_show():
    for (n, m), units in OPTIMAL.items():
        assert robson_bound(n * PAGE, m * PAGE) <= units * PAGE, (n, m)
        assert robson_bound(n * PAGE, m * PAGE) == units * PAGE or n % m
    for (n, m), units in FIRST_FIT.items():
        assert robson_bound(n * PAGE, m * PAGE) <= units * PAGE <= first_fit_reserve(n * PAGE, m * PAGE), (n, m)
    for live, largest, mib, ratio in ((256, 16, 1776, 12.83), (64, 8, 408, 11.83), (32, 1, 159, 8.84)):
        assert robson_bound(live * MIB, largest * MIB) / MIB == pytest.approx(mib, abs=0.5)
        assert first_fit_reserve(live * MIB, largest * MIB) / (live * MIB) == pytest.approx(ratio, abs=0.005)


@given(st.integers(4, 40), st.integers(1, 4), st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=80))
def test_nothing_that_was_promised_is_ever_refused(total, parts, steps):
    largest = max(total // parts, 1)
    promise = Guarantee(region_of(4096), total * PAGE, largest * PAGE)
    live = []
    for number, (wanted, gives) in enumerate(steps):
        size = min(wanted, largest)
        if gives and live:
            promise.free(live.pop(number * 7 % len(live)))
        elif promise.live_bytes + size * PAGE <= total * PAGE:
            live.append(promise.alloc(size * PAGE - number % PAGE))
        else:
            with pytest.raises(NoMemory):
                promise.alloc(size * PAGE)
        promise.check()


@pytest.mark.parametrize("order", [3, 5, 7])
def test_an_adversary_of_first_fit_finds_the_part_large_enough(order):
    """Doubling sizes; of every block that is given back one that keeps a hole too short stays."""
    largest = 1 << order
    total = 8 * largest
    promise = Guarantee(region_of(200_000), total * PAGE, largest * PAGE)
    live = [promise.alloc(PAGE) for _ in range(total)]
    highest = 0
    for k in range(1, order + 1):
        keep, last = [], None
        for chunk in sorted(live, key=lambda chunk: chunk.start.value):
            slot = chunk.start.value // PAGE >> k
            if slot == last:
                promise.free(chunk)
            else:
                keep.append(chunk)
            last = slot
        live = keep
        while promise.live_bytes + (PAGE << k) <= promise.total:
            live.append(promise.alloc(PAGE << k))
        highest = max(highest, *(chunk.stop for chunk in live))
        promise.check()
    used = highest - 0x4000_0000
    assert total * PAGE < used <= promise.reserved_bytes
    assert Fraction(used, total * PAGE) > Fraction(3, 2)


def test_random_neighbours_change_nothing():
    space, draw = BusSpace("codec", width=32), random.Random(5)
    region = region_of(20_000, space)
    promise, others, own = Guarantee(region, 256 * PAGE, 64 * PAGE), [], []
    for _ in range(2000):
        if draw.random() < 0.5 or not others:
            try:
                others.append(region.alloc(draw.randint(1, 300) * PAGE))
            except NoMemory:
                region.free(others.pop(draw.randrange(len(others))))
        size = draw.randint(1, 64) * PAGE
        while promise.live_bytes + size > promise.total:
            promise.free(own.pop(draw.randrange(len(own))))
        own.append(promise.alloc(size))
    promise.check()
    region.check()


def test_what_is_refused():
    region = region_of(64)
    for total, largest in ((100, 100), (PAGE, 2 * PAGE)):
        with pytest.raises(InvalidArgument) as caught:
            Guarantee(region, total, largest)
        assert str(caught.value) == (
            f"{total} bytes in blocks of up to {largest}: neither can be less than a page of 4096, "
            "nor a block larger than all of them"
        )
    with pytest.raises(NoMemory):
        Guarantee(region, 64 * PAGE, 8 * PAGE)
    assert region.free_space == 64 * PAGE
    promise = Guarantee(region, 8 * PAGE, PAGE)
    assert promise.reserved_bytes == 8 * PAGE  # blocks of one page leave no holes
    chunk = promise.alloc(1)
    with pytest.raises(Busy) as caught:
        promise.end()
    assert str(caught.value) == "1 blocks of 4096 bytes live in the part"
    foreign = region.alloc(PAGE)
    with pytest.raises(NotFound):
        promise.free(foreign)
    promise.free(chunk)
    with pytest.raises(NotFound):
        promise.free(chunk)
    assert promise.live_bytes == 0
    promise.end()
    region.free(foreign)
    assert region.free_space == 64 * PAGE
