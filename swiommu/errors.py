"""Every error swiommu raises: one tree, a sentence each, with errno and the numbers as fields.

    SwiommuError                       errno, facts
    ├── InvalidArgument (ValueError)         EINVAL      the call can never be right as it stands
    │   ├── SpaceMismatch (TypeError)        EINVAL      an address of another space
    │   ├── NotAnInteger (TypeError)         EINVAL      a float, a text or a truth value for a number
    │   └── NoPageSize                       ENXIO       no page size of the table divides all of the range
    ├── AddressOverflow (OverflowError)      EOVERFLOW   start + size leaves the space
    ├── OutOfRange (ValueError)              ERANGE      beyond the aperture or the width
    ├── NotFound (LookupError)               ENOENT      nothing starts, or is mapped, there
    ├── NoMemory (MemoryError)               ENOMEM      no room that would serve the request
    │   ├── BlockExceeded                        ENOMEM      more than the largest block of the page allocator
    │   ├── PoolFull                             ENOMEM      no free run of slots in the bounce pool
    │   └── SegmentExceeded                      ENOMEM      more than a segment of the bounce pool holds
    ├── NoSpace                              ENOSPC      no free bus addresses under the limit
    ├── Busy                                 EBUSY       in use, pinned, or attached elsewhere
    ├── AddressInUse                         EADDRINUSE  the range overlaps a live one
    │   └── AlreadyMapped                        EEXIST      the same, as ARM's page tables say it
    ├── Loop                                 ELOOP       a layer would be found below itself
    ├── NotSupported                         EOPNOTSUPP  this domain cannot do that by design
    ├── NoDevice                             ENODEV      the device has no domain
    ├── NotPermitted                         EPERM       somebody else owns it, or not while it is in use
    ├── AccessDenied                         EACCES      the caller has not the rights
    ├── AlreadyThere                         EEXIST      there can be one only, and there is
    ├── ProbeDeferred                        517         not yet: ask again later (a number of the kernel's own)
    ├── DeviceFault                          EFAULT      a device's access found no memory
    └── InputError                           (file)      unreadable input: path, line, reason

The facts that programs ask for are attributes too, so that no sentence has to be parsed. They are declared in `Facts`,
and None where an error does not have them:

>>> error = NoMemory("no hole of 8192 bytes", size=8192)
>>> error.size, error.align, error.errno
(8192, None, 12)
>>> isinstance(error, MemoryError)
True
"""

from __future__ import annotations

import errno as _errno
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, Unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AccessDenied",
    "AddressInUse",
    "AddressOverflow",
    "AlreadyMapped",
    "AlreadyThere",
    "BlockExceeded",
    "Busy",
    "DeviceFault",
    "Facts",
    "InputError",
    "InvalidArgument",
    "Loop",
    "NoDevice",
    "NoMemory",
    "NoPageSize",
    "NoSpace",
    "NotAnInteger",
    "NotFound",
    "NotPermitted",
    "NotSupported",
    "OutOfRange",
    "PoolFull",
    "ProbeDeferred",
    "SegmentExceeded",
    "SpaceMismatch",
    "SwiommuError",
]


class Facts(TypedDict, total=False):
    """What any error may say of itself; bytes, where nothing else is said.

    ``iova`` is a bus address, ``paddr`` where it leads, ``start`` and ``size`` a range of any space; ``limit`` is what
    was exceeded, ``mask`` that of a device. ``count`` counts pages, frames or entries, ``pfn`` is the first of them.
    ``free_space`` is what an area had. ``kernel_errno`` is what the kernel would print.

    >>> facts = Facts(iova=0x1000, size=4096)
    >>> NoSpace("no free bus addresses", **facts).iova
    4096
    """

    iova: int | None
    paddr: int | None
    start: int | None
    size: int | None
    align: int | None
    limit: int | None
    mask: int | None
    count: int | None
    pfn: int | None
    name: str | None
    free_space: int | None
    kernel_errno: int | None


_FACTS = frozenset(Facts.__annotations__)


class SwiommuError(Exception):
    """Base of all errors: ``str(error)`` is the sentence, ``error.errno`` the kernel's code (positive).

    Keyword arguments become attributes: those of `Facts`, and what a class declares beside them; else `TypeError`.

    >>> SwiommuError("no such thing", size=4096).size
    4096
    """

    errno: ClassVar[int] = _errno.EIO

    iova: int | None = None
    paddr: int | None = None
    start: int | None = None
    size: int | None = None
    align: int | None = None
    limit: int | None = None
    mask: int | None = None
    count: int | None = None
    pfn: int | None = None
    name: str | None = None
    free_space: int | None = None
    kernel_errno: int | None = None

    def __init__(self, message: str, **facts: Unpack[Facts]) -> None:
        super().__init__(message)
        if not facts.keys() <= _FACTS:
            raise TypeError(f"{type(self).__name__} declares no {', '.join(sorted(facts.keys() - _FACTS))}")
        self.__dict__.update(facts)

    @property
    def facts(self) -> Facts:
        """The facts of `Facts` that this error has, for one that says the same in other words.

        >>> NoMemory("no hole of 8192 bytes", size=8192).facts
        {'size': 8192}
        """
        known = Facts()
        known.update({name: value for name, value in vars(self).items() if name in _FACTS})  # type: ignore[typeddict-item] # by the line before
        return known


class InvalidArgument(SwiommuError, ValueError):
    """The call can never be right as it stands: size 0, a bad alignment, a misaligned address."""

    errno = _errno.EINVAL


class SpaceMismatch(InvalidArgument, TypeError):
    """An address of one space where another space's was wanted (bus for physical, or a stale one)."""


class NotAnInteger(InvalidArgument, TypeError):
    """A float, a text or a truth value where a whole number of bytes, pages or bits is needed."""


class NoPageSize(InvalidArgument):
    """No page size of the table divides the addresses and the size; what the generic page table answers."""

    errno = _errno.ENXIO


class AddressOverflow(SwiommuError, OverflowError):
    """Address arithmetic left the space: the sum wraps or goes below zero."""

    errno = _errno.EOVERFLOW


class OutOfRange(SwiommuError, ValueError):
    """A range beyond the aperture, the mask or the width of the space."""

    errno = _errno.ERANGE


class NotFound(SwiommuError, LookupError):
    """Nothing starts, or is mapped, at that address."""

    errno = _errno.ENOENT


class NoMemory(SwiommuError, MemoryError):
    """No room that would serve the request: shortage, fragmentation or alignment.

    ``retries`` counts the busy places that mainline's area stepped over before.
    """

    errno = _errno.ENOMEM

    def __init__(self, message: str, *, retries: int | None = None, **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.retries = retries


class BlockExceeded(NoMemory):
    """More than the largest block of the page allocator, which alone was asked; ``limit`` is that block in bytes."""


class PoolFull(NoMemory):
    """No free run of slots in the bounce pool: ``slots`` in all, ``used`` of them taken."""

    def __init__(
        self, message: str, *, slots: int | None = None, used: int | None = None, **facts: Unpack[Facts]
    ) -> None:
        super().__init__(message, **facts)
        self.slots = slots
        self.used = used


class SegmentExceeded(NoMemory):
    """More slots than a segment of the bounce pool has, whatever is free; ``limit`` is what it holds in bytes.

    ``slots`` and ``used`` are those of the pool, as in `PoolFull`.
    """

    def __init__(
        self, message: str, *, slots: int | None = None, used: int | None = None, **facts: Unpack[Facts]
    ) -> None:
        super().__init__(message, **facts)
        self.slots = slots
        self.used = used


class NoSpace(SwiommuError):
    """No free bus addresses under the device's limit."""

    errno = _errno.ENOSPC


class Busy(SwiommuError):
    """The object is in use: pinned pages, live chunks, or another domain attached; ``retries`` as in `NoMemory`."""

    errno = _errno.EBUSY

    def __init__(self, message: str, *, retries: int | None = None, **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.retries = retries


class AddressInUse(SwiommuError):
    """The range overlaps a live mapping, region or reservation."""

    errno = _errno.EADDRINUSE


class AlreadyMapped(AddressInUse):
    """The range overlaps a live mapping, as the page tables of ARM report it."""

    errno = _errno.EEXIST


class Loop(SwiommuError):
    """A layer would be found below itself, by its data or by the reads of a table; ``names`` is the way round."""

    errno = _errno.ELOOP

    def __init__(self, message: str, *, names: Sequence[str] = (), **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.names = names


class NotSupported(SwiommuError):
    """This kind of domain cannot do that by design (a linear domain cannot scatter)."""

    errno = _errno.EOPNOTSUPP


class NoDevice(SwiommuError):
    """The device is not attached to a domain."""

    errno = _errno.ENODEV


class NotPermitted(SwiommuError):
    """Somebody else owns it, or it can't be done while it is in use."""

    errno = _errno.EPERM


class AccessDenied(SwiommuError):
    """The caller has not the rights."""

    errno = _errno.EACCES


class AlreadyThere(SwiommuError):
    """There can be only one of it, and there is one."""

    errno = _errno.EEXIST


class ProbeDeferred(SwiommuError):
    """What it needs is not there yet: ask again later. EPROBE_DEFER, which no program outside the kernel sees."""

    errno = 517


class DeviceFault(SwiommuError):
    """A device's access found no memory; ``fault`` holds the record (see `swiommu.layer.Fault`).

    ``runs`` are what it found before. Of a transfer that was cut short, ``data`` came, of size ``transferred``.
    """

    errno = _errno.EFAULT

    def __init__(
        self,
        message: str,
        *,
        fault: Any = None,
        runs: Sequence[Any] = (),
        data: bytes | None = None,
        transferred: int | None = None,
        **facts: Unpack[Facts],
    ) -> None:
        super().__init__(message, **facts)
        self.fault = fault
        self.runs = runs
        self.data = data
        self.transferred = transferred


class InputError(SwiommuError):
    """A file, a line or a name given by the user can't be used; ``path`` and ``line`` say where.

    >>> str(InputError("is a directory, not a trace", path="/tmp"))
    '/tmp: is a directory, not a trace'
    >>> str(InputError("number beyond 64 bits", path="t.txt", line=7))
    't.txt:7: number beyond 64 bits'
    """

    errno = _errno.EINVAL

    def __init__(
        self, reason: str, *, path: str | None = None, line: int | None = None, **facts: Unpack[Facts]
    ) -> None:
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + reason, **facts)
        self.reason = reason
        self.path = path
        self.line = line
