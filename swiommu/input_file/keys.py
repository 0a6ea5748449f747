"""Keys of files, declared as fields of attrs classes; the sentences about a value that a key can't have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import attrs

from swiommu.errors import InvalidArgument
from swiommu.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection
    from enum import StrEnum

__all__ = ["BadValue", "ByteCount", "HexNumber", "key", "shown"]

ByteCount: TypeAlias = Annotated[int, "bytes"]
HexNumber: TypeAlias = Annotated[int, "hexadecimal"]

_SHOWN: Final = 60


class BadValue(InvalidArgument):
    """A value that its key can't have: ``reason`` goes on where the name of the ``key`` ends."""

    def __init__(self, reason: str, *, key: str = "") -> None:
        super().__init__(f"{key} {reason}" if key else reason)
        self.reason = reason
        self.key = key


def key(
    sentence: str,
    default: Any = attrs.NOTHING,
    *,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    choices: Collection[str] | type[StrEnum] = (),
    longest: int | None = None,
    printable: bool = False,
    source: str = "",
    is_read: bool = True,
) -> Any:
    """A field of an attrs class that is a key of a file; `BadValue` refuses what it can't be, from files and in Python.

    ``least`` and ``most`` bound a number, ``longest`` a list; a ``printable`` text is not empty. ``choices`` are looked
    up whenever a value is checked, as a registry may grow; a name of an enumeration becomes its member. ``source``
    says where the default comes from. A list or a dict as ``default`` is made anew for each object. ``is_read`` is
    False for a fact that files may hold and nothing needs.

    >>> @attrs.frozen
    ... class Pool:
    ...     size: int = key("Size of the pool.", 64 << 20, unit="bytes", least=2048)
    >>> Pool(100)
    Traceback (most recent call last):
    swiommu.input_file.keys.BadValue: size is 100, not a number of bytes from 2048 on
    """
    members = {str(member): member for member in choices} if isinstance(choices, type) else {}
    names: Collection[str] = members or choices  # type: ignore[assignment] # no class is left
    whole = not isinstance(least, float)
    bounds = f"a number of {unit}" if unit else "a whole number" if whole else "a number"
    if least is not None:
        bounds += f" from {_number(least)} on" if most is None else f" from {_number(least)} to {_number(most)}"

    def check(_object: object, field: attrs.Attribute[Any], value: Any) -> None:
        if value is None and default is None:
            return
        reason = ""
        if names and not (isinstance(value, str) and value in names):
            reason = f"is {shown(value)}; {did_you_mean(str(value), names)}"
        elif least is not None and not _is_number(value, least, most, whole=whole):
            reason = f"is {shown(value)}, not {bounds}"
        elif longest is not None and len(value) > longest:
            reason = f"has {len(value)} items, more than {longest}"
        elif printable and not (isinstance(value, str) and value.strip() and value.isprintable()):
            reason = f"is {shown(value)}, not a text that can be printed"
        elif isinstance(names, Mapping):
            try:
                names[value]  # what another package offers is loaded now
            except InvalidArgument as error:
                reason = f"is {shown(value)}: {error}"
        if reason:
            raise BadValue(reason, key=field.name)

    values = names or (bounds if unit or least is not None else "")
    metadata = {"sentence": sentence, "values": values, "source": source, "is_read": is_read}
    made = attrs.Factory(type(default)) if isinstance(default, list | dict) else default

    def member(value: Any) -> Any:
        return members.get(value, value) if isinstance(value, str) else value

    return attrs.field(default=made, converter=member if members else None, validator=check, metadata=metadata)


def _is_number(value: Any, least: float, most: float | None, *, whole: bool) -> bool:
    if not isinstance(value, int if whole else (int, float)) or isinstance(value, bool):
        return False
    return value >= least and (most is None or value <= most)


def _number(number: float) -> str:
    for value, end in ((int(number), ""), (int(number) + 1, " - 1")):
        if value >= 1 << 32 and not value & (value - 1):
            return f"2**{value.bit_length() - 1}{end}"
    return f"{number:.15g}"


def shown(value: object) -> str:
    r"""A value of somebody's file as a sentence can hold it: short, whatever it is, and without control characters.

    >>> shown("a\x1b[31m"), shown(1 << 70), shown([1, 2])
    ("'a\\x1b[31m'", '0x400000000000000000', 'a list')
    """
    if isinstance(value, list | dict | tuple):
        return "a table" if isinstance(value, dict) else "a list"
    # Python refuses to write a number of thousands of digits in decimal, never in hexadecimal.
    text = f"{value:#x}" if isinstance(value, int) and abs(value) >= 1 << 64 else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
