"""What a person asks: which design, and what would it take; does the model decide likewise; which way, and who refuses.

`compare` and `verify` are asked of recorded traces, `explain` of one access through a stack of layers, `explain_table`
of a dump of memory. An answer is a value with `to_json()`; printing it is the business of `swiommu.report`.
"""

from __future__ import annotations

from swiommu.answers.compare import Comparison, compare
from swiommu.answers.cost import CostVector, read_cost_vector
from swiommu.answers.explain import Explanation, explain
from swiommu.answers.many import Comparisons
from swiommu.answers.row import Row
from swiommu.answers.table import TableExplanation, explain_table
from swiommu.answers.verify import Verification, verify

__all__ = [
    "Comparison",
    "Comparisons",
    "CostVector",
    "Explanation",
    "Row",
    "TableExplanation",
    "Verification",
    "compare",
    "explain",
    "explain_table",
    "read_cost_vector",
    "verify",
]
