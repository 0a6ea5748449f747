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

_SEGMENT, _BLOCK = "256 KiB", "4 MiB"


class Cause(enum.StrEnum):
    """The limit that a request met.

    ``mask``: a piece or a buffer beyond the device's DMA mask; ``aperture``: no free bus address below it; ``block``:
    more than the largest block of the page allocator, which alone was asked; ``segment``: a piece that, with its
    offset, exceeds a segment of the bounce pool; ``pool``: no free run of slots in it; ``memory``: no free memory that
    would do, for data or for a table; ``size``: 0 bytes, which no kernel serves; ``translation``: a bus address of the
    caller's own choice, where nothing translates.
    """

    MASK = "mask"
    APERTURE = "aperture"
    BLOCK = "block"
    SEGMENT = "segment"
    POOL = "pool"
    MEMORY = "memory"
    SIZE = "size"
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
    """Which limit an error is about: by its class, and a mask by its ``mask``.

    >>> cause_of(PoolFull("no free run of slots")), cause_of(OutOfRange("beyond the mask 0xffff", mask=0xffff))
    (<Cause.POOL: 'pool'>, <Cause.MASK: 'mask'>)
    """
    if error.mask is not None:
        return Cause.MASK
    return next((cause for kind, cause in _CAUSES if isinstance(error, kind)), Cause.MEMORY)


@attrs.define
class Causes:
    """Refused requests by kind and cause; ``largest`` is the largest piece, in bytes, that exceeded a segment.

    >>> from swiommu.requests import RequestKind
    >>> causes = Causes(Counter({(RequestKind.MAP, Cause.POOL): 3}))
    >>> causes.sentence(RequestKind.MAP, pool=1 << 20)
    'all find no free run of slots in the bounce pool of 1 MiB'
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

    def without(self, others: Causes) -> Causes:
        """Those that are not among ``others``."""
        return Causes(self.counts - others.counts, self.largest)

    def sentence(self, kind: RequestKind, *, pool: int, numbered: bool = False) -> str:
        """The causes in words, with their numbers; nothing where it is memory alone, which the numbers beside it say.

        ``pool`` is the size of the bounce pool in bytes. A single cause is of "all", or ``numbered`` too.
        """
        causes = self.of(kind)
        if set(causes) <= {Cause.MEMORY}:
            return ""
        which = {cause: f"{number:,}" for cause, number in causes.items()}
        if len(causes) == 1 and not numbered:
            which = {cause: "it" if number == 1 else "all" for cause, number in causes.items()}
        return " and ".join(f"{which[cause]} {self._words(cause, number, pool)}" for cause, number in causes.items())

    def _words(self, cause: Cause, number: int, pool: int) -> str:
        verb, rest = {
            Cause.MASK: ("reach", "beyond the device's DMA mask, which takes translation or a bounce pool"),
            Cause.APERTURE: ("find", "no free bus address below the device's DMA mask"),
            Cause.BLOCK: ("exceed", f"the largest block of the page allocator, {_BLOCK}"),
            Cause.SEGMENT: (
                "exceed",
                f"a bounce segment, {_SEGMENT} in a pool of any size, with pieces of up to {mib(self.largest)}",
            ),
            Cause.POOL: ("find", f"no free run of slots in the bounce pool of {mib(pool)}"),
            Cause.MEMORY: ("find", "no free memory that would do"),
            Cause.SIZE: ("ask", "for 0 bytes"),
            Cause.TRANSLATION: ("need", "translation"),
        }[cause]
        third = "es" if verb.endswith("ch") else "s"
        return f"{verb}{third if number == 1 else ''} {rest}"
