"""The figures of the HTML report, as plain Plotly JSON: data, layout, and the sentences that go with them.

Colours of text, grid and background are not set here: the page sets them for light, dark and print. Plotly reads a
little markup in every label, so whatever comes from a trace goes through `label`.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from swiommu.replay import AS_RECORDED, failure_times
from swiommu.requests import OpCode, RequestKind, Workload
from swiommu.words import clean, mib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.answers import Comparison, Row

__all__ = [
    "COLOURS",
    "DARK_GREY",
    "GREY",
    "RED",
    "Figure",
    "Key",
    "demand_figure",
    "failures_figure",
    "label",
    "seconds",
    "time_axis",
    "waste_figure",
]

_POINTS = 800
_MIB = 1 << 20
_NS = 1_000_000_000

# Told apart on white and on near-black; red is kept for refusals, grey for what has no owner.
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#9c755f", "#e3b505", "#ff9da7")
GREY = "#8b909a"
DARK_GREY = "#5b616b"
RED = "#e5383b"
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


class Key(NamedTuple):
    """One entry of a legend: ``mark`` is how it is drawn (block, cross, or a line's dash), ``traces`` what it hides."""

    name: str
    colour: str
    mark: str
    traces: list[int]


@attrs.frozen
class Figure:
    """``data`` and ``layout`` are Plotly's; ``height`` in pixels; ``linked`` figures share their time axis.

    ``keys`` explain the colours, in the page's own words: a legend inside a figure overlaps on narrow screens.
    """

    id: str
    title: str
    caption: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int
    keys: list[Key] = attrs.field(factory=list)
    linked: bool = False

    def to_json(self) -> dict[str, Any]:
        """What the page's script needs."""
        return {"id": self.id, "data": self.data, "layout": self.layout, "linked": self.linked}


def label(text: str, widest: int = 60) -> str:
    """Text from a trace for a figure's label: no control characters, no markup, not endless.

    >>> label("<b>nvme</b>")
    '&lt;b&gt;nvme&lt;/b&gt;'
    """
    shown = clean(text) or "(no name)"
    return html.escape(shown if len(shown) <= widest else shown[: widest - 1] + "\u2026", quote=False)


def seconds(workload: Workload, time: int) -> float:
    """Seconds since the recording began, to the microsecond."""
    return round((time - workload.start_time) / _NS, 6)


def time_axis(workload: Workload) -> dict[str, Any]:
    """The time axis that all figures of one recording share."""
    span = max((workload.stop_time - workload.start_time) / _NS, 1e-6)
    return {
        "title": {"text": "seconds since the recording began", "standoff": 6},
        "range": [0, span],
        "zeroline": False,
    }


def demand_figure(workload: Workload) -> Figure | None:
    """Live bytes over time by kind, as the recorded kernel served them."""
    live = dict.fromkeys(RequestKind, 0)
    lines: dict[RequestKind, list[tuple[int, int]]] = {kind: [(workload.start_time, 0)] for kind in RequestKind}
    for code, index, time in workload.ops:
        if code not in {OpCode.BEGIN, OpCode.END} or workload.requests[index].censored:
            continue
        request = workload.requests[index]
        live[request.kind] += request.size if code == OpCode.BEGIN else -request.size
        lines[request.kind].append((max(time, lines[request.kind][-1][0]), live[request.kind]))
    drawn = {kind: line for kind, line in lines.items() if len(line) > 1}
    if not drawn:
        return None
    thinned = any(len(line) > _POINTS for line in drawn.values())
    data = [
        _steps(workload, _peaks([*line, (workload.stop_time, line[-1][1])], _POINTS), number, scale=_MIB)
        | {"hovertemplate": f"%{{y:.2f}} MiB of {kind.value}s at %{{x:.3f}} s<extra></extra>"}
        for number, (kind, line) in enumerate(drawn.items())
    ]
    caption = "Bytes alive in the recording, as the drivers asked for them."
    if thinned:
        caption += f" Each of {_POINTS} slices of time shows its peak."
    layout = {
        "xaxis": time_axis(workload),
        "yaxis": {"title": {"text": "MiB alive"}, "rangemode": "tozero"},
        "hovermode": "closest",
    }
    for line in data:
        line["line"]["dash"] = "solid"  # dashes are lost in peaks as narrow as these
    keys = [_line_key(kind.value, number)._replace(mark="solid") for number, kind in enumerate(drawn)]
    return Figure("demand", "What the drivers held", caption, data, layout, 260, keys, linked=True)


def _peaks(points: Sequence[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """At most about ``limit`` points, each the highest of its slice of time."""
    if len(points) <= limit:
        return list(points)
    first, last = points[0][0], points[-1][0]
    width = max(-(-(last - first) // limit), 1)
    best: dict[int, int] = {}
    for time, value in points:
        place = (time - first) // width
        best[place] = max(best.get(place, 0), value)
    return [(first + place * width, value) for place, value in best.items()]


def _steps(workload: Workload, points: Sequence[tuple[int, int]], number: int, *, scale: int = 1) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [seconds(workload, time) for time, _ in points],
        "y": [round(value / scale, 4) for _, value in points],
        "line": {
            "shape": "hv",
            "width": 2,
            "color": COLOURS[number % len(COLOURS)],
            "dash": _DASHES[number % len(_DASHES)],
        },
    }


def _line_key(name: str, number: int) -> Key:
    return Key(name, COLOURS[number % len(COLOURS)], _DASHES[number % len(_DASHES)], [number])


def failures_figure(answer: Comparison) -> Figure | None:
    """Requests failed so far, a line for each row that failed any; None if there is none, or the runs are not kept."""
    workload = answer.workload
    failing: dict[tuple[int, ...], list[str]] = {}  # rows that fail alike share a line, or one would hide the other
    for row in answer.rows:
        outcome = answer.outcomes.get(row.name)
        if row.same_as is None and row.failed and (outcome or row.name == AS_RECORDED):
            failing.setdefault(tuple(sorted(failure_times(workload, outcome))), []).append(row.name)
    if not failing:
        return None
    data = []
    names = [", ".join(names) for names in failing.values()]
    for number, (name, times) in enumerate(zip(names, failing, strict=True)):
        stop = max([workload.stop_time, *times])
        steps = ((time, so_far) for so_far, time in enumerate(times, 1))
        points = [(workload.start_time, 0), *steps, (stop, len(times))]
        hover = f"{label(name)}: %{{y:,.0f}} failed by %{{x:.3f}} s<extra></extra>"
        data.append(_steps(workload, _peaks(points, _POINTS), number) | {"hovertemplate": hover})
    clear = [row.name for row in answer.rows if row.same_as is None and not row.failed]
    caption = f"No request fails with {', '.join(clear)}." if clear else ""
    layout = {
        "xaxis": time_axis(workload),
        "yaxis": {"title": {"text": "requests failed so far"}, "rangemode": "tozero"},
        "hovermode": "closest",
    }
    keys = [_line_key(name, number) for number, name in enumerate(names)]
    return Figure("failures", "Requests failed so far", caption, data, layout, 280, keys, linked=True)


_PARTS = (
    ("internal", "rounding up", "#f28e2b"),
    ("idle", "reserved, idle", "#4e79a7"),
    ("lent", "reserved, idle but lent", "#a9c6e3"),
    ("tables", "page tables", "#b07aa1"),
    ("pool", "bounce pool", "#59a14f"),
)


def waste_figure(rows: Sequence[Row]) -> Figure | None:
    """The mean waste of every row that has one, split into its parts; None if no row has one."""
    shown = [row for row in rows if row.same_as is None and row.waste is not None]
    if not shown:
        return None
    parts = [_split(row) for row in shown]
    # The total is part of the label: beside the bar it would leave a narrow screen.
    names = [f"{label(row.name, 40)}<br>{mib(sum(part.values()))}" for row, part in zip(shown, parts, strict=True)]
    data: list[dict[str, Any]] = []
    keys: list[Key] = []
    for part_name, words, colour in _PARTS:
        sizes = [part[part_name] for part in parts]
        if not any(sizes):
            continue
        keys.append(Key(words, colour, "block", [len(data)]))
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "y": names,
                "x": [round(size / _MIB, 6) for size in sizes],
                "customdata": [mib(size) for size in sizes],
                "hovertemplate": f"%{{y}}<br>of these %{{customdata}} {words}<extra></extra>",
                "marker": {"color": colour, "line": {"width": 0.6}},
            }
        )
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "MiB, mean over time", "standoff": 6}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
        "hovermode": "closest",
    }
    missing = [f"{row.name}: {row.why.get('waste_bytes', 'not known')}" for row in rows if row.waste is None]
    caption = "Memory charged to a design that no request used."
    if any(part["lent"] for part in parts):
        caption += " Lent means that the system may use it meanwhile, and has to move its pages away when it is wanted."
    if missing:
        caption += f" Without a bar: {'; '.join(missing)}."
    return Figure("waste", "Mean over the recording, by part", caption, data, layout, 90 + 48 * len(shown), keys)


def _split(row: Row) -> dict[str, int]:
    """The parts of the waste, the idle bytes parted into lent and not; they add up to the total."""
    assert row.waste is not None
    lent = min(row.lendable_bytes or 0, row.waste.idle)
    waste = row.waste
    return {
        "internal": waste.internal,
        "idle": waste.idle - lent,
        "lent": lent,
        "tables": waste.tables,
        "pool": waste.pool,
    }
