"""How many rectangles a picture can take: the largest as they are, the small ones merged over a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.replay import NOBODY, AreaHistory, Rectangle

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Drawing", "drawing_of"]

_BANDS, _BINS = 24, 40  # the grid that small rectangles are merged into


class Drawing(NamedTuple):
    """What to draw: ``merged`` rectangles stand for ``small`` ones that are too many and too small to draw singly."""

    rectangles: list[Rectangle]
    merged: list[Rectangle]
    small: int


def drawing_of(history: AreaHistory, limit: int) -> Drawing:
    """At most ``limit`` rectangles (480 or more): the largest as they are, the others merged over a grid.

    >>> from swiommu.replay import recorded_history
    >>> from swiommu.requests import workload_of
    >>> from swiommu.trace import read_trace
    >>> drawing = drawing_of(recorded_history(workload_of(read_trace("arm64-6.12-cam-cma64M-s81"))), 600)
    >>> len(drawing.rectangles), drawing.small
    (120, 572)
    """
    if len(history.rectangles) <= limit:
        return Drawing(list(history.rectangles), [], 0)
    largest = sorted(history.rectangles, key=lambda r: r.size * (r.end - r.begin + 1), reverse=True)
    single = max(limit - _BANDS * _BINS // 2, 0)
    return Drawing(largest[:single], _merged(history, largest[single:]), len(largest) - single)


def _merged(history: AreaHistory, small: Iterable[Rectangle]) -> list[Rectangle]:
    """The cells of the grid that any of these touches, joined along time."""
    band, width = max(-(-history.size // _BANDS), 1), max(-(-(history.end - history.begin) // _BINS), 1)
    cells: set[tuple[int, int]] = set()
    for rectangle in small:
        first, last = (min((edge - history.begin) // width, _BINS - 1) for edge in (rectangle.begin, rectangle.end))
        low, high = (
            (rectangle.start - history.base) // band,
            (rectangle.start + rectangle.size - 1 - history.base) // band,
        )
        cells.update((row, column) for row in range(low, high + 1) for column in range(first, last + 1))
    merged = []
    for row, column in sorted(cells):
        if (row, column - 1) in cells:
            continue
        stop = column + 1
        while (row, stop) in cells:
            stop += 1
        begin, end = (min(history.begin + edge * width, history.end) for edge in (column, stop))
        start = history.base + row * band
        merged.append(Rectangle(NOBODY, start, min(band, history.base + history.size - start), begin, end, ended=True))
    return merged
