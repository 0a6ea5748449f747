"""Why a design refuses a request: the limit that it met, recorded where it was met, and what that limit is.

A cause is taken from the error that the request met, at that moment; it is never guessed from the design.
"""

from __future__ import annotations

import enum
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from swiommu.errors import BlockExceeded, NoSpace, NotSupported, OutOfRange, PoolFull, SegmentExceeded, SwiommuError
from swiommu.words import mib

if TYPE_CHECKING:
    from swiommu.requests import Request, RequestKind

__all__ = ["Cause", "Causes", "cause_of"]

_SEGMENT = "256 KiB"


class Cause(enum.StrEnum):
    """The limit that a request met.

    ``mask``: a piece or a buffer beyond the device's DMA mask; ``aperture``: no free bus address below it; ``block``:
    more than the largest block of the page allocator, which alone was asked; ``segment``: a piece that, with its
    offset, exceeds a segment of the bounce pool; ``pool``: no free run of slots in it; ``memory``: no free memory that
    would do, for data or for a table; ``translation``: a bus address of the caller's own choice, where nothing
    translates.
    """

    MASK = "mask"
    APERTURE = "aperture"
    BLOCK = "block"
    SEGMENT = "segment"
    POOL = "pool"
    MEMORY = "memory"
    TRANSLATION = "translation"


_CAUSES: tuple[tuple[type[SwiommuError], Cause], ...] = (
    (SegmentExceeded, Cause.SEGMENT),
    (PoolFull, Cause.POOL),
    (BlockExceeded, Cause.BLOCK),
    (OutOfRange, Cause.APERTURE),
    (NoSpace, Cause.APERTURE),
    (NotSupported, Cause.TRANSLATION),
)


def cause_of(error: SwiommuError) -> Cause:
    """Which limit an error is about: by its class, and a mask by the number ``mask``.

    >>> cause_of(PoolFull("no free run of slots")), cause_of(OutOfRange("beyond the mask 0xffff", mask=0xffff))
    (<Cause.POOL: 'pool'>, <Cause.MASK: 'mask'>)
    """
    if "mask" in error.numbers:
        return Cause.MASK
    return next((cause for kind, cause in _CAUSES if isinstance(error, kind)), Cause.MEMORY)


@attrs.define
class Causes:
    """Refused requests by kind and cause; ``largest`` is the largest piece, in bytes, that exceeded a segment.

    >>> from swiommu.requests import RequestKind
    >>> causes = Causes(Counter({(RequestKind.MAP, Cause.POOL): 3}))
    >>> causes.sentence(RequestKind.MAP, pool=1 << 20)
    '3 find no free run of slots in the bounce pool of 1 MiB'
    """

    counts: Counter[tuple[RequestKind, Cause]] = attrs.field(factory=Counter)
    largest: int = 0

    def add(self, request: Request, cause: Cause) -> None:
        """One more request was refused."""
        self.counts[request.kind, cause] += 1
        if cause is Cause.SEGMENT:
            self.largest = max(self.largest, *(size for _, size in request.pieces))

    def of(self, kind: RequestKind) -> Counter[Cause]:
        """How many of one kind, by cause, the most frequent first."""
        return Counter({cause: n for (each, cause), n in self.counts.most_common() if each is kind})

    def sentence(self, kind: RequestKind, *, pool: int) -> str:
        """The causes in words, with their numbers; ``pool`` is the size of the bounce pool in bytes."""
        return " and ".join(f"{number:,} {self._words(cause, number, pool)}" for cause, number in self.of(kind).items())

    def _words(self, cause: Cause, number: int, pool: int) -> str:
        one = number == 1
        if cause is Cause.MASK:
            return f"{'is' if one else 'are'} beyond the DMA mask of the device"
        if cause is Cause.APERTURE:
            return f"{'finds' if one else 'find'} no free bus address below the DMA mask"
        if cause is Cause.BLOCK:
            return f"{'exceeds' if one else 'exceed'} the largest block of the page allocator, 4 MiB"
        if cause is Cause.SEGMENT:
            largest = f"the largest piece has {mib(self.largest)}"
            return f"{'exceeds' if one else 'exceed'} a segment of the bounce pool, {_SEGMENT} ({largest})"
        if cause is Cause.POOL:
            return f"{'finds' if one else 'find'} no free run of slots in the bounce pool of {mib(pool)}"
        if cause is Cause.TRANSLATION:
            return f"{'needs' if one else 'need'} translation"
        return f"{'finds' if one else 'find'} no free memory that would do"
