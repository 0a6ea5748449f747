"""The IOMMU API by the kernel's names: functions that answer as Linux does, over `swiommu.iommu.groups`.

0 or a negative errno where the kernel answers these, bytes where it answers bytes, None for a NULL pointer. Addresses
are plain numbers, as they are there; `errno_of` makes an answer of an error. What a kernel function only warns of does
nothing here. No rule is decided here: each function is one call, and its errors are told by that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiommu.errors import SwiommuError
from swiommu.iommu.groups import (
    Capability,
    DomainType,
    Gfp,
    IommuGroup,
    attach_pasid,
    capable,
    claim_device,
    claim_group,
    detach_pasid,
    gather_for,
    group_of,
    iova_to_phys,
    map_range,
    map_sg,
    release_device,
    release_group,
    report_fault,
    sync_map,
    unmap_range,
    unuse_default_domain,
    use_default_domain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.iommu import Attachable, IotlbGather
    from swiommu.iommu.groups import IommuDomain, SgEntry
    from swiommu.layer import Reserved

__all__ = [
    "device_iommu_capable",
    "errno_of",
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
    "iommu_group_release_dma_owner",
    "iommu_iotlb_gather_init",
    "iommu_iotlb_sync",
    "iommu_iova_to_phys",
    "iommu_map",
    "iommu_map_nosync",
    "iommu_map_sg",
    "iommu_paging_domain_alloc",
    "iommu_paging_domain_alloc_flags",
    "iommu_set_fault_handler",
    "iommu_sync_map",
    "iommu_unmap",
    "iommu_unmap_fast",
    "report_iommu_fault",
]


def errno_of(error: SwiommuError) -> int:
    """What a kernel function answers for ``error``: its errno, negative.

    >>> from swiommu.errors import NoDevice
    >>> errno_of(NoDevice("no IOMMU"))
    -19
    """
    return -error.errno


def _answer(call: Callable[..., Any], *arguments: Any, **named: Any) -> int:
    try:
        call(*arguments, **named)
    except SwiommuError as error:
        return errno_of(error)
    return 0


# -- domains


def iommu_paging_domain_alloc(dev: Attachable) -> IommuDomain | int:
    """A domain of the IOMMU of ``dev`` to map into, or a negative errno, as ``ERR_PTR``.

    >>> from swiommu.address import BusSpace, PhysSpace, Prot
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import Hardware, IommuCore
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
    >>> smmu = Hardware(name="smmu", bus=bus, ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> nic = BusDevice("nic", SparseRam(ram))
    >>> iommu_paging_domain_alloc(nic)
    -19
    >>> group = IommuCore().probe(nic, smmu)
    >>> domain = iommu_paging_domain_alloc(nic)
    >>> iommu_map(domain, 0x8000, 0x4000_0000, 0x2000, Prot.READ | Prot.WRITE), iommu_attach_device(domain, nic)
    (0, 0)
    >>> nic.write(bus.at(0x9000), b"hello"); nic.ram.read(ram.at(0x4000_1000), 5)
    b'hello'
    >>> iommu_map(domain, 0x9000, 0x5000_0000, 0x1000, Prot.READ), iommu_unmap(domain, 0x8000, 0x10_0000)
    (-98, 8192)
    >>> iommu_detach_device(domain, nic); iommu_domain_free(domain)
    """
    return iommu_paging_domain_alloc_flags(dev, 0)


def iommu_paging_domain_alloc_flags(dev: Attachable, flags: int) -> IommuDomain | int:
    """As `iommu_paging_domain_alloc`, with what is asked of the domain: bits of `swiommu.iommu.groups.Hwpt`.

    -EOPNOTSUPP for what the hardware can't, and for bits that mean nothing.
    """
    try:
        return group_of(dev).hardware.alloc(DomainType.UNMANAGED, flags)
    except SwiommuError as error:
        return errno_of(error)


def iommu_domain_free(domain: IommuDomain | None) -> None:
    """Free it; nothing for NULL. A kernel would go on with a domain that devices still use; here it is `Busy`."""
    if domain is not None:
        domain.free()


def iommu_get_domain_for_dev(dev: Attachable) -> IommuDomain | None:
    """The domain that ``dev`` has by its group; None without one."""
    return None if dev.group is None else dev.group.domain


def iommu_group_get(dev: Attachable) -> IommuGroup | None:
    """The group of ``dev``."""
    return group_of(dev) if dev.group is not None else None


def device_iommu_capable(dev: Attachable, cap: Capability) -> bool:
    """Whether the IOMMU of ``dev`` can do that; False without an IOMMU."""
    return capable(dev, cap)


# -- attaching


def iommu_attach_device(domain: IommuDomain, dev: Attachable) -> int:
    """-ENODEV without a group; -EINVAL, -EBUSY and what the driver says: `IommuGroup.attach_device`."""
    return _answer(lambda: group_of(dev).attach_device(domain, dev))


def iommu_detach_device(domain: IommuDomain, dev: Attachable) -> None:
    """Back to the default domain, or the blocking one of an owned group; which ``domain`` is said is not looked at."""
    del domain
    if dev.group is not None:
        dev.group.detach_device(dev)


def iommu_attach_group(domain: IommuDomain, group: IommuGroup) -> int:
    """As `iommu_attach_device`, for all devices of the group."""
    return _answer(group.attach_group, domain)


def iommu_detach_group(domain: IommuDomain, group: IommuGroup) -> None:
    """As `iommu_detach_device`, for all devices of the group."""
    del domain
    group.detach_group()


def iommu_attach_device_pasid(domain: IommuDomain, dev: Attachable, pasid: int) -> int:
    """-ENODEV, -EOPNOTSUPP, -EINVAL, -EBUSY: `swiommu.iommu.groups.attach_pasid`."""
    return _answer(attach_pasid, domain, dev, pasid)


def iommu_detach_device_pasid(domain: IommuDomain, dev: Attachable, pasid: int) -> None:
    """The PASID is blocked again."""
    del domain
    if dev.group is not None:
        detach_pasid(dev, pasid)


# -- who may do DMA


def iommu_device_use_default_domain(dev: Attachable) -> int:
    """A driver is bound: 0, -EPROBE_DEFER (-517) or -EBUSY."""
    return _answer(use_default_domain, dev)


def iommu_device_unuse_default_domain(dev: Attachable) -> None:
    """A driver was unbound."""
    unuse_default_domain(dev)


def iommu_device_claim_dma_owner(dev: Attachable, owner: object) -> int:
    """-EINVAL without an owner, -ENODEV without a group, -EPERM, -EBUSY: `swiommu.iommu.groups.claim_device`."""
    return _answer(claim_device, dev, owner)


def iommu_device_release_dma_owner(dev: Attachable) -> None:
    """Takes back one claim."""
    if dev.group is not None:
        release_device(dev)


def iommu_group_claim_dma_owner(group: IommuGroup, owner: object) -> int:
    """-EINVAL without an owner, -EPERM if it is in use, by whomever, -EBUSY."""
    return _answer(claim_group, group, owner)


def iommu_group_release_dma_owner(group: IommuGroup) -> None:
    """Takes back all claims."""
    release_group(group)


def iommu_group_dma_owner_claimed(group: IommuGroup) -> bool:
    """Whether it is in use, by an owner or by drivers of the kernel."""
    return group.owner_cnt != 0


# -- mapping


def iommu_map(domain: IommuDomain, iova: int, paddr: int, size: int, prot: int, gfp: int = Gfp.KERNEL) -> int:
    """0 or a negative errno, in the order of `swiommu.iommu.groups.map_range`."""
    return _answer(map_range, domain, iova, paddr, size, prot, gfp)


def iommu_map_nosync(domain: IommuDomain, iova: int, paddr: int, size: int, prot: int, gfp: int = Gfp.KERNEL) -> int:
    """As `iommu_map`, but the hardware is told by `iommu_sync_map`."""
    return _answer(map_range, domain, iova, paddr, size, prot, gfp, sync=False)


def iommu_sync_map(domain: IommuDomain, iova: int, size: int) -> int:
    """Tell the hardware of what was mapped; if it refuses, it is unmapped and the answer negative."""
    return _answer(sync_map, domain, iova, size)


def iommu_map_sg(domain: IommuDomain, iova: int, sg: Sequence[SgEntry], prot: int, gfp: int = Gfp.KERNEL) -> int:
    """The bytes mapped, or a negative errno: `swiommu.iommu.groups.map_sg`."""
    try:
        return map_sg(domain, iova, sg, prot, gfp)
    except SwiommuError as error:
        return errno_of(error)


def iommu_unmap(domain: IommuDomain, iova: int, size: int) -> int:
    """The bytes unmapped: fewer than ``size`` up to a hole, more if a large leaf went whole; never negative."""
    return unmap_range(domain, iova, size)


def iommu_iotlb_gather_init(domain: IommuDomain) -> IotlbGather:
    """An empty gather, for `iommu_unmap_fast` in this domain."""
    return gather_for(domain)


def iommu_unmap_fast(domain: IommuDomain, iova: int, size: int, gather: IotlbGather) -> int:
    """As `iommu_unmap`, with the flush left to `iommu_iotlb_sync`."""
    return unmap_range(domain, iova, size, gather)


def iommu_iotlb_sync(domain: IommuDomain, gather: IotlbGather) -> None:
    """Flush what was gathered, with one command."""
    del domain
    gather.sync()


def iommu_iova_to_phys(domain: IommuDomain, iova: int) -> int:
    """Where it leads; 0 if nowhere, and for page 0."""
    return iova_to_phys(domain, iova)


# -- faults, regions


def iommu_set_fault_handler(
    domain: IommuDomain, handler: Callable[[IommuDomain, Any, int, int, object], int], token: object = None
) -> None:
    """Let ``handler(domain, dev, iova, flags, token)`` answer for faults, unless another cookie is there."""
    domain.set_fault_handler(handler, token)


def report_iommu_fault(domain: IommuDomain, dev: Attachable, iova: int, flags: int) -> int:
    """What the handler answers; -ENOSYS without one."""
    return report_fault(domain, dev, iova, flags)


def iommu_get_group_resv_regions(group: IommuGroup) -> list[Reserved]:
    """The reserved regions of its devices, sorted and merged."""
    return group.regions
