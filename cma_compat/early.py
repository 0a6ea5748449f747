"""Early regions: asked for before there is an allocator, reserved by the platform, registered when drivers come.

Everything here happens before there is a second thread. Source: RFC v4, section 5 of our notes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cma_compat.cmdline import rounded_extent
from cma_compat.values import code_of
from swiommu.address import is_power_of_two
from swiommu.errors import InvalidArgument, NoMemory, NotSupported, SpaceMismatch, SwiommuError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cma_compat.structures import cma_region
    from swiommu.address import PhysSpace
    from swiommu.memory import Bootmem, Memblock

__all__ = ["EarlyRegions"]

_log = logging.getLogger("cma_compat")


class EarlyRegions:
    """The regions registered early, in order, and the platform's ways to reserve memory for them.

    >>> from cma_compat import cma_region
    >>> from swiommu.address import PhysSpace
    >>> from swiommu.memory import Bootmem, Frames
    >>> ram = PhysSpace("ram")
    >>> early = EarlyRegions(ram, 4096, bootmem=Bootmem(Frames(ram.at(0x4000_0000), 1 << 20)))
    >>> camera = cma_region(0, 5000, alignment=0x10000)
    >>> early.register(camera); early.reserve(camera); hex(camera.start), camera.size, camera.reserved
    ('0x40000000', 8192, True)
    """

    def __init__(
        self, memory: PhysSpace, page_size: int, *, bootmem: Bootmem | None = None, memblock: Memblock | None = None
    ) -> None:
        for reserver in (bootmem, memblock):
            if reserver is not None and reserver.space is not memory:
                raise SpaceMismatch(
                    f"{type(reserver).__name__} reserves in {reserver.space.name!r}, the context's memory is "
                    f"{memory.name!r}"
                )
        self.regions: list[cma_region] = []
        self._memory = memory
        self._page_size = page_size
        self._bootmem = bootmem
        self._memblock = memblock

    def register(self, reg: cma_region) -> None:
        """Round start, size and alignment up, write them back, append; `InvalidArgument`, and nothing written."""
        extent = rounded_extent(reg.start, reg.size, reg.alignment, page_size=self._page_size, width=self._memory.width)
        reg.start, reg.size, reg.alignment = extent
        self.regions.append(reg)

    def reserve(self, reg: cma_region) -> None:
        """Bootmem if the platform has it, and then, or else, memblock; start becomes the address obtained.

        `InvalidArgument` for a size of 0, a bad alignment, a region reserved already or not of this memory;
        `NoMemory` if nobody could, `NotSupported` on a platform that has neither.
        """
        if reg.size < 1 or (reg.alignment and not is_power_of_two(reg.alignment)):
            raise InvalidArgument(f"{reg.size} bytes aligned to {reg.alignment} can't be reserved", size=reg.size)
        if reg.reserved or (reg.within is not None and reg.within is not self._memory):
            raise InvalidArgument(f"the region at {reg.start:#x} is reserved already, or no memory of the platform")
        if self._bootmem is None and self._memblock is None:
            raise NotSupported("the platform has neither bootmem nor memblock")
        start = self._by_bootmem(reg)
        if start is None:
            start = self._by_memblock(reg)
        if start is None:
            raise NoMemory(f"{reg.size:#x} bytes at {reg.start:#x} could not be reserved", size=reg.size)
        reg.start = start
        reg.reserved = True

    def reserve_all(self, reserve: Callable[[cma_region], Any] | None = None) -> None:
        """Let ``reserve`` take memory for each region that has none: what it refuses is logged, the walk goes on.

        Its answer counts as success unless it is negative; it may change the region's start, or raise a `SwiommuError`.
        """
        for reg in self.regions:
            if reg.reserved:
                continue
            try:
                answer = (reserve or self.reserve)(reg)
            except SwiommuError as refusal:
                _log.warning("the early region %r was not reserved: %s", reg.name, refusal)
                continue
            if isinstance(answer, int) and answer < 0:
                _log.warning("the early region %r was not reserved: error %d", reg.name, answer)
                continue
            reg.reserved = True

    def hand_over(self, register: Callable[[cma_region], None]) -> None:
        """Register those that are reserved and forget all; what can't be registered stays reserved, and unused."""
        while self.regions:
            reg = self.regions.pop(0)
            if not reg.reserved:
                continue
            try:
                register(reg)
            except SwiommuError as refusal:
                _log.warning(
                    "the early region %r stays reserved and unused: error %d: %s", reg.name, -code_of(refusal), refusal
                )

    def _by_bootmem(self, reg: cma_region) -> int | None:
        if self._bootmem is None:
            return None
        try:
            return self._bootmem.reserve(reg.size, max(reg.alignment, 1), reg.start)
        except SwiommuError as refusal:
            _log.info("%s", refusal)
            return None

    def _by_memblock(self, reg: cma_region) -> int | None:
        if self._memblock is None:
            return None
        try:
            if reg.start:
                self._memblock.reserve(reg.start, reg.size)
                return reg.start
            start = self._memblock.alloc(reg.size, max(reg.alignment, self._page_size))
        except SwiommuError as refusal:
            _log.info("%s", refusal)
            return None
        if start and start + reg.size < self._memory.limit:
            return start
        # 0 means failure there, and the last addresses mean errors: neither is to be handed out.
        self._memblock.release(start, reg.size)
        return None
