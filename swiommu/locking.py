"""Locks as kernels have them, one for each thing that changes as a whole, and what may not be done under one.

Who holds several takes them in this order: a context of 2010, a device of the DMA front, a stack of domains, a region,
an area that lends, its pages, a bounce pool, frames, bytes. Domains that stand on each other share one: maps go down a
stack and notices of unmaps go up, so that two locks would have no order.

A lock can be taken again by the thread that holds it. Foreign code that runs under one (an address policy, a table
memory, an unmap notifier) may ask the object that it serves, but not change it.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Concatenate, NoReturn, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from threading import RLock as _RLock
else:
    _RLock = type(threading.RLock())  # `threading.RLock` is a function

__all__ = ["Lock", "Locked", "Running", "bare_copy", "locked", "no_shallow_copy", "run_all"]

P = ParamSpec("P")
T = TypeVar("T")


class Lock(_RLock):  # type: ignore[misc] # final in the stubs only
    """A `threading.RLock` that can be pickled and copied: the copy is a lock of its own that nobody holds.

    >>> import pickle
    >>> with Lock() as taken:
    ...     taken
    True
    >>> isinstance(pickle.loads(pickle.dumps(Lock())), Lock)
    True
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()

    def copy(self) -> Lock:
        """A lock of its own."""
        return Lock()


class Running:
    """What foreign code runs inside a call, None while there is none; one for each object that may not be changed then.

    >>> Running().what is None
    True
    """

    __slots__ = ("what",)

    def __init__(self) -> None:
        self.what: str | None = None


class Locked(Protocol):
    """What has a lock."""

    lock: Lock


L = TypeVar("L", bound=Locked)


def locked(method: Callable[Concatenate[L, P], T]) -> Callable[Concatenate[L, P], T]:
    """A method that holds ``self.lock`` for the whole call; those that are called a million times take it themselves.

    >>> class Counter:
    ...     def __init__(self):
    ...         self.lock, self.count = Lock(), 0
    ...     @locked
    ...     def add(self):
    ...         self.count += 1
    >>> counter = Counter(); counter.add(); counter.count
    1
    """

    @functools.wraps(method)
    def held(self: L, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            return method(self, *args, **kwargs)

    return held


def run_all(steps: Iterable[Callable[[], object]]) -> None:
    """Call all of ``steps``, whatever one of them raises; the first exception comes out in the end.

    >>> run_all([lambda: 1 // 0, lambda: print("done all the same")])
    Traceback (most recent call last):
    ...
    ZeroDivisionError: integer division or modulo by zero
    """
    raised: BaseException | None = None
    for step in steps:
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - raised below, when all is done
            raised = raised or error
    if raised is not None:
        raise raised


def no_shallow_copy(self: object) -> NoReturn:
    """As ``__copy__`` of a class whose instances hold state: `TypeError`, for two would change the same tables.

    >>> class Table:
    ...     __copy__ = no_shallow_copy
    >>> import copy
    >>> copy.copy(Table())
    Traceback (most recent call last):
    ...
    TypeError: a shallow copy of a Table would share its state with the original: use copy.deepcopy
    """
    name = type(self).__name__
    raise TypeError(f"a shallow copy of a {name} would share its state with the original: use copy.deepcopy")


def bare_copy(thing: T) -> T:
    """What `copy.copy` makes of classes that don't refuse it, for their own deep copies to go on from.

    >>> class Table:
    ...     __slots__ = ("rows",)
    ...     __copy__ = no_shallow_copy
    >>> table = Table(); table.rows = [1]
    >>> bare_copy(table).rows is table.rows
    True
    """
    other = object.__new__(type(thing))
    for each in type(thing).__mro__:
        for name in each.__dict__.get("__slots__", ()):
            if hasattr(thing, name):
                setattr(other, name, getattr(thing, name))
    if hasattr(thing, "__dict__"):
        other.__dict__.update(thing.__dict__)
    return other
