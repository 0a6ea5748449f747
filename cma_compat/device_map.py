"""The map attribute: which regions serve a device's request of a type, as text.

    map     = "" | rule *( ";" rule ) [ ";" ]
    rule    = pattern *( "," pattern ) "=" regions
    pattern = device [ "/" type ] | "/" type
    regions = name *( "," name )

In a device, "?" is any one character, and "*" the rest of the name. Types have no wildcards. No space is skipped.

>>> boards = "camera,video=pool;codec/firmware=a;codec=b,a"
>>> validate(boards)
44
>>> lookup(boards, "codec", "firmware"), lookup(boards, "codec", None)
('a', 'b,a')
>>> region_names(lookup(boards, "codec", None))
['b', 'a']

Source: RFC v4, section 8 of our notes. What its documentation says of type wildcards was never built; we build what
was, and the wildcards only on request.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Unpack

from swiommu.errors import Facts, InvalidArgument, NotFound

__all__ = ["MapRuleError", "lookup", "region_names", "validate"]

_DEFAULT_TYPE = "common"


class MapRuleError(InvalidArgument):
    """A map of devices to regions is wrong at ``rule``, which begins at ``column`` (from 1)."""

    def __init__(self, message: str, *, rule: str = "", column: int = 0, **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.rule = rule
        self.column = column


class _Rule(NamedTuple):
    patterns: tuple[str, ...]
    regions: str


def validate(text: str) -> int:
    r"""Accepted length of a map in characters; 0 is a valid map that says nothing.

    A map ends at NUL or newline, whichever is first; one ";" before the end isn't counted. `InvalidArgument` with the
    ``rule`` and its ``column`` (from 1) where it has nothing before its "=", or has no "=". What follows "=" is not
    looked at.

    >>> validate("codec=pool;"), validate("codec=pool\nand more"), validate("codec=")
    (10, 10, 6)
    >>> validate("codec=pool;;")
    Traceback (most recent call last):
        ...
    cma_compat.device_map.MapRuleError: the rule '' at column 12 of the map has no "="
    """
    accepted = _cut(text)
    position = 0
    while position < len(accepted):
        stop = _find(accepted, ";", position)
        equals = accepted.find("=", position, stop)
        if equals <= position:
            fault = 'has no "="' if equals < 0 else 'has nothing before its "="'
            rule, column = accepted[position:stop], position + 1
            raise MapRuleError(f"the rule {rule!r} at column {column} of the map {fault}", rule=rule, column=column)
        position = stop + 1
    return len(accepted.removesuffix(";"))


def lookup(text: str | None, device: str | None, type: str | None = None, *, type_wildcards: bool = False) -> str:  # noqa: A002 - the kernel's name
    """The region list of the first pattern of the map that fits the device's name and the type.

    No type means "common"; the empty one stays empty. `NotFound`: no map, or none of its rules fits.
    `InvalidArgument`: there is a map but the device has no name, or the map is one that `validate` refuses.

    With ``type_wildcards`` a type may have "?" and a "*" at its end like a device. The code of 2010 never had that.

    >>> lookup("camera/a=left;cam*=right", "camera", "a"), lookup("camera/a=left;cam*=right", "camera")
    ('left', 'right')
    >>> lookup("*/fw*=low", "codec", "fw2", type_wildcards=True)
    'low'
    >>> lookup("*/fw*=low", "codec", "fw2")
    Traceback (most recent call last):
        ...
    swiommu.errors.NotFound: no rule of the map fits device 'codec' and type 'fw2'
    """
    rules = _rules(text) if text else ()
    if not rules:
        raise NotFound("no map is set")
    if not device:
        raise InvalidArgument("a device without a name can't be looked up in the map")
    wanted = _DEFAULT_TYPE if type is None else type
    # Carried from pattern to pattern and from rule to rule: a pattern that is only a type speaks of the last device.
    device_fits = False
    for rule in rules:
        for pattern in rule.patterns:
            if pattern.startswith("/"):
                rest = pattern
            else:
                matched = _after_device(pattern, device)
                device_fits = matched is not None
                rest = matched or ""
            if device_fits and _type_fits(rest, wanted, wildcards=type_wildcards):
                return rule.regions
    raise NotFound(f"no rule of the map fits device {device!r} and type {wanted!r}")


def region_names(text: str) -> list[str]:
    """Names of a region list in order; it ends at NUL or ";", as the lists of a map do.

    A "," at the end starts no name. An empty name elsewhere is a name, which only a region named "" has.

    >>> region_names("left,right,;more"), region_names(",left"), region_names("")
    (['left', 'right'], ['', 'left'], [])
    """
    names = text[: min(_find(text, "\0"), _find(text, ";"))].split(",")
    return names if names[-1] else names[:-1]


def _after_device(pattern: str, device: str) -> str | None:
    """What is left of the pattern when the device's name is used up or a "*" takes its rest; None for a miss.

    The "/" before a type takes part as any character does: a device may have one in its name.
    """
    for place, character in enumerate(device):
        if place == len(pattern):
            return None
        if pattern[place] == "*":
            return pattern[place + 1 :]
        if pattern[place] not in {"?", character}:
            return None
    return pattern[len(device) :].removeprefix("*")


def _type_fits(rest: str, wanted: str, *, wildcards: bool) -> bool:
    if not rest:
        return True
    if rest[0] != "/":
        return False
    if not wildcards:
        return rest[1:] == wanted
    return _after_device(rest[1:], wanted) == ""


# A map is set once and asked at every allocation.
@lru_cache(maxsize=16)
def _rules(text: str) -> tuple[_Rule, ...]:
    accepted = text[: validate(text)]
    split = (rule.partition("=") for rule in accepted.split(";")) if accepted else ()
    return tuple(_Rule(tuple(patterns.split(",")), regions) for patterns, _, regions in split)


def _cut(text: str) -> str:
    return text[: min(_find(text, "\0"), _find(text, "\n"))]


def _find(text: str, what: str, start: int = 0) -> int:
    """Where ``what`` is next, or the end."""
    found = text.find(what, start)
    return len(text) if found < 0 else found
