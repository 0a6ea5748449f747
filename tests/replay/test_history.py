"""Rectangles of buffers over time: against the recording, and against a map of single bytes."""

import attrs
import pytest

from swiommu.replay import (
    DEFAULT_DESIGNS,
    NOBODY,
    AreaHistory,
    Rectangle,
    design_history,
    equal_plan,
    failure_times,
    find_design,
    machine_plan,
    recorded_history,
    replay,
)
from swiommu.requests import OpCode, workload_of
from swiommu.trace import read_trace

CAMERA = "arm64-6.12-cam-cma64M-s81"


@pytest.fixture(scope="module")
def camera():
    return workload_of(read_trace(CAMERA))


def history_of(workload, design, plan):
    return design_history(workload, replay(workload, find_design(design), plan, keep_places=True))


def test_recorded_area_is_consistent(cma_trace_path, recording):
    _, workload = recording(cma_trace_path)
    history = recorded_history(workload)
    history.check()
    served = [index for index, served in enumerate(workload.served) if served.pfn is not None]
    assert sorted({r.request for r in history.rectangles} - {NOBODY}) == served
    assert len(history.refusals) + history.unmeasured == workload.censored
    lived = [request for request in workload.requests if request.kind == "ALLOC" and not request.censored]
    assert history.elsewhere == len(lived) - len(served)


def test_mainline_allocator_draws_the_recorded_picture(cma_trace_path, recording):
    """In mode machine it equals the recording page by page, so the two pictures are one."""
    _, workload = recording(cma_trace_path)
    recorded, modelled = recorded_history(workload), history_of(workload, "cma-bitmap", machine_plan(workload))
    if modelled is None:
        assert {r.request for r in recorded.rectangles} <= {NOBODY}
        return
    assert sorted(modelled.rectangles) == sorted(recorded.rectangles)
    assert modelled.elsewhere == recorded.elsewhere


@pytest.mark.parametrize("design", DEFAULT_DESIGNS)
def test_run_is_consistent(camera, design):
    outcome = replay(camera, find_design(design), equal_plan(camera), keep_places=True)
    history = design_history(camera, outcome)
    history.check()
    assert {r.request for r in history.rectangles} - {NOBODY} == set(outcome.places)
    assert len(history.refusals) == outcome.ledger.failed.total() == len(failure_times(camera, outcome))
    assert (history.elsewhere, history.unmeasured, history.is_part) == (0, 0, False)


@pytest.mark.parametrize("design", ["iommu-strict", "iommu-lazy", "shim-over-iommu"])
def test_pieces_of_a_translated_buffer_add_up_to_it(camera, design):
    history = history_of(camera, design, equal_plan(camera))
    sizes = dict.fromkeys(range(len(camera.requests)), 0)
    for rectangle in history.rectangles:
        sizes[rectangle.request] += rectangle.size
    for request in camera.requests:
        assert sizes[request.index] in {0, -(-request.size // 4096) * 4096}


def test_all_of_ram_is_shown_only_as_far_as_it_is_used(camera):
    history = history_of(camera, "iommu-strict", machine_plan(camera))
    history.check()
    assert history.is_part
    assert history.size <= 128 << 20


def test_nothing_kept_nothing_drawn(camera):
    outcome = replay(camera, find_design("cma-bitmap"), equal_plan(camera))
    assert design_history(camera, outcome) is None
    assert recorded_history(attrs.evolve(camera, area=None)) is None


@pytest.mark.parametrize("design", [None, "carveout-best-fit", "cma-bitmap"])
def test_refusals_equal_a_map_of_pages(camera, design):
    """The twin keeps a byte a page and looks at all of them."""
    history = recorded_history(camera) if design is None else history_of(camera, design, equal_plan(camera))
    pages = bytearray(history.size // 4096)
    by_request = {r.request: r for r in history.rectangles if r.request != NOBODY}
    for r in history.rectangles:
        if r.request == NOBODY:
            fill(pages, history, r, 1)
    found = []
    refused = {refusal.request for refusal in history.refusals}
    for code, index, _ in camera.ops:
        if index in refused and code == OpCode.BEGIN:
            free = pages.count(0) * 4096
            runs = [len(run) * 4096 for run in bytes(pages).split(b"\x01")]
            found.append((index, free, max(runs)))
        elif index in by_request and code in {OpCode.BEGIN, OpCode.END}:
            fill(pages, history, by_request[index], int(code == OpCode.BEGIN))
    assert found == [(each.request, each.free, each.hole) for each in history.refusals]


def fill(pages, history, rectangle, value):
    first, count = (rectangle.start - history.base) // 4096, rectangle.size // 4096
    pages[first : first + count] = bytes([value]) * count


def test_check_finds_an_overlap():
    both = [Rectangle(0, 0, 8, 0, 5, ended=True), Rectangle(1, 4, 8, 4, 6, ended=True)]
    with pytest.raises(AssertionError, match="at 4 ns 0x0"):
        AreaHistory("x", 0, 16, 0, 10, both, [], 0).check()
