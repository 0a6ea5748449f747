"""Two-level segregated fit: holes stand in classes by size, and the newest of the first class that serves is cut.

Placing and giving back cost the same however many blocks there are; placement is a good fit, not the best. Source:
Masmano, Ripoll, Crespo, Real, "TLSF: a new dynamic memory allocator for real-time systems" (ECRTS 2004). Here the two
levels are one number: a class is the size in pages written with ``1 + 4`` leading bits, as a float would be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import as_integers
from swiommu.errors import AddressInUse, InvalidArgument, NoMemory, NotFound
from swiommu.locking import no_shallow_copy
from swiommu.region.allocator import FailSwitch, check_range, check_request
from swiommu.region.reports import Reports
from swiommu.region.taken import Taken
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.undo import UndoLog

__all__ = ["Tlsf"]

_BITS = 4  # of the second level: 16 classes for each power of two
_NONE = -1  # no hole


def _class_of(pages: int) -> int:
    """The class that a hole of this many pages stands in."""
    shift = max(pages.bit_length() - _BITS - 1, 0)
    return (shift << _BITS) + (pages >> shift)


def _class_for(pages: int) -> int:
    """The lowest class all of whose holes have at least this many pages."""
    shift = max(pages.bit_length() - _BITS - 1, 0)
    return _class_of(pages + (1 << shift) - 1)


class Tlsf(Undoable, Reports):
    """Two-level segregated fit over ``size`` bytes from the absolute address ``start``.

    The search rounds the request up to a class of holes that all serve, alignment included. Only when there is no
    such hole it looks at those that may serve, one after another, so that it never refuses what fits.

    Raises `InvalidArgument` for a start or size that is not a whole number of pages.

    >>> tlsf = Tlsf(0x1000, 0x10000)
    >>> hex(tlsf.alloc(0x2000, 0x1000)), hex(tlsf.alloc(0x2000, 0x8000)), hex(tlsf.alloc(0x1000, 0x1000))
    ('0x1000', '0x8000', '0x3000')
    >>> tlsf.free(0x1000, 0x2000)
    >>> hex(tlsf.alloc(0x1000, 0x1000))
    '0x1000'
    """

    __slots__ = (
        "_fail",
        "_holes",
        "_map",
        "_newest",
        "_shift",
        "_starts",
        "_taken",
        "free_space",
        "page_size",
        "size",
        "start",
    )

    __copy__ = no_shallow_copy

    name = "tlsf"

    def __init__(self, start: int, size: int, *, page_size: int = 4096) -> None:
        start, size, page_size = check_range(start, size, page_size)
        if start % page_size or size % page_size:
            raise InvalidArgument(
                f"{size:#x} bytes at {start:#x} are not whole pages of {page_size} bytes", start=start, size=size
            )
        self.start = start
        self.size = size
        self.page_size = page_size
        self.free_space = 0
        self._shift = page_size.bit_length() - 1
        # Holes by start, each with its size and the next older and newer one of its class, as published: so it is put
        # back into its place as easily as it was taken out. And by one past their end; a bit for each class with some.
        self._holes: dict[int, list[int]] = {}
        self._starts: dict[int, int] = {}
        self._newest = [_NONE] * (_class_of(size >> self._shift) + 1)
        self._map = 0
        self._taken = Taken(page_size)
        self._fail = FailSwitch()
        self.undo_log = None
        self._insert(start, size)

    def alloc(self, size: int, align: int) -> int:
        """Take ``size`` bytes (whole pages) at a multiple of ``align`` bytes; `NoMemory` if no hole serves.

        >>> Tlsf(0x3000, 0x3000).alloc(0x1000, 0x2000) == 0x4000
        True
        """
        size, align = check_request(size, align, self.page_size)
        self._fail.refuse(size)
        hole = self._find(size, align)
        if hole is None:
            raise NoMemory(self._no_hole(size, align), size=size, align=align, free_space=self.free_space)
        length = self._remove(hole)
        place = (hole + align - 1) & -align
        left = hole + length - place - size
        # Whatever is left above goes back first: the part below is the newer hole.
        if left:
            self._insert(place + size, left)
        if place != hole:
            self._insert(hole, place - hole)
        self._taken.add(place, size)
        return place

    def fits(self, size: int, align: int) -> bool:
        """Whether `alloc` would succeed now; nothing changes.

        >>> Tlsf(0x3000, 0x3000).fits(0x2000, 0x8000)
        False
        """
        size, align = check_request(size, align, self.page_size)
        return self._find(size, align) is not None

    def free(self, start: int, size: int) -> None:
        """Give ``size`` bytes at ``start`` back, an allocation or any whole pages of some; merges with both sides.

        Every byte must be taken, else `NotFound` and nothing changed.
        """
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        if self._taken.remove(start, size) is None:
            raise NotFound(f"{size} bytes at {start:#x} are not allocated", start=start, size=size)
        before = self._starts.get(start)
        if start + size in self._holes:
            size += self._remove(start + size)
        if before is not None:
            size += self._remove(before)
            start = before
        self._insert(start, size)

    def reserve(self, start: int, size: int) -> None:
        """Take exactly ``size`` bytes (whole pages) at ``start``; `AddressInUse` if any of them is taken or outside.

        Costs a search for the hole: no longer than the fewer of the pages before ``start`` in it and the holes.
        """
        if type(start) is not int or type(size) is not int:
            start, size = as_integers(start=start, size=size)
        hole = self._hole_of(start)
        stop = start + size
        if hole is None or size < 1 or (start | size) % self.page_size or stop > hole + self._holes[hole][0]:
            raise AddressInUse(f"{size} bytes at {start:#x} are not all free", start=start, size=size)
        end = hole + self._remove(hole)
        if stop < end:
            self._insert(stop, end - stop)
        if hole < start:
            self._insert(hole, start - hole)
        self._taken.add(start, size)

    def holes(self) -> list[tuple[int, int]]:
        """Every hole as (start, size), by address; two holes never touch."""
        return sorted((start, hole[0]) for start, hole in self._holes.items())

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`; the order of holes comes back too."""
        log.save(self._fail, "left")
        return (self._taken,)

    def fail_nth(self, n: int) -> None:
        """Make the ``n``-th following `alloc` (1 = the next) raise `NoMemory`, once."""
        self._fail.arm(n)

    def check(self) -> None:
        """Raise AssertionError with the holes unless they and what is taken are all there is, each in its class."""
        self._taken.check()
        dump = f"{self!r} holes {self.holes()}, taken {sorted(self._taken.ranges.items())}"
        last, was_hole = self.start, False
        for start, size, is_hole in sorted(
            [(*hole, True) for hole in self.holes()] + [(*each, False) for each in self._taken.ranges.items()]
        ):
            assert start == last, f"{start:#x} does not follow {last:#x}: {dump}"
            assert not (was_hole and is_hole), f"the hole at {start:#x} touches the one before: {dump}"
            last, was_hole = start + size, is_hole
        assert last == self.start + self.size, f"the last ends at {last:#x}: {dump}"
        sizes = dict(self.holes())
        assert self._starts == {start + size: start for start, size in sizes.items()}, f"ends are wrong: {dump}"
        linked = [(index, start) for index in range(len(self._newest)) for start in self._of_class(index)]
        classes = sorted((_class_of(size >> self._shift), start) for start, size in sizes.items())
        assert sorted(linked) == classes, f"classes are {linked}: {dump}"
        assert self._map == sum({1 << index for index, _ in linked}), f"{self._map:#x}: {dump}"
        older = {start: hole[1] for start, hole in self._holes.items() if hole[1] != _NONE}
        newer = {hole[2]: start for start, hole in self._holes.items() if hole[2] != _NONE}
        assert older == newer, f"links to older holes {older}, back from newer ones {newer}: {dump}"
        assert self.free_space == sum(sizes.values()), f"free space {self.free_space}: {dump}"

    def __repr__(self) -> str:
        return f"Tlsf({self.start:#x}, {self.size:#x}, free_space={self.free_space}, holes={len(self._holes)})"

    def _find(self, size: int, align: int) -> int | None:
        # Every hole starts at a page, so this much always has an aligned place.
        enough = _class_for((size + align - self.page_size) >> self._shift)
        above = self._map >> enough
        if above:
            return self._newest[enough + (above & -above).bit_length() - 1]
        for index in range(_class_of(size >> self._shift), min(enough, len(self._newest))):
            for hole in self._of_class(index):
                if ((hole + align - 1) & -align) + size <= hole + self._holes[hole][0]:
                    return hole
        return None

    def _of_class(self, index: int) -> Iterator[int]:
        """The holes of a class, the newest first."""
        hole = self._newest[index]
        while hole != _NONE:
            yield hole
            hole = self._holes[hole][1]

    def _insert(self, start: int, size: int) -> None:
        index = _class_of(size >> self._shift)
        older = self._newest[index]
        if older != _NONE:
            self._holes[older][2] = start
        self._holes[start] = [size, older, _NONE]
        self._starts[start + size] = start
        self._newest[index] = start
        self._map |= 1 << index
        self.free_space += size
        if self.undo_log is not None:
            self.undo_log.note(self._remove, start)

    def _remove(self, start: int) -> int:
        hole = self._holes.pop(start)
        size, older, newer = hole
        del self._starts[start + size]
        if older != _NONE:
            self._holes[older][2] = newer
        if newer != _NONE:
            self._holes[newer][1] = older
        else:
            index = _class_of(size >> self._shift)
            self._newest[index] = older
            if older == _NONE:
                self._map &= ~(1 << index)
        self.free_space -= size
        if self.undo_log is not None:
            self.undo_log.note(self._link, start, hole)
        return size

    def _link(self, start: int, hole: list[int]) -> None:
        """Undo a `_remove`: the holes beside it are what they were then."""
        size, older, newer = hole
        self._holes[start] = hole
        self._starts[start + size] = start
        if older != _NONE:
            self._holes[older][2] = start
        if newer != _NONE:
            self._holes[newer][1] = start
        else:
            index = _class_of(size >> self._shift)
            self._newest[index] = start
            self._map |= 1 << index
        self.free_space += size

    def _hole_of(self, start: int) -> int | None:
        """The last hole that begins at or before ``start``."""
        place = start
        for _ in range(len(self._holes)):
            if place in self._holes:
                return place
            place -= self.page_size
            if place < self.start:
                return None
        return max((hole for hole in self._holes if hole <= start), default=None)

    def _no_hole(self, size: int, align: int) -> str:
        return (
            f"no hole for {size} bytes aligned to {align}: {self.free_space} bytes are free in "
            f"{len(self._holes)} holes, the largest of {max((hole[0] for hole in self._holes.values()), default=0)}"
        )
