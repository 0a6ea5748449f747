"""Telling caches that a table changed: the place's own for the range, then upward all that was found through it.

Always from below: were an upper cache emptied first, it could be filled again from what the lower one still has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.address import as_integer
from swiommu.layer.base import require_range
from swiommu.layer.cache.place import EVERY

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from swiommu.layer.cache.place import CacheHolder

__all__ = ["Dropped", "feed", "invalidate", "invalidation"]


class Dropped(NamedTuple):
    """One step of an invalidation: how many lines of which cache (``tlb`` or ``iotlb``) of which place went."""

    place: str
    cache: str
    lines: int


def invalidate(
    place: CacheHolder, start: int = 0, size: int | None = None, *, stream: Hashable = EVERY, leaf: bool = False
) -> list[Dropped]:
    """Say that the tables of ``place`` changed for ``size`` bytes from ``start`` (None: everything from there on).

    Its own caches forget that range. Then all that can have been found out through it is forgotten: the whole of what
    the places above it hold, each after those below it, since a lower address says nothing about the upper ones that
    lead there. ``stream`` limits all of it to what one stream asked. ``leaf``: no table of the place came or went, so
    that the kept upper entries of its own walks stay. Answers the steps in their order. `InvalidArgument` for a range
    that is empty or negative. Source: ``kvm_tlb_flush_vmid_range`` and the order in it.

    >>> from swiommu.layer import Identity, Node, TranslationCache
    >>> upper, lower = Node(Identity("s1"), tlb=TranslationCache()), Node(Identity("s2"), tlb=TranslationCache())
    >>> upper.lowers.append(lower); lower.uppers.append(upper)
    >>> [step.place for step in invalidate(lower, 0x1000, 0x1000)]
    ['s2', 's1']
    """
    if type(start) is not int or (size is not None and type(size) is not int):
        start, size = as_integer(start, "start"), None if size is None else as_integer(size, "size")
    if place.tlb is None and place.iotlb is None and not place.above():
        require_range(start, 1 if size is None else size)
        return []  # nobody keeps anything: unmapping without caches must not pay for them
    return list(invalidation(place, start, size, stream=stream, leaf=leaf))


def invalidation(
    place: CacheHolder, start: int = 0, size: int | None = None, *, stream: Hashable = EVERY, leaf: bool = False
) -> Iterator[Dropped]:
    """`invalidate` step by step: accesses that come in between may see the old or the new, after the last only the new.

    >>> from swiommu.layer import Identity, Node, TranslationCache
    >>> next(invalidation(Node(Identity("bypass"), iotlb=TranslationCache())))
    Dropped(place='bypass', cache='iotlb', lines=0)
    """
    require_range(start, 1 if size is None else size)
    return _steps(place, start, size, stream, leaf)


def feed(place: CacheHolder, fillers: list[CacheHolder]) -> None:
    """Note that the caches of ``fillers`` will hold what is being found out through ``place``.

    A graph knows what sits where; a chain binds nothing, and is invalidated all the same.
    """
    for filler in fillers:
        place.feeds[filler] = None
        filler.fed_by[place] = None


def _starve(place: CacheHolder) -> None:
    for source in place.fed_by:
        del source.feeds[place]
    place.fed_by.clear()


def _steps(place: CacheHolder, start: int, size: int | None, stream: Hashable, leaf: bool) -> Iterator[Dropped]:
    for each in _bottom_up(place):
        of = (start, size) if each is place else (0, None)
        if of == (0, None) and stream is EVERY:
            _starve(each)  # before the first goes: what comes in between is noted anew
        for which, cache in (("tlb", each.tlb), ("iotlb", each.iotlb)):
            if cache is not None:
                yield Dropped(each.name, which, cache.drop(each, *of, stream=stream, leaf=leaf and each is place))


def _bottom_up(place: CacheHolder) -> list[CacheHolder]:
    # The place and all above it, none before one that is below it.
    seen: set[CacheHolder] = set()
    order: list[CacheHolder] = []

    def visit(each: CacheHolder) -> None:
        seen.add(each)
        for upper in reversed(each.above()):  # so that the first comes first, once all is turned round
            if upper not in seen:
                visit(upper)
        order.append(each)

    visit(place)
    return order[::-1]
