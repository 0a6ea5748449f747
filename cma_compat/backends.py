"""How a chunk becomes memory, and visible to a device: what the choice of a region and a place leaves open.

The core chooses a region and takes a chunk of it; then it asks the region's `Backend` to *place* the chunk. A region
in a memory needs nothing behind its chunks (`MemoryBackend`). A region made of a domain's bus addresses is contiguous
there only: its backend takes memory wherever there is some, and maps it (`ScatteredBackend`).

Either way a device may see something else again: what its bus adds, or what a domain of its own maps. `Views` makes
the chunk visible there when it is asked for, once for each bus space, however many devices share it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from cma_compat.views import Views
from swiommu.address import BusAddr, BusRange, PhysRange
from swiommu.errors import Busy, InvalidArgument
from swiommu.iommu import PagedDomain
from swiommu.locking import run_all

if TYPE_CHECKING:
    from cma_compat.structures import Device
    from swiommu.address import BusSpace, PhysSpace, Space
    from swiommu.iommu import Mapping
    from swiommu.region import Chunk

__all__ = ["Backend", "MemoryBackend", "ScatteredBackend"]


class Backend(Protocol):
    """Serves the regions of one space. Called under the context's mutex; raises `SwiommuError`, all or nothing."""

    own_space: BusSpace
    """What calls that name no device answer in."""

    @property
    def space(self) -> Space:
        """What the regions' addresses belong to."""

    def admit(self, start: int, size: int, page_size: int) -> None:
        """A region is about to be registered: keep its addresses for it, or refuse."""

    def dismiss(self, start: int, size: int) -> None:
        """It was unregistered, with no chunk left."""

    def place(self, chunk: Chunk[Any], device: Device | None, align: int) -> BusAddr:
        """Where ``device`` sees the chunk: a multiple of ``align``, the same again for each call.

        The first call puts memory behind the chunk, others add what another device needs.
        """

    def promises(self, chunk_space_start: int, device: Device | None) -> int:
        """The largest alignment, in bytes, that chunks keep on the way to ``device``."""

    def memory(self, chunk: Chunk[Any]) -> tuple[PhysRange, ...]:
        """Where the processor finds a placed chunk."""

    def require_free(self, chunk: Chunk[Any]) -> None:
        """`Busy` if `withdraw` would take away what somebody else still uses."""

    def withdraw(self, chunk: Chunk[Any]) -> None:
        """Take all of it back: from the devices first, then the memory behind it."""


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


@attrs.define
class _Placed:
    """A live chunk: its views, and the memory behind it, as frames or as a mapping of the domain below."""

    views: Views
    runs: list[tuple[int, int]]
    below: Mapping[Any] | None


class ScatteredBackend:
    """For regions of ``domain``'s bus addresses: memory from wherever the domain takes its own, at the chunk's place.

    A device attached to the domain sees the chunk where it is; others see it through what they have. Addresses stay
    with the region from `admit` to `dismiss`. Contents do not: memory comes back with each chunk's end.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.memory import Frames
    >>> from swiommu.region import Region
    >>> ram, bus = PhysSpace("ram"), BusSpace("camera", width=32)
    >>> frames = Frames(ram.at(0), 1 << 20)
    >>> backend = ScatteredBackend(PagedDomain(bus, frames=frames, output_space=ram))
    >>> frames.occupy(2, 1)
    >>> backend.admit(0x8000_0000, 1 << 20, 4096)
    >>> chunk = Region(bus.at(0x8000_0000), 1 << 20).alloc(0x4000)
    >>> backend.place(chunk, None, 4096), backend.memory(chunk)
    (BusAddr(camera:0x80000000), (PhysRange(ram:0x1000+0x1000), PhysRange(ram:0x3000+0x3000)))
    """

    def __init__(self, domain: PagedDomain[Any]) -> None:
        if not isinstance(domain, PagedDomain):
            raise InvalidArgument(f"{domain!r} can't put memory anywhere behind its bus addresses: it is not paged")
        self.domain = domain
        self.space = self.own_space = domain.input_space
        self._placed: dict[Chunk[Any], _Placed] = {}

    def admit(self, start: int, size: int, page_size: int) -> None:
        """Hold the addresses; `InvalidArgument` for pages or borders that are not whole granules of the domain."""
        granule = self.domain.granule
        if page_size % granule:
            raise InvalidArgument(
                f"chunks of whole pages of {page_size} bytes in a domain whose granule is {granule}", granule=granule
            )
        self.domain.hold(BusRange(self.own_space.at(start), size))

    def dismiss(self, start: int, size: int) -> None:
        """See `Backend.dismiss`."""
        self.domain.drop(BusRange(self.own_space.at(start), size))

    def place(self, chunk: Chunk[Any], device: Device | None, align: int) -> BusAddr:
        """See `Backend.place`."""
        placed = self._placed.get(chunk)
        if placed is not None:
            return placed.views.seen_by(device, align)
        runs, below = self._take(chunk.size)
        try:
            self._map(chunk, runs)
        except BaseException:
            self._give(runs, below)
            raise
        try:
            views = Views(chunk.start, chunk.size, self._memory(runs, below), self.domain)
            address = views.seen_by(device, align)
        except BaseException:
            run_all([partial(self._unmap, chunk.start, chunk.size), partial(self._give, runs, below)])
            raise
        self._placed[chunk] = _Placed(views, runs, below)
        return address

    def promises(self, chunk_space_start: int, device: Device | None) -> int:
        """See `Backend.promises`."""
        return Views.promised(self.own_space.at(chunk_space_start), device)

    def memory(self, chunk: Chunk[Any]) -> tuple[PhysRange, ...]:
        """See `Backend.memory`."""
        placed = self._placed[chunk]
        return self._memory(placed.runs, placed.below)

    def require_free(self, chunk: Chunk[Any]) -> None:
        """See `Backend.require_free`; our own views are no obstacle."""
        placed = self._placed[chunk]
        placed.views.require_free()
        start = chunk.start.value
        if self.domain.in_use != "refuse":
            return
        for use in self.domain.uses.over(start, start + chunk.size):
            if not placed.views.owns(use.user, use.iova):
                raise Busy(f"{use}: they can't be unmapped", use=use)

    def withdraw(self, chunk: Chunk[Any]) -> None:
        """See `Backend.withdraw`."""
        placed = self._placed.pop(chunk)
        run_all(
            [
                placed.views.withdraw,
                partial(self._unmap, chunk.start, chunk.size),
                partial(self._give, placed.runs, placed.below),
            ]
        )

    def _take(self, size: int) -> tuple[list[tuple[int, int]], Mapping[Any] | None]:
        """Memory as (start, size) in the domain's output space, and the lower domain's mapping of it."""
        domain = self.domain
        if domain.below is None:
            frames = domain.frames
            assert frames is not None, f"{domain!r} has no frames and nothing below"
            page = frames.page_size
            return [(pfn * page, count * page) for pfn, count in frames.take_largest_first(size // page)], None
        highest = (1 << domain.node.layer.output_width) - 1
        mapping = domain.below.alloc(size, domain.granule, limit=highest)
        return [(mapping.iova.start.value, size)], mapping

    def _give(self, runs: list[tuple[int, int]], below: Mapping[Any] | None) -> None:
        domain = self.domain
        if below is not None:
            below.domain.release(below)
            return
        assert domain.frames is not None, f"{domain!r} has no frames and nothing below"
        page = domain.frames.page_size
        for start, size in runs:
            domain.frames.give(start // page, size // page)

    def _map(self, chunk: Chunk[Any], runs: list[tuple[int, int]]) -> None:
        output: Any = self.domain.output_space
        at = chunk.start
        try:
            for start, size in runs:
                self.domain.map(at, output.at(start), size)
                at += size
        except BaseException:
            self._unmap(chunk.start, at - chunk.start)  # no more than that: what is in the way is somebody's
            raise

    def _unmap(self, start: BusAddr, size: int) -> None:
        at, stop, domain = start.value, start.value + size, self.domain
        raised: BaseException | None = None
        while at < stop:
            done = 0
            try:
                done = domain.unmap(BusAddr(self.own_space, at), stop - at)
            except BaseException as error:  # noqa: BLE001 - raised below, when all is unmapped
                raised = raised or error
            at += done or domain.granule
        # The chunk's place may be handed out again at once: no device may go on seeing the old memory there.
        domain.flush()
        if raised is not None:
            raise raised

    def _memory(self, runs: list[tuple[int, int]], below: Mapping[Any] | None) -> tuple[PhysRange, ...]:
        if below is not None:
            return below.domain.memory_behind(*runs[0])
        output: Any = self.domain.output_space
        return tuple(PhysRange(output.at(start), size) for start, size in runs)
