"""The calls of 2010 by the kernel's names and with the kernel's results.

Addresses are bus addresses, which may be errors (see `cma_compat.values`); other calls answer 0 or a negative errno.
Behind each one stands a method of `ContiguousMemory` that raises instead, and says why.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cma_compat.core import ContiguousMemory
from cma_compat.structures import CmaInfo
from cma_compat.values import code_of, error_value
from swiommu.errors import InvalidArgument, SwiommuError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cma_compat.structures import Device, cma_region
    from swiommu.address import BusAddr

__all__ = ["CmaContext"]

_log = logging.getLogger("cma_compat")


class CmaContext(ContiguousMemory):
    """`ContiguousMemory`, and every call of RFC v4 by its own name.

    Errors come as addresses of `space`, whatever the device's own bus is, so that one width tells them all.

    >>> cma = CmaContext()
    >>> from cma_compat import cma_region
    >>> camera = cma_region(0x4000_0000, 1 << 20)
    >>> cma.cma_region_register(camera)
    0
    >>> buffer = cma.cma_alloc_from_region(camera, 5000, 0x10000)
    >>> buffer, camera.free_space, camera.users
    (BusAddr(cma:0x40000000), 1040384, 1)
    >>> cma.cma_free(buffer), cma.cma_free(buffer), cma.cma_alloc_from_region(camera, 0)
    (0, -2, BusAddr(cma:0xffffffffffffffea))
    """

    # -- platform code

    def cma_set_defaults(self, regions: Sequence[cma_region] | None, map: str | None) -> int:  # noqa: A002 - the kernel's name
        """0 or -EINVAL; see `set_defaults`."""
        return _code(self.set_defaults, regions, map)

    def cma_early_region_register(self, reg: cma_region) -> int:
        """0 or -EINVAL; see `register_early`."""
        return _code(self.register_early, reg)

    def cma_early_region_reserve(self, reg: cma_region) -> int:
        """0, -EINVAL, -ENOMEM or -EOPNOTSUPP; see `EarlyRegions.reserve`."""
        return _code(self.reserve_early, reg)

    def cma_early_regions_reserve(self, reserve: Callable[[cma_region], Any] | None = None) -> None:
        """Never fails; ``reserve(reg)`` answers a negative errno for a failure. See `EarlyRegions.reserve_all`."""
        self.reserve_all_early(self.cma_early_region_reserve if reserve is None else reserve)

    def cma_init(self) -> int:
        """0: what can't be registered is logged; see `init`."""
        return _code(self.init)

    # -- regions and allocators

    def cma_region_register(self, reg: cma_region | None) -> int:
        """0, -EINVAL, -EADDRINUSE, or what the allocator's init answered; see `register_region`."""
        return _code(self.register_region, reg)

    def cma_region_unregister(self, reg: cma_region | None) -> int:
        """0, -EBUSY or -EINVAL; see `unregister_region`."""
        return _code(self.unregister_region, reg)

    def cma_allocator_register(self, alloc: Any) -> int:
        """0, or -EINVAL for an allocator that lacks ``alloc`` or ``free``; see `register_allocator`."""
        return _code(self.register_allocator, alloc)

    # -- drivers

    def cma_alloc(self, dev: Device | None, type: str | None, size: int, alignment: int = 0) -> BusAddr:  # noqa: A002 - the kernel's name
        """A bus address, or EINVAL, ENOENT, ENOMEM; see `alloc`."""
        return self._address(self.alloc, dev, type, size, alignment)

    def cma_alloc_from(self, regions: str | Sequence[str] | None, size: int, alignment: int = 0) -> BusAddr:
        """A bus address of the region's own bus, or EINVAL, ENOMEM; see `alloc_from`."""
        return self._address(self.alloc_from, regions, size, alignment)

    def cma_alloc_from_region(self, reg: cma_region | None, size: int, alignment: int = 0) -> BusAddr:
        """A bus address of the region's own bus, or EINVAL, ENOMEM, EADDRINUSE; see `alloc_from_region`."""
        return self._address(self.alloc_from_region, reg, size, alignment)

    def cma_free(self, addr: BusAddr | int) -> int:
        """0, or -ENOENT if no chunk starts there; see `free` for what else may be wrong."""
        code = _code(self.free, addr)
        if code:
            _log.warning("%r was not freed: error %d", addr, code)
        return code

    def cma_info(self, info: CmaInfo | None, dev: Device | None, type: str | None = None) -> int:  # noqa: A002 - the kernel's name
        """Fill ``info`` in: 0, or -EINVAL and it is untouched; the map's -EINVAL or -ENOENT, and all is 0."""
        if info is None or dev is None:
            return -InvalidArgument.errno
        return self._fill(info, self.info, dev, type)

    def cma_info_about(self, info: CmaInfo | None, regions: str | Sequence[str] | None) -> int:
        """Fill ``info`` in: 0, or -EINVAL; without regions all of it is 0 then."""
        if info is None:
            return -InvalidArgument.errno
        return self._fill(info, self.info_about, regions)

    def _fill(self, info: CmaInfo, ask: Callable[..., CmaInfo], *args: Any) -> int:
        try:
            found, code = ask(*args), 0
        except SwiommuError as error:
            found, code = CmaInfo(), -code_of(error)
        info.lower_bound, info.upper_bound = found.lower_bound, found.upper_bound
        info.total_size, info.free_size, info.count = found.total_size, found.free_size, found.count
        return code

    def _address(self, call: Callable[..., BusAddr], *args: Any) -> BusAddr:
        try:
            return call(*args)
        except SwiommuError as error:
            return self.space.at(error_value(code_of(error), self.space.width))


def _code(call: Callable[..., None], *args: Any) -> int:
    try:
        call(*args)
    except SwiommuError as error:
        return -code_of(error)
    return 0
