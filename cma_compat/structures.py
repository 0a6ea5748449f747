"""The structures of 2010 by their own names, and what the calls need to know of a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex

import attrs

from swiommu.address import as_integer

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.address import BusAddr, BusSpace, PhysRange, PhysSpace, Space
    from swiommu.iommu import LinearDomain, PagedDomain
    from swiommu.region import AllocatorFactory, Chunk, Region

__all__ = ["Backend", "CmaInfo", "Device", "cma_allocator", "cma_chunk", "cma_device", "cma_region"]


def _number(value: SupportsIndex) -> int:
    return as_integer(value, "a number of bytes")


class Device(Protocol):
    """What an allocation needs of a device: its ``name``, for the map.

    If it has them, its ``domain`` or else its ``bus`` say which bus addresses it drives and where they lead, and
    ``dma_mask`` how far. Without either it sees memory as it is. `swiommu.device.BusDevice` is one.
    """

    @property
    def name(self) -> str | None:
        """What the map knows it by."""


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


@attrs.define(eq=False)
class cma_device:  # noqa: N801 - beside the kernel's names
    """A device that is no more than what the calls ask for; see `Device`.

    >>> cma_device("camera").domain is None
    True
    """

    name: str | None = None
    domain: Any = None
    bus: Any = None
    dma_mask: int = attrs.field(default=(1 << 64) - 1, converter=_number)


@attrs.define(eq=False)
class cma_chunk:  # noqa: N801 - the kernel's name
    """``struct cma_chunk``: what a plug-in's ``alloc`` answers, in bytes; the core sets ``region``.

    >>> cma_chunk(0x4000_0000, 4096).region is None
    True
    """

    start: int
    size: int
    region: cma_region | None = None


@attrs.define(eq=False)
class cma_allocator:  # noqa: N801 - the kernel's name
    """``struct cma_allocator``: two operations that must be there, and two that may; or a ``factory`` instead.

    ``alloc(region, size, alignment)`` answers a `cma_chunk` or None, ``free(chunk)`` takes it back; ``init(region)``
    answers None, 0 or a negative errno, ``cleanup(region)`` nothing. What they may rely on: the size is whole pages,
    the alignment a power of two of at least a page, calls never overlap, start and size of a region are filled in
    before ``init``, and at ``cleanup`` no chunk is left. They may sleep, but not call back into their context. Any
    object with these attributes will do. ``factory`` makes an allocator of `swiommu.region` for a range.

    >>> from swiommu.region import BestFit
    >>> cma_allocator("bf", factory=BestFit).alloc is None
    True
    """

    name: str | None = None
    alloc: Callable[[cma_region, int, int], cma_chunk | None] | None = None
    free: Callable[[cma_chunk], object] | None = None
    init: Callable[[cma_region], int | None] | None = None
    cleanup: Callable[[cma_region], object] | None = None
    factory: AllocatorFactory | None = None


@attrs.define(eq=False)
class cma_region:  # noqa: N801 - the kernel's name
    """``struct cma_region``: fill in ``start`` and ``size`` (bytes), and maybe the names, then register it.

    Without a ``name`` the region is private; without an ``alloc_name`` the default allocator serves it; ``alloc`` is
    the allocator attached, or one to attach at once. ``alignment`` (bytes) is for early regions only. ``within``: the
    memory that the region is a part of, or the domain whose bus addresses it is made of, paged (with memory anywhere
    behind them) or linear (with what is behind its window), or a `Backend` that knows better; by default the context's
    memory. ``copy_name`` has no effect: texts never change here.

    ``reserved`` and ``registered`` say how far an early region has come. ``used`` does not mean what it says: it is
    set when attaching an allocator failed, and stops further attempts. ``private_data`` is the allocator's.

    >>> cma_region(0x4000_0000, 1 << 20, name="camera").registered
    False
    """

    start: int = attrs.field(converter=_number)
    size: int = attrs.field(converter=_number)
    name: str | None = None
    alloc_name: str | None = None
    alignment: int = attrs.field(default=0, kw_only=True, converter=_number)
    alloc: Any = attrs.field(default=None, kw_only=True)
    within: PhysSpace | PagedDomain[Any] | LinearDomain[Any] | Backend | None = attrs.field(default=None, kw_only=True)
    copy_name: bool = attrs.field(default=False, kw_only=True)
    private_data: Any = attrs.field(default=None, init=False, repr=False)
    reserved: bool = attrs.field(default=False, init=False)
    registered: bool = attrs.field(default=False, init=False)
    used: bool = attrs.field(default=False, init=False)
    served_by: Region[Any] | None = attrs.field(default=None, init=False, repr=False)
    backend: Backend | None = attrs.field(default=None, init=False, repr=False)

    @property
    def free_space(self) -> int:
        """Bytes not in chunks; all of them until an allocator is attached."""
        return self.size if self.served_by is None else self.served_by.free_space

    @property
    def users(self) -> int:
        """Number of live chunks."""
        return 0 if self.served_by is None else self.served_by.users


@attrs.define
class CmaInfo:
    """``struct cma_info``: bounds (the upper one is one past the end), sums in bytes, and how many regions.

    The bounds are in the regions' own spaces. A class of the kernel's name would hide the call of the same name.

    >>> CmaInfo()
    CmaInfo(lower_bound=0, upper_bound=0, total_size=0, free_size=0, count=0)
    """

    lower_bound: int = 0
    upper_bound: int = 0
    total_size: int = 0
    free_size: int = 0
    count: int = 0
