"""The sample of mutants in its short form: a small tree, every mutant of its module, and one that a test notices."""

import importlib.util
import json
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("sample", Path(__file__).with_name("sample.py"))
sample = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(sample)

MODULE = '''"""A module with one of each; 7 is no number here."""

from __future__ import annotations

LIMIT: int = 8


def clip(value: int | None = None) -> int:
    """The value, 8 at most."""
    if value is None or not value:
        print(f"nothing: {1 + 1}")
        return 0
    while True:
        return value if value < LIMIT else LIMIT + 0
'''
CHANGES = [
    ("constant", "8", "9"),
    ("operator", "value is None or not value", "(value is None and (not value))"),
    ("comparison", "value is None", "(value is not None)"),
    ("condition", "not value", "(value)"),
    ("condition", "value is None or not value", "(not (value is None or not value))"),
    ("dropped call", 'print(f"nothing: {1 + 1}")', "pass"),
    ("constant", "0", "1"),
    ("returned value", "return 0", "return None"),
    ("constant", "True", "False"),
    ("returned value", "return value if value < LIMIT else LIMIT + 0", "return None"),
    ("comparison", "value < LIMIT", "(value <= LIMIT)"),
    ("operator", "LIMIT + 0", "(LIMIT - 0)"),
    ("constant", "0", "1"),
]
TEST = """
from swiommu.tiny import clip

def test_a_small_value():
    assert clip(3) == 3

def test_a_large_value():
    assert clip(99) == 8
"""


@pytest.fixture
def tree(tmp_path):
    """The smallest that there can be: one module, and its test."""
    for name, text in {
        "swiommu/__init__.py": "",
        "swiommu/tiny.py": MODULE,
        "tests/test_tiny.py": TEST,
        "tests/test_other.py": "def test_other(): pass\n",
        "pyproject.toml": '[tool.pytest.ini_options]\naddopts = ["-ra", "--doctest-modules"]\n',
    }.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "tree"


def test_every_mutant_of_a_module():
    found = sample.mutants_of("tiny.py", MODULE)
    assert sorted((each.kind, each.old, each.new) for each in found) == sorted(CHANGES)
    for mutant in found:
        assert mutant.of(MODULE).encode()[mutant.start :].startswith(mutant.new.encode())
        compile(mutant.of(MODULE), "tiny.py", "exec")
    assert next(each for each in found if each.new == "(value <= LIMIT)").diff(MODULE) == [
        "-        return value if value < LIMIT else LIMIT + 0",
        "+        return value if (value <= LIMIT) else LIMIT + 0",
    ]


def test_the_same_seed_chooses_the_same(tree):
    assert sample.sample(tree, 6, 3) == sample.sample(tree, 6, 3) != sample.sample(tree, 6, 4)
    assert len(sample.sample(tree, 99, 3)) == len(CHANGES)
    assert sample.sample(tree, 99, 3, "swiommu/other") == []


def test_the_tests_of_a_module_come_first_and_then_its_neighbours():
    first, second, third = sample.stages(sample.ROOT, "swiommu/dma/swiotlb.py")
    assert first == ["swiommu/dma/swiotlb.py", "tests/dma/test_swiotlb.py"]
    assert "tests/dma/test_merge.py" in second
    assert {"tests/verify/test_swiotlb.py", "tests/cli/test_explain.py"} <= set(third)
    assert sample.stages(sample.ROOT, "swiommu/words.py")[0] == ["swiommu/words.py", "tests/test_words.py"]


def test_a_mutant_is_killed_by_its_test_and_another_survives(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # there is nothing to be plugged in
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # whose options plug-ins would read
    log = tmp_path / "log.jsonl"
    chosen = [each for each in sample.sample(tree, 99, 0) if each.line == 14 and "LIMIT +" in each.old]
    assert sample.run(chosen, log, 1, tree, ()) == {"killed": 1, "survived": 1}
    lines = {line["result"]: line for line in map(json.loads, log.read_text().splitlines())}
    assert lines["killed"]["by"] == "tests/test_tiny.py::test_a_small_value"
    assert lines["killed"]["diff"] == [
        "-        return value if value < LIMIT else LIMIT + 0",
        "+        return None",
    ]
    assert (lines["survived"]["path"], lines["survived"]["line"], lines["survived"]["by"]) == (
        "swiommu/tiny.py",
        14,
        "",
    )
    assert (tree / "swiommu" / "tiny.py").read_text() == MODULE
    assert [each.new for each in sample.survivors(tree, log)] == ["(LIMIT - 0)"]
    assert sample.run(chosen, log, 1, tree, ()) == {"killed": 1, "survived": 1}
    assert len(log.read_text().splitlines()) == 2  # nothing was tried again
