"""The kernel's IOMMU core: which devices there are, in which groups, with what on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiommu.errors import Busy, InvalidArgument, NotPermitted
from swiommu.iommu.attaching import move
from swiommu.iommu.groups.default_domain import Defaults, follow_members, map_direct, setup_default_domain
from swiommu.iommu.groups.events import GroupEvent
from swiommu.iommu.groups.group import IommuGroup, Member, group_of
from swiommu.iommu.groups.iommu_domain import free_domain
from swiommu.iommu.groups.pci_groups import existing_group
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from swiommu.iommu import Attachable
    from swiommu.iommu.groups.events import Listener
    from swiommu.iommu.groups.hardware import Hardware
    from swiommu.iommu.groups.types import Capability

__all__ = ["IommuCore", "capable"]


class IommuCore:
    r"""Puts devices into groups and gives these a default domain by ``defaults``; tells ``listeners`` what happens.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import Hardware
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
    >>> smmu = Hardware(name="smmu", bus=bus, ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> core = IommuCore(Defaults(passthrough=True))
    >>> core.listeners.append(print)
    >>> nic = BusDevice("nic", SparseRam(ram))
    >>> group = core.probe(nic, smmu)
    add_device_to_group: IOMMU: groupID=0 device=nic
    attach_device_to_domain: IOMMU: device=nic
    >>> group.type_text, nic.read(bus.at(0x4000_0000), 4)
    ('identity\n', b'\x00\x00\x00\x00')
    >>> core.release(nic)
    remove_device_from_group: IOMMU: groupID=0 device=nic
    """

    __copy__ = no_shallow_copy

    def __init__(self, defaults: Defaults | None = None) -> None:
        self.defaults = defaults or Defaults()
        self.groups: dict[int, IommuGroup] = {}
        self.listeners: list[Listener] = []
        self._shared: dict[Hardware, IommuGroup] = {}  # where an IOMMU has one group for all

    def probe(self, device: Attachable, hardware: Hardware, *, defer: bool = False, **facts: Any) -> IommuGroup:
        """Find ``device`` behind ``hardware``: its group, with the domain that this has, or a default domain.

        ``facts`` are the fields of `Member`. ``defer``: a new group gets its default domain only with `finish`, when
        all devices have been found. A device that is in a group stays there. Raises `Busy` for one that has a domain
        already, `InvalidArgument` for a PCI group behind another IOMMU or a device without a PCI function where that
        decides, and what setting up the default domain, or attaching, raises: then it is in no group.
        Source: ``__iommu_probe_device``.
        """
        if device.group is not None:
            return group_of(device)
        if device.domain is not None:
            raise Busy(f"device {device.name!r} is attached to the domain of {device.domain.input_space.name!r}")
        member = Member(device=device, **facts)
        group = self._find(member, hardware)
        try:
            self._add(group, member)
            if group.default_domain is not None:
                map_direct(group.default_domain, member)
            if group.domain is not None:
                group.set_device_domain(member, group.domain)
            elif not defer:
                setup_default_domain(group, self.defaults)
        except BaseException:
            self._remove(group, member)
            raise
        follow_members(group, self.defaults)
        return group

    def finish(self) -> None:
        """Give a default domain to each group that has none yet; raises what setting it up raises."""
        for group in self.groups.values():
            if group.default_domain is None:
                setup_default_domain(group, self.defaults)

    def release(self, device: Attachable) -> None:
        """``device`` is gone; an empty group goes with it. `NoDevice` if it is in none.

        `NotPermitted` for the last device of a group in use.
        """
        group = group_of(device)
        if len(group.members) == 1 and group.owner_cnt:
            raise NotPermitted(f"IOMMU group {group.id} is in use {group.owner_cnt} times")
        self._remove(group, group.member(device))

    def _find(self, member: Member, hardware: Hardware) -> IommuGroup:
        group: IommuGroup | None = None
        if hardware.grouping == "pci":
            if member.pci is None:
                raise InvalidArgument(f"device {member.device.name!r} is no PCI function, as {hardware!r} groups them")
            group = existing_group(member.pci)
        elif hardware.grouping == "iommu":
            group = self._shared.get(hardware)
        if group is None:
            number = next(number for number in range(len(self.groups) + 1) if number not in self.groups)
            group = self.groups[number] = IommuGroup(number, hardware, self.listeners)
            if hardware.grouping == "iommu":
                self._shared[hardware] = group
        elif group.hardware is not hardware:
            raise InvalidArgument(
                f"device {member.device.name!r} belongs to group {group.id}, behind {group.hardware!r}"
            )
        return group

    def _add(self, group: IommuGroup, member: Member) -> None:
        group.members.append(member)
        member.device.group = group
        if member.pci is not None:
            member.pci.group = group
        group.tell(GroupEvent.add(member.device.name, group.id))

    def _remove(self, group: IommuGroup, member: Member) -> None:
        group.members = [other for other in group.members if other is not member]
        move(member.device, None)
        member.device.group = None
        if member.pci is not None:
            member.pci.group = None
        try:
            group.tell(GroupEvent.remove(member.device.name, group.id))
        finally:
            self._give_up(group)

    def _give_up(self, group: IommuGroup) -> None:
        if group.members:
            follow_members(group, self.defaults)
            return
        del self.groups[group.id]
        self._shared.pop(group.hardware, None)
        group.domain = None
        for domain in (group.default_domain, group.blocking_domain):
            if domain is not None:
                free_domain(domain)


def capable(device: Attachable, capability: Capability) -> bool:
    """Whether the IOMMU of ``device`` can do that; False without one. Source: ``device_iommu_capable``.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import Capability
    >>> from swiommu.memory import SparseRam
    >>> capable(BusDevice("nic", SparseRam(PhysSpace("ram"))), Capability.CACHE_COHERENCY)
    False
    """
    return device.group is not None and group_of(device).hardware.capable(device, capability)
