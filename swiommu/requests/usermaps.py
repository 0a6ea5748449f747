"""User-space mappings that live, as the ``VFIO`` marks of a program say."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

from swiommu.errors import InputError

__all__ = ["UserMaps"]

_PATIENCE: Final = 10_000_000  # mappings passed by in vain; those of one container don't even overlap


class UserMaps:
    """Live user mappings by iova; an unmap ends every mapping inside its range (VFIO never cuts one).

    Those of several containers may overlap. ``path`` is the trace's, for the refusal of one where they overlap so much
    that it could not be followed to its end.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._maps: list[tuple[int, int, int]] = []  # first and stop address, request
        self._passed = 0

    def add(self, index: int, iova: int, size: int) -> None:
        """Request ``index`` maps [iova, iova + size)."""
        insort(self._maps, (iova, iova + size, index))

    def take(self, iova: int, size: int, *, line: int | None = None) -> list[int]:
        """The requests that an unmap of [iova, iova + size) ends, by iova; ``line`` is where it stands."""
        first, last = bisect_left(self._maps, (iova,)), bisect_left(self._maps, (iova + size,))
        begun = self._maps[first:last]
        kept = [each for each in begun if each[1] > iova + size]
        self._passed += len(kept)
        if self._passed > _PATIENCE:
            raise InputError("so many user mappings overlap that they can't be followed", path=self._path, line=line)
        self._maps[first:last] = kept
        return [index for _, stop, index in begun if stop <= iova + size]
