"""Translation caches from a stack file: the knobs of a cache are the keys of its table, by their own declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from swiommu.errors import InvalidArgument
from swiommu.layer.cache import CacheShape, TranslationCache

if TYPE_CHECKING:
    from swiommu.layer.stack_file.keys import Keys

__all__ = ["read_cache"]

_MOST_ENTRIES: Final = 1 << 16
_MOST_LEVELS: Final = 8


def read_cache(keys: Keys, key: str) -> TranslationCache | None:
    """The cache that the table at ``key`` describes: a `CacheShape`, and a list of such for ``walk``; None without one.

    >>> from swiommu.layer.stack_file.keys import Keys
    >>> iommu = Keys({"tlb": {"entries": 64, "ways": 4, "walk": [{"entries": 8}]}}, "layer.iommu", "stack.toml")
    >>> print(read_cache(iommu, "tlb").shape)
    64 entries, 4 ways, lru
    >>> read_cache(iommu, "iotlb") is None
    True
    """
    table = keys.table(key)
    if table is None:
        return None
    if (levels := table.length("walk")) > _MOST_LEVELS:
        raise table.error(f"walk has {levels} levels, more than {_MOST_LEVELS}")
    shape = _shape(table)
    walk = []
    for row in table.rows("walk"):
        walk.append(_shape(row))
        row.close()
    table.close()
    return TranslationCache(shape.entries, ways=shape.ways, policy=shape.policy, seed=shape.seed, walk=walk)


def _shape(table: Keys) -> CacheShape:
    chosen: dict[str, Any] = {}
    for knob in CacheShape.knobs():
        if knob.words:
            chosen[knob.name] = table.word(knob.name, knob.words, str(knob.default))
        elif (number := table.count(knob.name, knob.least or 0, _MOST_ENTRIES)) is not None:
            chosen[knob.name] = number
    try:
        return CacheShape(**chosen)
    except InvalidArgument as error:
        raise table.error(str(error)) from error
