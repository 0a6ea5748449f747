"""The parts of the HTML report that are sentences: what was compared, exposure, and assumptions.

Every rule that changes how a number is to be read stands here in words, beside the value that it had in this run.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from swiommu.replay import AS_RECORDED, FrameOrder, MemoryMode, peak_live_bytes
from swiommu.report.columns import count
from swiommu.requests import GENERATED, RequestKind
from swiommu.words import counted, mib

if TYPE_CHECKING:
    from swiommu.answers import Comparison, Row
    from swiommu.replay import Knobs

__all__ = ["Exposure", "assumptions", "exposures", "facts"]


class Exposure(NamedTuple):
    """How long, over how many operations, and over how many bytes a device still reaches what was given back."""

    name: str
    enforces: str
    time: str
    operations: str
    reach: str
    why: str


def facts(answer: Comparison) -> list[tuple[str, str]]:
    """What was compared, in a few words each."""
    workload = answer.workload
    kinds = [f"{count(workload.count(kind))} {kind.value}" for kind in RequestKind if workload.count(kind)]
    devices = len({request.device for request in workload.requests})
    seconds = (workload.stop_time - workload.start_time) / 1e9
    return [
        ("recording", "standard input" if workload.name == "-" else workload.name),
        ("requests", f"{count(len(workload.requests))} ({', '.join(kinds) or 'none'})"),
        ("devices", count(devices)),
        ("length", f"{seconds:,.2f} s"),
        *([("live data", f"peaks at {mib(peak)}")] if (peak := peak_live_bytes(workload)) else []),
        ("memory", f"{mib(answer.plan.bytes) if answer.plan.bytes else 'no area'}, mode {answer.plan.mode}"),
    ]


def exposures(answer: Comparison) -> list[Exposure]:
    """A line for each row that does not merely repeat another."""
    return [_exposure(row) for row in answer.rows if row.same_as is None]


def _exposure(row: Row) -> Exposure:
    why = [row.why[key] for key in ("exposure_us", "exposure_ops", "exposure_bytes") if key in row.why]
    missing = "unknown" if row.name == AS_RECORDED else "unbounded"
    return Exposure(
        name=row.name,
        enforces=row.enforces,
        time=missing if row.exposure_us is None else f"{row.exposure_us:,} \u00b5s",
        operations=missing if row.exposure_ops is None else count(row.exposure_ops),
        reach="unknown" if row.exposure_bytes is None else mib(row.exposure_bytes),
        why="; ".join(dict.fromkeys(why)),
    )


def assumptions(answer: Comparison) -> list[tuple[str, str]]:
    """Term and sentence: what a reader must know before trusting a number."""
    workload = answer.workload
    terms = {
        "Memory": _memory(answer),
        "Requests": "A request is one driver call. Designs see size, device, time and mask, never the address that the "
        "kernel gave. A MAP points at pages that exist already, so it takes no data memory in any design.",
        "Censored": f"{counted(workload.censored, 'request')} failed in the recording. How long they would have lived "
        "is unknown, so each is tried, counted and given back at once: real demand may be higher.",
        "Failures": "A request that a design fails takes its own end and its syncs with it. Without translation a MAP "
        "takes no memory, so what a design without it loses of MAPs is lost in any memory.",
        "Masks": _masks(answer),
        **_knobs(answer.knobs),
        "Copies": "Bytes are copied at map, at unmap, and at the syncs that were recorded; a kernel that bounced "
        "nothing recorded few of them, so the true number may be higher.",
        "Kernel": f"Rules of the contiguous allocator as in Linux {workload.profile.name}; recorded in mode "
        f"{workload.mode}, with pages of {workload.page_size:,} bytes.",
        "Time": "All times are those of the trace; a design never makes a driver faster or slower. Work is counted, "
        "not timed.",
    }
    if not any(row.bytes_copied for row in answer.rows if row.lending is None):
        del terms["Copies"]
    if not workload.censored:
        del terms["Censored"]
    return [*terms.items(), *(("Note", f"{note[:1].upper()}{note[1:]}.") for note in answer.notes)]


def _memory(answer: Comparison) -> str:
    plan = answer.plan
    if plan.mode is MemoryMode.EQUAL:
        return (
            f"Every design gets the same {mib(plan.bytes)} for data and page tables and nothing else: {plan.source}."
            + (" What was in use when the trace began stays in use." if plan.start_extents else "")
        )
    size = f"{plan.source}, {mib(plan.bytes)}" if plan.bytes else plan.source
    return (
        f"What the machine had: {size}. Behind it a page allocator serves every block up to 4 MiB. Translating designs "
        "use all RAM and reserve nothing."
    )


def _masks(answer: Comparison) -> str:
    """How far the devices reach, and who says so."""
    widths = {request.device: request.mask.bit_length() for request in answer.workload.requests}
    by_width = sorted(Counter(widths.values()).items())
    listed = ", ".join(f"{counted(number, 'device')} with {bits} bits" for bits, number in by_width)
    if answer.workload.mode == GENERATED:
        return f"How far a device reaches: {listed or 'no device'}, as the generator says."
    return (
        f"How far a device reaches: {listed or 'no device'}. Masks come from the file beside the trace, which shows "
        "the end of the run; a device that it does not name has 32 bits."
    )


def _knobs(knobs: Knobs) -> dict[str, str]:
    largest = f"at most {mib(4096 << knobs.align_order)} (order {knobs.align_order})"
    frames = "Translating designs take frames as Linux does: 2 MiB at a time where it can, else 4 KiB."
    if knobs.frames is FrameOrder.RANDOM:
        frames = (
            f"Translating designs took single frames in random order (seed {knobs.seed}): the worst case, not what "
            "Linux does."
        )
    return {"Alignment": f"Contiguous memory is aligned to the buffer's size, {largest}.", "Frames": frames}
