"""One window and a record of what is mapped through it: what is left where there is no translation hardware."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from swiommu.address import align_up
from swiommu.errors import AddressInUse, Busy, NotSupported, OutOfRange
from swiommu.iommu.mapper import DomainStats
from swiommu.layer import Span, Window
from swiommu.pagetable.rules import SWIOMMU
from swiommu.ranges import RangeSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from swiommu.address import AddressRange, BusSpace
    from swiommu.iommu.gather import IotlbGather
    from swiommu.iommu.mapper import Place, Runs
    from swiommu.iommu.withheld import Withheld
    from swiommu.pagetable import Rules
    from swiommu.region import Region

__all__ = ["LinearMapper"]


class LinearMapper:
    """A `Mapper` that can only say yes where the window says so already: bus = output + ``delta``.

    What is reserved is kept from the region of ``withheld``, whose chunks go through the window; ``owned`` are the bus
    addresses of mappings.
    """

    enforces: ClassVar[bool] = False
    unit: ClassVar[int] = 1  # a mapping may begin and end anywhere
    rules: ClassVar[Rules] = SWIOMMU
    owes: ClassVar[bool] = False
    place: Place

    def __init__(
        self, space_in: BusSpace, withheld: Withheld, window: AddressRange[Any], delta: int, owned: RangeSet
    ) -> None:
        region = withheld.region
        self.stats = DomainStats()
        self.layer = Window(space_in.name, Span(window.start.value + delta, window.size, -delta))
        self.pgsize_bitmap = space_in.limit - region.page_size
        self.region: Region[Any] = region
        self.window = window
        self.delta = delta
        self._granule = region.page_size
        self._name = space_in.name
        self._owned = owned
        self._record = RangeSet()
        self._withheld = withheld

    # -- operations

    def choose(self, runs: Runs, size: int, align: int, bits: int, highest: int, at: int | None = None) -> int:
        """See `Mapper.choose`: one contiguous run inside the window, or never."""
        del bits  # nothing is enforced
        (start, stop), delta = runs[0], self.delta
        if len(runs) > 1:
            raise NotSupported(f"{len(runs)} separate pieces can't be one bus range without translation")
        if start < self.window.start.value or stop > self.window.stop:
            raise NotSupported(f"[{start:#x}, {stop:#x}) is not inside the window {self.window!r}", start=start)
        if stop - 1 + delta > highest:
            raise NotSupported(
                f"{stop - start} bytes at bus {start + delta:#x} are not all at or below {highest:#x}",
                start=start + delta,
                limit=highest,
            )
        if align > self._granule and (start + delta & align - 1 or size != stop - start):
            raise NotSupported(
                f"{stop - start} bytes at bus {start + delta:#x} are not whole granules of {align:#x} bytes, "
                "and without translation they stay where they are",
                start=start + delta,
                align=align,
            )
        if at is not None:
            self._require_delta(at, start)
        low, high = start + delta, stop + delta
        self._record.add(low, high)
        try:
            self._owned.add(low, high)
        except AddressInUse:
            self._record.remove(low)
            raise
        self.stats.maps += 1
        self.stats.map_bytes += stop - start
        return low

    def map(self, iova: int, paddr: int, size: int, bits: int, *, owned: bool) -> None:
        """See `Mapper.map`: where the window leads already, else `NotSupported`."""
        del bits, owned  # the record is one, whoever owns the address
        self._require_delta(iova, paddr)
        if paddr < self.window.start.value or paddr + size > self.window.stop:
            raise OutOfRange(f"{size:#x} bytes at bus {iova:#x} are not inside the window {self.window!r}", iova=iova)
        self._record.add(iova, iova + size)
        self.stats.maps += 1
        self.stats.map_bytes += size

    def _require_delta(self, iova: int, paddr: int) -> None:
        if iova - paddr != self.delta:
            raise NotSupported(
                f"bus {iova:#x} leads to {iova - self.delta:#x} through delta {self.delta:#x}, never to {paddr:#x}",
                iova=iova,
                paddr=paddr,
            )

    def before_unmap(self, iova: int, size: int, *, only_ask: bool = False) -> None:
        """See `Mapper.before_unmap`; there are no leaves that could go in part."""
        if only_ask:
            return
        stop = iova
        while stop < iova + size and (held := self._record.at(stop)) is not None:
            stop = min(iova + size, held[1])
        if stop > iova:
            self.place.require_unused(iova, stop)
            self.place.notify(iova, stop)

    def unmap(self, iova: int, size: int, gather: IotlbGather | None = None, *, owned: bool = False) -> int:
        """See `Mapper.unmap`; nothing is cached, so that there is nothing to gather."""
        del gather
        if owned:
            self._record.clear(iova, iova + size)
            done = size
        else:
            done = sum(stop - start for start, stop in self._record.cut(iova, iova + size))
        self.place.forget_references(iova, done)
        self.stats.unmaps += bool(done)
        return done

    def lookup(self, iova: int) -> tuple[int, int, int, int] | None:
        """See `Mapper.lookup`: by the record, though a device reaches more."""
        found = self._record.at(iova)
        return None if found is None else (iova - self.delta, self._granule, *found)

    def leading_to(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """See `Mapper.leading_to`: by the record."""
        for low, high in self._record:
            first, end = max(low, start + self.delta), min(high, stop + self.delta)
            if first < end:
                yield first, end

    def reserve(self, first: int, last: int, *, direct: bool, dry: bool) -> None:
        """See `Mapper.reserve`: what the region could give out of it is kept from it."""
        del direct  # what is mapped by hand is no chunk
        low, high = max(first - self.delta, self.region.start.value), min(last + 1 - self.delta, self.region.stop)
        if low >= high:
            return
        page = self.region.page_size
        low, high = low & -page, align_up(high, page)
        if not dry:
            self._withheld.take(self, low, high)
            return
        for start, stop in self._withheld.gaps(low, high):
            taken = next(
                (chunk for chunk in self.region.chunks() if chunk.start.value < stop and start < chunk.stop), None
            )
            if taken is not None:
                raise AddressInUse(
                    f"{first:#x} to {last:#x} can't be reserved in the domain of {self._name!r}: its region "
                    f"has given out {taken!r}",
                    start=first,
                )

    def dry_run(self) -> AbstractContextManager[None]:
        """See `Mapper.dry_run`: the record is as before by itself."""
        return nullcontext()

    # -- its life

    def settle(self) -> None:
        """See `Mapper.settle`: nothing is ever owed."""

    def close(self) -> None:
        """See `Mapper.close`."""
        if len(self._record):
            raise Busy(f"the domain of {self._name!r} has {len(self._record)} ranges mapped by hand")
        self.give_reserved()

    def give_reserved(self) -> None:
        """Let the region have again what `reserve` kept from it."""
        self._withheld.give(self)

    def check(self, mappings: Iterable[Any]) -> None:
        """See `Mapper.check`: the record lies in the window."""
        del mappings  # whose record may have been unmapped by hand
        self._record.check()
        for start, stop in self._record:
            assert self.window.start.value <= start - self.delta, f"[{start:#x}, {stop:#x}) is below the window"
            assert stop - self.delta <= self.window.stop, f"[{start:#x}, {stop:#x}) is above the window"
