"""``swiommu verify``: how much of what the recorded kernel decided the model predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swiommu.errors import InputError
from swiommu.replay.checks import KEPT_MISMATCHES, DecisionClass
from swiommu.replay.verify_cma import verify_cma

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.trace import Trace

__all__ = ["Verification", "verify"]


@attrs.define
class Verification:
    """The tally of every decision class that the trace holds, in a fixed order.

    >>> Verification("nothing happened", []).mismatched
    0
    """

    name: str
    classes: Sequence[DecisionClass]

    @property
    def mismatched(self) -> int:
        """Decisions predicted wrongly, over all classes."""
        return sum(tally.mismatched for tally in self.classes)

    def to_json(self) -> dict[str, Any]:
        """The document ``swiommu.verify/1``: counts per class, causes of the undetermined, the first 20 mismatches."""
        mismatches = sorted(
            ((tally.name, mismatch) for tally in self.classes for mismatch in tally.mismatches),
            key=lambda pair: pair[1].line,
        )
        return {
            "schema": "swiommu.verify/1",
            "trace": self.name,
            "decisions": {
                tally.name: {
                    "total": tally.total,
                    "matched": tally.matched,
                    "undetermined": tally.undetermined.total(),
                    "undetermined_by_cause": dict(tally.undetermined),
                    "by_kind": dict(tally.by_kind),
                }
                for tally in self.classes
            },
            "mismatches": [
                {
                    "class": name,
                    "kind": mismatch.kind,
                    "line": mismatch.line,
                    "predicted": mismatch.predicted,
                    "recorded": mismatch.recorded,
                }
                for name, mismatch in mismatches[:KEPT_MISMATCHES]
            ],
        }


def verify(trace: Trace) -> Verification:
    """Predict before reading, then adopt what was recorded (rule 25).

    `InputError` if the trace holds no decision that can be checked.

    >>> from swiommu.trace import read_trace
    >>> verify(read_trace("arm64-6.12-cam-cma64M-s81")).to_json()["decisions"]["cma"]["matched"]
    740
    """
    classes = [tally for tally in (verify_cma(trace),) if tally is not None]
    if not classes:
        raise InputError("the trace holds none of the decisions that can be checked (cma_alloc)", path=trace.path)
    return Verification(trace.name, classes)
