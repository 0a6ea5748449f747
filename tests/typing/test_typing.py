"""mypy refuses what `wrong_addresses.py` says it must, line by line, and nothing else in it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_confused_addresses_are_type_errors(tmp_path):
    source = HERE / "wrong_addresses.py"
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "--no-error-summary", str(source)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    lines = enumerate(source.read_text(encoding="utf-8").splitlines(), 1)
    wanted = {number for number, line in lines if "# refused:" in line}
    found = {int(match[1]) for match in re.finditer(rf"{source.name}:(\d+): error", run.stdout)}
    assert found == wanted, run.stdout
