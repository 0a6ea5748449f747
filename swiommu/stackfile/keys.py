"""The keys of a stack file, and what each may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import attrs

from swiommu.address import Prot
from swiommu.input_file import BadValue, ByteCount, key, shown
from swiommu.layer.cache import CacheShape
from swiommu.layer.graph import ReservedKind
from swiommu.pagetable import MOCK
from swiommu.pagetable.formats import FORMATS

if TYPE_CHECKING:
    from swiommu.input_file.converter import Hook

__all__ = [
    "HOOKS",
    "CacheKeys",
    "DeviceKeys",
    "FlatKeys",
    "FlatMapKeys",
    "LayerKeys",
    "MapKeys",
    "MemoryKeys",
    "NodeKeys",
    "PagedKeys",
    "ReservedKeys",
    "RoutedKeys",
    "RouterKeys",
    "SpanKeys",
    "StackKeys",
    "WidthKeys",
    "WindowKeys",
]

Lowers: TypeAlias = Annotated[dict[str, str], "a name, or names by port"]
Protection: TypeAlias = Annotated[Prot, "words"]

_LONGEST_LIST: Final = 4096
_MOST_LEVELS: Final = 8
_PROTS: Final = {
    "r": Prot.READ,
    "w": Prot.WRITE,
    "rw": Prot.READ | Prot.WRITE,
    **{(flag.name or "").lower(): flag for flag in Prot},
}


_ADDRESS: Final[dict[str, Any]] = {"unit": "bytes", "least": 0, "most": (1 << 64) - 1}
_SIZE: Final[dict[str, Any]] = {"unit": "bytes", "least": 1, "most": 1 << 64}
_WIDTH: Final[dict[str, Any]] = {"unit": "bits", "least": 1, "most": 64}


@attrs.frozen(kw_only=True)
class ReservedKeys:
    """Keys of a reserved region."""

    at: ByteCount = key("The first address.", **_ADDRESS)
    size: ByteCount = key("The size.", **_SIZE)
    kind: ReservedKind = key("What it is reserved for.", ReservedKind.RESERVED, choices=ReservedKind)


@attrs.frozen(kw_only=True)
class CacheKeys(CacheShape):
    """Keys of a cache."""

    walk: list[CacheShape] = key(
        "Of a `tlb`: the other keys, once for each upper level of a walk whose entries are kept, the root's first.",
        [],
        longest=_MOST_LEVELS,
    )


@attrs.frozen(kw_only=True)
class NodeKeys:
    """Keys that memories, devices and layers have."""

    reserved: list[ReservedKeys] = key("Regions that must not be mapped.", [])
    tlb: CacheKeys | None = key("A cache of what this answers.", None)
    iotlb: CacheKeys | None = key("A cache of where the whole path from here ends.", None)


@attrs.frozen(kw_only=True)
class MemoryKeys(NodeKeys):
    """Keys of a memory."""

    base: ByteCount = key("The first address.", 0, **_ADDRESS)
    size: ByteCount = key("The size.", **_SIZE)


@attrs.frozen(kw_only=True)
class DeviceKeys(NodeKeys):
    """Keys of a device."""

    on: Lowers = key("The layer or memory on its bus.", {})
    mask: int = key("How much of an address it drives; beyond is a range fault of the device.", 64, **_WIDTH)


@attrs.frozen(kw_only=True)
class LayerKeys(NodeKeys):
    """Keys of layers of every kind."""

    kind: str = key("What it is.")
    on: Lowers = key(
        "What is below: a name, or for a router a table from ports to names; without it the stack is open there.", {}
    )
    walker: str = key(
        "How its tables are read: through what is below (`nested`), at `physical` addresses, or through the named "
        "layer or memory.",
        "nested",
    )


@attrs.frozen(kw_only=True)
class WidthKeys(LayerKeys):
    """Keys of ``identity`` and ``blocked`` layers."""

    width: int = key("The input addresses.", 64, **_WIDTH)


@attrs.frozen(kw_only=True)
class SpanKeys:
    """Keys of a window."""

    at: ByteCount = key("The first input address.", **_ADDRESS)
    size: ByteCount = key("The size.", **_SIZE)
    to: ByteCount | None = key("The first output address; `at` without it.", None, **_ADDRESS)


@attrs.frozen(kw_only=True)
class RoutedKeys(SpanKeys):
    """Keys of a router's window."""

    port: str = key("Where it leaves: a port that `on` names.")


@attrs.frozen(kw_only=True)
class WindowKeys(LayerKeys):
    """Keys of a ``window`` layer."""

    windows: list[SpanKeys] = key("The windows.", [])


@attrs.frozen(kw_only=True)
class RouterKeys(LayerKeys):
    """Keys of a ``router`` layer."""

    windows: list[RoutedKeys] = key("The windows, each with a `port`.", [])


@attrs.frozen(kw_only=True)
class FlatMapKeys:
    """Keys of a mapping of a flat table, in pages of 4 KiB."""

    at: ByteCount = key("The first input address.", **_ADDRESS)
    to: ByteCount = key("The first output address.", **_ADDRESS)
    size: ByteCount = key("The size.", **_SIZE)


@attrs.frozen(kw_only=True)
class FlatKeys(LayerKeys):
    """Keys of a ``flat`` layer: a GART."""

    base: ByteCount = key("The first address of the aperture.", 0, **_ADDRESS)
    size: ByteCount = key("The size of the aperture.", **_SIZE)
    tables: ByteCount | None = key("The first page of its table, as its walker sees it.", None, **_ADDRESS)
    map: list[FlatMapKeys] = key("What is mapped.", [], longest=_LONGEST_LIST)


@attrs.frozen(kw_only=True)
class MapKeys(FlatMapKeys):
    """Keys of a mapping: the largest pages that fit, or those of one size."""

    prot: Protection = key(
        "`r`, `w`, `rw`, or the kernel's words with bars between them: `read|write|cache`.", _PROTS["rw"]
    )
    page: ByteCount | None = key("The size of its pages; without it the largest that fit.", None, **_SIZE)


@attrs.frozen(kw_only=True)
class PagedKeys(LayerKeys):
    """Keys of a ``paged`` layer."""

    format: str = key("The page table's format.", MOCK.name, choices=FORMATS)
    tables: ByteCount | None = key("The first page of its tables, as its walker sees it.", None, **_ADDRESS)
    map: list[MapKeys] = key("What is mapped.", [], longest=_LONGEST_LIST)
    hardware_ad: bool = key("Whether its walker sets accessed and dirty bits.", default=False)
    force_write_back: bool = key("Whether accesses are cacheable whatever the upper layer says.", default=False)


@attrs.frozen(kw_only=True)
class StackKeys:
    """The top of a stack file: tables by name."""

    memory: dict[str, MemoryKeys] = key("Memories, `[memory.NAME]`.", {})
    layer: dict[str, LayerKeys] = key("Layers, `[layer.NAME]`.", {})
    device: dict[str, DeviceKeys] = key("Devices, `[device.NAME]`.", {})


def _lowers(value: Any, _structure: object) -> dict[str, str]:
    if isinstance(value, str):
        return {"": value}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise BadValue(f"is {shown(value)}, not a name or a table of names")
    return value


def _prot(value: Any, _structure: object) -> Prot:
    prot = Prot.NONE
    for word in str(value).split("|"):
        if not isinstance(value, str) or word.strip() not in _PROTS:
            raise BadValue(f"is {shown(value)}, not r, w, rw, or words such as read|write|noexec|cache")
        prot |= _PROTS[word.strip()]
    return prot


HOOKS: Final[dict[Any, Hook]] = {Lowers: _lowers, Protection: _prot}
