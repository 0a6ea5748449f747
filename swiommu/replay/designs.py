"""Designs: which parts serve a device. A preset is a value; the parts are built by `swiommu.replay.backends`.

Every knob is declared once, as a field with its unit, its range and where its default comes from; the TOML reader, the
docs and the messages are made from that declaration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from swiommu.errors import InputError
from swiommu.input_file import BadValue, ByteCount, key
from swiommu.iommu import DEFAULT_HZ, FlushPolicy
from swiommu.pagetable.formats import FORMATS, MOCK
from swiommu.policy import Policy
from swiommu.region import ALLOCATORS, BestFit, Bitmap, RegisteredAllocator
from swiommu.words import did_you_mean

if TYPE_CHECKING:
    from swiommu.profile import Profile
    from swiommu.registry import Registry

__all__ = [
    "AS_RECORDED",
    "DEFAULT_DESIGNS",
    "PRESETS",
    "Bounce",
    "Design",
    "Driver",
    "FrameOrder",
    "Knobs",
    "Lends",
    "find_design",
]

AS_RECORDED = "as-recorded"
_FARTHEST = 1 << 48
_LARGEST_POOL = 1 << 38  # as large as memory that can be replayed


class Driver(Policy):
    """What is between a device and memory: nothing, a window of a region without translation, or page tables."""

    NONE = "none"
    LINEAR = "linear"
    PAGED = "paged"


class Bounce(Policy):
    """Which pieces of a MAP are copied through a bounce buffer."""

    NONE = "none"
    BEYOND_MASK = "beyond-mask"
    ALL = "all"


class Lends(Policy):
    """To whom an area lends idle pages: nobody, movable ones (moved away on demand), droppable ones (dropped)."""

    NOBODY = ""
    MOVABLE = "movable"
    DROPPABLE = "droppable"


class FrameOrder(Policy):
    """Which frames a page table leads to: the largest blocks that are free, or single ones at random."""

    LARGEST = "largest"
    RANDOM = "random"


class _AnyOrNone(Mapping[str, RegisteredAllocator | None]):
    """The allocators by name, and none by the empty one."""

    def __init__(self, registry: Registry[RegisteredAllocator]) -> None:
        self._registry = registry

    def __getitem__(self, name: str) -> RegisteredAllocator | None:
        return self._registry[name] if name else None

    def __contains__(self, name: object) -> bool:
        return not name or name in self._registry

    def __iter__(self) -> Iterator[str]:
        return iter(("", *sorted(self._registry)))

    def __len__(self) -> int:
        return 1 + len(self._registry)


@attrs.frozen
class Design:
    """One way to serve drivers; ``name`` and ``summary`` are for people, the rest are knobs.

    >>> find_design("iommu-strict").has_hardware, find_design("software-iommu").has_hardware
    (True, False)
    """

    name: str = key("Its name, in tables and sentences.")
    summary: str = key("What it is, in a few words.")
    driver: Driver = key(
        "What is between a device and memory.",
        Driver.NONE,
        choices=Driver,
        source="compare, rule 11",
    )
    allocator: str = key(
        "What serves an ALLOC contiguously: in memory, or with driver 'paged' in the domain's space; '' is any frame.",
        "",
        choices=_AnyOrNone(ALLOCATORS),
        source="compare, rules 11 to 14",
    )
    flush: FlushPolicy = key(
        "When an unmap takes effect in the translation caches; only with driver 'paged'.",
        FlushPolicy.STRICT,
        choices=FlushPolicy,
        source="linux dma-iommu",
    )
    format: str = key(
        "The page table that a domain keeps: its page sizes, its levels, when its tables go; only with driver 'paged'.",
        MOCK.name,
        choices=FORMATS,
        source="compare, rule 13",
    )
    bounce: Bounce = key(
        "Which pieces of a MAP go through a bounce buffer; only without translation.",
        Bounce.NONE,
        choices=Bounce,
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
    lends: Lends = key(
        "To whom an area lends idle pages: movable ones, moved when it needs them, or droppable ones; '' is unsaid.",
        Lends.NOBODY,
        choices=Lends,
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
        if self.driver is not Driver.PAGED:
            for name in ("flush", "format"):
                if (value := getattr(self, name)) not in {FlushPolicy.STRICT, MOCK.name}:
                    raise BadValue(f"is {str(value)!r}, which needs driver 'paged', not {str(self.driver)!r}", key=name)
        if self.allocator and self.flush is FlushPolicy.LAZY:
            raise BadValue("is 'lazy', which needs allocator '': a chunk goes back at its unmap", key="flush")
        if self.driver is not Driver.NONE and self.bounce is not Bounce.NONE:
            raise BadValue(
                f"is {str(self.bounce)!r}, which needs driver 'none', not {str(self.driver)!r}", key="bounce"
            )
        if self.driver is Driver.LINEAR and not self.allocator:
            raise BadValue("is 'linear', which needs an allocator: it has nothing but its region", key="driver")
        if self.driver is not Driver.LINEAR and self.delta:
            raise BadValue(f"is {self.delta}, which needs driver 'linear', not {str(self.driver)!r}", key="delta")
        if self.lends and (self.driver is not Driver.NONE or self.registered is None or not self.registered.lending):
            raise BadValue(
                f"is {str(self.lends)!r}, which needs driver 'none' and an allocator that lends, as {Bitmap.name!r}, "
                f"not {str(self.driver)!r} with {self.allocator!r}",
                key="lends",
            )
        if self.lends is Lends.DROPPABLE and self.pinned > 0:
            raise BadValue(f"is {self.pinned}, but droppable pages are never pinned", key="pinned")

    @property
    def registered(self) -> RegisteredAllocator | None:
        """Its allocator, with what that can do; None for a design without one."""
        return ALLOCATORS[self.allocator] if self.allocator else None

    def allocator_options(self, profile: Profile) -> dict[str, Any]:
        """What its allocator is made with on a kernel of ``profile``, beyond a range."""
        return {"profile": profile} if self.registered is not None and self.registered.by_release else {}

    @property
    def has_hardware(self) -> bool:
        """Whether the design needs translation hardware."""
        return self.driver is Driver.PAGED

    @property
    def has_area(self) -> bool:
        """Whether the design withholds one contiguous region of memory."""
        return bool(self.allocator) and not self.has_hardware


@attrs.frozen
class Knobs:
    """What a run varies on top of every design.

    ``align_order``: the largest alignment, as an order of pages (CONFIG_CMA_ALIGNMENT; 8 = 1 MiB).
    ``frames``: ``largest`` (as Linux takes them) or ``random`` (single frames in seeded order: the worst case).
    ``seed``: for what is drawn at random, frames and who uses lent pages.
    ``hz``: ticks a second of the kernel (CONFIG_HZ), in which the timers of lazy designs run.
    """

    align_order: int = 8
    frames: FrameOrder = attrs.field(default=FrameOrder.LARGEST, converter=FrameOrder)
    seed: int = 0
    hz: int = DEFAULT_HZ


PRESETS: Final[dict[str, Design]] = {
    design.name: design
    for design in (
        Design("passthrough", "plain pages, power-of-two blocks up to 4 MiB, no translation"),
        Design("swiotlb", "plain pages, every MAP copied through a bounce pool", bounce=Bounce.ALL),
        Design("swiotlb-natural", "plain pages, a bounce only where a device can't reach", bounce=Bounce.BEYOND_MASK),
        Design("carveout-best-fit", "a static carve-out, best fit (RFC v4, 2010)", Driver.NONE, BestFit.name),
        Design("cma-bitmap", "mainline CMA: bitmap, first fit by address", Driver.NONE, Bitmap.name),
        Design("software-iommu", "the IOMMU API over a contiguous region, no hardware", Driver.LINEAR, Bitmap.name),
        Design("iommu-strict", "every device translated, invalidated at each unmap", Driver.PAGED),
        Design("iommu-lazy", "every device translated, invalidated in batches", Driver.PAGED, flush=FlushPolicy.LAZY),
        Design(
            "shim-over-iommu",
            "contiguous for the device, scattered below (CMA over an IOMMU)",
            Driver.PAGED,
            BestFit.name,
        ),
        Design(
            "cma-lending",
            "mainline CMA, idle pages lent: moved away on demand",
            Driver.NONE,
            Bitmap.name,
            lends=Lends.MOVABLE,
        ),
        Design(
            "gcma",
            "CMA with a guarantee: idle pages hold clean copies, dropped",
            Driver.NONE,
            Bitmap.name,
            lends=Lends.DROPPABLE,
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
    if name not in PRESETS:
        raise InputError(f"no design is named {name!r}; {did_you_mean(name, [AS_RECORDED, *PRESETS])}")
    return PRESETS[name]
