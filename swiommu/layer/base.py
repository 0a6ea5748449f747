"""What a layer is: a partial function from input addresses to output addresses, which says why it stopped.

A layer alone answers one question (`Layer.look`): which run of addresses around this one has a single delta, and
what is allowed there. It knows neither what is below it nor who asks; `swiommu.layer.node` puts layers on each other,
checks permissions, counts and blames.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import attrs

from swiommu.address import Access, Prot
from swiommu.errors import DeviceFault, InvalidArgument
from swiommu.layer.attributes import NEUTRAL, Attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from swiommu.address import Space
    from swiommu.memory import SparseRam

__all__ = [
    "Extent",
    "Fault",
    "FaultClass",
    "FaultKind",
    "Layer",
    "MemoryEnd",
    "Read",
    "Run",
    "largest_block",
    "require_range",
]


class MemoryEnd(Protocol):
    """The memory that a way ends in, as those see it who arrive there."""

    name: str
    ram: SparseRam
    base: int
    size: int
    space: Space | None

    def word(self, at: int, width: int) -> int:
        """``width`` bytes at ``at`` as a number in this machine's byte order."""
        ...


class FaultKind(enum.StrEnum):
    """Why an access found no memory, in the order in which a layer looks."""

    RANGE = "range"
    TRANSLATION = "translation"
    PERMISSION = "permission"
    ADDRESS_SIZE = "address-size"


class FaultClass(enum.StrEnum):
    """What was on its way when a layer refused: the access itself, or the read of an upper layer's table."""

    DATA = "data"
    WALK = "walk"


@attrs.frozen
class Fault:
    """The record of one failing access: ``address`` at the layer that refused, ``iova`` at the top.

    Both are those of the first byte that failed, not of the burst's start; ``access`` is what the device wanted, also
    where a table read failed on its behalf: then ``fault_class`` is walk, ``walk_of`` the layer whose table was being
    read, and ``implicit_write`` says that this read had to be a write too (hardware access and dirty bits).
    ``address`` is None in a sanitised record.

    >>> print(Fault("iommu", FaultKind.TRANSLATION, Access.WRITE, 0x1000, 0x1000))
    translation fault of WRITE access at 0x1000 in layer 'iommu'
    >>> print(Fault("s2", FaultKind.TRANSLATION, Access.READ, 0x8000, 0x1000, FaultClass.WALK, "s1"))
    translation fault at 0x8000 in layer 's2', reading a table of 's1' for READ access at 0x1000
    """

    layer: str
    kind: FaultKind
    access: Access
    address: int | None
    iova: int
    fault_class: FaultClass = FaultClass.DATA
    walk_of: str | None = None
    implicit_write: bool = False

    def __str__(self) -> str:
        wanted = "|".join(flag.name or "" for flag in Access if flag & self.access) or "no"
        place = f"in layer {self.layer!r}" if self.address is None else f"at {self.address:#x} in layer {self.layer!r}"
        if self.fault_class is FaultClass.WALK:
            return (
                f"{self.kind} fault {place}, reading a table of {self.walk_of!r} for {wanted} access at {self.iova:#x}"
            )
        return f"{self.kind} fault of {wanted} access {place}"

    def sanitised(self) -> Fault:
        """The record that owners of the layers above may see: no address of a lower space."""
        return attrs.evolve(self, address=None)

    def error(self, runs: Sequence[Run]) -> DeviceFault:
        """The exception for this record; ``runs`` is what the burst reached before it."""
        return DeviceFault(str(self), fault=self, runs=list(runs))


class Run(NamedTuple):
    """``size`` bytes from ``input`` lead to ``output`` in ``memory``, in blocks of ``page_size`` that allow ``prot``.

    ``page_size`` is that of the first byte: blocks of a window are smaller near its borders. ``memory`` is the name of
    the memory at the end, empty where none is modelled, and ``store`` that memory, see `load` and `save`.
    """

    input: int
    output: int
    size: int
    page_size: int
    prot: Prot
    attributes: Attributes = NEUTRAL
    memory: str = ""
    store: MemoryEnd | None = None


class Extent(NamedTuple):
    """What a layer says of an address: the run around it with one delta, its block, what it allows, where it leaves.

    ``block`` is the largest power of two around the address that stays aligned and inside; ``port`` is the way out
    of a router, 0 for everybody else.
    """

    input: int
    output: int
    size: int
    block: int
    prot: Prot
    attributes: Attributes = NEUTRAL
    port: int = 0


class Read(Protocol):
    """How a layer reads an entry of its own table: ``width`` bytes at an address of the walker's side."""

    def __call__(self, address: int, width: int = 8, /) -> int:
        """The entry as a number; the access ends here if the table is not reached."""
        ...


class Layer(ABC):
    """Anything that translates; subclass it for a layer of your own, and hold it to `swiommu.testing.laws`.

    ``kind`` is the word for it in a picture of a stack, ``granule`` the smallest page in bytes (1: any byte), the
    widths are in bits; outputs beyond ``output_width`` are address-size faults. ``space`` is the space that it is
    entered by, if that is older than the layer; ``hardware_ad``: its walker writes accessed and dirty bits into the
    table; ``keeps_marks``: `touched` has something to do. ``ports`` names the ways out, ``fixed``: what it answers
    never changes (no table), so that limits below it are known above it too; ``transparent``: it changes no address, so
    that it promises nothing of its own about what is below it. ``watch``, if set, is told of each change of its table:
    what, start, size.

    >>> class Swap(Layer):
    ...     "Two halves of a space change places."
    ...     kind, granule, input_width, output_width = "swap", 0x1000, 16, 16
    ...     def look(self, at, read):
    ...         return FaultKind.RANGE if at >> 16 else Extent(at & 0x8000, ~at & 0x8000, 0x8000, 0x8000, Prot(3))
    ...     def extents(self):
    ...         yield self.look(0, None)
    ...         yield self.look(0x8000, None)
    >>> from swiommu.layer import access
    >>> [f"{run.output:#x}+{run.size:#x}" for run in access(Swap("swap"), 0x7000, 0x2000, Access.READ).runs]
    ['0xf000+0x1000', '0x0+0x1000']
    """

    kind: ClassVar[str] = "layer"
    hardware_ad: bool = False
    keeps_marks: bool = False
    ports: tuple[str, ...] = ("out",)
    fixed: bool = False
    transparent: bool = False
    watch: Callable[[str, int, int], None] | None = None
    space: Space | None = None
    granule: int
    input_width: int
    output_width: int

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def look(self, at: int, read: Read) -> Extent | FaultKind:
        """The extent around ``at``, or why there is none: RANGE outside the layer, TRANSLATION where nothing is mapped.

        Entries of a table are read with ``read``, in order, at the addresses that a walker would use.
        """

    @abstractmethod
    def extents(self) -> Iterator[Extent]:
        """Everything mapped now, ascending, by what software knows: nothing is walked. Blocks are the first byte's."""

    def accepts(self) -> Iterator[tuple[int, int]]:
        """The inputs that are not RANGE faults, as (start, stop), ascending and apart: all of the width."""
        yield 0, 1 << self.input_width

    def as_memory(self) -> MemoryEnd | None:
        """The memory that this layer is, if the way ends here."""
        return None

    def stored(self, address: int, width: int) -> int:
        """An entry of the layer's own table, for a walk that no modelled memory serves."""
        raise NotImplementedError(f"layer {self.name!r} has no table, so nothing at {address:#x} ({width} bytes)")

    def levels(self) -> tuple[int, ...]:
        """For each table of a walk, that of the root first, how many bits of the input its entries leave undecided.

        Reads come in this order. A layer that does not say has none of the entries of its walks kept.
        """
        return ()

    def touched(self, at: int, *, write: bool) -> None:
        """An access went through ``at`` and reached memory; layers that keep accessed and dirty marks set them."""
        raise NotImplementedError(f"layer {self.name!r} keeps no marks of {at:#x} (write: {write})")

    def blame(self, fault: Fault) -> Fault:
        """The record of what this layer refused; one that stands for others may name the one that is to blame."""
        return fault

    def describe(self) -> str:
        """One line for a picture of a stack: what is particular about this layer."""
        return f"{self.input_width}-bit input"


def largest_block(start: int, size: int, delta: int, at: int) -> int:
    """The largest power of two whose aligned block around ``at`` lies in the run and keeps its alignment.

    >>> hex(largest_block(0x1000, 0x7000, 0, 0x4000)), hex(largest_block(0x0, 0x8000, 0x1000, 0x4000))
    ('0x4000', '0x1000')
    """
    block = delta & -delta if delta else 1 << size.bit_length()
    stop = start + size
    while (at & -block) < start or (at & -block) + block > stop:
        block >>= 1
    return block


def require_range(start: int, size: int) -> None:
    """Refuse what is no range at all; a range beyond the layer is a fault, not an error of the caller."""
    if size < 1 or start < 0:
        raise InvalidArgument(f"{size} bytes at {start:#x} can't be accessed: at least 1 at 0 or above", size=size)
