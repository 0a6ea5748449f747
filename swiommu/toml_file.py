"""A person's TOML file, read so that no file can hang the program or end in a traceback.

What is wrong with a file as such (missing, a directory, too large, not UTF-8, not TOML, nested beyond reason) is an
`InputError` in one sentence with the path. What the keys mean is the business of the room that asked.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from swiommu.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["did_you_mean", "read_toml"]

_LARGEST: Final = 1 << 20
_DEEPEST: Final = 64


def read_toml(path: str, *, what: str) -> dict[str, Any]:
    r"""The top table of a TOML file of at most 1 MiB; ``what`` says in a refusal what the file should have been.

    Raises `InputError` with the path for anything that is wrong.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     _ = file.write("unit = 'ns'\n[map]\nprice = 5\n")
    ...     _ = file.flush()
    ...     read_toml(file.name, what="a cost vector")
    {'unit': 'ns', 'map': {'price': 5}}
    >>> read_toml("/", what="a cost vector")
    Traceback (most recent call last):
    swiommu.errors.InputError: /: can't be read: Is a directory
    """
    try:
        text = _bytes(path, what).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", path=path) from error
    for number, line in enumerate(text.split("\n"), 1):
        # The parser's time grows with the square of the parts of a dotted key.
        if line.count(".") > _DEEPEST:
            raise InputError(f"more than {_DEEPEST} dots in a line: not {what}", path=path, line=number)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"is not TOML: {error}", path=path) from error
    except ValueError as error:  # Python refuses to read a number of thousands of digits
        raise InputError("holds a number of too many digits", path=path) from error
    except RecursionError as error:
        raise InputError(_too_deep(what), path=path) from error
    if _is_deep(tables):  # else whoever prints a value could still run out of stack
        raise InputError(_too_deep(what), path=path)
    return tables


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or all of them.

    >>> did_you_mean("allocators", ["name", "allocator"])
    "did you mean 'allocator'?"
    >>> did_you_mean("x", ["name", "allocator"])
    'there are name, allocator'
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"


def _bytes(path: str, what: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)  # bounded by what is read: a device tells no size
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", path=path) from error
    if len(data) > _LARGEST:
        raise InputError(f"is larger than {_LARGEST} bytes, not {what}", path=path)
    return data


def _too_deep(what: str) -> str:
    return f"nests deeper than {_DEEPEST} levels, not {what}"


def _is_deep(tables: dict[str, Any]) -> bool:
    level: list[Any] = [tables]
    for _ in range(_DEEPEST):
        level = [
            value
            for holder in level
            for value in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(value, dict | list)
        ]
    return bool(level)
