"""The events that are read, each declared once: what happened, the kernel's names and texts for it, and its columns.

One `Kind` stands for one thing that happened, however the kernel of the day spells it: ``dma_map_page`` (6.12)
and ``dma_map_phys`` (6.18 and later) are both `Kind.DMA_MAP`. A new event, or a new text of an old one, is added here
and nowhere else; `EventSpec` says what each part means.

Sources: include/trace/events/{dma,iommu,cma,swiotlb}.h, drivers/iommu/intel/trace.h, and the recordings' probe
definitions.
"""

from __future__ import annotations

import enum
from typing import Final, Self

from swiommu.trace.eventspec import EventSpec, Text

__all__ = ["KIND_OF", "SPEC_OF", "Kind"]

_MAP: Final = "<device:t> dir=<name:w> dma_addr=<addr:x> size=<size:d> phys_addr=<phys:x> attrs=<flags:a>"
_UNMAP: Final = "<device:t> dir=<name:w> dma_addr=<addr:x> size=<size:d> attrs=<flags:a>"
_LISTS: Final = "dma_addrs=<dma_addrs:l> sizes=<sizes:l> phys_addrs=<phys_addrs:l> attrs=<flags:a>"
_NENTS: Final = "nents=<nents_shown:n>/<nents:n> ents=<ents_shown:n>/<ents:n>"
_ALLOC: Final = "dma_addr=<addr:x> size=<size:d> virt_addr=<extra:x> flags=<flags:w> attrs=<attrs:a>"
_FREE: Final = "dma_addr=<addr:x> size=<size:d> virt_addr=<extra:x> attrs=<flags:a>"
_SYNC: Final = Text("<device:t> dir=<name:w> dma_addr=<addr:x> size=<size:d>", since="6.12")
_SYNC_SG: Final = Text("<device:t> dir=<name:w> dma_addrs=<dma_addrs:l> sizes=<sizes:l>", since="6.12")
_GROUP: Final = Text("IOMMU: groupID=<extra:d> device=<device:t>")
_FLUSH: Final = "<name:w> <device:b>[<err:i>] type <flags:w> did <extra:d> [<addr:p>-<phys:p>] addr <:p>"
_RANGES: Final = (  # 7.0 no longer prints the number of pages
    Text(f"{_FLUSH} pages <:p> mask <size:p>", since="6.10", until="6.19"),
    Text(f"{_FLUSH} mask <size:p>", since="7.0"),
)
_TAG: Final = "<name:b>/<device:b> type <flags:w> did <extra:d> pasid <err:i> ref <size:d>"
_CMA_PAGE: Final = "name=<name:t> pfn=<addr:p> page=<:w> count=<size:d>"
_IOVAD: Final = "(<:probe>) iovad=<extra:p>"
_DOMAIN: Final = "(<:probe>) domain=<extra:p> iova=<addr:p>"

_SYNC_COLUMNS: Final = {
    "device": "device",
    "addr": "dma_addr; of a list its first",
    "size": "bytes; of a list the sum of the printed sizes",
    "name": "direction",
    "sg": "the list, if it is one",
}
_RANGE_COLUMNS: Final = {
    "device": "unit or device of the tag",
    "name": "IOMMU",
    "addr": "first byte",
    "phys": "last byte",
    "size": "mask: the command covers 2^mask pages",
    "extra": "domain id",
    "err": "PASID",
    "flags": "type of the tag",
}
_TAG_COLUMNS: Final = {
    "device": "unit or device of the tag",
    "name": "IOMMU",
    "extra": "domain id",
    "err": "PASID",
    "size": "reference count",
    "flags": "type of the tag",
}
_PAGES_COLUMNS: Final = {"name": "area", "addr": "pfn", "size": "pages", "extra": "align order"}
_MAP_CALL_COLUMNS: Final = {
    "addr": "iova",
    "phys": "paddr",
    "size": "bytes",
    "extra": "domain pointer",
    "flags": "prot as printed",
}


class Kind(enum.IntEnum):
    """What happened. The numbers are stored in the table's ``kind`` column and mean nothing outside this process.

    >>> KIND_OF["dma_map_page"] is KIND_OF["dma_map_phys"] is Kind.DMA_MAP
    True
    >>> Kind.IOMMU_UNMAP.spec.columns["extra"]
    'bytes that were unmapped'
    """

    spec: EventSpec

    def __new__(cls, spec: EventSpec) -> Self:
        """The next number, with its declaration."""
        kind = int.__new__(cls, len(cls.__members__))
        kind._value_ = len(cls.__members__)
        kind.spec = spec
        return kind

    DMA_MAP = EventSpec(
        "a buffer is mapped for a device, or can't be",
        "kernel/dma/mapping.c: dma_map_phys, dma_map_page_attrs",
        {
            "device": "device",
            "addr": "dma_addr (all ones: failed)",
            "phys": "phys_addr",
            "size": "bytes",
            "name": "direction",
            "flags": "attrs; MMIO for a resource",
        },
        {
            "dma_map_page": (Text(_MAP, since="6.12", until="6.17"),),
            "dma_map_phys": (Text(_MAP, since="6.18"),),
            "dma_map_resource": (Text(_MAP, since="6.12", until="6.17", adds="MMIO"),),
        },
        system="dma",
    )
    DMA_UNMAP = EventSpec(
        "a buffer is unmapped",
        "kernel/dma/mapping.c: dma_unmap_phys, dma_unmap_page_attrs",
        {"device": "device", "addr": "dma_addr", "size": "bytes", "name": "direction", "flags": "attrs"},
        {
            "dma_unmap_page": (Text(_UNMAP, since="6.12", until="6.17"),),
            "dma_unmap_phys": (Text(_UNMAP, since="6.18"),),
            "dma_unmap_resource": (Text(_UNMAP, since="6.12", until="6.17"),),
        },
        system="dma",
    )
    DMA_MAP_SG = EventSpec(
        "a list is mapped",
        "kernel/dma/mapping.c: __dma_map_sg_attrs",
        {
            "device": "device",
            "sg": "the lists",
            "addr": "first of dma_addrs",
            "phys": "first of phys_addrs",
            "size": "sum of the printed sizes",
            "extra": "nents (real)",
            "name": "direction",
            "flags": "attrs",
        },
        {
            # The counts came with 6.19 and with the stable kernels of February 2026.
            "dma_map_sg": (
                Text(f"<device:t> dir=<name:w> {_NENTS} {_LISTS}", since="6.19"),
                Text(f"<device:t> dir=<name:w> {_NENTS} [TRUNCATED] {_LISTS}", since="6.19"),
                Text(f"<device:t> dir=<name:w> {_LISTS}", since="6.12", until="6.18"),
            ),
        },
        system="dma",
    )
    DMA_UNMAP_SG = EventSpec(
        "a list is unmapped",
        "kernel/dma/mapping.c: dma_unmap_sg_attrs",
        {
            "device": "device",
            "sg": "the list (phys_addrs only)",
            "phys": "first of the list",
            "extra": "printed count",
            "name": "direction",
            "flags": "attrs",
        },
        {
            "dma_unmap_sg": (Text("<device:t> dir=<name:w> phys_addrs=<phys_addrs:l> attrs=<flags:a>", since="6.12"),),
        },
        system="dma",
    )
    DMA_MAP_SG_ERR = EventSpec(
        "a list can't be mapped",
        "kernel/dma/mapping.c: __dma_map_sg_attrs",
        {
            "device": "device",
            "sg": "the list (phys_addrs only)",
            "phys": "first of the list",
            "extra": "printed count",
            "err": "negative errno",
            "name": "direction",
            "flags": "attrs",
        },
        {
            # What this event labels dma_addrs are physical addresses.
            "dma_map_sg_err": (
                Text("<device:t> dir=<name:w> dma_addrs=<phys_addrs:l> err=<err:i> attrs=<flags:a>", since="6.12"),
            ),
        },
        system="dma",
    )
    DMA_ALLOC = EventSpec(
        "memory is allocated for a device, or can't be",
        "kernel/dma/mapping.c: dma_alloc_attrs, dma_alloc_pages",
        {
            "device": "device",
            "addr": "dma_addr",
            "size": "bytes",
            "extra": "virt_addr (0: failed)",
            "name": "direction",
            "flags": "gfp flags, then attrs as DMA_ATTR_..., all joined with |",
        },
        {
            # 6.12.0 to 6.12.47 printed no direction.
            "dma_alloc": (
                Text(f"<device:t> dir=<name:w> {_ALLOC}", since="6.12"),
                Text(f"<device:t> {_ALLOC}", since="6.12", until="6.12"),
            ),
            "dma_alloc_pages": (Text(f"<device:t> dir=<name:w> {_ALLOC}", since="6.12"),),
        },
        system="dma",
    )
    DMA_FREE = EventSpec(
        "memory of a device is freed",
        "kernel/dma/mapping.c: dma_free_attrs, dma_free_pages",
        {
            "device": "device",
            "addr": "dma_addr",
            "size": "bytes (0: a free of nothing)",
            "extra": "virt_addr",
            "name": "direction",
            "flags": "attrs",
        },
        {
            "dma_free": (
                Text(f"<device:t> dir=<name:w> {_FREE}", since="6.12"),
                Text(f"<device:t> {_FREE}", since="6.12", until="6.12"),
            ),
            "dma_free_pages": (Text(f"<device:t> dir=<name:w> {_FREE}", since="6.12"),),
        },
        system="dma",
    )
    DMA_SYNC_CPU = EventSpec(
        "a mapped buffer goes to the CPU for a moment",
        "kernel/dma/mapping.c: __dma_sync_single_for_cpu, __dma_sync_sg_for_cpu",
        _SYNC_COLUMNS,
        {
            "dma_sync_single_for_cpu": (_SYNC,),
            "dma_sync_sg_for_cpu": (_SYNC_SG,),
        },
        system="dma",
    )
    DMA_SYNC_DEVICE = EventSpec(
        "a mapped buffer goes back to its device",
        "kernel/dma/mapping.c: __dma_sync_single_for_device, __dma_sync_sg_for_device",
        _SYNC_COLUMNS,
        {
            "dma_sync_single_for_device": (_SYNC,),
            "dma_sync_sg_for_device": (_SYNC_SG,),
        },
        system="dma",
    )
    IOMMU_MAP = EventSpec(
        "a range is in a domain's page table now",
        "drivers/iommu/iommu.c: __iommu_map, iommu_map_nosync",
        {"addr": "iova", "phys": "paddr", "size": "bytes"},
        {
            "map": (Text("IOMMU: iova=<addr:p> - <end:p> paddr=<phys:p> size=<size:d>", since="5.17"),),
        },
        system="iommu",
    )
    IOMMU_UNMAP = EventSpec(
        "a range is taken out of a domain's page table",
        "drivers/iommu/iommu.c: __iommu_unmap",
        {"addr": "iova", "size": "bytes asked for", "extra": "bytes that were unmapped"},
        {
            "unmap": (Text("IOMMU: iova=<addr:p> - <end:p> size=<size:d> unmapped_size=<extra:d>", since="5.17"),),
        },
        system="iommu",
    )
    IOMMU_FAULT = EventSpec(
        "an access of a device faults",
        "drivers/iommu/iommu.c: report_iommu_fault",
        {"device": "device", "name": "driver", "addr": "iova", "flags": "the printed flags"},
        {
            "io_page_fault": (Text("IOMMU:<name:w> <device:w> iova=<addr:p> flags=<flags:w>"),),
        },
        system="iommu",
    )
    GROUP_ADD = EventSpec(
        "a device joins its group",
        "drivers/iommu/iommu.c: iommu_group_alloc_device, iommu_group_add_device",
        {"device": "device", "extra": "number of the group"},
        {
            "add_device_to_group": (_GROUP,),
        },
        system="iommu",
    )
    GROUP_REMOVE = EventSpec(
        "a device leaves its group",
        "drivers/iommu/iommu.c: __iommu_group_free_device, iommu_group_remove_device",
        {"device": "device", "extra": "number of the group"},
        {
            "remove_device_from_group": (_GROUP,),
        },
        system="iommu",
    )
    DOMAIN_ATTACH = EventSpec(
        "a device is attached to a domain",
        "drivers/iommu/iommu.c: __iommu_attach_device",
        {"device": "device"},
        {
            "attach_device_to_domain": (Text("IOMMU: device=<device:t>"),),
        },
        system="iommu",
    )
    FLUSH_RANGE = EventSpec(
        "VT-d: a range is flushed from the caches of one tag",
        "drivers/iommu/intel/cache.c: cache_tag_flush_range",
        _RANGE_COLUMNS,
        {
            "cache_tag_flush_range": _RANGES,
        },
        system="intel_iommu",
    )
    FLUSH_RANGE_NP = EventSpec(
        "VT-d: the same, of entries that were not present",
        "drivers/iommu/intel/cache.c: cache_tag_flush_range_np",
        _RANGE_COLUMNS,
        {
            "cache_tag_flush_range_np": _RANGES,
        },
        system="intel_iommu",
    )
    FLUSH_ALL = EventSpec(
        "VT-d: all of a domain is flushed from the caches of one tag",
        "drivers/iommu/intel/cache.c: cache_tag_flush_all",
        _TAG_COLUMNS,
        {
            "cache_tag_flush_all": (Text(_TAG, since="6.10", until="6.14"),),
        },
        system="intel_iommu",
    )
    TAG_ASSIGN = EventSpec(
        "VT-d: a cache tag is given to a domain",
        "drivers/iommu/intel/cache.c: cache_tag_assign",
        _TAG_COLUMNS,
        {
            "cache_tag_assign": (Text(_TAG, since="6.10"),),
        },
        system="intel_iommu",
    )
    TAG_UNASSIGN = EventSpec(
        "VT-d: a cache tag is taken from a domain",
        "drivers/iommu/intel/cache.c: cache_tag_unassign",
        _TAG_COLUMNS,
        {
            "cache_tag_unassign": (Text(_TAG, since="6.10"),),
        },
        system="intel_iommu",
    )
    QI_SUBMIT = EventSpec(
        "VT-d: a command is put into the invalidation queue",
        "drivers/iommu/intel/dmar.c: qi_submit_sync",
        {
            "device": "IOMMU",
            "name": "command (iotlb_inv ...)",
            "addr": "word 0",
            "phys": "word 1",
            "size": "word 2",
            "extra": "word 3",
        },
        {
            "qi_submit": (Text("<name:w> <device:t>: <addr:p> <phys:p> <size:p> <extra:p>", since="5.12"),),
        },
        system="intel_iommu",
    )
    CMA_START = EventSpec(
        "pages of an area are asked for",
        "mm/cma.c: cma_alloc",
        {
            "name": "area",
            "size": "pages",
            "extra": "align order",
            "addr": "free pages (since 6.18)",
            "phys": "pages of the area (since 6.18)",
        },
        {
            "cma_alloc_start": (
                Text("name=<name:t> count=<size:d> align=<extra:o>", since="5.13", until="6.17"),
                Text(
                    "name=<name:t> request_count=<size:d> available_count=<addr:d> total_count=<phys:d> "
                    "align=<extra:o>",
                    since="6.18",
                ),
            ),
        },
        system="cma",
    )
    CMA_FINISH = EventSpec(
        "an area has answered",
        "mm/cma.c: cma_alloc",
        {**_PAGES_COLUMNS, "err": "errorno as printed (0 or negative)"},
        {
            "cma_alloc_finish": (Text(f"{_CMA_PAGE} align=<extra:o> errorno=<err:i>", since="6.3"),),
        },
        system="cma",
    )
    CMA_BUSY_RETRY = EventSpec(
        "a candidate range has a page that can't be moved",
        "mm/cma.c: cma_alloc",
        _PAGES_COLUMNS,
        {
            "cma_alloc_busy_retry": (Text(f"{_CMA_PAGE} align=<extra:o>", since="5.14"),),
        },
        system="cma",
    )
    CMA_RELEASE = EventSpec(
        "pages of an area are given back",
        "mm/cma.c: cma_release",
        {"name": "area", "addr": "pfn", "size": "pages"},
        {
            "cma_release": (Text(_CMA_PAGE, since="5.14"),),
        },
        system="cma",
    )
    BOUNCED = EventSpec(
        "a buffer is about to be copied through the bounce pool",
        "kernel/dma/swiotlb.c: swiotlb_map",
        {"device": "device", "phys": "dev_addr", "size": "bytes", "extra": "dma_mask", "flags": "FORCE or NORMAL"},
        {
            "swiotlb_bounced": (
                Text(
                    "dev_name: <device:t> dma_mask=<extra:x> dev_addr=<phys:x> size=<size:d> <flags:bounce>",
                    since="4.10",
                ),
            ),
        },
        system="swiotlb",
    )
    MARK = EventSpec(
        "a program has written into the trace",
        "kernel/trace/trace.c: tracing_mark_write",
        {"flags": "the text"},
        {
            "tracing_mark_write": (Text("<flags:~>"),),
        },
    )
    IOVA_INIT = EventSpec(
        "a bus address allocator is made",
        "a probe on drivers/iommu/iova.c: init_iova_domain",
        {"addr": "first pfn", "size": "granule in bytes", "extra": "iovad"},
        {
            "iova_init": (Text(f"{_IOVAD} granule=<size:d> start=<addr:p>"),),
        },
    )
    IOVA_RESERVE = EventSpec(
        "bus addresses are reserved",
        "a probe on drivers/iommu/iova.c: reserve_iova",
        {"addr": "lowest pfn", "phys": "highest pfn", "extra": "iovad"},
        {
            "iova_reserve": (Text(f"{_IOVAD} lo=<addr:p> hi=<phys:p>"),),
        },
    )
    IOVA_ALLOC = EventSpec(
        "bus addresses are asked for",
        "a probe on drivers/iommu/iova.c: alloc_iova_fast",
        {"addr": "highest pfn allowed", "size": "pages", "extra": "iovad", "flags": "flush (1: may empty the caches)"},
        {
            "iova_alloc": (Text(f"{_IOVAD} size=<size:d> limit=<addr:p> flush=<flags:w>"),),
        },
    )
    IOVA_ALLOC_RET = EventSpec(
        "what alloc_iova_fast returns",
        "a probe on drivers/iommu/iova.c: alloc_iova_fast",
        {"addr": "pfn (0: none)"},
        {
            "iova_alloc_ret": (Text("(<:probe>) ret=<addr:p>"),),
        },
    )
    IOVA_SLOW = EventSpec(
        "the tree of bus addresses is searched",
        "a probe on drivers/iommu/iova.c: alloc_iova",
        {"addr": "highest pfn allowed", "size": "pages", "extra": "iovad", "flags": "aligned (1: to its size)"},
        {
            "iova_slow": (Text(f"{_IOVAD} size=<size:d> limit=<addr:p> aligned=<flags:w>"),),
        },
    )
    IOVA_SLOW_RET = EventSpec(
        "what alloc_iova returns",
        "a probe on drivers/iommu/iova.c: alloc_iova",
        {"addr": "lowest pfn", "phys": "highest pfn", "err": "-14 where the probe found no object (failed)"},
        {
            "iova_slow_ret": (
                Text("(<:probe>) pfn_hi=<phys:p> pfn_lo=<addr:p>"),
                Text("(<:probe>) pfn_hi=<fault:f> pfn_lo=(fault)"),
            ),
        },
    )
    IOVA_FREE = EventSpec(
        "bus addresses are given back",
        "a probe on drivers/iommu/iova.c: free_iova_fast",
        {"addr": "pfn", "size": "pages", "extra": "iovad"},
        {
            "iova_free": (Text(f"{_IOVAD} pfn=<addr:p> size=<size:d>"),),
        },
    )
    IOMMU_MAP_CALL = EventSpec(
        "iommu_map is called",
        "a probe on drivers/iommu/iommu.c: iommu_map",
        _MAP_CALL_COLUMNS,
        {
            "iommu_map": (Text(f"{_DOMAIN} paddr=<phys:p> size=<size:d> prot=<flags:w>"),),
        },
    )
    IOMMU_MAP_NOSYNC_CALL = EventSpec(
        "iommu_map_nosync is called",
        "a probe on drivers/iommu/iommu.c: iommu_map_nosync",
        _MAP_CALL_COLUMNS,
        {
            "iommu_map_nosync": (Text(f"{_DOMAIN} paddr=<phys:p> size=<size:d> prot=<flags:w>"),),
        },
    )
    IOMMU_MAP_SG_CALL = EventSpec(
        "iommu_map_sg is called",
        "a probe on drivers/iommu/iommu.c: iommu_map_sg",
        {"addr": "iova", "size": "nents", "extra": "domain pointer", "flags": "prot as printed"},
        {
            "iommu_map_sg": (Text(f"{_DOMAIN} nents=<size:d> prot=<flags:w>"),),
        },
    )
    IOMMU_UNMAP_CALL = EventSpec(
        "iommu_unmap_fast is called",
        "a probe on drivers/iommu/iommu.c: iommu_unmap_fast",
        {"addr": "iova", "size": "bytes", "extra": "domain pointer"},
        {
            "iommu_unmap_fast": (Text(f"{_DOMAIN} size=<size:d>"),),
        },
    )
    LOST = EventSpec(
        "the ring buffer of a CPU was full",
        "kernel/trace/trace.c: print_trace_line",
        {"cpu": "the CPU", "size": "events lost before its next line (0: unknown)", "time": "that of the row before"},
        {},
    )


SPEC_OF: Final = {event: kind.spec for kind in Kind for event in kind.spec.texts}
"""The declaration of an event by the kernel's name for it."""

KIND_OF: Final = {event: kind for kind in Kind for event in kind.spec.texts}
"""What an event tells, by the kernel's name for it."""
