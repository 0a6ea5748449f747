"""Pages with contents in lent frames: moved and dropped for real, so that a test can read what became of them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import attrs

from swiommu.address import PAGE_SIZE, PhysAddr
from swiommu.errors import InvalidArgument, NoMemory, NotFound
from swiommu.locking import Lock, locked, no_shallow_copy

if TYPE_CHECKING:
    from swiommu.memory import Frames, SparseRam
    from swiommu.region.lending import Lending

__all__ = ["LentPage", "LentPages"]


@attrs.define(eq=False)
class LentPage:
    """One page of somebody's; ``pfn`` follows it wherever it is moved, None once it was dropped or taken away."""

    pfn: int | None


class LentPages:
    r"""The `Tenants` of areas of one memory: contents in ``ram``, and in frames ``elsewhere`` once they had to leave.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.memory import Frames, SparseRam
    >>> from swiommu.region import Lending
    >>> space = PhysSpace("ram")
    >>> pages = LentPages(SparseRam(space), Frames(space.at(0x10_0000), 1 << 20))
    >>> area = Lending(0x4000_0000, 1 << 20, tenants=pages)
    >>> letter, copy = pages.put(area, b"dear"), pages.put(area, b"a file has it too", droppable=True)
    >>> hex(letter.pfn), hex(area.alloc(0x4000, 0x1000)), hex(letter.pfn), copy.pfn
    ('0x40000', '0x40000000', '0x100', None)
    >>> pages.read(letter)[:5]
    b'dear\x00'
    """

    __copy__ = no_shallow_copy

    def __init__(self, ram: SparseRam, elsewhere: Frames) -> None:
        self._ram = ram
        self._elsewhere = elsewhere
        self._pages: dict[int, LentPage] = {}
        self._areas: dict[LentPage, Lending] = {}
        self.lock = Lock()  # taken after that of an area, whose calls come in here

    # -- whose pages they are ----------------------------------------------------------------------------------------

    def put(self, area: Lending, data: bytes, *, droppable: bool = False) -> LentPage:
        """A page of ``data`` in the lowest idle frame of an area; `NoMemory` if none is idle.

        `InvalidArgument` for more than a page, or an area of other pages than 4 KiB.
        """
        if len(data) > PAGE_SIZE or area.page_size != PAGE_SIZE:
            raise InvalidArgument(f"{len(data)} bytes for a page of {area.page_size}: pages are of {PAGE_SIZE} here")
        with area.lock, self.lock:
            pfn = next(area.idle_frames(), None)
            if pfn is None:
                raise NoMemory(f"no frame of {area!r} is idle")
            self._ram.write(self._address(pfn), data.ljust(PAGE_SIZE, b"\0"))
            area.lend(pfn, droppable=droppable)
            page = self._pages[pfn] = LentPage(pfn)
            self._areas[page] = area
            return page

    def read(self, page: LentPage) -> bytes:
        """What the page holds, wherever it is; `NotFound` once it was dropped or taken away."""
        with self.lock:
            return self._ram.read(self._address(self._where(page)), PAGE_SIZE)

    def take_away(self, page: LentPage) -> None:
        """The page is needed no more; its frame goes back. Errors as `read`, and `Busy` while it is pinned."""
        area = self._areas.get(page)
        with nullcontext() if area is None else area.lock, self.lock:
            pfn, area = self._where(page), self._areas.get(page)  # it may have moved before
            if area is not None:
                area.give_back(pfn)
                del self._areas[page]
            else:
                self._elsewhere.require_givable(pfn, 1)
            self._forget(pfn)
            if area is None:
                self._elsewhere.give(pfn, 1)

    # -- what an area asks of tenants --------------------------------------------------------------------------------

    def room(self) -> int:
        """See `Tenants.room`."""
        return self._elsewhere.free_count

    @locked
    def move(self, pfn: int) -> int:
        """See `Tenants.move`: the bytes are copied, and the page has another frame."""
        try:
            to = self._elsewhere.take(0)
        except NoMemory as error:
            return error.errno
        self._ram.write(self._address(to), self._ram.read(self._address(pfn), PAGE_SIZE))
        page = self._pages[to] = self._forget(pfn)
        page.pfn = to
        del self._areas[page]
        return 0

    @locked
    def drop(self, pfn: int) -> None:
        """See `Tenants.drop`."""
        del self._areas[self._forget(pfn)]

    # -- inside ------------------------------------------------------------------------------------------------------

    def _forget(self, pfn: int) -> LentPage:
        """Nothing of ours is in this frame any more, and none of its bytes are left to read."""
        page = self._pages.pop(pfn)
        page.pfn = None
        self._ram.fill(self._address(pfn), PAGE_SIZE, 0)
        return page

    def _where(self, page: LentPage) -> int:
        if page.pfn is None or self._pages.get(page.pfn) is not page:
            raise NotFound("this page was dropped or taken away")
        return page.pfn

    def _address(self, pfn: int) -> PhysAddr:
        return PhysAddr(self._ram.space, pfn * PAGE_SIZE)
