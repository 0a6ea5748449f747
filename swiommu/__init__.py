"""swiommu: one IOMMU API over translation hardware, another IOMMU, or nothing but contiguous memory.

The rooms, from the ground up: `swiommu.errors`, `swiommu.words`, `swiommu.undo`, `swiommu.policy`,
`swiommu.registry`, `swiommu.address`, `swiommu.ranges`, `swiommu.locking`, `swiommu.input_file`, `swiommu.profile`,
`swiommu.memory`, `swiommu.region`, `swiommu.pagetable`, `swiommu.layer`, `swiommu.stackfile`, `swiommu.iommu`,
`swiommu.linux`, `swiommu.dma`, `swiommu.device`, `swiommu.trace`, `swiommu.requests`, `swiommu.replay`,
`swiommu.verify`, `swiommu.answers`, `swiommu.report`, `swiommu.cli`, `swiommu.testing`. Importing the package loads
none of them.
"""

__all__ = ["__version__"]

__version__ = "0.1.0.dev0"
