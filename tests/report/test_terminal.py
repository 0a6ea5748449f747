"""Terminal tables over hand-made answers: notes in singular and plural, gaps with their reasons, narrow consoles."""

import io
from collections import Counter
from types import SimpleNamespace

import attrs
import pytest
from rich.console import Console

from swiommu.answers import Verification, compare
from swiommu.report import print_comparison, print_verification
from swiommu.trace import read_trace
from swiommu.verify import Tally


def shown(printer, answer, width=100):
    page = io.StringIO()
    printer(Console(file=page, width=width, highlight=False, markup=False, emoji=False), answer)
    return [line.rstrip() for line in page.getvalue().splitlines()]


@pytest.fixture(scope="module")
def camera():
    return compare(read_trace("arm64-6.12-cam-cma64M-s81"), ["as-recorded", "cma-bitmap"], with_need=False)


def altered(answer, *, account=(), workload=(), unused=(), rows=()):
    """The answer with other counts in its account and workload, and reasons in its last row."""
    copy = SimpleNamespace(
        **{name: getattr(answer, name) for name in ("plan", "rows", "verdict", "notes", "with_need")}
    )
    copy.account = SimpleNamespace(**(vars_of(answer.account) | dict(account)))
    copy.workload = SimpleNamespace(**(vars_of(answer.workload) | dict(workload)))
    copy.workload.unused = attrs.evolve(answer.workload.unused, **dict(unused))
    for name, value in dict(rows).items():
        setattr(copy, name, value)
    return copy


def vars_of(thing):
    return {name: getattr(thing, name) for name in dir(thing) if not name.startswith("_")}


def notes(answer):
    return [line for line in shown(print_comparison, answer, 200) if line.startswith("note: ")]


@pytest.mark.parametrize(
    ("where", "field", "one", "many"),
    [
        ("account", "malformed", "1 line of known events that could not be read", "2,000 lines of known"),
        ("account", "unreadable", "1 line without the shape of an event", "2,000 lines without"),
        ("account", "overlong", "1 line longer than 1 MiB, skipped", "2,000 lines longer"),
        ("account", "out_of_order", "1 event out of order (kept in file order)", "2,000 events out"),
        ("account", "ignored_total", "1 line of events that are not used", "2,000 lines of events"),
        (
            "unused",
            "unmatched",
            "1 end without a begin among the lines that were read (in no peak and no need)",
            "2,000 ends without",
        ),
        (
            "unused",
            "ambiguous",
            "1 scatter list whose piece lengths are not in the trace",
            "2,000 scatter lists whose",
        ),
        ("unused", "unattributed_maps", "1 MAP whose device and direction are not in the trace", "2,000 MAPs whose"),
        ("unused", "refused_usermaps", "1 user mapping refused by the kernel", "2,000 user mappings refused"),
    ],
)
def test_what_was_not_used_is_told_in_singular_and_plural(camera, where, field, one, many):
    assert notes(camera) == []
    assert notes(altered(camera, **{where: {field: 1}})) == [f"note: {one}"]
    assert notes(altered(camera, **{where: {field: 2000}}))[0].startswith(f"note: {many}")


def test_examples_of_lines_that_could_not_be_read_are_cleaned(camera):
    found = notes(altered(camera, account={"examples": [(7, "map: a \x1b[31mred\nnumber [bold]x[/]")]}))
    assert found == ["note: line 7: map: a ?[31mred?number [bold]x[/]"]


def test_a_cell_without_a_number_has_its_reason_below(camera):
    row = camera.rows[1]
    without = [camera.rows[0]] + [
        SimpleNamespace(**(vars_of(row) | {"name": name, "waste": None, "why": {"waste": "nobody counted"}}))
        for name in ("a", "b")
    ]
    assert notes(altered(camera, rows={"rows": without})) == ["note: no number for waste (a, b): nobody counted"]


def test_without_requests_there_is_still_an_answer(camera):
    empty = altered(camera, workload={"requests": [], "ops": [], "name": "-"})
    assert shown(print_comparison, empty)[0] == "standard input: 0 requests (none)"


def test_one_request_is_no_plural(camera):
    one = altered(camera, workload={"requests": camera.workload.requests[:1], "ops": []})
    assert shown(print_comparison, one)[0] == "arm64-6.12-cam-cma64M-s81: 1 request (1 ALLOC)"


def test_every_width_shows_every_column(camera):
    for width in range(40, 130):
        lines = shown(print_comparison, camera, width)
        assert max(map(len, lines)) <= width
        table = " ".join(lines)
        for heading in ("failed", "lost", "gained", "waste", "tables", "unmaps", "refs/MiB", "exposed", "isolates"):
            assert f" {heading}" in table, (width, heading)
        assert "…" not in table


def test_columns_stand_below_their_headings(camera):
    lines = shown(print_comparison, camera, 120)
    heading = lines.index(next(line for line in lines if line.startswith("design")))
    ends = [at for at, char in enumerate(lines[heading] + " ") if char == " " and lines[heading][at - 1] != " "]
    for line in lines[heading + 1 : heading + 3]:
        assert len(line) == len(lines[heading])
        assert all(f"{line} "[at] == " " and line[at - 1] != " " for at in ends[1:])


def tally(matched, mismatched, undetermined=()):
    made = Tally("cma", matched=matched, undetermined=Counter(dict(undetermined)))
    for line in range(mismatched):
        made.judge("alloc", line, predicted="pfn 0x10", recorded="\x1b[31m[bold]")
    return made


def test_one_mismatch_in_a_million_is_not_all():
    lines = shown(print_verification, Verification("t", [tally(999_999, 1)]))
    assert lines == [
        "t",
        "decisions      total  matched  mismatched  undetermined     rate",
        "cma        1,000,000  999,999           1             0  99.99 %",
        "line 0: alloc: predicted pfn 0x10, recorded ?[31m[bold]",
    ]


def test_more_mismatches_than_are_listed_are_counted():
    lines = shown(print_verification, Verification("t", [tally(0, 1025)]))
    assert len(lines) == 24
    assert lines[-1] == "... and 1,005 more mismatches of cma"


def test_causes_of_the_undetermined_are_told():
    lines = shown(print_verification, Verification("-", [tally(0, 0, {"why \x07not": 2})]))
    assert (lines[0], lines[3]) == ("standard input", "undetermined: 2 cma: why ?not")
    assert lines[4].startswith("to determine cma: record from before the first cma_alloc on, ")
