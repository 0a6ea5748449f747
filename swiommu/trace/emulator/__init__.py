"""Logs of emulated IOMMUs, VT-d, SMMUv3, AMD-Vi and virtio-iommu: what the hardware's model did, as typed records.

Such a log has no time stamps and begins before the kernel's own record. Here its lines are told apart and read
(`records`), one at a time (`reading`). What may not be here: bringing its order together with that of a trace, or any
judgement; that is `swiommu.verify`.
"""

from swiommu.trace.emulator.reading import EmulatorLog, find_emulator_log
from swiommu.trace.emulator.records import (
    Attached,
    Command,
    Entry,
    Executed,
    Found,
    Invalidated,
    LeafWord,
    Lookup,
    OtherCommand,
    PageSizes,
    Record,
    Request,
    Step,
    Translated,
)

__all__ = [
    "Attached",
    "Command",
    "EmulatorLog",
    "Entry",
    "Executed",
    "Found",
    "Invalidated",
    "LeafWord",
    "Lookup",
    "OtherCommand",
    "PageSizes",
    "Record",
    "Request",
    "Step",
    "Translated",
    "find_emulator_log",
]
