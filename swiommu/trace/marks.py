"""Marks that programs write into a trace: the VFIO requests of a program that maps for itself, with their results."""

from __future__ import annotations

import attrs

__all__ = ["Mark", "parse_mark"]


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
