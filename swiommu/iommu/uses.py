"""Who maps which range of a domain's bus space from above: the way back, from a lower address to its users.

A domain that stands on another tells it here what it maps there, and where its page tables lie. Without this, nobody
below could know who still leads a device to what is about to be unmapped.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Any, NamedTuple

from intervaltree import IntervalTree

from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.iommu.stacked import Stacked

__all__ = ["Use", "Uses"]


class Use(NamedTuple):
    """``size`` bytes from ``start`` are reached by ``user`` from its own bus address ``iova``; None: its tables."""

    user: Stacked[Any]
    iova: int | None
    start: int
    size: int

    def __str__(self) -> str:
        what = "hold tables of" if self.iova is None else "are mapped by"
        where = "" if self.iova is None else f" at {self.iova:#x}"
        return f"{self.size:#x} bytes at {self.start:#x} {what} the domain of {self.user.input_space.name!r}{where}"


class Uses:
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
        self._by_iova: dict[Stacked[Any], list[tuple[int, int, int]]] = {}  # (iova, stop, start below), ascending
        self._tables: dict[tuple[Stacked[Any], int], int] = {}

    def __len__(self) -> int:
        return len(self._by_start)

    def __iter__(self) -> Iterator[Use]:
        return iter(self.over(0, 1 << 65))

    def add(self, user: Stacked[Any], iova: int, start: int, size: int) -> None:
        """``user`` leads from ``iova`` to ``start``."""
        insort(self._by_iova.setdefault(user, []), (iova, iova + size, start))
        self._by_start.addi(start, start + size, (user, iova))

    def remove(self, user: Stacked[Any], iova: int, size: int) -> None:
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

    def add_tables(self, user: Stacked[Any], start: int, size: int) -> None:
        """Page tables of ``user`` lie there."""
        self._tables[user, start] = size
        self._by_start.addi(start, start + size, (user, None))

    def remove_tables(self, user: Stacked[Any], start: int) -> None:
        """The tables that were put at ``start`` are gone."""
        self._by_start.removei(start, start + self._tables.pop((user, start)), (user, None))

    def over(self, start: int, stop: int) -> list[Use]:
        """Every use of a byte of ``[start, stop)``, cut to that range, by address."""
        uses = []
        for low, high, (user, iova) in self._by_start.overlap(start, stop):
            cut = max(low, start)
            at = None if iova is None else iova + cut - low
            uses.append(Use(user, at, cut, min(high, stop) - cut))
        return sorted(uses, key=lambda use: (use.start, use.user.input_space.name, use.iova or 0))

    def check(self) -> None:
        """Both ways hold the same, and no user has an address twice; `AssertionError` with a dump."""
        held: set[tuple[int, int, Stacked[Any], int | None]]
        held = {(start, start + b - a, user, a) for user, each in self._by_iova.items() for a, b, start in each}
        held |= {(start, start + size, user, None) for (user, start), size in self._tables.items()}
        found = {(low, high, *who) for low, high, who in self._by_start}
        assert held == found, f"by iova: {held}, by address: {found}"
        for user, each in self._by_iova.items():
            borders = [border for low, high, _ in each for border in (low, high)]
            assert borders == sorted(borders), f"{user.input_space.name}: {each}"
