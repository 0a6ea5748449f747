"""Translation caches: what was found out once is not looked up again, until somebody says that it changed.

A node can have two. Its ``tlb`` keeps what its own layer answered, for data and for reads of upper layers' tables
alike, and can keep the upper entries of its walks as well. Its ``iotlb`` keeps where the whole way from there ends, for
data only. Nothing is kept of a hole; each layer's permissions are kept apart, so that a refusal on a hit names the same
layer as that of a walk.

Nobody tells a cache that a table changed: `invalidate` does, always from the changed layer upward. Were an upper cache
emptied first, it could be filled again from what the lower one still has. A cache may answer what was true once; with
``audit`` each such hit is held against the tables and counted.

Here are the store, the kept entries of walks, answers by way of both, the audit, and the invalidation. Which node has
which cache, and what a hit costs a device, is told elsewhere; tables are read through the node that was asked.
"""

from swiommu.layer.cache.changes import Change, ChangeLog, Stale
from swiommu.layer.cache.invalidating import Dropped, invalidate, invalidation
from swiommu.layer.cache.place import EVERY, CacheHolder
from swiommu.layer.cache.shape import CacheShape, ReplacementPolicy
from swiommu.layer.cache.store import Line, TranslationCache

__all__ = [
    "EVERY",
    "CacheHolder",
    "CacheShape",
    "Change",
    "ChangeLog",
    "Dropped",
    "Line",
    "ReplacementPolicy",
    "Stale",
    "TranslationCache",
    "invalidate",
    "invalidation",
]
