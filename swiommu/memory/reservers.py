"""Taking memory away before anybody else is there: the two boot allocators of 2010, by what they promise.

`Bootmem` takes a wanted start as a hint, `Memblock` as an order. A platform that has neither brings a function of its
own. What they take is not given back by anybody but its owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import align_down, align_up, as_integer, as_integers, is_power_of_two
from swiommu.errors import AddressInUse, InvalidArgument, NoMemory, NotFound, OutOfRange, SpaceMismatch
from swiommu.locking import no_shallow_copy
from swiommu.ranges import joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import PhysRange, PhysSpace
    from swiommu.memory.frames import Frames

__all__ = ["Bootmem", "Memblock"]


class Bootmem:
    """A bitmap of page frames, as ``__alloc_bootmem``: the lowest place at or above the goal, else the lowest at all.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.memory import Frames
    >>> bootmem = Bootmem(Frames(PhysSpace("ram").at(0x4000_0000), 1 << 20))
    >>> [hex(bootmem.reserve(0x4000, 0x1000, goal)) for goal in (0x4008_0000, 0x4008_0000, 0x9000_0000)]
    ['0x40080000', '0x40084000', '0x40000000']
    """

    __copy__ = no_shallow_copy

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    @property
    def space(self) -> PhysSpace:
        """The memory's space."""
        return self.frames.range.start.space

    def reserve(self, size: int, align: int, goal: int = 0) -> int:
        """Take ``size`` bytes (whole frames) at a multiple of ``align``; where they are. `NoMemory`: nowhere.

        `InvalidArgument` for a size below 1 or an alignment that is no power of two.
        """
        size, align = _require(size, align)
        goal = as_integer(goal, "goal")
        page = self.frames.page_size
        size, align = align_up(size, page), max(align, page)
        with self.frames.lock:
            runs = [(pfn * page, (pfn + count) * page) for pfn, count in self.frames.free_runs()]
            for lowest in (goal, 0):
                for start, stop in runs:
                    place = align_up(max(start, lowest), align)
                    if place + size <= stop:
                        self.frames.occupy(place // page, size // page)
                        return place
        raise NoMemory(f"no {size} bytes of memory aligned to {align:#x} are left", size=size, align=align)

    def release(self, start: int, size: int) -> None:
        """Give back what `reserve` took; `NotFound` if some of it is not taken."""
        start, size = as_integers(start=start, size=size)
        page = self.frames.page_size
        self.frames.give(start // page, align_up(size, page) // page)


class Memblock:
    """Ranges of ``memory``, and ranges of it that are reserved, as ``memblock``: the highest place, or a place given.

    `SystemMap.ram` is such a memory. All ranges are of one space, else `SpaceMismatch`.

    >>> from swiommu.address import PhysRange, PhysSpace
    >>> ram = PhysSpace("ram")
    >>> memblock = Memblock([PhysRange(ram.at(0x4000_0000), 1 << 20)])
    >>> hex(memblock.alloc(0x4000, 0x1_0000))
    '0x400f0000'
    >>> memblock.reserve(0x400f_3000, 0x4000)
    Traceback (most recent call last):
    ...
    swiommu.errors.AddressInUse: 0x4000 bytes at 0x400f3000 touch what is reserved at 0x400f0000
    """

    __copy__ = no_shallow_copy

    def __init__(self, memory: Sequence[PhysRange]) -> None:
        if not memory:
            raise InvalidArgument("no memory to reserve from")
        self.space: PhysSpace = memory[0].start.space
        if any(piece.start.space is not self.space for piece in memory):
            raise SpaceMismatch(f"{list(memory)!r} are not all of the memory {self.space.name!r}")
        self._memory = joined((piece.start.value, piece.stop) for piece in memory)
        self._reserved: dict[int, int] = {}  # start -> stop

    @property
    def reserved(self) -> list[tuple[int, int]]:
        """What is reserved, as (start, size), ascending."""
        return [(start, stop - start) for start, stop in sorted(self._reserved.items())]

    def reserve(self, start: int, size: int) -> None:
        """Take exactly this range: `AddressInUse` if it touches a reserved one, `OutOfRange` if it is no memory."""
        size, _ = _require(size, 1)
        start = as_integer(start, "start")
        for low, high in self._reserved.items():
            if low < start + size and start < high:
                raise AddressInUse(
                    f"{size:#x} bytes at {start:#x} touch what is reserved at {low:#x}", start=start, size=size
                )
        if not any(low <= start and start + size <= high for low, high in self._memory):
            raise OutOfRange(f"{size:#x} bytes at {start:#x} are not all memory", start=start, size=size)
        self._reserved[start] = start + size

    def alloc(self, size: int, align: int) -> int:
        """Take ``size`` bytes at the highest multiple of ``align`` that is free; where they are. `NoMemory`: nowhere.

        `InvalidArgument` for a size below 1 or an alignment that is no power of two.
        """
        size, align = _require(size, align)
        taken = sorted(self._reserved.items(), reverse=True)
        for low, high in reversed(self._memory):
            top = high
            for start, stop in [*(hole for hole in taken if hole[0] < high and low < hole[1]), (low, low)]:
                place = align_down(top - size, align)
                if place >= max(stop, low):
                    self._reserved[place] = place + size
                    return place
                top = min(top, start)
        raise NoMemory(f"no {size} bytes of memory aligned to {align:#x} are left", size=size, align=align)

    def release(self, start: int, size: int) -> None:
        """Give back a range that was reserved as a whole, else `NotFound`."""
        start, size = as_integers(start=start, size=size)
        if self._reserved.get(start) != start + size:
            raise NotFound(f"{size:#x} bytes at {start:#x} are not reserved", start=start, size=size)
        del self._reserved[start]


def _require(size: int, align: int) -> tuple[int, int]:
    size, align = as_integers(size=size, align=align)
    if size < 1 or not is_power_of_two(align):
        raise InvalidArgument(
            f"{size} bytes aligned to {align}: at least 1 byte and a power of two are needed", size=size, align=align
        )
    return size, align
