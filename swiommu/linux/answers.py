"""What kernel functions answer, negative errnos among it, and why: `last_error`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from swiommu.address import Address, as_integer
from swiommu.errors import InvalidArgument, SwiommuError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeIs  # known to type checkers; nothing imports it when this runs

__all__ = [
    "IS_ERR",
    "IS_ERR_OR_NULL",
    "IS_ERR_VALUE",
    "MAX_ERRNO",
    "PTR_ERR",
    "PTR_ERR_OR_ZERO",
    "answer",
    "errno_of",
    "last_error",
    "note",
]

MAX_ERRNO: Final = 4095
"""The largest errno; the numbers from its negative up to -1 are no addresses."""

_LIMIT = 1 << 64
T = TypeVar("T")


class _OfThread(threading.local):
    error: SwiommuError | None = None


_last = _OfThread()


def last_error() -> SwiommuError | None:
    """Why the last function of `swiommu.linux` that failed in this thread did; None if none has.

    Failed is what answered a negative errno, an allocation that answered NULL, a release that answered False, or an
    unmap that answered 0 where no hole is. As with ``errno``, what succeeds leaves it as it is.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.device import BusDevice
    >>> from swiommu.linux import iommu_paging_domain_alloc
    >>> from swiommu.memory import SparseRam
    >>> iommu_paging_domain_alloc(BusDevice("nic", SparseRam(PhysSpace("ram")))), str(last_error())
    (-19, "device 'nic' is in no IOMMU group")
    """
    return _last.error


def note(error: SwiommuError) -> None:
    """Let ``error`` be the last one of this thread; without its traceback, which would keep all it ran through."""
    _last.error = error.with_traceback(None)


def errno_of(error: SwiommuError) -> int:
    """What a kernel function answers for ``error``: its errno, negative.

    >>> from swiommu.errors import NoDevice
    >>> errno_of(NoDevice("no IOMMU"))
    -19
    """
    return -error.errno


def answer(call: Callable[..., T], *arguments: Any, **named: Any) -> T | int:
    """What ``call`` answers, or its errno, negative; then `last_error` is what it raised."""
    try:
        return call(*arguments, **named)
    except SwiommuError as error:
        note(error)
        return errno_of(error)


def IS_ERR(ptr: object) -> TypeIs[int]:  # noqa: N802 - the kernel's name
    """Whether what a function answered instead of an object is a negative errno; NULL is none.

    To a type checker what is none is no number at all, as functions answer objects or errnos.

    >>> IS_ERR(-19), IS_ERR(None), IS_ERR(object())
    (True, False, False)
    """
    return isinstance(ptr, int) and -MAX_ERRNO <= ptr < 0


def IS_ERR_OR_NULL(ptr: object) -> TypeIs[int | None]:  # noqa: N802 - the kernel's name
    """Whether it is a negative errno or NULL.

    >>> IS_ERR_OR_NULL(None), IS_ERR_OR_NULL(-12), IS_ERR_OR_NULL("a domain")
    (True, True, False)
    """
    return ptr is None or IS_ERR(ptr)


def PTR_ERR(ptr: object) -> int:  # noqa: N802 - the kernel's name
    """The negative errno that ``ptr`` is; `InvalidArgument` if it is none, where a kernel answers some number.

    >>> PTR_ERR(-19)
    -19
    """
    if not IS_ERR(ptr):
        raise InvalidArgument(f"{ptr!r} is no negative errno")
    return ptr


def PTR_ERR_OR_ZERO(ptr: object) -> int:  # noqa: N802 - the kernel's name
    """The negative errno that ``ptr`` is, or 0.

    >>> PTR_ERR_OR_ZERO(-19), PTR_ERR_OR_ZERO("a domain")
    (-19, 0)
    """
    return ptr if IS_ERR(ptr) else 0


def IS_ERR_VALUE(value: Address | int) -> bool:  # noqa: N802 - the kernel's name
    """Whether a number of 64 bits, signed or not, or an address of any width is one of the 4095 that mean an error.

    >>> IS_ERR_VALUE(-12), IS_ERR_VALUE(2**64 - 12), IS_ERR_VALUE(2**64 - 4096), IS_ERR_VALUE(0)
    (True, True, False, False)
    """
    if isinstance(value, Address):
        return value.value >= value.space.limit - MAX_ERRNO
    return as_integer(value, "value") % _LIMIT >= _LIMIT - MAX_ERRNO
