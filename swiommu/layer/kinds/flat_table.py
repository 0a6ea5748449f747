"""The flat table: one level over an aperture, one entry a page. A graphics aperture (GART) is such a thing."""

from __future__ import annotations

from array import array
from itertools import compress, count
from typing import TYPE_CHECKING, Any, ClassVar

from swiommu.address import PAGE_SIZE, Prot, as_integers
from swiommu.errors import AddressInUse, InvalidArgument, OutOfRange
from swiommu.layer.attributes import READ_WRITE, Attributes
from swiommu.layer.base import Extent, FaultKind, Layer, Read
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["FlatTable"]

_ENTRY = 4
_OUTPUT_WIDTH = 40
_VALID, _COHERENT = 1, 2


class FlatTable(Layer):
    """Translates ``size`` bytes from ``base``, page by page, by the 32-bit entries of one table at ``table``.

    ``table`` is an address on the walker's side: of the output space if the table is nested (the default), of a memory
    if it is "stolen" from there (a walker of its own, or `Walker.PHYSICAL`). ``pages`` is what the table's pages hold,
    in order, wherever they lie: views from `SparseRam.words`; by default pages of its own, in no memory of the model.

    An entry, as AMD's GART has it: bits 31-12 of the output, bits 39-32 of it at 11-4, bit 1 coherent, bit 0 valid.
    It allows everything. Addresses outside of the aperture are range faults: what bypasses it is a router's choice.
    Raises `InvalidArgument` for what is not whole pages, or another number of ``pages``. Source: ``GPTE_ENCODE``.

    >>> from swiommu.address import Access
    >>> from swiommu.layer import access
    >>> gart = FlatTable("gart", base=0x8000_0000, size=64 << 20)
    >>> gart.map(0x8000_0000, 0x12_3456_7000, 0x2000)
    >>> hex(gart.stored(4, 4))
    '0x34568123'
    >>> answer = access(gart, 0x8000_1010, 8, Access.WRITE); hex(answer.runs[0].output), answer.refs
    ('0x1234568010', 1)
    """

    kind: ClassVar[str] = "flat"
    granule = PAGE_SIZE
    output_width = _OUTPUT_WIDTH

    def __init__(
        self, name: str, *, base: int, size: int, table: int = 0, pages: Sequence[array[int]] | None = None
    ) -> None:
        super().__init__(name)
        base, size, table = as_integers(base=base, size=size, table=table)
        if size < 1 or base < 0 or table < 0 or (base | size | table) % PAGE_SIZE:
            raise InvalidArgument(
                f"flat table {name!r}: an aperture of {size:#x} bytes at {base:#x} with its table at {table:#x} "
                "is not whole pages",
                size=size,
            )
        self.base = base
        self.size = size
        self.table = table
        self.input_width = (base + size - 1).bit_length()
        needed = -(-size // PAGE_SIZE * _ENTRY // PAGE_SIZE)
        if pages is None:
            pages = [array("Q", bytes(PAGE_SIZE)) for _ in range(needed)]
        if len(pages) != needed:
            raise InvalidArgument(
                f"flat table {name!r}: {size // PAGE_SIZE} entries need {needed} pages, not {len(pages)}", count=needed
            )
        self._pages = list(pages)
        self._views = _views(self._pages)

    __copy__ = no_shallow_copy

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_views"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _views=_views(state["_pages"]))

    @property
    def table_size(self) -> int:
        """Bytes of the table: four for each page of the aperture."""
        return self.size // PAGE_SIZE * _ENTRY

    def map(self, at: int, to: int, size: int, *, coherent: bool = True) -> None:
        """Lead ``size`` bytes from ``at`` to ``to``: all of them or none.

        ``coherent``: accesses look into the processor's caches. Raises `InvalidArgument` (empty, misaligned),
        `OutOfRange` (beyond the aperture, or 40 bits of output), `AddressInUse`.
        """
        if type(at) is not int or type(to) is not int or type(size) is not int:
            at, to, size = as_integers(at=at, to=to, size=size)
        self._require(at, to, size)
        if to < 0 or to + size > 1 << _OUTPUT_WIDTH:
            raise OutOfRange(
                f"{size:#x} bytes at output {to:#x} leave the {_OUTPUT_WIDTH}-bit output of flat table {self.name!r}",
                paddr=to,
                size=size,
            )
        for page in range(at, at + size, PAGE_SIZE):
            if self._entry(page) & _VALID:
                raise AddressInUse(f"flat table {self.name!r}: a live entry is at {page:#x}", iova=page)
        bits = _VALID | _COHERENT if coherent else _VALID
        for offset in range(0, size, PAGE_SIZE):
            output = to + offset
            self._set(at + offset, output & 0xFFFF_F000 | output >> 32 << 4 | bits)
        if self.watch is not None:
            self.watch("map", at, size)

    def unmap(self, at: int, size: int) -> int:
        """Clear the entries of ``size`` bytes from ``at``, and say how many bytes of these were mapped.

        Raises as `map` does.
        """
        if type(at) is not int or type(size) is not int:
            at, size = as_integers(at=at, size=size)
        self._require(at, 0, size)
        done = 0
        for page in range(at, at + size, PAGE_SIZE):
            done += PAGE_SIZE if self._entry(page) & _VALID else 0
            self._set(page, 0)
        if done and self.watch is not None:
            self.watch("unmap", at, size)
        return done

    def look(self, at: int, read: Read) -> Extent | FaultKind:
        """The page around ``at``: one reference. RANGE outside of the aperture, TRANSLATION without a valid entry."""
        if not self.base <= at < self.base + self.size:
            return FaultKind.RANGE
        page = at & -PAGE_SIZE
        entry = read(self.table + (page - self.base) // PAGE_SIZE * _ENTRY, _ENTRY)
        return _extent(page, entry) if entry & _VALID else FaultKind.TRANSLATION

    def extents(self) -> Iterator[Extent]:
        """The pages with a valid entry."""
        for page, entry in self._written():
            if entry & _VALID:
                yield _extent(page, entry)

    def accepts(self) -> Iterator[tuple[int, int]]:
        """The aperture."""
        yield self.base, self.base + self.size

    def stored(self, address: int, width: int) -> int:
        """The entry in the table's own pages."""
        del width  # entries of a flat table are 32 bits
        page, offset = divmod(address - self.table, PAGE_SIZE)
        return self._views[page][offset // _ENTRY]

    def describe(self) -> str:
        """The aperture, how many of its entries are mapped, and where the table is."""
        mapped, entries = sum(entry & _VALID for _, entry in self._written()), self.size // PAGE_SIZE
        aperture = f"[{self.base:#x}, {self.base + self.size:#x})"
        return f"{aperture}, {mapped} of {entries} entries mapped, table at {self.table:#x}"

    def _require(self, at: int, to: int, size: int) -> None:
        if size < 1 or (at | to | size) % PAGE_SIZE:
            raise InvalidArgument(
                f"{size:#x} bytes at {at:#x} to {to:#x} are not aligned to the granule {PAGE_SIZE:#x}", size=size
            )
        if at < self.base or at + size > self.base + self.size:
            raise OutOfRange(
                f"{size:#x} bytes at {at:#x} leave the aperture "
                f"[{self.base:#x}, {self.base + self.size:#x}) of flat table {self.name!r}",
                iova=at,
                size=size,
            )

    def _written(self) -> Iterator[tuple[int, int]]:
        # Pages with an entry that is not 0, ascending; table pages that are all 0 cost one look.
        left, at = self.size // PAGE_SIZE, self.base
        for view in self._views:
            if any(view):
                entries = view[:left].tolist()
                yield from ((at + index * PAGE_SIZE, entries[index]) for index in compress(count(), entries))
            left -= len(view)
            at += len(view) * PAGE_SIZE

    def _entry(self, page: int) -> int:
        return self.stored(self.table + (page - self.base) // PAGE_SIZE * _ENTRY, _ENTRY)

    def _set(self, page: int, entry: int) -> None:
        where, offset = divmod((page - self.base) // PAGE_SIZE * _ENTRY, PAGE_SIZE)
        self._views[where][offset // _ENTRY] = entry


def _views(pages: Sequence[array[int]]) -> list[memoryview]:
    return [memoryview(page).cast("B").cast("I") for page in pages]


def _extent(page: int, entry: int) -> Extent:
    output = entry & 0xFFFF_F000 | (entry & 0xFF0) << 28
    attributes = Attributes.of(Prot.CACHE if entry & _COHERENT else Prot.NONE)
    return Extent(page, output, PAGE_SIZE, PAGE_SIZE, READ_WRITE, attributes)
