"""Where caches are, and whom they answer: every stream, or one."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["EVERY", "Cache", "CacheHolder", "Tag"]


class _Every(enum.Enum):
    EVERY = "every stream"


EVERY = _Every.EVERY
"""All streams; None is one of them, the stream of accesses that name none."""


class Cache(Protocol):
    """A cache, as those see it who tell it of a change."""

    def drop(
        self, place: CacheHolder, start: int, size: int | None, *, stream: Hashable = EVERY, leaf: bool = False
    ) -> int:
        """Forget what ``place`` said of ``size`` bytes from ``start`` on; answers how many lines went."""
        ...


class CacheHolder(Protocol):
    """Where caches are: a node, or a chain. ``feeds``, and its reverse ``fed_by``: see `feed`."""

    feeds: dict[CacheHolder, None]
    fed_by: dict[CacheHolder, None]

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def tlb(self) -> Cache | None:
        """The cache of its own layer's answers."""
        ...

    @property
    def iotlb(self) -> Cache | None:
        """The cache of where the whole way from here ended."""
        ...

    def above(self) -> list[CacheHolder]:
        """The places whose caches may hold what was found out through this one."""
        ...


class Tag(NamedTuple):
    """Whose answer a line is: of which place, alone or to the end of the way, for which stream, over what."""

    place: CacheHolder
    combined: bool
    stream: Hashable
    rest: tuple[object, ...]
