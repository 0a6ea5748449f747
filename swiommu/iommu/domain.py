"""The one API: a domain is a device's bus address space, with translation hardware below it or without.

What is here holds for every driver: whose addresses may enter, who is attached, which mappings live. What a driver
adds is how bus addresses are chosen, recorded and translated.

A *mapping* (from `Domain.alloc` or `Domain.bind`) owns its bus range until `Domain.release`. `Domain.map` and
`Domain.unmap` are the lower half: they write and clear translations at addresses that the caller chose, either
inside one mapping's bus range or outside all of them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import attrs

from swiommu.address import BusAddr, PhysAddr, as_integer
from swiommu.errors import AddressOverflow, Busy, NoDevice, NotFound, NotSupported
from swiommu.iommu.attaching import move, require_attachable, require_detachable
from swiommu.iommu.door import READ_WRITE
from swiommu.iommu.gather import IotlbGather
from swiommu.iommu.stacked import Stacked
from swiommu.layer import Walker
from swiommu.locking import locked
from swiommu.ranges import RangeSet

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from swiommu.address import Access, AddressRange, BusSpace, Prot, Space
    from swiommu.iommu.mapping import Mapping
    from swiommu.iommu.stacked import User
    from swiommu.layer import Layer, Node, Run
    from swiommu.pagetable import DataPageWrite

__all__ = ["READ_WRITE", "Attachable", "Domain", "DomainStats"]

A = TypeVar("A", PhysAddr, BusAddr)


class Attachable(Protocol):
    """What a domain needs to know of a device; ``dma_mask`` is the highest bus address that it can drive.

    Only domains set ``domain``. ``group``: the IOMMU group that decides on it, if the device is in one.
    """

    name: str
    dma_mask: int
    domain: Domain[Any] | None
    group: Any


@attrs.define
class DomainStats:
    """What a domain has cost so far; one object for its whole life, always up to date.

    ``maps``: contiguous pieces mapped, ``unmaps``: releases, and unmap calls that met something,
    ``invalidations``: commands, of which ``flushes`` are of everything at once,
    ``table_pages``: now and at its peak, those that wait for a flush included, ``walk_refs``: table entries that cold
    walks read to touch every leaf mapped, once, ``map_bytes``: bytes mapped, whole granules in a paged domain.
    """

    maps: int = 0
    unmaps: int = 0
    invalidations: int = 0
    flushes: int = 0
    table_pages: int = 0
    table_pages_peak: int = 0
    walk_refs: int = 0
    map_bytes: int = 0


class Domain(Stacked[A]):
    """A bus address space and how it is filled; `PagedDomain` and `LinearDomain` are the two kinds.

    ``input_space`` is what devices see, ``output_space`` what mappings lead to: a memory, or the bus space of the
    domain ``below``. ``enforces``: whether a device is kept from what is not mapped. ``node`` is its layer in its
    place: what its accesses go through; ``stats`` is what it has cost, ``granule`` the smallest page in bytes,
    ``aperture_last`` the highest bus address that can be mapped. ``on_data_page_write``: who is told where a kernel
    would write into data, by formats whose driver does that. ``kernel`` is what a kernel's core keeps of it, if one has
    made it (`swiommu.iommu.groups.IommuDomain`).

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

    enforces: ClassVar[bool]
    kernel: Any = None

    def __init__(
        self,
        input_space: BusSpace,
        output_space: Space,
        layer: Layer,
        pgsize_bitmap: int,
        last: int,
        *,
        below: Domain[Any] | None = None,
        memory: Node | None = None,
        walker: Walker = Walker.NESTED,
        in_use: str = "refuse",
    ) -> None:
        self.stats = DomainStats()
        self.on_data_page_write: list[Callable[[DataPageWrite], None]] = []
        self._devices: list[Attachable] = []
        self._had: list[tuple[Attachable, Domain[Any]]] = []  # what devices were attached to before
        self._mappings: dict[int, Mapping[A]] = {}
        self._owned = RangeSet()
        self._held: set[int] = set()  # starts of ranges in it that a caller keeps for himself
        super().__init__(
            input_space,
            output_space,
            layer,
            pgsize_bitmap,
            last,
            below=below,
            memory=memory,
            walker=walker,
            in_use=in_use,
        )

    # -- mappings

    @abstractmethod
    def alloc(self, size: int, align: int = 0, *, prot: Prot = READ_WRITE, limit: int | None = None) -> Mapping[A]:
        """Memory of ``size`` bytes, rounded up to granules, with a contiguous bus range at a multiple of ``align``.

        In a stack it comes from the bottom up: each domain below gives memory and maps it; granules are the largest.
        ``limit`` is the highest bus address that may be used; by default what the attached devices can drive. All or
        nothing. Raises `InvalidArgument` (size, alignment, no READ or WRITE), `NoMemory` or `NoSpace`.
        """

    def alloc_for_tables(self, size: int, *, limit: int | None = None) -> Mapping[A]:
        """Memory for a page table of a domain above this one: ``size`` bytes, a power of two, at a multiple of that.

        Where it comes from it spoils no place for large leaves, as far as the driver can choose. Raises as `alloc`.
        """
        return self.alloc(size, size, limit=limit)

    def bind(
        self, pieces: Sequence[AddressRange[A]], prot: Prot = READ_WRITE, *, limit: int | None = None, align: int = 0
    ) -> Mapping[A]:
        """A bus range, chosen by the domain, for memory that exists: ``pieces``, one behind the other.

        The first piece may begin, and the last one end, inside a granule: whole granules are mapped, and the bus range
        keeps the offset. Pieces that touch are one. Between pieces that don't, borders are whole granules, else
        `InvalidArgument`. ``align``: see `bind_memory`. All or nothing; raises also `NoSpace`, `SpaceMismatch` and
        what the driver says.
        """
        with self.lock:
            self._require_live()
            align = as_integer(align, "align")
            runs = self._runs(pieces)
            self._require_prot(prot)
            if self.below is not None:
                for start, stop in runs:
                    self._require_reached(start, stop - start)
            return self._bind(runs, prot, self._highest(limit), max(align, self._unit))

    def release(self, mapping: Mapping[A]) -> None:
        """Unmap, and give back the bus range, and the memory if the mapping owns it; `NotFound` if it is not live.

        What was mapped for it below goes with it, after it. `Busy` as `unmap`.
        """
        with self.lock:
            self._require_live()
            if self._guarded:
                self.require_releasable(mapping)
                self.notify_release(mapping)
            self.let_go(mapping)

    # -- the caller chooses the address

    def map(self, iova: BusAddr, paddr: A, size: int, prot: Prot = READ_WRITE) -> None:
        """Map ``size`` bytes at ``iova`` to ``paddr``: all or nothing, whole granules.

        Raises `SpaceMismatch`, `InvalidArgument` (empty, misaligned, no READ or WRITE), `AddressOverflow`, `OutOfRange`
        (beyond the aperture or the output), `AddressInUse`. Source: ``iommu_map``.
        """
        with self.lock:
            self._require_live()
            if type(size) is not int:
                size = as_integer(size, "size")
            at, to = self._input(iova, size), self._output(paddr)
            self._require_mappable(prot)
            if (at | to | size) & (self.granule - 1):
                raise self.rules.misaligned(
                    f"{size:#x} bytes at {at:#x} to {to:#x} are not aligned to the granule {self.granule:#x}",
                    iova=at,
                    paddr=to,
                    size=size,
                )
            if to + size > self.output_space.limit:
                raise AddressOverflow(
                    f"{size:#x} bytes at {paddr!r} leave the {self.output_space.width}-bit space", paddr=to, size=size
                )
            owner = self._owned.first_over(at, at + size)
            if owner is not None and not owner[0] <= at < at + size <= owner[1]:
                raise self.rules.occupied(
                    f"{size:#x} bytes at {at:#x} lie partly in the live mapping at {owner[0]:#x}", iova=at, size=size
                )
            if self.below is not None:
                self._require_reached(to, size)
            self._map(at, to, size, prot, owned=owner is not None)
            if self.below is not None:
                self._note_uses(at, [(to, to + size)])

    def unmap(self, iova: BusAddr, size: int) -> int:
        """Clear translations from ``iova`` on; the bytes unmapped: less than ``size`` if a hole is met, even 0.

        It is more than ``size`` when a large leaf begins inside the range and ends behind it; a leaf that the range
        enters in the middle is left, but by some formats' rules it goes whole, or is counted and left
        (`swiommu.pagetable.Rules`). A domain may have been told to refuse or to split such leaves instead. `Busy` when
        a domain above uses some of it, by ``in_use``. Raises `SpaceMismatch`, `InvalidArgument` (empty, misaligned),
        `AddressOverflow`, `OutOfRange`. Source: ``iommu_unmap`` on the generic page table.
        """
        with self.lock:
            return self._unmap(*self._to_unmap(iova, size))

    def _to_unmap(self, iova: BusAddr, size: int) -> tuple[int, int]:
        # Start and size, if they can be unmapped and nobody above objects.
        self._require_live()
        if type(size) is not int:
            size = as_integer(size, "size")
        at = self._input(iova, size)
        if (at | size) & (self.granule - 1):
            raise self.rules.misaligned(
                f"{size:#x} bytes at {at:#x} are not aligned to the granule {self.granule:#x}", iova=at, size=size
            )
        return at, self._before_unmap(at, size) if self._guarded else size

    def gather(self) -> IotlbGather:
        """An empty gather for `unmap_gathered`, whose ``sync`` flushes what it holds, if something is cached here."""
        return IotlbGather(_nothing_cached)

    def unmap_gathered(self, iova: BusAddr, size: int, gather: IotlbGather) -> int:
        """As `unmap`, but nothing is flushed before `IotlbGather.sync` of ``gather``, which `gather` gave.

        Where nothing is cached, the gather stays empty. Source: ``iommu_unmap_fast``.
        """
        del gather
        return self.unmap(iova, size)

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

    @abstractmethod
    def mapped(self) -> list[tuple[int, int]]:
        """The bus addresses that lead somewhere by the record, as (start, stop), ascending and apart.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.memory import Frames
        >>> ram, bus = PhysSpace("ram"), BusSpace("nvme")
        >>> domain = PagedDomain(bus, frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> domain.map(bus.at(0x8000), ram.at(0x5000_0000), 0x1000)
        >>> domain.map(bus.at(0x9000), ram.at(0), 0x2000); domain.mapped()
        [(32768, 45056)]
        """

    @abstractmethod
    def iova_to_phys(self, iova: BusAddr) -> A | None:
        """Where ``iova`` is mapped to in the output space, with its offset in the page; None if it is not."""

    @abstractmethod
    def _map(self, iova: int, paddr: int, size: int, prot: Prot, *, owned: bool) -> None: ...

    def translate(self, iova: BusAddr, size: int, access: Access, *, stream: Hashable = None) -> list[Run]:
        """What a device reaches with ``size`` bytes from ``iova``; `DeviceFault` with ``fault`` and ``runs``.

        ``stream`` says whose access it is, to caches that several devices share.
        """
        with self.lock:
            return self.node.translate(iova, size, access, stream=stream)

    # -- devices

    @property
    def devices(self) -> tuple[Attachable, ...]:
        """The devices attached, in order."""
        return tuple(self._devices)

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
        self._require_live()
        require_attachable(self, device, policy)
        before = device.domain
        if before is not None:
            self._had.append((device, before))
        try:
            move(device, self)
        except BaseException:  # of a device that is anybody's
            self._had = [each for each in self._had if each[0] is not device]
            self._devices = [other for other in self._devices if other is not device]
            if before is not None and device.domain is not before:
                before.welcome(device)
            raise

    @locked
    def detach(self, device: Attachable) -> None:
        """Take ``device`` off; `NoDevice` if it is not attached here. A domain that it had before has it again."""
        if device.domain is not self:
            raise NoDevice(f"device {device.name!r} is not attached to the domain of {self.input_space.name!r}")
        self._require_outside()
        held = next((held for other, held in self._had if other is device), None)
        if held is None:
            require_detachable(device)
        self._had = [each for each in self._had if each[0] is not device]
        move(device, None if held is None or held.destroyed else held)

    def welcome(self, device: Attachable) -> None:
        """What `attach` does when nothing speaks against it."""
        device.domain = self
        self._devices.append(device)
        self.follow_masks()

    def give_away(self, device: Attachable) -> None:
        """Let another domain have ``device``, or none."""
        device.domain = None
        self._devices = [other for other in self._devices if other is not device]
        self.follow_masks()

    @locked
    def follow_masks(self) -> None:
        """Keep what `alloc` and `bind` choose under the masks that the attached devices have now."""
        self._limit = min([self.aperture_last, *(device.dma_mask for device in self._devices)])

    @locked
    def mappings(self) -> list[Mapping[A]]:
        """Every live mapping, by bus address."""
        return [self._mappings[start] for start in sorted(self._mappings)]

    @locked
    def destroy(self) -> None:
        """Give up everything held; `Busy` while devices are attached, anything is mapped, or a domain is above.

        What a table memory raises comes out when the domain is destroyed; another call gives back what is left.
        """
        if self.destroyed and self.owes:
            self._settle()
            return
        self._require_live()
        if self.node.uppers:
            above = ", ".join(repr(upper.name) for upper in self.node.uppers)
            raise Busy(f"the domain of {self.input_space.name!r} is below {above}", uppers=len(self.node.uppers))
        if self.node.readers:
            readers = ", ".join(repr(reader.name) for reader in self.node.readers)
            raise Busy(f"tables of {readers} are read through the domain of {self.input_space.name!r}")
        if self._held:
            raise Busy(
                f"the domain of {self.input_space.name!r} has {len(self._held)} ranges held", held=len(self._held)
            )
        if self._devices or self._mappings:
            raise Busy(
                f"the domain of {self.input_space.name!r} has {len(self._devices)} devices "
                f"and {len(self._mappings)} mappings",
                devices=len(self._devices),
                mappings=len(self._mappings),
            )
        self._destroy()
        self._leave()
        self.destroyed = True
        if self.owes:
            self._settle()

    @abstractmethod
    def _destroy(self) -> None: ...

    @locked
    def check(self) -> None:
        """Mappings own disjoint ranges that hold them, and pieces add up; `AssertionError` with a dump.

        The node is on what the domain is on, too. Drivers add what they hold.
        """
        self._owned.check()
        self.uses.check()
        self.check_place()
        owned = dict(self._owned)
        dump = f"{self.mappings()} own {owned}"
        assert owned.keys() == self._mappings.keys() | self._held, dump
        for start, mapping in self._mappings.items():
            assert start <= mapping.iova.start.value < mapping.iova.stop <= owned[start], dump
            assert sum(piece.size for piece in mapping.pieces) == mapping.size, f"{mapping.pieces}: {dump}"
            assert mapping.domain is self, dump
        assert all(device.domain is self for device in self._devices), f"{self._devices}"

    # -- the register of mappings

    def held(self, mapping: Mapping[A]) -> tuple[int, int] | None:
        """The bus addresses that ``mapping`` owns, as start and stop; None if it is not live here."""
        owned = self._owned.at(mapping.iova.start.value)
        return owned if owned is not None and self._mappings.get(owned[0]) is mapping else None

    def require_givable(self, mapping: Mapping[A]) -> None:
        """`Busy` if the memory that ``mapping`` owns could not go back to where it came from; a driver may know why."""

    @locked
    def require_releasable(self, mapping: Mapping[A], but: User | None = None) -> None:
        """`Busy` if somebody above uses a byte of ``mapping``, or of what was mapped for it below."""
        owned = self.held(mapping)
        if owned is not None:
            self.require_unused(*owned, but)
            if mapping.below is not None:
                mapping.below.domain.require_releasable(mapping.below, (self, owned[0], owned[1]))

    @locked
    def notify_release(self, mapping: Mapping[A], but: User | None = None) -> None:
        """Let those above unmap what leads into ``mapping``, or into what was mapped for it below."""
        owned = self.held(mapping)
        if owned is not None:
            self.notify(*owned, but)
            if mapping.below is not None:
                mapping.below.domain.notify_release(mapping.below, (self, owned[0], owned[1]))

    def _remember(self, mapping: Mapping[A], start: int) -> Mapping[A]:
        # Its bus addresses, from `start` on, are in `_owned` already.
        self._mappings[start] = mapping
        return mapping

    def _forget(self, mapping: Mapping[A]) -> tuple[int, int]:
        # The bus range that it owned, as start and stop.
        start = mapping.iova.start.value & -self._unit
        if self._mappings.get(start) is not mapping:
            owned = self.held(mapping)  # for a larger unit above it may own more, before it too
            if owned is None:
                raise NotFound(f"{mapping!r} is not live in the domain of {self.input_space.name!r}", iova=start)
            start = owned[0]
        del self._mappings[start]
        return start, self._owned.remove(start)


def _nothing_cached(start: int, last: int) -> None:
    """What a gather flushes where no translation is cached."""
