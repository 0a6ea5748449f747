"""A domain with translation hardware: any memory, a page table in real memory, bus addresses from a policy."""

from __future__ import annotations

import copy
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from swiommu.address import BusAddr, PhysAddr, align_up
from swiommu.errors import Busy, InvalidArgument, NotFound
from swiommu.iommu.backing import backing, require_sources, table_pages, walker_of
from swiommu.iommu.domain import READ_WRITE, Domain
from swiommu.iommu.drivers.table_writer import TableWriter, require_flush
from swiommu.iommu.flush_queue import DEFAULT_HZ
from swiommu.iommu.gather import IotlbGather
from swiommu.iommu.iova import TopDownIova
from swiommu.iommu.mapping import Mapping
from swiommu.iommu.partial import mapped_stretch, require_partial
from swiommu.iommu.stacked import require_in_use
from swiommu.layer import Paged
from swiommu.locking import locked
from swiommu.pagetable import MOCK
from swiommu.ranges import joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.address import AddressRange, BusRange, BusSpace, PhysSpace, Prot
    from swiommu.iommu.backing import Backing
    from swiommu.iommu.iova import IovaPolicy
    from swiommu.layer import Node
    from swiommu.memory import Frames
    from swiommu.pagetable import Format, TableMemory

__all__ = ["PagedDomain"]


A = TypeVar("A", PhysAddr, BusAddr)


class PagedDomain(TableWriter[A]):
    """``alloc`` takes ``frames``, largest ``orders`` first; ``iova`` chooses bus addresses (default `TopDownIova`).

    On a domain ``below``, instead of frames and ``output_space``, memory comes from that one, and page tables too
    (``walker`` "nested": they are read through it), or from ``frames`` ("physical"). ``in_use``: see `Stacked`;
    ``partial``: see `swiommu.iommu.partial`, by default "kernel", and "refuse" in a stack. ``memory``: the node that
    the output space is entered by, of a memory or of a window above one; table entries are bytes where it ends.

    ``format``: of the page table; what map and unmap refuse, take whole, split or replace is by its rules. In a stack,
    a large leaf replaces no live pages unless ``partial`` is "kernel". ``caching_mode``: the hardware remembers holes,
    so that a map is followed by an invalidation too.

    Table pages come from ``tables``, by default from the same frames; the root is taken at once, and `NoMemory`
    raised if there is none. ``tables`` that are not where ``memory`` or ``below`` ends are read "physical".

    ``flush``: "strict" is one invalidation per unmap, before the bus range can be used again.
    "lazy" clears the entries at once, but bus ranges and table pages come back only after a flush of everything: when
    one of the ``cpus`` has 255 unmaps waiting, or by a timer of 10 ms in ticks of 1/``hz`` s (`FlushQueue`; `advance`
    lets time pass). Frames come back at once, as Linux does it: until the flush a device may still reach them, which
    ``exposure`` measures.
    Raises `InvalidArgument` for another policy or frames of another size than the format's smallest page,
    `SpaceMismatch` for frames of another space than where they are to lead, `OutOfRange` for frames that ``memory``
    does not reach.

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
    >>> upper = PagedDomain(BusSpace("guest", width=32), below=domain)
    >>> buffer = upper.alloc(8192); buffer.pieces, buffer.memory
    ((BusRange(camera:0xffffc000+0x2000),), (PhysRange(ram:0x40005000+0x2000),))
    """

    enforces: ClassVar[bool] = True

    @overload
    def __init__(
        self: PagedDomain[PhysAddr],
        space_in: BusSpace,
        *,
        frames: Frames,
        output_space: PhysSpace,
        memory: Node | None = ...,
        format: Format = ...,
        iova: IovaPolicy | None = ...,
        tables: TableMemory | None = ...,
        orders: Sequence[int] = ...,
        flush: str = ...,
        cpus: int = ...,
        hz: int = ...,
        in_use: str = ...,
        partial: str | None = ...,
        caching_mode: bool = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: PagedDomain[BusAddr],
        space_in: BusSpace,
        *,
        below: Domain[Any],
        walker: str | None = ...,
        frames: Frames | None = ...,
        format: Format = ...,
        iova: IovaPolicy | None = ...,
        tables: TableMemory | None = ...,
        flush: str = ...,
        cpus: int = ...,
        hz: int = ...,
        in_use: str = ...,
        partial: str | None = ...,
        caching_mode: bool = ...,
    ) -> None: ...

    def __init__(
        self,
        space_in: BusSpace,
        *,
        frames: Frames | None = None,
        output_space: PhysSpace | None = None,
        memory: Node | None = None,
        below: Domain[Any] | None = None,
        walker: str | None = None,
        format: Format = MOCK,  # noqa: A002 - the word for it
        iova: IovaPolicy | None = None,
        tables: TableMemory | None = None,
        orders: Sequence[int] = (9, 0),
        flush: str = "strict",
        cpus: int = 1,
        hz: int = DEFAULT_HZ,
        in_use: str = "refuse",
        partial: str | None = None,
        caching_mode: bool = False,
    ) -> None:
        require_flush(flush)
        require_partial(partial)
        require_in_use(in_use)
        output = require_sources(format, frames, output_space, memory, below, walker, tables)
        last = min(space_in.limit, 1 << format.aperture_width) - 1
        self.iova = TopDownIova(format.granule, last) if iova is None else iova
        self._partial = partial
        self.rules = format.rules
        self.caching_mode = caching_mode
        pages = table_pages(self, format, frames, memory, below) if tables is None else tables
        self._open_table(format, pages, flush, cpus, hz)
        try:
            reads = walker_of(self.table, memory if below is None else below.node, walker, space_in.name)
            super().__init__(
                space_in,
                output,
                Paged(space_in.name, self.table),
                format.pgsize_bitmap,
                last,
                below=below,
                memory=memory,
                walker=reads,
                in_use=in_use,
            )
        except BaseException:
            self.table.dissolve()
            self._free_tables()
            raise
        self.running = self._deferred.running
        self._owed_memory: list[tuple[Sequence[AddressRange[Any]], Mapping[Any] | None]] = []
        self.frames = frames
        self._guarded = self._guarded or partial not in {None, "kernel"}
        self._backing: Backing = backing(frames, orders, below, self._highest_output(), self.stack_granule, format)
        self._note_tables()

    def alloc(self, size: int, align: int = 0, *, prot: Prot = READ_WRITE, limit: int | None = None) -> Mapping[A]:
        """Scattered frames, or memory of the domain below, behind one bus range; see `Domain.alloc`.

        Memory is taken before the bus range, as in dma-iommu, and given back if anything that follows fails.
        """
        with self.lock:
            self._require_live()
            size, align = self._rounded(size, align)
            self._require_prot(prot)
            highest = self._highest(limit)
            runs, below = self._backing.take(size, prot)
            try:
                at = self._place(runs, size, align, int(prot), highest)
            except BaseException:
                self._give_memory(self._pieces(runs), below)
                raise
            if self.below is not None:
                self._note_uses(at, runs)
            mapping = Mapping(self._bus_range(at, size), self._pieces(runs), prot, self, True, below)
            return self._remember(mapping, at)

    def _bind(
        self, runs: list[tuple[int, int]], prot: Prot, highest: int, align: int, below: Mapping[Any] | None = None
    ) -> Mapping[A]:
        # One bus range for all runs, in whole granules.
        granule = self.granule
        size = sum([stop - start for start, stop in runs])
        offset = runs[0][0] & (granule - 1)
        whole = runs
        if offset or size & (granule - 1):
            whole = runs.copy()
            whole[0] = (whole[0][0] - offset, whole[0][1])
            whole[-1] = (whole[-1][0], align_up(whole[-1][1], granule))
        owned = align_up(offset + size, align)
        at = self._place(whole, owned, align, int(prot), highest)
        if self.below is not None:
            self._note_uses(at + offset, runs)
        mapping = Mapping(self._bus_range(at + offset, size), self._pieces(runs), prot, self, False, below)
        return self._remember(mapping, at)

    def let_go(self, mapping: Mapping[A]) -> None:
        """Unmap, flush (or queue for it), then give back the bus range and the memory; see `Domain.release`."""
        if mapping.owns_memory and self._backing.may_refuse() and self.held(mapping):
            self.require_givable(mapping)
        start, stop = self._forget(mapping)
        gather = IotlbGather(self._flush, queued=self.flush_queue is not None)
        at, cleared = start, 0
        while at < stop:
            done = self._take_out(at, stop - at, gather).size
            cleared += done
            at += done or self._step(at, stop)
        try:
            self._finish_unmap(gather, cleared, [(start, stop)])
        finally:
            if mapping.owns_memory or mapping.below is not None:
                self._give_memory(mapping.pieces, mapping.below)
        if self._raised is not None:
            self._raise_told()

    def require_givable(self, mapping: Mapping[A]) -> None:
        """`Busy` if the memory of a mapping can't go back, because frames of it are pinned."""
        if mapping.owns_memory:
            self._backing.require_givable(mapping.pieces, mapping.below)

    def _give_memory(self, pieces: Sequence[AddressRange[Any]], below: Mapping[Any] | None) -> None:
        try:
            self._backing.give(pieces, below)
        except BaseException:
            self._owed_memory.append((pieces, below))
            self.owes = True
            raise

    def _settle(self) -> None:
        super()._settle()
        owed, self._owed_memory = self._owed_memory, []
        for place, each in enumerate(owed):
            try:
                self._give_memory(*each)
            except BaseException:
                self._owed_memory += owed[place + 1 :]
                raise

    @locked
    def hold(self, where: BusRange) -> None:
        """Keep bus addresses, whole granules, for a caller who maps there himself, until `drop`.

        Neither `alloc` nor `bind` chooses them, and unmapping gives none of them back. `AddressInUse` if some are.

        >>> from swiommu.address import BusRange, BusSpace, PhysSpace
        >>> from swiommu.memory import Frames
        >>> ram, bus = PhysSpace("ram"), BusSpace("camera", width=32)
        >>> domain = PagedDomain(bus, frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> pool = BusRange(bus.at(0xFFF0_0000), 1 << 20)
        >>> domain.hold(pool); domain.alloc(4096).iova
        BusRange(camera:0xffeff000+0x1000)
        >>> domain.drop(pool)
        """
        self._require_live()
        start = self._input(where.start, where.size)
        if (start | where.size) & (self.granule - 1) or where.stop - 1 > self.aperture_last:
            raise InvalidArgument(
                f"{where!r} is not whole granules of {self.granule:#x} bytes up to {self.aperture_last:#x}",
                start=start,
                size=where.size,
            )
        self._take(start, where.size)
        try:
            self._owned.add(start, where.stop)
        except BaseException:
            self._return_bus([(start, where.stop)])
            raise
        self._held.add(start)

    @locked
    def drop(self, where: BusRange) -> None:
        """Give back what `hold` kept: `NotFound` if that was another range, `Busy` while some of it is mapped."""
        self._require_live()
        start = self._input(where.start, where.size)
        if start not in self._held or self._owned.at(start) != (start, where.stop):
            raise NotFound(f"{where!r} is not held in the domain of {self.input_space.name!r}", start=start)
        if any(True for _ in self.table.mapped(start, where.size)):
            raise Busy(f"some of {where!r} is mapped in the domain of {self.input_space.name!r}", start=start)
        self._held.remove(start)
        self._owned.remove(start)
        self._return_bus([(start, where.stop)])

    def iova_to_phys(self, iova: BusAddr) -> A | None:
        """From the page table; see `Domain.iova_to_phys`."""
        self._require_input(iova)
        with self.lock:
            found = self.table.lookup(iova.value) if iova.value <= self.aperture_last else None
        return None if found is None else self._at(found[0])

    @locked
    def mapped(self) -> list[tuple[int, int]]:
        """From the page table; see `Domain.mapped`."""
        return joined((at, at + pgsize) for at, _, pgsize in self.table.each_leaf())

    @locked
    def check(self) -> None:
        """As `Domain.check`; the table, the policy and the queue are sound, the stats know the tables.

        All memory that was taken is that of a mapping or of a table, and none of it is free.
        """
        super().check()
        self.table.check()
        self.iova.check()
        self._deferred.check()
        owners: list[Mapping[A]] = [each for each in self._mappings.values() if each.owns_memory]
        self._backing.check([*((each.pieces, each.below) for each in owners), *self._owed_memory])
        if self.flush_queue is not None:
            self.flush_queue.check()
        pages = self.table.table_pages, len(self._deferred)
        dump = f"{self.stats}, {self._deferred.pages} table pages, in use and waiting: {pages}"
        assert self.stats.table_pages == self._deferred.pages == sum(pages), dump

    def can_give_up(self, iova: int, size: int) -> tuple[int, int]:
        """Whole granules; `Busy` if a larger leaf is not split and only a part of it would go."""
        start, stop = super().can_give_up(iova, size)
        torn = mapped_stretch(self.table, start, stop - start).torn
        if torn and self._partial != "split":
            raise Busy(
                f"{stop - start:#x} bytes at {start:#x} are a part of a leaf that the domain of "
                f"{self.input_space.name!r} does not split",
                iova=start,
                size=stop - start,
            )
        return start, stop

    def _before_unmap(self, iova: int, size: int) -> int:
        found, stop = mapped_stretch(self.table, iova, size), iova + size
        policy = self._partial or "refuse"
        if found.torn and policy == "refuse":
            cut = found.torn[0]
            leaf = self.table.lookup(cut)
            assert leaf is not None, f"nothing at {cut:#x}: {found}"
            raise InvalidArgument(
                f"{size:#x} bytes at {iova:#x} cover only a part of the leaf of {leaf[1]:#x} bytes at "
                f"{cut & -leaf[1]:#x}",
                iova=iova,
                size=size,
                pgsize=leaf[1],
            )
        if policy == "kernel" and self.rules.entered != "stop":
            return self._before_calls(iova, size)
        if policy == "kernel":
            if found.first < iova and self.rules.short_unmap != "split":
                return size  # the first leaf stays, so that nothing happens
            if self.rules.short_unmap == "whole":
                stop = max(stop, found.stop)  # the last one goes whole
        self.require_unused(iova, min(stop, found.stop))
        if found.torn and policy == "split":
            self.table.split(found.torn)
            self._note_tables()
        self.notify(iova, min(stop, found.stop))
        return size

    def _before_calls(self, iova: int, size: int) -> int:
        # Where a leaf goes whole, or stays, by the calls that a driver gets.
        going = self.table.remove(iova, size, dry=True).stretches
        for start, stop in going:
            self.require_unused(start, stop)
        for start, stop in going:
            self.notify(start, stop)
        return size

    def unmap_gathered(self, iova: BusAddr, size: int, gather: IotlbGather) -> int:
        """As `unmap`, but nothing is flushed before `IotlbGather.sync` of ``gather``, which `gather` gave.

        Until then bus addresses and table pages stay taken. Source: ``iommu_unmap_fast``.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.memory import Frames
        >>> ram, bus = PhysSpace("ram"), BusSpace("camera", width=32)
        >>> domain = PagedDomain(bus, frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> domain.map(bus.at(0x8000), ram.at(0x5000_0000), 0x3000)
        >>> gather = domain.gather()
        >>> domain.unmap_gathered(bus.at(0x8000), 0x1000, gather), domain.unmap_gathered(bus.at(0x9000), 0x2000, gather)
        (4096, 8192)
        >>> before = domain.stats.invalidations; gather.sync(); before, domain.stats.invalidations
        (0, 1)
        """
        with self.lock:
            return self._unmap(*self._to_unmap(iova, size), gather)

    def _unmap(self, iova: int, size: int, into: IotlbGather | None = None) -> int:
        gather = IotlbGather(self._flush, queued=self.flush_queue is not None) if into is None else into
        # Where a whole table can go, holes count as unmapped, whose bus addresses nobody had taken.
        drops = self.rules.drops_tables and size >= self._smallest_table
        mapped = list(self.table.mapped(iova, size)) if drops else None
        gone = self._take_out(iova, size, gather)
        if not gone.size:
            return 0
        stop, cleared = iova + gone.size, gone.size
        if gone.irregular:
            stretches = gone.stretches
            cleared = sum(end - start for start, end in stretches)
        else:
            stretches = [(iova, stop)] if mapped is None else [(at, min(end, stop)) for at, end in mapped if at < stop]
        ranges = [
            gap for start, end in stretches for part in self._owned.gaps(start, end) for gap in self._direct.gaps(*part)
        ]
        try:
            if into is not None and self.flush_queue is None:
                self._leave_to(gather, ranges)
            else:
                self._finish_unmap(gather, cleared, ranges)
        finally:
            self._tell_of_writes(gone)
        if self._raised is not None:
            self._raise_told()
        return gone.size

    @locked
    def enforce_cache_coherency(self) -> bool:
        """Let what is mapped from now on be coherent, whatever devices say of snooping; False if the format can't.

        Source: ``enforce_cache_coherency`` of ``struct iommu_domain_ops``.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.memory import Frames
        >>> from swiommu.pagetable.formats import FORMATS
        >>> ram = PhysSpace("ram")
        >>> for name in ("vtd-ss-4", "arm-lpae-4k-s1"):
        ...     frames = Frames(ram.at(0), 1 << 20)
        ...     domain = PagedDomain(BusSpace("nic"), frames=frames, output_space=ram, format=FORMATS[name])
        ...     print(name, domain.enforce_cache_coherency())
        vtd-ss-4 True
        arm-lpae-4k-s1 False
        """
        self._require_live()
        return self.table.enforce_coherency()

    def _destroy(self) -> None:
        self.flush()
        self.table.close()
        self.owes = True  # the tables

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """What is mapped inside and released again leaves nothing behind, and nothing inside waits for a flush.

        Table and frames are then as before by themselves; the policy undoes its changes, ``stats`` and ``exposure`` are
        others meanwhile. It costs what is done inside, however much the domain holds.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.memory import Frames
        >>> ram = PhysSpace("ram")
        >>> domain = PagedDomain(BusSpace("bus"), frames=Frames(ram.at(0), 1 << 20), output_space=ram, flush="lazy")
        >>> with domain.dry_run():
        ...     domain.release(domain.alloc(4096))
        >>> domain.stats.maps, domain.stats.table_pages, domain.frames.free_count
        (0, 1, 255)
        """
        with self.lock:
            saved = self.flush_queue, self.exposure, self.stats
            self.flush_queue, self.exposure, self.stats = None, copy.copy(self.exposure), copy.copy(self.stats)
            try:
                with (
                    self.iova.dry_run(),
                    self.below.dry_run() if isinstance(self.below, PagedDomain) else nullcontext(),
                ):
                    yield
            finally:
                self.flush_queue, self.exposure, self.stats = saved
