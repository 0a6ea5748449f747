"""Parts by name: allocators, page-table formats, kinds of layers; those of other packages among them.

A name that is registered is known everywhere: in designs, in stack files, in sentences that list what there is. Nothing
else in the program has a list of such names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from swiommu.errors import InvalidArgument
from swiommu.words import did_you_mean

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """What is registered, by name; ``what`` says in sentences what it is, such as "allocator".

    Packages that are installed beside offer parts as entry points of the ``group``. These are listed, and loaded when
    one is asked for; a registered name hides an offered one. ``accept`` makes a part of what was registered or loaded,
    or refuses it with `InvalidArgument`.

    >>> colours = Registry[int]("colour")
    >>> colours.register("red", 0xFF0000)
    >>> list(colours), colours["red"]
    (['red'], 16711680)
    >>> colours.named("rad")
    Traceback (most recent call last):
    swiommu.errors.InvalidArgument: no colour is named 'rad'; did you mean 'red'?
    """

    def __init__(self, what: str, *, group: str = "", accept: Callable[[str, Any], T] | None = None) -> None:
        self.what = what
        self.group = group
        self._accept = accept
        self._parts: dict[str, T] = {}

    def register(self, name: str, part: Any) -> None:
        """Make ``part`` known by ``name``; `InvalidArgument` for a name that can't be one, or that is taken."""
        if not _is_name(name):
            raise InvalidArgument(f"{_an(self.what)} needs a name, not {name!r}")
        if name in self._parts:
            raise InvalidArgument(f"{_an(self.what)} named {name!r} is registered already", name=name)
        self._parts[name] = self._accepted(name, part)

    def named(self, name: str) -> T:
        """The part of that name; `InvalidArgument` with the nearest name for one that there isn't."""
        try:
            return self[name]
        except KeyError:
            raise InvalidArgument(f"no {self.what} is named {name!r}; {did_you_mean(name, self)}", name=name) from None

    def __getitem__(self, name: str) -> T:
        if name not in self._parts:
            self._parts[name] = self._loaded(name, self._offers()[name])
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts or name in self._offers()

    def __iter__(self) -> Iterator[str]:
        yield from self._parts
        yield from (name for name in self._offers() if name not in self._parts)

    def __len__(self) -> int:
        return len(self._parts.keys() | self._offers().keys())

    def _offers(self) -> dict[str, EntryPoint]:
        return _offered(self.group) if self.group else {}

    def _loaded(self, name: str, offer: EntryPoint) -> T:
        try:
            part = offer.load()
        except Exception as fault:  # another package's code may raise anything
            words = f"the {self.what} {name!r} of {offer.value} can't be loaded: {type(fault).__name__}: {fault}"
            raise InvalidArgument(words, name=name) from fault
        return self._accepted(name, part)

    def _accepted(self, name: str, part: Any) -> T:
        return part if self._accept is None else self._accept(name, part)


@lru_cache(maxsize=16)
def _offered(group: str) -> dict[str, EntryPoint]:
    return {offer.name: offer for offer in sorted(entry_points(group=group), key=lambda each: each.name)}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
