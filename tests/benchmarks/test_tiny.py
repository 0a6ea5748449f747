"""The benchmarks still run: in a form so small that what they print means nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
# As on a machine without that package, whether or not it is here.
WITHOUT_TINYGRAD = """
import runpy, sys
sys.modules["tinygrad"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def printed(script, *arguments, before=()):
    command = [sys.executable, *before, str(HERE / script), *arguments]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=120
    ).stdout.splitlines()


@pytest.mark.parametrize(
    ("script", "arguments", "rows"),
    [
        ("allocators.py", ["--live", "20", "--pairs", "5", "--rounds", "1"], ["best_fit", "bitmap"]),
        ("stacks.py", ["--accesses", "2", "--rounds", "1"], ["1 stage", "3 stages"]),
        (
            "pagetables.py",
            ["--pairs", "5", "--rounds", "1", "--mappings", "9", "--format", "vtd-ss-4", "arm-lpae-64k-s1-52-52"],
            ["vtd-ss-4", "arm-lpae-64k-s1-52-52"],
        ),
    ],
)
def test_it_prints_a_row_for_each(script, arguments, rows):
    lines = printed(script, *arguments)
    for row in rows:
        assert any(line.strip().startswith(row) for line in lines), (row, lines)


def test_it_says_what_is_missing_beside():
    lines = printed(
        "pagetables.py",
        *("--pairs", "5", "--rounds", "1", "--mappings", "9", "--format", "mock"),
        before=("-c", WITHOUT_TINYGRAD),
    )
    assert "  tinygrad is not installed: there is nothing beside." in lines
    assert sum(line.startswith("  mock") for line in lines) == 2
