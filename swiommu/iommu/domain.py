"""The one API: a domain is a device's bus address space, with translation hardware below it or without.

What is here holds for every domain: whose addresses may enter, who is attached, which mappings live. How bus addresses
are chosen, recorded and translated is its `Mapper`'s business, where memory comes from its `Backing`'s, and who is
below and above its `StackPlace`'s.

A *mapping* (from `Domain.alloc` or `Domain.bind`) owns its bus range until `Domain.release`. `Domain.map` and
`Domain.unmap` are the lower half: they write and clear translations at addresses that the caller chose, either
inside one mapping's bus range or outside all of them.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from swiommu.address import BusAddr, BusRange, PhysAddr, PhysRange, PhysSpace, align_up, as_integer, as_integers
from swiommu.errors import AddressOverflow, Busy, NoDevice, NotSupported
from swiommu.iommu import validate
from swiommu.iommu.attaching import Attachable, Attachments, AttachPolicy
from swiommu.iommu.backing import OwedMemory
from swiommu.iommu.gather import IotlbGather
from swiommu.iommu.mapping import MappedSpan, Mapping, Register, notify_release, require_releasable
from swiommu.iommu.reserving import consequences, require_free, withhold
from swiommu.iommu.stacking import BusyPolicy, StackPlace
from swiommu.iommu.validate import READ_WRITE, Calls
from swiommu.layer import Walker
from swiommu.locking import Running, locked, no_shallow_copy
from swiommu.ranges import RangeSet, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from swiommu.address import Access, AddressRange, BusSpace, Prot, Space
    from swiommu.iommu.backing import Backing
    from swiommu.iommu.mapper import DomainStats, Mapper
    from swiommu.iommu.reverse_map import ReverseMap
    from swiommu.layer import Node, Reserved, Run
    from swiommu.locking import Lock
    from swiommu.memory import SparseRam
    from swiommu.pagetable import DataPageWrite, Rules

__all__ = ["READ_WRITE", "Attachable", "Domain", "Mapping"]

A = TypeVar("A", PhysAddr, BusAddr)


class Domain(Generic[A]):
    """A bus address space and how it is filled; `PagedDomain` and `LinearDomain` are the two kinds.

    ``input_space`` is what devices see, ``output_space`` what mappings lead to: a memory, or the bus space of the
    domain ``below``. ``node`` is its layer in its place: what accesses go through; ``granule`` is the smallest page,
    ``aperture_first`` and ``aperture_last`` the lowest and the highest bus address that can be mapped.
    ``on_data_page_write``: who is told where a kernel would write into data, by formats whose driver does that.
    ``kernel`` is what a kernel's core keeps of it, if one has made it (`swiommu.iommu.groups.IommuDomain`). ``uses`` is
    what the domains above map here. ``in_use`` says what happens when something is to be unmapped that they use, see
    `BusyPolicy`: "refuse", "notify" (their ``on_notice`` is told the range) or "force".

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> ram, bus = PhysSpace("ram"), BusSpace("nvme")
    >>> domain = PagedDomain(bus, frames=Frames(ram.at(0), 1 << 20), output_space=ram)
    >>> domain.map(bus.at(0x8000), ram.at(0x5000_0000), 0x3000)
    >>> domain.iova_to_phys(bus.at(0x9234))
    PhysAddr(ram:0x50001234)
    >>> domain.unmap(bus.at(0x8000), 0x10000), domain.stats.unmaps, domain.stats.invalidations
    (12288, 1, 1)
    """

    __copy__ = no_shallow_copy

    kernel: Any = None

    def __init__(
        self,
        input_space: BusSpace,
        output_space: Space,
        mapper: Mapper,
        backing: Backing,
        owned: RangeSet,
        *,
        first: int = 0,
        last: int,
        below: Domain[Any] | None = None,
        memory: Node | None = None,
        walker: Walker = Walker.NESTED,
        in_use: str = "refuse",
        running: Running | None = None,
        held: RangeSet | None = None,
    ) -> None:
        self.input_space: BusSpace = input_space
        self.output_space: Space = output_space
        self.mapper: Mapper = mapper
        self.backing: Backing = backing
        self.below: Domain[Any] | None = below
        if below is not None:
            below.calls.require_live()
        self.aperture_first: int = first
        self.aperture_last: int = last
        self.pgsize_bitmap: int = mapper.pgsize_bitmap
        self.granule: int = mapper.pgsize_bitmap & -mapper.pgsize_bitmap
        self.place: StackPlace = StackPlace(
            input_space,
            output_space,
            mapper,
            first,
            last,
            below=None if below is None else below.place,
            memory=memory,
            walker=walker,
            in_use=BusyPolicy(in_use),
        )
        place = self.place
        self.lock: Lock = place.lock
        self.node: Node = place.node
        self.uses: ReverseMap = place.references
        self.on_notice: list[Callable[[BusRange], None]] = place.on_notice
        self.memory_space: Space = place.memory_space
        self.bottom: Node | None = place.bottom
        self.memory_granule: int = place.memory_granule
        self.stack_granule: int = place.stack_granule
        self.finest_granule: int = place.finest_granule
        self.calls: Calls = Calls(input_space.name, running or Running(), place.notifying)
        self.register: Register[A] = Register(self, owned, RangeSet() if held is None else held, mapper.unit)
        self.attachments = Attachments(self)
        self.on_data_page_write: list[Callable[[DataPageWrite], None]] = []
        self._owed = OwedMemory(backing)

    # -- what it is

    @property
    def enforces(self) -> bool:
        """Whether a device is kept from what is not mapped."""
        return self.mapper.enforces

    @property
    def rules(self) -> Rules:
        """What the kernel's driver of its page-table format does differently from others."""
        return self.mapper.rules

    @property
    def stats(self) -> DomainStats:
        """What it has cost so far."""
        return self.mapper.stats

    @property
    def destroyed(self) -> bool:
        """Whether `destroy` has ended it."""
        return self.calls.destroyed

    @property
    def owes(self) -> bool:
        """Whether something that is needed no more could not be given back yet; `flush` tries again."""
        return bool(self._owed.pieces) or self.mapper.owes

    # -- mappings

    def alloc(self, size: int, align: int = 0, *, prot: Prot = READ_WRITE, limit: int | None = None) -> Mapping[A]:
        """Memory of ``size`` bytes, rounded up to granules, with a contiguous bus range at a multiple of ``align``.

        In a stack it comes from the bottom up: each domain below gives memory and maps it; granules are the largest.
        Memory is taken before the bus range, as in dma-iommu. ``limit`` is the highest bus address that may be used; by
        default what the attached devices can drive. All or nothing. Raises `InvalidArgument` (size, alignment, no READ
        or WRITE), `NoMemory` or `NoSpace`, and `NotSupported` for an alignment that a window can't keep.
        """
        with self.lock:
            self.calls.require_live()
            size, align = validate.allocation(size, align, self.stack_granule)
            validate.require_prot(prot, self.mapper.rules)
            highest = validate.highest(limit, self.attachments.limit)
            return self._map_taken(*self.backing.take(size, align, prot, highest), size, align, prot, highest)

    def alloc_at(self, where: BusRange, *, prot: Prot = READ_WRITE) -> Mapping[A]:
        """As `alloc`, at the bus addresses ``where``, whole granules: memory behind a range that the caller chose.

        Raises as `alloc`, `InvalidArgument` for a range beyond the aperture or of torn granules, and `AddressInUse` if
        some of it is in use, or is not for allocations.

        >>> from swiommu.address import BusRange, BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.memory import Frames
        >>> ram, bus = PhysSpace("ram"), BusSpace("nvme", width=32)
        >>> domain = PagedDomain(bus, frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> mapping = domain.alloc_at(BusRange(bus.at(0x8000), 0x2000)); mapping.iova, mapping.memory
        (BusRange(nvme:0x8000+0x2000), (PhysRange(ram:0x1000+0x2000),))
        """
        with self.lock:
            self.calls.require_live()
            granule, first, highest = self.stack_granule, self.aperture_first, self.aperture_last
            at = validate.whole_range(self.input_space, where, granule, first, highest)
            validate.require_prot(prot, self.mapper.rules)
            taken = self.backing.take(where.size, granule, prot, highest, at)
            return self._map_taken(*taken, where.size, granule, prot, highest, at)

    def alloc_for_tables(self, size: int, *, limit: int | None = None) -> Mapping[A]:
        """Memory for a page table of a domain above this one: ``size`` bytes, a power of two, at a multiple of that.

        Where it comes from it spoils no place for large leaves, as far as that can be chosen. Raises as `alloc`.
        """
        with self.lock:
            self.calls.require_live()
            size, align = validate.allocation(size, size, self.stack_granule)
            highest = validate.highest(limit, self.attachments.limit)
            return self._map_taken(*self.backing.take_for_tables(size, highest), size, align, READ_WRITE, highest)

    def _map_taken(
        self,
        runs: list[tuple[int, int]],
        below: Mapping[Any] | None,
        size: int,
        align: int,
        prot: Prot,
        highest: int,
        at: int | None = None,
    ) -> Mapping[A]:
        # A mapping of memory that was taken for it, which goes back if there can be none.
        try:
            start = self.mapper.choose(runs, size, align, int(prot), highest, at)
        except BaseException:
            self._owed.give(self.register.pieces(runs), below)
            raise
        return self.register.remember(start, start, size, runs, prot, below, owns_memory=True)

    def bind(
        self, pieces: Sequence[AddressRange[A]], prot: Prot = READ_WRITE, *, limit: int | None = None, align: int = 0
    ) -> Mapping[A]:
        """A bus range, chosen by the domain, for memory that exists: ``pieces``, one behind the other.

        The first piece may begin, and the last one end, inside a granule: whole granules are mapped, and the bus range
        keeps the offset. Pieces that touch are one. Between pieces that don't, borders are whole granules, else
        `InvalidArgument`. ``align``: see `bind_memory`. All or nothing; raises also `NoSpace`, `SpaceMismatch`, and
        `NotSupported` for what a window does not lead to.
        """
        with self.lock:
            self.calls.require_live()
            align = as_integer(align, "align")
            unit, place = self.mapper.unit, self.place
            runs = validate.merged_runs(pieces, self.output_space, unit, self.granule)
            validate.require_prot(prot, self.mapper.rules)
            if place.below is not None:
                for start, stop in runs:
                    place.require_reached(start, stop - start)
            return self._bind(runs, prot, validate.highest(limit, self.attachments.limit), max(align, unit), None)

    def _bind(
        self, runs: list[tuple[int, int]], prot: Prot, highest: int, align: int, below: Mapping[Any] | None
    ) -> Mapping[A]:
        # One bus range for all runs, in whole units.
        unit = self.mapper.unit
        size = sum([stop - start for start, stop in runs])
        offset = runs[0][0] & (unit - 1)
        whole = runs
        if offset or size & (unit - 1):
            whole = runs.copy()
            whole[0] = (whole[0][0] - offset, whole[0][1])
            whole[-1] = (whole[-1][0], align_up(whole[-1][1], unit))
        start = self.mapper.choose(whole, align_up(offset + size, align), align, int(prot), highest, None)
        return self.register.remember(start, start + offset, size, runs, prot, below, owns_memory=False)

    @locked
    def bind_memory(
        self, pieces: Sequence[PhysRange], prot: Prot = READ_WRITE, *, limit: int | None = None, align: int = 0
    ) -> Mapping[A]:
        """`Domain.bind` of memory, from the bottom up: each domain below picks an address for it and maps it first.

        At the bottom this is `Domain.bind`. ``align``: no other mapping shares a block of that many bytes with it, so
        that pages of that size above reach nothing else. All or nothing; raises what `Domain.bind` raises of any of
        the domains.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.memory import Frames
        >>> ram = PhysSpace("ram")
        >>> lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> upper = PagedDomain(BusSpace("nic", width=32), below=lower)
        >>> packet = upper.bind_memory([PhysRange(ram.at(0x5000_0200), 1500)])
        >>> packet.iova, packet.pieces, packet.memory[0]
        (BusRange(nic:0xfffff200+0x5dc), (BusRange(ipa:0xffffffe200+0x5dc),), PhysRange(ram:0x50000200+0x5dc))
        >>> upper.release(packet); [mapping.size for mapping in lower.mappings()]
        [4096]
        """
        self.calls.require_live()
        validate.require_prot(prot, self.mapper.rules)
        highest = validate.highest(limit, self.attachments.limit)
        align = max(as_integer(align, "align"), self.mapper.unit)
        if self.below is None:
            runs = validate.merged_runs(pieces, self.output_space, self.mapper.unit, self.granule)
            return self._bind(runs, prot, highest, align, None)
        lower = self.below.bind_memory(pieces, prot, limit=self.place.highest_output(), align=self.granule)
        done = None
        try:
            done = self._bind([(lower.iova.start.value, lower.iova.stop)], prot, highest, align, lower)
        finally:
            if done is None:
                self.below.let_go(lower)
        return done

    def release(self, mapping: Mapping[A]) -> None:
        """Unmap, and give back the bus range, and the memory if the mapping owns it; `NotFound` if it is not live.

        What was mapped for it below goes with it, after it. `Busy` as `unmap`.
        """
        with self.lock:
            self.calls.require_live()
            if self.place.guarded:
                require_releasable(mapping)
                notify_release(mapping)
            self.let_go(mapping)

    def let_go(self, mapping: Mapping[A]) -> None:
        """What `release` does when nobody objects: unmap, flush (or queue for it), and give everything back."""
        if not self.mapper.enforces:
            self._let_go_unenforced(mapping)
            return
        if mapping.owns_memory and self.backing.may_refuse() and self.held(mapping):
            self.require_givable(mapping)
        start, stop = self.register.remove(mapping)
        try:
            self.mapper.unmap(start, stop - start, owned=True)
        finally:
            if mapping.owns_memory or mapping.below is not None:
                self._owed.give(mapping.pieces, mapping.below)

    def _let_go_unenforced(self, mapping: Mapping[A]) -> None:
        # No device is kept from anything, so that what may refuse comes first: all is as before then.
        if not self.held(mapping):
            self.register.remove(mapping)  # which says that it is not live
        if mapping.owns_memory:
            self.backing.give(mapping.pieces, None)
        if mapping.below is not None and mapping.below.domain.held(mapping.below):
            mapping.below.domain.let_go(mapping.below)
        start, stop = self.register.remove(mapping)
        self.mapper.unmap(start, stop - start, owned=True)

    # -- the caller chooses the address

    def map(self, iova: BusAddr, paddr: A, size: int, prot: Prot = READ_WRITE) -> None:
        """Map ``size`` bytes at ``iova`` to ``paddr``: all or nothing, whole granules.

        Raises `SpaceMismatch`, `InvalidArgument` (empty, misaligned, no READ or WRITE), `AddressOverflow`, `OutOfRange`
        (beyond the aperture or the output), `AddressInUse`, and `NotSupported` where nothing translates and the
        addresses are not those of the window. Source: ``iommu_map``.
        """
        with self.lock:
            self.calls.require_live()
            if type(size) is not int:
                size = as_integer(size, "size")
            mapper = self.mapper
            at = validate.bus_value(self.input_space, iova, size)
            to = validate.output_value(self.output_space, paddr)
            validate.require_mappable(prot, mapper.rules)
            validate.require_granules(mapper.rules, self.granule, at, size, to)
            if to + size > self.output_space.limit:
                raise AddressOverflow(
                    f"{size:#x} bytes at {paddr!r} leave the {self.output_space.width}-bit space", paddr=to, size=size
                )
            owned = self.register.owns(at, size, mapper.rules)
            if self.below is not None:
                self.place.require_reached(to, size)
            mapper.map(at, to, size, int(prot), owned=owned)
            if self.below is not None:
                self.place.note_references(at, [(to, to + size)])

    def unmap(self, iova: BusAddr, size: int) -> int:
        """Clear translations from ``iova`` on; the bytes unmapped: less than ``size`` if a hole is met, even 0.

        It is more than ``size`` when a large leaf begins inside the range and ends behind it; a leaf that the range
        enters in the middle is left, but by some formats' rules it goes whole, or is counted and left
        (`swiommu.pagetable.Rules`). A domain may have been told to refuse or to split such leaves instead. `Busy` when
        a domain above uses some of it, by ``in_use``. Raises `SpaceMismatch`, `InvalidArgument` (empty, misaligned),
        `AddressOverflow`, `OutOfRange`. Source: ``iommu_unmap`` on the generic page table.
        """
        with self.lock:
            return self.mapper.unmap(self._to_unmap(iova, size), int(size))

    def unmap_gathered(self, iova: BusAddr, size: int, gather: IotlbGather) -> int:
        """As `unmap`, but nothing is flushed before `IotlbGather.sync` of ``gather``, which `gather` gave.

        Until then bus addresses and table pages stay taken. Where nothing is cached, the gather stays empty. Source:
        ``iommu_unmap_fast``.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
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
            return self.mapper.unmap(self._to_unmap(iova, size), int(size), gather)

    def _to_unmap(self, iova: BusAddr, size: int) -> int:
        # The start, if it can be unmapped and nobody above objects.
        self.calls.require_live()
        if type(size) is not int:
            size = as_integer(size, "size")
        at = validate.bus_value(self.input_space, iova, size)
        validate.require_granules(self.mapper.rules, self.granule, at, size)
        if self.place.guarded:
            self.mapper.before_unmap(at, size)
        return at

    def gather(self) -> IotlbGather:
        """An empty gather for `unmap_gathered`, whose ``sync`` flushes what it holds, if something is cached here."""
        return IotlbGather(_nothing_cached)

    def invalidate_all(self) -> None:
        """Flush all that is cached of translations; what waits for a flush goes on waiting. Nothing where none is.

        Source: ``iommu_flush_iotlb_all``.
        """

    def flush_lazily(self) -> None:
        """Let flushes wait from now on; `NotSupported` where nothing is cached. Source: ``iommu_dma_init_fq``."""
        raise NotSupported(f"the domain of {self.input_space.name!r} caches no translation: it has no flush to defer")

    def enforce_cache_coherency(self) -> bool:
        """Whether what is mapped from now on is coherent, whatever devices say of snooping; False if it can't be."""
        return False

    def iova_to_phys(self, iova: BusAddr) -> A | None:
        """Where ``iova`` is mapped to in the output space, with its offset in the page; None if it is not.

        By the record: where nothing translates, a device reaches more.
        """
        validate.require_input(self.input_space, iova)
        with self.lock:
            found = self.mapper.lookup(iova.value)
        return None if found is None else self.register.output_at(found[0])

    def at(self, iova: BusAddr) -> MappedSpan[A] | None:
        """As `iova_to_phys`, with the size of the leaf that ``iova`` is in, and what else that maps; None in a hole.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.memory import Frames
        >>> ram, bus = PhysSpace("ram"), BusSpace("nvme", width=32)
        >>> domain = PagedDomain(bus, frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> domain.map(bus.at(0x20_0000), ram.at(0x4000_0000), 0x20_1000)
        >>> domain.at(bus.at(0x20_1234))
        MappedSpan(output=PhysAddr(ram:0x40001234), leaf_size=2097152, extent=BusRange(nvme:0x200000+0x200000))
        >>> domain.leading_to(PhysRange(ram.at(0x401F_F000), 0x1800))
        [BusRange(nvme:0x3ff000+0x1800)]
        """
        validate.require_input(self.input_space, iova)
        with self.lock:
            found = self.mapper.lookup(iova.value)
        if found is None:
            return None
        output, leaf_size, start, stop = found
        extent = BusRange(BusAddr(self.input_space, start), stop - start)
        return MappedSpan(self.register.output_at(output), leaf_size, extent)

    @locked
    def leading_to(self, where: AddressRange[A]) -> list[BusRange]:
        """The bus addresses that lead into ``where`` by the record, ascending, those that touch as one range.

        All that is mapped is looked at. `SpaceMismatch` for a range of another space than the output space.
        """
        start = validate.output_value(self.output_space, where.start)
        found = joined(self.mapper.leading_to(start, start + where.size))
        return [BusRange(BusAddr(self.input_space, low), high - low) for low, high in found]

    @locked
    def mapped(self) -> list[tuple[int, int]]:
        """The bus addresses that lead somewhere by the record, as (start, stop), ascending and apart."""
        return joined(self.mapper.leading_to(0, self.output_space.limit))

    def translate(self, iova: BusAddr, size: int, access: Access, *, stream: Hashable = None) -> list[Run]:
        """What a device reaches with ``size`` bytes from ``iova``; `DeviceFault` with ``fault`` and ``runs``.

        ``stream`` says whose access it is, to caches that several devices share.
        """
        with self.lock:
            return self.node.translate(iova, size, access, stream=stream)

    # -- downwards

    @property
    def end_spaces(self) -> tuple[Space, ...]:
        """The spaces of the memories that accesses can end in; `memory_space` alone where none is modelled."""
        return self.place.end_spaces

    @property
    def ram(self) -> SparseRam | None:
        """The bytes at the end, if the bottom domain is on a node that ends in one memory."""
        return self.place.ram

    @locked
    def iova_to_memory(self, iova: BusAddr) -> PhysAddr | None:
        """Where ``iova`` leads in the end, through all domains, by their records; None if one of them has a hole.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.memory import Frames
        >>> ram = PhysSpace("ram")
        >>> lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> upper = PagedDomain(BusSpace("nic", width=32), below=lower)
        >>> iova, ipa = upper.input_space.at(0x8000), lower.input_space.at(0x5000)
        >>> upper.map(iova, ipa, 0x1000); upper.iova_to_phys(iova + 16), upper.iova_to_memory(iova + 16)
        (BusAddr(ipa:0x5010), None)
        >>> lower.map(ipa, ram.at(0x70000), 0x1000); upper.iova_to_memory(iova + 16)
        PhysAddr(ram:0x70010)
        """
        validate.require_input(self.input_space, iova)
        found, space = self.place.memory_at(iova.value), self.memory_space
        return None if found is None else cast("PhysSpace", space).at(found)

    @locked
    def memory_behind(self, start: int, size: int) -> tuple[PhysRange, ...]:
        """What ``size`` bytes from ``start`` lead to in the end, merged; `NotFound` if a byte leads nowhere."""
        start, size = as_integers(start=start, size=size)
        space: Any = self.memory_space
        return tuple(PhysRange(space.at(first), stop - first) for first, stop in self.place.memory_behind(start, size))

    # -- upwards

    @property
    def in_use(self) -> BusyPolicy:
        """What happens when something is to be unmapped that domains above use; it can be changed."""
        return self.place.in_use

    @in_use.setter
    def in_use(self, policy: str) -> None:
        self.place.in_use = BusyPolicy(policy)

    @locked
    def reserve(self, region: Reserved) -> None:
        """Withhold a region of the bus space: neither given out here nor, unless it is direct, led to from above.

        The domains above withhold what follows from it, see `swiommu.iommu.reserving`. A direct region can be mapped by
        the owner, before or after. `AddressInUse`, and nothing has changed, if another part of it is in use already.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.layer import Reserved
        >>> from swiommu.memory import Frames
        >>> ram = PhysSpace("ram")
        >>> domain = PagedDomain(BusSpace("nic", width=32), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> domain.reserve(Reserved(0xFEE0_0000, 0x10_0000, "msi")); domain.node.reserved[0].stop
        4277141504
        """
        self.calls.require_live()
        found = list(consequences(self.place, region))
        require_free(found)
        withhold(found)

    # -- devices

    @property
    def devices(self) -> tuple[Attachable, ...]:
        """The devices attached, in order."""
        return tuple(self.attachments.devices)

    @locked
    def attach(self, device: Attachable, policy: str = "stack") -> None:
        """Let ``device`` see this domain; its mask narrows what `alloc` and `bind` choose from now on.

        A device that has a domain gets this one on top of it ("stack": that one must be below this, and the device,
        the apertures and the direct regions must fit), in its place ("replace"), or not at all ("refuse"); `detach`
        brings the former one back. Raises `Busy`, also for a domain that the device is attached to already,
        `InvalidArgument` and `OutOfRange` for what does not fit. Source: ``iommu_attach_device``.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.device import BusDevice
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.memory import Frames, SparseRam
        >>> ram = PhysSpace("ram")
        >>> lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> nic = BusDevice("nic", SparseRam(ram)); lower.attach(nic)
        >>> upper = PagedDomain(BusSpace("nic", width=32), below=lower); upper.attach(nic)
        >>> nic.domain is upper, lower.devices
        (True, ())
        >>> upper.detach(nic); nic.domain is lower
        True
        """
        self.calls.require_live()
        self.attachments.attach(device, AttachPolicy(policy))

    @locked
    def detach(self, device: Attachable) -> None:
        """Take ``device`` off; `NoDevice` if it is not attached here. A domain that it had before has it again."""
        if device.domain is not self:
            raise NoDevice(f"device {device.name!r} is not attached to the domain of {self.input_space.name!r}")
        self.calls.require_outside()
        self.attachments.detach(device)

    def welcome(self, device: Attachable) -> None:
        """What `attach` does when nothing speaks against it."""
        self.attachments.add(device)

    def give_away(self, device: Attachable) -> None:
        """Let another domain have ``device``, or none."""
        self.attachments.remove(device)

    @locked
    def follow_masks(self) -> None:
        """Keep what `alloc` and `bind` choose under the masks that the attached devices have now."""
        self.attachments.follow_masks()

    @locked
    def mappings(self) -> list[Mapping[A]]:
        """Every live mapping, by bus address."""
        return self.register.mappings()

    # -- its life

    @locked
    def flush(self) -> None:
        """Let what waits for a flush go now; nothing waits where flushes are strict.

        What an address policy, a table memory or the domain below raised for when it was given back goes now, too.
        """
        self.calls.require_outside()
        self._settle()

    def _settle(self) -> None:
        if self.owes:
            self.mapper.settle()
            self._owed.settle()

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """What is mapped inside and released again leaves nothing behind, and nothing inside waits for a flush.

        The policy undoes its changes, and so do the domains below. It costs what is done inside, however much there is.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.memory import Frames
        >>> ram = PhysSpace("ram")
        >>> domain = PagedDomain(BusSpace("bus"), frames=Frames(ram.at(0), 1 << 20), output_space=ram, flush="lazy")
        >>> with domain.dry_run():
        ...     domain.release(domain.alloc(4096))
        >>> domain.stats.maps, domain.stats.table_pages, domain.frames.free_count
        (0, 1, 255)
        """
        with self.lock, self.mapper.dry_run(), nullcontext() if self.below is None else self.below.dry_run():
            yield

    @locked
    def destroy(self) -> None:
        """Give up everything held; `Busy` while devices are attached, anything is mapped, or a domain is above.

        What a table memory raises comes out when the domain is destroyed; another call gives back what is left.
        """
        if self.destroyed and self.owes:
            self._settle()
            return
        self.calls.require_live()
        self.place.require_top()
        held, devices, mappings = len(self.register.held), len(self.devices), len(self.register)
        if held:
            raise Busy(f"the domain of {self.input_space.name!r} has {held} ranges held")
        if devices or mappings:
            raise Busy(
                f"the domain of {self.input_space.name!r} has {devices} devices and {mappings} mappings",
            )
        self.flush()
        self.mapper.close()
        self.place.leave()
        self.calls.destroyed = True
        self._settle()

    @locked
    def check(self) -> None:
        """Mappings own disjoint ranges that hold them, and pieces add up; `AssertionError` with a dump.

        The node is on what the domain is on, the mapper holds what the mappings say, and all memory that was taken is
        that of a mapping.
        """
        self.register.check()
        self.uses.check()
        self.place.check_place()
        assert all(device.domain is self for device in self.devices), f"{self.devices}"
        self.mapper.check(self.mappings())
        owners: list[Mapping[A]] = [each for each in self.mappings() if each.owns_memory]
        self.backing.check([*((each.pieces, each.below) for each in owners), *self._owed.pieces])

    # -- its mappings

    def held(self, mapping: Mapping[A]) -> tuple[int, int] | None:
        """The bus addresses that ``mapping`` owns, as start and stop; None if it is not live here."""
        return self.register.range_of(mapping)

    def require_givable(self, mapping: Mapping[A]) -> None:
        """`Busy` if the memory that ``mapping`` owns could not go back to where it came from."""
        if mapping.owns_memory:
            self.backing.require_givable(mapping.pieces, mapping.below)


def _nothing_cached(start: int, last: int) -> None:
    """What a gather flushes where no translation is cached."""
