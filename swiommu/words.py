"""How numbers and foreign text become words: sizes, counts, and names that can't drive a terminal.

Every sentence that a person reads says these the same way, wherever it is made. What a sentence says is decided
elsewhere.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["clean", "counted", "did_you_mean", "mib", "spelt"]

_LONGEST_NAME: Final = 64


def mib(size: int) -> str:
    """Bytes in binary units, as few digits as tell sizes apart.

    >>> mib(158 << 20), mib(303104), mib(0), mib(1_500_000_000)
    ('158 MiB', '296 KiB', '0', '1,431 MiB')
    """
    if size == 0:
        return "0"
    kib = -(-size // 1024)
    if kib < 1024:
        return f"{kib} KiB"
    whole = size / 2**20
    return f"{whole:,.0f} MiB" if whole >= 99.95 or whole == int(whole) else f"{whole:.1f} MiB"


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "request"), counted(2000, "unmap")
    ('1 request', '2,000 unmaps')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clean(text: str, *, most: int | None = None, keep: str = "") -> str:
    r"""The text without control characters, but for those of ``keep``; cut to ``most`` characters if that is given.

    >>> clean("nvme\x1b[31m0"), clean("two\nlines", keep="\n"), clean("vivid.0", most=5)
    ('nvme?[31m0', 'two\nlines', 'vivi…')
    """
    long = most is not None and len(text) > most
    shown = "".join(char if char.isprintable() or char in keep else "?" for char in (text[:most] if long else text))
    return f"{shown[:-1]}…" if long else shown


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or all of them.

    >>> did_you_mean("allocators", ["name", "allocator"])
    "did you mean 'allocator'?"
    >>> did_you_mean("x", ["name", "allocator"])
    'there are name, allocator'
    """
    names = [str(each) for each in known]
    near = difflib.get_close_matches(name[:_LONGEST_NAME], names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(each or repr(each) for each in names)}"


def spelt(name: str) -> str:
    """The words of a class's name.

    >>> spelt("FlushPolicy")
    'flush policy'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()
