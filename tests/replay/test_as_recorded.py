"""The first row: what the kernel did, against sums over the trace and what was counted when it was recorded."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.replay.as_recorded import recorded
from swiommu.requests import Area, Occupancy, OpCode, RequestKind, Served, workload_of
from swiommu.trace import Kind

PAGE = 4096


def test_a_recordings_row_is_what_was_counted(trace_path, recording, facts_of):
    trace, workload = recording(trace_path)
    row = recorded(workload)
    counts, figures = trace.table.counts(), facts_of(trace_path)["figures"]
    assert row.maps + workload.unused.msi_maps + workload.unused.identity_maps == counts.get(Kind.IOMMU_MAP, 0)
    if workload.has_dma_events and "vfio" not in trace_path.name:
        assert row.unmaps == counts.get(Kind.IOMMU_UNMAP, 0)
    assert row.failed.total() == workload.censored
    assert row.failed_bytes == sum(request.size for request in workload.requests if request.censored)
    bounces = figures.get("swiotlb", {}).get("bytes", 0)
    assert bool(row.bytes_copied) == bool(bounces)
    assert (row.waste is None) == ("waste" in row.why)
    assert (row.lendable_bytes is None) == ("lendable_bytes" in row.why)
    assert (row.invalidations is None) == ("invalidations" in row.why)
    assert row.enforces == enforced(workload)
    streaming = figures.get("dma_streaming", {})
    if workload.has_dma_events and not workload.unused.unattributed_maps and "peak_live_bytes" in streaming:
        assert row.peak_map_bytes == streaming["peak_live_bytes"]


def enforced(workload):
    translated = {r.translated for r in workload.requests if not r.is_iommu}
    return "yes" if translated == {True} else "no" if translated == {False} else "partly" if translated else "unknown"


def test_the_areas_idle_bytes_are_what_nobody_held(cma_trace_path, recording, facts_of):
    """The time mean, recomputed interval by interval from places alone."""
    _, workload = recording(cma_trace_path)
    row = recorded(workload)
    pages = workload.area.total_pages - sum(count for _, count in workload.area.start_extents)
    total, now = 0, workload.start_time
    for code, index, time in [*workload.ops, (OpCode.NOTHING, -1, workload.stop_time)]:
        total, now = total + pages * (time - now), time
        if code in {OpCode.BEGIN, OpCode.END} and workload.served[index].pfn is not None:
            pages += -(-workload.requests[index].size // PAGE) * (1 if code == OpCode.END else -1)
        elif code in {OpCode.OCCUPY, OpCode.VACATE}:
            pages += workload.occupancies[index].count * (1 if code == OpCode.VACATE else -1)
        assert 0 <= pages <= workload.area.total_pages
    assert row.lendable_bytes == total * PAGE // (workload.stop_time - workload.start_time)
    assert row.reserved_bytes == workload.area.bytes
    in_use = facts_of(cma_trace_path)["figures"]["cma"]["in_use_at_end_pages"]
    start = sum(count for _, count in workload.area.start_extents)
    released = sum(o.count for o in workload.occupancies if o.was_start_extent)
    assert workload.area.total_pages - pages == in_use + start - released


@given(data=st.data())
@settings(max_examples=50)
def test_waste_is_rounding_and_idle_area(data, make_request, make_workload):
    """Each ALLOC is charged in pages from the area, in powers of two from the page allocator."""
    requests, served, ops, live, time = [], [], [], [], 0
    for index in range(data.draw(st.integers(1, 12))):
        time += data.draw(st.integers(0, 9))
        if live and data.draw(st.booleans()):
            ops.append((2, live.pop(), time))
            time += data.draw(st.integers(0, 9))
        requests.append(make_request(index, size=data.draw(st.integers(1, 9 * PAGE))))
        served.append(Served(pfn=data.draw(st.sampled_from([None, 7]))))
        ops.append((1, index, time))
        live.append(index)
    workload = make_workload(requests, ops, served=served, area=Area(0x40000, 1024, ((5, 24),)), start_time=0)
    state = {"idle": 1000 * PAGE, "internal": 0}
    sums, now = Counter(), 0
    for code, index, at in [*ops, (0, -1, workload.stop_time)]:
        for name, value in state.items():
            sums[name] += value * (at - now)
        now = at
        if not code:
            continue
        sign, pages = (1 if code == 1 else -1), -(-requests[index].size // PAGE)
        from_area = served[index].pfn is not None
        charged = (pages if from_area else 1 << (pages - 1).bit_length()) * PAGE
        state["internal"] += sign * (charged - requests[index].size)
        state["idle"] -= sign * charged * from_area
    span = workload.stop_time
    means = {name: sums[name] // span if span else value for name, value in state.items()}
    row = recorded(workload)
    assert (row.waste.internal, row.waste.idle, row.waste.tables, row.waste.pool) == (
        means["internal"],
        means["idle"],
        0,
        0,
    )
    assert row.lendable_bytes == means["idle"]


def test_bounced_bytes_are_copied_in_and_back_and_at_syncs(make_request, make_workload):
    ways = ["TO_DEVICE", "FROM_DEVICE", "BIDIRECTIONAL", "FROM_DEVICE"]
    requests = [make_request(n, "MAP", 100, direction=way, censored=n == 3) for n, way in enumerate(ways)]
    served = [Served(bounced=100, synced=n) for n in range(3)] + [Served()]
    ops = [*((1, n, n) for n in range(4)), *((2, n, 9) for n in range(3))]
    row = recorded(make_workload(requests, ops, served=served))
    assert row.bytes_copied == 3 * 100 + (0 + 1 + 2) + 2 * 100
    assert (row.waste, row.why["waste"]) == (None, "how much of the bounce pool was free is not in the trace")


def test_what_the_trace_does_not_tell_is_null_with_a_reason(make_request, make_workload):
    row = recorded(make_workload([make_request(0)], [(1, 0, 0)], area=Area(0x40000, 1024, None)))
    reason = "the pages of the area in use when the trace began are not known"
    assert (row.lendable_bytes, row.waste) == (None, None)
    assert row.why == {"lendable_bytes": reason, "waste": reason}
    row = recorded(make_workload([make_request(0, translated=True)], [(1, 0, 0)], area=None))
    assert (row.invalidations, row.waste, row.enforces) == (None, None, "yes")
    assert row.why == {
        "invalidations": "this kernel's IOMMU driver prints no invalidations",
        "waste": "page tables are not in the trace",
    }


@pytest.mark.parametrize(
    ("translated", "enforces"), [([True], "yes"), ([False], "no"), ([True, False], "partly"), ([], "unknown")]
)
def test_who_is_kept_in_bounds(translated, enforces, make_request, make_workload):
    requests = [make_request(n, translated=flag, device=f"d{n}") for n, flag in enumerate(translated)]
    requests.append(make_request(len(requests), is_iommu=True, device="smmu"))
    assert recorded(make_workload(requests, [(1, r.index, 0) for r in requests])).enforces == enforces


def test_the_background_holds_pages_until_it_is_vacated(make_workload):
    occupancies = [Occupancy(0x40000, 100, 0), Occupancy(0x40200, 24, 0, was_start_extent=True)]
    ops = [(3, 0, 0), (4, 1, 10), (4, 0, 20)]
    workload = make_workload([], ops, occupancies=occupancies, area=Area(0x40000, 1024, ((512, 24),)), stop_time=40)
    row = recorded(workload)
    assert row.lendable_bytes == PAGE * (10 * 900 + 10 * 924 + 20 * 1024) // 40


def test_out_of_order_times_count_no_interval_twice(trace_of):
    at = "dma_alloc: e dir=BIDIRECTIONAL dma_addr={0:x} size=100 virt_addr=000000000000{0:x} flags=GFP_KERNEL attrs="
    times = [5, 3, 9, 7]
    text = "# tracer: nop\n" + "".join(
        f"  t-1  [000] .....   {time}.000000: {at.format(0x1000 + time)}\n" for time in times
    )
    row = recorded(workload_of(trace_of(text)))
    assert row.waste.internal == (PAGE - 100) * (2 * 0 + 4 * 2) // 6
    assert row.failed == Counter()
    assert row.peak_live_bytes == 400
    assert RequestKind.ALLOC not in row.failed
