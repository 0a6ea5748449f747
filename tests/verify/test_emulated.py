"""Recordings with an emulated IOMMU's log: all predicted, every change found, wrong rules wrong again and again."""

import gzip
import random
import re
import shutil

import pytest

from swiommu.iommu import commands
from swiommu.trace import read_trace
from swiommu.verify import expected as expecting
from swiommu.verify import verify_invalidation, verify_prot, verify_pte

SMMU = "arm64-6.12-smmu-qtrace-s103"
AMD = "x86-6.12-amd-qtrace-s107"
LAZY = "x86-6.12-lazy-qtrace-s109"
STRICT = "x86-6.12-strict-qtrace-s101"
VIRTIO = "x86-6.12-virtioiommu-qtrace-s105"
ALL = (SMMU, AMD, LAZY, STRICT, VIRTIO)

EARLY = "it may have been mapped before the trace began or after its end"


@pytest.fixture(scope="module")
def logs(data_dir):
    return {
        name: gzip.decompress((data_dir / "traces" / f"{name}.emulator.gz").read_bytes()).decode().splitlines()
        for name in ALL
    }


@pytest.fixture
def recorded(tmp_path, data_dir):
    """A recording with other lines in the emulator's log, and in the trace."""

    def make(name, log=None, trace=None, *, sidecar=True):
        folder = data_dir / "traces"
        if sidecar:
            shutil.copy(folder / f"{name}.json", tmp_path)
        if trace is None:
            shutil.copy(folder / f"{name}.trace.gz", tmp_path)
            path = tmp_path / f"{name}.trace.gz"
        else:
            path = tmp_path / f"{name}.trace"
            path.write_text("\n".join(trace) + "\n")
        if log is not None:
            (tmp_path / f"{name}.emulator").write_text("\n".join(log) + "\n")
        return read_trace(path)

    return make


def told(tally):
    return tally.total, tally.matched, dict(tally.undetermined)


@pytest.mark.parametrize(
    ("name", "pte", "invalidation", "prot"),
    [
        (SMMU, (11827, 11827, {EARLY: 26}), (419, 419, {}), 392),
        (AMD, (4546, 4546, {}), (1108, 1108, {}), 400),
        (LAZY, (5386, 5386, {}), (20, 20, {}), 411),
        (STRICT, (3340, 3340, {}), (386, 386, {}), 386),
        (VIRTIO, (3027, 3027, {}), None, 399),
    ],
)
def test_all_is_predicted(data_dir, name, pte, invalidation, prot):
    trace = read_trace(data_dir / "traces" / f"{name}.trace.gz")
    assert told(verify_pte(trace)) == pte
    found = verify_invalidation(trace)
    assert (found and told(found)) == invalidation
    assert told(verify_prot(trace)) == (prot, prot, {})


def test_every_recording(trace_path, recording):
    """Those that are not here too: nothing that is determined is predicted wrongly."""
    trace, _ = recording(trace_path)
    for verify in (verify_pte, verify_invalidation, verify_prot):
        tally = verify(trace)
        assert tally is None or (tally.mismatched, tally.mismatches) == (0, [])


# What is changed in a line, by its first word: (pattern, which number of it, what is done to the number).
CHANGES = [
    (SMMU, "smmu_get_pte", r"pte=0x([0-9a-f]+)$", 0x80),
    (SMMU, "smmu_get_pte", r"index=0x([0-9a-f]+)", 1),
    (SMMU, "smmu_ptw_level", r"baseaddr=0x([0-9a-f]+)", 0x1000),
    (SMMU, "smmu_ptw_level", r"level=([0-9]+)", 1),
    (SMMU, "smmu_ptw_page_pte", r"pte=0x([0-9a-f]+)", 0x400),
    (SMMU, "smmu_ptw_page_pte", r"address = 0x([0-9a-f]+)", 0x1000),
    (SMMU, "smmuv3_translate_success", r"translated=0x([0-9a-f]+)", 1),
    (SMMU, "smmuv3_translate_success", r"perm=0x([0-9a-f]+)", 2),
    (SMMU, "smmuv3_s1_range_inval", r"num_pages=0x([0-9a-f]+)", 1),
    (SMMU, "smmuv3_s1_range_inval", r"ttl=([0-9]+)", 1),
    (AMD, "amdvi_cache_update", r"hpa 0x([0-9a-f]+)", 0x1000),
    (AMD, "amdvi_iotlb_hit", r"hpa 0x([0-9a-f]+)", 0x10000),
    (AMD, "amdvi_translation_result", r"hpa 0x([0-9a-f]+)", 0x1000),
    (AMD, "amdvi_pages_inval", r"domain 0x([0-9a-f]+)", 0x40),
    (LAZY, "vtd_iotlb_page_update", r"slpte 0x([0-9a-f]+)", 4),
    (LAZY, "vtd_inv_desc_iotlb_domain", r"domain 0x([0-9a-f]+)", 8),
    (STRICT, "vtd_iotlb_page_hit", r"slpte 0x([0-9a-f]+)", 0x1000),
    (STRICT, "vtd_iotlb_page_update", r"domain 0x([0-9a-f]+)", 4),
    (STRICT, "vtd_dmar_translate", r"gpa 0x([0-9a-f]+)", 0x2000),
    (STRICT, "vtd_dmar_translate", r"mask 0x([0-9a-f]+)", 0x1000),
    (STRICT, "vtd_inv_desc_iotlb_pages", r"mask 0x([0-9a-f]+)", 1),
    (STRICT, "vtd_inv_desc_iotlb_pages", r"addr 0x([0-9a-f]+)", 0x400000),
    (VIRTIO, "virtio_iommu_map", r"flags=([0-9]+)", 4),
    (VIRTIO, "virtio_iommu_map", r"phys_start=0x([0-9a-f]+)", 0x1000),
    (VIRTIO, "virtio_iommu_unmap", r"virt_end=0x([0-9a-f]+)", 0x1000),
    (VIRTIO, "virtio_iommu_translate_out", r"-> 0x([0-9a-f]+)", 8),
]


def changed(line, pattern, by):
    found = re.search(pattern, line)
    base = 16 if "0x" in pattern else 10
    number = int(found[1], base) ^ by
    start, stop = found.span(1)
    return f"{line[:start]}{number:{'x' if base == 16 else 'd'}}{line[stop:]}"


@pytest.mark.parametrize(("name", "word", "pattern", "by"), CHANGES)
def test_every_change_is_found(recorded, logs, name, word, pattern, by):
    lines = list(logs[name])
    places = [place for place, line in enumerate(lines) if line.startswith(f"{word} ")]
    places = [place for place in places if "asid=1 " not in lines[place] and "sid=0x18 " not in lines[place]]
    # Apart from one another: what was changed twice in a row is one stretch that can be told in several ways.
    chosen = sorted(random.Random(word + pattern).sample(places[10:-10:9] or places[3:-3:6], 3))
    for place in chosen:
        lines[place] = changed(lines[place], pattern, by)
    trace = recorded(name, lines)
    tallies = [tally for tally in (verify_pte(trace), verify_invalidation(trace)) if tally is not None]
    found = sorted(mismatch.line for tally in tallies for mismatch in tally.mismatches)
    assert found == [place + 1 for place in chosen]


@pytest.mark.parametrize(
    ("name", "word"),
    [(SMMU, "smmuv3_s1_range_inval"), (STRICT, "vtd_inv_desc_iotlb_pages"), (VIRTIO, "virtio_iommu_map")],
)
@pytest.mark.parametrize("times", [0, 2])
def test_commands_left_out_or_doubled(recorded, logs, name, word, times):
    lines = list(logs[name])
    places = [place for place, line in enumerate(lines) if line.startswith(f"{word} ")]
    # In a row of equal commands nobody can tell which of them it was.
    alone = [b for a, b, c in zip(places, places[1:], places[2:], strict=False) if lines[b] not in {lines[a], lines[c]}]
    for place in sorted(random.Random(word).sample(alone[5:-5:4], 3), reverse=True):
        lines[place : place + 1] = [lines[place]] * times
    trace = recorded(name, lines)
    requests = verify_pte(trace)
    tally = requests if name == VIRTIO else verify_invalidation(trace)
    assert sum(mismatch.kind in {"request", "command"} for mismatch in tally.mismatches) == 3
    # And the order is not lost: only what was mapped and used before the next command can't be told.
    assert sum(mismatch.kind == "translation" for mismatch in requests.mismatches) <= 3


@pytest.mark.parametrize("name", [SMMU, AMD, STRICT, VIRTIO])
def test_a_changed_map_in_the_trace_is_one_mistake_of_each_kind(recorded, logs, data_dir, name):
    trace = gzip.decompress((data_dir / "traces" / f"{name}.trace.gz").read_bytes()).decode().splitlines()
    place = [at for at, line in enumerate(trace) if " map: IOMMU:" in line and "size=4096" in line][3]
    trace[place] = changed(trace[place], r"paddr=0x([0-9a-f]+)", 1 << 21)
    tally = verify_pte(recorded(name, logs[name], trace))
    assert 1 <= tally.mismatched <= 4
    assert len({(mismatch.kind) for mismatch in tally.mismatches}) >= tally.mismatched - 1


# -- wrong rules


def wrong_block(start, last):
    return start & ~0xFFF, (last - start) // 4096


@pytest.mark.parametrize(
    ("name", "rule", "wrong", "least"),
    [
        (STRICT, "vtd_block", wrong_block, 30),
        (SMMU, "aligned_pieces", lambda start, last: [(start, last + 1 - start)], 20),
        (AMD, "amd_pieces", lambda start, last: [(start, last + 1 - start)], 20),
        (
            SMMU,
            "smmu_unmap",
            lambda iova, size, _is_leaf, **_: commands.smmu_commands(iova, size, 1 << 21, leaf=True),
            350,
        ),
    ],
)
def test_wrong_rules_for_commands(data_dir, monkeypatch, name, rule, wrong, least):
    monkeypatch.setattr(expecting, rule, wrong)
    assert verify_invalidation(read_trace(data_dir / "traces" / f"{name}.trace.gz")).mismatched >= least


@pytest.mark.parametrize(
    ("name", "hardware", "form", "least"),
    [
        (STRICT, "VT-d", expecting.vtd_ss(profile="7.3"), 60),
        (AMD, "AMD-Vi", expecting.vtd_ss(), 3),
    ],
)
def test_wrong_formats(data_dir, monkeypatch, name, hardware, form, least):
    monkeypatch.setitem(expecting.FORMAT_OF, hardware, lambda _profile: form)
    assert verify_pte(read_trace(data_dir / "traces" / f"{name}.trace.gz")).mismatched >= least


# -- logs and traces in part


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("part", ["beginning", "end", "middle"])
def test_a_log_in_part(recorded, logs, name, part):
    lines = logs[name]
    third = len(lines) // 3
    kept = {"beginning": lines[:third], "end": lines[2 * third :], "middle": lines[third : 2 * third]}[part]
    trace = recorded(name, kept)
    for tally in (verify_pte(trace), verify_invalidation(trace)):
        if tally is not None:
            assert tally.mismatched <= (3 if part != "beginning" else 0), tally.mismatches
            assert tally.matched or tally.undetermined


@pytest.mark.parametrize("name", ALL)
def test_without_sidecar_and_probes(recorded, logs, data_dir, name):
    trace = gzip.decompress((data_dir / "traces" / f"{name}.trace.gz").read_bytes()).decode().splitlines()
    plain = [line for line in trace if "iova_" not in line and "iommu_" not in line]
    trace = recorded(name, logs[name], plain, sidecar=False)
    assert verify_prot(trace) is None
    for tally in (verify_pte(trace), verify_invalidation(trace)):
        assert tally is None or tally.mismatched == 0
    assert verify_pte(trace).matched > 1000


def test_nothing_is_told_of_lost_events(recorded, logs, data_dir):
    trace = gzip.decompress((data_dir / "traces" / f"{STRICT}.trace.gz").read_bytes()).decode().splitlines()
    trace.insert(len(trace) // 2, "CPU:0 [LOST 12 EVENTS]")
    trace = recorded(STRICT, logs[STRICT], trace)
    for tally in (verify_pte(trace), verify_invalidation(trace)):
        assert tally.mismatched == 0
        assert tally.undetermined["events were lost before it"] > 100


def test_no_log_no_class(recorded):
    assert verify_pte(recorded(SMMU)) is None
    assert verify_invalidation(recorded(SMMU)) is None
