"""The document swiommu.compare/1, field by field: other tools read it, so names and types are a promise."""

import gzip
import json
import sys
from functools import cache

import pytest

from swiommu.answers import compare
from swiommu.errors import InputError
from swiommu.replay import DEFAULT_DESIGNS, Knobs, replay
from swiommu.trace import read_trace

CAMERA = "arm64-6.12-cam-cma64M-s81"
KINDS = {"ALLOC", "MAP", "USERMAP"}

# A camera on an area, both modes and with needs; everything translated; no dma events; devices that come and go.
CASES = {
    "camera": (CAMERA, "equal", True),
    "camera-machine": (CAMERA, "machine", False),
    "translated": ("arm64-6.12-smmu-qtrace-s103", "equal", True),
    "no-dma-events": ("x86-6.12-stacked-vfio-s1", "equal", True),
    "no-area-machine": ("x86-6.12-strict-qtrace-s101", "machine", False),
}

COUNT, OPTIONAL = (int,), (int, type(None))
MEASURES = {
    "requests": COUNT,
    "failed": COUNT,
    "failed_by_kind": (dict,),
    "failed_bytes": COUNT,
    "failed_with_room": OPTIONAL,
    "lost": COUNT,
    "gained": COUNT,
    "bytes_needed": OPTIONAL,
    "failed_at_need": OPTIONAL,
    "peak_live_bytes": COUNT,
    "peak_map_bytes": COUNT,
    "reserved_bytes": COUNT,
    "lendable_bytes": OPTIONAL,
    "waste_bytes": OPTIONAL,
    "waste": (dict, type(None)),
    "table_bytes": OPTIONAL,
    "maps": COUNT,
    "unmaps": COUNT,
    "invalidations": OPTIONAL,
    "bytes_copied": OPTIONAL,
    "walk_refs": OPTIONAL,
    "walk_refs_per_mib": (float, type(None)),
    "exposure_us": OPTIONAL,
    "exposure_ops": OPTIONAL,
    "exposure_bytes": OPTIONAL,
    "enforces": (str,),
    "cost": (dict, type(None)),
}
ROW = {"name": (str,), "same_as": (str, type(None)), "why": (dict,), **MEASURES}
TRACE = dict.fromkeys(("requests", "censored", "ignored", "unmatched", "unattributed_maps"), COUNT) | {"name": (str,)}
MEMORY = {"mode": (str,), "bytes": COUNT, "base": (str,), "source": (str,), "start_extents": (list, type(None))}


@cache
def document(traces, case):
    name, memory, with_need = CASES[case]
    answer = compare(read_trace(traces / f"{name}.trace.gz"), memory=memory, with_need=with_need)
    return json.loads(json.dumps(answer.to_json()))


@pytest.fixture(params=CASES)
def doc(request, data_dir):
    return document(data_dir / "traces", request.param)


def refuse_types(values, wanted):
    """Fields that are missing or of another type; a bool is no count."""
    return {
        name: values.get(name, "(missing)")
        for name, types in wanted.items()
        if type(values.get(name, "(missing)")) not in types
    }


def test_top(doc):
    assert list(doc) == ["schema", "trace", "memory", "designs", "verdict"]
    assert doc["schema"] == "swiommu.compare/1"
    assert isinstance(doc["verdict"], str)
    assert doc["verdict"].endswith(".")


def test_trace_and_memory(doc):
    assert refuse_types(doc["trace"], TRACE) == {}
    assert refuse_types(doc["memory"], MEMORY) == {}
    assert doc["memory"]["mode"] in {"equal", "machine"}
    assert doc["memory"]["base"].startswith("0x")
    assert doc["memory"]["bytes"] % (2 << 20) == 0


def test_rows_have_every_field_of_its_type(doc):
    assert [refuse_types(row, ROW) for row in doc["designs"]] == [{}] * (1 + len(DEFAULT_DESIGNS))
    assert len({tuple(row) for row in doc["designs"]}) == 1  # one shape for all


def test_every_null_has_its_reason_and_every_reason_its_null(doc):
    for row in doc["designs"]:
        nulls = {name for name in MEASURES if row[name] is None}
        assert nulls == set(row["why"]), row["name"]
        assert all(isinstance(reason, str) and reason.strip() for reason in row["why"].values())


def test_waste_adds_up(doc):
    for row in doc["designs"]:
        if row["waste"] is None:
            assert row["waste_bytes"] is None
        else:
            assert list(row["waste"]) == ["internal", "idle", "tables", "pool"]
            assert sum(row["waste"].values()) == row["waste_bytes"]
            assert min(row["waste"].values()) >= 0


def test_counts_agree_with_each_other(doc):
    trace = doc["trace"]
    for row in doc["designs"]:
        assert row["requests"] == trace["requests"]
        for name in ("failed", "lost", "gained"):
            assert set(row[f"{name}_by_kind"]) == KINDS
            assert sum(row[f"{name}_by_kind"].values()) == row[name], (row["name"], name)
        assert row["failed_with_room"] is None or row["failed_with_room"] <= row["failed"]
        if row["name"] == "as-recorded":
            assert (row["failed"], row["lost"], row["gained"]) == (trace["censored"], 0, 0)
        else:
            # What failed when recorded is either gained, or fails here too.
            assert row["failed"] + row["gained"] == row["lost"] + trace["censored"]


def test_no_hardware_means_unbounded_exposure_never_zero(doc):
    for row in doc["designs"]:
        if row["name"] == "as-recorded":
            continue
        if row["has_hardware"]:
            exposure = (row["exposure_us"], row["exposure_ops"], row["exposure_bytes"])
            if row["name"] == "iommu-lazy":  # at most the timer of the flush queue, and somebody unmapped something
                assert row["unmaps"] == 0 or 0 < row["exposure_us"] <= 16_000
            else:
                assert exposure == (0, 0, 0)
            assert row["enforces"] == "yes"
        else:
            assert (row["exposure_us"], row["exposure_ops"]) == (None, None)
            assert row["exposure_bytes"] is None or row["exposure_bytes"] > 0
            assert (row["maps"], row["unmaps"], row["invalidations"], row["walk_refs_per_mib"]) == (0, 0, 0, 0)
            assert row["enforces"] == "no"


def test_the_software_iommu_is_cma_bitmap(doc):
    rows = {row["name"]: row for row in doc["designs"]}
    assert rows["software-iommu"]["same_as"] == (rows["cma-bitmap"]["same_as"] or "cma-bitmap")
    assert {name: rows["software-iommu"][name] for name in MEASURES} == {
        name: rows["cma-bitmap"][name] for name in MEASURES
    }


def test_same_as_names_an_earlier_row_and_never_the_recording(doc):
    for place, row in enumerate(doc["designs"]):
        before = [other["name"] for other in doc["designs"][:place] if other["name"] != "as-recorded"]
        assert row["same_as"] is None or row["same_as"] in before


def test_start_extents_are_pairs_of_pages(data_dir):
    assert document(data_dir / "traces", "camera")["memory"]["start_extents"] == [[0, 192]]
    assert document(data_dir / "traces", "no-dma-events")["memory"]["start_extents"] is None


def test_what_was_assumed_is_said(data_dir):
    ticks = (
        "a lazy timer is taken to fire 12 to 16 ms after the unmap that starts it, with 250 ticks a second (--hz); "
        "exposed is the longest time in this replay from an unmap to its flush, in the trace's time"
    )
    assert document(data_dir / "traces", "camera")["trace"]["notes"] == [ticks]
    assert document(data_dir / "traces", "translated")["trace"]["notes"] == [
        "the pages of the area in use when the trace began are not known: none are occupied",
        ticks,
    ]
    assert document(data_dir / "traces", "no-dma-events")["trace"]["notes"] == [
        "the trace has no dma events: each cma_alloc is taken for an ALLOC and each map for a MAP",
        ticks,
    ]


@pytest.mark.parametrize(("hz", "range_"), [(1000, "10 to 11 ms"), (300, "10 to 13.33 ms"), (100, "10 to 20 ms")])
def test_the_ticks_that_were_asked_for_are_said(hz, range_, data_dir):
    trace = read_trace(data_dir / "traces" / "x86-6.12-lazy-qtrace-s109.trace.gz")
    (note,) = compare(trace, ["iommu-lazy"], with_need=False, knobs=Knobs(hz=hz)).notes
    assert f" fire {range_} after the unmap that starts it, with {hz} ticks a second (--hz)" in note
    assert compare(trace, ["iommu-strict"], with_need=False).notes == []


def test_beside_a_need_stands_what_still_fails_in_it(data_dir):
    rows = {row["name"]: row for row in document(data_dir / "traces", "camera")["designs"]}
    assert [
        (rows[name]["bytes_needed"] >> 20, rows[name]["failed_at_need"]) for name in ("cma-bitmap", "iommu-strict")
    ] == [
        (82, 2),
        (78, 1),
    ]
    for row in document(data_dir / "traces", "translated")["designs"][1:]:  # nothing failed when recorded
        assert row["failed_at_need"] == 0


def test_designs_come_in_the_order_asked_once_each():
    answer = compare(read_trace(CAMERA), ["iommu-strict", "as-recorded", "iommu-strict"], with_need=False)
    assert [row.name for row in answer.rows] == ["iommu-strict", "as-recorded"]


def test_a_need_that_was_not_asked_for_says_so(data_dir):
    rows = document(data_dir / "traces", "camera-machine")["designs"]
    assert {row["why"]["bytes_needed"] for row in rows[1:]} == {"not asked for"}


def test_names_from_a_trace_survive_json(tmp_path, data_dir):
    text = gzip.decompress((data_dir / "traces" / f"{CAMERA}.trace.gz").read_bytes()).decode()
    name = 'e\x1b[31mvil "x"\n'
    (tmp_path / f"{name}.trace").write_text(text)
    trace = json.loads(
        json.dumps(compare(read_trace(tmp_path / f"{name}.trace"), ["as-recorded"], with_need=False).to_json())
    )["trace"]
    assert trace["name"] == name


def test_what_can_not_be_tried_in_the_memory_of_a_need_has_its_reason(monkeypatch):
    """The run in the memory of the table has passed: a smaller memory must not refuse the answer."""
    trace = read_trace(CAMERA)

    def refuse(workload, design, plan, knobs, **options):
        if plan.bytes == 82 << 20:
            raise InputError("so many can't be tried", path="t", line=3)
        return replay(workload, design, plan, knobs, **options)

    monkeypatch.setattr(sys.modules["swiommu.answers.compare"], "replay", refuse)
    (row,) = compare(trace, ["cma-bitmap"]).rows
    assert (row.bytes_needed, row.failed_at_need) == (82 << 20, None)
    assert row.why["failed_at_need"] == "so many can't be tried"
    assert "bytes_needed" not in row.why
