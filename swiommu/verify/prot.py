"""Does a mapping's direction give the protection that the kernel mapped it with? Every map call with a probe line."""

from __future__ import annotations

from swiommu.address import Prot
from swiommu.trace import MAP_PROBES, Trace
from swiommu.verify.tally import Tally
from swiommu.verify.timeline import DOORBELL, prot_of, read_timeline

__all__ = ["verify_prot"]


def verify_prot(trace: Trace) -> Tally | None:
    """Predict ``prot`` of every call that mapped something; None if the trace has no probe lines of such calls.

    Undetermined: calls beside which no dma event tells the direction.

    >>> from swiommu.trace import open_bundled
    >>> verify_prot(open_bundled("arm64-6.12-smmu-camnvme-cma128M-s89")) is None
    True
    """
    if MAP_PROBES.isdisjoint(trace.table.kinds()):
        return None
    tally = Tally("prot")
    calls = {op.call: op for op in reversed(read_timeline(trace).ops) if op.told is not None}
    for op in reversed(calls.values()):
        predicted = DOORBELL if op.doorbell else prot_of(op.direction)
        if predicted is None:
            tally.leave("no dma event tells the direction")
        else:
            told = Prot(op.told or 0)
            tally.judge("map", op.line, predicted=f"{predicted:#x}", recorded=f"{told:#x}")
    return tally
