"""A stack of layers as one printed tree: way in at the top, memory at the bottom; `repr` and commands show it.

What stands in a name can't drive a terminal, and what has been drawn is not drawn again: where ways meet, the later one
says ``as above``.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, NamedTuple

from swiommu.layer.base import Layer
from swiommu.layer.path import Walker, stages, steps
from swiommu.words import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swiommu.layer.path import Path, Stage

__all__ = ["has_table", "tree"]

_NARROWEST = 24  # columns for what a layer says of itself, however deep it stands
_TORN = re.compile(r"(?<=,) (?=0x[0-9a-f]+\))|(?<=\)) (?=[+-]0x)")  # blanks in "[0x0, 0x1000) +0x8000"


class _Row(NamedTuple):
    first: str  # what stands before the name: the branches of the tree
    later: str  # the same for further lines of this row
    name: str
    kind: str
    about: tuple[str, ...]


def tree(paths: Iterable[Path], width: int = 80) -> str:
    """What `picture` answers, for what are ways already."""
    drawn: dict[int, Path] = {}
    rows: list[_Row] = []
    for top in sorted(paths, key=lambda path: (node := _node(path)) is not None and bool(node.readers)):
        _draw(top, (), ("", ""), "", rows, drawn)
    looked = 0
    while looked < len(drawn):  # drawing a walker may bring new ones
        path = list(drawn.values())[looked]
        looked += 1
        for walker in stages(node.walker) if (node := _node(path)) is not None else ():
            if id(walker) not in drawn:
                _draw(walker, (), ("", ""), "", rows, drawn)
    names = max((len(row.first) + len(row.name) for row in rows), default=0)
    kinds = max((len(row.kind) for row in rows), default=0)
    room = max(width - names - kinds - 4, _NARROWEST)
    lines: list[str] = []
    for row in rows:
        about = _wrapped(row.about, room)
        lines.append(f"{row.first + row.name:{names}}  {row.kind:{kinds}}  {about[0]}".rstrip())
        lines += [f"{row.later:{names}}  {'':{kinds}}  {line}" for line in about[1:]]
    return "\n".join(lines)


def has_table(layer: Layer) -> bool:
    """Whether the layer reads entries of a table of its own.

    >>> from swiommu.layer import Identity, Paged
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> has_table(Identity("bypass")), has_table(Paged("iommu", RadixTable(MOCK, CountingTables())))
    (False, True)
    """
    return type(layer).stored is not Layer.stored


def _draw(
    path: Path, rest: tuple[Path, ...], branch: tuple[str, str], port: str, rows: list[_Row], drawn: dict[int, Path]
) -> None:
    path, *lower_steps = steps(path)
    rest = (*lower_steps, *rest)
    node = _node(path)
    if node is None:  # somebody's own path, which only knows how to be travelled
        rows.append(_Row(*branch, port + clean(type(path).__name__), "path", ()))
        return
    name, kind = port + clean(node.name), clean(node.layer.kind)
    below: tuple[Path, ...] = tuple(node.lowers) or rest[:1]
    if id(path) in drawn:
        rows.append(_Row(*branch, name, kind, ("as above",)))
        return
    drawn[id(path)] = path
    rows.append(_Row(branch[0], branch[1] + ("│  " if below else ""), name, kind, _about(node)))
    ports = getattr(node.layer, "ports", ()) if len(below) > 1 else ()
    for place, lower in enumerate(below):
        last = place == len(below) - 1
        further = branch[1] + ("└─ " if last else "├─ "), branch[1] + ("   " if last else "│  ")
        label = f"{clean(str(ports[place]))}: " if place < len(ports) else ""
        _draw(lower, rest if node.lowers else rest[1:], further, label, rows, drawn)


def _about(node: Stage) -> tuple[str, ...]:
    said = [clean(node.layer.describe())]
    if has_table(node.layer) and node.walker is not Walker.NESTED:
        said.append(_walker(node.walker))
    said += [name for name, cache in (("tlb", node.tlb), ("iotlb", node.iotlb)) if cache is not None]
    return (*said, *map(str, node.reserved))


def _wrapped(about: tuple[str, ...], room: int) -> list[str]:
    """As many notes on a line as there is room for; broken is only what is longer than a line."""
    lines = [""]
    for number, note in enumerate(about):
        text = f"{note};" if number < len(about) - 1 else note
        if lines[-1] and len(lines[-1]) + 1 + len(text) <= room:
            lines[-1] += f" {text}"
        else:
            lines += [line.replace("\xa0", " ") for line in textwrap.wrap(_TORN.sub("\xa0", text), room)]
    return lines[1:] or lines


def _walker(walker: Walker | Path) -> str:
    if isinstance(walker, Walker):
        return "tables at physical addresses"
    first = _node(steps(walker)[0])
    return f"tables through {'a way of its own' if first is None else clean(first.name)}"


def _node(step: Path) -> Stage | None:
    # The node that a single step is, if it is one.
    found = stages(step)
    return found[0] if len(found) == 1 and found[0] is step else None
