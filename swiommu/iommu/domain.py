"""The one API: a domain is a device's bus address space, with translation hardware below it or without.

What is here holds for every driver: whose addresses may enter, who is attached, which mappings live. What a driver
adds is how bus addresses are chosen, recorded and translated.

A *mapping* (from `Domain.alloc` or `Domain.bind`) owns its bus range until `Domain.release`. `Domain.map` and
`Domain.unmap` are the lower half: they write and clear translations at addresses that the caller chose, either
inside one mapping's bus range or outside all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import attrs

from swiommu.address import (
    AddressRange,
    BusAddr,
    BusRange,
    BusSpace,
    PhysAddr,
    Prot,
    Space,
    align_up,
    is_power_of_two,
)
from swiommu.errors import (
    AddressInUse,
    AddressOverflow,
    Busy,
    InvalidArgument,
    NoDevice,
    NotFound,
    SpaceMismatch,
)
from swiommu.iommu.ranges import RangeSet
from swiommu.layer import Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import Access
    from swiommu.layer import Layer, Run

__all__ = ["Attachable", "Domain", "DomainStats", "Mapping"]

A = TypeVar("A", PhysAddr, BusAddr)

READ_WRITE = Prot.READ | Prot.WRITE
_READ_WRITE_BITS = int(READ_WRITE)
_ALL_BITS = 0x3F


class Attachable(Protocol):
    """What a domain needs to know of a device; ``dma_mask`` is the highest bus address that it can drive."""

    name: str
    dma_mask: int
    domain: Domain[Any] | None


@attrs.define
class DomainStats:
    """What a domain has cost so far; one object for its whole life, always up to date.

    ``maps``: contiguous pieces mapped, ``unmaps``: releases, and unmap calls that met something,
    ``invalidations``: commands, of which ``flushes`` are of everything at once,
    ``table_pages``: now and at its peak, those that wait for a flush included, ``walk_refs``: table entries that cold
    walks read to touch every leaf mapped, once, ``map_bytes``: bytes mapped, whole granules in a paged domain.
    """

    maps: int = 0
    unmaps: int = 0
    invalidations: int = 0
    flushes: int = 0
    table_pages: int = 0
    table_pages_peak: int = 0
    walk_refs: int = 0
    map_bytes: int = 0


@attrs.frozen(eq=False, repr=False)
class Mapping(Generic[A]):
    """A live bus range and the memory behind it, in order; two mappings are equal only if identical.

    ``owns_memory``: the memory came with the mapping and goes with it.

    >>> from swiommu.address import PhysRange, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram")
    >>> domain = PagedDomain(BusSpace("nvme"), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
    >>> domain.bind([PhysRange(ram.at(0x5000_0200), 512)])
    Mapping(nvme:0xfffffffff200+0x200, 1 pieces)
    """

    iova: BusRange
    pieces: tuple[AddressRange[A], ...]
    prot: Prot
    domain: Domain[A]
    owns_memory: bool

    @property
    def size(self) -> int:
        """Bytes, of the bus range and of all pieces together."""
        return self.iova.size

    def __repr__(self) -> str:
        start = self.iova.start
        return f"Mapping({start.space.name}:{start.value:#x}+{self.size:#x}, {len(self.pieces)} pieces)"


class Domain(ABC, Generic[A]):
    """A bus address space and how it is filled; `PagedDomain` and `LinearDomain` are the two kinds.

    ``input_space`` is what devices see, ``output_space`` what mappings lead to. ``enforces``: whether a device is
    kept from what is not mapped. ``node`` is its layer in its place: what its accesses go through; ``stats`` is
    what it has cost, ``granule`` the smallest page in bytes, ``aperture_last`` the highest bus address that
    can be mapped.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> ram, bus = PhysSpace("ram"), BusSpace("nvme")
    >>> domain = PagedDomain(bus, frames=Frames(ram.at(0), 1 << 20), output_space=ram)
    >>> domain.map(bus.at(0x8000), ram.at(0x5000_0000), 0x3000, Prot.READ)
    >>> domain.iova_to_phys(bus.at(0x9234))
    PhysAddr(ram:0x50001234)
    >>> domain.unmap(bus.at(0x8000), 0x10000), domain.stats.unmaps, domain.stats.invalidations
    (12288, 1, 1)
    """

    enforces: ClassVar[bool]
    _whole_granules: ClassVar[bool] = True  # whether what a mapping owns is rounded to granules

    def __init__(self, input_space: BusSpace, output_space: Space, layer: Layer, pgsize_bitmap: int, last: int) -> None:
        self.input_space = input_space
        self.output_space = output_space
        self.node = Node(layer, input_space=input_space)
        self.pgsize_bitmap = pgsize_bitmap
        self.granule = pgsize_bitmap & -pgsize_bitmap
        self.aperture_last = last
        self._unit = self.granule if self._whole_granules else 1
        self.stats = DomainStats()
        self.destroyed = False
        self._devices: list[Attachable] = []
        self._limit = last
        self._mappings: dict[int, Mapping[A]] = {}
        self._owned = RangeSet()

    # -- mappings

    @abstractmethod
    def alloc(self, size: int, align: int = 0, *, prot: Prot = READ_WRITE, limit: int | None = None) -> Mapping[A]:
        """Memory of ``size`` bytes, rounded up to granules, with a contiguous bus range at a multiple of ``align``.

        ``limit`` is the highest bus address that may be used; by default what the attached devices can drive. All or
        nothing. Raises `InvalidArgument` (size, alignment, no READ or WRITE), `NoMemory` or `NoSpace`.
        """

    @abstractmethod
    def bind(
        self, pieces: Sequence[AddressRange[A]], prot: Prot = READ_WRITE, *, limit: int | None = None
    ) -> Mapping[A]:
        """A bus range, chosen by the domain, for memory that exists: ``pieces``, one behind the other.

        The first piece may begin, and the last one end, inside a granule: whole granules are mapped, and the bus range
        keeps the offset. Pieces that touch are one. Between pieces that don't, borders are whole granules, else
        `InvalidArgument`. All or nothing; raises also `NoSpace`, `SpaceMismatch` and what the driver says.
        """

    @abstractmethod
    def release(self, mapping: Mapping[A]) -> None:
        """Unmap, and give back the bus range, and the memory if the mapping owns it; `NotFound` if it is not live."""

    # -- the caller chooses the address

    def map(self, iova: BusAddr, paddr: A, size: int, prot: Prot = READ_WRITE) -> None:
        """Map ``size`` bytes at ``iova`` to ``paddr``: all or nothing, whole granules.

        Raises `SpaceMismatch`, `InvalidArgument` (empty, misaligned, no READ or WRITE), `AddressOverflow`, `OutOfRange`
        (beyond the aperture or the output), `AddressInUse`. Source: ``iommu_map``.
        """
        self._require_live()
        at, to = self._input(iova, size), self._output(paddr)
        self._require_prot(prot)
        if (at | to | size) & (self.granule - 1):
            raise InvalidArgument(
                f"{size:#x} bytes at {at:#x} to {to:#x} are not aligned to the granule {self.granule:#x}",
                iova=at,
                paddr=to,
                size=size,
            )
        if to + size > self.output_space.limit:
            raise AddressOverflow(
                f"{size:#x} bytes at {paddr!r} leave the {self.output_space.width}-bit space", paddr=to, size=size
            )
        owner = self._owned.first_over(at, at + size)
        if owner is not None and not owner[0] <= at < at + size <= owner[1]:
            raise AddressInUse(
                f"{size:#x} bytes at {at:#x} lie partly in the live mapping at {owner[0]:#x}", iova=at, size=size
            )
        self._map(at, to, size, prot, owned=owner is not None)

    def unmap(self, iova: BusAddr, size: int) -> int:
        """Clear translations from ``iova`` on; the bytes unmapped: less than ``size`` if a hole is met, even 0.

        It is more than ``size`` when a large leaf begins inside the range and ends behind it; a leaf that the range
        enters in the middle is left. Raises `SpaceMismatch`, `InvalidArgument` (empty, misaligned),
        `AddressOverflow`, `OutOfRange`. Source: ``iommu_unmap`` on the generic page table.
        """
        self._require_live()
        at = self._input(iova, size)
        if (at | size) & (self.granule - 1):
            raise InvalidArgument(
                f"{size:#x} bytes at {at:#x} are not aligned to the granule {self.granule:#x}", iova=at, size=size
            )
        return self._unmap(at, size)

    @abstractmethod
    def iova_to_phys(self, iova: BusAddr) -> A | None:
        """Where ``iova`` is mapped to, with its offset in the page; None if it is not."""

    @abstractmethod
    def _map(self, iova: int, paddr: int, size: int, prot: Prot, *, owned: bool) -> None: ...

    @abstractmethod
    def _unmap(self, iova: int, size: int) -> int: ...

    def translate(self, iova: BusAddr, size: int, access: Access) -> list[Run]:
        """What a device reaches with ``size`` bytes from ``iova``; `DeviceFault` with ``fault`` and ``runs``."""
        return self.node.translate(iova, size, access)

    # -- devices

    @property
    def devices(self) -> tuple[Attachable, ...]:
        """The devices attached, in order."""
        return tuple(self._devices)

    def attach(self, device: Attachable) -> None:
        """Let ``device`` see this domain; `Busy` if it is attached already, here too.

        Its mask narrows what `alloc` and `bind` choose from now on. Source: ``iommu_attach_device``.
        """
        self._require_live()
        if device.domain is not None:
            raise Busy(f"device {device.name!r} is attached to the domain of {device.domain.input_space.name!r}")
        device.domain = self
        self._devices.append(device)
        self._limit = min(self._limit, device.dma_mask)

    def detach(self, device: Attachable) -> None:
        """Take ``device`` off; `NoDevice` if it is not attached here."""
        if device.domain is not self:
            raise NoDevice(f"device {device.name!r} is not attached to the domain of {self.input_space.name!r}")
        device.domain = None
        self._devices = [other for other in self._devices if other is not device]
        self._limit = min((other.dma_mask for other in self._devices), default=self.aperture_last)

    def mappings(self) -> list[Mapping[A]]:
        """Every live mapping, by bus address."""
        return [self._mappings[start] for start in sorted(self._mappings)]

    def destroy(self) -> None:
        """Give up everything held; `Busy` while devices are attached or anything is mapped."""
        self._require_live()
        if self._devices or self._mappings:
            raise Busy(
                f"the domain of {self.input_space.name!r} has {len(self._devices)} devices "
                f"and {len(self._mappings)} mappings",
                devices=len(self._devices),
                mappings=len(self._mappings),
            )
        self._destroy()
        self.destroyed = True

    @abstractmethod
    def _destroy(self) -> None: ...

    def check(self) -> None:
        """Mappings own disjoint ranges that hold them, and pieces add up; `AssertionError` with a dump.

        Drivers add what they hold.
        """
        self._owned.check()
        owned = dict(self._owned)
        dump = f"{self.mappings()} own {owned}"
        assert owned.keys() == self._mappings.keys(), dump
        for start, mapping in self._mappings.items():
            assert start <= mapping.iova.start.value < mapping.iova.stop <= owned[start], dump
            assert sum(piece.size for piece in mapping.pieces) == mapping.size, f"{mapping.pieces}: {dump}"
            assert mapping.domain is self, dump
        assert all(device.domain is self for device in self._devices), f"{self._devices}"

    # -- the door

    def _require_live(self) -> None:
        if self.destroyed:
            raise InvalidArgument(f"the domain of {self.input_space.name!r} was destroyed")

    def _require_input(self, iova: BusAddr) -> None:
        if getattr(iova, "space", None) is not self.input_space:
            raise SpaceMismatch(f"{iova!r} is no address of the domain's bus space {self.input_space.name!r}")

    def _input(self, iova: BusAddr, size: int) -> int:
        self._require_input(iova)
        if size < 1:
            raise InvalidArgument(f"a range of {size} bytes at {iova!r}: at least 1 is needed", size=size)
        if iova.value + size > self.input_space.limit:
            raise AddressOverflow(
                f"{size:#x} bytes at {iova!r} leave the {self.input_space.width}-bit space", iova=iova.value, size=size
            )
        return iova.value

    def _output(self, paddr: A) -> int:
        if getattr(paddr, "space", None) is not self.output_space:
            raise SpaceMismatch(f"{paddr!r} is no address of the domain's output space {self.output_space.name!r}")
        return paddr.value

    @staticmethod
    def _require_prot(prot: Prot) -> None:
        bits = int(prot)
        if not bits & _READ_WRITE_BITS or bits & ~_ALL_BITS:
            raise InvalidArgument(f"protection {bits:#x}: READ or WRITE is needed, no bit above PRIV exists", prot=prot)

    def _rounded(self, size: int, align: int) -> tuple[int, int]:
        if size < 1:
            raise InvalidArgument(f"{size} bytes can't be allocated: at least 1 is needed", size=size)
        if align and not is_power_of_two(align):
            raise InvalidArgument(f"an alignment of {align} bytes is neither 0 nor a power of two", align=align)
        return align_up(size, self.granule), max(align, self.granule)

    def _highest(self, limit: int | None) -> int:
        if limit is None:
            return self._limit
        if limit < 0:
            raise InvalidArgument(f"{limit} is no highest bus address", limit=limit)
        return min(limit, self._limit)

    def _runs(self, pieces: Sequence[AddressRange[A]]) -> list[tuple[int, int]]:
        # (start, stop) of the pieces, those that touch merged, inner borders checked.
        runs: list[tuple[int, int]] = []
        for piece in pieces:
            if not isinstance(piece, AddressRange):
                raise SpaceMismatch(f"{piece!r} is no range of addresses")
            start = self._output(piece.start)
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], piece.stop)
            else:
                runs.append((start, piece.stop))
        if not runs:
            raise InvalidArgument("nothing to bind: at least one piece is needed")
        for (_, stop), (start, _) in pairwise(runs):
            if (stop | start) & (self._unit - 1):
                raise InvalidArgument(
                    f"pieces that end at {stop:#x} and go on at {start:#x} tear a granule of {self.granule} bytes",
                    stop=stop,
                    start=start,
                )
        return runs

    # -- the register of mappings

    def _remember(self, mapping: Mapping[A]) -> Mapping[A]:
        start, stop = self._extent(mapping)
        self._owned.add(start, stop)
        self._mappings[start] = mapping
        return mapping

    def _forget(self, mapping: Mapping[A]) -> tuple[int, int]:
        # The bus range that it owned, as start and stop.
        start, stop = self._extent(mapping)
        if self._mappings.get(start) is not mapping:
            raise NotFound(f"{mapping!r} is not live in the domain of {self.input_space.name!r}", iova=start)
        del self._mappings[start]
        self._owned.remove(start)
        return start, stop

    def _bus_range(self, start: int, size: int) -> BusRange:
        return BusRange(BusAddr(self.input_space, start), size)

    def _extent(self, mapping: Mapping[A]) -> tuple[int, int]:
        iova, unit = mapping.iova, self._unit
        start = iova.start.value
        return start & -unit, start + iova.size + unit - 1 & -unit
