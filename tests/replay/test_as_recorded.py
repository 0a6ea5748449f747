"""The first row: what the kernel did, against sums over the trace and what was counted when it was recorded."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.replay.as_recorded import recorded
from swiommu.replay.memory_plan import equal_plan, machine_plan
from swiommu.requests import Area, Occupancy, OpCode, RequestKind, Served, workload_of
from swiommu.trace import Kind, read_trace

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
        served.append(Served(pfn=data.draw(st.sampled_from([None, 0x40007]))))
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


AREA_UNKNOWN = (
    "the area is not known: the file NAME.json beside the trace has no cma_area.base_pfn and cma_area.total_pages"
)


@pytest.mark.parametrize("served", [Served(pfn=0x40000), Served(fell_back=True), Served(busy_pfns=(0x40000,))])
def test_an_area_that_served_or_refused_is_there_known_or_not(served, make_request, make_workload):
    # It was once wasted by a negative number, and "no contiguous area recorded" stood above it.
    ops = [(1, 0, 0), (2, 0, 10)]
    workload = make_workload([make_request(0, size=8 * PAGE)], ops, served=[served], area=None)
    row = recorded(workload)
    assert (row.lendable_bytes, row.waste, row.reserved_bytes) == (None, None, None)
    assert row.why == dict.fromkeys(("lendable_bytes", "waste", "reserved_bytes"), AREA_UNKNOWN)
    assert equal_plan(workload).source == "1.25 x the peak of live ALLOC bytes (area not known)"
    assert machine_plan(workload).source == "area not known"


def test_the_background_of_an_area_that_is_not_known(make_request, make_workload):
    occupancies = [Occupancy(0x40000, 100, 0)]
    workload = make_workload([make_request(0)], [(3, 0, 0), (1, 0, 1)], occupancies=occupancies, area=None)
    assert recorded(workload).why["waste"] == AREA_UNKNOWN


def test_without_events_of_an_area_there_is_none(make_request, make_workload):
    workload = make_workload([make_request(0)], [(1, 0, 0)], area=None)
    assert (recorded(workload).reserved_bytes, recorded(workload).why) == (0, {})
    assert equal_plan(workload).source == "1.25 x the peak of live ALLOC bytes (no contiguous area recorded)"
    assert machine_plan(workload).source == "no contiguous area recorded"


@pytest.mark.parametrize(
    "ops",
    [
        [(1, 0, 0), (1, 1, 5), (2, 0, 9), (2, 1, 9)],  # more than the area has
        [(1, 0, 0), (2, 0, 5), (4, 0, 9)],  # and released beyond what was allocated
    ],
)
def test_what_does_not_fit_the_area_of_the_sidecar_is_no_waste(ops, make_request, make_workload):
    requests = [make_request(n, size=700 * PAGE) for n in range(2)]
    served = [Served(pfn=0x40000 + n) for n in range(2)]
    occupancies = [Occupancy(0x40000, 200, 0)]
    row = recorded(make_workload(requests, ops, served=served, occupancies=occupancies))
    assert (row.lendable_bytes, row.waste) == (None, None)
    assert row.why == dict.fromkeys(
        ("lendable_bytes", "waste"),
        "what was allocated and released does not fit the area of 4 MiB and what was in use in it when the trace "
        "began, as the file beside the trace has them",
    )


def test_pages_of_another_area_are_not_taken_from_this_one(make_request, make_workload):
    requests = [make_request(n, size=100 * PAGE) for n in range(2)]
    served = [Served(pfn=0x40000 + 1024), Served(pfn=0x40000)]
    row = recorded(make_workload(requests, [(1, 0, 0), (1, 1, 10), (0, -1, 20)], served=served))
    assert row.lendable_bytes == PAGE * (10 * 1024 + 10 * 924) // 20


MOVED = (
    "{} with a device address that is not the physical one: translated, bounced or at an offset, which neither the "
    "trace nor the file beside it says (iommu.mode)"
)
PAGE_MAP = "dma_map_page: 0000:01:00.0 dir=TO_DEVICE dma_addr={:x} size=4096 phys_addr={:x} attrs="
LIST_MAP = (
    "dma_map_sg: 0000:01:00.0 dir=TO_DEVICE nents=1/1 ents=1/1 dma_addrs={{0x{:x}}} sizes={{0x1000}} "
    "phys_addrs={{0x{:x}}} attrs="
)


def mapped(trace_of, *texts):
    lines = "".join(f"  t-1  [000] .....   1.00000{n}: {text}\n" for n, text in enumerate(texts))
    return workload_of(trace_of(f"# tracer: nop\n{lines}"))


@pytest.mark.parametrize("text", [PAGE_MAP, LIST_MAP])
def test_an_address_that_nothing_explains_may_be_translated_bounced_or_at_an_offset(text, trace_of):
    # It was once recorded as not translated, with 0 maps, 0 unmaps and nothing copied.
    row = recorded(mapped(trace_of, text.format(0xFFFFE000, 0x8000_0000), PAGE_MAP.format(0x1000, 0x1000)))
    unknown = ("maps", "unmaps", "invalidations", "bytes_copied", "waste")
    assert [getattr(row, name) for name in unknown] == [None] * 5
    assert row.why == dict.fromkeys(unknown, MOVED.format("1 MAP"))
    assert row.enforces == "unknown"


@pytest.mark.parametrize(
    "texts",
    [
        [PAGE_MAP.format(0x8000_0000, 0x8000_0000)],  # as it is
        [LIST_MAP.format(0x8000_0000, 0x8000_0000)],
        [PAGE_MAP.format(0xFFFF_FFFF_FFFF_FFFF, 0x8000_0000)],  # failed
        [
            "swiotlb_bounced: dev_name: 0000:01:00.0 dma_mask=ffffffff dev_addr=80000000 size=4096 FORCE",
            PAGE_MAP.format(0xFFFFE000, 0x8000_0000),
        ],
        [
            "map: IOMMU: iova=0x00000000ffffe000 - 0x00000000fffff000 paddr=0x0000000080000000 size=4096",
            PAGE_MAP.format(0xFFFFE000, 0x8000_0000),
        ],
    ],
)
def test_an_address_that_the_trace_explains(texts, trace_of):
    row = recorded(mapped(trace_of, *texts))
    assert (row.maps, row.bytes_copied) == (int("map: " in texts[0]), 4096 * ("swiotlb" in texts[0]))
    assert row.enforces == ("yes" if row.maps else "no")


@pytest.mark.parametrize(
    ("mode", "known"), [("direct", True), ("passthrough", True), ("swiotlb=force", True), ("", False)]
)
def test_the_sidecar_may_say_that_nothing_is_translated(mode, known, tmp_path):
    text = PAGE_MAP.format(0x2000, 0x8000_2000)
    (tmp_path / "soc.trace").write_text(f"# tracer: nop\n  t-1  [000] .....   1.000000: {text}\n")
    (tmp_path / "soc.json").write_text(json.dumps({"name": "soc", "kernel": "6.12", "iommu": {"mode": mode}}))
    row = recorded(workload_of(read_trace(tmp_path / "soc.trace")))
    assert (row.maps, row.enforces) == ((0, "no") if known else (None, "unknown"))


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
