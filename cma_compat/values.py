"""Addresses that may be errors: what 2010 calls return instead of raising.

A failing call returns its negative errno modulo ``2**width``, so that one unsigned number carries either. Source:
RFC v4, and the kernel's ``include/linux/err.h``.
"""

from __future__ import annotations

from typing import Unpack

from swiommu.address import Address, as_integers
from swiommu.errors import Facts, SwiommuError

__all__ = ["IS_ERR_VALUE", "PluginRefusal", "code_of", "errno_of", "error_value"]

_MAX_ERRNO = 4095


def error_value(code: int, width: int = 64) -> int:
    """The positive errno ``code`` as an address of ``width`` bits.

    >>> hex(error_value(12))
    '0xfffffffffffffff4'
    """
    code, width = as_integers(code=code, width=width)
    return -code % (1 << width)


def IS_ERR_VALUE(value: Address | int, width: int = 64) -> bool:  # noqa: N802 - the kernel's name
    """Whether an address is one of the 4095 that mean an error; a plain number is one of ``width`` bits.

    The first byte of the last page is a legal address, and so is 0.

    >>> IS_ERR_VALUE(error_value(22)), IS_ERR_VALUE(2**64 - 4096), IS_ERR_VALUE(0)
    (True, False, False)
    """
    if isinstance(value, Address):
        return value.value >= value.space.limit - _MAX_ERRNO
    value, width = as_integers(value=value, width=width)
    return value >= (1 << width) - _MAX_ERRNO


def errno_of(value: Address | int, width: int = 64) -> int:
    """The negative errno in an address that `IS_ERR_VALUE`, 0 in any other: what a driver returns in its turn.

    >>> errno_of(error_value(12)), errno_of(0x4000_0000)
    (-12, 0)
    """
    if not isinstance(value, Address):
        value, width = as_integers(value=value, width=width)
    if not IS_ERR_VALUE(value, width):
        return 0
    return value.value - value.space.limit if isinstance(value, Address) else value - (1 << width)


class PluginRefusal(SwiommuError):
    """A plug-in of 2010 refused a region; ``code`` is its own errno, positive."""

    def __init__(self, message: str, *, code: int = SwiommuError.errno, **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.code = code


def code_of(error: SwiommuError) -> int:
    """The positive errno of an error; of a `PluginRefusal` what the plug-in answered.

    >>> from swiommu.errors import NoMemory
    >>> code_of(NoMemory("full")), code_of(PluginRefusal("init failed", code=5))
    (12, 5)
    """
    return error.code if isinstance(error, PluginRefusal) else error.errno
