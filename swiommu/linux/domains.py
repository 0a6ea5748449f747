"""Domains, who is attached to them, who may do DMA, faults and reserved regions, by the kernel's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiommu.iommu.groups import (
    Capability,
    DomainType,
    IommuGroup,
    attach_pasid,
    capable,
    claim_device,
    claim_group,
    detach_pasid,
    free_domain,
    group_of,
    record_of,
    release_device,
    release_group,
    report_fault,
    unuse_default_domain,
    use_default_domain,
)
from swiommu.linux.answers import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.address import BusAddr
    from swiommu.iommu import Attachable, Domain
    from swiommu.layer import Reserved

__all__ = [
    "device_iommu_capable",
    "iommu_attach_device",
    "iommu_attach_device_pasid",
    "iommu_attach_group",
    "iommu_detach_device",
    "iommu_detach_device_pasid",
    "iommu_detach_group",
    "iommu_device_claim_dma_owner",
    "iommu_device_release_dma_owner",
    "iommu_device_unuse_default_domain",
    "iommu_device_use_default_domain",
    "iommu_domain_free",
    "iommu_get_domain_for_dev",
    "iommu_get_group_resv_regions",
    "iommu_group_claim_dma_owner",
    "iommu_group_dma_owner_claimed",
    "iommu_group_get",
    "iommu_group_id",
    "iommu_group_release_dma_owner",
    "iommu_paging_domain_alloc",
    "iommu_paging_domain_alloc_flags",
    "iommu_set_fault_handler",
    "report_iommu_fault",
]


def _done(call: Callable[..., None], *arguments: Any) -> int:
    # 0 or a negative errno, of what answers nothing else.
    return answer(call, *arguments) or 0


# -- domains


def iommu_paging_domain_alloc(dev: Attachable) -> Domain[Any] | int:
    """A domain of the IOMMU of ``dev`` to map into, or a negative errno, as ``ERR_PTR``.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import Hardware, IommuCore
    >>> from swiommu.linux import IOMMU_READ, IOMMU_WRITE, iommu_map, iommu_unmap
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
    >>> smmu = Hardware(name="smmu", bus=bus, ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> nic = BusDevice("nic", SparseRam(ram))
    >>> iommu_paging_domain_alloc(nic)
    -19
    >>> group = IommuCore().probe(nic, smmu)
    >>> domain = iommu_paging_domain_alloc(nic)
    >>> iommu_map(domain, 0x8000, 0x4000_0000, 0x2000, IOMMU_READ | IOMMU_WRITE), iommu_attach_device(domain, nic)
    (0, 0)
    >>> nic.write(bus.at(0x9000), b"hello"); nic.ram.read(ram.at(0x4000_1000), 5)
    b'hello'
    >>> iommu_map(domain, 0x9000, 0x5000_0000, 0x1000, IOMMU_READ), iommu_unmap(domain, 0x8000, 0x10_0000)
    (-98, 8192)
    >>> iommu_detach_device(domain, nic); iommu_domain_free(domain)
    """
    return iommu_paging_domain_alloc_flags(dev, 0)


def iommu_paging_domain_alloc_flags(dev: Attachable, flags: int) -> Domain[Any] | int:
    """As `iommu_paging_domain_alloc`, with what is asked of the domain: bits of `swiommu.iommu.groups.Hwpt`.

    -EOPNOTSUPP for what the hardware can't, and for bits that mean nothing.
    """
    return answer(lambda: group_of(dev).hardware.alloc(DomainType.UNMANAGED, flags))


def iommu_domain_free(domain: Domain[Any] | None) -> None:
    """Free it; nothing for NULL. A kernel would go on with a domain that devices still use; here it is `Busy`."""
    if domain is not None:
        free_domain(domain)


def iommu_get_domain_for_dev(dev: Attachable) -> Domain[Any] | None:
    """The domain that ``dev`` has by its group; None without one."""
    return None if dev.group is None else dev.group.domain


def iommu_group_get(dev: Attachable) -> IommuGroup | None:
    """The group of ``dev``."""
    return group_of(dev) if dev.group is not None else None


def iommu_group_id(group: IommuGroup) -> int:
    """The number of ``group``, its name in ``/sys/kernel/iommu_groups``."""
    return group.id


def device_iommu_capable(dev: Attachable, cap: Capability) -> bool:
    """Whether the IOMMU of ``dev`` can do that; False without an IOMMU."""
    return capable(dev, cap)


# -- attaching


def iommu_attach_device(domain: Domain[Any], dev: Attachable) -> int:
    """-ENODEV without a group; -EINVAL, -EBUSY and what the driver says: `IommuGroup.attach_device`."""
    return _done(lambda: group_of(dev).attach_device(domain, dev))


def iommu_detach_device(domain: Domain[Any], dev: Attachable) -> None:
    """Back to the default domain, or the blocking one of an owned group; ``domain`` is not looked at."""
    del domain
    if dev.group is not None:
        dev.group.detach_device(dev)


def iommu_attach_group(domain: Domain[Any], group: IommuGroup) -> int:
    """As `iommu_attach_device`, for all devices of the group."""
    return _done(group.attach_group, domain)


def iommu_detach_group(domain: Domain[Any], group: IommuGroup) -> None:
    """As `iommu_detach_device`, for all devices of the group."""
    del domain
    group.detach_group()


def iommu_attach_device_pasid(domain: Domain[Any], dev: Attachable, pasid: int) -> int:
    """-ENODEV, -EOPNOTSUPP, -EINVAL, -EBUSY: `swiommu.iommu.groups.attach_pasid`."""
    return _done(attach_pasid, domain, dev, pasid)


def iommu_detach_device_pasid(domain: Domain[Any], dev: Attachable, pasid: int) -> None:
    """The PASID is blocked again."""
    del domain
    if dev.group is not None:
        detach_pasid(dev, pasid)


# -- who may do DMA


def iommu_device_use_default_domain(dev: Attachable) -> int:
    """A driver is bound: 0, -EPROBE_DEFER (-517) or -EBUSY."""
    return _done(use_default_domain, dev)


def iommu_device_unuse_default_domain(dev: Attachable) -> None:
    """A driver was unbound."""
    unuse_default_domain(dev)


def iommu_device_claim_dma_owner(dev: Attachable, owner: object) -> int:
    """-EINVAL without an owner, -ENODEV without a group, -EPERM, -EBUSY: `swiommu.iommu.groups.claim_device`."""
    return _done(claim_device, dev, owner)


def iommu_device_release_dma_owner(dev: Attachable) -> None:
    """Takes back one claim."""
    if dev.group is not None:
        release_device(dev)


def iommu_group_claim_dma_owner(group: IommuGroup, owner: object) -> int:
    """-EINVAL without an owner, -EPERM if it is in use, by whomever, -EBUSY."""
    return _done(claim_group, group, owner)


def iommu_group_release_dma_owner(group: IommuGroup) -> None:
    """Takes back all claims."""
    release_group(group)


def iommu_group_dma_owner_claimed(group: IommuGroup) -> bool:
    """Whether it is in use, by an owner or by drivers of the kernel."""
    return group.owner_cnt != 0


# -- faults, regions


def iommu_set_fault_handler(
    domain: Domain[Any], handler: Callable[[Domain[Any], Any, int, int, object], int], token: object = None
) -> None:
    """Let ``handler(domain, dev, iova, flags, token)`` answer for faults, unless another cookie is there."""
    record_of(domain).set_fault_handler(handler, token)


def report_iommu_fault(domain: Domain[Any], dev: Attachable, iova: BusAddr | int, flags: int) -> int:
    """What the handler answers; -ENOSYS without one."""
    return report_fault(domain, dev, iova, flags)


def iommu_get_group_resv_regions(group: IommuGroup) -> list[Reserved]:
    """The reserved regions of its devices, sorted and merged."""
    return group.regions
