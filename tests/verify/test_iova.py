"""Predictions of bus addresses against recordings with probes, falsified copies, blind probes and wrong rules."""

import gzip
import json
import random
import re

import pytest

from swiommu.iommu import IovaDomain
from swiommu.iommu.iova import IovaRcache
from swiommu.trace import Kind
from swiommu.verify import verify_iova
from swiommu.verify.iova.allocators import _Recorded
from swiommu.verify.iova.calls import read_calls

ANSWER = re.compile(r"(iova_alloc_ret: .* ret=0x)([0-9a-f]+)")
SMALL = 100_000  # bytes, compressed: others take more than three seconds


def beside(path):
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".trace") + ".json")


def pytest_generate_tests(metafunc):
    if "iova_trace_path" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--trace-dir")
        paths = [
            path
            for path in sorted([*folder.rglob("*.trace.gz"), *folder.rglob("*.trace")])
            if beside(path).exists() and "iova_probe" in json.loads(beside(path).read_text())["figures"]
        ]
        big = [pytest.mark.slow]
        params = [
            pytest.param(path, marks=big * (path.stat().st_size > SMALL), id=path.name.removesuffix(".trace.gz"))
            for path in paths
        ]
        metafunc.parametrize("iova_trace_path", params, scope="module")


def lines_of(path):
    return (gzip.open(path, "rt") if path.suffix == ".gz" else path.open()).read().split("\n")


def facts_small(path):
    facts = json.loads(beside(path).read_text())
    return {key: facts[key] for key in ("kernel", "arch", "iommu_groups") if key in facts}


# -- recordings -------------------------------------------------------------------------------------------------------


def test_every_address_of_a_recording_is_predicted(iova_trace_path, recording, facts_of):
    trace, _ = recording(iova_trace_path)
    tally = verify_iova(trace)
    assert tally.mismatches == []
    assert dict(tally.undetermined) == {}
    assert tally.matched == tally.total == facts_of(iova_trace_path)["figures"]["iova_probe"]["alloc_calls"]


def test_frees_that_were_missed_are_put_back(iova_trace_path, recording, facts_of):
    """Every range that was unmapped is freed, but for those that wait for a flush when the trace ends."""
    trace, _ = recording(iova_trace_path)
    probe = facts_of(iova_trace_path)["figures"]["iova_probe"]
    freed = sum(call.kind is Kind.IOVA_FREE for call in read_calls(trace.calls))
    assert probe["frees"] <= freed <= probe["unmap_events"]
    if "strict" in facts_of(iova_trace_path)["iommu"]["mode"]:
        assert freed == probe["unmap_events"]


@pytest.mark.parametrize("in_a_row", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_wrong_records_are_found_one_by_one(seed, in_a_row, iova_trace_path, trace_of):
    randomly = random.Random(f"{iova_trace_path.name} {seed}")
    lines, k = lines_of(iova_trace_path), randomly.randint(1, 8)
    answers = [index for index, line in enumerate(lines) if ANSWER.search(line)]
    first = randomly.randrange(len(answers) - k + 1)
    chosen = sorted(answers[first : first + k] if in_a_row else randomly.sample(answers, k))
    wrong = []
    for index in chosen:
        other = randomly.choice([0, randomly.randrange(1, 1 << 20)])
        lines[index] = ANSWER.sub(rf"\g<1>{other:x}", lines[index])
        wrong.append((index + 1, f"pfn {other:#x}" if other else "none"))
    tally = verify_iova(trace_of("\n".join(lines), facts_small(iova_trace_path)))
    assert [(mismatch.line, mismatch.recorded) for mismatch in tally.mismatches] == wrong
    assert tally.mismatched == k


@pytest.mark.parametrize("seed", range(3))
def test_blind_probes_cost_nothing_in_strict_mode(seed, data_dir, trace_of):
    """The probes of whole interrupts are taken out, as when they had hit another probe."""
    path = data_dir / "traces" / "x86-6.12-strict-qtrace-s101.trace.gz"
    randomly, kept, blind = random.Random(seed), [], False
    for line in lines_of(path):
        if "iommu_unmap_fast:" in line:
            blind = randomly.random() < 0.3
        if not (blind and ("iommu_unmap_fast:" in line or "iova_free:" in line)):
            kept.append(line)
    tally = verify_iova(trace_of("\n".join(kept), facts_small(path)))
    assert (tally.total, tally.matched, tally.undetermined.total()) == (386, 386, 0)


def test_blind_flushes_cost_nothing_in_lazy_mode(data_dir, trace_of):
    """Half of the flushes lose all their frees; the rings still tell them."""
    path = data_dir / "traces" / "x86-6.12-lazy-qtrace-s109.trace.gz"
    kept, flushes = [], 0
    for line in lines_of(path):
        flushes += "cache_tag_flush_all:" in line
        if not (flushes % 2 and "iova_free:" in line):
            kept.append(line)
    tally = verify_iova(trace_of("\n".join(kept), facts_small(path)))
    assert (tally.total, tally.matched) == (411, 411)


class Lazy:
    """Lines of a lazy kernel with one allocator; ranges are a page each and are called by their pfn."""

    def __init__(self):
        self.lines, self.context = ["# tracer: nop"], (40, 1)
        self.say("iova_init: (init_iova_domain+0x0/0x1) iovad=0xff granule=4096 start=0x1")

    def say(self, text):
        pid, cpu = self.context
        self.lines.append(f"x-{pid} [{cpu:03d}] d.... 4.{len(self.lines):06d}: {text}")

    def give(self, pfn):
        self.say("iova_alloc: (alloc_iova_fast+0x0/0x378) iovad=0xff size=1 limit=0xfffff flush=0")
        self.say(f"iova_alloc_ret: (iommu_dma_alloc_iova+0xfc/0x150 <- alloc_iova_fast) ret=0x{pfn:x}")
        where = f"iova=0x{pfn:x}000 paddr=0x8090000 size=4096"
        self.say(f"iommu_map: (iommu_map+0x0/0xf8) domain=0xaa {where} prot=0x1a")

    def unmap(self, pfn):
        self.say(f"iommu_unmap_fast: (iommu_unmap_fast+0x0/0x30) domain=0xaa iova=0x{pfn:x}000 size=4096")
        self.say(f"unmap: IOMMU: iova=0x{pfn:013x}000 - 0x{pfn + 1:013x}000 size=4096 unmapped_size=4096")

    def flush(self, *freed):
        self.say("cache_tag_flush_all: dmar0/dmar0 type iotlb did 3 pasid 0 ref 1")
        for pfn in freed:
            self.say(f"iova_free: (free_iova_fast+0x0/0x200) iovad=0xff pfn=0x{pfn:x} size=1")


def test_what_a_flush_of_a_full_ring_leaves_waits_on_its_cpu_for_the_next(trace_of, monkeypatch):
    """The probes saw the frees of that flush but one: it was queued after the flush had begun, so it waits on."""
    monkeypatch.setattr("swiommu.verify.iova.calls._RING", 3)
    log = Lazy()
    for pfn in range(0x10, 0x17):
        log.give(pfn)
    for pfn in range(0x10, 0x14):  # the fourth finds the ring full
        log.unmap(pfn)
    log.flush(0x10, 0x11)
    log.unmap(0x14)
    log.give(0x20)
    log.context = (41, 0)
    log.unmap(0x15)
    log.context = (0, 2)  # the timer, on another CPU; its probes see nothing
    log.flush()
    log.context = (40, 1)
    log.give(0x21)
    calls = [call for call in read_calls(trace_of("\n".join(log.lines) + "\n").calls) if call.line > 25]
    names = {Kind.IOVA_FREE: "free", Kind.IOVA_ALLOC_RET: "given"}
    assert [(names[call.kind], call.pfn) for call in calls if call.kind in names] == [
        *(("free", pfn) for pfn in (0x10, 0x11)),
        ("given", 0x20),
        *(("free", pfn) for pfn in (0x15, 0x12, 0x13, 0x14)),  # CPU after CPU
        ("given", 0x21),
    ]
    assert {call.context[:2] for call in calls if call.pfn in {0x12, 0x13, 0x14}} == {(2, 0)}


# -- what a trace does not tell ---------------------------------------------------------------------------------------


def test_a_recording_without_probes_has_no_such_class(data_dir, recording):
    trace, _ = recording(data_dir / "traces" / "arm64-6.12-cam-cma64M-s81.trace.gz")
    assert verify_iova(trace) is None


def test_without_a_sidecar_reservations_are_unknown_unless_they_are_in_the_trace(data_dir, trace_of):
    x86 = trace_of("\n".join(lines_of(data_dir / "traces" / "x86-6.12-strict-qtrace-s101.trace.gz")), None)
    tally = verify_iova(x86)
    assert (tally.total, dict(tally.undetermined)) == (0, {"no sidecar tells which ranges are reserved": 386})
    arm = trace_of("\n".join(lines_of(data_dir / "traces" / "arm64-6.12-smmu-qtrace-s103.trace.gz")), None)
    assert (verify_iova(arm).matched, verify_iova(arm).total) == (392, 392)


def test_what_comes_after_lost_events_is_undetermined(data_dir, trace_of):
    path = data_dir / "traces" / "x86-6.12-strict-qtrace-s101.trace.gz"
    lines = lines_of(path)
    middle = next(index for index in range(len(lines) // 2, len(lines)) if "iova_alloc:" in lines[index])
    lines.insert(middle, "CPU:0 [LOST 3 EVENTS]")
    tally = verify_iova(trace_of("\n".join(lines), facts_small(path)))
    assert tally.mismatched == 0
    assert dict(tally.undetermined) == {"events were lost before it": 386 - tally.total}
    assert 0 < tally.total < 386


def test_an_answer_without_its_call_and_an_allocator_in_use_before_are_undetermined(data_dir, trace_of):
    path = data_dir / "traces" / "x86-6.12-strict-qtrace-s101.trace.gz"
    lines = lines_of(path)
    first = next(index for index, line in enumerate(lines) if "iova_alloc:" in line)
    del lines[first]
    tally = verify_iova(trace_of("\n".join(lines), facts_small(path)))
    assert tally.undetermined["its call is not in the trace"] == 1
    begun = next(index for index, line in enumerate(lines) if "iova_free:" in line)
    tally = verify_iova(trace_of("\n".join([lines[0], *lines[begun:]]), facts_small(path)))
    assert tally.undetermined["the allocator was in use before the trace began"] == 104
    assert tally.matched == tally.total > 0


# -- wrong rules ------------------------------------------------------------------------------------------------------


def no_cache_for_32_pages(patch):
    patch.setattr(IovaDomain, "RANGE_CACHE_MAX_SIZE", 5)


def no_rounding(patch):
    patch.setattr(IovaDomain, "rounded", classmethod(lambda cls, size: size))


def oldest_first(patch):
    def get(self, cpu, bound):
        magazine = self.loaded[cpu]
        return magazine.pop(0) if magazine and magazine[0] <= bound else 0

    patch.setattr(IovaRcache, "get", get)


def from_the_top_always(patch):
    right = IovaDomain._alloc

    def alloc(self, size, limit_pfn, *, aligned):
        self.cached32_node = self.cached_node = (1 << 64) - 1
        return right(self, size, limit_pfn, aligned=aligned)

    patch.setattr(IovaDomain, "_alloc", alloc)


def no_caches(patch):
    patch.setattr(IovaRcache, "get", lambda self, cpu, bound: 0)


@pytest.mark.parametrize(
    "break_rule", [no_cache_for_32_pages, no_rounding, oldest_first, from_the_top_always, no_caches]
)
def test_a_wrong_rule_is_found_again_and_again(break_rule, data_dir, recording, monkeypatch):
    trace, _ = recording(data_dir / "traces" / "x86-6.12-strict-qtrace-s101.trace.gz")
    break_rule(monkeypatch)
    tally = verify_iova(trace)
    assert tally.mismatched >= 10, tally.mismatched


def test_a_predicted_address_that_was_freed_already_is_not_freed_again():
    """Lines of a damaged recording can end an allocation before it is answered."""
    domain = _Recorded()
    predicted, recorded = (domain.alloc_iova_fast(1, 0xFFFFF, flush_rcache=True) for _ in range(2))
    for pfn in (predicted, recorded):
        domain.free_iova_fast(pfn, 1)
    assert not domain.exchange(predicted, 1, recorded)
    domain.check()
    assert {domain.alloc_iova_fast(1, 0xFFFFF, flush_rcache=True) for _ in range(2)} == {predicted, recorded}
    domain.free_iova_fast(recorded, 1)
    assert domain.exchange(predicted, 1, recorded)
    domain.check()


@pytest.mark.parametrize("seed", [3])
def test_lines_in_another_order_are_answered(seed, iova_trace_path, trace_of):
    randomly = random.Random(f"{iova_trace_path.name} {seed}")
    lines = lines_of(iova_trace_path)[:6000]
    for at in range(0, len(lines), 200):
        part = lines[at : at + 200]
        randomly.shuffle(part)
        lines[at : at + 200] = part
    tally = verify_iova(trace_of("\n".join(lines), facts_small(iova_trace_path)))
    answers = sum(ANSWER.search(line) is not None for line in lines)
    assert tally.total + tally.undetermined.total() == answers > 0
