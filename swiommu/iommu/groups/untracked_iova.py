"""Bus addresses as the kernel's domains have them: what a caller maps himself is between him and the page table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import NotSupported
from swiommu.iommu.iova.policy import AskedByDevices
from swiommu.undo import Undoable, part_to_undo

if TYPE_CHECKING:
    from swiommu.iommu.iova import IovaPolicy
    from swiommu.undo import UndoLog

__all__ = ["UntrackedIova"]


class UntrackedIova(Undoable):
    """``inner`` chooses addresses and keeps what it chose; nobody asks it about addresses that others chose.

    So ``iommu_map`` over a range that the DMA API gave out is refused by the page table or by nobody, as in Linux.
    Without ``inner``, in an unmanaged domain, there is nobody to choose: `alloc` raises `NotSupported`.

    >>> from swiommu.iommu import TopDownIova
    >>> iova = UntrackedIova(TopDownIova())
    >>> iova.take(0xFFFF_F000, 4096); hex(iova.alloc(4096, 0xFFFF_FFFF, 1))
    '0xfffff000'
    """

    def __init__(self, inner: IovaPolicy | None = None) -> None:
        self.inner = inner
        self._cpu = 0
        self._given: dict[int, int] = {}
        self.undo_log = None

    @property
    def cpu(self) -> int:
        """The CPU that calls."""
        return self._cpu if self.inner is None else self.inner.cpu

    @cpu.setter
    def cpu(self, cpu: int) -> None:
        self._cpu = cpu
        if self.inner is not None:
            self.inner.cpu = cpu

    def alloc(self, size: int, limit_inclusive: int, align: int) -> int:
        """See `IovaPolicy.alloc`."""
        if self.inner is None:
            raise NotSupported(f"nobody chooses {size} bus bytes in an unmanaged domain: its owner maps where he likes")
        iova = self.inner.alloc(size, limit_inclusive, align)
        self._given[iova] = size
        if self.undo_log is not None:
            self.undo_log.note(self._given.__delitem__, iova)
        return iova

    def free(self, iova: int, size: int) -> None:
        """What `alloc` gave goes back; of other addresses nothing is known."""
        if self.inner is not None and self._given.get(iova) == size:
            if self.undo_log is not None:
                self.undo_log.note(self._given.__setitem__, iova, size)
            del self._given[iova]
            self.inner.free(iova, size)

    def take(self, iova: int, size: int) -> None:
        """Nothing: see the class."""

    def reserve(self, low: int, high: int) -> None:
        """See `IovaPolicy.reserve`."""
        if self.inner is not None:
            self.inner.reserve(low, high)

    def asked_by(self, *, pci: bool, forcedac: bool) -> None:
        """Whose devices ask, and what the command line says, for a policy to which that makes a difference."""
        if isinstance(self.inner, AskedByDevices):
            self.inner.asked_by(pci=pci, forcedac=forcedac)

    def advance(self, now_ns: int) -> None:
        """See `IovaPolicy.advance`."""
        if self.inner is not None:
            self.inner.advance(now_ns)

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`."""
        log.save(self, "_cpu")
        return part_to_undo(self, "inner", log)

    def check(self) -> None:
        """See `IovaPolicy.check`."""
        if self.inner is not None:
            self.inner.check()
