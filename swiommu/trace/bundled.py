"""The recordings that come with the package, so that a first command has something real to answer from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from swiommu.errors import InputError

__all__ = ["bundled_names", "bundled_path"]

_DATA: Final = Path(__file__).parent.parent / "data"
_ENDING: Final = ".trace.gz"


def bundled_names() -> list[str]:
    """The names of the bundled recordings, sorted.

    >>> bundled_names()
    ['arm64-6.12-cam-cma64M-s81', 'arm64-6.12-smmu-camnvme-cma128M-s89']
    """
    return sorted(path.name.removesuffix(_ENDING) for path in _DATA.glob(f"*{_ENDING}"))


def bundled_path(name: str) -> Path:
    """The file of the bundled recording ``name``; `InputError` tells which there are.

    >>> bundled_path("holiday")
    Traceback (most recent call last):
    ...
    swiommu.errors.InputError: no bundled recording 'holiday'; there are ... and ...
    """
    if name not in bundled_names():
        raise InputError(f"no bundled recording {name!r}; there are {' and '.join(bundled_names())}")
    return _DATA / f"{name}{_ENDING}"
