"""Is the recording whole? Where its beginning is lost, what was there before it is not known, and nothing follows.

A mismatch in such a recording is no finding: the kernel decided from a state that the trace does not tell.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import TYPE_CHECKING, Final

from swiommu.trace import Kind
from swiommu.verify.tally import Tally

if TYPE_CHECKING:
    from swiommu.trace import Trace

__all__ = ["set_aside", "why_incomplete"]

_NEIGHBOURS: Final = 64  # ranges below an address that are asked whether they reach it
_UNMAPPED: Final = "a range is unmapped that no line of the trace maps: its beginning is lost"


def set_aside(tally: Tally, why: str) -> Tally:
    """The tally with nothing determined, for the reason ``why``, where it has mismatches; else as it is.

    >>> tally = Tally("iova")
    >>> tally.judge("alloc", 7, predicted="pfn 0x10", recorded="pfn 0x20")
    >>> set_aside(tally, "half of it is lost").undetermined
    Counter({'half of it is lost': 1})
    """
    if not tally.mismatched:
        return tally
    other = Tally(tally.name, undetermined=tally.undetermined.copy())
    other.undetermined[why] += tally.total
    return other


def why_incomplete(trace: Trace) -> str:
    """Why it is known that the trace lacks its beginning; empty where nothing says so.

    >>> from swiommu.trace import open_bundled
    >>> why_incomplete(open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89"))
    ''
    """
    if trace.incomplete:
        return trace.incomplete
    mapped = _Mapped()
    for event in trace.table.of({Kind.IOMMU_MAP, Kind.IOMMU_UNMAP, Kind.LOST}):
        if event.kind is Kind.LOST:
            break
        if event.kind is Kind.IOMMU_MAP and event.size:
            mapped.add(event.addr, event.addr + event.size)
        elif event.kind is Kind.IOMMU_UNMAP and event.extra and not mapped.remove(event.addr, event.addr + event.extra):
            return _UNMAPPED
    return ""


class _Mapped:
    """Ranges that are mapped in some domain or other; those of several domains may overlap."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: dict[int, list[int]] = {}

    def add(self, start: int, stop: int) -> None:
        stops = self._stops.setdefault(start, [])
        if not stops:
            insort(self._starts, start)
        stops.append(stop)

    def remove(self, start: int, stop: int) -> bool:
        """Whether all of ``start`` to ``stop`` was mapped; it is not, once, from then on."""
        while start < stop:
            first = self._holder(start)
            if first is None:
                return False
            end = self._take(first)
            if first < start:
                self.add(first, start)
            if end > stop:
                self.add(stop, end)
            start = min(end, stop)
        return True

    def _take(self, start: int) -> int:
        stops = self._stops[start]
        end = stops.pop()
        if not stops:
            del self._stops[start]
            del self._starts[bisect_right(self._starts, start) - 1]
        return end

    def _holder(self, address: int) -> int | None:
        """The start of a range that holds ``address``, the nearest below it."""
        if address in self._stops:
            return address
        last = bisect_right(self._starts, address)
        below = reversed(self._starts[max(last - _NEIGHBOURS, 0) : last])
        return next((start for start in below if self._stops[start][-1] > address), None)
