"""The sidecar of a recording: a JSON file beside the trace that says what machine it was and how its memory lay.

Every number is checked for its range when it is read; a missing key is None ("unknown"), never a guess. A recorder may
write facts that nothing here needs, so a key that is not declared passes, unless it looks like one that is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import field, fields_dict, frozen

from swiommu.address import PAGE_SIZE, PhysSpace, is_power_of_two
from swiommu.errors import InputError
from swiommu.input_file import BadValue, InputFile, shown
from swiommu.memory import SystemMap
from swiommu.profile import profile_of
from swiommu.trace.sidecar_keys import AreaKeys, Extents, SidecarKeys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swiommu.profile import Profile

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

_LARGEST: Final = 4 << 20
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
_SLOT_BYTES: Final = 2048
_CLASS_IOMMU: Final = 0x080600
_CLASS_NVME: Final = 0x010802
_NVME_PAGE: Final = 4096
_VIRTIO_IOMMU: Final = (0x1AF4, 0x1057)
_POOL_MAPPED: Final = re.compile(r"software IO TLB: mapped \[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]", re.ASCII)
_DEFAULT_POOL: Final = 64 << 20
_LARGEST_POOL: Final = 1 << 38
_AREAS_SINCE: Final = (6, 0)


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

    ``lowest_seen`` is the lowest of its addresses that the trace shows; None where it shows none. ``areas`` is how many
    areas were asked for; None: one for each CPU.
    """

    size: int
    source: str
    lowest_seen: int | None = None
    areas: int | None = None


@frozen
class Sidecar:
    """What is known about a recording besides its events; `read_sidecar` makes one.

    ``recorded_events`` is how many events the kernel wrote, those that were overwritten with them. ``unknown_keys`` are
    those of the file that are not documented.

    >>> Sidecar("a.json", "a", "6.18.3", (6, 18)).profile.name
    '6.18'
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
    recorded_events: int | None = None
    unknown_keys: tuple[str, ...] = ()

    @property
    def profile(self) -> Profile:
        """How the kernel behaves where versions differ."""
        return profile_of(self.version)

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


def read_sidecar(path: str | Path, *, trace: str = "") -> Sidecar:
    """Read a sidecar; ``trace`` is the trace's file name, to look up what is told about that file.

    Raises `InputError` if it is not JSON, not a sidecar, or if a value is not what its key can be.

    >>> from swiommu.trace import bundled_path
    >>> path = bundled_path("arm64-6.12-cam-cma64M-s81")
    >>> read_sidecar(path.with_name("arm64-6.12-cam-cma64M-s81.json")).kernel
    '6.12.107+deb13-arm64'
    """
    file = InputFile.read(str(path), what="a recording's sidecar", is_json=True, largest=_LARGEST)
    if not {"name", "kernel"} & file.data.keys():
        raise InputError("is not a recording's sidecar: it has neither 'name' nor 'kernel'", path=file.path)
    keys = file.structure(SidecarKeys, {Extents: _extents}, keep_unknown=True)
    version = _VERSION.match(keys.kernel)
    if version is None:
        raise file.error(("kernel",), f"is {shown(keys.kernel)}, not a version such as 6.12.107")
    page_size = keys.page_size or PAGE_SIZE
    if not is_power_of_two(page_size):
        raise file.error(("page_size",), f"is {page_size}, not a power of two")
    files = keys.files or {}
    told = files.get(trace) or files.get(f"{trace}.gz")
    return Sidecar(
        path=file.path,
        name=keys.name,
        kernel=keys.kernel,
        version=(int(version[1]), int(version[2])),
        arch=keys.arch or "",
        page_size=page_size,
        cpus=keys.cpus,
        iommu_mode=(keys.iommu and keys.iommu.mode) or "",
        cma_area=_cma_area(file, keys.cma_area, page_size) if keys.cma_area else None,
        system_ram=_system_ram(file, keys.system_ram or []),
        devices=_devices(file, keys.pci_functions or []),
        groups=_groups(file, keys.iommu_groups or []),
        bounce_pool=_bounce_pool(file, keys, (int(version[1]), int(version[2]))),
        text_bytes=told.text_bytes if told else None,
        recorded_events=_recorded_events(keys),
        unknown_keys=tuple(name for name in file.data if name not in fields_dict(SidecarKeys)),
    )


def _extents(value: object, _structure: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise BadValue("is no list of pairs of offset and count")
    for number in (number for pair in value for number in pair):
        if not isinstance(number, int) or isinstance(number, bool):
            raise BadValue(f"holds {shown(number)}, not a whole number")
    return tuple(sorted((offset, count) for offset, count in value))


def _recorded_events(keys: SidecarKeys) -> int | None:
    rings = (keys.ring_buffer or {}).values()
    if not rings or any(ring.entries is None for ring in rings):
        return None
    return sum((ring.entries or 0) + (ring.overrun or 0) for ring in rings)


def _cma_area(file: InputFile, area: AreaKeys, page_size: int) -> CmaArea:
    if area.base_pfn + area.total_pages > _U64 // page_size:
        raise file.error(("cma_area",), f"ends at page {area.base_pfn + area.total_pages:#x}, beyond 2**64 bytes")
    end = 0
    for offset, count in area.in_use_before_trace_extents_offset_count or ():
        if offset < end or count < 1 or offset + count > area.total_pages:
            raise file.error(
                ("cma_area", "in_use_before_trace_extents_offset_count"),
                f"holds {[offset, count]}, not an extent apart from the others within {area.total_pages} pages",
            )
        end = offset + count
    return CmaArea(area.base_pfn, area.total_pages, area.in_use_before_trace_extents_offset_count)


def _devices(file: InputFile, lines: list[str]) -> dict[str, DeviceFacts]:
    devices = {}
    for number, line in enumerate(lines):
        found = _FUNCTION.fullmatch(line.strip())
        if found is None or not (int(found["mask"]) <= 64 and int(found["coherent"]) <= 64):
            raise file.error(
                ("pci_functions", number),
                f"is {shown(line)}, not a PCI function with its ids, class, driver and masks of up to 64 bits",
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


def _groups(file: InputFile, lines: list[str]) -> tuple[GroupFacts, ...]:
    groups: list[tuple[re.Match[str], list[ReservedRegion]]] = []
    for number, line in enumerate(lines):
        if found := _GROUP.fullmatch(line):
            groups.append((found, []))
        elif groups and (found := _RESERVED.fullmatch(line)):
            region = ReservedRegion(int(found["lo"], 16), int(found["hi"], 16), found["kind"])
            if region.last < region.start:
                raise file.error(("iommu_groups", number), f"is {shown(line)}, a region that ends before its start")
            groups[-1][1].append(region)
        else:
            raise file.error(
                ("iommu_groups", number),
                f"is {shown(line)}, not a group line or a reserved region of the group above",
            )
    return tuple(
        GroupFacts(int(found["number"]), found["type"], tuple(found["devices"].split()), tuple(regions))
        for found, regions in groups
    )


def _system_ram(file: InputFile, lines: list[str]) -> tuple[str, ...]:
    """The lines as they are, once a map can be made of them."""
    try:
        system_map = SystemMap.from_lines(PhysSpace("recorded machine"), lines)
    except InputError as error:
        where = ("system_ram",) if error.line is None else ("system_ram", error.line - 1)
        raise file.error(where, f": {error.reason}") from error
    if lines and sum(ram.size for ram in system_map.ram()) < PAGE_SIZE:
        raise file.error(("system_ram",), "names no page of System RAM")
    return tuple(lines)


def _bounce_pool(file: InputFile, keys: SidecarKeys, version: tuple[int, int]) -> BouncePool | None:
    lowest = keys.bounce_pool_addresses_seen.lowest if keys.bounce_pool_addresses_seen else None
    for number, line in enumerate(keys.dmesg_excerpt or ()):
        if found := _POOL_MAPPED.search(line):
            size = int(found[2], 16) - int(found[1], 16)
            _require_pool(file, ("dmesg_excerpt", number), size)
            return BouncePool(size, "log", lowest)
    told = None
    if "swiotlb" in (keys.boot_parameters or ""):
        from swiommu.dma import IO_TLB_SHIFT, pool_parameter  # here, as few recordings need it

        told = pool_parameter(keys.boot_parameters or "")
        if told is not None and told.noforce:
            return None
        if told is not None and (told.slots is not None or told.force):
            size = told.pool_slots(cpus=keys.cpus or 1, has_areas=version >= _AREAS_SINCE) << IO_TLB_SHIFT
            _require_pool(file, ("boot_parameters",), size)
            return BouncePool(size, "boot parameter", lowest, told.areas)
    return None if lowest is None else BouncePool(_DEFAULT_POOL, "default", lowest, told.areas if told else None)


def _require_pool(file: InputFile, where: tuple[str | int, ...], size: int) -> None:
    if not 0 < size <= _LARGEST_POOL:
        raise file.error(where, f"has a bounce pool of {size} bytes, not of 1 to {_LARGEST_POOL}")
