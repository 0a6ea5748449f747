"""The one mutex of a context: every run-time call holds it for its whole work."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from swiommu.errors import Busy

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Mutex"]


class Mutex:
    """A lock that tells a thread that would wait for itself, instead of letting it wait: allocators may not call back.

    >>> mutex = Mutex()
    >>> with mutex, mutex:
    ...     pass
    Traceback (most recent call last):
    ...
    swiommu.errors.Busy: this thread is in a call of the context already: an allocator may not call back into it
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0

    def __reduce__(self) -> tuple[type[Mutex], tuple[()]]:
        return Mutex, ()  # a pickle or a copy has one of its own, which nobody holds

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner == me:  # only this thread can have written its own number here
            raise Busy("this thread is in a call of the context already: an allocator may not call back into it")
        self._lock.acquire()
        self._owner = me

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owner = 0
        self._lock.release()
