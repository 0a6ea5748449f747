"""Predictions of the area against recordings, falsified copies of them, and a kernel of our own with several CPUs."""

import gzip
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.region import Bitmap
from swiommu.trace import CmaArea, read_trace
from swiommu.verify import verify_cma
from swiommu.verify.cma import _World

DECISION = re.compile(r"cma_alloc_(finish|busy_retry): name=\S+ pfn=0x([0-9a-f]+) page=\S+ count=(\d+) align=(\d+)(.*)")
ERRNO = re.compile(r"errorno=(-?\d+)")


def text_of(path):
    return (gzip.open(path, "rt") if path.suffix == ".gz" else path.open()).read()


def small_sidecar(facts):
    keys = ("kernel", "cma_area", "system_ram", "page_size")
    return {key: facts[key] for key in keys if key in facts}


def falsify(text, area, randomly, k, *, in_a_row=False):
    """A copy of the text with ``k`` wrong decisions, and what they are: (line, recorded) by line.

    No wrong record names the place that another one should have named: of two such the first can say "failed" and the
    second give its place away, which is the true story of another workload and can't be told from it.
    """
    lines = text.split("\n")
    decisions = [index for index, line in enumerate(lines) if DECISION.search(line)]
    first = randomly.randrange(len(decisions) - k + 1)
    chosen = sorted(decisions[first : first + k] if in_a_row else randomly.sample(decisions, k))
    places = {int(DECISION.search(lines[index])[2], 16) for index in chosen}
    return [falsified(lines, index, area, randomly, places) for index in chosen], "\n".join(lines)


def falsified(lines, index, area, randomly, places):
    """Another aligned place, or no place, or a place for what had none, or the other errno."""
    found = DECISION.search(lines[index])
    kind, pfn, count, align = found[1], int(found[2], 16), int(found[3]), int(found[4])
    errno = ERRNO.search(found[5])
    base, total = area
    other = pfn
    while other == pfn or other in places or other < base:
        other = (base + randomly.randrange(total - count + 1)) >> align << align
    if kind == "busy_retry":
        new, said = {found[2]: f"{other:x}"}, f"pfn {other:#x}"
    elif errno[1] == "0":
        wrong = randomly.choice([-12, -16])
        moved = {f"pfn=0x{found[2]}": f"pfn=0x{other:x}"}, f"pfn {other:#x}"
        new, said = randomly.choice([moved, ({"errorno=0": f"errorno={wrong}"}, f"errno {wrong}")])
    else:
        wrong = -28 - int(errno[1])
        served = {f"pfn=0x{found[2]}": f"pfn=0x{other:x}", errno[0]: "errorno=0"}, f"pfn {other:#x}"
        new, said = randomly.choice([served, ({errno[0]: f"errorno={wrong}"}, f"errno {wrong}")])
    for old, text in new.items():
        lines[index] = lines[index].replace(old, text)
    return index + 1, said


def caught(tally):
    return [(mismatch.line, mismatch.recorded) for mismatch in tally.mismatches]


# -- recordings -------------------------------------------------------------------------------------------------------


def test_every_decision_of_a_recording_is_predicted(cma_trace_path, recording, facts_of):
    trace, _ = recording(cma_trace_path)
    tally = verify_cma(trace)
    figures = facts_of(cma_trace_path)["figures"]["cma"]
    assert (tally.matched, tally.mismatched) == (tally.total, 0)
    assert tally.mismatches == []
    assert dict(tally.undetermined) == {}
    assert tally.by_kind["alloc"] == figures["alloc_calls"]
    assert tally.by_kind["busy retry"] == figures["busy_retries"]


@pytest.mark.parametrize(("seed", "in_a_row"), [(0, False), (1, True)])
def test_wrong_records_are_found_one_by_one(seed, in_a_row, cma_trace_path, facts_of, trace_of):
    falsify_and_check(cma_trace_path, seed, facts_of(cma_trace_path), trace_of, in_a_row=in_a_row)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 42))
def test_wrong_records_are_found_one_by_one_many_times(seed, cma_trace_path, facts_of, trace_of):
    falsify_and_check(cma_trace_path, seed, facts_of(cma_trace_path), trace_of, in_a_row=seed % 2)


def falsify_and_check(path, seed, facts, trace_of, *, in_a_row):
    randomly = random.Random(f"{path.name} {seed}")
    area = int(facts["cma_area"]["base_pfn"], 16), facts["cma_area"]["total_pages"]
    k = randomly.randint(1, 10)
    wrong, text = falsify(text_of(path), area, randomly, k, in_a_row=in_a_row)
    tally = verify_cma(trace_of(text, small_sidecar(facts)))
    assert caught(tally) == wrong
    assert tally.mismatched == k
    assert all(mismatch.predicted != mismatch.recorded for mismatch in tally.mismatches)


def align_too_little(patch):
    right = Bitmap.candidate
    patch.setattr(Bitmap, "candidate", lambda self, n, align, **how: right(self, n, min(align, 4), **how))


def align_too_much(patch):
    right = Bitmap.candidate
    patch.setattr(Bitmap, "candidate", lambda self, n, align, **how: right(self, n, align + 1, **how))


def align_to_the_base(patch):
    patch.setattr(Bitmap, "_steps", lambda self, align: (1 << align, 3))


def search_from_the_top(patch):
    def candidate(self, count, align, *, after_pfn=None):
        stop = self.base_pfn + self.count if after_pfn is None else after_pfn + count - 1
        for bit, length in reversed(self.free_runs()):
            last = min(self.base_pfn + bit + length, stop)
            pfn = (last - count) >> align << align
            if pfn >= self.base_pfn + bit:
                return pfn
        return None

    patch.setattr(Bitmap, "candidate", candidate)


def forget_releases(patch):
    patch.setattr(_World, "release", lambda self, pfn, count: None)


@pytest.mark.parametrize(
    "break_rule", [align_too_little, align_too_much, align_to_the_base, search_from_the_top, forget_releases]
)
def test_a_wrong_rule_is_found_again_and_again(break_rule, monkeypatch):
    break_rule(monkeypatch)
    tally = verify_cma(read_trace("arm64-6.12-cam-cma64M-s81"))
    assert tally.mismatched > tally.total // 10
    assert len(tally.mismatches) == 20


def test_a_history_goes_on_apart_from_the_one_it_was_forked_from(sidecar_of):
    one = _World.of(sidecar_of(cma_area=CmaArea(0x4010, 256, ((8, 16),))))
    one.start((0, 1, 0), 8, 3)
    other = one.fork()
    assert other.state() == one.state()
    before = one.state()
    other.settle((0, 1, 0))
    other.start((0, 1, 0), 100, 0)
    other.release(0x4010 + 8, 16)
    other.tally.judge("alloc", 1, predicted="a", recorded="b")
    assert (one.state(), one.tally.mismatches, one.rank) == (before, [], (0, 0))
    other.area.check()


# -- a kernel of our own ----------------------------------------------------------------------------------------------


class Cma:
    """mm/cma.c with a list of bits, several CPUs in ``cma_alloc`` at once, and pages that can't be moved at times."""

    BASE, TOTAL = 0x4010, 256

    def __init__(self, seed, profile):
        self.random = random.Random(seed)
        self.bits = [False] * self.TOTAL
        self.failure = {"6.12": -12, "7.3": -16}[profile]
        self.lines = ["# tracer: nop"]
        self.owned = []
        self.cpus = [None, None, None]

    def print(self, cpu, text):
        self.lines.append(f"  t-{cpu + 1}  [{cpu:03}] .....     1.{len(self.lines):06}: {text}")

    def search(self, call, start):
        count, align = call["count"], 1 << call["align"]
        for bit in range(start, self.TOTAL - count + 1):
            if (self.BASE + bit) % align == 0 and not any(self.bits[bit : bit + count]):
                self.bits[bit : bit + count] = [True] * count
                return bit
        return None

    def step(self):
        cpu = self.random.randrange(len(self.cpus))
        call = self.cpus[cpu]
        if call is None:
            if self.owned and self.random.random() < 0.45:
                bit, count = self.owned.pop(self.random.randrange(len(self.owned)))
                self.bits[bit : bit + count] = [False] * count
                self.print(cpu, f"cma_release: name=reserved pfn=0x{self.BASE + bit:x} page=0c1 count={count}")
                return
            count = self.random.choice([1, 2, 3, 5, 8, 16, 40])
            call = self.cpus[cpu] = {"count": count, "align": min((count - 1).bit_length(), 4), "busy": False}
            call["bit"] = self.search(call, 0)
            self.print(cpu, f"cma_alloc_start: name=reserved count={count} align={call['align']}")
            return
        bit, count, align = call["bit"], call["count"], call["align"]
        if bit is not None and self.random.random() < 0.2:
            self.bits[bit : bit + count] = [False] * count
            self.print(
                cpu,
                f"cma_alloc_busy_retry: name=reserved pfn=0x{self.BASE + bit:x} page=0c1 count={count} align={align}",
            )
            call["busy"], call["bit"] = True, self.search(call, bit + (1 << align))
            return
        self.cpus[cpu] = None
        if bit is None:
            pfn, errno = 0, -16 if call["busy"] else self.failure
        else:
            pfn, errno = self.BASE + bit, 0
            self.owned.append((bit, count))
        self.print(
            cpu, f"cma_alloc_finish: name=reserved pfn=0x{pfn:x} page=0c1 count={count} align={align} errorno={errno}"
        )

    def run(self, steps):
        while len(self.lines) <= steps or not self.has_finished:
            self.step()
        return "\n".join(self.lines) + "\n"

    @property
    def has_finished(self):
        return any("finish" in line for line in self.lines)


def sidecar(profile="6.12", *, base=Cma.BASE, total=Cma.TOTAL, extents=((0, 0),)):
    area = {"base_pfn": base, "total_pages": total}
    if extents is not None:
        area["in_use_before_trace_extents_offset_count"] = [list(extent) for extent in extents if extent[1]]
    return {"kernel": {"6.12": "6.12.1", "7.3": "7.3.4"}[profile], "cma_area": area}


@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 300), profile=st.sampled_from(["6.12", "7.3"]))
@settings(max_examples=60)
def test_calls_of_several_cpus_are_predicted_when_they_start(seed, steps, profile, trace_of):
    text = Cma(seed, profile).run(steps)
    tally = verify_cma(trace_of(text, sidecar(profile)))
    assert tally.mismatches == []
    assert (tally.matched, tally.undetermined.total()) == (len(DECISION.findall(text)), 0)


@given(seed=st.integers(0, 1 << 32), k=st.integers(1, 4))
@settings(max_examples=40)
def test_wrong_records_among_several_cpus_are_found(seed, k, trace_of):
    """Not always one by one: in a small area a false history may explain a run of records as well as the true one."""
    randomly = random.Random(seed)
    _, text = falsify(Cma(seed, "6.12").run(300), (Cma.BASE, Cma.TOTAL), randomly, k)
    tally = verify_cma(trace_of(text, sidecar()))
    assert 1 <= tally.mismatched <= k
    assert tally.total == len(DECISION.findall(text))


def finish(pfn, count=8, align=3, errno=0, name="reserved"):
    return f"cma_alloc_finish: name={name} pfn=0x{pfn:x} page=0c1 count={count} align={align} errorno={errno}"


def start(count=8, align=3, name="reserved"):
    return f"cma_alloc_start: name={name} count={count} align={align}"


def printed(*events):
    """(cpu, text) or text (CPU 0) -> a trace's text; a text that begins with CPU: stands as it is."""
    lines = ["# tracer: nop"]
    for number, event in enumerate(events):
        cpu, text = event if isinstance(event, tuple) else (0, event)
        lines.append(text if text.startswith("CPU:") else f"  t-{cpu + 1}  [{cpu:03}] .....  1.{number:06}: {text}")
    return "\n".join(lines) + "\n"


def verdict(tally):
    return tally.matched, tally.mismatched, dict(tally.undetermined)


def test_a_candidate_is_taken_from_the_start_of_its_call(trace_of):
    text = printed((0, start()), (1, start()), (1, finish(0x4018)), (0, finish(0x4010)))
    assert verdict(verify_cma(trace_of(text, sidecar()))) == (2, 0, {})


def test_both_values_of_a_mismatch_are_told(trace_of):
    text = printed(start(), finish(0x4020), start(), finish(0, errno=-12))
    tally = verify_cma(trace_of(text, sidecar()))
    told = [(each.kind, each.line, each.predicted, each.recorded) for each in tally.mismatches]
    assert told == [
        ("alloc", 3, "pfn 0x4010", "pfn 0x4020"),
        ("alloc", 5, "pfn 0x4018", "errno -12"),
    ]


def test_what_comes_after_lost_events_is_undetermined(trace_of):
    lost = "CPU:0 [LOST 7 EVENTS]"
    text = printed(start(), finish(0x4010), lost, start(), finish(0x4018), start(), finish(0x5555))
    tally = verify_cma(trace_of(text, sidecar()))
    assert verdict(tally) == (1, 0, {"events were lost before it": 2})


def test_a_call_without_its_start_is_undetermined_and_its_place_is_taken_all_the_same(trace_of):
    text = printed(finish(0x4010), start(), finish(0x4018))
    tally = verify_cma(trace_of(text, sidecar()))
    assert verdict(tally) == (1, 0, {"its start is not in the trace": 1})


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (None, "no sidecar tells where the area lies"),
        ({"kernel": "6.12.1"}, "the sidecar describes no area"),
        (sidecar(extents=None), "the sidecar doesn't tell which pages were in use when the trace began"),
    ],
)
def test_an_unknown_area_is_undetermined(facts, cause, trace_of):
    text = printed(start(), finish(0x4010), start(), finish(0x4018))
    assert verdict(verify_cma(trace_of(text, facts))) == (0, 0, {cause: 2})


def test_another_areas_calls_are_undetermined(trace_of):
    text = printed(start(), finish(0x4010), start(name="video"), finish(0x9000, name="video"), start(), finish(0x4018))
    tally = verify_cma(trace_of(text, sidecar()))
    assert verdict(tally) == (2, 0, {"an area that the sidecar doesn't describe": 1})


def test_the_only_area_may_have_any_name(trace_of):
    text = printed(start(name="video"), finish(0x4010, name="video"))
    assert verdict(verify_cma(trace_of(text, sidecar()))) == (1, 0, {})


def test_a_hard_failure_of_migration_is_undetermined_and_its_place_is_free_again(trace_of):
    text = printed(start(), finish(0, errno=-5), start(), finish(0x4010))
    tally = verify_cma(trace_of(text, sidecar()))
    assert verdict(tally) == (1, 0, {"migration failed with errno -5": 1})


def test_a_call_that_never_finished_holds_nothing(trace_of):
    text = printed(start(), start(), finish(0x4010))
    assert verdict(verify_cma(trace_of(text, sidecar()))) == (1, 0, {})


def test_what_was_in_use_before_is_passed_over_until_it_is_released(trace_of):
    text = printed(
        start(),
        finish(0x4018),
        "cma_release: name=reserved pfn=0x4010 page=0c1 count=8",
        start(),
        finish(0x4010),
    )
    assert verdict(verify_cma(trace_of(text, sidecar(extents=((0, 8),))))) == (2, 0, {})


def test_the_errno_of_a_failure_is_the_profiles(trace_of):
    big = (start(300, 4), finish(0, 300, 4, errno=-12))
    assert verdict(verify_cma(trace_of(printed(*big), sidecar()))) == (1, 0, {})
    assert verdict(verify_cma(trace_of(printed(*big), sidecar("7.3")))) == (0, 1, {})


def test_a_trace_without_the_area_has_no_such_class(trace_of):
    text = printed("dma_map_page: e dir=TO_DEVICE dma_addr=1 size=1 phys_addr=1 attrs=")
    assert verify_cma(trace_of(text)) is None
