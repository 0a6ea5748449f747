"""The free blocks of a buddy system: which aligned powers of two are free, and the lowest of each size.

A block of order k is ``2**k`` frames whose first frame number is a multiple of ``2**k`` (absolute, not relative
to the memory). Blocks are always as large as they can be: two free halves of one block never stand side by side
below the largest order. So the blocks follow from the *set* of free frames alone, whatever happened before.
That is what makes roll-back exact: giving back what was just taken restores the blocks to the last bit.

Callers say only things that are true (frames put in were not there, frames cut out were): `Frames` checks.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from swiommu.locking import no_shallow_copy
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


__all__ = ["FreeBlocks", "aligned_blocks", "append_run"]

# A heap may hold this many dead entries beside its live ones before it is rebuilt.
HEAP_SLACK = 64


def aligned_blocks(start: int, stop: int, max_order: int) -> Iterator[tuple[int, int]]:
    """Cut ``[start, stop)`` into the fewest aligned blocks, as (first frame, order), ascending.

    >>> list(aligned_blocks(3, 13, 10))
    [(3, 0), (4, 2), (8, 2), (12, 0)]
    """
    while start < stop:
        order = min((stop - start).bit_length() - 1, max_order)
        if start:
            order = min(order, (start & -start).bit_length() - 1)
        yield start, order
        start += 1 << order


def append_run(runs: list[tuple[int, int]], start: int, count: int) -> None:
    """Append ``count`` frames from ``start``, melted into the last run when they follow on from it.

    >>> runs = [(4, 2)]
    >>> append_run(runs, 6, 1); append_run(runs, 9, 1); runs
    [(4, 3), (9, 1)]
    """
    if runs and sum(runs[-1]) == start:
        runs[-1] = (runs[-1][0], runs[-1][1] + count)
    else:
        runs.append((start, count))


class FreeBlocks(Undoable):
    """Free blocks by order; every question and change costs O(log n) a block.

    Per order a set says what is free and a heap finds the lowest; a heap entry that is not in the set is dead and
    is skipped when it surfaces, which is cheaper than digging it out when its block melts into a larger one.

    >>> blocks = FreeBlocks(3)
    >>> blocks.insert(0, 8)
    >>> blocks.take(0), blocks.take(1), blocks.runs()
    (0, 2, [(1, 1), (4, 4)])
    """

    __slots__ = ("_heaps", "_starts", "max_order")

    __copy__ = no_shallow_copy

    def __init__(self, max_order: int) -> None:
        self.max_order = max_order
        self._starts: list[set[int]] = [set() for _ in range(max_order + 1)]
        self._heaps: list[list[int]] = [[] for _ in range(max_order + 1)]
        self.undo_log = None

    def insert(self, start: int, stop: int) -> None:
        """Make the frames ``[start, stop)`` free, melting them with free neighbours."""
        size = stop - start
        if self.undo_log is not None and size:
            self.undo_log.note(self.cut, start, stop)
        if (size | start) & (size - 1) or size > 1 << self.max_order:
            for first, cut in aligned_blocks(start, stop, self.max_order):
                self._melt(first, cut)
        elif size:  # one block, which nearly all are: tables and single pages
            self._melt(start, size.bit_length() - 1)

    def take(self, order: int) -> int | None:
        """Cut out a block of this order: from the smallest that is large enough, the lowest of these; None if none."""
        for size in range(order, self.max_order + 1):
            if self._starts[size]:
                start = self._pop(size)
                for half in range(order, size):
                    self._add(start + (1 << half), half)
                if self.undo_log is not None:
                    self.undo_log.note(self.insert, start, start + (1 << order))
                return start
        return None

    def take_many(self, order: int, count: int) -> list[tuple[int, int]]:
        """Cut out ``count`` blocks, exactly those of ``count`` calls of `take`, as (start, frames) runs in that order.

        There must be so many (`available`). Once a block is cut, its rest is smaller than every other block that is
        left, so it is used up before the next is touched: whole blocks go at once, and only the last one is split.
        """
        runs: list[tuple[int, int]] = []
        left = count << order
        for size in range(order, self.max_order + 1):
            whole = min(left >> size, len(self._starts[size]))
            for start in self._pop_many(size, whole):
                append_run(runs, start, 1 << size)
            left -= whole << size
            if left and self._starts[size]:
                start = self._pop(size)
                append_run(runs, start, left)
                for block, rest in aligned_blocks(start + left, start + (1 << size), size):
                    self._add(block, rest)
                left = 0
            if not left:
                break
        if self.undo_log is not None:
            for start, frames in runs:
                self.undo_log.note(self.insert, start, start + frames)
        return runs

    def cut(self, start: int, stop: int) -> None:
        """Take exactly the frames ``[start, stop)``, all of which are free; what stays of their blocks stays free."""
        if self.undo_log is not None and start < stop:
            self.undo_log.note(self.insert, start, stop)
        position = start
        while position < stop:
            block, order = self._block_of(position)
            self._starts[order].remove(block)
            self._prune(order)
            end = block + (1 << order)
            # No melting: the buddy of every piece that is left holds a frame that goes.
            for low, high in ((block, position), (stop, end)):
                for piece, size in aligned_blocks(low, high, self.max_order):
                    self._add(piece, size)
            position = end

    def cut_each(self, frames: Sequence[int]) -> None:
        """Take single frames, ascending and all free: as `cut` for each of them, but every block is looked at once."""
        if self.undo_log is not None:
            self.undo_log.note(self._insert_each, frames)
        number, count = 0, len(frames)
        while number < count:
            low, order = self._block_of(frames[number])
            end = low + (1 << order)
            self._starts[order].remove(low)
            self._prune(order)
            while number < count and (frame := frames[number]) < end:
                for piece, size in aligned_blocks(low, frame, order):
                    self._add(piece, size)
                low, number = frame + 1, number + 1
            for piece, size in aligned_blocks(low, end, order):
                self._add(piece, size)

    def _insert_each(self, frames: Sequence[int]) -> None:
        for frame in frames:
            self._melt(frame, 0)

    def lowest_at(self, order: int, step: int) -> int | None:
        """The lowest free block of just this order that starts at a multiple of ``step``; looks at all of them."""
        return min((start for start in self._starts[order] if start % step == 0), default=None)

    def all_free(self, start: int, stop: int) -> bool:
        """Whether every frame of ``[start, stop)`` is free."""
        while start < stop:
            for order, starts in enumerate(self._starts):
                if start & -(1 << order) in starts:
                    start = (start & -(1 << order)) + (1 << order)
                    break
            else:
                return False
        return True

    def available(self, order: int) -> int:
        """How many blocks of this order could be taken one after the other."""
        return sum(len(self._starts[size]) << (size - order) for size in range(order, self.max_order + 1))

    def largest(self) -> int:
        """Frames of the largest free block, 0 when nothing is free."""
        return next((1 << order for order in range(self.max_order, -1, -1) if self._starts[order]), 0)

    def runs(self) -> list[tuple[int, int]]:
        """All free frames as merged (start, count) runs, ascending."""
        runs: list[tuple[int, int]] = []
        for start, order in sorted((start, order) for order, starts in enumerate(self._starts) for start in starts):
            append_run(runs, start, 1 << order)
        return runs

    def copy(self) -> FreeBlocks:
        """The same blocks, of its own."""
        other = FreeBlocks(self.max_order)
        other._starts = [starts.copy() for starts in self._starts]
        other._heaps = [heap.copy() for heap in self._heaps]
        return other

    def check(self) -> None:
        """Assert: 1. blocks are aligned, 2. disjoint, 3. as large as can be, 4. in their heap, 5. heaps stay small."""
        end = 0
        for start, order in sorted((start, order) for order, starts in enumerate(self._starts) for start in starts):
            what = f"block {start:#x} of order {order} in {self._starts}"
            assert start % (1 << order) == 0, f"misaligned {what}"
            assert start >= end, f"overlapping {what}"
            assert order == self.max_order or start ^ (1 << order) not in self._starts[order], f"unmelted {what}"
            end = start + (1 << order)
        for starts, heap in zip(self._starts, self._heaps, strict=True):
            assert starts <= set(heap), f"{sorted(starts - set(heap))} in no heap: {heap}"
            assert len(heap) <= 2 * len(starts) + HEAP_SLACK + 1, f"{len(heap)} entries for {len(starts)} blocks"

    def _melt(self, block: int, order: int) -> None:
        """Make one block free, with its buddies as far as they are."""
        every, top = self._starts, self.max_order
        while order < top and (buddy := block ^ (1 << order)) in every[order]:
            every[order].remove(buddy)
            if len(self._heaps[order]) > 2 * len(every[order]) + HEAP_SLACK:
                self._prune(order)
            block &= buddy
            order += 1
        self._add(block, order)

    def _prune(self, order: int) -> None:
        """Rebuild a heap of mostly dead entries; each is paid for by the pushes and removals that made it due."""
        if len(self._heaps[order]) > 2 * len(self._starts[order]) + HEAP_SLACK:
            self._heaps[order] = sorted(self._starts[order])

    def _add(self, start: int, order: int) -> None:
        starts, heap = self._starts[order], self._heaps[order]
        starts.add(start)
        heappush(heap, start)
        if len(heap) > 2 * len(starts) + HEAP_SLACK:
            self._prune(order)

    def _pop(self, order: int) -> int:
        starts, heap = self._starts[order], self._heaps[order]
        while (start := heappop(heap)) not in starts:
            pass
        starts.remove(start)
        return start

    def _pop_many(self, order: int, count: int) -> list[int]:
        if count < len(self._starts[order]):
            return [self._pop(order) for _ in range(count)]
        everything = sorted(self._starts[order])
        self._starts[order].clear()
        self._heaps[order].clear()
        return everything

    def _block_of(self, frame: int) -> tuple[int, int]:
        """The free block that holds this free frame."""
        for order, starts in enumerate(self._starts):
            start = frame & -(1 << order)
            if start in starts:
                return start, order
        raise AssertionError(f"frame {frame:#x} is in no free block: {self._starts}")
