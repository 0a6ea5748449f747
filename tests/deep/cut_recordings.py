"""Compare and verify every recording of a folder as an overwritten ring buffer leaves it, and with lines out of order.

    python tests/deep/cut_recordings.py FOLDER [--cuts 10 30 60] [--shuffle] [--seed 0] [--jobs 2] [--log FILE]

The first so many per cent of the lines are lost, the header with them, or the lines of each second are shuffled. Every
design must answer (or the recording be refused in a sentence), under both ways to give memory and with frames drawn at
random; nothing else may come out. `verify` must answer as well, and finds no mismatch in a recording without its
beginning if it finds none in the whole one. A line of the log is a case: recording, what was done to it, outcome,
requests, mismatches, seconds. A small form runs with the tests.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from swiommu.answers import compare, verify
from swiommu.errors import InputError
from swiommu.replay import AS_RECORDED, PRESETS, Knobs
from swiommu.requests import workload_of
from swiommu.trace import read_trace

SHUFFLED = -1


def damaged(lines: list[bytes], cut: int, seed: int) -> list[bytes]:
    """What is left after the first ``cut`` per cent of the lines, or all of them in another order."""
    header = [line for line in lines if line.startswith(b"#")]
    events = [line for line in lines if not line.startswith(b"#")]
    if cut != SHUFFLED:
        return lines[len(lines) * cut // 100 :]
    choose, seconds = random.Random(seed), {}
    for line in events:
        second = next((word.partition(b".")[0] for word in line.split()[1:6] if word.endswith(b":")), b"")
        seconds.setdefault(second, []).append(line)
    for group in seconds.values():
        choose.shuffle(group)
    return header + [line for group in seconds.values() for line in group]


def try_recording(
    path: str, cut: int, seed: int, designs: tuple[str, ...], *, with_random: bool = True
) -> dict[str, object]:
    """One case, as it is written to the log; ``with_random`` says whether frames are drawn at random as well."""
    source, begin = Path(path), time.process_time()
    name = source.name.removesuffix(".trace.gz")
    case: dict[str, object] = {"recording": name, "cut": "shuffled" if cut == SHUFFLED else cut}
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / f"{name}.trace"
        trace.write_bytes(b"".join(damaged(gzip.decompress(source.read_bytes()).splitlines(keepends=True), cut, seed)))
        for beside in (f"{name}.json", f"{name}.emulator.gz", f"{name}.emulator"):
            if source.with_name(beside).exists():
                shutil.copy(source.with_name(beside), Path(folder) / beside)
        try:
            case |= {"outcome": "answered", "requests": answered(str(trace), designs, with_random=with_random)}
        except InputError as error:
            case |= {"outcome": "refused", "sentence": str(error).replace(folder, "")}
        except BaseException:  # noqa: BLE001 - what comes out is what is looked for
            case |= {"outcome": "escaped", "traceback": traceback.format_exc()}
        try:
            case["mismatches"] = mismatches(trace)
            if case["mismatches"] and cut != SHUFFLED and not mismatches(source):
                case |= {"outcome": "escaped", "traceback": "mismatches where the whole recording has none"}
        except BaseException:  # noqa: BLE001 - same
            case |= {"outcome": "escaped", "traceback": traceback.format_exc()}
    return case | {"seconds": round(time.process_time() - begin, 1)}


def mismatches(path: Path) -> int | None:
    """What `verify` predicts wrongly; None where there is nothing to verify."""
    try:
        return verify(read_trace(path)).mismatched
    except InputError:
        return None


def answered(path: str, designs: tuple[str, ...], *, with_random: bool) -> int:
    """How many requests there were; each row must account for them all, and gain or lose no more than there were."""
    trace = read_trace(path)
    trace.account.check()
    workload = workload_of(trace)
    if not workload.requests:
        compare(trace)  # refuses it
    drawing = [name for name in designs if with_random and PRESETS[name].has_hardware and not PRESETS[name].allocator]
    for memory, names, knobs in (
        ("equal", [AS_RECORDED, *designs], Knobs()),
        ("machine", [AS_RECORDED, *designs], Knobs()),
        ("equal", drawing, Knobs(frames="random")),
    ):
        for row in compare(workload, names, memory=memory, with_need=False, knobs=knobs).rows:
            assert row.failed + row.not_applicable <= row.requests == len(workload.requests), row
            if row.lost is not None and row.gained is not None:
                assert row.lost <= row.requests - workload.censored, row
                assert row.gained <= workload.censored, row
    return len(workload.requests)


def main() -> int:
    """Try all cases; 1 if anything escaped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cuts", type=int, nargs="*", default=[10, 30, 60], metavar="PERCENT")
    parser.add_argument("--shuffle", action="store_true", help="also shuffle the lines of each second")
    parser.add_argument("--designs", nargs="*", default=list(PRESETS), help="all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--log", type=Path, help="a line of JSON a case; cases that it has are not tried again")
    asked = parser.parse_args()
    done = [json.loads(line) for line in asked.log.read_text().splitlines()] if asked.log and asked.log.exists() else []
    seen = {(case["recording"], case["cut"]) for case in done}
    cuts = [*asked.cuts, *([SHUFFLED] if asked.shuffle else [])]
    cases = [
        (path, cut)
        for cut in cuts
        for path in sorted(asked.folder.glob("*.trace.gz"), key=lambda path: path.stat().st_size)
        if (path.name.removesuffix(".trace.gz"), "shuffled" if cut == SHUFFLED else cut) not in seen
    ]
    escaped = sum(case["outcome"] == "escaped" for case in done)
    with ProcessPoolExecutor(asked.jobs) as pool:
        running = [pool.submit(try_recording, str(path), cut, asked.seed, tuple(asked.designs)) for path, cut in cases]
        for future in as_completed(running):
            case = future.result()
            if asked.log:
                with asked.log.open("a") as log:
                    log.write(json.dumps(case) + "\n")
            if case["outcome"] == "escaped":
                escaped += 1
                print(json.dumps(case), file=sys.stderr)
    print(f"{len(done) + len(cases)} cases of seed {asked.seed}: {escaped} escaped")
    return int(escaped > 0)


if __name__ == "__main__":
    sys.exit(main())
