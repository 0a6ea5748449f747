"""The binary buddy system: blocks of powers of two, halved to serve and melted again with their other halves.

A request is rounded up to a power of two pages, and what it did not ask for is held with it: most of a buddy's waste is
inside its blocks. Source: Knowlton 1965; Knuth, "The Art of Computer Programming" 1, 2.5. Linux' page allocator is one
(see `swiommu.memory`, whose blocks these are).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import as_integer, as_integers
from swiommu.errors import AddressInUse, InvalidArgument, NoMemory, NotFound
from swiommu.locking import no_shallow_copy
from swiommu.memory.blocks import FreeBlocks
from swiommu.region.allocator import FailSwitch, check_range, check_request
from swiommu.region.reports import Reports
from swiommu.region.taken import Taken
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from swiommu.undo import UndoLog

__all__ = ["Buddy"]


class Buddy(Undoable, Reports):
    """A buddy system over ``size`` bytes from the absolute address ``start``; blocks are aligned in that space.

    Served is the smallest free block that is large enough, of these the lowest. An alignment beyond the size wants a
    block as large as the alignment, of which only the size is kept; where there is none, a smaller block that
    happens to stand right. ``max_order`` bounds what melts: blocks are of at most ``2**max_order`` pages, and larger
    requests fail; None is as large as the range allows. A range of any whole number of pages is cut into the fewest
    blocks.

    Raises `InvalidArgument` for a start or size that is not a whole number of pages, or a negative order.

    >>> buddy = Buddy(0x10000, 0x8000)
    >>> hex(buddy.alloc(0x3000, 0x1000)), hex(buddy.alloc(0x1000, 0x1000)), buddy.padding
    ('0x10000', '0x14000', 4096)
    >>> buddy.free(0x10000, 0x3000)
    >>> [(hex(start), hex(size)) for start, size in buddy.holes()]
    [('0x10000', '0x4000'), ('0x15000', '0x3000')]
    """

    __slots__ = (
        "_blocks",
        "_fail",
        "_shift",
        "_taken",
        "free_space",
        "max_order",
        "page_size",
        "size",
        "start",
    )

    __copy__ = no_shallow_copy

    name = "buddy"

    def __init__(self, start: int, size: int, *, page_size: int = 4096, max_order: int | None = None) -> None:
        start, size, page_size = check_range(start, size, page_size)
        if start % page_size or size % page_size:
            raise InvalidArgument(
                f"{size:#x} bytes at {start:#x} are not whole pages of {page_size} bytes", start=start, size=size
            )
        max_order = None if max_order is None else as_integer(max_order, "max_order")
        if max_order is not None and max_order < 0:
            raise InvalidArgument(f"a block can't have 2**{max_order} pages")
        self.start = start
        self.size = size
        self.page_size = page_size
        self._shift = page_size.bit_length() - 1
        largest = (size >> self._shift).bit_length() - 1
        self.max_order = largest if max_order is None else min(max_order, largest)
        self._blocks = FreeBlocks(self.max_order)
        self._blocks.insert(start >> self._shift, (start + size) >> self._shift)
        self.free_space = size
        self._taken = Taken(page_size)
        self._fail = FailSwitch()
        self.undo_log = None

    @property
    def padding(self) -> int:
        """Bytes that are held by allocations beyond what they asked for."""
        return self._taken.padding

    def alloc(self, size: int, align: int) -> int:
        """Take ``size`` bytes (whole pages) at a multiple of ``align`` bytes; `NoMemory` if no block serves.

        >>> Buddy(0x3000, 0x3000).alloc(0x1000, 0x2000) == 0x4000
        True
        """
        size, align = check_request(size, align, self.page_size)
        self._fail.refuse(size)
        order, step = self._orders(size, align)
        pfn = self._blocks.take(max(order, step))
        if pfn is not None:
            self._blocks.insert(pfn + (1 << order), pfn + (1 << max(order, step)))
        else:
            pfn = self._aligned(order, step)
            if pfn is None:
                raise NoMemory(self._no_block(size, align), size=size, align=align, free_space=self.free_space)
            self._blocks.cut(pfn, pfn + (1 << order))
        held = self.page_size << order
        self.free_space -= held
        self._taken.add(pfn << self._shift, size, padding=held - size)
        return pfn << self._shift

    def fits(self, size: int, align: int) -> bool:
        """Whether `alloc` would succeed now; nothing changes.

        >>> Buddy(0x3000, 0x3000).fits(0x3000, 0x1000)
        False
        """
        size, align = check_request(size, align, self.page_size)
        order, step = self._orders(size, align)
        return self._blocks.available(max(order, step)) > 0 or self._aligned(order, step) is not None

    def free(self, start: int, size: int) -> None:
        """Give ``size`` bytes at ``start`` back, an allocation or any whole pages of some.

        The padding of an allocation goes with its last byte. Every byte must have been asked for or reserved, else
        `NotFound` and nothing changed.
        """
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        held = self._taken.remove(start, size)
        if held is None:
            raise NotFound(f"{size} bytes at {start:#x} are not allocated", start=start, size=size)
        self._blocks.insert(start >> self._shift, sum(held) >> self._shift)
        self.free_space += held[1]

    def reserve(self, start: int, size: int) -> None:
        """Take exactly ``size`` bytes (whole pages) at ``start``, unpadded; `AddressInUse` if any is not free."""
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        first, stop = start >> self._shift, (start + size) >> self._shift
        if size < 1 or (start | size) % self.page_size or not self._blocks.all_free(first, stop):
            raise AddressInUse(f"{size} bytes at {start:#x} are not all free", start=start, size=size)
        self._blocks.cut(first, stop)
        self.free_space -= size
        self._taken.add(start, size)

    def holes(self) -> list[tuple[int, int]]:
        """Every free range as (start, size), by address, merged: where two blocks touch they are one hole."""
        return [(pfn << self._shift, count << self._shift) for pfn, count in self._blocks.runs()]

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`."""
        log.save(self, "free_space")
        log.save(self._fail, "left")
        return self._blocks, self._taken

    def fail_nth(self, n: int) -> None:
        """Make the ``n``-th following `alloc` (1 = the next) raise `NoMemory`, once."""
        self._fail.arm(n)

    def check(self) -> None:
        """Raise AssertionError with a dump unless blocks, what is taken and its padding are all there is."""
        self._blocks.check()
        self._taken.check()
        dump = f"{self!r} holes {self.holes()}, taken {sorted(self._taken.ranges.items())}"
        assert self.free_space == sum(size for _, size in self.holes()), f"free space {self.free_space}: {dump}"
        asked = sum(self._taken.ranges.values())
        assert self.free_space + asked + self.padding == self.size, f"{asked} taken, {self.padding} padding: {dump}"
        for start, size in self._taken.ranges.items():
            assert self.start <= start <= self.start + self.size - size, f"{start:#x} is outside: {dump}"

    def __repr__(self) -> str:
        return f"Buddy({self.start:#x}, {self.size:#x}, free_space={self.free_space}, padding={self.padding})"

    def _orders(self, size: int, align: int) -> tuple[int, int]:
        """Orders of the block that holds the size, and of the alignment."""
        return ((size >> self._shift) - 1).bit_length(), (align >> self._shift).bit_length() - 1

    def _aligned(self, order: int, step: int) -> int | None:
        """A block that is smaller than the alignment but stands right: the smallest, of these the lowest."""
        for each in range(order, min(step, self.max_order + 1)):
            pfn = self._blocks.lowest_at(each, 1 << step)
            if pfn is not None:
                return pfn
        return None

    def _no_block(self, size: int, align: int) -> str:
        return (
            f"no block for {size} bytes aligned to {align}: {self.free_space} bytes are free, "
            f"the largest block of {self._blocks.largest() << self._shift}"
        )
