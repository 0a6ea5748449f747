"""Throw damaged trace lines at the whole way from a file to its requests, and some of them at a whole comparison.

    python tests/fuzz/fuzz_trace.py [--cases 1000000] [--seed 0]

A case is a handful of lines as kernels print them, cut, doubled, spliced and overwritten. It must be answered or
refused with `InputError`; every line must be accounted for; anything else ends the run and leaves the case on standard
error. The same seed makes the same cases. A short form runs with the tests (tests/fuzz/test_fuzz_trace.py).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from swiommu.answers import compare
from swiommu.errors import InputError
from swiommu.requests import workload_of
from swiommu.trace import read_trace

LINES = [
    line
    for line in (Path(__file__).parents[1] / "data" / "event-lines.txt").read_bytes().splitlines()
    if line and not line.startswith(b"#")
]
NUMBERS = (b"0", b"-1", b"ffffffffffffffff", b"18446744073709551616", b"0x", b"9" * 40, b"4096")
BYTES = b" \t{}=,:[]()-/<>x0123456789abcdefABCDEF\x00\x1b\xff."


def case(choose: random.Random) -> bytes:
    """One file: one to twelve real lines, most of them damaged."""
    lines = [bytearray(choose.choice(LINES)) for _ in range(choose.randint(1, 12))]
    for line in lines:
        for _ in range(choose.randint(0, 3)):
            at, length = choose.randrange(len(line) + 1), choose.randint(0, 12)
            how = choose.randrange(5)
            if how == 0:
                del line[at : at + length]
            elif how == 1:
                line[at:at] = line[at : at + 3 * length]
            elif how == 2:
                line[at : at + length] = choose.choice(NUMBERS)
            elif how == 3:
                line[at:at] = bytes(choose.choices(BYTES, k=length))
            else:
                other = choose.choice(LINES)
                line[at:] = other[choose.randrange(len(other)) :]
    return b"\n".join(lines) + b"\n" * choose.randint(0, 1)


def try_case(path: Path, data: bytes, *, whole: bool) -> None:
    """One case: refused, or every line accounted for and every request with an answer."""
    path.write_bytes(data)
    try:
        trace = read_trace(path)
        trace.account.check()
        trace.table.check()
        workload = workload_of(trace)
        assert len(workload.requests) == len(workload.served)
        if whole:
            for row in compare(workload, with_need=False).rows:
                assert row.failed + row.not_applicable <= row.requests
    except InputError:
        return


def run(cases: int, seed: int, folder: Path) -> None:
    """So many cases, every fiftieth through all designs; the case at fault is printed before the error goes on."""
    choose = random.Random(seed)
    path = folder / "case.trace"
    for number in range(cases):
        data = case(choose)
        try:
            try_case(path, data, whole=number % 50 == 0)
        except BaseException:
            print(f"case {number} of seed {seed}: {data!r}", file=sys.stderr)
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(options.cases, options.seed, Path(folder))
    print(f"{options.cases:,} cases of seed {options.seed}: answered or refused")


if __name__ == "__main__":
    main()
