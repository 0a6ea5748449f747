"""A walk whose upper entries may be kept: what is known of them is not read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import NotFound
from swiommu.layer.path import HopKind

if TYPE_CHECKING:
    from swiommu.layer.base import Read
    from swiommu.layer.cache.ask import Ask
    from swiommu.layer.cache.store import Tag

__all__ = ["Walk"]


class Walk:
    """The entries of one walk, the upper ones from the cache where it has them."""

    def __init__(self, ask: Ask, tag: Tag, read: Read) -> None:
        self._ask, self._tag, self._read = ask, tag, read
        self._words: list[tuple[int, int]] = []
        self._depth = 0
        self.used = False

    def __call__(self, address: int, width: int = 8) -> int:
        """The next entry of this walk."""
        depth, self._depth = self._depth, self._depth + 1
        ask = self._ask
        upper = depth < ask.cache.walk_levels
        word = ask.cache.word(self._tag, address) if upper else None
        if word is not None:
            self.used = True
            ask.tell(HopKind.HIT, address, value=word)
            return word
        try:
            word = self._read(address, width)
        except NotFound:
            if not self.used:
                raise
            word = 0  # a kept entry led to a page that is no table any more: there is nothing
        if upper:
            self._words.append((address, word))
        return word

    def keep(self) -> None:
        """Keep what was read, all but the leaf: it is what the lines are for."""
        cache = self._ask.cache
        for address, word in self._words if self._depth > cache.walk_levels else self._words[:-1]:
            cache.keep_word(self._tag, address, word)
