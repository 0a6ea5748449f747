"""Kernel lines that wait for the call that asked for them: maps and area calls."""

import itertools

import pytest

from swiommu.trace.waiting import AreaCall, AreaLedger, MapLedger, MapLine

PAGE = 4096
TASK, OTHER = (0, 7, 0), (1, 8, 0)


@pytest.fixture
def maps():
    """A ledger with lines made by ``add(context, iova, size)``, whose row counts up."""
    ledger, rows = MapLedger(), itertools.count()

    def add(context, iova, size=PAGE):
        line = MapLine(next(rows), iova, size, context)
        ledger.add(line)
        return line

    ledger.make = add
    return ledger


def test_a_call_claims_its_own_newest_lines_from_its_address_on(maps):
    older = maps.make(TASK, 0x1000)
    first, second = maps.make(TASK, 0x5000), maps.make(TASK, 0x6000, 2 * PAGE)
    maps.make(OTHER, 0x5000)
    assert maps.claim(TASK, 0x5000, 0x8000) == [first, second]
    assert maps.claim(TASK, 0x5000, 0x8000) == []
    assert maps.claim(TASK, 0x1000, 0x2000) == [older]


@pytest.mark.parametrize(
    "lines",
    [
        [(0x5000, PAGE), (0x9000, PAGE)],  # a gap
        [(0x6000, PAGE)],  # begins above the address
        [(0x4000, PAGE)],  # below it
        [(0x5000, PAGE), (0x6000, PAGE), (0x1000, PAGE)],  # another's line came after
        [],
    ],
)
def test_lines_that_do_not_reach_down_to_the_address_are_anothers(lines, maps):
    for line in lines:
        maps.make(TASK, *line)
    assert maps.claim(TASK, 0x5000, 0x10000) == []
    assert sum(map(len, maps.runs())) == len(lines)


def test_what_was_claimed_is_not_ended(maps):
    maps.make(TASK, 0x5000)
    maps.claim(TASK, 0x5000, 0x6000)
    assert maps.unmap(0x5000, PAGE, row=99) == []


def test_an_unmap_ends_lines_from_end_to_end_and_shortens_the_last(maps):
    one, two = maps.make(TASK, 0x5000), maps.make(OTHER, 0x6000, 4 * PAGE)
    assert maps.unmap(0x5000, 3 * PAGE, row=99) == [one]
    assert (two.iova, two.left) == (0x8000, 2 * PAGE)
    assert maps.unmap(0x6000, PAGE, row=99) == []
    assert maps.unmap(0x8000, 2 * PAGE, row=99) == [two]
    assert list(maps.runs()) == []


def test_an_unmap_does_not_end_what_was_mapped_after_it(maps):
    before, after = maps.make(TASK, 0x5000), maps.make(OTHER, 0x5000)
    assert maps.unmap(0x5000, PAGE, row=after.row) == [before]
    assert maps.unmap(0x5000, PAGE, row=after.row) == []
    assert maps.unmap(0x5000, PAGE, row=after.row + 1) == [after]


def test_runs_are_neighbours_of_one_context(maps):
    lines = [maps.make(TASK, at) for at in (0x1000, 0x2000, 0x9000)]
    other = maps.make(OTHER, 0x3000)
    assert list(maps.runs()) == [lines[:2], lines[2:], [other]]


# -- the area ---------------------------------------------------------------------------------------------------------


def finish(ledger, pfn, count=4, context=TASK):
    call = AreaCall(0, count, pfn, context)
    ledger.finish(call)
    return call


def test_the_call_of_the_same_context_and_size_is_the_allocations():
    ledger = AreaLedger()
    ledger.start(TASK)
    call = finish(ledger, 0x40)
    assert ledger.claim(OTHER, 4, at=0x40, asks=True) == []
    assert ledger.claim(TASK, 4, at=0x99, asks=True) == [call]
    assert ledger.claim(TASK, 4, at=0x99, asks=True) == []


def test_a_call_of_another_size_was_somebody_elses():
    ledger = AreaLedger()
    finish(ledger, 0x40, count=3)
    assert ledger.claim(TASK, 4, at=0x40, asks=True) == []
    assert ledger.claim(TASK, 3, at=0x40, asks=True) == []


def test_an_allocation_that_cannot_ask_has_a_call_only_if_it_is_there():
    ledger = AreaLedger()
    there = finish(ledger, 0x40)
    assert ledger.claim(TASK, 4, at=0x40, asks=False) == [there]
    finish(ledger, 0x40)
    assert ledger.claim(TASK, 4, at=0x99, asks=False) == []


def test_failures_wait_for_the_attempt_that_serves_and_successes_do_not():
    ledger = AreaLedger()
    failures = []
    for _ in range(5):
        ledger.start(TASK)
        failures.append(finish(ledger, None))
    ledger.start(TASK)
    served = finish(ledger, 0x40)
    assert ledger.claim(TASK, 4, at=0x40, asks=True) == [*failures[-3:], served]
    finish(ledger, 0x60)
    ledger.start(TASK)
    assert ledger.claim(TASK, 4, at=0x60, asks=True) == []


def test_a_release_takes_the_call_that_waits_for_it():
    ledger = AreaLedger()
    finish(ledger, 0x40)
    ledger.take(0x41)
    ledger.take(0x40)
    ledger.take(0x40)
    assert ledger.claim(TASK, 4, at=0x40, asks=True) == []
