"""Accessed and dirty marks of a layer's leaves, as far as they can be told apart: per leaf."""

from __future__ import annotations

__all__ = ["Marks"]


class Marks:
    """Which leaves were accessed and which written, each by (first input address, size in bytes).

    >>> marks = Marks()
    >>> marks.note(0x1000, 0x1000, write=False); marks.note(0x200000, 0x200000, write=True)
    >>> len(marks.accessed), marks.dirty
    (2, {(2097152, 2097152)})
    """

    def __init__(self) -> None:
        self.accessed: set[tuple[int, int]] = set()
        self.dirty: set[tuple[int, int]] = set()

    def note(self, start: int, size: int, *, write: bool) -> None:
        """Mark one leaf."""
        self.accessed.add((start, size))
        if write:
            self.dirty.add((start, size))

    def read_and_clear(self) -> set[tuple[int, int]]:
        """The dirty leaves since the last time, which are clean from now on (``read_and_clear_dirty``)."""
        dirty, self.dirty = self.dirty, set()
        return dirty
