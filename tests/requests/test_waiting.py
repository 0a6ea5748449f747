"""Kernel lines that wait for the call that asked for them: maps, bounces, area calls."""

import itertools

import pytest

from swiommu.requests.waiting import AreaLedger, BounceLedger, MapLedger, MapLine

PAGE = 4096
TASK, OTHER = (0, 7, 0), (1, 8, 0)


@pytest.fixture
def maps():
    """A ledger with lines made by ``add(context, iova, size)``, whose place counts up."""
    ledger, places = MapLedger(), itertools.count()

    def add(context, iova, size=PAGE, paddr=0x9000):
        line = MapLine(iova, size, paddr, size, context, next(places), 0, 1)
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


def test_what_was_claimed_is_no_longer_known(maps):
    maps.make(TASK, 0x5000)
    assert maps.knows(0x5000)
    maps.claim(TASK, 0x5000, 0x6000)
    assert not maps.knows(0x5000)
    assert maps.unmap(0x5000, PAGE, place=99) == []


def test_an_unmap_ends_lines_from_end_to_end_and_shortens_the_last(maps):
    one, two = maps.make(TASK, 0x5000), maps.make(OTHER, 0x6000, 4 * PAGE)
    assert maps.unmap(0x5000, 3 * PAGE, place=99) == [one]
    assert (two.iova, two.left, two.size) == (0x8000, 2 * PAGE, 4 * PAGE)
    assert maps.knows(0x8000)
    assert not maps.knows(0x6000)
    assert maps.unmap(0x8000, 2 * PAGE, place=99) == [two]
    assert list(maps.runs()) == []


def test_an_unmap_does_not_end_what_was_mapped_after_it(maps):
    before, after = maps.make(TASK, 0x5000), maps.make(OTHER, 0x5000)
    assert maps.unmap(0x5000, PAGE, place=after.place) == [before]
    assert maps.unmap(0x5000, PAGE, place=after.place) == []
    assert maps.unmap(0x5000, PAGE, place=after.place + 1) == [after]


def test_runs_are_neighbours_of_one_context(maps):
    lines = [maps.make(TASK, at) for at in (0x1000, 0x2000, 0x9000)]
    other = maps.make(OTHER, 0x3000)
    assert list(maps.runs()) == [lines[:2], lines[2:], [other]]


# -- bounces ----------------------------------------------------------------------------------------------------------


def test_bounces_are_claimed_by_device_address_and_context():
    ledger = BounceLedger()
    for context, device, phys, size in [
        (TASK, "nvme", 0x1000, 100),
        (TASK, "nvme", 0x2000, 10),
        (TASK, "eth", 0x1000, 1),
        (OTHER, "nvme", 0x1000, 5),
    ]:
        ledger.add(context, device, phys, size)
    assert ledger.claim(TASK, "nvme", [0x1000, 0x3000]) == 100
    assert ledger.claim(TASK, "nvme", [0x1000, 0x2000]) == 0  # what was left over was a failed call's
    assert ledger.claim(OTHER, "nvme", [0x1000]) == 5


def test_a_list_that_failed_and_was_tried_again_counts_once():
    ledger = BounceLedger()
    for phys, size in [(0x1000, 100), (0x2000, 10), (0x1000, 100), (0x2000, 10), (0x3000, 7)]:
        ledger.add(TASK, "nvme", phys, size)
    assert ledger.claim(TASK, "nvme", [0x1000, 0x2000, 0x3000]) == 117


# -- the area ---------------------------------------------------------------------------------------------------------


def finish(ledger, pfn, count=4, context=TASK, place=0):
    return ledger.finish(context, count=count, align=2, pfn=pfn, place=place)


def test_the_call_of_the_same_context_and_size_is_the_allocations():
    ledger = AreaLedger()
    ledger.start(TASK)
    ledger.retry(TASK, 0x77)
    ledger.retry(OTHER, 0x88)
    call = finish(ledger, 0x40)
    assert (call.pfn, call.count, call.busy) == (0x40, 4, (0x77,))
    assert ledger.claim(OTHER, 4, at=0x40, asks=True) == ([], [])
    assert ledger.claim(TASK, 4, at=0x99, asks=True) == ([call], [])
    assert ledger.rest() == []


def test_a_call_of_another_size_was_somebody_elses():
    ledger = AreaLedger()
    call = finish(ledger, 0x40, count=3)
    assert ledger.claim(TASK, 4, at=0x40, asks=True) == ([], [call])


def test_an_allocation_that_cannot_ask_has_a_call_only_if_it_lies_there():
    ledger = AreaLedger()
    there = finish(ledger, 0x40)
    assert ledger.claim(TASK, 4, at=0x40, asks=False) == ([there], [])
    away = finish(ledger, 0x40)
    assert ledger.claim(TASK, 4, at=0x99, asks=False) == ([], [away])


def test_failures_wait_for_the_attempt_that_serves_and_successes_do_not():
    ledger = AreaLedger()
    failures = []
    for _ in range(5):
        assert ledger.start(TASK) == []
        failures.append(finish(ledger, None))
    ledger.start(TASK)
    served = finish(ledger, 0x40)
    assert ledger.claim(TASK, 4, at=0x40, asks=True) == ([*failures[-3:], served], [])
    nobodys = finish(ledger, 0x60)
    assert ledger.start(TASK) == [nobodys]
    assert ledger.rest() == []


def test_a_new_call_forgets_the_busy_candidates_of_one_that_never_finished():
    ledger = AreaLedger()
    ledger.start(TASK)
    ledger.retry(TASK, 0x77)
    ledger.start(TASK)
    assert finish(ledger, 0x40).busy == ()


def test_a_release_takes_the_call_that_waits_for_it():
    ledger = AreaLedger()
    call = finish(ledger, 0x40)
    assert ledger.take(0x41) is None
    assert ledger.take(0x40) is call
    assert ledger.take(0x40) is None
    assert ledger.rest() == []
