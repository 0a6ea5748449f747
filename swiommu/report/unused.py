"""What was counted and not used: one list of sentences, of which the terminal shows those that a reader must know."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swiommu.words import counted

if TYPE_CHECKING:
    from swiommu.answers import Comparison

__all__ = ["LeftOut", "left_out"]

_EXAMPLES = 12


class LeftOut(NamedTuple):
    """So many things of a kind that were read and not replayed; ``names`` tells them apart further.

    What is ``expected`` in every recording of its kind changes no number's meaning.

    >>> str(LeftOut(2000, "line", "without the shape of an event"))
    '2,000 lines without the shape of an event'
    """

    number: int
    noun: str
    what: str
    expected: bool = False
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{counted(self.number, self.noun)} {self.what}"

    @property
    def kind(self) -> str:
        """What was counted, without the number.

        >>> LeftOut(0, "call", "that freed nothing").kind
        'calls that freed nothing'
        """
        return f"{self.noun}s {self.what}"


def left_out(answer: Comparison) -> list[LeftOut]:
    """Everything that is looked for, with 0 where there was none of it.

    >>> from swiommu.answers import compare
    >>> from swiommu.trace import read_trace
    >>> answer = compare(read_trace("arm64-6.12-smmu-camnvme-cma128M-s89"), ["iommu-strict"], with_need=False)
    >>> [str(each) for each in left_out(answer) if each.number]
    ['4 events that this answer does not need', '2 mappings of interrupt doorbells']
    """
    unused, account = answer.workload.unused, answer.account
    ignored = sorted(account.ignored.items(), key=lambda item: -item[1])
    names = [f"{name}: {number:,}" for name, number in ignored[:_EXAMPLES]]
    if len(ignored) > _EXAMPLES:
        names.append(f"and {len(ignored) - _EXAMPLES} more kinds")
    examples = tuple(f"line {line}: {reason}" for line, reason in account.examples)
    return [
        LeftOut(account.malformed, "line", "of known events that could not be read", names=examples),
        LeftOut(account.unreadable, "line", "without the shape of an event"),
        LeftOut(account.overlong, "line", "longer than 1 MiB, skipped"),
        LeftOut(account.ignored_total, "line", "of events that are not used", names=tuple(names)),
        LeftOut(unused.other_events, "event", "that this answer does not need", expected=True),
        LeftOut(unused.unmatched, "end", "without a begin among the lines that were read (in no peak and no need)"),
        LeftOut(unused.ambiguous, "scatter list", "whose piece lengths are not in the trace"),
        LeftOut(unused.unattributed_maps, "MAP", "whose device and direction are not in the trace"),
        LeftOut(unused.refused_usermaps, "user mapping", "refused by the kernel"),
        LeftOut(unused.msi_maps, "mapping", "of interrupt doorbells", expected=True),
        LeftOut(unused.identity_maps, "identity mapping", "that the kernel set up itself", expected=True),
        LeftOut(unused.freed_nothing, "call", "that freed nothing", expected=True),
        LeftOut(account.out_of_order, "event", "out of order (kept in file order)"),
        LeftOut(account.boots - 1, "further boot", "in the file, replayed on the state of the one before"),
    ]
