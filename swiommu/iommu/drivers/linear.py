"""A domain without translation hardware: bus = phys + delta in one window, memory from a contiguous region.

It *records* what is mapped, so that `iova_to_phys` and `unmap` answer as a driver expects, but it cannot *enforce*:
a device reaches the whole window, mapped or not, whatever the protection says. What it can't do by its nature is
`NotSupported`: the caller may try piece by piece, or copy, but never again the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from swiommu.address import BusAddr, BusRange, BusSpace, PhysAddr, PhysRange, align_up, as_integer
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NoMemory, NotSupported, OutOfRange, SpaceMismatch
from swiommu.iommu.domain import READ_WRITE, Domain
from swiommu.iommu.mapping import Mapping
from swiommu.layer import Span, Window
from swiommu.locking import locked
from swiommu.ranges import RangeSet, joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.address import AddressRange, Prot, Space
    from swiommu.layer import Node
    from swiommu.region import Chunk, Region

__all__ = ["LinearDomain"]

A = TypeVar("A", PhysAddr, BusAddr)


class LinearDomain(Domain[A]):
    """``alloc`` takes chunks of ``region``; ``bind`` and ``map`` reach all of ``window`` (default: the region).

    Records are exact to the byte, so that two buffers in one page can both be bound. The region's own users and what
    is bound share the window: a chunk that lands on bound memory is refused with `AddressInUse`.

    On a domain ``below`` the region is one of its bus space: contiguous there, and wherever it likes in memory. What
    backs it is mapped by others, before or after; ``in_use``: see `Stacked`. ``memory``: the node of a memory that all
    ends in. Raises `InvalidArgument` for a region outside the window, a delta that is not a multiple of the page size
    or a window that tears a granule of the domain below, `OutOfRange` for a window whose bus side leaves ``space_in``
    or whose other side leaves the aperture below, `SpaceMismatch` for a region of bus addresses of anybody else.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.region import Region
    >>> ram, bus = PhysSpace("ram", width=32), BusSpace("camera", width=32)
    >>> domain = LinearDomain(bus, Region(ram.at(0x4000_0000), 1 << 20), delta=0x1000_0000)
    >>> mapping = domain.alloc(5000)
    >>> mapping.iova, domain.iova_to_phys(mapping.iova.start + 8)
    (BusRange(camera:0x50000000+0x2000), PhysAddr(ram:0x40000008))
    >>> domain.release(mapping); domain.mappings()
    []
    """

    enforces: ClassVar[bool] = False
    _whole_granules: ClassVar[bool] = False

    @overload
    def __init__(
        self: LinearDomain[PhysAddr],
        space_in: BusSpace,
        region: Region[PhysAddr],
        *,
        window: PhysRange | None = ...,
        delta: int = ...,
        memory: Node | None = ...,
        in_use: str = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: LinearDomain[BusAddr],
        space_in: BusSpace,
        region: Region[BusAddr],
        *,
        window: BusRange | None = ...,
        delta: int = ...,
        below: Domain[Any],
        in_use: str = ...,
    ) -> None: ...

    def __init__(
        self,
        space_in: BusSpace,
        region: Region[Any],
        *,
        window: AddressRange[Any] | None = None,
        delta: int = 0,
        below: Domain[Any] | None = None,
        memory: Node | None = None,
        in_use: str = "refuse",
    ) -> None:
        _require_space(region.space, below)
        window = window or _whole(region)
        if region.start < window.start or region.stop > window.stop:
            raise InvalidArgument(f"{region!r} is not inside the window {window!r}")
        delta, granule = as_integer(delta, "delta"), region.page_size
        if delta & (granule - 1):
            raise InvalidArgument(f"a delta of {delta:#x} is not a multiple of the page size {granule}", delta=delta)
        base = window.start.value + delta
        if base < 0 or base + window.size > space_in.limit:
            raise OutOfRange(
                f"the window {window!r} with delta {delta:#x} leaves the {space_in.width}-bit space {space_in.name!r}",
                delta=delta,
            )
        layer = Window(space_in.name, Span(base, window.size, -delta))
        last = base + window.size - 1
        if below is not None and (window.start.value | window.size) & below.granule - 1:
            raise InvalidArgument(
                f"the window {window!r} tears a granule of {below.granule:#x} bytes of the domain of "
                f"{below.input_space.name!r}"
            )
        # What stands below may withhold addresses at once, so what decides on that is there before it is entered.
        self.region: Region[A] = region
        self.window: AddressRange[A] = window
        self.delta = delta
        self._record = RangeSet()
        self._withheld = RangeSet()
        self._owned_chunks: set[int] = set()  # where those begin that mappings own
        self.below = below
        self._require_aperture(window.start.value, window.size)
        try:
            super().__init__(
                space_in,
                region.space,
                layer,
                space_in.limit - granule,
                last,
                below=below,
                memory=memory,
                in_use=in_use,
            )
        except BaseException:
            self._give_withheld()
            raise
        self.aperture_first = base

    def alloc(self, size: int, align: int = 0, *, prot: Prot = READ_WRITE, limit: int | None = None) -> Mapping[A]:
        """A chunk of the region and the bus range that it has by nature; see `Domain.alloc`.

        Alignment holds on the bus: `NotSupported` when the delta is no multiple of it. `NoMemory` also when the chunk
        that the region gave lies above ``limit``; it is given back.
        """
        with self.lock:
            self._require_live()
            size, align = self._rounded(size, align)
            self._require_prot(prot)
            highest = self._highest(limit)
            if self.delta & (align - 1):
                raise NotSupported(
                    f"a window with delta {self.delta:#x} can't keep an alignment of {align:#x}",
                    delta=self.delta,
                    align=align,
                )
            return self._own(self.region.alloc(size, align), prot, highest)

    @locked
    def alloc_for_tables(self, size: int, *, limit: int | None = None) -> Mapping[A]:
        """As `Domain.alloc_for_tables`: from the high end of the region, so that its low end stays for large leaves.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.region import Region
        >>> ram, bus = PhysSpace("ram", width=32), BusSpace("camera", width=32)
        >>> domain = LinearDomain(bus, Region(ram.at(0x4000_0000), 1 << 20))
        >>> domain.alloc_for_tables(4096).iova, domain.alloc(4096).iova
        (BusRange(camera:0x400ff000+0x1000), BusRange(camera:0x40000000+0x1000))
        """
        self._require_live()
        size, align = self._rounded(size, size)
        highest = self._highest(limit)
        with self.region.lock:
            for hole in reversed(self.region.holes()):
                stop = min(hole.stop + self.delta, highest + 1)
                at = (stop - size & -align) - self.delta
                if at >= hole.start.value:
                    return self._own(self.region.reserve(self._at(at), size), READ_WRITE, highest)
        return self.alloc(size, align, limit=limit)  # which says what is missing

    def _own(self, chunk: Chunk[A], prot: Prot, highest: int) -> Mapping[A]:
        # The mapping of a chunk of the region, which goes back if there can be none.
        start = chunk.start.value
        try:
            self._require_below(start, chunk.size, highest)
            mapping = self._record_mapping(start, start + chunk.size, prot, owns_memory=True)
        except BaseException:
            self.region.free(chunk)
            raise
        self._owned_chunks.add(start)
        return mapping

    def _bind(
        self, runs: list[tuple[int, int]], prot: Prot, highest: int, align: int, below: Mapping[Any] | None = None
    ) -> Mapping[A]:
        # One contiguous run inside the window, or never.
        start, stop = runs[0]
        if len(runs) > 1:
            raise NotSupported(
                f"{len(runs)} separate pieces can't be one bus range without translation", pieces=len(runs)
            )
        if start < self.window.start.value or stop > self.window.stop:
            raise NotSupported(f"[{start:#x}, {stop:#x}) is not inside the window {self.window!r}", start=start)
        if stop - 1 + self.delta > highest:
            raise NotSupported(
                f"{stop - start} bytes at bus {start + self.delta:#x} are not all at or below {highest:#x}",
                start=start + self.delta,
                limit=highest,
            )
        if align > self.granule and (start + self.delta | stop - start) & align - 1:
            raise NotSupported(
                f"{stop - start} bytes at bus {start + self.delta:#x} are not whole granules of {align:#x} bytes, "
                "and without translation they stay where they are",
                start=start + self.delta,
                align=align,
            )
        return self._record_mapping(start, stop, prot, owns_memory=False, below=below)

    def let_go(self, mapping: Mapping[A]) -> None:
        """Forget the mapping and free its chunk, if it has one; see `Domain.release`."""
        if not self.held(mapping):
            self._forget(mapping)  # which says that it is not live
        # What may refuse comes first: all is as before then. No device is kept from anything here.
        if mapping.owns_memory:
            self.region.free(mapping.pieces[0].start)
            self._owned_chunks.remove(mapping.pieces[0].start.value)
        if mapping.below is not None and mapping.below.domain.held(mapping.below):
            mapping.below.domain.let_go(mapping.below)
        start, stop = self._forget(mapping)
        self._record.clear(start, stop)
        self._note_unused(start, stop - start)
        self.stats.unmaps += 1

    def iova_to_phys(self, iova: BusAddr) -> A | None:
        """From the record, though a device reaches more; see `Domain.iova_to_phys`."""
        self._require_input(iova)
        with self.lock:
            held = self._record.at(iova.value)
        return None if held is None else self._at(iova.value - self.delta)

    @locked
    def mapped(self) -> list[tuple[int, int]]:
        """From the record; see `Domain.mapped`."""
        return joined(self._record)

    @locked
    def check(self) -> None:
        """As `Domain.check`; the record lies in the window, and what owns memory is a chunk of the region."""
        super().check()
        self._record.check()
        for start, stop in self._record:
            assert self.window.start.value <= start - self.delta, f"[{start:#x}, {stop:#x}) is below the window"
            assert stop - self.delta <= self.window.stop, f"[{start:#x}, {stop:#x}) is above the window"
        owners = {each.pieces[0].start.value for each in self._mappings.values() if each.owns_memory}
        assert self._owned_chunks == owners, f"chunks at {self._owned_chunks} were allocated, mappings have {owners}"
        for mapping in self._mappings.values():
            if mapping.owns_memory:
                chunk = self.region.chunk_at(mapping.pieces[0].start)
                assert chunk is not None, f"{mapping!r} has no chunk"
                assert chunk.range == mapping.pieces[0], f"{mapping!r} is not {chunk!r}"

    def _require_below(self, start: int, size: int, highest: int) -> None:
        if start + size - 1 + self.delta > highest:
            raise NoMemory(
                f"the region's {size} bytes at bus {start + self.delta:#x} are not all at or below {highest:#x}",
                size=size,
                limit=highest,
            )

    def _record_mapping(
        self, start: int, stop: int, prot: Prot, *, owns_memory: bool, below: Mapping[Any] | None = None
    ) -> Mapping[A]:
        low, high = start + self.delta, stop + self.delta
        pieces = self._pieces([(start, stop)])
        mapping = Mapping(self._bus_range(low, stop - start), pieces, prot, self, owns_memory, below)
        self._record.add(low, high)
        try:
            self._owned.add(low, high)
        except AddressInUse:
            self._record.remove(low)
            raise
        self._remember(mapping, low)
        self._note_uses(low, [(start, stop)])
        self.stats.maps += 1
        self.stats.map_bytes += stop - start
        return mapping

    def _map(self, iova: int, paddr: int, size: int, _prot: Prot, *, owned: bool) -> None:
        del owned  # the record is one, whoever owns the address
        if iova - paddr != self.delta:
            raise NotSupported(
                f"bus {iova:#x} leads to {iova - self.delta:#x} through delta {self.delta:#x}, never to {paddr:#x}",
                iova=iova,
                paddr=paddr,
                delta=self.delta,
            )
        if paddr < self.window.start.value or paddr + size > self.window.stop:
            raise OutOfRange(f"{size:#x} bytes at bus {iova:#x} are not inside the window {self.window!r}", iova=iova)
        self._record.add(iova, iova + size)
        self.stats.maps += 1
        self.stats.map_bytes += size

    def _unmap(self, iova: int, size: int) -> int:
        done = sum(stop - start for start, stop in self._record.cut(iova, iova + size))
        self._note_unused(iova, done)
        self.stats.unmaps += bool(done)
        return done

    def _before_unmap(self, iova: int, size: int) -> int:
        stop = iova
        while stop < iova + size and (held := self._record.at(stop)) is not None:
            stop = min(iova + size, held[1])
        super()._before_unmap(iova, stop - iova)
        return size

    def _require_free(self, first: int, last: int, *, direct: bool) -> None:
        del direct  # what is mapped by hand is no chunk
        for start, stop in self._chunks(first, last):
            taken = next(
                (chunk for chunk in self.region.chunks() if chunk.start.value < stop and start < chunk.stop), None
            )
            if taken is not None:
                raise AddressInUse(
                    f"{first:#x} to {last:#x} can't be reserved in the domain of {self.input_space.name!r}: its region "
                    f"has given out {taken!r}",
                    low=first,
                    high=last,
                )

    def _withhold(self, first: int, last: int, *, direct: bool) -> None:
        del direct
        for start, stop in list(self._chunks(first, last)):
            self.region.reserve(self._at(start), stop - start)
            self._withheld.add(start, stop)

    def _chunks(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        # Only what the region could give out has to be kept from it, and only once.
        low, high = max(first - self.delta, self.region.start.value), min(last + 1 - self.delta, self.region.stop)
        page = self.region.page_size
        return self._withheld.gaps(low & -page, align_up(high, page)) if low < high else iter(())

    def _destroy(self) -> None:
        if len(self._record):
            raise Busy(
                f"the domain of {self.input_space.name!r} has {len(self._record)} ranges mapped by hand",
                ranges=len(self._record),
            )
        self._give_withheld()

    def _give_withheld(self) -> None:
        for start, _ in list(self._withheld):
            self.region.free(self._at(start))
            self._withheld.remove(start)


def _whole(region: Region[Any]) -> AddressRange[Any]:
    return (PhysRange if isinstance(region.start, PhysAddr) else BusRange)(region.start, region.size)


def _require_space(space: Space, below: Domain[Any] | None) -> None:
    if isinstance(space, BusSpace) if below is None else space is not below.input_space:
        whose = "no domain" if below is None else f"not the domain of {below.input_space.name!r}"
        raise SpaceMismatch(f"a region of bus addresses of {space.name!r}, and {whose} is below to map them")
