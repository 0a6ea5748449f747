"""What must hold on every recording (rule 24): models against what the kernel did, designs against each other."""

from pathlib import Path

import attrs
import pytest

from swiommu.answers import compare
from swiommu.replay import (
    DEFAULT_DESIGNS,
    Status,
    equal_plan,
    find_design,
    machine_plan,
    peak_live_bytes,
    plan_of_size,
    replay,
)
from swiommu.requests import OpCode, RequestKind, workload_of
from swiommu.trace import read_trace

DATA = Path(__file__).parents[1] / "data" / "traces"
PAGE = 4096
MIB = 1 << 20


def where(handle):
    """The place of one request, as numbers that two runs can be compared by."""
    if isinstance(handle, list):  # a MAP of the linear domain, or slots of a bounce pool
        return [where(each) for each in handle]
    if isinstance(handle, tuple | int | None):
        return handle
    if hasattr(handle, "iova"):
        return handle.iova.start.value, [(piece.start.value, piece.size) for piece in handle.pieces]
    if hasattr(handle, "chunk"):
        return handle.chunk.start.value, handle.runs
    start = getattr(handle, "start", None)
    return getattr(start, "value", start), getattr(handle, "pfn", None), getattr(handle, "size", None)


def pfn_of(handle):
    return handle.start.value // PAGE if hasattr(handle, "start") else None


def test_the_bitmap_in_the_recorded_machine_is_the_recording(cma_trace_path, recording):
    _, workload = recording(cma_trace_path)
    outcome = replay(workload, find_design("cma-bitmap"), machine_plan(workload), keep_places=True)
    for request, served in zip(workload.requests, workload.served, strict=True):
        if request.kind is not RequestKind.ALLOC:
            continue
        status = outcome.status[request.index]
        assert status == (Status.CENSORED if request.censored else Status.SERVED), request
        # A block of the page allocator has no place: that is what fell back, or never asked the area.
        handle = outcome.places.get(request.index)
        assert (pfn_of(handle), handle is None) == (served.pfn, request.censored), request
    assert outcome.ledger.failed[RequestKind.ALLOC] == sum(
        request.censored and request.kind is RequestKind.ALLOC for request in workload.requests
    )


def test_strict_translation_maps_and_unmaps_as_the_strict_kernel_did(strict_trace_path, recording):
    _, workload = recording(strict_trace_path)
    plan = attrs.evolve(equal_plan(workload), bytes=16 << 30)
    outcome = replay(workload, find_design("iommu-strict"), plan)
    assert dict(outcome.ledger.lost) == {}
    ended = {index for code, index, _ in workload.ops if code is OpCode.END}
    own = 0
    for request, served, maps in zip(workload.requests, workload.served, outcome.maps, strict=True):
        own += request.index in ended and not request.is_iommu
        if served.maps:
            assert request.translated
            assert served.unmaps == (request.index in ended), request
            assert maps == served.maps or request.kind is RequestKind.ALLOC, request
    assert outcome.counters.unmaps == outcome.counters.invalidations == own


# 20 flushes of a queue were recorded, and 537 beside the 181 commands of the two-step API: within 10 % and 4 %.
@pytest.mark.parametrize(
    ("trace", "recorded", "replayed"),
    [
        ("x86-6.12-lazy-qtrace-s109", 20, 22),
        pytest.param("x86-7.3-lazy-mixed-iova-s53", 718, 734, marks=pytest.mark.slow),
    ],
)
def test_lazy_translation_flushes_nearly_as_often_as_the_lazy_kernel_did(trace, recorded, replayed, recording):
    _, workload = recording(DATA / f"{trace}.trace.gz")
    outcome = replay(workload, find_design("iommu-lazy"), equal_plan(workload))
    assert workload.invalidations == recorded + 1  # one for an identity map of the boot
    assert (outcome.counters.invalidations, outcome.exposure.ns <= 16_000_000) == (replayed, True)


@pytest.mark.parametrize("name", ["iommu-strict", "iommu-lazy", "shim-over-iommu"])
def test_without_a_limit_no_allocation_fails_behind_an_iommu(name, quick_trace_path, recording):
    _, workload = recording(quick_trace_path)
    plan = attrs.evolve(equal_plan(workload), bytes=16 << 30)
    outcome = replay(workload, find_design(name), plan)
    assert RequestKind.ALLOC not in outcome.ledger.failed
    gained = [r for r in workload.requests if r.censored and r.kind is RequestKind.ALLOC]
    assert outcome.ledger.gained[RequestKind.ALLOC] == len(gained)


def test_a_shift_of_the_window_by_whole_alignments_changes_nothing(cma_trace_path, recording):
    shifted_alike(recording(cma_trace_path)[1], 37 * MIB)


@pytest.mark.parametrize("delta", [MIB, -MIB, -512 * MIB, 1024 * MIB])
def test_shifts_near_and_far_change_nothing(delta):
    shifted_alike(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")), delta)


def shifted_alike(workload, delta):
    """In the least memory that could do, where placement decides, and in the recorded machine."""
    design = find_design("software-iommu")
    tight = plan_of_size(workload, -(-peak_live_bytes(workload) // (2 * MIB)) * 2 * MIB)
    for plan in (tight, machine_plan(workload)):
        straight = replay(workload, design, plan, keep_places=True)
        shifted = replay(workload, attrs.evolve(design, delta=delta), plan, keep_places=True)
        assert shifted.status == straight.status
        for index, handle in straight.places.items():
            if hasattr(handle, "iova"):
                there = shifted.places[index]
                assert there.pieces[0].start.value == handle.pieces[0].start.value
                assert there.iova.start.value == handle.iova.start.value + delta


@pytest.mark.parametrize("memory", ["equal", "machine"])
def test_the_software_iommu_is_the_bitmap_in_all_that_both_have(memory, quick_trace_path, recording):
    trace, workload = recording(quick_trace_path)
    answer = compare(trace, ["cma-bitmap", "software-iommu"], memory=memory, with_need=False)
    bitmap, software = answer.rows
    assert software.shared() == bitmap.shared()
    assert software.same_as == "cma-bitmap"
    assert software.requests == bitmap.requests == len(workload.requests)


def test_every_row_was_offered_the_same():
    trace = read_trace("arm64-6.12-cam-cma64M-s81")
    workload = workload_of(trace)
    answer = compare(trace, with_need=False)
    assert {row.requests for row in answer.rows} == {len(workload.requests)}
    recorded = answer.rows[0]
    assert recorded.failed == workload.censored
    for row in answer.rows[1:]:
        assert row.failed + row.gained == row.lost + workload.censored
        assert row.lost_by_kind["USERMAP"] == row.not_applicable == 0


def without_censored(workload):
    """The same workload, had the failed requests never been made; time passes all the same."""
    ops = [
        (OpCode.NOTHING, -1, time)
        if code == OpCode.BEGIN and workload.requests[index].censored
        else (code, index, time)
        for code, index, time in workload.ops
    ]
    return attrs.evolve(workload, ops=ops)


@pytest.mark.parametrize("name", DEFAULT_DESIGNS)
@pytest.mark.parametrize("memory", [equal_plan, machine_plan])
def test_a_probe_leaves_no_trace(memory, name):
    leaves_no_trace(workload_of(read_trace("arm64-6.12-cam-cma64M-s81")), name, memory)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFAULT_DESIGNS)
@pytest.mark.parametrize("memory", [equal_plan, machine_plan])
def test_no_probe_leaves_a_trace(memory, name, cma_trace_path, recording):
    leaves_no_trace(recording(cma_trace_path)[1], name, memory)


def leaves_no_trace(workload, name, memory):
    plan, quiet = memory(workload), without_censored(workload)
    with_, without = (replay(each, find_design(name), plan, keep_places=True) for each in (workload, quiet))
    assert list(with_.places) == list(without.places)
    for index, handle in with_.places.items():
        assert where(handle) == where(without.places[index])
    assert with_.ledger.peak_live_bytes == without.ledger.peak_live_bytes
    assert with_.ledger.mean() == without.ledger.mean()
    assert with_.counters == without.counters
    assert with_.exposure == without.exposure
