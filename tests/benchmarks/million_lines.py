"""A million trace lines through one design: read, pair, replay; seconds, lines a second, and the memory it took.

    python tests/benchmarks/million_lines.py [--lines N] [--design NAME]

The lines are a bundled recording of disks and cameras behind an SMMU, again and again, each time later. The yardstick
is splitting the same lines at white space in the same process; nothing here is a gate.
"""

from __future__ import annotations

import argparse
import gzip
import resource
import tempfile
import time
from pathlib import Path

from swiommu.replay import PRESETS, equal_plan, find_design, replay
from swiommu.requests import workload_of
from swiommu.trace import bundled_path, read_trace

RECORDING = "arm64-6.12-smmu-camnvme-cma128M-s89"
STAMP = slice(36, 48)  # "    8.591134": the kernel's column of seconds


def write_lines(path: Path, count: int) -> None:
    """``count`` lines, the recording repeated, every repetition beginning where the one before ended."""
    with gzip.open(bundled_path(RECORDING), "rt", encoding="utf-8") as recording:
        lines = [line for line in recording if not line.startswith("#")]
    shift = float(lines[-1][STAMP])
    with path.open("w", encoding="utf-8") as out:
        for number in range(count):
            again, index = divmod(number, len(lines))
            line = lines[index]
            out.write(f"{line[: STAMP.start]}{float(line[STAMP]) + again * shift:12.6f}{line[STAMP.stop :]}")


def resident_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--design", choices=PRESETS, default="iommu-strict")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.trace"
        write_lines(path, options.lines)
        begin = time.process_time()
        with path.open(encoding="utf-8") as lines:
            words = sum(len(line.split()) for line in lines)
        yardstick = time.process_time() - begin
        print(f"{options.lines:,} lines, {path.stat().st_size >> 20} MiB, {words:,} words")

        def step(name: str, begin: float) -> float:
            seconds = time.process_time() - begin
            speed = options.lines / seconds
            print(f"  {name:14}{seconds:7.1f} s CPU {speed:12,.0f} lines/s {seconds / yardstick:6.1f} x split")
            print(f"  {'':14}{resident_mib():7,} MiB resident at most so far")
            return time.process_time()

        begin = time.process_time()
        trace = read_trace(path)
        begin = step("read_trace", begin)
        workload = workload_of(trace)
        begin = step("workload_of", begin)
        outcome = replay(workload, find_design(options.design), equal_plan(workload))
        step(options.design, begin)
        print(f"  {len(workload.requests):,} requests, {outcome.ledger.lost.total():,} lost")


if __name__ == "__main__":
    main()
