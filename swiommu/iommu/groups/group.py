"""A group: the smallest set of devices that can be isolated, and so have one domain together.

Source: ``__iommu_attach_group``, ``__iommu_group_set_domain_internal``, ``__iommu_device_set_domain``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import attrs

from swiommu.errors import Busy, InvalidArgument, NoDevice, NotPermitted, NotSupported, SwiommuError
from swiommu.iommu.attaching import move
from swiommu.iommu.groups.events import GroupEvent
from swiommu.iommu.groups.iommu_domain import name_of, record_of
from swiommu.iommu.groups.reserved_regions import merged_regions, regions_text
from swiommu.iommu.groups.types import DomainType
from swiommu.layer import ReservedKind
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import Access, BusAddr
    from swiommu.iommu import Attachable, Domain
    from swiommu.iommu.groups.events import Listener
    from swiommu.iommu.groups.hardware import Hardware
    from swiommu.iommu.groups.pci import PciFunction
    from swiommu.layer import Reserved, Run

__all__ = ["IommuGroup", "Member", "group_of"]

_log = logging.getLogger(__name__)


@attrs.define(eq=False, kw_only=True)
class Member:
    """A device in a group, as the kernel's core knows it. ``untrusted``: it could be anybody's, on an open port.

    ``regions`` are its own reserved ones; ``driver`` the name of the one that is bound, or of its bus; ``resetting``:
    it is being reset, and no other domain can be given to its group meanwhile.
    """

    device: Attachable
    pci: PciFunction | None = None
    untrusted: bool = False
    regions: tuple[Reserved, ...] = ()
    max_pasids: int = 0
    driver: str = "platform"
    resetting: bool = False

    @property
    def require_direct(self) -> bool:
        """Whether firmware needs some of its memory at the same addresses, always."""
        return any(region.kind is ReservedKind.DIRECT for region in self.regions)


class IommuGroup:
    """Devices behind ``hardware`` that have one ``domain`` at a time; `IommuCore` makes groups.

    ``default_domain`` is what they have when nobody asks for another, ``blocking_domain`` what they have while somebody
    owns the group; both are made when first needed. ``owner`` and ``owner_cnt``: see `swiommu.iommu.groups.ownership`.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import DomainType, Hardware, IommuCore
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
    >>> smmu = Hardware(name="smmu", bus=bus, ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> nic = BusDevice("nic", SparseRam(ram))
    >>> group = IommuCore().probe(nic, smmu)
    >>> group.id, group.domain.kernel, group.domain is group.default_domain
    (0, IommuDomain(Translated of 'smmu'), True)
    >>> mine = smmu.alloc(DomainType.UNMANAGED)
    >>> group.attach_device(mine, nic); nic.domain is mine
    True
    >>> group.detach_device(nic); group.domain is group.default_domain
    True
    """

    __copy__ = no_shallow_copy

    def __init__(self, number: int, hardware: Hardware, listeners: Sequence[Listener]) -> None:
        self.id = number
        self.hardware = hardware
        self.members: list[Member] = []
        self.domain: Domain[Any] | None = None
        self.default_domain: Domain[Any] | None = None
        self.blocking_domain: Domain[Any] | None = None
        self.owner: object = None
        self.owner_cnt = 0
        self.pasids: dict[int, Domain[Any]] = {}
        self._listeners = listeners

    def __repr__(self) -> str:
        return f"IommuGroup({self.id}: {', '.join(member.device.name for member in self.members)})"

    def tell(self, event: GroupEvent) -> None:
        """Let the listeners know."""
        for listener in tuple(self._listeners):
            listener(event)

    def member(self, device: Attachable) -> Member:
        """What is known of ``device``; `NoDevice` if it is in another group or none."""
        for member in self.members:
            if member.device is device:
                return member
        raise NoDevice(f"device {device.name!r} is not in IOMMU group {self.id}")

    # -- attaching

    def attach_device(self, domain: Domain[Any], device: Attachable) -> None:
        """As `attach_group`, for the only member; `InvalidArgument` if there are others, which it would go to as well.

        Source: ``iommu_attach_device``.
        """
        self.member(device)
        if len(self.members) != 1:
            raise InvalidArgument(
                f"device {device.name!r} is one of {len(self.members)} in IOMMU group {self.id}: attach the group",
            )
        self.attach_group(domain)

    def attach_group(self, domain: Domain[Any]) -> None:
        """Give all members ``domain``; all or nothing.

        Raises `Busy` if they have one that is neither default nor blocking, even the same one, while a member is reset,
        or while a software domain stands on theirs; `InvalidArgument` for a domain of another IOMMU, or one that blocks
        although firmware needs direct access; `NotPermitted` for any of VT-d then, before 6.7; and what the IOMMU's
        driver says. Source: ``iommu_attach_group``.
        """
        if self.domain not in {None, self.default_domain, self.blocking_domain}:
            raise Busy(f"IOMMU group {self.id} is attached to {name_of(self.domain)} already")
        own = {self.hardware.identity_domain, self.hardware.blocked_domain}
        record = record_of(domain)
        if record.owner is not self.hardware and domain not in own:
            raise InvalidArgument(
                f"{record!r} is not a domain of IOMMU {self.hardware.name!r}, where group {self.id} is"
            )
        for member in self.members:
            if member.resetting:
                raise Busy(f"device {member.device.name!r} of IOMMU group {self.id} is being reset")
        self.set_domain(domain)

    def detach_device(self, device: Attachable) -> None:
        """As `detach_group`, for the only member; nothing happens if there are others.

        Source: ``iommu_detach_device``.
        """
        self.member(device)
        if len(self.members) == 1:
            self.detach_group()
        else:
            _log.warning("device %s is not alone in IOMMU group %d: not detached", device.name, self.id)

    def detach_group(self) -> None:
        """Give all members the default domain, or the blocking one while the group has an owner.

        Source: ``__iommu_group_set_core_domain``.
        """
        back = self.blocking_domain if self.owner is not None else self.default_domain
        if back is not None:
            self.set_domain(back, must_succeed=True)

    def set_domain(self, domain: Domain[Any], *, must_succeed: bool = False) -> None:
        """Give all members ``domain`` unless they have it; if one can't, the earlier ones get back what they had.

        ``must_succeed``: those that can't have it are blocked, and the others go on.
        """
        if self.domain is domain:
            return
        self.require_bare()
        for place, member in enumerate(self.members):
            try:
                self.set_device_domain(member, domain, must_succeed=must_succeed)
            except BaseException as error:
                if must_succeed and isinstance(error, SwiommuError):
                    _log.warning("device %s can't have %r: %s", member.device.name, record_of(domain), error)
                    continue
                self._put_back(self.members[: place + 1])
                raise
        self.domain = domain

    def set_device_domain(self, member: Member, domain: Domain[Any], *, must_succeed: bool = False) -> None:
        """Give one member ``domain``, where firmware lets it.

        A device that needs memory at the same addresses can't be blocked since 6.7: `InvalidArgument`. Before, the
        driver of VT-d gave it no domain of an owner's: `NotPermitted`. Source: ``__iommu_device_set_domain``,
        ``device_is_rmrr_locked``.
        """
        if member.require_direct:
            self._require_direct_kept(member, domain)
        try:
            self._attach(member, domain)
        except SwiommuError:
            if must_succeed and self.blocking_domain is not None and self.blocking_domain is not domain:
                self._attach(member, self.blocking_domain)
            raise

    def _require_direct_kept(self, member: Member, domain: Domain[Any]) -> None:
        record = record_of(domain)
        needs = f"device {member.device.name!r} needs memory at the same addresses"
        if self.hardware.profile.core_keeps_direct_regions:
            if record.type is DomainType.BLOCKED or domain is self.blocking_domain:
                raise InvalidArgument(f"{needs}: firmware rejects {record!r}")
            return
        form = self.hardware.format
        if form is not None and form.name.startswith("vtd-") and record.type is DomainType.UNMANAGED:
            raise NotPermitted(f"{needs} (RMRR): VT-d refuses {record!r}")

    def _attach(self, member: Member, domain: Domain[Any]) -> None:
        self.hardware.attach(domain, member.device)
        move(member.device, domain)
        self.tell(GroupEvent.attach(member.device.name))

    def _put_back(self, members: Sequence[Member]) -> None:
        # Also the one that failed: who knows what its driver did before it failed.
        if self.domain is not None:
            for member in members:
                try:
                    self.set_device_domain(member, self.domain, must_succeed=True)
                except SwiommuError as error:
                    _log.warning("device %s can't be put back: %s", member.device.name, error)

    def require_bare(self) -> None:
        """`Busy` if a software domain stands on the group's for one of the members."""
        for member in self.members:
            held = member.device.domain
            if member.resetting or held is None or self.domain is None:
                continue
            if held is not self.domain:
                raise Busy(
                    f"device {member.device.name!r} of IOMMU group {self.id} is attached to the domain of "
                    f"{held.input_space.name!r}, which stands on the group's",
                )

    # -- what a device does

    def translate(self, device: Attachable, iova: BusAddr, size: int, access: Access) -> list[Run]:
        """As `Domain.translate` of what ``device`` is attached to; a fault is reported as of this device.

        Raises `NoDevice` while it has no domain.
        """
        held: Domain[Any] | None = device.domain
        if held is None or self.domain is None:
            raise NoDevice(f"device {device.name!r} is not attached to a domain")
        stream: Any = device  # a protocol can't say that it is hashable as any object is
        with record_of(self.domain).asked_by(device):
            return held.translate(iova, size, access, stream=stream)

    # -- what sysfs shows

    @property
    def regions(self) -> list[Reserved]:
        """The reserved regions of all members, merged."""
        return merged_regions(region for member in self.members for region in member.regions)

    @property
    def reserved_regions_text(self) -> str:
        """What ``/sys/kernel/iommu_groups/N/reserved_regions`` holds."""
        return regions_text(self.regions)

    @property
    def type_text(self) -> str:
        """What ``/sys/kernel/iommu_groups/N/type`` holds: the word of the default domain's type."""
        word = "unknown" if self.default_domain is None else record_of(self.default_domain).type.sysfs_word
        return f"{word}\n"

    # -- the domain that blocks

    def need_blocking_domain(self) -> Domain[Any]:
        """The hardware's static one, or an empty paging domain of the group's own; raises what making one raises."""
        if self.blocking_domain is None:
            try:
                self.blocking_domain = self.hardware.alloc(DomainType.BLOCKED)
            except NotSupported:
                self.blocking_domain = self.hardware.alloc(DomainType.UNMANAGED)
        return self.blocking_domain

    def check(self) -> None:
        """Members go through the group's domain, counts and owner fit; `AssertionError` with a dump."""
        dump = f"{self!r} on {name_of(self.domain)}, owner {self.owner!r} {self.owner_cnt} times"
        assert self.owner_cnt >= 0, dump
        assert self.owner is None or self.owner_cnt, dump
        for member in self.members:
            assert member.device.group is self, dump
            if self.domain is not None and not member.resetting and member.device.domain is not None:
                chain = member.device.domain
                while chain is not self.domain and chain.below is not None:
                    chain = chain.below
                assert chain is self.domain, f"{member.device.name} goes another way: {dump}"


def group_of(device: Attachable) -> IommuGroup:
    """The group that ``device`` is in; `NoDevice` if it is in none, because no IOMMU is in its way."""
    group: IommuGroup | None = device.group
    if group is None:
        raise NoDevice(f"device {device.name!r} is in no IOMMU group")
    return group
