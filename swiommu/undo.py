"""Taking back what was done: one protocol for roll-back, for trials and for searches.

Each change notes its inverse in an `UndoLog`; rolling back runs the inverses, last first. That costs what was changed,
however much there is. Two ways to use it:

- a caller notes the inverse of each operation (`UndoLog` as a context);
- a thing notes the inverse of each of its changes while a transaction of it is open (`Undoable`, made with
  `Transaction`), so that its caches, cursors and counts come back too, which no inverse operation restores.

An inverse changes only the thing whose change it takes back. So transactions of several things may be opened and closed
in any nesting, and a thing that is made of others opens theirs with its own.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    _Step = tuple[Callable[..., object], tuple[object, ...]]

__all__ = ["Recorded", "Transaction", "UndoLog", "Undoable", "transaction_of_part"]


class UndoLog:
    """Inverses of what was done so far, run last first by `rollback`; as a context, when the block raises.

    Within ``outer`` it is a part of that log: what it commits is still undone if ``outer`` rolls back. A log within
    another is committed or rolled back before anything else is noted in the outer one.

    >>> numbers = []
    >>> with UndoLog() as log:
    ...     numbers.append(1); log.note(numbers.pop)
    ...     try:
    ...         with UndoLog(log) as inner:
    ...             numbers.append(2); inner.note(numbers.pop)
    ...             raise KeyError
    ...     except KeyError:
    ...         print(numbers)
    [1]
    >>> numbers
    [1]
    """

    __slots__ = ("_mark", "_outer", "_steps")

    def __init__(self, outer: UndoLog | None = None) -> None:
        # All logs within each other share one list, so that an inner commit moves nothing: it can't be interrupted.
        self._outer = outer
        self._steps: list[_Step] = [] if outer is None else outer._steps  # noqa: SLF001 - of the same class
        self._mark = len(self._steps)

    def __len__(self) -> int:
        """How many inverses wait."""
        return len(self._steps) - self._mark

    def note(self, step: Callable[..., object], *args: object) -> None:
        """``step(*args)`` takes back what was just done."""
        self._steps.append((step, args))

    def save(self, thing: object, *names: str) -> None:
        """Rolling back gives these attributes the values of now, which must be replaced later, not changed in place."""
        self._steps.append((_set_all, (thing, [(name, getattr(thing, name)) for name in names])))

    def commit(self) -> None:
        """What was done stays, or is left to the outer log."""
        if self._outer is None:
            self._steps.clear()
        self._mark = len(self._steps)

    def rollback(self) -> None:
        """Take everything back, last first.

        What an inverse raises, `KeyboardInterrupt` too, keeps none of the others from running: the first exception
        comes out when all are done. Whatever inverses note meanwhile is dropped.
        """
        steps, raised = self._steps, None
        left = reversed(steps[self._mark :])
        while True:
            try:
                for step, args in left:
                    step(*args)
                break
            except BaseException as error:  # noqa: BLE001 - raised below, when all is done
                raised = raised or error
        del steps[self._mark :]
        if raised is not None:
            raise raised

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.rollback()


class Recorded(Protocol):
    """What notes the inverse of each of its changes in ``undo_log``, unless that is None."""

    undo_log: UndoLog | None


class Transaction:
    """A context in which ``thing`` has a log: kept if the block ends, rolled back if it raises. Nests.

    ``saved`` are attributes that change with many operations and are dear to note each time (counts, cursors): they are
    noted once, at the beginning.

    >>> class Stack:
    ...     undo_log = None
    ...     def __init__(self):
    ...         self.items, self.pushed = [], 0
    ...     def push(self, item):
    ...         self.items.append(item); self.pushed += 1
    ...         if self.undo_log is not None:
    ...             self.undo_log.note(self.items.pop)
    >>> stack = Stack(); stack.push("a")
    >>> try:
    ...     with Transaction(stack, "pushed"):
    ...         stack.push("b"); 1 / 0
    ... except ZeroDivisionError:
    ...     print(stack.items, stack.pushed)
    ['a'] 1
    """

    __slots__ = ("_log", "_outer", "_saved", "_thing")

    def __init__(self, thing: Recorded, *saved: str) -> None:
        self._thing = thing
        self._saved = saved

    def __enter__(self) -> UndoLog:
        thing = self._thing
        self._outer = thing.undo_log
        log = self._log = UndoLog(self._outer)
        if self._saved:
            log.save(thing, *self._saved)
        thing.undo_log = log
        return log

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thing.undo_log = self._outer
        self._log.__exit__(kind, error, traceback)


class _DryRunEnds(BaseException):
    """Rolls the transaction of a dry run back; never seen outside."""


@runtime_checkable
class Undoable(Protocol):
    """What can take back whatever was done to it since some moment, to the last cache and count.

    Classes that derive from it say how with `transaction`, most of them by a `Transaction` of themselves, and get
    `dry_run`. A thing that has a lock holds it for the whole of both.
    """

    __slots__ = ()

    def transaction(self) -> AbstractContextManager[object]:
        """What is done inside is kept if the block ends, and undone if it raises; at the cost of what was changed."""
        ...

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """What is done inside is undone at the end, whatever it was; at the cost of what was changed."""
        end = _DryRunEnds()
        try:
            with self.transaction():
                yield
                raise end
        except _DryRunEnds as reached:
            if reached is not end:
                raise


@contextmanager
def transaction_of_part(owner: object, name: str) -> Iterator[None]:
    """A transaction of what ``owner`` has as attribute ``name``.

    A part that is not `Undoable`, as an allocator of somebody else's may be, is replaced by a deep copy of it, which
    stays if the block ends; if the block raises, the part is back and has seen nothing. That costs what the part holds,
    not what is changed.

    >>> class Owner:
    ...     part = [1]
    >>> try:
    ...     with transaction_of_part(Owner, "part"):
    ...         Owner.part.append(2); 1 / 0
    ... except ZeroDivisionError:
    ...     print(Owner.part)
    [1]
    """
    part = getattr(owner, name)
    if isinstance(part, Undoable):
        with part.transaction():
            yield
        return
    setattr(owner, name, copy.deepcopy(part))
    try:
        yield
    except BaseException:
        setattr(owner, name, part)
        raise


def _set_all(thing: object, values: list[tuple[str, object]]) -> None:
    for name, value in values:
        setattr(thing, name, value)
