"""What a check of predictions against a recording answers (rule 25): matched, mismatched, undetermined with causes."""

from __future__ import annotations

from collections import Counter

import attrs

__all__ = ["KEPT_MISMATCHES", "Mismatch", "Tally"]

KEPT_MISMATCHES = 20


@attrs.frozen
class Mismatch:
    """One decision that the model predicted wrongly; both values as a reader of the trace would write them."""

    kind: str
    line: int
    predicted: str
    recorded: str


@attrs.define
class Tally:
    """The tally of one class of decisions; ``total`` is matched + mismatched, undetermined stands apart.

    >>> tally = Tally("cma")
    >>> tally.judge("alloc", 7, predicted="pfn 0x10", recorded="pfn 0x10")
    >>> tally.total, tally.matched, tally.mismatched
    (1, 1, 0)
    """

    name: str
    matched: int = 0
    mismatched: int = 0
    undetermined: Counter[str] = attrs.field(factory=Counter)
    mismatches: list[Mismatch] = attrs.field(factory=list)
    by_kind: Counter[str] = attrs.field(factory=Counter)

    @property
    def total(self) -> int:
        """Decisions that were predicted."""
        return self.matched + self.mismatched

    def judge(self, kind: str, line: int, *, predicted: str, recorded: str) -> None:
        """Count one decision; the first 20 mismatches are kept with both values."""
        self.by_kind[kind] += 1
        if predicted == recorded:
            self.matched += 1
            return
        self.mismatched += 1
        if len(self.mismatches) < KEPT_MISMATCHES:
            self.mismatches.append(Mismatch(kind, line, predicted, recorded))

    def copy(self) -> Tally:
        """The same tally, to be gone on with apart."""
        return Tally(
            self.name,
            self.matched,
            self.mismatched,
            self.undetermined.copy(),
            self.mismatches.copy(),
            self.by_kind.copy(),
        )

    def impossible(self, why: str) -> None:
        """Count one line that no kernel prints, with the reason: it decides nothing, and nothing follows from it.

        >>> tally = Tally("cma")
        >>> tally.impossible("0 pages are asked for")
        >>> tally.undetermined
        Counter({'an impossible line: 0 pages are asked for': 1})
        """
        self.leave(f"an impossible line: {why}")

    def leave(self, cause: str) -> None:
        """Count one decision that the trace does not determine, with the cause."""
        self.undetermined[cause] += 1
