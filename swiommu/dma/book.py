"""Which streaming mappings of a device are live, so that a driver's mistakes are errors instead of silence."""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import TYPE_CHECKING

import attrs

from swiommu.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.dma.backend import Mapped
    from swiommu.dma.kinds import DmaDirection

__all__ = ["Book", "Streaming"]


@attrs.define(eq=False)
class Streaming:
    """One live mapping: ``size`` bytes from the bus address ``start``, or a list of ``nents`` entries (else 0)."""

    start: int
    size: int
    direction: DmaDirection
    parts: Sequence[Mapped]
    nents: int = 0


class Book:
    """Live mappings by bus address. Several may have the same one: without an IOMMU, bytes may be mapped twice.

    >>> from swiommu.dma import DmaDirection
    >>> book = Book()
    >>> book.add(Streaming(0x1000, 512, DmaDirection.TO_DEVICE, ()))
    >>> book.holding(0x1100, 4).start, len(book)
    (4096, 1)
    """

    def __init__(self) -> None:
        self._by_start: dict[int, list[Streaming]] = {}
        self._starts: list[int] = []
        self._longest = 0  # ever: how far below an address a mapping that holds it may begin

    def __len__(self) -> int:
        return sum(map(len, self._by_start.values()))

    def add(self, mapping: Streaming) -> None:
        """Note a new mapping."""
        if mapping.start not in self._by_start:
            self._by_start[mapping.start] = []
            insort(self._starts, mapping.start)
        self._by_start[mapping.start].append(mapping)
        self._longest = max(self._longest, mapping.size)

    def find(self, start: int, size: int, direction: DmaDirection, nents: int = 0) -> Streaming:
        """The oldest mapping that an unmap with these arguments means.

        `NotFound` if none begins there, `InvalidArgument` if size, direction or number of entries are not those of
        any that does.
        """
        here = self._by_start.get(start, [])
        for mapping in here:
            if (mapping.size, mapping.direction, mapping.nents) == (size, direction, nents):
                return mapping
        if not here:
            raise NotFound(f"nothing is mapped at bus address {start:#x}", start=start)
        mapped = here[0]
        raise InvalidArgument(
            f"unmapping {_what(size, nents)} {direction.name} at {start:#x}, where {_what(mapped.size, mapped.nents)} "
            f"{mapped.direction.name} are mapped",
            start=start,
            size=size,
        )

    def remove(self, mapping: Streaming) -> None:
        """Forget a mapping that `find` answered."""
        here = self._by_start[mapping.start]
        here.remove(mapping)
        if not here:
            del self._by_start[mapping.start]
            del self._starts[bisect_right(self._starts, mapping.start) - 1]

    def holding(self, address: int, size: int) -> Streaming:
        """A single mapping that holds all of these bytes; `NotFound` if there is none."""
        for index in range(bisect_right(self._starts, address) - 1, -1, -1):
            start = self._starts[index]
            if start + self._longest <= address:
                break
            for mapping in self._by_start[start]:
                if not mapping.nents and address + size <= start + mapping.size:
                    return mapping
        raise NotFound(f"no mapping holds {size} bytes at bus address {address:#x}", start=address, size=size)

    def check(self) -> None:
        """Assert: 1. starts are sorted and those of the mappings, 2. no place is kept for none."""
        assert self._starts == sorted(self._by_start), f"{self._starts}, {self._by_start}"
        for start, here in self._by_start.items():
            assert here, f"nothing at {start:#x}"
            assert all(mapping.start == start for mapping in here), f"{here} at {start:#x}"


def _what(size: int, nents: int) -> str:
    return f"{nents} entries" if nents else f"{size} bytes"
