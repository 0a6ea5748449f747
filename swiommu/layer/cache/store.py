"""The store of a cache: lines by whose answer they are and which block they are good for, and entries of walks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, cast

from swiommu.errors import InvalidArgument
from swiommu.layer.base import Extent
from swiommu.layer.cache.place import EVERY, Tag
from swiommu.layer.cache.sets import Sets
from swiommu.layer.cache.shape import CacheShape, ReplacementPolicy
from swiommu.layer.cache.walk import WalkCache
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from swiommu.layer.cache.changes import ChangeLog, Stale
    from swiommu.layer.cache.place import CacheHolder
    from swiommu.layer.path import Reach, Stage

__all__ = ["Composite", "Line", "TranslationCache"]


class Composite(NamedTuple):
    """An answer to the end of the way: ``reach`` as found for ``at``, ``nodes`` the layers it led through."""

    reach: Reach
    at: int
    nodes: tuple[Stage, ...]


class Line(NamedTuple):
    """What a cache keeps for one block: ``answer`` is good for ``size`` bytes from ``start``, or was once.

    ``filled``: the number of the last change that its cache's log knew of then.

    >>> from swiommu.address import Access
    >>> from swiommu.layer import Identity, Node, access
    >>> bypass = Node(Identity("bypass", width=32), tlb=TranslationCache())
    >>> _ = access(bypass, 0x1000, 4, Access.READ)
    >>> [(line.place, line.stages) for line in bypass.tlb]
    [('bypass', (('bypass', 4294967296),))]
    """

    tag: Tag
    block: int
    at: int
    start: int
    size: int
    answer: Extent | Composite
    filled: int = 0

    @property
    def place(self) -> str:
        """Whose answer it is."""
        return self.tag.place.name

    @property
    def stream(self) -> Hashable:
        """Who asked."""
        return self.tag.stream

    @property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """The page size of each stage that it went through, top first."""
        if isinstance(self.answer, Extent):
            return ((self.place, self.answer.block),)
        return tuple((part.layer, part.block) for part in self.answer.reach.parts)


class TranslationCache:
    """At most ``entries`` answers (None: no limit) in sets of ``ways`` (None: in one); ``policy`` says who goes.

    All knobs are those of a `CacheShape`, which can be given instead of ``entries``. ``walk``: one of these for each
    upper level of a walk of which entries are kept, that of the root first; ``walk_levels`` means that many with as
    many ``entries``. A walk goes on from the deepest entry that is kept: with n levels, one of s costs s - n
    references, and never less than the one for the leaf; only a ``tlb`` walks. ``audit``: hold each hit against the
    tables. That costs time, no references. ``log``: where to look for the change that made an answer stale.

    Who frees tables has to `invalidate` all that they were for before their pages are used again: until then, a kept
    upper entry leads into them, and what it finds there may be neither what was true nor what is.

    `hits` and `misses` count the answers asked for, `walk_hits` and `walk_misses` the upper entries (each level is
    asked at each walk), `conflicts` and `overflows` the lines that went for want of room while other sets had some and
    while none had, `evicted` both, `dropped` those that went by invalidation, `stale` how often a `Stale` line
    answered. One cache can serve many nodes, as that of an IOMMU with many domains. `InvalidArgument` for a shape that
    can't be, or a negative number of levels.

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

    __copy__ = no_shallow_copy

    def __init__(
        self,
        entries: int | CacheShape | None = None,
        *,
        ways: int | None = None,
        policy: ReplacementPolicy | str = ReplacementPolicy.LRU,
        seed: int = 0,
        walk_levels: int = 0,
        walk: Sequence[CacheShape] = (),
        audit: bool = True,
        log: ChangeLog | None = None,
    ) -> None:
        if not isinstance(entries, CacheShape):
            self.shape = CacheShape(
                entries, ways, cast("ReplacementPolicy", policy), seed
            )  # which finds the member of a text
        elif (ways, policy, seed) != (None, "lru", 0):
            raise InvalidArgument(f"the shape of a cache, {entries}, says its ways, policy and seed itself")
        else:
            self.shape = entries
        if walk_levels < 0:
            raise InvalidArgument(f"a cache of {walk_levels} levels of a walk: at least 0")
        if walk_levels and walk:
            raise InvalidArgument("levels of a walk are either counted or described, not both")
        self.walks = tuple(WalkCache(each) for each in walk or (CacheShape(self.shape.entries),) * walk_levels)
        self.audit = audit
        self.log = log
        self.hits = self.misses = self.dropped = 0
        self.stale: Counter[Stale] = Counter()
        self._lines: Sets[Line] = Sets(self.shape)
        self._blocks: dict[Tag, dict[int, int]] = {}  # how many lines there are of each size of block

    def __repr__(self) -> str:
        size = "lines" if self.entries is None else f"of {self.entries} lines"
        misses = "1 miss" if self.misses == 1 else f"{self.misses} misses"
        return f"TranslationCache({len(self)} {size}, {self.hits} hit{'s' * (self.hits != 1)}, {misses})"

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Line]:
        """The lines, set by set, who is to go first; looking does not count as using."""
        return iter(list(self._lines))

    @property
    def entries(self) -> int | None:
        """How many answers it holds at most."""
        return self.shape.entries

    @property
    def walk_levels(self) -> int:
        """Of how many upper levels of a walk entries are kept."""
        return len(self.walks)

    @property
    def walk_hits(self) -> int:
        """How often a level of a walk had an entry, over all levels."""
        return sum(walk.hits for walk in self.walks)

    @property
    def walk_misses(self) -> int:
        """How often it had none."""
        return sum(walk.misses for walk in self.walks)

    @property
    def conflicts(self) -> int:
        """Lines that went though other sets had room."""
        return self._lines.conflicts

    @property
    def overflows(self) -> int:
        """Lines that went because all sets were full."""
        return self._lines.overflows

    @property
    def evicted(self) -> int:
        """Lines that went for want of room."""
        return self.conflicts + self.overflows

    @property
    def stale_hits(self) -> int:
        """How many hits the tables contradicted."""
        return self.stale.total()

    def peek(self, place: CacheHolder, at: int, *, stream: Hashable = None) -> Line | None:
        """The line that would answer for ``at`` at ``place``; nothing is counted, no order changes.

        That of the layer alone goes before that of the whole way, where one cache keeps both.
        """
        tags = [tag for tag in self._blocks if tag.place is place and tag.stream == stream]
        for tag in sorted(tags, key=lambda tag: tag.combined):
            for block in self._blocks[tag]:
                line = self._lines.peek(at // block, (tag, block, at & -block))
                if line is not None:
                    return line
        return None

    def drop(
        self,
        place: CacheHolder | None = None,
        start: int = 0,
        size: int | None = None,
        *,
        stream: Hashable = EVERY,
        leaf: bool = False,
    ) -> int:
        """Forget what touches a range of inputs of ``place`` (None: of any) for ``stream``; how many lines that were.

        Entries of walks of the place go all, whatever the range, as with INVLPG; with ``leaf`` they all stay, as with
        a command for the last level only: right if no table went or came. This is the bare command to one cache.
        `invalidate` knows which caches, and in which order.
        """
        gone = [line for line in self._lines if _matches(line.tag, place, stream) and _touches(line, start, size)]
        for line in gone:
            self._lines.remove(line.at // line.block, (line.tag, line.block, line.at))
            self._uncount(line)
        if not leaf:
            for walk in self.walks:
                walk.drop(lambda tag: _matches(tag, place, stream))
        self.dropped += len(gone)
        return len(gone)

    # -- what nodes use

    def find(self, tag: Tag, at: int) -> Line | None:
        """The line for ``at``, counted as a hit or a miss."""
        for block in self._blocks.get(tag, ()):
            line = self._lines.get(at // block, (tag, block, at & -block))
            if line is not None:
                self.hits += 1
                return line
        self.misses += 1
        return None

    def keep(self, tag: Tag, at: int, run: Extent | Reach, answer: Extent | Composite) -> None:
        """Keep ``answer`` for the block of ``run`` around ``at``."""
        block = run.block
        first = at & -block
        line = Line(tag, block, first, run.input, run.size, answer, self.log.number if self.log is not None else 0)
        if self._lines.peek(first // block, (tag, block, first)) is None:
            blocks = self._blocks.setdefault(tag, {})
            if block not in blocks:  # the smallest is asked first: what is known best
                self._blocks[tag] = blocks = dict(sorted({**blocks, block: 0}.items()))
            blocks[block] += 1
        gone = self._lines.put(first // block, (tag, block, first), line)
        if gone is not None:
            self._uncount(gone)

    def _uncount(self, line: Line) -> None:
        blocks = self._blocks[line.tag]
        blocks[line.block] -= 1
        if not blocks[line.block]:
            del blocks[line.block]
            if not blocks:
                del self._blocks[line.tag]


def _matches(tag: Tag, place: CacheHolder | None, stream: Hashable) -> bool:
    return (place is None or tag.place is place) and (stream is EVERY or tag.stream == stream)


def _touches(line: Line, start: int, size: int | None) -> bool:
    # By all that the answer is good for, which may be more than its block.
    return line.start + line.size > start and (size is None or line.start < start + size)
