"""Mapping into a kernel's domain by its plain numbers: what is asked first is answered first, as Linux does it.

Which errno a page table answers is the format's (`swiommu.pagetable.Rules`). Unmapping answers bytes, never an error.
Source: ``iommu_map_nosync``, ``__iommu_unmap``, ``iommu_map_sg`` of drivers/iommu/iommu.c.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from swiommu.address import Prot, as_integer, as_integers, as_number
from swiommu.errors import AddressOverflow, InvalidArgument, NoDevice, OutOfRange, SwiommuError
from swiommu.iommu.groups.iommu_domain import record_of
from swiommu.iommu.groups.types import DomainType, Gfp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.address import BusAddr, PhysAddr, Space
    from swiommu.iommu import Domain
    from swiommu.iommu.gather import IotlbGather
    from swiommu.iommu.groups.iommu_domain import IommuDomain
    from swiommu.iommu.scatterlist import Scatterlist

__all__ = ["gather_for", "iova_to_phys", "map_range", "map_sg", "sync_map", "unmap_range"]

_FORBIDDEN = Gfp.COMP | Gfp.DMA | Gfp.DMA32 | Gfp.HIGHMEM
_WRAP = 1 << 64
_log = logging.getLogger(__name__)


def map_range(
    domain: Domain[Any],
    iova: BusAddr | int,
    paddr: PhysAddr | BusAddr | int,
    size: int,
    prot: int,
    gfp: int = Gfp.KERNEL,
    *,
    sync: bool = True,
) -> None:
    """Map ``size`` bytes at ``iova`` to ``paddr``, all or nothing; both are plain numbers or addresses of their spaces.

    Raises, in this order: `InvalidArgument` for a domain that takes no mappings, `NoDevice` without page sizes,
    `InvalidArgument` for a zone in ``gfp`` (before 6.16 this is first), what the format says of misaligned
    numbers, of 0 bytes (with a classic driver: nothing happens) and of missing rights, `AddressOverflow`, `OutOfRange`,
    what the page table says of occupied addresses, `NoMemory`, and what the hardware says once all is mapped.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu.groups import DomainType, Hardware
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram", width=40)
    >>> smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> domain = smmu.alloc(DomainType.UNMANAGED)
    >>> map_range(domain, 0x8000, 0x4000_0000, 0x3000, Prot.READ)
    >>> hex(iova_to_phys(domain, 0x9010)), iova_to_phys(domain, 0x1000), unmap_range(domain, 0x8000, 0x10_0000)
    ('0x40001010', 0, 12288)
    """
    record, space = record_of(domain), domain.output_space
    if type(iova) is not int or type(paddr) is not int or type(size) is not int:
        iova, paddr = _bus(domain, iova), as_number(paddr, space, "paddr")
        size = as_integer(size, "size")
    prot, gfp = as_integers(prot=prot, gfp=gfp)
    if record.owner.profile.gfp_checked_first:
        _require_gfp(gfp)
    if not record.type.paging:
        raise InvalidArgument(f"{record!r} takes no mappings")
    if not record.pgsize_bitmap:
        raise NoDevice(f"{record!r} has no page size to map with")
    _require_gfp(gfp)
    if not _require_range(record, iova, paddr, size, prot):
        return
    domain.map(domain.input_space.at(iova), record.owner.translation.output_space.at(paddr), size, Prot(prot))
    if sync and record.owner.sync_map is not None:
        sync_map(domain, iova, size)


def _bus(domain: Domain[Any], iova: BusAddr | int) -> int:
    return as_number(iova, domain.input_space, "iova")


def sync_map(domain: Domain[Any], iova: BusAddr | int, size: int) -> None:
    """Tell the hardware of what was mapped; if it refuses, all ``size`` bytes are unmapped and its error comes out."""
    if type(iova) is not int or type(size) is not int:
        iova, size = _bus(domain, iova), as_integer(size, "size")
    told = record_of(domain).owner.sync_map
    if told is not None:
        try:
            told(domain, iova, size)
        except BaseException:
            unmap_range(domain, iova, size)
            raise


def _require_gfp(gfp: int) -> None:
    if gfp & _FORBIDDEN:
        raise InvalidArgument(f"gfp flags {gfp:#x} ask for a zone or a compound page: tables take neither")


def _require_range(record: IommuDomain, iova: int, paddr: int, size: int, prot: int) -> bool:
    # Whether there is anything to map.
    own, limit = record.domain, record.owner.translation.output_limit
    rules, classic = own.rules, own.rules.maps_nothing
    smallest = record.pgsize_bitmap & -record.pgsize_bitmap
    if min(iova, paddr, size) < 0 or max(iova, paddr, size) >= _WRAP:
        raise InvalidArgument(f"iova {iova:#x}, paddr {paddr:#x} and size {size:#x} are not all of 64 bits")
    misaligned = (iova | paddr | size) & smallest - 1
    if classic:
        if misaligned:
            raise _misaligned(own, iova, paddr, size, smallest)
        if not size:
            return False
    if rules.no_access is not None and not prot & (Prot.READ | Prot.WRITE):
        raise rules.no_access(f"protection {prot:#x}: READ or WRITE is needed")
    if paddr >= limit:
        raise OutOfRange(f"paddr {paddr:#x} is beyond the {limit.bit_length() - 1} bits of the output", paddr=paddr)
    if not size:
        raise InvalidArgument(f"0 bytes at {iova:#x} can't be mapped", size=size)
    if iova + size > _WRAP and not classic:
        raise AddressOverflow(f"{size:#x} bytes at {iova:#x} wrap around 64 bits", iova=iova, size=size)
    if misaligned:
        raise _misaligned(own, iova, paddr, size, smallest)
    if iova + size > own.input_space.limit or paddr + size > limit:
        raise OutOfRange(
            f"{size:#x} bytes at iova {iova:#x} to {paddr:#x} leave the {own.input_space.width} bits of the input "
            f"or the {limit.bit_length() - 1} of the output",
            iova=iova,
            paddr=paddr,
            size=size,
        )
    return True


def _misaligned(domain: Domain[Any], iova: int, paddr: int, size: int, smallest: int) -> SwiommuError:
    return domain.rules.misaligned(
        f"unaligned: iova {iova:#x} pa {paddr:#x} size {size:#x} min_pagesz {smallest:#x}",
        iova=iova,
        paddr=paddr,
        size=size,
    )


def gather_for(domain: Domain[Any]) -> IotlbGather:
    """An empty gather for `unmap_range`: its ``sync`` flushes this domain; `InvalidArgument` if that takes no mappings.

    Without translation hardware nothing is cached, and the gather stays empty.
    """
    record = record_of(domain)
    if not record.type.paging:
        raise InvalidArgument(f"{record!r} has nothing to flush")
    return domain.gather()


def unmap_range(
    domain: Domain[Any],
    iova: BusAddr | int,
    size: int,
    gather: IotlbGather | None = None,
    *,
    refused: Callable[[SwiommuError], None] | None = None,
) -> int:
    """Unmap from ``iova`` on; the bytes unmapped, less or more than ``size``, or 0: never an error.

    With a ``gather`` (see `gather_for`) the flush is left to its ``sync``. Why it is 0, if not for a hole, is logged,
    as far as a kernel says it, and ``refused`` is called with the error that it would be.
    """
    if type(iova) is not int or type(size) is not int:
        iova, size = _bus(domain, iova), as_integer(size, "size")
    try:
        return _unmap(domain, iova, size, gather)
    except SwiommuError as error:
        if refused is not None:
            refused(error)
        return 0


def _unmap(domain: Domain[Any], iova: int, size: int, gather: IotlbGather | None) -> int:
    record, space = record_of(domain), domain.input_space
    if not record.type.paging or not record.pgsize_bitmap:
        raise InvalidArgument(f"{record!r} has no mappings")
    smallest = record.pgsize_bitmap & -record.pgsize_bitmap
    if (iova | size) & smallest - 1:
        error = domain.rules.misaligned(
            f"unaligned: iova {iova:#x} size {size:#x} min_pagesz {smallest:#x}", iova=iova, size=size
        )
        _log.error("%s", error)
        raise error
    if not 0 <= iova < space.limit or size <= 0:
        raise OutOfRange(
            f"{size:#x} bytes at {iova:#x} are none of the {space.width}-bit space {space.name!r}",
            iova=iova,
            size=size,
        )
    try:
        where, size = space.at(iova), min(size, space.limit - iova)
        return domain.unmap(where, size) if gather is None else domain.unmap_gathered(where, size, gather)
    except SwiommuError as error:  # a domain above objects
        _log.warning("%s", error)
        raise


def iova_to_phys(domain: Domain[Any], iova: BusAddr | int) -> int:
    """Where ``iova`` leads; 0 if nowhere, so that page 0 can't be told from nothing. Identity answers the input."""
    if type(iova) is not int:
        iova = _bus(domain, iova)
    kind = record_of(domain).type
    if kind is DomainType.IDENTITY:
        return iova
    if kind is DomainType.BLOCKED or not 0 <= iova < domain.input_space.limit:
        return 0
    found = domain.iova_to_phys(domain.input_space.at(iova))
    return 0 if found is None else found.value


def map_sg(
    domain: Domain[Any], iova: BusAddr | int, entries: Sequence[Scatterlist], prot: int, gfp: int = Gfp.KERNEL
) -> int:
    """Map entries one behind the other; the bytes mapped. Raises what `map_range` does, with all of it unmapped again.

    Those that touch in memory are one map; peer-to-peer ones are left out, and take no room.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu import Scatterlist
    >>> from swiommu.iommu.groups import DomainType, Hardware
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram", width=40)
    >>> smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=ram, frames=Frames(ram.at(0), 1 << 20))
    >>> domain = smmu.alloc(DomainType.UNMANAGED)
    >>> peer = Scatterlist(0x9000, 0x1000, bus_address=True)
    >>> pieces = [Scatterlist(0x5000, 0x1000), Scatterlist(0x6000, 0x1000), peer, Scatterlist(0x2000, 0x1000)]
    >>> map_sg(domain, 0x10000, pieces, Prot.READ), domain.stats.maps
    (12288, 2)
    """
    if type(iova) is not int:
        iova = _bus(domain, iova)
    mapped = 0
    try:
        for start, length in _merged(entries, domain.output_space):
            map_range(domain, iova + mapped, start, length, prot, gfp, sync=False)
            mapped += length
    except BaseException:
        unmap_range(domain, iova, mapped)
        raise
    sync_map(domain, iova, mapped)
    return mapped


def _merged(entries: Sequence[Scatterlist], space: Space) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for entry in entries:
        if entry.bus_address:
            continue
        phys, length = as_number(entry.phys, space, "phys"), entry.length
        if runs and sum(runs[-1]) == phys:
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((phys, length))
    return runs
