"""The slots of a bounce-buffer pool, placed exactly as ``kernel/dma/swiotlb.c`` places them. No bytes here.

A pool is an array of slots of 2 KiB, cut into *areas* (one lock each in the kernel) and *segments* of 128 slots that
no mapping crosses. Each area remembers where its last search ended: the next one goes on there (next fit) and wraps
inside the area. The kernel keeps a run length a slot; a segment is one number of 128 bits here, a set bit for a free
slot, and "a free run of n slots starts at i" is n - 1 shifts in doubling steps.

Addresses are plain ints, physical, as in `swiommu.region.Allocator`. Pools that grow (``CONFIG_SWIOTLB_DYNAMIC``)
are not modelled.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from swiommu.address import PAGE_SIZE, as_integer, as_integers, is_power_of_two
from swiommu.errors import AddressInUse, InvalidArgument, NotFound, PoolFull, SegmentExceeded
from swiommu.locking import Lock, locked, no_shallow_copy
from swiommu.region import FailSwitch
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from swiommu.undo import UndoLog

__all__ = ["IO_TLB_DEFAULT_SLOTS", "IO_TLB_SEGSIZE", "IO_TLB_SHIFT", "IO_TLB_SIZE", "Slots", "SwiotlbPool"]

IO_TLB_SHIFT = 11
IO_TLB_SIZE = 1 << IO_TLB_SHIFT
IO_TLB_SEGSIZE = 128
IO_TLB_DEFAULT_SLOTS = 32768  # 64 MiB

_SEGMENT_SIZE = IO_TLB_SEGSIZE << IO_TLB_SHIFT  # 256 KiB
_SLOT_MASK = IO_TLB_SIZE - 1
_ALL_FREE = (1 << IO_TLB_SEGSIZE) - 1
_EVERYWHERE = (1 << 64) - 1


class Slots(NamedTuple):
    """What a live mapping holds: ``held`` slots from slot ``first``, counted from the start of the pool."""

    first: int
    held: int


class _Search(NamedTuple):
    """What a candidate must be like: slots counted from the start of the pool."""

    need: int  # slots
    residue: int  # the first slot that could do is `residue` modulo `period`
    period: int
    stride: int  # how far the kernel goes on from a candidate that failed, before it looks at alignment again
    step: int  # from one candidate to the next: the stride, up to the next that could do
    boundary: int  # slots between the boundaries that a mapping must not span
    shift: int  # where the pool starts between two boundaries


class SwiotlbPool(Undoable):
    """``slots`` slots from ``start``, all free; ``areas`` is a power of two (as many as CPUs, rounded up, in Linux).

    Sizes in bytes unless said otherwise; ``used`` and ``hiwater`` (its peak) in slots, as debugfs shows them. Raises
    `InvalidArgument` for a start that is not page aligned, a number of areas that is no power of two, or areas that
    are not whole segments.

    >>> pool = SwiotlbPool(0x7800_0000)
    >>> [hex(pool.find_slots(0xc8ce_0010, size)) for size in (512, 4096, 6144)]
    ['0x78000000', '0x78001000', '0x78002000']
    >>> pool.release(0x7800_0000), pool.used, pool.hiwater
    (1, 5, 6)
    >>> hex(pool.find_slots(0xc8ce_0010, 512))  # goes on where the last search ended
    '0x78003800'
    """

    __slots__ = (
        "_fail",
        "_free",
        "_index",
        "_live",
        "_room",
        "area_slots",
        "area_used",
        "areas",
        "hiwater",
        "lock",
        "slots",
        "start",
        "used",
    )

    __copy__ = no_shallow_copy

    def __init__(self, start: int, slots: int = IO_TLB_DEFAULT_SLOTS, *, areas: int = 1) -> None:
        start, slots, areas = as_integers(start=start, slots=slots, areas=areas)
        if start < 0 or start & (PAGE_SIZE - 1):
            raise InvalidArgument(f"a pool at {start:#x} is not aligned to a page", start=start)
        if not is_power_of_two(areas):
            raise InvalidArgument(f"{areas} areas are not a power of two")
        if slots < 1 or slots % (areas * IO_TLB_SEGSIZE):
            raise InvalidArgument(
                f"{slots} slots in {areas} areas are not whole segments of {IO_TLB_SEGSIZE} slots each",
            )
        self.start = start
        self.slots = slots
        self.areas = areas
        self.area_slots = slots // areas
        self.used = 0
        self.hiwater = 0
        self.area_used = [0] * areas
        self._index = [0] * areas  # where the next search starts, in slots of the area
        segments = slots // IO_TLB_SEGSIZE
        self._free = [_ALL_FREE] * segments
        # No free run of a segment is longer than this; it may be shorter, a search that fails there lowers it.
        self._room = [IO_TLB_SEGSIZE] * segments
        self._live: dict[int, Slots] = {}
        self._fail = FailSwitch()
        self.lock = Lock()
        self.undo_log = None

    @property
    def size(self) -> int:
        """Bytes of the pool."""
        return self.slots << IO_TLB_SHIFT

    @property
    def stop(self) -> int:
        """One past the last byte of the pool."""
        return self.start + self.size

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.stop

    @staticmethod
    def max_mapping(min_align_mask: int = 0) -> int:
        """The longest mapping that can succeed, for a device with this mask. Source: ``swiotlb_max_mapping_size``.

        >>> SwiotlbPool.max_mapping(), SwiotlbPool.max_mapping(0xFFF)
        (262144, 258048)
        """
        return (IO_TLB_SEGSIZE << IO_TLB_SHIFT) - ((min_align_mask + _SLOT_MASK) & ~_SLOT_MASK)

    @locked
    def find_slots(
        self,
        phys: int,
        size: int,
        *,
        min_align_mask: int = 0,
        boundary_mask: int = _EVERYWHERE,
        alloc_align_mask: int = 0,
        area: int = 0,
        delta: int = 0,
    ) -> int:
        """The physical address in the pool that stands in for ``size`` bytes at ``phys``; its slots are taken.

        ``min_align_mask``: address bits of ``phys`` that the device needs preserved; ``boundary_mask``: its segment
        boundary; ``alloc_align_mask``: granule - 1 when an IOMMU maps the result; ``area``: where the search starts
        (the CPU), the others follow; ``delta``: the device sees the pool at bus = phys + delta, and alignment holds
        there. `PoolFull` when no area has room; `SegmentExceeded` for what no empty segment holds at that alignment,
        always so for more than `max_mapping`; `InvalidArgument` for an empty size or a mask that is not ``2**n - 1``.
        Source: ``swiotlb_tbl_map_single``.

        >>> pool = SwiotlbPool(0x1000_0000, 128)
        >>> hex(pool.find_slots(0x4321_0e00, 512, min_align_mask=0xFFF))
        '0x10000e00'
        """
        numbers = (phys, size, min_align_mask, boundary_mask, alloc_align_mask, area, delta)
        if set(map(type, numbers)) != {int}:
            phys, size, min_align_mask, boundary_mask, alloc_align_mask, area, delta = as_integers(
                phys=phys,
                size=size,
                min_align_mask=min_align_mask,
                boundary_mask=boundary_mask,
                alloc_align_mask=alloc_align_mask,
                area=area,
                delta=delta,
            )
        if size < 1:
            raise InvalidArgument(f"{size} bytes can't be bounced: at least 1 is needed", size=size)
        for mask in (min_align_mask, boundary_mask, alloc_align_mask):
            if mask < 0 or mask & (mask + 1):
                raise InvalidArgument(f"a mask is 2**n - 1, not {mask:#x}", mask=mask)
        offset = phys & min_align_mask & (alloc_align_mask | _SLOT_MASK)
        total = (size + offset + alloc_align_mask) & ~alloc_align_mask
        need = (total + _SLOT_MASK) >> IO_TLB_SHIFT
        search = self._search(phys, need, total, min_align_mask, boundary_mask, alloc_align_mask, delta)
        fits = need + search.residue % IO_TLB_SEGSIZE <= IO_TLB_SEGSIZE  # in an empty segment, where the first could be
        first = self._find(search, area & (self.areas - 1)) if not self._fail.strike() and fits else None
        if first is None:  # the kernel has the same words for both
            words = f"swiotlb buffer is full (sz: {size} bytes), total {self.slots} (slots), used {self.used} (slots)"
            if not fits:
                raise SegmentExceeded(words, size=size, slots=self.slots, used=self.used, limit=_SEGMENT_SIZE)
            raise PoolFull(words, size=size, slots=self.slots, used=self.used)
        # Padding slots stand before the address that is handed out; their bytes belong to nobody.
        address = self.start + (first << IO_TLB_SHIFT) + offset
        self._take(address, Slots(first, need))
        self._move_index(first, need)
        return address

    @locked
    def release(self, address: int) -> int:
        """Free what `find_slots` gave as ``address``, in slots; the place of the next search is not moved.

        `NotFound` for any other address. Source: ``swiotlb_release_slots``.
        """
        if type(address) is not int:
            address = as_integer(address, "address")
        slots = self._live.get(address)
        if slots is None:
            raise NotFound(f"{address:#x} is not the address of a live bounce buffer", start=address)
        first, count = slots
        if self.undo_log is not None:
            self._keep(address, first)
        del self._live[address]
        segment, bit = divmod(first, IO_TLB_SEGSIZE)
        free = self._free[segment] | ((1 << count) - 1) << bit
        self._free[segment] = free
        self._room[segment] = free.bit_count()
        self.area_used[first // self.area_slots] -= count
        self.used -= count
        return count

    @locked
    def occupy(self, address: int, size: int) -> None:
        """Take the slots of ``size`` bytes at ``address``, as if a search had ended there: adopts what a kernel did.

        `AddressInUse` if one of them is not free, `InvalidArgument` if they leave the pool or cross a segment.

        >>> pool = SwiotlbPool(0x1000_0000, 128)
        >>> pool.occupy(0x1000_1e00, 4096)
        >>> pool.slots_of(0x1000_1e00), hex(pool.find_slots(0, 1))
        (Slots(first=3, held=3), '0x10003000')
        """
        if type(address) is not int or type(size) is not int:
            address, size = as_integers(address=address, size=size)
        first = (address - self.start) >> IO_TLB_SHIFT
        count = ((address - self.start) + size + _SLOT_MASK >> IO_TLB_SHIFT) - first
        segment, bit = divmod(first, IO_TLB_SEGSIZE)
        if size < 1 or not 0 <= first < self.slots or bit + count > IO_TLB_SEGSIZE:
            raise InvalidArgument(f"{size} bytes at {address:#x} are in no segment of the pool", start=address)
        wanted = ((1 << count) - 1) << bit
        if self._free[segment] & wanted != wanted:
            raise AddressInUse(f"the slots of {size} bytes at {address:#x} are not all free", start=address)
        self._take(address, Slots(first, count))
        self._move_index(first, count)

    @property
    def indices(self) -> tuple[int, ...]:
        """Where the next search starts, by area, in slots of the area."""
        return tuple(self._index)

    @locked
    def copy(self) -> SwiotlbPool:
        """The same pool, to be gone on with apart; a `fail_nth` that was asked for is not taken along."""
        other = SwiotlbPool(self.start, self.slots, areas=self.areas)
        other._free, other._room, other._live = self._free.copy(), self._room.copy(), self._live.copy()
        other._index, other.area_used = self._index.copy(), self.area_used.copy()
        other.used, other.hiwater = self.used, self.hiwater
        return other

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`; the next search begins where it would have.

        >>> pool = SwiotlbPool(0x1000_0000, 128)
        >>> with pool.dry_run():
        ...     address = pool.find_slots(0, 4096)
        >>> hex(address), hex(pool.find_slots(0, 1)), pool.hiwater
        ('0x10000000', '0x10000000', 1)
        """
        log.save(self, "hiwater", "used")
        log.save(self._fail, "left")
        return ()

    def slots_of(self, address: int) -> Slots | None:
        """The slots that `find_slots` took when it answered ``address``; None if that is not live."""
        return self._live.get(as_integer(address, "address"))

    @locked
    def live(self) -> list[int]:
        """The addresses that were handed out and not released, ascending."""
        return sorted(self._live)

    def fail_nth(self, n: int) -> None:
        """Let the n-th following search (1 is the next) find the pool full and change nothing, once."""
        self._fail.arm(n)

    @locked
    def check(self) -> None:
        """Assert: 1. free bits are what nobody holds, 2. the counts add up, 3. indices and bounds are possible."""
        free = [_ALL_FREE] * (self.slots // IO_TLB_SEGSIZE)
        used = [0] * self.areas
        for address, (first, count) in self._live.items():
            segment, bit = divmod(first, IO_TLB_SEGSIZE)
            mask = ((1 << count) - 1) << bit
            assert bit + count <= IO_TLB_SEGSIZE, f"{address:#x}: {count} slots from {first} cross a segment"
            assert free[segment] & mask == mask, f"{address:#x}: slots {first}+{count} are held twice"
            free[segment] &= ~mask
            used[first // self.area_slots] += count
        assert free == self._free, f"free {self._free}, but live are {self._live}"
        assert used == self.area_used, f"used {self.area_used}, counted {used}"
        assert self.used == sum(used) <= self.hiwater, f"used {self.used}, peak {self.hiwater}, counted {used}"
        assert all(0 <= index < self.area_slots for index in self._index), f"indices {self._index}"
        for bits, room in zip(free, self._room, strict=True):
            assert not _run_starts(bits, room + 1), f"a run longer than {room} in {bits:#x}"

    # -- searching

    def _search(
        self, phys: int, need: int, total: int, min_align: int, boundary_mask: int, alloc_align: int, delta: int
    ) -> _Search:
        """What ``swiotlb_search_pool_area`` prepares before its loop."""
        if not alloc_align and not min_align and total >= PAGE_SIZE:
            alloc_align = PAGE_SIZE - 1  # what drivers relied on before alignment could be asked for
        align = alloc_align | _SLOT_MASK
        kept = min_align & ~align
        base = (self.start + delta) & boundary_mask
        stride = (max(align, kept) >> IO_TLB_SHIFT) + 1
        # An original address of 0 stands for "none": only the alignment holds then, but the stride stays.
        mask, wanted = (align | kept, phys & kept) if phys else (align, 0)
        period = (mask >> IO_TLB_SHIFT) + 1
        step = (stride + period - 1) & -period
        residue = ((wanted - base) >> IO_TLB_SHIFT) & (period - 1)
        shift = (base + _SLOT_MASK) >> IO_TLB_SHIFT
        return _Search(need, residue, period, stride, step, (boundary_mask >> IO_TLB_SHIFT) + 1, shift)

    def _find(self, search: _Search, area: int) -> int | None:
        for _ in range(self.areas):
            if search.need <= self.area_slots - self.area_used[area]:
                first = self._find_in_area(search, area)
                if first is not None:
                    return first
            area = (area + 1) & (self.areas - 1)
        return None

    def _find_in_area(self, search: _Search, area: int) -> int | None:
        """From the area's index to its end, then from its start to the index: what the kernel's loop visits."""
        low = area * self.area_slots
        high = low + self.area_slots
        index = low + self._index[area]
        candidate = index + ((search.residue - index) & (search.period - 1))
        found = self._scan(search, candidate, high)
        if found is not None:
            return found
        # The kernel counts whole strides, also one that leaves the area: that shortens the second part.
        over = 0
        if candidate < high:
            last = high - 1 - (high - 1 - candidate) % search.step
            over = max(last + search.stride - high, 0)
        candidate = low + ((search.residue - low) & (search.period - 1))
        return self._scan(search, candidate, index - over)

    def _scan(self, search: _Search, candidate: int, stop: int) -> int | None:
        """The first of ``candidate``, one step on, ... below ``stop`` that has room and spans no boundary."""
        need, step = search.need, search.step
        while candidate < stop:
            segment, bit = divmod(candidate, IO_TLB_SEGSIZE)
            if self._room[segment] >= need:
                starts = _run_starts(self._free[segment], need)
                if not starts:
                    if self.undo_log is not None:
                        self.undo_log.note(self._room.__setitem__, segment, self._room[segment])
                    self._room[segment] = need - 1
                starts = starts >> bit & _every(step)
                while starts:
                    place = candidate + (starts & -starts).bit_length() - 1
                    if place >= stop:
                        return None
                    if ((search.shift + place) & (search.boundary - 1)) + need <= search.boundary:
                        return place
                    starts &= starts - 1
            candidate += -(-(IO_TLB_SEGSIZE - bit) // step) * step
        return None

    # -- the books

    def _take(self, address: int, slots: Slots) -> None:
        first, count = slots
        if self.undo_log is not None:
            self._keep(address, first)
        segment, bit = divmod(first, IO_TLB_SEGSIZE)
        self._free[segment] &= ~(((1 << count) - 1) << bit)
        self._live[address] = slots
        self.area_used[first // self.area_slots] += count
        self.used += count
        self.hiwater = max(self.hiwater, self.used)

    def _keep(self, address: int, first: int) -> None:
        """Rolling back puts back what a mapping at ``address``, from slot ``first``, changes."""
        assert self.undo_log is not None, "no transaction is open"
        segment, area = first // IO_TLB_SEGSIZE, first // self.area_slots
        values = self._free[segment], self._room[segment], self.area_used[area], self._index[area]
        self.undo_log.note(self._put_back, address, self._live.get(address), segment, area, values)

    def _put_back(
        self, address: int, slots: Slots | None, segment: int, area: int, values: tuple[int, int, int, int]
    ) -> None:
        self._free[segment], self._room[segment], self.area_used[area], self._index[area] = values
        if slots is None:
            self._live.pop(address, None)
        else:
            self._live[address] = slots

    def _move_index(self, first: int, count: int) -> None:
        area, index = divmod(first, self.area_slots)
        index += count
        self._index[area] = index if index < self.area_slots else 0


@cache
def _every(step: int) -> int:
    """Bits 0, step, 2 * step, ... of a segment."""
    return sum(1 << bit for bit in range(0, IO_TLB_SEGSIZE, step))


def _run_starts(free: int, need: int) -> int:
    """The bits of ``free`` at which a run of ``need`` set bits starts."""
    have = 1
    while have < need and free:
        step = min(have, need - have)
        free &= free >> step
        have += step
    return free
