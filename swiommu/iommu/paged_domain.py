"""A domain with translation hardware: any memory, a page table in real memory, bus addresses from a policy."""

from __future__ import annotations

from functools import partial as part
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from swiommu.address import BusAddr, PhysAddr, as_integer
from swiommu.errors import AddressInUse, Busy, InvalidArgument
from swiommu.iommu import validate
from swiommu.iommu.backing import backing, require_sources
from swiommu.iommu.domain import Domain
from swiommu.iommu.flush_queue import DEFAULT_HZ
from swiommu.iommu.invalidation import FlushPolicy
from swiommu.iommu.iova import TopDownIova
from swiommu.iommu.mappers.paged import PagedMapper
from swiommu.iommu.partial import PartialUnmap
from swiommu.iommu.stacking import BusyPolicy
from swiommu.iommu.table_memory import table_pages, walker_of
from swiommu.layer import Paged
from swiommu.locking import locked
from swiommu.pagetable import MOCK
from swiommu.ranges import RangeSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import BusRange, BusSpace, PhysSpace
    from swiommu.iommu.flush_queue import Exposure, FlushQueue
    from swiommu.iommu.gather import IotlbGather
    from swiommu.iommu.iova import IovaPolicy
    from swiommu.layer import Marks, Node, TranslationCache
    from swiommu.memory import Frames
    from swiommu.pagetable import Format, RadixTable, TableMemory

__all__ = ["PagedDomain"]

A = TypeVar("A", PhysAddr, BusAddr)


class PagedDomain(Domain[A]):
    """``alloc`` takes ``frames``, largest ``orders`` first; ``iova`` chooses bus addresses (default `TopDownIova`).

    On a domain ``below``, instead of frames and ``output_space``, memory comes from that one, and page tables too
    (``walker`` "nested": they are read through it), or from ``frames`` ("physical"). ``in_use``: see `BusyPolicy`;
    ``partial``: see `PartialUnmap`, by default "kernel", and "refuse" in a stack. ``memory``: the node that
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
    ``aperture_first``: no bus address below it is chosen or mapped. As `swiommu.layer.Paged` has them: ``marks`` notes
    which leaves were accessed and written, ``hardware_ad`` says that the walker writes such bits into the table,
    ``force_write_back`` that its memory types replace those from above. ``tlb`` and ``iotlb`` are its node's caches.
    Raises `InvalidArgument` for another policy or frames of another size than the format's smallest page,
    `SpaceMismatch` for frames of another space than where they are to lead, `OutOfRange` for frames that ``memory``
    does not reach.

    >>> from swiommu.address import BusRange, BusSpace, PhysSpace
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

    mapper: PagedMapper

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
        aperture_first: int = ...,
        marks: Marks | None = ...,
        hardware_ad: bool = ...,
        force_write_back: bool = ...,
        tlb: TranslationCache | None = ...,
        iotlb: TranslationCache | None = ...,
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
        aperture_first: int = ...,
        marks: Marks | None = ...,
        hardware_ad: bool = ...,
        force_write_back: bool = ...,
        tlb: TranslationCache | None = ...,
        iotlb: TranslationCache | None = ...,
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
        aperture_first: int = 0,
        marks: Marks | None = None,
        hardware_ad: bool = False,
        force_write_back: bool = False,
        tlb: TranslationCache | None = None,
        iotlb: TranslationCache | None = None,
    ) -> None:
        policy, splits, busy = (
            FlushPolicy(flush),
            None if partial is None else PartialUnmap(partial),
            BusyPolicy(in_use),
        )
        output = require_sources(format, frames, output_space, memory, below, walker, tables)
        last = min(space_in.limit, 1 << format.aperture_width) - 1
        first = as_integer(aperture_first, "aperture_first")
        if first % format.granule or not 0 <= first <= last:
            raise InvalidArgument(
                f"an aperture can't begin at {first:#x}: not at a granule of {format.granule:#x} bytes up to {last:#x}",
                start=first,
            )
        owned, held = RangeSet(), RangeSet()
        mapper = PagedMapper(
            space_in.name,
            format,
            table_pages(space_in.name, format, frames, memory, below) if tables is None else tables,
            TopDownIova(max(format.granule, first), last) if iova is None else iova,
            owned,
            held,
            first,
            last,
            flush=policy,
            cpus=cpus,
            hz=hz,
            partial=splits,
            caching_mode=caching_mode,
            layer=part(Paged, marks=marks, hardware_ad=hardware_ad, force_write_back=force_write_back),
        )
        try:
            super().__init__(
                space_in,
                output,
                mapper,
                backing(frames, orders, below, format),
                owned,
                first=first,
                last=last,
                below=below,
                memory=memory,
                walker=walker_of(mapper.table, memory if below is None else below.node, walker, space_in.name),
                in_use=busy,
                running=mapper.running,
                held=held,
            )
        except BaseException:
            mapper.abandon()
            raise
        self.frames = frames
        self.node.tlb, self.node.iotlb = tlb, iotlb
        self.place.guarded = self.place.guarded or splits not in {None, PartialUnmap.KERNEL}
        mapper.on_data_page_write = self.on_data_page_write
        mapper.invalidation.note_tables()

    # -- its parts

    @property
    def translation(self) -> Self:
        """The domain itself, by the name that the domain of a kernel's group had beside its record before."""
        return self

    @property
    def table(self) -> RadixTable:
        """The page table; what it maps is changed by `map`, `unmap` and the like alone."""
        return self.mapper.table

    @property
    def caching_mode(self) -> bool:
        """Whether a map is followed by an invalidation, as the hardware remembers holes."""
        return self.mapper.caching_mode

    @property
    def iova(self) -> IovaPolicy:
        """Who chooses bus addresses."""
        return self.mapper.bus.policy

    @locked
    def hold(self, where: BusRange) -> None:
        """Keep bus addresses, whole granules, for a caller who maps there, or has memory put there, until `drop`.

        Neither `alloc` nor `bind` chooses them, and unmapping gives none of them back. `AddressInUse` if some are.

        >>> from swiommu.address import BusRange, BusSpace, PhysSpace
        >>> from swiommu.memory import Frames
        >>> ram, bus = PhysSpace("ram"), BusSpace("camera", width=32)
        >>> domain = PagedDomain(bus, frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> pool = BusRange(bus.at(0xFFF0_0000), 1 << 20)
        >>> domain.hold(pool); domain.alloc(4096).iova
        BusRange(camera:0xffeff000+0x1000)
        >>> domain.release(domain.alloc_at(BusRange(pool.start, 8192))); domain.drop(pool)
        """
        self.calls.require_live()
        start = validate.whole_range(self.input_space, where, self.granule, self.aperture_first, self.aperture_last)
        if self.register.owned.first_over(start, where.stop) is not None:
            raise AddressInUse(f"some of {where!r} is mapped in the domain of {self.input_space.name!r}", start=start)
        self.mapper.bus.hold(start, where.size)

    @locked
    def drop(self, where: BusRange) -> None:
        """Give back what `hold` kept: `NotFound` if that was another range, `Busy` while some of it is mapped."""
        self.calls.require_live()
        validate.bus_value(self.input_space, where.start, where.size)
        self.register.require_droppable(where)
        if any(True for _ in self.table.mapped(where.start.value, where.size)):
            raise Busy(f"some of {where!r} is mapped in the domain of {self.input_space.name!r}")
        self.mapper.bus.drop(where.start.value, where.size)

    @locked
    def enforce_cache_coherency(self) -> bool:
        """Let what is mapped from now on be coherent, whatever devices say of snooping; False if the format can't.

        Source: ``enforce_cache_coherency`` of ``struct iommu_domain_ops``.

        >>> from swiommu.address import BusRange, BusSpace, PhysSpace
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
        self.calls.require_live()
        return self.mapper.table.enforce_coherency()

    # -- flushes, time, and who calls

    @property
    def flush_queue(self) -> FlushQueue[Any] | None:
        """What waits for a flush of everything; None where each unmap has its own."""
        return self.mapper.invalidation.flush_queue

    @property
    def exposure(self) -> Exposure:
        """How long what was unmapped has stayed in reach."""
        return self.mapper.invalidation.exposure

    @property
    def now(self) -> int:
        """The time, in ns; see `advance`."""
        return self.mapper.invalidation.now

    @property
    def cpu(self) -> int:
        """The CPU that makes the calls that follow: its ring of waiting unmaps, its caches of bus addresses."""
        return self.iova.cpu

    @cpu.setter
    def cpu(self, cpu: int) -> None:
        self.mapper.invalidation.set_cpu(cpu)

    @locked
    def advance(self, now_ns: int) -> None:
        """Let time pass up to ``now_ns``: a flush that is due by then happens when it is due. Time never goes back."""
        now_ns = as_integer(now_ns, "now_ns")
        self.calls.require_outside()
        self.mapper.invalidation.advance(now_ns)

    @locked
    def flush(self) -> None:
        """Let what waits for a flush go now; see `Domain.flush`."""
        super().flush()
        self.mapper.invalidation.fire()

    @locked
    def flush_lazily(self) -> None:
        """Let flushes wait from now on, as ``flush="lazy"`` does from the start. Source: ``iommu_dma_init_fq``."""
        self.calls.require_outside()
        self.mapper.invalidation.become_lazy()

    def gather(self) -> IotlbGather:
        """An empty gather, whose ``sync`` flushes what it holds and gives back what waited for that."""
        return self.mapper.invalidation.gather_for_caller()

    @locked
    def invalidate_all(self) -> None:
        """With one command; see `Domain.invalidate_all`."""
        self.calls.require_outside()
        self.mapper.invalidation.flush_all(self.now)
