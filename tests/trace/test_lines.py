"""Lines that want to be misread: each ends in exactly one drawer of the account."""

import pytest

from swiommu.trace import InterruptLevel, Kind, read_trace
from swiommu.trace.account import MAX_NAMES, OTHER_NAMES
from swiommu.trace.source import MAX_LINE

RELEASE = "cma_release: name=reserved pfn=0xb6000 page=00000000ef80c34c count=1013"
GOOD = f"           v4l-185     [000] .....     8.000001: {RELEASE}"


@pytest.fixture
def read(tmp_path):
    """Read a text (or bytes) after one good line, so that the good line is never what is judged."""

    def read(*lines, first=GOOD):
        path = tmp_path / "t.trace"
        data = [line.encode() if isinstance(line, str) else line for line in (first, *lines)]
        path.write_bytes(b"\n".join(data) + b"\n")
        trace = read_trace(path)
        trace.account.check()
        trace.table.check()
        assert trace.account.total_lines == len(lines) + 1
        return trace

    return read


@pytest.mark.parametrize(
    ("task", "pid"),
    [
        ("<idle>", 0),
        ("<...>", 4194304),
        ("kworker/u4:2", 40),
        ("vivid-007-vid-c", 12),
        ("a [001] b", 7),
        ("x-1 [002] d..", 7),
        ("-1 [002] .....", 8),
        ("x-1 [0] 1.0: m", 9),
        ("dma_map: a: b", 10),
        ("qemu system", 11),
        ("näme", 12),
        (" ", 13),
    ],
)
@pytest.mark.parametrize("tgid", ["", "(    185) ", "(-------) "], ids=["plain", "tgid", "notgid"])
def test_task_names_may_hold_anything(read, task, pid, tgid):
    event = list(read(f"{task:>16}-{pid:<7} {tgid}[003] d.h2. 12345.678901: {RELEASE}").table)[1]
    assert (event.cpu, event.pid, event.level, event.time) == (3, pid, InterruptLevel.HARDIRQ, 12345_678901000)
    assert event.addr == 0xB6000


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (".....", InterruptLevel.TASK),
        (".l...", InterruptLevel.TASK),
        ("d.s1.", InterruptLevel.SOFTIRQ),
        ("dNh..", InterruptLevel.HARDIRQ),
        ("d.Hf1", InterruptLevel.HARDIRQ_IN_SOFTIRQ),
        ("D.z..", InterruptLevel.NMI),
        ("D.Z..", InterruptLevel.NMI),
        ("d.h.", InterruptLevel.HARDIRQ),
    ],
)
def test_flags_give_the_interrupt_level(read, flags, level):
    assert list(read(f"           v4l-185     [000] {flags}     9.000001: {RELEASE}").table)[1].level == level


def test_lines_without_flags_are_read_and_noted(read):
    trace = read(f"           v4l-185   [000]     9.000001: cma_release:          {RELEASE.partition(': ')[2]}")
    assert list(trace.table)[1].level == InterruptLevel.TASK
    assert trace.notes == ["some lines have no flags: what happened in interrupts is taken for the task's"]


def test_clocks_that_count_are_read_as_ticks(read):
    trace = read(
        f"           v4l-185     [000] .....           53: {RELEASE}",
        first=f"           v4l-185     [000] .....           50: {RELEASE}",
    )
    assert (trace.clock, list(trace.table.time)) == ("ticks", [50, 53])
    assert trace.notes == ["time stamps are whole numbers: the clock's unit is unknown, so times are in its ticks"]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        " => __alloc_pages",
        "           v4l-185     [000] .....     9.000001",
        "           v4l-185     [000] .....     9.000001: ",
        "           v4l-185     [000] .....     9.000001: do_sys_open <-do_open",
        "           v4l-185     [000] .....     9.000001: <stack trace>",
        f"           v4l-185     [000] ..q..     9.000001: {RELEASE}",
        f"           v4l-        [000] .....     9.000001: {RELEASE}",
        f"           v4l-1_5     [000] .....     9.000001: {RELEASE}",
        f"           v4l-185     [00x] .....     9.000001: {RELEASE}",
        f"           v4l-185     [\u0660\u0660\u0660] .....     9.000001: {RELEASE}",
        f"           v4l-185     [000] .....     9.0000_1: {RELEASE}",
        f"           v4l-185     [000] .....     9.\u0660\u0660\u0660\u0660\u0660\u0661: {RELEASE}",
        f"           v4l-185     [000] .....    -9.000001: {RELEASE}",
        f"           v4l-185     [000] ..... 9999999999.000001: {RELEASE}",
        f"           v4l-185     [000] .....     9.: {RELEASE}",
        f"           v4l-9999999999 [000] .....     9.000001: {RELEASE}",
        "           v4l-185     [000] .....     9.000001: 1cma: x",
        b"\xff\xfe\x00\x01",
        "\0" * 100,
    ],
)
def test_lines_without_the_shape_of_an_event(read, line):
    account = read(line).account
    assert (account.unreadable, account.unreadable_first, account.used) == (1, 2, 1)


def test_known_events_that_are_cut_are_malformed(read):
    account = read(GOOD[:-1], GOOD[:-12], GOOD.partition(": name")[0], *[GOOD[:-8]] * 9).account
    assert account.used == 2  # a decimal number cut in its digits can't be told from a shorter one
    assert account.malformed == 11
    reason = "cma_release: the text is cut, or no known kernel prints it so"
    assert account.examples == [(line, reason) for line in (3, 4, 5, 6, 7)]


def test_other_events_are_ignored_by_name(read):
    switch = "           v4l-185     [000] d..2.     9.000001: sched_switch: prev_comm=a ==> next_comm=b"
    assert read(switch, switch).account.ignored == {"sched_switch": 2}


def test_names_without_end_are_counted_together(read):
    lines = [f"           v4l-185     [000] d..2.     9.000001: event_{i}: x" for i in range(MAX_NAMES + 50)]
    ignored = read(*lines).account.ignored
    assert len(ignored) == MAX_NAMES + 1
    assert ignored[OTHER_NAMES] == 50


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("CPU:3 [LOST 117 EVENTS]", 117),
        ("CPU:3 [LOST EVENTS]", 0),
        ("CPU:3 [117 EVENTS DROPPED]", 117),
        ("CPU:3 [EVENTS DROPPED]", 0),
    ],
)
def test_lost_events_become_rows(read, line, count):
    trace = read(line)
    before, event = trace.table
    assert (event.kind, event.cpu, event.size, event.time) == (Kind.LOST, 3, count, before.time)
    account = trace.account
    assert (account.lost_lines, account.lost_events, account.lost_total) == (1, count, count or 1)
    what = "117 events" if count else "0 events and more"
    assert trace.notes == [f"the ring buffer lost {what} in 1 place: pairs across a gap can't be trusted"]


def test_a_lost_line_with_more_behind_it_is_none(read):
    assert read("CPU:3 [LOST 117 EVENTS]" + " " * 300 + "x").account.unreadable == 1


def test_headers_and_blank_lines_are_counted_apart(read):
    account = read("# tracer: nop", "", "   ", "##### CPU 1 buffer started ####", GOOD, first="cpus=4").account
    assert (account.header, account.used) == (5, 1)


def test_the_header_tells_what_the_buffer_held(read):
    trace = read(GOOD, first="# entries-in-buffer/entries-written: 2/7   #P:4")
    assert (trace.entries_in_buffer, trace.entries_written, trace.cpus) == (2, 7, 4)
    assert trace.notes == [
        "the ring buffer was overwritten: 7 events were recorded, the last 2 kept",
        "the header promises 2 events, 1 were found",
    ]


def test_a_clock_that_goes_back_is_disorder_or_another_boot(read):
    at = "           v4l-185     [000] ..... {:>12}: " + RELEASE
    trace = read(at.format("7.900000"), at.format("8.100000"), at.format("3.000000"), at.format("3.000001"))
    assert (trace.account.out_of_order, trace.boots) == (1, 2)
    assert trace.notes == []  # `boots` tells; what it means for an answer is said beside the answer


@pytest.mark.parametrize("size", [MAX_LINE + 1, 3 * MAX_LINE, 3 * MAX_LINE + 12345])
@pytest.mark.parametrize("last", [False, True])
def test_overlong_lines_are_skipped_and_counted(read, size, last):
    lines = ["x" * size] if last else ["x" * size, GOOD, "<overlong line>"]
    account = read(*lines).account
    assert (account.overlong, account.used, account.unreadable) == (1, 1 if last else 2, 0 if last else 1)


def test_a_line_of_the_greatest_length_is_read(read):
    mark = "           v4l-185     [000] .....     9.000001: tracing_mark_write: "
    account = read(mark + "x" * (MAX_LINE - len(mark)), mark + "x" * (MAX_LINE + 1 - len(mark))).account
    assert (account.used, account.overlong) == (2, 1)


def test_marks_keep_their_text(read):
    trace = read(b"           v4l-185     [000] .....     9.000001: tracing_mark_write: caf\xc3\xa9 \xff: a=b [1]")
    assert list(trace.table)[1].flags == "café \\xff: a=b [1]"


def test_a_file_without_a_last_line_feed_is_noted(tmp_path):
    path = tmp_path / "t.trace"
    path.write_text(GOOD)
    account = read_trace(path).account
    assert (account.cut_tail, account.used, account.total_lines) == (1, 1, 1)


def test_the_account_as_plain_values(read):
    trace = read("nonsense", "CPU:1 [LOST 2 EVENTS]", GOOD[:-8], "           v4l-185     [000] d..2.     9.1: other: x")
    assert trace.account.as_dict() == {
        "total_lines": 5,
        "header": 0,
        "used": 1,
        "events": {"cma_release": 1},
        "ignored": {"other": 1},
        "malformed": 1,
        "examples": [{"line": 4, "reason": "cma_release: the text is cut, or no known kernel prints it so"}],
        "lost": {"lines": 1, "events": 2, "unknown": 0},
        "unreadable": 1,
        "unreadable_first": 2,
        "overlong": 0,
        "cut_tail": 0,
        "out_of_order": 0,
        "boots": 1,
    }
