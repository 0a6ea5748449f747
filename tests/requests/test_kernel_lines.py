"""Traces where the kernel's own lines are all there is: each map a MAP, each area call an ALLOC (rule 2)."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.requests import OpCode, RequestKind, workload_of

PAGE = 4096
RAM = {"system_ram": ["40000000-bfffffff : System RAM"]}


def printed(*texts, cpu=0):
    lines = [f"  t-7  [{cpu:03}] .....     1.{number:06}: {text}" for number, text in enumerate(texts)]
    return "\n".join(["# tracer: nop", *lines, ""])


def map_(iova, paddr, size=PAGE):
    return f"map: IOMMU: iova=0x{iova:x} - 0x{iova + size:x} paddr=0x{paddr:x} size={size}"


def unmap(iova, size=PAGE):
    return f"unmap: IOMMU: iova=0x{iova:x} - 0x{iova + size:x} size={size} unmapped_size={size}"


def ops(workload):
    return [(code, index) for code, index, _ in workload.ops]


@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 60))
@settings(max_examples=50)
def test_maps_begin_and_end_page_by_page(seed, steps, trace_of):
    """Unmaps take any part of what is mapped from its start on; a MAP ends when its last page is gone."""
    randomly, live, texts, expected, top = random.Random(seed), {}, [], [], 0x1000
    for number in range(steps):
        if live and randomly.random() < 0.5:
            first = randomly.choice(list(live))
            size, left = randomly.randint(1, 8) * PAGE, 0
            at = first
            while at in live and left < size:  # neighbours in a row, the last perhaps in part
                wanted, length = live.pop(at)
                taken = min(length, size - left)
                at, left = at + length, left + taken
                if taken < length:
                    live[first + left] = (wanted, length - taken)
                else:
                    expected.append((OpCode.END, wanted))
            texts.append(unmap(first, left))
        else:
            size = randomly.randint(1, 6) * PAGE
            live[top] = (number, size)
            expected.append((OpCode.BEGIN, number))
            texts.append(map_(top, 0x5000_0000 + top, size))
            top += size
    workload = workload_of(trace_of(printed(*texts), RAM))
    by_line = {request.index: request.line - 2 for request in workload.requests}
    assert [(code, by_line[index]) for code, index in ops(workload)] == expected
    assert all(r.kind is RequestKind.MAP and r.translated and not r.device for r in workload.requests)
    assert workload.unused.unattributed_maps == len(workload.requests)
    ended = {index for code, index in ops(workload) if code is OpCode.END}
    assert [served.unmaps for served in workload.served] == [int(r.index in ended) for r in workload.requests]
    assert not workload.has_dma_events


def test_an_area_call_is_an_allocation_of_the_area(trace_of):
    text = printed(
        "cma_alloc_start: name=video count=3 align=2",
        "cma_alloc_busy_retry: name=video pfn=0x10 page=0c1 count=3 align=2",
        "cma_alloc_finish: name=video pfn=0x14 page=0c1 count=3 align=2 errorno=0",
        "cma_alloc_start: name=video count=9 align=4",
        "cma_alloc_finish: name=video pfn=0x0 page=0c1 count=9 align=4 errorno=-16",
        "cma_release: name=video pfn=0x14 page=0c1 count=3",
    )
    workload = workload_of(trace_of(text))
    served, failed = workload.requests
    assert (served.kind, served.device, served.size, served.gfp) == ("ALLOC", "video", 3 * PAGE, "GFP_KERNEL")
    assert (served.censored, failed.censored, failed.size) == (False, True, 9 * PAGE)
    assert (workload.served[0].pfn, workload.served[0].busy_pfns) == (0x14, (0x10,))
    assert ops(workload) == [(OpCode.BEGIN, 0), (OpCode.BEGIN, 1), (OpCode.END, 0)]
    assert workload.occupancies == []


DMA = "dma_map_page: eth dir=TO_DEVICE dma_addr=10 size=1 phys_addr=10 attrs="


def test_doorbells_and_identity_ranges_are_counted_apart(trace_of):
    lines = [DMA, map_(0xFFFF_F000, 0x0809_0000), map_(0x4000_0000, 0x4000_0000, 4 * PAGE), map_(0, 0, 16 * PAGE)]
    workload = workload_of(trace_of(printed(*lines), RAM))
    assert (workload.unused.msi_maps, workload.unused.identity_maps, workload.unused.unattributed_maps) == (1, 2, 0)
    assert len(workload.requests) == 1
    # Without the list of RAM a doorbell can't be told from memory.
    workload = workload_of(trace_of(printed(*lines)))
    assert (workload.unused.msi_maps, workload.unused.identity_maps, workload.unused.unattributed_maps) == (0, 2, 1)


def test_a_two_step_run_is_one_request_of_nobody(trace_of):
    lines = [DMA, map_(0x8000, 0x5000_0000), map_(0x9000, 0x6000_0000, 2 * PAGE), unmap(0x8000, 3 * PAGE)]
    workload = workload_of(trace_of(printed(*lines), RAM))
    run = workload.requests[1]
    assert (run.device, run.size, run.pieces) == ("", 3 * PAGE, ((0x5000_0000, PAGE), (0x6000_0000, 2 * PAGE)))
    assert (workload.served[1].maps, workload.served[1].unmaps) == (2, 1)
    assert ops(workload) == [(OpCode.BEGIN, 0), (OpCode.BEGIN, 1), (OpCode.END, 1)]
    workload = workload_of(trace_of(printed(*lines[:-1]), RAM))
    assert (workload.served[1].maps, workload.served[1].unmaps) == (2, 0)
    assert ops(workload) == [(OpCode.BEGIN, 0), (OpCode.BEGIN, 1)]


def test_the_unmap_of_a_page_is_the_pages_even_if_a_run_has_the_same_address(trace_of):
    """Two domains, one address: the unmap line belongs to the dma event beside it."""
    page = "dma_map_page: eth dir=TO_DEVICE dma_addr=8000 size=64 phys_addr=50000000 attrs="
    lines = [map_(0x8000, 0x6000_0000), map_(0x8000, 0x5000_0000), page]
    ends = [unmap(0x8000), "dma_unmap_page: eth dir=TO_DEVICE dma_addr=8000 size=64 attrs=", DMA]
    workload = workload_of(trace_of(printed(*lines, *ends), RAM))
    run = next(request for request in workload.requests if not request.device)
    assert (OpCode.END, run.index) not in ops(workload)
    assert workload.served[run.index].unmaps == 0
    assert workload.served[0].unmaps == 1


@pytest.mark.parametrize("mark", ["VFIO MAP iova=0x8000 size=0x3000 prot=rw rc=0"])
def test_maps_before_a_mark_are_the_users(mark, trace_of):
    lines = [map_(0x8000, 0x5000_0000), map_(0x9000, 0x6000_0000, 2 * PAGE), f"tracing_mark_write: {mark}"]
    ends = [unmap(0x8000), unmap(0x9000, 2 * PAGE), "tracing_mark_write: VFIO UNMAP iova=0x0 size=0x100000 rc=0"]
    workload = workload_of(trace_of(printed(*lines, *ends), RAM))
    user = workload.requests[0]
    assert (user.kind, user.iova, user.size, len(user.pieces)) == ("USERMAP", 0x8000, 3 * PAGE, 2)
    assert ops(workload) == [(OpCode.BEGIN, 0), (OpCode.END, 0)]
    assert workload.unused.unattributed_maps == 0
