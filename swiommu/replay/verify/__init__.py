"""Checks of a model's predictions against what the recorded kernel decided: one module for each class of decisions.

A check predicts before it reads the result, then goes on from what was recorded (rule 25 of "What compare means"); what
it answers is a `DecisionClass`. Nothing here replays a design or counts what one costs, and no model lives here: the
allocator, the bounce pool and the bus address allocator that are checked are those that the replays use.
"""

from __future__ import annotations

from swiommu.replay.verify.cma import verify_cma
from swiommu.replay.verify.iova import verify_iova
from swiommu.replay.verify.swiotlb import verify_swiotlb
from swiommu.replay.verify.tally import KEPT_MISMATCHES, DecisionClass, Mismatch

__all__ = ["KEPT_MISMATCHES", "DecisionClass", "Mismatch", "verify_cma", "verify_iova", "verify_swiotlb"]
