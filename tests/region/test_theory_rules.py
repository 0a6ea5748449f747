"""What holds for holes and blocks whatever the program does, and what holds on average."""

import contextlib
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import Prot
from swiommu.errors import NoMemory
from swiommu.pagetable import MOCK, CountingTables, RadixTable
from swiommu.region import Buddy, FirstFit, make_allocator

PAGE = 4096
START = 0x4000_0000
ALL = ["best_fit", "bitmap", "buddy", "first_fit", "tlsf"]
# Those that cut a hole at one of its ends, so that a request takes away a hole or none; a buddy system cuts blocks
# out of the middle of what is one hole to everybody else.
AT_AN_END = ["best_fit", "bitmap", "first_fit", "tlsf"]


def pages_held(name, pages):
    return 1 << (pages - 1).bit_length() if name == "buddy" else pages


def hole_identity(allocator, held):
    """Both sides of "2M = 2A + B + borders": M holes, A blocks between two of them, B blocks beside one.

    ``held`` is (start, size) of every block. A border is a side of a hole where the range ends.
    """
    holes = allocator.holes()
    sides = {start for start, _ in holes} | {start + size for start, size in holes}
    neighbours = sum((start in sides) + (start + size in sides) for start, size in held)
    borders = (allocator.start in sides) + (allocator.start + allocator.size in sides)
    return 2 * len(holes), neighbours + borders


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25)
@given(data=st.data())
def test_every_hole_has_two_sides_after_every_operation(name, data):
    units = data.draw(st.integers(8, 64))
    allocator = make_allocator(name, START, units * PAGE)
    held = {}
    for _ in range(data.draw(st.integers(1, 40))):
        if held and data.draw(st.booleans()):
            start = data.draw(st.sampled_from(sorted(held)))
            allocator.free(start, held.pop(start) * PAGE)
        else:
            pages = data.draw(st.integers(1, 8))
            with contextlib.suppress(NoMemory):  # a full range keeps the identity too
                held[allocator.alloc(pages * PAGE, PAGE << data.draw(st.integers(0, 3)))] = pages
        holes, sides = hole_identity(
            allocator, [(start, pages_held(name, pages) * PAGE) for start, pages in held.items()]
        )
        assert holes == sides, f"{allocator!r} {allocator.holes()} {held}"


@pytest.mark.parametrize("name", ALL)
def test_the_identity_sees_a_hole_that_was_not_melted(name):
    allocator = make_allocator(name, START, 16 * PAGE)
    first, second = allocator.alloc(PAGE, PAGE), allocator.alloc(PAGE, PAGE)
    allocator.free(first, PAGE)
    blocks = [(second, PAGE)]
    assert len(set(hole_identity(allocator, blocks))) == 1
    torn = [(START, PAGE), (START + 2 * PAGE, PAGE), (START + 3 * PAGE, 13 * PAGE)]
    allocator = type("Torn", (), {"holes": lambda self: torn, "start": START, "size": 16 * PAGE})()
    assert hole_identity(allocator, blocks) == (6, 4)


SIZES = {
    "uniform 1..100": tuple(range(1, 101)),
    "uniform 1..10": tuple(range(1, 11)),
    "powers of two 1..32": (1, 2, 4, 8, 16, 32),
}


def equilibrium(name, sizes, *, steps, live, seed):
    """(holes, p): mean number of holes, and the share of requests that did not fill a hole exactly.

    ``live`` blocks are kept up by giving back a random one for each new one; the first third of the steps settles.
    """
    chance = random.Random(seed)
    allocator = make_allocator(name, START, 4 * live * max(sizes) * PAGE)
    held, holes, requests, misfits = [], 0, 0, 0
    for step in range(steps):
        size = chance.choice(sizes) * PAGE
        before = len(allocator.holes())
        held.append((allocator.alloc(size, PAGE), size))
        if step >= steps // 3:
            after = len(allocator.holes())
            requests, misfits, holes = requests + 1, misfits + (after == before), holes + after
        if len(held) >= live:
            index = chance.randrange(len(held))
            held[index], held[-1] = held[-1], held[index]
            allocator.free(*held.pop())
    return holes / requests, misfits / requests


def assert_fifty_percent(name, sizes, *, steps, live=210):
    holes, misfits = equilibrium(name, SIZES[sizes], steps=steps, live=live, seed=1)
    assert holes == pytest.approx(misfits * live / 2, rel=0.05), f"p = {misfits}, {holes} holes"


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", AT_AN_END)
def test_there_are_half_as_many_holes_as_blocks(name, sizes):
    assert_fifty_percent(name, sizes, steps=9_000)


@pytest.mark.parametrize(
    ("sizes", "holes", "misfits"),
    [("uniform 1..100", 94.0, 0.902), ("uniform 1..10", 53.2, 0.508), ("powers of two 1..32", 36.2, 0.352)],
)
def test_first_fit_settles_where_other_simulations_do(sizes, holes, misfits):
    found = equilibrium("first_fit", SIZES[sizes], steps=9_000, live=210, seed=1)
    assert found == (pytest.approx(holes, rel=0.05), pytest.approx(misfits, abs=0.03))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", AT_AN_END)
def test_there_are_half_as_many_holes_as_blocks_for_long(name, sizes):
    assert_fifty_percent(name, sizes, steps=100_000)


def reach_of_bad_program(order):
    """Pages that a buddy system reaches up to under the program that Knuth gives for it, and the most that lived.

    All is filled with single pages. Then, for each larger block: what does not begin at a multiple of it is given
    back, so that one page stays in the way of each, and what was given back is asked for in blocks of that size.
    """
    live = 2 << order
    buddy = Buddy(0, 8 * live * PAGE, max_order=order)
    held = {buddy.alloc(PAGE, PAGE): PAGE for _ in range(live)}
    most = live
    for each in range(1, order + 1):
        block = PAGE << each
        for start in [start for start in held if start % block]:
            buddy.free(start, held.pop(start))
        for _ in range(live >> (each + 1)):
            held[buddy.alloc(block, PAGE)] = block
        most = max(most, sum(held.values()) // PAGE)
    return max(start + size for start, size in held.items()) // PAGE, most


@pytest.mark.parametrize("order", range(1, 9))
def test_a_buddy_system_has_a_bad_program(order):
    live = 2 << order
    reach, most = reach_of_bad_program(order)
    assert most == live
    assert live + order * live // 2 <= reach <= (order + 1) * live


@pytest.mark.parametrize("order", [2, 4])
def test_first_fit_stays_within_its_bound(order):
    chance, largest = random.Random(order), 1 << order
    live = 16 * largest
    bound = math.floor(live * sum(1 / size for size in range(1, largest + 1)) / math.log(2))
    fit, held, taken = FirstFit(0, bound * PAGE), {}, 0
    for step in range(4000):
        # Sizes grow and shrink in waves, which is what makes holes that the next size can't use.
        size = 1 << min(order, chance.randrange(step // 100 % (order + 1) + 1))
        while taken + size > live:
            start = chance.choice(sorted(held))
            taken -= held[start]
            fit.free(start * PAGE, held.pop(start) * PAGE)
        held[fit.alloc(size * PAGE, PAGE) // PAGE] = size
        taken += size


@pytest.mark.parametrize(
    ("size", "tables", "percent"),
    [
        (8 << 10, 4, 200),
        (64 << 10, 4, 25),
        (600 << 10, 4, 2.7),
        (829440, 4, 2.0),
        (2 << 20, 4, 0.78),
        (1920 * 1080 * 4, 7, 0.35),
        (64 << 20, 35, 0.21),
        (256 << 20, 131, 0.20),
    ],
)
def test_page_tables_of_a_buffer(size, tables, percent):
    pages = -(-size // PAGE)
    assert sum(-(-pages // 512**level) for level in range(1, 5)) == tables
    table = RadixTable(MOCK, CountingTables())
    table.map_run(1 << 30, 1 << 30, PAGE, pages, Prot.READ)
    assert table.table_pages == tables
    assert tables * PAGE / size * 100 == pytest.approx(percent, rel=0.03)


def test_a_large_leaf_saves_a_table():
    table = RadixTable(MOCK, CountingTables())
    table.map_run(1 << 30, 1 << 30, 2 << 20, 1, Prot.READ)
    assert table.table_pages == 3
