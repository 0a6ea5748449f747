"""The page frames of a memory, handed out by a buddy system as Linux' page allocator does.

Counts and positions are in frames: a *pfn* is a physical address divided by the page size. Alignment is that of
the absolute pfn. Where Linux takes from per-CPU lists, zones and migrate types, this takes the *smallest block that
is large enough and the lowest of these*: one deterministic rule, so that two designs differ by design and not by luck.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE, PhysAddr, PhysRange, as_integer, as_integers, is_power_of_two
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NoMemory, NotFound, OutOfRange
from swiommu.locking import Lock, locked, no_shallow_copy
from swiommu.memory.blocks import FreeBlocks, append_run
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.undo import UndoLog

__all__ = ["FrameState", "Frames"]


class FrameState(enum.IntEnum):
    """What a frame is in: free, or taken in one of four ways.

    TAKEN says no more than that; MOVABLE marks contents that could be moved elsewhere, DROPPABLE those that could be
    thrown away; PINNED frames can neither move nor be given back until their state is set to another one.
    """

    FREE = 0
    TAKEN = 1
    MOVABLE = 2
    PINNED = 3
    DROPPABLE = 4


class Frames(Undoable):
    """The frames of ``size`` bytes from ``start``; all of them are free at first.

    ``max_order`` is the order of the largest block: 10 is 4 MiB of 4 KiB frames, as in Linux. Raises `InvalidArgument`
    for a start or size that is not a whole number of pages, `AddressOverflow` for a range that leaves the space.

    >>> from swiommu.address import PhysSpace
    >>> frames = Frames(PhysSpace("ram").at(0x4000_0000), 64 << 20)
    >>> hex(frames.take(0)), hex(frames.take(9)), frames.take_pages(3)
    ('0x40000', '0x40200', [(262145, 3)])
    >>> frames.give(0x40200, 512); frames.free_count
    16380
    """

    __slots__ = (
        "_blocks",
        "_fail_in",
        "_states",
        "count",
        "free_count",
        "lock",
        "page_size",
        "pinned",
        "range",
        "start_pfn",
    )

    __copy__ = no_shallow_copy

    def __init__(self, start: PhysAddr, size: int, *, page_size: int = PAGE_SIZE, max_order: int = 10) -> None:
        size, page_size, max_order = as_integers(size=size, page_size=page_size, max_order=max_order)
        if not is_power_of_two(page_size):
            raise InvalidArgument(f"a page of {page_size} bytes is not a power of two")
        if max_order < 0:
            raise InvalidArgument(f"the largest order is {max_order}, below 0")
        self.range = PhysRange(start, size)
        if (start.value | size) & (page_size - 1):
            raise InvalidArgument(
                f"{size:#x} bytes at {start!r} are not whole pages of {page_size} bytes", start=start.value, size=size
            )
        self.page_size = page_size
        self.start_pfn = start.value // page_size
        self.count = size // page_size
        self.free_count = self.count
        # One byte a frame: range tests and fills run at memory speed.
        self._states = bytearray(self.count)
        self._blocks = FreeBlocks(max_order)
        self._blocks.insert(self.start_pfn, self.start_pfn + self.count)
        self._fail_in = 0
        self.pinned = 0
        self.lock = Lock()
        self.undo_log = None

    @property
    def max_order(self) -> int:
        """The order of the largest block that `take` serves."""
        return self._blocks.max_order

    def take(self, order: int) -> int:
        """The first pfn of ``2**order`` frames, naturally aligned, now taken.

        From the smallest free block that is large enough, the lowest of these. `NoMemory` if there is none (always,
        beyond ``max_order``), `InvalidArgument` for an order below 0.
        """
        with self.lock:
            if type(order) is not int:
                order = as_integer(order, "order")
            if order < 0 or self._fail_in:
                self._admit((order,), 1 << min(max(order, 0), 64))
            start = self._blocks.take(order)
            if start is None:
                frames = 1 << order if order < 64 else f"2**{order}"  # that many digits are no sentence
                raise self._exhausted(f"no free block of {frames} frames (order {order})", 1 << min(order, 64))
            self._mark(start, 1 << order)
            return start

    def take_pages(self, n: int) -> list[tuple[int, int]]:
        """``n`` single frames, as ``n`` calls of ``take(0)`` would give them, in merged (pfn, count) runs.

        All or nothing: `NoMemory` changes nothing. `InvalidArgument` for ``n`` below 1.
        """
        return self.take_largest_first(n, (0,))

    def take_largest_first(self, n: int, orders: Sequence[int] = (9, 0)) -> list[tuple[int, int]]:
        """``n`` frames in the largest blocks that fit and exist, as ``__iommu_dma_alloc_pages`` takes them.

        For what is still missing the largest of ``orders`` that does not exceed it is tried, then the next smaller.
        Merged (pfn, count) runs in the order taken. All or nothing: `NoMemory` changes nothing. `InvalidArgument` for
        ``n`` below 1, no order, or an order below 0.

        >>> from swiommu.address import PhysSpace
        >>> frames = Frames(PhysSpace("ram").at(0x1000), 8 << 20)
        >>> frames.take_largest_first(513)
        [(512, 512), (1, 1)]
        """
        with self.lock:
            if type(n) is not int:
                n = as_integer(n, "n")
            for order in orders:
                if type(order) is not int:
                    orders = [as_integer(each, "order") for each in orders]
            if n < 1 or self._fail_in or not orders or min(orders) < 0:
                self._admit(orders, n)
            if n > self.free_count:
                raise self._exhausted(f"{n} frames wanted", n)
            runs: list[tuple[int, int]] = []
            left = n
            for order in sorted(set(orders), reverse=True):
                blocks = min(left >> order, self._blocks.available(order))
                if blocks:
                    for start, count in self._blocks.take_many(order, blocks):
                        append_run(runs, start, count)
                    left -= blocks << order
            if left:
                for start, count in runs:
                    self._blocks.insert(start, start + count)
                names = ", ".join(str(order) for order in orders)
                raise self._exhausted(f"no free blocks of orders {names} for {left} of {n} frames", n)
            for start, count in runs:
                self._mark(start, count)
            return runs

    def give(self, pfn: int, count: int) -> None:
        """Free ``count`` frames from ``pfn``: a whole run, a part of one, or several side by side.

        `NotFound` if one of them is free or outside, `Busy` if one is PINNED; nothing is changed then.
        """
        with self.lock:
            if type(pfn) is not int or type(count) is not int:
                pfn, count = as_integers(pfn=pfn, count=count)
            self._require_taken(pfn, count)
            if self.pinned:
                self.require_givable(pfn, count)
            self._free(pfn, count)

    def give_all(self, runs: Sequence[tuple[int, int]]) -> None:
        """`give` for each (pfn, count) of runs that are apart; what it raises for one of them changes nothing.

        >>> from swiommu.address import PhysSpace
        >>> frames = Frames(PhysSpace("ram").at(0), 1 << 20)
        >>> frames.occupy(3, 4); frames.give_all([(3, 2), (6, 1)]); frames.free_count
        255
        """
        with self.lock:
            for pfn, count in runs:
                self.require_givable(pfn, count)
            for pfn, count in runs:
                self._free(pfn, count)

    def require_givable(self, pfn: int, count: int) -> None:
        """Raise what `give` of these frames would raise now."""
        self._require_taken(pfn, count)
        if not self.pinned:
            return
        low = pfn - self.start_pfn
        pinned = self._states.find(FrameState.PINNED, low, low + count)
        if pinned >= 0:
            raise Busy(
                f"frame {self.start_pfn + pinned:#x} is pinned: {count} frames at {pfn:#x} are not given back",
                pfn=self.start_pfn + pinned,
                count=count,
            )

    def are_taken(self, pfn: int, count: int) -> bool:
        """Whether all of these frames are taken, in whatever state."""
        low = pfn - self.start_pfn
        return self._holds(pfn, count) and self._states.find(FrameState.FREE, low, low + count) < 0

    @locked
    def occupy(self, pfn: int, count: int) -> None:
        """Take exactly ``count`` frames from ``pfn``, as an early reserver does.

        `AddressInUse` if one of them is not free, `OutOfRange` if one is outside; nothing is changed then.
        """
        pfn, count = as_integers(pfn=pfn, count=count)
        if not self._holds(pfn, count):
            raise OutOfRange(f"{count} frames at {pfn:#x} are not all in {self._bounds()}", pfn=pfn, count=count)
        low = pfn - self.start_pfn
        free = self._states.count(FrameState.FREE, low, low + count)
        if free < count:
            raise AddressInUse(
                f"{count - free} of the {count} frames at {pfn:#x} are not free",
                pfn=pfn,
                count=count,
            )
        self._blocks.cut(pfn, pfn + count)
        self._mark(pfn, count)

    @locked
    def occupy_each(self, pfns: Sequence[int]) -> None:
        """Take exactly these single frames: as `occupy` for each of them, all or none, at a fraction of the time.

        >>> from swiommu.address import PhysSpace
        >>> frames = Frames(PhysSpace("ram").at(0), 64 << 10)
        >>> frames.occupy_each([9, 2, 3])
        >>> frames.free_runs()
        [(0, 2), (4, 5), (10, 6)]
        """
        wanted = sorted(pfns if all(type(pfn) is int for pfn in pfns) else [as_integer(pfn, "pfn") for pfn in pfns])
        states, start = self._states, self.start_pfn
        for number, pfn in enumerate(wanted):
            if not self._holds(pfn, 1):
                raise OutOfRange(f"frame {pfn:#x} is not in {self._bounds()}", pfn=pfn, count=1)
            if states[pfn - start] != FrameState.FREE or (number and wanted[number - 1] == pfn):
                raise AddressInUse(f"frame {pfn:#x} is not free, or was asked for twice", pfn=pfn, count=1)
        self._blocks.cut_each(wanted)
        if self.undo_log is not None:
            self.undo_log.note(self._mark_each, wanted, FrameState.FREE)
        self._mark_each(wanted, FrameState.TAKEN)
        self.free_count -= len(wanted)

    def _mark_each(self, pfns: Sequence[int], state: int) -> None:
        states, start = self._states, self.start_pfn
        for pfn in pfns:
            states[pfn - start] = state

    def is_free(self, pfn: int) -> bool:
        """Whether this frame can be taken; a frame outside can't."""
        position = as_integer(pfn, "pfn") - self.start_pfn
        return 0 <= position < self.count and self._states[position] == FrameState.FREE

    @locked
    def free_runs(self) -> list[tuple[int, int]]:
        """The free frames as merged (pfn, count) runs, ascending."""
        return self._blocks.runs()

    @locked
    def has_room(self, order: int) -> bool:
        """Whether ``take(order)`` would find a block now; False beyond ``max_order``."""
        order = as_integer(order, "order")
        self._require_orders((order,))
        return self._blocks.largest() >= 1 << order

    def state(self, pfn: int) -> FrameState:
        """What this frame is in; `NotFound` outside."""
        pfn = as_integer(pfn, "pfn")
        if not self._holds(pfn, 1):
            raise NotFound(f"frame {pfn:#x} is outside {self._bounds()}", pfn=pfn)
        return FrameState(self._states[pfn - self.start_pfn])

    @locked
    def set_state(self, pfn: int, count: int, state: FrameState) -> None:
        """Say what ``count`` taken frames are in: anything but FREE.

        `InvalidArgument` for FREE (that is `give`), `NotFound` if a frame is free or outside; nothing is changed then.
        """
        pfn, count = as_integers(pfn=pfn, count=count)
        state = FrameState(as_integer(state, "state"))
        if state == FrameState.FREE:
            raise InvalidArgument("frames become free by give, not by set_state", pfn=pfn, count=count)
        self._require_taken(pfn, count)
        low = pfn - self.start_pfn
        self.pinned -= self._states.count(FrameState.PINNED, low, low + count)
        self._write(low, bytes((state,)) * count)
        self.pinned += count * (state == FrameState.PINNED)

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`.

        >>> from swiommu.address import PhysSpace
        >>> frames = Frames(PhysSpace("ram").at(0), 1 << 20)
        >>> with frames.dry_run():
        ...     runs = frames.take_pages(3)
        >>> runs, frames.free_count
        ([(0, 3)], 256)
        """
        log.save(self, "_fail_in", "free_count", "pinned")
        return (self._blocks,)

    @locked
    def fail_nth(self, n: int) -> None:
        """Let the n-th following take (1 is the next; of any form) raise `NoMemory` and change nothing, once."""
        n = as_integer(n, "n")
        if n < 1:
            raise InvalidArgument(f"the next call is number 1, not {n}", count=n)
        self._fail_in = n

    @locked
    def check(self) -> None:
        """Assert: 1. the blocks are sound, 2. they hold just the FREE frames, 3. the counts are right."""
        self._blocks.check()
        runs = [(self.start_pfn + free.start(), len(free[0])) for free in re.finditer(rb"\x00+", self._states)]
        assert self._blocks.runs() == runs, f"free by blocks: {self._blocks.runs()}, by state: {runs}"
        counted = sum(count for _, count in runs)
        assert self.free_count == counted, f"free_count {self.free_count}, but {counted} frames are free"
        pinned = self._states.count(FrameState.PINNED)
        assert self.pinned == pinned, f"{self.pinned} frames are pinned by count, {pinned} by state"

    def _free(self, pfn: int, count: int) -> None:
        low = pfn - self.start_pfn
        self._write(low, bytes(count))
        self._blocks.insert(pfn, pfn + count)
        self.free_count += count

    def _mark(self, pfn: int, count: int) -> None:
        low = pfn - self.start_pfn
        self._write(low, b"\x01" * count)
        self.free_count -= count

    def _write(self, low: int, states: bytes | bytearray) -> None:
        high = low + len(states)
        if self.undo_log is not None:
            self.undo_log.note(self._write, low, self._states[low:high])
        self._states[low:high] = states

    def _holds(self, pfn: int, count: int) -> bool:
        if count < 1:
            raise InvalidArgument(f"a run of {count} frames at {pfn:#x}: at least 1 is needed", pfn=pfn, count=count)
        return self.start_pfn <= pfn and pfn + count <= self.start_pfn + self.count

    def _require_taken(self, pfn: int, count: int) -> None:
        if not self._holds(pfn, count):
            raise NotFound(f"{count} frames at {pfn:#x} are not all in {self._bounds()}", pfn=pfn, count=count)
        low = pfn - self.start_pfn
        free = self._states.find(FrameState.FREE, low, low + count)
        if free >= 0:
            raise NotFound(
                f"frame {self.start_pfn + free:#x} of the {count} frames at {pfn:#x} is not taken", pfn=pfn, count=count
            )

    def _require_orders(self, orders: Sequence[int]) -> None:
        if not orders:
            raise InvalidArgument("no order to take blocks of")
        if min(orders) < 0:
            raise InvalidArgument(f"a block of order {min(orders)}: orders start at 0")

    def _admit(self, orders: Sequence[int], n: int) -> None:
        """The door of every take: refuse what can't be right, then what fail_nth asked to fail."""
        self._require_orders(orders)
        if n < 1:
            raise InvalidArgument(f"{n} frames wanted: at least 1 is needed", count=n)
        if self._fail_in:
            self._fail_in -= 1
            if not self._fail_in:
                raise NoMemory(f"a take of {n} frames fails because fail_nth asked for it", count=n)

    def _exhausted(self, what: str, n: int) -> NoMemory:
        largest = self._blocks.largest()
        return NoMemory(
            f"{what}: {self.free_count} of {self.count} frames are free, {largest} in the largest block",
            count=n,
        )

    def _bounds(self) -> str:
        return f"frames [{self.start_pfn:#x}, {self.start_pfn + self.count:#x})"
