"""Who may do DMA with a group: the kernel's drivers together, or one owner from outside, and never both.

``owner_cnt`` counts bound drivers while ``owner`` is None, and the claims of ``owner`` else.
Source: ``iommu_device_use_default_domain``, ``iommu_device_claim_dma_owner`` and their kin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import Busy, InvalidArgument, NotPermitted, ProbeDeferred
from swiommu.iommu.groups.group import group_of
from swiommu.iommu.groups.iommu_domain import name_of

if TYPE_CHECKING:
    from swiommu.iommu import Attachable
    from swiommu.iommu.groups.group import IommuGroup

__all__ = [
    "claim_device",
    "claim_group",
    "release_device",
    "release_group",
    "unuse_default_domain",
    "use_default_domain",
]


def use_default_domain(device: Attachable) -> None:
    """A driver of the kernel is about to be bound; without a group there is nothing to ask.

    Raises `ProbeDeferred` as long as there is no default domain, `Busy` if the group is owned, off its default domain,
    or has PASIDs attached.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import Hardware, IommuCore, claim_device
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram = PhysSpace("ram", width=40)
    >>> smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> nic = BusDevice("nic", SparseRam(ram))
    >>> group = IommuCore().probe(nic, smmu)
    >>> use_default_domain(nic); group.owner_cnt
    1
    >>> claim_device(nic, "vfio")
    Traceback (most recent call last):
    ...
    swiommu.errors.NotPermitted: IOMMU group 0 is in use by 1 drivers of the kernel
    """
    group: IommuGroup | None = device.group
    if group is None:
        return
    if group.default_domain is None:
        raise ProbeDeferred(f"IOMMU group {group.id} has no default domain yet")
    if group.owner is not None or group.domain is not group.default_domain or group.pasids:
        raise Busy(f"IOMMU group {group.id} is not free for a driver: {_state(group)}")
    group.owner_cnt += 1


def unuse_default_domain(device: Attachable) -> None:
    """A driver of the kernel was unbound; a call too many changes nothing, as without a group."""
    group: IommuGroup | None = device.group
    if group is not None and group.owner_cnt and group.owner is None:
        group.owner_cnt -= 1


def claim_device(device: Attachable, owner: object) -> None:
    """Make ``owner`` the owner of the group of ``device``, which is blocked from then on; or count one more claim.

    Raises `InvalidArgument` for no owner, `NoDevice` without a group, `NotPermitted` if others use it, `Busy` if it is
    off its default domain or has PASIDs attached, and what attaching the blocking domain raises.
    """
    _require_owner(owner)
    group = group_of(device)
    if group.owner_cnt:
        if group.owner is not owner:
            raise NotPermitted(f"IOMMU group {group.id} is {_state(group)}")
        group.owner_cnt += 1
        return
    _take(group, owner)


def claim_group(group: IommuGroup, owner: object) -> None:
    """As `claim_device`, for the whole group, and once only: any use or claim there is means `NotPermitted`."""
    _require_owner(owner)
    if group.owner_cnt:
        raise NotPermitted(f"IOMMU group {group.id} is {_state(group)}")
    _take(group, owner)


def release_device(device: Attachable) -> None:
    """Take back one claim; the last one gives the group its default domain again. `NoDevice` without a group."""
    group = group_of(device)
    if group.owner_cnt > 1:
        group.owner_cnt -= 1
    else:
        release_group(group)


def release_group(group: IommuGroup) -> None:
    """Take back all claims; nothing happens if nobody owns it, or PASIDs are still attached."""
    if group.owner is None or group.pasids or group.default_domain is None:
        return
    group.owner_cnt, group.owner = 0, None
    group.set_domain(group.default_domain, must_succeed=True)


def _take(group: IommuGroup, owner: object) -> None:
    if (group.domain is not None and group.domain is not group.default_domain) or group.pasids:
        raise Busy(f"IOMMU group {group.id} can't be claimed: it is {_state(group)}")
    group.set_domain(group.need_blocking_domain())
    group.owner, group.owner_cnt = owner, 1


def _require_owner(owner: object) -> None:
    if owner is None:
        raise InvalidArgument("nobody can't be an owner")


def _state(group: IommuGroup) -> str:
    if group.owner is not None:
        return f"owned by {group.owner!r}"
    if group.domain is not group.default_domain:
        return f"attached to {name_of(group.domain)}"
    return (
        f"attached with {len(group.pasids)} PASIDs"
        if group.pasids
        else f"in use by {group.owner_cnt} drivers of the kernel"
    )
