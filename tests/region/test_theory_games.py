"""How much memory some program can make an allocator need: all programs are played.

The tables are Robson's subject (1971 to 1977; Knuth, "The Art of Computer Programming" 1, 2.5, exercises 38 to 43).
``live`` is what a program may hold at a time, the number what it can make the allocator reach up to, both in units.
"""

import copy
import importlib.util
import math
from pathlib import Path

import pytest

from swiommu.errors import NoMemory
from swiommu.region import first_fit_reserve, make_allocator, robson_bound

_SPEC = importlib.util.spec_from_file_location("games", Path(__file__).with_name("games.py"))
games = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(games)

PAGE = 4096
UNITS = 64  # far more than any of these games needs

TO_2, TO_3, TO_4, POWERS = (1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 4)
BEST_POSSIBLE = {
    TO_2: {2: 2, 3: 4, 4: 5, 5: 7, 6: 8, 7: 10, 8: 11},
    TO_3: {3: 4, 4: 6, 5: 7, 6: 9, 7: 11},
    TO_4: {4: 6, 5: 8, 6: 9, 7: 12},
    POWERS: {4: 5, 5: 7, 6: 9, 7: 12, 8: 13},
}
FIRST_FIT = {
    TO_2: {2: 2, 3: 4, 4: 6, 5: 7, 6: 9, 7: 11, 8: 12},
    TO_3: {3: 4, 4: 6, 5: 8, 6: 10, 7: 13, 8: 15},
    TO_4: {4: 6, 5: 8, 6: 10, 7: 13, 8: 16},
    POWERS: {4: 6, 5: 8, 6: 10, 7: 13, 8: 16},
}
BEST_FIT = {
    TO_2: {2: 2, 3: 4, 4: 6, 5: 7, 6: 9, 7: 11, 8: 13},
    TO_3: {3: 4, 4: 6, 5: 8, 6: 10, 7: 13, 8: 16},
    TO_4: {4: 6, 5: 8, 6: 11, 7: 14, 8: 17},
    POWERS: {4: 6, 5: 8, 6: 11, 7: 13, 8: 17},
}
WORST_FIT = {
    TO_2: {2: 2, 3: 4, 4: 6, 5: 7, 6: 9, 7: 11, 8: 13},
    TO_3: {3: 4, 4: 6, 5: 8, 6: 10, 7: 13, 8: 16},
    TO_4: {4: 6, 5: 8, 6: 10, 7: 13, 8: 17},
    POWERS: {4: 6, 5: 8, 6: 10, 7: 13, 8: 17},
}
BUDDY = {2: {2: 2, 4: 6, 6: 8, 8: 12, 10: 14}, 4: {4: 8, 6: 12, 8: 16}}


def cells(table):
    return [
        pytest.param(sizes, live, needed, id=f"{','.join(map(str, sizes))}-live{live}")
        for sizes, row in table.items()
        for live, needed in row.items()
    ]


@pytest.mark.parametrize(("sizes", "live", "needed"), cells(BEST_POSSIBLE))
def test_no_allocator_does_with_less(sizes, live, needed):
    assert games.best_possible(live, sizes) == needed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "live", "needed"),
    [(TO_2, 9, 13), (TO_2, 10, 14), (TO_3, 8, 13), (TO_4, 8, 14)],
    ids=["1,2-9", "1,2-10", "1,2,3-8", "1,2,3,4-8"],
)
def test_no_allocator_does_with_less_either(sizes, live, needed):
    assert games.best_possible(live, sizes) == needed


@pytest.mark.parametrize(("sizes", "live", "needed"), cells(FIRST_FIT))
def test_first_fit_can_be_made_to_need(sizes, live, needed):
    assert games.worst_case(games.first_fit, live, sizes) == needed


@pytest.mark.parametrize(("sizes", "live", "needed"), cells(BEST_FIT))
def test_best_fit_by_address_can_be_made_to_need(sizes, live, needed):
    assert games.worst_case(games.best_fit, live, sizes) == needed


@pytest.mark.parametrize(("sizes", "live", "needed"), cells(WORST_FIT))
def test_worst_fit_can_be_made_to_need(sizes, live, needed):
    assert games.worst_case(games.worst_fit, live, sizes) == needed


@pytest.mark.parametrize(
    ("largest", "live", "needed"), [(largest, *cell) for largest, row in BUDDY.items() for cell in row.items()]
)
def test_a_buddy_system_refuses_nothing_from(largest, live, needed):
    assert games.smallest_buddy(live, largest) == needed


@pytest.mark.slow
@pytest.mark.parametrize(("largest", "live", "needed"), [(2, 12, 18), (4, 10, 20), (4, 12, 24)])
def test_a_larger_buddy_system_refuses_nothing_from(largest, live, needed):
    assert games.smallest_buddy(live, largest) == needed


def robson(live, largest):
    """Units that the best allocator needs for blocks of powers of two; ``live`` is a multiple of ``largest``."""
    return live * (largest.bit_length() - 1) // 2 + live - largest + 1


def test_the_formulas_and_the_games_agree():
    assert {live: (3 * live - 1) // 2 for live in BEST_POSSIBLE[TO_2]} == BEST_POSSIBLE[TO_2]
    assert [robson(live, 2) for live in (2, 4, 6, 8)] == [BEST_POSSIBLE[TO_2][live] for live in (2, 4, 6, 8)]
    assert [robson(live, 4) for live in (4, 8)] == [BEST_POSSIBLE[POWERS][live] for live in (4, 8)]


@pytest.mark.parametrize(
    ("live", "largest", "pages", "ratio", "first_fit", "buddy"),
    [
        (65536, 4096, 454657, 6.94, 12.83, 13),
        (65536, 1024, 392193, 5.98, 10.83, 11),
        (16384, 4096, 110593, 6.75, 12.83, 13),
        (16384, 2048, 104449, 6.38, 11.83, 12),
        (8192, 256, 40705, 4.97, 8.84, 9),
    ],
)
def test_what_a_guarantee_takes_in_pages(live, largest, pages, ratio, first_fit, buddy):
    assert robson(live, largest) == pages == robson_bound(live * PAGE, largest * PAGE) // PAGE
    assert round(pages / live, 2) == ratio
    assert round(harmonic(largest) / math.log(2), 2) == first_fit
    assert round(first_fit_reserve(live * PAGE, largest * PAGE) / (live * PAGE), 2) == first_fit
    assert largest.bit_length() == buddy


def test_which_apertures_can_never_be_too_fragmented():
    live, largest = 256 << 20, 16 << 20
    assert first_fit_reserve(live, largest) < 4 << 30
    assert robson_bound(live, largest) > 1 << 30  # here no allocator at all can promise it
    assert first_fit_reserve(10 << 20, 8 << 20) < 128 << 20 < first_fit_reserve(11 << 20, 8 << 20)


def harmonic(largest):
    return sum(1 / size for size in range(1, largest + 1))


def test_no_cell_leaves_its_bounds():
    for table in (FIRST_FIT, BEST_FIT, WORST_FIT):
        for sizes, row in table.items():
            assert all(needed >= BEST_POSSIBLE[sizes].get(live, 0) for live, needed in row.items())
    for sizes, row in FIRST_FIT.items():
        assert all(needed <= live * harmonic(max(sizes)) / math.log(2) for live, needed in row.items())
        assert all(BEST_FIT[sizes][live] >= needed for live, needed in row.items())
    for largest, row in BUDDY.items():
        # (r + 1) * live, for a live that is whole largest blocks
        assert all(need <= largest.bit_length() * live for live, need in row.items() if not live % largest)


def rule_of(name, units=UNITS, **options):
    """The rule by which an allocator of ours places, for those whose choice follows from what is free alone."""

    def place(taken, size):
        allocator = make_allocator(name, 0, units * PAGE, **options)
        for start, length in runs(taken):
            allocator.reserve(start * PAGE, length * PAGE)
        try:
            return allocator.alloc(size * PAGE, PAGE) // PAGE
        except NoMemory:
            return None

    return place


def runs(taken):
    """(start, size) of every run of taken units."""
    borders = [place for place in range(taken.bit_length() + 1) if (taken >> place & 1) != (taken << 1 >> place & 1)]
    return [(start, stop - start) for start, stop in zip(borders[::2], borders[1::2], strict=True)]


@pytest.mark.parametrize("name", ["first_fit", "bitmap"])
@pytest.mark.parametrize(("sizes", "live"), [(TO_2, 6), (TO_4, 5), (POWERS, 6)])
def test_our_first_fit_plays_by_the_rule(name, sizes, live):
    ours = rule_of(name)
    for taken, _, size, place in games.arenas_under(games.first_fit, live, sizes):
        assert ours(taken, size) == place


@pytest.mark.parametrize(("largest", "live"), [(2, 6), (4, 4), (4, 6)])
def test_our_buddy_plays_by_the_rule(largest, live):
    arena, order = BUDDY[largest][live], largest.bit_length() - 1
    sizes = [1 << each for each in range(order + 1)]
    for units in (arena - largest, arena):
        ours = rule_of("buddy", units, max_order=order)
        for taken, _, size, place in games.arenas_under(games.buddy(units, largest), live, sizes):
            assert ours(taken, size) == place


def played(name, live, sizes, memory):
    """`games.worst_case` of an allocator that remembers more than what is free: it is copied at every turn."""
    top, start = 0, make_allocator(name, 0, UNITS * PAGE)
    seen, open_ = set(), [(start, frozenset())]
    while open_:
        allocator, held = open_.pop()
        count = sum(size for _, size in held)
        after = []
        for place, size in held:
            other = copy.deepcopy(allocator)
            other.free(place * PAGE, size * PAGE)
            after.append((other, held - {(place, size)}))
        for size in sizes:
            if count + size <= live:
                other = copy.deepcopy(allocator)
                place = other.alloc(size * PAGE, PAGE) // PAGE
                top = max(top, place + size)
                after.append((other, held | {(place, size)}))
        for state in after:
            key = (state[1], memory(state[0]))
            if key not in seen:
                seen.add(key)
                open_.append(state)
    return top


# Holes of one size, the next to be used first: what decides beside the layout.
MEMORY = {
    "best_fit": lambda each: tuple(start for *_, start in each._by_size),
    "tlsf": lambda each: tuple(tuple(each._of_class(index)) for index in range(len(each._newest))),
}
REMEMBERING = [
    (name, sizes, live, BEST_FIT[sizes][live])
    for name in MEMORY
    for sizes, lives in ((TO_2, (4, 6)), (TO_3, (5, 6)), (TO_4, (5, 6)), (POWERS, (5, 6)))
    for live in lives
]


@pytest.mark.parametrize(("name", "sizes", "live", "needed"), REMEMBERING)
def test_newest_first_does_no_worse_than_lowest_first(name, sizes, live, needed):
    assert played(name, live, sizes, MEMORY[name]) == needed


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [TO_2, TO_3, TO_4, POWERS])
@pytest.mark.parametrize("name", MEMORY)
def test_newest_first_does_no_worse_with_seven_live(name, sizes):
    assert played(name, 7, sizes, MEMORY[name]) == BEST_FIT[sizes][7]
