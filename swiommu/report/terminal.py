"""Answers on a terminal: a table, the verdict, and what could not be used. Plain when piped, honest about gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from swiommu.answers.verdict import mib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from swiommu.answers import Comparison, Row, Verification

__all__ = ["clean", "print_comparison", "print_verification"]

_NONE = "-"
_WIDEST = 200


def clean(text: str) -> str:
    r"""Text from a trace without control characters, so that it can't drive the terminal; at most 200 characters.

    >>> clean("nvme\x1b[31m0")
    'nvme?[31m0'
    """
    shown = "".join(char if char.isprintable() else "?" for char in text[: _WIDEST + 1])
    return shown if len(shown) <= _WIDEST else shown[: _WIDEST - 1] + "…"


def print_comparison(console: Console, answer: Comparison) -> None:
    """Table, verdict, notes."""
    plan, workload = answer.plan, answer.workload
    console.print(Text(f"{clean(workload.name)}: {_requests(answer)}", style="bold"))
    console.print(Text(f"memory: {plan.mode}, {mib(plan.bytes)} ({clean(plan.source)})"))
    console.print()
    console.print(_table(answer))
    console.print()
    console.print(Text(answer.verdict))
    notes = list(_notes(answer))
    if notes:
        console.print()
    for note in notes:
        console.print(Padding(Text(f"note: {clean(note)}", style="dim"), (0, 0)))


def _requests(answer: Comparison) -> str:
    kinds = {
        kind: sum(request.kind == kind for request in answer.workload.requests) for kind in ("ALLOC", "MAP", "USERMAP")
    }
    parts = [f"{count:,} {kind}" for kind, count in kinds.items() if count]
    return f"{len(answer.workload.requests):,} requests ({', '.join(parts) or 'none'})"


def _table(answer: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("design", no_wrap=True)
    for heading in ("needs", "failed", "lost", "gained", "waste", "tables", "maps", "unmaps", "refs/MiB", "isolates"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in answer.rows:
        if row.same_as is not None:
            table.add_row(row.name, f"= {row.same_as}", *[""] * 9)
        else:
            table.add_row(row.name, *_cells(row))
    return table


def _cells(row: Row) -> Iterator[str]:
    yield _size(row.bytes_needed)
    yield f"{row.failed:,}"
    yield f"{row.lost:,}"
    yield f"{row.gained:,}"
    yield _size(row.waste.total if row.waste else None)
    yield _size(row.table_bytes)
    yield f"{row.maps:,}"
    yield f"{row.unmaps:,}"
    yield _NONE if row.walk_refs_per_mib is None else f"{row.walk_refs_per_mib:,.1f}".removesuffix(".0")
    yield row.enforces


def _size(size: int | None) -> str:
    return _NONE if size is None else mib(size)


def _notes(answer: Comparison) -> Iterator[str]:
    """What a reader must know to trust the numbers: everything that was not used, and why."""
    workload, account = answer.workload, answer.account
    yield from workload.notes
    if not workload.has_dma_events and workload.requests:
        yield "the trace has no dma events: each cma_alloc is taken for an ALLOC and each map for a MAP"
    counted = (
        (account.malformed, "lines of known events could not be read"),
        (account.unreadable, "lines have no event shape"),
        (account.overlong, "lines were longer than 1 MiB and skipped"),
        (workload.lost_events, "events were lost when recording: what follows them may be wrong"),
        (workload.ignored, "lines of events that are not used"),
        (workload.unmatched, "ends without a begin (begun before the recording)"),
        (workload.ambiguous, "scatter lists whose piece lengths are not in the trace"),
        (workload.unattributed_maps, "MAPs whose device is not in the trace"),
        (workload.refused_usermaps, "user mappings that the kernel refused"),
        (account.out_of_order, "events out of order (kept in file order)"),
    )
    for count, what in counted:
        if count:
            yield f"{count:,} {what}"
    if account.boots > 1:
        yield f"{account.boots} boots in one file: each later one was replayed on the state of the one before"
    for line, reason in account.examples:
        yield f"line {line}: {reason}"


def print_verification(console: Console, answer: Verification) -> None:
    """A line a class, the undetermined with their causes, the first mismatches."""
    console.print(Text(f"{clean(answer.name)}", style="bold"))
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("decisions", no_wrap=True)
    for heading in ("total", "matched", "mismatched", "undetermined", "rate"):
        table.add_column(heading, justify="right", no_wrap=True)
    for tally in answer.classes:
        rate = f"{100 * tally.matched / tally.total:.2f} %" if tally.total else _NONE
        numbers = (tally.total, tally.matched, tally.mismatched, tally.undetermined.total())
        table.add_row(tally.name, *(f"{number:,}" for number in numbers), rate)
    console.print(table)
    for tally in answer.classes:
        for cause, count in tally.undetermined.items():
            console.print(Text(f"undetermined: {count:,} {tally.name}: {clean(cause)}"))
        for mismatch in tally.mismatches:
            console.print(
                Text(
                    f"line {mismatch.line}: {mismatch.kind}: predicted {mismatch.predicted}, "
                    f"recorded {mismatch.recorded}"
                )
            )
