"""Whole outputs against tests/data/golden; tests/rewrite_golden.py writes them anew."""

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "rewrite_golden.py"))
GOLDEN, output = SCRIPT["GOLDEN"], SCRIPT["output"]
FILES = sorted(SCRIPT["commands"]())


@pytest.mark.parametrize("name", FILES)
def test_output_is_the_golden_one(name, swiommu):
    found, wanted = output(name, swiommu), (GOLDEN / name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        assert json.loads(found) == json.loads(wanted)  # says which field
    assert found == wanted


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".txt")])
def test_piped_text_is_plain(name):
    text = (GOLDEN / name).read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert all(char.isprintable() for char in text.replace("\n", ""))
    width = 60 if "-60-columns" in name else 120
    assert [line for line in text.splitlines() if len(line) > width] == []
    assert "…" not in text  # nothing was cut for want of room


def test_every_golden_file_has_its_command():
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted([*FILES, "commands.json"])


def test_readme_shows_what_is_printed():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"```\n{(GOLDEN / 'compare-camera.txt').read_text(encoding='utf-8')}```\n" in readme
