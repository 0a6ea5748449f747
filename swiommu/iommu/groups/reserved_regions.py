"""Reserved regions of devices and groups: the list, its text in sysfs, and what the DMA API keeps clear of.

Source: ``iommu_insert_resv_region``, ``iommu_group_show_resv_regions``, ``iova_reserve_iommu_regions``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import InvalidArgument
from swiommu.iommu.groups.types import ResvType
from swiommu.layer import Reserved, ReservedKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swiommu.iommu.groups.pci import HostBridge

__all__ = ["host_bridge_holes", "merged_regions", "regions_text"]

_WORDS = {ReservedKind.SW_MSI: "msi"}


def merged_regions(regions: Iterable[Reserved]) -> list[Reserved]:
    """By start, then kind; regions of one kind that overlap or touch are one, those of different kinds never.

    >>> [str(region) for region in merged_regions([Reserved(0x3000, 0x1000), Reserved(0x1000, 0x2000, "reserved")])]
    ['reserved region [0x1000, 0x4000)']
    """
    found: list[Reserved] = []
    last: dict[ReservedKind, int] = {}  # where in `found` the last one of a kind is
    for region in sorted(regions, key=_place):
        place = last.get(region.kind)
        if place is not None and region.start <= found[place].stop:
            first = found[place]
            found[place] = Reserved(first.start, max(first.stop, region.stop) - first.start, first.kind)
        else:
            last[region.kind] = len(found)
            found.append(region)
    return found


def _place(region: Reserved) -> tuple[int, int]:
    return region.start, ResvType.of(region)


def regions_text(regions: Iterable[Reserved]) -> str:
    """What ``/sys/kernel/iommu_groups/N/reserved_regions`` holds: start, last byte, word; both MSI kinds are "msi".

    >>> print(regions_text([Reserved(0x800_0000, 0x10_0000, "sw-msi")]), end="")
    0x0000000008000000 0x00000000080fffff msi
    """
    return "".join(
        f"0x{region.start:016x} 0x{region.stop - 1:016x} {_WORDS.get(region.kind, region.kind)}\n" for region in regions
    )


def host_bridge_holes(host: HostBridge) -> list[tuple[int, int]]:
    """What no device below ``host`` may be told: its windows, and what none of its ``dma_ranges`` holds.

    As (first, last), inclusive. The last page of a gap is the one where the next range begins, as the kernel has it.
    `InvalidArgument` for ranges that overlap.

    >>> from swiommu.iommu.groups import HostBridge
    >>> bridge = HostBridge(windows=((0xE000_0000, 0x1000_0000),), dma_ranges=((0x8000_0000, 0x4000_0000),))
    >>> [(hex(first), hex(last)) for first, last in host_bridge_holes(bridge)]
    [('0xe0000000', '0xefffffff'), ('0x0', '0x80000000'), ('0xc0000000', '0xffffffffffffffff')]
    """
    holes = [(start, start + size - 1) for start, size in host.windows]
    at = 0
    for start, size in sorted(host.dma_ranges):
        if start < at:
            raise InvalidArgument(f"failed to reserve IOVA [{at:#x}-{start:#x}]: dma-ranges overlap", start=start)
        if start > at:
            holes.append((at, start))
        at = start + size
    if host.dma_ranges and at < 1 << 64:
        holes.append((at, (1 << 64) - 1))
    return holes
