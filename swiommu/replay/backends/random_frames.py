"""Single frames in seeded random order: the worst case for leaves and walks (``--frames random``)."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING

from swiommu.address import AddressRange, PhysAddr, PhysRange
from swiommu.errors import NoMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    def copy(self) -> RandomFrames:
        """Another that draws the same from the same frames."""
        twin = copy.copy(self)
        vars(twin).update(_random=copy.deepcopy(self._random), _drawable=self._drawable.copy())
        return twin

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

    def _draw(self) -> int:
        while True:
            if not self._drawable:
                self._drawable = [
                    pfn for first, count in self._frames.free_runs() for pfn in range(first, first + count)
                ]
            index = self._random.randrange(len(self._drawable))
            self._drawable[index], self._drawable[-1] = self._drawable[-1], self._drawable[index]
            pfn = self._drawable.pop()
            if self._frames.is_free(pfn):
                return pfn
