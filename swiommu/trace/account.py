"""What became of every line of a trace: nothing vanishes without being counted and named."""

from __future__ import annotations

from typing import Final, NamedTuple

from attrs import define, field

__all__ = ["MAX_EXAMPLES", "MAX_NAMES", "OTHER_NAMES", "Account", "Malformed"]

MAX_EXAMPLES: Final = 5
# A hostile trace can invent names without end; beyond this many they are counted together under OTHER_NAMES.
MAX_NAMES: Final = 1000
OTHER_NAMES: Final = "(other names)"


class Malformed(NamedTuple):
    """One line of a known event that could not be read: its number (from 1) and why."""

    line: int
    reason: str


@define
class Account:
    """Lines by what became of them; ``total_lines`` is always the sum of the parts (`check` says so).

    ``header``      comments (``#``), blank lines and ``cpus=N``
    ``events``      lines used, by the kernel's event name; LOST lines are not among them
    ``ignored``     well-formed lines of events that swiommu doesn't use, by name
    ``malformed``   lines of a known event whose text can't be read; ``examples`` has the first five
    ``lost_lines``  ``CPU:n [LOST m EVENTS]``; ``lost_events`` is the sum of m, ``lost_unknown`` lines without m
    ``unreadable``  lines without the shape of an event
    ``overlong``    lines beyond 1 MiB, skipped without being held
    ``cut_tail``    1 if the file ends without a line feed (the line is counted by what it holds)

    ``out_of_order`` counts rows older than the row before (order is kept as in the file), ``boots`` how many
    machines' runs the file holds: one more than the times that the clock jumped back by over a second.

    >>> account = Account(total_lines=2, header=1, events={"map": 1})
    >>> account.check(); account.used
    1
    """

    total_lines: int = 0
    header: int = 0
    events: dict[str, int] = field(factory=dict)
    ignored: dict[str, int] = field(factory=dict)
    malformed: int = 0
    examples: list[Malformed] = field(factory=list)
    lost_lines: int = 0
    lost_events: int = 0
    lost_unknown: int = 0
    unreadable: int = 0
    unreadable_first: int = 0
    overlong: int = 0
    cut_tail: int = 0
    out_of_order: int = 0
    boots: int = 1

    @property
    def used(self) -> int:
        """Lines that became rows, LOST lines not counted."""
        return sum(self.events.values())

    @property
    def has_events(self) -> bool:
        """Whether any line had the shape of an event, of ours or another."""
        return bool(self.events or self.ignored or self.malformed)

    @property
    def ignored_total(self) -> int:
        """Lines of all ignored events together."""
        return sum(self.ignored.values())

    @property
    def lost_total(self) -> int:
        """Events lost as far as the kernel said, one for each place where it didn't."""
        return self.lost_events + self.lost_unknown

    @property
    def clean(self) -> bool:
        """Whether every line was either read or ignored by name: nothing malformed, lost, unreadable, overlong."""
        return not (self.malformed or self.lost_lines or self.unreadable or self.overlong)

    def ignore(self, name: str) -> None:
        """Count a line of an event that is not used; the number of distinct names is bounded."""
        if name not in self.ignored and len(self.ignored) >= MAX_NAMES:
            name = OTHER_NAMES
        self.ignored[name] = self.ignored.get(name, 0) + 1

    def refuse(self, line: int, reason: str) -> None:
        """Count a malformed line and keep the first few reasons."""
        self.malformed += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(Malformed(line, reason))

    def lose(self, count: int) -> None:
        """Count a LOST line; ``count`` 0 means that the kernel didn't say how many events."""
        self.lost_lines += 1
        self.lost_events += count
        self.lost_unknown += not count

    def as_dict(self) -> dict[str, object]:
        """The account as plain values for JSON, names by falling count."""

        def by_count(counts: dict[str, int]) -> dict[str, int]:
            return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

        return {
            "total_lines": self.total_lines,
            "header": self.header,
            "used": self.used,
            "events": by_count(self.events),
            "ignored": by_count(self.ignored),
            "malformed": self.malformed,
            "examples": [{"line": line, "reason": reason} for line, reason in self.examples],
            "lost": {"lines": self.lost_lines, "events": self.lost_events, "unknown": self.lost_unknown},
            "unreadable": self.unreadable,
            "unreadable_first": self.unreadable_first or None,
            "overlong": self.overlong,
            "cut_tail": self.cut_tail,
            "out_of_order": self.out_of_order,
            "boots": self.boots,
        }

    def check(self) -> None:
        """The parts add up to the lines read."""
        parts = self.header + self.used + self.ignored_total + self.malformed
        parts += self.lost_lines + self.unreadable + self.overlong
        assert parts == self.total_lines, f"{self.total_lines} lines, but the parts sum to {parts}: {self!r}"
