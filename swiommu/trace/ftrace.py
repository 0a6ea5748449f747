"""Reading a recording: the file or bundled name, its lines, its sidecar, and a sentence for all that is no trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import define, field

from swiommu.errors import InputError
from swiommu.input_file import shown
from swiommu.trace.bundled import bundled_names, bundled_path
from swiommu.trace.calls import Calls
from swiommu.trace.emulator import EmulatorLog, find_emulator_log
from swiommu.trace.reading import Reading
from swiommu.trace.sidecar import Sidecar, find_sidecar, trace_name
from swiommu.trace.source import Source, looks_like
from swiommu.words import clean, counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.trace.account import Account
    from swiommu.trace.table import EventTable

__all__ = ["RECORD_COMMAND", "Trace", "open_bundled", "read_trace"]

RECORD_COMMAND: Final = "trace-cmd record -e dma -e iommu -e cma -e swiotlb"


@define(eq=False)
class Trace:
    """A recording that was read: the table, what became of every line, and what the sidecar and the header say.

    ``name`` is the file's name without folder and endings; ``entries_in_buffer``/``entries_written`` and ``cpus``
    come from the header (None without one). ``clock`` is ``"ns"``, or ``"ticks"`` if the recording's clock printed
    whole numbers of an unknown unit.
    ``emulator`` is the log of the emulated IOMMU beside the trace, None if there is none; it is read when it is asked.
    ``notes`` are sentences about what is odd but was read all the same; ``incomplete`` is the evidence that the file
    lacks events of the recording, empty without any.

    >>> trace = read_trace("arm64-6.12-cam-cma64M-s81")
    >>> len(trace.table), trace.boots, trace.entries_in_buffer, trace.notes
    (4029, 1, 4029, [])
    """

    table: EventTable
    account: Account
    path: str
    name: str
    sidecar: Sidecar | None = None
    emulator: EmulatorLog | None = None
    entries_in_buffer: int | None = None
    entries_written: int | None = None
    cpus: int | None = None
    clock: str = "ns"
    notes: list[str] = field(factory=list)
    incomplete: str = ""
    _calls: Calls | None = field(default=None, init=False, repr=False)

    @property
    def calls(self) -> Calls:
        """The kernel calls of the table; they are found out once, when first asked for.

        >>> sum(call.outer >= 0 for call in read_trace("arm64-6.12-cam-cma64M-s81").calls)
        740
        """
        if self._calls is None:
            self._calls = Calls(self.table)
        return self._calls

    @property
    def boots(self) -> int:
        """How many machines' runs the file holds."""
        return self.account.boots


def read_trace(path: str | Path, *, name: str | None = None) -> Trace:
    """Read a recording: a file (gzip or plain), ``-`` for stdin, or the name of a bundled recording.

    ``name`` replaces the name derived from the file's. A sidecar ``NAME.json`` beside the file is read too.
    Raises `InputError` in one sentence for whatever is not a trace with events of ours, or a sidecar that is
    not this trace's.

    >>> trace = read_trace("arm64-6.12-cam-cma64M-s81")
    >>> trace.account.clean, len(trace.table), trace.sidecar.profile.name
    (True, 4029, '6.12')
    """
    where = _resolve(str(path))
    source = Source(where)
    reading = Reading(source)
    reading.run()
    _refuse_useless(reading)
    trace = Trace(reading.table, reading.account, path=where, name=name or trace_name(where))
    trace.clock = "ticks" if reading.ticks else "ns"
    if reading.entries:
        trace.entries_in_buffer, trace.entries_written, trace.cpus = reading.entries
    if where != "-":
        trace.sidecar, trace.emulator = find_sidecar(where), find_emulator_log(where)
    trace.notes = list(_notes(trace, reading))
    trace.incomplete = _incomplete(trace, reading)
    return trace


def open_bundled(name: str) -> Trace:
    """Read the bundled recording ``name``, even where a file of that name lies; `InputError` tells which there are.

    >>> open_bundled("arm64-6.12-cam-cma64M-s81").sidecar.cma_area.total_pages
    16384
    """
    return read_trace(bundled_path(name))


def _resolve(path: str) -> str:
    """``path`` itself, or the file of the bundled recording of that name if there is no such file."""
    if path == "-" or path not in bundled_names() or Path(path).exists():
        return path
    return str(bundled_path(path))


def _refuse_useless(reading: Reading) -> None:
    """`InputError` for a text that was read to its end without one usable event."""
    account, path = reading.account, reading.source.name
    if account.used:
        return
    if account.malformed:
        line, reason = account.examples[0]
        count = counted(account.malformed, "line")
        raise InputError(f"{count} of known events, but none can be read ({reason})", path=path, line=line)
    if account.ignored:
        names = sorted(account.ignored, key=lambda name: (-account.ignored[name], name))
        some = ", ".join(f"{name} ({account.ignored[name]})" for name in names[:5])
        raise InputError(
            f"an ftrace text, but without any event that swiommu uses; it holds {some}. Record with: {RECORD_COMMAND}",
            path=path,
        )
    if account.unreadable or account.overlong:
        kind = looks_like(reading.source.head)
        if kind == reading.source.text:
            raise _unknown_layout(reading, path)
        raise InputError(
            f"not an ftrace text: no line of {account.total_lines} has the shape of an event; it looks like {kind}",
            path=path,
        )
    raise InputError(f"a trace without events. Record with: {RECORD_COMMAND}", path=path)


def _unknown_layout(reading: Reading, path: str) -> InputError:
    lines = enumerate(reading.source.head.decode("utf-8", "replace").splitlines(), 1)
    number, text = next(((at, text) for at, text in lines if text.strip() and not text.startswith("#")), (None, ""))
    example = f", the first is {clean(text.strip(), most=120)!r}" if text else ""
    total = reading.account.total_lines
    return InputError(
        f"an ftrace text in a layout that is not known: none of {total} lines can be read{example}",
        path=path,
        line=number,
    )


def _notes(trace: Trace, reading: Reading) -> Iterator[str]:
    account = trace.account
    if reading.ticks:
        yield "time stamps are whole numbers: the clock's unit is unknown, so times are in its ticks"
    if reading.flagless:
        yield "some lines have no flags: what happened in interrupts is taken for the task's"
    if account.lost_lines:
        what = counted(account.lost_events, "event") + (" and more" if account.lost_unknown else "")
        places = counted(account.lost_lines, "place")
        yield f"the ring buffer lost {what} in {places}: pairs across a gap can't be trusted"
    held, written, found = trace.entries_in_buffer, trace.entries_written, _found(account)
    if held is not None and written is not None:
        if written > held:
            yield f"the ring buffer was overwritten: {counted(written, 'event')} were recorded, the last {held:,} kept"
        if found != held:
            yield f"the header promises {held:,} events, {found:,} were found"
    sidecar = trace.sidecar
    if sidecar and (unknown := sidecar.unknown_keys):
        some = ", ".join(map(shown, unknown[:5])) + (", ..." if unknown[5:] else "")
        yield f"the sidecar holds keys that are not known and not used: {some}"
    if sidecar and sidecar.text_bytes is not None and sidecar.text_bytes != reading.source.bytes:
        yield f"the sidecar says {sidecar.text_bytes:,} bytes of text, the trace has {reading.source.bytes:,}"
    if sidecar and sidecar.recorded_events is not None and found < sidecar.recorded_events:
        yield f"the sidecar tells of {counted(sidecar.recorded_events, 'event')}, {found:,} were found"


def _incomplete(trace: Trace, reading: Reading) -> str:
    held, written, found = trace.entries_in_buffer, trace.entries_written, _found(trace.account)
    if held is not None and written is not None and found < max(held, written):
        return f"{counted(max(held, written), 'event')} were recorded, {found:,} are in the file"
    told = trace.sidecar.recorded_events if trace.sidecar else None
    if told is not None and found < told:
        return f"{counted(told, 'event')} were recorded, {found:,} are in the file"
    told = trace.sidecar.text_bytes if trace.sidecar else None
    if told is not None and reading.source.bytes < told:
        return f"the text had {told:,} bytes when it was recorded, {reading.source.bytes:,} are in the file"
    return ""


def _found(account: Account) -> int:
    return account.used + account.ignored_total + account.malformed
