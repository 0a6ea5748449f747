"""How a chunk becomes memory, and visible to a device: what the choice of a region and a place leaves open.

The core chooses a region and takes a chunk of it; then it asks the region's `Backend` to *place* the chunk. A region
in a memory needs nothing behind its chunks (`MemoryBackend`). A region made of a domain's bus addresses is contiguous
there: the domain puts memory at the place of each chunk (`DomainBackend`).

Either way a device may see something else again: what its bus adds, or what a domain of its own maps. `Views` makes
the chunk visible there when it is asked for, once for each bus space, however many devices share it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from cma_compat.views import Views
from swiommu.address import BusAddr, BusRange, PhysRange
from swiommu.errors import Busy, InvalidArgument
from swiommu.locking import run_all

if TYPE_CHECKING:
    from cma_compat.structures import Device
    from swiommu.address import BusSpace, PhysSpace
    from swiommu.iommu import BusyPolicy, Mapping, ReverseMap
    from swiommu.region import Chunk

__all__ = ["DomainBackend", "MemoryBackend"]


class MemoryBackend:
    """For regions of a memory: a chunk is what it is, and calls without a device answer its place in ``own_space``.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.region import Region
    >>> ram, bus = PhysSpace("ram"), BusSpace("cma")
    >>> chunk = Region(ram.at(0x4000_0000), 1 << 20).alloc(5000)
    >>> backend = MemoryBackend(ram, bus)
    >>> backend.place(chunk, None, 4096), backend.memory(chunk)
    (BusAddr(cma:0x40000000), (PhysRange(ram:0x40000000+0x2000),))
    """

    def __init__(self, space: PhysSpace, own_space: BusSpace) -> None:
        self.space = space
        self.own_space = own_space
        self._views: dict[Chunk[Any], Views] = {}

    def admit(self, start: int, size: int, page_size: int) -> None:
        """Nothing to keep: reserving memory is what early regions are for."""

    def dismiss(self, start: int, size: int) -> None:
        """Nothing was kept."""

    def place(self, chunk: Chunk[Any], device: Device | None, align: int) -> BusAddr:
        """See `Backend.place`."""
        views = self._views.get(chunk)
        if views is None:
            views = Views(self.own_space.at(chunk.start.value), chunk.size, self.memory(chunk))
        address = views.seen_by(device, align)
        self._views[chunk] = views
        return address

    def promises(self, chunk_space_start: int, device: Device | None) -> int:
        """See `Backend.promises`."""
        return Views.promised(self.own_space.at(chunk_space_start), device)

    def memory(self, chunk: Chunk[Any]) -> tuple[PhysRange, ...]:
        """See `Backend.memory`."""
        return (PhysRange(self.space.at(chunk.start.value), chunk.size),)

    def require_free(self, chunk: Chunk[Any]) -> None:
        """See `Backend.require_free`."""
        self._views[chunk].require_free()

    def withdraw(self, chunk: Chunk[Any]) -> None:
        """See `Backend.withdraw`."""
        self._views.pop(chunk).withdraw()


class HoldingDomain(Protocol):
    """A domain that keeps bus addresses for a caller, who has memory put there: a paged or a linear one."""

    input_space: BusSpace
    granule: int
    uses: ReverseMap

    @property
    def in_use(self) -> BusyPolicy:
        """What happens when something is to be unmapped that domains above use."""

    def hold(self, where: BusRange) -> None:
        """Keep bus addresses."""

    def drop(self, where: BusRange) -> None:
        """Give them back."""

    def alloc_at(self, where: BusRange) -> Mapping[Any]:
        """Put memory there."""

    def release(self, mapping: Mapping[Any]) -> None:
        """Unmap it, and give the memory back."""

    def flush(self) -> None:
        """Let what waits for a flush go now."""


class DomainBackend:
    """For regions of ``domain``'s bus addresses: the region chooses the place, the domain puts its memory there.

    Over a page table that is memory from wherever the domain takes its own; over a window, what is behind the place. A
    device attached to the domain sees the chunk where it is; others see it through what they have. Addresses stay with
    the region from `admit` to `dismiss`; over a page table contents do not, as memory comes back with each chunk's end.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> from swiommu.region import Region
    >>> ram, bus = PhysSpace("ram"), BusSpace("camera")
    >>> frames = Frames(ram.at(0), 1 << 20)
    >>> backend = DomainBackend(PagedDomain(bus, frames=frames, output_space=ram))
    >>> frames.occupy(2, 1)
    >>> backend.admit(0x8000_0000, 1 << 20, 4096)
    >>> chunk = Region(bus.at(0x8000_0000), 1 << 20).alloc(0x4000)
    >>> backend.place(chunk, None, 4096), backend.memory(chunk)
    (BusAddr(camera:0x80000000), (PhysRange(ram:0x1000+0x1000), PhysRange(ram:0x3000+0x3000)))
    """

    def __init__(self, domain: HoldingDomain) -> None:
        if not callable(getattr(domain, "hold", None)):
            raise InvalidArgument(f"{domain!r} can't keep bus addresses for a region: it gives out none")
        self.domain = domain
        self.space = self.own_space = domain.input_space
        self._placed: dict[Chunk[Any], tuple[Views, Mapping[Any]]] = {}

    def admit(self, start: int, size: int, page_size: int) -> None:
        """Hold the addresses; `InvalidArgument` for pages or borders that are not whole granules of the domain."""
        granule = self.domain.granule
        if page_size % granule:
            raise InvalidArgument(f"chunks of whole pages of {page_size} bytes in a domain whose granule is {granule}")
        self.domain.hold(BusRange(self.own_space.at(start), size))

    def dismiss(self, start: int, size: int) -> None:
        """See `Backend.dismiss`."""
        self.domain.drop(BusRange(self.own_space.at(start), size))

    def place(self, chunk: Chunk[Any], device: Device | None, align: int) -> BusAddr:
        """See `Backend.place`."""
        placed = self._placed.get(chunk)
        if placed is not None:
            return placed[0].seen_by(device, align)
        mapping = self.domain.alloc_at(BusRange(chunk.start, chunk.size))
        try:
            domain: Any = self.domain
            views = Views(chunk.start, chunk.size, mapping.memory, domain)
            address = views.seen_by(device, align)
        except BaseException:
            self._release(mapping)
            raise
        self._placed[chunk] = views, mapping
        return address

    def promises(self, chunk_space_start: int, device: Device | None) -> int:
        """See `Backend.promises`."""
        return Views.promised(self.own_space.at(chunk_space_start), device)

    def memory(self, chunk: Chunk[Any]) -> tuple[PhysRange, ...]:
        """See `Backend.memory`."""
        return self._placed[chunk][1].memory

    def require_free(self, chunk: Chunk[Any]) -> None:
        """See `Backend.require_free`; our own views are no obstacle."""
        views, _ = self._placed[chunk]
        views.require_free()
        start = chunk.start.value
        if self.domain.in_use != "refuse":
            return
        for use in self.domain.uses.over(start, start + chunk.size):
            if not views.owns(use.user, use.iova):
                raise Busy(f"{use}: they can't be unmapped")

    def withdraw(self, chunk: Chunk[Any]) -> None:
        """See `Backend.withdraw`."""
        views, mapping = self._placed.pop(chunk)
        run_all([views.withdraw, partial(self._release, mapping)])

    def _release(self, mapping: Mapping[Any]) -> None:
        # The chunk's place may be handed out again at once: no device may go on seeing the old memory there.
        run_all([partial(self.domain.release, mapping), self.domain.flush])
