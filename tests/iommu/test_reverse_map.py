"""The way back from lower addresses to their users, beside a plain list of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.iommu import ReverseMap


class User:
    def __init__(self, name):
        self.name = name


USERS = [User("one"), User("two")]
STEPS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 1), st.integers(0, 30), st.integers(1, 9), st.integers(0, 30)), max_size=25
)


@given(STEPS)
def test_uses_are_those_of_every_single_byte(steps):
    uses, twin = ReverseMap(), {}
    for adding, number, iova, size, start in steps:
        user = USERS[number]
        if not adding:
            uses.remove(user, iova, size)
            for at in range(iova, iova + size):
                twin.pop((number, at), None)
        elif not any((number, at) in twin for at in range(iova, iova + size)):
            uses.add(user, iova, start, size)
            twin.update({(number, iova + n): start + n for n in range(size)})
        uses.check()
    for low, high in ((0, 100), (7, 19), (30, 31)):
        found = [
            (USERS.index(use.user), use.iova + n, use.start + n)
            for use in uses.over(low, high)
            for n in range(use.size)
        ]
        assert sorted(found) == sorted((*key, to) for key, to in twin.items() if low <= to < high)


def test_tables_and_sentences():
    uses = ReverseMap()
    uses.add(USERS[0], 0x8000, 0x1000, 0x3000)
    uses.add(USERS[1], 0x9000, 0x2000, 0x1000)
    uses.add_tables("two", 0x1000, 0x1000)
    assert [str(use) for use in uses.over(0x1800, 0x2800)] == [
        "0x1000 bytes at 0x1800 are mapped by the domain of 'one' at 0x8800",
        "0x800 bytes at 0x1800 hold tables of the domain of 'two'",
        "0x800 bytes at 0x2000 are mapped by the domain of 'two' at 0x9000",
    ]
    uses.remove_tables(0x1000)
    uses.remove(USERS[0], 0x9000, 0x1000)
    assert [(use.name, use.iova, use.start, use.size) for use in uses] == [
        ("one", 0x8000, 0x1000, 0x1000),
        ("two", 0x9000, 0x2000, 0x1000),
        ("one", 0xA000, 0x3000, 0x1000),
    ]


def test_check_finds_a_lost_way_back():
    uses = ReverseMap()
    uses.add(USERS[0], 0, 0, 8)
    uses._by_start.clear()
    with pytest.raises(AssertionError, match="by iova"):
        uses.check()
