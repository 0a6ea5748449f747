"""The memory of a machine while it boots: what of it is free, and where the kernel puts an area that it declares.

Source: ``mm/memblock.c``, ``cma_declare_contiguous_nid`` and ``cma_declare_contiguous_multi`` of ``mm/cma.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import align_down, align_up, as_integer, as_integers, is_power_of_two
from swiommu.errors import Busy, InvalidArgument, NoMemory, NoSpace
from swiommu.profile import DEFAULT_PROFILE
from swiommu.region.mainline.page_block import cma_min_alignment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.address import PhysRange
    from swiommu.profile import Profile

__all__ = ["BootMemory", "declare_area"]

_4G = 1 << 32
_MOST_RANGES = 8
_MOST_AREAS = 20


class BootMemory:
    """RAM by NUMA node, and the ranges of it that are reserved; addresses in bytes, as plain numbers.

    ``ram`` is what `SystemMap.ram` answers, ``nodes`` the node of each range (all 0 by default). ``min_alignment`` is
    what every area is aligned to, by default a page block: `cma_min_alignment` of ``page_size``, ``kernel`` (its
    version) and ``pageblock_order``. ``highmem``: where high memory begins on 32-bit machines.
    Unlike `swiommu.memory.Memblock` it looks within bounds, from either end, and reserving twice is no error.

    >>> from swiommu.address import PhysRange, PhysSpace
    >>> memory = BootMemory([PhysRange(PhysSpace("ram").at(0x4000_0000), 1 << 30)])
    >>> memory.reserve(0x7ff0_0000, 0x1000)
    >>> hex(memory.find(1 << 20, 1 << 20)), hex(memory.find(1 << 20, 1 << 20, bottom_up=True))
    ('0x7fe00000', '0x40000000')
    >>> BootMemory([PhysRange(PhysSpace("ram").at(0x4000_0000), 1 << 30)], page_size=65536).min_alignment >> 20
    512
    """

    def __init__(
        self,
        ram: Sequence[PhysRange],
        *,
        nodes: Sequence[int] = (),
        page_size: int = 4096,
        kernel: Profile | str = DEFAULT_PROFILE,
        pageblock_order: int | None = None,
        min_alignment: int | None = None,
        highmem: int | None = None,
    ) -> None:
        if not ram or (nodes and len(nodes) != len(ram)):
            raise InvalidArgument(f"{len(ram)} ranges of RAM and the nodes of {len(nodes)} are no memory")
        self._ram = sorted(
            (each.start.value, each.stop, node) for each, node in zip(ram, nodes or [0] * len(ram), strict=True)
        )
        self._reserved: list[tuple[int, int]] = []  # (start, stop), ascending, apart
        page_size = self.page_size = as_integer(page_size, "page_size")
        block = cma_min_alignment(page_size, kernel=kernel, pageblock_order=pageblock_order)
        self.min_alignment = block if min_alignment is None else as_integer(min_alignment, "min_alignment")
        self.end = max(stop for _, stop, _ in self._ram)
        self.highmem = self.end if highmem is None else as_integer(highmem, "highmem")
        self.areas = 0

    def reserve(self, start: int, size: int) -> None:
        """Take a range away, whatever of it is RAM or reserved already; nothing for 0 bytes.

        `InvalidArgument` for a range that begins below 0 or ends above 2**64.
        """
        start, size = as_integers(start=start, size=size)
        if start < 0 or size < 0 or start + size > 1 << 64:
            raise InvalidArgument(f"{size} bytes at {start:#x} can't be reserved: they are no 64-bit range")
        if not size:
            return
        low, high = start, start + size
        kept = []
        for first, stop in self._reserved:
            if stop < low or high < first:
                kept.append((first, stop))
            else:
                low, high = min(low, first), max(high, stop)
        self._reserved = sorted([*kept, (low, high)])

    def touches_reserved(self, start: int, size: int) -> bool:
        """Whether some of this range is reserved."""
        start, size = as_integers(start=start, size=size)
        return any(first < start + size and start < stop for first, stop in self._reserved)

    def free(self, node: int | None = None) -> list[tuple[int, int]]:
        """RAM that is not reserved, as (start, stop), ascending; of one node, or of all."""
        return list(self._free(node))

    def find(
        self,
        size: int,
        align: int,
        low: int = 0,
        high: int | None = None,
        *,
        node: int | None = None,
        bottom_up: bool = False,
    ) -> int | None:
        """The highest (or lowest) aligned place of ``size`` free bytes in [low, high), but not in page 0; or None."""
        size, align, low = as_integers(size=size, align=align, low=low)
        low = max(low, self.page_size)
        high = self.end if high is None else as_integer(high, "high")
        spans = self.free(node)
        for first, stop in spans if bottom_up else reversed(spans):
            bottom, top = max(first, low), min(stop, high)
            place = align_up(bottom, align) if bottom_up else align_down(max(top - size, 0), align)
            if place >= bottom and place + size <= top:
                return place
        return None

    def _free(self, node: int | None) -> Iterator[tuple[int, int]]:
        for start, stop, where in self._ram:
            if node not in {None, where}:
                continue
            at = start
            for first, last in self._reserved:
                if at < min(first, stop):
                    yield at, min(first, stop)
                at = max(at, last)
            if at < stop:
                yield at, stop


def declare_area(
    memory: BootMemory,
    size: int,
    *,
    base: int = 0,
    limit: int = 0,
    alignment: int = 0,
    order_per_bit: int = 0,
    fixed: bool = False,
    node: int | None = None,
    several: bool = False,
) -> tuple[tuple[int, int], ...]:
    """Reserve an area and answer its (start, size) ranges in bytes: one, or up to 8 if ``several`` may be.

    Base and size are rounded up to the alignment (at least ``memory.min_alignment``), the limit down; a base of 0 is
    never fixed. Not fixed, it lies as low as possible above 4 GiB, else as high as possible from base to limit.

    `NoMemory`: no place. `Busy`: the fixed range is taken. `InvalidArgument`: size 0, an alignment that is no power of
    two, a fixed base that isn't aligned, a size that isn't whole bits, a range beyond the limit or across the border of
    high memory. `NoSpace` for the 21st area.

    >>> from swiommu.address import PhysRange, PhysSpace
    >>> memory = BootMemory([PhysRange(PhysSpace("ram").at(0x4000_0000), 1 << 30)])
    >>> [(hex(start), hex(size)) for start, size in declare_area(memory, 63 << 20, limit=0x6000_0000)]
    [('0x5c000000', '0x4000000')]
    """
    if memory.areas >= _MOST_AREAS:
        raise NoSpace(f"there are {memory.areas} areas already")
    if size < 1 or not is_power_of_two(alignment or 1):
        raise InvalidArgument(f"an area of {size} bytes aligned to {alignment} can't be", size=size, align=alignment)
    alignment = max(alignment, memory.min_alignment)
    if fixed and base % alignment:
        raise InvalidArgument(f"an area at {base:#x} must be aligned to {alignment:#x} bytes", start=base)
    base, size, limit = align_up(base, alignment), align_up(size, alignment), align_down(limit, alignment)
    if size % (memory.page_size << order_per_bit):
        raise InvalidArgument(f"{size:#x} bytes are no whole bits of 2**{order_per_bit} pages", size=size)
    limit = min(limit or memory.end, memory.end)
    if base + size > limit:
        raise InvalidArgument(f"{size:#x} bytes at {base:#x} exceed the limit {limit:#x}", start=base, size=size)
    if fixed and base:
        ranges = _fixed(memory, base, size)
    else:
        place = _searched(memory, size, alignment, base, limit, node)
        ranges = ((place, size),) if place is not None else ()
    if not ranges and several:
        ranges = _several(memory, size, alignment, order_per_bit, node)
    if not ranges:
        raise NoMemory(
            f"no {size:#x} bytes aligned to {alignment:#x} are free from {base:#x} to {limit:#x}: "
            f"{_largest(memory, base, limit, node)}",
            size=size,
        )
    for start, length in ranges:
        memory.reserve(start, length)
    memory.areas += 1
    return ranges


def _fixed(memory: BootMemory, base: int, size: int) -> tuple[tuple[int, int], ...]:
    if base < memory.highmem < base + size:
        raise InvalidArgument(f"{size:#x} bytes at {base:#x} cross the border of high memory at {memory.highmem:#x}")
    if memory.touches_reserved(base, size):
        raise Busy(f"{size:#x} bytes at {base:#x} are reserved already", start=base, size=size)
    return ((base, size),)


def _searched(memory: BootMemory, size: int, align: int, base: int, limit: int, node: int | None) -> int | None:
    place = None
    if base < memory.highmem < limit:
        place = memory.find(size, align, memory.highmem, limit, node=node)
        limit = memory.highmem
    if place is None and memory.end >= _4G + size:
        place = memory.find(size, align, _4G, limit, node=node, bottom_up=True)
    return memory.find(size, align, base, limit, node=node) if place is None else place


def _largest(memory: BootMemory, low: int, high: int, node: int | None) -> str:
    # What is left there, in words.
    low = max(low, memory.page_size)
    spans = [(min(stop, high) - max(first, low), max(first, low)) for first, stop in memory.free(node)]
    size, start = max(spans, default=(0, 0))
    return f"the largest free range has {size:#x} bytes at {start:#x}" if size > 0 else "nothing is free there"


def _several(
    memory: BootMemory, size: int, align: int, order_per_bit: int, node: int | None
) -> tuple[tuple[int, int], ...]:
    """The largest free ranges above 4 GiB that make up the size, ascending; the highest may be used in part."""
    bit = memory.page_size << order_per_bit
    sizes = []
    for first, stop in memory.free(node):
        start = align_up(first, align)
        length = align_down(max(align_down(stop, align) - start, 0), bit)
        if first >= _4G and length:
            sizes.append((length, start))
    # Of equal ones the lower was met first, and stands first.
    largest = sorted(sizes, key=lambda each: (-each[0], each[1]))[:_MOST_RANGES]
    chosen: list[tuple[int, int]] = []
    for length, start in largest:
        if sum(each for _, each in chosen) < size:
            chosen.append((start, length))
    if sum(length for _, length in chosen) < size:
        return ()
    ranges, left = [], size
    for start, length in sorted(chosen):
        ranges.append((start, min(length, left)))
        left -= min(length, left)
    return tuple(each for each in ranges if each[1])
