"""Caches of freed bus addresses by size, with magazines per CPU and a depot (``struct iova_rcache``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.undo import Undoable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["IovaRcache"]


class IovaRcache(Undoable):
    """Freed ranges of one size, by their first page frame; each CPU has a ``loaded`` and a ``prev`` magazine.

    A magazine holds ``mag_size`` of them. Full ones that a CPU can't keep go to the depot, which all CPUs share.
    Source: ``__iova_rcache_insert``, ``__iova_rcache_get``, ``iova_magazine_pop`` in drivers/iommu/iova.c.

    >>> cache = IovaRcache(cpus=1, mag_size=2)
    >>> for pfn in (0x30, 0x10, 0x20): _ = cache.insert(0, pfn)
    >>> hex(cache.get(0, 0xFF)), hex(cache.get(0, 0x1F)), hex(cache.get(0, 0x1F))
    ('0x20', '0x10', '0x0')
    """

    __slots__ = ("cpus", "depot", "loaded", "mag_size", "prev")

    def __init__(self, *, cpus: int, mag_size: int) -> None:
        self.cpus = cpus
        self.mag_size = mag_size
        self.loaded: list[list[int]] = [[] for _ in range(cpus)]
        self.prev: list[list[int]] = [[] for _ in range(cpus)]
        self.depot: list[list[int]] = []
        self.undo_log = None

    def insert(self, cpu: int, pfn: int) -> bool:
        """Keep ``pfn`` on ``cpu``; whether a full magazine went to the depot for it."""
        magazine, size = self.loaded[cpu], self.mag_size
        pushed = False
        if len(magazine) == size:
            if len(self.prev[cpu]) == size:
                self.depot.append(magazine)
                self.loaded[cpu] = []
                pushed = True
                if self.undo_log is not None:
                    self.undo_log.note(self._pull, cpu)
            else:
                self._swap(cpu)
            magazine = self.loaded[cpu]
        magazine.append(pfn)
        if self.undo_log is not None:
            self.undo_log.note(magazine.pop)
        return pushed

    def get(self, cpu: int, bound: int) -> int:
        """The newest ``pfn`` of the magazine at hand that is not above ``bound``; 0 if there is none.

        One magazine is looked at: the loaded one, or what replaces it when it is empty.
        """
        magazine = self.loaded[cpu]
        if not magazine:
            if self.prev[cpu]:
                self._swap(cpu)
            elif self.depot:
                full = self.depot.pop()
                self.loaded[cpu] = full.copy()
                if self.undo_log is not None:
                    self.undo_log.note(self._push, cpu, full, magazine)
            else:
                return 0
            magazine = self.loaded[cpu]
        if magazine[-1] <= bound:  # the loop below would find it at once; this is the way of nearly every call
            pfn = magazine.pop()
            if self.undo_log is not None:
                self.undo_log.note(magazine.append, pfn)
            return pfn
        for index in range(len(magazine) - 2, -1, -1):
            pfn = magazine[index]
            if pfn <= bound:
                magazine[index] = magazine.pop()
                if self.undo_log is not None:
                    self.undo_log.note(_put_inside, magazine, index, pfn)
                return pfn
        return 0

    def flush_cpu(self, cpu: int) -> Iterator[int]:
        """Empty the magazines of ``cpu``, loaded first, each from its oldest entry on."""
        for magazine in (self.loaded[cpu], self.prev[cpu]):
            yield from magazine
            if self.undo_log is not None and magazine:
                self.undo_log.note(magazine.extend, magazine.copy())
            magazine.clear()

    def flush_depot(self, keep: int = 0) -> Iterator[int]:
        """Empty the depot down to ``keep`` magazines, newest magazine first."""
        while len(self.depot) > keep:
            full = self.depot.pop()
            if self.undo_log is not None:
                self.undo_log.note(self.depot.append, full)
            yield from full

    def replace(self, pfn: int, by: int) -> bool:
        """Put ``by`` in the place of ``pfn``; whether it was there. For checkers that follow a recording."""
        for magazines in (self.loaded, self.prev, self.depot):
            for index, magazine in enumerate(magazines):
                if pfn in magazine:
                    magazines[index] = [by if each == pfn else each for each in magazine]
                    return True
        return False

    def copy(self) -> IovaRcache:
        """A cache of its own with the same contents; a magazine in the depot never changes, so both have the same."""
        twin = IovaRcache(cpus=self.cpus, mag_size=self.mag_size)
        twin.loaded = [magazine.copy() for magazine in self.loaded]
        twin.prev = [magazine.copy() for magazine in self.prev]
        twin.depot = self.depot.copy()
        return twin

    def holds_like(self, other: IovaRcache) -> bool:
        """Whether both hold the same, in the same order."""
        return (self.loaded, self.prev, self.depot) == (other.loaded, other.prev, other.depot)

    def __iter__(self) -> Iterator[int]:
        for magazine in (*self.loaded, *self.prev, *self.depot):
            yield from magazine

    def _swap(self, cpu: int) -> None:
        self.loaded[cpu], self.prev[cpu] = self.prev[cpu], self.loaded[cpu]
        if self.undo_log is not None:
            self.undo_log.note(self._swap, cpu)

    def _pull(self, cpu: int) -> None:
        """The opposite of what `insert` does with a full magazine."""
        self.loaded[cpu] = self.depot.pop()

    def _push(self, cpu: int, full: list[int], empty: list[int]) -> None:
        """The opposite of what `get` does with a magazine of the depot."""
        self.depot.append(full)
        self.loaded[cpu] = empty

    def check(self) -> None:
        """No magazine holds more than it can, those of the depot are full; `AssertionError` with a dump."""
        dump = f"loaded {self.loaded}, prev {self.prev}, depot {self.depot}"
        assert all(len(magazine) <= self.mag_size for magazine in (*self.loaded, *self.prev)), dump
        assert all(len(magazine) == self.mag_size for magazine in self.depot), dump


def _put_inside(magazine: list[int], index: int, pfn: int) -> None:
    """The opposite of putting the last entry in the place of ``pfn``."""
    magazine.append(magazine[index])
    magazine[index] = pfn
