"""A page table in memory, bus addresses of a policy, and invalidations: what translation hardware needs."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from swiommu.errors import AddressInUse, Busy, InvalidArgument, OutOfRange
from swiommu.iommu.bus_addresses import BusAddresses
from swiommu.iommu.commands import chunks
from swiommu.iommu.deferred_tables import DeferredTables
from swiommu.iommu.invalidation import FlushPolicy, Invalidation
from swiommu.iommu.mapper import DomainStats
from swiommu.iommu.partial import PartialUnmap, mapped_stretch
from swiommu.layer import Paged
from swiommu.locking import Running, run_all
from swiommu.pagetable import RadixTable, page_size_choice
from swiommu.pagetable.rules import Entered, Gathers, ShortUnmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from swiommu.iommu.gather import IotlbGather
    from swiommu.iommu.iova import IovaPolicy
    from swiommu.iommu.mapper import Place, Runs
    from swiommu.pagetable import DataPageWrite, Format, Removal, TableMemory
    from swiommu.ranges import RangeSet

__all__ = ["PagedMapper"]

_log = logging.getLogger(__name__)


class PagedMapper:
    """A `Mapper` with a page table of ``form`` in ``pages``.

    ``owned`` are the bus addresses of mappings, ``held`` those that a caller keeps.
    ``partial`` is what an unmap inside a large leaf does; None: as the kernel, but refused in a stack.
    ``on_data_page_write``: who is told where a kernel would write into data, by formats whose driver does that.

    >>> from swiommu.iommu.iova import TopDownIova
    >>> from swiommu.pagetable import MOCK, CountingTables
    >>> from swiommu.ranges import RangeSet
    >>> policy, last = TopDownIova(4096, 0xFFFF_FFFF), 0xFFFF_FFFF
    >>> options = {"flush": FlushPolicy.STRICT, "cpus": 1, "hz": 250, "partial": None, "caching_mode": False}
    >>> mapper = PagedMapper("nic", MOCK, CountingTables(), policy, RangeSet(), RangeSet(), 0, last, **options)
    >>> at = mapper.choose([(0x5000, 0x7000)], 0x2000, 0x1000, 3, last); hex(at), mapper.lookup(at)
    ('0xffffe000', (20480, 4096, 4294959104, 4294963200))
    """

    enforces: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        form: Format,
        pages: TableMemory,
        policy: IovaPolicy,
        owned: RangeSet,
        held: RangeSet,
        first: int,
        last: int,
        *,
        flush: FlushPolicy,
        cpus: int,
        hz: int,
        partial: PartialUnmap | None,
        caching_mode: bool,
        layer: Callable[[str, RadixTable], Paged] = Paged,
    ) -> None:
        self.running = Running()
        self.bus = BusAddresses(policy, owned, held, self.running, form.granule, last)
        self.invalidation = Invalidation(DeferredTables(pages, self.running), self.bus, flush, cpus, hz)
        self.stats = self.invalidation.stats = DomainStats()
        try:
            self.table = RadixTable(form, self.invalidation.tables)
        except BaseException:
            self.invalidation.free_tables()  # a root that no walk would reach
            raise
        self.table.on_replace = self.invalidation.note_replaced
        self.layer = layer(name, self.table)
        self.pgsize_bitmap = form.pgsize_bitmap
        self.unit = self._granule = form.granule
        self.rules = form.rules
        self.first = first
        self.partial = partial
        self.caching_mode = caching_mode
        self.on_data_page_write: list[Callable[[DataPageWrite], None]] = []
        self._smallest_table = form.granule << form.levels[-1].bits  # what it maps, in bytes
        self._raised: BaseException | None = None  # by who watches the table, during an unmap

    @property
    def place(self) -> Place:
        """Where its domain is in a stack."""
        return self._place

    @place.setter
    def place(self, place: Place) -> None:
        self._place = place
        self.invalidation.node, self.invalidation.lock = place.node, place.lock

    # -- operations

    def choose(self, runs: Runs, size: int, align: int, bits: int, highest: int, at: int | None = None) -> int:
        """See `Mapper.choose`."""
        if at is None:
            at = self.bus.choose(size, highest, align)
        else:
            self.bus.own(at, size)
        try:
            self._write(at, runs, bits)
        except BaseException:
            self.bus.disown(at, size)
            raise
        return at

    def map(self, iova: int, paddr: int, size: int, bits: int, *, owned: bool) -> None:
        """See `Mapper.map`."""
        if iova < self.first:
            raise OutOfRange(
                f"{size:#x} bytes at {iova:#x} are below the aperture, which begins at {self.first:#x}",
                iova=iova,
                size=size,
            )
        live = self._live_in_the_way(iova, paddr, size) if self.rules.replaces_live else []
        taken: list[tuple[int, int]] = []
        if not owned:
            try:
                taken = self.bus.take_but(live, iova, iova + size)
            except AddressInUse as error:
                raise self.rules.occupied(str(error), **error.facts) from None
        try:
            self._write(iova, [(paddr, paddr + size)], bits)
        except BaseException:
            self.bus.give_back(taken)
            raise

    def before_unmap(self, iova: int, size: int, *, only_ask: bool = False) -> None:
        """See `Mapper.before_unmap`."""
        if only_ask:
            self._require_whole(iova, size)
            return
        place, found, stop = self._place, mapped_stretch(self.table, iova, size), iova + size
        policy = self.partial or PartialUnmap.REFUSE
        if found.torn and policy is PartialUnmap.REFUSE:
            self._refuse_partial(iova, size, found.torn[0])
        if policy is PartialUnmap.KERNEL:
            if self.rules.entered is not Entered.STOP:
                self._before_calls(iova, size)
                return
            if found.first < iova and self.rules.short_unmap is not ShortUnmap.SPLIT:
                return  # the first leaf stays, so that nothing happens
            if self.rules.short_unmap is ShortUnmap.WHOLE:
                stop = max(stop, found.stop)  # the last one goes whole
        place.require_unused(iova, min(stop, found.stop))
        if found.torn and policy is PartialUnmap.SPLIT:
            self.table.split(found.torn)
            self.invalidation.note_tables()
        place.notify(iova, min(stop, found.stop))

    def unmap(self, iova: int, size: int, gather: IotlbGather | None = None, *, owned: bool = False) -> int:
        """See `Mapper.unmap`."""
        if owned:
            return self._release(iova, iova + size)
        invalidation = self.invalidation
        into = invalidation.gather() if gather is None else gather
        # Where a whole table can go, holes count as unmapped, whose bus addresses nobody had taken.
        drops = self.rules.drops_tables and size >= self._smallest_table
        mapped = list(self.table.mapped(iova, size)) if drops else None
        gone = self._take_out(iova, size, into)
        if not gone.size:
            return 0
        stop, cleared = iova + gone.size, gone.size
        if gone.irregular:
            stretches = gone.stretches
            cleared = sum(end - start for start, end in stretches)
        else:
            stretches = [(iova, stop)] if mapped is None else [(at, min(end, stop)) for at, end in mapped if at < stop]
        ranges = self.bus.unowned(stretches)
        try:
            if gather is not None and invalidation.flush_queue is None:
                invalidation.leave_to(gather, ranges)
            else:
                invalidation.finish(into, cleared, ranges)
        finally:
            self._tell_of_writes(gone)
        if self._raised is not None:
            self._raise_told()
        return gone.size

    def lookup(self, iova: int) -> tuple[int, int, int, int] | None:
        """See `Mapper.lookup`; None too for what is no input of the format."""
        found = self.table.lookup(iova) if self.table.door.holds(iova) else None
        if found is None:
            return None
        output, pgsize, _ = found
        start = iova & -pgsize
        return output, pgsize, start, start + pgsize

    def leading_to(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """See `Mapper.leading_to`: the table is read from end to end."""
        for at, leaf, pgsize in self.table.each_leaf():
            low, high = max(leaf.oa, start), min(leaf.oa + pgsize, stop)
            if low < high:
                yield at + low - leaf.oa, at + high - leaf.oa

    def reserve(self, first: int, last: int, *, direct: bool, dry: bool) -> None:
        """See `Mapper.reserve`; what the owner of a direct region has mapped already stays."""
        mapped = None
        if direct:
            low, high = self.bus.whole(first, last)
            mapped = list(self.table.mapped(low, high - low)) if low < high else []
        self.bus.reserve(first, last, mapped, dry=dry)

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """See `Mapper.dry_run`; the table is as before by itself, the policy undoes its changes."""
        with self.invalidation.dry_run(), self.bus.policy.dry_run():
            yield

    # -- its life

    @property
    def owes(self) -> bool:
        """See `Mapper`."""
        return self.invalidation.owes

    def settle(self) -> None:
        """See `Mapper.settle`."""
        self.invalidation.settle()

    def close(self) -> None:
        """See `Mapper.close`."""
        self.table.close()
        self.invalidation.owes_tables = True

    def abandon(self) -> None:
        """Give the tables back of a domain that could not be made."""
        self.table.dissolve()
        self.invalidation.free_tables()

    def check(self, mappings: Iterable[object]) -> None:
        """See `Mapper.check`: the table, the policy and the queue are sound, and the stats know the tables."""
        del mappings  # their pages may have been unmapped by hand
        self.table.check()
        self.bus.check()
        self.invalidation.check()
        tables = self.invalidation.tables
        pages = self.table.table_pages, len(tables)
        dump = f"{self.stats}, {tables.pages} table pages, in use and waiting: {pages}"
        assert self.stats.table_pages == tables.pages == sum(pages), dump

    # -- writing and clearing the table

    def _write(self, iova: int, runs: list[tuple[int, int]], bits: int) -> None:
        table, bitmap, granule, invalidation = self.table, self.pgsize_bitmap, self._granule, self.invalidation
        at, refs = iova, 0
        try:
            for start, stop in runs:
                paddr = start
                while paddr < stop:
                    left = stop - paddr
                    pgsize, count = (granule, 1) if left == granule else page_size_choice(bitmap, at, paddr, left)
                    table.map_run(at, paddr, pgsize, count, bits)
                    refs += table.walk_refs[pgsize] * count
                    at += pgsize * count
                    paddr += pgsize * count
        except BaseException:
            self._take_back(iova, at)
            raise
        invalidation.flush_replaced()
        if self.caching_mode:
            invalidation.flush_range(iova, at - 1)
        if invalidation.flush_queue is not None:
            invalidation.exposure.operation()
        stats = self.stats
        stats.maps += len(runs)
        stats.map_bytes += at - iova
        stats.walk_refs += refs
        invalidation.note_tables()

    def _take_back(self, iova: int, at: int) -> None:
        # What a map that failed has written, from `iova` to `at`.
        invalidation = self.invalidation
        invalidation.note_tables()  # the peak
        try:
            if at > iova:
                self.table.remove(iova, at - iova, tell=False)
                if self.table.watch is not None:
                    self._tell_unmapped([(iova, at)])
                    self._raised = None  # what stopped the map comes out
                # A table that was there before, empty, may have gone: walks may be in it.
                invalidation.flush_range(iova, at - 1)
            invalidation.flush_replaced()
            invalidation.free_tables()
        finally:
            invalidation.note_tables()

    def _live_in_the_way(self, iova: int, paddr: int, size: int) -> list[tuple[int, int]]:
        # The mapped stretches under leaves to come, which the format would replace.
        live = list(self.table.mapped(iova, size))
        if live and self._place.guarded and self.partial is not PartialUnmap.KERNEL:
            raise self.rules.occupied(
                f"{size:#x} bytes at {iova:#x} to {paddr:#x} would replace live pages from {live[0][0]:#x} on",
                iova=iova,
                size=size,
            )
        return live

    def _release(self, start: int, stop: int) -> int:
        # All of a mapping, over what was unmapped by hand before.
        gather = self.invalidation.gather()
        at, cleared = start, 0
        while at < stop:
            done = self._take_out(at, stop - at, gather).size
            cleared += done
            at += done or self._step(at, stop)
        self.invalidation.finish(gather, cleared, self.bus.not_held(start, stop))
        if self._raised is not None:
            self._raise_told()
        return stop - start

    def _take_out(self, iova: int, size: int, gather: IotlbGather) -> Removal:
        gone = self.table.remove(iova, size, tell=False)
        runs, done, gathers = gone.runs, gone.size, self.rules.gathers
        if runs and self.table.watch is not None:
            self._tell_unmapped(gone.stretches)
        if gone.irregular:
            self._gather_calls(iova, size, gone, gather)
        elif gathers is Gathers.RANGE or gather.queued:
            if done:
                gather.add_range(iova, done)
        elif gathers is Gathers.LEAF or (
            done <= size and len(runs) == 1 and runs[0].leaves == 1
        ):  # one call takes one leaf
            for run in runs:
                gather.add_page(run.iova, run.pgsize, run.leaves)
        else:
            reached = iova + min(size, done)
            for at, pgsize, count in chunks(self.pgsize_bitmap, iova, reached - iova):
                end = at + pgsize * count
                # the last leaf may have gone whole, which its call gathers then
                gather.add_page(at, (end if end < reached else iova + done) - at)
        for start, stop in gone.stretches if gone.irregular else [(iova, iova + done)]:
            self._place.forget_references(start, stop - start)
        return gone

    def _gather_calls(self, iova: int, size: int, gone: Removal, gather: IotlbGather) -> None:
        # Where the driver was called inside of a leaf: each call has its own invalidation, of what it counted.
        reached = iova + gone.size
        if self.rules.gathers is Gathers.RANGE or gather.queued:
            start = min([iova, *(first for first, _ in gone.stretches)])
            gather.add_range(start, reached - start)
            return
        counted, at = dict(gone.calls), iova
        while at < reached:
            inside = counted.get(at)
            if inside is None:
                pgsize, count = page_size_choice(self.pgsize_bitmap, at, at, iova + size - at)
                inside = pgsize * count if at + pgsize * count < reached else reached - at
            gather.add_page(at, inside)
            at += inside

    def _step(self, at: int, stop: int) -> int:
        # The bytes from `at`, which can't be taken out, to what may be.
        following = at + self._granule
        if following == stop:
            return self._granule
        return next((start for start, _ in self.table.mapped(following, stop - following)), stop) - at

    # -- leaves of which only a part would go

    def _refuse_partial(self, iova: int, size: int, cut: int) -> None:
        leaf = self.table.lookup(cut)
        assert leaf is not None, f"nothing at {cut:#x}"
        raise InvalidArgument(
            f"{size:#x} bytes at {iova:#x} cover only a part of the leaf of {leaf[1]:#x} bytes at {cut & -leaf[1]:#x}",
            iova=iova,
            size=size,
        )

    def _before_calls(self, iova: int, size: int) -> None:
        # Where a leaf goes whole, or stays, by the calls that a driver gets.
        going = self.table.remove(iova, size, dry=True).stretches
        for start, stop in going:
            self._place.require_unused(start, stop)
        for start, stop in going:
            self._place.notify(start, stop)

    def _require_whole(self, iova: int, size: int) -> None:
        if mapped_stretch(self.table, iova, size).torn and self.partial is not PartialUnmap.SPLIT:
            raise Busy(
                f"{size:#x} bytes at {iova:#x} are a part of a leaf that the domain of "
                f"{self._place.name!r} does not split",
                iova=iova,
                size=size,
            )

    # -- who is told

    def _tell_of_writes(self, gone: Removal) -> None:
        for each in gone.walked:
            _log.warning("the domain of %r: %s", self._place.name, each)
        if gone.walked:
            run_all([partial(told, each) for each in gone.walked for told in self.on_data_page_write])

    def _tell_unmapped(self, stretches: Sequence[tuple[int, int]]) -> None:
        # Who watches the table is told before anything is flushed; what is raised comes out when all is done.
        watch = self.table.watch
        assert watch is not None, "nobody watches"
        try:
            run_all([partial(watch, "unmap", start, stop - start) for start, stop in stretches])
        except BaseException as error:  # noqa: BLE001 - see `_raise_told`
            self._raised = self._raised or error

    def _raise_told(self) -> None:
        assert self._raised is not None, "nobody has raised anything"
        raised, self._raised = self._raised, None
        raise raised
