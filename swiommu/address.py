"""Addresses that know their space. This module imports nothing of swiommu but the errors.

A `Space` is a range of numbers that somebody can put on a bus: `PhysSpace` belongs to a memory, `BusSpace`
to whatever a device (or an upper IOMMU) sees. Spaces compare by identity: two spaces of the same width and
name are still two spaces, and re-attaching a device makes its old addresses unusable instead of wrong.

Addresses are not integers. ``+ int`` is checked for wrap, ``-`` and comparisons work inside one space only,
``.value`` is the one way out. Ranges are half-open: ``[start, stop)``; the inclusive end is called ``last``.

Numbers of other types, numpy's among them, become Python's where they enter (`as_integer`): those of fixed width wrap
without a word.

>>> ram, bus = PhysSpace("ram", width=40), BusSpace("camera", width=32)
>>> buffer = ram.at(0x8000_0000)
>>> buffer + 0x1000
PhysAddr(ram:0x80001000)
>>> (buffer + 0x1000) - buffer
4096
>>> buffer == bus.at(0x8000_0000)
Traceback (most recent call last):
...
swiommu.errors.SpaceMismatch: PhysAddr(ram:0x80000000) and BusAddr(camera:0x80000000) are of different spaces
"""

from __future__ import annotations

import enum
from operator import index
from typing import Generic, Self, TypeVar, final

from swiommu.errors import AddressOverflow, InvalidArgument, NotAnInteger, SpaceMismatch

__all__ = [
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "Access",
    "Address",
    "AddressRange",
    "BusAddr",
    "BusRange",
    "BusSpace",
    "PhysAddr",
    "PhysRange",
    "PhysSpace",
    "Prot",
    "Space",
    "align_down",
    "align_up",
    "as_integer",
    "as_integers",
    "as_number",
    "is_power_of_two",
    "order_of",
]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT


class Prot(enum.IntFlag):
    """What a mapping allows, by the kernel's bits (``IOMMU_READ`` ...); READ means *the device reads memory*.

    >>> Prot.READ | Prot.WRITE
    <Prot.READ|WRITE: 3>
    """

    NONE = 0
    READ = 1
    WRITE = 2
    CACHE = 4
    NOEXEC = 8
    MMIO = 16
    PRIV = 32


class Access(enum.IntFlag):
    """What a device asks for in one access; READ and WRITE line up with `Prot`, EXEC is refused by `Prot.NOEXEC`.

    >>> int(Access.WRITE) == int(Prot.WRITE)
    True
    """

    READ = 1
    WRITE = 2
    EXEC = 4


def as_integer(value: object, name: str) -> int:
    """``value`` as a Python integer, by its ``__index__``; `NotAnInteger` for what has none, and for a truth value.

    Source: `operator.index`.

    >>> as_integer(4096, "size")
    4096
    >>> as_integer(4096.0, "size")
    Traceback (most recent call last):
    ...
    swiommu.errors.NotAnInteger: size must be an integer, not 4096.0
    """
    if not isinstance(value, bool):
        try:
            return index(value)  # type: ignore[arg-type] # what has no __index__ is refused
        except TypeError:
            pass
    raise NotAnInteger(f"{name} must be an integer, not {repr(value)[:60]}", name=name)


def as_integers(**values: object) -> tuple[int, ...]:
    """Each of the named values by `as_integer`, in order.

    >>> as_integers(start=4096, size="4K")
    Traceback (most recent call last):
    ...
    swiommu.errors.NotAnInteger: size must be an integer, not '4K'
    """
    return tuple([as_integer(value, name) for name, value in values.items()])


def as_number(address: Address | int, space: Space, name: str) -> int:
    """The number of an address of ``space``, or a plain number; `SpaceMismatch` for an address of another space.

    >>> bus = BusSpace("nic")
    >>> as_number(bus.at(4096), bus, "iova"), as_number(4096, bus, "iova")
    (4096, 4096)
    """
    if not isinstance(address, Address):
        return as_integer(address, name)
    if address.space is not space:
        raise SpaceMismatch(f"{name} {address!r} is no address of the space {space.name!r}")
    return address.value


def is_power_of_two(value: int) -> bool:
    """Whether ``value`` has exactly one bit set; 0 has none.

    >>> [n for n in range(9) if is_power_of_two(n)]
    [1, 2, 4, 8]
    """
    if type(value) is not int:
        value = as_integer(value, "value")
    return value > 0 and value & (value - 1) == 0


def align_up(value: int, alignment: int) -> int:
    """``value`` rounded up to a multiple of the power of two ``alignment`` (the kernel's ``ALIGN``).

    >>> hex(align_up(0x1001, 0x1000))
    '0x2000'
    """
    if type(value) is not int or type(alignment) is not int:
        value, alignment = as_integers(value=value, alignment=alignment)
    return (value + alignment - 1) & -alignment


def align_down(value: int, alignment: int) -> int:
    """``value`` rounded down to a multiple of the power of two ``alignment``.

    >>> hex(align_down(0x1fff, 0x1000))
    '0x1000'
    """
    if type(value) is not int or type(alignment) is not int:
        value, alignment = as_integers(value=value, alignment=alignment)
    return value & -alignment


def order_of(size: int, page_size: int = PAGE_SIZE) -> int:
    """Smallest k with ``2**k`` pages >= ``size`` bytes (the kernel's ``get_order``).

    >>> [order_of(n * 4096) for n in (1, 2, 3, 4, 5)]
    [0, 1, 2, 2, 3]
    """
    if type(size) is not int or type(page_size) is not int:
        size, page_size = as_integers(size=size, page_size=page_size)
    pages = -(-size // page_size)
    return (pages - 1).bit_length() if pages else 0


class Space:
    """A range of addresses ``[0, 2**width)`` with an identity of its own; use `PhysSpace` or `BusSpace`.

    ``width`` is in bits, 1 to 64. Raises `InvalidArgument` for any other width.

    >>> PhysSpace("a") == PhysSpace("a")
    False
    """

    __slots__ = ("limit", "name", "width")

    def __init__(self, name: str, *, width: int = 64) -> None:
        width = as_integer(width, "width")
        if not 1 <= width <= 64:
            raise InvalidArgument(f"a space is 1 to 64 bits wide, not {width}")
        self.name = name
        self.width = width
        self.limit = 1 << width

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, width={self.width})"


class Address:
    """A number in a space; make one with ``space.at(value)``. See the module's docstring for the rules."""

    __slots__ = ("space", "value")

    space: Space
    value: int

    def __init__(self, space: Space, value: int) -> None:
        if type(value) is not int:
            value = as_integer(value, "value")
        if not 0 <= value < space.limit:
            raise AddressOverflow(f"{value:#x} is outside the {space.width}-bit space {space.name!r}")
        self.space = space
        self.value = value

    def _same(self, other: Address) -> None:
        if self.space is not other.space:
            raise SpaceMismatch(f"{self!r} and {other!r} are of different spaces")

    def __add__(self, offset: int) -> Self:
        if isinstance(offset, Address):
            raise SpaceMismatch(f"adding {self!r} and {offset!r}: only bytes can be added to an address")
        if type(offset) is not int:
            offset = as_integer(offset, "offset")
        return type(self)(self.space, self.value + offset)

    def __sub__(self, other: Self) -> int:
        if not isinstance(other, Address):
            raise SpaceMismatch(f"subtracting {other!r} from {self!r}: use + with a negative number of bytes")
        self._same(other)
        return self.value - other.value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        self._same(other)
        return self.value == other.value

    def __lt__(self, other: Self) -> bool:
        self._same(other)
        return self.value < other.value

    def __le__(self, other: Self) -> bool:
        self._same(other)
        return self.value <= other.value

    def __gt__(self, other: Self) -> bool:
        return other < self

    def __ge__(self, other: Self) -> bool:
        return other <= self

    def __hash__(self) -> int:
        # The space's identity takes part, so that equal hashes across spaces do not meet in a dict.
        return hash((id(self.space), self.value))

    def is_aligned(self, alignment: int) -> bool:
        """Whether the address is a multiple of ``alignment`` bytes (a power of two)."""
        if type(alignment) is not int:
            alignment = as_integer(alignment, "alignment")
        return self.value & (alignment - 1) == 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space.name}:{self.value:#x})"


@final
class PhysAddr(Address):
    """An address of a memory: what is left when every translation is done.

    >>> PhysSpace("ram").at(0x1000).value
    4096
    """

    __slots__ = ()
    space: PhysSpace


@final
class BusAddr(Address):
    """An address that a device, or an upper IOMMU, puts on its bus (``dma_addr_t``, an IOVA, an IPA).

    >>> BusSpace("nvme").at(0xfffff000).is_aligned(4096)
    True
    """

    __slots__ = ()
    space: BusSpace


@final
class PhysSpace(Space):
    """The space of a memory.

    >>> PhysSpace("ram", width=40).at(1 << 40)
    Traceback (most recent call last):
    ...
    swiommu.errors.AddressOverflow: 0x10000000000 is outside the 40-bit space 'ram'
    """

    __slots__ = ()

    def at(self, value: int) -> PhysAddr:
        """The address ``value`` of this space; `AddressOverflow` if it does not fit."""
        return PhysAddr(self, value)


@final
class BusSpace(Space):
    """The space that a device, a domain or an intermediate stage sees.

    >>> BusSpace("camera", width=32).at(0x1000)
    BusAddr(camera:0x1000)
    """

    __slots__ = ()

    def at(self, value: int) -> BusAddr:
        """The address ``value`` of this space; `AddressOverflow` if it does not fit."""
        return BusAddr(self, value)


A = TypeVar("A", PhysAddr, BusAddr)


class AddressRange(Generic[A]):
    """``size`` bytes from ``start``, half-open and never empty; ``stop`` is an int as it may be one past the space.

    Raises `InvalidArgument` for a size below 1, `AddressOverflow` when the range leaves the space.

    >>> r = PhysRange(PhysSpace("ram").at(0x1000), 0x2000)
    >>> hex(r.stop), r.last
    ('0x3000', PhysAddr(ram:0x2fff))
    """

    __slots__ = ("size", "start")

    def __init__(self, start: A, size: int) -> None:
        if type(size) is not int:
            size = as_integer(size, "size")
        if size < 1:
            raise InvalidArgument(f"a range of {size} bytes at {start!r}: at least 1 is needed", size=size)
        if start.value + size > start.space.limit:
            raise AddressOverflow(
                f"{size:#x} bytes at {start!r} leave the {start.space.width}-bit space", start=start.value, size=size
            )
        self.start: A = start
        self.size = size

    @property
    def stop(self) -> int:
        """One past the last byte, as a plain number."""
        return self.start.value + self.size

    @property
    def last(self) -> A:
        """The last byte's address (inclusive end)."""
        return self.start + (self.size - 1)

    def __contains__(self, address: A) -> bool:
        return self.start <= address and address.value < self.stop

    def overlaps(self, other: AddressRange[A]) -> bool:
        """Whether the two ranges share a byte; ranges of different spaces raise `SpaceMismatch`."""
        if self.start.space is not other.start.space:
            raise SpaceMismatch(f"{self!r} and {other!r} are of different spaces")
        return self.start.value < other.stop and other.start.value < self.stop

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AddressRange):
            return NotImplemented
        return self.size == other.size and bool(self.start == other.start)

    def __hash__(self) -> int:
        return hash((self.start, self.size))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.start.space.name}:{self.start.value:#x}+{self.size:#x})"


class PhysRange(AddressRange[PhysAddr]):
    """A run of memory; the output side of a translation."""

    __slots__ = ()


class BusRange(AddressRange[BusAddr]):
    """A run of bus addresses; the input side of a translation."""

    __slots__ = ()
