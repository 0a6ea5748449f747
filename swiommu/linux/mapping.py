"""Mapping and unmapping by the kernel's names, and the gathering of what is to be flushed.

Addresses are plain numbers or know their space; `SpaceMismatch`, an EINVAL, for one of another space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiommu.address import BusAddr, as_integer, as_number
from swiommu.errors import InvalidArgument
from swiommu.iommu.groups import Gfp, gather_for, iova_to_phys, map_range, map_sg, sync_map, unmap_range
from swiommu.linux.answers import answer, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import PhysAddr
    from swiommu.iommu import Domain, IotlbGather, Scatterlist

__all__ = [
    "iommu_flush_iotlb_all",
    "iommu_iotlb_gather_add_page",
    "iommu_iotlb_gather_add_range",
    "iommu_iotlb_gather_init",
    "iommu_iotlb_gather_is_disjoint",
    "iommu_iotlb_gather_queued",
    "iommu_iotlb_sync",
    "iommu_iova_to_phys",
    "iommu_map",
    "iommu_map_nosync",
    "iommu_map_sg",
    "iommu_sync_map",
    "iommu_unmap",
    "iommu_unmap_fast",
]


def iommu_map(
    domain: Domain[Any],
    iova: BusAddr | int,
    paddr: PhysAddr | BusAddr | int,
    size: int,
    prot: int,
    gfp: int = Gfp.KERNEL,
) -> int:
    """0 or a negative errno, in the order of `swiommu.iommu.groups.map_range`.

    Without translation ``iova`` has to be where the bus shows ``paddr``: else -EOPNOTSUPP, which no kernel answers, as
    none has such domains.
    """
    return answer(map_range, domain, iova, paddr, size, prot, gfp) or 0


def iommu_map_nosync(
    domain: Domain[Any],
    iova: BusAddr | int,
    paddr: PhysAddr | BusAddr | int,
    size: int,
    prot: int,
    gfp: int = Gfp.KERNEL,
) -> int:
    """As `iommu_map`, but the hardware learns of it by `iommu_sync_map`."""
    return answer(map_range, domain, iova, paddr, size, prot, gfp, sync=False) or 0


def iommu_sync_map(domain: Domain[Any], iova: BusAddr | int, size: int) -> int:
    """Let the hardware learn of what was mapped; if it refuses, that is unmapped and the answer negative."""
    return answer(sync_map, domain, iova, size) or 0


def iommu_map_sg(
    domain: Domain[Any],
    iova: BusAddr | int,
    sg: Sequence[Scatterlist],
    nents: int,
    prot: int,
    gfp: int = Gfp.KERNEL,
) -> int:
    """The bytes mapped of the first ``nents`` entries, or a negative errno: `swiommu.iommu.groups.map_sg`.

    -EINVAL for more entries than there are, where a kernel reads on behind the list.
    """
    return answer(_map_sg, domain, iova, sg, nents, prot, gfp)


def _map_sg(
    domain: Domain[Any], iova: BusAddr | int, sg: Sequence[Scatterlist], nents: int, prot: int, gfp: int
) -> int:
    if not 0 <= as_integer(nents, "nents") <= len(sg):
        raise InvalidArgument(f"{nents} entries of a scatter list of {len(sg)}", count=nents)
    return map_sg(domain, iova, sg[: as_integer(nents, "nents")], prot, gfp)


def iommu_unmap(domain: Domain[Any], iova: BusAddr | int, size: int) -> int:
    """The bytes unmapped: fewer than ``size`` up to a hole, more if a large leaf went whole; never negative.

    If it is 0 and no hole is there, `last_error` says why.
    """
    return unmap_range(domain, iova, size, refused=note)


def iommu_iova_to_phys(domain: Domain[Any], iova: BusAddr | int) -> int:
    """The output address that it is mapped to; 0 if it is not mapped, and for page 0."""
    return iova_to_phys(domain, iova)


# -- gathering and flushing


def iommu_unmap_fast(domain: Domain[Any], iova: BusAddr | int, size: int, gather: IotlbGather) -> int:
    """As `iommu_unmap`, with the flush left to `iommu_iotlb_sync`.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu.groups import DomainType, Hardware
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram", width=40)
    >>> smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> domain = smmu.alloc(DomainType.UNMANAGED)
    >>> iommu_map(domain, 0x8000, 0, 0x3000, 3); gather = iommu_iotlb_gather_init(domain)
    0
    >>> iommu_unmap_fast(domain, 0x8000, 0x1000, gather), iommu_unmap_fast(domain, 0x9000, 0x2000, gather)
    (4096, 8192)
    >>> (hex(gather.start), hex(gather.last)); iommu_iotlb_sync(domain, gather); iommu_flush_iotlb_all(domain)
    ('0x8000', '0xafff')
    """
    return unmap_range(domain, iova, size, gather, refused=note)


def iommu_iotlb_gather_init(domain: Domain[Any]) -> IotlbGather:
    """An empty gather, for `iommu_unmap_fast` in this domain; raises `InvalidArgument` for one without mappings."""
    return gather_for(domain)


def iommu_iotlb_gather_add_range(gather: IotlbGather, iova: BusAddr | int, size: int) -> None:
    """Widen what is flushed to these bytes, with all that is between; a gather knows no space to compare with."""
    gather.add_range(_plain(iova), size)


def iommu_iotlb_gather_add_page(domain: Domain[Any], gather: IotlbGather, iova: BusAddr | int, size: int) -> None:
    """Add a page; if it is of another size than those before, or apart from them, these are flushed first.

    Raises `SpaceMismatch` for an address of another space than that of ``domain``.
    """
    gather.add_page(as_number(iova, domain.input_space, "iova"), size)


def iommu_iotlb_gather_is_disjoint(gather: IotlbGather, iova: BusAddr | int, size: int) -> bool:
    """Whether there is a gap between what was gathered and these bytes."""
    return gather.is_disjoint(_plain(iova), size)


def _plain(iova: BusAddr | int) -> int:
    return iova.value if isinstance(iova, BusAddr) else iova


def iommu_iotlb_gather_queued(gather: IotlbGather | None) -> bool:
    """Whether a flush of everything follows anyway; False for NULL."""
    return gather is not None and gather.queued


def iommu_iotlb_sync(domain: Domain[Any], gather: IotlbGather) -> None:
    """Flush what was gathered, with one command."""
    del domain
    gather.sync()


def iommu_flush_iotlb_all(domain: Domain[Any]) -> None:
    """Flush all that is cached of the domain; nothing where there is no translation."""
    domain.invalidate_all()
