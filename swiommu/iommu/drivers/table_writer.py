"""How a page table is written and cleared: what is counted, invalidated, and given back when it is safe."""

from __future__ import annotations

import copy
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from swiommu.address import BusAddr, PhysAddr, align_up, as_integer, as_integers
from swiommu.errors import AddressInUse, InvalidArgument, NotAnInteger, NotFound, SwiommuError
from swiommu.iommu.commands import chunks
from swiommu.iommu.deferred_tables import DeferredTables
from swiommu.iommu.domain import Domain
from swiommu.iommu.flush_queue import Exposure, FlushQueue
from swiommu.iommu.gather import IotlbGather
from swiommu.layer import invalidate
from swiommu.locking import locked, run_all
from swiommu.pagetable import RadixTable, page_size_choice
from swiommu.ranges import RangeSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.address import Prot
    from swiommu.iommu.iova import IovaPolicy
    from swiommu.pagetable import Format, Removal, TableMemory

__all__ = ["TableWriter", "require_flush"]

_POLICY = "an address policy"
_log = logging.getLogger(__name__)

A = TypeVar("A", PhysAddr, BusAddr)


def require_flush(policy: str) -> None:
    """Refuse a policy that is none."""
    if policy not in {"strict", "lazy"}:
        raise InvalidArgument(f"no flush policy {policy!r}: there are 'strict' and 'lazy'")


class TableWriter(Domain[A]):
    """The lower half of a `PagedDomain`: its table, its bus addresses, its flushes, its clock."""

    iova: IovaPolicy
    caching_mode: bool
    _partial: str | None

    def _open_table(self, form: Format, pages: TableMemory, flush: str, cpus: int, hz: int) -> None:
        self.now = 0
        self.exposure = Exposure()
        self._raised: BaseException | None = None  # by who watches the table, during an unmap
        self._owed: list[tuple[int, int]] = []  # bus addresses that the policy has not taken back yet
        self._cpus, self._hz = as_integers(cpus=cpus, hz=hz)
        self.flush_queue = self._new_queue() if flush == "lazy" else None
        self._deferred = DeferredTables(pages)
        try:
            self.table = RadixTable(form, self._deferred)
        except BaseException:
            self._free_tables()  # a root that no walk would reach
            raise
        self._smallest_table = form.granule << form.levels[-1].bits  # what it maps, in bytes
        self._direct = RangeSet()  # withheld, but for the owner to map
        self._replaced: list[tuple[int, int]] = []
        self.table.on_replace = self._note_replaced

    def _note_replaced(self, iova: int, size: int) -> None:
        self._replaced.append((iova, size))

    # -- time, and who calls

    @property
    def cpu(self) -> int:
        """The CPU that makes the calls that follow: its ring of waiting unmaps, its caches of bus addresses."""
        return self.iova.cpu

    @cpu.setter
    def cpu(self, cpu: int) -> None:
        cpu = as_integer(cpu, "cpu")
        if not 0 <= cpu < self._cpus:
            raise InvalidArgument(f"no CPU {cpu}: there are {self._cpus}", cpu=cpu)
        self.iova.cpu = cpu

    @locked
    def advance(self, now_ns: int) -> None:
        """Let time pass up to ``now_ns``: a flush that is due by then happens when it is due. Time never goes back."""
        now_ns = as_integer(now_ns, "now_ns")
        self._require_outside()
        if self.flush_queue is not None:
            self.flush_queue.advance(now_ns)
            self.exposure.passed(now_ns)
            self._note_tables()
        self.iova.advance(now_ns)
        self.now = max(self.now, now_ns)

    @locked
    def flush(self) -> None:
        """Let what waits for a flush go now; nothing waits where flushes are strict.

        What an address policy, a table memory or the domain below raised for when it was given back goes now, too.
        """
        self._require_outside()
        if self.owes:
            self._settle()
        if self.flush_queue is not None and len(self.flush_queue):
            try:
                self.flush_queue.fire(self.now)
            finally:
                self._note_tables()

    @locked
    def flush_lazily(self) -> None:
        """Let flushes wait from now on, as ``flush="lazy"`` does from the start. Source: ``iommu_dma_init_fq``."""
        self._require_outside()
        if self.flush_queue is None:
            self.flush_queue = self._new_queue()
            self.flush_queue.advance(self.now)

    def _new_queue(self) -> FlushQueue[tuple[list[tuple[int, int]], list[int]]]:
        return FlushQueue(self._flush_all, self._free_flushed, cpus=self._cpus, hz=self._hz)

    def gather(self) -> IotlbGather:
        """An empty gather, whose ``sync`` flushes what it holds and gives back what waited for that."""
        return IotlbGather(self._flush_gathered, done=self._flushed)

    @locked
    def _flush_gathered(self, start: int, last: int) -> None:
        self._flush(start, last)

    @locked
    def _flushed(self, gather: IotlbGather) -> None:
        # Nothing that a gather has waiting is in reach any more.
        try:
            while gather.waiting:
                self._free_flushed(gather.waiting[0], self.iova.cpu)
                del gather.waiting[0]
        except BaseException:
            for ranges, freelist in gather.waiting:
                self._owe(ranges)
                self._deferred.hold(freelist)
            gather.waiting.clear()
            raise
        finally:
            self._note_tables()

    # -- writing and clearing the table

    def _place(self, runs: list[tuple[int, int]], size: int, align: int, bits: int, highest: int) -> int:
        # A bus range for `runs`, all whole granules, owned and mapped; or nothing has changed.
        at = self._choose(size, highest, align)
        try:
            self._write(at, runs, bits)
        except BaseException:
            self._owned.remove(at)
            self._return_bus([(at, at + size)])
            raise
        return at

    def _choose(self, size: int, highest: int, align: int) -> int:
        # Bus addresses by the policy, which may be anybody's: what can't be is refused before anything was written.
        running = self.running
        running.what = _POLICY
        try:
            at = self.iova.alloc(size, highest, align)
        finally:
            running.what = None
        if type(at) is not int or at & (align - 1) or not 0 <= at <= highest - size + 1:
            self._distrust(at, size, highest, align)
            at = as_integer(at, "iova")
        try:
            self._owned.add(at, at + size)
        except AddressInUse as error:
            raise AddressInUse(
                f"the address policy answered {at:#x} for {size} bytes: {error}", iova=at, size=size
            ) from None
        return at

    def _distrust(self, answer: object, size: int, highest: int, align: int) -> None:
        said = f"the address policy answered {answer!r} for {size} bytes aligned to {align:#x} up to {highest:#x}"
        try:
            at = as_integer(answer, "iova")
        except NotAnInteger:
            raise SwiommuError(f"{said}, which is no address", size=size) from None
        if not 0 <= at <= highest - size + 1:
            raise SwiommuError(f"{said}, which is out of these bounds", iova=at, size=size)
        if at & (align - 1):  # not given back: that might free what is beside it
            raise SwiommuError(f"{said}, which is not aligned", iova=at, size=size, align=align)

    def _take(self, start: int, size: int) -> None:
        running = self.running
        running.what = _POLICY
        try:
            self.iova.take(start, size)
        finally:
            running.what = None

    def _return_bus(self, ranges: list[tuple[int, int]]) -> None:
        # To the policy; what it does not take back now is owed to it.
        running, done = self.running, 0
        running.what = _POLICY
        try:
            for start, stop in ranges:
                self.iova.free(start, stop - start)
                done += 1
        except NotFound:
            done += 1  # the policy says that it has not got these
            raise
        finally:
            running.what = None
            if done < len(ranges):
                self._owe(ranges[done:])

    def _owe(self, ranges: list[tuple[int, int]]) -> None:
        self._owed += ranges
        self.owes = True

    def _settle(self) -> None:
        owed, self._owed, self.owes = self._owed, [], False
        try:
            self._return_bus(owed)
            self._free_tables()
        finally:
            self._note_tables()

    def _write(self, iova: int, runs: list[tuple[int, int]], bits: int) -> None:
        table, bitmap, granule = self.table, self.pgsize_bitmap, self.granule
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
            self._note_tables()  # the peak
            try:
                if at > iova:
                    table.remove(iova, at - iova, tell=False)
                    if table.watch is not None:
                        self._tell_unmapped([(iova, at)])
                        self._raised = None  # what stopped the map comes out
                    self._flush(iova, at - 1)  # a table that was there before, empty, may have gone: walks may be in it
                self._flush_replaced()
                self._free_tables()
            finally:
                self._note_tables()
            raise
        if self._replaced:
            self._flush_replaced()
        if self.caching_mode:
            self._flush(iova, at - 1)
        if self.flush_queue is not None:
            self.exposure.operation()
        stats = self.stats
        stats.maps += len(runs)
        stats.map_bytes += at - iova
        stats.walk_refs += refs
        self._note_tables()

    def _map(self, iova: int, paddr: int, size: int, prot: Prot, *, owned: bool) -> None:
        live = self._live_in_the_way(iova, paddr, size) if self.rules.replaces_live else []
        taken = [] if owned else self._take_bus(iova, size, live)
        try:
            self._write(iova, [(paddr, paddr + size)], int(prot))
        except BaseException:
            self._return_bus(taken)
            raise

    def _live_in_the_way(self, iova: int, paddr: int, size: int) -> list[tuple[int, int]]:
        # The mapped stretches under leaves to come, which the format would replace.
        live = list(self.table.mapped(iova, size))
        if live and self._guarded and self._partial != "kernel":
            raise self.rules.occupied(
                f"{size:#x} bytes at {iova:#x} to {paddr:#x} would replace live pages from {live[0][0]:#x} on",
                iova=iova,
                size=size,
            )
        return live

    def _take_bus(self, iova: int, size: int, live: list[tuple[int, int]]) -> list[tuple[int, int]]:
        # What of the range was not taken by earlier maps, as that of `live` pages was, nor withheld for such maps.
        taken: list[tuple[int, int]] = []
        try:
            for at, stop in self._direct.gaps(iova, iova + size):
                for start, end in _without(live, at, stop):
                    self._take(start, end - start)
                    taken.append((start, end))
        except BaseException as error:
            self._return_bus(taken)
            if isinstance(error, AddressInUse):
                raise self.rules.occupied(str(error), **error.numbers) from None
            raise
        return taken

    def _require_free(self, first: int, last: int, *, direct: bool) -> None:
        self._keep_clear(copy.deepcopy(self.iova), first, last, direct=direct)

    def _withhold(self, first: int, last: int, *, direct: bool) -> None:
        self._keep_clear(self.iova, first, last, direct=direct)
        if direct:
            low, high = self._whole(first, last)
            for gap in list(self._direct.gaps(low, high)):
                self._direct.add(*gap)

    def _keep_clear(self, iova: IovaPolicy, first: int, last: int, *, direct: bool) -> None:
        # Of a direct region some may be mapped already, by its owner: it stays taken, as it is never given back.
        if not direct:
            iova.reserve(first, last)
            return
        low, high = self._whole(first, last)
        owner = self._owned.first_over(low, high)
        if owner is not None:
            raise AddressInUse(
                f"{first:#x} to {last:#x} can't be reserved: a mapping owns {owner[0]:#x} to {owner[1] - 1:#x}",
                low=first,
                high=last,
            )
        mapped = list(self.table.mapped(low, high - low)) if low < high else []
        for start, end in mapped:
            with suppress(AddressInUse):  # of a policy that knows nothing of maps by hand
                iova.reserve(start, end - 1)
        for start, end in _without(mapped, low, high):
            iova.reserve(start, end - 1)

    def _whole(self, first: int, last: int) -> tuple[int, int]:
        return first & -self.granule, min(align_up(last + 1, self.granule), self.aperture_last + 1)

    def _take_out(self, iova: int, size: int, gather: IotlbGather) -> Removal:
        gone = self.table.remove(iova, size, tell=False)
        runs, done, gathers = gone.runs, gone.size, self.rules.gathers
        if runs and self.table.watch is not None:
            self._tell_unmapped(gone.stretches)
        if gone.irregular:
            self._gather_calls(iova, size, gone, gather)
        elif gathers == "range" or gather.queued:
            if done:
                gather.add_range(iova, done)
        elif gathers == "leaf" or (done <= size and len(runs) == 1 and runs[0].leaves == 1):  # one call takes one leaf
            for run in runs:
                gather.add_page(run.iova, run.pgsize, run.leaves)
        else:
            reached = iova + min(size, done)
            for at, pgsize, count in chunks(self.pgsize_bitmap, iova, reached - iova):
                end = at + pgsize * count
                # the last leaf may have gone whole, which its call gathers then
                gather.add_page(at, (end if end < reached else iova + done) - at)
        if self.below is not None:
            for start, stop in gone.stretches if gone.irregular else [(iova, iova + done)]:
                self._note_unused(start, stop - start)
        return gone

    def _gather_calls(self, iova: int, size: int, gone: Removal, gather: IotlbGather) -> None:
        # Where the driver was called inside of a leaf: each call has its own invalidation, of what it counted.
        reached = iova + gone.size
        if self.rules.gathers == "range" or gather.queued:
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

    def _tell_of_writes(self, gone: Removal) -> None:
        for each in gone.walked:
            _log.warning("the domain of %r: %s", self.input_space.name, each)
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
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised

    def _step(self, at: int, stop: int) -> int:
        # The bytes from `at`, which can't be taken out, to what may be: over what was unmapped by hand.
        following = at + self.granule
        if following == stop:
            return self.granule
        return next((start for start, _ in self.table.mapped(following, stop - following)), stop) - at

    def _finish_unmap(self, gather: IotlbGather, cleared: int, ranges: list[tuple[int, int]]) -> None:
        # `ranges` of bus addresses, and the tables that became empty, go back when no stale entry can lead there.
        self.stats.unmaps += 1
        try:
            if self.flush_queue is None:
                gather.sync()
                self._return_bus(ranges)
                if self._deferred.waiting:
                    self._free_tables()
            else:
                self.exposure.operation()
                if cleared:
                    self.exposure.unmapped(self.now, cleared)
                self.flush_queue.queue((ranges, self._deferred.collect()), self.now, cpu=self.iova.cpu)
        finally:
            self._note_tables()

    def _leave_to(self, gather: IotlbGather, ranges: list[tuple[int, int]]) -> None:
        self.stats.unmaps += 1
        gather.waiting.append((ranges, self._deferred.collect()))
        self._note_tables()

    def _free_flushed(self, unmapped: tuple[list[tuple[int, int]], list[int]], cpu: int) -> None:
        # What is left of the two lists if this raises was not given back.
        ranges, freelist = unmapped
        running = self.running
        caller, self.iova.cpu = self.iova.cpu, cpu
        running.what = _POLICY
        try:
            while ranges:
                start, stop = ranges[0]
                self.iova.free(start, stop - start)
                del ranges[0]
        except NotFound:
            del ranges[0]  # the policy says that it has not got these
            raise
        finally:
            running.what = None
            self.iova.cpu = caller
        self._deferred.free_now(freelist)

    def _free_tables(self) -> None:
        # Those that wait in no queue; what is not given back because this raises is owed.
        try:
            self._deferred.free_collected()
        except BaseException:
            self.owes = True
            raise

    def _flush_replaced(self) -> None:
        # Large leaves have taken the place of tables, which walks may still be in.
        if self._replaced:
            gather = IotlbGather(self._flush)
            for start, size in self._replaced:
                gather.add_range(start, size)
            self._replaced.clear()
            gather.sync()
            self._free_tables()

    def _flush(self, start: int, last: int) -> None:
        self.stats.invalidations += 1
        node = self.node
        if node.uppers or node.feeds or node.tlb is not None or node.iotlb is not None:
            invalidate(node, start, last + 1 - start)

    @locked
    def invalidate_all(self) -> None:
        """With one command; see `Domain.invalidate_all`."""
        self._require_outside()
        self._flush_all(self.now)

    def _flush_all(self, now: int) -> None:
        invalidate(self.node)
        self.stats.invalidations += 1
        self.stats.flushes += 1
        self.exposure.flushed(now)

    def _note_tables(self) -> None:
        stats, pages = self.stats, self._deferred.pages
        if pages != stats.table_pages:
            stats.table_pages = pages
            stats.table_pages_peak = max(stats.table_pages_peak, pages)


def _without(live: list[tuple[int, int]], at: int, stop: int) -> Iterator[tuple[int, int]]:
    # What of [at, stop) is in none of the stretches, which are ascending.
    for start, end in [*live, (stop, stop)]:
        if at < min(start, stop):
            yield at, min(start, stop)
        at = max(at, end)
