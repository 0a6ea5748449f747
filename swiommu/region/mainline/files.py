"""A tree of small text files as the kernel shows them, read and written by path like a mapping, and dumped to a folder.

A tree is made anew from what it shows each time it is asked, so it is never stale. Names may come from users: one that
can't be the name of a file (empty, ``.``, ``..``, with a slash or a NUL, over 255 bytes) is not there at all, so no
path leads out of the tree, neither here nor in a dump.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias, Union

import attrs

from swiommu.errors import InputError, InvalidArgument, NotFound, NotSupported, OutOfRange

__all__ = ["Link", "Node", "TextFile", "TextTree", "is_file_name", "parse_number"]

_LONGEST_NAME = 255
# What the kernel copies of a number that is written to a file: its buffer has 24 bytes.
_NUMBER_BYTES = 23
_NUMBER = re.compile(r"\+?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0(?P<octal>[0-7]*)|(?P<decimal>[1-9][0-9]*))\n?")


@attrs.frozen
class TextFile:
    """A file: ``read`` answers its text, ``write`` takes one; None where the file can't do that."""

    read: Callable[[], str] | None = None
    write: Callable[[str], None] | None = None


@attrs.frozen
class Link:
    """A symbolic link; ``target`` is a path from the folder that holds it, downwards."""

    target: str


# Union, as a name in quotes can't be joined by a bar when the alias is made.
Node: TypeAlias = Union[TextFile, Link, Mapping[str, "Node"]]  # noqa: UP007


class TextTree(Mapping[str, str]):
    r"""Text by path; iterating gives the paths that can be read, in order, each file once (links are not followed).

    ``root`` is asked for the top folder each time. Paths are relative, with single slashes. Reading or writing what is
    not there is `NotFound`, a folder `InvalidArgument`, a file that can't do it `NotSupported` (``kernel_errno``:
    EACCES); what else a write refuses is the file's own.

    >>> written = []
    >>> tree = TextTree(lambda: {"cma": {"used": TextFile(lambda: "5\n"), "free": TextFile(write=written.append)}})
    >>> tree["cma/used"], list(tree), tree.entries("cma")
    ('5\n', ['cma/used'], ['free', 'used'])
    >>> tree["cma/free"] = "7"
    >>> written, "cma/../cma/used" in tree
    (['7'], False)
    """

    def __init__(self, root: Callable[[], Mapping[str, Node]]) -> None:
        self._root = root

    def __getitem__(self, path: str) -> str:
        file = self._file(path)
        if file.read is None:
            raise NotSupported(f"{path} can't be read", kernel_errno=errno.EACCES)
        return file.read()

    def __setitem__(self, path: str, text: str) -> None:
        file = self._file(path)
        if file.write is None:
            raise NotSupported(f"{path} can't be written", kernel_errno=errno.EACCES)
        file.write(text)

    def __iter__(self) -> Iterator[str]:
        return (path for path, node in self.walk() if isinstance(node, TextFile) and node.read is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, path: object) -> bool:
        try:
            return isinstance(path, str) and self._file(path).read is not None
        except (NotFound, InvalidArgument):
            return False

    def get(self, path: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """The text, or ``default`` for a path that can't be read."""
        try:
            return self[path]
        except (NotFound, InvalidArgument, NotSupported):
            return default

    def entries(self, folder: str = "") -> list[str]:
        """The names in a folder, sorted, links and write-only files too; `InvalidArgument` for a file."""
        node = self._node(folder)
        if not isinstance(node, Mapping):
            raise InvalidArgument(f"{folder} is a file, not a folder", kernel_errno=errno.ENOTDIR)
        return sorted(filter(is_file_name, node))

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Every path below the root with its node: a folder before what it holds, links as links."""
        waiting: list[tuple[str, Node]] = [("", self._root())]
        while waiting:
            path, node = waiting.pop()
            if path:
                yield path, node
            if isinstance(node, Mapping):
                names = sorted(filter(is_file_name, node), reverse=True)
                waiting += [(f"{path}/{name}" if path else name, node[name]) for name in names]

    def dump(self, folder: str | Path) -> list[str]:
        """Write folders, links and all files that can be read into an empty or new ``folder``; the paths written.

        `InputError` if the folder holds anything, or can't be made or written: nothing is ever overwritten.
        """
        top = Path(folder)
        try:
            top.mkdir(parents=True, exist_ok=True)
            if any(top.iterdir()):
                raise InputError("is not empty; the files are dumped to a new or an empty folder", path=str(top))
            return [path for path, node in self.walk() if _written(top / path, node)]
        except OSError as error:
            raise InputError(f"can't be written: {error.strerror}", path=error.filename or str(top)) from error

    def _file(self, path: str) -> TextFile:
        node = self._node(path)
        if isinstance(node, TextFile):
            return node
        raise InvalidArgument(f"{path or 'the top'} is a folder", kernel_errno=errno.EISDIR)

    def _node(self, path: str) -> Node:
        node: Node = self._root()
        folder: Node = node
        parts = path.split("/")[::-1] if path else []
        while parts:
            name = parts.pop()
            folder = node
            if not is_file_name(name) or not isinstance(folder, Mapping) or name not in folder:
                raise NotFound(f"there is no {path!r}")
            node = folder[name]
            if isinstance(node, Link):
                # Targets lead downwards from the link's own folder and never through it, so this ends.
                parts += node.target.split("/")[::-1]
                node = folder
        return node


def is_file_name(name: str) -> bool:
    r"""Whether this can be the name of one file, as the kernel sees it.

    >>> [is_file_name(name) for name in ("camera", "cma0\n", "", "..", "a/b", "a\0b", "x" * 256)]
    [True, True, False, False, False, False, False]
    """
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        return False
    try:
        return len(name.encode()) <= _LONGEST_NAME
    except UnicodeEncodeError:
        return False


def parse_number(text: str) -> int:
    r"""The number that the kernel reads from what is written to such a file: decimal, 0x or 0 for octal, a newline.

    Looks at no more than 23 bytes. `InvalidArgument` for anything else, `OutOfRange` for 2**64 and more. Source:
    ``simple_attr_write`` and ``kstrtoull``.

    >>> parse_number("64\n"), parse_number("0x40"), parse_number("+0100")
    (64, 64, 64)
    """
    copied = text.encode("utf-8", "surrogatepass")[:_NUMBER_BYTES].partition(b"\0")[0].decode("latin-1")
    found = _NUMBER.fullmatch(copied)
    if found is None:
        raise InvalidArgument(f"{text[:_NUMBER_BYTES]!r} is no number")
    digits, base = found["hex"], 16
    if digits is None:
        digits, base = (found["decimal"], 10) if found["decimal"] else (found["octal"] or "0", 8)
    number = int(digits, base)
    if number >> 64:
        raise OutOfRange(f"{number} does not fit into 64 bits")
    return number


def _written(place: Path, node: Node) -> bool:
    if isinstance(node, Mapping):
        place.mkdir()
        return False
    if isinstance(node, Link):
        place.symlink_to(node.target)
    elif node.read is None:
        return False
    else:
        text = node.read()
        with place.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)
    return True
