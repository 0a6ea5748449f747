"""What mainline shows of its areas: the folders ``cma`` of debugfs and ``kernel/mm/cma`` of sysfs, in its own text.

The allocator's profile decides the form. Source: ``mm/cma_debug.c`` and ``mm/cma_sysfs.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.errors import InvalidArgument, NoMemory, SwiommuError
from swiommu.region.mainline.files import Link, TextFile, TextTree, is_file_name, parse_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from swiommu.region.bitmap import Bitmap
    from swiommu.region.mainline.area import CmaArea
    from swiommu.region.mainline.files import Node

__all__ = ["bitmap_text", "debugfs", "sysfs"]


def debugfs(areas: Sequence[CmaArea]) -> TextTree:
    r"""``/sys/kernel/debug/cma``: a folder for each area, whose files ``alloc`` and ``free`` take numbers of pages.

    ``free`` gives back what ``alloc`` took, the latest first, and splits an allocation only where a bit is a page.
    Of two areas of one name the first has the folder; one whose name can't be a file's has none. Writing raises
    `NoMemory` for whatever reason ``alloc`` fails, and what `parse_number` raises.

    >>> from swiommu.region import Bitmap
    >>> from swiommu.region.mainline import CmaArea
    >>> tree = debugfs([CmaArea("camera", Bitmap(0x4000_0000, 64 * 4096, profile="7.3"))])
    >>> tree["camera/alloc"] = "40"
    >>> tree["camera/free"] = "5"
    >>> tree["camera/used"], tree["camera/maxchunk"], tree["camera/ranges/0/bitmap"], tree["camera/bitmap"]
    ('35\n', '24\n', '4294967264 255\n', '4294967264 255\n')
    """
    folders: dict[str, _Debugging] = {}
    for area in areas:
        folders.setdefault(area.name, _Debugging(area))
    return TextTree(lambda: {name: folder.files() for name, folder in folders.items()})


def sysfs(areas: Sequence[CmaArea]) -> TextTree:
    r"""``/sys/kernel/mm/cma``: counts of pages by area, to be read only.

    A slash in a name shows as ``!``. With two areas of one name, or one whose name can't be a file's, the kernel gives
    up on the whole folder: it is empty.

    >>> from swiommu.region import Bitmap
    >>> from swiommu.region.mainline import CmaArea
    >>> area = CmaArea("camera", Bitmap(0x4000_0000, 64 * 4096, profile="7.3"))
    >>> pfn = area.alloc(40)
    >>> for path, text in sysfs([area]).items():
    ...     print(path, text, end="")
    camera/alloc_pages_fail 0
    camera/alloc_pages_success 40
    camera/available_pages 24
    camera/release_pages_success 0
    camera/total_pages 64
    """
    folders = {area.name.replace("/", "!"): _counts(area) for area in areas}
    if len(folders) < len(areas) or not all(map(is_file_name, folders)):
        folders = {}
    return TextTree(lambda: folders)


def bitmap_text(bitmap: Bitmap) -> str:
    r"""The bits of one range as debugfs shows them: decimal words of 32, the lowest first, set where pages are taken.

    >>> from swiommu.region import Bitmap
    >>> area = Bitmap(0, 40 * 4096)
    >>> area.reserve(33 * 4096, 2 * 4096)
    >>> bitmap_text(area)
    '0 6\n'
    """
    bits = bytearray(b"1" * (bitmap.count >> bitmap.order_per_bit))
    for start, length in bitmap.free_runs():
        bits[start : start + length] = b"0" * length
    words = [str(int(bits[at : at + 32][::-1], 2)) for at in range(0, len(bits), 32)]
    return " ".join(words) + "\n" if words else ""


def _number(read: Callable[[], int]) -> TextFile:
    return TextFile(lambda: f"{read()}\n")


def _counts(area: CmaArea) -> Mapping[str, Node]:
    files: dict[str, Node] = {
        "alloc_pages_success": _number(lambda: area.pages_succeeded),
        "alloc_pages_fail": _number(lambda: area.pages_failed),
        "release_pages_success": _number(lambda: area.pages_released),
    }
    if area.profile.cma_counts_pages:
        files["total_pages"] = _number(lambda: area.count)
        files["available_pages"] = _number(lambda: area.available)
    return files


class _Debugging:
    """The folder of one area, and what was allocated through it, the latest last."""

    def __init__(self, area: CmaArea) -> None:
        self._area = area
        self._taken: list[tuple[int, int]] = []

    def files(self) -> Mapping[str, Node]:
        area = self._area
        files: dict[str, Node] = {
            "alloc": TextFile(write=self._alloc),
            "free": TextFile(write=self._free),
            "count": _number(lambda: area.count),
            "order_per_bit": _number(lambda: area.allocator.order_per_bit),
            "used": _number(lambda: area.used),
            "maxchunk": _number(lambda: area.largest_chunk),
        }
        ranges = [self._range(part) for part in area.ranges]
        if not area.profile.cma_several_ranges:
            return files | ranges[0]
        files["ranges"] = {str(number): part for number, part in enumerate(ranges)}
        return files | {name: Link(f"ranges/0/{name}") for name in ranges[0]}

    def _range(self, part: Bitmap) -> dict[str, Node]:
        return {"base_pfn": _number(lambda: part.base_pfn), "bitmap": TextFile(lambda: bitmap_text(part))}

    def _alloc(self, text: str) -> None:
        count = _as_int(parse_number(text))
        try:
            pfn = self._area.alloc(count)
        except SwiommuError as refusal:
            raise NoMemory(f"{count} pages can't be allocated: {refusal}", count=count) from refusal
        self._taken.append((pfn, count))

    def _free(self, text: str) -> None:
        count = _as_int(parse_number(text))
        if count < 0:
            # The kernel would move the latest allocation's start, and lose count of it.
            raise InvalidArgument(f"{count} pages can't be freed", count=count)
        while count and self._taken:
            pfn, length = self._taken.pop()
            if length > count and self._area.allocator.order_per_bit:
                self._taken.append((pfn, length))
                return
            part = min(length, count)
            self._area.release(pfn, part)
            if part < length:
                self._taken.append((pfn + part, length - part))
            count -= part


def _as_int(number: int) -> int:
    """The kernel's ``int`` of a number of 64 bits: its low 32, signed."""
    low = number & 0xFFFF_FFFF
    return low - (1 << 32) if low >> 31 else low
