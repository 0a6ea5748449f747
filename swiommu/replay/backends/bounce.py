"""Bouncing at replay time: which pieces go through the pool, which slots they get, what is copied (B.7, rule 19)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import align_up
from swiommu.dma import IO_TLB_SEGSIZE, IO_TLB_SHIFT, IO_TLB_SIZE, SwiotlbPool
from swiommu.errors import SwiommuError
from swiommu.replay.cause import cause_of
from swiommu.replay.designs import Bounce

if TYPE_CHECKING:
    from swiommu.replay.backends.base import Counters
    from swiommu.replay.cause import Cause
    from swiommu.replay.designs import Design
    from swiommu.requests import Request, Workload

__all__ = ["Bouncer"]

_FROM_DEVICE = frozenset({"FROM_DEVICE", "BIDIRECTIONAL"})
_TO_DEVICE = frozenset({"TO_DEVICE", "BIDIRECTIONAL"})
_PLACE = 0x1000_0000  # where no pool was recorded: low enough for every mask that a kernel accepts


class Bouncer:
    """A pool in front of MAPs: ``all`` pieces, or only those ``beyond-mask``.

    A bounced piece is copied in at map whatever its direction, back at unmap if the device may have written, and again
    at the recorded syncs. A piece larger than a segment of the pool (256 KiB less alignment) can never be bounced.
    """

    def __init__(self, design: Design, workload: Workload, counters: Counters) -> None:
        self._all = design.bounce is Bounce.ALL
        self._counters = counters
        slots = -(-(workload.bounce_pool or design.pool) // IO_TLB_SIZE)
        self._pool = SwiotlbPool(_PLACE, align_up(slots, IO_TLB_SEGSIZE))
        self.size = self._pool.size

    @property
    def unused(self) -> int:
        """Bytes of the pool in no slot that is taken: reserved, and of no use now."""
        return self.size - (self._pool.used << IO_TLB_SHIFT)

    @property
    def peak(self) -> int:
        """Bytes of the slots that were in use at the fullest moment."""
        return self._pool.hiwater << IO_TLB_SHIFT

    def map(self, request: Request) -> list[tuple[int, int]]:
        """Slots as (address, piece size) for every piece that needs one; all or nothing."""
        taken: list[tuple[int, int]] = []
        try:
            for phys, size in request.pieces:
                if self._bounces(request, phys, size):
                    taken.append((self._slots(request, phys, size), size))
        except SwiommuError:
            for address, _ in taken:
                self._pool.release(address)
            raise
        self._counters.bytes_copied += sum(size for _, size in taken)
        return taken

    def unmap(self, request: Request, handle: object) -> None:
        """Copy back what the device may have written, and give the slots back."""
        assert isinstance(handle, list)
        for address, size in handle:
            self._pool.release(address)
            if request.direction in _FROM_DEVICE:
                self._counters.bytes_copied += size

    def sync(self, request: Request, *, for_cpu: bool, size: int) -> None:
        """A recorded sync copies only in its own direction."""
        if request.direction in (_FROM_DEVICE if for_cpu else _TO_DEVICE):
            self._counters.bytes_copied += size

    def refusal(self, request: Request) -> Cause | None:
        """Why not all pieces would find slots now: they are taken on trial."""
        copied = self._counters.bytes_copied
        try:
            with self._pool.dry_run():
                self.map(request)
        except SwiommuError as error:
            return cause_of(error)
        finally:
            self._counters.bytes_copied = copied
        return None

    def _bounces(self, request: Request, phys: int, size: int) -> bool:
        return self._all or phys + size - 1 > request.mask

    def _slots(self, request: Request, phys: int, size: int) -> int:
        return self._pool.find_slots(phys, size, min_align_mask=request.min_align_mask)
