"""Sentences for traces that nothing can be answered from: what was looked for, what was found, what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.trace import RECORD_COMMAND
from swiommu.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.trace import Trace

__all__ = ["no_decision", "no_request"]

_NAMES = 6

_REQUESTS = (
    "dma_alloc, dma_map_page, dma_map_phys, dma_map_resource, dma_map_sg, VFIO marks of user space and, where no dma "
    "event was recorded, cma_alloc_finish and map"
)


def no_request(trace: Trace) -> str:
    """Why a comparison has nothing to replay.

    >>> from swiommu.trace import Account, EventTable, Trace
    >>> no_request(Trace(EventTable(), Account(events={"unmap": 7}), "t", "t")).partition("; ")[2]
    "found unmap (7). Record the driver's calls with: trace-cmd record -e dma -e iommu -e cma -e swiotlb (...)"
    """
    return (
        f"holds no request: looked for {_REQUESTS}; found {', '.join(_found(trace))}. Record the driver's calls with: "
        f"{RECORD_COMMAND} (kernels from 6.12 on have dma events)"
    )


def no_decision(trace: Trace) -> str:
    """Why nothing can be verified.

    >>> from swiommu.trace import Account, EventTable, Trace
    >>> no_decision(Trace(EventTable(), Account(events={"unmap": 7}, ignored={"sched_switch": 9}), "t", "t"))
    'holds no decision that can be checked: looked for ...; found unmap (7), 9 lines of events that are not used'
    """
    from swiommu.verify import READ_FROM  # here, as a comparison loads no check

    wanted = ", ".join(f"{events} ({name})" for name, events in READ_FROM.items())
    return f"holds no decision that can be checked: looked for {wanted}; found {', '.join(_found(trace))}"


def _found(trace: Trace) -> Iterator[str]:
    """The events that were read, most frequent first, and what could not be."""
    account = trace.account
    names = sorted(account.events, key=lambda name: (-account.events[name], name))
    yield from (f"{name} ({account.events[name]:,})" for name in names[:_NAMES])
    if len(names) > _NAMES:
        yield f"{counted(len(names) - _NAMES, 'other event')}"
    if account.ignored:
        yield f"{counted(account.ignored_total, 'line')} of events that are not used"
    if account.malformed:
        line, reason = account.examples[0]
        yield f"{counted(account.malformed, 'line')} that can't be read (line {line}: {reason})"
