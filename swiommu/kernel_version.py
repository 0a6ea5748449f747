"""Versions of Linux: where kernels answer differently, a model asks which one it is to be.

A version is text as ``uname -r`` prints it; what comes behind the second number decides nothing here.
"""

from __future__ import annotations

import re
from typing import Final

from swiommu.errors import InvalidArgument

__all__ = ["is_before", "kernel_version"]

_VERSION: Final = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})(?![0-9])")


def kernel_version(text: str) -> tuple[int, int]:
    """The first two numbers of a kernel's version; `InvalidArgument` for text that has none.

    >>> kernel_version("6.12"), kernel_version("5.15.167-v8+")
    ((6, 12), (5, 15))
    >>> kernel_version("new")
    Traceback (most recent call last):
    swiommu.errors.InvalidArgument: 'new' is no version of a kernel: one is needed such as 6.12
    """
    found = _VERSION.match(text)
    if found is None:
        raise InvalidArgument(f"{text[:40]!r} is no version of a kernel: one is needed such as 6.12", version=text)
    return int(found[1]), int(found[2])


def is_before(text: str, version: str) -> bool:
    """Whether the kernel of version ``text`` is older than ``version``.

    >>> is_before("6.6.30", "6.7"), is_before("6.12", "6.7"), is_before("6.7-rc1", "6.7")
    (True, False, False)
    """
    return kernel_version(text) < kernel_version(version)
