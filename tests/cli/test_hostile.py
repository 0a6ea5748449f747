"""Traces made to hurt: each is answered or refused in one sentence, by every verb, in bounded time and memory."""

import pytest

from swiommu.answers import compare, verify
from swiommu.errors import InputError
from swiommu.replay import AS_RECORDED, PRESETS, Knobs
from swiommu.requests import workload_of
from swiommu.trace import read_trace

HEAD = "# tracer: nop\n#\n"


def line(at, text):
    return f"    kworker/u4:2-40      [000] ..... {4 + at // 10**6:5d}.{at % 10**6:06d}: {text}\n"


def alloc(at, size, virt, device="vivid.0"):
    flags = "flags=GFP_KERNEL attrs="
    return line(at, f"dma_alloc: {device} dir=BIDIRECTIONAL dma_addr=1000 size={size} virt_addr={virt:016x} {flags}")


def mapped(at, phys, size, device="0000:00:01.0"):
    text = f"dma_map_page: {device} dir=FROM_DEVICE dma_addr={phys:x} size={size} phys_addr={phys:x} attrs="
    return line(at, text)


AREA = "count=18446744073709551615 align=63"
TRACES = {
    "size-0": alloc(0, 0, 1) + mapped(1, 0x1000, 0) + mapped(2, 0x2000, 1),
    "all-ones": alloc(0, 2**64 - 1, 1) + alloc(1, 2**63, 2),
    "wrapping": mapped(0, 2**64 - 1, 2**64 - 1) + mapped(1, 2**64 - 4096, 8192),
    "a-thousand-tebibytes": "".join(alloc(at, 2**40, at + 1) for at in range(1000)),
    "beyond-64-bits": alloc(0, 2**70, 1) + alloc(1, 4096, 1),
    "nul": alloc(0, 4096, 1) + "\0\0\0\n",
    "cut": alloc(0, 4096, 1) + alloc(1, 4096, 2)[:60],
    "ten-megabytes-in-a-line": alloc(0, 4096, 1) + "x" * (10 << 20) + "\n" + alloc(1, 4096, 2),
    "latin-1": alloc(0, 4096, 1) + alloc(1, 4096, 2).replace("vivid", "v\xff"),
    "out-of-order": alloc(9, 4096, 1) + alloc(1, 8192, 2) + alloc(5, 4096, 3),
    "two-boots": alloc(50_000_000, 4096, 1) + alloc(1, 8192, 1),
    "area-of-all-pages": line(0, f"cma_alloc_start: name=reserved {AREA}")
    + line(1, f"cma_alloc_finish: name=reserved pfn=0xffffffffffffffff page=0000000000000000 {AREA} errorno=0")
    + alloc(2, 4096, 1),
    "user-mapping-of-everything": line(0, "tracing_mark_write: VFIO MAP iova=0x0 size=0xffffffffffffffffffff rc=0")
    + line(1, "tracing_mark_write: VFIO UNMAP iova=-5 size=0x0 rc=0")
    + alloc(2, 4096, 1),
    "script": alloc(0, 4096, 1, device="[bold]<script>=cmd|' /C calc'!A0"),
}


@pytest.fixture(params=TRACES)
def hostile(request, tmp_path):
    path = tmp_path / f"{request.param}.trace"
    path.write_bytes((HEAD + TRACES[request.param]).encode("latin-1"))
    return read_trace(path)


TOO_MUCH = {"all-ones": 2**64 - 1, "a-thousand-tebibytes": 2**40}


@pytest.mark.parametrize("memory", ["equal", "machine"])
def test_compare_answers_or_says_why_not(hostile, memory):
    if memory == "equal" and hostile.name in TOO_MUCH:
        with pytest.raises(InputError) as caught:
            compare(hostile)
        assert str(caught.value) == (
            f"{hostile.path}:3: {TOO_MUCH[hostile.name]} bytes of contiguous memory are more than can be replayed, "
            "274877906944"
        )
        return
    document = compare(hostile, memory=memory).to_json()
    for row in document["designs"]:
        assert row["requests"] == document["trace"]["requests"]
        assert row["failed"] <= row["requests"]


@pytest.mark.parametrize("memory", ["equal", "machine"])
def test_an_area_larger_than_can_be_replayed(memory, trace_of):
    trace = trace_of(alloc(0, 4096, 1), {"cma_area": {"base_pfn": "0xb5a00", "total_pages": 1 << 30}})
    with pytest.raises(InputError) as caught:
        compare(trace, ["cma-lending"], memory=memory)
    assert str(caught.value) == (
        f"{trace.path}: 4398046511104 bytes of contiguous memory are more than can be replayed, 274877906944"
    )


def test_verify_answers_or_says_what_it_looked_for(hostile):
    if hostile.name == "area-of-all-pages":
        assert verify(hostile).mismatched == 0
        return
    with pytest.raises(InputError) as caught:
        verify(hostile)
    assert caught.value.reason.startswith("holds no decision that can be checked: looked for cma_alloc_start with ")


def test_more_devices_than_a_machine_has(tmp_path):
    path = tmp_path / "devices.trace"
    path.write_text(HEAD + "".join(mapped(at, at << 12, 4096, device=f"dev{at}") for at in range(4100)))
    with pytest.raises(InputError) as caught:
        workload_of(read_trace(path))
    assert str(caught.value) == f"{path}:4099: more than 4096 devices can't be replayed"


def test_a_map_of_memory_that_has_the_number_of_a_drawn_frame(tmp_path):
    """4 MiB are drawn at random from 6 MiB at 0; then a driver maps its own page 0x201000, and unmaps it."""
    path = tmp_path / "drawn.trace"
    unmapped = line(2, "dma_unmap_page: 0000:00:01.0 dir=FROM_DEVICE dma_addr=201000 size=512 attrs=")
    freed = "dma_free: vivid.0 dir=BIDIRECTIONAL dma_addr=1000 size=4150272 virt_addr=0000000000000001 attrs="
    path.write_text(HEAD + alloc(0, 4150272, 1) + mapped(1, 0x201000, 512) + unmapped + line(3, freed))
    for seed in range(3):
        answer = compare(read_trace(path), ["iommu-strict", "iommu-lazy"], knobs=Knobs(frames="random", seed=seed))
        assert [(row.failed, row.maps > 1000, row.unmaps) for row in answer.rows] == [(0, True, 2)] * 2


@pytest.mark.parametrize("memory", ["equal", "machine"])
def test_an_alloc_too_large_to_be_drawn_frame_by_frame(memory, trace_of):
    trace = trace_of(HEAD + alloc(0, 4096, 1) + alloc(1, 1 << 32, 2))
    knobs = Knobs(frames="random")
    with pytest.raises(InputError) as caught:
        compare(trace, ["iommu-strict"], memory=memory, knobs=knobs)
    assert str(caught.value) == (
        f"{trace.path}:4: an ALLOC of 4294967296 bytes is too large to be drawn from single frames (--frames random), "
        "1073741824 at most"
    )
    assert compare(trace, ["cma-bitmap"], memory=memory, knobs=knobs, with_need=False).rows[0].requests == 2


def iommu_map(at, iova, paddr, size):
    return line(at, f"map: IOMMU: iova=0x{iova:016x} - 0x{iova + size:016x} paddr=0x{paddr:016x} size={size}")


@pytest.mark.parametrize("memory", ["equal", "machine"])
@pytest.mark.parametrize("design", ["iommu-strict", "shim-over-iommu"])
def test_a_map_of_more_pages_than_can_be_written(memory, design, trace_of):
    trace = trace_of(HEAD + iommu_map(0, 0, 0x4800_F000, 1 << 47))
    with pytest.raises(InputError) as caught:
        compare(trace, [design], memory=memory)
    assert str(caught.value) == (
        f"{trace.path}:3: a MAP of 140737488355328 bytes needs 34359738368 page-table entries under format mock, "
        "more than can be replayed, 8388608"
    )
    assert compare(trace, ["cma-bitmap"], memory=memory).rows[0].requests == 1


def test_a_guest_of_a_tebibyte_is_mapped_by_large_pages(trace_of):
    """Its addresses agree in all bits of the largest page: a thousand entries."""
    trace = trace_of(HEAD + iommu_map(0, 1 << 30, 3 << 30, 1 << 40))
    row = compare(trace, ["iommu-strict"], memory="machine").rows[0]
    assert (row.requests, row.failed, row.maps) == (1, 0, 1)


@pytest.mark.parametrize("virt", [0, 1])
def test_an_alloc_of_nothing_is_a_refused_request(virt, tmp_path):
    path = tmp_path / "nothing.trace"
    path.write_text(HEAD + alloc(0, 0, virt) + alloc(1, 4096, 2))
    for memory in ("equal", "machine"):
        answer = compare(read_trace(path), [AS_RECORDED, *PRESETS], memory=memory)
        assert {(row.requests, row.failed, row.lost, row.gained) for row in answer.rows} == {(2, 1, 0, 0)}


def test_area_calls_for_nothing_without_dma_events(tmp_path):
    path = tmp_path / "nothing.trace"
    finish = "cma_alloc_finish: name=reserved pfn=0x10 page=0000000000000000 count=0 align=0 errorno=0"
    path.write_text(HEAD + line(0, finish))
    answer = compare(read_trace(path), [AS_RECORDED, *PRESETS], memory="machine")
    assert {(row.requests, row.failed, row.lost, row.gained) for row in answer.rows} == {(1, 1, 0, 0)}


@pytest.mark.parametrize("order", [64, 20_000, 2**32 - 1])
def test_an_alignment_that_no_address_has_is_a_line_that_cannot_be_read(order, tmp_path):
    path = tmp_path / "order.trace"
    start = f"cma_alloc_start: name=reserved count=1013 align={order}"
    finish = f"cma_alloc_finish: name=reserved pfn=0xb9400 page=0000000000000000 count=1013 align={order} errorno=0"
    path.write_text(HEAD + line(0, start) + line(1, finish) + alloc(2, 4096, 1))
    trace = read_trace(path)
    assert trace.account.malformed == 2
    assert trace.account.examples[1] == (4, f"cma_alloc_finish: an alignment of 2**{order} pages")
    assert [row.failed for row in compare(trace, ["cma-bitmap", "carveout-best-fit"]).rows] == [0, 0]


POOL = {"bounce_pool_addresses_seen": {"lowest": "0x78000000"}}
PROBE = "(alloc_iova_fast+0x0/0x378)"
ANSWER = "iova_alloc_ret: (iommu_dma_alloc_iova+0xfc/0x150 <- alloc_iova_fast) ret="


def bounced(at, size):
    text = f"swiotlb_bounced: dev_name: nic dma_mask=ffffffffffffffff dev_addr=1000 size={size} FORCE"
    taken = f"dma_map_page: nic dir=TO_DEVICE dma_addr={0x7800_0000 + 2048 * at:x} size={size} phys_addr=1000 attrs="
    return line(2 * at, text) + line(2 * at + 1, taken)


def given(at, size, pfn, limit=0xFFFFF):
    asked = f"iova_alloc: {PROBE} iovad=0xffff00000acf3208 size={size} limit={limit:#x} flush=0"
    return line(2 * at, asked) + line(2 * at + 1, f"{ANSWER}{pfn:#x}")


def init(granule, start):
    return line(
        0, f"iova_init: (init_iova_domain+0x0/0x90) iovad=0xffff00000acf3208 granule={granule} start={start:#x}"
    )


def area_call(at, count, pfn):
    start = line(2 * at, f"cma_alloc_start: name=reserved count={count} align=0")
    return start + line(
        2 * at + 1,
        f"cma_alloc_finish: name=reserved pfn={pfn:#x} page=0000000000000000 count={count} align=0 errorno=0",
    )


AREA_OF_64 = {"cma_area": {"base_pfn": 16, "total_pages": 64, "in_use_before_trace_extents_offset_count": []}}
IMPOSSIBLE = {
    "swiotlb": (POOL, bounced(0, 2048) + bounced(1, 0) + bounced(1, 2048), 2, "0 bytes are bounced"),
    "cma": (AREA_OF_64, area_call(0, 3, 16) + area_call(1, 0, 19) + area_call(2, 2, 19), 2, "0 pages are asked for"),
    "iova": (
        {},
        init(4096, 1) + given(1, 1, 0xFFFFF) + given(2, 0, 0xFFFF0) + given(3, 1, 0xFFFFE),
        2,
        "an answer to a call for no pages, or for more than there are",
    ),
    "iova beyond 64 bits": (
        {},
        init(4096, 1) + given(1, 1, 5, limit=2**64 - 1) + given(3, 1, 0xFFFFF),
        1,
        "an answer to a call for no pages, or for more than there are",
    ),
    "iova reserved backwards": (
        {},
        init(4096, 1)
        + line(1, "iova_reserve: (reserve_iova+0x0/0x188) iovad=0xffff00000acf3208 lo=0x9 hi=0x1")
        + given(2, 1, 0xFFFFF),
        1,
        "pfn 0x9 to 0x1 are reserved",
    ),
    "iova granule": (
        {},
        init(0, 0) + given(1, 1, 0xFFFFF),
        0,
        "no allocator with granule 0, first pfn 0x0 and 1 CPUs",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_line_is_counted_and_the_rest_is_verified(name, trace_of):
    sidecar, text, matched, why = IMPOSSIBLE[name]
    (tally,) = verify(trace_of(HEAD + text, sidecar)).classes
    assert (tally.matched, tally.mismatched) == (matched, 0)
    assert tally.undetermined[f"an impossible line: {why}"] == 1


def test_an_answer_beyond_64_bits_of_address_is_a_mismatch_and_no_more(trace_of):
    text = HEAD + init(4096, 1) + given(1, 1, 2**64 - 1) + given(2, 1, 0xFFFFE)
    (tally,) = verify(trace_of(text)).classes
    assert (tally.total, tally.mismatched) == (2, 1)


def test_a_pool_that_begins_within_a_page_is_nowhere(trace_of):
    trace = trace_of(HEAD + bounced(0, 2048), {"bounce_pool_addresses_seen": {"lowest": 1}})
    (tally,) = verify(trace).classes
    assert dict(tally.undetermined) == {"the sidecar doesn't tell where the pool lies": 1}


@pytest.mark.parametrize("parameter", ["swiotlb=100", "swiotlb=0x64,force", "swiotlb=1,7"])
def test_a_small_pool_of_the_boot_parameters_is_rounded_up(parameter, trace_of):
    trace = trace_of(HEAD + mapped(0, 0x1000, 4096), {"boot_parameters": parameter, "cpus": 1})
    (row,) = compare(trace, ["swiotlb"], with_need=False).rows
    assert (row.failed, row.reserved_bytes) == (0, 2048 * (1024 if "7" in parameter else 128))
