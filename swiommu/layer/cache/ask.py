"""A question on its way to a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.layer.path import Hop, HopKind, Purpose, Trip

if TYPE_CHECKING:
    from swiommu.layer.cache.place import CacheHolder
    from swiommu.layer.cache.store import TranslationCache
    from swiommu.layer.path import Path

__all__ = ["Ask"]


class Ask(NamedTuple):
    """A question to a cache: asked at ``place``, on its way to ``at``."""

    cache: TranslationCache
    place: CacheHolder
    at: int
    why: Purpose
    trip: Trip
    rest: tuple[Path, ...]

    def tell(self, kind: HopKind, address: int, output: int | None = None, value: int | None = None) -> None:
        """Let those see it who watch."""
        if self.trip.hops is not None:
            name = self.place.name
            self.trip.hops.append(Hop(self.why.nesting, kind, name, address, output, value))

    def by_tables(self) -> Trip:
        """The same access, by the tables alone and at nobody's cost."""
        trip = Trip(self.trip.access, stream=self.trip.stream, uncached=True)
        trip.iova = self.trip.iova
        return trip
