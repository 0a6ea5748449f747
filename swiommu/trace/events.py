"""The kinds of events a recording holds, and the kernel's names for them in every supported version.

One `Kind` stands for one thing that happened, however the kernel of the day spells it: ``dma_map_page`` (6.12)
and ``dma_map_phys`` (6.18 and later) are both `Kind.DMA_MAP`. What each column of a row means for each kind is
told in `swiommu.trace.table`.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple, TypeAlias

__all__ = ["DMA_MAPPING_ERROR", "KIND_OF", "LEVELS", "Context", "Event", "InterruptLevel", "Kind", "ScatterList"]

DMA_MAPPING_ERROR: Final = (1 << 64) - 1
"""The bus address of a `Kind.DMA_MAP` that failed."""

Context: TypeAlias = tuple[int, int, int]
"""One line of execution: (CPU, PID, `InterruptLevel`). Its events follow each other as its calls do."""


class Kind(enum.IntEnum):
    """What happened. The numbers are stored in the table's ``kind`` column and mean nothing outside this process.

    >>> KIND_OF["dma_map_page"] is KIND_OF["dma_map_phys"] is Kind.DMA_MAP
    True
    """

    DMA_MAP = 0
    DMA_UNMAP = 1
    DMA_MAP_SG = 2
    DMA_UNMAP_SG = 3
    DMA_MAP_SG_ERR = 4
    DMA_ALLOC = 5
    DMA_FREE = 6
    DMA_SYNC_CPU = 7
    DMA_SYNC_DEVICE = 8
    IOMMU_MAP = 9
    IOMMU_UNMAP = 10
    IOMMU_FAULT = 11
    GROUP_ADD = 12
    GROUP_REMOVE = 13
    DOMAIN_ATTACH = 14
    FLUSH_RANGE = 15
    FLUSH_RANGE_NP = 16
    FLUSH_ALL = 17
    TAG_ASSIGN = 18
    TAG_UNASSIGN = 19
    QI_SUBMIT = 20
    CMA_START = 21
    CMA_FINISH = 22
    CMA_BUSY_RETRY = 23
    CMA_RELEASE = 24
    BOUNCED = 25
    MARK = 26
    IOVA_INIT = 27
    IOVA_RESERVE = 28
    IOVA_ALLOC = 29
    IOVA_ALLOC_RET = 30
    IOVA_SLOW = 31
    IOVA_SLOW_RET = 32
    IOVA_FREE = 33
    IOMMU_MAP_CALL = 34
    IOMMU_MAP_NOSYNC_CALL = 35
    IOMMU_MAP_SG_CALL = 36
    IOMMU_UNMAP_CALL = 37
    LOST = 38


class InterruptLevel(enum.IntEnum):
    """Where the CPU was when the event fired: the third flag character of the line (`LEVELS`).

    An interrupt may come between two events of one task, so pairs are made by `Context`, not by task.
    """

    TASK = 0
    SOFTIRQ = 1
    HARDIRQ = 2
    HARDIRQ_IN_SOFTIRQ = 3
    NMI = 4


LEVELS: Final = {
    ".": InterruptLevel.TASK,
    "s": InterruptLevel.SOFTIRQ,
    "h": InterruptLevel.HARDIRQ,
    "H": InterruptLevel.HARDIRQ_IN_SOFTIRQ,
    "z": InterruptLevel.NMI,
    "Z": InterruptLevel.NMI,
}

KIND_OF: Final = {
    "dma_map_page": Kind.DMA_MAP,
    "dma_map_phys": Kind.DMA_MAP,
    "dma_map_resource": Kind.DMA_MAP,
    "dma_unmap_page": Kind.DMA_UNMAP,
    "dma_unmap_phys": Kind.DMA_UNMAP,
    "dma_unmap_resource": Kind.DMA_UNMAP,
    "dma_map_sg": Kind.DMA_MAP_SG,
    "dma_unmap_sg": Kind.DMA_UNMAP_SG,
    "dma_map_sg_err": Kind.DMA_MAP_SG_ERR,
    "dma_alloc": Kind.DMA_ALLOC,
    "dma_alloc_pages": Kind.DMA_ALLOC,
    "dma_free": Kind.DMA_FREE,
    "dma_free_pages": Kind.DMA_FREE,
    "dma_sync_single_for_cpu": Kind.DMA_SYNC_CPU,
    "dma_sync_sg_for_cpu": Kind.DMA_SYNC_CPU,
    "dma_sync_single_for_device": Kind.DMA_SYNC_DEVICE,
    "dma_sync_sg_for_device": Kind.DMA_SYNC_DEVICE,
    "map": Kind.IOMMU_MAP,
    "unmap": Kind.IOMMU_UNMAP,
    "io_page_fault": Kind.IOMMU_FAULT,
    "add_device_to_group": Kind.GROUP_ADD,
    "remove_device_from_group": Kind.GROUP_REMOVE,
    "attach_device_to_domain": Kind.DOMAIN_ATTACH,
    "cache_tag_flush_range": Kind.FLUSH_RANGE,
    "cache_tag_flush_range_np": Kind.FLUSH_RANGE_NP,
    "cache_tag_flush_all": Kind.FLUSH_ALL,
    "cache_tag_assign": Kind.TAG_ASSIGN,
    "cache_tag_unassign": Kind.TAG_UNASSIGN,
    "qi_submit": Kind.QI_SUBMIT,
    "cma_alloc_start": Kind.CMA_START,
    "cma_alloc_finish": Kind.CMA_FINISH,
    "cma_alloc_busy_retry": Kind.CMA_BUSY_RETRY,
    "cma_release": Kind.CMA_RELEASE,
    "swiotlb_bounced": Kind.BOUNCED,
    "tracing_mark_write": Kind.MARK,
    "iova_init": Kind.IOVA_INIT,
    "iova_reserve": Kind.IOVA_RESERVE,
    "iova_alloc": Kind.IOVA_ALLOC,
    "iova_alloc_ret": Kind.IOVA_ALLOC_RET,
    "iova_slow": Kind.IOVA_SLOW,
    "iova_slow_ret": Kind.IOVA_SLOW_RET,
    "iova_free": Kind.IOVA_FREE,
    "iommu_map": Kind.IOMMU_MAP_CALL,
    "iommu_map_nosync": Kind.IOMMU_MAP_NOSYNC_CALL,
    "iommu_map_sg": Kind.IOMMU_MAP_SG_CALL,
    "iommu_unmap_fast": Kind.IOMMU_UNMAP_CALL,
}


class Event(NamedTuple):
    """One row of the table with its strings resolved; column meanings per kind are in `swiommu.trace.table`.

    ``line`` counts from 1; ``time`` is in ns (or in ticks of the trace's clock, see `Trace.clock`); ``sg`` is an
    index for `EventTable.sg`, -1 if there is no list.
    """

    line: int
    time: int
    cpu: int
    pid: int
    level: int
    kind: Kind
    device: str
    name: str
    addr: int
    phys: int
    size: int
    extra: int
    err: int
    flags: str
    sg: int

    @property
    def context(self) -> Context:
        """The line of execution that the event belongs to.

        >>> from swiommu.trace import open_bundled
        >>> next(iter(open_bundled("arm64-6.12-cam-cma64M-s81").table)).context
        (0, 1, 0)
        """
        return self.cpu, self.pid, self.level


class ScatterList(NamedTuple):
    """The lists of one scatter-gather event, as printed; numbers in bytes.

    ``nents`` and ``ents`` are the real counts of ``phys_addrs`` and of ``dma_addrs``/``sizes``: the kernel prints
    at most 128 entries of each, so the tuples may be shorter. A list that the event doesn't carry is empty.
    """

    phys_addrs: tuple[int, ...]
    dma_addrs: tuple[int, ...]
    sizes: tuple[int, ...]
    nents: int
    ents: int

    @property
    def is_cut(self) -> bool:
        """Whether the kernel cut one of the printed lists short.

        >>> ScatterList((0x1000,), (0x1000,), (4096,), nents=2, ents=1).is_cut
        True
        """
        cut_bus = bool(self.dma_addrs) and len(self.dma_addrs) < self.ents
        return cut_bus or (bool(self.phys_addrs) and len(self.phys_addrs) < self.nents)
