"""Stacks from TOML: memories, the layers on them, the devices on those. A file is a person's: nothing is trusted.

    [memory.ram]
    base = 0x8000_0000
    size = "1 GiB"

    [layer.host]                 # the order of tables does not matter
    kind = "paged"
    on = "ram"
    tables = 0x8000_0000         # where its page tables lie, in the space that its walker reads
    map = [{ at = 0x0, to = 0x8100_0000, size = "16 MiB", prot = "rw" }]

    [device.camera]
    on = "host"
    mask = 32                    # bits of address that it can drive

Every key is told in the reference. Layers, pages, reserved regions, ways through windows and references of a walk are
bounded, because a few lines can make more of each than anybody would wait for: that is refused before it is built.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from swiommu.address import PhysSpace
from swiommu.errors import InputError, InvalidArgument, SwiommuError
from swiommu.input_file import BadValue, InputFile, shown
from swiommu.layer.cache import CacheShape, TranslationCache
from swiommu.layer.graph import Graph, Reserved, require_no_conflict
from swiommu.layer.kinds import Blocked, Device, FlatTable, Identity, Memory, Paged, Router, Span, Window
from swiommu.layer.path import Walker
from swiommu.layer.placed_tables import PlacedTables
from swiommu.memory import SparseRam
from swiommu.pagetable import RadixTable, page_size_choice
from swiommu.pagetable.formats import FORMATS
from swiommu.stackfile.keys import (
    HOOKS,
    CacheKeys,
    DeviceKeys,
    FlatKeys,
    LayerKeys,
    MapKeys,
    MemoryKeys,
    NodeKeys,
    PagedKeys,
    RouterKeys,
    SpanKeys,
    StackKeys,
    WidthKeys,
    WindowKeys,
)
from swiommu.words import did_you_mean

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from swiommu.input_file import Where
    from swiommu.layer.base import Layer
    from swiommu.layer.node import Node

__all__ = ["bundled_stacks", "read_stack"]

_DATA: Final = Path(__file__).parent.parent / "data" / "stacks"
_LONGEST_NAME: Final = 64
_MOST_ENTRIES: Final = 1 << 20
_MOST_KEPT: Final = 1 << 16
_MOST_LAYERS: Final = 64
_MOST_LEAVES: Final = 1 << 16
_MOST_REFERENCES: Final = 20_000
_MOST_REGIONS: Final = 16
_MOST_TABLE_PAGES: Final = 1 << 16
_MOST_WAYS: Final = 4096
_WALKERS: Final = {"nested": Walker.NESTED, "physical": Walker.PHYSICAL}


def bundled_stacks() -> list[str]:
    """The names of the stacks that come with the package, sorted.

    >>> "nested" in bundled_stacks()
    True
    """
    return sorted(path.stem for path in _DATA.glob("*.toml"))


def read_stack(path: str) -> Graph:
    """The graph that a TOML file describes, or the bundled stack of that name where no such file is.

    Devices are its tops. Raises `InputError`, one sentence with file and key, for whatever can't be built.

    >>> stack = read_stack("nested")
    >>> [node.name for node in stack.tops()]
    ['camera']
    """
    if os.path.exists(path):  # noqa: PTH110 - Path.exists raises for names that no file can have
        return _File(path).build()
    if path not in bundled_stacks():
        known = ", ".join(bundled_stacks())
        raise InputError(f"no such file, and no bundled stack of that name (there are {known})", path=path)
    return _File(str(_DATA / f"{path}.toml")).build()


class _File:
    """What one file says, and what is built of it so far."""

    def __init__(self, path: str) -> None:
        self.file = InputFile.read(path, what="a description of a stack")
        self.keys = self.file.structure(StackKeys, HOOKS)
        self.all: dict[str, NodeKeys] = {}
        self.where: dict[str, Where] = {}
        for table in ("memory", "layer", "device"):
            for name, keys in getattr(self.keys, table).items():
                self._register((table, name), name, keys)
        if not self.all:
            raise self.file.error((), "describes no memory, no layer and no device")
        self.graph = Graph()
        self.entries = 0
        self.leaves = 0
        self.table_pages = 0
        self.regions = 0
        self.claimed: dict[tuple[int, int], str] = {}

    def error(self, name: str, reason: str, *inside: str | int) -> InputError:
        """The sentence about what has ``name``, or about a part of it."""
        return self.file.error(self.where[name] + inside, reason if reason.startswith("is ") else f": {reason}")

    def build(self) -> Graph:
        """All of it, from the memories up."""
        order = self._order()
        self._limit_cost(order)
        for name in order:
            with self._told(name):
                self._add(name, self.all[name])
        for top in self.graph.tops():
            with self._told(top.name):
                require_no_conflict(top)
        return self.graph

    @contextmanager
    def _told(self, name: str, *inside: str | int) -> Iterator[None]:
        """What a part of the library refuses is a sentence about the file."""
        try:
            yield
        except InputError:
            raise
        except BadValue as error:
            raise self.error(name, error.reason, *inside, error.key) from error
        except SwiommuError as error:
            raise self.error(name, str(error), *inside) from error

    def _register(self, where: Where, name: str, keys: NodeKeys) -> None:
        if not name or len(name) > _LONGEST_NAME or not name.isprintable() or " " in name:
            raise self.file.error(where, f"is no name: 1 to {_LONGEST_NAME} printable characters, no blanks")
        if name in self.all:
            raise self.file.error(where, f": the name is that of {'.'.join(map(str, self.where[name]))} already")
        if name in _WALKERS:
            raise self.file.error(where, ": the name has a meaning of its own, as a walker")
        if len(self.all) == _MOST_LAYERS:
            raise self.file.error((), f"describes more than {_MOST_LAYERS} memories, layers and devices")
        self.all[name], self.where[name] = keys, where

    def _on(self, name: str) -> dict[str, str]:
        keys = self.all[name]
        return keys.on if isinstance(keys, LayerKeys | DeviceKeys) else {}

    def _walker(self, name: str) -> str:
        keys = self.all[name]
        return keys.walker if isinstance(keys, LayerKeys) else "nested"

    def _needs(self, name: str) -> list[str]:
        """The names that must be there before ``name``, checked."""
        needed = [("on", lower) for lower in self._on(name).values()]
        if self._walker(name) not in _WALKERS:
            needed.append(("walker", self._walker(name)))
        for what, lower in needed:
            devices = self.keys.device
            if lower not in self.all or lower in devices:
                known = [other for other in self.all if other != name and other not in devices]
                kind = "a device" if lower in devices else "which nothing is named"
                hint = f"; {did_you_mean(lower, known)}" if known else ""
                raise self.error(name, f"is {shown(lower)}, {kind}{hint}", what)
        return [lower for _, lower in needed]

    def _order(self) -> list[str]:
        """All names, lower ones first; a cycle is refused with its names."""
        needs = {name: self._needs(name) for name in self.all}
        order: dict[str, None] = {}
        for start in self.all:
            way, todo = [start], [iter(needs[start])]
            while way:
                lower = next(todo[-1], None)
                if lower is None:
                    order[way.pop()] = None
                    todo.pop()
                elif lower in way:
                    raise self.error(lower, f"cycle: {' > '.join([*way[way.index(lower) :], lower])}")
                elif lower not in order:
                    way.append(lower)
                    todo.append(iter(needs[lower]))
        return list(order)

    def _limit_cost(self, order: list[str]) -> None:
        # T = L (W + 1) + T of what is below, see the explanation of costs; by the dearest way where there are several.
        cost: dict[str, int] = {}
        ways: dict[str, int] = {}
        for name in order:
            keys, lowers = self.all[name], self._on(name).values()
            windows = len(keys.windows) if isinstance(keys, WindowKeys | RouterKeys) else 1
            ways[name] = windows * max([ways[lower] for lower in lowers], default=1)
            if isinstance(keys, PagedKeys | FlatKeys):
                ways[name] = 1  # windows above a table see one layer there, whatever is below
            if ways[name] > _MOST_WAYS:
                raise self.error(
                    name, f"its windows could lead {ways[name]} ways through those below, more than {_MOST_WAYS}"
                )
            below = [cost[lower] for lower in lowers]
            levels = len(FORMATS[keys.format].levels) if isinstance(keys, PagedKeys) else isinstance(keys, FlatKeys)
            walker = self._walker(name)
            read = 0 if walker == "physical" else below[0] if walker == "nested" and below else cost.get(walker, 0)
            cost[name] = levels * (read + 1) + max(below, default=0)
            if cost[name] > _MOST_REFERENCES:
                raise self.error(
                    name, f"a walk from here could take {cost[name]} references, more than {_MOST_REFERENCES}"
                )

    def _add(self, name: str, keys: NodeKeys) -> None:
        layer: Layer
        match keys:
            case MemoryKeys():
                layer = Memory(name, SparseRam(PhysSpace(name)), base=keys.base, size=keys.size)
            case DeviceKeys():
                layer = Device(name, width=keys.mask)
            case WidthKeys():
                layer = (Identity if keys.kind == "identity" else Blocked)(name, width=keys.width)
            case WindowKeys():
                layer = Window(name, *(_span(row) for row in keys.windows))
            case RouterKeys():
                layer = self._router(name, keys)
            case FlatKeys():
                layer = self._flat(name, keys)
            case PagedKeys():
                layer = self._paged(name, keys)
            case _:
                raise AssertionError(f"no layer of {keys}")
        on = self._on(name)
        if not isinstance(layer, Router) and list(on) not in ([], [""]):
            raise self.error(name, f"it has no ports: say on = {next(iter(on.values()))!r}", "on")
        self.regions += len(keys.reserved)
        if self.regions > _MOST_REGIONS:
            raise self.error(name, f"a file may reserve {_MOST_REGIONS} regions in all", "reserved")
        walker = self._walker(name)
        node = self.graph.add(
            layer,
            on=list(on.values()),
            walker=_WALKERS.get(walker, walker),
            reserved=[Reserved(row.at, row.size, row.kind) for row in keys.reserved],
        )
        node.tlb, node.iotlb = self._cache(name, "tlb", keys.tlb), self._cache(name, "iotlb", keys.iotlb)

    def _cache(self, name: str, which: str, keys: CacheKeys | None) -> TranslationCache | None:
        if keys is None:
            return None
        for inside, shape in ((), keys), *((("walk", number), each) for number, each in enumerate(keys.walk)):
            if (shape.entries or 0) > _MOST_KEPT:
                raise self.error(name, f"is {shape.entries}, more than {_MOST_KEPT}", which, *inside, "entries")
        shape = CacheShape(keys.entries, keys.ways, keys.policy, keys.seed)
        return TranslationCache(shape, walk=keys.walk)

    def _router(self, name: str, keys: RouterKeys) -> Router:
        ports = list(keys.on)
        if not ports or ports == [""]:
            raise self.error(name, 'is no table of ports, such as { dram = "ram", vram = "vram" }', "on")
        for number, row in enumerate(keys.windows):
            if row.port not in ports:
                reason = f"is {shown(row.port)}; {did_you_mean(row.port, ports)}"
                raise self.error(name, reason, "windows", number, "port")
        return Router(name, *(_span(row, ports.index(row.port)) for row in keys.windows), ports=tuple(ports))

    def _paged(self, name: str, keys: PagedKeys) -> Paged:
        form = FORMATS[keys.format]
        through, base = self._tables(name, keys)
        table = RadixTable(form, PlacedTables(name, base, through, limit=1 << form.output_width, claimed=self.claimed))
        for number, row in enumerate(keys.map):
            with self._told(name, "map", number):
                self._map_pages(row, table)
                if self.table_pages + table.table_pages > _MOST_TABLE_PAGES:
                    raise InvalidArgument(f"pages of 4 KiB for tables are more than {_MOST_TABLE_PAGES} in all by now")
        self.table_pages += table.table_pages
        return Paged(name, table, hardware_ad=keys.hardware_ad, force_write_back=keys.force_write_back)

    def _map_pages(self, row: MapKeys, table: RadixTable) -> None:
        form, at, to, size = table.format, row.at, row.to, row.size
        bitmap = form.pgsize_bitmap if row.page is None else row.page
        if at + size > 1 << form.input_width and not form.sign_extended:  # else the table knows
            raise InvalidArgument(f"{size:#x} bytes at {at:#x} leave the {form.input_width}-bit input")
        if bitmap & ~form.pgsize_bitmap:
            sizes = ", ".join(f"{1 << bit:#x}" for bit in reversed(range(64)) if form.pgsize_bitmap >> bit & 1)
            raise BadValue(f"is {bitmap:#x}, not one of {sizes}", key="page")
        while size:
            pgsize, count = page_size_choice(bitmap, at, to, size)
            self._count_pages(count)
            table.map_run(at, to, pgsize, count, row.prot)
            at, to, size = at + pgsize * count, to + pgsize * count, size - pgsize * count

    def _flat(self, name: str, keys: FlatKeys) -> FlatTable:
        size = keys.size
        self.entries += size >> 12
        if self.entries > _MOST_ENTRIES:
            raise InvalidArgument(
                f"an aperture of {size:#x} bytes has {size >> 12} entries, more than {_MOST_ENTRIES} of all apertures"
            )
        through, tables = self._tables(name, keys)
        pages = PlacedTables(name, tables, through, limit=1 << 64, claimed=self.claimed)
        held: list[array[int]] = [pages.page(pages.alloc()) for _ in range(-(-(size >> 12) // 1024))]
        layer = FlatTable(name, base=keys.base, size=size, table=tables, pages=held)
        for number, row in enumerate(keys.map):
            with self._told(name, "map", number):
                self._count_pages(row.size >> 12)
                layer.map(row.at, row.to, row.size)
        return layer

    def _count_pages(self, count: int) -> None:
        self.leaves += count
        if self.leaves > _MOST_LEAVES:
            raise InvalidArgument(f"{count} pages are more than a file may map, {_MOST_LEAVES} in all")

    def _tables(self, name: str, keys: PagedKeys | FlatKeys) -> tuple[Node | None, int]:
        """Where table reads of ``name`` enter, and the first address of its tables there."""
        on = list(keys.on.values())
        if keys.walker == "physical" or (keys.walker == "nested" and not on):
            return None, 0x1000 if keys.tables is None else keys.tables
        if keys.tables is None:
            raise self.error(name, "is missing", "tables")
        return self.graph[on[0] if keys.walker == "nested" else keys.walker], keys.tables


def _span(row: SpanKeys, port: int = 0) -> Span:
    return Span(row.at, row.size, (row.at if row.to is None else row.to) - row.at, port)
