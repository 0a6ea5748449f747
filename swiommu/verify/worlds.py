"""Possible histories: a record that contradicts a prediction leaves two, one in which it is true and one without it.

Either the model is wrong or the record is. A check carries both on, each predicting for itself, and answers with the
history that has the fewest contradictions, so that one bad record costs one mismatch, not a cascade; a wrong rule still
mismatches again and again, in every history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["DOUBTS", "World", "likely"]

DOUBTS: Final = 100  # contradictions from which on the records are believed: the model is wrong, not a few of them
_WORLDS: Final = 16  # how many histories are carried at most; a recording that needs more is beyond telling
_BEHIND: Final = 4  # contradictions more than the best history has, at which one is given up


class World(Protocol):
    """One possible history."""

    @property
    def rank(self) -> tuple[int, ...]:
        """The better, the less; first of all the number of contradictions."""

    def state(self) -> Hashable:
        """Histories of equal state predict the same from here on."""


_AnyWorld = TypeVar("_AnyWorld", bound=World)


def likely(worlds: list[_AnyWorld]) -> list[_AnyWorld]:
    """Of histories in the same state the best, and of the rest those that may still be true; the best comes first."""
    if len(worlds) == 1:  # nearly always, and a state is dear
        return worlds
    best: dict[Hashable, _AnyWorld] = {}
    for world in sorted(worlds, key=lambda world: world.rank):
        best.setdefault(world.state(), world)
    kept = list(best.values())[:_WORLDS]
    return [world for world in kept if world.rank[0] < kept[0].rank[0] + _BEHIND]
