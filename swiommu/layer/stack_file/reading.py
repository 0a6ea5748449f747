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
from pathlib import Path
from typing import TYPE_CHECKING, Final

from swiommu.address import PhysSpace
from swiommu.errors import InputError, SwiommuError
from swiommu.layer.graph import Graph, Reserved, ReservedKind, require_no_conflict
from swiommu.layer.kinds import Blocked, FlatTable, Identity, Memory, Paged, Router, Span, Window
from swiommu.layer.path import Walker
from swiommu.layer.stack_file.caches import read_cache
from swiommu.layer.stack_file.device import Device
from swiommu.layer.stack_file.keys import Keys
from swiommu.layer.stack_file.placed_tables import PlacedTables
from swiommu.memory import SparseRam
from swiommu.pagetable import MOCK, RadixTable, page_size_choice
from swiommu.pagetable.formats import FORMATS
from swiommu.toml_file import did_you_mean, read_toml

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from swiommu.layer.base import Layer
    from swiommu.layer.node import Node

__all__ = ["bundled_stacks", "read_stack"]

_DATA: Final = Path(__file__).parent.parent.parent / "data" / "stacks"
_MOST_ENTRIES: Final = 1 << 20
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
        self.top = Keys(read_toml(path, what="a description of a stack"), "", path)
        self.memories = self.top.tables("memory")
        self.layers = self.top.tables("layer")
        self.devices = self.top.tables("device")
        self.top.close()
        self.all: dict[str, Keys] = {}
        for keys in (*self.memories.items(), *self.layers.items(), *self.devices.items()):
            self._register(*keys)
        if not self.all:
            raise self.top.error("describes no memory, no layer and no device")
        self.on = {name: keys.lowers("on") for name, keys in self.all.items() if name not in self.memories}
        self.walkers = {name: keys.name("walker", "nested") for name, keys in self.layers.items()}
        self.kinds = {name: keys.word("kind", _KINDS) for name, keys in self.layers.items()}
        self.formats = {
            name: FORMATS[keys.word("format", FORMATS, MOCK.name)]
            for name, keys in self.layers.items()
            if self.kinds[name] == "paged"
        }
        self.graph = Graph()
        self.entries = 0
        self.leaves = 0
        self.table_pages = 0
        self.regions = 0
        self.claimed: dict[tuple[int, int], str] = {}

    def build(self) -> Graph:
        """All of it, from the memories up."""
        order = self._order()
        self._limit_cost(order)
        for name in order:
            keys = self.all[name]
            try:
                self._add(name, keys)
            except InputError:
                raise
            except SwiommuError as error:
                raise keys.error(str(error)) from error
            keys.close()
        for top in self.graph.tops():
            try:
                require_no_conflict(top)
            except SwiommuError as error:
                raise self.all[top.name].error(str(error)) from error
        return self.graph

    def _register(self, name: str, keys: Keys) -> None:
        if name in self.all:
            raise keys.error(f"the name is that of {self.all[name].where} already")
        if name in _WALKERS:
            raise keys.error("the name has a meaning of its own, as a walker")
        if len(self.all) == _MOST_LAYERS:
            raise self.top.error(f"describes more than {_MOST_LAYERS} memories, layers and devices")
        self.all[name] = keys

    def _needs(self, name: str) -> list[str]:
        """The names that must be there before ``name``, checked."""
        keys = self.all[name]
        needed = [(f"on {lower!r}", lower) for lower in self.on.get(name, {}).values()]
        walker = self.walkers.get(name, "nested")
        if walker not in _WALKERS:
            needed.append((f"read through {walker!r}", walker))
        for what, lower in needed:
            known = [other for other in self.all if other != name and other not in self.devices]
            if lower not in self.all or lower in self.devices:
                kind = "that is a device" if lower in self.devices else "nothing has that name"
                hint = f"; {did_you_mean(lower, known)}" if known else ""
                raise keys.error(f"it can't be {what}: {kind}{hint}")
        return [lower for _, lower in needed]

    def _order(self) -> list[str]:
        """All names, lower ones first; a way round is refused with its names."""
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
                    loop = " > ".join([*way[way.index(lower) :], lower])
                    raise self.all[lower].error(f"it would be found below itself, by {loop}")
                elif lower not in order:
                    way.append(lower)
                    todo.append(iter(needs[lower]))
        return list(order)

    def _limit_cost(self, order: list[str]) -> None:
        # T = L (W + 1) + T of what is below, see the explanation of costs; by the dearest way where there are several.
        cost: dict[str, int] = {}
        ways: dict[str, int] = {}
        for name in order:
            lowers = self.on.get(name, {}).values()
            windows = self.all[name].length("windows") if self.kinds.get(name) in {"window", "router"} else 1
            ways[name] = windows * max([ways[lower] for lower in lowers], default=1)
            if name in self.layers and self.kinds[name] in {"paged", "flat"}:
                ways[name] = 1  # windows above a table see one layer there, whatever is below
            if ways[name] > _MOST_WAYS:
                raise self.all[name].error(
                    f"its windows could lead {ways[name]} ways through those below, more than {_MOST_WAYS}"
                )
            below = [cost[lower] for lower in lowers]
            levels = len(self.formats[name].levels) if name in self.formats else self.kinds.get(name) == "flat"
            walker = self.walkers.get(name, "nested")
            read = 0 if walker == "physical" else below[0] if walker == "nested" and below else cost.get(walker, 0)
            cost[name] = levels * (read + 1) + max(below, default=0)
            if cost[name] > _MOST_REFERENCES:
                raise self.all[name].error(
                    f"a walk from here could take {cost[name]} references, more than {_MOST_REFERENCES}"
                )

    def _add(self, name: str, keys: Keys) -> None:
        layer: Layer
        if name in self.memories:
            layer = self._memory(name, keys)
        elif name in self.devices:
            layer = Device(name, width=keys.bits("mask", 64))
        else:
            layer = _KINDS[self.kinds[name]](self, name, keys)
        walker = self.walkers.get(name, "nested")
        node = self.graph.add(
            layer,
            on=self._lowers(name, layer, keys),
            walker=_WALKERS.get(walker, walker),
            reserved=[self._reserved(row) for row in keys.rows("reserved")],
        )
        node.tlb, node.iotlb = read_cache(keys, "tlb"), read_cache(keys, "iotlb")

    def _lowers(self, name: str, layer: Layer, keys: Keys) -> list[str]:
        on = self.on.get(name, {})
        if isinstance(layer, Router) or list(on) in ([], [""]):
            return list(on.values())
        raise keys.error(f"on names ports, but it has one way out only: say on = {next(iter(on.values()))!r}")

    def _reserved(self, row: Keys) -> Reserved:
        self.regions += 1
        if self.regions > _MOST_REGIONS:
            raise row.error(f"a file may reserve {_MOST_REGIONS} regions in all")
        kind = row.word("kind", [str(kind) for kind in ReservedKind], "reserved")
        region = Reserved(row.address("at"), row.size("size"), ReservedKind(kind))
        row.close()
        return region

    @staticmethod
    def _memory(name: str, keys: Keys) -> Memory:
        return Memory(name, SparseRam(PhysSpace(name)), base=keys.address("base", 0), size=keys.size("size"))

    # -- the kinds of layers

    def identity(self, name: str, keys: Keys) -> Layer:
        """``width``."""
        return Identity(name, width=keys.bits("width", 64))

    def blocked(self, name: str, keys: Keys) -> Layer:
        """``width``."""
        return Blocked(name, width=keys.bits("width", 64))

    def window(self, name: str, keys: Keys) -> Layer:
        """``windows``."""
        return Window(name, *(self._span(row, ()) for row in keys.rows("windows")))

    def router(self, name: str, keys: Keys) -> Layer:
        """``windows`` with a ``port`` each; ``on`` names the ports."""
        ports = tuple(self.on[name])
        if not ports or ports == ("",):
            raise keys.error('on is no table of ports, such as { dram = "ram", vram = "vram" }')
        return Router(name, *(self._span(row, ports) for row in keys.rows("windows")), ports=ports)

    @staticmethod
    def _span(row: Keys, ports: tuple[str, ...]) -> Span:
        at, size = row.address("at"), row.size("size")
        port = ports.index(row.word("port", ports)) if ports else 0
        span = Span(at, size, row.address("to", at) - at, port)
        row.close()
        return span

    def paged(self, name: str, keys: Keys) -> Layer:
        """``format``, ``tables``, ``map``, ``hardware_ad``, ``force_write_back``."""
        form = self.formats[name]
        through, base = self._tables(name, keys)
        table = RadixTable(form, PlacedTables(name, base, through, limit=1 << form.output_width, claimed=self.claimed))
        for row in keys.rows("map"):
            self._map_pages(row, table)
            if self.table_pages + table.table_pages > _MOST_TABLE_PAGES:
                raise row.error(f"pages of 4 KiB for tables are more than {_MOST_TABLE_PAGES} in all by now")
        self.table_pages += table.table_pages
        return Paged(name, table, hardware_ad=keys.flag("hardware_ad"), force_write_back=keys.flag("force_write_back"))

    def _map_pages(self, row: Keys, table: RadixTable) -> None:
        at, to, size, prot = row.address("at"), row.address("to"), row.size("size"), row.prot("prot")
        bitmap = row.size("page", table.format.pgsize_bitmap)
        row.close()
        form = table.format
        if at + size > 1 << form.input_width and not form.sign_extended:  # else the table knows
            raise row.error(f"{size:#x} bytes at {at:#x} leave the {form.input_width}-bit input")
        if bitmap & ~form.pgsize_bitmap:
            sizes = ", ".join(f"{1 << bit:#x}" for bit in reversed(range(64)) if form.pgsize_bitmap >> bit & 1)
            raise row.error(f"page is {bitmap:#x}, not one of {sizes}")
        try:
            while size:
                pgsize, count = page_size_choice(bitmap, at, to, size)
                self._count_pages(row, count)
                table.map_run(at, to, pgsize, count, prot)
                at, to, size = at + pgsize * count, to + pgsize * count, size - pgsize * count
        except InputError:
            raise
        except SwiommuError as error:
            raise row.error(str(error)) from error

    def flat(self, name: str, keys: Keys) -> Layer:
        """``base``, ``size``, ``tables``, ``map``."""
        base, size = keys.address("base", 0), keys.size("size")
        self.entries += size >> 12
        if self.entries > _MOST_ENTRIES:
            raise keys.error(
                f"an aperture of {size:#x} bytes has {size >> 12} entries, more than {_MOST_ENTRIES} of all apertures"
            )
        through, tables = self._tables(name, keys)
        pages = PlacedTables(name, tables, through, limit=1 << 64, claimed=self.claimed)
        held: list[array[int]] = [pages.page(pages.alloc()) for _ in range(-(-(size >> 12) // 1024))]
        layer = FlatTable(name, base=base, size=size, table=tables, pages=held)
        for row in keys.rows("map"):
            at, to, length = row.address("at"), row.address("to"), row.size("size")
            row.close()
            self._count_pages(row, length >> 12)
            try:
                layer.map(at, to, length)
            except SwiommuError as error:
                raise row.error(str(error)) from error
        return layer

    def _count_pages(self, keys: Keys, count: int) -> None:
        self.leaves += count
        if self.leaves > _MOST_LEAVES:
            raise keys.error(f"{count} pages are more than a file may map, {_MOST_LEAVES} in all")

    def _tables(self, name: str, keys: Keys) -> tuple[Node | None, int]:
        """Where table reads of ``name`` enter, and the first address of its tables there."""
        walker, on = self.walkers[name], list(self.on[name].values())
        if walker == "physical" or (walker == "nested" and not on):
            return None, keys.address("tables", 0x1000)
        lower = on[0] if walker == "nested" else walker
        return self.graph[lower], keys.address("tables")


_KINDS: Final[dict[str, Callable[[_File, str, Keys], Layer]]] = {
    "identity": _File.identity,
    "blocked": _File.blocked,
    "window": _File.window,
    "router": _File.router,
    "flat": _File.flat,
    "paged": _File.paged,
}
