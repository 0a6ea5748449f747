"""The converter of cattrs by which files become objects."""

from __future__ import annotations

import difflib
import re
from enum import StrEnum
from functools import lru_cache, partial
from operator import eq
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args

import attrs
from cattrs import Converter, ForbiddenExtraKeysError
from cattrs.cols import is_mapping, is_sequence, list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn

from swiommu.input_file.keys import BadValue, ByteCount, HexNumber, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Structure: TypeAlias = Callable[[Any, Any], Any]
    Hook: TypeAlias = Callable[[Any, Structure], Any]

__all__ = ["Hook", "converter"]

_MISSPELT: Final = 0.8
_BYTES: Final = re.compile(r"([0-9]{1,20}) ?([KMGT])?(?:i?B)?", re.ASCII)
_HEX: Final = re.compile(r"0x[0-9a-f]{1,16}", re.ASCII)
_UNITS: Final = {None: 0, "K": 10, "M": 20, "G": 30, "T": 40}


def converter(hooks: Mapping[Any, Hook], *, keep_unknown: bool) -> Converter:
    """A converter that changes nothing silently: a number is no text, and a text is no list.

    Made once for the same hooks: cattrs compiles a function for each class, which takes longer than most files.
    """
    return _converter(tuple(hooks.items()), keep_unknown=keep_unknown)


@lru_cache(maxsize=32)
def _converter(hooks: tuple[tuple[Any, Hook], ...], *, keep_unknown: bool) -> Converter:
    made = Converter(forbid_extra_keys=not keep_unknown)

    def table(cls: Any, made_for: Converter) -> Structure:
        inner = make_dict_structure_fn(cls, made_for, _cattrs_forbid_extra_keys=not keep_unknown)

        def read(value: Any, cls: Any) -> Any:
            if keep_unknown:
                _refuse_misspelt(value, cls)
            return inner(value, cls)

        return _strict(dict, "a table", read)

    def sequence(cls: Any, made_for: Converter) -> Structure:
        if get_args(cls) == (str,):  # one error for all, as there may be many
            return _strict(list, "a list of texts", _texts)
        return _strict(list, "a list of tables", list_structure_factory(cls, made_for))

    made.register_structure_hook_factory(attrs.has, table)
    made.register_structure_hook_factory(is_sequence, sequence)
    made.register_structure_hook_factory(
        is_mapping, lambda cls, made_for: _strict(dict, "a table", mapping_structure_factory(cls, made_for))
    )
    made.register_structure_hook_factory(_is_policy, lambda _cls: _strict(str, "a text"))  # `key` finds the member
    plain = {str: "a text", bool: "true or false", int: "a whole number"}
    for kind, what in plain.items():
        made.register_structure_hook(kind, _strict(kind, what))
    made.register_structure_hook(float, _strict((int, float), "a number"))
    own: dict[Any, Hook] = {ByteCount: _byte_count, HexNumber: _hex_number, **dict(hooks)}
    for cls, hook in own.items():
        # By a predicate: else a hook of a class would serve its subclasses too.
        made.register_structure_hook_func(partial(eq, cls), partial(_hooked, hook, made))
    return made


def _is_policy(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, StrEnum)


def _hooked(hook: Hook, made: Converter, value: Any, _cls: Any) -> Any:
    return hook(value, made.structure)


def _strict(kinds: Any, what: str, inner: Structure | None = None) -> Structure:
    def read(value: Any, cls: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise BadValue(f"is {shown(value)}, not {what}")
        return value if inner is None else inner(value, cls)

    return read


def _texts(values: list[object], _cls: Any) -> list[object]:
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise BadValue(f"has {shown(value)} as item {number}, not a text")
    return values


def _byte_count(value: object, _structure: Structure) -> int:
    if isinstance(value, str) and (found := _BYTES.fullmatch(value)):
        return int(found[1]) << _UNITS[found[2]]
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadValue(f'is {shown(value)}, not a number of bytes, or a text such as "64 MiB"')
    return value


def _hex_number(value: object, _structure: Structure) -> int:
    if isinstance(value, str) and _HEX.fullmatch(value):
        return int(value, 16)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadValue(f'is {shown(value)}, not a whole number, or a text such as "0xb9a00"')
    return value


def _refuse_misspelt(table: dict[str, object], cls: type) -> None:
    fields = attrs.fields_dict(cls)
    is_read = {_plain(name): field.metadata["is_read"] for name, field in fields.items()}
    misspelt = set()
    for name in table.keys() - fields.keys():
        near = difflib.get_close_matches(_plain(name[:64]), is_read, n=1, cutoff=_MISSPELT)
        misspelt |= {name for like in near if is_read[like]}
    if misspelt:
        raise ForbiddenExtraKeysError(None, cls, misspelt)


def _plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())
