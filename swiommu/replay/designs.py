"""Designs: which parts serve a device. A preset is a value; the parts are built by `swiommu.replay.backends`.

Every knob is declared once, as a field with its unit, its range and where its default comes from; the TOML reader, the
docs and the messages are made from that declaration.
"""

from __future__ import annotations

import difflib

import attrs

from swiommu.address import PAGE_SIZE
from swiommu.errors import InputError
from swiommu.input_file import BadValue, ByteCount, key
from swiommu.iommu import DEFAULT_HZ
from swiommu.pagetable.formats import FORMATS
from swiommu.region import allocator_names

__all__ = ["AS_RECORDED", "DEFAULT_DESIGNS", "PRESETS", "Design", "Knobs", "find_design"]

AS_RECORDED = "as-recorded"
_FARTHEST = 1 << 48
_LARGEST_POOL = 1 << 38  # as large as memory that can be replayed
_FORMATS = tuple(name for name, form in FORMATS.items() if form.granule == PAGE_SIZE)


@attrs.frozen
class Design:
    """One way to serve drivers; ``name`` and ``summary`` are for people, the rest are knobs.

    >>> find_design("iommu-strict").has_hardware, find_design("software-iommu").has_hardware
    (True, False)
    """

    name: str = key("Its name, in tables and sentences.")
    summary: str = key("What it is, in a few words.")
    driver: str = key(
        "What is between a device and memory.",
        "none",
        choices=("none", "linear", "paged"),
        source="compare, rule 11",
    )
    allocator: str = key(
        "What serves an ALLOC contiguously: in memory, or with driver 'paged' in the domain's space; '' is any frame.",
        "",
        choices=("", *allocator_names()),
        source="compare, rules 11 to 14",
    )
    flush: str = key(
        "When an unmap takes effect in the translation caches; only with driver 'paged'.",
        "strict",
        choices=("strict", "lazy"),
        source="linux dma-iommu",
    )
    format: str = key(
        "The page table that a domain keeps: its page sizes, its levels, when its tables go; only with driver 'paged'.",
        "mock",
        choices=_FORMATS,
        source="compare, rule 13",
    )
    bounce: str = key(
        "Which pieces of a MAP go through a bounce buffer; only without translation.",
        "none",
        choices=("none", "beyond-mask", "all"),
        source="linux swiotlb",
    )
    pool: ByteCount = key(
        "Size of the bounce pool, if the recording does not tell; rounded up to segments of 256 KiB.",
        64 << 20,
        unit="bytes",
        least=2048,
        most=_LARGEST_POOL,
        source="linux swiotlb default",
    )
    delta: ByteCount = key(
        "How far a linear domain's window shifts: bus = phys + delta.",
        0,
        unit="bytes",
        least=1 - _FARTHEST,
        most=_FARTHEST - 1,
        source="none: identity",
    )
    lends: str = key(
        "To whom an area lends idle pages: movable ones, moved when it needs them, or droppable ones; '' is unsaid.",
        "",
        choices=("", "movable", "droppable"),
        source="linux CMA; GCMA as posted in 2015 and 2025",
    )
    lent: int = key(
        "How many of a million idle pages are lent.",
        1_000_000,
        unit="pages in a million",
        least=0,
        most=1_000_000,
        source="none: memory fills with file pages in time",
    )
    pinned: int = key(
        "How many of a million lent pages can't move whenever a request comes; -1: as the recording shows.",
        -1,
        unit="pages in a million",
        least=-1,
        most=1_000_000,
        source="compare, rule 14",
    )

    def __attrs_post_init__(self) -> None:
        if self.driver != "paged":
            for name in ("flush", "format"):
                if (value := getattr(self, name)) not in {"strict", "mock"}:
                    raise BadValue(f"is {value!r}, which needs driver 'paged', not {self.driver!r}", key=name)
        if self.allocator and self.flush == "lazy":
            raise BadValue("is 'lazy', which needs allocator '': a chunk goes back at its unmap", key="flush")
        if self.driver != "none" and self.bounce != "none":
            raise BadValue(f"is {self.bounce!r}, which needs driver 'none', not {self.driver!r}", key="bounce")
        if self.driver == "linear" and not self.allocator:
            raise BadValue("is 'linear', which needs an allocator: it has nothing but its region", key="driver")
        if self.driver != "linear" and self.delta:
            raise BadValue(f"is {self.delta}, which needs driver 'linear', not {self.driver!r}", key="delta")
        if self.lends and (self.driver, self.allocator) != ("none", "bitmap"):
            raise BadValue(
                f"is {self.lends!r}, which needs driver 'none' with allocator 'bitmap', not {self.driver!r} with "
                f"{self.allocator!r}",
                key="lends",
            )
        if self.lends == "droppable" and self.pinned > 0:
            raise BadValue(f"is {self.pinned}, but droppable pages are never pinned", key="pinned")

    @property
    def has_hardware(self) -> bool:
        """Whether the design needs translation hardware."""
        return self.driver == "paged"

    @property
    def has_area(self) -> bool:
        """Whether the design withholds one contiguous region of memory."""
        return bool(self.allocator) and self.driver != "paged"


@attrs.frozen
class Knobs:
    """What a run varies on top of every design.

    ``align_order``: the largest alignment, as an order of pages (CONFIG_CMA_ALIGNMENT; 8 = 1 MiB).
    ``frames``: ``largest`` (as Linux takes them) or ``random`` (single frames in seeded order: the worst case).
    ``seed``: for what is drawn at random, frames and who uses lent pages.
    ``hz``: ticks a second of the kernel (CONFIG_HZ), in which the timers of lazy designs run.
    """

    align_order: int = 8
    frames: str = "largest"
    seed: int = 0
    hz: int = DEFAULT_HZ


PRESETS: dict[str, Design] = {
    design.name: design
    for design in (
        Design("passthrough", "plain pages, power-of-two blocks up to 4 MiB, no translation"),
        Design("swiotlb", "plain pages, every MAP copied through a bounce pool", bounce="all"),
        Design("swiotlb-natural", "plain pages, a bounce only where a device can't reach", bounce="beyond-mask"),
        Design("carveout-best-fit", "a static carve-out, best fit (RFC v4, 2010)", "none", "best_fit"),
        Design("cma-bitmap", "mainline CMA: bitmap, first fit by address", "none", "bitmap"),
        Design("software-iommu", "the IOMMU API over a contiguous region, no hardware", "linear", "bitmap"),
        Design("iommu-strict", "every device translated, invalidated at each unmap", "paged"),
        Design("iommu-lazy", "every device translated, invalidated in batches", "paged", flush="lazy"),
        Design(
            "shim-over-iommu", "contiguous for the device, scattered below (CMA over an IOMMU)", "paged", "best_fit"
        ),
        Design("cma-lending", "mainline CMA, idle pages lent: moved away on demand", "none", "bitmap", lends="movable"),
        Design(
            "gcma", "CMA with a guarantee: idle pages hold clean copies, dropped", "none", "bitmap", lends="droppable"
        ),
    )
}

# Without those that rest on what no recording tells: who uses lent pages.
DEFAULT_DESIGNS = tuple(name for name, design in PRESETS.items() if not design.lends)


def find_design(name: str) -> Design:
    """The preset of that name; `InputError` in one sentence, with the nearest name, for any other.

    >>> find_design("cma-bitmap").allocator
    'bitmap'
    """
    design = PRESETS.get(name)
    if design is None:
        near = difflib.get_close_matches(name, [*PRESETS, AS_RECORDED], n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        names = ", ".join([AS_RECORDED, *PRESETS])
        raise InputError(f"no design is named {name!r}: {hint}there are {names}")
    return design
