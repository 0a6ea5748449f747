"""How many pairs of free and alloc a second each allocator does with a thousand to a million blocks alive.

    python tests/benchmarks/allocators.py [--live N ...] [--pairs N] [--rounds N] [--align PAGES]

Sizes are random, 1 to 67 pages, in an arena of 1.5 times what is alive (the buddy system, which rounds up, gets twice
that); every allocator gets the same requests. Beside ours runs the TLSFAllocator of tinygrad if that package is
installed. The rounds of all are interleaved and the median round of each is shown, so that ratios hold on a machine
that others use too. At the end no two blocks may overlap. No gate.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import statistics
import time
from typing import TYPE_CHECKING

from swiommu.region import allocator_names, make_allocator

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = 4096
LARGEST = 67
YARDSTICK = "tinygrad TLSF"


class Contender:
    """One allocator with its live blocks, and how long its rounds took."""

    def __init__(self, alloc: Callable[[int, int], int], free: Callable[[int, int], object]) -> None:
        self.alloc, self.free = alloc, free
        self.live: list[tuple[int, int]] = []
        self.seconds: list[float] = []

    def fill(self, sizes: list[int], align: int) -> None:
        self.live = [(self.alloc(size, align), size) for size in sizes]

    def run(self, swaps: list[tuple[int, int]], align: int) -> None:
        """Each swap frees one block and takes another of its own size."""
        live, alloc, free = self.live, self.alloc, self.free
        begin = time.process_time()
        for index, size in swaps:
            free(*live[index])
            live[index] = (alloc(size, align), size)
        self.seconds.append(time.process_time() - begin)

    def check(self, align: int) -> None:
        blocks = sorted(self.live)
        assert all(start + size <= after for (start, size), (after, _) in itertools.pairwise(blocks)), "blocks overlap"
        assert all(start % align == 0 for start, _ in blocks), "a block is not aligned"


def contenders(arena: int) -> dict[str, Contender]:
    found = {}
    for name in allocator_names():
        made = make_allocator(name, 0, arena * 2 if name == "buddy" else arena)
        found[name] = Contender(made.alloc, made.free)
    try:
        from tinygrad.runtime.support.memory import TLSFAllocator
    except ImportError:
        return found
    theirs = TLSFAllocator(arena, block_size=PAGE)
    found[YARDSTICK] = Contender(theirs.alloc, lambda start, _: theirs.free(start))
    return found


def measure(live: int, pairs: int, rounds: int, align: int) -> None:
    source = random.Random(live)
    sizes = [source.randint(1, LARGEST) * PAGE for _ in range(live)]
    found = contenders(sum(sizes) * 3 // 2 // PAGE * PAGE)
    for each in found.values():
        each.fill(sizes, align)
    gc.collect()
    gc.freeze()  # what is alive by now is not looked at again, for any of them
    for _ in range(rounds + 1):
        swaps = [(source.randrange(live), source.randint(1, LARGEST) * PAGE) for _ in range(pairs)]
        for each in found.values():
            each.run(swaps, align)
    gc.unfreeze()
    for each in found.values():
        each.check(align)
        del each.seconds[0]  # the first round warms up
    print(f"{live} blocks alive, {pairs} pairs a round, median of {rounds} interleaved rounds")
    theirs = found.get(YARDSTICK)
    for name, each in found.items():
        median = statistics.median(each.seconds)
        ratios = [b / a for a, b in zip(each.seconds, theirs.seconds, strict=True)] if theirs else []
        beside = f"{statistics.median(ratios):8.2f} x {YARDSTICK}" if ratios else ""
        print(f"  {name:14}{pairs / max(median, 1e-9):12,.0f} pairs/s{beside}")
    if theirs is None:
        print(f"  ({YARDSTICK}: not installed)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--live", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--pairs", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--align", type=int, default=1, help="alignment in pages, a power of two")
    options = parser.parse_args()
    for live in options.live:
        measure(live, options.pairs, options.rounds, options.align * PAGE)


if __name__ == "__main__":
    main()
