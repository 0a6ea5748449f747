"""A walk as a picture (SVG): the layers passed, top to bottom, then every reference in the order of the reads.

In the grid each row ends where an address has been found: references to tables of lower layers stand left of the entry
that they served to find. Everything is text and rectangles, one file without scripts; light or dark as the reader is.
"""

from __future__ import annotations

import html
import textwrap
import unicodedata
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from swiommu.report.walk import blame, headline, outcome, place, references
from swiommu.words import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.answers.explain import Entry, Explanation, Visit, Way

__all__ = ["walk_svg"]

_MARGIN: Final = 24
_ROW: Final = 38
_CELL: Final = 46
_GAP: Final = 18  # between lanes
_LABELS: Final = 218
_LEAST_WIDTH: Final = 640
_MOST_ROWS: Final = 200
_LONGEST_NAME: Final = 22
_LANES: Final = 6  # colours there are

_STYLE: Final = """
svg { background: #ffffff; }
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1c2128; }
.page { fill: #ffffff; }
.title { font-size: 16px; font-weight: 600; }
.head { font-weight: 600; }
.soft { fill: #57606a; }
.number { font-size: 12px; text-anchor: middle; font-variant-numeric: tabular-nums; }
.address { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }
.box { fill: #f5f7f9; stroke: #c3c9d1; }
.bad { fill: #fde8e8; stroke: #c62828; }
.wrong { fill: #b71c1c; font-weight: 600; }
.line { stroke: #8b929c; fill: none; }
.lane0 { fill: #dbe9f9; stroke: #3f74b5; } .lane1 { fill: #fdebd3; stroke: #c07a1c; }
.lane2 { fill: #dff2dd; stroke: #4a8a45; } .lane3 { fill: #efe2f1; stroke: #8a5a93; }
.lane4 { fill: #d9f0ee; stroke: #3e8580; } .lane5 { fill: #f0e6dd; stroke: #85654b; }
.known { stroke-dasharray: 3 2; }
@media (prefers-color-scheme: dark) {
  svg { background: #14181d; }
  text { fill: #e3e7ec; }
  .page { fill: #14181d; }
  .soft { fill: #9da7b3; }
  .box { fill: #1c222a; stroke: #434c58; }
  .bad { fill: #3d1a1c; stroke: #ef6a6a; }
  .wrong { fill: #ff8a8a; }
  .line { stroke: #6d7784; }
  .lane0 { fill: #1b3450; stroke: #6ca4e4; } .lane1 { fill: #46310f; stroke: #e8a54b; }
  .lane2 { fill: #1f3d1d; stroke: #74c06d; } .lane3 { fill: #3b2440; stroke: #c490ce; }
  .lane4 { fill: #16393a; stroke: #63bdb6; } .lane5 { fill: #3a2c20; stroke: #c29a78; }
}
"""


class _Cell(NamedTuple):
    lane: int
    visit: Visit
    entry: Entry | None  # None: the visit ends here, in a fault


class _Row(NamedTuple):
    label: str
    why: str
    cells: list[_Cell]


def walk_svg(answer: Explanation) -> str:
    """The picture of the first way of ``answer``; whatever names hold is escaped.

    >>> from swiommu.address import Access
    >>> from swiommu.answers.explain import explain
    >>> from swiommu.stackfile import read_stack
    >>> picture = walk_svg(explain(read_stack("nested")["camera"], 0x10010, 8, Access.READ))
    >>> picture[:4], picture.count('class="number"')
    ('<svg', 24)
    """
    way = answer.ways[0] if answer.ways else []
    lanes = list(dict.fromkeys(_readers(way)))
    rows = _rows(answer, way, lanes)
    widths = [max(1, *(sum(cell.lane == lane for cell in row.cells) for row in rows)) for lane in range(len(lanes))]
    width = max(_LEAST_WIDTH, 2 * _MARGIN + _LABELS + sum(_CELL * count + _GAP for count in widths))
    parts: list[str] = []
    y = _MARGIN + 16
    for line in textwrap.wrap(headline(answer), (width - 2 * _MARGIN) // 11):
        parts.append(_text(_MARGIN, y, line, "title"))
        y += 20
    y = _draw_way(answer, way, y, width, parts)
    if rows:
        y = _draw_grid(answer, rows, lanes, widths, y + 34, parts)
    y += 34
    for sentence in (outcome(answer), references(answer), blame(answer), *_left_out(answer, rows)):
        for line in textwrap.wrap(sentence, (width - 2 * _MARGIN) // 7):
            parts.append(_text(_MARGIN, y, line))
            y += 19
        y += 5
    height = y + _MARGIN - 19
    title = html.escape(f"{headline(answer)}. {outcome(answer)}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{title}">\n<title>{title}</title>\n<style>{_STYLE}</style>\n'
        f'<rect class="page" width="{width}" height="{height}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


# -- the way


def _draw_way(answer: Explanation, way: Way, y: int, width: int, parts: list[str]) -> int:
    for number, visit in enumerate(way):
        node = answer.nodes[visit.layer]
        if number:
            parts.append(f'<path class="line" d="M{_MARGIN + 20} {y}v14m-4-5l4 5l4-5"/>')
            y += 16
        stopped = visit.output is None
        kind = "bad" if stopped else "box"
        parts.append(f'<rect class="{kind}" x="{_MARGIN}" y="{y}" width="{width - 2 * _MARGIN}" height="36" rx="5"/>')
        parts.append(_text(_MARGIN + 12, y + 23, _short(visit.layer), "head"))
        parts.append(_text(_MARGIN + 196, y + 23, clean(node.layer.kind), "soft"))
        parts.append(_text(_MARGIN + 276, y + 23, place(answer, visit.layer, visit.address), "address"))
        if stopped:
            parts.append(_text(_MARGIN + 452, y + 23, _stop(answer, visit), "wrong"))
        y += 36
    return y


def _stop(answer: Explanation, visit: Visit) -> str:
    fault = answer.answer.fault
    if fault is None:
        return ""
    return f"{fault.kind} fault" if fault.layer == visit.layer else f"stopped by {_short(fault.layer, 11)}"


# -- the references


def _readers(way: Way) -> Iterator[str]:
    """The layers whose entries are read, in the order of the reads; those that fault while others read, too."""
    for visit in way:
        for entry in visit.entries:
            yield from _readers(entry.inner)
            if entry.value is not None:
                yield visit.layer
        if visit.fault and visit.entries:
            yield visit.layer


def _cells(way: Way, lanes: list[str]) -> Iterator[_Cell]:
    for visit in way:
        for entry in visit.entries:
            yield from _cells(entry.inner, lanes)
            if entry.value is not None:
                yield _Cell(lanes.index(visit.layer), visit, entry)
        if visit.fault and visit.layer in lanes:
            yield _Cell(lanes.index(visit.layer), visit, None)


def _rows(answer: Explanation, way: Way, lanes: list[str]) -> list[_Row]:
    rows: list[_Row] = []
    served = {id(inner): visit.layer for visit in _every(way) for entry in visit.entries for inner in entry.inner}
    last: _Cell | None = None
    for cell in _cells(way, lanes):
        if last is None or cell.lane < last.lane or (cell.lane == last.lane and cell.visit is not last.visit):
            whose = served.get(id(cell.visit))
            why = f"an entry of {_short(whose, 16)}" if whose else "the access itself"
            rows.append(_Row(place(answer, cell.visit.layer, cell.visit.address), why, []))
        rows[-1].cells.append(cell)
        last = cell
    return rows


def _every(way: Way) -> Iterator[Visit]:
    for visit in way:
        yield visit
        for entry in visit.entries:
            yield from _every(entry.inner)


def _draw_grid(
    answer: Explanation, rows: list[_Row], lanes: list[str], widths: list[int], y: int, parts: list[str]
) -> int:
    lefts = [_MARGIN + _LABELS + sum(_CELL * count + _GAP for count in widths[:lane]) for lane in range(len(lanes))]
    parts.append(_text(_MARGIN, y, "refs, in order, to find", "soft"))
    for lane, name in enumerate(lanes):
        room = max(6, (_CELL * widths[lane] + _GAP) // 8)
        parts.append(_text(lefts[lane], y, _short(name, room), "head"))
    y += 12
    for row in rows[:_MOST_ROWS]:
        parts.append(_text(_MARGIN, y + 13, row.label, "address"))
        parts.append(_text(_MARGIN, y + 27, row.why, "soft"))
        used: dict[int, int] = {}
        for cell in row.cells:
            left = lefts[cell.lane] + _CELL * used.get(cell.lane, 0)
            used[cell.lane] = used.get(cell.lane, 0) + 1
            parts.append(_draw_cell(answer, cell, left, y + 2))
        y += _ROW
    return y


def _draw_cell(answer: Explanation, cell: _Cell, x: int, y: int) -> str:
    if cell.entry is None:
        shape, said = "bad", "fault"
        told = f"{clean(cell.visit.layer)} refuses {cell.visit.address:#x}"
    else:
        known = cell.entry.ref is None
        shape = f"lane{cell.lane % _LANES}{' known' if known else ''}"
        said = "hit" if known else str(cell.entry.ref)
        meaning = answer.meaning(cell.visit, cell.entry)
        told = f"entry at {cell.entry.address:#x}: {cell.entry.value or 0:#x}{f', {meaning}' if meaning else ''}"
    return (
        f'<g><title>{html.escape(told)}</title><rect class="{shape}" x="{x}" y="{y}" width="{_CELL - 6}" height="26" '
        f'rx="4"/>{_text(x + (_CELL - 6) // 2, y + 17, said, "number")}</g>'
    )


def _left_out(answer: Explanation, rows: list[_Row]) -> Iterator[str]:
    if len(rows) > _MOST_ROWS:
        yield f"Drawn are {_MOST_ROWS} of {len(rows)} rows of references."
    if len(answer.ways) > 1:
        yield f"Drawn is the first of {len(answer.ways)} ways, page by page."


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x}" y="{y}">{html.escape(text)}</text>'


def _short(name: str, room: int = _LONGEST_NAME) -> str:
    """A name cut to the width of ``room`` common letters."""
    shown = clean(name)
    widths = list(accumulate(_width(char) for char in shown))
    if not shown or widths[-1] <= room:
        return shown
    return f"{shown[: sum(width <= room - 1 for width in widths)]}…"


def _width(char: str) -> float:
    if unicodedata.east_asian_width(char) in "WF":
        return 1.8
    return 1.5 if char in "mwMW@%" else 1.2 if char.isupper() else 1.0
