"""User-space mappings: the ``VFIO`` marks that a test program wrote into the trace beside the kernel's own lines."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

import attrs

from swiommu.errors import InputError

__all__ = ["Mark", "UserMaps", "parse_mark"]

_PATIENCE: Final = 10_000_000  # mappings passed by in vain; those of one container don't even overlap


@attrs.frozen
class Mark:
    """One VFIO request with its result; ``iova`` and ``size`` in bytes, ``refused`` when the kernel said no.

    ``unmapped`` are the bytes that an UNMAP took out, None where the mark does not say.
    """

    is_map: bool
    iova: int
    size: int
    refused: bool
    unmapped: int | None = None


def parse_mark(text: str) -> Mark | None:
    """The mark in a ``tracing_mark_write`` text, or None for any other text.

    >>> parse_mark("VFIO MAP iova=0x1000 size=0x2000 prot=rw rc=0")
    Mark(is_map=True, iova=4096, size=8192, refused=False, unmapped=None)
    >>> parse_mark("PHASE end") is None
    True
    """
    words = text.split()
    if len(words) < 2 or words[0] != "VFIO" or words[1] not in {"MAP", "UNMAP"}:
        return None
    fields = dict(word.split("=", 1) for word in words[2:] if "=" in word)
    try:
        iova, size, rc = (int(fields[key], 0) for key in ("iova", "size", "rc"))
        unmapped = int(fields["unmapped"], 0) if "unmapped" in fields else None
    except (KeyError, ValueError):
        return None
    return Mark(words[1] == "MAP", iova, size, refused=rc != 0 or size <= 0, unmapped=unmapped)


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
