"""A device that has a domain gets another: stacked on the one it has, in its place, or not at all.

What it had comes back when it is detached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from swiommu.errors import Busy, InvalidArgument, OutOfRange
from swiommu.layer import ReservedKind
from swiommu.policy import Policy

if TYPE_CHECKING:
    from swiommu.address import BusAddr, BusSpace, Space
    from swiommu.layer import Node, Reserved

__all__ = ["AttachPolicy", "Attachable", "Attachments", "move", "require_attachable", "require_detachable"]


class AttachPolicy(Policy):
    """What becomes of the domain that a device has when it is attached to another."""

    STACK = "stack"
    REPLACE = "replace"
    REFUSE = "refuse"


class AttachedDomain(Protocol):
    """A domain, as far as devices are attached to it."""

    input_space: BusSpace
    output_space: Space
    aperture_first: int
    aperture_last: int
    finest_granule: int
    node: Node

    @property
    def below(self) -> AttachedDomain | None:
        """The domain that it is stacked on."""
        ...

    @property
    def destroyed(self) -> bool:
        """Whether it has ended."""
        ...

    def iova_to_memory(self, iova: BusAddr) -> Any:
        """Where an address leads in the end."""
        ...

    def welcome(self, device: Any) -> None:
        """Have the device."""
        ...

    def give_away(self, device: Any) -> None:
        """Have it no more."""
        ...


class Attachable(Protocol):
    """What a domain needs to know of a device; ``dma_mask`` is the highest bus address that it can drive.

    Only domains set ``domain``. ``group``: the IOMMU group that decides on it, if the device is in one.
    """

    name: str
    dma_mask: int
    domain: Any
    group: Any


class Attachments:
    """The devices of one domain, in order; ``limit`` is the highest bus address that all of them can drive."""

    def __init__(self, domain: AttachedDomain) -> None:
        self.devices: list[Attachable] = []
        self.limit = domain.aperture_last
        self._domain = domain
        self._had: list[tuple[Attachable, AttachedDomain]] = []  # what devices were attached to before

    def attach(self, device: Attachable, policy: AttachPolicy) -> None:
        """See `Domain.attach`."""
        require_attachable(self._domain, device, policy)
        before: AttachedDomain | None = device.domain
        if before is not None:
            self._had.append((device, before))
        try:
            move(device, self._domain)
        except BaseException:  # of a device that is anybody's
            self._had = [each for each in self._had if each[0] is not device]
            self.devices = [other for other in self.devices if other is not device]
            if before is not None and device.domain is not before:
                before.welcome(device)
            raise

    def detach(self, device: Attachable) -> None:
        """See `Domain.detach`."""
        held = next((held for other, held in self._had if other is device), None)
        if held is None:
            require_detachable(device)
        self._had = [each for each in self._had if each[0] is not device]
        move(device, None if held is None or held.destroyed else held)

    def add(self, device: Attachable) -> None:
        """Have the device; nobody is asked."""
        device.domain = self._domain
        self.devices.append(device)
        self.follow_masks()

    def remove(self, device: Attachable) -> None:
        """Have the device no more."""
        device.domain = None
        self.devices = [other for other in self.devices if other is not device]
        self.follow_masks()

    def follow_masks(self) -> None:
        """Keep ``limit`` under the masks that the devices have now."""
        self.limit = min([self._domain.aperture_last, *(device.dma_mask for device in self.devices)])


def require_attachable(domain: AttachedDomain, device: Attachable, policy: AttachPolicy) -> None:
    """Refuse what can't be attached: `Busy`, or what does not fit the domain that the device has."""
    held = device.domain
    if device.group is not None and (held is None or policy is AttachPolicy.REPLACE):
        raise Busy(f"device {device.name!r} is in an IOMMU group, which decides on its domain: {device.group!r}")
    if held is None:
        return
    attached = f"device {device.name!r} is attached to the domain of {held.input_space.name!r}"
    if held is domain or policy is AttachPolicy.REFUSE:
        raise Busy(attached)
    if policy is AttachPolicy.REPLACE:
        return
    if held not in _below(domain):
        raise Busy(
            f"{attached}, and the domain of {domain.input_space.name!r} can't be stacked on that: it leads to "
            f"{domain.output_space.name!r}"
        )
    _require_fit(domain, device)


def require_detachable(device: Attachable) -> None:
    """`Busy` for a device whose domain is that of its IOMMU group."""
    if device.group is not None:
        raise Busy(f"device {device.name!r} is in an IOMMU group, which decides on its domain: {device.group!r}")


def move(device: Attachable, domain: AttachedDomain | None) -> None:
    """Give ``device`` another domain, or none; nobody is asked, and nothing remembers what it had."""
    if device.domain is not None:
        device.domain.give_away(device)
    if domain is not None:
        domain.welcome(device)


def _below(domain: AttachedDomain) -> list[AttachedDomain]:
    found = []
    while domain.below is not None:
        domain = domain.below
        found.append(domain)
    return found


def _require_fit(domain: AttachedDomain, device: Attachable) -> None:
    # Apertures and granules of the stages were held against each other when the stack was built.
    if device.dma_mask < domain.aperture_first:
        raise OutOfRange(
            f"device {device.name!r} drives addresses up to {device.dma_mask:#x}, the aperture of the domain of "
            f"{domain.input_space.name!r} begins at {domain.aperture_first:#x}",
        )
    for lower in (domain, *_below(domain)):
        for region in lower.node.reserved:
            if region.kind is ReservedKind.DIRECT:
                _require_direct(domain, region, lower)


def _require_direct(domain: AttachedDomain, region: Reserved, owner: AttachedDomain) -> None:
    step = domain.finest_granule
    for at in range(region.start & -step, region.stop, step):
        found = None
        if at <= min(domain.aperture_last, domain.input_space.limit - 1):
            iova: BusAddr = domain.input_space.at(at)
            found = domain.iova_to_memory(iova)
        if found is None or found.value != at:
            where = "nowhere" if found is None else f"to {found.value:#x}"
            raise InvalidArgument(
                f"the {region} of the domain of {owner.input_space.name!r} must be found at the same addresses in "
                f"memory, but {at:#x} of the domain of {domain.input_space.name!r} leads {where}",
                start=region.start,
                size=region.size,
                iova=at,
            )
