"""``swiommu verify``: how much of what the recorded kernel decided the model predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swiommu.answers.unusable import no_decision
from swiommu.errors import InputError
from swiommu.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.trace import Trace
    from swiommu.trace.emulator import EmulatorLog
    from swiommu.verify import Tally

__all__ = ["Verification", "verify"]


@attrs.define
class Verification:
    """The tally of every decision class that the trace holds, in a fixed order; ``log`` is an emulated IOMMU's, if any.

    >>> Verification("nothing happened", []).mismatched
    0
    """

    name: str
    classes: Sequence[Tally]
    log: EmulatorLog | None = None

    @property
    def advice(self) -> list[str]:
        """What to record, for each class of which the trace holds decisions and determines none.

        >>> from swiommu.verify import Tally
        >>> tally = Tally("prot")
        >>> tally.leave("no dma event tells the direction")
        >>> Verification("t", [tally]).advice
        ['to determine prot: record the dma events with the probes iommu_map and iommu_map_sg']
        """
        from swiommu.verify import DETERMINED_BY  # here, as in all of this module: `compare` shall not load the checks

        return [f"to determine {tally.name}: {DETERMINED_BY[tally.name]}" for tally in self.classes if not tally.total]

    @property
    def mismatched(self) -> int:
        """Decisions predicted wrongly, over all classes."""
        return sum(tally.mismatched for tally in self.classes)

    @property
    def unread(self) -> str:
        """What of the emulated IOMMU's log could not be read; empty if all was, or if there is none."""
        account = self.log.account if self.log else None
        if account is None or account.clean:
            return ""
        count = account.malformed + account.unreadable + account.overlong
        first = account.examples[0] if account.examples else None
        why = f" (line {first.line}: {first.reason})" if first else ""
        return f"{counted(count, 'line')} of the emulated IOMMU's log can't be read{why}"

    def to_json(self) -> dict[str, Any]:
        """The document ``swiommu.verify/1``: counts per class, causes of the undetermined, the first 20 mismatches."""
        from swiommu.verify import KEPT_MISMATCHES

        advice = {"advice": self.advice} if self.advice else {}
        log = (
            {} if self.log is None else {"emulator_log": {"hardware": self.log.hardware, **self.log.account.as_dict()}}
        )
        mismatches = sorted(
            ((tally.name, mismatch) for tally in self.classes for mismatch in tally.mismatches),
            key=lambda pair: pair[1].line,
        )
        return {
            "schema": "swiommu.verify/1",
            "trace": self.name,
            **log,
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
            **advice,
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

    A class that the trace has no decisions of is not in the answer. `InputError` for a trace without any, and for
    pages of another size than 4 KiB.

    >>> from swiommu.trace import read_trace
    >>> verify(read_trace("arm64-6.12-cam-cma64M-s81")).to_json()["decisions"]["cma"]["matched"]
    740
    """
    from swiommu.verify import verify_all

    tallies = verify_all(trace)
    if not tallies:
        raise InputError(no_decision(trace), path=trace.path)
    return Verification(trace.name, tallies, trace.emulator)
