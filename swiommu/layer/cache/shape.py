"""How a cache is built: its knobs, each declared once with default, range and a sentence, and how it makes room."""

from __future__ import annotations

import attrs

from swiommu.address import is_power_of_two
from swiommu.errors import InvalidArgument
from swiommu.input_file import key
from swiommu.policy import Policy

__all__ = ["CacheShape", "ReplacementPolicy"]


class ReplacementPolicy(Policy):
    """Which answer goes when a set is full.

    "lru": the least recently used. "fifo": the oldest, used or not. "random": any one, by a generator that begins with
    ``seed``. "plru": a binary tree over the ways of a set points away from what was used last.
    """

    LRU = "lru"
    FIFO = "fifo"
    RANDOM = "random"
    PLRU = "plru"


@attrs.frozen
class CacheShape:
    """``entries`` answers in sets of ``ways``; an answer has its set by the number of its own block, whatever its size.

    ``policy`` says which one of a full set goes. `InvalidArgument` for numbers below 1, ``ways`` without ``entries`` or
    not a divisor of them, and ``plru`` unless ways are a power of two.

    >>> shape = CacheShape(64, ways=4)
    >>> shape.sets, str(shape), str(CacheShape())
    (16, '64 entries, 4 ways, lru', 'no limit')
    """

    entries: int | None = key("Answers that it holds; without it, all.", None, least=1)
    ways: int | None = key("Places in each set; without it, one set has all.", None, least=1)
    policy: ReplacementPolicy = key(
        "Which one goes when a set is full.", ReplacementPolicy.LRU, choices=ReplacementPolicy
    )
    seed: int = key("Where the generator of policy `random` begins.", 0, least=0)

    def __attrs_post_init__(self) -> None:
        if self.ways is not None and (self.entries is None or self.entries % self.ways):
            raise InvalidArgument(f"a cache of {self.entries or 'all'} entries can't have sets of {self.ways} ways")
        if self.policy is ReplacementPolicy.PLRU and not is_power_of_two(self.places or 0):
            raise InvalidArgument(f"policy plru needs ways that are a power of two, not {self.places or 'any number'}")

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
