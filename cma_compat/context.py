"""The region calls of the 2010 API over `swiommu.region`: registering, allocating from a region, freeing.

Results are the kernel's: 0 or a negative errno, or a bus address that may be an error (see `cma_compat.values`).
Source: RFC v4, sections 2, 3, 6, 10 and 11 of our notes.
"""

from __future__ import annotations

import errno
import logging

import attrs

from cma_compat.values import error_value
from swiommu.address import BusAddr, BusSpace
from swiommu.errors import AddressInUse, InvalidArgument, SwiommuError
from swiommu.region import Region

__all__ = ["CmaContext", "cma_region"]

_log = logging.getLogger("cma_compat")

# What 2010 called its allocators; our own names work as well. The first one is the default.
_ALLOCATORS = {"bf": "best_fit"}
_DEFAULT_ALLOCATOR = "bf"


@attrs.define(eq=False)
class cma_region:  # noqa: N801 - the kernel's name
    """``struct cma_region``: fill in ``start`` and ``size`` (bytes), and maybe the names, then register it.

    Without a ``name`` the region is private; without an ``alloc_name`` the default allocator serves it. ``used`` does
    not mean what it says: it is set when attaching the allocator failed, and stops further attempts.

    >>> cma_region(0x4000_0000, 1 << 20, name="camera").registered
    False
    """

    start: int
    size: int
    name: str | None = None
    alloc_name: str | None = None
    registered: bool = attrs.field(default=False, init=False)
    used: bool = attrs.field(default=False, init=False)
    served_by: Region[BusAddr] | None = attrs.field(default=None, init=False, repr=False)

    @property
    def free_space(self) -> int:
        """Bytes not in chunks; all of them until an allocator is attached."""
        return self.size if self.served_by is None else self.served_by.free_space

    @property
    def users(self) -> int:
        """Number of live chunks."""
        return 0 if self.served_by is None else self.served_by.users


class CmaContext:
    """One kernel's worth of contiguous memory: its regions and the chunks alive in them.

    ``width`` is that of ``dma_addr_t`` in bits, ``page_size`` in bytes.

    >>> cma = CmaContext()
    >>> camera = cma_region(0x4000_0000, 1 << 20)
    >>> cma.cma_region_register(camera)
    0
    >>> hex(cma.cma_alloc_from_region(camera, 5000, 0x10000)), camera.free_space, camera.users
    ('0x40000000', 1040384, 1)
    >>> cma.cma_free(0x4000_0000), cma.cma_free(0x4000_0000)
    (0, -2)
    """

    def __init__(self, *, width: int = 64, page_size: int = 4096) -> None:
        self.space = BusSpace("cma", width=width)
        self.page_size = page_size
        self._regions: list[cma_region] = []
        self._owners: dict[int, Region[BusAddr]] = {}

    def cma_region_register(self, reg: cma_region | None) -> int:
        """Make a region usable: 0, -EINVAL (nothing given, size 0, start + size wraps) or -EADDRINUSE (overlap).

        The allocator is attached by the first allocation that could be served. A region that is registered already
        overlaps itself and stays as it is.
        """
        if reg is None or reg.size < 1 or reg.start < 0 or reg.start + reg.size >= self.space.limit:
            return -errno.EINVAL
        if not reg.registered:
            reg.used = False
            reg.served_by = None
        if any(reg.start < other.start + other.size and other.start < reg.start + reg.size for other in self._regions):
            return -errno.EADDRINUSE
        reg.registered = True
        self._regions.append(reg)
        return 0

    def cma_region_unregister(self, reg: cma_region | None) -> int:
        """Take a region away: 0, -EBUSY while chunks are alive in it, -EINVAL if it is not registered here."""
        if reg is None or not self._holds(reg):
            return -errno.EINVAL
        if reg.users:
            return -errno.EBUSY
        self._regions.remove(reg)
        reg.registered = False
        reg.served_by = None
        return 0

    def cma_alloc_from_region(self, reg: cma_region | None, size: int, alignment: int = 0) -> int:
        """Take ``size`` bytes, rounded up to pages, at a multiple of ``alignment`` bytes (0: a page).

        Returns the bus address, or an error: EINVAL (no region, not registered, size 0, a bad alignment), ENOMEM (too
        full, too fragmented, no such allocator), EADDRINUSE (the allocator answered what is taken).
        """
        if reg is None or size < 1 or alignment < 0 or alignment & (alignment - 1) or not self._holds(reg):
            return self._error(errno.EINVAL)
        # Tested before attaching: a request that can't be served attaches nothing.
        served_by = self._attached(reg) if reg.free_space >= -(-size // self.page_size) * self.page_size else None
        if served_by is None:
            return self._error(errno.ENOMEM)
        try:
            chunk = served_by.alloc(size, alignment)
        except AddressInUse as refusal:
            _log.warning("%s", refusal)
            return self._error(errno.EADDRINUSE)
        except SwiommuError as refusal:
            _log.info("%s", refusal)
            return self._error(errno.ENOMEM)
        self._owners[chunk.start.value] = served_by
        return chunk.start.value

    def cma_free(self, addr: int) -> int:
        """Give back the chunk that starts at the bus address ``addr``, of any region: 0, or -ENOENT if none does."""
        owner = self._owners.get(addr)
        if owner is None:
            _log.warning("no chunk starts at %#x", addr)
            return -errno.ENOENT
        owner.free(self.space.at(addr))
        del self._owners[addr]
        return 0

    def _holds(self, reg: cma_region) -> bool:
        # Identity, as regions compare by it; `registered` alone would also accept another context's.
        return reg.registered and reg in self._regions

    def _attached(self, reg: cma_region) -> Region[BusAddr] | None:
        """The region's allocator at work, attached now if it never was; None if that failed once."""
        if reg.served_by is None and not reg.used:
            wanted = _DEFAULT_ALLOCATOR if reg.alloc_name is None else reg.alloc_name
            try:
                reg.served_by = self._attach(reg, _ALLOCATORS.get(wanted, wanted))
            except InvalidArgument as refusal:
                _log.warning("region %#x has no allocator: %s", reg.start, refusal)
                reg.used = True
        return reg.served_by

    def _attach(self, reg: cma_region, allocator: str) -> Region[BusAddr]:
        start = self.space.at(reg.start)
        return Region(start, reg.size, allocator=allocator, name=reg.name, page_size=self.page_size)

    def _error(self, code: int) -> int:
        return error_value(code, self.space.width)
