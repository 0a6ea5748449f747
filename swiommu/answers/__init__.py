"""What a person asks: `compare` (which design, and what would it take) and `verify` (does the model decide likewise).

An answer is a value with `to_json()`; printing it is the business of `swiommu.report`.
"""

from __future__ import annotations

from swiommu.answers.compare import Comparison, compare
from swiommu.answers.cost import CostVector, read_cost_vector
from swiommu.answers.many import Comparisons
from swiommu.answers.row import Row
from swiommu.answers.verify import Verification, verify

__all__ = [
    "Comparison",
    "Comparisons",
    "CostVector",
    "Row",
    "Verification",
    "compare",
    "read_cost_vector",
    "verify",
]
