"""What the sidecar says of the recorded machine: masks, groups, translation, the area, the memory.

Without a sidecar everything has a default, and the defaults are the kernel's own: a 32-bit mask, a group per device,
no area. Whether a device was translated is then learned from the trace: it was, if ``map`` lines served its calls.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE, PhysSpace
from swiommu.errors import InputError
from swiommu.memory import SystemMap
from swiommu.profile import DEFAULT_PROFILE
from swiommu.requests.workload import Area

if TYPE_CHECKING:
    from swiommu.trace import Sidecar

__all__ = ["Endpoint", "Machine"]

_PCI_NAME = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
_EVERYWHERE = (1 << 64) - 1  # a device that the trace doesn't name: nothing is known that would stop it
_MOST_DEVICES = 1 << 12  # each has page tables and an allocator of its own in three designs
_DEFAULT_MASK = (1 << 32) - 1  # dma_get_mask() of a device that set none


@attrs.frozen
class Endpoint:
    """How one device reaches memory, as far as it is known.

    Masks are the highest address it can issue; devices of a ``group`` share a domain.
    """

    mask: int
    coherent_mask: int
    group: str
    translated: bool
    is_iommu: bool
    is_pci: bool
    min_align_mask: int


class Machine:
    """The recorded machine, from a sidecar or from defaults.

    >>> Machine(None).device("vivid.0").mask == 0xffffffff
    True
    """

    def __init__(self, sidecar: Sidecar | None, path: str | None = None) -> None:
        if sidecar and sidecar.page_size != PAGE_SIZE:
            raise InputError(
                f"recorded with pages of {sidecar.page_size} bytes; designs know pages of {PAGE_SIZE} bytes only, so "
                "it can't be replayed",
                path=sidecar.path,
            )
        self._path = path
        self._sidecar = sidecar
        self._learned: set[str] = set()
        self._facts: dict[str, Endpoint] = {}
        self._group_of: dict[str, tuple[str, bool]] = {}
        self.page_size = sidecar.page_size if sidecar else PAGE_SIZE
        self.profile = sidecar.profile if sidecar else DEFAULT_PROFILE
        self.bounce_pool = sidecar.bounce_pool.size if sidecar and sidecar.bounce_pool else None
        self.mode = (sidecar.iommu_mode if sidecar else None) or "unknown"
        self.area = self._area(sidecar)
        self.system_map = self._system_map(sidecar)
        self._ram = self.system_map.ram() if self.system_map else []
        if sidecar:
            for group in sidecar.groups:
                for device in group.devices:
                    self._group_of[device] = (f"group {group.id}", group.type.startswith("DMA"))

    @staticmethod
    def _area(sidecar: Sidecar | None) -> Area | None:
        if sidecar is None or sidecar.cma_area is None:
            return None
        area = sidecar.cma_area
        return Area(area.base_pfn, area.total_pages, area.start_extents)

    @staticmethod
    def _system_map(sidecar: Sidecar | None) -> SystemMap | None:
        if sidecar is None or not sidecar.system_ram:
            return None
        return SystemMap.from_lines(PhysSpace("recorded machine"), sidecar.system_ram)

    def device(self, name: str, *, translated: bool = False, line: int | None = None) -> Endpoint:
        """Facts of one device; ``translated=True`` is evidence from the trace, remembered from then on.

        `InputError` with the ``line`` for one device more than 4096.
        """
        if translated and name and name not in self._learned:
            self._learned.add(name)
            self._facts.pop(name, None)
        facts = self._facts.get(name)
        if facts is None:
            if len(self._facts) >= _MOST_DEVICES:
                raise InputError(f"more than {_MOST_DEVICES} devices can't be replayed", path=self._path, line=line)
            facts = self._facts[name] = self._look_up(name)
        return facts

    @property
    def says_untranslated(self) -> bool:
        """Whether the sidecar says that no device is translated: what moves an address is an offset or a bounce."""
        return self.mode in {"direct", "passthrough"} or self.mode.startswith("swiotlb")

    def may_be_ram(self, address: int) -> bool:
        """False only if the sidecar lists the RAM and this physical address is not in it (a doorbell, say)."""
        if self.system_map is None:
            return True
        return any(ram.start.value <= address < ram.stop for ram in self._ram)

    def _look_up(self, name: str) -> Endpoint:
        default = _DEFAULT_MASK if name else _EVERYWHERE
        listed = self._sidecar.devices.get(name) if self._sidecar else None
        group, in_dma_group = self._group_of.get(name, (f"device {name}", False))
        return Endpoint(
            mask=listed.dma_mask if listed else default,
            coherent_mask=listed.coherent_mask if listed else default,
            group=group,
            translated=in_dma_group or name in self._learned,
            is_iommu=_is_iommu(name) or bool(listed and listed.is_iommu),
            is_pci=_PCI_NAME.fullmatch(name) is not None,
            min_align_mask=listed.min_align_mask if listed else 0,
        )


def _is_iommu(name: str) -> bool:
    """An IOMMU's own queues and tables are DMA memory too, and nobody translates those."""
    lowered = name.lower()
    return any(word in lowered for word in ("smmu", "iommu", "dmar"))
