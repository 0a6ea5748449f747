"""How a cache is built: its knobs, each declared once with default, range and a sentence, and how it makes room."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import attrs

from swiommu.address import is_power_of_two
from swiommu.errors import InvalidArgument

__all__ = ["POLICIES", "CacheShape", "Knob"]

POLICIES: Final = {
    "lru": "the least recently used goes first",
    "fifo": "the oldest goes first, used or not",
    "random": "any one goes, by a generator that begins with `seed`",
    "plru": "a binary tree over the ways of a set points away from what was used last",
}


class Knob(NamedTuple):
    """One thing to choose: its default, the least number or the words that there are, what it means, how it is refused.

    >>> [knob.name for knob in CacheShape.knobs()]
    ['entries', 'ways', 'policy', 'seed']
    """

    name: str
    default: int | str | None
    least: int | None
    words: tuple[str, ...]
    sentence: str
    refusal: str

    def require(self, value: object) -> None:
        """Refuse a value that it can't have; None is one only where it is the default."""
        if value is None and self.default is None:
            return
        if self.words:
            fits = value in self.words
        else:
            whole = isinstance(value, int) and not isinstance(value, bool)
            fits = whole and self.least is not None and value >= self.least  # type: ignore[operator]
        if not fits:
            raise InvalidArgument(self.refusal.format(value), **{self.name: value})


def _knob(
    default: int | str | None,
    sentence: str,
    refusal: str,
    *,
    least: int | None = None,
    words: tuple[str, ...] = (),
) -> Any:
    def check(_shape: object, attribute: attrs.Attribute[Any], value: object) -> None:
        _declared(attribute).require(value)

    return attrs.field(default=default, validator=check, metadata={"knob": (least, words, sentence, refusal)})


def _declared(attribute: attrs.Attribute[Any]) -> Knob:
    return Knob(attribute.name, attribute.default, *attribute.metadata["knob"])


@attrs.frozen
class CacheShape:
    """``entries`` answers in sets of ``ways``; an answer has its set by the number of its own block, whatever its size.

    ``policy`` says which one of a full set goes (`POLICIES`). `InvalidArgument` for numbers below 1, ``ways`` without
    ``entries`` or not a divisor of them, and ``plru`` unless ways are a power of two.

    >>> shape = CacheShape(64, ways=4)
    >>> shape.sets, str(shape), str(CacheShape())
    (16, '64 entries, 4 ways, lru', 'no limit')
    """

    entries: int | None = _knob(
        None, "answers that it holds; without it, all", "a cache of {} entries: at least 1 is needed", least=1
    )
    ways: int | None = _knob(
        None, "places in each set; without it, one set has all", "a cache of {} ways: at least 1 is needed", least=1
    )
    policy: str = _knob(
        "lru",
        "which one goes when a set is full",
        f"no policy {{!r}}: there are {', '.join(POLICIES)}",
        words=tuple(POLICIES),
    )
    seed: int = _knob(0, "where the generator of policy random begins", "a seed of {}: at least 0", least=0)

    def __attrs_post_init__(self) -> None:
        if self.ways is not None and (self.entries is None or self.entries % self.ways):
            raise InvalidArgument(
                f"a cache of {self.entries or 'all'} entries can't have sets of {self.ways} ways", ways=self.ways
            )
        if self.policy == "plru" and not is_power_of_two(self.places or 0):
            raise InvalidArgument(
                f"policy plru needs ways that are a power of two, not {self.places or 'any number'}", ways=self.places
            )

    @classmethod
    def knobs(cls) -> list[Knob]:
        """What there is to choose, in order."""
        return [_declared(attribute) for attribute in attrs.fields(cls)]

    @property
    def places(self) -> int | None:
        """Places in one set; None: no limit."""
        return self.entries if self.ways is None else self.ways

    @property
    def sets(self) -> int:
        """How many sets there are."""
        return 1 if self.entries is None or self.ways is None else self.entries // self.ways

    def __str__(self) -> str:
        if self.entries is None:
            return "no limit"
        ways = "" if self.ways is None else f", {self.ways} way{'s' * (self.ways != 1)}"
        return f"{self.entries} entr{'y' if self.entries == 1 else 'ies'}{ways}, {self.policy}"
