"""What every domain refuses before anything has changed: foreign addresses, impossible sizes, torn granules."""

from __future__ import annotations

from itertools import pairwise
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from swiommu.address import (
    AddressRange,
    BusAddr,
    BusRange,
    PhysAddr,
    PhysRange,
    PhysSpace,
    Prot,
    align_up,
    as_integer,
    as_integers,
    is_power_of_two,
)
from swiommu.errors import AddressOverflow, Busy, InvalidArgument, SpaceMismatch
from swiommu.locking import Lock, Running, no_shallow_copy
from swiommu.pagetable.rules import SWIOMMU

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import BusSpace, Space
    from swiommu.pagetable import Rules

__all__ = ["READ_WRITE", "Door"]

A = TypeVar("A", PhysAddr, BusAddr)

READ_WRITE = Prot.READ | Prot.WRITE
_READ_WRITE_BITS = int(READ_WRITE)
_ALL_BITS = 0x3F


class Door(Generic[A]):
    """The two spaces of a domain and its granule, and the sentences about what is not of them."""

    lock: Lock
    notifying: Running
    rules: Rules = SWIOMMU  # what the errors of maps and unmaps are
    _whole_granules: ClassVar[bool] = True  # whether what a mapping owns is rounded to granules

    __copy__ = no_shallow_copy

    def __init__(self, input_space: BusSpace, output_space: Space, pgsize_bitmap: int, last: int) -> None:
        self.input_space = input_space
        self.output_space = output_space
        self.pgsize_bitmap = pgsize_bitmap
        self.granule = self.stack_granule = pgsize_bitmap & -pgsize_bitmap
        self.aperture_last = last
        self.destroyed = False
        self.running = Running()
        self.owes = False  # whether something that is needed no more could not be given back yet
        self._limit = last
        self._address: Any = PhysAddr if isinstance(output_space, PhysSpace) else BusAddr
        self._range: Any = PhysRange if isinstance(output_space, PhysSpace) else BusRange
        self._unit = self.granule if self._whole_granules else 1

    def _require_live(self) -> None:
        # Of every call that changes something: not once it is destroyed, and not from inside another of its calls.
        if self.destroyed or self.running.what or self.notifying.what:
            self._not_now()

    def _require_outside(self) -> None:
        running = self.running.what or self.notifying.what
        if running is not None:
            raise Busy(f"{running} may not change the domain of {self.input_space.name!r}: it runs inside a call of it")

    def _not_now(self) -> None:
        self._require_outside()
        raise InvalidArgument(f"the domain of {self.input_space.name!r} was destroyed")

    def _settle(self) -> None:
        # Gives back what could not be given back before, where there is such a thing.
        self.owes = False

    def _require_input(self, iova: BusAddr) -> None:
        if getattr(iova, "space", None) is not self.input_space:
            raise SpaceMismatch(f"{iova!r} is no address of the domain's bus space {self.input_space.name!r}")

    def _input(self, iova: BusAddr, size: int) -> int:
        # The number of a bus address with `size` bytes after it; callers have made `size` an int.
        space = self.input_space
        if size > 0 and getattr(iova, "space", None) is space and iova.value + size <= space.limit:
            return iova.value  # nearly always: what follows finds the words for the other cases
        self._require_input(iova)
        if size < 1:
            raise InvalidArgument(f"a range of {size} bytes at {iova!r}: at least 1 is needed", size=size)
        raise AddressOverflow(
            f"{size:#x} bytes at {iova!r} leave the {space.width}-bit space", iova=iova.value, size=size
        )

    def _output(self, paddr: A) -> int:
        if getattr(paddr, "space", None) is not self.output_space:
            raise SpaceMismatch(f"{paddr!r} is no address of the domain's output space {self.output_space.name!r}")
        return paddr.value

    def _require_prot(self, prot: Prot | int) -> None:
        bits = index(prot) if isinstance(prot, Prot) else as_integer(prot, "prot")
        if not bits & _READ_WRITE_BITS or bits & ~_ALL_BITS:
            raise (self.rules.no_access or InvalidArgument)(
                f"protection {bits:#x}: READ or WRITE is needed, no bit above PRIV exists", prot=prot
            )

    def _require_mappable(self, prot: Prot) -> None:
        # As `_require_prot`, for a map at an address of the caller's: some drivers don't ask for READ or WRITE there.
        if self.rules.no_access is not None or int(prot) & ~_ALL_BITS:
            self._require_prot(prot)

    def _rounded(self, size: int, align: int) -> tuple[int, int]:
        if type(size) is not int or type(align) is not int:
            size, align = as_integers(size=size, align=align)
        if size < 1:
            raise InvalidArgument(f"{size} bytes can't be allocated: at least 1 is needed", size=size)
        if align and not is_power_of_two(align):
            raise InvalidArgument(f"an alignment of {align} bytes is neither 0 nor a power of two", align=align)
        return align_up(size, self.stack_granule), max(align, self.stack_granule)

    def _highest(self, limit: int | None) -> int:
        if limit is None:
            return self._limit
        if type(limit) is not int:
            limit = as_integer(limit, "limit")
        if limit < 0:
            raise InvalidArgument(f"{limit} is no highest bus address", limit=limit)
        return min(limit, self._limit)

    def _runs(self, pieces: Sequence[AddressRange[A]]) -> list[tuple[int, int]]:
        # (start, stop) of the pieces, those that touch merged, inner borders checked.
        runs: list[tuple[int, int]] = []
        space, last, borders = self.output_space, -1, 0
        for piece in pieces:
            if not isinstance(piece, AddressRange):
                raise SpaceMismatch(f"{piece!r} is no range of addresses")
            address = piece.start
            start = address.value if address.space is space else self._output(address)
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
        if borders & (self._unit - 1):
            self._refuse_torn(runs)
        return runs

    def _refuse_torn(self, runs: list[tuple[int, int]]) -> None:
        for (_, stop), (start, _) in pairwise(runs):
            if (stop | start) & (self._unit - 1):
                raise InvalidArgument(
                    f"pieces that end at {stop:#x} and go on at {start:#x} tear a granule of {self.granule} bytes",
                    stop=stop,
                    start=start,
                )

    def _bus_range(self, start: int, size: int) -> BusRange:
        return BusRange(BusAddr(self.input_space, start), size)

    def _at(self, output: int) -> A:
        # An address of the output space.
        address: A = self._address(self.output_space, output)
        return address

    def _pieces(self, runs: list[tuple[int, int]]) -> tuple[AddressRange[A], ...]:
        address, range_of, space = self._address, self._range, self.output_space
        return tuple([range_of(address(space, start), stop - start) for start, stop in runs])
