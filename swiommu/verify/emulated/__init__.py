"""Checks of what an emulated IOMMU did: its page tables, its walks, and the commands that it was told.

Its log has no time stamps: `log` brings it into the order of the trace, by `order`. Between two commands it sees what
is mapped in a window of operations (`windows`). The checks are `pte` (leaves, steps, translations; `smmu_walks` for
those of an SMMU) and `invalidation` (commands, from the log or from the trace itself). What should happen is told by
`swiommu.verify.timeline` and `swiommu.verify.expected`.
"""

from __future__ import annotations

from swiommu.verify.emulated.invalidation import verify_invalidation
from swiommu.verify.emulated.pte import verify_pte

__all__ = ["verify_invalidation", "verify_pte"]
