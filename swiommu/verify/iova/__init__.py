"""Do the models of bus address allocators decide what the recorded kernel's did: the calls they got, and the check.

`calls` reads what allocators were asked and answered, with the frees that probes missed put back; `allocators` predicts
every answer. No allocator lives here: that is `swiommu.iommu.IovaDomain`.
"""

from __future__ import annotations

from swiommu.verify.iova.allocators import verify_iova
from swiommu.verify.iova.calls import IovaCall, read_calls

__all__ = ["IovaCall", "read_calls", "verify_iova"]
