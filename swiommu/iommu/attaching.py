"""A device that has a domain gets another: stacked on the one it has, in its place, or not at all.

What it had comes back when it is detached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiommu.errors import Busy, InvalidArgument, OutOfRange
from swiommu.layer import ReservedKind

if TYPE_CHECKING:
    from swiommu.address import BusAddr
    from swiommu.iommu.domain import Attachable, Domain
    from swiommu.layer import Reserved

__all__ = ["POLICIES", "move", "require_attachable", "require_detachable"]

POLICIES = ("stack", "replace", "refuse")


def require_attachable(domain: Domain[Any], device: Attachable, policy: str) -> None:
    """Refuse what can't be attached: `Busy`, or what does not fit the domain that the device has."""
    if policy not in POLICIES:
        raise InvalidArgument(f"no policy {policy!r} for a device that has a domain: there are {', '.join(POLICIES)}")
    held = device.domain
    if device.group is not None and (held is None or policy == "replace"):
        raise Busy(f"device {device.name!r} is in an IOMMU group, which decides on its domain: {device.group!r}")
    if held is None:
        return
    attached = f"device {device.name!r} is attached to the domain of {held.input_space.name!r}"
    if held is domain or policy == "refuse":
        raise Busy(attached)
    if policy == "replace":
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


def move(device: Attachable, domain: Domain[Any] | None) -> None:
    """Give ``device`` another domain, or none; nobody is asked, and nothing remembers what it had."""
    if device.domain is not None:
        device.domain.give_away(device)
    if domain is not None:
        domain.welcome(device)


def _below(domain: Domain[Any]) -> list[Domain[Any]]:
    found = []
    while domain.below is not None:
        domain = domain.below
        found.append(domain)
    return found


def _require_fit(domain: Domain[Any], device: Attachable) -> None:
    # Apertures and granules of the stages were held against each other when the stack was built.
    if device.dma_mask < domain.aperture_first:
        raise OutOfRange(
            f"device {device.name!r} drives addresses up to {device.dma_mask:#x}, the aperture of the domain of "
            f"{domain.input_space.name!r} begins at {domain.aperture_first:#x}",
            dma_mask=device.dma_mask,
            first=domain.aperture_first,
        )
    for lower in (domain, *_below(domain)):
        for region in lower.node.reserved:
            if region.kind is ReservedKind.DIRECT:
                _require_direct(domain, region, lower)


def _require_direct(domain: Domain[Any], region: Reserved, owner: Domain[Any]) -> None:
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
