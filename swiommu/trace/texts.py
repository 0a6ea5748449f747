"""Readers and a writer of the texts that follow an event's name, made from the templates of its `EventSpec`.

Every column is bounded in length or followed by a literal that it can't contain, so that matching
is linear in the length of the line, whatever the line holds. Bounded patterns also refuse what `int` would let
pass (signs, underscores, digits of other scripts), and took a quarter of the time of slicing such texts apart.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from swiommu.errors import InvalidArgument
from swiommu.trace.events import SPEC_OF
from swiommu.trace.eventspec import TEXT_COLUMNS, Text
from swiommu.trace.table import ScatterList

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType

    from swiommu.trace.table import EventTable

__all__ = ["Fields", "TextReader", "TextReaders", "why_unreadable", "write_text"]

# The part of a row that the event's text decides, in the order of `TEXT_COLUMNS`.
Fields: TypeAlias = Sequence[int]
TextReader: TypeAlias = Callable[[str], Fields | None]

_ADDR, _PHYS, _SIZE, _EXTRA, _ERR, _FLAGS, _SG = range(2, 9)
_U64: Final = (1 << 64) - 1
_LARGEST_ORDER: Final = 63  # 2**63 pages are beyond any address already
_EFAULT: Final = 14

_SHAPES: Final = {
    "d": "[0-9]{1,20}",
    "n": "[0-9]{1,9}",
    "o": "[0-9]{1,2}",
    "f": r"\(fault\)",
    "i": "-?[0-9]{1,18}",
    "x": "[0-9a-f]{1,16}",
    "p": "0x[0-9a-f]{1,16}",
    "w": "[^ ]+",
    "a": "[^ ]*",
    "b": r"[^ /\[]+",
    "t": "[^ ]+(?: [^ ]+)*?",  # twice as fast as .+?
    "l": r"\{(?:0x[0-9a-f]{1,16}(?:,0x[0-9a-f]{1,16})*)?\}",
    "bounce": "FORCE|NORMAL",
    "probe": "[^()]*",
    "~": ".*",
}
# How each letter's text becomes a number of the row, as an expression.
_CONVERT: Final = {
    "d": "{}",  # converted and limited before
    "o": "{}",  # same
    "i": "int({})",
    "x": "int({}, 16)",
    "p": "int({}, 16)",
    **dict.fromkeys(("w", "a", "b", "t", "bounce"), "ids[{}]"),
    "~": "ids[{}.strip()]",
}
# How a writer prints a number; words and texts are printed as they are.
_PRINT: Final = {"x": "{:x}", "p": "{:#x}"}
# What it prints where a template says only the shape.
_ANY: Final = {"p": "0x0", "w": "0000000000000000", "probe": "probe+0x0/0x0"}
_SLOT: Final = re.compile(r"<(?P<column>\w*):(?P<letter>[\w~]+)>")
_LONG_HEX: Final = re.compile(r"[0-9a-f]{17}", re.ASCII)
_ORDER: Final = re.compile(r" align=([0-9]+)", re.ASCII)
_LONG_DEC: Final = re.compile(r"[ =]([0-9]{20,})", re.ASCII)


def why_unreadable(event: str, text: str) -> str:
    """Why the text of a known event was refused, with the event's name in front.

    >>> why_unreadable("cma_release", "name=reserved pfn=0x11223344556677889 page=0 count=1")
    'cma_release: a number beyond 64 bits'
    >>> why_unreadable("cma_release", "name=reserved pfn=0x1122")
    'cma_release: the text is cut, or no known kernel prints it so'
    """
    if _LONG_HEX.search(text) or any(int(number[:21]) > _U64 for number in _LONG_DEC.findall(text)):
        return f"{event}: a number beyond 64 bits"
    order = _ORDER.search(text)
    if order is not None and int(order[1][:21]) > _LARGEST_ORDER:
        return f"{event}: an alignment of 2**{order[1][:21]} pages"
    if "(____ptrval____)" in text:
        return f"{event}: the kernel hid the pointer, so that begin and end can't be paired"
    if any(_matcher(each.template)(text) for each in SPEC_OF[event].texts[event]):
        if "iova" in text:
            return f"{event}: the end of the range is not its start plus its size"
        return f"{event}: the lists are not as long as the printed counts say"
    return f"{event}: the text is cut, or no known kernel prints it so"


def write_text(event: str, kernel: str, values: Mapping[str, str | int | tuple[int, ...]]) -> str:
    """The text of an event as a kernel of this version prints it, with ``values`` by the template's names.

    Where they are missing, ``end`` is ``addr`` plus ``size``, counts are those of the lists. `InvalidArgument` for a
    value that is missing or that the kernel could not have printed.

    >>> write_text("map", "6.12", {"addr": 0xffffe000, "phys": 0x81000, "size": 8192})
    'IOMMU: iova=0xffffe000 - 0x100000000 paddr=0x81000 size=8192'
    """
    template = SPEC_OF[event].text(event, kernel).template if event in SPEC_OF else ""
    if not template:
        raise InvalidArgument(f"no event {event!r} is known")
    found = {**_implied(values), **values}
    missing = [slot["column"] for slot in _SLOT.finditer(template) if slot["column"] and slot["column"] not in found]
    if missing:
        raise InvalidArgument(f"{event}: {', '.join(missing)} must be given")

    def printed(slot: re.Match[str]) -> str:
        letter = slot["letter"]
        value = found[slot["column"]] if slot["column"] else _ANY[letter]
        if isinstance(value, tuple):
            return f"{{{','.join(f'{number:#x}' for number in value)}}}"
        return value if isinstance(value, str) else _PRINT.get(letter, "{}").format(value)

    text = _SLOT.sub(printed, template)
    if _matcher(template)(text) is None:
        raise InvalidArgument(f"{event}: no kernel prints {text!r}")
    return text


def _implied(values: Mapping[str, Any]) -> dict[str, int]:
    implied = {}
    if "addr" in values and "size" in values:
        implied["end"] = values["addr"] + values["size"] & _U64
    for counts, lists in (("nents", "phys_addrs"), ("ents", "dma_addrs")):
        if lists in values:
            implied |= {counts: len(values[lists]), f"{counts}_shown": len(values[lists])}
    return implied


@functools.cache
def _matcher(template: str) -> Callable[[str], re.Match[str] | None]:
    pieces, end = [], 0
    for slot in _SLOT.finditer(template):
        shape = _SHAPES[slot["letter"]]
        pieces += [re.escape(template[end : slot.start()]), f"({shape})" if slot["column"] else f"(?:{shape})"]
        end = slot.end()
    pieces.append(re.escape(template[end:]))
    return re.compile("".join(pieces), re.ASCII | re.DOTALL).fullmatch


@functools.cache
def _source(template: str) -> CodeType:
    """Code of ``read(text)`` for one template: match, convert each group in place, hand the rest to ``finish``.

    Written out because it runs once a line: a loop over the columns takes three times as long. The code is made
    from declared templates alone, never from what a trace holds.
    """
    slots = [(slot["column"], slot["letter"]) for slot in _SLOT.finditer(template) if slot["column"]]
    fields = dict.fromkeys(TEXT_COLUMNS, "0") | {"sg": "-1"}
    fields |= {column: _CONVERT[letter].format(column) for column, letter in slots if column in fields}
    rest = [column for column, _ in slots if column not in fields]
    most = {"d": _U64, "o": _LARGEST_ORDER}
    limits = [f"{fields[column]} > {most[letter]}" for column, letter in slots if letter in most]
    if "end" in rest:
        limits.append(f"({fields['addr']} + {fields['size']}) & {_U64} != int(end, 16)")
    lines = ["def read(text):", " found = match(text)", " if found is None: return otherwise(text)"]
    lines += [f" {''.join(f'{column}, ' for column, _ in slots)}= found.groups()"] if slots else []
    lines += [f" {column} = int({column})" for column, letter in slots if letter in most]
    lines += [f" if {' or '.join(limits)}: return None"] if limits else []
    lines += [f" fields = ({', '.join(fields.values())})"]
    lines += [
        f" return finish(list(fields), {{{', '.join(f'{name!r}: {name}' for name in rest)}}}) if finish else fields"
    ]
    return compile("\n".join(lines), f"<template {template}>", "exec")


def _no_reader(_text: str) -> None:
    """What comes after the last template."""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple([int(item, 16) for item in text[1:-1].split(",")]) if len(text) > 2 else ()


class TextReaders(dict[str, TextReader | None]):
    """From an event's name to the reader of its text, made when first asked for; None for events not used.

    Strings and scatter lists go into ``table``; a reader answers `Fields`, or None for a text that doesn't fit.

    >>> from swiommu.trace.table import EventTable
    >>> table = EventTable()
    >>> fields = TextReaders(table)["cma_release"]("name=reserved pfn=0xb6000 page=00000000ef80c34c count=1013")
    >>> table.names[fields[1]], hex(fields[2]), fields[4]
    ('reserved', '0xb6000', 1013)
    """

    def __init__(self, table: EventTable) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, event: str) -> TextReader | None:
        if event not in SPEC_OF:
            return None
        reader: TextReader = _no_reader
        for text in reversed(SPEC_OF[event].texts[event]):
            names: dict[str, Any] = {
                "match": _matcher(text.template),
                "otherwise": reader,
                "finish": self._finisher(text),
                "ids": self._table.ids,
            }
            exec(_source(text.template), names)  # noqa: S102  # compiled from declared templates, see `_source`
            reader = names["read"]
        self[event] = reader
        return reader

    def _finisher(self, text: Text) -> Callable[[list[int], dict[str, str]], Fields | None] | None:
        """What a row needs besides its columns, by what the template has; None for nothing."""
        slots = {slot["column"]: slot["letter"] for slot in _SLOT.finditer(text.template)}
        if "l" in slots.values():
            return self._lists
        if "attrs" in slots:
            return self._attributes
        if "fault" in slots:
            return self._no_object
        return functools.partial(self._add, text.adds) if text.adds else None

    def _join(self, fields: list[int], word: str) -> None:
        words = self._table.names[fields[_FLAGS]]
        fields[_FLAGS] = self._table.intern(f"{words}|{word}" if words else word)

    def _add(self, word: str, fields: list[int], _rest: dict[str, str]) -> Fields:
        self._join(fields, word)
        return fields

    def _attributes(self, fields: list[int], rest: dict[str, str]) -> Fields:
        for word in filter(None, rest["attrs"].split("|")):
            self._join(fields, f"DMA_ATTR_{word}")
        return fields

    @staticmethod
    def _no_object(fields: list[int], _rest: dict[str, str]) -> Fields:
        fields[_ERR] = -_EFAULT
        return fields

    def _lists(self, fields: list[int], rest: dict[str, str]) -> Fields | None:
        phys, dma, sizes = (_numbers(rest.get(name, "")) for name in ("phys_addrs", "dma_addrs", "sizes"))
        nents, ents = int(rest.get("nents", len(phys))), int(rest.get("ents", len(dma)))
        shown = int(rest.get("nents_shown", len(phys))), int(rest.get("ents_shown", len(dma))), len(dma)
        if (len(phys), len(dma), len(sizes)) != shown or nents < len(phys) or ents < len(dma) or sum(sizes) > _U64:
            return None
        fields[_ADDR] = dma[0] if dma else 0
        fields[_PHYS] = phys[0] if phys else 0
        fields[_SIZE] = sum(sizes)
        fields[_EXTRA] = nents
        fields[_SG] = self._table.add_sg(ScatterList(phys, dma, sizes, nents, ents))
        return fields
