"""What an emulated IOMMU notes of its work, one record a line, and how each line is spelt.

Names of units and devices are numbers as the emulator prints them: ``sid`` is bus, device and function in 16 bits,
``domain`` is the number in the hardware (a VT-d or AMD domain id, an SMMU's ASID, a virtio-iommu domain).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FAMILIES",
    "READERS",
    "Attached",
    "Command",
    "Entry",
    "Executed",
    "Found",
    "Invalidated",
    "LeafWord",
    "Lookup",
    "OtherCommand",
    "PageSizes",
    "Reader",
    "Record",
    "Request",
    "Step",
    "Translated",
]

FAMILIES: Final = {"vtd_": "VT-d", "smmu": "SMMUv3", "amdvi_": "AMD-Vi", "virtio_iommu_": "virtio-iommu"}
"""The hardware by the beginning of its lines' first word."""


class Invalidated(NamedTuple):
    """A range of a domain is forgotten: ``size`` bytes from ``iova`` on.

    VT-d: a block of a power of two; SMMUv3: an aligned piece of a range command, with its ``ttl`` and ``leaf``.
    AMD-Vi prints neither: ``size`` is 0.
    """

    line: int
    domain: int
    iova: int = 0
    size: int = 0
    ttl: int = 0
    leaf: int = 0


class Command(NamedTuple):
    """A whole domain is forgotten, or (``domain`` is -1) everything."""

    line: int
    domain: int


class Executed(NamedTuple):
    """AMD-Vi took a command from its queue; what it was is told by the line behind, or nowhere (a completion wait)."""

    line: int


class OtherCommand(NamedTuple):
    """AMD-Vi: the command was about a device or about interrupts."""

    line: int


class Entry(NamedTuple):
    """VT-d: the leaf ``word`` that translates ``iova`` was found: in the IOTLB (``hit``), or by a walk."""

    line: int
    sid: int
    iova: int
    word: int
    domain: int
    hit: bool


class Found(NamedTuple):
    """AMD-Vi: where the leaf of ``iova`` begins; in the IOTLB (``hit``, no ``domain``: -1), or by a walk."""

    line: int
    sid: int
    iova: int
    base: int
    domain: int
    hit: bool


class Translated(NamedTuple):
    """What a device's access came to. ``perm``: SMMUv3, bit 0 read, bit 1 write, else -1; ``mask``: VT-d, else -1."""

    line: int
    sid: int
    iova: int
    output: int
    mask: int = -1
    perm: int = -1


class Lookup(NamedTuple):
    """SMMUv3 looks into its IOTLB; after a miss the steps of a walk follow."""

    line: int
    domain: int
    iova: int
    hit: bool


class Step(NamedTuple):
    """SMMUv3 read the entry ``slot`` of a table; one line tells its ``address``, another the ``level`` (else -1)."""

    line: int
    base: int
    slot: int
    word: int
    level: int
    address: int


class LeafWord(NamedTuple):
    """SMMUv3: a walk ended at the leaf ``word``, which lies at ``address`` and begins at ``output``."""

    line: int
    level: int
    iova: int
    base: int
    address: int
    word: int
    output: int


class Request(NamedTuple):
    """virtio-iommu: a map (``flags``: bit 0 read, bit 1 write) or an unmap (``flags`` is -1); ``last`` is inclusive."""

    line: int
    domain: int
    iova: int
    last: int
    output: int
    flags: int


class Attached(NamedTuple):
    """virtio-iommu: the endpoint ``sid`` uses ``domain`` from here on."""

    line: int
    domain: int
    sid: int


class PageSizes(NamedTuple):
    """virtio-iommu: the page sizes that it offers, a bit each."""

    line: int
    bitmap: int


Record: TypeAlias = (
    Invalidated
    | Command
    | Executed
    | OtherCommand
    | Entry
    | Found
    | Translated
    | Lookup
    | Step
    | LeafWord
    | Request
    | Attached
    | PageSizes
)


class Reader(NamedTuple):
    """The text behind a line's first word: its shape, and the record of the numbers in it."""

    shape: re.Pattern[str]
    build: Callable[..., Record]


_KINDS: Final = {
    "X": r"(0x[0-9a-f]{1,16})",
    "D": r"(\d{1,20})",
    "N": r"(0x[0-9a-f]{1,16}|\d{1,20})",
    "S": r"([0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]{1,2})",
}


def _reader(text: str, build: Callable[..., Record]) -> Reader:
    """``text`` with ``{X}``, ``{D}``, ``{N}`` for a number in hexadecimal, decimal, either; ``{S}`` for bus:dev.fn."""
    escaped = re.escape(text).replace(r"\ ", " +")
    shape = re.sub(r"\\\{([XDNS])\\\}", lambda found: _KINDS[found[1]], escaped).replace(r"\*", r"\S+")
    return Reader(re.compile(rf"\s*{shape}{'(?:[ ,].*)?' if text else '.*'}", re.ASCII), build)


# Newer emulators print more fields behind these.
READERS: Final[dict[str, Reader]] = {
    "vtd_inv_desc_iotlb_pages": _reader(
        "iotlb invalidate domain {X} addr {X} mask {X}",
        lambda line, domain, addr, mask: Invalidated(line, domain, addr, 1 << 12 + min(mask, 52)),
    ),
    "vtd_inv_desc_iotlb_domain": _reader("iotlb invalidate whole domain {X}", Command),
    "vtd_inv_desc_iotlb_global": _reader("iotlb invalidate global", lambda line: Command(line, -1)),
    "vtd_iotlb_page_update": _reader(
        "IOTLB page update sid {X} iova {X} slpte {X} domain {X}",
        lambda line, sid, iova, word, domain: Entry(line, sid, iova, word, domain, hit=False),
    ),
    "vtd_iotlb_page_hit": _reader(
        "IOTLB page hit sid {X} iova {X} slpte {X} domain {X}",
        lambda line, sid, iova, word, domain: Entry(line, sid, iova, word, domain, hit=True),
    ),
    "vtd_dmar_translate": _reader("dev {S} iova {X} -> gpa {X} mask {X}", Translated),
    "smmuv3_s1_range_inval": _reader(
        "vmid={D} asid={D} addr={X} tg={D} num_pages={X} ttl={D} leaf={D}",
        lambda line, _vmid, domain, addr, tg, pages, ttl, leaf: Invalidated(
            line, domain, addr, pages << (2 * min(tg, 3) + 10 if tg else 12), ttl, leaf
        ),
    ),
    "smmuv3_cmdq_tlbi_nh_asid": _reader("asid={D}", Command),
    "smmuv3_cmdq_tlbi_nh": _reader("", lambda line: Command(line, -1)),
    "smmu_iotlb_lookup_hit": _reader(
        "IOTLB cache HIT asid={D} addr={X}", lambda line, domain, iova: Lookup(line, domain, iova, hit=True)
    ),
    "smmu_iotlb_lookup_miss": _reader(
        "IOTLB cache MISS asid={D} addr={X}", lambda line, domain, iova: Lookup(line, domain, iova, hit=False)
    ),
    "smmu_get_pte": _reader(
        "baseaddr={X} index={N}, pteaddr={X}, pte={X}",
        lambda line, base, index, address, word: Step(line, base, index, word, -1, address),
    ),
    "smmu_ptw_level": _reader(
        "level={D} iova={X} subpage_sz={X} baseaddr={X} offset={N} => pte={X}",
        lambda line, level, _iova, _size, base, index, word: Step(line, base, index, word, level, -1),
    ),
    "smmu_ptw_page_pte": _reader(
        "stage={D} level={D} iova={X} base@={X} pte@={X} pte={X} page address = {X}",
        lambda line, _stage, *numbers: LeafWord(line, *numbers),
    ),
    "smmu_ptw_block_pte": _reader(
        "stage={D} level={D} base@={X} pte@={X} pte={X} iova={X} block address = {X}",
        lambda line, _stage, level, base, address, word, iova, output: LeafWord(
            line, level, iova, base, address, word, output
        ),
    ),
    "smmuv3_translate_success": _reader(
        "* sid={X} iova={X} translated={X} perm={X}",
        lambda line, sid, iova, output, perm: Translated(line, sid, iova, output, perm=perm),
    ),
    "amdvi_command_exec": _reader(
        "command buffer head at {X} command buffer tail at {X}", lambda line, *_: Executed(line)
    ),
    "amdvi_pages_inval": _reader("AMD-Vi pages for domain {X} invalidated", Invalidated),
    "amdvi_all_inval": _reader("Invalidation of all AMD-Vi cache requested", lambda line: Command(line, -1)),
    "amdvi_devtab_inval": _reader("", OtherCommand),
    "amdvi_intr_inval": _reader("", OtherCommand),
    "amdvi_cache_update": _reader(
        "update iotlb domid {X} devid: {S} gpa {X} hpa {X}",
        lambda line, domain, sid, iova, base: Found(line, sid, iova, base, domain, hit=False),
    ),
    "amdvi_iotlb_hit": _reader(
        "hit iotlb devid {S} gpa {X} hpa {X}", lambda line, sid, iova, base: Found(line, sid, iova, base, -1, hit=True)
    ),
    "amdvi_translation_result": _reader("devid: {S} gpa {X} hpa {X}", Translated),
    "virtio_iommu_map": _reader("domain={D} virt_start={X} virt_end={X} phys_start={X} flags={D}", Request),
    "virtio_iommu_unmap": _reader(
        "domain={D} virt_start={X} virt_end={X}",
        lambda line, domain, iova, last: Request(line, domain, iova, last, 0, -1),
    ),
    "virtio_iommu_attach": _reader("domain={D} endpoint={D}", Attached),
    "virtio_iommu_get_config": _reader("page_size_mask={X}", PageSizes),
    "virtio_iommu_translate_out": _reader(
        "{X} -> {X} for sid={D}", lambda line, iova, output, sid: Translated(line, sid, iova, output)
    ),
}
"""The lines that become records, by their first word."""
