"""Plain pages: an ALLOC is a power-of-two block of a buddy system, as a kernel without CMA or IOMMU does (rule 12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE, order_of
from swiommu.errors import OutOfRange, SwiommuError
from swiommu.memory import Frames
from swiommu.replay.backends.direct import Block, DirectBackend, block_of
from swiommu.replay.cause import cause_of

if TYPE_CHECKING:
    from swiommu.replay.backends.base import Extent
    from swiommu.replay.cause import Cause
    from swiommu.replay.designs import Design
    from swiommu.replay.memory_plan import MemoryPlan
    from swiommu.requests import Request, Workload

__all__ = ["PagesBackend"]


@attrs.frozen(eq=False)
class _Taken:
    """A block of the buddy over B."""

    pfn: int
    order: int


class PagesBackend(DirectBackend):
    """Blocks up to 4 MiB of the B bytes; in mode ``machine`` every such block succeeds. B is a limit, not a charge."""

    def __init__(self, design: Design, plan: MemoryPlan, workload: Workload) -> None:
        super().__init__(design, plan, workload)
        self._frames = None if plan.fallback else Frames(self.space.at(plan.base), plan.bytes)

    def _alloc(self, request: Request, busy: tuple[int, ...]) -> object:
        del busy  # the buddy hands out no page that somebody uses
        if self._frames is None:
            return self._page_block(request)
        self._require_block(request)
        order = order_of(request.size)
        pfn = self._frames.take(order)
        if (pfn << 12) + (PAGE_SIZE << order) - 1 > request.mask:
            self._frames.give(pfn, 1 << order)
            raise OutOfRange(f"pages at {pfn << 12:#x} are beyond the mask {request.mask:#x}", mask=request.mask)
        return _Taken(pfn, order)

    def _give(self, handle: object) -> None:
        assert isinstance(handle, _Taken)
        assert self._frames is not None
        self._frames.give(handle.pfn, 1 << handle.order)

    def extents(self, handle: object) -> list[Extent]:
        """See `Backend.extents`."""
        return [(handle.pfn * PAGE_SIZE, PAGE_SIZE << handle.order)] if isinstance(handle, _Taken) else []

    def _refusal(self, request: Request, busy: tuple[int, ...]) -> Cause | None:
        try:
            handle = self._alloc(request, busy)
        except SwiommuError as error:
            return cause_of(error)
        if not isinstance(handle, Block):
            self._give(handle)  # a buddy that coalesces is then as it was
        return None

    def _charged(self, request: Request, handle: object) -> int:
        return handle.size if isinstance(handle, Block) else block_of(request)

    def room(self) -> int:
        """See `Backend.room`; behind an unlimited page allocator there is always room."""
        return self._frames.free_count * PAGE_SIZE if self._frames else 1 << 62
