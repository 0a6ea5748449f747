"""Lines that wait for the call that they are part of: page-table maps and area calls, by line of execution.

The kernel prints its own steps *before* the call that asked for them: the ``map`` lines of a ``dma_map_*``, the
``cma_alloc`` of a ``dma_alloc``. `MapLedger` and `AreaLedger` hold their rows until the call comes by and claims them.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

__all__ = ["AreaCall", "AreaLedger", "MapLedger", "MapLine"]


@attrs.define(eq=False)
class MapLine:
    """The ``map`` line of a row that no call has claimed; ``left`` bytes from ``iova`` on are still mapped."""

    row: int
    iova: int
    left: int
    context: Hashable


@attrs.define(eq=False)
class AreaCall:
    """The end of a ``cma_alloc``: its row, pages, first pfn or None, and who made it."""

    row: int
    count: int
    pfn: int | None
    context: Hashable


# Lines that may have taken over an address between an unmap and the line after it.
_OVERTAKERS = 64


class MapLedger:
    """Unclaimed ``map`` lines, by context (to claim them) and by first still-mapped iova (to end them).

    Both indexes are insertion-ordered dicts keyed by identity, so that no trace, however odd, makes a step linear.
    """

    def __init__(self) -> None:
        self._by_context: defaultdict[Hashable, dict[int, MapLine]] = defaultdict(dict)
        self._by_iova: defaultdict[int, dict[int, MapLine]] = defaultdict(dict)

    def add(self, line: MapLine) -> None:
        """Hold a line until someone claims it."""
        self._by_context[line.context][id(line)] = line
        self._by_iova[line.iova][id(line)] = line

    def claim(self, context: Hashable, start: int, stop: int) -> list[MapLine]:
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

    def unmap(self, iova: int, size: int, *, row: int) -> list[MapLine]:
        """Lines that ended with the unmap at this row; a line cut short stays, shortened.

        Lines behind it took over its addresses and are not meant.
        """
        ended = []
        position, stop = iova, iova + size
        while position < stop and (line := self._newest(position, row)) is not None:
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

    def _newest(self, iova: int, row: int) -> MapLine | None:
        newest = islice(reversed(self._by_iova.get(iova, {}).values()), _OVERTAKERS)
        return next((line for line in newest if line.row < row), None)

    def _forget_iova(self, line: MapLine) -> None:
        lines = self._by_iova[line.iova]
        del lines[id(line)]
        if not lines:
            del self._by_iova[line.iova]


# Failed attempts that one request may have behind it: device, NUMA node and default area (dma_alloc_contiguous).
_ATTEMPTS = 3


class AreaLedger:
    """Ends of area calls by context until a ``dma_alloc`` of as many pages claims them."""

    def __init__(self) -> None:
        # Insertion-ordered, by identity, and of those that got pages the newest for these: no search is ever needed.
        self._finished: defaultdict[Hashable, dict[int, AreaCall]] = defaultdict(dict)
        self._by_pfn: dict[int, AreaCall] = {}

    def start(self, context: Hashable) -> None:
        """A new call begins in this context: what got pages and still waits for a claim was nobody's."""
        # A failed attempt may be followed by one in another area for the same request, so failures keep waiting.
        waiting = self._finished.pop(context, {}).values()
        failed = [call for call in waiting if call.pfn is None][-_ATTEMPTS:]
        if failed:
            self._finished[context] = {id(call): call for call in failed}
        for call in waiting:
            self._leave(call)

    def finish(self, call: AreaCall) -> None:
        """The call ended; its ``pfn`` is None for a failure."""
        self._finished[call.context][id(call)] = call
        if call.pfn is not None:
            self._by_pfn[call.pfn] = call

    def claim(self, context: Hashable, pages: int, *, at: int, asks: bool) -> list[AreaCall]:
        """The calls made for a ``dma_alloc`` of so many pages; others that waited here wait no longer.

        ``at`` is the page frame it got; a request that does not ask the area (``asks``) has a call only if it is there.
        """
        mine: list[AreaCall] = []
        success_taken = False
        for call in reversed(self._finished.pop(context, {}).values()):
            fits = call.count == pages and (asks or call.pfn == at) and not (call.pfn is not None and success_taken)
            success_taken = success_taken or (fits and call.pfn is not None)
            self._leave(call)
            if fits:
                mine.append(call)
        return mine[::-1]

    def take(self, pfn: int) -> None:
        """Pages are released: the call that got them waits no longer."""
        call = self._by_pfn.pop(pfn, None)
        if call is not None:
            del self._finished[call.context][id(call)]

    def _leave(self, call: AreaCall) -> None:
        if call.pfn is not None and self._by_pfn.get(call.pfn) is call:
            del self._by_pfn[call.pfn]
