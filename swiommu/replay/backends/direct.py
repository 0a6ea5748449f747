"""What designs without translation share: a MAP is direct or bounced, an ALLOC may fall back to pages (rules 9, 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE, PhysSpace, align_up, order_of
from swiommu.errors import BlockExceeded, NotSupported, OutOfRange
from swiommu.replay.backends.base import Counters, Exposure, Extent, Usage
from swiommu.replay.backends.bounce import Bouncer
from swiommu.replay.cause import Cause
from swiommu.replay.designs import Bounce
from swiommu.replay.memory_plan import BLOCK_LIMIT, MemoryPlan
from swiommu.requests import Occupancy, Request, RequestKind, Workload

if TYPE_CHECKING:
    from swiommu.replay.designs import Design

__all__ = ["Block", "DirectBackend", "block_of"]


@attrs.frozen(eq=False)
class Block:
    """A block of a page allocator that always has one: a power of two of bytes, its place is no matter."""

    size: int


def block_of(request: Request) -> int:
    """Bytes of the power-of-two block that a page allocator gives for a request."""
    return PAGE_SIZE << order_of(request.size)


class DirectBackend:
    """Bus = phys within the mask, else bounced where there is a pool, else failed.

    Subclasses say how an ALLOC is taken and given (`_alloc`, `_give`), why it would fail (`_refusal`), and what is idle
    and free.
    """

    def __init__(self, design: Design, plan: MemoryPlan, workload: Workload) -> None:
        self.plan = plan
        self.counters = Counters()
        self.fullest = 0
        self.tried = 0
        self.space = PhysSpace("memory")
        self._internal = 0
        self._bouncer = None if design.bounce is Bounce.NONE else Bouncer(design, workload, self.counters)
        self.pool_bytes = self._bouncer.size if self._bouncer else 0

    @property
    def pool_peak(self) -> int:
        """See `Backend`."""
        return self._bouncer.peak if self._bouncer else 0

    # -- requests ---------------------------------------------------------------------------------------------------

    def begin(self, request: Request, busy: tuple[int, ...]) -> object:
        """See `Backend.begin`; a handle is what `_take` gave, a `Block`, or what the MAP's pieces became."""
        if request.kind is RequestKind.MAP:
            return self._map(request)
        if request.kind is not RequestKind.ALLOC:
            raise NotSupported("user-space mappings need translation")
        handle = self._alloc(request, busy)
        self._internal += self._charged(request, handle) - request.size
        return handle

    def end(self, request: Request, handle: object) -> None:
        """See `Backend.end`."""
        if request.kind is RequestKind.MAP:
            self._unmap(request, handle)
            return
        self._internal -= self._charged(request, handle) - request.size
        if not isinstance(handle, Block):
            self._give(handle)

    def extents(self, handle: object) -> list[Extent]:
        """See `Backend.extents`; a `Block` is nowhere in particular."""
        del handle
        return []

    def probe(self, request: Request, busy: tuple[int, ...]) -> Cause | None:
        """See `Backend.probe`; asks the allocator, which changes nothing."""
        if request.kind is RequestKind.ALLOC:
            return self._refusal(request, busy)
        if request.kind is not RequestKind.MAP:
            return Cause.TRANSLATION
        if self._bouncer:
            return self._bouncer.refusal(request)
        return None if self._reaches(request) else Cause.MASK

    def sync(self, request: Request, handle: object, *, for_cpu: bool, size: int) -> None:
        """See `Backend.sync`: only what was bounced is copied."""
        if self._bouncer and handle:
            self._bouncer.sync(request, for_cpu=for_cpu, size=size)

    def advance(self, time: int) -> None:
        """See `Backend.advance`; nothing here waits for time."""

    # -- ALLOC: for subclasses --------------------------------------------------------------------------------------

    def _alloc(self, request: Request, busy: tuple[int, ...]) -> object:
        raise NotImplementedError

    def _give(self, handle: object) -> None:
        raise NotImplementedError

    def _refusal(self, request: Request, busy: tuple[int, ...]) -> Cause | None:
        raise NotImplementedError

    def _charged(self, request: Request, handle: object) -> int:
        """Bytes that an ALLOC occupies."""
        return handle.size if isinstance(handle, Block) else align_up(request.size, PAGE_SIZE)

    def _page_block(self, request: Request) -> Block:
        """The page allocator of mode ``machine``: every block up to 4 MiB succeeds, a larger one never does."""
        self._require_block(request)
        return Block(block_of(request))

    @staticmethod
    def _require_block(request: Request) -> None:
        """Refuse what is beyond the page allocator's largest block."""
        size = block_of(request)
        if size > BLOCK_LIMIT:
            words = f"a block of {size} bytes is beyond the page allocator's {BLOCK_LIMIT}"
            raise BlockExceeded(words, size=size, limit=BLOCK_LIMIT)

    # -- MAP --------------------------------------------------------------------------------------------------------

    def _map(self, request: Request) -> object:
        if self._bouncer:
            return self._bouncer.map(request)
        if not self._reaches(request):
            raise OutOfRange(f"a piece lies beyond the mask {request.mask:#x}", mask=request.mask)
        return None

    def _unmap(self, request: Request, handle: object) -> None:
        """A direct MAP set nothing up, so there is nothing to undo."""
        if self._bouncer:
            self._bouncer.unmap(request, handle)

    def _reaches(self, request: Request) -> bool:
        return all(phys + size - 1 <= request.mask for phys, size in request.pieces)

    # -- account ----------------------------------------------------------------------------------------------------

    def occupy(self, occupancy: Occupancy) -> object:
        """See `Backend.occupy`; where there is no area nobody takes pages of it."""
        del occupancy
        return None

    def vacate(self, occupancy: Occupancy, handle: object) -> None:
        """See `Backend.vacate`."""

    def room(self) -> int:
        """See `Backend.room`."""
        raise NotImplementedError

    def exposure(self) -> Exposure | None:
        """See `Backend.exposure`: nothing ever stops a device from reaching what was freed."""
        return None

    def usage(self) -> Usage:
        """See `Backend.usage`; a bounce pool is reserved, and what is not used of it is waste."""
        idle, reserved, lendable = self._idle()
        pool = self._bouncer.unused if self._bouncer else 0
        reserved += self.pool_bytes
        return Usage(self._internal, idle, 0, pool, reserved, lendable)

    def _idle(self) -> tuple[int, int, int]:
        """(idle, reserved, lendable) bytes of the design's region."""
        return 0, 0, 0
