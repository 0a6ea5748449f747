"""What is said of designs that lend: in the row, in the notes, and on the terminal."""

import io
from functools import cache

import attrs
import pytest
from rich.console import Console

from swiommu.answers import compare
from swiommu.answers.lending import lending_notes
from swiommu.replay import DEFAULT_DESIGNS, Knobs, find_design
from swiommu.report import comparison_html, print_comparison, read_comparison
from swiommu.requests.generated import generate
from swiommu.trace import read_trace

CAMERA = "arm64-6.12-cam-cma64M-s81"
PINNED = attrs.evolve(find_design("cma-lending"), name="pinned", pinned=2000, lent=600_000)


@cache
def answer(memory="equal"):
    designs = ["cma-bitmap", "cma-lending", "gcma", PINNED]
    return compare(read_trace(CAMERA), designs, memory=memory, with_need=False, knobs=Knobs(seed=7))


def test_only_who_lends_has_the_field_and_nobody_lends_unasked():
    rows = answer().to_json()["designs"]
    assert [row["name"] for row in rows if "lending" in row] == ["cma-lending", "gcma", "pinned"]
    assert not {"cma-lending", "gcma"} & set(DEFAULT_DESIGNS)


def test_one_moves_what_the_other_drops():
    _, moving, dropping, pinned = (row.lending for row in answer().rows)
    assert moving["moved_bytes"] == dropping["dropped_bytes"] > 0
    assert (moving["dropped_bytes"], dropping["moved_bytes"]) == (0, 0)
    assert moving["busy"] == moving["in_vain_bytes"] == dropping["busy"] == 0
    assert (moving["pinned"], moving["pinned_from"], pinned["pinned"], pinned["pinned_from"]) == (
        0.0,
        "recording",
        0.002,
        "design",
    )
    assert pinned["busy"] > 0 < pinned["in_vain_bytes"] < pinned["moved_bytes"]
    assert pinned["asked"] > moving["asked"] == dropping["asked"]
    for row in answer().rows[1:]:
        assert row.bytes_copied == row.lending["moved_bytes"]


def test_lent_pages_are_no_waste_and_the_verdict_is_that_of_mainline():
    mainline, moving, dropping, pinned = answer().rows
    assert moving.waste.total == dropping.waste.total == moving.waste.internal
    assert moving.lendable_bytes == mainline.lendable_bytes
    assert (moving.lost, dropping.lost) == (mainline.lost, mainline.lost)
    assert pinned.lost > mainline.lost
    assert pinned.waste.idle + pinned.lendable_bytes > pinned.lendable_bytes


def test_the_assumptions_are_notes():
    moved = answer().rows[1].lending["moved_bytes"] / 2**20
    assumed = "who uses lent pages is not in the trace; assumed:"
    kept = "none of these is pinned when a request comes (as the recording's busy ranges tell)"
    *first, last = answer().notes
    assert first == [
        f"cma-lending: {assumed} 100 % of the idle pages are lent, {kept}",
        f"cma-lending: taking lent pages back moved {moved:,.0f} MiB",
        f"gcma: {assumed} 100 % of the idle pages are lent, none of these ever pinned",
        f"gcma: taking lent pages back dropped {moved:,.0f} MiB of clean copies",
        f"pinned: {assumed} 60 % of the idle pages are lent, 0.2 % of these are pinned when a request comes, seed 7",
    ]
    assert last.startswith("pinned: taking lent pages back moved ")
    assert last.endswith(" busy places")
    assert all(len(note) <= 200 for note in answer().notes)  # a terminal shows no more of one


def test_in_the_recorded_machine_its_busy_ranges_hold():
    assert "those of these are pinned that the recording shows as busy" in answer("machine").notes[0]
    assert [row.lost for row in answer("machine").rows[:2]] == [0, 0]


def test_the_terminal_and_the_page_show_what_was_dropped():
    file = io.StringIO()
    print_comparison(Console(file=file, width=120), answer())
    assert " dropped " in file.getvalue()
    assert "note: gcma: taking lent pages back dropped" in file.getvalue()
    page = comparison_html(answer())
    assert read_comparison(page) == answer().to_json()
    assert "taking lent pages back dropped" in page


@pytest.mark.parametrize("name", ["camera", "mixed"])
def test_generated_workloads_lend_too(name):
    rows = compare(generate(name, 3), ["cma-bitmap", "cma-lending", "gcma"], with_need=False).rows
    assert {row.lost for row in rows} == {rows[0].lost}
    assert rows[1].lending["moved_bytes"] == rows[2].lending["dropped_bytes"]


@pytest.mark.parametrize(
    ("lent", "pinned", "seed"), [(0.6, 0.0, ", seed 7"), (0.0, 0.0, ""), (1.0, 0.0, ""), (1.0, 0.002, ", seed 7")]
)
def test_the_seed_is_told_where_something_was_drawn(lent, pinned, seed):
    """Which pages are lent is drawn where a part of them is, which of these are pinned where some are."""
    lending = {"lent": lent, "pinned": pinned, "pinned_from": "design", "to": "movable", "busy": 0}
    lending |= dict.fromkeys(("moved_bytes", "in_vain_bytes"), 0)
    share = "0.2 % of these are" if pinned else "none of these is"
    assert lending_notes("x", lending, 7)[0] == (
        f"x: who uses lent pages is not in the trace; assumed: {lent * 100:.3g} % of the idle pages are lent, "
        f"{share} pinned when a request comes{seed}"
    )
