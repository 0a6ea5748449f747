"""What mainline Linux says of its contiguous areas, and how it is told to make them.

Here live its debugfs and sysfs text (`debugfs`, `sysfs` over `CmaArea`). Addresses are plain numbers of the machine's
physical space, as the kernel prints them. Nothing here places pages: that is `swiommu.region.Bitmap`.
"""

from swiommu.region.mainline.area import CmaArea
from swiommu.region.mainline.files import Link, Node, TextFile, TextTree, is_file_name, parse_number
from swiommu.region.mainline.views import bitmap_text, debugfs, sysfs

__all__ = [
    "CmaArea",
    "Link",
    "Node",
    "TextFile",
    "TextTree",
    "bitmap_text",
    "debugfs",
    "is_file_name",
    "parse_number",
    "sysfs",
]
