"""Writing to ``/sys/kernel/iommu_groups/N/type``: another kind of default domain while the machine runs.

Source: ``iommu_group_store_type``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import AccessDenied, InvalidArgument, NotPermitted
from swiommu.iommu.groups.default_domain import setup_default_domain
from swiommu.iommu.groups.iommu_domain import record_of
from swiommu.iommu.groups.types import DomainType

if TYPE_CHECKING:
    from collections.abc import Collection

    from swiommu.iommu.groups.default_domain import Defaults
    from swiommu.iommu.groups.group import IommuGroup

__all__ = ["RIGHTS", "write_type"]

RIGHTS = ("SYS_ADMIN", "SYS_RAWIO")
_WORDS = {"identity": DomainType.IDENTITY, "DMA": DomainType.DMA, "DMA-FQ": DomainType.DMA_FQ, "auto": None}


def write_type(group: IommuGroup, text: str, defaults: Defaults, rights: Collection[str] = RIGHTS) -> None:
    r"""Change the default domain of ``group`` to ``text``: "identity", "DMA", "DMA-FQ" or "auto"; a newline is allowed.

    From "DMA" to "DMA-FQ" it is the same domain, in use or not; all else is a new one and needs all drivers unbound.
    Raises, in this order: `AccessDenied` without both ``rights``, `InvalidArgument` without a default domain or for
    another word, `NotPermitted` for a group without members or in use, `NotSupported` for "DMA-FQ" where nothing is
    cached, and what `setup_default_domain` does.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.iommu.groups import Defaults, Hardware, IommuCore
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram, core = PhysSpace("ram", width=40), IommuCore(Defaults(strict=True))
    >>> smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> group = core.probe(BusDevice("nic", SparseRam(ram)), smmu)
    >>> before = group.type_text; write_type(group, "DMA-FQ", core.defaults)
    >>> before, group.type_text
    ('DMA\n', 'DMA-FQ\n')
    """
    missing = [right for right in RIGHTS if right not in rights]
    if missing:
        raise AccessDenied(f"the type of IOMMU group {group.id} can't be changed without {' and '.join(missing)}")
    word = text.removesuffix("\n")
    if group.default_domain is None or word not in _WORDS:
        raise InvalidArgument(f"IOMMU group {group.id} can't have type {word!r}: there are {', '.join(_WORDS)}")
    wanted, record = _WORDS[word], record_of(group.default_domain)
    if wanted is DomainType.DMA_FQ and record.type is DomainType.DMA:
        record.domain.flush_lazily()
        record.type = DomainType.DMA_FQ
        return
    if not group.members or group.owner_cnt:
        raise NotPermitted(
            f"IOMMU group {group.id} can't change its type with {len(group.members)} devices, in use "
            f"{group.owner_cnt} times",
        )
    setup_default_domain(group, defaults, wanted)
