"""What a design is made of at replay time: one backend a driver. Nothing here reads what the kernel did.

`Backend` is the protocol; `make_backend` builds the one that a design, a memory plan and the knobs ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.replay.backends.base import Backend, Counters, Exposure, Extent, Usage
from swiommu.replay.designs import Driver

if TYPE_CHECKING:
    from swiommu.replay.designs import Design, Knobs
    from swiommu.replay.memory_plan import MemoryPlan
    from swiommu.requests import Workload

__all__ = ["Backend", "Counters", "Exposure", "Extent", "Usage", "make_backend"]


def make_backend(design: Design, plan: MemoryPlan, workload: Workload, knobs: Knobs) -> Backend:
    """The machinery of one design over one memory, empty and ready for a replay.

    >>> from swiommu.replay import Knobs, equal_plan, find_design
    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> workload = workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))
    >>> make_backend(find_design("cma-bitmap"), equal_plan(workload), workload, Knobs()).room() >> 20
    83
    """
    if design.driver is Driver.PAGED:
        if design.allocator:
            from swiommu.replay.backends.shim import ShimBackend

            return ShimBackend(design, plan, workload, knobs)
        from swiommu.replay.backends.translated import PagedBackend

        return PagedBackend(design, plan, workload, knobs)
    if design.driver is Driver.LINEAR:
        from swiommu.replay.backends.linear import LinearBackend

        return LinearBackend(design, plan, workload, knobs)
    if design.lends:
        from swiommu.replay.backends.lending import LendingBackend

        return LendingBackend(design, plan, workload, knobs)
    if design.allocator:
        from swiommu.replay.backends.contiguous import RegionBackend

        return RegionBackend(design, plan, workload, knobs)
    from swiommu.replay.backends.pages import PagesBackend

    return PagesBackend(design, plan, workload)
