"""What mainline Linux says of its contiguous areas, and how it is told to make them.

Here live its debugfs and sysfs text (`debugfs`, `sysfs` over `CmaArea`), what its command line and a device tree's
``/reserved-memory`` ask for (`plan_command_line`, `plan_reserved_memory`), and where areas then lie in the memory of a
booting machine (`BootMemory`), aligned to its page blocks (`cma_min_alignment`). Addresses are plain numbers of the
machine's physical space, as the kernel prints them. Nothing here places pages: that is `swiommu.region.Bitmap`.
"""

from swiommu.region.mainline.area import CmaArea
from swiommu.region.mainline.boot_memory import BootMemory, declare_area
from swiommu.region.mainline.command_line import AreaPlan, CommandLinePlan, Refusal, parameters, plan_command_line
from swiommu.region.mainline.files import Link, Node, TextFile, TextTree, is_file_name, parse_number
from swiommu.region.mainline.flat_tree import FlatTree, TreeNode, parse_flat_tree, read_device_tree
from swiommu.region.mainline.page_block import cma_min_alignment
from swiommu.region.mainline.reserved_memory import ReservedMemory, ReservedNode, Use, plan_reserved_memory
from swiommu.region.mainline.views import bitmap_text, debugfs, sysfs

__all__ = [
    "AreaPlan",
    "BootMemory",
    "CmaArea",
    "CommandLinePlan",
    "FlatTree",
    "Link",
    "Node",
    "Refusal",
    "ReservedMemory",
    "ReservedNode",
    "TextFile",
    "TextTree",
    "TreeNode",
    "Use",
    "bitmap_text",
    "cma_min_alignment",
    "debugfs",
    "declare_area",
    "is_file_name",
    "parameters",
    "parse_flat_tree",
    "parse_number",
    "plan_command_line",
    "plan_reserved_memory",
    "read_device_tree",
    "sysfs",
]
