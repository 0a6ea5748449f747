"""Addresses that may be errors: what 2010 calls return instead of raising.

A failing call returns its negative errno modulo ``2**width``, so that one unsigned number carries either. Source:
RFC v4, and the kernel's ``include/linux/err.h``.
"""

from __future__ import annotations

__all__ = ["IS_ERR_VALUE", "error_value"]

_MAX_ERRNO = 4095


def error_value(code: int, width: int = 64) -> int:
    """The positive errno ``code`` as an address of ``width`` bits.

    >>> hex(error_value(12))
    '0xfffffffffffffff4'
    """
    return -code % (1 << width)


def IS_ERR_VALUE(value: int, width: int = 64) -> bool:  # noqa: N802 - the kernel's name
    """Whether an address of ``width`` bits is one of the 4095 that mean an error.

    The first byte of the last page is a legal address, and so is 0.

    >>> IS_ERR_VALUE(error_value(22)), IS_ERR_VALUE(2**64 - 4096), IS_ERR_VALUE(0)
    (True, False, False)
    """
    return value >= (1 << width) - _MAX_ERRNO
