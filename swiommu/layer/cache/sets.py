"""Sets of places, and who goes when one is full. Which set a key is of is for the caller to say, by a number."""

from __future__ import annotations

from itertools import chain
from random import Random
from typing import TYPE_CHECKING, Generic, TypeVar

from swiommu.layer.cache.shape import ReplacementPolicy

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from swiommu.layer.cache.shape import CacheShape

__all__ = ["Sets"]

V = TypeVar("V")


class _Set(Generic[V]):
    """One set; by itself first in, first out."""

    def __init__(self) -> None:
        self.held: dict[Hashable, V] = {}

    def used(self, key: Hashable) -> None:
        """It was asked for, and is there."""

    def put(self, key: Hashable, value: V) -> None:
        self.held[key] = value

    def remove(self, key: Hashable) -> None:
        del self.held[key]

    def victim(self) -> Hashable:
        return next(iter(self.held))


class _Lru(_Set[V]):
    def used(self, key: Hashable) -> None:
        self.held[key] = self.held.pop(key)


class _Random(_Set[V]):
    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def victim(self) -> Hashable:
        return self._random.choice(list(self.held))


class _Plru(_Set[V]):
    """``_bits[n]``: the half below the inner node n of the tree that is to go next; below n (root: 1) are 2n, 2n+1."""

    def __init__(self, ways: int) -> None:
        super().__init__()
        self._ways = ways
        self._bits = [0] * ways
        self._keys: list[Hashable | None] = [None] * ways
        self._where: dict[Hashable, int] = {}

    def used(self, key: Hashable) -> None:
        node = self._where[key] + self._ways
        while node > 1:
            self._bits[node // 2] = 1 - node % 2
            node //= 2

    def put(self, key: Hashable, value: V) -> None:
        way = self._keys.index(None)
        self._where[key], self._keys[way] = way, key
        super().put(key, value)
        self.used(key)

    def remove(self, key: Hashable) -> None:
        self._keys[self._where.pop(key)] = None
        super().remove(key)

    def victim(self) -> Hashable:
        node = 1
        while node < self._ways:
            node = 2 * node + self._bits[node]
        return self._keys[node - self._ways]


class Sets(Generic[V]):
    """What is kept in sets of ``shape``; a number chooses the set.

    ``conflicts`` and ``overflows`` count what went for want of room: while there was room in other sets, and while
    there was none anywhere.

    >>> from swiommu.layer.cache.shape import CacheShape
    >>> sets = Sets(CacheShape(4, ways=2))
    >>> [sets.put(number, key, key.upper()) for number, key in ((0, "a"), (2, "b"), (4, "c"))]
    [None, None, 'A']
    >>> sets.peek(2, "b"), sets.peek(0, "a"), len(sets), sets.conflicts, sets.overflows
    ('B', None, 2, 1, 0)
    """

    __slots__ = ("_count", "_places", "_random", "_sets", "_total", "conflicts", "overflows", "shape")

    def __init__(self, shape: CacheShape) -> None:
        self.shape = shape
        self.conflicts = self.overflows = 0
        self._places, self._total = shape.places, shape.sets
        # One generator for all sets, and only where one is asked for.
        self._random = Random(shape.seed) if shape.policy is ReplacementPolicy.RANDOM else None  # noqa: S311 - a simulation
        self._sets: dict[int, _Set[V]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(tuple(each.held.values()) for _, each in sorted(self._sets.items()))

    def peek(self, number: int, key: Hashable) -> V | None:
        """What is kept of ``key``; nothing notices."""
        held = self._sets.get(number % self._total)
        return None if held is None else held.held.get(key)

    def get(self, number: int, key: Hashable) -> V | None:
        """The same, as a use of it."""
        held = self._sets.get(number % self._total)
        if held is None:
            return None
        value = held.held.get(key)
        if value is not None:
            held.used(key)
        return value

    def put(self, number: int, key: Hashable, value: V) -> V | None:
        """Keep ``value`` anew, as just used; what had to go for it, if anything had."""
        held = self._sets.get(number % self._total)
        if held is None:
            held = self._sets[number % self._total] = self._new()
        gone = None
        if key in held.held:
            self.remove(number, key)
        elif self._places is not None and len(held.held) == self._places:
            if self._count == self.shape.entries:
                self.overflows += 1
            else:
                self.conflicts += 1
            victim = held.victim()
            gone = held.held[victim]
            held.remove(victim)
            self._count -= 1
        held.put(key, value)
        self._count += 1
        return gone

    def remove(self, number: int, key: Hashable) -> None:
        """Forget ``key``, which is there."""
        self._sets[number % self._total].remove(key)
        self._count -= 1

    def _new(self) -> _Set[V]:
        if self._random is not None:
            return _Random(self._random)
        if self.shape.policy is ReplacementPolicy.PLRU and self._places is not None:
            return _Plru(self._places)
        return _Lru() if self.shape.policy is ReplacementPolicy.LRU else _Set()
