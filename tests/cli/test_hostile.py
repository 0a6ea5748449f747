"""Traces made to hurt: each is answered or refused in one sentence, by every verb, in bounded time and memory."""

import pytest

from swiommu.answers import compare, verify
from swiommu.errors import InputError
from swiommu.replay import Knobs
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
            f"{hostile.name}:3: {TOO_MUCH[hostile.name]} bytes of contiguous memory are more than can be replayed, "
            "274877906944"
        )
        return
    document = compare(hostile, memory=memory).to_json()
    for row in document["designs"]:
        assert row["requests"] == document["trace"]["requests"]
        assert row["failed"] <= row["requests"]


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
