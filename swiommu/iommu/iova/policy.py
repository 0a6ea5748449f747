"""What a domain asks of whoever gives out its bus addresses, and the checks that every policy makes of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from swiommu.address import is_power_of_two
from swiommu.errors import InvalidArgument, NoSpace
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


__all__ = ["AskedByDevices", "CheckedRequests", "IovaPolicy"]


@runtime_checkable
class AskedByDevices(Protocol):
    """A policy for which it makes a difference whose devices ask, as for that of Linux."""

    def asked_by(self, *, pci: bool, forcedac: bool) -> None:
        """``pci``: all of them are PCI devices; ``forcedac``: these may use all of 64 bits from the start."""
        ...


class IovaPolicy(Protocol):
    """Hands out ranges of bus addresses, as plain ints in bytes; sizes are rounded up to the policy's granule.

    ``cpu`` is the CPU that calls, for policies that keep caches per CPU.
    """

    cpu: int

    def alloc(self, size: int, limit_inclusive: int, align: int) -> int:
        """The start of ``size`` free bytes, none above ``limit_inclusive``, a multiple of ``align``; `NoSpace`."""
        ...

    def free(self, iova: int, size: int) -> None:
        """Give back what `alloc` or `take` gave, whole or in part; `NotFound` if any of it is not taken."""
        ...

    def take(self, iova: int, size: int) -> None:
        """Take exactly this range, for a caller who chose it; `AddressInUse` if any of it is not free.

        What lies outside the addresses of the policy is nobody's: it is not looked at, here and in `free`.
        """
        ...

    def reserve(self, low: int, high: int) -> None:
        """Withhold ``low`` to ``high`` (inclusive) for good, widened to granules; `AddressInUse` if some is taken."""
        ...

    def advance(self, now_ns: int) -> None:
        """Let time pass, for policies that do things by the clock."""
        ...

    def dry_run(self) -> AbstractContextManager[object]:
        """What is done inside is undone at the end, in caches and counts too: those that are `Undoable` have it."""
        ...

    def check(self) -> None:
        """`AssertionError` with a dump if the policy contradicts itself."""
        ...


class CheckedRequests(Undoable):
    """What policies do with a request before they look for a place for it."""

    __slots__ = ("_countdown",)

    def __init__(self) -> None:
        self._countdown = 0
        self.undo_log = None

    def fail_nth(self, n: int) -> None:
        """Let the ``n``-th following `alloc` (1: the next) raise `NoSpace` and change nothing, once."""
        self._countdown = n

    def admit(self, size: int, align: int) -> None:
        """Refuse what can never be right with `InvalidArgument`, and the call that is to fail with `NoSpace`."""
        if size < 1 or not is_power_of_two(align):
            raise InvalidArgument(
                f"{size} bus bytes with alignment {align}: at least 1 byte and a power of two are needed",
                size=size,
                align=align,
            )
        if self._countdown:
            self._countdown -= 1
            if not self._countdown:
                raise NoSpace(f"no {size} bus bytes: this call was told to fail", size=size)
