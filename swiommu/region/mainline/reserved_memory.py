"""What a device tree's ``/reserved-memory`` sets aside: areas, pools of single devices, bounce pools, and the rest.

The kernel looks at each node at boot and goes on when it refuses one; so does `plan_reserved_memory`. Addresses are
bytes of the machine's physical space. Source: ``of_reserved_mem.c``, ``contiguous.c``, ``coherent.c``, ``swiotlb.c``.
"""

from __future__ import annotations

import enum
import errno
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs

from swiommu.address import is_power_of_two
from swiommu.errors import InvalidArgument, NoMemory
from swiommu.profile import DEFAULT_PROFILE
from swiommu.region.mainline.area import CmaArea
from swiommu.region.mainline.command_line import Refusal
from swiommu.region.mainline.page_block import cma_min_alignment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.profile import Profile
    from swiommu.region.mainline.boot_memory import BootMemory
    from swiommu.region.mainline.flat_tree import FlatTree, TreeNode

__all__ = ["ReservedMemory", "ReservedNode", "Use", "plan_reserved_memory"]

_BITS_64 = (1 << 64) - 1
_CACHE_LINE = 64
_MOST_CELLS = 4
_FORBIDDEN_FOR_RESTRICTED = ("reusable", "linux,cma-default", "linux,dma-default", "no-map")


class Use(enum.Enum):
    """What becomes of a node of reserved memory."""

    AREA = "contiguous area"
    COHERENT = "coherent pool of a device"
    RESTRICTED = "restricted pool of a device"
    RESERVED = "kept away"


@attrs.frozen
class ReservedNode:
    """A node that the kernel accepts, in bytes; ``start`` is None where the kernel looks for a place.

    It looks in the ``windows`` (start, stop) in turn, or anywhere. ``default``: for devices without memory of their
    own (areas), or without coherence (pools).
    """

    name: str
    use: Use
    size: int
    start: int | None = None
    alignment: int = 0
    windows: tuple[tuple[int, int], ...] = ()
    no_map: bool = False
    default: bool = False

    def place(self, memory: BootMemory) -> int:
        """Reserve it in ``memory``: where it is. `NoMemory` where no window has room.

        `InvalidArgument` for a contiguous area whose start or size is not aligned to the page blocks of ``memory``.

        >>> from swiommu.address import PhysRange, PhysSpace
        >>> from swiommu.region.mainline import BootMemory
        >>> memory = BootMemory([PhysRange(PhysSpace("ram").at(0x4000_0000), 1 << 30)])
        >>> hex(ReservedNode("cma", Use.AREA, 16 << 20, alignment=4 << 20).place(memory))
        '0x7f000000'
        """
        start, least = self.start, memory.min_alignment if self.use is Use.AREA else 1
        if self.size % least or (start or 0) % least:
            raise InvalidArgument(
                f"start and size of {self.name!r} must be multiples of {least:#x} bytes", size=self.size
            )
        if start is None:
            align = max(self.alignment or _CACHE_LINE, least)
            places = (memory.find(self.size, align, low, high) for low, high in self.windows or ((0, memory.end),))
            start = next((place for place in places if place is not None), None)
        if start is None:
            raise NoMemory(f"no {self.size} bytes are free for {self.name!r}", size=self.size)
        memory.reserve(start, self.size)
        return start

    def area(self, start: int, *, page_size: int = 4096, profile: Profile | str = DEFAULT_PROFILE) -> CmaArea:
        """The contiguous area at the ``start`` that `place` answered; `InvalidArgument` if it is for another use."""
        if self.use is not Use.AREA:
            raise InvalidArgument(f"{self.name!r} is no contiguous area: {self.use.value}")
        return CmaArea.over(self.name, [(start, self.size)], page_size=page_size, profile=profile)


@attrs.frozen
class ReservedMemory:
    """``nodes`` that are accepted, those ``refused``, and the names of the nodes that each device ``uses``, by path."""

    nodes: tuple[ReservedNode, ...] = ()
    refused: tuple[Refusal, ...] = ()
    uses: dict[str, tuple[str, ...]] = attrs.field(factory=dict)


def plan_reserved_memory(
    tree: FlatTree,
    *,
    cma_given: bool = False,
    arm32: bool = False,
    page_size: int = 4096,
    kernel: Profile | str = DEFAULT_PROFILE,
    pageblock_order: int | None = None,
    min_alignment: int | None = None,
) -> ReservedMemory:
    r"""What the kernel makes of ``/reserved-memory``; nodes with a fixed place first, as it takes them.

    ``cma_given``: the command line had ``cma=``, so a default area of the tree is refused. ``arm32``: coherent pools
    need ``no-map``. What areas are aligned to, ``min_alignment``, is by default a page block: `cma_min_alignment` of
    ``page_size``, ``kernel`` and ``pageblock_order``, which raises `InvalidArgument`. What the tree says raises
    nothing; refusals have the kernel's errno, or 0 where it only warns.

    >>> from swiommu.region.mainline import FlatTree, TreeNode
    >>> pool = TreeNode("pool@50000000", {"compatible": b"shared-dma-pool\0", "reg": bytes.fromhex("5000000000100000")})
    >>> cells = {"#address-cells": b"\0\0\0\1", "#size-cells": b"\0\0\0\1"}
    >>> root = TreeNode("", cells, [TreeNode("reserved-memory", {**cells, "ranges": b""}, [pool])])
    >>> [(node.name, node.use.name, hex(node.start)) for node in plan_reserved_memory(FlatTree(root)).nodes]
    [('pool@50000000', 'COHERENT', '0x50000000')]
    """
    block = cma_min_alignment(page_size, kernel=kernel, pageblock_order=pageblock_order)
    alignment = block if min_alignment is None else min_alignment
    return _Planner(tree.root, cma_given=cma_given, arm32=arm32, min_alignment=alignment).plan()


class _Refused(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Planner:
    """One walk over the reserved memory of a tree."""

    def __init__(self, root: TreeNode, *, cma_given: bool, arm32: bool, min_alignment: int) -> None:
        self._root = root
        self._cma_given = cma_given
        self._arm32 = arm32
        self._min_alignment = min_alignment
        self._address_cells = _cells(root, "#address-cells")
        self._size_cells = _cells(root, "#size-cells")
        self._refused: list[Refusal] = []

    def plan(self) -> ReservedMemory:
        top = next((node for node in self._root.children if node.name == "reserved-memory"), None)
        if top is None:
            return ReservedMemory()
        cells = (_cells(top, "#address-cells", 0), _cells(top, "#size-cells", 0))
        usable = max(cells) <= _MOST_CELLS and min(cells) > 0
        if cells != (self._address_cells, self._size_cells) or not usable or "ranges" not in top:
            self._refuse("reserved-memory", errno.EINVAL, "has not the root's cells, or no ranges: it is ignored")
            return ReservedMemory((), tuple(self._refused))
        fixed: list[ReservedNode] = []
        searched: list[ReservedNode] = []
        phandles: dict[int, str] = {}
        for node in top.children:
            try:
                accepted = self._accepted(node)
            except _Refused as refusal:
                self._refuse(node.name, refusal.code, str(refusal))
                continue
            if accepted:
                if phandle := _phandle(node):
                    phandles[phandle] = node.name
                (searched if accepted[0].start is None else fixed).extend(accepted)
        self._tell_of_overlaps(fixed)
        nodes = tuple(self._with_one_default([*fixed, *searched]))
        uses = self._uses(phandles)
        return ReservedMemory(nodes, tuple(self._refused), uses)

    def _refuse(self, what: str, code: int, reason: str) -> None:
        self._refused.append(Refusal(what, code, reason))

    def _accepted(self, node: TreeNode) -> list[ReservedNode]:
        """What comes of one node: none if it is disabled, more than one for further ranges in ``reg``."""
        if node.properties.get("status", b"okay\0").rstrip(b"\0") not in {b"okay", b"ok"}:
            return []
        no_map = "no-map" in node
        if "reg" not in node:
            return [self._put_to_use(node, self._to_be_placed(node))]
        (start, size), *further = self._pairs(node, "reg")
        first = ReservedNode(node.name, Use.RESERVED, size, start, no_map=no_map)
        # The kernel keeps further ranges away as well, but only the first one is the node's.
        others = [ReservedNode(node.name, Use.RESERVED, length, low, no_map=no_map) for low, length in further]
        return [self._put_to_use(node, first), *others]

    def _to_be_placed(self, node: TreeNode) -> ReservedNode:
        size = self._number(node, "size", self._size_cells)
        if size is None:
            raise _Refused(errno.EINVAL, "has neither reg nor size")
        alignment = self._number(node, "alignment", self._address_cells) or 0
        if not size or not is_power_of_two(alignment or 1):
            raise _Refused(errno.EINVAL, f"{size} bytes aligned to {alignment} can't be reserved")
        windows = self._pairs(node, "alloc-ranges") if "alloc-ranges" in node else []
        no_map = "no-map" in node
        if "shared-dma-pool" in node.strings("compatible") and "reusable" in node and not no_map:
            alignment = max(alignment, self._min_alignment)
        bounds = tuple((low, low + length) for low, length in windows)
        return ReservedNode(node.name, Use.RESERVED, size, None, alignment, bounds, no_map)

    def _put_to_use(self, node: TreeNode, plain: ReservedNode) -> ReservedNode:
        compatible = node.strings("compatible")
        if "shared-dma-pool" in compatible:
            return self._area(node, plain) if "reusable" in node else self._coherent(node, plain)
        if "restricted-dma-pool" in compatible:
            for name in _FORBIDDEN_FOR_RESTRICTED:
                if name in node:
                    raise _Refused(errno.EINVAL, f"a restricted pool must not have {name}")
            return attrs.evolve(plain, use=Use.RESTRICTED)
        return plain

    def _area(self, node: TreeNode, plain: ReservedNode) -> ReservedNode:
        default = "linux,cma-default" in node
        if default and self._cma_given:
            raise _Refused(errno.EBUSY, "the command line's cma= is used instead")
        if plain.no_map:
            raise _Refused(errno.EINVAL, "reusable and no-map exclude each other")
        if plain.size % self._min_alignment or (plain.start or 0) % self._min_alignment:
            raise _Refused(errno.EINVAL, f"start and size must be multiples of {self._min_alignment:#x} bytes")
        return attrs.evolve(plain, use=Use.AREA, default=default)

    def _coherent(self, node: TreeNode, plain: ReservedNode) -> ReservedNode:
        if self._arm32 and not plain.no_map:
            raise _Refused(errno.EINVAL, "a coherent pool without no-map is not supported on 32-bit ARM")
        return attrs.evolve(plain, use=Use.COHERENT, default="linux,dma-default" in node)

    def _with_one_default(self, nodes: list[ReservedNode]) -> list[ReservedNode]:
        for use in (Use.AREA, Use.COHERENT):
            defaults = [at for at, node in enumerate(nodes) if node.use is use and node.default]
            for at in defaults[:-1]:
                self._refuse(nodes[at].name, 0, f"{nodes[defaults[-1]].name!r} is the default instead")
                nodes[at] = attrs.evolve(nodes[at], default=False)
        return nodes

    def _tell_of_overlaps(self, nodes: Sequence[ReservedNode]) -> None:
        by_start = sorted((node.start or 0, node.size, node.name) for node in nodes)
        for (start, size, name), (after, _, other) in pairwise(by_start):
            if start + size > after:
                self._refuse(other, 0, f"{after:#x} overlaps {name!r}, which ends at {start + size:#x}")

    def _uses(self, phandles: dict[int, str]) -> dict[str, tuple[str, ...]]:
        uses = {}
        for path, node in self._root.walk():
            value = node.properties.get("memory-region")
            if value is None:
                continue
            wanted = [int.from_bytes(value[at : at + 4]) for at in range(0, len(value), 4)]
            unknown = next((phandle for phandle in wanted if phandle not in phandles), None)
            if unknown is not None:
                self._refuse(path, errno.ENODEV, f"memory-region has no usable node {unknown:#x}")
            uses[path] = tuple(phandles[phandle] for phandle in wanted if phandle in phandles)
        return uses

    def _pairs(self, node: TreeNode, name: str) -> list[tuple[int, int]]:
        value, words = node.properties[name], self._address_cells + self._size_cells
        if not value or len(value) % (4 * words):
            raise _Refused(errno.EINVAL, f"{name} has {len(value)} bytes, not pairs of {4 * words}")
        pairs = []
        for at in range(0, len(value), 4 * words):
            middle = at + 4 * self._address_cells
            start = int.from_bytes(value[at:middle]) & _BITS_64
            size = int.from_bytes(value[middle : at + 4 * words]) & _BITS_64
            if not size or start + size > _BITS_64:
                raise _Refused(errno.EINVAL, f"{name} has {size:#x} bytes at {start:#x}")
            pairs.append((start, size))
        return pairs

    def _number(self, node: TreeNode, name: str, cells: int) -> int | None:
        value = node.properties.get(name)
        if value is None:
            return None
        if len(value) != 4 * cells:
            raise _Refused(errno.EINVAL, f"{name} has {len(value)} bytes, not {4 * cells}")
        return int.from_bytes(value) & _BITS_64


def _cells(node: TreeNode, name: str, missing: int = 1) -> int:
    value = node.properties.get(name, b"")
    return int.from_bytes(value) if len(value) == 4 else missing


def _phandle(node: TreeNode) -> int:
    return int.from_bytes((node.properties.get("phandle") or node.properties.get("linux,phandle") or b"")[-4:])
