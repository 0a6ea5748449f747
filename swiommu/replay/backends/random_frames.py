"""Single frames in seeded random order: the worst case for leaves and walks (``--frames random``)."""

from __future__ import annotations

import bisect
import random
from typing import TYPE_CHECKING

from swiommu.address import AddressRange, PhysAddr, PhysRange
from swiommu.errors import NoMemory
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from swiommu.memory import Frames
    from swiommu.undo import UndoLog

__all__ = ["RandomFrames"]


class RandomFrames(Undoable):
    """Takes frames one by one, each drawn from what is free; the same seed draws the same frames.

    Others (page tables) take from the same `Frames`, so a drawn frame may be gone: it is passed over.
    """

    def __init__(self, frames: Frames, seed: int) -> None:
        self._frames = frames
        self._random = random.Random(seed)  # noqa: S311 - a reproducible worst case, not a secret
        self._drawable = _Drawable([])
        self.undo_log = None
        self._state_is_in: UndoLog | None = None  # the log that has the state of the draws

    def take(self, n: int) -> list[PhysRange]:
        """``n`` frames as pieces in the order drawn, all or nothing; `NoMemory`."""
        if n > self._frames.free_count:
            raise NoMemory(f"{n} frames wanted, {self._frames.free_count} free", count=n)
        space = self._frames.range.start.space
        size = self._frames.page_size
        drawn: list[int] = []
        occupied = 0
        for _ in range(n):
            if not len(self._drawable):  # what is drawn anew must not be among those
                self._frames.occupy_each(drawn[occupied:])
                occupied = len(drawn)
            drawn.append(self._draw())
        self._frames.occupy_each(drawn[occupied:])
        return [PhysRange(PhysAddr(space, pfn * size), size) for pfn in drawn]

    def give_pieces(self, pieces: Sequence[AddressRange[PhysAddr]]) -> None:
        """What `take` gave goes back and can be drawn again."""
        size = self._frames.page_size
        for piece in pieces:
            first, count = piece.start.value // size, piece.size // size
            self._frames.give(first, count)
            self._drawable.extend(range(first, first + count))
            if self.undo_log is not None:
                self.undo_log.note(self._drawable.forget, count)

    def _draw(self) -> int:
        if (
            self.undo_log is not None and self._state_is_in is not self.undo_log
        ):  # it is dear, and many trials draw none
            self.undo_log.note(self._random.setstate, self._random.getstate())
            self._state_is_in = self.undo_log
        while True:
            if not len(self._drawable):
                if self.undo_log is not None:
                    self.undo_log.save(self, "_drawable")
                self._drawable = _Drawable(self._frames.free_runs())
            place = self._random.randrange(len(self._drawable))
            pfn = self._drawable.take(place)
            if self.undo_log is not None:
                self.undo_log.note(self._drawable.put_back, place, pfn)
            if self._frames.is_free(pfn):
                return pfn


class _Drawable:
    """Frame numbers in an order: those of runs, of which only what was moved is held one by one.

    A machine has more frames than a list can hold.
    """

    def __init__(self, runs: Iterable[tuple[int, int]]) -> None:
        self._firsts: list[int] = []
        self._places: list[int] = []  # of each run's first frame
        self._count = 0
        for first, count in runs:
            self._firsts.append(first)
            self._places.append(self._count)
            self._count += count
        self._moved: dict[int, int] = {}  # frames that are not where their run has them, by place

    def __len__(self) -> int:
        return self._count

    def extend(self, pfns: Iterable[int]) -> None:
        for pfn in pfns:
            self._moved[self._count] = pfn
            self._count += 1

    def forget(self, count: int) -> None:
        """The opposite of `extend`."""
        for _ in range(count):
            self._count -= 1
            del self._moved[self._count]

    def take(self, place: int) -> int:
        """The frame at ``place``, where the last one goes."""
        pfn, last = self._at(place), self._at(self._count - 1)
        self._moved[place] = last
        self._count -= 1
        self._moved.pop(self._count, None)
        return pfn

    def put_back(self, place: int, pfn: int) -> None:
        """The opposite of `take`."""
        self._moved[self._count] = self._at(place) if place < self._count else pfn
        self._count += 1
        self._moved[place] = pfn

    def _at(self, place: int) -> int:
        moved = self._moved.get(place)
        if moved is not None:
            return moved
        run = bisect.bisect_right(self._places, place) - 1
        return self._firsts[run] + place - self._places[run]
