"""Bringing two orders together: what should have happened, one by one, and what a log without time stamps has noted.

One bad record must cost one decision, not all behind it. So where the two part, the ways to go on are tried (another
record in its place, one too many, one missing) and the one is taken after which they agree for longest. What two lines
of execution did at a time (an interrupt between an unmap and its flush, another CPU) may have come in either order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from swiommu.verify.worlds import DOUBTS

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["Order", "align"]

_NEAR: Final = 8  # how many records are skipped at most, on either side
_STALLED: Final = 128  # how many others may come before one that was overtaken
_LONG: Final = 24  # records that agree from which on there is no doubt
_TELLING: Final = 400  # records by which a place is found among many that look alike
_FIRST: Final = 64  # records that tell whether two begin alike
_ALIKE: Final = 0.4
_SURE: Final = 6  # and of which a beginning somewhere else needs as many


@attrs.define(eq=False)
class Order:
    """Which recorded item is which expected one.

    ``pairs``: for each recorded item the place of the expected one that it is, or stands in the place of; None for one
    too many. ``reached``: how many of the expected are past once it is. ``first``: how many of the expected the record
    begins behind, ``before``: how many of the recorded come before the first expected. ``swapped``: recorded items
    that came in another order. ``missing``: expected ones that did not come though later ones did. ``end``: how far of
    the expected the record reaches. ``ambiguous``: it begins somewhere, and nothing tells where.
    """

    pairs: list[int | None] = attrs.field(factory=list)
    reached: list[int] = attrs.field(factory=list)
    first: int = 0
    before: int = 0
    swapped: set[int] = attrs.field(factory=set)
    missing: list[int] = attrs.field(factory=list)
    end: int = 0
    ambiguous: bool = False


def align(
    expected: Sequence[Hashable], recorded: Sequence[Hashable], contexts: Sequence[Hashable] = (), *, whole: bool = True
) -> Order:
    """Pair what was recorded with what was expected; ``contexts`` are the lines of execution of the expected.

    ``whole``: the record is known to begin no later than the expected.

    >>> align("abcdefgh", "abXdefgh").pairs
    [0, 1, 2, 3, 4, 5, 6, 7]
    >>> align("abcdefgh", "abdefgh").missing, align("abcdefgh", "abcXdefgh").pairs
    ([2], [0, 1, 2, None, 3, 4, 5, 6, 7])
    >>> order = align("abcd", "acbd", "1121")
    >>> order.pairs, sorted(order.swapped)
    ([0, 2, 1, 3], [1, 2])
    """
    return _Aligner(expected, recorded, contexts or [None] * len(expected)).run(whole=whole)


class _Aligner:
    """``at`` and ``came`` are the places in the expected and the recorded; ``late`` are expected ones overtaken."""

    def __init__(
        self, expected: Sequence[Hashable], recorded: Sequence[Hashable], contexts: Sequence[Hashable]
    ) -> None:
        self.expected, self.recorded, self.contexts = expected, recorded, contexts
        self.order = Order()
        self.at = self.came = 0
        self.late: list[tuple[int, int]] = []  # with the place in the recorded until which they may come
        self.doubts = 0

    def run(self, *, whole: bool) -> Order:
        if whole:
            self.begin()
        else:
            self.begin_anywhere()
        order = self.order
        while self.came < len(self.recorded):
            key = self.recorded[self.came]
            if self.agree(0, 0):
                self.at += 1
                self.pair(self.at - 1)
            elif not self.overdue(key) and not self.overtaken(key):
                self.resume()
        order.missing = sorted([*order.missing, *(place for place, _ in self.late)])
        order.end = self.at
        return order

    def pair(self, place: int | None) -> None:
        self.order.pairs.append(place)
        self.order.reached.append(self.at)
        self.came += 1

    def agree(self, skipped: int, extra: int) -> bool:
        at, came = self.at + skipped, self.came + extra
        return at < len(self.expected) and came < len(self.recorded) and self.expected[at] == self.recorded[came]

    def run_from(self, skipped: int, extra: int, most: int = _LONG) -> int:
        """How many agree from there on; the end of the record counts as agreement."""
        for length in range(most):
            if not self.agree(skipped + length, extra + length):
                ended = self.came + extra + length >= len(self.recorded) and length > 0
                return most if ended else length
        return most

    def likeness(self, skipped: int, extra: int) -> float:
        """The share of the first records that agree, without skipping any."""
        ours, theirs = self.expected[skipped : skipped + _FIRST], self.recorded[extra : extra + _FIRST]
        most = min(len(ours), len(theirs))
        return sum(a == b for a, b in zip(ours, theirs, strict=False)) / most if most else 0

    def begin(self) -> None:
        """The record may begin before what is expected, or behind its beginning."""
        near = max(max(self.likeness(n, 0), self.likeness(0, n)) for n in range(_NEAR))
        if near >= _ALIKE or not self.expected or not self.recorded:
            return
        ways = [(self.run_from(0, extra), 0, extra) for extra in range(len(self.recorded))]
        ways += [(self.run_from(skipped, 0), skipped, 0) for skipped in range(len(self.expected))]
        length, skipped, extra = max(ways, key=lambda way: (way[0], -way[1] - way[2]))
        if length >= min(_SURE, len(self.recorded)):
            self.at = self.order.first = skipped
            self.leave_before(extra)

    def begin_anywhere(self) -> None:
        """Find the only place from which on the beginning of the record agrees, but for a few bad records in front."""
        best: list[tuple[int, int]] = []
        length = 0
        for extra in range(min(_NEAR, len(self.recorded))):
            for skipped in range(len(self.expected)):
                found = self.run_from(skipped, extra, _TELLING)
                if found > length:
                    best, length = [], found
                if found == length:
                    best.append((skipped, extra))
            if length >= _SURE:
                break
        self.order.ambiguous = length < _SURE or len(best) > 1
        if best and not self.order.ambiguous:
            skipped, extra = best[0]
            self.at = self.order.first = skipped
            self.leave_before(extra)

    def leave_before(self, extra: int) -> None:
        self.order.before += extra
        for _ in range(extra):
            self.pair(None)

    def overdue(self, key: Hashable) -> bool:
        """Whether this is one that was overtaken; those that are not seen for long are missing."""
        while self.late and self.late[0][1] < self.came:
            self.order.missing.append(self.late.pop(0)[0])
        for late in self.late:
            if self.expected[late[0]] == key:
                self.late.remove(late)
                self.order.swapped.add(self.came)
                self.pair(late[0])
                return True
        return False

    def overtaken(self, key: Hashable) -> bool:
        """Whether another line of execution came first, and those that it overtook come soon."""
        stop = min(self.at + _NEAR, len(self.expected))
        for place in range(self.at + 1, stop):
            if self.expected[place] != key:
                continue
            skipped = range(self.at, place)
            soon = self.recorded[self.came + 1 : self.came + 1 + _STALLED]
            if any(self.contexts[other] == self.contexts[place] for other in skipped):
                return False
            if any(self.expected[other] not in soon for other in skipped):
                return False
            self.late += [(other, self.came + _STALLED) for other in skipped]
            self.order.swapped.add(self.came)
            self.at = place + 1
            self.pair(place)
            return True
        return False

    def resume(self) -> None:
        """They part here: go on where they agree for longest."""
        self.doubts += 1
        ways = [(1, 1)]
        if self.doubts <= DOUBTS:
            ways += sorted(
                ((a, b) for a in range(_NEAR) for b in range(_NEAR) if (a, b) not in {(0, 0), (1, 1)}), key=max
            )
        skipped, extra = max(ways, key=lambda way: self.run_from(*way))
        if self.run_from(skipped, extra) < 2:
            skipped, extra = 1, 1
        skipped = min(skipped, len(self.expected) - self.at)
        extra = min(extra, len(self.recorded) - self.came)
        if not skipped and not any(pair is not None for pair in self.order.pairs):
            self.leave_before(extra)
            return
        both = min(skipped, extra)
        for _ in range(both):
            self.at += 1
            self.pair(self.at - 1)
        self.order.missing += range(self.at, self.at + skipped - both)
        self.at += skipped - both
        for _ in range(extra - both):
            self.pair(None)
