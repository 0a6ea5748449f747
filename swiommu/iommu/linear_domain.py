"""A domain without translation hardware: one window, one contiguous region, and a record of what is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from swiommu.address import BusAddr, BusRange, BusSpace, PhysAddr, PhysRange, as_integer
from swiommu.errors import AddressInUse, Busy, InvalidArgument, OutOfRange, SpaceMismatch
from swiommu.iommu import validate
from swiommu.iommu.backing import RegionBacking
from swiommu.iommu.domain import Domain
from swiommu.iommu.mappers.linear import LinearMapper
from swiommu.iommu.stacking import BusyPolicy
from swiommu.iommu.withheld import Withheld
from swiommu.locking import locked
from swiommu.ranges import RangeSet

if TYPE_CHECKING:
    from swiommu.address import AddressRange, Space
    from swiommu.layer import Node
    from swiommu.region import Region

__all__ = ["LinearDomain"]

A = TypeVar("A", PhysAddr, BusAddr)


class LinearDomain(Domain[A]):
    """``alloc`` takes chunks of ``region``; ``bind`` and ``map`` reach all of ``window`` (default: the region).

    Records are exact to the byte, so that two buffers in one page can both be bound. The region's own users and what
    is bound share the window: a chunk that lands on bound memory is refused with `AddressInUse`. ``withheld``: what
    several domains of one region keep from it together, as its bus addresses are reserved.

    On a domain ``below`` the region is one of its bus space: contiguous there, and wherever it likes in memory. What
    backs it is mapped by others, before or after; ``in_use``: see `BusyPolicy`. ``memory``: the node of a memory that
    all ends in. Raises `InvalidArgument` for a region outside the window, a delta that is not a multiple of the page
    size or a window that tears a granule of the domain below, `OutOfRange` for a window whose bus side leaves
    ``space_in`` or whose other side leaves the aperture below, `SpaceMismatch` for a region of bus addresses of anybody
    else.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.region import Region
    >>> ram, bus = PhysSpace("ram", width=32), BusSpace("camera", width=32)
    >>> domain = LinearDomain(bus, Region(ram.at(0x4000_0000), 1 << 20), delta=0x1000_0000)
    >>> mapping = domain.alloc(5000)
    >>> mapping.iova, domain.iova_to_phys(mapping.iova.start + 8)
    (BusRange(camera:0x50000000+0x2000), PhysAddr(ram:0x40000008))
    >>> domain.release(mapping); domain.mappings()
    []
    """

    mapper: LinearMapper

    @overload
    def __init__(
        self: LinearDomain[PhysAddr],
        space_in: BusSpace,
        region: Region[PhysAddr],
        *,
        window: PhysRange | None = ...,
        delta: int = ...,
        memory: Node | None = ...,
        in_use: str = ...,
        withheld: Withheld | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: LinearDomain[BusAddr],
        space_in: BusSpace,
        region: Region[BusAddr],
        *,
        window: BusRange | None = ...,
        delta: int = ...,
        below: Domain[Any],
        in_use: str = ...,
        withheld: Withheld | None = ...,
    ) -> None: ...

    def __init__(
        self,
        space_in: BusSpace,
        region: Region[Any],
        *,
        window: AddressRange[Any] | None = None,
        delta: int = 0,
        below: Domain[Any] | None = None,
        memory: Node | None = None,
        in_use: str = "refuse",
        withheld: Withheld | None = None,
    ) -> None:
        _require_space(region.space, below)
        window = window or _whole(region)
        if region.start < window.start or region.stop > window.stop:
            raise InvalidArgument(f"{region!r} is not inside the window {window!r}")
        delta, granule = as_integer(delta, "delta"), region.page_size
        if delta & (granule - 1):
            raise InvalidArgument(f"a delta of {delta:#x} is not a multiple of the page size {granule}")
        base = window.start.value + delta
        if base < 0 or base + window.size > space_in.limit:
            raise OutOfRange(
                f"the window {window!r} with delta {delta:#x} leaves the {space_in.width}-bit space {space_in.name!r}",
            )
        last = base + window.size - 1
        if below is not None and (window.start.value | window.size) & below.granule - 1:
            raise InvalidArgument(
                f"the window {window!r} tears a granule of {below.granule:#x} bytes of the domain of "
                f"{below.input_space.name!r}"
            )
        if below is not None:
            below.place.require_aperture(window.start.value, window.size)
        owned, held = RangeSet(), RangeSet()
        if withheld is not None and withheld.region is not region:
            raise InvalidArgument(f"{withheld.region!r} is withheld from, not {region!r}")
        mapper = LinearMapper(space_in, withheld or Withheld(region), window, delta, owned)
        try:
            super().__init__(
                space_in,
                region.space,
                mapper,
                RegionBacking(region, delta, held),
                owned,
                first=base,
                last=last,
                below=below,
                memory=memory,
                in_use=BusyPolicy(in_use),
                held=held,
            )
        except BaseException:
            mapper.give_reserved()
            raise

    @locked
    def hold(self, where: BusRange) -> None:
        """Keep bus addresses, whole pages, and the memory there, for a caller, until `drop`; see `PagedDomain.hold`.

        `AddressInUse` if the region has given some of it out, or something is bound there, `OutOfRange` outside of it.
        """
        self.calls.require_live()
        start = validate.whole_range(self.input_space, where, self.granule, self.aperture_first, self.aperture_last)
        if self.register.owned.first_over(start, where.stop) is not None:
            raise AddressInUse(f"some of {where!r} is mapped in the domain of {self.input_space.name!r}", start=start)
        space: Any = self.region.space
        chunk = self.region.reserve(space.at(start - self.delta), where.size)
        try:
            self.register.held.add(start, where.stop)
        except BaseException:
            self.region.free(chunk)
            raise

    @locked
    def drop(self, where: BusRange) -> None:
        """Give back what `hold` kept: `NotFound` if that was another range, `Busy` while some of it is mapped."""
        self.calls.require_live()
        validate.bus_value(self.input_space, where.start, where.size)
        self.register.require_droppable(where)
        if any(start < where.stop and where.start.value < stop for start, stop in self.mapped()):
            raise Busy(f"some of {where!r} is mapped in the domain of {self.input_space.name!r}")
        space: Any = self.region.space
        self.region.free(space.at(where.start.value - self.delta))
        self.register.held.remove(where.start.value)

    @property
    def region(self) -> Region[A]:
        """What `alloc` takes memory from."""
        return self.mapper.region

    @property
    def window(self) -> AddressRange[A]:
        """What of the output space is reached."""
        return self.mapper.window

    @property
    def delta(self) -> int:
        """Bus address = output address + delta."""
        return self.mapper.delta


def _whole(region: Region[Any]) -> AddressRange[Any]:
    return (PhysRange if isinstance(region.start, PhysAddr) else BusRange)(region.start, region.size)


def _require_space(space: Space, below: Domain[Any] | None) -> None:
    if isinstance(space, BusSpace) if below is None else space is not below.input_space:
        whose = "no domain" if below is None else f"not the domain of {below.input_space.name!r}"
        raise SpaceMismatch(f"a region of bus addresses of {space.name!r}, and {whose} is below to map them")
