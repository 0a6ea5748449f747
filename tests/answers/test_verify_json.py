"""The document swiommu.verify/1, and what is refused."""

import gzip
import json

import pytest

from swiommu.answers import verify
from swiommu.errors import InputError
from swiommu.trace import read_trace
from swiommu.verify import CHECKS, DETERMINED_BY, READ_FROM

CAMERA = "arm64-6.12-cam-cma64M-s81"


@pytest.fixture(scope="module")
def text(data_dir):
    return gzip.decompress((data_dir / "traces" / f"{CAMERA}.trace.gz").read_bytes()).decode()


def sidecar(data_dir):
    return (data_dir / "traces" / f"{CAMERA}.json").read_text()


def falsified(text, many):
    """The text with the first ``many`` page numbers of successful allocations moved by one page."""
    lines, left = text.split("\n"), many
    for place, line in enumerate(lines):
        if left and " cma_alloc_finish: " in line and line.endswith("errorno=0"):
            pfn = line.partition("pfn=")[2].split()[0]
            lines[place] = line.replace(f"pfn={pfn}", f"pfn={int(pfn, 16) + 1:#x}")
            left -= 1
    return "\n".join(lines)


def document(folder, text, data_dir, *, with_sidecar=True):
    (folder / f"{CAMERA}.trace").write_text(text)
    if with_sidecar:
        (folder / f"{CAMERA}.json").write_text(sidecar(data_dir))
    return json.loads(json.dumps(verify(read_trace(folder / f"{CAMERA}.trace")).to_json()))


def test_all_true(tmp_path, text, data_dir):
    assert document(tmp_path, text, data_dir) == {
        "schema": "swiommu.verify/1",
        "trace": CAMERA,
        "decisions": {
            "cma": {
                "total": 740,
                "matched": 740,
                "undetermined": 0,
                "undetermined_by_cause": {},
                "by_kind": {"alloc": 740},
            }
        },
        "mismatches": [],
    }


def test_one_lie(tmp_path, text, data_dir):
    false = falsified(text, 1)
    doc = document(tmp_path, false, data_dir)
    line = next(n for n, (a, b) in enumerate(zip(text.split("\n"), false.split("\n"), strict=True), 1) if a != b)
    assert doc["decisions"]["cma"]["total"] == 740
    assert doc["decisions"]["cma"]["matched"] == 739
    assert doc["mismatches"] == [
        {"class": "cma", "kind": "alloc", "line": line, "predicted": "pfn 0xb9b00", "recorded": "pfn 0xb9b01"}
    ]


def test_at_most_twenty_mismatches_are_listed(tmp_path, text, data_dir):
    doc = document(tmp_path, falsified(text, 30), data_dir)
    counts = doc["decisions"]["cma"]
    assert counts["total"] - counts["matched"] >= 30
    assert len(doc["mismatches"]) == 20
    lines = [mismatch["line"] for mismatch in doc["mismatches"]]
    assert lines == sorted(lines)


def test_without_a_sidecar_nothing_is_determined(tmp_path, text, data_dir):
    counts = document(tmp_path, text, data_dir, with_sidecar=False)["decisions"]["cma"]
    assert counts == {
        "total": 0,
        "matched": 0,
        "undetermined": 740,
        "undetermined_by_cause": {"no sidecar tells where the area lies": 740},
        "by_kind": {},
    }


def test_nothing_to_check(data_dir):
    path = data_dir / "traces" / "x86-6.12-pt-mixed-s11.trace.gz"
    with pytest.raises(InputError) as caught:
        verify(read_trace(path))
    assert str(caught.value).startswith(f"{path}: holds no decision that can be checked: looked for ")


def test_advice_where_no_decision_is_determined(tmp_path, text, data_dir):
    (advice,) = document(tmp_path, text, data_dir, with_sidecar=False)["advice"]
    assert advice == (
        "to determine cma: record from before the first cma_alloc on, lose no event, and name the area in the sidecar: "
        "cma_area with base_pfn, total_pages and in_use_before_trace_extents_offset_count"
    )
    assert "advice" not in document(tmp_path, text, data_dir)


def test_every_check_says_what_it_reads_and_what_determines_it():
    assert CHECKS.keys() == READ_FROM.keys() == DETERMINED_BY.keys()


@pytest.mark.parametrize("size", [16384, 65536])
def test_other_pages_are_refused(size, trace_of):
    trace = trace_of(
        "# tracer: nop\n            v-1     [000] ..... 1.000001: cma_release: name=a pfn=0x1 page=0 count=1\n",
        {"page_size": size},
    )
    with pytest.raises(InputError) as caught:
        verify(trace)
    assert str(caught.value) == (
        f"{trace.sidecar.path}: recorded with pages of {size} bytes; checks know pages of 4096 bytes only, so it can't "
        "be verified"
    )
