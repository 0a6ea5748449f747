"""The sidecar of a recording: a JSON file beside the trace that says what machine it was and how its memory lay.

Every number is checked for its range when it is read; a missing key is None ("unknown"), never a guess.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from attrs import field, frozen

from swiommu.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BouncePool",
    "CmaArea",
    "DeviceFacts",
    "GroupFacts",
    "ReservedRegion",
    "Sidecar",
    "find_sidecar",
    "read_sidecar",
    "trace_name",
]

_ENDINGS: Final = (".gz", ".trace", ".txt", ".ftrace", ".log")
_U64: Final = 1 << 64
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})", re.ASCII)
_FUNCTION: Final = re.compile(
    r"(?P<name>\S+) 0x(?P<vendor>[0-9a-f]{1,4}) 0x(?P<id>[0-9a-f]{1,4}) class=0x(?P<cls>[0-9a-f]{1,6}) "
    r"driver=(?P<driver>\S*) dma_mask_bits=(?P<mask>\d{1,3}) consistent=(?P<coherent>\d{1,3})",
    re.ASCII,
)
_GROUP: Final = re.compile(r"group (?P<number>\d{1,9}) type=(?P<type>\S*) devices=(?P<devices>.*)", re.ASCII)
_RESERVED: Final = re.compile(r"\s+resv 0x(?P<lo>[0-9a-f]{1,16}) 0x(?P<hi>[0-9a-f]{1,16}) (?P<kind>\S+)", re.ASCII)
_SLOTS: Final = re.compile(r"(?:^|\s)swiotlb=(?:[a-z]+,)*(\d{1,9})", re.ASCII)
_SLOT_BYTES: Final = 2048
_CLASS_IOMMU: Final = 0x080600
_CLASS_NVME: Final = 0x010802
_NVME_PAGE: Final = 4096
_VIRTIO_IOMMU: Final = (0x1AF4, 0x1057)
_POOL_MAPPED: Final = re.compile(r"software IO TLB: mapped \[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]", re.ASCII)
_DEFAULT_POOL: Final = 64 << 20


@frozen
class CmaArea:
    """The CMA area: pages from ``base_pfn``; ``start_extents`` are (offset, count) in pages in use at the start.

    ``start_extents`` is None if the sidecar doesn't say, and empty if nothing was in use.
    """

    base_pfn: int
    total_pages: int
    start_extents: tuple[tuple[int, int], ...] | None = None


@frozen
class DeviceFacts:
    """A PCI function as it was at the end of the run; ``pci_class`` is the 24-bit class code.

    >>> DeviceFacts("0000:00:01.0", "nvme", 32, 64, pci_class=0x10802).dma_mask
    4294967295
    """

    name: str
    driver: str
    dma_mask_bits: int
    coherent_mask_bits: int
    pci_class: int = 0
    pci_id: tuple[int, int] = (0, 0)

    @property
    def dma_mask(self) -> int:
        """The highest bus address of streaming mappings."""
        return (1 << self.dma_mask_bits) - 1

    @property
    def coherent_mask(self) -> int:
        """The highest bus address of coherent allocations."""
        return (1 << self.coherent_mask_bits) - 1

    @property
    def is_iommu(self) -> bool:
        """Whether the function is an IOMMU itself: by class (AMD-Vi), or a virtio-iommu by its id."""
        return self.pci_class == _CLASS_IOMMU or self.pci_id == _VIRTIO_IOMMU

    @property
    def min_align_mask(self) -> int:
        """Which bits of an address a bounce buffer must keep: for NVMe the offset in a page, as its page lists do."""
        return _NVME_PAGE - 1 if self.pci_class == _CLASS_NVME else 0


@frozen
class ReservedRegion:
    """A range of bus addresses that a group must not use; ``last`` is inclusive, as the kernel prints it."""

    start: int
    last: int
    kind: str


@frozen
class GroupFacts:
    """An IOMMU group: its number, default domain type, devices and reserved regions."""

    id: int
    type: str
    devices: tuple[str, ...]
    reserved: tuple[ReservedRegion, ...]


@frozen
class BouncePool:
    """The bounce pool: ``size`` in bytes, told by ``source``: ``log``, ``boot parameter`` or ``default``.

    ``lowest_seen`` is the lowest of its addresses that the trace shows; None where it shows none.
    """

    size: int
    source: str
    lowest_seen: int | None = None


@frozen
class Sidecar:
    """What is known about a recording besides its events; `read_sidecar` makes one.

    ``profile`` is ``"6.12"`` or ``"7.3"``: how the kernel behaves where versions differ (a full CMA area answers
    -ENOMEM before 6.15 and -EBUSY since).

    >>> Sidecar("a.json", "a", "6.18.3", (6, 18)).profile
    '7.3'
    """

    path: str
    name: str
    kernel: str
    version: tuple[int, int]
    arch: str = ""
    page_size: int = 4096
    cpus: int | None = None
    iommu_mode: str = ""
    cma_area: CmaArea | None = None
    system_ram: tuple[str, ...] = ()
    devices: Mapping[str, DeviceFacts] = field(factory=dict)
    groups: tuple[GroupFacts, ...] = ()
    bounce_pool: BouncePool | None = None
    text_bytes: int | None = None

    @property
    def profile(self) -> Literal["6.12", "7.3"]:
        """The behaviour profile by the kernel's version: ``"7.3"`` from 6.15 on, else ``"6.12"``."""
        return "7.3" if self.version >= (6, 15) else "6.12"

    @property
    def group_of(self) -> dict[str, int]:
        """Group number by device name; devices without a group are absent."""
        return {device: group.id for group in self.groups for device in group.devices}


def trace_name(path: str) -> str:
    """The name of a trace: its file's name without folder and endings.

    >>> trace_name("/tmp/x86-6.12-direct-s1.trace.gz"), trace_name("a.trace.txt"), trace_name("-")
    ('x86-6.12-direct-s1', 'a', '-')
    """
    name = Path(path).name
    while name.endswith(_ENDINGS):
        name = name.rpartition(".")[0]
    return name or "-"


def find_sidecar(trace: str) -> Sidecar | None:
    """The sidecar beside the trace file, None if there is none; `InputError` if it is not this trace's.

    >>> find_sidecar("no-such.trace.gz") is None
    True
    """
    path = Path(trace)
    beside = path.with_name(f"{trace_name(trace)}.json")
    if beside == path or not beside.is_file():
        return None
    sidecar = read_sidecar(beside, trace=path.name)
    if sidecar.name != trace_name(trace) and sidecar.text_bytes is None:
        raise InputError(
            f"the sidecar is of {sidecar.name!r}, not of {path.name!r} beside it: rename or remove it", path=str(beside)
        )
    return sidecar


class _Checked:
    """Values of the JSON by dotted key, each checked for type and range; None where the key is missing or null."""

    def __init__(self, path: str, data: Mapping[str, object]) -> None:
        self._path = path
        self._data = data

    def bad(self, key: str, value: object, wanted: str) -> InputError:
        shown = repr(value)
        return InputError(f"{key} is {shown[:60]}{'...' * (len(shown) > 60)}, not {wanted}", path=self._path)

    def get(self, key: str) -> object:
        value: object = self._data
        for part in key.split("."):
            if not isinstance(value, dict):
                return None
            value = value.get(part)
        return value

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str | None):
            raise self.bad(key, value, "a text")
        return value or ""

    def number(self, key: str, low: int, high: int) -> int | None:
        value = self.get(key)
        return None if value is None else self.whole(key, value, low, high)

    def whole(self, key: str, value: object, low: int, high: int) -> int:
        """A JSON integer, or a string in hexadecimal with ``0x``, within ``low`` to ``high``."""
        number = value
        if isinstance(value, str) and re.fullmatch("0x[0-9a-f]{1,16}", value):
            number = int(value, 16)
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise self.bad(key, value, f"a whole number from {low} to {high}")
        return number

    def lines(self, key: str) -> list[str]:
        value = self.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.bad(key, value, "a list of texts")
        return value


def read_sidecar(path: str | Path, *, trace: str = "") -> Sidecar:
    """Read a sidecar; ``trace`` is the trace's file name, to look up what is told about that file.

    Raises `InputError` if it is not JSON, not a sidecar, or if a number is out of its range.

    >>> from swiommu.trace import bundled_path
    >>> path = bundled_path("arm64-6.12-cam-cma64M-s81")
    >>> read_sidecar(path.with_name("arm64-6.12-cam-cma64M-s81.json")).kernel
    '6.12.107+deb13-arm64'
    """
    where = str(path)
    try:
        data = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON ({str(error).partition(':')[0]})", path=where) from None
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", path=where) from None
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in ("name", "kernel")):
        raise InputError("is not a recording's sidecar: the texts 'name' and 'kernel' are missing", path=where)
    get = _Checked(where, data)
    kernel = get.text("kernel")
    version = _VERSION.match(kernel)
    if version is None:
        raise get.bad("kernel", kernel, "a version such as 6.12.107")
    page_size = get.number("page_size", 4096, 65536) or 4096
    if page_size & (page_size - 1):
        raise get.bad("page_size", page_size, "a power of two")
    return Sidecar(
        path=where,
        name=get.text("name"),
        kernel=kernel,
        version=(int(version[1]), int(version[2])),
        arch=get.text("arch"),
        page_size=page_size,
        cpus=get.number("cpus", 1, 1 << 20),
        iommu_mode=get.text("iommu.mode"),
        cma_area=_cma_area(get, page_size),
        system_ram=tuple(get.lines("system_ram")),
        devices=_devices(get),
        groups=_groups(get),
        bounce_pool=_bounce_pool(get),
        text_bytes=_text_bytes(get, trace),
    )


def _text_bytes(get: _Checked, trace: str) -> int | None:
    files = get.get("files")
    entry = files.get(trace) if isinstance(files, dict) else None
    if not isinstance(entry, dict):
        return None
    return get.whole(f"files.{trace}.text_bytes", entry.get("text_bytes"), 0, _U64)


def _cma_area(get: _Checked, page_size: int) -> CmaArea | None:
    if get.get("cma_area") is None:
        return None
    last_pfn = _U64 // page_size - 1
    base, total = get.number("cma_area.base_pfn", 0, last_pfn), get.number("cma_area.total_pages", 1, last_pfn)
    if base is None or total is None or base + total > last_pfn + 1:
        raise get.bad("cma_area", get.get("cma_area"), "an area with base_pfn and total_pages in the address space")
    key = "cma_area.in_use_before_trace_extents_offset_count"
    extents = get.get(key)
    if extents is None:
        return CmaArea(base, total)
    if not isinstance(extents, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in extents):
        raise get.bad(key, extents, "a list of pairs of offset and count")
    pairs = sorted((get.whole(key, offset, 0, total), get.whole(key, count, 1, total)) for offset, count in extents)
    end = 0
    for offset, count in pairs:
        if offset < end or offset + count > total:
            raise get.bad(key, extents, f"a list of extents apart from each other within {total} pages")
        end = offset + count
    return CmaArea(base, total, tuple(pairs))


def _devices(get: _Checked) -> dict[str, DeviceFacts]:
    devices = {}
    for line in get.lines("pci_functions"):
        found = _FUNCTION.fullmatch(line.strip())
        if found is None or not (int(found["mask"]) <= 64 and int(found["coherent"]) <= 64):
            raise get.bad(
                "pci_functions", line, "a PCI function with its ids, class, driver and masks of up to 64 bits"
            )
        name = found["name"]
        devices[name] = DeviceFacts(
            name,
            found["driver"],
            int(found["mask"]),
            int(found["coherent"]),
            int(found["cls"], 16),
            (int(found["vendor"], 16), int(found["id"], 16)),
        )
    return devices


def _groups(get: _Checked) -> tuple[GroupFacts, ...]:
    groups: list[tuple[re.Match[str], list[ReservedRegion]]] = []
    for line in get.lines("iommu_groups"):
        if found := _GROUP.fullmatch(line):
            groups.append((found, []))
        elif groups and (found := _RESERVED.fullmatch(line)):
            region = ReservedRegion(int(found["lo"], 16), int(found["hi"], 16), found["kind"])
            if region.last < region.start:
                raise get.bad("iommu_groups", line, "a region that ends after its start")
            groups[-1][1].append(region)
        else:
            raise get.bad("iommu_groups", line, "a group line or a reserved region of the group above")
    return tuple(
        GroupFacts(int(found["number"]), found["type"], tuple(found["devices"].split()), tuple(regions))
        for found, regions in groups
    )


def _bounce_pool(get: _Checked) -> BouncePool | None:
    lowest = get.number("bounce_pool_addresses_seen.lowest", 0, _U64 - 1)
    if found := _POOL_MAPPED.search("\n".join(get.lines("dmesg_excerpt"))):
        return BouncePool(int(found[2], 16) - int(found[1], 16), "log", lowest)
    if found := _SLOTS.search(get.text("boot_parameters")):
        return BouncePool(int(found[1]) * _SLOT_BYTES, "boot parameter", lowest)
    return None if lowest is None else BouncePool(_DEFAULT_POOL, "default", lowest)
