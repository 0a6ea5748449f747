"""The work behind the calls of 2010: choose the region, take a chunk, make it visible to the device.

Methods here raise `swiommu.errors`, and answer addresses, None or `CmaInfo`; `cma_compat.context` gives them the
kernel's names and results. Source: RFC v4, sections 2, 4 to 7 and 10 to 12 of our notes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cma_compat.allocators import contained, name_of
from cma_compat.device_map import lookup, region_names
from cma_compat.index import Live
from cma_compat.regions import Regions
from cma_compat.structures import CmaInfo
from swiommu.address import as_integers
from swiommu.errors import AddressInUse, InvalidArgument, NoMemory, SwiommuError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cma_compat.structures import Device, cma_region
    from swiommu.address import BusAddr, PhysRange

__all__ = ["ContiguousMemory"]

_log = logging.getLogger("cma_compat")


class ContiguousMemory(Regions):
    """One kernel's worth of contiguous memory: regions, allocators, a map, and the chunks alive.

    ``width`` is that of ``dma_addr_t`` in bits, ``page_size`` in bytes. ``memory`` is what regions lie in that name no
    other place, by default one of that width; `space` is the bus space that answers come in when nothing stands
    between a device and the memory. ``allocators`` are registered from the start: best fit, as "bf". ``bootmem`` and
    ``memblock`` are what the platform reserves early regions with. ``type_wildcards``: see `cma_compat.device_map`.

    >>> from cma_compat import cma_device, cma_region
    >>> cma = ContiguousMemory()
    >>> cma.register_region(cma_region(0x4000_0000, 1 << 20, name="pool"))
    >>> cma.set_map("cam*=pool")
    >>> buffer = cma.alloc(cma_device("camera"), None, 5000, 0x10000); buffer
    BusAddr(cma:0x40000000)
    >>> cma.info(cma_device("camera")).free_size
    1040384
    >>> cma.free(buffer)
    >>> cma.alloc(cma_device("video"), None, 5000)
    Traceback (most recent call last):
    ...
    swiommu.errors.NotFound: no rule of the map fits device 'video' and type 'common'
    """

    # -- allocating and freeing

    def alloc(self, dev: Device | None, type_: str | None, size: int, alignment: int = 0) -> BusAddr:
        """``size`` bytes for a device, in the first region that can among those that the map has for it.

        The answer is a bus address of what the device sees, a multiple of ``alignment`` bytes (0: a page).
        `InvalidArgument` (no device, or one without a name, size 0, a bad alignment), `NotFound` (no map, or none of
        its rules fits), `NoMemory` (whatever it was that kept each region from it).
        """
        if dev is None:
            raise InvalidArgument("no device to allocate for")
        size, alignment = _request(size, alignment)
        with self._mutex:
            return self._from_list(region_names(self._listed(dev, type_)), size, alignment, dev)

    def alloc_from(
        self, regions: str | Sequence[str] | None, size: int, alignment: int = 0, dev: Device | None = None
    ) -> BusAddr:
        """As `alloc`, from the regions of a list: names, or the text of the map's grammar."""
        if regions is None:
            raise InvalidArgument("no regions to allocate from")
        size, alignment = _request(size, alignment)
        with self._mutex:
            return self._from_list(_names(regions), size, alignment, dev)

    def alloc_from_region(
        self, reg: cma_region | None, size: int, alignment: int = 0, dev: Device | None = None
    ) -> BusAddr:
        """As `alloc`, from one region, which may be private. `AddressInUse`: the allocator answered what is taken."""
        if reg is None:
            raise InvalidArgument("no region to allocate from")
        size, alignment = _request(size, alignment)
        with self._mutex:
            if not self._holds(reg):
                raise InvalidArgument(f"the region at {reg.start:#x} is not registered here", start=reg.start)
            return self._from_region(reg, size, alignment, dev)

    def free(self, addr: BusAddr | int) -> None:
        """Give back the chunk that starts at a bus address, of any view of it; `NotFound` if none does.

        A plain number will do if it means one chunk only, else `InvalidArgument`. `Busy` while somebody has mapped
        something on top of it, and what a plug-in raised that would not take it back: it is alive then as before.
        """
        with self._mutex:
            live = self._index.find(addr)
            backend, served_by = live.backend, live.reg.served_by
            assert served_by is not None, f"{live} in a region without an allocator"
            backend.require_free(live.chunk)
            # The allocator is foreign code and may refuse; nobody can get the place before we let go of the mutex.
            contained(f"the allocator {name_of(live.reg.alloc)!r} in free", served_by.free, live.chunk)
            self._index.remove(live)
            backend.withdraw(live.chunk)

    # -- what is known of an address

    def bus_address(self, addr: BusAddr | int, dev: Device | None) -> BusAddr:
        """Where another device sees the chunk that starts at ``addr``, made visible to it now if need be.

        No device: the chunk's own address. Raises what keeps the device from it, `NotSupported` if the alignment that
        was asked for does not hold there; `NotFound` and `InvalidArgument` as `free`. `free` ends all views.
        """
        with self._mutex:
            live = self._index.find(addr)
            address = live.backend.place(live.chunk, dev, live.align)
            self._index.add(live, address)
            return address

    def memory_behind(self, addr: BusAddr | int) -> tuple[PhysRange, ...]:
        """Where the processor finds the chunk that starts at ``addr``, in order."""
        with self._mutex:
            live = self._index.find(addr)
            return live.backend.memory(live.chunk)

    def promised_alignment(self, reg: cma_region, dev: Device | None) -> int:
        """The largest alignment that chunks of a region can have for a device, in bytes; 0: it does not reach it."""
        with self._mutex:
            return self._backend(reg).promises(reg.start, dev)

    def info(self, dev: Device | None, type_: str | None = None) -> CmaInfo:
        """About the regions that the map has for a device; raises as `alloc`."""
        if dev is None:
            raise InvalidArgument("no device to tell about")
        with self._mutex:
            return self._about(region_names(self._listed(dev, type_)))

    def info_about(self, regions: str | Sequence[str] | None) -> CmaInfo:
        """About the regions of a list that exist, a repeated one twice; private ones are never seen.

        If none exists the lower bound is the highest address, the rest 0. `InvalidArgument` for no list.
        """
        if regions is None:
            raise InvalidArgument("no regions to tell about")
        with self._mutex:
            return self._about(_names(regions))

    def check(self) -> None:
        """Regions are sound and apart, every chunk is indexed once for each view; `AssertionError` with a dump."""
        with self._mutex:
            self._index.check()
            chunks = {id(live.chunk) for live in self._index.all()}
            held: set[int] = set()
            for reg in self._regions:
                assert reg.registered, f"{reg} is in the list"
                if reg.served_by is not None:
                    reg.served_by.check()
                    held |= {id(chunk) for chunk in reg.served_by.chunks()}
            assert chunks == held, f"{len(chunks)} chunks are indexed, {len(held)} alive"

    # -- under the mutex

    def _listed(self, dev: Device, type_: str | None) -> str:
        return lookup(self._map, dev.name, type_, type_wildcards=self._type_wildcards)

    def _named(self, name: str) -> cma_region | None:
        return next((reg for reg in self._regions if reg.name is not None and reg.name == name), None)

    def _from_list(self, names: Sequence[str], size: int, alignment: int, dev: Device | None) -> BusAddr:
        said = []
        for name in names:
            reg = self._named(name)
            if reg is None:
                said.append(f"{name!r} is no region")
                continue
            try:
                return self._from_region(reg, size, alignment, dev)
            except SwiommuError as refusal:
                said.append(f"{name!r}: {refusal}")
        why = "; ".join(said) or "no region is named"
        raise NoMemory(f"no region can give {size} bytes aligned to {alignment}: {why}", size=size, align=alignment)

    def _from_region(self, reg: cma_region, size: int, alignment: int, dev: Device | None) -> BusAddr:
        try:
            return self._placed(reg, size, max(alignment, self.page_size), dev)
        except AddressInUse as refusal:
            _log.warning("%s", refusal)
            raise
        except SwiommuError as refusal:
            _log.info("%s", refusal)
            raise NoMemory(str(refusal), size=size, align=alignment) from refusal

    def _placed(self, reg: cma_region, size: int, align: int, dev: Device | None) -> BusAddr:
        # Tested before attaching: a request that can't be served attaches nothing.
        if reg.free_space < -(-size // self.page_size) * self.page_size:
            raise NoMemory(f"{size} bytes were asked for and {reg.free_space} are free", size=size)
        if reg.served_by is None and not reg.used:
            self._try_to_attach(reg, lambda: self._allocators.wanted(reg.alloc_name))
        if reg.served_by is None:
            raise NoMemory(f"the region at {reg.start:#x} has no allocator", start=reg.start)
        said = f"the allocator {name_of(reg.alloc)!r}"
        chunk = contained(f"{said} in alloc", reg.served_by.alloc, size, align)
        backend = self._backend(reg)
        try:
            address = backend.place(chunk, dev, align)
            try:
                self._index.add(Live(reg, chunk, align, backend), address)
            except BaseException:
                backend.withdraw(chunk)
                raise
        except BaseException:
            contained(f"{said} in free", reg.served_by.free, chunk)
            raise
        return address

    def _about(self, names: Sequence[str]) -> CmaInfo:
        found = [reg for reg in map(self._named, names) if reg is not None]
        return CmaInfo(
            lower_bound=min((reg.start for reg in found), default=self.space.limit - 1),
            upper_bound=max((reg.start + reg.size for reg in found), default=0),
            total_size=sum(reg.size for reg in found),
            free_size=sum(reg.free_space for reg in found),
            count=len(found),
        )


def _request(size: int, alignment: int) -> tuple[int, int]:
    size, alignment = as_integers(size=size, alignment=alignment)
    if size < 1 or alignment < 0 or alignment & (alignment - 1):
        raise InvalidArgument(f"{size} bytes aligned to {alignment} can't be allocated", size=size, align=alignment)
    return size, alignment


def _names(regions: str | Sequence[str]) -> Sequence[str]:
    return region_names(regions) if isinstance(regions, str) else regions
