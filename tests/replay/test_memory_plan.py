"""How much memory a design gets and where it lies (rules 7 to 10)."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import PhysSpace
from swiommu.errors import InputError
from swiommu.memory import SystemMap
from swiommu.replay import equal_plan, machine_plan, peak_live_bytes, plan_of_size
from swiommu.requests import Area, OpCode, RequestKind, Served

PAGE = 4096
MIB = 1 << 20


def ram(*lines):
    return SystemMap.from_lines(PhysSpace("ram"), lines)


@given(data=st.data())
def test_the_true_peak_is_of_what_was_served(data, make_request, make_workload):
    """Against a walk that adds up what is live after each operation."""
    kinds = data.draw(st.lists(st.sampled_from(["ALLOC", "MAP", "censored"]), min_size=1, max_size=15))
    requests, ops, live = [], [], []
    for index, kind in enumerate(kinds):
        if live and data.draw(st.booleans()):
            ops.append((2, live.pop(data.draw(st.integers(0, len(live) - 1))), index))
        facts = {"kind": "ALLOC", "censored": True} if kind == "censored" else {"kind": kind}
        requests.append(make_request(index, size=data.draw(st.integers(1, 9999)), **facts))
        ops.append((1, index, index))
        if kind != "censored":
            live.append(index)
    workload = make_workload(requests, ops)
    peaks, alive = [0], set()
    for code, index, _ in ops:
        (alive.add if code == OpCode.BEGIN else alive.remove)(index)
        peaks.append(sum(requests[i].size for i in alive if kinds[i] == "ALLOC"))
    assert peak_live_bytes(workload) == max(peaks)


def test_equal_memory_is_the_area_and_what_fell_back_at_its_peak(make_request, make_workload):
    requests = [make_request(0, size=3 * MIB), make_request(1, size=MIB + 1), make_request(2, size=100)]
    served = [Served(fell_back=True), Served(fell_back=True), Served(pfn=1)]
    ops = [(1, 0, 0), (1, 1, 1), (2, 0, 2), (1, 2, 3)]
    workload = make_workload(requests, ops, served=served, area=Area(0x40000, 16 * 256, ((0, 7),)))
    plan = equal_plan(workload)
    assert plan.bytes == 16 * MIB + 4 * MIB + 2 * MIB
    assert (plan.mode, plan.fallback, plan.base, plan.start_extents) == ("equal", False, 0x4000_0000, ((0, 7),))
    assert plan.source == "recorded area 16 MiB + peak of what fell back out of it"
    apart = attrs.evolve(workload, ops=[ops[0], ops[2], ops[1], ops[3]])
    assert equal_plan(apart).bytes == 16 * MIB + 4 * MIB


def test_an_odd_area_is_rounded_up(make_workload):
    assert equal_plan(make_workload([], [], area=Area(0x40000, 513, ()))).bytes == 4 * MIB


@pytest.mark.parametrize(("size", "mib"), [(1, 2), (8 * MIB, 10), (8 * MIB + 1, 12), (16 * MIB, 20)])
def test_without_an_area_it_is_five_quarters_of_the_peak(size, mib, make_request, make_workload):
    workload = make_workload([make_request(0, size=size)], [(1, 0, 0)], area=None)
    plan = equal_plan(workload)
    assert (plan.bytes, plan.start_extents) == (mib * MIB, ())
    assert plan.source == "1.25 x the peak of live ALLOC bytes (no contiguous area recorded)"


def test_without_a_request_there_are_two_mebibytes(make_workload):
    plan = equal_plan(make_workload([], [], area=None))
    assert (plan.bytes, plan.source) == (2 * MIB, "the least, as no ALLOC was served (no contiguous area recorded)")


def test_what_is_too_large_is_told_with_the_file_and_the_line(make_request, make_workload):
    workload = make_workload([make_request(0, size=1 << 40)], [(1, 0, 0)], area=None, path="folder/a.trace")
    with pytest.raises(InputError) as caught:
        equal_plan(workload)
    assert str(caught.value) == (
        f"folder/a.trace:{workload.requests[0].line}: 1099511627776 bytes of contiguous memory are more than can be "
        "replayed, 274877906944"
    )


def test_unknown_extents_are_none(make_workload):
    assert equal_plan(make_workload([], [], area=Area(0x40000, 512, None))).start_extents == ()


def test_memory_lies_at_the_area_and_moves_down_below_4_gib_by_whole_steps(make_workload):
    workload = make_workload([], [], area=Area(0xFFC11, 512, ()))
    assert plan_of_size(workload, 2 * MIB).base == 0xFFC1_1000
    high = plan_of_size(workload, 64 * MIB)
    assert high.base + high.bytes <= 1 << 32
    assert (high.base - 0xFFC1_1000) % (2 * MIB) == 0
    assert high.base + high.bytes > (1 << 32) - 2 * MIB
    assert plan_of_size(workload, 8 << 30).base == 0x1_1000


@pytest.mark.parametrize(
    ("lines", "base"),
    [
        (["40000000-bfffffff : System RAM"], 0xBFC0_0000),
        (["00100000-07ffffff : System RAM", "100000000-1ffffffff : System RAM"], 0xFFC0_0000),
        (["00100000-07fdffff : System RAM"], 0x07A0_0000),
        (None, 0xFFC0_0000),
    ],
)
def test_without_an_area_memory_lies_at_the_top_of_low_ram(lines, base, make_workload):
    workload = make_workload([], [], area=None, system_map=lines and ram(*lines))
    assert plan_of_size(workload, 4 * MIB).base == base


def test_the_machine_had_its_area_or_none(make_workload):
    plan = machine_plan(make_workload([], [], area=Area(0x40123, 77, ((3, 4),))))
    assert (plan.bytes, plan.base, plan.start_extents) == (77 * PAGE, 0x4012_3000, ((3, 4),))
    assert (plan.mode, plan.fallback) == ("machine", True)
    plan = machine_plan(make_workload([], [], area=None))
    assert (plan.bytes, plan.start_extents, plan.fallback) == (0, (), True)


def test_the_plan_of_a_recording_holds_what_it_served(cma_trace_path, recording):
    _, workload = recording(cma_trace_path)
    plan = equal_plan(workload)
    assert plan.bytes % (2 * MIB) == 0
    assert plan.bytes >= workload.area.bytes
    assert plan.base % MIB == workload.area.base_pfn * PAGE % MIB
    allocs = [r for r in workload.requests if r.kind is RequestKind.ALLOC and not r.censored]
    assert max(r.size for r in allocs) <= peak_live_bytes(workload) <= sum(r.size for r in allocs)
