"""A stretch of addresses as a picture (SVG): rows of cells, darker the more of a cell is taken.

One file of rectangles and text without scripts, light or dark as the reader is; its style names only what is inside, so
that it may stand in somebody's page. However many holes there are, it has at most a thousand cells.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

from swiommu.words import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["area_svg"]

_COLUMNS: Final = 64
_MOST_ROWS: Final = 16
_CELL: Final = 10
_ROW: Final = 18
_MARGIN: Final = 16
_LABEL: Final = 118
_LEVELS: Final = 5  # empty, up to a third, up to two thirds, nearly full, full

_STYLE: Final = """
.swiommu-area { background: #ffffff; }
.swiommu-area text { font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1c2128; }
.swiommu-area .title { font-weight: 600; }
.swiommu-area .soft { fill: #57606a; }
.swiommu-area .at { font: 12px ui-monospace, "DejaVu Sans Mono", monospace; fill: #57606a; text-anchor: end; }
.swiommu-area .v0 { fill: #edf1f5; } .swiommu-area .v1 { fill: #c5d9ef; } .swiommu-area .v2 { fill: #90b7e0; }
.swiommu-area .v3 { fill: #5e94cf; } .swiommu-area .v4 { fill: #2f6fb5; }
.swiommu-area .edge { stroke: #ffffff; }
@media (prefers-color-scheme: dark) {
  .swiommu-area { background: #14181d; }
  .swiommu-area text { fill: #e3e7ec; }
  .swiommu-area .soft, .swiommu-area .at { fill: #9da7b3; }
  .swiommu-area .v0 { fill: #222a33; } .swiommu-area .v1 { fill: #274264; } .swiommu-area .v2 { fill: #356093; }
  .swiommu-area .v3 { fill: #4c86c6; } .swiommu-area .v4 { fill: #7fb4ee; }
  .swiommu-area .edge { stroke: #14181d; }
}
"""


def area_svg(
    start: int,
    size: int,
    holes: Iterable[tuple[int, int]],
    *,
    title: str,
    edges: Sequence[int] = (),
    notes: Sequence[str] = (),
) -> str:
    """The picture of ``size`` bytes from ``start`` of which the (start, size) parts ``holes`` are free.

    ``edges`` are addresses where one taken piece ends and the next begins, drawn as thin lines while there are few;
    ``notes`` stand below. Names and notes are escaped.

    >>> picture = area_svg(0x4000_0000, 0x10000, [(0x4000_0000, 0x4000)], title="<camera>")
    >>> picture.count("<rect"), "&lt;camera&gt;" in picture, "75.0 % taken" in picture
    (2, True, True)
    """
    holes = list(holes)
    cells, span = _cells(start, size, holes)
    free = sum(length for _, length in holes)
    rows = -(-len(cells) // _COLUMNS)
    width = 2 * _MARGIN + _LABEL + _COLUMNS * _CELL
    name = html.escape(clean(title))
    about = (
        f"{size:#x} bytes, {100 * (size - free) / size:.1f} % taken, {len(holes)} holes, "
        f"the largest of {max((length for _, length in holes), default=0):#x}"
    )
    head = f'<tspan class="title">{name}</tspan> <tspan class="soft">{about}</tspan>'
    parts = [f'<text x="{_MARGIN}" y="{_MARGIN + 10}">{head}</text>']
    top = _MARGIN + 24
    for row in range(rows):
        parts.extend(_row(cells, row, top + row * _ROW, start, span))
    parts.extend(_lines(edges, start, span, top))
    y = top + rows * _ROW + 14
    for note in (f"a cell is {span:#x} bytes, the darker the more of it is taken", *notes):
        parts.append(f'<text class="soft" x="{_MARGIN}" y="{y}">{html.escape(note)}</text>')
        y += 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="swiommu-area" width="{width}" height="{y}" '
        f'viewBox="0 0 {width} {y}" role="img" aria-label="{name}: {about}">\n'
        f"<title>{name}: {about}</title>\n<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _cells(start: int, size: int, holes: list[tuple[int, int]]) -> tuple[list[int], int]:
    """The level of every cell, and how many bytes a cell is: a power of two, a page or less where one row is enough."""
    span = max(_power(-(-size // (_COLUMNS * _MOST_ROWS))), min(4096, _power(-(-size // _COLUMNS))))
    free = [0] * -(-size // span)
    for hole, length in holes:
        first, last = (hole - start) // span, (hole - start + length - 1) // span
        if first == last:
            free[first] += length
            continue
        free[first] += start + (first + 1) * span - hole
        free[first + 1 : last] = [span] * (last - first - 1)
        free[last] += hole + length - start - last * span
    levels = []
    for index, each in enumerate(free):
        whole = min(span, size - index * span)
        taken = whole - each
        levels.append(0 if not taken else _LEVELS - 1 if taken == whole else 1 + taken * (_LEVELS - 2) // whole)
    return levels, span


def _power(count: int) -> int:
    """The least power of two that is not below ``count``."""
    return 1 << (count - 1).bit_length()


def _row(cells: list[int], row: int, y: int, start: int, span: int) -> Iterable[str]:
    """The label of one row and a rectangle for each run of cells of one level."""
    first = row * _COLUMNS
    stop = min(first + _COLUMNS, len(cells))
    yield f'<text class="at" x="{_MARGIN + _LABEL - 8}" y="{y + 12}">{start + first * span:#x}</text>'
    while first < stop:
        last = first
        while last < stop and cells[last] == cells[first]:
            last += 1
        x = _MARGIN + _LABEL + (first % _COLUMNS) * _CELL
        yield (
            f'<rect class="v{cells[first]}" x="{x}" y="{y}" width="{(last - first) * _CELL}" height="{_ROW - 3}">'
            f"<title>{start + first * span:#x} to {start + last * span - 1:#x}</title></rect>"
        )
        first = last


def _lines(edges: Sequence[int], start: int, span: int, top: int) -> Iterable[str]:
    if len(edges) > _COLUMNS * _MOST_ROWS // 2:
        return
    for edge in edges:
        cell, rest = divmod(edge - start, span)
        x = _MARGIN + _LABEL + (cell % _COLUMNS + rest / span) * _CELL
        y = top + cell // _COLUMNS * _ROW
        yield f'<line class="edge" x1="{x:g}" y1="{y}" x2="{x:g}" y2="{y + _ROW - 3}"/>'
