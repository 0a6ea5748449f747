"""The bus address allocator of Linux, decision for decision (``struct iova_domain``, drivers/iommu/iova.c).

All numbers are page frames: pfn = address >> log2(granule). Addresses go down from the limit: a search starts at the
range that was allocated last (one cursor below 4 GiB, one for the rest) and looks into the holes above it only when
nothing below fits. Ranges of up to 32 pages are rounded up to a power of two and kept in caches when they are freed.

The kernel keeps its ranges in a red-black tree and walks from one to the next; here they stand in a list, sorted
downwards, because new ranges then go to its end, and the holes between them are searched by length
(`swiommu.iommu.iova.free_space`), because walks past a hundred thousand ranges are long.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, ClassVar, Final, Self

import attrs

from swiommu.address import PAGE_SIZE, as_integer, as_integers, is_power_of_two
from swiommu.errors import InvalidArgument, NoSpace, NotFound
from swiommu.iommu.iova.free_space import FreeSpace
from swiommu.iommu.iova.rcache import IovaRcache
from swiommu.locking import bare_copy, no_shallow_copy
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of
from swiommu.undo import Undoable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swiommu.undo import UndoLog

__all__ = ["IOVA_ANCHOR", "IovaDomain", "IovaStats"]

IOVA_ANCHOR: Final = (1 << 64) - 1


@attrs.define
class IovaStats:
    """What the allocator did so far.

    ``hits``: calls that a cache served, ``slow``: searches of the tree, ``visited``: ranges they looked at,
    ``failed``: searches that found nothing, ``flushed``: times that all caches were emptied.
    """

    hits: int = 0
    slow: int = 0
    visited: int = 0
    failed: int = 0
    flushed: int = 0


class IovaDomain(Undoable):
    """Bus addresses in units of ``granule`` bytes, none below ``start_pfn``, asked for by ``cpus`` CPUs.

    ``profile``: the kernel whose magazines these are.
    ``cached32_node`` and ``cached_node`` are the cursors, as the first pfn of the range they stand on.
    `advance` runs the clock, which moves only the trimming of the caches' depots.
    Raises `InvalidArgument` for numbers that make no allocator.

    >>> domain = IovaDomain()
    >>> [hex(domain.alloc_iova_fast(size, 0xFFFFF, flush_rcache=True)) for size in (1, 4, 1, 40, 2)]
    ['0xfffff', '0xffff8', '0xffff7', '0xfffc0', '0xfffbe']
    >>> domain.free_iova_fast(0xFFFF8, 4)
    >>> hex(domain.alloc_iova_fast(3, 0xFFFFF, flush_rcache=True)), domain.stats.hits, domain.stats.visited
    ('0xffff8', 1, 5)
    """

    RANGE_CACHE_MAX_SIZE: ClassVar[int] = 6  # IOVA_RANGE_CACHE_MAX_SIZE: orders 0 to 5 have caches
    DEPOT_DELAY_NS: ClassVar[int] = 100_000_000  # IOVA_DEPOT_DELAY

    __copy__ = no_shallow_copy

    def __init__(
        self,
        granule: int = PAGE_SIZE,
        start_pfn: int = 1,
        *,
        cpus: int = 1,
        profile: Profile | str = DEFAULT_PROFILE,
    ) -> None:
        granule, start_pfn, cpus = as_integers(granule=granule, start_pfn=start_pfn, cpus=cpus)
        if not is_power_of_two(granule) or granule > 1 << 32 or not 1 <= start_pfn < IOVA_ANCHOR or cpus < 1:
            raise InvalidArgument(
                f"no allocator with granule {granule}, first pfn {start_pfn:#x} and {cpus} CPUs",
            )
        self.granule = granule
        self.start_pfn = start_pfn
        self.cpus = cpus
        self.dma_32bit_pfn = (1 << 32) // granule
        self.max32_alloc_size = self.dma_32bit_pfn
        self.cached32_node = self.cached_node = IOVA_ANCHOR
        self.stats = IovaStats()
        self.now = 0
        # The allocated ranges by their first pfn, negated: ascending keys are descending addresses.
        self._keys = [-IOVA_ANCHOR]
        self._hi = {IOVA_ANCHOR: IOVA_ANCHOR}
        self._space = FreeSpace(0, IOVA_ANCHOR)
        magazine = profile_of(profile).iova_magazine
        self._rcaches = [IovaRcache(cpus=cpus, mag_size=magazine) for _ in range(self.RANGE_CACHE_MAX_SIZE)]
        self._cached: set[int] = set()
        self._depot_due: list[int | None] = [None] * self.RANGE_CACHE_MAX_SIZE
        self._countdown = 0
        self.undo_log = None

    # -- the fast way: caches first

    def alloc_iova_fast(self, size: int, limit_pfn: int, *, flush_rcache: bool, cpu: int = 0) -> int:
        """The first pfn of ``size`` pages, none above ``limit_pfn``, aligned to the next power of two of the size.

        Below 32 pages the size itself is rounded up too. ``flush_rcache``: rather than fail, give what all caches hold
        back to the tree and search again. Raises `NoSpace`; `InvalidArgument` (size, limit, CPU).
        """
        if type(size) is not int or type(limit_pfn) is not int:
            size, limit_pfn = as_integers(size=size, limit_pfn=limit_pfn)
        self._enter(size, limit_pfn, cpu)
        order = (size - 1).bit_length()
        size = self.rounded(size)
        if order < self.RANGE_CACHE_MAX_SIZE:
            # The kernel computes this bound without a sign; a limit below the size finds nothing here instead.
            pfn = self._rcaches[order].get(cpu, limit_pfn + 1 - size)
            if pfn:
                self._uncache(pfn)
                self.stats.hits += 1
                return pfn
        return self._alloc_or_flush(size, limit_pfn, flush_rcache=flush_rcache)

    @classmethod
    def rounded(cls, size: int) -> int:
        """How many pages `alloc_iova_fast` takes for ``size``: below 32 the next power of two."""
        return 1 << (size - 1).bit_length() if size < 1 << (cls.RANGE_CACHE_MAX_SIZE - 1) else size

    def free_iova_fast(self, pfn: int, size: int, *, cpu: int = 0) -> None:
        """Give back what `alloc_iova_fast` gave for ``size``: to the caches of ``cpu``, or if too large to the tree.

        A range in a cache keeps its place until the caches are flushed. `NotFound` if it is not allocated or in a
        cache already; the kernel would not notice.
        """
        if type(pfn) is not int or type(size) is not int:
            pfn, size = as_integers(pfn=pfn, size=size)
        self._require_cpu(cpu)
        order = (size - 1).bit_length()
        lo = pfn if pfn in self._hi and pfn != IOVA_ANCHOR else self._find(pfn)
        if pfn in self._cached or not 1 <= size <= self._hi[lo] + 1 - pfn:
            raise NotFound(f"{size} pages at pfn {pfn:#x} are not allocated", pfn=pfn, size=size)
        if order >= self.RANGE_CACHE_MAX_SIZE:
            self._remove(lo)
            return
        self._cached.add(pfn)
        if self.undo_log is not None:
            self.undo_log.note(self._cached.remove, pfn)
        if self._rcaches[order].insert(cpu, pfn) and self._depot_due[order] is None:
            self._depot_due[order] = self.now + self.DEPOT_DELAY_NS

    def flush_rcaches(self) -> None:
        """Give everything that the caches hold back to the tree, CPU by CPU, then the depots."""
        self.stats.flushed += 1
        for cpu in range(self.cpus):
            for rcache in self._rcaches:
                self._free_pfns(rcache.flush_cpu(cpu))
        for rcache in self._rcaches:
            self._free_pfns(rcache.flush_depot())

    def advance(self, now_ns: int) -> None:
        """Let time pass: 100 ms after a magazine went to a depot, and each 100 ms from there, one is given back.

        This ends when a depot holds no more magazines than there are CPUs. Time does not go back.
        """
        for order, rcache in enumerate(self._rcaches):
            while (due := self._depot_due[order]) is not None and due <= now_ns:
                self._depot_due[order] = None
                if len(rcache.depot) > self.cpus:
                    self._free_pfns(rcache.flush_depot(len(rcache.depot) - 1))
                    self._depot_due[order] = due + self.DEPOT_DELAY_NS
        self.now = max(self.now, now_ns)

    # -- the slow way: the tree

    def alloc_iova(self, size: int, limit_pfn: int, *, size_aligned: bool = True) -> int:
        """As `alloc_iova_fast` without its rounding and its caches, and aligned only if ``size_aligned``."""
        size, limit_pfn = as_integers(size=size, limit_pfn=limit_pfn)
        self._enter(size, limit_pfn, 0)
        return self._alloc(size, limit_pfn, aligned=size_aligned)

    def free_iova(self, pfn: int) -> None:
        """Free the range that ``pfn`` lies in; `NotFound` if there is none, or if it is in a cache."""
        lo = self._find(as_integer(pfn, "pfn"))
        if lo in self._cached:
            raise NotFound(f"pfn {pfn:#x} is in a cache, not allocated", pfn=pfn)
        self._remove(lo)

    def reserve_iova(self, pfn_lo: int, pfn_hi: int) -> None:
        """Withhold ``pfn_lo`` to ``pfn_hi`` (inclusive); ranges in the way grow downwards to cover it, as the kernel's.

        Raises `InvalidArgument` for an empty range or one beyond 64 bits of address.
        """
        pfn_lo, pfn_hi = as_integers(pfn_lo=pfn_lo, pfn_hi=pfn_hi)
        if not 0 <= pfn_lo <= pfn_hi <= IOVA_ANCHOR // self.granule:
            raise InvalidArgument(f"pfn {pfn_lo:#x} to {pfn_hi:#x} is no range that can be reserved")
        for lo, hi in self.overlapping(pfn_lo, pfn_hi):
            if pfn_lo < lo:
                self._extend_down(lo, pfn_lo)
            if pfn_hi <= hi:
                return
            pfn_lo = hi + 1
        self._insert(pfn_lo, pfn_hi)

    def ranges(self) -> list[tuple[int, int]]:
        """Everything in the tree as (first, last) pfn, ascending: allocated, reserved and cached; not the anchor."""
        return [(-key, self._hi[-key]) for key in reversed(self._keys[1:])]

    def overlapping(self, pfn_lo: int, pfn_hi: int) -> list[tuple[int, int]]:
        """The ranges of the tree that share a page with ``pfn_lo`` to ``pfn_hi`` (inclusive), ascending."""
        first, last = bisect_left(self._keys, -pfn_hi), bisect_left(self._keys, -pfn_lo)
        if last < len(self._keys) and self._hi[-self._keys[last]] >= pfn_lo:
            last += 1  # begins at or below pfn_lo and reaches into it
        return [(-key, self._hi[-key]) for key in reversed(self._keys[first:last])]

    def copy(self) -> Self:
        """An allocator of its own in the same state."""
        twin = bare_copy(self)
        # What the two would share is copied one level down; deepcopy would go through every number.
        vars(twin).update(
            stats=attrs.evolve(self.stats),
            _keys=self._keys.copy(),
            _hi=self._hi.copy(),
            _space=self._space.copy(),
            _cached=self._cached.copy(),
            _rcaches=[rcache.copy() for rcache in self._rcaches],
            _depot_due=self._depot_due.copy(),
            undo_log=None,
        )
        return twin

    def __deepcopy__(self, memo: object) -> Self:
        return self.copy()

    def begin_undo(self, log: UndoLog) -> list[IovaRcache]:
        """See `Undoable.begin_undo`; caches, cursors, `stats` and the clock come back too.

        >>> domain = IovaDomain()
        >>> with domain.dry_run():
        ...     print(hex(domain.alloc_iova_fast(1, 0xFFFFF, flush_rcache=True)))
        0xfffff
        >>> domain.ranges(), domain.stats.slow
        ([], 0)
        """
        log.save(self, "_countdown", "cached32_node", "cached_node", "max32_alloc_size", "now")
        log.save(self.stats, "failed", "flushed", "hits", "slow", "visited")
        log.note(self._depot_due.__setitem__, slice(None), self._depot_due.copy())
        return self._rcaches

    def decides_like(self, other: IovaDomain) -> bool:
        """Whether the two will answer every call alike from here on."""
        return (
            self._keys == other._keys
            and self._hi == other._hi
            and self.max32_alloc_size == other.max32_alloc_size
            and (self.cached32_node, self.cached_node) == (other.cached32_node, other.cached_node)
            and all(mine.holds_like(its) for mine, its in zip(self._rcaches, other._rcaches, strict=True))
        )

    def fail_nth(self, n: int) -> None:
        """Let the ``n``-th following allocation (1: the next) raise `NoSpace` and change nothing, once."""
        self._countdown = n

    # -- inside

    def _enter(self, size: int, limit_pfn: int, cpu: int) -> None:
        if not (1 <= size < IOVA_ANCHOR and 0 <= limit_pfn < IOVA_ANCHOR):
            raise InvalidArgument(f"no {size} pages up to pfn {limit_pfn:#x} can be meant", size=size, limit=limit_pfn)
        self._require_cpu(cpu)
        if self._countdown:
            self._countdown -= 1
            if not self._countdown:
                raise NoSpace(f"no {size} pages: this call was told to fail", size=size)

    def _require_cpu(self, cpu: int) -> None:
        if not 0 <= cpu < self.cpus:
            raise InvalidArgument(f"no CPU {cpu}: there are {self.cpus}")

    def _alloc_or_flush(self, size: int, limit_pfn: int, *, flush_rcache: bool) -> int:
        try:
            return self._alloc(size, limit_pfn, aligned=True)
        except NoSpace:
            if not flush_rcache:
                raise
        self.flush_rcaches()
        return self._alloc(size, limit_pfn, aligned=True)

    def _alloc(self, size: int, limit_pfn: int, *, aligned: bool) -> int:
        """``__alloc_and_insert_iova_range``; its limit is exclusive."""
        limit = limit_pfn + 1
        step = 1 << (size - 1).bit_length() if aligned else 1
        self.stats.slow += 1
        below_4g = limit <= self.dma_32bit_pfn
        if below_4g and size >= self.max32_alloc_size:
            raise self._no_space(size, limit_pfn)
        cursor = self.cached32_node if below_4g else self.cached_node
        retry_pfn = self._hi[cursor]
        pfn = self._walk(bisect_left(self._keys, -cursor), size, step, min(limit, cursor), self.start_pfn)
        if pfn < 0 and retry_pfn < limit:
            # The holes above the cursor, from the lowest range at or beyond the limit on.
            start = 0 if not below_4g else bisect_left(self._keys, -limit + 1) - 1
            pfn = self._walk(start, size, step, limit, retry_pfn + 1)
        if pfn < 0:
            self.max32_alloc_size = size
            raise self._no_space(size, limit_pfn)
        self._insert(pfn, pfn + size - 1)
        if pfn + size <= self.dma_32bit_pfn:
            self.cached32_node = pfn
        else:
            self.cached_node = pfn
        return pfn

    def _walk(self, index: int, size: int, step: int, high: int, low: int) -> int:
        """The first place that the kernel meets on its way down from the range at ``index``; -1 if it gets to ``low``.

        It takes the highest hole that fits, so that is what is asked for here; only the ranges that it looks at on the
        way are counted: as many as lie above that place, or above the last one where the size could fit.
        """
        pfn = self._space.highest(size, step, high)
        if pfn >= low:
            self.stats.visited += bisect_left(self._keys, -pfn) - index
            return pfn
        lowest = (low + step - 1 & -step) + size
        end = index if high < lowest else bisect_left(self._keys, -lowest + 1)
        self.stats.visited += max(end - index, 0) + 1
        return -1

    def _no_space(self, size: int, limit_pfn: int) -> NoSpace:
        self.stats.failed += 1
        return NoSpace(f"no {size} free pages at or below pfn {limit_pfn:#x}", size=size, limit=limit_pfn)

    def _find(self, pfn: int) -> int:
        """The first pfn of the range that holds ``pfn``."""
        index = bisect_left(self._keys, -pfn)
        if index < len(self._keys):
            lo = -self._keys[index]
            if pfn <= self._hi[lo] and lo != IOVA_ANCHOR:
                return lo
        raise NotFound(f"pfn {pfn:#x} is not allocated", pfn=pfn)

    def _insert(self, lo: int, hi: int) -> None:
        self._keys.insert(bisect_left(self._keys, -lo), -lo)
        self._hi[lo] = hi
        self._space.take(lo, hi + 1)
        if self.undo_log is not None:
            self.undo_log.note(self._remove, lo)

    def _remove(self, lo: int) -> None:
        """``remove_iova``: the cursors step up to the next range if the freed one lay at or above them."""
        keys = self._keys
        index = bisect_left(keys, -lo)
        above, hi = -keys[index - 1], self._hi.pop(lo)
        del keys[index]
        self._space.give(lo, hi + 1)
        if self.undo_log is not None:
            self.undo_log.note(self._insert, lo, hi)
        if lo == self.cached32_node or (hi < self.dma_32bit_pfn and lo >= self.cached32_node):
            self.cached32_node = above
        if lo < self.dma_32bit_pfn:
            self.max32_alloc_size = self.dma_32bit_pfn
        if lo >= self.cached_node:
            self.cached_node = above

    def _extend_down(self, lo: int, to: int) -> None:
        index = bisect_left(self._keys, -lo)
        self._keys[index] = -to
        self._hi[to] = self._hi.pop(lo)
        self._space.take(to, lo)
        if self.undo_log is not None:
            self.undo_log.note(self._shrink_up, to, lo)
        if self.cached32_node == lo:
            self.cached32_node = to
        if self.cached_node == lo:
            self.cached_node = to

    def _shrink_up(self, lo: int, to: int) -> None:
        """Undo `_extend_down`, but for the cursors."""
        self._keys[bisect_left(self._keys, -lo)] = -to
        self._hi[to] = self._hi.pop(lo)
        self._space.give(lo, to)

    def _uncache(self, pfn: int) -> None:
        self._cached.remove(pfn)
        if self.undo_log is not None:
            self.undo_log.note(self._cached.add, pfn)

    def _free_pfns(self, pfns: Iterable[int]) -> None:
        for pfn in pfns:
            self._uncache(pfn)
            self._remove(self._find(pfn))

    def check(self) -> None:
        """Ranges are apart and in order, cursors stand on one, caches hold each range once; or `AssertionError`."""
        dump = f"{[(hex(lo), hex(hi)) for lo, hi in self.ranges()]}, {self.cached32_node:#x}, {self.cached_node:#x}"
        assert self._keys[0] == -IOVA_ANCHOR, dump
        assert len(self._keys) == len(self._hi), dump
        self._space.check()
        last, free = -1, []
        for lo, hi in [*self.ranges(), (IOVA_ANCHOR, IOVA_ANCHOR)]:
            assert last < lo <= hi, f"{lo:#x} is out of order: {dump}"
            if last + 1 < lo:
                free.append((last + 1, lo))
            last = hi
        assert list(self._space) == free, f"{list(self._space)} is said to be free, but the ranges are {dump}"
        assert {self.cached32_node, self.cached_node} <= self._hi.keys(), f"a cursor stands on nothing: {dump}"
        for rcache in self._rcaches:
            rcache.check()
        held = [pfn for rcache in self._rcaches for pfn in rcache]
        assert sorted(held) == sorted(self._cached), f"{held} cached, {self._cached} known: {dump}"
        assert len({self._find(pfn) for pfn in held}) == len(held), f"two cached ranges are one: {held}, {dump}"
