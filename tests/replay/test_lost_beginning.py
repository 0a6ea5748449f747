"""Recordings whose beginning is lost (an overwritten ring buffer): an end without a begin is counted, no more."""

import gzip
import shutil

import pytest

from swiommu.answers import compare, verify
from swiommu.replay import AS_RECORDED, PRESETS
from swiommu.report import comparison_html
from swiommu.trace import bundled_path, read_trace
from swiommu.verify.beginning import _Mapped

CAMERA = "arm64-6.12-cam-cma64M-s81"
HEAD = "# tracer: nop\n"
AREA = {"base_pfn": "0x50000", "total_pages": 1024}
IN_USE = "in_use_before_trace_extents_offset_count"


def text(*events):
    lines = [f"       v4lcap-174     [000] .....     5.{at:06d}: {event}\n" for at, event in enumerate(events, 100)]
    return HEAD + "".join(lines)


def alloc(size, virt, address=0x5000_0000):
    place = f"dma_addr={address:x} size={size} virt_addr={virt:016x}"
    return f"dma_alloc: cam dir=BIDIRECTIONAL {place} flags=GFP_KERNEL attrs="


def free(size, virt, address=0x5000_0000):
    return f"dma_free: cam dir=BIDIRECTIONAL dma_addr={address:x} size={size} virt_addr={virt:016x} attrs="


def release(pfn, count):
    return f"cma_release: name=reserved pfn={pfn:#x} page=0000000054c9aaae count={count}"


def area(extents):
    return {"cma_area": AREA | {IN_USE: extents}}


@pytest.mark.parametrize("memory", ["equal", "machine"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_release_without_a_begin_frees_nothing_that_a_design_placed(name, memory, trace_of):
    trace = trace_of(text(alloc(2 << 20, 1), release(0x50000, 512), free(2 << 20, 1)), area([]))
    answer = compare(trace, [name], memory=memory)
    assert (answer.workload.unused.unmatched, answer.workload.unused.unmatched_releases) == (1, 1)
    assert (answer.rows[0].failed, answer.rows[0].peak_live_bytes) == (0, 2 << 20)


@pytest.mark.parametrize("name", ["carveout-best-fit", "cma-bitmap", "software-iommu", "cma-lending", "gcma"])
def test_no_room_is_gained_by_a_release_without_a_begin(name, trace_of):
    """4 MiB fail while 2 MiB live in an area of 4 MiB, whatever the trace says of pages that nobody took."""
    trace = trace_of(text(alloc(2 << 20, 1), release(0x50000, 512), alloc(4 << 20, 0, address=0)), area([]))
    row = compare(trace, [name], with_need=False).rows[0]
    assert (row.failed, row.gained, row.lost) == (1, 0, 0)


def test_what_was_in_use_at_the_start_is_released_once_and_in_any_parts(trace_of):
    """The sidecar's extents touch; the kernel gives them back as it took them, across that border."""
    releases = [release(0x50040, 128), release(0x50040, 128), release(0x50080, 1), release(0x500C0, 0)]
    trace = trace_of(text(alloc(1 << 20, 1), *releases, alloc(3 << 20, 2)), area([[0, 100], [100, 156]]))
    answer = compare(trace, ["cma-bitmap", "carveout-best-fit"], memory="machine", keep_outcomes=True)
    occupancies = [(each.pfn, each.count) for each in answer.workload.occupancies if each.was_start_extent]
    assert occupancies == [(0x50040, 128)]
    assert (answer.workload.unused.unmatched, answer.workload.unused.unmatched_releases) == (3, 3)
    assert [row.failed for row in answer.rows] == [0, 0]


def test_no_release_is_taken_for_one_of_pages_that_are_not_known_to_be_in_use(trace_of):
    trace = trace_of(text(alloc(4096, 1), release(0x50000, 1)), {"cma_area": AREA})
    assert compare(trace, ["cma-bitmap"]).workload.unused.unmatched == 1


def test_what_the_area_held_at_the_start_is_not_known_then(trace_of):
    trace = trace_of(text(alloc(4096, 1), release(0x50000, 1), release(0x50001, 1)), area([]))
    row = compare(trace, ["as-recorded"]).rows[0]
    assert (row.waste, row.lendable_bytes) == (None, None)
    why = "2 releases in the area without a begin: not all pages in use when the trace began are known"
    assert (row.why["waste"], row.why["lendable_bytes"]) == (why, why)


def test_pages_of_another_area_say_nothing_of_this_one(trace_of):
    trace = trace_of(text(alloc(4096, 1), release(0x90000, 1)), area([]))
    answer = compare(trace, ["as-recorded"])
    assert (answer.workload.unused.unmatched, answer.workload.unused.unmatched_releases) == (1, 0)
    assert answer.rows[0].waste is not None


def taken(pfn, count):
    return f"cma_alloc_finish: name=reserved pfn={pfn:#x} page=0000000054c9aaae count={count} align=0 errorno=0"


TWO_OWNERS = [event for n in (1, 2, 3) for event in (taken(0x50000, 512), alloc(2 << 20, n))]
ALL_FREE = [event for n in (1, 2, 3) for event in (release(0x50000, 512), free(2 << 20, n))]
PLACES = (0x50000, 0x60000, 0x503FF, 0x4FF00, 0x90000)  # inside, beyond, over both ends
MOVING = [event for n, pfn in enumerate(PLACES) for event in (taken(pfn, 512), alloc(2 << 20, n, pfn << 12))]


@pytest.mark.parametrize("memory", ["equal", "machine"])
@pytest.mark.parametrize(
    "events",
    [
        [*TWO_OWNERS, alloc(4 << 20, 0), *ALL_FREE, release(0x50000, 512)],
        [taken(0x50010, 64)] * 3 + [alloc(4096, 1)] + [release(0x50010, 64)] * 4,
        [*MOVING, alloc(4 << 20, 0), *(release(pfn, 512) for pfn in PLACES)],
    ],
    ids=["two owners", "two owners in the background", "an area that moves"],
)
def test_lines_that_contradict_each_other_are_answered(events, memory, trace_of):
    trace = trace_of(text(*events), area([]))
    answer = compare(trace, [AS_RECORDED, *PRESETS], memory=memory, keep_outcomes=True)
    assert comparison_html(answer, plotlyjs="cdn").startswith("<!doctype html>")
    for row in answer.rows:
        assert row.failed <= row.requests
        assert row.waste is None or row.waste.total >= 0
    verify(trace_of(text(taken(0x50000, 1), *events), area([]))).to_json()


def vfio(verb, more=""):
    return f"tracing_mark_write: VFIO {verb} iova=0x1000 size=0x1000 rc=0{more}"


def test_a_user_mapping_begun_before_the_recording_is_an_end_without_a_begin(trace_of):
    """One that took nothing out is no end: the caller unmapped what was not mapped."""
    marks = vfio("UNMAP", " unmapped=0x1000"), vfio("UNMAP"), vfio("UNMAP", " unmapped=0x0"), vfio("MAP"), vfio("UNMAP")
    assert compare(trace_of(text(*marks)), ["iommu-strict"]).workload.unused.unmatched == 2


# -- verify ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def camera_lines():
    return gzip.decompress(bundled_path(CAMERA).read_bytes()).decode().splitlines(keepends=True)


def decisions(camera_lines, trace_of, facts_of, *, cut, head=HEAD):
    facts = facts_of(bundled_path(CAMERA))
    sidecar = {key: facts[key] for key in ("kernel", "cma_area")}
    return verify(trace_of(head + "".join(camera_lines[cut:]), sidecar)).to_json()["decisions"]["cma"]


@pytest.mark.parametrize("percent", [10, 30, 60])
def test_verify_predicts_nothing_from_a_start_that_was_another(percent, camera_lines, trace_of, facts_of):
    found = decisions(camera_lines, trace_of, facts_of, cut=len(camera_lines) * percent // 100)
    cause = "pages were released that were not known to be in use: the beginning of the recording is lost"
    assert found["total"] == 0
    assert found["undetermined_by_cause"] == {cause: found["undetermined"]}
    assert found["undetermined"] > 200


def test_mismatches_in_what_the_header_says_is_incomplete_are_no_findings(camera_lines, trace_of, facts_of):
    """Pages in use at the first line that is left, and to the end, are told by nothing but the header."""
    events = [line for line in camera_lines if "cma_alloc" in line]
    left = decisions(events[4:], trace_of, facts_of, cut=0)
    assert (left["total"], left["matched"] < 738) == (738, True)
    for held, written in ((1480, 1480), (1476, 1480)):
        head = f"# entries-in-buffer/entries-written: {held}/{written}   #P:4\n"
        found = decisions(events[4:], trace_of, facts_of, cut=0, head=head)
        assert found["undetermined_by_cause"] == {"1,480 events were recorded, 1,476 are in the file": 738}


def test_mismatches_in_what_the_sidecar_says_is_incomplete_are_no_findings(camera_lines, trace_of, facts_of):
    """The header is lost with the beginning, the sidecar isn't."""
    events = [line for line in camera_lines if "cma_alloc" in line]
    facts = facts_of(bundled_path(CAMERA))
    sidecar = {key: facts[key] for key in ("kernel", "cma_area")}
    sidecar["ring_buffer"] = {"cpu0": {"entries": 1400, "overrun": 80}}
    found = verify(trace_of("".join(events[4:]), sidecar)).to_json()["decisions"]["cma"]
    assert found["undetermined_by_cause"] == {"1,480 events were recorded, 1,476 are in the file": 738}


@pytest.mark.parametrize(
    "name",
    ["x86-6.12-strict-qtrace-s101", "x86-6.12-strict-hotplug-iova-s33", "x86-6.12-swiotlb-tiny1M-nvme-s65"],
)
def test_no_mismatch_is_told_of_a_recording_without_its_beginning(name, data_dir, tmp_path):
    source = data_dir / "traces"
    lines = gzip.decompress((source / f"{name}.trace.gz").read_bytes()).splitlines(keepends=True)
    events = [line for line in lines if not line.startswith(b"#")]
    for path in source.glob(f"{name}.*"):
        if ".trace" not in path.name:
            shutil.copy(path, tmp_path)
    for percent in (10, 30, 60):
        trace = tmp_path / f"{name}.trace"
        trace.write_bytes(b"".join(events[len(events) * percent // 100 :]))
        assert verify(read_trace(trace)).mismatched == 0


def test_unmaps_are_followed_range_by_range():
    mapped = _Mapped()
    mapped.add(0x1000, 0x9000)
    mapped.add(0x3000, 0x4000)  # of another domain
    assert mapped.remove(0x3000, 0x4000)
    assert mapped.remove(0x1000, 0x2000)
    assert mapped.remove(0x5000, 0x9000)
    assert not mapped.remove(0x1000, 0x2000)
    assert mapped.remove(0x2000, 0x5000)
    assert not mapped.remove(0x2000, 0x3000)
    mapped.add(0x1000, 0x2000)
    mapped.add(0x2000, 0x3000)
    assert mapped.remove(0x1000, 0x3000)
    assert (mapped._starts, mapped._stops) == ([], {})
