"""Rewrite tests/data/golden, the whole outputs that tests/cli/test_golden.py compares:

    python tests/rewrite_golden.py && git diff tests/data/golden

Read the difference before committing it: every changed number is a changed answer. The commands are in
tests/data/golden/commands.json; those whose name ends in ``-60-columns`` run in a terminal that narrow. They run in
tests/data/traces, so that no path of a machine gets into an output.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "data" / "golden"


def commands():
    return json.loads((GOLDEN / "commands.json").read_text())


def in_a_process(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "swiommu", *arguments], capture_output=True, check=False, **options)


def output(name, run=in_a_process):
    """Standard output of the command behind one golden file, as a pipe gets it."""
    columns = "60" if "-60-columns" in name else "120"
    environment = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "NO_COLOR"}}
    environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": columns, "PYTHONIOENCODING": "utf-8"}
    run = run(*commands()[name], cwd=GOLDEN.parent / "traces", env=environment)
    assert (run.returncode, run.stderr) == (0, b""), (name, run.returncode, run.stderr.decode())
    return run.stdout.decode()


if __name__ == "__main__":
    for file in commands():
        (GOLDEN / file).write_text(output(file), encoding="utf-8")
        print(f"wrote {file}")
