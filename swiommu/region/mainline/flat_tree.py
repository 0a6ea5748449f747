"""Flattened device trees: what firmware tells a kernel of its machine, read from bytes that need not be trusted.

The format is of 2005 and small: a header, a list of reserved ranges, a structure of big-endian words (begin and end of
a node, a property, nothing, the end) and a block of property names. Every offset and length is checked against the
bytes that are there; what is wrong is an `InputError` of one sentence. Source: Devicetree Specification 0.4, chapter 5.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import attrs

from swiommu.errors import InputError
from swiommu.region.mainline.tree_source import compile_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FlatTree", "TreeNode", "parse_flat_tree", "read_device_tree"]

MAGIC = b"\xd0\x0d\xfe\xed"
_HEADER = struct.Struct(">10I")
_BEGIN_NODE, _END_NODE, _PROPERTY, _NOTHING, _END = 1, 2, 3, 4, 9
_OLDEST, _NEWEST = 16, 17
_LARGEST = 2 << 20  # what arm64 kernels map at boot; no real tree has come near it
_DEEPEST = 64  # as deep as the kernel unpacks
_LONGEST_NAME = 255


@attrs.frozen(eq=False)
class TreeNode:
    r"""A node: its ``name`` with the unit address, ``properties`` as bytes, ``children`` in order.

    >>> node = TreeNode("cam@1", {"reg": b"\0\0\0\1\0\0\0\2", "compatible": b"acme,cam\0cam\0"})
    >>> node.cells("reg"), node.strings("compatible"), "status" in node
    ((1, 2), ('acme,cam', 'cam'), False)
    """

    name: str
    properties: dict[str, bytes] = attrs.field(factory=dict)
    children: list[TreeNode] = attrs.field(factory=list)

    def __contains__(self, name: str) -> bool:
        return name in self.properties

    def cells(self, name: str) -> tuple[int, ...]:
        """A property as words of 32 bits; none if it is missing. `InputError` if it isn't whole words."""
        value = self.properties.get(name, b"")
        if len(value) % 4:
            raise InputError(f"property {name!r} of {self.name!r} has {len(value)} bytes, not whole words of 4")
        return struct.unpack(f">{len(value) // 4}I", value)

    def strings(self, name: str) -> tuple[str, ...]:
        """A property as its texts, each ended by a NUL; bytes that are no ASCII show as they can."""
        value = self.properties.get(name, b"")
        return tuple(
            text.decode("ascii", "backslashreplace") for text in value.removesuffix(b"\0").split(b"\0") if text
        )

    def child(self, name: str) -> TreeNode | None:
        """The first child of that name; the unit address may be left out, as in the kernel."""
        for node in self.children:
            if node.name == name or node.name.partition("@")[0] == name:
                return node
        return None

    def walk(self, path: str = "/") -> Iterator[tuple[str, TreeNode]]:
        """This node and all below with their paths, in order."""
        waiting = [(path, self)]
        while waiting:
            place, node = waiting.pop()
            yield place, node
            below = place if place.endswith("/") else f"{place}/"
            waiting += [(below + child.name, child) for child in reversed(node.children)]


@attrs.frozen(eq=False)
class FlatTree:
    """A device tree: its ``root``, and the ``reserved`` (start, size) ranges of its header, in bytes."""

    root: TreeNode
    reserved: tuple[tuple[int, int], ...] = ()


def read_device_tree(path: str) -> FlatTree:
    r"""A device tree from a file: a flattened one (DTB), or source (DTS), which ``dtc`` compiles if it is installed.

    `InputError` for a file that can't be read, is larger than 2 MiB or is no device tree, and for source that names
    other files (``/include/``, ``/incbin/``); `NotSupported` for source where there is no ``dtc``.

    >>> read_device_tree("/")
    Traceback (most recent call last):
    swiommu.errors.InputError: /: can't be read: Is a directory
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"can't be read: {reason}", path=path) from error
    if data[:4] != MAGIC and data.strip() and b"\0" not in data and len(data) <= _LARGEST:
        data = compile_tree(data, path)
    return parse_flat_tree(data, path=path)


def parse_flat_tree(data: bytes, *, path: str | None = None) -> FlatTree:
    """A device tree from its flattened bytes, versions 16 and 17; `InputError` (with ``path``) if they are not one.

    Of two properties of one name in a node the first counts. Bytes behind the tree are ignored.

    >>> parse_flat_tree(b"not a tree")
    Traceback (most recent call last):
    swiommu.errors.InputError: is no flattened device tree: it begins with 6e6f7420, not d00dfeed
    """
    return _Parser(data, path).tree()


class _Parser:
    """A place in the structure block, moved on by reading."""

    def __init__(self, data: bytes, path: str | None) -> None:
        self._path = path
        self._data = data
        self._names: dict[int, str] = {}
        self._check_header()

    def tree(self) -> FlatTree:
        reserved = self._reserved()
        return FlatTree(self._root(), reserved)

    def _refuse(self, why: str) -> NoReturn:
        raise InputError(why, path=self._path)

    def _check_header(self) -> None:
        data = self._data
        if len(data) > _LARGEST:
            self._refuse(f"is larger than {_LARGEST >> 20} MiB: no device tree")
        if data[:4] != MAGIC:
            self._refuse(
                f"is no flattened device tree: it begins with {data[:4].hex() or 'nothing'}, not {MAGIC.hex()}"
            )
        if len(data) < _HEADER.size:
            self._refuse(f"ends after {len(data)} bytes, within the header")
        header = _HEADER.unpack_from(data)
        _, total, structure, names, self._reserved_at, version, last_comp, _, names_size, structure_size = header
        if version < _OLDEST or last_comp > _NEWEST:
            self._refuse(f"is of version {version} (from {last_comp} on); versions {_OLDEST} and {_NEWEST} are read")
        if total > len(data):
            self._refuse(f"has {len(data)} bytes of the {total} that its header tells of")
        self._end = total
        # Version 16 does not tell how long the structure is.
        size = structure_size if version >= _NEWEST else total - structure
        for what, start, length in (("names", names, names_size), ("structure", structure, size)):
            if length < 0 or start + length > total:
                self._refuse(f"its {what} at {start:#x} leave the {total} bytes of the tree")
        if structure % 4:
            self._refuse(f"its structure at {structure:#x} does not begin at a multiple of 4")
        self._place, self._stop = structure, structure + size
        self._names_at, self._names_end = names, names + names_size

    def _reserved(self) -> tuple[tuple[int, int], ...]:
        ranges: list[tuple[int, int]] = []
        at = self._reserved_at
        while at + 16 <= self._end:
            start, size = struct.unpack_from(">QQ", self._data, at)
            if not start and not size:
                return tuple(ranges)
            ranges.append((start, size))
            at += 16
        return self._refuse(f"its reserved ranges from {self._reserved_at:#x} on have no end")

    def _root(self) -> TreeNode:
        root: TreeNode | None = None
        above: list[TreeNode] = []
        while True:
            at, token = self._place, self._word()
            if token == _BEGIN_NODE:
                node = TreeNode(self._node_name())
                if above:
                    above[-1].children.append(node)
                elif root is None:
                    root = node
                else:
                    self._refuse(f"a second root begins at {at:#x}")
                above.append(node)
                if len(above) > _DEEPEST:
                    self._refuse(f"its nodes are nested deeper than {_DEEPEST} at {at:#x}")
            elif token == _END_NODE:
                if not above:
                    self._refuse(f"a node ends at {at:#x} that did not begin")
                above.pop()
            elif token == _PROPERTY:
                if not above:
                    self._refuse(f"a property at {at:#x} is in no node")
                name, value = self._property()
                above[-1].properties.setdefault(name, value)
            elif token == _END:
                if root is None or above:
                    self._refuse(f"ends at {at:#x} {'within a node' if above else 'without a node'}")
                return root
            elif token != _NOTHING:
                self._refuse(f"has an unknown word {token:#x} at {at:#x}")

    def _word(self) -> int:
        return int.from_bytes(self._take(4))

    def _take(self, size: int) -> bytes:
        at = self._place
        if size > self._stop - at:
            self._refuse(f"its structure ends at {self._stop:#x}, within {size} bytes at {at:#x}")
        self._place = at + size
        return self._data[at : at + size]

    def _node_name(self) -> str:
        end = self._data.find(b"\0", self._place, min(self._place + _LONGEST_NAME + 1, self._stop))
        if end < 0:
            self._refuse(f"the name of a node at {self._place:#x} has no end within {_LONGEST_NAME} bytes")
        name = self._take(end - self._place + 1)[:-1]
        self._align()
        return name.decode("ascii", "backslashreplace")

    def _property(self) -> tuple[str, bytes]:
        size, name_at = self._word(), self._word()
        value = self._take(size)
        self._align()
        if name_at not in self._names:
            self._names[name_at] = self._property_name(name_at)
        return self._names[name_at], value

    def _property_name(self, offset: int) -> str:
        at = self._names_at + offset
        # The bound on length keeps a large block of names from being copied once for every property.
        end = self._data.find(b"\0", at, min(at + _LONGEST_NAME + 1, self._names_end))
        if end < 0:
            self._refuse(f"the name of a property at {offset:#x} of the names has no end within {_LONGEST_NAME} bytes")
        return self._data[at:end].decode("ascii", "backslashreplace")

    def _align(self) -> None:
        self._place = min(-(-self._place // 4) * 4, self._stop)
