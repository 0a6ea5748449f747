"""The kinds of layers by name: the keys of each in a stack file, and what is built of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from swiommu.errors import InvalidArgument
from swiommu.input_file import BadValue, shown
from swiommu.layer.kinds import Blocked, FlatTable, Identity, Paged, Router, Span, Window
from swiommu.pagetable import RadixTable, page_size_choice
from swiommu.pagetable.formats import FORMATS
from swiommu.registry import Registry
from swiommu.stackfile.keys import (
    HOOKS,
    FlatKeys,
    LayerKeys,
    MapKeys,
    PagedKeys,
    RouterKeys,
    SpanKeys,
    WidthKeys,
    WindowKeys,
)
from swiommu.words import did_you_mean

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from swiommu.input_file.converter import Hook
    from swiommu.layer.base import Layer
    from swiommu.stackfile.building import Builder

__all__ = ["LAYER_HOOKS", "LAYER_KINDS", "LayerKind"]


def _none(_keys: LayerKeys) -> int:
    return 0


def _one(_keys: LayerKeys) -> int:
    return 1


@attrs.frozen
class LayerKind:
    """A kind of layer.

    ``build(builder, name, keys)`` makes the layer of ``keys``, an object of the class ``keys``, and raises what the
    library raises, which becomes a sentence about the file. ``ways`` says in how many ways a layer of these keys leads
    on, ``reads`` how many table entries it reads for an access at most; both bound what a file can cost. ``has_table``:
    windows above it see one layer, whatever is below.
    """

    keys: type[LayerKeys]
    build: Callable[[Builder, str, Any], Layer]
    ways: Callable[[Any], int] = _one
    reads: Callable[[Any], int] = _none
    has_table: bool = False


def _kind(name: str, part: Any) -> LayerKind:
    if not isinstance(part, LayerKind):
        raise InvalidArgument(f"{part!r} is no kind of layer", name=name)
    return part


LAYER_KINDS: Final = Registry[LayerKind]("kind of layer", group="swiommu.layers", accept=_kind)
"""Every kind of layer by the name that ``kind =`` has for it.

Other packages offer theirs as entry points of the group ``swiommu.layers``, each a `LayerKind`.
"""


def _layer(table: Any, structure: Callable[[Any, Any], Any]) -> LayerKeys:
    if not isinstance(table, dict):
        return structure(table, WidthKeys)  # type: ignore[no-any-return] # refuses what is no table
    kind = table.get("kind")
    if "kind" not in table:
        raise BadValue(f"is missing; there are {', '.join(LAYER_KINDS)}", key="kind")
    if not isinstance(kind, str) or kind not in LAYER_KINDS:
        raise BadValue(f"is {shown(kind)}; {did_you_mean(str(kind), LAYER_KINDS)}", key="kind")
    try:
        cls = LAYER_KINDS[kind].keys
    except InvalidArgument as error:  # what another package offers is loaded now
        raise BadValue(f"is {shown(kind)}: {error}", key="kind") from error
    keys: LayerKeys = structure(table, cls)
    return keys


LAYER_HOOKS: Final[dict[Any, Hook]] = {LayerKeys: _layer, **HOOKS}
"""How cattrs reads a stack file."""


# -- the kinds


def _identity(_builder: Builder, name: str, keys: WidthKeys) -> Identity:
    return Identity(name, width=keys.width)


def _blocked(_builder: Builder, name: str, keys: WidthKeys) -> Blocked:
    return Blocked(name, width=keys.width)


def _window(_builder: Builder, name: str, keys: WindowKeys) -> Window:
    return Window(name, *(_span(row) for row in keys.windows))


def _windows(keys: WindowKeys | RouterKeys) -> int:
    return len(keys.windows)


def _router(builder: Builder, name: str, keys: RouterKeys) -> Router:
    ports = list(keys.on)
    if not ports or ports == [""]:
        raise builder.error(name, 'is no table of ports, such as { dram = "ram", vram = "vram" }', "on")
    for number, row in enumerate(keys.windows):
        if row.port not in ports:
            reason = f"is {shown(row.port)}; {did_you_mean(row.port, ports)}"
            raise builder.error(name, reason, "windows", number, "port")
    return Router(name, *(_span(row, ports.index(row.port)) for row in keys.windows), ports=tuple(ports))


def _span(row: SpanKeys, port: int = 0) -> Span:
    return Span(row.at, row.size, (row.at if row.to is None else row.to) - row.at, port)


def _paged(builder: Builder, name: str, keys: PagedKeys) -> Paged:
    form = FORMATS[keys.format]
    table = RadixTable(form, builder.placed_tables(name, keys, keys.tables, limit=1 << form.output_width))
    for number, row in enumerate(keys.map):
        with builder.located(name, "map", number):
            _map_pages(builder, row, table)
            builder.require_table_pages(table.table_pages)
    builder.count_table_pages(table.table_pages)
    return Paged(name, table, hardware_ad=keys.hardware_ad, force_write_back=keys.force_write_back)


def _map_pages(builder: Builder, row: MapKeys, table: RadixTable) -> None:
    form, at, to, size = table.format, row.at, row.to, row.size
    bitmap = form.pgsize_bitmap if row.page is None else row.page
    if at + size > 1 << form.input_width and not form.sign_extended:  # else the table knows
        raise InvalidArgument(f"{size:#x} bytes at {at:#x} leave the {form.input_width}-bit input")
    if bitmap & ~form.pgsize_bitmap:
        sizes = ", ".join(f"{1 << bit:#x}" for bit in reversed(range(64)) if form.pgsize_bitmap >> bit & 1)
        raise BadValue(f"is {bitmap:#x}, not one of {sizes}", key="page")
    while size:
        pgsize, count = page_size_choice(bitmap, at, to, size)
        builder.count_leaves(count)
        table.map_run(at, to, pgsize, count, row.prot)
        at, to, size = at + pgsize * count, to + pgsize * count, size - pgsize * count


def _levels(keys: PagedKeys) -> int:
    return len(FORMATS[keys.format].levels)


def _flat(builder: Builder, name: str, keys: FlatKeys) -> FlatTable:
    size = keys.size
    builder.count_entries(size)
    _, tables = builder.through(name, keys, keys.tables)
    pages = builder.placed_tables(name, keys, keys.tables, limit=1 << 64)
    held: list[array[int]] = [pages.page(pages.alloc()) for _ in range(-(-(size >> 12) // 1024))]
    layer = FlatTable(name, base=keys.base, size=size, table=tables, pages=held)
    for number, row in enumerate(keys.map):
        with builder.located(name, "map", number):
            builder.count_leaves(row.size >> 12)
            layer.map(row.at, row.to, row.size)
    return layer


LAYER_KINDS.register("identity", LayerKind(WidthKeys, _identity))
LAYER_KINDS.register("blocked", LayerKind(WidthKeys, _blocked))
LAYER_KINDS.register("window", LayerKind(WindowKeys, _window, ways=_windows))
LAYER_KINDS.register("router", LayerKind(RouterKeys, _router, ways=_windows))
LAYER_KINDS.register("flat", LayerKind(FlatKeys, _flat, reads=_one, has_table=True))
LAYER_KINDS.register("paged", LayerKind(PagedKeys, _paged, reads=_levels, has_table=True))
