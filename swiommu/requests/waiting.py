"""Which kernel lines served which driver call: page-table maps and area allocations, until a call claims them.

The kernel prints its own steps *before* the call that asked for them: the ``map`` and bounce lines of a ``dma_map_*``,
the ``cma_alloc`` of a ``dma_alloc``. `MapLedger`, `BounceLedger` and `AreaLedger` hold such lines per context (CPU,
PID, interrupt level) until the call comes by and claims them. What nobody claims is reported: a run of maps becomes a
MAP of its own (the two-step IOVA API), an area allocation becomes background occupancy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swiommu.trace import Context

__all__ = ["AreaCall", "AreaLedger", "BounceLedger", "MapLedger", "MapLine"]


@attrs.define(eq=False)
class MapLine:
    """One ``map`` line that no call has claimed; ``left`` bytes from ``iova`` on are still mapped."""

    iova: int
    left: int
    paddr: int
    size: int
    context: Context
    place: int
    time: int
    line: int


@attrs.define(eq=False)
class AreaCall:
    """One finished ``cma_alloc``: pages, order, first pfn or None, the candidates that were busy, and who made it."""

    count: int
    align: int
    pfn: int | None
    busy: tuple[int, ...]
    place: int
    context: Context = (0, 0, 0)


# Lines that may have taken over an address between an unmap and the line after it.
_OVERTAKERS = 64


class MapLedger:
    """Unclaimed ``map`` lines, by context (to claim them) and by first still-mapped iova (to end them).

    Both indexes are insertion-ordered dicts keyed by identity, so that no trace, however odd, makes a step linear.
    """

    def __init__(self) -> None:
        self._by_context: defaultdict[Context, dict[int, MapLine]] = defaultdict(dict)
        self._by_iova: defaultdict[int, dict[int, MapLine]] = defaultdict(dict)

    def add(self, line: MapLine) -> None:
        """Hold a line until someone claims it."""
        self._by_context[line.context][id(line)] = line
        self._by_iova[line.iova][id(line)] = line

    def claim(self, context: Context, start: int, stop: int) -> list[MapLine]:
        """The newest lines of this context that map from ``start`` on, below ``stop``; they are gone afterwards.

        One call maps one range of bus addresses without a gap; lines that don't reach down to ``start`` are another's.
        """
        claimed: list[MapLine] = []
        for line in reversed(self._by_context.get(context, {}).values()):
            if not start <= line.iova < stop or (claimed and line.iova + line.left != claimed[-1].iova):
                break
            claimed.append(line)
        if not claimed or claimed[-1].iova != start:
            return []
        for line in claimed:
            del self._by_context[context][id(line)]
            self._forget_iova(line)
        claimed.reverse()
        return claimed

    def knows(self, iova: int) -> bool:
        """Whether an unclaimed line is still mapped from exactly this iova on."""
        return iova in self._by_iova

    def unmap(self, iova: int, size: int, *, place: int) -> list[MapLine]:
        """Lines that ended with this unmap; a line cut short stays, shortened.

        ``place`` is where the unmap stands: lines after it took over its addresses and are not meant.
        """
        ended = []
        position, stop = iova, iova + size
        while position < stop and (line := self._newest(position, place)) is not None:
            self._forget_iova(line)
            take = min(line.left, stop - position)
            position += take
            line.left -= take
            if line.left:
                line.iova = position
                self._by_iova[position][id(line)] = line
            else:
                del self._by_context[line.context][id(line)]
                ended.append(line)
        return ended

    def runs(self) -> Iterator[list[MapLine]]:
        """What is left, as runs of neighbouring lines of one context whose iovas touch."""
        for held in self._by_context.values():
            run: list[MapLine] = []
            for line in held.values():
                if run and line.iova != run[-1].iova + run[-1].left:
                    yield run
                    run = []
                run.append(line)
            if run:
                yield run

    def _newest(self, iova: int, place: int) -> MapLine | None:
        newest = islice(reversed(self._by_iova.get(iova, {}).values()), _OVERTAKERS)
        return next((line for line in newest if line.place < place), None)

    def _forget_iova(self, line: MapLine) -> None:
        lines = self._by_iova[line.iova]
        del lines[id(line)]
        if not lines:
            del self._by_iova[line.iova]


class BounceLedger:
    """Pieces that were bounced, by context, until the ``dma_map_*`` of these pieces claims them."""

    def __init__(self) -> None:
        self._waiting: defaultdict[Context, list[tuple[str, int, int]]] = defaultdict(list)

    def add(self, context: Context, device: str, phys: int, size: int) -> None:
        """A piece at ``phys`` was (or was about to be) copied."""
        self._waiting[context].append((device, phys, size))

    def claim(self, context: Context, device: str, pieces: Iterable[int]) -> int:
        """Bytes bounced for pieces at these addresses; what else waited was of a call that failed without a line."""
        wanted, bounced = Counter(pieces), 0
        for owner, phys, size in reversed(self._waiting.pop(context, ())):
            if owner == device and wanted[phys]:
                wanted[phys] -= 1
                bounced += size
        return bounced


# Failed attempts that one request may have behind it: device, NUMA node and default area (dma_alloc_contiguous).
_ATTEMPTS = 3


class AreaLedger:
    """Area allocations by context until a ``dma_alloc`` of as many pages claims them."""

    def __init__(self) -> None:
        self._busy: defaultdict[Context, list[int]] = defaultdict(list)
        # Insertion-ordered, by identity, and of those that got pages the newest for these: no search is ever needed.
        self._finished: defaultdict[Context, dict[int, AreaCall]] = defaultdict(dict)
        self._by_pfn: dict[int, AreaCall] = {}

    def start(self, context: Context) -> list[AreaCall]:
        """A new call begins in this context: whatever still waits for a claim was nobody's, and is returned."""
        self._busy.pop(context, None)
        # A failed attempt may be followed by one in another area for the same request, so failures keep waiting.
        waiting = self._finished.pop(context, {}).values()
        failed = [call for call in waiting if call.pfn is None][-_ATTEMPTS:]
        if failed:
            self._finished[context] = {id(call): call for call in failed}
        return [self._left(call) for call in waiting if call.pfn is not None]

    def retry(self, context: Context, pfn: int) -> None:
        """A candidate range held a page that could not be moved."""
        self._busy[context].append(pfn)

    def finish(self, context: Context, *, count: int, align: int, pfn: int | None, place: int) -> AreaCall:
        """The call ended; ``pfn`` is None for a failure."""
        call = AreaCall(count, align, pfn, tuple(self._busy.pop(context, ())), place, context)
        self._finished[context][id(call)] = call
        if pfn is not None:
            self._by_pfn[pfn] = call
        return call

    def claim(self, context: Context, pages: int, *, at: int, asks: bool) -> tuple[list[AreaCall], list[AreaCall]]:
        """(calls made for a ``dma_alloc`` of so many pages, calls that waited but were for something else).

        ``at`` is the page frame it got; a request that does not ask the area (``asks``) has a call only if it is there.
        """
        mine: list[AreaCall] = []
        others: list[AreaCall] = []
        success_taken = False
        for call in reversed(self._finished.pop(context, {}).values()):
            fits = call.count == pages and (asks or call.pfn == at) and not (call.pfn is not None and success_taken)
            success_taken = success_taken or (fits and call.pfn is not None)
            (mine if fits else others).append(self._left(call))
        return mine[::-1], others[::-1]

    def take(self, pfn: int) -> AreaCall | None:
        """The waiting call that got these pages, which waits no longer."""
        call = self._by_pfn.pop(pfn, None)
        if call is not None:
            del self._finished[call.context][id(call)]
        return call

    def rest(self) -> list[AreaCall]:
        """Calls that no ``dma_alloc`` ever claimed."""
        return [call for waiting in self._finished.values() for call in waiting.values()]

    def _left(self, call: AreaCall) -> AreaCall:
        """It waits no longer."""
        if call.pfn is not None and self._by_pfn.get(call.pfn) is call:
            del self._by_pfn[call.pfn]
        return call
