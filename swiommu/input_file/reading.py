"""Reading a file: its text, its values, and the object that they make."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import attrs

from swiommu.errors import InputError, SwiommuError
from swiommu.input_file.keys import BadValue, shown
from swiommu.input_file.places import first_twice, line_of, tokens
from swiommu.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swiommu.input_file.converter import Hook
    from swiommu.input_file.places import Where

__all__ = ["InputFile"]

T = TypeVar("T")

_LARGEST: Final = 1 << 20
_DEEPEST: Final = 64
_MOST_TABLES: Final = 1 << 14
_BARE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TOML_PLACE: Final = re.compile(r" \(at line (\d+), (column \d+)\)")


@attrs.frozen
class InputFile:
    r"""A TOML or JSON file that was read: ``data`` is its top table, ``text`` what stands in it.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     _ = file.write("unit = 'ns'\n[map]\nprice = 5\n")
    ...     _ = file.flush()
    ...     prices = InputFile.read(file.name, what="a file of prices")
    >>> prices.data, prices.error(("map", "price"), "is too low").line
    ({'unit': 'ns', 'map': {'price': 5}}, 3)
    """

    path: str
    text: str = attrs.field(repr=False)
    data: dict[str, Any]
    is_json: bool

    @classmethod
    def read(cls, path: str, *, what: str, is_json: bool | None = None, largest: int = _LARGEST) -> InputFile:
        """Read a file of at most ``largest`` bytes: JSON if its name ends so, else TOML.

        ``what`` says in a refusal what the file should have been. Raises `InputError` for a file that can't be read.
        """
        is_json = path.lower().endswith(".json") if is_json is None else is_json
        text = _text(path, what, largest)
        try:
            data = _json(text) if is_json else _toml(text, what)
            _limit(data, what)
        except InputError as error:
            raise InputError(error.reason, path=path, line=error.line) from error
        except RecursionError as error:
            raise InputError(f"nests deeper than {_DEEPEST} levels, not {what}", path=path) from error
        except ValueError as error:  # Python refuses to read a number of thousands of digits
            line = next((line for token, line in tokens(text) if len(token) > 999 and token.isalnum()), None)
            raise InputError("holds a number of too many digits", path=path, line=line) from error
        return cls(path, text, data, is_json)

    def error(self, where: Where, reason: str, *, at: Where | None = None) -> InputError:
        """The sentence about the value at ``where``, with the line of ``at``; ``reason`` goes on where the key ends."""
        subject = "".join(f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in where).lstrip(".")
        sentence = f"{subject}{reason}" if reason.startswith(":") else f"{subject} {reason}"
        at = where if at is None else at
        line = line_of(self.text, at, is_json=self.is_json) if at else None
        return InputError(sentence.strip(": "), path=self.path, line=line)

    def structure(self, cls: type[T], hooks: Mapping[Any, Hook] | None = None, *, keep_unknown: bool = False) -> T:
        """The file as an object of an attrs class, whose fields are its keys; `InputError` for the first that is wrong.

        ``hooks`` read types of their own: each takes the value, and a function that structures a part of it as a type,
        and raises `BadValue`. With ``keep_unknown`` a key that is not declared passes unless it looks like one that is.
        """
        # Imported here: it takes as long as starting Python does.
        from cattrs import BaseValidationError, ForbiddenExtraKeysError

        from swiommu.input_file.converter import converter

        try:
            return converter(hooks or {}, keep_unknown=keep_unknown).structure(self.data, cls)
        except (BaseValidationError, ForbiddenExtraKeysError, SwiommuError) as error:
            self._refuse(error, ())

    def _refuse(self, error: Exception, where: Where) -> NoReturn:
        """Raise the first of cattrs's errors as a sentence: unknown keys first, as a misspelt key is also missing."""
        from cattrs import BaseValidationError, ForbiddenExtraKeysError

        if isinstance(error, BaseValidationError):
            inner = min(error.exceptions, key=lambda each: not isinstance(each, ForbiddenExtraKeysError))
            notes = getattr(inner, "__notes__", ())
            self._refuse(inner, where + tuple(note.name if hasattr(note, "name") else note.index for note in notes))
        if isinstance(error, ForbiddenExtraKeysError):
            value: Any = self.data
            for part in where:
                value = value[part]
            name = next(name for name in value if name in error.extra_fields)
            hint = did_you_mean(name, [field.name for field in attrs.fields(error.cl)])
            raise self.error(where, f"has no key {shown(name)}; {hint}", at=(*where, name)) from None
        if isinstance(error, KeyError):
            raise self.error(where, "is missing") from None
        if isinstance(error, BadValue):
            at = (*where, error.key) if error.key else where
            raise self.error(at, error.reason) from None
        if isinstance(error, InputError) and error.path is not None:
            raise error
        if isinstance(error, SwiommuError):
            raise self.error(where, f": {error}") from None
        raise error


def _text(path: str, what: str, largest: int) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(largest + 1)  # bounded by what is read: a device tells no size
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a path has no zero byte"
        raise InputError(f"can't be read: {reason}", path=path) from error
    if len(data) > largest:
        raise InputError(f"is larger than {largest} bytes, not {what}", path=path)
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError("is not UTF-8 text", path=path, line=line) from error


def _toml(text: str, what: str) -> dict[str, Any]:
    for number, line in enumerate(text.split("\n"), 1):
        # The parser's time grows with the square of the parts of a dotted key.
        if line.count(".") > _DEEPEST:
            raise InputError(f"more than {_DEEPEST} dots in a line: not {what}", line=number)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        reason = _TOML_PLACE.sub(r" (\2)", str(error))
        raise InputError(f"is not TOML: {reason}", line=int(place[1]) if place else None) from error


class _Twice(Exception):
    """A key stands twice in one object, of which Python would keep the last; never leaves this file."""


def _json(text: str) -> dict[str, Any]:
    def table(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise _Twice
        return made

    def constant(word: str) -> NoReturn:
        line = next((line for token, line in tokens(text) if token.startswith(word)), None)
        raise InputError(f"is not JSON: {word} is no number", line=line)

    try:
        data = json.loads(text, object_pairs_hook=table, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON: {error.msg} (column {error.colno})", line=error.lineno) from error
    except _Twice:
        where, line = first_twice(text)
        raise InputError(f"the key {shown(where[-1])} stands twice in one object", line=line) from None
    if not isinstance(data, dict):
        raise InputError(f"is {shown(data)}, not an object with keys")
    return data


def _limit(tables: dict[str, Any], what: str) -> None:
    """Refuse what would take long to look at, and texts that can't be written."""
    level: list[Any] = [tables]
    count = depth = 0
    while level:
        count, depth = count + sum(isinstance(holder, dict) for holder in level), depth + 1
        if depth > _DEEPEST:
            raise InputError(f"nests deeper than {_DEEPEST} levels, not {what}")
        if count > _MOST_TABLES:
            raise InputError(f"holds more than {_MOST_TABLES} tables, not {what}")
        below = []
        for holder in level:
            for each in (*holder, *holder.values()) if isinstance(holder, dict) else holder:
                if isinstance(each, dict | list):
                    below.append(each)
                elif isinstance(each, str) and not each.isascii() and _SURROGATE.search(each):
                    raise InputError(f"{shown(each)} holds half of a surrogate pair, which is no character")
        level = below


def _name(part: object) -> str:
    return str(part) if _BARE.fullmatch(str(part)) else shown(part)
