"""Checks of predictions against what the recorded kernel decided: one module, or room, for each class of decisions.

A check predicts before it reads the result, then goes on from what was recorded (rule 25 of "What compare means"); what
it answers is a `Tally`. All use `tally` and `worlds`; those of page tables use `timeline` (who mapped what) and
`expected` (what that should cause). Nothing here replays a design or counts what one costs, and no model lives here:
the allocator, the bounce pool, the page tables and the rules for commands that are checked are those that the replays
use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from swiommu.address import PAGE_SIZE
from swiommu.errors import InputError
from swiommu.verify.beginning import set_aside, why_incomplete
from swiommu.verify.cma import verify_cma
from swiommu.verify.emulated import verify_invalidation, verify_pte
from swiommu.verify.iova import verify_iova
from swiommu.verify.prot import verify_prot
from swiommu.verify.swiotlb import verify_swiotlb
from swiommu.verify.tally import KEPT_MISMATCHES, Mismatch, Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.trace import Trace

__all__ = [
    "CHECKS",
    "DETERMINED_BY",
    "KEPT_MISMATCHES",
    "READ_FROM",
    "Mismatch",
    "Tally",
    "verify_all",
    "verify_cma",
    "verify_invalidation",
    "verify_iova",
    "verify_prot",
    "verify_pte",
    "verify_swiotlb",
]

CHECKS: Final[dict[str, Callable[[Trace], Tally | None]]] = {
    "cma": verify_cma,
    "iova": verify_iova,
    "swiotlb": verify_swiotlb,
    "prot": verify_prot,
    "invalidation": verify_invalidation,
    "pte": verify_pte,
}
"""Every check by the name of its class, in the order of an answer; None: the trace has no decisions of that class."""

READ_FROM: Final[dict[str, str]] = {
    "cma": "cma_alloc_start with cma_alloc_finish",
    "iova": "the probes iova_alloc and iova_alloc_ret",
    "swiotlb": "swiotlb_bounced",
    "prot": "the probes iommu_map and iommu_map_sg",
    "invalidation": "qi_submit of unmaps, or the log of an emulated IOMMU",
    "pte": "the log of an emulated IOMMU",
}
"""The events that each class of decisions is read from."""

DETERMINED_BY: Final[dict[str, str]] = {
    "cma": "record from before the first cma_alloc on, lose no event, and name the area in the sidecar: cma_area with "
    "base_pfn, total_pages and in_use_before_trace_extents_offset_count",
    "iova": "set the probes iova_init, iova_reserve, iova_alloc, iova_alloc_ret, iova_slow, iova_slow_ret and "
    "iova_free before devices are probed, lose no event, and list the reserved regions in the sidecar's iommu_groups",
    "swiotlb": "record the dma events and iommu:map with swiotlb_bounced, lose no event, and name the pool's lowest "
    "address in the sidecar: bounce_pool_addresses_seen with lowest",
    "prot": "record the dma events with the probes iommu_map and iommu_map_sg",
    "invalidation": "record the dma events, iommu:map and iommu:unmap from before devices are probed, lose no event, "
    "and list the sidecar's pci_functions",
    "pte": "record the dma events, iommu:map and iommu:unmap from before devices are probed, and keep the log of the "
    "emulated IOMMU over the same time",
}
"""What to record so that the decisions of a class are determined."""


def verify_all(trace: Trace) -> list[Tally]:
    """The tallies of all classes that the trace has decisions of, in their order.

    Where the trace lacks its beginning, a class with mismatches is undetermined.

    `InputError` for a recording with pages of another size than 4 KiB, which no check knows.

    >>> from swiommu.trace import read_trace
    >>> [(tally.name, tally.matched) for tally in verify_all(read_trace("arm64-6.12-cam-cma64M-s81"))]
    [('cma', 740)]
    """
    sidecar = trace.sidecar
    if sidecar and sidecar.page_size != PAGE_SIZE:
        raise InputError(
            f"recorded with pages of {sidecar.page_size} bytes; checks know pages of {PAGE_SIZE} bytes only, so it "
            "can't be verified",
            path=sidecar.path,
        )
    tallies = [tally for check in CHECKS.values() if (tally := check(trace)) is not None]
    why = why_incomplete(trace) if any(tally.mismatched for tally in tallies) else ""
    return [set_aside(tally, why) if why else tally for tally in tallies]
