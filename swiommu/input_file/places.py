"""Where in a TOML or JSON text a value begins: for sentences that name the line."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Where", "first_twice", "line_of", "tokens"]

Where: TypeAlias = tuple[str | int, ...]

_TOKEN: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*|[][{},=:.\n]'
    r"|[^][\s{},=:.\"'#]+",
    re.DOTALL,
)


def line_of(text: str, where: Where, *, is_json: bool) -> int | None:
    """The line where the value at ``where`` begins, or the nearest around it that does; None if none does."""
    best, found = 0, None
    for place, line in _places(text, is_json=is_json):
        common = min(len(place), len(where))  # a header names tables around it, too
        if common > best and where[:common] == place[:common]:
            best, found = common, line
    return found


def first_twice(text: str) -> tuple[Where, int]:
    """The first key of a JSON text that stands twice in one object, and its line the second time."""
    seen: set[Where] = set()
    for place, line in _places(text, is_json=True):
        if place in seen:
            return place, line
        seen.add(place)
    raise AssertionError("no key stands twice")


def tokens(text: str) -> Iterator[tuple[str, int]]:
    """The words, texts, signs, comments and ends of lines of a TOML or JSON text, with their lines."""
    line = 1
    for match in _TOKEN.finditer(text):
        yield match[0], line
        line += match[0].count("\n")


@attrs.define
class _Open:
    """A table or list that has begun: its place, and the part at hand, which is a key or the number of an item."""

    place: Where
    item: int | None = None
    parts: list[str] = attrs.Factory(list)
    line: int = 0
    in_value: bool = False

    def at(self) -> Where:
        return self.place + (tuple(self.parts) if self.item is None else (self.item,))


def _places(text: str, *, is_json: bool) -> Iterator[tuple[Where, int]]:
    """Every key and item of a text that was read before, with its line, in the order of the text."""
    around: list[_Open] = [] if is_json else [_Open(())]
    counts: dict[Where, int] = {}  # by lists of tables, of which each header begins another
    brackets = 0
    for word, line in tokens(text):
        here = around[-1] if around else _Open((), in_value=True)
        if word[0] == "#" or (word == "\n" and (is_json or len(around) > 1)):
            continue
        if word == "\n":
            here.parts, here.in_value, brackets = [], False, 0
        elif word in {"}", "]"} and (len(around) > 1 or is_json):
            around.pop()
        elif word == ",":
            here.parts, here.in_value = [], False
            here.item = None if here.item is None else here.item + 1
        elif here.item is None and not here.in_value:
            if word == "[":
                brackets += 1
            elif word == "]" and here.parts:
                here.place = _header(here.parts, counts, is_list=brackets == 2)
                here.parts = []
                yield here.place, here.line
            elif word in {"=", ":"}:
                here.in_value = True
                yield here.at(), here.line
            elif word not in {".", "]"}:
                here.line = here.line if here.parts else line
                here.parts.append(_unquoted(word, is_json=is_json))
        else:
            if not here.in_value:
                here.in_value = True
                yield here.at(), line
            if word in {"{", "["}:
                around.append(_Open(here.at(), 0 if word == "[" else None))


def _header(parts: list[str], counts: dict[Where, int], *, is_list: bool) -> Where:
    place: Where = ()
    for number, part in enumerate(parts, 1):
        place += (part,)
        if is_list and number == len(parts):
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place += (counts[place],)
    return place


def _unquoted(token: str, *, is_json: bool) -> str:
    if token[0] not in "\"'":
        return token
    found: str = json.loads(token) if is_json else tomllib.loads(f"x = {token}")["x"]
    return found
