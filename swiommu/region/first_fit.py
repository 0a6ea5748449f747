"""First fit, ordered by address: the lowest place that is aligned and free, whatever stands above it.

What every textbook compares others with, and what mainline's bitmap does in units of its bits. Here the unit is the
byte and nothing is padded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import as_integers
from swiommu.errors import AddressInUse, NoMemory, NotFound
from swiommu.locking import no_shallow_copy
from swiommu.region.allocator import FailSwitch, check_range, check_request
from swiommu.region.reports import Reports
from swiommu.region.runs import FreeRuns
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from swiommu.undo import UndoLog

__all__ = ["FirstFit"]


class FirstFit(Undoable, Reports):
    """First fit by address over ``size`` bytes from the absolute address ``start``.

    Raises `InvalidArgument` for an empty range or a page size that is not a power of two. Neither ``start`` nor
    ``size`` must be page aligned.

    >>> fit = FirstFit(0x1000, 0x10000)
    >>> hex(fit.alloc(0x2000, 0x1000)), hex(fit.alloc(0x2000, 0x8000)), hex(fit.alloc(0x1000, 0x1000))
    ('0x1000', '0x8000', '0x3000')
    >>> fit.free(0x1000, 0x2000)
    >>> [(hex(start), hex(size)) for start, size in fit.holes()]
    [('0x1000', '0x2000'), ('0x4000', '0x4000'), ('0xa000', '0x7000')]
    """

    __slots__ = ("_fail", "_runs", "page_size", "size", "start")

    __copy__ = no_shallow_copy

    name = "first_fit"

    def __init__(self, start: int, size: int, *, page_size: int = 4096) -> None:
        start, size, page_size = check_range(start, size, page_size)
        self.start = start
        self.size = size
        self.page_size = page_size
        self._runs = FreeRuns(size)
        self._fail = FailSwitch()
        self.undo_log = None

    @property
    def free_space(self) -> int:
        """Bytes that are not taken."""
        return self._runs.total

    def alloc(self, size: int, align: int) -> int:
        """Take ``size`` bytes (whole pages) at a multiple of ``align`` bytes; `NoMemory` if no hole serves.

        >>> FirstFit(0x3000, 0x3000).alloc(0x1000, 0x2000) == 0x4000
        True
        """
        size, align = check_request(size, align, self.page_size)
        self._fail.refuse(size)
        place = self._find(size, align)
        if place is None:
            raise NoMemory(self._no_hole(size, align), size=size, align=align, free_space=self.free_space)
        self._runs.take(place, size)
        return self.start + place

    def fits(self, size: int, align: int) -> bool:
        """Whether `alloc` would succeed now; nothing changes.

        >>> FirstFit(0x3000, 0x3000).fits(0x2000, 0x8000)
        False
        """
        size, align = check_request(size, align, self.page_size)
        return self._find(size, align) is not None

    def free(self, start: int, size: int) -> None:
        """Give ``size`` bytes at ``start`` back, an allocation or any part of some.

        Every byte must be taken, else `NotFound` and nothing changed.
        """
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        place = start - self.start
        if place < 0 or size < 1 or place + size > self.size or self._runs.any_clear(place, size):
            raise NotFound(f"{size} bytes at {start:#x} are not allocated", start=start, size=size)
        self._runs.give(place, size)

    def reserve(self, start: int, size: int) -> None:
        """Take exactly ``size`` bytes at ``start``; `AddressInUse` if any of them is taken or outside."""
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        if size < 1 or not self._runs.take(start - self.start, size):
            raise AddressInUse(f"{size} bytes at {start:#x} are not all free", start=start, size=size)

    def holes(self) -> list[tuple[int, int]]:
        """Every hole as (start, size), by address; two holes never touch."""
        return [(self.start + place, size) for place, size in self._runs.runs()]

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`."""
        log.save(self._fail, "left")
        return (self._runs,)

    def fail_nth(self, n: int) -> None:
        """Make the ``n``-th following `alloc` (1 = the next) raise `NoMemory`, once."""
        self._fail.arm(n)

    def check(self) -> None:
        """Raise AssertionError with a dump if the holes overlap, touch, leave the range or are miscounted."""
        self._runs.check()
        assert self._runs.count == self.size, f"{self!r} keeps {self._runs.count} bytes"

    def __repr__(self) -> str:
        return f"FirstFit({self.start:#x}, {self.size:#x}, free_space={self.free_space}, holes={self._runs.number})"

    def _find(self, size: int, align: int) -> int | None:
        return self._runs.find(size, step=align, offset=self.start & (align - 1), start=0)

    def _no_hole(self, size: int, align: int) -> str:
        return (
            f"no hole for {size} bytes aligned to {align}: {self.free_space} bytes are free in "
            f"{self._runs.number} holes, the largest of {self._runs.longest}"
        )
