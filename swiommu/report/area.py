"""Buffers as rectangles of time x address, coloured by owner, with the refusals: one Plotly figure a history."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from swiommu.replay import AS_RECORDED, NOBODY, AreaHistory, Rectangle
from swiommu.report.figures import COLOURS, DARK_GREY, GREY, RED, Figure, Key, label, seconds, time_axis
from swiommu.requests import RequestKind, Workload
from swiommu.words import counted, mib

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["RECTANGLES", "area_figure", "drawing_of"]

RECTANGLES = 5000  # of all area figures of a page together
_REFUSALS = 300  # marked in one figure
_BANDS, _BINS = 24, 40  # the grid that small rectangles are merged into
_MIB = 1 << 20
_NS = 1_000_000_000


class _Owners:
    """Whom a buffer belongs to, and in which colour: its device; where there is but one, its size, largest first."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        allocs = [request for request in workload.requests if request.kind is RequestKind.ALLOC]
        self._by_device = len({request.device for request in allocs}) > 1
        weights: Counter[str] = Counter()
        largest: dict[str, int] = {}
        for request in allocs:
            owner = self._owner(request.index)
            weights[owner] += request.size
            largest[owner] = max(largest.get(owner, 0), request.size)
        shown = [owner for owner, _ in weights.most_common(len(COLOURS))]
        if not self._by_device:
            shown.sort(key=largest.__getitem__, reverse=True)
        self.keys = {owner: (owner or "(no name)", colour) for owner, colour in zip(shown, COLOURS, strict=False)}

    def of(self, index: int) -> tuple[str, str]:
        """(name, colour) of the owner of a request's buffer."""
        if index == NOBODY:
            return "in use by others", DARK_GREY
        return self.keys.get(self._owner(index), ("other devices" if self._by_device else "other sizes", GREY))

    def _owner(self, index: int) -> str:
        request = self._workload.requests[index]
        return request.device if self._by_device else mib(request.size)


def area_figure(workload: Workload, history: AreaHistory, limit: int, number: int, note: str = "") -> Figure:
    """Buffers as rectangles, time from left to right, addresses upward; refusals with the largest hole they found."""
    owners = _Owners(workload)
    drawing = drawing_of(history, limit)
    groups: dict[tuple[str, str], list[Rectangle]] = {key: [] for key in owners.keys.values()}
    for rectangle in drawing.rectangles:
        groups.setdefault(owners.of(rectangle.request), []).append(rectangle)
    if drawing.merged:
        groups["small ones, merged", GREY] = drawing.merged
    data: list[dict[str, Any]] = []
    keys: list[Key] = []
    for (name, colour), rectangles in groups.items():
        if rectangles:
            keys.append(Key(name, colour, "block", [len(data)]))
            data.append(_bars(workload, history, rectangles, colour))
    if history.refusals:
        keys.append(Key("refused; the line spans the largest hole", RED, "cross", [len(data), len(data) + 1]))
        data += _refusal_marks(workload, history)
    top = max((r.start + r.size - history.base for r in history.rectangles), default=history.size)
    shown = history.size if top * 4 >= history.size or history.refusals else top * 1.1
    unit = f"MiB above {history.base:#x}" if history.base else "MiB"
    layout = {
        "barmode": "overlay",
        "hovermode": "closest",
        "xaxis": time_axis(workload),
        "yaxis": {"title": {"text": unit}, "range": [0, shown / _MIB], "zeroline": False},
        "meta": {"free": True},
    }
    return Figure(
        id=f"area-{number}",
        title="As recorded" if history.name == AS_RECORDED else history.name,
        caption=_area_caption(history, drawing.small, note, zoomed=shown < history.size),
        data=data,
        layout=layout,
        height=380,
        keys=keys,
        linked=True,
    )


def _bars(workload: Workload, history: AreaHistory, rectangles: Sequence[Rectangle], colour: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "base": [seconds(workload, r.begin) for r in rectangles],
        "x": [round((r.end - r.begin) / _NS, 6) for r in rectangles],
        "y": [round((r.start + r.size / 2 - history.base) / _MIB, 6) for r in rectangles],
        "width": [round(r.size / _MIB, 6) for r in rectangles],
        "customdata": [_about(workload, r) for r in rectangles],
        "hovertemplate": "%{customdata}<extra></extra>",
        "marker": {"color": colour, "line": {"width": 0.6}},
    }


def _about(workload: Workload, rectangle: Rectangle) -> str:
    """Which request this is, in four short lines."""
    begin, end = (seconds(workload, edge) for edge in (rectangle.begin, rectangle.end))
    life = f"{begin:.3f} s to {end:.3f} s" if rectangle.ended else f"from {begin:.3f} s to the end of the recording"
    place = f"{mib(rectangle.size)} at {rectangle.start:#x}"
    if rectangle.request == NOBODY:
        return f"<b>no request of this trace</b><br>{place}<br>{life}"
    request = workload.requests[rectangle.request]
    lived = f" ({_duration(rectangle.end - rectangle.begin)})" if rectangle.ended else ""
    return (
        f"<b>{label(request.device)}</b><br>request {request.index + 1:,}, line {request.line:,} of the trace<br>"
        f"{place}<br>{life}{lived}"
    )


def _duration(nanoseconds: int) -> str:
    if nanoseconds >= _NS:
        return f"{nanoseconds / _NS:.2f} s"
    return f"{nanoseconds / 1e6:.2f} ms" if nanoseconds >= 1_000_000 else f"{nanoseconds / 1000:.0f} \u00b5s"


def _refusal_marks(workload: Workload, history: AreaHistory) -> list[dict[str, Any]]:
    """A line over the largest hole of the moment, and a cross in it."""
    step = -(-len(history.refusals) // _REFUSALS)
    shown = history.refusals[::step]
    xs: list[float | None] = []
    ys: list[float | None] = []
    for refusal in shown:
        low = (refusal.hole_start - history.base) / _MIB
        xs += [seconds(workload, refusal.time)] * 2 + [None]
        ys += [round(low, 6), round(low + refusal.hole / _MIB, 6), None]
    about = []
    for refusal in shown:
        request = workload.requests[refusal.request]
        why = "enough, but scattered" if refusal.free >= request.size else "too little"
        about.append(
            f"<b>refused: {label(request.device)}</b><br>"
            f"request {request.index + 1:,}, line {request.line:,} of the trace<br>"
            f"asked for {mib(request.size)}<br>"
            f"free {mib(refusal.free)} ({why}), largest hole {mib(refusal.hole)}"
        )
    marks = {
        "type": "scatter",
        "mode": "markers",
        "x": xs[::3],
        "y": [round((ys[i] + ys[i + 1]) / 2, 6) for i in range(0, len(ys), 3)],  # type: ignore[operator]
        "customdata": about,
        "hovertemplate": "%{customdata}<extra></extra>",
        "marker": {"color": RED, "symbol": "x", "size": 8},
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": xs,
        "y": ys,
        "hoverinfo": "skip",
        "line": {"color": RED, "width": 2},
    }
    return [line, marks]


def _area_caption(history: AreaHistory, small: int, note: str, *, zoomed: bool) -> str:
    buffers = len({r.request for r in history.rectangles} - {NOBODY})
    place = f"the first {mib(history.size)} of RAM" if history.is_part else mib(history.size)
    sentences = [f"{counted(buffers, 'buffer')} in {place}; {len(history.refusals) + history.unmeasured:,} refused."]
    if history.elsewhere:
        sentences.append(f"{history.elsewhere:,} more were served from elsewhere and are not drawn.")
    if small:
        sentences.append(f"The {small:,} smallest pieces are merged into grey blocks.")
    if len(history.refusals) > _REFUSALS or history.unmeasured:
        sentences.append("Of the refusals only some are marked.")
    if zoomed:
        sentences.append("Memory above the highest buffer is free and cut off.")
    return " ".join([*sentences, note]).rstrip()


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
