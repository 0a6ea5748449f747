"""Domains for a PASID of a device: who has which. What a device reaches with a PASID is not modelled.

Source: ``iommu_attach_device_pasid``, ``iommu_detach_device_pasid``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiommu.address import as_integer
from swiommu.errors import Busy, InvalidArgument, NotSupported
from swiommu.iommu.groups.group import group_of
from swiommu.iommu.groups.iommu_domain import record_of

if TYPE_CHECKING:
    from swiommu.iommu import Attachable, Domain

__all__ = ["attach_pasid", "detach_pasid"]


def attach_pasid(domain: Domain[Any], device: Attachable, pasid: int) -> None:
    """Give ``pasid`` of all members of the device's group ``domain``.

    Raises `NoDevice` without a group, `NotSupported` if the IOMMU knows no PASIDs or has no static domain that blocks,
    `InvalidArgument` for a domain of another IOMMU, PASID 0, or one that a member can't have, `Busy` if it is taken.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import DomainType, Hardware, IommuCore
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram = PhysSpace("ram", width=40)
    >>> smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> gpu = BusDevice("gpu", SparseRam(ram))
    >>> group = IommuCore().probe(gpu, smmu, max_pasids=16)
    >>> attach_pasid(smmu.alloc(DomainType.UNMANAGED), gpu, 3); group.pasids[3].kernel
    IommuDomain(Unmanaged of 'smmu')
    >>> detach_pasid(gpu, 3); group.pasids
    {}
    """
    pasid = as_integer(pasid, "pasid")
    group = group_of(device)
    if not group.hardware.knows_pasids or group.hardware.blocked_domain is None:
        raise NotSupported(f"{group.hardware!r} attaches no PASIDs")
    record = record_of(domain)
    if record.owner is not group.hardware or pasid == 0:
        raise InvalidArgument(f"PASID {pasid} of device {device.name!r} can't have {record!r}")
    for member in group.members:
        if member.max_pasids and pasid >= member.max_pasids:
            raise InvalidArgument(f"device {member.device.name!r} has PASIDs below {member.max_pasids}, not {pasid}")
    if pasid in group.pasids:
        raise Busy(f"PASID {pasid} of IOMMU group {group.id} has {record_of(group.pasids[pasid])!r}")
    group.pasids[pasid] = domain


def detach_pasid(device: Attachable, pasid: int) -> None:
    """Block ``pasid`` again; nothing happens if it was. `NoDevice` without a group."""
    pasid = as_integer(pasid, "pasid")
    group_of(device).pasids.pop(pasid, None)
