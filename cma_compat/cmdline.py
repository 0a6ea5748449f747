"""The region list ``cma=`` of 2010, for debugging. Off by default: nothing here runs unless it is called.

    list   = "" | region *( ";" region ) [ ";" ]
    region = name "=" size [ "@" start ] [ "/" alignment ] [ ":" allocator ]

Numbers are decimal, octal (0) or hexadecimal (0x), with K, M or G after them, in arithmetic modulo 2^64. A name is
all that stands before "=", spaces and semicolons too. Source: RFC v4, sections 5 and 9 of our notes. Mainline's
``cma=`` is another language.

>>> for region in parse_regions("camera=20M;firmware=256K@0x40000001/128K:bf"):
...     print(region)
ListedRegion(name='camera', size=20971520, start=0, alignment=4096, alloc_name=None)
ListedRegion(name='firmware', size=262144, start=1073872896, alignment=131072, alloc_name='bf')
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Never, Unpack

from swiommu.errors import Facts, InvalidArgument, NoSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ListFullError",
    "ListedRegion",
    "RegionListError",
    "parse_regions",
    "read_regions",
    "rounded_extent",
    "split_parameters",
]

_MOST_REGIONS = 15
_HEXADECIMAL = re.compile("0[xX]")
_DIGITS = {16: re.compile("[0-9a-fA-F]*"), 10: re.compile("[0-9]*"), 8: re.compile("[0-7]*")}
_SUFFIX = re.compile("[kKmMgG]?")
_TO_SEMICOLON = re.compile("[^;]*")
# Quotes may open and close anywhere; one that is never closed goes to the end.
_PARAMETER = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+', re.ASCII)
_SHIFTS = {"k": 10, "m": 20, "g": 30}


class ListedRegion(NamedTuple):
    """A region of the list: bytes, and 0 where the list says nothing; no allocator is the default one."""

    name: str
    size: int
    start: int
    alignment: int
    alloc_name: str | None


class RegionListError(InvalidArgument):
    """A list of regions is wrong at ``column`` (from 1, None where a whole region is); ``regions`` come before it."""

    def __init__(self, message: str, *, column: int | None = None, **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.column = column
        self.regions: tuple[ListedRegion, ...] = ()


class ListFullError(NoSpace):
    """A list has too many regions, from ``column`` on; ``regions`` come before."""

    def __init__(self, message: str, *, column: int | None = None, **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.column = column
        self.regions: tuple[ListedRegion, ...] = ()


def parse_regions(text: str, *, page_size: int = 4096, width: int = 64) -> list[ListedRegion]:
    """Regions of a list, rounded as early regions are.

    `InvalidArgument` for what the grammar refuses, for a number that is 0, an alignment that is no power of two, a
    range that leaves ``width`` bits; `NoSpace` at the 16th region. The error's ``regions`` are those before the one
    at fault: in 2010 they stay registered. Its ``column`` counts from 1.

    >>> parse_regions("a=5000;b=1M/3")
    Traceback (most recent call last):
        ...
    cma_compat.cmdline.RegionListError: cma=, column 13: the alignment 3 of region 'b' is no power of two
    """
    regions: list[ListedRegion] = []
    try:
        regions.extend(_rounded(region, page_size, width) for region in read_regions(text))
    except (RegionListError, ListFullError) as refusal:
        refusal.regions = tuple(regions)
        raise
    return regions


def read_regions(text: str) -> Iterator[ListedRegion]:
    """Regions of a list one by one, as they are written; raises, as `parse_regions`, when it comes to a fault.

    For whoever registers each one before the next is read.

    >>> regions = read_regions("a=5000;b")
    >>> next(regions)
    ListedRegion(name='a', size=5000, start=0, alignment=0, alloc_name=None)
    >>> next(regions)
    Traceback (most recent call last):
        ...
    cma_compat.cmdline.RegionListError: cma=, column 8: "=" is missing after the name of a region
    """
    reader = _Reader(text.partition("\0")[0])
    count = 0
    while not reader.at_end():
        if count == _MOST_REGIONS:
            raise ListFullError(
                f"cma=, column {reader.column}: a list may have {_MOST_REGIONS} regions", column=reader.column
            )
        yield reader.region()
        count += 1


def rounded_extent(start: int, size: int, alignment: int, *, page_size: int, width: int) -> tuple[int, int, int]:
    """``(start, size, alignment)`` of an early region, rounded up.

    The alignment is at least a page, the start a multiple of it, the size one of pages. Rounding is modulo
    ``2**width``, so that a size in the last page becomes 0. `InvalidArgument` for an alignment that is neither 0 nor a
    power of two, and where start + size leaves ``width`` bits. Source: RFC v4, section 5.

    >>> rounded_extent(1, 5000, 0, page_size=4096, width=64)
    (4096, 8192, 4096)
    """
    if alignment < 0 or alignment & (alignment - 1):
        raise InvalidArgument(f"the alignment {alignment} is no power of two", align=alignment)
    limit = 1 << width
    alignment = max(alignment, page_size)
    if 0 <= start < limit and 0 <= size < limit:
        first = -(-start // alignment) * alignment % limit
        length = -(-size // page_size) * page_size % limit
        if first + length < limit:
            return first, length, alignment
    raise InvalidArgument(
        f"a region of {size} bytes from {start:#x} on leaves the {width} bits of an address", start=start, size=size
    )


def split_parameters(command_line: str) -> Iterator[tuple[str, str]]:
    """Names and values of a kernel's command line in order; a parameter without "=" has the empty value.

    Between double quotes a space does not end a parameter; quotes around a parameter or its value are not part of
    it. ``--`` ends the kernel's part. Source: ``next_arg`` in the kernel's ``lib/cmdline.c``.

    >>> list(split_parameters('quiet cma="a b=1M;c=2M" cma.map=*=c -- cma=init'))
    [('quiet', ''), ('cma', 'a b=1M;c=2M'), ('cma.map', '*=c')]
    """
    for found in _PARAMETER.finditer(command_line.partition("\0")[0]):
        if found.group() == "--":
            return
        name, _, value = _unquoted(found.group()).partition("=")
        yield name, _unquoted(value)


def _unquoted(text: str) -> str:
    """Without a quote in front, and then without one at the end, as the kernel takes them away."""
    return text[1:].removesuffix('"') if text.startswith('"') else text


def _rounded(region: ListedRegion, page_size: int, width: int) -> ListedRegion:
    try:
        start, size, alignment = rounded_extent(
            region.start, region.size, region.alignment, page_size=page_size, width=width
        )
    except InvalidArgument as refusal:
        raise RegionListError(f"cma=, region {region.name!r}: {refusal}", **refusal.facts) from refusal
    return region._replace(start=start, size=size, alignment=alignment)


class _Reader:
    """A place in a list, moved on by reading."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    @property
    def column(self) -> int:
        return self._place + 1

    def at_end(self) -> bool:
        return self._place == len(self._text)

    def region(self) -> ListedRegion:
        name = self._name()
        size = self._number("size", name)
        start = self._number("start", name) if self._take("@") else 0
        alignment = self._alignment(name) if self._take("/") else 0
        alloc_name = self._match(_TO_SEMICOLON) if self._take(":") else ""
        if not self.at_end() and not self._take(";"):
            column = self.column
            self._refuse(f"region {name!r} goes on with {self._match(_TO_SEMICOLON)!r}", column)
        return ListedRegion(name, size, start, alignment, alloc_name or None)

    def _name(self) -> str:
        equals = self._text.find("=", self._place)
        if equals < 0:
            self._refuse('"=" is missing after the name of a region')
        if equals == self._place:
            self._refuse("a region has no name")
        name = self._text[self._place : equals]
        self._place = equals + 1
        return name

    def _alignment(self, name: str) -> int:
        column = self.column
        alignment = self._number("alignment", name)
        if alignment & (alignment - 1):
            self._refuse(f"the alignment {alignment} of region {name!r} is no power of two", column)
        return alignment

    def _number(self, what: str, name: str) -> int:
        column = self.column
        base = self._base()
        digits = self._match(_DIGITS[base])
        value = 0
        # Digit by digit and within 64 bits: Python refuses some thousand decimal digits at once.
        for digit in digits:
            value = (value * base + int(digit, 16)) % 2**64
        suffix = self._match(_SUFFIX).lower()
        value = (value << _SHIFTS.get(suffix, 0)) % 2**64
        if not value:
            self._refuse(f"the {what} of region {name!r} is missing or 0", column)
        return value

    def _base(self) -> int:
        """The base a number is written in; what announces hexadecimal is taken. Without a digit after it that is 0."""
        if self._match(_HEXADECIMAL):
            return 16
        return 8 if self._text.startswith("0", self._place) else 10

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._place)
        if found is None:
            return ""
        self._place = found.end()
        return found.group()

    def _take(self, character: str) -> bool:
        taken = self._text.startswith(character, self._place)
        self._place += taken
        return taken

    def _refuse(self, why: str, column: int | None = None) -> Never:
        column = self.column if column is None else column
        raise RegionListError(f"cma=, column {column}: {why}", column=column)
