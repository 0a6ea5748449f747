"""Checks of a model's predictions against what the recorded kernel decided: one module for each class of decisions.

A check predicts before it reads the result, then goes on from what was recorded (rule 25 of "What compare means"); what
it answers is a `DecisionClass`. An emulated IOMMU's log has no time stamps: first it is brought into the order of the
trace (`emulated`). Nothing here replays a design or counts what one costs, and no model lives here: the allocator, the
bounce pool, the page tables and the rules for commands that are checked are those that the replays use.
"""

from __future__ import annotations

from swiommu.replay.verify.cma import verify_cma
from swiommu.replay.verify.invalidation import verify_invalidation
from swiommu.replay.verify.iova import verify_iova
from swiommu.replay.verify.prot import verify_prot
from swiommu.replay.verify.pte import verify_pte
from swiommu.replay.verify.swiotlb import verify_swiotlb
from swiommu.replay.verify.tally import KEPT_MISMATCHES, DecisionClass, Mismatch

__all__ = [
    "KEPT_MISMATCHES",
    "DecisionClass",
    "Mismatch",
    "verify_cma",
    "verify_invalidation",
    "verify_iova",
    "verify_prot",
    "verify_pte",
    "verify_swiotlb",
]
