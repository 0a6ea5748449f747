"""Answers on a terminal: a table, the verdict, and what could not be used. Plain when piped, honest about gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from swiommu.answers.verdict import counted, mib
from swiommu.replay import AS_RECORDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from swiommu.answers import Comparison, Row, Verification

__all__ = ["clean", "print_comparison", "print_verification"]

_NONE = "-"
_WIDEST = 200
_GAP = 2  # blanks between columns


def clean(text: str) -> str:
    r"""Text from a trace without control characters, so that it can't drive the terminal; at most 200 characters.

    >>> clean("nvme\x1b[31m0")
    'nvme?[31m0'
    """
    shown = "".join(char if char.isprintable() else "?" for char in text[: _WIDEST + 1])
    return shown if len(shown) <= _WIDEST else shown[: _WIDEST - 1] + "…"


def print_comparison(console: Console, answer: Comparison) -> None:
    """Table, verdict, notes.

    >>> from swiommu.answers import compare
    >>> from swiommu.trace import read_trace
    >>> from rich.console import Console
    >>> trace = read_trace("arm64-6.12-cam-cma64M-s81")
    >>> print_comparison(Console(width=90), compare(trace, ["cma-bitmap"], memory="machine", with_need=False))
    arm64-6.12-cam-cma64M-s81: 740 requests (740 ALLOC)
    memory: machine, 64 MiB: recorded area
    ...
    cma-bitmap      27     0       0  45.8 MiB       0     0       0         0        no
    ...
    """
    plan = answer.plan
    size = mib(plan.bytes) if plan.bytes else "none"
    console.print(Text(f"{_title(answer.workload.name)}: {_requests(answer)}", style="bold"))
    console.print(Text(f"memory: {plan.mode}, {size}: {clean(plan.source)}"))
    console.print()
    _print_table(console, _headings(answer), [_line(answer, row) for row in answer.rows])
    console.print()
    console.print(Text(answer.verdict))
    notes = list(_notes(answer))
    if notes:
        console.print()
    for note in notes:
        console.print(Text(f"note: {clean(note)}", style="dim"))


def _title(name: str) -> str:
    return "standard input" if name == "-" else clean(name)


def _requests(answer: Comparison) -> str:
    kinds = {
        kind: sum(request.kind == kind for request in answer.workload.requests) for kind in ("ALLOC", "MAP", "USERMAP")
    }
    parts = [f"{count:,} {kind}" for kind, count in kinds.items() if count]
    return f"{counted(len(answer.workload.requests), 'request')} ({', '.join(parts) or 'none'})"


def _headings(answer: Comparison) -> list[str]:
    """The first column names the row; ``needs`` is there only if somebody wanted to know."""
    needs = ["needs"] if answer.with_need else []
    return ["design", *needs, "failed", "lost", "gained", "waste", "tables", "maps", "unmaps", "refs/MiB", "isolates"]


def _line(answer: Comparison, row: Row) -> list[str]:
    if row.same_as is not None:
        return [row.name, f"= {row.same_as}"]
    return [row.name, *([_size(row.bytes_needed)] if answer.with_need else []), *_cells(row)]


def _cells(row: Row) -> Iterator[str]:
    yield f"{row.failed:,}"
    yield f"{row.lost:,}"
    yield f"{row.gained:,}"
    yield _size(row.waste.total if row.waste else None)
    yield _size(row.table_bytes)
    yield f"{row.maps:,}"
    yield f"{row.unmaps:,}"
    yield _NONE if row.walk_refs_per_mib is None else f"{row.walk_refs_per_mib:,.0f}"
    yield row.enforces


def _size(size: int | None) -> str:
    return _NONE if size is None else mib(size)


def _print_table(console: Console, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """One table, or several below each other where the console is too narrow; each has the first column.

    A line that ends early says all that it has to say in its first columns.
    """
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
    workload, account = answer.workload, answer.account
    yield from answer.notes
    lines = ("line", "lines")
    sentences = (
        (account.malformed, *lines, "of known events could not be read"),
        (account.unreadable, *lines, "without the shape of an event"),
        (account.overlong, *lines, "longer than 1 MiB, skipped"),
        (workload.ignored, *lines, "of events that are not used"),
        (workload.unmatched, "end", "ends", "without a begin (begun before the recording)"),
        (workload.ambiguous, "scatter list", "scatter lists", "whose piece lengths are not in the trace"),
        (workload.unattributed_maps, "MAP", "MAPs", "whose device is not in the trace"),
        (workload.refused_usermaps, "user mapping", "user mappings", "refused by the kernel"),
        (account.out_of_order, "event", "events", "out of order (kept in file order)"),
    )
    for count, one, many, what in sentences:
        if count:
            yield f"{count:,} {one if count == 1 else many} {what}"
    for line, reason in account.examples:
        yield f"line {line}: {reason}"
    if account.boots > 1:
        yield f"{account.boots} boots in one file: each later one was replayed on the state of the one before"
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
    lines = []
    for tally in answer.classes:
        # Rounded down: one mismatch in a million is not 100.00 %.
        rate = f"{10_000 * tally.matched // tally.total / 100:.2f} %" if tally.total else _NONE
        numbers = (tally.total, tally.matched, tally.mismatched, tally.undetermined.total())
        lines.append([tally.name, *(f"{number:,}" for number in numbers), rate])
    _print_table(console, ["decisions", "total", "matched", "mismatched", "undetermined", "rate"], lines)
    for tally in answer.classes:
        for cause, count in tally.undetermined.items():
            console.print(Text(f"undetermined: {count:,} {tally.name}: {clean(cause)}"))
        for mismatch in tally.mismatches:
            console.print(
                Text(
                    f"line {mismatch.line}: {mismatch.kind}: predicted {clean(mismatch.predicted)}, "
                    f"recorded {clean(mismatch.recorded)}"
                )
            )
        if tally.mismatched > len(tally.mismatches):
            console.print(Text(f"... and {tally.mismatched - len(tally.mismatches):,} more mismatches of {tally.name}"))
