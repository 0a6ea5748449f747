"""Taking back what was done: one protocol for roll-back, for trials and for searches.

Each change notes its inverse in an `UndoLog`; rolling back runs the inverses, last first. That costs what was changed,
however much there is. Two ways to use it:

- a caller notes the inverse of each operation (`UndoLog` as a context);
- a thing notes the inverse of each of its changes while a transaction of it is open (`Undoable`), so that its caches,
  cursors and counts come back too, which no inverse operation restores.

An inverse changes only the thing whose change it takes back. So transactions of several things may be opened and closed
in any nesting, and a thing that is made of others has theirs opened with its own.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    _Step = tuple[Callable[..., object], tuple[object, ...]]

__all__ = ["Transaction", "UndoLog", "Undoable", "part_to_undo"]


class UndoLog:
    """Inverses of what was done so far, run last first by `rollback`; as a context, when the block raises.

    A log within ``outer`` is undone with that one, also what it committed.

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

    __slots__ = ("_committed", "_outer", "_steps")

    def __init__(self, outer: UndoLog | None = None) -> None:
        self._outer = outer
        self._steps: list[_Step] = []
        self._committed = 0  # how many of them only the outer log undoes
        if outer is not None:
            # Noted now and not by the commit, which then can't be interrupted half way.
            outer._steps.append((self._undo_from, (0,)))  # noqa: SLF001 - of the same class

    def __len__(self) -> int:
        """How many inverses `rollback` would run."""
        return len(self._steps) - self._committed

    def note(self, step: Callable[..., object], *args: object) -> None:
        """``step(*args)`` takes back what was just done."""
        self._steps.append((step, args))

    def save(self, thing: object, *names: str) -> None:
        """Rolling back gives these attributes the values of now, which must be replaced later, not changed in place."""
        for name in names:
            self._steps.append((setattr, (thing, name, getattr(thing, name))))

    def commit(self) -> None:
        """What was done stays, or is left to the outer log."""
        if self._outer is None:
            self._steps.clear()
        self._committed = len(self._steps)

    def rollback(self) -> None:
        """Take everything back, last first.

        What an inverse raises, `KeyboardInterrupt` too, keeps none of the others from running: the first exception
        comes out when all are done. Whatever inverses note meanwhile is dropped.
        """
        self._undo_from(self._committed)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # A copy of a thing whose transaction is open is a thing without one.
        return type(None), ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.rollback()

    def _undo_from(self, first: int) -> None:
        steps = self._steps
        try:
            _run_all(reversed(steps[first:]))
        finally:
            del steps[first:]


class Undoable:
    """What notes the inverse of each of its changes in ``undo_log``, unless that is None.

    A thing that has a ``lock`` holds it for the whole of a transaction.

    >>> class Stack(Undoable):
    ...     def __init__(self):
    ...         self.items, self.pushed, self.undo_log = [], 0, None
    ...     def push(self, item):
    ...         self.items.append(item); self.pushed += 1
    ...         if self.undo_log is not None:
    ...             self.undo_log.note(self.items.pop)
    ...     def begin_undo(self, log):
    ...         log.save(self, "pushed")
    ...         return ()
    >>> stack = Stack(); stack.push("a")
    >>> with stack.dry_run():
    ...     stack.push("b"); stack.items
    ['a', 'b']
    >>> stack.items, stack.pushed
    (['a'], 1)
    """

    __slots__ = ("undo_log",)

    undo_log: UndoLog | None

    def begin_undo(self, log: UndoLog) -> Iterable[Undoable]:
        """A transaction begins: note in ``log`` what changes with many operations (counts, cursors), this once.

        The answer is what the thing is made of that keeps a log of its own.
        """
        del log
        return ()

    def transaction(self) -> Transaction:
        """A context: what is done inside is kept if the block ends, undone if it raises; it costs what was changed."""
        return Transaction(self)

    def dry_run(self) -> Transaction:
        """A context: what is done inside is undone at the end, whatever it was; it costs what was changed."""
        return Transaction(self, keep=False)


class Transaction:
    """A context in which ``thing`` and its parts have logs: kept if the block ends and ``keep``, else rolled back.

    >>> class Counter(Undoable):
    ...     count, undo_log = 0, None
    ...     def begin_undo(self, log):
    ...         log.save(self, "count")
    ...         return ()
    >>> counter = Counter()
    >>> with Transaction(counter): counter.count += 1
    >>> with Transaction(counter, keep=False): counter.count += 1
    >>> counter.count
    1
    """

    __slots__ = ("_keep", "_locks", "_logs", "_opened", "_thing")

    def __init__(self, thing: Undoable, *, keep: bool = True) -> None:
        self._thing = thing
        self._keep = keep

    def __enter__(self) -> None:
        self._opened: list[tuple[Undoable, UndoLog | None]] = []
        self._logs: list[tuple[UndoLog | None, UndoLog]] = []  # by the log around it: most often one, in none
        self._locks: list[Any] = []
        try:
            self._open(self._thing)
        except BaseException:
            self._close(keep=False)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(keep=self._keep and kind is None)

    def _open(self, thing: Undoable) -> None:
        lock = getattr(thing, "lock", None)
        if lock is not None:
            lock.acquire()
            self._locks.append(lock)
        outer = thing.undo_log
        logs = self._logs
        log = logs[0][1] if logs and logs[0][0] is outer else self._log_within(outer)
        self._opened.append((thing, outer))
        thing.undo_log = log
        for part in thing.begin_undo(log):
            self._open(part)

    def _log_within(self, outer: UndoLog | None) -> UndoLog:
        for around, log in self._logs:
            if around is outer:
                return log
        made = UndoLog(outer)
        self._logs.append((outer, made))
        return made

    def _close(self, *, keep: bool) -> None:
        if not keep:
            for thing, _ in self._opened:
                thing.undo_log = None  # inverses are no changes that a log around this one has to know
        try:
            _run_all([(log.commit if keep else log.rollback, ()) for _, log in self._logs])
        finally:
            for thing, outer in self._opened:
                thing.undo_log = outer
            for lock in reversed(self._locks):
                lock.release()


def part_to_undo(owner: object, name: str, log: UndoLog) -> tuple[Undoable, ...]:
    """What `Undoable.begin_undo` answers for a part, attribute ``name``, that may be of somebody else.

    A part that is `Undoable` takes part by itself. Another one is replaced by a deep copy, which stays if the
    transaction is kept; if it is rolled back, the part is there again and has seen nothing. That costs what the part
    holds, not what is changed.

    >>> class Owner:
    ...     part = [1]
    >>> with UndoLog() as log:
    ...     parts = part_to_undo(Owner, "part", log)
    ...     Owner.part.append(2); log.rollback()
    >>> parts, Owner.part
    ((), [1])
    """
    part = getattr(owner, name)
    if isinstance(part, Undoable):
        return (part,)
    log.save(owner, name)
    setattr(owner, name, copy.deepcopy(part))
    return ()


def _run_all(steps: Iterable[_Step]) -> None:
    """Each of them whatever another one raises, an interrupt between two of them included; the first comes out."""
    raised: BaseException | None = None
    left = iter(steps)
    while True:
        try:
            for step, args in left:
                step(*args)
            break
        except BaseException as error:  # noqa: BLE001 - raised below, when all is done
            raised = raised or error
    if raised is not None:
        raise raised
