"""Lines of ftrace text into rows and an account.

A line is ``TASK-PID [CPU] FLAGS SECONDS: EVENT: TEXT``. Task names may hold anything, brackets and dashes too. The
kernel's columns are fixed (the name is right-aligned in 16), so the fast path slices, and a head seen before is
looked up whole. Lines out of these columns (stripped, wide CPU numbers, ``trace-cmd``) go through one regular
expression that takes the first place where a whole head fits. Every line ends in exactly one drawer of the `Account`.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final, NamedTuple

from swiommu.trace.account import Account
from swiommu.trace.events import KIND_OF, Kind
from swiommu.trace.source import OVERLONG, Source
from swiommu.trace.table import LEVELS, EventTable, Row
from swiommu.trace.texts import TextReaders, why_unreadable

__all__ = ["SECOND", "Reading"]

SECOND: Final = 1_000_000_000
_MAX_HEADS: Final = 1 << 16
_CPUS: Final = 1 << 13  # no kernel is built for more; tables by CPU stay small
_HEAD_LIMIT: Final = 160  # a task name has 15 characters, so no head is nearly as long as this

_HEAD: Final = re.compile(
    r".+?-(?P<pid>\d{1,9}) +(?:\( *(?:\d+|-+)\) +)?\[(?P<cpu>\d{1,6})\] +"
    r"(?:(?P<flags>[.a-zA-Z][.a-zA-Z][.shHzZ][.0-9a-f][.0-9a-f]?) +)?(?P<stamp>\d{1,9}\.\d{1,9}|\d{1,18}): +",
    re.ASCII,
)
_PATIENCE: Final = 1_000_000
_FRACTION: Final = re.compile(r"(\d{1,9}): +", re.ASCII)
_LOST: Final = re.compile(r"CPU:(\d{1,6}) \[(?:LOST (?:(\d{1,18}) )?EVENTS|(?:(\d{1,18}) )?EVENTS DROPPED)\]", re.ASCII)
_ENTRIES: Final = re.compile(r"#\s*entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18})\s+#P:(\d{1,6})", re.ASCII)


class _Head(NamedTuple):
    """What stands before the event's name; ``time`` is that of the whole second in the fast path's heads."""

    time: int
    cpu: int
    pid: int
    level: int


def _columns_head(text: str, bracket: int) -> _Head | None:
    """The head in the kernel's own columns up to the seconds' dot, ``[`` at ``bracket``; None if it is another."""
    if len(text) != bracket + 18 or text[16] != "-" or text[bracket] != "[" or not text.isascii():
        return None
    pid, cpu, flags = text[17:25].rstrip(" "), text[bracket + 1 : bracket + 4], text[bracket + 6 : bracket + 11]
    seconds = text[bracket + 12 : bracket + 17].lstrip(" ")
    if not (pid.isdecimal() and cpu.isdecimal() and seconds.isdecimal()) or flags[2] not in LEVELS:
        return None
    if text[bracket + 4 : bracket + 6] != "] " or text[bracket + 11] != " " or text[-1] != "." or " " in flags:
        return None
    return _Head(int(seconds) * SECOND, int(cpu), int(pid), LEVELS[flags[2]])


def _stamp(text: str) -> int:
    """Nanoseconds of ``12.345678``, or the number itself of a clock that counts; the pattern has checked the digits."""
    whole, dot, fraction = text.partition(".")
    return int(whole) * SECOND + int(fraction.ljust(9, "0")) if dot else int(whole)


class Reading:
    """One pass over a `Source`: fills ``table`` and ``account``, and remembers what the header said.

    ``ticks`` tells that time stamps were whole numbers, ``flagless`` that some lines had no flags.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.table = EventTable()
        self.account = Account()
        self.ticks = False
        self.flagless = False
        self.entries: tuple[int, int, int] | None = None
        self._readers = TextReaders(self.table)
        self._heads: dict[str, _Head] = {}
        self._rows: list[Row] = []
        self._last = 0
        self._number = 0

    def run(self) -> None:
        """Read everything, or a million lines without a single event; `InputError` comes from the source."""
        for lines in self.source:
            self._batch(lines)
            self.table.extend(self._rows)
            self._rows.clear()
            if self._number >= _PATIENCE and not self.account.has_events:
                break
        self.account.total_lines = self._number
        self.account.cut_tail = int(self.source.cut_tail)

    def _batch(self, lines: list[str]) -> None:
        """The fast path; whatever it does not recognise completely goes to `_slow`."""
        heads, readers = self._heads, self._readers
        append, seen = self._rows.append, []
        # With record-tgid, ten more columns stand before the CPU.
        bracket = 35 if lines[-1][35:36] == "[" and lines[-1][25:26] != "[" else 25
        dot, stop = bracket + 18, bracket + 24
        for number, line in enumerate(lines, self._number + 1):
            head = heads.get(line[:dot]) or self._learn(line[:dot], bracket)
            fraction = line[dot:stop]
            colon = line.find(": ", stop + 2)
            event = line[stop + 2 : colon]
            reader = readers[event]
            if not (head and reader and line[stop : stop + 2] == ": " and fraction.isdecimal() and line.isascii()):
                self._slow(number, line)
                continue
            fields = reader(line[colon + 2 :])
            if fields is None:
                self._slow(number, line)
                continue
            second, cpu, pid, level = head
            time = second + int(fraction) * 1000
            if time < self._last:
                self._back(self._last - time)
            self._last = time
            seen.append(event)
            append((number, time, cpu, pid, level, KIND_OF[event], *fields))
        self._number += len(lines)
        self._count(seen)

    def _count(self, seen: list[str]) -> None:
        events = self.account.events
        for event, count in Counter(seen).items():
            events[event] = events.get(event, 0) + count

    def _learn(self, key: str, bracket: int) -> _Head | None:
        head = _columns_head(key, bracket)
        if head is not None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head

    def _back(self, by: int) -> None:
        """The clock went back: a little is disorder between CPUs, more than a second is another boot."""
        if by > SECOND:
            self.account.boots += 1
        else:
            self.account.out_of_order += 1

    def _slow(self, number: int, line: str) -> None:
        """A line of any other kind: every way out counts it once."""
        account, text = self.account, line.strip()
        if line is OVERLONG:
            account.overlong += 1
        elif not text or text[0] == "#" or (number == 1 and text.startswith("cpus=")):
            account.header += 1
            found = _ENTRIES.match(text)
            if found and self.entries is None:
                self.entries = int(found[1]), int(found[2]), int(found[3])
        elif lost := _LOST.fullmatch(text):
            self._lost(number, int(lost[1]), int(lost[2] or lost[3] or 0))
        elif (parts := self._parts(line)) is None:
            account.unreadable += 1
            account.unreadable_first = account.unreadable_first or number
        else:
            self._event(number, *parts)

    def _lost(self, number: int, cpu: int, count: int) -> None:
        self.account.lose(count)
        self._rows.append((number, self._last, cpu, 0, 0, Kind.LOST, 0, 0, 0, 0, count, 0, 0, 0, -1))

    def _parts(self, line: str) -> tuple[_Head, str] | None:
        """The head with its time, and what follows; None without the shape of an event."""
        for bracket in (25, 35):
            head = _columns_head(line[: bracket + 18], bracket)
            if head and (found := _FRACTION.match(line, bracket + 18)):
                return head._replace(time=head.time + int(found[1].ljust(9, "0"))), line[found.end() :]
        line = line.strip()
        found = _HEAD.match(line, 0, _HEAD_LIMIT)
        if found and int(found["cpu"]) < _CPUS:
            flags, stamp = found["flags"], found["stamp"]
            self.flagless |= flags is None
            self.ticks |= "." not in stamp
            level = LEVELS[flags[2]] if flags else 0
            return _Head(_stamp(stamp), int(found["cpu"]), int(found["pid"]), level), line[found.end() :]
        return None

    def _event(self, number: int, head: _Head, rest: str) -> None:
        """A line with a head, read, refused, ignored by name, or without the name of an event."""
        name, colon, text = rest.partition(":")
        name = name.rstrip()
        if not name.isidentifier() or not (colon or name in KIND_OF):
            self.account.unreadable += 1
            self.account.unreadable_first = self.account.unreadable_first or number
            return
        reader, text = self._readers[name], text.strip()
        if reader is None:
            self.account.ignore(name)
            return
        fields = reader(text) if colon else None
        if fields is None:
            self.account.refuse(number, why_unreadable(name, text))
            return
        if head.time < self._last:
            self._back(self._last - head.time)
        self._last = head.time
        self.account.events[name] = self.account.events.get(name, 0) + 1
        self._rows.append((number, head.time, head.cpu, head.pid, head.level, KIND_OF[name], *fields))
