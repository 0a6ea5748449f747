"""How fast the way from a trace to an answer is: reading, each design, and the command line's start.

    python tests/benchmarks/first_line.py [TRACE ...] [--rounds N]

Machines are shared and drift, so nothing here is a gate: every figure is a median over rounds in which all contenders
take turns, and comparisons are ratios inside one run. The yardstick for reading is the least that any reader must do
with the same lines: split each at white space.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from swiommu.replay import DEFAULT_DESIGNS, equal_plan, find_design, replay
from swiommu.requests import workload_of
from swiommu.trace import bundled_names, bundled_path, read_trace

if TYPE_CHECKING:
    from collections.abc import Callable


def interleaved(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contender; in every round each of them runs once, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def split_lines(path: Path) -> int:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", errors="replace") as lines:
        return sum(len(line.split()) for line in lines)


def per_trace(path: Path, rounds: int) -> None:
    trace = read_trace(path)
    workload = workload_of(trace)
    plan = equal_plan(workload)
    events, operations = len(trace.table), len(workload.ops)
    contenders: dict[str, Callable[[], object]] = {
        "split each line": lambda: split_lines(path),
        "read_trace": lambda: read_trace(path),
        "workload_of": lambda: workload_of(trace),
    }
    for name in DEFAULT_DESIGNS:
        contenders[name] = partial(replay, workload, find_design(name), plan)
    medians = interleaved(contenders, rounds)
    print(f"{trace.name}: {events:,} events, {len(workload.requests):,} requests")
    yardstick = medians["split each line"]
    for name, seconds in medians.items():
        count = events if name in {"split each line", "read_trace", "workload_of"} else operations
        unit = "events/s" if count == events else "operations/s"
        print(f"  {name:18} {count / seconds:12,.0f} {unit:13} {seconds / yardstick:7.2f} x split")


def start_up(rounds: int) -> None:
    def run(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)

    medians = interleaved(
        {
            "python -c pass": run("-c", "pass"),
            "import swiommu": run("-c", "import swiommu"),
            "swiommu --help": run("-m", "swiommu", "--help"),
            "swiommu compare": run("-m", "swiommu", "compare"),
        },
        rounds,
    )
    nothing = medians["python -c pass"]
    for name, seconds in medians.items():
        print(f"  {name:18} {seconds * 1000:9,.0f} ms {seconds / nothing:7.1f} x python -c pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"medians of {options.rounds} interleaved rounds, Python {sys.version.split()[0]}")
    for path in options.traces or [bundled_path(name) for name in bundled_names()]:
        per_trace(path, options.rounds)
    print("start-up")
    start_up(options.rounds)


if __name__ == "__main__":
    main()
