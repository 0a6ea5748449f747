"""While a device is being reset its IOMMU must not be asked to translate for it: it is blocked meanwhile.

Source: ``iommu_dev_reset_prepare``, ``iommu_dev_reset_done`` (7.x).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import Busy
from swiommu.iommu.attaching import move
from swiommu.iommu.groups.group import group_of

if TYPE_CHECKING:
    from swiommu.iommu import Attachable

__all__ = ["reset_done", "reset_prepare"]


def reset_prepare(device: Attachable) -> None:
    """Block ``device`` until `reset_done`; its group can't be attached elsewhere meanwhile.

    Raises `NoDevice` without a group, `Busy` if it is being reset already, and what making the blocking domain raises.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import Defaults, Hardware, IommuCore
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
    >>> smmu = Hardware(name="smmu", bus=bus, ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> nic = BusDevice("nic", SparseRam(ram))
    >>> group = IommuCore(Defaults(passthrough=True)).probe(nic, smmu)
    >>> reset_prepare(nic); nic.domain is smmu.blocked_domain
    True
    >>> reset_done(nic); nic.domain is smmu.identity_domain
    True
    """
    group = group_of(device)
    member = group.member(device)
    if member.resetting:
        raise Busy(f"device {device.name!r} of IOMMU group {group.id} is being reset")
    group.require_bare()
    move(device, group.need_blocking_domain())
    member.resetting = True


def reset_done(device: Attachable) -> None:
    """Let ``device`` have the domain of its group again; nothing happens if it was not being reset."""
    group = group_of(device)
    member = group.member(device)
    if member.resetting:
        member.resetting = False
        move(device, group.domain)
