"""Where memory and devices lie in the physical space, in the shape of ``/proc/iomem``.

Ranges nest or stay apart, as the kernel's resource tree: one may lie wholly inside another, and two of the same
extent count as nested in the order they were added.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, Self

from swiommu.address import PhysAddr, PhysRange, PhysSpace
from swiommu.errors import AddressInUse, InputError, SpaceMismatch
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SystemMap"]

RAM = "System RAM"
# ARM's second view of RAM that starts elsewhere: the same bytes under another address, not more memory.
RAM_ALIAS = "System RAM (boot alias)"


class Entry(NamedTuple):
    """One named range; sorting by (start, -size, serial) puts parents before their children."""

    start: int
    stop: int
    serial: int
    name: str

    @property
    def is_ram(self) -> bool:
        """Whether the name is RAM's; the kernel adds the driver in parentheses to hot-added memory."""
        return self.name == RAM or (self.name.startswith(f"{RAM} (") and self.name != RAM_ALIAS)

    def __str__(self) -> str:
        return f"{self.start:08x}-{self.stop - 1:08x} : {self.name}"


class SystemMap:
    """Named ranges of one physical space: what lies at an address, and what of it is RAM.

    >>> iomem = '''00001000-0009fbff : System RAM
    ... 00100000-7fffffff : System RAM
    ...   01000000-01ffffff : Kernel code
    ... fec00000-fec003ff : IOAPIC 0'''
    >>> space = PhysSpace("ram")
    >>> system_map = SystemMap.from_lines(space, iomem.splitlines())
    >>> system_map.at(space.at(0x1234567))
    ['System RAM', 'Kernel code']
    >>> hex(system_map.top_of_ram()), str(system_map) == iomem
    ('0x80000000', True)
    """

    __slots__ = ("_by_extent", "_serials", "_tree", "space")

    __copy__ = no_shallow_copy

    def __init__(self, space: PhysSpace) -> None:
        # Imported here: it takes as long as starting Python does, and those who only want frames don't need it.
        from intervaltree import IntervalTree

        self.space = space
        # Ranges of the same extent are one interval: an interval tree finds equal ones by looking through all of them.
        self._tree = IntervalTree()
        self._by_extent: dict[tuple[int, int], list[Entry]] = {}
        self._serials = 0

    @classmethod
    def from_lines(cls, space: PhysSpace, lines: Iterable[str], *, path: str | None = None) -> Self:
        """Read ``/proc/iomem``: ``first-last : name`` in hex, children indented under their parent; blanks are skipped.

        Raises `InputError` with the line's number (and ``path``, if given) for a line of another shape, a range that
        is upside down, leaves its parent or the space, or crosses another; and when every address is zero, which is
        what the kernel shows to users other than root.
        """
        from intervaltree import Interval, IntervalTree

        system_map = cls(space)
        branch: list[tuple[int, Entry]] = []
        numbers: list[int] = []  # by the serial of an entry
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = system_map._parsed(line)
                _grow(branch, len(line) - len(line.lstrip()), entry)
            except InputError as error:
                raise InputError(str(error), path=path, line=number) from error
            numbers.append(number)
            system_map._by_extent.setdefault((entry.start, entry.stop), []).append(entry)
        entries = system_map._entries()
        if crossing := _crossing(entries):
            upper, lower = sorted(crossing, key=lambda entry: entry.serial)
            raise InputError(f"'{lower}' crosses the border of '{upper}'", path=path, line=numbers[lower.serial])
        if entries and all(entry.stop == 1 for entry in entries):
            raise InputError("every address is zero: only root can read the addresses of /proc/iomem", path=path)
        # A tree that is made at once, as one that grows by nested ranges takes the square of their number.
        system_map._tree = IntervalTree(Interval(*extent, same) for extent, same in system_map._by_extent.items())
        return system_map

    def add(self, extent: PhysRange, name: str) -> None:
        """Put a named range in the map, around those that it covers and inside those that cover it.

        Raises `AddressInUse` if it crosses the border of another, `SpaceMismatch` for a range of another space.
        """
        self._require_space(extent.start)
        self._add(extent.start.value, extent.stop, name)

    def at(self, addr: PhysAddr) -> list[str]:
        """The names of the ranges that hold this address, innermost last; empty where there is nothing."""
        return [entry.name for entry in self._holding(addr)]

    def is_ram(self, addr: PhysAddr) -> bool:
        """Whether this address is RAM, whatever the kernel put there."""
        return any(entry.is_ram for entry in self._holding(addr))

    def ram(self) -> list[PhysRange]:
        """The ranges of RAM, ascending; neighbours are one range, as they are one memory."""
        merged: list[list[int]] = []
        for entry in self._entries():
            if not entry.is_ram:
                continue
            if merged and entry.start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], entry.stop)
            else:
                merged.append([entry.start, entry.stop])
        return [PhysRange(self.space.at(start), stop - start) for start, stop in merged]

    def top_of_ram(self) -> int:
        """One past the last byte of RAM, as a plain number; 0 without RAM."""
        return max((entry.stop for entry in self._entries() if entry.is_ram), default=0)

    def check(self) -> None:
        """Assert: 1. ranges lie in the space, 2. any two of them nest or are apart."""
        entries = self._entries()
        for entry in entries:
            assert 0 <= entry.start < entry.stop <= self.space.limit, f"'{entry}' leaves {self.space!r}"
        crossing = _crossing(entries)
        assert not crossing, f"'{crossing[1]}' crosses '{crossing[0]}' in\n{self}"
        assert len(self._tree) == len(self._by_extent), "the tree holds each extent once"

    def __len__(self) -> int:
        return sum(map(len, self._by_extent.values()))

    def __str__(self) -> str:
        lines = []
        parents: list[Entry] = []
        for entry in self._entries():
            while parents and parents[-1].stop <= entry.start:
                parents.pop()
            lines.append(f"{'  ' * len(parents)}{entry}")
            parents.append(entry)
        return "\n".join(lines)

    def _parsed(self, line: str) -> Entry:
        extent, colon, name = line.strip().partition(" : ")
        first, dash, last = extent.partition("-")
        if not (colon and dash and name):
            raise InputError(f"expected 'first-last : name', found {line.strip()[:60]!r}")
        start, end = _hex(first), _hex(last)
        if end < start:
            raise InputError(f"the range {extent} ends before it starts")
        if end >= self.space.limit:
            raise InputError(f"the range {extent} leaves the {self.space.width}-bit space {self.space.name!r}")
        return Entry(start, end + 1, self._serial(), name)

    def _add(self, start: int, stop: int, name: str) -> None:
        added = Entry(start, stop, self._serial(), name)
        same = self._by_extent.get((start, stop))
        if same is not None:
            same.append(added)
            return
        for start_, stop_, others in self._tree.overlap(start, stop):
            if not ((start_ <= start and stop <= stop_) or (start <= start_ and stop_ <= stop)):
                raise AddressInUse(f"'{added}' crosses the border of '{others[0]}'", start=start, size=stop - start)
        self._by_extent[start, stop] = same = [added]
        self._tree.addi(start, stop, same)

    def _holding(self, addr: PhysAddr) -> list[Entry]:
        self._require_space(addr)
        return sorted(chain.from_iterable(found.data for found in self._tree.at(addr.value)), key=_outermost_first)

    def _entries(self) -> list[Entry]:
        return sorted(chain.from_iterable(self._by_extent.values()), key=_outermost_first)

    def _serial(self) -> int:
        self._serials += 1
        return self._serials - 1

    def _require_space(self, addr: PhysAddr) -> None:
        if addr.space is not self.space:
            raise SpaceMismatch(f"{addr!r} is not an address of {self.space!r}")


def _outermost_first(entry: Entry) -> tuple[int, int, int]:
    return entry.start, -entry.stop, entry.serial


def _crossing(entries: list[Entry]) -> tuple[Entry, Entry] | None:
    """Two of the entries, sorted by `_outermost_first`, that cross; None if any two nest or are apart."""
    around: list[Entry] = []
    for entry in entries:
        while around and around[-1].stop <= entry.start:
            around.pop()
        if around and entry.stop > around[-1].stop:
            return around[-1], entry
        around.append(entry)
    return None


def _grow(branch: list[tuple[int, Entry]], indent: int, entry: Entry) -> None:
    """Hang a line under the last one that is indented less, if it lies inside that one's range."""
    while branch and branch[-1][0] >= indent:
        branch.pop()
    if branch:
        parent = branch[-1][1]
        if not (parent.start <= entry.start and entry.stop <= parent.stop):
            raise InputError(f"'{entry}' leaves '{parent}', under which it stands")
    branch.append((indent, entry))


def _hex(text: str) -> int:
    """A number as the kernel prints it; Python's own idea of hex (signs, underscores, 0x) is too liberal here."""
    if not text or text.strip("0123456789abcdefABCDEF"):
        raise InputError(f"{text[:60]!r} is no hexadecimal address")
    return int(text, 16)
