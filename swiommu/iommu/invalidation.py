"""When stale translations are flushed, and what waits for that: bus addresses, and tables that a walk may still be in.

"strict" is one invalidation per unmap, before anything can be used again. "lazy" clears the entries at once and lets
the rest wait for a flush of everything, see `FlushQueue`. A gather of the caller's waits for its ``sync``.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from swiommu.address import as_integer, as_integers
from swiommu.errors import InvalidArgument
from swiommu.iommu.flush_queue import Exposure, FlushQueue
from swiommu.iommu.gather import IotlbGather
from swiommu.layer import invalidate
from swiommu.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.iommu.bus_addresses import BusAddresses
    from swiommu.iommu.deferred_tables import DeferredTables
    from swiommu.iommu.mapper import DomainStats
    from swiommu.layer import Node
    from swiommu.locking import Lock

__all__ = ["FlushPolicy", "Invalidation"]

Ranges = list[tuple[int, int]]


class FlushPolicy(Policy):
    """When an unmap is followed by an invalidation: before it is over, or together with others."""

    STRICT = "strict"
    LAZY = "lazy"


class Invalidation:
    """The flushes of one paged domain; ``tables`` holds back the table pages that were freed.

    ``exposure`` measures how long what was unmapped stayed in reach, ``now`` is the time in ns. ``lock``, ``node`` and
    ``stats`` are the domain's, set before anything is flushed.
    """

    lock: Lock
    node: Node
    stats: DomainStats

    def __init__(self, tables: DeferredTables, bus: BusAddresses, policy: FlushPolicy, cpus: int, hz: int) -> None:
        self._cpus, self._hz = as_integers(cpus=cpus, hz=hz)
        self.tables = tables
        self.now = 0
        self.exposure = Exposure()
        self._bus = bus
        self.flush_queue = self._new_queue() if policy is FlushPolicy.LAZY else None
        self.owes_tables = False
        self._replaced: Ranges = []  # tables whose place a large leaf has taken: (start, size)

    # -- commands

    def flush_range(self, start: int, last: int) -> None:
        """One command for the addresses from ``start`` to ``last``, for all caches that hear of this domain."""
        self.stats.invalidations += 1
        node = self.node
        if node.uppers or node.feeds or node.tlb is not None or node.iotlb is not None:
            invalidate(node, start, last + 1 - start)

    def flush_all(self, now: int) -> None:
        """One command for everything."""
        invalidate(self.node)
        self.stats.invalidations += 1
        self.stats.flushes += 1
        self.exposure.flushed(now)

    def gather(self) -> IotlbGather:
        """An empty gather of one unmap."""
        return IotlbGather(self.flush_range, queued=self.flush_queue is not None)

    def gather_for_caller(self) -> IotlbGather:
        """An empty gather, whose ``sync`` flushes what it holds and gives back what waited for that."""
        return IotlbGather(self._flush_gathered, done=self._gathered)

    def _flush_gathered(self, start: int, last: int) -> None:
        with self.lock:
            self.flush_range(start, last)

    def _gathered(self, gather: IotlbGather) -> None:
        # Nothing that a gather has waiting is in reach any more.
        with self.lock:
            try:
                while gather.waiting:
                    self._free_flushed(gather.waiting[0], self._bus.policy.cpu)
                    del gather.waiting[0]
            except BaseException:
                for ranges, freelist in gather.waiting:
                    self._bus.owe(ranges)
                    self.tables.hold(freelist)
                    self.owes_tables = True
                gather.waiting.clear()
                raise
            finally:
                self.note_tables()

    # -- the end of an unmap

    def finish(self, gather: IotlbGather, cleared: int, ranges: Ranges) -> None:
        """``ranges`` of bus addresses, and the tables that became empty, go back when no stale entry leads there."""
        self.stats.unmaps += 1
        try:
            if self.flush_queue is None:
                gather.sync()
                self._bus.give_back(ranges)
                if self.tables.waiting:
                    self.free_tables()
            else:
                self.exposure.operation()
                if cleared:
                    self.exposure.unmapped(self.now, cleared)
                self.flush_queue.queue((ranges, self.tables.collect()), self.now, cpu=self._bus.policy.cpu)
        finally:
            self.note_tables()

    def leave_to(self, gather: IotlbGather, ranges: Ranges) -> None:
        """The same when the caller syncs his gather."""
        self.stats.unmaps += 1
        gather.waiting.append((ranges, self.tables.collect()))
        self.note_tables()

    def note_replaced(self, iova: int, size: int) -> None:
        """A large leaf has taken the place of a table that maps these addresses: walks may still be in it."""
        self._replaced.append((iova, size))

    def flush_replaced(self) -> None:
        """Flush what `note_replaced` has noted, and give those tables back."""
        if self._replaced:
            gather = IotlbGather(self.flush_range)
            for start, size in self._replaced:
                gather.add_range(start, size)
            self._replaced.clear()
            gather.sync()
            self.free_tables()

    def free_tables(self) -> None:
        """Give back the tables that wait in no queue; what is not given back because this raises is owed."""
        try:
            self.tables.free_collected()
        except BaseException:
            self.owes_tables = True
            raise

    def note_tables(self) -> None:
        """Count the pages of tables, in use and waiting."""
        stats, pages = self.stats, self.tables.pages
        if pages != stats.table_pages:
            stats.table_pages = pages
            stats.table_pages_peak = max(stats.table_pages_peak, pages)

    def _free_flushed(self, unmapped: tuple[Ranges, list[int]], cpu: int) -> None:
        # What is left of the two lists if this raises was not given back.
        ranges, freelist = unmapped
        self._bus.give_flushed(ranges, cpu)
        self.tables.free_now(freelist)

    # -- time, and debts

    @property
    def owes(self) -> bool:
        """Whether something waits for `settle`."""
        return self.owes_tables or self._bus.owes

    def settle(self) -> None:
        """Give back what the policy or the table memory would not take back before."""
        self.owes_tables = False
        try:
            self._bus.settle()
            self.free_tables()
        finally:
            self.note_tables()

    def set_cpu(self, cpu: int) -> None:
        """The CPU that makes the calls that follow; `InvalidArgument` if there is none of that number."""
        cpu = as_integer(cpu, "cpu")
        if not 0 <= cpu < self._cpus:
            raise InvalidArgument(f"no CPU {cpu}: there are {self._cpus}")
        self._bus.policy.cpu = cpu

    def advance(self, now_ns: int) -> None:
        """Let time pass: a flush that is due by then happens when it is due. Time never goes back."""
        if self.flush_queue is not None:
            self.flush_queue.advance(now_ns)
            self.exposure.passed(now_ns)
            self.note_tables()
        self._bus.policy.advance(now_ns)
        self.now = max(self.now, now_ns)

    def fire(self) -> None:
        """Let what waits in the queue go now."""
        if self.flush_queue is not None and len(self.flush_queue):
            try:
                self.flush_queue.fire(self.now)
            finally:
                self.note_tables()

    def become_lazy(self) -> None:
        """Let flushes wait from now on."""
        if self.flush_queue is None:
            self.flush_queue = self._new_queue()
            self.flush_queue.advance(self.now)

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """Nothing inside waits for a flush, and counts are as before at the end."""
        saved = self.flush_queue, self.exposure
        counts = attrs.asdict(self.stats)
        self.flush_queue, self.exposure = None, copy.copy(self.exposure)
        try:
            yield
        finally:
            self.flush_queue, self.exposure = saved
            for name, count in counts.items():
                setattr(self.stats, name, count)

    def check(self) -> None:
        """The queue and the tables that wait are sound; `AssertionError` with a dump."""
        self.tables.check()
        if self.flush_queue is not None:
            self.flush_queue.check()

    def _new_queue(self) -> FlushQueue[Any]:
        return FlushQueue(self.flush_all, self._free_flushed, cpus=self._cpus, hz=self._hz)
