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
from swiommu.errors import InputError
from swiommu.input_file import InputFile, shown
from swiommu.layer.cache import CacheShape, TranslationCache
from swiommu.layer.graph import Graph, Reserved, require_no_conflict
from swiommu.layer.kinds import Device, Memory, Router
from swiommu.layer.path import Walker
from swiommu.memory import SparseRam
from swiommu.stackfile.building import Builder
from swiommu.stackfile.keys import CacheKeys, DeviceKeys, LayerKeys, MemoryKeys, NodeKeys, StackKeys
from swiommu.stackfile.kinds import LAYER_HOOKS, LAYER_KINDS, LayerKind
from swiommu.words import did_you_mean

if TYPE_CHECKING:
    from swiommu.input_file import Where
    from swiommu.layer.base import Layer

__all__ = ["bundled_stacks", "read_stack"]

_DATA: Final = Path(__file__).parent.parent / "data" / "stacks"
_LONGEST_NAME: Final = 64
_MOST_KEPT: Final = 1 << 16
_MOST_LAYERS: Final = 64
_MOST_REFERENCES: Final = 20_000
_MOST_REGIONS: Final = 16
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
        self.keys = self.file.structure(StackKeys, LAYER_HOOKS)
        self.all: dict[str, NodeKeys] = {}
        self.builder = Builder(self.file)
        for table in ("memory", "layer", "device"):
            for name, keys in getattr(self.keys, table).items():
                self._register((table, name), name, keys)
        if not self.all:
            raise self.file.error((), "describes no memory, no layer and no device")
        self.regions = 0

    def build(self) -> Graph:
        """All of it, from the memories up."""
        order = self._order()
        self._limit_cost(order)
        for name in order:
            with self.builder.located(name):
                self._add(name, self.all[name])
        for top in self.builder.graph.tops():
            with self.builder.located(top.name):
                require_no_conflict(top)
        return self.builder.graph

    def _register(self, where: Where, name: str, keys: NodeKeys) -> None:
        if not name or len(name) > _LONGEST_NAME or not name.isprintable() or " " in name:
            raise self.file.error(where, f"is no name: 1 to {_LONGEST_NAME} printable characters, no blanks")
        if name in self.all:
            raise self.file.error(
                where, f": the name is that of {'.'.join(map(str, self.builder.where[name]))} already"
            )
        if name in _WALKERS:
            raise self.file.error(where, ": the name has a meaning of its own, as a walker")
        if len(self.all) == _MOST_LAYERS:
            raise self.file.error((), f"describes more than {_MOST_LAYERS} memories, layers and devices")
        self.all[name], self.builder.where[name] = keys, where

    def _on(self, name: str) -> dict[str, str]:
        keys = self.all[name]
        return keys.on if isinstance(keys, LayerKeys | DeviceKeys) else {}

    def _kind(self, keys: NodeKeys) -> LayerKind | None:
        return LAYER_KINDS[keys.kind] if isinstance(keys, LayerKeys) else None

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
                raise self.builder.error(name, f"is {shown(lower)}, {kind}{hint}", what)
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
                    raise self.builder.error(lower, f"cycle: {' > '.join([*way[way.index(lower) :], lower])}")
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
            kind = self._kind(keys)
            windows = 1 if kind is None else kind.ways(keys)
            ways[name] = windows * max([ways[lower] for lower in lowers], default=1)
            if kind is not None and kind.has_table:
                ways[name] = 1  # windows above a table see one layer there, whatever is below
            if ways[name] > _MOST_WAYS:
                raise self.builder.error(
                    name, f"its windows could lead {ways[name]} ways through those below, more than {_MOST_WAYS}"
                )
            below = [cost[lower] for lower in lowers]
            levels = 0 if kind is None else kind.reads(keys)
            walker = self._walker(name)
            read = 0 if walker == "physical" else below[0] if walker == "nested" and below else cost.get(walker, 0)
            cost[name] = levels * (read + 1) + max(below, default=0)
            if cost[name] > _MOST_REFERENCES:
                raise self.builder.error(
                    name, f"a walk from here could take {cost[name]} references, more than {_MOST_REFERENCES}"
                )

    def _add(self, name: str, keys: NodeKeys) -> None:
        layer: Layer
        match keys:
            case MemoryKeys():
                layer = Memory(name, SparseRam(PhysSpace(name)), base=keys.base, size=keys.size)
            case DeviceKeys():
                layer = Device(name, width=keys.mask)
            case LayerKeys():
                layer = LAYER_KINDS[keys.kind].build(self.builder, name, keys)
            case _:
                raise AssertionError(f"no layer of {keys}")
        on = self._on(name)
        if not isinstance(layer, Router) and list(on) not in ([], [""]):
            raise self.builder.error(name, f"it has no ports: say on = {next(iter(on.values()))!r}", "on")
        self.regions += len(keys.reserved)
        if self.regions > _MOST_REGIONS:
            raise self.builder.error(name, f"a file may reserve {_MOST_REGIONS} regions in all", "reserved")
        walker = self._walker(name)
        node = self.builder.graph.add(
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
                raise self.builder.error(name, f"is {shape.entries}, more than {_MOST_KEPT}", which, *inside, "entries")
        shape = CacheShape(keys.entries, keys.ways, keys.policy, keys.seed)
        return TranslationCache(shape, walk=keys.walk)
