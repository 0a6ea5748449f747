"""Laws of what stands for something else: a flat table, a shadow, a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.layer import Shadow, Translation, access, flatten
from swiommu.layer.cache import invalidation
from swiommu.pagetable import MOCK
from swiommu.testing.probes import Probe, glance, merged, tell, tell_glance
from swiommu.testing.statements import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.address import Access
    from swiommu.layer import Layer, Node, Path
    from swiommu.pagetable import Format

__all__ = ["cache_transparency", "flattening", "shadow"]

_Place = tuple[int, "Access"]
_Answers = dict[_Place, Translation]


def flattening(
    path: Path | Layer,
    probes: Sequence[Probe],
    *,
    format: Format = MOCK,  # noqa: A002 - the word for it
    one_geometry: bool = False,
) -> None:
    """Law 5: one table of ``format`` stands for ``path``: same T, same faults, and its own flattening is itself.

    ``one_geometry``: the path is of page tables of that format only, then it never costs more.

    >>> from swiommu.layer import Paged
    >>> from swiommu.pagetable import CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x1000, 0x5000, 0x1000, 2, 3)
    >>> flattening(Paged("iommu", table), [Probe(0x1800, 0x2000)], one_geometry=True)
    """
    flat = flatten(path, format=format)
    again = flatten(flat, format=format)
    for probe in probes:
        deep, once, twice = (probe.on(each, uncached=True) for each in (path, flat, again))
        if (merged(deep), deep.fault) != (merged(once), once.fault):
            raise broken(5, f"{probe}: {tell(deep)} | flat: {tell(once)}")
        if (once.runs, once.fault, once.refs) != (twice.runs, twice.fault, twice.refs):
            raise broken(5, f"{probe}, flat: {tell(once)} | flattened again: {tell(twice)}")
        for at in probe.places():
            one, other = glance(path, at, probe.access), glance(flat, at, probe.access)
            if one_geometry and one.reach is not None and other.refs > one.refs:
                raise broken(5, f"{at:#x} costs more flat: {tell_glance(one, at)} | flat: {tell_glance(other, at)}")


def shadow(stand_in: Shadow, changes: Sequence[Callable[[], object]], probes: Sequence[Probe]) -> None:
    """Law 6: between two syncs a shadow answers as at the last one, after each it is its source, and says what changed.

    ``changes`` change the source, one at a time.

    >>> from swiommu.layer import Paged
    >>> from swiommu.pagetable import CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> source = Paged("guest", table)
    >>> shadow(Shadow("shadow", source), [lambda: table.map_run(0x1000, 0x5000, 0x1000, 2, 3)], [Probe(0x1800)])
    """
    places = {(at, probe.access) for probe in probes for at in probe.places()}
    for change in [lambda: None, *changes]:
        before = {place: _value(stand_in, place) for place in places}
        change()
        for place, old in before.items():
            if (now := _value(stand_in, place)) != old:
                raise broken(6, f"{place[0]:#x} changed before the shadow was synced: {tell(old)} was {tell(now)}")
        touched = stand_in.sync()
        for place, old in before.items():
            now, wanted = _value(stand_in, place), _value(stand_in.source, place)
            if now != wanted:
                raise broken(6, f"{place[0]:#x} after a sync: {tell(now)} | in the source: {tell(wanted)}")
            if now != old and not any(start <= place[0] < start + size for start, size in touched):
                raise broken(6, f"{place[0]:#x} changed: {tell(old)} was {tell(now)}, and sync told of {touched}")
        fresh = Shadow(stand_in.name, stand_in.source, format=stand_in.table.format)
        if (held := list(stand_in.extents())) != (wanted_leaves := list(fresh.extents())):
            raise broken(6, f"after a sync it holds {held}, a fresh one {wanted_leaves}")


def _value(path: Path | Layer, place: _Place) -> Translation:
    # Where it leads; in which memory, and who refuses if it doesn't, is the source's business.
    answer = _answer(path, place, uncached=True)
    return Translation(tuple(run._replace(memory="", store=None) for run in answer.runs), 0, None)


def cache_transparency(
    path: Path | Layer,
    probes: Sequence[Probe],
    change: Callable[[], object],
    changed: tuple[Node, int, int],
) -> None:
    """Law 13: caches change no answer, and after ``change`` an answer is the old or the new one until all is told.

    ``change`` changes one leaf of a node, ``changed`` is (node, start, size) of what it changed. Each step of the
    invalidation is followed by accesses, which may fill caches again; after the last only the new answer is left.

    >>> from swiommu.layer import Node, Paged, TranslationCache
    >>> from swiommu.pagetable import CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x1000, 0x5000, 0x1000, 2, 3)
    >>> node = Node(Paged("iommu", table), tlb=TranslationCache())
    >>> cache_transparency(node, [Probe(0x1800)], lambda: table.unmap(0x1000, 0x1000), (node, 0x1000, 0x1000))
    """
    places = sorted({(at, probe.access) for probe in probes for at in probe.places()})
    for probe in [*probes, *probes]:
        cold, warm = probe.on(path, uncached=True), probe.on(path)
        if (merged(cold), cold.fault) != (merged(warm), warm.fault):
            raise broken(13, f"{probe}: {tell(cold)} | with caches: {tell(warm)}")
        if warm.stale:
            raise broken(13, f"{probe}: {warm.stale} is said to be stale, though nothing has changed")
    old = {place: _answer(path, place, uncached=True) for place in places}
    change()
    new = {place: _answer(path, place, uncached=True) for place in places}
    node, start, size = changed
    _old_or_new(path, old, new, "before anything is invalidated")
    for step in invalidation(node, start, size):
        _old_or_new(path, old, new, f"after {step}")
    for place, wanted in new.items():
        if (now := _answer(path, place)) != wanted:
            raise broken(13, f"{place[0]:#x} after all invalidations: {tell(now)} | by the tables: {tell(wanted)}")


def _old_or_new(path: Path | Layer, old: _Answers, new: _Answers, when: str) -> None:
    for place, was in old.items():
        now = _answer(path, place)
        if now not in (was, new[place]):
            told = f"{tell(now)} | it was: {tell(was)} | by the tables: {tell(new[place])}"
            raise broken(13, f"{place[0]:#x} {when}: {told}")


def _answer(path: Path | Layer, place: _Place, *, uncached: bool = False) -> Translation:
    # One byte, whatever it cost and in whatever blocks.
    answer = access(path, place[0], 1, place[1], uncached=uncached)
    return Translation(tuple(run._replace(page_size=1) for run in answer.runs), 0, answer.fault)
