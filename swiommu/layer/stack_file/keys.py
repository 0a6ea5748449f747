"""The keys of a stack file: each read as what it must be, each mistake one sentence with the file and the key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from swiommu.address import Prot
from swiommu.errors import InputError
from swiommu.toml_file import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Keys", "shown"]

_MOST: Final = 1 << 64
_LONGEST_NAME: Final = 64
_LONGEST_LIST: Final = 4096
_SHOWN: Final = 60
_SIZE: Final = re.compile(r"([0-9]{1,20}) ?([KMGT])?(?:i?B)?", re.ASCII)
_UNITS: Final = {None: 0, "K": 10, "M": 20, "G": 30, "T": 40}
_PROTS: Final = {
    "r": Prot.READ,
    "w": Prot.WRITE,
    "rw": Prot.READ | Prot.WRITE,
    **{(flag.name or "").lower(): flag for flag in Prot},
}


def shown(value: object) -> str:
    r"""A value of somebody's file as a sentence can hold it: short, whatever it is, and without control characters.

    >>> shown("a\x1b[31m"), shown(1 << 70), shown([1, 2])
    ("'a\\x1b[31m'", '0x400000000000000000', 'a list')
    """
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a table"
    # Python refuses to write a number of thousands of digits in decimal, never in hexadecimal.
    text = f"{value:#x}" if isinstance(value, int) and abs(value) >= _MOST else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


class Keys:
    """One table of the file: ``where`` is its name for sentences. A method a kind of value; `close` at the end.

    >>> keys = Keys({"size": "64 MiB", "on": "ram", "sizes": 1}, "layer.bus", "stack.toml")
    >>> keys.size("size"), keys.name("on")
    (67108864, 'ram')
    >>> keys.close()
    Traceback (most recent call last):
    swiommu.errors.InputError: stack.toml: layer.bus: there is no key 'sizes'; did you mean 'size'?
    """

    def __init__(self, table: object, where: str, path: str) -> None:
        self.where = where
        self.path = path
        self._used: dict[str, None] = {}
        if not isinstance(table, dict):
            raise self.error(f"is {shown(table)}, not a table")
        self._table: dict[str, Any] = table

    def error(self, reason: str) -> InputError:
        """What is wrong with this table."""
        return InputError(f"{self.where}: {reason}" if self.where else reason, path=self.path)

    def close(self) -> None:
        """Refuse a key that nobody asked for."""
        for key in self._table:
            if key not in self._used:
                raise self.error(f"there is no key {shown(key)}; {did_you_mean(key[:_LONGEST_NAME], self._used)}")

    def address(self, key: str, default: int | None = None) -> int:
        """A number from 0 to 2**64 - 1."""
        return self._number(key, default, 0, _MOST - 1, "an address from 0 to 2**64 - 1")

    def size(self, key: str, default: int | None = None) -> int:
        """A number of bytes from 1 to 2**64, also written as "64 MiB"."""
        return self._number(key, default, 1, _MOST, 'a number of bytes from 1 to 2**64, or a text such as "64 MiB"')

    def bits(self, key: str, default: int | None = None) -> int:
        """A width from 1 to 64."""
        return self._number(key, default, 1, 64, "a number of bits from 1 to 64")

    def count(self, key: str, least: int, most: int) -> int | None:
        """A number from ``least`` to ``most``, None if the key is not there."""
        return self._number(key, least, least, most, f"a number from {least} to {most}") if key in self._table else None

    def table(self, key: str) -> Keys | None:
        """A table, to be closed by the caller; None if the key is not there."""
        if key not in self._table:
            return None
        return Keys(self._take(key, default={}), f"{self.where}: {key}", self.path)

    def flag(self, key: str) -> bool:
        """True or false, which is the default."""
        value = self._take(key, default=False)
        if not isinstance(value, bool):
            raise self.error(f"{key} is {shown(value)}, not true or false")
        return value

    def name(self, key: str, default: str | None = None) -> str:
        """A text."""
        value = self._take(key, default=default)
        if not isinstance(value, str):
            raise self.error(f"{key} is {shown(value)}, not a name")
        return value

    def word(self, key: str, words: Iterable[str], default: str | None = None) -> str:
        """One of ``words``."""
        value = self.name(key, default)
        if value not in (words := list(words)):
            raise self.error(f"{key} is {shown(value)}; {did_you_mean(value[:_LONGEST_NAME], words)}")
        return value

    def prot(self, key: str) -> Prot:
        """Permissions: "r", "w", "rw", or the kernel's words with bars between them; "rw" by default."""
        value = self.name(key, "rw")
        prot = Prot.NONE
        for word in value.split("|"):
            if word.strip() not in _PROTS:
                raise self.error(f"{key} is {shown(value)}, not r, w, rw, or words such as read|write|noexec|cache")
            prot |= _PROTS[word.strip()]
        return prot

    def lowers(self, key: str) -> dict[str, str]:
        """What something sits on: a name, for its only port, or a table from ports to names."""
        value = self._take(key, default={})
        if isinstance(value, str):
            return {"": value}
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
            raise self.error(f"{key} is {shown(value)}, not a name or a table of names")
        return value

    def rows(self, key: str) -> Iterator[Keys]:
        """Tables in a list, each to be closed by the caller."""
        value = self._take(key, default=[])
        if not isinstance(value, list):
            raise self.error(f"{key} is {shown(value)}, not a list of tables")
        if len(value) > _LONGEST_LIST:
            raise self.error(f"{key} has {len(value)} tables, more than {_LONGEST_LIST}")
        for number, row in enumerate(value):
            yield Keys(row, f"{self.where}: {key}[{number}]", self.path)

    def length(self, key: str) -> int:
        """How many tables a list has, 0 if it is none."""
        value = self._table.get(key)
        return len(value) if isinstance(value, list) else 0

    def tables(self, key: str) -> dict[str, Keys]:
        """Named tables: ``[key.NAME]``."""
        value = self._take(key, default={})
        if not isinstance(value, dict):
            raise self.error(f"{key} is {shown(value)}, not tables with names: [{key}.NAME]")
        for name in value:
            if not name or len(name) > _LONGEST_NAME or not name.isprintable() or " " in name:
                raise self.error(f"{shown(name)} is no name: 1 to {_LONGEST_NAME} printable characters, no blanks")
        return {name: Keys(table, f"{key}.{name}", self.path) for name, table in value.items()}

    def _take(self, key: str, *, default: object) -> object:
        self._used[key] = None
        value = self._table.get(key, default)
        if value is None:
            raise self.error(f"{key} is missing")
        return value

    def _number(self, key: str, default: int | None, least: int, most: int, what: str) -> int:
        value = self._take(key, default=default)
        if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
            value = int(found[1]) << _UNITS[found[2]]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.error(f"{key} is {shown(value)}, not {what}")
        return value
