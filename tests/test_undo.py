"""The log of inverses: what is rolled back, what is kept, and what an exception in between costs."""

import copy
import pickle

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swiommu.locking import Lock
from swiommu.region import FirstFit
from swiommu.undo import Undoable, UndoLog, part_to_undo

RAISED = (KeyError, KeyboardInterrupt)
raised = pytest.mark.parametrize("error", RAISED)


def stopped(error):
    raise error


def attempt(context, *steps):
    with context as got:
        for step in steps:
            step(got)


class Table(Undoable):
    """A dictionary that notes what it was."""

    def __init__(self):
        self.undo_log, self.rows, self.writes = None, {}, 0

    def put(self, key, value):
        if self.undo_log is not None:
            self.undo_log.note(self._put_back, key, self.rows.get(key))
        self.writes += 1
        self.rows[key] = value

    def _put_back(self, key, value):
        if value is None:
            del self.rows[key]
        else:
            self.rows[key] = value

    def dump(self):
        return dict(self.rows), self.writes

    def begin_undo(self, log):
        log.save(self, "writes")
        return ()


def test_inverses_run_last_first_and_once():
    log, ran = UndoLog(), []
    for number in range(4):
        log.note(ran.append, number)
    assert len(log) == 4
    log.rollback()
    assert (ran, len(log)) == ([3, 2, 1, 0], 0)
    log.rollback()
    assert ran == [3, 2, 1, 0]


def test_what_is_committed_is_not_undone():
    log, ran = UndoLog(), []
    log.note(ran.append, 1)
    log.commit()
    log.note(ran.append, 2)
    log.rollback()
    assert (ran, len(log)) == ([2], 0)


def test_a_log_within_another():
    outer, ran = UndoLog(), []
    outer.note(ran.append, "outer")
    inner = UndoLog(outer)
    inner.note(ran.append, "kept")
    inner.commit()
    inner.note(ran.append, "undone")
    assert (len(inner), len(outer)) == (1, 2)
    inner.rollback()
    assert (ran, len(inner), len(outer)) == (["undone"], 0, 2)
    outer.note(ran.append, "later")
    outer.rollback()
    assert (ran, len(outer)) == (["undone", "later", "kept", "outer"], 0)


@raised
def test_an_inverse_that_raises_keeps_none_of_the_others_from_running(error):
    log, ran = UndoLog(), []
    log.note(ran.append, 1)
    log.note(stopped, error("second"))
    log.note(ran.append, 2)
    log.note(stopped, RuntimeError("first"))
    log.note(ran.append, 3)
    with pytest.raises(RuntimeError, match="first"):
        log.rollback()
    assert (ran, len(log)) == ([3, 2, 1], 0)


@raised
def test_a_block_that_raises_is_rolled_back(error):
    ran, first = [], error("block")
    with pytest.raises(error) as caught:
        attempt(UndoLog(), lambda log: log.note(ran.append, 1), lambda _: stopped(first))
    assert (caught.value, ran) == (first, [1])


def test_what_an_inverse_raises_names_what_was_rolled_back():
    first = KeyError("block")
    with pytest.raises(ZeroDivisionError) as caught:
        attempt(UndoLog(), lambda log: log.note(divmod, 1, 0), lambda _: stopped(first))
    assert caught.value.__context__ is first


def test_inverses_may_note_what_is_dropped():
    """They are operations, which note theirs as ever."""
    outer, ran = UndoLog(), []
    outer.note(ran.append, "outer")
    log = UndoLog(outer)
    log.note(log.note, ran.append, "never")
    log.rollback()
    assert (ran, len(log)) == ([], 0)
    outer.rollback()
    assert ran == ["outer"]


def test_values_that_are_saved():
    table, log = Table(), UndoLog()
    table.writes = 3
    log.save(table, "writes", "rows")
    table.writes, table.rows = 9, {1: 1}
    log.rollback()
    assert table.dump() == ({}, 3)


# -- transactions


@raised
def test_a_transaction_keeps_or_undoes(error):
    table = Table()
    with table.transaction():
        table.put("a", 1)
    before = table.dump()
    assert before == ({"a": 1}, 1)
    with pytest.raises(error):
        attempt(
            table.transaction(),
            lambda _: table.put("a", 2),
            lambda _: table.put("b", 3),
            lambda _: stopped(error),
        )
    assert (table.dump(), table.undo_log) == (before, None)


def test_a_dry_run_leaves_nothing_behind_whatever_is_committed_in_it():
    table = Table()
    table.put("a", 1)
    with table.dry_run():
        with table.transaction():
            table.put("a", 2)
        with table.dry_run():
            table.put("a", 3)
        assert table.dump() == ({"a": 2}, 2)
    assert (table.dump(), table.undo_log) == (({"a": 1}, 1), None)


def test_transactions_of_two_things_in_any_nesting():
    """What is committed in the transaction of both is undone with the one that has an outer one, and only there."""
    one, two = Table(), Table()
    with one.dry_run():
        with one.transaction(), two.transaction():
            one.put("a", 1)
            two.put("a", 1)
        two.put("a", 2)
    assert (one.dump(), two.dump()) == (({}, 0), ({"a": 2}, 2))


def test_a_roll_back_notes_nothing_in_the_transaction_around_it():
    """Inverses are operations that note theirs: those must not be undone."""
    allocator = FirstFit(0, 0x4000)
    with allocator.dry_run():
        with allocator.dry_run():
            allocator.alloc(0x1000, 0x1000)
        allocator.free(allocator.alloc(0x2000, 0x1000), 0x2000)
        assert allocator.holes() == [(0, 0x4000)]
    assert allocator.holes() == [(0, 0x4000)]


def test_a_part_of_a_thing_in_a_transaction_of_its_own():
    """What else is done to the thing meanwhile is undone with the thing, not with the part."""
    table = Table()
    owner = Owner(table)
    pair = Pair(owner, other := Table())
    with pair.dry_run():
        with pytest.raises(KeyError):
            attempt(
                owner.transaction(),
                lambda _: table.put("a", 1),
                lambda _: other.put("b", 2),
                lambda _: stopped(KeyError),
            )
        assert (table.dump(), other.dump()) == (({}, 0), ({"b": 2}, 1))
    assert (table.dump(), other.dump()) == (({}, 0), ({}, 0))


@raised
def test_what_is_raised_in_a_dry_run_comes_out(error):
    table = Table()
    with pytest.raises(error):
        attempt(table.dry_run(), lambda _: table.put("a", 1), lambda _: stopped(error))
    assert table.dump() == ({}, 0)


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_transaction_costs_what_is_changed(size):
    table = Table()
    for key in range(size):
        table.put(key, key)
    with table.dry_run():
        for key in range(5):
            table.put(key, -1)
        assert len(table.undo_log) == 6  # five rows, and the count of writes once


class Plain:
    """Of somebody else: it can't take anything back."""

    def __init__(self):
        self.rows = {}


class Owner(Undoable):
    """What has one part."""

    def __init__(self, part):
        self.undo_log, self.part = None, part

    def begin_undo(self, log):
        return part_to_undo(self, "part", log)


@raised
def test_a_part_that_can_not_undo_is_copied_for_a_transaction(error):
    owner = Owner(Plain())
    part = owner.part

    def changed(_):
        owner.part.rows["a"] = 1
        assert (owner.part is part, part.rows) == (False, {})
        raise error

    with pytest.raises(error):
        attempt(owner.transaction(), changed)
    assert (owner.part is part, part.rows) == (True, {})
    with owner.transaction():
        owner.part.rows["a"] = 1
    assert (owner.part is part, owner.part.rows) == (False, {"a": 1})


def test_a_part_that_can_undo_is_not_copied():
    owner = Owner(Table())
    part = owner.part
    with owner.dry_run():
        assert owner.part is part
        part.put("a", 1)
    assert part.dump() == ({}, 0)
    with pytest.raises(KeyError):
        attempt(owner.transaction(), lambda _: part.put("a", 1), lambda _: stopped(KeyError))
    assert part.dump() == ({}, 0)


class Refusing(Undoable):
    """A part of which no transaction can be opened."""

    undo_log = None

    def begin_undo(self, log):
        raise RuntimeError("not now")


class Pair(Undoable):
    def __init__(self, *parts):
        self.undo_log, self.parts, self.lock = None, parts, Lock()

    def begin_undo(self, log):
        return self.parts


def test_a_part_that_refuses_leaves_no_transaction_open():
    table = Table()
    pair = Pair(table, Refusing(), Table())
    with pytest.raises(RuntimeError, match="not now"):
        pair.transaction().__enter__()
    assert (pair.undo_log, table.undo_log, [each.undo_log for each in pair.parts]) == (None, None, [None] * 3)
    assert not pair.lock._is_owned()


@raised
def test_a_part_whose_roll_back_raises_keeps_no_other_one_from_it(error):
    tables = Table(), Table(), Table()
    pair = Pair(*tables)
    context = pair.transaction()
    context.__enter__()
    assert pair.lock._is_owned()
    for table in tables:
        table.put("a", 1)
        table.undo_log.note(stopped, error)
    with pytest.raises(error):
        context.__exit__(KeyError, KeyError(), None)
    assert [(table.dump(), table.undo_log) for table in tables] == [(({}, 0), None)] * 3
    assert not pair.lock._is_owned()


def test_a_copy_of_a_log_is_none():
    table = Table()
    with table.dry_run():
        table.put("a", 1)
        for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
            assert (twin.undo_log, twin.rows) == (None, {"a": 1})


class Nested(RuleBasedStateMachine):
    """Logs within logs: after each roll-back the table is as its copy from before, after each commit as it was."""

    def __init__(self):
        super().__init__()
        self.table, self.open = Table(), []

    @rule(key=st.integers(0, 5), value=st.integers(1, 9))
    def put(self, key, value):
        self.table.put(key, value)

    @precondition(lambda self: len(self.open) < 4)
    @rule()
    def begin(self):
        transaction = self.table.transaction()
        self.open.append((copy.deepcopy(self.table.rows), self.table.writes, transaction))
        transaction.__enter__()

    @precondition(lambda self: self.open)
    @rule()
    def commit(self):
        now = self.table.dump()
        self.open.pop()[2].__exit__(None, None, None)
        assert self.table.dump() == now

    @precondition(lambda self: self.open)
    @rule()
    def roll_back(self):
        rows, writes, transaction = self.open.pop()
        transaction.__exit__(KeyError, KeyError(), None)
        assert self.table.dump() == (rows, writes)

    @invariant()
    def a_log_is_there_while_a_transaction_is_open(self):
        assert (self.table.undo_log is not None) == bool(self.open)


TestNested = Nested.TestCase
TestNested.settings = settings(max_examples=60, stateful_step_count=30)
