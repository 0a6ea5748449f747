"""Single frames in seeded random order: the worst case for leaves and walks (``--frames random``)."""

from __future__ import annotations

import random
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from swiommu.address import AddressRange, PhysAddr, PhysRange
from swiommu.errors import NoMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from swiommu.memory import Frames

__all__ = ["RandomFrames"]


class RandomFrames:
    """Takes frames one by one, each drawn from what is free; the same seed draws the same frames.

    Others (page tables) take from the same `Frames`, so a drawn frame may be gone: it is passed over.
    """

    def __init__(self, frames: Frames, seed: int) -> None:
        self._frames = frames
        self._random = random.Random(seed)  # noqa: S311 - a reproducible worst case, not a secret
        self._drawable: list[int] = []
        self._undo: list[Callable[[], object]] | None = None  # what `dry_run` has to do at its end, last first

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """What is drawn inside and given back leaves nothing behind: the same frames are drawn next."""
        undo: list[Callable[[], object]] = []
        self._undo = undo
        try:
            yield
        finally:
            self._undo = None
            for step in reversed(undo):
                step()

    def take(self, n: int) -> list[PhysRange]:
        """``n`` frames as pieces in the order drawn, all or nothing; `NoMemory`."""
        if n > self._frames.free_count:
            raise NoMemory(f"{n} frames wanted, {self._frames.free_count} free", frames=n)
        space = self._frames.range.start.space
        size = self._frames.page_size
        pieces = []
        for _ in range(n):
            pfn = self._draw()
            self._frames.occupy(pfn, 1)
            pieces.append(PhysRange(PhysAddr(space, pfn * size), size))
        return pieces

    def give_pieces(self, pieces: Sequence[AddressRange[PhysAddr]]) -> None:
        """What `take` gave goes back and can be drawn again."""
        size = self._frames.page_size
        for piece in pieces:
            first, count = piece.start.value // size, piece.size // size
            self._frames.give(first, count)
            self._drawable.extend(range(first, first + count))
            if self._undo is not None:
                self._undo.append(partial(self._forget, count))

    def _draw(self) -> int:
        if self._undo is not None and not self._undo:  # the first draw of a dry run
            self._undo.append(partial(self._random.setstate, self._random.getstate()))
        while True:
            if not self._drawable:
                self._drawable.extend(
                    pfn for first, count in self._frames.free_runs() for pfn in range(first, first + count)
                )
                if self._undo is not None:
                    self._undo.append(self._drawable.clear)
            index = self._random.randrange(len(self._drawable))
            self._drawable[index], self._drawable[-1] = self._drawable[-1], self._drawable[index]
            pfn = self._drawable.pop()
            if self._undo is not None:
                self._undo.append(partial(self._put_back, index, pfn))
            if self._frames.is_free(pfn):
                return pfn

    def _put_back(self, index: int, pfn: int) -> None:
        self._drawable.append(pfn)
        self._drawable[index], self._drawable[-1] = self._drawable[-1], self._drawable[index]

    def _forget(self, count: int) -> None:
        del self._drawable[-count:]
