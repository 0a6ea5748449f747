"""Requests out of ftrace text: what a fake kernel meant is what pairing says, whatever happens in between."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.requests import OpCode, RequestKind, workload_of
from swiommu.trace import Kind

PAGE = 4096
HEAD = "# tracer: nop\n"


def said(workload):
    """The operations with everything that pairing says of each request or occupancy, numbered by their begin."""
    order = {}
    out = []
    for code, index, _ in workload.ops:
        if code == OpCode.SYNC:
            sync = workload.syncs[index]
            out.append((code, order[True, sync.request], sync.size))
            continue
        request = code in {OpCode.BEGIN, OpCode.END}
        number = order.setdefault((request, index), len(order))
        if not request:
            what = workload.occupancies[index]
            out.append((code, number, what.pfn, what.count, what.align, what.busy_pfns, what.was_start_extent))
            continue
        what, served = workload.requests[index], workload.served[index]
        assert what.index == index
        fields = (what.kind.value, what.device, what.size, what.direction, what.gfp, what.pieces, what.censored)
        kernel = (served.pfn, served.fell_back, served.busy_pfns, served.maps, served.unmaps)
        out.append((code, number, *fields, what.iova, what.line, *kernel, served.bounced, served.synced))
    return out


def meant(kernel):
    order = {}
    out = []
    for code, what in kernel.ops:
        number = order.setdefault(what, len(order))
        if code == OpCode.SYNC:
            out.append((code, number, 64))
            continue
        if code in {OpCode.OCCUPY, OpCode.VACATE}:
            out.append((code, number, what.pfn, what.count, what.align, what.busy_pfns, what.was_start_extent))
            continue
        fields = (what.kind, what.device, what.size, what.direction, what.gfp, what.pieces, what.censored)
        served = (what.pfn, what.fell_back, what.busy_pfns, what.maps, what.unmaps)
        out.append((code, number, *fields, what.iova, what.line, *served, what.bounced, what.synced))
    return out


def agree(kernel, trace):
    workload = workload_of(trace)
    account = trace.account.as_dict()
    assert account["malformed"] == 0, account
    for got, want in itertools.zip_longest(said(workload), meant(kernel)):
        assert got == want, f"said {got}, meant {want}"
    assert workload.unused.unmatched == 0
    for name, count in kernel.counts.items():
        assert getattr(workload.unused, name) == count, name
    assert len(workload.requests) == len({what for code, what in kernel.ops if code is OpCode.BEGIN})
    return workload


@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 400), version=st.sampled_from(["6.12", "7.3"]))
@settings(max_examples=60)
def test_a_fake_kernels_calls_come_back(seed, steps, version, fake_kernel, trace_of):
    kernel = fake_kernel(seed, version=version).run(steps)
    if kernel.ops:
        agree(kernel, trace_of(kernel.text, kernel.sidecar))


@pytest.mark.slow
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=1000)
def test_a_fake_kernels_many_calls_come_back(seed, fake_kernel, trace_of):
    kernel = fake_kernel(seed).run(2000)
    agree(kernel, trace_of(kernel.text, kernel.sidecar))


# -- what a random run would seldom show ------------------------------------------------------------------------------


def line(text, *, cpu=0, pid=7, level=".", time=[0]):  # noqa: B006 - time goes on from line to line
    time[0] += 1
    return f"{f'task-{pid}':>20}     [{cpu:03}] ..{level}.. {time[0] // 1000:6}.{time[0] % 1000 * 1000:06}: {text}\n"


def test_of_several_live_maps_at_one_address_the_oldest_that_agrees_ends(trace_of):
    at = "dma_map_page: eth dir={} dma_addr=1000 size={} phys_addr=1000 attrs="
    ends = [("TO_DEVICE", 64), ("TO_DEVICE", 512), ("FROM_DEVICE", 64), ("TO_DEVICE", 64)]
    text = HEAD + "".join(line(at.format(*each)) for each in [*ends[::-1], ("BIDIRECTIONAL", 8)])
    text += "".join(line(f"dma_unmap_page: eth dir={way} dma_addr=1000 size={size} attrs=") for way, size in ends)
    workload = workload_of(trace_of(text))
    ended = [index for code, index, _ in workload.ops if code is OpCode.END]
    assert ended == [0, 2, 1, 3]
    # Nothing agrees with the last one: the oldest goes, as an end must have had a begin.
    workload = workload_of(trace_of(text + line("dma_unmap_page: eth dir=TO_DEVICE dma_addr=1000 size=9 attrs=")))
    assert [index for code, index, _ in workload.ops if code is OpCode.END] == [0, 2, 1, 3, 4]
    assert workload.unused.unmatched == 0


def test_an_end_without_a_begin_is_counted_and_changes_nothing(trace_of):
    ends = [
        "dma_unmap_page: eth dir=TO_DEVICE dma_addr=1000 size=64 attrs=",
        "dma_unmap_sg: eth dir=TO_DEVICE phys_addrs={0x1000} attrs=",
        "dma_free: eth dir=BIDIRECTIONAL dma_addr=1000 size=64 virt_addr=0000000000000abc attrs=",
        "cma_release: name=reserved pfn=0x10 page=00000000c1 count=1",
    ]
    workload = workload_of(trace_of(HEAD + "".join(line(end) for end in ends)))
    assert (workload.unused.unmatched, len(workload.requests), len(workload.ops)) == (4, 0, 0)


def test_a_device_is_part_of_the_key(trace_of):
    text = HEAD + line("dma_map_page: eth dir=TO_DEVICE dma_addr=1000 size=64 phys_addr=1000 attrs=")
    text += line("dma_unmap_page: nvme dir=TO_DEVICE dma_addr=1000 size=64 attrs=")
    workload = workload_of(trace_of(text))
    assert workload.unused.unmatched == 1
    assert [code for code, _, _ in workload.ops] == [OpCode.BEGIN]


def test_a_list_that_failed_is_censored_and_its_sizes_are_said_to_be_unknown(trace_of):
    text = HEAD + line("swiotlb_bounced: dev_name: nvme dma_mask=ff dev_addr=1000 size=4096 FORCE")
    text += line("dma_map_sg_err: nvme dir=TO_DEVICE dma_addrs={0x1000,0x9000} err=-5 attrs=")
    text += line("dma_map_page: nvme dir=TO_DEVICE dma_addr=1000 size=64 phys_addr=1000 attrs=")
    workload = workload_of(trace_of(text))
    assert [(r.censored, r.pieces, r.size) for r in workload.requests] == [
        (True, ((0x1000, 1), (0x9000, 1)), 2),
        (False, ((0x1000, 64),), 64),
    ]
    assert (workload.unused.ambiguous, workload.censored, workload.served[1].bounced) == (1, 1, 0)


def test_an_occupied_place_that_an_atomic_allocation_follows_stays_background(trace_of):
    text = HEAD + line("cma_alloc_start: name=reserved count=2 align=1")
    text += line("cma_alloc_finish: name=reserved pfn=0x10 page=00000000c1 count=2 align=1 errorno=0")
    alloc = "dma_alloc: cam dir=BIDIRECTIONAL dma_addr={:x} size=8192 virt_addr=0000000000000abc flags={} attrs="
    background = workload_of(trace_of(text + line(alloc.format(0x55000, "GFP_ATOMIC"))))
    assert [(taken.pfn, taken.count) for taken in background.occupancies] == [(0x10, 2)]
    assert background.served[0].pfn is None
    for address, gfp in ((0x55000, "GFP_KERNEL"), (0x10000, "GFP_ATOMIC")):  # a bus that is shifted; its own area
        mine = workload_of(trace_of(text + line(alloc.format(address, gfp))))
        assert (len(mine.occupancies), mine.served[0].pfn) == (0, 0x10)


def test_invalidations_are_the_commands_or_without_any_the_flushes(trace_of):
    command = "qi_submit: {} dmar0: 0x10042 0x0 0x0 0x0"
    some = "cache_tag_flush_range: dmar0 dmar0[0] type iotlb did 3 [0x1000-0x1fff] addr 0x1000 pages 0x1 mask 0x0"
    everything = "cache_tag_flush_all: dmar0/dmar0 type iotlb did 3 pasid 0 ref 1"
    for lines, number in (
        ([], 3),
        ([command.format("iec_inv"), command.format("inv_wait")], None),
        ([command.format("iotlb_inv"), command.format("inv_wait")] * 2, 2),
    ):
        assert (
            workload_of(trace_of(HEAD + "".join(map(line, [everything, some, some, *lines])))).invalidations == number
        )


def test_another_contexts_area_call_is_not_claimed(trace_of):
    text = HEAD + line("cma_alloc_start: name=reserved count=2 align=1", level="h")
    text += line("cma_alloc_finish: name=reserved pfn=0x10 page=00000000c1 count=2 align=1 errorno=0", level="h")
    text += line(
        "dma_alloc: cam dir=BIDIRECTIONAL dma_addr=10000 size=8192 virt_addr=0000000000000abc flags=GFP_KERNEL attrs="
    )
    workload = workload_of(trace_of(text))
    assert (len(workload.occupancies), workload.served[0].pfn) == (1, None)


def test_times_span_the_trace_even_if_they_are_out_of_order(trace_of):
    text = HEAD
    for time in (5, 3, 9, 7):
        text += (
            f"  t-1  [000] .....   {time}.000000: dma_map_page: e dir=TO_DEVICE dma_addr=1 size=1 phys_addr=1 attrs=\n"
        )
    workload = workload_of(trace_of(text))
    assert (workload.start_time, workload.stop_time) == (3 * 10**9, 9 * 10**9)
    assert [time for _, _, time in workload.ops] == [5 * 10**9, 3 * 10**9, 9 * 10**9, 7 * 10**9]


# -- recordings -------------------------------------------------------------------------------------------------------


def test_a_recordings_requests_are_those_counted_when_it_was_made(trace_path, recording, facts_of):
    trace, workload = recording(trace_path)
    figures = facts_of(trace_path)["figures"]
    counts = trace.table.counts()
    assert (workload.unused.unmatched, workload.unused.ambiguous) == (0, 0)
    own = workload.unused.unattributed_maps
    streaming = figures.get("dma_streaming", {})
    if "map_calls" in streaming:
        assert workload.count(RequestKind.MAP) == streaming["map_calls"] + figures.get("dma_map_failed", 0) + own
        mapped = [r for r in workload.requests if r.kind is RequestKind.MAP and r.device and not r.censored]
        assert sum(r.size for r in mapped) == streaming["bytes_mapped"]
    devices = figures.get("dma_coherent", {}).get("per_device", {})
    if workload.has_dma_events:
        made = Counter(r.device for r in workload.requests if r.kind is RequestKind.ALLOC)
        sizes = Counter()
        for request in workload.requests:
            sizes[request.device] += request.size if request.kind is RequestKind.ALLOC else 0
        assert made == {name: facts["allocs"] for name, facts in devices.items()}
        assert {name: sizes[name] for name in devices} == {name: facts["bytes"] for name, facts in devices.items()}
    others = workload.unused.msi_maps + workload.unused.identity_maps
    assert sum(s.maps for s in workload.served) + others == counts.get(Kind.IOMMU_MAP, 0)
    if "swiotlb=force" in workload.mode:
        assert sum(served.bounced for served in workload.served) == streaming["bytes_mapped"]
    live_at_end_and_peak(workload, figures)


def live_at_end_and_peak(workload, figures):
    streaming = figures.get("dma_streaming", {})
    live, peak = set(), 0
    for code, index, _ in workload.ops:
        if code > OpCode.END:
            continue
        request = workload.requests[index]
        if request.kind is RequestKind.MAP and request.device and not request.censored:
            (live.add if code == OpCode.BEGIN else live.remove)(index)
            peak = max(peak, len(live))
    if "map_calls" in streaming:
        assert (peak, len(live)) == (streaming["peak_live_maps"], streaming["live_maps_at_end"])
