"""Does the hardware get the commands that the model of the drivers sends? Those that unmaps cause, in order.

Where an emulator's log lies beside the trace they are taken from it, else, for VT-d, from the trace's own lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.trace import Context, Kind
from swiommu.verify.emulated.log import Noted, expected_of_vtd, noted_in_trace, read_emulated
from swiommu.verify.emulated.order import Order, align
from swiommu.verify.expected import BARRIER, Expected, vtd_name
from swiommu.verify.tally import Tally
from swiommu.verify.timeline import read_timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.trace import Trace

__all__ = ["judge_commands", "verify_invalidation"]


def verify_invalidation(trace: Trace) -> Tally | None:
    """Predict every command that an unmap causes; None if neither a log nor the trace tells of commands.

    A mismatch's line is that of the emulator's log where there is one. Undetermined: commands before the trace begins
    and behind lost events, unmaps behind the end of the log, commands in an order that the trace does not tell, and
    those of domains of which nothing tells whose they are.

    >>> from swiommu.trace import open_bundled
    >>> verify_invalidation(open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89")) is None
    True
    """
    tally = Tally("invalidation")
    if trace.emulator is not None:
        emulated = read_emulated(trace, trace.emulator)
        if trace.emulator.hardware == "virtio-iommu":
            return None
        if emulated.unordered:
            for each in emulated.noted:
                if each.text != BARRIER:
                    tally.leave(emulated.unordered)
        else:
            _judge_boot(tally, emulated.boot, max(emulated.timeline.owners, default=None))
            judge_commands(tally, "command", emulated.expected, emulated.noted, emulated.order, behind=emulated.behind)
    elif Kind.QI_SUBMIT in trace.table.kinds():
        _judge_trace(tally, trace)
    return tally if tally.total or tally.undetermined else None


def _judge_trace(tally: Tally, trace: Trace) -> None:
    """Each line of execution for itself: its commands follow its unmaps."""
    timeline = read_timeline(trace)
    told = {vtd_name(number) for number in timeline.told_numbers}
    expected: dict[Context, list[Expected]] = {}
    for each in expected_of_vtd(trace, timeline):
        expected.setdefault(each.context, []).append(each)
        told.add(each.who)
    noted = noted_in_trace(trace)
    for context in sorted({*expected, *noted}):
        known = [each for each in noted.get(context, []) if each.who in told]
        for _ in range(len(noted.get(context, [])) - len(known)):
            tally.leave("no dma event tells whose domain it is")
        wanted = expected.get(context, [])
        order = align([(each.who, each.text) for each in wanted], [(each.who, each.text) for each in known])
        judge_commands(tally, "command", wanted, known, order)


def _judge_boot(tally: Tally, boot: Sequence[Noted], last: int | None) -> None:
    """AMD-Vi's driver begins with a flush of domains up to its last device's number (``amd_iommu_flush_tlb_all``)."""
    if last is None:
        for _ in boot:
            tally.leave("no sidecar tells which devices there are")
        return
    order = align(range(last + 1), [each.number for each in boot])
    for each, place in zip(boot, order.pairs, strict=True):
        predicted = "nothing" if place is None else f"domain {place}"
        tally.judge("boot", each.line, predicted=predicted, recorded=f"domain {each.number}")
    if boot:
        for place in (*order.missing, *range(order.end, last + 1)):
            tally.judge("boot", boot[-1].line, predicted=f"domain {place}", recorded="nothing")


def judge_commands(
    tally: Tally,
    kind: str,
    expected: Sequence[Expected],
    noted: Sequence[Noted],
    order: Order,
    *,
    behind: str = "",
) -> None:
    """Judge every command that was noted, and count those that should have been and were not.

    ``behind``: why commands behind the last that is expected are not determined; empty if they are.

    >>> from swiommu.verify.emulated.order import align
    >>> tally = Tally("invalidation")
    >>> expected = [Expected(0, "group 1", "0x1000 + 0x1000", (0, 0, 0))]
    >>> noted = [Noted(7, 2, "0x2000 + 0x1000", "group 1")]
    >>> judge_commands(tally, "command", expected, noted, align(["a"], ["b"]))
    >>> tally.mismatches[0].predicted, tally.mismatches[0].recorded
    ('group 1: 0x1000 + 0x1000', 'group 1: 0x2000 + 0x1000')
    """
    for came, (each, place) in enumerate(zip(noted, order.pairs, strict=True)):
        predicted = None if place is None else expected[place]
        if each.text == BARRIER and (predicted is None or predicted.text == BARRIER):
            continue  # not a command of its own
        if came < order.before:
            tally.leave("before the trace begins")
        elif came in order.swapped:
            tally.leave("an interrupt or another CPU came in between")
        elif behind and predicted is None and order.reached[came] >= len(expected):
            tally.leave(behind)
        else:
            told = "nothing" if predicted is None else f"{predicted.who}: {predicted.text}"
            tally.judge(kind, each.line, predicted=told, recorded=f"{each.who}: {each.text}")
    lines = _lines(noted, order)
    for place in order.missing:
        if expected[place].text != BARRIER:
            told = f"{expected[place].who}: {expected[place].text}"
            tally.judge(kind, lines.get(place, 0), predicted=told, recorded="nothing")
    for place in (*range(order.first), *range(order.end, len(expected))):
        if expected[place].text != BARRIER:
            tally.leave("the log doesn't hold it: it begins later or ends before")


def _lines(noted: Sequence[Noted], order: Order) -> dict[int, int]:
    """Where in the log an expected one should have been: at the line of the next that came."""
    lines: dict[int, int] = {}
    waiting = iter(order.missing)
    missing = next(waiting, None)
    for each, reached in zip(noted, order.reached, strict=True):
        while missing is not None and missing < reached:
            lines[missing] = each.line
            missing = next(waiting, None)
    return lines
