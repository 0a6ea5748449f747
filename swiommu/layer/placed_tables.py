"""Table pages at addresses that somebody chose: their bytes lie where these addresses lead, in the memory itself."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SIZE, PhysAddr, align_up
from swiommu.errors import AddressInUse, InvalidArgument, OutOfRange, SwiommuError
from swiommu.layer.extents import place_of
from swiommu.pagetable import TablePages, joined

if TYPE_CHECKING:
    from swiommu.layer.node import Node

__all__ = ["PlacedTables"]


class PlacedTables(TablePages):
    """Gives table pages one after the other from ``base``, an address of what the walker of ``owner`` reads through.

    ``through`` is the node where those reads enter, None if they reach no memory of the model: then, and for a page
    that leads nowhere, the bytes are kept beside it. ``claimed`` says which pages of memories hold tables already, and
    whose: tables on top of each other are refused with `AddressInUse`, addresses beyond ``limit`` with `OutOfRange`.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.layer import Memory, Node
    >>> from swiommu.memory import SparseRam
    >>> ram = Memory("ram", SparseRam(PhysSpace("ram")))
    >>> tables = PlacedTables("s1", 0x8000, Node(ram), limit=1 << 52)
    >>> address = tables.alloc(); tables.entries(address)[1] = 0xABCD
    >>> hex(address), hex(ram.word(0x8008, 8))
    ('0x8000', '0xabcd')
    """

    def __init__(
        self,
        owner: str,
        base: int,
        through: Node | None,
        *,
        limit: int,
        claimed: dict[tuple[int, int], str] | None = None,
    ) -> None:
        super().__init__()
        if base % PAGE_SIZE:
            raise InvalidArgument(f"no table page begins at {base:#x}: they are {PAGE_SIZE:#x} bytes", start=base)
        self._owner = owner
        self._next = base
        self._through = through
        self._limit = limit
        self._claimed = {} if claimed is None else claimed
        self._places: dict[int, tuple[int, int]] = {}
        self._given_back: dict[int, list[int]] = {}

    def alloc(self, size: int = PAGE_SIZE) -> int:
        """The address of a zeroed table of ``size`` bytes, a multiple of that."""
        given_back = self._given_back.setdefault(size, [])
        address = given_back[-1] if given_back else align_up(self._next, size)
        if address + size > self._limit:
            raise OutOfRange(f"a table page at {address:#x} is beyond {self._limit:#x}", start=address)
        pages: list[array[int]] = []
        try:
            pages.extend(self._page(page) for page in range(address, address + size, PAGE_SIZE))
        except SwiommuError:
            self._leave(address, size)
            raise
        if given_back:
            given_back.pop()
        else:
            self._next = address + size
        return self.add(address, joined(pages))

    def free(self, phys: int) -> None:
        """Give the table back, zeroed; `NotFound` if it is none."""
        words = self.entries(phys)
        words[:] = array("Q", bytes(8 * len(words)))
        size = self.remove(phys)
        self._leave(phys, size)
        self._given_back[size].append(phys)

    def _leave(self, address: int, size: int) -> None:
        for page in range(address, address + size, PAGE_SIZE):
            self._claimed.pop(self._places.pop(page, (0, 0)), None)

    def _page(self, address: int) -> array[int]:
        place = place_of(self._through, address)
        if place is None:
            return array("Q", bytes(PAGE_SIZE))
        memory, at = place
        if at % PAGE_SIZE:
            raise InvalidArgument(
                f"the table page at {address:#x} would begin in the middle of a page, at {at:#x} of {memory.name!r}",
                start=address,
            )
        where = id(memory.ram), at
        if where in self._claimed:
            raise AddressInUse(
                f"the table page at {address:#x} would lie at {at:#x} of {memory.name!r}, "
                f"on a table of {self._claimed[where]!r}",
                start=address,
            )
        self._claimed[where] = self._owner
        self._places[address] = where
        return memory.ram.words(PhysAddr(memory.ram.space, at))
