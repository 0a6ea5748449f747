"""Where devices see one chunk: at its own place, where their bus shows it, or where their domain maps it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from swiommu.address import BusRange
from swiommu.errors import NotSupported, OutOfRange
from swiommu.iommu.mapping import require_releasable
from swiommu.locking import run_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cma_compat.structures import Device
    from swiommu.address import BusAddr, BusSpace, PhysRange
    from swiommu.iommu import Domain, Mapping

__all__ = ["Views"]


@attrs.frozen
class _View:
    """An address, and what was mapped for it, the lowest first."""

    address: BusAddr
    mappings: tuple[Mapping[Any], ...] = ()


class Views:
    """The views of one chunk: ``own`` address, ``size`` bytes, the ``memory`` behind it.

    ``within`` is the domain whose bus addresses the chunk is made of, if it is. A device whose domain is that one sees
    it at its own address; one whose domain stands on it, through what those above map; any other, through a mapping
    of the memory. Two devices on one domain or bus share a view.

    >>> from swiommu.address import BusSpace, PhysRange, PhysSpace
    >>> from cma_compat.structures import cma_device
    >>> ram, bus = PhysSpace("ram"), BusSpace("cma")
    >>> views = Views(bus.at(0x4000_0000), 4096, (PhysRange(ram.at(0x4000_0000), 4096),))
    >>> views.seen_by(cma_device("camera"), 4096)
    BusAddr(cma:0x40000000)
    """

    def __init__(
        self, own: BusAddr, size: int, memory: tuple[PhysRange, ...], within: Domain[Any] | None = None
    ) -> None:
        self._own = own
        self._size = size
        self._memory = memory
        self._within = within
        self._views: dict[BusSpace, _View] = {}

    def seen_by(self, device: Device | None, align: int) -> BusAddr:
        """Where ``device`` sees the chunk, made visible now if need be; None: the chunk's own address.

        `OutOfRange` if that is beyond its mask or its bus, `NotSupported` if ``align`` can't be kept, and what
        `Domain.bind` raises; nothing is mapped then.
        """
        space = bus_of(device, self._own.space)
        view = self._views.get(space)
        if view is not None:
            self._require_usable(view.address, device, align)
            return view.address
        view = self._made(device, align)
        try:
            self._require_usable(view.address, device, align)
        except BaseException:
            _release(view)
            raise
        self._views[space] = view
        return view.address

    @staticmethod
    def promised(own: BusAddr, device: Device | None) -> int:
        """The largest power of two whose multiples stay multiples of it on the way to ``device``, in bytes.

        A domain that translates chooses; a window adds the same to every address, and keeps what that is a multiple
        of. 0 where the bus does not reach.
        """
        domain, bus = _path(device)
        everything = own.space.limit
        if domain is not None:
            delta = 0 if domain.enforces else domain.delta
        elif bus is not None:
            shown = bus.phys_to_dma(own.value)
            if shown is None:
                return 0
            delta = shown - own.value
        else:
            delta = 0
        return delta & -delta if delta else everything

    def owns(self, place: object, iova: int | None) -> bool:
        """Whether that use of the chunk, by the domain at ``place`` in its stack, is one of our mappings."""
        return iova is not None and any(
            mapping.domain.place is place and mapping.iova.start.value <= iova < mapping.iova.stop
            for mapping in self._mappings()
        )

    def require_free(self) -> None:
        """`Busy` if somebody has mapped something on top of a view."""
        for view in self._views.values():
            above = None
            for mapping in reversed(view.mappings):
                require_releasable(mapping, above)
                owned = mapping.domain.held(mapping)
                above = None if owned is None else (mapping.domain.place, *owned)

    def withdraw(self) -> None:
        """Unmap all of it, from the top down."""
        views, self._views = self._views, {}
        run_all([partial(_release, view) for view in views.values()])

    def _mappings(self) -> Iterator[Mapping[Any]]:
        return (mapping for view in self._views.values() for mapping in view.mappings)

    def _made(self, device: Device | None, align: int) -> _View:
        domain, bus = _path(device)
        if domain is not None:
            return self._mapped(domain, align)
        if bus is None:
            return _View(self._own)
        if self._memory[0].start.space is not bus.output_space:
            raise NotSupported(
                f"the bus {bus.input_space.name!r} does not lead to the memory {self._memory[0].start.space.name!r}"
            )
        if len(self._memory) > 1:
            raise NotSupported(f"{len(self._memory)} pieces of memory can't be one range of a bus without translation")
        first, last = self._memory[0].start.value, self._memory[0].stop - 1
        shown, end = bus.phys_to_dma(first), bus.phys_to_dma(last)
        if shown is None or end is None or end - shown != last - first:
            raise OutOfRange(f"the bus {bus.input_space.name!r} does not show all of {self._memory[0]!r}", start=first)
        return _View(bus.input_space.at(shown))

    def _mapped(self, domain: Domain[Any], align: int) -> _View:
        # Up from where the chunk lives, or else from the memory.
        ways: list[Domain[Any]] = []
        lower: Domain[Any] | None = domain
        while lower is not None and lower is not self._within:
            ways.append(lower)
            lower = lower.below
        if lower is None:
            mapping = domain.bind_memory(self._memory, align=align if domain.enforces else 0)
            return _View(mapping.iova.start, (mapping,))
        mappings: list[Mapping[Any]] = []
        at = self._own
        try:
            for above in reversed(ways):
                piece = BusRange(at, self._size)
                mappings.append(above.bind([piece], align=align if above.enforces else 0))
                at = mappings[-1].iova.start
        except BaseException:
            _release(_View(at, tuple(mappings)))
            raise
        return _View(at, tuple(mappings))

    def _require_usable(self, address: BusAddr, device: Device | None, align: int) -> None:
        mask = getattr(device, "dma_mask", None)
        if mask is not None and address.value + self._size - 1 > mask:
            raise OutOfRange(
                f"the device {_name(device)!r} can't drive {self._size} bytes at {address!r}: its mask is {mask:#x}",
                start=address.value,
            )
        if address.value % align:
            raise NotSupported(
                f"{address!r} is where the device {_name(device)!r} would see a chunk aligned to {align:#x}: "
                f"its window keeps no more than {self.promised(self._own, device):#x}",
                start=address.value,
                align=align,
            )


def bus_of(device: Device | None, own: BusSpace) -> BusSpace:
    """The bus space that ``device`` drives; ``own`` if it has neither a domain nor a bus."""
    domain, bus = _path(device)
    space: BusSpace = own if domain is None and bus is None else (domain or bus).input_space
    return space


def _path(device: Device | None) -> tuple[Any, Any]:
    domain = getattr(device, "domain", None)
    return domain, None if domain is not None else getattr(device, "bus", None)


def _name(device: Device | None) -> str | None:
    return None if device is None else device.name


def _release(view: _View) -> None:
    run_all([partial(mapping.domain.release, mapping) for mapping in reversed(view.mappings)])
