"""The policy of Linux's dma-iommu: `IovaDomain` behind it, and 32-bit addresses first for PCI devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from swiommu.address import as_integers
from swiommu.errors import AddressInUse, InvalidArgument, NoSpace, NotFound
from swiommu.iommu.iova.iova_domain import IovaDomain
from swiommu.iommu.iova.policy import CheckedRequests
from swiommu.locking import no_shallow_copy
from swiommu.ranges import RangeSet

if TYPE_CHECKING:
    from swiommu.undo import Undoable, UndoLog

__all__ = ["LinuxIova"]

_LAST_32BIT: Final = (1 << 32) - 1


class LinuxIova(CheckedRequests):
    """Bus addresses as ``iommu_dma_alloc_iova`` chooses them, from ``allocator`` (default: a fresh `IovaDomain`).

    A PCI device that could drive more is first given addresses below 4 GiB, without emptying the caches for it; when
    that fails the first time it gets the full range from then on. ``forcedac`` (``iommu.forcedac=1``) leaves that
    out, and so do devices that are not PCI (``pci`` False).

    Who calls is told by two attributes, as the kernel would know it: ``cpu``, whose caches are used, and ``device``,
    whose attempts below 4 GiB are meant. In a domain of one device neither has to be set.

    >>> iova = LinuxIova()
    >>> [hex(iova.alloc(pages * 4096, (1 << 48) - 1, 4096)) for pages in (1, 4, 1, 40, 2)]
    ['0xfffff000', '0xffff8000', '0xffff7000', '0xfffc0000', '0xfffbe000']
    >>> iova.free(0xFFFF8000, 4 * 4096)
    >>> hex(iova.alloc(3 * 4096, (1 << 48) - 1, 4096)), hex(LinuxIova(forcedac=True).alloc(4096, (1 << 48) - 1, 1))
    ('0xffff8000', '0xfffffffff000')
    """

    __slots__ = (
        "_full",
        "_given",
        "_padded",
        "_reserved",
        "_shift",
        "_taken",
        "allocator",
        "cpu",
        "device",
        "forcedac",
        "granule",
        "pci",
    )

    __copy__ = no_shallow_copy

    def __init__(self, allocator: IovaDomain | None = None, *, pci: bool = True, forcedac: bool = False) -> None:
        super().__init__()
        self.allocator = IovaDomain() if allocator is None else allocator
        self.granule = self.allocator.granule
        self.pci = pci
        self.forcedac = forcedac
        self.cpu = 0
        self.device = ""
        self._shift = self.granule.bit_length() - 1
        self._full: set[str] = set()
        self._given: dict[int, int] = {}
        self._padded: dict[int, int] = {}
        self._taken = RangeSet()
        self._reserved = RangeSet()

    def asked_by(self, *, pci: bool, forcedac: bool) -> None:
        """See `AskedByDevices`."""
        self.pci, self.forcedac = pci, forcedac

    @property
    def uses_full_range(self) -> bool:
        """Whether ``device`` is past its attempts below 4 GiB."""
        return self.forcedac or not self.pci or self.device in self._full

    def alloc(self, size: int, limit_inclusive: int, align: int = 1) -> int:
        """See `IovaPolicy.alloc`. An ``align`` beyond the next power of two of the size widens the range to it.

        Raises `NoSpace`; `InvalidArgument` for a size below 1 or an alignment that is no power of two.
        """
        if type(size) is not int or type(limit_inclusive) is not int or type(align) is not int:
            size, limit_inclusive, align = as_integers(size=size, limit_inclusive=limit_inclusive, align=align)
        self.admit(size, align)
        asked = pages = size + self.granule - 1 >> self._shift
        step = align >> self._shift
        if step > 1 << (pages - 1).bit_length():
            pages = step  # the allocator aligns to the size only
        pfn = self._alloc(pages, limit_inclusive)
        self._remember(pfn, asked, pages)
        if self.undo_log is not None:
            self.undo_log.note(self._forget, pfn)
        return pfn << self._shift

    def free(self, iova: int, size: int) -> None:
        """See `IovaPolicy.free`. What `alloc` gave goes back as a whole, what `take` took in any parts.

        `NotFound` for anything else, with nothing changed.
        """
        iova, pages = self._pages(iova, size)
        pfn = iova >> self._shift
        if self._given.get(pfn) == pages:
            padded = self._padded.get(pfn, pages)
            if self.undo_log is not None:
                self.undo_log.note(self._remember, pfn, pages, padded)
            self._forget(pfn)
            self.allocator.free_iova_fast(pfn, padded, cpu=self.cpu)
            return
        if any(self._taken.gaps(pfn, pfn + pages)):
            raise NotFound(f"{size:#x} bus bytes at {iova:#x} are not all taken", iova=iova, size=size)
        for lo, hi in self.allocator.overlapping(pfn, pfn + pages - 1):
            self.allocator.free_iova(lo)
            if lo < pfn:
                self.allocator.reserve_iova(lo, pfn - 1)
            if pfn + pages <= hi:
                self.allocator.reserve_iova(pfn + pages, hi)
        held = self._whole_ranges(pfn, pfn + pages) if self.undo_log is not None else []
        self._taken.cut(pfn, pfn + pages)
        if self.undo_log is not None:
            self.undo_log.note(self._put_back, pfn, pfn + pages, held)

    def take(self, iova: int, size: int) -> None:
        """See `IovaPolicy.take`; Linux knows no such call and leaves its caller to see to it.

        Addresses that lie free in a cache are given back to the tree first, with everything else that the caches hold.
        """
        iova, pages = self._pages(iova, size)
        pfn = iova >> self._shift
        if not self._is_free(pfn, pfn + pages - 1):
            raise AddressInUse(f"{size:#x} bus bytes at {iova:#x} are not all free", iova=iova, size=size)
        self.allocator.reserve_iova(pfn, pfn + pages - 1)
        self._taken.add(pfn, pfn + pages)
        if self.undo_log is not None:
            self.undo_log.note(self._taken.remove, pfn)

    def reserve(self, low: int, high: int) -> None:
        """See `IovaPolicy.reserve`; reserving what is reserved already is allowed."""
        low, high = as_integers(low=low, high=high)
        _, pages = self._pages(low, high + 1 - low)
        pfn = low >> self._shift
        gaps = list(self._reserved.gaps(pfn, pfn + pages))
        if not all(self._is_free(start, stop - 1) for start, stop in gaps):
            raise AddressInUse(f"{low:#x} to {high:#x} can't be reserved: part of it is taken", start=low)
        self.allocator.reserve_iova(pfn, pfn + pages - 1)
        for start, stop in gaps:
            self._reserved.add(start, stop)
            if self.undo_log is not None:
                self.undo_log.note(self._reserved.remove, start)

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`."""
        log.save(self, "_countdown", "cpu", "device")
        return (self.allocator,)

    def advance(self, now_ns: int) -> None:
        """Let time pass; see `IovaDomain.advance`."""
        self.allocator.advance(now_ns)

    def check(self) -> None:
        """The allocator is sound, and holds exactly what was given, taken and reserved; or `AssertionError`."""
        self.allocator.check()
        self._taken.check()
        self._reserved.check()
        dump = f"given {self._given}, taken {list(self._taken)}, reserved {list(self._reserved)}"
        assert self._padded.keys() <= self._given.keys(), f"{self._padded} wider than what was given: {dump}"
        given = [(pfn, pfn + self._padded.get(pfn, pages)) for pfn, pages in self._given.items()]
        for start, stop in (*given, *self._taken, *self._reserved):
            inside = [(max(lo, start), min(hi + 1, stop)) for lo, hi in self.allocator.overlapping(start, stop - 1)]
            assert sum(high - low for low, high in inside) == stop - start, (
                f"{start:#x} to {stop:#x} is not all in the tree: {dump}, tree {self.allocator.ranges()}"
            )

    def _alloc(self, pages: int, limit: int) -> int:
        if limit > _LAST_32BIT and not self.uses_full_range:
            try:
                return self.allocator.alloc_iova_fast(
                    pages, _LAST_32BIT >> self._shift, flush_rcache=False, cpu=self.cpu
                )
            except NoSpace:
                if self.undo_log is not None:
                    self.undo_log.note(self._full.remove, self.device)
                self._full.add(self.device)
        # The kernel shifts the limit down, and may pass a limit inside a granule by part of it; this does not.
        last = (limit + 1 >> self._shift) - 1
        try:
            return self.allocator.alloc_iova_fast(pages, max(last, 0), flush_rcache=True, cpu=self.cpu)
        except NoSpace:
            raise NoSpace(
                f"no {pages << self._shift} free bus bytes at or below {limit:#x}",
                size=pages << self._shift,
                limit=limit,
            ) from None

    def _pages(self, iova: int, size: int) -> tuple[int, int]:
        if type(iova) is not int or type(size) is not int:
            iova, size = as_integers(iova=iova, size=size)
        if size < 1 or iova < 0:
            raise InvalidArgument(f"a bus range of {size} bytes at {iova:#x}: at least 1 is needed", size=size)
        return iova, (iova + size + self.granule - 1 >> self._shift) - (iova >> self._shift)

    def _forget(self, pfn: int) -> None:
        del self._given[pfn]
        self._padded.pop(pfn, None)

    def _remember(self, pfn: int, asked: int, pages: int) -> None:
        self._given[pfn] = asked
        if pages != asked:
            self._padded[pfn] = pages

    def _whole_ranges(self, low: int, high: int) -> list[tuple[int, int]]:
        """The taken ranges that share a page with ``low`` to ``high`` (exclusive), all of which is taken."""
        held = []
        while low < high:
            range_ = self._taken.at(low)
            assert range_ is not None, f"{low:#x} is not taken"
            held.append(range_)
            low = range_[1]
        return held

    def _put_back(self, low: int, high: int, held: list[tuple[int, int]]) -> None:
        """Undo a cut of ``low`` to ``high`` out of the ranges ``held``."""
        if held[0][0] < low:
            self._taken.remove(held[0][0])
        if high < held[-1][1]:
            self._taken.remove(high)
        for start, stop in held:
            self._taken.add(start, stop)

    def _is_free(self, lo: int, hi: int) -> bool:
        if not self.allocator.overlapping(lo, hi):
            return True
        self.allocator.flush_rcaches()
        return not self.allocator.overlapping(lo, hi)
