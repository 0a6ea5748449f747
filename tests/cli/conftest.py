"""The command line as a shell runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
ENVIRONMENT |= {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def swiommu(tmp_path):
    """Run `swiommu ARGUMENTS` in an empty directory; the finished process, its output in bytes."""

    def run(*arguments, **options):
        options = {"cwd": tmp_path, "env": ENVIRONMENT, "capture_output": True, "timeout": 60} | options
        return subprocess.run([sys.executable, "-m", "swiommu", *arguments], check=False, **options)

    return run
