"""What a trace holds that nothing can be answered from: every count in words, at its edges."""

import pytest

from swiommu.answers.unusable import no_decision, no_request
from swiommu.trace import Account, EventTable, Trace


def found(say, kinds, **account):
    """What is said to be found in a trace of so many kinds of events, 9, 8, 7 ... of each."""
    events = {f"event_{chr(97 + number)}": 9 - number for number in range(kinds)}
    return say(Trace(EventTable(), Account(events=events, **account), "t", "t")).partition("found ")[2]


@pytest.mark.parametrize("say", [no_request, no_decision])
@pytest.mark.parametrize(("kinds", "rest"), [(5, ""), (6, ""), (7, ", 1 other event"), (8, ", 2 other events")])
def test_six_kinds_are_named_and_the_others_counted(say, kinds, rest):
    named = ", ".join(f"event_{chr(97 + number)} ({9 - number})" for number in range(min(kinds, 6)))
    assert found(say, kinds).split(". Record", 1)[0] == named + rest
