"""The contiguous memory allocator by the kernel's names (mm/cma.c): pages of an area, or NULL."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from swiommu.address import as_integer
from swiommu.errors import Busy, InvalidArgument, NoMemory, SwiommuError
from swiommu.linux.answers import note

if TYPE_CHECKING:
    from swiommu.region import mainline

__all__ = ["cma_alloc", "cma_get_base", "cma_get_name", "cma_get_size", "cma_release"]

_log = logging.getLogger(__name__)


def cma_alloc(cma: mainline.CmaArea | None, count: int, align: int, no_warn: bool = False) -> int | None:
    """The first of ``count`` contiguous pages, as a page frame number, or None: ask ``is None``, as 0 may be a page.

    It is a multiple of ``2**align``; ``align`` is the order of an absolute frame number, not relative to the area. A
    failure is logged in the kernel's words, with what is free, unless ``no_warn``. NULL for no area or no pages is
    neither logged nor counted. Which errno the kernel prints is in `last_error` (``kernel_errno``).
    Source: mm/cma.c ``cma_alloc``.

    >>> from swiommu.linux import last_error
    >>> from swiommu.region import Bitmap
    >>> from swiommu.region.mainline import CmaArea
    >>> area = CmaArea("camera", Bitmap(0x4000_0000, 1 << 20, profile="7.3"))
    >>> hex(cma_alloc(area, 100, 4)), cma_alloc(area, 200, 0, no_warn=True)
    ('0x40000', None)
    >>> print(last_error())
    200 pages were asked for and 156 are available
    >>> cma_release(area, cma_get_base(area) >> 12, 100), cma_release(area, 0x1000, 1)
    (True, False)
    """
    if cma is None or as_integer(count, "count") == 0:
        what = "no area to allocate from" if cma is None else f"no pages of area {cma.name!r} were asked for"
        note(InvalidArgument(what))
        return None
    try:
        return cma.alloc(count, align)
    except SwiommuError as error:
        note(error)
        if isinstance(error, (NoMemory, Busy)) and not no_warn:
            code = error.kernel_errno or error.errno
            _log.error("cma: cma_alloc: %s: alloc failed, req-size: %d pages, ret: -%d", cma.name, count, code)
            _log.info("cma: number of available pages: %s", cma.allocator.free_extents())
        return None


def cma_release(cma: mainline.CmaArea | None, page: int | None, count: int) -> bool:
    """Give ``count`` pages from the frame number ``page`` back: False, and nothing changed, if they are not the area's.

    A run over the end of the area is False from 6.15 on; an older kernel stops, which is `OutOfRange` here, as nothing
    that it would answer. Source: mm/cma.c ``cma_release``.
    """
    if cma is None or page is None:
        note(InvalidArgument("no area, or no page, to release"))
        return False
    if cma.release(page, count):
        return True
    note(InvalidArgument(f"{count} pages from pfn {page:#x} are none of the area {cma.name!r}", pfn=page, count=count))
    return False


def cma_get_base(cma: mainline.CmaArea) -> int:
    """The physical address of the first page of the first range, in bytes."""
    return cma.ranges[0].start


def cma_get_size(cma: mainline.CmaArea) -> int:
    """The bytes of all ranges."""
    return sum(each.size for each in cma.ranges)


def cma_get_name(cma: mainline.CmaArea) -> str:
    """The name; of an area without one it ends with the newline that kernels store by mistake."""
    return cma.name
