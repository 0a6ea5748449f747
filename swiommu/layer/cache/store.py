"""The store of a cache: lines by whose answer they are, and by the block that they are good for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from swiommu.errors import InvalidArgument
from swiommu.layer.cache.place import EVERY

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from swiommu.layer.base import Extent
    from swiommu.layer.cache.audit import Stale
    from swiommu.layer.cache.place import CacheHolder
    from swiommu.layer.node import Node
    from swiommu.layer.path import Path, Reach

__all__ = ["Composite", "Line", "Tag", "TranslationCache"]


class Tag(NamedTuple):
    """Whose answer a line is: of which place, alone or to the end of the way, for which stream, over what."""

    place: CacheHolder
    combined: bool
    stream: Hashable
    rest: tuple[Path, ...]


class Composite(NamedTuple):
    """An answer to the end of the way: ``reach`` as found for ``at``, ``nodes`` the layers it led through."""

    reach: Reach
    at: int
    nodes: tuple[Node, ...]


class Line(NamedTuple):
    """What a cache keeps for one block: ``answer`` is good for ``size`` bytes from ``start``, or was once."""

    place: str
    stream: Hashable
    block: int
    start: int
    size: int
    answer: Extent | Composite


class TranslationCache:
    """At most ``entries`` answers (None: no limit), the least recently used goes first; as many words of tables.

    ``walk_levels``: of how many upper levels of a walk the entries are kept, so that a walk of s levels costs
    s - ``walk_levels`` references, and never less than the one for the leaf; only a ``tlb`` walks. ``audit``: hold each
    hit against the tables. That costs time, no references.

    Who frees tables has to `invalidate` all that they were for before their pages are used again: until then, a kept
    upper entry leads into them, and what it finds there may be neither what was true nor what is.

    `hits` and `misses` count the answers asked for, `walk_hits` and `walk_misses` the upper entries, `evicted` and
    `dropped` the lines that went for want of room and by invalidation, `stale` how often a `Stale` line answered.
    One cache can serve many nodes, as that of an IOMMU with many domains. `InvalidArgument` for less than one entry or
    a negative number of levels.

    >>> from swiommu.address import Access, Prot
    >>> from swiommu.layer import Node, Paged, access, invalidate
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> iommu = Node(Paged("iommu", table), tlb=TranslationCache(64))
    >>> table.map_run(0x1000, 0x8000, 0x1000, 1, Prot.READ)
    >>> [access(iommu, 0x1000, 4, Access.READ).refs for _ in range(3)], iommu.tlb
    ([4, 0, 0], TranslationCache(1 of 64 lines, 2 hits, 1 miss))
    >>> _ = table.unmap(0x1000, 0x1000)
    >>> access(iommu, 0x1000, 4, Access.READ).stale[0].now is None  # nobody told the cache
    True
    >>> invalidate(iommu, 0x1000, 0x1000)
    [Dropped(place='iommu', cache='tlb', lines=1)]
    >>> print(access(iommu, 0x1000, 4, Access.READ).fault)
    translation fault of READ access at 0x1000 in layer 'iommu'
    """

    def __init__(self, entries: int | None = None, *, walk_levels: int = 0, audit: bool = True) -> None:
        if entries is not None and entries < 1:
            raise InvalidArgument(f"a cache of {entries} entries: at least 1 is needed", entries=entries)
        if walk_levels < 0:
            raise InvalidArgument(f"a cache of {walk_levels} levels of a walk: at least 0", walk_levels=walk_levels)
        self.entries = entries
        self.walk_levels = walk_levels
        self.audit = audit
        self.hits = self.misses = self.walk_hits = self.walk_misses = self.evicted = self.dropped = 0
        self.stale: Counter[Stale] = Counter()
        self._lines: dict[tuple[Tag, int, int], Line] = {}
        self._blocks: dict[Tag, dict[int, int]] = {}  # how many lines there are of each size of block
        self._words: dict[tuple[Tag, int], int] = {}

    def __repr__(self) -> str:
        size = "lines" if self.entries is None else f"of {self.entries} lines"
        misses = "1 miss" if self.misses == 1 else f"{self.misses} misses"
        return f"TranslationCache({len(self)} {size}, {self.hits} hit{'s' * (self.hits != 1)}, {misses})"

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Line]:
        """The lines, least recently used first; looking does not count as using."""
        return iter(list(self._lines.values()))

    @property
    def stale_hits(self) -> int:
        """How many hits the tables contradicted."""
        return self.stale.total()

    def drop(
        self, place: CacheHolder | None = None, start: int = 0, size: int | None = None, *, stream: Hashable = EVERY
    ) -> int:
        """Forget what touches a range of inputs of ``place`` (None: of any) for ``stream``; how many lines that were.

        Entries of walks of the place go all, whatever the range, as with INVLPG: an entry does not say what it covers.
        This is the bare command to one cache. `invalidate` knows which caches, and in which order.
        """
        lines = self._lines.items()
        gone = [key for key, line in lines if _matches(key[0], place, stream) and _touches(line, start, size)]
        for key in gone:
            self._remove(key)
        for word in [word for word in self._words if _matches(word[0], place, stream)]:
            del self._words[word]
        self.dropped += len(gone)
        return len(gone)

    # -- what nodes use

    def find(self, tag: Tag, at: int) -> Extent | Composite | None:
        """The answer for ``at``, counted as a hit or a miss."""
        for block in self._blocks.get(tag, ()):
            key = (tag, block, at & -block)
            line = self._lines.get(key)
            if line is not None:
                self.hits += 1
                self._lines[key] = self._lines.pop(key)
                return line.answer
        self.misses += 1
        return None

    def keep(self, tag: Tag, at: int, run: Extent | Reach, answer: Extent | Composite) -> None:
        """Keep ``answer`` for the block of ``run`` around ``at``."""
        block = run.block
        key = (tag, block, at & -block)
        if key in self._lines:
            self._remove(key)
        self._lines[key] = Line(tag.place.name, tag.stream, block, run.input, run.size, answer)
        blocks = self._blocks.setdefault(tag, {})
        if block not in blocks:  # the smallest is asked first: what is known best
            self._blocks[tag] = blocks = dict(sorted({**blocks, block: 0}.items()))
        blocks[block] += 1
        if self.entries is not None and len(self._lines) > self.entries:
            self._remove(next(iter(self._lines)))
            self.evicted += 1

    def word(self, tag: Tag, address: int) -> int | None:
        """The upper entry at ``address``, counted."""
        found = self._words.get((tag, address))
        if found is None:
            self.walk_misses += 1
        else:
            self.walk_hits += 1
            self._words[tag, address] = self._words.pop((tag, address))
        return found

    def keep_word(self, tag: Tag, address: int, word: int) -> None:
        """Keep the upper entry at ``address``."""
        self._words[tag, address] = word
        if self.entries is not None and len(self._words) > self.entries:
            del self._words[next(iter(self._words))]

    def _remove(self, key: tuple[Tag, int, int]) -> None:
        tag, block, _ = key
        del self._lines[key]
        blocks = self._blocks[tag]
        blocks[block] -= 1
        if not blocks[block]:
            del blocks[block]
            if not blocks:
                del self._blocks[tag]


def _matches(tag: Tag, place: CacheHolder | None, stream: Hashable) -> bool:
    return (place is None or tag.place is place) and (stream is EVERY or tag.stream == stream)


def _touches(line: Line, start: int, size: int | None) -> bool:
    # By all that the answer is good for, which may be more than its block.
    return line.start + line.size > start and (size is None or line.start < start + size)
