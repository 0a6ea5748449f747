"""The replay against plain re-implementations of the rules, on small random workloads."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.errors import SwiommuError
from swiommu.replay import (
    DEFAULT_DESIGNS,
    Knobs,
    Status,
    equal_plan,
    find_design,
    loses_nothing,
    machine_plan,
    plan_of_size,
    replay,
)
from swiommu.replay.backends import make_backend
from swiommu.requests import Area, OpCode, RequestKind

PAGE = 4096
MIB = 1 << 20
TABLES = (39, 30, 21)  # what one entry of the three upper levels spans, as shifts


# -- cma-bitmap, written down again -----------------------------------------------------------------------------------


class PlainBitmap:
    """Rules 4, 5, 9 and 11 for cma-bitmap, with a list of bits."""

    def __init__(self, workload, plan):
        self.plan, self.area = plan, workload.area
        self.base = plan.base // PAGE
        self.bits = [False] * (plan.bytes // PAGE)
        for offset, count in plan.start_extents:
            self.bits[offset : offset + count] = [True] * count

    def find(self, count, align, busy):
        for bit in range(len(self.bits) - count + 1):
            at = self.base + bit
            if at % align == 0 and not any(self.bits[bit : bit + count]):
                if self.plan.fallback and any(at <= pfn < at + count for pfn in busy):
                    continue
                return bit
        return None

    def place(self, request, busy):
        """The first pfn, "block" of the page allocator, "direct" for a MAP, None if it fails."""
        if request.kind is RequestKind.MAP:
            fits = all(phys + size - 1 <= request.mask for phys, size in request.pieces)
            return "direct" if fits else None
        count, order = -(-request.size // PAGE), (-(-request.size // PAGE) - 1).bit_length()
        asks = not self.plan.fallback or (
            request.size > PAGE and request.gfp == "GFP_KERNEL" and not request.translated
        )
        bit = self.find(count, 1 << min(order, 8), busy) if asks else None
        if bit is not None and (self.base + bit + count) * PAGE - 1 <= request.mask:
            return self.base + bit
        return "block" if self.plan.fallback and PAGE << order <= 4 * MIB else None

    def set(self, pfn, count, taken):
        if isinstance(pfn, int):
            self.bits[pfn - self.base : pfn - self.base + count] = [taken] * count

    def run(self, workload):
        status, places, had_room, live, occupied = {}, {}, 0, {}, {}
        for code, index, _ in workload.ops:
            if code in {OpCode.OCCUPY, OpCode.VACATE}:
                self.background(code, index, workload.occupancies[index], occupied)
                continue
            request = workload.requests[index]
            count = -(-request.size // PAGE)
            if code == OpCode.END:
                if index in live:
                    self.set(live.pop(index), count, False)
                continue
            pfn = self.place(request, workload.served[index].busy_pfns)
            if pfn is None and request.kind is RequestKind.ALLOC:
                had_room += self.bits.count(False) >= count
            if request.censored:
                status[index] = Status.CENSORED if pfn is None else Status.GAINED
            elif pfn is None:
                status[index] = Status.LOST
            else:
                status[index], live[index], places[index] = Status.SERVED, pfn, pfn
                self.set(pfn, count, True)
        return status, places, had_room

    def background(self, code, index, occupancy, occupied):
        if code == OpCode.OCCUPY:
            bit = self.find(occupancy.count, 1 << occupancy.align, ())
            occupied[index] = None if bit is None else self.base + bit
            self.set(occupied[index], occupancy.count, True)
        elif occupancy.was_start_extent:
            self.set(occupancy.pfn - self.area.base_pfn + self.base, occupancy.count, False)
        else:
            self.set(occupied.pop(index), occupancy.count, False)


@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 150), memory=st.sampled_from([equal_plan, machine_plan]))
@settings(max_examples=80)
def test_the_bitmap_decides_as_a_plain_list_of_bits(seed, steps, memory, random_workload):
    workload = random_workload(seed, steps)
    plan = memory(workload)
    outcome = replay(workload, find_design("cma-bitmap"), plan, keep_places=True)
    status, places, had_room = PlainBitmap(workload, plan).run(workload)
    assert dict(enumerate(outcome.status)) == {r.index: status.get(r.index, 0) for r in workload.requests}
    assert {index: name_of(handle) for index, handle in outcome.places.items()} == places
    assert outcome.ledger.failed_with_room == had_room


def name_of(handle):
    if handle is None:
        return "direct"
    return handle.start.value // PAGE if hasattr(handle, "start") else "block"


@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 150), memory=st.sampled_from([equal_plan, machine_plan]))
@settings(max_examples=40)
def test_the_software_iommu_decides_as_the_bitmap(seed, steps, memory, random_workload):
    workload = random_workload(seed, steps)
    plan = memory(workload)
    bitmap, linear = (
        replay(workload, find_design(name), plan, keep_places=True) for name in ("cma-bitmap", "software-iommu")
    )
    assert linear.status == bitmap.status
    assert linear.counters == bitmap.counters
    assert linear.ledger == attrs.evolve(bitmap.ledger)
    for index, handle in bitmap.places.items():
        if hasattr(handle, "start"):
            assert linear.places[index].iova.start.value == handle.start.value


# -- iommu-strict: every frame is data or table -----------------------------------------------------------------------


def tried(backend, request):
    """The handle, or None if it was refused."""
    try:
        return backend.begin(request, ())
    except SwiommuError:
        return None


def table_pages(mappings):
    """Root and tables under the leaves, walked page by page."""
    tables = set()
    for mapping in mappings:
        at = mapping.iova.start.value // PAGE * PAGE
        for piece in mapping.pieces:
            phys, stop = piece.start.value // PAGE * PAGE, -(-piece.stop // PAGE) * PAGE
            while phys < stop:
                large = (at | phys) % (2 * MIB) == 0 and stop - phys >= 2 * MIB
                tables |= {(shift, at >> shift) for shift in TABLES[: 2 if large else 3]}
                at, phys = at + (2 * MIB if large else PAGE), phys + (2 * MIB if large else PAGE)
    return len(tables)


@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 80), frames=st.sampled_from(["largest", "random"]))
@settings(max_examples=25)
def test_behind_strict_translation_every_frame_is_data_or_table(seed, steps, frames, random_workload):
    workload = random_workload(seed, steps)
    plan = plan_of_size(workload, 6 * MIB)
    backend = make_backend(find_design("iommu-strict"), plan, workload, Knobs(frames=frames))
    live, groups = {}, set()
    for code, index, _ in workload.ops:
        if code > OpCode.END:
            continue
        request = workload.requests[index]
        pages = -(-request.size // PAGE) if request.kind is RequestKind.ALLOC else 0
        room = backend.room() // PAGE
        if code == OpCode.BEGIN:
            fits = backend.probe(request, ()) is None
            assert backend.room() // PAGE == room
            handle = tried(backend, request)
            assert (handle is not None) == fits
            if handle is None:
                tables = 4 * max(len(request.pieces), 1) + pages // 512 + 4
                assert pages + tables > room or request.mask < 0x4000_0000
            else:
                assert pages <= room
                live[index] = handle
            if handle is not None or backend.room() // PAGE != room:
                groups.add(request.group)
        elif index in live:
            backend.end(request, live.pop(index))
        by_group = {group: [] for group in groups}
        for each, mapping in live.items():
            by_group[workload.requests[each].group].append(mapping)
        data = sum(
            -(-workload.requests[each].size // PAGE)
            for each in live
            if workload.requests[each].kind is RequestKind.ALLOC
        )
        tables = sum(1 + table_pages(mappings) for mappings in by_group.values())
        assert backend.usage().tables == tables * PAGE
        assert backend.room() // PAGE == plan.bytes // PAGE - data - tables


# -- all designs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFAULT_DESIGNS)
@given(seed=st.integers(0, 1 << 32), memory=st.sampled_from([equal_plan, machine_plan]))
@settings(max_examples=8)
def test_a_probe_foretells_and_leaves_no_trace(name, seed, memory, random_workload):
    """What is probed would have been served, and the others are served as if nobody had asked."""
    workload = random_workload(seed, 60)
    plan = memory(workload)
    quiet = attrs.evolve(workload, ops=[without_probe(workload, op) for op in workload.ops])
    with_, without = (replay(each, find_design(name), plan, keep_places=True) for each in (workload, quiet))
    assert {index: where(handle) for index, handle in with_.places.items()} == {
        index: where(handle) for index, handle in without.places.items()
    }
    assert with_.counters == without.counters
    assert with_.ledger.peak_live_bytes == without.ledger.peak_live_bytes
    assert with_.ledger.mean() == without.ledger.mean()
    for request in workload.requests:
        if request.censored:
            assert with_.status[request.index] == held(workload, request, name, plan), request


def without_probe(workload, op):
    """Time passes all the same."""
    code, index, time = op
    probes = code == OpCode.BEGIN and workload.requests[index].censored
    return (OpCode.NOTHING, -1, time) if probes else op


def held(workload, request, name, plan):
    """What becomes of a censored request if the recording had served it at that moment."""
    until = next(place for place, op in enumerate(workload.ops) if op[:2] == (OpCode.BEGIN, request.index))
    requests = list(workload.requests)
    requests[request.index] = attrs.evolve(request, censored=False)
    cut = attrs.evolve(workload, requests=requests, ops=workload.ops[: until + 1])
    status = replay(cut, find_design(name), plan).status[request.index]
    return Status.GAINED if status == Status.SERVED else Status.CENSORED


def where(handle):
    if isinstance(handle, list):
        return [where(each) for each in handle]
    if isinstance(handle, tuple | int | None):
        return handle
    if hasattr(handle, "iova"):
        return handle.iova.start.value, tuple((piece.start.value, piece.size) for piece in handle.pieces)
    if hasattr(handle, "chunk"):
        return handle.chunk.start.value, tuple(handle.runs)
    start = getattr(handle, "start", None)
    return getattr(start, "value", start), getattr(handle, "pfn", None), getattr(handle, "size", None)


@pytest.mark.parametrize("name", DEFAULT_DESIGNS)
@given(seed=st.integers(0, 1 << 32), memory=st.sampled_from([equal_plan, machine_plan]))
@settings(max_examples=15)
def test_the_account_adds_up(name, seed, memory, random_workload):
    workload = random_workload(seed, 150)
    plan = memory(workload)
    outcome = replay(workload, find_design(name), plan)
    ledger, begun = outcome.ledger, {index for code, index, _ in workload.ops if code == OpCode.BEGIN}
    by_status = {each: [i for i in begun if outcome.status[i] == each] for each in range(5)}
    failed = by_status[Status.LOST] + by_status[Status.CENSORED]
    assert ledger.failed.total() == len(failed)
    assert ledger.failed_bytes == sum(workload.requests[index].size for index in failed)
    assert ledger.lost.total() == len(by_status[Status.LOST])
    assert ledger.gained.total() == len(by_status[Status.GAINED])
    assert ledger.served_bytes == sum(workload.requests[index].size for index in by_status[Status.SERVED])
    ended = {index for code, index, _ in workload.ops if code == OpCode.END}
    alive = [workload.requests[index] for index in by_status[Status.SERVED] if index not in ended]
    assert ledger.live_bytes == sum(r.size for r in alive if r.kind is RequestKind.ALLOC)
    assert ledger.map_bytes == sum(r.size for r in alive if r.kind is RequestKind.MAP)
    waste, _ = ledger.mean()
    assert waste.total == waste.internal + waste.idle + waste.tables + waste.pool
    kinds = tuple(RequestKind)
    assert loses_nothing(workload, find_design(name), plan, kinds=kinds) == (not ledger.lost)
    if find_design(name).has_hardware:
        assert outcome.counters.unmaps == len(ended & set(by_status[Status.SERVED]))
    else:
        assert (outcome.counters.maps, outcome.counters.unmaps) == (0, 0)


def test_a_request_that_fails_takes_its_end_with_it(make_request, make_workload):
    big, small = make_request(0, size=5 * MIB), make_request(1, size=4 * MIB)
    ops = [(1, 0, 0), (1, 1, 1), (2, 0, 2), (2, 1, 3)]
    workload = make_workload([big, small], ops)
    outcome = replay(workload, find_design("cma-bitmap"), plan_of_size(workload, 4 * MIB))
    assert list(outcome.status) == [Status.LOST, Status.SERVED]
    assert (outcome.ledger.live_bytes, outcome.ledger.peak_live_bytes) == (0, 4 * MIB)


def test_a_user_mapping_is_not_applicable_without_translation(make_request, make_workload):
    user = make_request(0, "USERMAP", 2 * PAGE, iova=0x1000, pieces=((0x9000, 2 * PAGE),))
    workload = make_workload([user], [(1, 0, 0), (2, 0, 1)])
    outcome = replay(workload, find_design("cma-bitmap"), equal_plan(workload))
    assert (outcome.status[0], outcome.ledger.not_applicable) == (Status.NOT_APPLICABLE, 1)
    assert outcome.ledger.failed.total() == 0
    outcome = replay(workload, find_design("iommu-strict"), equal_plan(workload))
    assert (outcome.status[0], outcome.maps[0], outcome.counters.unmaps) == (Status.SERVED, 1, 1)


def test_time_that_runs_backwards_stands_still(make_request, make_workload):
    """The state between two operations counts for the time from the latest moment seen to the next later one."""
    requests = [make_request(index, size=PAGE - 1) for index in range(3)]
    ops = [(1, 0, 10), (1, 1, 5), (1, 2, 20), (2, 0, 30)]
    workload = make_workload(requests, ops, area=Area(0x40000, 512, ()), start_time=5, stop_time=40)
    outcome = replay(workload, find_design("cma-bitmap"), equal_plan(workload))
    # 5 to 10: nothing; to 20: two (the second came "at 5"); to 30: three; to 40: two; a byte of rounding each
    assert outcome.ledger.mean()[0].internal == (5 * 0 + 10 * 2 + 10 * 3 + 10 * 2) // 35
