"""Answers on a terminal: a table, the verdict, and what could not be used. Plain when piped, honest about gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from swiommu.replay import AS_RECORDED, peak_live_bytes
from swiommu.report.unused import left_out
from swiommu.words import clean, counted, mib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from swiommu.answers import Comparison, Row, Verification

__all__ = ["print_comparison", "print_verification"]

_NONE = "-"
_WIDEST = 200
_GAP = 2  # blanks between columns


def print_comparison(console: Console, answer: Comparison) -> None:
    """Table, verdict, notes.

    >>> from swiommu.answers import compare
    >>> from swiommu.trace import read_trace
    >>> from rich.console import Console
    >>> trace = read_trace("arm64-6.12-cam-cma64M-s81")
    >>> print_comparison(Console(width=110), compare(trace, ["cma-bitmap"], memory="machine", with_need=False))
    arm64-6.12-cam-cma64M-s81: 740 requests (740 ALLOC), at most 76.0 MiB live
    memory: machine, 64 MiB: recorded area
    ...
    cma-bitmap      27     0       0  45.8 MiB       0       0       0         0  unbounded        no
    ...
    """
    plan = answer.plan
    size = mib(plan.bytes) if plan.bytes else "none"
    console.print(Text(f"{_title(answer.workload.name)}: {_requests(answer)}", style="bold"))
    console.print(Text(f"memory: {plan.mode}, {size}: {_cleaned(plan.source)}"))
    console.print()
    _print_table(console, *_table(answer))
    console.print()
    console.print(Text(clean(answer.verdict)))  # designs and devices have names from files
    notes = list(_notes(answer))
    if notes:
        console.print()
    for note in notes:
        console.print(Text(f"note: {_cleaned(note)}", style="dim"))


def _cleaned(text: str) -> str:
    """Text from a trace, as much of it as a line of the terminal should take."""
    return clean(text, most=_WIDEST)


def _title(name: str) -> str:
    return "standard input" if name == "-" else _cleaned(name)


def _requests(answer: Comparison) -> str:
    kinds = {
        kind: sum(request.kind == kind for request in answer.workload.requests) for kind in ("ALLOC", "MAP", "USERMAP")
    }
    parts = [f"{count:,} {kind}" for kind, count in kinds.items() if count]
    peak = peak_live_bytes(answer.workload)
    live = f", at most {mib(peak)} live" if peak else ""
    return f"{counted(len(answer.workload.requests), 'request')} ({', '.join(parts) or 'none'}){live}"


def _table(answer: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and lines; the first column names the row. A column that says nothing of any row is left out."""
    columns = [(heading, cell) for heading, cell, said in _COLUMNS if any(said(answer, row) for row in answer.rows)]
    lines = [
        [row.name, f"= {row.same_as}"] if row.same_as is not None else [row.name, *(cell(row) for _, cell in columns)]
        for row in answer.rows
    ]
    return ["design", *(heading for heading, _ in columns)], lines


def _waste(row: Row) -> str:
    return _size(row.waste.total if row.waste else None)


def _count(number: float | None) -> str:
    return _NONE if number is None else f"{number:,.0f}"


def _exposed(row: Row) -> str:
    """How long what was unmapped stays reachable: without translation without a bound, else at most in this replay."""
    if row.exposure_us is None:
        return _NONE if row.name == AS_RECORDED else "unbounded"
    return f"{row.exposure_us / 1000:,.1f} ms" if row.exposure_us else "0"


def _dropped(row: Row) -> int:
    """Clean copies of somebody's that were thrown away to get lent pages back."""
    return row.lending["dropped_bytes"] if row.lending else 0


def _cost(row: Row) -> str:
    return _NONE if row.cost is None else f"{row.cost['value']:,.0f}"


def _need(row: Row) -> str:
    """The need, and how many of all requests fail in that memory."""
    return _NONE if row.bytes_needed is None else f"{mib(row.bytes_needed)} ({_count(row.failed_at_need)})"


_ALWAYS: Callable[[Comparison, Row], bool] = lambda answer, row: True  # noqa: E731, ARG005 - a predicate like the others
_COLUMNS: tuple[tuple[str, Callable[[Row], str], Callable[[Comparison, Row], bool]], ...] = (
    (
        "needs",
        lambda row: _size(row.bytes_needed),
        lambda answer, _: answer.with_need and not answer.workload.censored,
    ),
    ("needs (fail)", _need, lambda answer, _: answer.with_need and answer.workload.censored > 0),
    ("failed", lambda row: _count(row.failed), _ALWAYS),
    ("lost", lambda row: _count(row.lost), _ALWAYS),
    ("gained", lambda row: _count(row.gained), lambda answer, _: answer.workload.censored > 0),
    ("waste", _waste, _ALWAYS),
    ("tables", lambda row: _size(row.table_bytes), _ALWAYS),
    ("unmaps", lambda row: _count(row.unmaps), _ALWAYS),
    ("inval.", lambda row: _count(row.invalidations), _ALWAYS),
    ("copied", lambda row: _size(row.bytes_copied), lambda _, row: bool(row.bytes_copied)),
    ("dropped", lambda row: _size(_dropped(row)), lambda _, row: bool(_dropped(row))),
    ("refs/MiB", lambda row: _count(row.walk_refs_per_mib), _ALWAYS),
    ("exposed", _exposed, _ALWAYS),
    ("isolates", lambda row: row.enforces, _ALWAYS),
    ("cost", _cost, lambda _, row: row.cost is not None),
)


def _size(size: int | None) -> str:
    return _NONE if size is None else mib(size)


def _print_table(console: Console, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """One table, or several below each other where the console is too narrow; each has the first column.

    A line that ends early says all that it has to say in its first columns.
    """
    lines = [[_cleaned(cell) for cell in line] for line in lines]
    full = [[*line, *[""] * (len(headings) - len(line))] for line in [headings, *lines]]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    left = 1
    while left < len(headings):
        right, room = left + 1, console.width - widths[0] - _GAP - widths[left]
        while right < len(headings) and widths[right] + _GAP <= room:
            room -= widths[right] + _GAP
            right += 1
        if left > 1:
            console.print()
        console.print(_part(headings, [line for line in lines if len(line) > left], slice(left, right)))
        left = right


def _part(headings: Sequence[str], lines: Sequence[Sequence[str]], columns: slice) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column(headings[0], no_wrap=True)
    for heading in headings[columns]:
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(line[0], *line[columns])
    return table


def _notes(answer: Comparison) -> Iterator[str]:
    """What a reader must know to trust the numbers: what was assumed, what was not used, what the table lacks."""
    yield from answer.notes
    for each in left_out(answer):
        if each.number and not each.expected:
            yield str(each)
    for line, reason in answer.account.examples:
        yield f"line {line}: {reason}"
    yield from _gaps(answer)


def _gaps(answer: Comparison) -> Iterator[str]:
    """Why a cell holds no number. That a recording has no needs, tables and walks is true of every one."""
    gaps: dict[tuple[str, str], list[str]] = {}
    for row in answer.rows:
        fields = {"waste": "waste"}
        if answer.with_need and row.name != AS_RECORDED:
            fields["needs"] = "bytes_needed"
        for heading, field in fields.items():
            if row.same_as is None and field in row.why:
                gaps.setdefault((heading, row.why[field]), []).append(row.name)
    yield from (f"no number for {heading} ({', '.join(names)}): {why}" for (heading, why), names in gaps.items())


def print_verification(console: Console, answer: Verification) -> None:
    """A line a class, the undetermined with their causes, the first mismatches.

    >>> from swiommu.answers import verify
    >>> from swiommu.trace import read_trace
    >>> from rich.console import Console
    >>> print_verification(Console(width=90), verify(read_trace("arm64-6.12-cam-cma64M-s81")))
    arm64-6.12-cam-cma64M-s81
    decisions  total  matched  mismatched  undetermined      rate
    cma          740      740           0             0  100.00 %
    """
    console.print(Text(_title(answer.name), style="bold"))
    if answer.unread:
        console.print(Text(_cleaned(answer.unread)))
    lines = []
    for tally in answer.classes:
        # Rounded down: one mismatch in a million is not 100.00 %.
        rate = f"{10_000 * tally.matched // tally.total / 100:.2f} %" if tally.total else _NONE
        numbers = (tally.total, tally.matched, tally.mismatched, tally.undetermined.total())
        lines.append([tally.name, *(f"{number:,}" for number in numbers), rate])
    _print_table(console, ["decisions", "total", "matched", "mismatched", "undetermined", "rate"], lines)
    for tally in answer.classes:
        for cause, count in tally.undetermined.items():
            console.print(Text(f"undetermined: {count:,} {tally.name}: {_cleaned(cause)}"))
        for mismatch in tally.mismatches:
            console.print(
                Text(
                    f"line {mismatch.line}: {mismatch.kind}: predicted {_cleaned(mismatch.predicted)}, "
                    f"recorded {_cleaned(mismatch.recorded)}"
                )
            )
        if tally.mismatched > len(tally.mismatches):
            console.print(Text(f"... and {tally.mismatched - len(tally.mismatches):,} more mismatches of {tally.name}"))
    for advice in answer.advice:
        console.print(Text(advice))
