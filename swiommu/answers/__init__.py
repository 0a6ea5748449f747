"""What a person asks: `compare` (which design, and what would it take) and `verify` (does the model decide likewise).

An answer is a value with `to_json()`; printing it is the business of `swiommu.report`.
"""

from __future__ import annotations

from swiommu.answers.compare import Comparison, compare
from swiommu.answers.row import Row
from swiommu.answers.verify import Verification, verify

__all__ = ["Comparison", "Row", "Verification", "compare", "verify"]
