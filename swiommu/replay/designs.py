"""Designs: which parts serve a device. A preset is a value; the parts are built by `swiommu.replay.backends`."""

from __future__ import annotations

import difflib

import attrs

from swiommu.errors import InputError

__all__ = ["AS_RECORDED", "DEFAULT_DESIGNS", "PRESETS", "Design", "Knobs", "find_design"]

AS_RECORDED = "as-recorded"


@attrs.frozen
class Design:
    """One way to serve drivers.

    ``driver`` is ``none`` (no domain: bus = phys), ``linear`` or ``paged``; ``allocator`` names the region's allocator
    and is empty where any frame will do. ``delta`` is how far a linear domain's window shifts (bus = phys + delta,
    bytes). ``summary`` is the one line for people.

    >>> find_design("iommu-strict").has_hardware, find_design("software-iommu").has_hardware
    (True, False)
    """

    name: str
    summary: str
    driver: str
    allocator: str = ""
    delta: int = 0

    @property
    def has_hardware(self) -> bool:
        """Whether the design needs translation hardware."""
        return self.driver == "paged"

    @property
    def has_area(self) -> bool:
        """Whether the design serves ALLOCs from one contiguous region."""
        return bool(self.allocator)


@attrs.frozen
class Knobs:
    """What a run varies on top of a design.

    ``align_order``: the largest alignment, as an order of pages (CONFIG_CMA_ALIGNMENT; 8 = 1 MiB).
    ``frames``: ``largest`` (as Linux takes them) or ``random`` (single frames in seeded order: the worst case).
    """

    align_order: int = 8
    frames: str = "largest"
    seed: int = 0


PRESETS: dict[str, Design] = {
    design.name: design
    for design in (
        Design("carveout-best-fit", "a static carve-out, best fit (RFC v4, 2010)", "none", "best_fit"),
        Design("cma-bitmap", "mainline CMA: bitmap, first fit by address", "none", "bitmap"),
        Design("software-iommu", "the IOMMU API over a contiguous region, no hardware", "linear", "bitmap"),
        Design("iommu-strict", "every device translated, invalidated at each unmap", "paged"),
    )
}

DEFAULT_DESIGNS = tuple(PRESETS)


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
