"""Which of the possible histories are carried on."""

import attrs
import pytest

from swiommu.verify.worlds import likely


@attrs.frozen
class World:
    contradictions: int
    where: str
    contrived: int = 0

    @property
    def rank(self):
        return self.contradictions, self.contrived

    def state(self):
        return self.where


def test_of_one_state_the_best_remains():
    worlds = [World(2, "a"), World(1, "a", 3), World(1, "a", 2), World(3, "b")]
    assert likely(worlds) == [World(1, "a", 2), World(3, "b")]


def test_of_equals_the_first_remains():
    first, second = World(1, "a"), World(1, "a")
    assert likely([first, second])[0] is first


def test_who_is_four_contradictions_behind_is_given_up():
    worlds = [World(5, "e"), World(1, "a"), World(4, "d"), World(7, "g")]
    assert likely(worlds) == [World(1, "a"), World(4, "d")]


def test_no_more_than_sixteen_are_carried_and_the_best_of_them():
    worlds = [World(number % 4, str(number)) for number in range(40)]
    assert likely(worlds) == sorted(worlds, key=lambda world: world.rank)[:16]


@pytest.mark.parametrize("worlds", [[], [World(9, "z")]])
def test_nothing_to_choose_from(worlds):
    assert likely(worlds) == worlds
