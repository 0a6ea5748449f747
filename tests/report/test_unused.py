"""What was read and not used: each thing once, with one number, on the page and on the terminal."""

import gzip
import io

import pytest
from rich.console import Console

from swiommu.answers import compare
from swiommu.report import comparison_html, print_comparison
from swiommu.report.unused import LeftOut, left_out
from swiommu.trace import bundled_path, read_trace

SWITCH = "           v4l-185     [000] d..2.  9999.000001: sched_switch: prev_comm=a ==> next_comm=b\n"
FAULT = "           v4l-185     [000] d..2.  9999.000002: attach_device_to_domain: IOMMU: device=0000:00:01.0\n"
EARLIER = "           v4l-185     [000] d..2.     0.000003: attach_device_to_domain: IOMMU: device=0000:00:01.0\n"


@pytest.fixture
def answer_with(tmp_path):
    """The camera recording with lines at its end, under one design."""

    def answer(lines):
        path = tmp_path / "t.trace"
        path.write_text(gzip.decompress(bundled_path("arm64-6.12-cam-cma64M-s81").read_bytes()).decode() + lines)
        return compare(read_trace(path), ["cma-bitmap"], with_need=False)

    return answer


def told(answer):
    return [str(each) for each in left_out(answer) if each.number]


def on_the_terminal(answer):
    page = io.StringIO()
    print_comparison(Console(file=page, width=200, highlight=False, markup=False, emoji=False), answer)
    return page.getvalue()


def test_lines_of_other_events_and_events_that_are_of_no_use_are_two_things(answer_with):
    answer = answer_with(SWITCH * 3 + FAULT)
    assert told(answer) == ["3 lines of events that are not used", "1 event that this answer does not need"]
    assert answer.to_json()["trace"]["ignored"] == 3
    page = comparison_html(answer, plotlyjs="cdn")
    assert '<li>3 lines of events that are not used <span class="names">(sched_switch: 3)</span></li>' in page
    assert "note: 3 lines of events that are not used\n" in on_the_terminal(answer)
    assert "does not need" not in on_the_terminal(answer)  # that is so of every recording


def test_several_boots_are_told_once(answer_with):
    answer = answer_with(EARLIER)
    sentence = "1 further boot in the file, replayed on the state of the one before"
    assert sentence in told(answer)
    for shown in (on_the_terminal(answer), comparison_html(answer, plotlyjs="cdn").partition('<script type="appl')[0]):
        assert shown.count(sentence) == 1
        assert shown.count("boot") == 1 + shown.count("boots")
        assert "the clock jumps" not in shown


def test_what_there_was_none_of_is_told_without_a_number(answer_with):
    assert told(answer_with("")) == []
    page = comparison_html(answer_with(""), plotlyjs="cdn")
    assert "<li>further boots in the file, replayed on the state of the one before</li>" in page
    assert LeftOut(0, "end", "without a begin").kind == "ends without a begin"
