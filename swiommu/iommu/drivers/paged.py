"""A domain with translation hardware: any frames, a page table in real memory, bus addresses from a policy."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from swiommu.address import PhysAddr, PhysRange, Prot, align_up
from swiommu.errors import InvalidArgument, SpaceMismatch, SwiommuError
from swiommu.iommu.deferred_tables import DeferredTables
from swiommu.iommu.domain import READ_WRITE, Domain, Mapping
from swiommu.iommu.flush_queue import Exposure, FlushQueue
from swiommu.iommu.gather import IotlbGather
from swiommu.iommu.iova import TopDownIova
from swiommu.layer import Paged
from swiommu.pagetable import MOCK, FrameTables, RadixTable, page_size_choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.address import AddressRange, BusAddr, BusSpace, PhysSpace
    from swiommu.iommu.iova import IovaPolicy
    from swiommu.memory import Frames
    from swiommu.pagetable import Format, TableMemory

__all__ = ["PagedDomain"]


class PagedDomain(Domain[PhysAddr]):
    """``alloc`` takes ``frames``, largest ``orders`` first; ``iova`` chooses bus addresses (default `TopDownIova`).

    Table pages come from ``tables``, by default from the same frames; the root is taken at once, and `NoMemory`
    raised if there is none. ``flush``: "strict" is one invalidation per unmap, before the bus range can be used again.
    "lazy" clears the entries at once, but bus ranges and table pages come back only after a flush of everything: when
    one of the ``cpus`` has 255 unmaps waiting, or by a timer of 10 ms (`advance`). Frames come back at once, as Linux
    does it: until the flush a device may still reach them, which ``exposure`` measures.
    Raises `InvalidArgument` for another flush or frames of another size than the format's smallest page,
    `SpaceMismatch` for frames of another space than ``output_space``.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.memory import Frames
    >>> ram, bus = PhysSpace("ram", width=40), BusSpace("camera", width=32)
    >>> domain = PagedDomain(bus, frames=Frames(ram.at(0x4000_0000), 16 << 20), output_space=ram)
    >>> mapping = domain.alloc(4 << 20)
    >>> mapping.iova, mapping.pieces
    (BusRange(camera:0xffc00000+0x400000), (PhysRange(ram:0x40200000+0x400000),))
    >>> domain.stats.table_pages, domain.stats.walk_refs
    (3, 6)
    >>> domain.release(mapping); domain.stats.table_pages
    1
    """

    enforces: ClassVar[bool] = True

    def __init__(
        self,
        space_in: BusSpace,
        *,
        frames: Frames,
        output_space: PhysSpace,
        format: Format = MOCK,  # noqa: A002 - the word for it
        iova: IovaPolicy | None = None,
        tables: TableMemory | None = None,
        orders: Sequence[int] = (9, 0),
        flush: str = "strict",
        cpus: int = 1,
    ) -> None:
        if flush not in {"strict", "lazy"}:
            raise InvalidArgument(f"no flush policy {flush!r}: there are 'strict' and 'lazy'")
        if frames.range.start.space is not output_space:
            raise SpaceMismatch(f"{frames.range!r} is no memory of the output space {output_space.name!r}")
        granule = format.levels[-1].pgsize
        if frames.page_size != granule:
            raise InvalidArgument(
                f"frames of {frames.page_size} bytes under format {format.name!r}, whose smallest page is {granule}"
            )
        last = min(space_in.limit, 1 << format.input_width) - 1
        self.iova = TopDownIova(granule, last) if iova is None else iova
        self.now = 0
        self.exposure = Exposure()
        self.flush_queue = FlushQueue(self._flush_all, self._free_flushed, cpus=cpus) if flush == "lazy" else None
        self._cpus = cpus
        pages = FrameTables(frames) if tables is None else tables
        self._deferred = None if self.flush_queue is None else DeferredTables(pages)
        self.table = RadixTable(format, pages if self._deferred is None else self._deferred)
        layer = Paged(space_in.name, self.table)
        super().__init__(space_in, output_space, layer, format.pgsize_bitmap, last)
        self.frames = frames
        self._phys = output_space
        self._orders = tuple(orders)
        self._note_tables()

    def alloc(
        self, size: int, align: int = 0, *, prot: Prot = READ_WRITE, limit: int | None = None
    ) -> Mapping[PhysAddr]:
        """Scattered frames behind one bus range; see `Domain.alloc`.

        Frames are taken before the bus range, as in dma-iommu, and given back if anything that follows fails.
        """
        self._require_live()
        size, align = self._rounded(size, align)
        self._require_prot(prot)
        highest = self._highest(limit)
        shift = self.granule.bit_length() - 1
        taken = self.frames.take_largest_first(size >> shift, self._orders)
        runs = [(pfn << shift, pfn + count << shift) for pfn, count in taken]
        try:
            at = self._place(runs, size, align, int(prot), highest)
        except SwiommuError:
            for pfn, count in taken:
                self.frames.give(pfn, count)
            raise
        return self._remember(Mapping(self._bus_range(at, size), self._pieces(runs), prot, self, owns_memory=True))

    def bind(
        self, pieces: Sequence[AddressRange[PhysAddr]], prot: Prot = READ_WRITE, *, limit: int | None = None
    ) -> Mapping[PhysAddr]:
        """One bus range for all pieces, in whole granules; see `Domain.bind`."""
        self._require_live()
        runs = self._runs(pieces)
        self._require_prot(prot)
        highest = self._highest(limit)
        granule = self.granule
        size = sum([stop - start for start, stop in runs])
        offset = runs[0][0] & (granule - 1)
        whole = runs
        if offset or size & (granule - 1):
            whole = runs.copy()
            whole[0] = (whole[0][0] - offset, whole[0][1])
            whole[-1] = (whole[-1][0], align_up(whole[-1][1], granule))
        at = self._place(whole, align_up(offset + size, granule), granule, int(prot), highest)
        iova = self._bus_range(at + offset, size)
        return self._remember(Mapping(iova, self._pieces(runs), prot, self, owns_memory=False))

    def release(self, mapping: Mapping[PhysAddr]) -> None:
        """Unmap, flush (or queue for it), then give back the bus range and the frames; see `Domain.release`."""
        start, stop = self._forget(mapping)
        gather = IotlbGather(self._flush)
        at, cleared = start, 0
        while at < stop:
            done = self._take_out(at, stop - at, gather)
            at += done or self.granule  # steps over what was unmapped by hand
            cleared += done
        self._finish_unmap(gather, cleared, [(start, stop)])
        if mapping.owns_memory:
            shift = self.granule.bit_length() - 1
            for piece in mapping.pieces:
                self.frames.give(piece.start.value >> shift, piece.size >> shift)

    def iova_to_phys(self, iova: BusAddr) -> PhysAddr | None:
        """From the page table; see `Domain.iova_to_phys`."""
        self._require_input(iova)
        found = self.table.lookup(iova.value) if iova.value <= self.aperture_last else None
        return None if found is None else PhysAddr(self._phys, found[0])

    def check(self) -> None:
        """As `Domain.check`; the table, the policy and the queue are sound, the stats know the tables."""
        super().check()
        self.table.check()
        self.iova.check()
        if self.flush_queue is not None:
            self.flush_queue.check()
        pages = self.table.table_pages, 0 if self._deferred is None else len(self._deferred)
        assert self.stats.table_pages == sum(pages), f"{self.stats}, table pages in use and waiting: {pages}"

    def _map(self, iova: int, paddr: int, size: int, prot: Prot, *, owned: bool) -> None:
        if not owned:
            self.iova.take(iova, size)
        try:
            self._write(iova, [(paddr, paddr + size)], int(prot))
        except SwiommuError:
            if not owned:
                self.iova.free(iova, size)
            raise

    def _unmap(self, iova: int, size: int) -> int:
        gather = IotlbGather(self._flush)
        done = self._take_out(iova, size, gather)
        if done:
            self._finish_unmap(gather, done, list(self._owned.gaps(iova, iova + done)))
        return done

    def _destroy(self) -> None:
        if self.flush_queue is not None and len(self.flush_queue):
            self.flush_queue.fire(self.now)
        self.table.close()
        self._free_tables()
        self._note_tables()

    # -- time, and who calls

    @property
    def cpu(self) -> int:
        """The CPU that makes the calls that follow: its ring of waiting unmaps, its caches of bus addresses."""
        return self.iova.cpu

    @cpu.setter
    def cpu(self, cpu: int) -> None:
        if not 0 <= cpu < self._cpus:
            raise InvalidArgument(f"no CPU {cpu}: there are {self._cpus}", cpu=cpu)
        self.iova.cpu = cpu

    def advance(self, now_ns: int) -> None:
        """Let time pass up to ``now_ns``: a flush that is due by then happens when it is due. Time never goes back."""
        if self.flush_queue is not None:
            self.flush_queue.advance(now_ns)
            self.exposure.passed(now_ns)
            self._note_tables()
        self.iova.advance(now_ns)
        self.now = max(self.now, now_ns)

    @contextmanager
    def trying(self) -> Iterator[IovaPolicy]:
        """What is mapped inside and released again leaves nothing behind; gives the policy that is used meanwhile.

        Table and frames are then as before by themselves. What would remember is a copy: the policy with its caches,
        ``stats``, ``exposure``; and nothing waits for a flush.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.memory import Frames
        >>> ram = PhysSpace("ram")
        >>> domain = PagedDomain(BusSpace("bus"), frames=Frames(ram.at(0), 1 << 20), output_space=ram, flush="lazy")
        >>> with domain.trying():
        ...     domain.release(domain.alloc(4096))
        >>> domain.stats.maps, domain.stats.table_pages, domain.frames.free_count
        (0, 1, 255)
        """
        saved = self.iova, self.flush_queue, self.exposure, self.stats
        self.iova, self.exposure, self.stats = copy.deepcopy((self.iova, self.exposure, self.stats))
        self.flush_queue = None
        try:
            yield self.iova
        finally:
            self.iova, self.flush_queue, self.exposure, self.stats = saved

    # -- writing and clearing the table

    def _place(self, runs: list[tuple[int, int]], size: int, align: int, bits: int, highest: int) -> int:
        # A bus range for `runs`, all whole granules, mapped; or nothing has changed.
        at = self.iova.alloc(size, highest, align)
        try:
            self._write(at, runs, bits)
        except SwiommuError:
            self.iova.free(at, size)
            raise
        return at

    def _write(self, iova: int, runs: list[tuple[int, int]], bits: int) -> None:
        table, bitmap, refs_of = self.table, self.pgsize_bitmap, self.table.walk_refs
        at, refs = iova, 0
        try:
            for start, stop in runs:
                paddr = start
                while paddr < stop:
                    pgsize, count = page_size_choice(bitmap, at, paddr, stop - paddr)
                    table.map_run(at, paddr, pgsize, count, bits)
                    refs += refs_of[pgsize] * count
                    at += pgsize * count
                    paddr += pgsize * count
        except SwiommuError:
            self._note_tables()  # the peak
            if at > iova:
                table.unmap(iova, at - iova)
            self._free_tables()  # no device was told of these addresses, so nothing has to wait for a flush
            self._note_tables()
            raise
        if self.flush_queue is not None:
            self.exposure.operation()
        stats = self.stats
        stats.maps += len(runs)
        stats.map_bytes += at - iova
        stats.walk_refs += refs
        self._note_tables()

    def _take_out(self, iova: int, size: int, gather: IotlbGather) -> int:
        done = 0
        for run in self.table.unmap(iova, size):
            gather.add_range(run.iova, run.size)
            done += run.size
        return done

    def _finish_unmap(self, gather: IotlbGather, cleared: int, ranges: list[tuple[int, int]]) -> None:
        # `ranges` of bus addresses, and the tables that became empty, go back when no stale entry can lead there.
        self.stats.unmaps += 1
        if self.flush_queue is None:
            gather.sync()
            for start, stop in ranges:
                self.iova.free(start, stop - start)
            self._free_tables()
        else:
            assert self._deferred is not None
            self.exposure.operation()
            if cleared:
                self.exposure.unmapped(self.now, cleared)
            self.flush_queue.queue((ranges, self._deferred.collect()), self.now, cpu=self.iova.cpu)
        self._note_tables()

    def _free_flushed(self, unmapped: tuple[list[tuple[int, int]], list[int]], cpu: int) -> None:
        assert self._deferred is not None
        ranges, freelist = unmapped
        caller, self.iova.cpu = self.iova.cpu, cpu
        for start, stop in ranges:
            self.iova.free(start, stop - start)
        self.iova.cpu = caller
        self._deferred.free_now(freelist)

    def _free_tables(self) -> None:
        # Those that wait in no queue; a table without deferral has freed its own already.
        if self._deferred is not None:
            self._deferred.free_now(self._deferred.collect())

    def _flush(self, _start: int, _last: int) -> None:
        self.stats.invalidations += 1

    def _flush_all(self, now: int) -> None:
        self.stats.invalidations += 1
        self.stats.flushes += 1
        self.exposure.flushed(now)

    def _note_tables(self) -> None:
        stats, pages = self.stats, self.table.table_pages
        if self._deferred is not None:
            pages += len(self._deferred)
        stats.table_pages = pages
        stats.table_pages_peak = max(stats.table_pages_peak, pages)

    def _pieces(self, runs: list[tuple[int, int]]) -> tuple[PhysRange, ...]:
        space = self._phys
        return tuple([PhysRange(PhysAddr(space, start), stop - start) for start, stop in runs])
