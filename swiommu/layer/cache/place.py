"""Where caches are, and whom they answer: every stream, or one."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from swiommu.layer.cache.store import TranslationCache

__all__ = ["EVERY", "CacheHolder"]


class _Every(enum.Enum):
    EVERY = "every stream"


EVERY = _Every.EVERY
"""All streams; None is one of them, the stream of accesses that name none."""


class CacheHolder(Protocol):
    """Where caches are: a node, or a chain. ``feeds``, and its reverse ``fed_by``: see `feed`."""

    iotlb: TranslationCache | None
    feeds: dict[CacheHolder, None]
    fed_by: dict[CacheHolder, None]

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def tlb(self) -> TranslationCache | None:
        """The cache of its own layer's answers."""
        ...

    def above(self) -> list[CacheHolder]:
        """The places whose caches may hold what was found out through this one."""
        ...
