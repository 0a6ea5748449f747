"""How a kernel gives devices their domains: types, groups, defaults, attaching, owners, reserved regions, faults.

`IommuCore` finds devices behind `Hardware` and puts them into groups; an `IommuGroup` has one domain at a time, one of
those of `swiommu.iommu`. What only a kernel's core knows of it is a record, `IommuDomain`, its attribute ``kernel``.
Errors are raised, with the kernel's errno in them; functions by the kernel's names, which answer these, are in
`swiommu.linux`. How addresses are translated is decided elsewhere.
"""

from swiommu.iommu.groups.core import IommuCore, capable
from swiommu.iommu.groups.default_domain import Defaults
from swiommu.iommu.groups.events import GroupEvent
from swiommu.iommu.groups.fixed import BlockedDomain, IdentityDomain
from swiommu.iommu.groups.group import IommuGroup, group_of
from swiommu.iommu.groups.hardware import Hardware, format_capabilities
from swiommu.iommu.groups.iommu_domain import FAULT_READ, FAULT_WRITE, IommuDomain, free_domain, record_of, report_fault
from swiommu.iommu.groups.mapping import (
    gather_for,
    iova_to_phys,
    map_range,
    map_sg,
    sync_map,
    unmap_range,
)
from swiommu.iommu.groups.ownership import (
    claim_device,
    claim_group,
    release_device,
    release_group,
    unuse_default_domain,
    use_default_domain,
)
from swiommu.iommu.groups.pasid import attach_pasid, detach_pasid
from swiommu.iommu.groups.pci import HostBridge, PciBus, PciFunction, PciKind
from swiommu.iommu.groups.pci_groups import existing_group
from swiommu.iommu.groups.reserved_regions import host_bridge_holes, merged_regions, regions_text
from swiommu.iommu.groups.reset import reset_done, reset_prepare
from swiommu.iommu.groups.sysfs import write_type
from swiommu.iommu.groups.types import Capability, Cookie, DomainType, Geometry, Gfp, Hwpt, ResvType
from swiommu.iommu.groups.untracked_iova import UntrackedIova
from swiommu.iommu.scatterlist import Scatterlist as SgEntry

__all__ = [
    "FAULT_READ",
    "FAULT_WRITE",
    "BlockedDomain",
    "Capability",
    "Cookie",
    "Defaults",
    "DomainType",
    "Geometry",
    "Gfp",
    "GroupEvent",
    "Hardware",
    "HostBridge",
    "Hwpt",
    "IdentityDomain",
    "IommuCore",
    "IommuDomain",
    "IommuGroup",
    "PciBus",
    "PciFunction",
    "PciKind",
    "ResvType",
    "SgEntry",
    "UntrackedIova",
    "attach_pasid",
    "capable",
    "claim_device",
    "claim_group",
    "detach_pasid",
    "existing_group",
    "format_capabilities",
    "free_domain",
    "gather_for",
    "group_of",
    "host_bridge_holes",
    "iova_to_phys",
    "map_range",
    "map_sg",
    "merged_regions",
    "record_of",
    "regions_text",
    "release_device",
    "release_group",
    "report_fault",
    "reset_done",
    "reset_prepare",
    "sync_map",
    "unmap_range",
    "unuse_default_domain",
    "use_default_domain",
    "write_type",
]
