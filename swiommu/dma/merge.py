"""How dma-iommu lays a scatter list into one bus range, and which entries become one segment. Pure, in plain ints.

Source: ``iommu_dma_map_sg`` and ``__finalise_sg`` of drivers/iommu/dma-iommu.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["join_entries", "pad_entries"]

_UNSIGNED_INT = (1 << 32) - 1


def pad_entries(entries: Sequence[tuple[int, int]], granule: int, boundary_mask: int) -> list[int]:
    """How many bytes of the bus range each entry (physical address, length) takes: whole granules.

    An entry that would cross a segment boundary starts at it instead: the one *before* it is mapped further, over
    memory that is not the list's.

    >>> pad_entries([(0x1000_0400, 0xc00), (0x2000_0000, 0x2000), (0x3000_0000, 0x300)], 4096, (1 << 64) - 1)
    [4096, 8192, 4096]
    >>> pad_entries([(0x1000, 0x3000), (0x9000, 0x2000)], 4096, 0x3fff)
    [16384, 8192]
    """
    padded: list[int] = []
    total = 0
    for phys, length in entries:
        whole = (phys % granule + length + granule - 1) & -granule
        pad = (boundary_mask - total + 1) & boundary_mask
        if padded and pad and pad < whole - 1:
            padded[-1] += pad
            total += pad
        padded.append(whole)
        total += whole
    return padded


def join_entries(
    iova: int,
    entries: Sequence[tuple[int, int]],
    padded: Sequence[int],
    *,
    granule: int,
    boundary_mask: int,
    max_seg_size: int,
) -> list[tuple[int, int]]:
    """The segments (bus address, length) that a device gets for a list laid out at ``iova`` by `pad_entries`.

    An entry joins the segment before it unless that has a gap at its end, or the entry starts inside a granule or at a
    boundary, or the segment would become longer than ``max_seg_size`` bytes.

    >>> entries = [(0x1000_0400, 0xc00), (0x2000_0000, 0x2000), (0x3000_0000, 0x300)]
    >>> [(address, length)] = join_entries(
    ...     0xffff_c000, entries, [0x1000, 0x2000, 0x1000], granule=4096, boundary_mask=2**64 - 1, max_seg_size=65536
    ... )
    >>> hex(address), hex(length)
    ('0xffffc400', '0x2f00')
    """
    segments: list[tuple[int, int]] = []
    open_length = 0  # of the last segment; 0 when nothing may join it
    at = iova
    for (phys, length), whole in zip(entries, padded, strict=True):
        offset = phys % granule
        # Unsigned, as there: a segment that is too long already has "room" for anything.
        room = (max_seg_size - open_length) & _UNSIGNED_INT
        if open_length and not offset and at & boundary_mask and room >= length:
            open_length += length
            segments[-1] = (segments[-1][0], open_length)
        else:
            open_length = length
            segments.append((at + offset, length))
        at += whole
        if offset + length < whole:
            open_length = 0
    return segments
