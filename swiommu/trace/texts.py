"""The texts that follow an event's name, written down as the kernels print them; the readers are made from these.

A template is the kernel's format string with columns in it: ``size=<size:d>`` reads a decimal number into the
``size`` column. Letters: ``d`` decimal, ``n`` a short one, ``o`` an order of pages, ``i`` signed, ``x`` hexadecimal
without and ``p`` with ``0x``, ``w`` a word, ``b`` one without brackets and slashes, ``a`` one that may be missing,
``t`` words up to the literal that follows, ``l`` a list ``{0x1,0x2}``, ``~`` anything to the end. A slot without a
name is checked and dropped; a name that is no column is left to the event's finisher. Where kernels differ an event
has several templates, tried in order.

Sources: include/trace/events/{dma,iommu,cma,swiotlb}.h, drivers/iommu/intel/trace.h, and the recordings' probe
definitions. Every column is bounded in length or followed by a literal that it can't contain, so that matching
is linear in the length of the line, whatever the line holds. Bounded patterns also refuse what `int` would let
pass (signs, underscores, digits of other scripts), and took a quarter of the time of slicing such texts apart.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from swiommu.trace.events import ScatterList

if TYPE_CHECKING:
    from types import CodeType

    from swiommu.trace.table import EventTable

__all__ = ["TEMPLATES", "Fields", "TextReader", "TextReaders", "why_unreadable"]

# device, name, addr, phys, size, extra, err, flags, sg: the part of a row that the event's text decides.
Fields: TypeAlias = Sequence[int]
TextReader: TypeAlias = Callable[[str], Fields | None]

_COLUMNS: Final = ("device", "name", "addr", "phys", "size", "extra", "err", "flags", "sg")
_ADDR, _PHYS, _SIZE, _EXTRA, _ERR, _FLAGS, _SG = range(2, 9)
_U64: Final = (1 << 64) - 1
_LARGEST_ORDER: Final = 63  # 2**63 pages are beyond any address already
_EFAULT: Final = 14

_MAP: Final = "<device:t> dir=<name:w> dma_addr=<addr:x> size=<size:d> phys_addr=<phys:x> attrs=<flags:a>"
_UNMAP: Final = "<device:t> dir=<name:w> dma_addr=<addr:x> size=<size:d> attrs=<flags:a>"
_LISTS: Final = "dma_addrs=<dma_addrs:l> sizes=<sizes:l> phys_addrs=<phys_addrs:l> attrs=<flags:a>"
_NENTS: Final = "nents=<nents_shown:n>/<nents:n> ents=<ents_shown:n>/<ents:n>"
_ALLOC: Final = "dma_addr=<addr:x> size=<size:d> virt_addr=<extra:x> flags=<flags:w> attrs=<attrs:a>"
_FREE: Final = "dma_addr=<addr:x> size=<size:d> virt_addr=<extra:x> attrs=<flags:a>"
_SYNC: Final = "<device:t> dir=<name:w> dma_addr=<addr:x> size=<size:d>"
_SYNC_SG: Final = "<device:t> dir=<name:w> dma_addrs=<dma_addrs:l> sizes=<sizes:l>"
_GROUP: Final = "IOMMU: groupID=<extra:d> device=<device:t>"
_FLUSH: Final = "<name:w> <device:b>[<err:i>] type <flags:w> did <extra:d> [<addr:p>-<phys:p>] addr <:p>"
_TAG: Final = "<name:b>/<device:b> type <flags:w> did <extra:d> pasid <err:i> ref <size:d>"
_CMA_PAGE: Final = "name=<name:t> pfn=<addr:p> page=<:w> count=<size:d>"
_IOVAD: Final = "(<:probe>) iovad=<extra:p>"
_DOMAIN: Final = "(<:probe>) domain=<extra:p> iova=<addr:p>"

TEMPLATES: Final[dict[str, tuple[str, ...]]] = {
    "dma_map_page": (_MAP,),
    "dma_map_phys": (_MAP,),
    "dma_map_resource": (_MAP,),
    "dma_unmap_page": (_UNMAP,),
    "dma_unmap_phys": (_UNMAP,),
    "dma_unmap_resource": (_UNMAP,),
    # The counts came with 7.0 and with the stable kernels of February 2026.
    "dma_map_sg": (
        f"<device:t> dir=<name:w> {_NENTS} {_LISTS}",
        f"<device:t> dir=<name:w> {_NENTS} [TRUNCATED] {_LISTS}",
        f"<device:t> dir=<name:w> {_LISTS}",
    ),
    "dma_unmap_sg": ("<device:t> dir=<name:w> phys_addrs=<phys_addrs:l> attrs=<flags:a>",),
    # What this event labels dma_addrs are physical addresses.
    "dma_map_sg_err": ("<device:t> dir=<name:w> dma_addrs=<phys_addrs:l> err=<err:i> attrs=<flags:a>",),
    # 6.12.0 printed no direction.
    "dma_alloc": (f"<device:t> dir=<name:w> {_ALLOC}", f"<device:t> {_ALLOC}"),
    "dma_alloc_pages": (f"<device:t> dir=<name:w> {_ALLOC}",),
    "dma_free": (f"<device:t> dir=<name:w> {_FREE}", f"<device:t> {_FREE}"),
    "dma_free_pages": (f"<device:t> dir=<name:w> {_FREE}",),
    "dma_sync_single_for_cpu": (_SYNC,),
    "dma_sync_single_for_device": (_SYNC,),
    "dma_sync_sg_for_cpu": (_SYNC_SG,),
    "dma_sync_sg_for_device": (_SYNC_SG,),
    "map": ("IOMMU: iova=<addr:p> - <end:p> paddr=<phys:p> size=<size:d>",),
    "unmap": ("IOMMU: iova=<addr:p> - <end:p> size=<size:d> unmapped_size=<extra:d>",),
    "io_page_fault": ("IOMMU:<name:w> <device:w> iova=<addr:p> flags=<flags:w>",),
    "add_device_to_group": (_GROUP,),
    "remove_device_from_group": (_GROUP,),
    "attach_device_to_domain": ("IOMMU: device=<device:t>",),
    # 7.3 no longer prints the number of pages.
    "cache_tag_flush_range": (f"{_FLUSH} pages <:p> mask <size:p>", f"{_FLUSH} mask <size:p>"),
    "cache_tag_flush_range_np": (f"{_FLUSH} pages <:p> mask <size:p>", f"{_FLUSH} mask <size:p>"),
    "cache_tag_flush_all": (_TAG,),
    "cache_tag_assign": (_TAG,),
    "cache_tag_unassign": (_TAG,),
    "qi_submit": ("<name:w> <device:t>: <addr:p> <phys:p> <size:p> <extra:p>",),
    "cma_alloc_start": (
        "name=<name:t> count=<size:d> align=<extra:o>",
        "name=<name:t> request_count=<size:d> available_count=<addr:d> total_count=<phys:d> align=<extra:o>",
    ),
    "cma_alloc_finish": (f"{_CMA_PAGE} align=<extra:o> errorno=<err:i>",),
    "cma_alloc_busy_retry": (f"{_CMA_PAGE} align=<extra:o>",),
    "cma_release": (_CMA_PAGE,),
    "swiotlb_bounced": ("dev_name: <device:t> dma_mask=<extra:x> dev_addr=<phys:x> size=<size:d> <flags:bounce>",),
    "tracing_mark_write": ("<flags:~>",),
    "iova_init": (f"{_IOVAD} granule=<size:d> start=<addr:p>",),
    "iova_reserve": (f"{_IOVAD} lo=<addr:p> hi=<phys:p>",),
    "iova_alloc": (f"{_IOVAD} size=<size:d> limit=<addr:p> flush=<flags:w>",),
    "iova_alloc_ret": ("(<:probe>) ret=<addr:p>",),
    "iova_slow": (f"{_IOVAD} size=<size:d> limit=<addr:p> aligned=<flags:w>",),
    "iova_slow_ret": ("(<:probe>) pfn_hi=<phys:p> pfn_lo=<addr:p>", "(<:probe>) pfn_hi=<fault:f> pfn_lo=(fault)"),
    "iova_free": (f"{_IOVAD} pfn=<addr:p> size=<size:d>",),
    "iommu_map": (f"{_DOMAIN} paddr=<phys:p> size=<size:d> prot=<flags:w>",),
    "iommu_map_nosync": (f"{_DOMAIN} paddr=<phys:p> size=<size:d> prot=<flags:w>",),
    "iommu_map_sg": (f"{_DOMAIN} nents=<size:d> prot=<flags:w>",),
    "iommu_unmap_fast": (f"{_DOMAIN} size=<size:d>",),
}


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
    if any(_matcher(template)(text) for template in TEMPLATES[event]):
        if "iova" in text:
            return f"{event}: the end of the range is not its start plus its size"
        return f"{event}: the lists are not as long as the printed counts say"
    return f"{event}: the text is cut, or no known kernel prints it so"


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
    from `TEMPLATES` alone, never from what a trace holds.
    """
    slots = [(slot["column"], slot["letter"]) for slot in _SLOT.finditer(template) if slot["column"]]
    fields = dict.fromkeys(_COLUMNS, "0") | {"sg": "-1"}
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
        self._finish: dict[str, Callable[[list[int], dict[str, str]], Fields | None]] = {
            "dma_map_resource": self._resource,
            "dma_alloc": self._attributes,
            "dma_alloc_pages": self._attributes,
            "dma_map_sg": self._lists,
            "dma_unmap_sg": self._lists,
            "dma_map_sg_err": self._lists,
            "dma_sync_sg_for_cpu": self._lists,
            "dma_sync_sg_for_device": self._lists,
            "iova_slow_ret": self._no_object,
        }

    def __missing__(self, event: str) -> TextReader | None:
        if event not in TEMPLATES:
            return None
        reader: TextReader = _no_reader
        for template in reversed(TEMPLATES[event]):
            names: dict[str, Any] = {
                "match": _matcher(template),
                "otherwise": reader,
                "finish": self._finish.get(event),
                "ids": self._table.ids,
            }
            exec(_source(template), names)  # noqa: S102  # compiled from TEMPLATES, see `_source`
            reader = names["read"]
        self[event] = reader
        return reader

    def _join(self, fields: list[int], word: str) -> None:
        words = self._table.names[fields[_FLAGS]]
        fields[_FLAGS] = self._table.intern(f"{words}|{word}" if words else word)

    def _resource(self, fields: list[int], _rest: dict[str, str]) -> Fields:
        self._join(fields, "MMIO")
        return fields

    def _attributes(self, fields: list[int], rest: dict[str, str]) -> Fields:
        for word in filter(None, rest["attrs"].split("|")):
            self._join(fields, f"DMA_ATTR_{word}")
        return fields

    @staticmethod
    def _no_object(fields: list[int], rest: dict[str, str]) -> Fields:
        if rest:
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
