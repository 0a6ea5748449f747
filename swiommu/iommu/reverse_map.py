"""Who maps which range of a domain's bus space from above: the way back, from a lower address to its users.

A domain that stands on another tells it here what it maps there, and where its page tables lie. Without this, nobody
below could know who still leads a device to what is about to be unmapped.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, NamedTuple, Protocol

from intervaltree import IntervalTree

from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Reference", "ReverseMap"]


class User(Protocol):
    """The place of a domain above, as far as it is written down below."""

    @property
    def name(self) -> str:
        """The name of its bus space."""
        ...

    def require_unused(self, start: int, stop: int) -> None:
        """`Busy` if a domain above uses a byte of the range."""
        ...

    def invalidated_with(self, iova: int, size: int) -> tuple[int, int]:
        """From where to where it would unmap if these bytes were taken away below; `Busy` if it can't."""
        ...

    def invalidate(self, iova: int, size: int) -> None:
        """Unmap what leads to something that is about to go."""
        ...


class Reference(NamedTuple):
    """``size`` bytes from ``start`` are reached by the domain of ``name``, from its own bus address ``iova``.

    ``user`` is its place in the stack; ``user`` and ``iova`` are None where its page tables are in these bytes.
    """

    name: str
    user: User | None
    iova: int | None
    start: int
    size: int

    def __str__(self) -> str:
        what = "hold tables of" if self.iova is None else "are mapped by"
        where = "" if self.iova is None else f" at {self.iova:#x}"
        return f"{self.size:#x} bytes at {self.start:#x} {what} the domain of {self.name!r}{where}"


class ReverseMap:
    """What the domains above map into one bus space, by both addresses; plain ints, ranges of any size.

    The same address can have many users, also twice the same one; a user's own addresses are used once.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram")
    >>> lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
    >>> upper = PagedDomain(BusSpace("nic", width=32), below=lower)
    >>> upper.map(upper.input_space.at(0x8000), lower.input_space.at(0x5000), 0x2000)
    >>> print(*lower.uses.over(0x6000, 0x10000))
    0x1000 bytes at 0x6000 are mapped by the domain of 'nic' at 0x9000
    """

    __copy__ = no_shallow_copy

    def __init__(self) -> None:
        self._by_start = IntervalTree()
        self._by_iova: dict[User, list[tuple[int, int, int]]] = {}  # (iova, stop, start below), ascending
        self._tables: dict[int, tuple[str, int]] = {}  # by address: of whom, bytes

    def __len__(self) -> int:
        return len(self._by_start)

    def __iter__(self) -> Iterator[Reference]:
        return iter(self.over(0, 1 << 65))

    def add(self, user: User, iova: int, start: int, size: int) -> None:
        """``user`` leads from ``iova`` to ``start``."""
        insort(self._by_iova.setdefault(user, []), (iova, iova + size, start))
        self._by_start.addi(start, start + size, (user, iova))

    def remove(self, user: User, iova: int, size: int) -> None:
        """``user`` leads nowhere any more from these addresses of its own; those that led nowhere before stay so."""
        held = self._by_iova.get(user, [])
        first = bisect_left(held, (iova,))
        if first and held[first - 1][1] > iova:
            first -= 1
        end, stop = first, iova + size
        while end < len(held) and held[end][0] < stop:
            end += 1
        gone, left = held[first:end], []
        for low, high, start in gone:
            self._by_start.removei(start, start + high - low, (user, low))
            if low < iova:
                left.append((low, iova, start))
            if stop < high:
                left.append((stop, high, start + stop - low))
        held[first:end] = left
        for low, high, start in left:
            self._by_start.addi(start, start + high - low, (user, low))
        if not held:
            self._by_iova.pop(user, None)

    def add_tables(self, name: str, start: int, size: int) -> None:
        """Page tables of the domain of ``name`` are there."""
        self._tables[start] = name, size
        self._by_start.addi(start, start + size, (name, None))

    def remove_tables(self, start: int) -> None:
        """The tables that were put at ``start`` are gone."""
        name, size = self._tables.pop(start)
        self._by_start.removei(start, start + size, (name, None))

    def over(self, start: int, stop: int) -> list[Reference]:
        """Every reference to a byte of ``[start, stop)``, cut to that range, by address."""
        found = []
        for low, high, (user, iova) in self._by_start.overlap(start, stop):
            cut, end = max(low, start), min(high, stop)
            if iova is None:
                found.append(Reference(user, None, None, cut, end - cut))
            else:
                found.append(Reference(user.name, user, iova + cut - low, cut, end - cut))
        return sorted(found, key=lambda each: (each.start, each.name, each.iova or 0))

    def check(self) -> None:
        """Both ways hold the same, and no user has an address twice; `AssertionError` with a dump."""
        held: set[tuple[int, int, User | str, int | None]]
        held = {(start, start + b - a, user, a) for user, each in self._by_iova.items() for a, b, start in each}
        held |= {(start, start + size, name, None) for start, (name, size) in self._tables.items()}
        found = {(low, high, *who) for low, high, who in self._by_start}
        assert held == found, f"by iova: {held}, by address: {found}"
        for user, each in self._by_iova.items():
            borders = [border for low, high, _ in each for border in (low, high)]
            assert borders == sorted(borders), f"{user.name}: {each}"
