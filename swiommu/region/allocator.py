"""What a region asks of the allocator below it, and the register of allocators by name.

An allocator deals in plain integers: absolute addresses of its region's space, sizes in bytes. The region above
turns them into addresses, rounds what callers ask for, keeps the chunks, and distrusts what it gets back
(see `swiommu.region.region`); an allocator therefore only has to know its holes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import attrs

from swiommu.address import as_integer, as_integers, is_power_of_two
from swiommu.errors import InvalidArgument, NoMemory
from swiommu.registry import Registry

__all__ = [
    "ALLOCATORS",
    "Allocator",
    "AllocatorFactory",
    "FailSwitch",
    "Migrating",
    "RegisteredAllocator",
    "allocator_names",
    "check_range",
    "check_request",
    "make_allocator",
    "register_allocator",
]


@runtime_checkable
class Allocator(Protocol):
    """Serves ``[start, start + size)``: absolute addresses, sizes and alignments in bytes, as plain integers.

    What each operation promises (RFC v4 section 7 "allocator", with sizes instead of chunk objects):

    - ``alloc`` gets a non-zero multiple of the page and a power-of-two alignment of at least a page, and answers
      the start of a range that is now taken, or raises `NoMemory`;
    - ``free`` is the inverse: every byte must be taken, else `NotFound` and nothing changed;
    - ``reserve`` takes exactly one range, `AddressInUse` if any byte of it is taken already;
    - ``fits`` says whether ``alloc`` would succeed now and changes nothing, not even the order of the holes;
    - ``holes`` is every free range as (start, size), by address and merged;
    - ``check`` raises AssertionError with a dump if the structure contradicts itself;
    - ``fail_nth(n)`` makes the n-th following ``alloc`` (1 = the next) raise `NoMemory`, once.

    One that derives from `swiommu.undo.Undoable` is tried in place; another one is copied for it, at the cost of all
    that it holds (`swiommu.undo.part_to_undo`).
    """

    name: str
    start: int
    size: int
    page_size: int

    @property
    def free_space(self) -> int:
        """Bytes that are not taken."""

    def alloc(self, size: int, align: int) -> int:
        """Take ``size`` bytes at a multiple of ``align`` and return where; `NoMemory` if there is no such place."""

    def free(self, start: int, size: int) -> None:
        """Give a taken range back; `NotFound` if any byte of it is not taken."""

    def reserve(self, start: int, size: int) -> None:
        """Take exactly this range; `AddressInUse` if any byte of it is taken."""

    def fits(self, size: int, align: int) -> bool:
        """Whether ``alloc(size, align)`` would succeed now."""

    def holes(self) -> list[tuple[int, int]]:
        """Every free range as (start, size), by address, merged."""

    def check(self) -> None:
        """Raise AssertionError with a dump if an invariant does not hold."""

    def fail_nth(self, n: int) -> None:
        """Make the ``n``-th following ``alloc`` fail, once."""


AllocatorFactory: TypeAlias = Callable[..., Allocator]
"""Called as ``factory(start, size, page_size=..., **options)``; usually the allocator's class itself."""


class FailSwitch:
    """Counts calls and fails the chosen one, so that tests can walk every error path.

    >>> switch = FailSwitch()
    >>> switch.arm(2)
    >>> switch.strike(), switch.strike(), switch.strike()
    (False, True, False)
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0  # calls up to the one that fails, that one included; 0: none will

    def arm(self, n: int) -> None:
        """Let the ``n``-th call from now strike (1 = the next); `InvalidArgument` for n below 1."""
        n = as_integer(n, "n")
        if n < 1:
            raise InvalidArgument(f"call number {n} can't be made to fail: the next call is number 1", count=n)
        self.left = n

    def strike(self) -> bool:
        """Count one call; True if it is the one to fail."""
        if not self.left:
            return False
        self.left -= 1
        return not self.left

    def refuse(self, size: int) -> None:
        """Count one call for ``size`` bytes and raise `NoMemory` if it is the one to fail."""
        if self.left and self.strike():
            raise NoMemory(f"this allocation of {size} bytes was told to fail", size=size)


def check_request(size: int, align: int, page_size: int) -> tuple[int, int]:
    """Size and alignment as plain ints; `InvalidArgument` unless they are whole pages and a power of two.

    >>> check_request(4096, 8192, 4096)
    (4096, 8192)
    >>> check_request(100, 8192, 4096)
    Traceback (most recent call last):
    ...
    swiommu.errors.InvalidArgument: 100 bytes are not a whole number of pages of 4096 bytes
    """
    if type(size) is not int or type(align) is not int:
        size, align = as_integers(size=size, align=align)
    if size < 1 or size % page_size:
        raise InvalidArgument(f"{size} bytes are not a whole number of pages of {page_size} bytes", size=size)
    if align.bit_length() > 65:
        words = f"an alignment beyond 64 bits, of {align.bit_length()} bits"
        raise InvalidArgument(words, align=align)
    if align < page_size or align & (align - 1):
        raise InvalidArgument(
            f"an alignment of {align} bytes is not a power of two of at least a page of {page_size} bytes",
            align=align,
        )
    return size, align


def check_range(start: int, size: int, page_size: int) -> tuple[int, int, int]:
    """The arguments as plain ints; `InvalidArgument` unless an allocator can be made of them.

    >>> check_range(0, 4096, 4096)
    (0, 4096, 4096)
    """
    start, size, page_size = as_integers(start=start, size=size, page_size=page_size)
    if not is_power_of_two(page_size):
        raise InvalidArgument(f"a page of {page_size} bytes is not a power of two")
    if start < 0 or size < 1:
        raise InvalidArgument(f"{size} bytes at {start:#x} can't be allocated from", start=start, size=size)
    return start, size, page_size


@attrs.frozen
class RegisteredAllocator:
    """How an allocator is made, and what it can do beyond the protocol.

    ``by_release``: its factory takes ``profile=``, as kernels differ in what it does. ``lending``: makes the same
    allocator of an area that lends what is idle, a `swiommu.region.Lending`; called as
    ``lending(start, size, standing=..., profile=...)``.
    """

    factory: AllocatorFactory
    by_release: bool = False
    lending: AllocatorFactory | None = None


@runtime_checkable
class Migrating(Protocol):
    """An allocator that takes pages which somebody uses, and so can meet some that can't be moved."""

    def set_busy(self, pfn: int, count: int, state: int) -> None:
        """Mark ``count`` pages from ``pfn`` on: 0 may be taken, 1 can't be moved (EBUSY), 2 no room (ENOMEM)."""


def _registered(name: str, part: Any) -> RegisteredAllocator:
    if isinstance(part, RegisteredAllocator):
        return part
    if callable(part):
        return RegisteredAllocator(part)
    raise InvalidArgument(f"{part!r} makes no allocator: it can't be called", name=name)


ALLOCATORS: Final = Registry[RegisteredAllocator]("allocator", group="swiommu.allocators", accept=_registered)
"""Every allocator by name; other packages offer theirs as entry points of the group ``swiommu.allocators``.

What is offered is a factory (`AllocatorFactory`), or a `RegisteredAllocator`.
"""


def register_allocator(
    name: str, factory: AllocatorFactory, *, by_release: bool = False, lending: AllocatorFactory | None = None
) -> None:
    """Make an allocator known by ``name``; `InvalidArgument` if the name is empty or taken.

    From then on regions, designs and `cma_compat` know it. ``by_release`` and ``lending`` say what else it can do, see
    `RegisteredAllocator`.

    >>> from swiommu.region import BestFit
    >>> register_allocator("best_fit", BestFit)
    Traceback (most recent call last):
    ...
    swiommu.errors.InvalidArgument: an allocator named 'best_fit' is registered already
    """
    ALLOCATORS.register(name, RegisteredAllocator(factory, by_release, lending))


def allocator_names() -> list[str]:
    """The names of `ALLOCATORS`, sorted.

    >>> {"best_fit", "bitmap"} <= set(allocator_names())
    True
    """
    return sorted(ALLOCATORS)


def make_allocator(name: str, start: int, size: int, *, page_size: int = 4096, **options: Any) -> Allocator:
    """Make the allocator registered as ``name`` for ``size`` bytes from the absolute address ``start``.

    ``options`` go to the allocator (such as ``order_per_bit`` and ``profile`` of ``bitmap``). Raises
    `InvalidArgument` for a name nobody registered.

    >>> make_allocator("best_fit", 0x4000_0000, 1 << 20).holes()
    [(1073741824, 1048576)]
    >>> make_allocator("bitmaps", 0, 4096)
    Traceback (most recent call last):
    ...
    swiommu.errors.InvalidArgument: no allocator is named 'bitmaps'; did you mean 'bitmap'?
    """
    return ALLOCATORS.named(name).factory(start, size, page_size=page_size, **options)
