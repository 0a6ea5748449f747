"""User-space mappings: the ``VFIO`` marks that a test program wrote into the trace beside the kernel's own lines."""

from __future__ import annotations

import attrs
from intervaltree import IntervalTree

__all__ = ["Mark", "UserMaps", "parse_mark"]


@attrs.frozen
class Mark:
    """One VFIO request with its result; ``iova`` and ``size`` in bytes, ``refused`` when the kernel said no."""

    is_map: bool
    iova: int
    size: int
    refused: bool


def parse_mark(text: str) -> Mark | None:
    """The mark in a ``tracing_mark_write`` text, or None for any other text.

    >>> parse_mark("VFIO MAP iova=0x1000 size=0x2000 prot=rw rc=0")
    Mark(is_map=True, iova=4096, size=8192, refused=False)
    >>> parse_mark("PHASE end") is None
    True
    """
    words = text.split()
    if len(words) < 2 or words[0] != "VFIO" or words[1] not in {"MAP", "UNMAP"}:
        return None
    fields = dict(word.split("=", 1) for word in words[2:] if "=" in word)
    try:
        iova, size, rc = (int(fields[key], 0) for key in ("iova", "size", "rc"))
    except (KeyError, ValueError):
        return None
    return Mark(words[1] == "MAP", iova, size, refused=rc != 0 or size <= 0)


class UserMaps:
    """Live user mappings by iova; an unmap ends every mapping inside its range (VFIO never cuts one)."""

    def __init__(self) -> None:
        self._tree = IntervalTree()

    def add(self, index: int, iova: int, size: int) -> None:
        """Request ``index`` maps [iova, iova + size)."""
        self._tree.addi(iova, iova + size, index)

    def take(self, iova: int, size: int) -> list[int]:
        """The requests that an unmap of [iova, iova + size) ends, by iova."""
        found = sorted(self._tree.envelop(iova, iova + size))
        for interval in found:
            self._tree.remove(interval)
        return [interval.data for interval in found]
