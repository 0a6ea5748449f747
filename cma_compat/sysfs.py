r"""The folder ``mm/contiguous`` of sysfs in 2010, as text by path; see `swiommu.region.mainline.TextTree`.

    map                      rw   the map in force; a written one is validated, an empty one clears it
    allocators               r    names in the order of registration, "-" for one without
    regions/<start>/         by the start in hexadecimal; a link with the region's name leads there
        name, start, size, free, users   r
        alloc                rw   the allocator attached, or "[the one wanted]"; writing chooses another

Source: RFC v4, section 13 of our notes. What detaching did to a region in 2010 (nothing could attach again) is mended.

>>> from cma_compat import CmaContext, cma_region
>>> cma = CmaContext()
>>> cma.cma_region_register(cma_region(0x4000_0000, 1 << 20, name="camera"))
0
>>> tree = sysfs(cma)
>>> tree["map"] = "cam*=camera\n"
>>> tree["regions/camera/alloc"] = "buddy"
>>> {path: tree[path] for path in ("map", "regions/camera/alloc", "regions/camera/start")}
{'map': 'cam*=camera\n', 'regions/camera/alloc': '[buddy]\n', 'regions/camera/start': '40000000\n'}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cma_compat.allocators import name_of
from swiommu.region.mainline.files import Link, TextFile, TextTree, is_file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cma_compat.regions import Regions
    from cma_compat.structures import cma_region
    from swiommu.region.mainline.files import Node

__all__ = ["sysfs"]


def sysfs(context: Regions) -> TextTree:
    """The folder of a context: always as it is now, read and written by path, listed, dumped to a folder.

    Writing raises `InvalidArgument` for a bad map, and leaves the one in force; `Busy` for the allocator of a region
    with live chunks. A region that lies in another space than the context's memory has ``@`` and the space's name
    after its start. A name that is taken, or can't be a file's, gets no link.

    >>> from cma_compat import CmaContext, cma_region
    >>> cma = CmaContext()
    >>> for start, name in ((0x4000_0000, "../../etc"), (0x8000_0000, "video")):
    ...     cma.register_region(cma_region(start, 1 << 20, name=name))
    >>> sysfs(cma).entries("regions")
    ['0000000040000000', '0000000080000000', 'video']
    """
    return TextTree(lambda: _top(context))


def _top(context: Regions) -> Mapping[str, Node]:
    return {
        "map": TextFile(lambda: _cut(_line(context.map), context.page_size), context.set_map),
        "allocators": TextFile(lambda: _cut(_line(" ".join(map(_name, context.allocators))), context.page_size)),
        "regions": _regions(context),
    }


def _regions(context: Regions) -> Mapping[str, Node]:
    folders: dict[str, Node] = {}
    links: dict[str, Node] = {}
    # The earliest first: it has a name that the others find taken.
    for reg in reversed(context.regions):
        folder = _folder_name(context, reg)
        while folder in folders:
            folder += "+"
        folders[folder] = _region(context, reg)
        if reg.name is not None:
            links.setdefault(reg.name, Link(folder))
    return {**links, **folders}


def _folder_name(context: Regions, reg: cma_region) -> str:
    start = f"{reg.start:0{context.space.width // 4}x}"
    space = None if reg.backend is None else reg.backend.space
    if space is None or space is context.memory:
        return start
    named = f"{start}@{space.name.replace('/', '!')}"
    return named if is_file_name(named) else f"{start}@"


def _region(context: Regions, reg: cma_region) -> Mapping[str, Node]:
    return {
        "name": _shown(lambda: "" if reg.name is None else f"{reg.name}\n"),
        "start": _shown(lambda: f"{reg.start:x}\n"),
        "size": _shown(lambda: f"{reg.size}\n"),
        "free": _shown(lambda: f"{reg.free_space}\n"),
        "users": _shown(lambda: f"{reg.users}\n"),
        "alloc": TextFile(lambda: _allocator(reg), lambda text: context.choose_allocator(reg, _first_line(text))),
    }


def _shown(read: Callable[[], str]) -> TextFile:
    return TextFile(read)


def _allocator(reg: cma_region) -> str:
    if reg.served_by is not None:
        return _line(_name(reg.alloc))
    return "" if reg.alloc_name is None else f"[{reg.alloc_name}]\n"


def _name(allocator: object) -> str:
    # A plug-in's name may be anything.
    return str(name_of(allocator))


def _first_line(text: str) -> str | None:
    return text.partition("\0")[0].partition("\n")[0] or None


def _line(text: str) -> str:
    return f"{text}\n" if text else ""


def _cut(text: str, size: int) -> str:
    """As much of the text as fits into a page of UTF-8, which is all that a read of sysfs gives."""
    return text.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore")
