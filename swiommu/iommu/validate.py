"""What every domain refuses before anything has changed: foreign addresses, impossible sizes, torn granules.

Plain ints come out: behind these checks a domain and its parts count in bytes.
"""

from __future__ import annotations

from itertools import pairwise
from operator import index
from typing import TYPE_CHECKING, Any

from swiommu.address import AddressRange, Prot, align_up, as_integer, as_integers, is_power_of_two
from swiommu.errors import AddressOverflow, Busy, InvalidArgument, SpaceMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import BusAddr, BusRange, BusSpace, Space
    from swiommu.locking import Running
    from swiommu.pagetable import Rules

__all__ = [
    "READ_WRITE",
    "Calls",
    "allocation",
    "bus_value",
    "highest",
    "merged_runs",
    "output_value",
    "require_granules",
    "require_input",
    "require_mappable",
    "require_prot",
    "whole_range",
]

READ_WRITE = Prot.READ | Prot.WRITE
_READ_WRITE_BITS = int(READ_WRITE)
_ALL_BITS = 0x3F


class Calls:
    """Whether a domain may be called to change something now.

    Not once it is ``destroyed``, and not from inside another of its calls: ``running`` is the foreign code that runs in
    one of this domain's, ``notifying`` in one of any domain of the stack.
    """

    __slots__ = ("destroyed", "name", "notifying", "running")

    def __init__(self, name: str, running: Running, notifying: Running) -> None:
        self.name = name
        self.running = running
        self.notifying = notifying
        self.destroyed = False

    def require_live(self) -> None:
        """`Busy` inside of another call, `InvalidArgument` once the domain is destroyed."""
        if self.destroyed or self.running.what or self.notifying.what:
            self.require_outside()
            raise InvalidArgument(f"the domain of {self.name!r} was destroyed")

    def require_outside(self) -> None:
        """`Busy` inside of another call."""
        running = self.running.what or self.notifying.what
        if running is not None:
            raise Busy(f"{running} may not change the domain of {self.name!r}: it runs inside a call of it")


def require_input(space: BusSpace, iova: BusAddr) -> None:
    """`SpaceMismatch` for anything but an address of the domain's bus space."""
    if getattr(iova, "space", None) is not space:
        raise SpaceMismatch(f"{iova!r} is no address of the domain's bus space {space.name!r}")


def bus_value(space: BusSpace, iova: BusAddr, size: int) -> int:
    """The number of a bus address with ``size`` bytes after it, which callers have made an int."""
    if size > 0 and getattr(iova, "space", None) is space and iova.value + size <= space.limit:
        return iova.value  # nearly always: what follows finds the words for the other cases
    require_input(space, iova)
    if size < 1:
        raise InvalidArgument(f"a range of {size} bytes at {iova!r}: at least 1 is needed", size=size)
    raise AddressOverflow(f"{size:#x} bytes at {iova!r} leave the {space.width}-bit space", iova=iova.value, size=size)


def output_value(space: Space, paddr: Any) -> int:
    """The number of an address of the output space."""
    if getattr(paddr, "space", None) is not space:
        raise SpaceMismatch(f"{paddr!r} is no address of the domain's output space {space.name!r}")
    value: int = paddr.value
    return value


def require_prot(prot: Prot | int, rules: Rules) -> None:
    """READ or WRITE is needed, and no bit that does not exist."""
    bits = index(prot) if isinstance(prot, Prot) else as_integer(prot, "prot")
    if not bits & _READ_WRITE_BITS or bits & ~_ALL_BITS:
        raise (rules.no_access or InvalidArgument)(
            f"protection {bits:#x}: READ or WRITE is needed, no bit above PRIV exists"
        )


def require_mappable(prot: Prot | int, rules: Rules) -> None:
    """As `require_prot`, for a map at an address of the caller's: some drivers don't ask for READ or WRITE there."""
    if rules.no_access is not None or int(prot) & ~_ALL_BITS:
        require_prot(prot, rules)


def require_granules(rules: Rules, granule: int, at: int, size: int, to: int | None = None) -> None:
    """Whole granules only, in the errors of ``rules``; ``to`` is where a map leads."""
    if (at | size | (to or 0)) & (granule - 1):
        where = f"{size:#x} bytes at {at:#x}" + ("" if to is None else f" to {to:#x}")
        raise rules.misaligned(f"{where} are not aligned to the granule {granule:#x}", iova=at, paddr=to, size=size)


def allocation(size: int, align: int, granule: int) -> tuple[int, int]:
    """Size and alignment of an allocation, in whole granules."""
    if type(size) is not int or type(align) is not int:
        size, align = as_integers(size=size, align=align)
    if size < 1:
        raise InvalidArgument(f"{size} bytes can't be allocated: at least 1 is needed", size=size)
    if align and not is_power_of_two(align):
        raise InvalidArgument(f"an alignment of {align} bytes is neither 0 nor a power of two", align=align)
    return align_up(size, granule), max(align, granule)


def highest(limit: int | None, own: int) -> int:
    """The highest bus address for a caller who asks for ``limit``; ``own`` is what the devices can drive."""
    if limit is None:
        return own
    if type(limit) is not int:
        limit = as_integer(limit, "limit")
    if limit < 0:
        raise InvalidArgument(f"{limit} is no highest bus address", limit=limit)
    return min(limit, own)


def whole_range(space: BusSpace, where: BusRange, granule: int, first: int, last: int) -> int:
    """The start of bus addresses that are whole granules, none below ``first`` or above ``last``."""
    start = bus_value(space, where.start, where.size)
    if (start | where.size) & (granule - 1) or start < first or where.stop - 1 > last:
        bounds = f"from {first:#x} to {last:#x}" if first else f"up to {last:#x}"
        raise InvalidArgument(
            f"{where!r} is not whole granules of {granule:#x} bytes {bounds}", start=start, size=where.size
        )
    return start


def merged_runs(pieces: Sequence[AddressRange[Any]], space: Space, unit: int, granule: int) -> list[tuple[int, int]]:
    """(start, stop) of the pieces, those that touch merged; borders between the others are multiples of ``unit``."""
    runs: list[tuple[int, int]] = []
    last, borders = -1, 0
    for piece in pieces:
        if not isinstance(piece, AddressRange):
            raise SpaceMismatch(f"{piece!r} is no range of addresses")
        address = piece.start
        start = address.value if address.space is space else output_value(space, address)
        stop = start + piece.size
        if start == last:
            runs[-1] = (runs[-1][0], stop)
        else:
            if runs:
                borders |= start | last
            runs.append((start, stop))
        last = stop
    if not runs:
        raise InvalidArgument("nothing to bind: at least one piece is needed")
    if borders & (unit - 1):
        _refuse_torn(runs, unit, granule)
    return runs


def _refuse_torn(runs: list[tuple[int, int]], unit: int, granule: int) -> None:
    for (_, stop), (start, _) in pairwise(runs):
        if (stop | start) & (unit - 1):
            raise InvalidArgument(
                f"pieces that end at {stop:#x} and go on at {start:#x} tear a granule of {granule} bytes",
                start=start,
            )
