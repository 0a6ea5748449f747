"""Reading an emulator's log: lines to records, one at a time, however long the log is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from swiommu.errors import InputError
from swiommu.trace.account import Account
from swiommu.trace.emulator.records import FAMILIES, READERS
from swiommu.trace.sidecar import trace_name
from swiommu.trace.source import OVERLONG, Source, looks_like

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.trace.emulator.records import Record

__all__ = ["EmulatorLog", "find_emulator_log"]

_ENDINGS: Final = (".emulator.gz", ".emulator")
_STAMP: Final = re.compile(r"\d+@\d+\.\d+:", re.ASCII)
_U64: Final = 1 << 64
_PATIENCE: Final = 1_000_000


@attrs.define(eq=False)
class EmulatorLog:
    """The log of an emulated IOMMU; iterate it for its records, again if need be. Nothing of it is held.

    ``hardware`` is that of the first line of a known family; lines of any other are unreadable. ``account`` tells what
    became of every line in the last pass. Raises `InputError` in one sentence, while iterated, for what is no such log.

    >>> EmulatorLog("recording.emulator.gz").hardware
    ''
    """

    path: str
    hardware: str = ""
    account: Account = attrs.field(factory=Account)

    def __iter__(self) -> Iterator[Record]:
        self.account, family = Account(), ""
        source = Source(self.path, noun="an emulator's log", text="an emulator's log")
        number = 0
        for lines in source:
            for line in lines:
                number += 1
                name, _, text = line.partition(" ")
                if not (family and name.startswith(family)):
                    line = _STAMP.sub("", line, count=1) if line is not OVERLONG else line  # noqa: PLW2901 (a prefix)
                    name, _, text = line.partition(" ")
                    family = family or self._family(name)
                record = self._record(number, line, name, text, family)
                if record is not None:
                    yield record
            if not family and number >= _PATIENCE:
                break
        self.account.total_lines, self.account.cut_tail = number, int(source.cut_tail)
        self.account.check()
        if not family:
            raise InputError(
                f"not an emulator's log: no line of {number} begins with {', '.join(FAMILIES)}; "
                f"it looks like {looks_like(source.head)}",
                path=self.path,
            )

    def _family(self, name: str) -> str:
        family = next((each for each in FAMILIES if name.startswith(each)), "")
        self.hardware = FAMILIES.get(family, "")
        return family

    def _record(self, number: int, line: str, name: str, text: str, family: str) -> Record | None:
        """The record of a line; every line is counted once."""
        account = self.account
        reader = READERS.get(name)
        if line is OVERLONG:
            account.overlong += 1
        elif not line.strip():
            account.header += 1
        elif not family or not name.startswith(family):
            account.unreadable += 1
            account.unreadable_first = account.unreadable_first or number
        elif reader is None:
            account.ignore(name)
        else:
            found = reader.shape.fullmatch(text)
            numbers = [_number(group) for group in found.groups()] if found else [_U64]
            if max(numbers, default=0) < _U64:
                account.events[name] = account.events.get(name, 0) + 1
                return reader.build(number, *numbers)
            account.refuse(number, f"{name}: {'a number beyond 64 bits' if found else 'cut or of another shape'}")
        return None


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text, 16)
    if ":" not in text:
        return int(text)
    bus, device, function = (int(part, 16) for part in text.replace(".", ":").split(":"))
    return bus << 8 | (device & 0x1F) << 3 | function & 7


def find_emulator_log(trace: str) -> EmulatorLog | None:
    """The emulator's log beside the trace file, ``NAME.emulator.gz`` or ``NAME.emulator``; None if there is none.

    >>> find_emulator_log("no-such.trace.gz") is None
    True
    """
    path = Path(trace)
    for ending in _ENDINGS:
        beside = path.with_name(f"{trace_name(trace)}{ending}")
        if beside != path and beside.is_file():
            return EmulatorLog(str(beside))
    return None
