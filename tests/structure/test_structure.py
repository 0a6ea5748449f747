"""What the structure promises, by the script that measures it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import measure


def test_no_list_of_names_stands_beside_a_registry():
    assert measure.closed_lists() == []


def test_a_list_beside_a_registry_is_found(tmp_path, monkeypatch):
    path = tmp_path / "swiommu" / "bad.py"
    path.parent.mkdir()
    path.write_text("NAMES = ('best_fit', 'bitmap')\nif name == 'tlsf':\n    lends = {'movable': 1, 'droppable': 2}\n")
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    monkeypatch.setattr(measure, "modules", lambda: {"swiommu.bad": path})
    assert measure.closed_lists() == ["swiommu/bad.py:1", "swiommu/bad.py:2", "swiommu/bad.py:3"]


def test_no_kernel_version_stands_outside_the_profiles():
    assert measure.version_strings() == []


def test_no_class_is_derived_more_than_twice():
    assert max(measure.depths().values()) <= 2


def test_no_modules_import_each_other():
    assert measure.circles(measure.imports()) == []


def test_no_small_module_stands_alone_without_a_reason(monkeypatch):
    assert measure.crumbs() == []
    reasons = sorted(measure.SMALL)
    monkeypatch.setattr(measure, "SMALL", {})
    assert [crumb.split(" (")[0] for crumb in measure.crumbs()] == reasons
