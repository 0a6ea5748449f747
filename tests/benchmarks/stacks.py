"""How many translations a second the reference engine does through one, two and three nested page tables.

    python tests/benchmarks/stacks.py [--accesses N] [--rounds N]

Every stack maps the same pages of 4 KiB, its tables lie in the memory that the walk reads them from, and the accesses
are the same random ones; beside them stands the same number of look-ups in a dict, in a Python loop. The rounds of all
are interleaved and the median round of each is shown, so that ratios hold on a machine that others use too. No gate.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from swiommu.address import Access
from swiommu.layer import TranslationCache, access
from swiommu.stackfile import read_stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.layer import Node

PAGES = 256
PAGE = 0x1000
DICT = {page: page + (1 << 20) for page in range(0, PAGES * PAGE, PAGE)}


def stack_of(stages: int) -> Node:
    """So many stages over one memory, each a plain map of more than what is above it; its top node."""
    parts = ['[memory.ram]\nbase = 0x8000_0000\nsize = "1 GiB"\n']
    for stage in range(stages):
        last = stage == stages - 1
        # The stage's tables lie in the first 64 KiB of what is below, its data 1 MiB further on.
        on, base = ("ram", 0x8000_0000) if last else (f"s{stage + 1}", 0)
        size = PAGES * PAGE + (stage << 20)
        parts.append(
            f'[layer.s{stage}]\nkind = "paged"\non = "{on}"\ntables = {base:#x}\n'
            f'map = [{{ at = 0, to = {base + (1 << 20):#x}, size = {size:#x}, page = "4K" }}]\n'
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.toml"
        path.write_text("\n".join(parts), encoding="utf-8")
        return read_stack(str(path))["s0"]


def translating(top: Node) -> Callable[[list[int]], int]:
    """A run through the stack that answers the references it took."""

    def run(addresses: list[int]) -> int:
        refs = 0
        for address in addresses:
            answer = access(top, address, 4, Access.READ)
            assert answer.fault is None
            refs += answer.refs
        return refs

    return run


def looking_up(addresses: list[int]) -> int:
    """What a Python loop has to do at the least; no references."""
    outputs = [DICT[address & -PAGE] + (address & PAGE - 1) for address in addresses]
    return len(outputs) - len(addresses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accesses", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    source = random.Random(1)
    addresses = [source.randrange(PAGES * PAGE - 4) & ~3 for _ in range(options.accesses)]
    cached = stack_of(3)
    cached.iotlb = TranslationCache(PAGES, audit=False)
    runs: dict[str, Callable[[list[int]], int]] = {
        "dict in a loop": looking_up,
        **{f"{k} stage{'s' if k > 1 else ''}": translating(stack_of(k)) for k in (1, 2, 3)},
        "3 stages, iotlb": translating(cached),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    refs = {name: run(addresses) / len(addresses) for name, run in runs.items()}  # and warms up
    refs["3 stages, iotlb"] = runs["3 stages, iotlb"](addresses) / len(addresses)
    for _ in range(options.rounds):
        for name, run in runs.items():
            begin = time.process_time()
            run(addresses)
            seconds[name].append(time.process_time() - begin)
    yardstick = statistics.median(seconds["1 stage"])
    print(f"{len(addresses)} random accesses over {PAGES} pages, median of {options.rounds} interleaved rounds")
    for name, times in seconds.items():
        median = statistics.median(times)
        speed = len(addresses) / max(median, 1e-9)
        ratio = yardstick / max(median, 1e-9)
        print(f"  {name:16}{refs[name]:5.0f} refs {speed:12,.0f} translate/s {ratio:9.3f} x 1 stage")


if __name__ == "__main__":
    main()
