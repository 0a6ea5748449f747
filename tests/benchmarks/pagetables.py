"""How many pairs of map and unmap of one small page a second each page-table format does, and what a mapping takes.

    python tests/benchmarks/pagetables.py [--pairs N] [--rounds N] [--mappings N] [--format NAME ...]

Pairs: N pages at random in a table that has all its tables already, each mapped and unmapped at once, one call each:
`RadixTable` alone, and a `PagedDomain` with its checks, addresses and invalidations around it. Beside them runs
map_range and unmap_range of tinygrad's MemoryManager if that package is installed, over four levels of tables in a
memory of this process, as its devices have them. The rounds of all are interleaved and medians shown, of ratios of the
same round too, so that they hold on a machine that others use.

Mappings: N pages one behind the other, one call each, all kept: bytes of Python beside the bytes of the tables
themselves. All formats together take some minutes. No gate.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
import tracemalloc
from typing import TYPE_CHECKING

from swiommu.address import BusSpace, PhysSpace, Prot
from swiommu.iommu import PagedDomain
from swiommu.memory import Frames
from swiommu.pagetable import CountingTables, RadixTable
from swiommu.pagetable.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.pagetable import Format

    Sizes = Callable[[], tuple[int, int]]  # bytes of the memory that tables are in, and of tables

RW = Prot.READ | Prot.WRITE
YARDSTICK = "tinygrad"
SPAN = 1 << 14  # pages that are mapped over; one in each table stays, so that none is freed
BASE = 1 << 30
OUTPUT = 1 << 28


def table_pairs(form: Format) -> Callable[[list[int]], None]:
    table, page = RadixTable(form, CountingTables()), form.granule
    stay(lambda at, to: table.map_run(at, to, page, 1, RW), form)
    map_run, unmap = table.map_run, table.unmap

    def run(places: list[int]) -> None:
        for place in places:
            at = BASE + place * page
            map_run(at, OUTPUT + place * page, page, 1, RW)
            unmap(at, page)

    return run


def domain_pairs(form: Format) -> Callable[[list[int]], None]:
    ram, page = PhysSpace("ram", width=40), form.granule
    frames = Frames(ram.at(0), 1 << 28, page_size=page)
    space = BusSpace("bus", width=39)
    domain = PagedDomain(space, frames=frames, output_space=ram, format=form)
    stay(lambda at, to: domain.map(space.at(at), ram.at(to), page, RW), form)
    addresses = {place: (space.at(BASE + place * page), ram.at(OUTPUT + place * page)) for place in range(SPAN)}
    map_, unmap = domain.map, domain.unmap

    def run(places: list[int]) -> None:
        for place in places:
            at, to = addresses[place]
            map_(at, to, page, RW)
            unmap(at, page)

    return run


def stay(map_one: Callable[[int, int], object], form: Format) -> None:
    per_table = 1 << form.levels[-1].bits
    for place in range(0, SPAN, per_table):
        map_one(BASE + place * form.granule, OUTPUT)


def tinygrad_manager(tables: int):
    """A MemoryManager over a bytearray of so many tables, four levels of nine bits; None if there is none."""
    try:
        from tinygrad.runtime.support.memory import AddrSpace, MemoryManager
    except ImportError:
        return None

    class PageTable:
        """Entries as the managers of its devices have them: a view of the memory, a valid bit and one for leaves."""

        def __init__(self, dev, paddr, lv):
            self.dev, self.paddr, self.lv = dev, paddr, lv
            self.entries = dev.words[paddr // 8 : paddr // 8 + 512]

        def set_entry(
            self, entry_id, paddr, table=False, uncached=False, aspace=None, snooped=False, frag=0, valid=True
        ):
            self.entries[entry_id] = paddr | valid | (not table and valid) << 1 | uncached << 2 | snooped << 3

        def entry(self, entry_id):
            return self.entries[entry_id]

        def valid(self, entry_id):
            return self.entries[entry_id] & 1 != 0

        def address(self, entry_id):
            return self.entries[entry_id] & 0x000F_FFFF_FFFF_F000

        def is_page(self, entry_id):
            return self.lv == 3 or self.entries[entry_id] & 2 != 0

        def supports_huge_page(self, paddr):
            return self.lv == 3 or (self.lv >= 1 and paddr % self.dev.mm.pte_covers[self.lv] == 0)

    class Device:
        """What a manager asks of its device."""

        is_booting, smi_dev, devfmt = True, False, "none"

    size = (tables + 64) << 12
    device = Device()
    device.vram = memoryview(bytearray(size))
    device.words = device.vram.cast("Q")
    device.mm = MemoryManager(
        device,
        size,
        1 << 16,
        PageTable,
        va_bits=48,
        va_shifts=[12, 21, 30, 39],
        va_base=0,
        palloc_ranges=[(4096, 4096)],
    )
    device.is_booting = False
    return device.mm, AddrSpace.PHYS


def tinygrad_pairs() -> Callable[[list[int]], None] | None:
    made = tinygrad_manager(SPAN // 512 + 16)
    if made is None:
        return None
    manager, physical = made
    for place in range(0, SPAN, 512):
        manager.map_range(BASE + place * 4096, 4096, [(OUTPUT, 4096)], physical)

    def run(places: list[int]) -> None:
        for place in places:
            at = BASE + place * 4096
            manager.map_range(at, 4096, [(OUTPUT + place * 4096, 4096)], physical)
            manager.unmap_range(at, 4096)

    return run


def measure_pairs(formats: dict[str, Format], pairs: int, rounds: int) -> None:
    runs = {name: (table_pairs(form), domain_pairs(form)) for name, form in formats.items()}
    theirs = tinygrad_pairs()
    everything = [run for both in runs.values() for run in both] + ([theirs] if theirs else [])
    seconds: dict[int, list[float]] = {id(run): [] for run in everything}
    source = random.Random(1)
    gc.collect()
    gc.freeze()  # what is alive by now is not looked at again, for any of them
    for number in range(rounds + 1):
        # Places that stay mapped are left out: the first ones of tables, of 512 entries or more.
        places = [place for place in (source.randrange(SPAN) for _ in range(pairs)) if place % 512]
        for run in everything:
            begin = time.process_time()
            run(places)
            if number:  # the first round warms up
                seconds[id(run)].append((time.process_time() - begin) / len(places))
    gc.unfreeze()
    yardstick = seconds[id(theirs)] if theirs else None
    print(f"map and unmap of one page, {pairs} pairs a round, median of {rounds} interleaved rounds")
    print(f"  {'':22}{'RadixTable':>12}{'PagedDomain':>13}  pairs/s" + (f", and x {YARDSTICK}" if theirs else ""))
    for name, both in runs.items():
        shown = "".join(
            f"{1 / median(seconds[id(run)]):{width},.0f}" for run, width in zip(both, (12, 13), strict=True)
        )
        print(f"  {name:22}{shown}{ratios([seconds[id(run)] for run in both], yardstick)}")
    if yardstick is not None:
        print(f"  {YARDSTICK:22}{1 / median(yardstick):12,.0f}  map_range and unmap_range")
    else:
        print(f"  {YARDSTICK} is not installed: there is nothing beside.")


def median(times: list[float]) -> float:
    return max(statistics.median(times), 1e-9)


def ratios(ours: list[list[float]], theirs: list[float] | None) -> str:
    if theirs is None:
        return ""
    return "  " + "".join(
        f"{statistics.median(b / max(a, 1e-9) for a, b in zip(times, theirs, strict=True)):8.2f} x" for times in ours
    )


def resident(fill: Callable[[], Sizes]) -> tuple[int, int]:
    """Bytes of Python that ``fill`` leaves without the memory that tables are in; and those of tables."""
    gc.collect()
    tracemalloc.start()
    sizes = fill()
    gc.collect()
    total = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    memory, tables = sizes()
    return total - memory, tables


def filled_table(form: Format, mappings: int) -> Callable[[], Sizes]:
    def fill() -> Sizes:
        table, page = RadixTable(form, CountingTables()), form.granule
        for n in range(mappings):
            table.map_run(BASE + n * page, OUTPUT + n * page, page, 1, RW)
        return lambda: (table.table_pages << 12, table.table_pages << 12)

    return fill


def filled_domain(form: Format, mappings: int) -> Callable[[], Sizes]:
    def fill() -> Sizes:
        ram, space, page = PhysSpace("ram", width=44), BusSpace("bus", width=39), form.granule
        frames = Frames(ram.at(0), 1 << 28, page_size=page)
        domain = PagedDomain(space, frames=frames, output_space=ram, format=form, tables=CountingTables())
        for n in range(mappings):
            domain.map(space.at(BASE + n * page), ram.at(OUTPUT + n * page), page, RW)
        return lambda: (domain.stats.table_pages << 12, domain.stats.table_pages << 12)

    return fill


def filled_tinygrad(mappings: int) -> Callable[[], Sizes]:
    def fill() -> Sizes:
        manager, physical = tinygrad_manager(mappings // 512 + 16)
        kept = [
            manager.map_range(BASE + n * 4096, 4096, [(OUTPUT + n * 4096, 4096)], physical) for n in range(mappings)
        ]
        blocks = manager.pa_allocator.blocks
        used = 4096 + sum(size for size, _, _, free in blocks.values() if not free)
        # What a map answers is kept, for an unmapping needs it; memory that holds no table is no cost.
        return lambda: (len(manager.dev.vram), used) if kept else (0, 0)

    return fill


def measure_bytes(formats: dict[str, Format], mappings: int) -> None:
    print(f"bytes for each of {mappings} mappings of one page, one behind the other")
    print(f"  {'':22}{'tables':>12}{'RadixTable':>13}{'PagedDomain':>13}  Python beside the tables")
    for name, form in formats.items():
        beside, tables = resident(filled_table(form, mappings))
        around, _ = resident(filled_domain(form, mappings))
        print(f"  {name:22}{tables / mappings:12.2f}{beside / mappings:13.2f}{around / mappings:13.2f}")
    if tinygrad_manager(1) is not None:
        beside, tables = resident(filled_tinygrad(mappings))
        print(f"  {YARDSTICK:22}{tables / mappings:12.2f}{beside / mappings:13.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mappings", type=int, default=100_000)
    parser.add_argument("--format", choices=list(FORMATS), nargs="+", default=list(FORMATS))
    options = parser.parse_args()
    formats = {name: FORMATS[name] for name in options.format}
    measure_pairs(formats, options.pairs, options.rounds)
    measure_bytes(formats, options.mappings)


if __name__ == "__main__":
    main()
