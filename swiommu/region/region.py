"""A region: a range of some space, the chunks alive in it, and an allocator that it does not trust.

The space may be a memory (the contiguous areas of 2010) or what a device sees (an IOMMU below scatters the pages).
The rules for sizes, alignments and accounting are those of RFC v4 sections 10 and 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from swiommu.address import (
    AddressRange,
    BusAddr,
    BusRange,
    PhysAddr,
    PhysRange,
    Space,
    align_up,
    as_integer,
    as_integers,
    is_power_of_two,
)
from swiommu.errors import (
    AddressInUse,
    AddressOverflow,
    InvalidArgument,
    NoMemory,
    NotAnInteger,
    NotFound,
    SwiommuError,
)
from swiommu.locking import Lock, locked, no_shallow_copy
from swiommu.region.allocator import Allocator, make_allocator
from swiommu.region.picture import area_svg
from swiommu.region.reports import Shortage, Statistics, explain_failure, statistics
from swiommu.undo import Undoable, part_to_undo

if TYPE_CHECKING:
    from swiommu.undo import UndoLog

__all__ = ["Chunk", "Region"]

A = TypeVar("A", PhysAddr, BusAddr)

_MOST_EDGES = 500  # beyond that, borders in a picture hide what lies between

_RANGES: dict[type, Any] = {PhysAddr: PhysRange, BusAddr: BusRange}


def _range_of(start: A, size: int) -> AddressRange[A]:
    """The range class that belongs to the address class."""
    made: AddressRange[A] = _RANGES[type(start)](start, size)
    return made


@attrs.frozen(eq=False, repr=False)
class Chunk(Generic[A]):
    """A live piece of a region: ``size`` bytes (whole pages) at ``start``. Two chunks are equal only if identical.

    >>> from swiommu.address import PhysSpace
    >>> Region(PhysSpace("ram").at(0x4000_0000), 1 << 20).alloc(5000).range
    PhysRange(ram:0x40000000+0x2000)
    """

    start: A
    size: int
    region: Region[A]

    @property
    def stop(self) -> int:
        """One past the last byte, as a plain number."""
        return self.start.value + self.size

    @property
    def range(self) -> AddressRange[A]:
        """The chunk as a `PhysRange` or `BusRange`."""
        return _range_of(self.start, self.size)

    def __repr__(self) -> str:
        return f"Chunk({self.start.space.name}:{self.start.value:#x}+{self.size:#x})"


class Region(Undoable, Generic[A]):
    """``size`` bytes from ``start``, handed out in page-rounded chunks by an allocator.

    ``allocator`` is a registered name (``options`` such as ``page_size`` or ``order_per_bit`` go to it) or an instance
    that serves exactly this range. A region without a ``name`` is private: nobody finds it by name.
    `free_space` is the 2010 account, size minus chunks in bytes; an allocator that pads may have less to give.

    Raises `InvalidArgument` for an empty range or an allocator of another range, `AddressOverflow` for a range that
    leaves the space.

    >>> from swiommu.address import PhysSpace
    >>> region = Region(PhysSpace("ram").at(0x4000_0000), 1 << 20, name="camera")
    >>> chunk = region.alloc(5000, align=0x10000)
    >>> chunk, region.free_space, region.users
    (Chunk(ram:0x40000000+0x2000), 1040384, 1)
    >>> region.free(chunk)
    >>> region.holes()
    [PhysRange(ram:0x40000000+0x100000)]
    """

    __slots__ = ("_chunks", "_starts", "allocator", "free_space", "lock", "name", "size", "start")

    __copy__ = no_shallow_copy

    def __init__(
        self,
        start: A,
        size: int,
        *,
        allocator: str | Allocator = "best_fit",
        name: str | None = None,
        **options: Any,
    ) -> None:
        from sortedcontainers import SortedList  # what intervaltree stands on

        size = as_integer(size, "size")
        if size < 1:
            raise InvalidArgument(f"a region of {size} bytes at {start!r}: at least 1 is needed", size=size)
        if start.value + size > start.space.limit:
            raise AddressOverflow(
                f"a region of {size:#x} bytes at {start!r} leaves the {start.space.width}-bit space",
                start=start.value,
                size=size,
            )
        if isinstance(allocator, str):
            allocator = make_allocator(allocator, start.value, size, **options)
        elif options:
            raise InvalidArgument(f"options {sorted(options)} are for an allocator chosen by name, not for an instance")
        if (allocator.start, allocator.size) != (start.value, size):
            raise InvalidArgument(
                f"the allocator {allocator.name!r} serves {allocator.size:#x} bytes at {allocator.start:#x}, "
                f"not the region's {size:#x} at {start.value:#x}"
            )
        self.start: A = start
        self.size = size
        self.name = name
        self.allocator = allocator
        self.free_space = size
        self.lock = Lock()
        self._chunks: dict[int, Chunk[A]] = {}
        self._starts = SortedList()
        self.undo_log = None

    @property
    def space(self) -> Space:
        """The space that the region's addresses belong to."""
        return self.start.space

    @property
    def stop(self) -> int:
        """One past the last byte, as a plain number."""
        return self.start.value + self.size

    @property
    def page_size(self) -> int:
        """What sizes are rounded up to, in bytes."""
        return self.allocator.page_size

    @property
    def users(self) -> int:
        """Number of live chunks, reserved ones included."""
        return len(self._chunks)

    def alloc(self, size: int, align: int = 0) -> Chunk[A]:
        """Take ``size`` bytes, rounded up to pages, at a multiple of ``align`` bytes (0: a page).

        The size is not rounded to the alignment. `InvalidArgument` for a size below 1 or an alignment that is neither
        0 nor a power of two; `NoMemory` (`Busy` from some allocators) when there is no room; `AddressInUse` or
        `SwiommuError` when the allocator answered a range that it may not hand out, which is then refused.
        Source: RFC v4 section 10.
        """
        with self.lock:
            size, align = self._rounded(size, align)
            if self.free_space < size:
                raise NoMemory(
                    f"{size} bytes were asked for and {self.free_space} are free", size=size, free_space=self.free_space
                )
            place = self._distrust(self.allocator.alloc(size, align), size, align)
            return self._remember(Chunk(self._at(place), size, self))

    @locked
    def fits(self, size: int, align: int = 0) -> bool:
        """Whether `alloc` would succeed now; changes nothing. `InvalidArgument` as `alloc`."""
        size, align = self._rounded(size, align)
        return self.free_space >= size and self.allocator.fits(size, align)

    def free(self, what: Chunk[A] | A) -> None:
        """Give a chunk back, named by itself or by its exact start address.

        `NotFound`, and nothing changed, unless that chunk is alive: a second free, an address inside a chunk, a chunk
        of another region. `SpaceMismatch` for an address of another space. Source: RFC v4 section 11.
        """
        with self.lock:
            if isinstance(what, Chunk):
                chunk = self._chunks.get(what.start.value)
                if chunk is not what:
                    raise NotFound(f"{what!r} is not alive in this region", start=what.start.value, size=what.size)
            else:
                chunk = self._chunks.get(self._value(what))
                if chunk is None:
                    raise NotFound(f"no chunk starts at {what!r}", start=what.value)
            # Account first, then free: the order the posting got wrong, and what makes a free inside a free harmless.
            self._forget(chunk)
            given_back = False
            try:
                self.allocator.free(chunk.start.value, chunk.size)
                given_back = True
            finally:
                if not given_back:
                    self._remember(chunk)

    @locked
    def reserve(self, start: A, size: int) -> Chunk[A]:
        """Take exactly ``size`` bytes (rounded up to pages) at ``start``, as a chunk that may be freed like any other.

        `AddressInUse` if any byte is taken or outside, `InvalidArgument` for a size below 1 or a start that is not a
        multiple of the page.
        """
        size, _ = self._rounded(size, 0)
        place = self._value(start)
        if place % self.page_size:
            raise InvalidArgument(f"{start!r} is not a multiple of {self.page_size} bytes", start=place)
        chunk = self._overlapped(place, size)
        if chunk is not None or place < self.start.value or place + size > self.stop:
            why = f"{chunk!r} is there" if chunk is not None else f"{self!r} does not reach there"
            raise AddressInUse(f"{size} bytes at {start!r} can't be reserved: {why}", start=place, size=size)
        self.allocator.reserve(place, size)
        return self._remember(Chunk(start, size, self))

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`; the order in which an allocator tries its holes comes back too.

        >>> from swiommu.address import PhysSpace
        >>> region = Region(PhysSpace("ram").at(0x4000_0000), 1 << 20)
        >>> with region.dry_run():
        ...     chunk = region.alloc(0x3000)
        >>> chunk, region.users
        (Chunk(ram:0x40000000+0x3000), 0)
        """
        log.save(self, "free_space")
        return part_to_undo(self, "allocator", log)

    @locked
    def chunk_at(self, address: A) -> Chunk[A] | None:
        """The live chunk that holds ``address``, at its start or inside."""
        value = self._value(address)
        chunk = self._last_from(value)
        return chunk if chunk is not None and value < chunk.stop else None

    @locked
    def chunks(self) -> list[Chunk[A]]:
        """Every live chunk, by address."""
        return [self._chunks[start] for start in self._starts]

    @locked
    def holes(self) -> list[AddressRange[A]]:
        """Every free range, by address, merged."""
        return [_range_of(self._at(start), size) for start, size in self.allocator.holes()]

    @locked
    def explain_failure(self, size: int, align: int = 0) -> Shortage:
        """Why a chunk of this size and alignment can't be had now, and what could: `explain_failure` of this room.

        Sizes and alignments are rounded as `alloc` does it, and `InvalidArgument` as there.

        >>> from swiommu.address import PhysSpace
        >>> region = Region(PhysSpace("ram").at(0x4000_0000), 0x4000)
        >>> chunk = region.reserve(region.start + 0x1000, 0x1000)
        >>> region.explain_failure(0x2800).would_fit_size
        8192
        """
        return explain_failure(self.allocator, *self._rounded(size, align))

    @locked
    def statistics(self) -> Statistics:
        """How full the region is and how its holes are spread, as its allocator sees it."""
        return statistics(self.allocator)

    @locked
    def svg(self) -> str:
        """A picture of what is free and taken, with the borders of chunks while they are few; names are escaped."""
        title = self.name if self.name is not None else f"{self.space.name}:{self.start.value:#x}"
        edges = [chunk.stop for chunk in self.chunks()[:-1]] if self.users <= _MOST_EDGES else ()
        notes = (f"{self.allocator.name}, {self.users} chunks",)
        return area_svg(self.start.value, self.size, self.allocator.holes(), title=title, edges=edges, notes=notes)

    def _repr_html_(self) -> str:
        return self.svg()

    @locked
    def check(self) -> None:
        """Raise AssertionError with a dump if chunks, holes and accounts contradict each other."""
        self.allocator.check()
        dump = f"{self!r} chunks {self.chunks()} holes {self.allocator.holes()}"
        assert list(self._starts) == sorted(self._chunks), f"the index of starts is {self._starts}: {dump}"
        assert self.free_space == self.size - sum(chunk.size for chunk in self.chunks()), f"miscounted: {dump}"
        last = self.start.value
        taken = [(chunk.start.value, chunk.size) for chunk in self.chunks()]
        for start, size in sorted(taken + self.allocator.holes()):
            assert start >= last, f"{size:#x} bytes at {start:#x} overlap what is before: {dump}"
            last = start + size
        assert last <= self.stop, f"something ends at {last:#x}, outside: {dump}"

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        place = f"{self.space.name}:{self.start.value:#x}+{self.size:#x}"
        return f"<Region{name} {place} {self.allocator.name}, {self.users} users, {self.free_space} bytes free>"

    def _rounded(self, size: int, align: int) -> tuple[int, int]:
        if type(size) is not int or type(align) is not int:
            size, align = as_integers(size=size, align=align)
        if size < 1:
            raise InvalidArgument(f"{size} bytes can't be allocated: at least 1 is needed", size=size)
        if align.bit_length() > 65:
            raise InvalidArgument(f"an alignment beyond 64 bits, of {align.bit_length()} bits", align=align)
        if align and not is_power_of_two(align):
            raise InvalidArgument(f"an alignment of {align} bytes is neither 0 nor a power of two", align=align)
        page = self.page_size
        return align_up(size, page), max(align, page)

    def _value(self, address: A) -> int:
        """The number of an address of this space; comparing raises `SpaceMismatch` for another's."""
        if address.space is not self.start.space:
            address - self.start
        return address.value

    def _at(self, value: int) -> A:
        return type(self.start)(self.start.space, value)

    def _remember(self, chunk: Chunk[A]) -> Chunk[A]:
        if self.undo_log is not None:
            self.undo_log.note(self._forget, chunk)
        self._starts.add(chunk.start.value)
        self._chunks[chunk.start.value] = chunk
        self.free_space -= chunk.size
        return chunk

    def _forget(self, chunk: Chunk[A]) -> None:
        start = chunk.start.value
        if self.undo_log is not None:
            self.undo_log.note(self._remember, chunk)
        del self._chunks[start]
        self._starts.remove(start)
        self.free_space += chunk.size

    def _last_from(self, value: int) -> Chunk[A] | None:
        """The last live chunk that begins at or before ``value``."""
        start = next(self._starts.irange(maximum=value, reverse=True), None)
        return None if start is None else self._chunks[start]

    def _overlapped(self, place: int, size: int) -> Chunk[A] | None:
        """The last live chunk that shares a byte with this range."""
        chunk = self._last_from(place + size - 1)
        return chunk if chunk is not None and chunk.stop > place else None

    def _distrust(self, answer: object, size: int, align: int) -> int:
        """Where an allocator said that a chunk is, unless it may not say so; the region has not changed yet."""
        if type(answer) is int:
            place = answer
        else:
            try:
                place = as_integer(answer, "place")
            except NotAnInteger:
                raise SwiommuError(
                    f"the allocator {self.allocator.name!r} answered {answer!r} for {size} bytes, which is no address",
                    size=size,
                ) from None
        inside = self.start.value <= place <= self.stop - size
        chunk = self._overlapped(place, size) if inside else None
        if inside and chunk is None and not place % align:
            return place
        said = f"the allocator {self.allocator.name!r} answered {place:#x} for {size} bytes aligned to {align}"
        if not inside:
            raise SwiommuError(
                f"{said}, outside the region {self.start.value:#x}-{self.stop - 1:#x}", start=place, size=size
            )
        if chunk is not None:
            raise AddressInUse(f"{said}, which overlaps the live {chunk!r}", start=place, size=size)
        # Inside and in nobody's way: the allocator has probably taken it, so it gets it back.
        self._give_back(place, size, f"{said}, which is not aligned")
        raise SwiommuError(f"{said}, which is not aligned", start=place, size=size, align=align)

    def _give_back(self, place: int, size: int, said: str) -> None:
        try:
            self.allocator.free(place, size)
        except SwiommuError as refusal:
            raise SwiommuError(f"{said}, and did not take it back: {refusal}", start=place, size=size) from refusal
