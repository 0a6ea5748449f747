"""Which domain a group has when nobody asks for another: how its type is chosen, what has to be in it first.

Source: ``iommu_get_default_domain_type``, ``iommu_group_alloc_default_domain``, ``iommu_setup_default_domain``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import attrs

from swiommu.address import Prot, align_up
from swiommu.errors import InvalidArgument, NotSupported, SwiommuError
from swiommu.iommu.groups.iommu_domain import free_domain, record_of
from swiommu.iommu.groups.mapping import iova_to_phys, map_range
from swiommu.iommu.groups.reserved_regions import host_bridge_holes
from swiommu.iommu.groups.types import Cookie, DomainType, Hwpt
from swiommu.layer import Reserved, ReservedKind

if TYPE_CHECKING:
    from swiommu.iommu import Domain
    from swiommu.iommu.groups.group import IommuGroup, Member

__all__ = ["Defaults", "default_type", "follow_members", "map_direct", "setup_default_domain"]

_DIRECT = (ReservedKind.DIRECT, ReservedKind.DIRECT_RELAXABLE)
_log = logging.getLogger(__name__)


@attrs.define(kw_only=True)
class Defaults:
    """The command line: ``iommu.passthrough``, ``iommu.strict``, ``iommu.forcedac``.

    ``forcedac``: PCI devices are given the highest bus addresses that they can drive, not first those below 4 GiB.

    >>> Defaults(passthrough=True, strict=True).type.name, Defaults().type.name, Defaults(strict=True).type.name
    ('IDENTITY', 'DMA_FQ', 'DMA')
    """

    passthrough: bool = False
    strict: bool = False
    forcedac: bool = False

    @property
    def type(self) -> DomainType:
        """What a group gets if its driver does not care."""
        if self.passthrough:
            return DomainType.IDENTITY
        return DomainType.DMA if self.strict else DomainType.DMA_FQ


def default_type(group: IommuGroup, wanted: DomainType | None = None) -> DomainType | None:
    """The type that ``group`` must have, if its driver, its members or ``wanted`` say so; None: any will do.

    Members that must have different ones get identity, if one of them wants that, else what the first wants.
    `InvalidArgument` if an untrusted device, or ``wanted``, is against what the driver demands.
    """
    demanded: DomainType | None = None
    for member in group.members:
        asked = group.hardware.demands.get(member.device.name)
        if asked is None or asked is demanded:
            continue
        if demanded is not None:
            _log.error(
                "IOMMU driver error, requesting conflicting def_domain_type, %s and %s, for devices in group %d",
                demanded.log_name,
                asked.log_name,
                group.id,
            )
        if demanded is None or asked is DomainType.IDENTITY:
            demanded = asked
    untrusted = next((member.device.name for member in group.members if member.untrusted), None)
    if untrusted is not None:
        if demanded not in {None, DomainType.DMA}:
            raise InvalidArgument(
                f"device {untrusted!r} is not trusted, but its driver demands {demanded!r} for IOMMU group {group.id}"
            )
        demanded = DomainType.DMA
    if wanted is not None and demanded not in {None, wanted}:
        raise InvalidArgument(f"IOMMU group {group.id} can't have {wanted!r}: it must have {demanded!r}")
    return wanted if wanted is not None else demanded


def setup_default_domain(group: IommuGroup, defaults: Defaults, wanted: DomainType | None = None) -> None:
    """Choose and make the default domain, map what firmware needs, attach; all or nothing.

    Raises what `default_type`, making and attaching raise.
    """
    old, domain = group.default_domain, _alloc(group, default_type(group, wanted), defaults.type)
    if domain is old:
        return
    try:
        record = record_of(domain)
        if record.type.dma_api:
            record.take_cookie(Cookie.DMA_IOVA)
        failed = _map_all_direct(group, domain)
        group.default_domain = domain
        # Drivers are not allowed to fail the first attach.
        group.set_domain(domain, must_succeed=group.domain is None)
        if failed:  # some drivers need a device before they map
            for member in group.members:
                map_direct(domain, member)
    except BaseException:
        if old is not None and group.domain is domain:
            group.set_domain(old, must_succeed=True)
        if group.domain is not domain:  # else it is the first, and goes when the device is given up
            group.default_domain = old
            free_domain(domain)
        raise
    if old is not None:
        _give_up(old)  # first: without translation both take what is kept clear from one region
    _keep_clear(group, domain)
    follow_members(group, defaults)


def _alloc(group: IommuGroup, kind: DomainType | None, default: DomainType) -> Domain[Any]:
    if kind is not None:
        return _alloc_as(group, kind)
    try:
        return _alloc_as(group, default)
    except SwiommuError:
        if default is DomainType.DMA:
            raise
        domain = _alloc_as(group, DomainType.DMA)
        _log.warning(
            "Failed to allocate default IOMMU domain of type %d for group %d - Falling back to IOMMU_DOMAIN_DMA",
            default,
            group.id,
        )
        return domain


def _alloc_as(group: IommuGroup, kind: DomainType) -> Domain[Any]:
    if kind.paging and any(member.max_pasids for member in group.members[:1]):
        try:
            return group.hardware.alloc(kind, Hwpt.PASID)
        except NotSupported:
            pass  # then without PASIDs
    return group.hardware.alloc(kind)


def _map_all_direct(group: IommuGroup, domain: Domain[Any]) -> bool:
    failed = False
    for member in group.members:
        try:
            map_direct(domain, member)
        except SwiommuError as error:
            _log.warning("IOMMU driver was not able to establish FW requested direct mapping: %s", error)
            failed = True
    return failed


def map_direct(domain: Domain[Any], member: Member) -> None:
    """Map the direct regions of ``member`` one to one, if the DMA API will use ``domain``.

    Both ends are rounded **up** to the smallest page; pages that are mapped already are left. Raises as `map_range`.
    """
    record = record_of(domain)
    if not record.type.dma_api:
        return
    page = record.pgsize_bitmap & -record.pgsize_bitmap
    for region in member.regions:
        if region.kind in _DIRECT:
            for start, size in _unmapped(domain, region, page):
                map_range(domain, start, start, size, Prot.READ | Prot.WRITE)


def _unmapped(domain: Domain[Any], region: Reserved, page: int) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for at in range(align_up(region.start, page), align_up(region.stop, page), page):
        if iova_to_phys(domain, at):
            continue
        if runs and sum(runs[-1]) == at:
            runs[-1] = (runs[-1][0], runs[-1][1] + page)
        else:
            runs.append((at, page))
    return runs


def follow_members(group: IommuGroup, defaults: Defaults) -> None:
    """Let the DMA API choose addresses of the default domain for those who are in ``group`` now.

    PCI devices try below 4 GiB first, unless ``defaults`` says otherwise; of a domain with one of them all do, since
    nobody tells it who asks. Source: ``iommu_setup_dma_ops``, ``pci_32bit_workaround`` of ``struct dev_iommu``.
    """
    record = None if group.default_domain is None else record_of(group.default_domain)
    if record is not None and record.iova is not None:
        pci = any(member.pci is not None for member in group.members)
        record.iova.asked_by(pci=pci, forcedac=defaults.forcedac)


def _keep_clear(group: IommuGroup, domain: Domain[Any]) -> None:
    # What the DMA API must not give out: software's own message windows are its to place.
    if not record_of(domain).type.dma_api:
        return
    for host in {member.pci.bus.root.host for member in group.members if member.pci is not None}:
        for first, last in host_bridge_holes(host):
            if first <= domain.aperture_last:
                hole = Reserved(first, min(last, domain.aperture_last) + 1 - first)
                domain.place.withhold_region(hole, own=False)
    for region in group.regions:
        if region.kind is not ReservedKind.SW_MSI and region.start <= domain.aperture_last:
            domain.reserve(region)


def _give_up(old: Domain[Any]) -> None:
    try:
        free_domain(old)
    except SwiommuError as error:
        _log.warning("the former default domain stays: %s", error)
