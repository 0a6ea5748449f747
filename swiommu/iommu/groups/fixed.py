"""Domains that nothing is mapped into: every address leads to itself, or none leads anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from swiommu.address import BusAddr, PhysAddr
from swiommu.iommu import Domain
from swiommu.iommu.backing import NoBacking
from swiommu.iommu.mappers import FixedMapper
from swiommu.layer import Blocked, Identity
from swiommu.ranges import RangeSet

if TYPE_CHECKING:
    from swiommu.address import BusSpace, Space
    from swiommu.layer import Node

__all__ = ["BlockedDomain", "IdentityDomain"]

A = TypeVar("A", PhysAddr, BusAddr)


class IdentityDomain(Domain[A]):
    """Every bus address is the address of memory, or of ``below`` (``IOMMU_DOMAIN_IDENTITY``, "passthrough").

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
    >>> domain = IdentityDomain(bus, ram)
    >>> domain.iova_to_phys(bus.at(0x1234)), domain.iova_to_phys(bus.at(1 << 40))
    (PhysAddr(ram:0x1234), None)
    """

    def __init__(
        self,
        space_in: BusSpace,
        output_space: Space,
        *,
        memory: Node | None = None,
        below: Domain[Any] | None = None,
    ) -> None:
        layer = Identity(space_in.name, width=min(space_in.width, output_space.width))
        mapper = FixedMapper("an identity", layer, enforces=False, reach=1 << layer.input_width)
        last = space_in.limit - 1
        backing = NoBacking("an identity")
        super().__init__(space_in, output_space, mapper, backing, RangeSet(), last=last, memory=memory, below=below)


class BlockedDomain(Domain[A]):
    """No bus address leads anywhere (``IOMMU_DOMAIN_BLOCKED``).

    >>> from swiommu.address import Access, BusSpace, PhysSpace
    >>> ram, bus = PhysSpace("ram"), BusSpace("pci", width=48)
    >>> domain = BlockedDomain(bus, ram)
    >>> domain.iova_to_phys(bus.at(0x1234)), domain.unmap(bus.at(0x1000), 0x1000)
    (None, 0)
    >>> domain.translate(bus.at(0x1000), 4, Access.READ)
    Traceback (most recent call last):
    ...
    swiommu.errors.DeviceFault: translation fault of READ access at 0x1000 in layer 'pci'
    """

    def __init__(
        self,
        space_in: BusSpace,
        output_space: Space,
        *,
        memory: Node | None = None,
        below: Domain[Any] | None = None,
    ) -> None:
        layer = Blocked(space_in.name, width=space_in.width)
        mapper = FixedMapper("a blocked", layer, enforces=True, reach=0)
        last = space_in.limit - 1
        backing = NoBacking("a blocked")
        super().__init__(space_in, output_space, mapper, backing, RangeSet(), last=last, memory=memory, below=below)
