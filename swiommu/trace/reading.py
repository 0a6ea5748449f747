"""Lines of ftrace text into rows and an account.

A line is ``TASK-PID [CPU] FLAGS SECONDS: EVENT: TEXT``. Task names may hold anything, brackets and dashes too. The
kernel's columns are fixed (the name is right-aligned in 16), so the fast path slices, and a head seen before is
looked up whole. Lines out of these columns (stripped, wide CPU numbers, ``trace-cmd``) go through one regular
expression that takes the first place where a whole head fits. Every line ends in exactly one drawer of the `Account`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from swiommu.trace.account import Account
from swiommu.trace.events import CONTEXTS, KIND_OF, Kind
from swiommu.trace.source import OVERLONG, Source
from swiommu.trace.table import EventTable, Row
from swiommu.trace.texts import TextReaders, why_unreadable

__all__ = ["SECOND", "Reading"]

SECOND: Final = 1_000_000_000
_MAX_HEADS: Final = 1 << 16
_HEAD_LIMIT: Final = 160  # a task name has 15 characters, so no head is nearly as long as this

_HEAD: Final = re.compile(
    r".+?-(?P<pid>\d{1,9}) +(?:\( *(?:\d+|-+)\) +)?\[(?P<cpu>\d{1,6})\] +"
    r"(?:(?P<flags>[.a-zA-Z][.a-zA-Z][.shHzZ][.0-9a-f][.0-9a-f]?) +)?(?P<stamp>\d{1,9}\.\d{1,9}|\d{1,18}): +",
    re.ASCII,
)
_LOST: Final = re.compile(
    r"CPU:(\d{1,6}) \[(?:LOST (?:(\d{1,18}) )?EVENTS|(?:(\d{1,18}) )?EVENTS DROPPED)\]\s*", re.ASCII
)
_ENTRIES: Final = re.compile(r"#\s*entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18})\s+#P:(\d{1,6})", re.ASCII)


class _Head(NamedTuple):
    """What stands before the time stamp."""

    cpu: int
    pid: int
    context: int


def _columns_head(text: str, bracket: int) -> _Head | None:
    """The head in the kernel's own columns, ``[`` at ``bracket``; None if it is not exactly that."""
    pid, cpu, flags = text[17:25].rstrip(" "), text[bracket + 1 : bracket + 4], text[bracket + 6 :]
    digits = pid + cpu
    if text[16] != "-" or not pid or not (digits.isdecimal() and digits.isascii()):
        return None
    if text[bracket + 4 : bracket + 6] != "] " or " " in flags or flags[2] not in CONTEXTS:
        return None
    return _Head(int(cpu), int(pid), CONTEXTS[flags[2]])


def _stamp(text: str) -> int | None:
    """Nanoseconds of ``12.345678``, or the number itself of a clock that counts; None if it is neither."""
    whole, dot, fraction = text.strip(" ").partition(".")
    digits = whole + fraction
    if not (digits.isdecimal() and digits.isascii() and whole) or len(whole) > (9 if dot else 18):
        return None
    if not dot:
        return int(whole)
    return int(whole) * SECOND + int(fraction.ljust(9, "0")) if 0 < len(fraction) <= 9 else None


class Reading:
    """One pass over a `Source`: fills ``table`` and ``account``, and remembers what the header said.

    ``ticks`` tells that time stamps were whole numbers, ``flagless`` that some lines had no flags; ``boot_rows``
    are the rows at which a boot begins; ``shaped`` counts lines with a head.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.table = EventTable()
        self.account = Account()
        self.boot_rows = [0]
        self.ticks = False
        self.flagless = False
        self.shaped = 0
        self.entries: tuple[int, int, int] | None = None
        self._texts = TextReaders(self.table)
        self._heads: dict[str, _Head | None] = {}
        self._rows: list[Row] = []
        self._last = 0
        self._number = 0

    def run(self) -> None:
        """Read everything; `InputError` comes from the source."""
        for lines in self.source:
            self._batch(lines)
            self.table.extend(self._rows)
            self._rows.clear()
        self.account.total_lines = self._number
        self.account.cut_tail = int(self.source.cut_tail)

    def _batch(self, lines: list[str]) -> None:
        """The fast path; whatever it does not recognise completely goes to `_slow`."""
        heads, events, texts = self._heads, self.account.events, self._texts
        append, last = self._rows.append, self._last
        shaped = 0
        for number, line in enumerate(lines, self._number + 1):
            bracket = 25 if line[25:26] == "[" else 35  # 35 with record-tgid
            start = bracket + 11
            colon = line.find(": ", start)
            colon2 = line.find(":", colon + 2)
            key = line[:start]
            head = heads.get(key)
            if head is None:
                head = self._learn(key, bracket)
            stamp = line[start:colon]
            digits = stamp[1:-7].lstrip(" ") + stamp[-6:]
            event = line[colon + 2 : colon2]
            if (
                head is None
                or colon2 < 0
                or stamp[-7:-6] != "."
                or stamp[0] != " "
                or not digits.isdecimal()
                or not digits.isascii()
                or not 6 < len(digits) < 16
                or event not in KIND_OF
            ):
                self._last = last
                self._slow(number, line)
                last = self._last
                continue
            shaped += 1
            time = int(digits) * 1000
            fields = texts[event](line[colon2 + 1 :].lstrip(" "))
            if fields is None:
                self.account.refuse(number, why_unreadable(event, line[colon2 + 1 :].strip()))
                continue
            if time < last:
                self._back(last - time)
            last = time
            events[event] = events.get(event, 0) + 1
            append((number, time, *head, KIND_OF[event], *fields))
        self._last = last
        self._number += len(lines)
        self.shaped += shaped

    def _learn(self, key: str, bracket: int) -> _Head | None:
        if len(key) < bracket + 11:
            return None
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
            self.boot_rows.append(len(self.table) + len(self._rows))
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
        elif lost := _LOST.fullmatch(text[:_HEAD_LIMIT]):
            self._lost(number, int(lost[1]), int(lost[2] or lost[3] or 0))
        elif (parts := self._parts(line)) is None:
            account.unreadable += 1
            account.unreadable_first = account.unreadable_first or number
        else:
            self._event(number, *parts)

    def _lost(self, number: int, cpu: int, count: int) -> None:
        self.account.lose(count)
        self._rows.append((number, self._last, cpu, 0, 0, Kind.LOST, 0, 0, 0, 0, count, 0, 0, 0, -1))

    def _parts(self, line: str) -> tuple[_Head, int, str, str, str] | None:
        """Head, time, event name, the colon after it (or nothing) and text; None without the shape of an event."""
        bracket = 25 if line[25:26] == "[" else 35
        head, colon = self._heads.get(line[: bracket + 11]), line.find(": ", bracket + 11)
        time = _stamp(line[bracket + 11 : colon]) if head and colon > 0 else None
        rest = line[colon + 2 :]
        if head is None or time is None:
            line = line.strip()
            found = _HEAD.match(line, 0, _HEAD_LIMIT)
            if found is None:
                return None
            flags = found["flags"]
            self.flagless |= flags is None
            head = _Head(int(found["cpu"]), int(found["pid"]), CONTEXTS[flags[2]] if flags else 0)
            time, rest = _stamp(found["stamp"]), line[found.end() :]
            self.ticks |= "." not in found["stamp"]
        name, colon_found, text = rest.partition(":")
        if time is None or not (name.isidentifier() and (colon_found or name in KIND_OF)):
            return None
        return head, time, name, colon_found, text.strip(" ")

    def _event(self, number: int, head: _Head, time: int, name: str, colon: str, text: str) -> None:
        self.shaped += 1
        if name not in KIND_OF:
            self.account.ignore(name)
            return
        fields = self._texts[name](text) if colon else None
        if fields is None:
            self.account.refuse(number, why_unreadable(name, text))
            return
        if time < self._last:
            self._back(self._last - time)
        self._last = time
        self.account.events[name] = self.account.events.get(name, 0) + 1
        self._rows.append((number, time, *head, KIND_OF[name], *fields))
