"""Designs: which parts serve a device. A preset is a value; the parts are built by `swiommu.replay.backends`.

Every knob is declared once, as a field with its unit, its range and where its default comes from; the TOML reader, the
docs and the messages are made from that declaration.
"""

from __future__ import annotations

import difflib
from typing import Any

import attrs

from swiommu.address import PAGE_SIZE
from swiommu.errors import InputError
from swiommu.iommu import DEFAULT_HZ
from swiommu.pagetable.formats import FORMATS

__all__ = ["AS_RECORDED", "DEFAULT_DESIGNS", "PRESETS", "Design", "Knobs", "find_design"]

AS_RECORDED = "as-recorded"
_FORMATS = tuple(name for name, form in FORMATS.items() if form.granule == PAGE_SIZE)


def _knob(default: Any, sentence: str, *, choices: tuple[str, ...] = (), unit: str = "", source: str = "") -> Any:
    """A field with its declaration: what it means, what it may be, where the default comes from."""
    metadata = {"sentence": sentence, "choices": choices, "unit": unit, "source": source}
    validators: list[Any] = [attrs.validators.instance_of(type(default))]
    if choices:
        validators.append(attrs.validators.in_(choices))
    elif isinstance(default, int):
        validators.append(attrs.validators.ge(-(1 << 48)))
        validators.append(attrs.validators.lt(1 << 48))
    return attrs.field(default=default, metadata=metadata, validator=validators)


@attrs.frozen
class Design:
    """One way to serve drivers; ``name`` and ``summary`` are for people, the rest are knobs.

    >>> find_design("iommu-strict").has_hardware, find_design("software-iommu").has_hardware
    (True, False)
    """

    name: str = attrs.field(validator=attrs.validators.instance_of(str))
    summary: str = attrs.field(validator=attrs.validators.instance_of(str))
    driver: str = _knob(
        "none",
        "What stands between a device and memory.",
        choices=("none", "linear", "paged"),
        source="compare, rule 11",
    )
    allocator: str = _knob(
        "",
        "What serves an ALLOC contiguously: in memory, or with driver 'paged' in the domain's space; '' is any frame.",
        choices=("", "best_fit", "bitmap"),
        source="compare, rules 11 to 14",
    )
    flush: str = _knob(
        "strict",
        "When an unmap takes effect in the translation caches; only with driver 'paged'.",
        choices=("strict", "lazy"),
        source="linux dma-iommu",
    )
    format: str = _knob(
        "mock",
        "The page table that a domain keeps: its page sizes, its levels, when its tables go; only with driver 'paged'.",
        choices=_FORMATS,
        source="compare, rule 13",
    )
    bounce: str = _knob(
        "none",
        "Which pieces of a MAP go through a bounce buffer; only without translation.",
        choices=("none", "beyond-mask", "all"),
        source="linux swiotlb",
    )
    pool: int = _knob(
        64 << 20,
        "Size of the bounce pool, if the recording does not tell.",
        unit="bytes",
        source="linux swiotlb default",
    )
    delta: int = _knob(
        0, "How far a linear domain's window shifts: bus = phys + delta.", unit="bytes", source="none: identity"
    )
    lends: str = _knob(
        "",
        "To whom an area lends idle pages: movable ones, moved when it needs them, or droppable ones; '' is unsaid.",
        choices=("", "movable", "droppable"),
        source="linux CMA; GCMA as posted in 2015 and 2025",
    )
    lent: int = _knob(
        1_000_000,
        "How many of a million idle pages are lent.",
        unit="pages in a million",
        source="none: memory fills with file pages in time",
    )
    pinned: int = _knob(
        -1,
        "How many of a million lent pages can't move whenever a request comes; -1: as the recording shows.",
        unit="pages in a million",
        source="compare, rule 14",
    )

    def __attrs_post_init__(self) -> None:
        if self.driver != "paged" and self.flush == "lazy":
            raise InputError(f"design {self.name!r}: flush 'lazy' needs driver 'paged', not {self.driver!r}")
        if self.driver != "paged" and self.format != "mock":
            raise InputError(f"design {self.name!r}: format {self.format!r} needs driver 'paged', not {self.driver!r}")
        if self.allocator and self.flush == "lazy":
            raise InputError(f"design {self.name!r}: flush 'lazy' needs allocator '': a chunk goes back at its unmap")
        if self.driver != "none" and self.bounce != "none":
            raise InputError(f"design {self.name!r}: bounce {self.bounce!r} needs driver 'none', not {self.driver!r}")
        if self.driver == "linear" and not self.allocator:
            raise InputError(f"design {self.name!r}: driver 'linear' needs an allocator: it has nothing but its region")
        if self.driver != "linear" and self.delta:
            raise InputError(f"design {self.name!r}: delta needs driver 'linear', not {self.driver!r}")
        self._check_lending()

    def _check_lending(self) -> None:
        if self.lends and (self.driver != "none" or self.allocator != "bitmap"):
            raise InputError(
                f"design {self.name!r}: lends {self.lends!r} needs driver 'none' with allocator 'bitmap', not "
                f"{self.driver!r} with {self.allocator!r}"
            )
        if self.lends == "droppable" and self.pinned > 0:
            raise InputError(f"design {self.name!r}: nobody refers to droppable pages, so none is ever pinned")
        for knob, least, value in (("lent", 0, self.lent), ("pinned", -1, self.pinned)):
            if not least <= value <= 1_000_000:
                raise InputError(f"design {self.name!r}: {knob} is {value}, not in [{least}, 1000000]")

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
