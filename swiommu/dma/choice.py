"""Which backend serves a device: it follows from its default domain, or from its bus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from swiommu.address import PhysSpace
from swiommu.dma.direct import DirectBus, DirectDma
from swiommu.dma.iommu import IommuDma
from swiommu.dma.linear import LinearDma
from swiommu.errors import NoDevice, NotSupported, ProbeDeferred
from swiommu.iommu import LinearDomain
from swiommu.iommu.groups import record_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import PhysAddr
    from swiommu.dma.backend import DmaBackend
    from swiommu.dma.swiotlb import SwiotlbPool
    from swiommu.iommu import Domain
    from swiommu.memory import Frames, SparseRam
    from swiommu.region import Region

__all__ = ["DmaClient", "backend_of", "serving_domain"]


class DmaClient(Protocol):
    """What the DMA API needs to know of a device (``struct device``), such as `swiommu.device.BusDevice`.

    ``memory`` is where coherent memory comes from without an IOMMU, ``pool`` the bounce pool, if it has one.
    """

    name: str
    ram: SparseRam
    memory: Sequence[Frames | Region[PhysAddr]]
    pool: SwiotlbPool | None
    domain: Domain[Any] | None
    group: Any

    @property
    def dma_mask(self) -> int:
        """The highest address that it drives; setting it reaches its domain."""
        ...

    @dma_mask.setter
    def dma_mask(self, mask: int) -> None: ...

    @property
    def bus(self) -> Any:
        """What carries its accesses without an IOMMU; `DirectBus` if the DMA API serves it there."""
        ...


def serving_domain(device: DmaClient) -> Domain[Any] | None:
    """The domain that the DMA API maps into for ``device``: its group's default, or without a group its own.

    It is the default domain also while an owner has put the group into another. `ProbeDeferred` for a group without
    one yet. Source: ``iommu_get_dma_domain``.
    """
    if device.group is None:
        return device.domain
    default: Domain[Any] | None = device.group.default_domain
    if default is None:
        raise ProbeDeferred(f"IOMMU group {device.group.id} has no default domain yet")
    return default


def backend_of(device: DmaClient) -> DmaBackend:
    """What serves ``device``: direct for an identity domain or a bus, over the domain that translates, or linear.

    Raises `NoDevice` for a device without a domain and without a bus that shows memory, `ProbeDeferred` for a group
    without a default domain yet, `NotSupported` for addresses that no memory of the processor has, as of an identity
    domain on another IOMMU, and what the backends raise. Source: ``iommu_setup_dma_ops``, ``dma_map_direct``.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import Defaults, Hardware, IommuCore
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram = SparseRam(PhysSpace("ram", width=40))
    >>> frames = Frames(ram.space.at(0x4000_0000), 1 << 20)
    >>> for passthrough in (False, True):
    ...     smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=ram.space, frames=frames)
    ...     nic = BusDevice("nic", ram)
    ...     group = IommuCore(Defaults(passthrough=passthrough)).probe(nic, smmu)
    ...     print(type(backend_of(nic)).__name__)
    IommuDma
    DirectDma
    """
    domain = serving_domain(device)
    if domain is None:
        if not isinstance(device.bus, DirectBus):
            raise NoDevice(f"device {device.name!r} has no domain, and no bus that shows memory: nothing maps for it")
        return DirectDma(device.bus, device.ram, device.memory, pool=device.pool)
    if device.group is not None and not record_of(domain).type.dma_api:
        return _direct(device, domain)
    if isinstance(domain, LinearDomain):
        if domain.below is not None:
            raise _no_memory(domain)
        return LinearDma(domain, device.ram, pool=device.pool)
    untrusted = device.group is not None and device.group.member(device).untrusted
    return IommuDma(domain, device.ram, pool=device.pool, untrusted=untrusted)


def _direct(device: DmaClient, domain: Domain[Any]) -> DmaBackend:
    space = domain.output_space
    if not isinstance(space, PhysSpace):
        raise _no_memory(domain)
    shown = DirectBus(domain.input_space, space)
    own = device.group.hardware.frames
    memory = device.memory or (() if own is None else (own,))
    return DirectDma(shown, device.ram, memory, pool=device.pool)


def _no_memory(domain: Domain[Any]) -> NotSupported:
    return NotSupported(
        f"the output space of the domain of {domain.input_space.name!r} is the bus space {domain.output_space.name!r}, "
        "where a driver has no memory"
    )
