"""The designs that lend: mainline's places where nobody is pinned, theory's failures where somebody is, the bill."""

import math

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.errors import InvalidArgument, SwiommuError
from swiommu.region import Returns
from swiommu.replay import (
    Design,
    Knobs,
    Status,
    equal_plan,
    find_design,
    machine_plan,
    pinned_share,
    recorded_share,
    replay,
)
from swiommu.replay.backends import make_backend
from swiommu.replay.cause import Cause
from swiommu.requests import Area, Occupancy, OpCode, RequestKind, Served, workload_of
from swiommu.trace import read_trace

PAGE = 4096
MIB = 1 << 20
BASE = 0x40000


def movable(pinned=-1, lent=1_000_000):
    return attrs.evolve(find_design("cma-lending"), pinned=pinned, lent=lent)


def places(outcome):
    return {index: getattr(handle, "start", handle) and str(handle) for index, handle in outcome.places.items()}


# -- theory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pages", "pinned", "lent"), [(512, 1000, 1), (512, 5000, 1), (512, 2000, 0.5), (512, 0, 1)])
def test_the_only_window_of_an_area_succeeds_with_one_minus_q_to_the_n(
    pages, pinned, lent, make_workload, make_request
):
    """600 draws; q is the part of all pages that is pinned, so it falls with the part that is lent."""
    design, draws = movable(pinned, int(lent * 1_000_000)), 600
    workload = make_workload([], [], area=Area(BASE, pages, ()))
    served = moved = 0
    for seed in range(draws):
        backend = make_backend(design, equal_plan(workload), workload, Knobs(seed=seed))
        request = make_request(seed, size=pages * PAGE)
        foretold = backend.probe(request, ()) is None
        try:
            backend.begin(request, ())
        except SwiommuError:
            assert not foretold
            assert backend.counters.returns.in_vain == backend.counters.returns.moved
        else:
            assert foretold
            served += 1
        assert backend.counters.bytes_copied == backend.counters.returns.moved * PAGE
        moved += backend.counters.returns.moved
    q = pinned / 1e6 * lent
    p = (1 - q) ** pages
    assert abs(served - draws * p) <= 4 * math.sqrt(draws * p * (1 - p))
    assert moved / draws == pytest.approx(sum(lent * (1 - q) ** k for k in range(1, pages + 1)), rel=0.1)


def test_q_is_found_again_in_what_was_recorded(make_workload, make_request):
    """Tries of 300 pages that fail as theory says: the likeliest q is the one that they were drawn with."""
    q, n, tries = 0.0007, 300, 4000
    good = round(tries * (1 - q) ** n)
    served = [Served(pfn=BASE, busy_pfns=(1,) * (tries - good))] + [Served(pfn=BASE)] * (good - 1)
    requests = [make_request(index, size=n * PAGE) for index in range(good)]
    ops = [(OpCode.BEGIN, index, index) for index in range(good)]
    workload = make_workload(requests, ops, served=served)
    assert recorded_share(workload) == pytest.approx(q, rel=0.01)
    plan, machine = equal_plan(workload), machine_plan(workload)
    assert pinned_share(movable(), plan, workload) == recorded_share(workload)
    assert pinned_share(movable(lent=500_000), plan, workload) == pytest.approx(2 * q, rel=0.01)
    assert pinned_share(movable(), machine, workload) == 0
    assert pinned_share(movable(5000), machine, workload) == 0.005
    assert pinned_share(find_design("gcma"), plan, workload) == 0
    quiet = make_workload(requests, ops, served=[Served(pfn=BASE)] * good)
    assert recorded_share(quiet) == 0


def test_pages_of_the_background_count_too(make_workload):
    occupancies = [Occupancy(BASE, 200, 0, busy_pfns=(BASE,)), Occupancy(BASE, 200, 0)]
    workload = make_workload([], [(OpCode.OCCUPY, 0, 0), (OpCode.OCCUPY, 1, 1)], occupancies=occupancies)
    # One of three tries of 200 pages fails.
    assert recorded_share(workload) == pytest.approx(1 - (2 / 3) ** (1 / 200), rel=1e-6)


# -- beside mainline without lending ----------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [equal_plan, machine_plan])
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=15)
def test_with_nobody_pinned_both_are_cma_bitmap_with_another_bill(memory, seed, random_workload):
    workload = random_workload(seed, 100)
    plan = memory(workload)
    as_recorded = -1 if plan.fallback else 0  # its busy ranges, which are random here, hold in mode machine alone
    designs = find_design("cma-bitmap"), movable(as_recorded), movable(as_recorded, 300_000), find_design("gcma")
    mainline, moving, partly, dropping = [replay(workload, design, plan, keep_places=True) for design in designs]
    waste, lendable = mainline.ledger.mean()
    for outcome in (moving, partly):
        assert places(outcome) == places(mainline)
        assert outcome.status == mainline.status
        left, lent = outcome.ledger.mean()
        assert left.internal == waste.internal
        assert abs(left.idle + lent - waste.idle) <= 1  # means are rounded
        assert outcome.counters.returns.busy == 0
    assert moving.ledger.mean()[0].idle == dropping.ledger.mean()[0].idle == 0
    assert moving.ledger.mean()[1] == lendable
    if not plan.fallback:
        assert places(dropping) == places(mainline)
        assert dropping.counters.returns.dropped == moving.counters.returns.moved > partly.counters.returns.moved
    assert (dropping.counters.bytes_copied, dropping.counters.returns.moved, dropping.counters.returns.busy) == (
        0,
        0,
        0,
    )


def as_recorded(workload):
    """In mode ``machine`` the recording is answered page by page, busy ranges included (rule 24)."""
    outcome = replay(workload, movable(), machine_plan(workload), keep_places=True)
    assert outcome.ledger.lost.total() == 0
    served = [(index, served.pfn) for index, served in enumerate(workload.served) if served.pfn is not None]
    assert served
    assert [outcome.places[index].start.value // PAGE for index, _ in served] == [pfn for _, pfn in served]
    return outcome


def test_the_recorded_machine_is_foretold_page_by_page():
    as_recorded(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")))


@pytest.mark.slow
def test_every_recorded_machine_is_foretold_page_by_page(cma_trace_path, recording):
    as_recorded(recording(cma_trace_path)[1])


def test_a_recorded_busy_range_holds_for_those_who_move_and_not_for_those_who_drop(make_workload, make_request):
    workload = make_workload([], [], area=Area(BASE, 512, ()))
    for design, first in ((movable(), 16), (movable(0), 0), (find_design("gcma"), 0)):
        backend = make_backend(design, machine_plan(workload), workload, Knobs())
        request = make_request(0, size=8 * PAGE)
        assert backend.probe(request, (BASE + 1, BASE + 9)) is None
        assert backend.begin(request, (BASE + 1, BASE + 9)).start.value == (BASE + first) * PAGE


# -- the bill ---------------------------------------------------------------------------------------------------------


def test_what_is_lent_is_no_waste_and_everything_adds_up(make_workload, make_request):
    workload = make_workload([], [], area=Area(BASE, 1024, ((0, 100),)))
    for lent in (0, 250_000, 1_000_000):
        backend = make_backend(movable(lent=lent), equal_plan(workload), workload, Knobs(seed=3))
        usage = backend.usage()
        assert usage.idle + usage.lendable == backend.room() == 924 * PAGE
        assert usage.lendable / backend.room() == pytest.approx(lent / 1e6, abs=0.05)
        handle = backend.begin(make_request(0, size=300 * PAGE - 1), ())
        assert backend.usage().idle + backend.usage().lendable == 624 * PAGE
        moved = backend.counters.returns.moved
        assert moved / 300 == pytest.approx(lent / 1e6, abs=0.1)
        backend.end(make_request(0, size=300 * PAGE - 1), handle)
        assert backend.usage() == usage
        assert backend.counters.returns == Returns(moved=moved, asked=1)


def test_a_chunk_beyond_the_mask_has_moved_pages_and_a_probe_of_it_has_not(make_workload, make_request):
    workload = make_workload([], [], area=Area(BASE, 512, ()))
    backend = make_backend(movable(), equal_plan(workload), workload, Knobs())
    near = make_request(0, size=4 * PAGE, mask=(BASE + 2) * PAGE)
    assert backend.probe(near, ()) is Cause.MASK
    assert backend.counters.returns == Returns()
    usage = backend.usage()
    with pytest.raises(SwiommuError):
        backend.begin(near, ())
    assert backend.usage() == usage
    assert backend.counters.bytes_copied == 4 * PAGE


def test_the_background_is_served_as_a_request_is(make_workload):
    workload = make_workload([], [], area=Area(BASE, 512, ()))
    backend = make_backend(movable(), equal_plan(workload), workload, Knobs())
    usage = backend.usage()
    occupancy = Occupancy(BASE, 100, 6)
    handle = backend.occupy(occupancy)
    assert backend.counters.returns == Returns(moved=100, asked=1)
    backend.vacate(occupancy, handle)
    assert backend.usage() == usage
    assert make_backend(movable(1_000_000), equal_plan(workload), workload, Knobs()).occupy(occupancy) is None


def test_without_an_area_there_is_nothing_to_lend(make_workload, make_request):
    workload = make_workload([], [], area=None)
    backend = make_backend(movable(), machine_plan(workload), workload, Knobs())
    assert backend.occupy(Occupancy(0, 1, 0)) is None
    backend.end(make_request(0), backend.begin(make_request(0), ()))
    assert backend.usage() == (0, 0, 0, 0, 0, 0)
    assert backend.counters.returns == Returns()


def test_the_same_seed_gives_the_same_answer_and_another_one_another(random_workload):
    workload = random_workload(5, 200)
    design, plan = movable(20_000, 800_000), equal_plan(workload)
    runs = [replay(workload, design, plan, Knobs(seed=seed), keep_places=True) for seed in (1, 1, 2)]
    assert places(runs[0]) == places(runs[1]) != places(runs[2])
    assert runs[0].counters == runs[1].counters
    assert runs[0].counters.returns.busy


@pytest.mark.parametrize("name", ["cma-lending", "gcma", "pinned"])
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=8)
def test_a_probe_foretells_and_leaves_no_trace(name, seed, random_workload):
    design = movable(20_000, 700_000) if name == "pinned" else find_design(name)
    workload = random_workload(seed, 60)
    probes = {
        place
        for place, (code, index, _) in enumerate(workload.ops)
        if code == OpCode.BEGIN and workload.requests[index].censored
    }
    ops = [(OpCode.NOTHING, -1, op[2]) if place in probes else op for place, op in enumerate(workload.ops)]
    plan = equal_plan(workload)
    quiet = replay(attrs.evolve(workload, ops=ops), design, plan, keep_places=True)
    asked = replay(workload, design, plan, keep_places=True)
    assert places(asked) == places(quiet)
    assert asked.counters == quiet.counters
    assert asked.ledger.mean() == quiet.ledger.mean()
    for place in probes:
        _, index, _ = workload.ops[place]
        requests = list(workload.requests)
        requests[index] = attrs.evolve(requests[index], censored=False)
        held = replay(attrs.evolve(workload, requests=requests, ops=workload.ops[: place + 1]), design, plan)
        if requests[index].kind is RequestKind.ALLOC:
            assert (asked.status[index] == Status.GAINED) == (held.status[index] == Status.SERVED)


# -- knobs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        (
            {"driver": "linear", "lends": "movable"},
            (
                "lends is 'movable', which needs driver 'none' and an allocator that lends, as 'bitmap', not "
                "'linear' with 'bitmap'"
            ),
        ),
        (
            {"allocator": "best_fit", "lends": "droppable"},
            (
                "lends is 'droppable', which needs driver 'none' and an allocator that lends, as 'bitmap', not "
                "'none' with 'best_fit'"
            ),
        ),
        (
            {"lends": "droppable", "pinned": 1},
            "pinned is 1, but droppable pages are never pinned",
        ),
        ({"lends": "movable", "pinned": -2}, "pinned is -2, not a number of pages in a million from -1 to 1000000"),
        (
            {"lends": "movable", "lent": 1_000_001},
            "lent is 1000001, not a number of pages in a million from 0 to 1000000",
        ),
    ],
)
def test_knobs_that_make_no_design(knobs, sentence):
    with pytest.raises(InvalidArgument) as caught:
        Design(**{"name": "a", "summary": "", "allocator": "bitmap"} | knobs)
    assert str(caught.value) == sentence
