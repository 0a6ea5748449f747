"""swiommu: one IOMMU API over translation hardware, another IOMMU, or nothing but contiguous memory.

The rooms, from the ground up: `swiommu.address`, `swiommu.memory`, `swiommu.region`, `swiommu.pagetable`,
`swiommu.layer`, `swiommu.iommu`, `swiommu.trace`, `swiommu.replay`, `swiommu.answers`, `swiommu.report`,
`swiommu.cli`. Importing the package loads none of them.
"""

__all__ = ["__version__"]

__version__ = "0.1.0.dev0"
