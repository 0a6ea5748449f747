"""What is mapped in which domain while an emulator's log goes on, and how its lines are judged by that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.trace import Kind
from swiommu.verify.expected import Leaf, Mapped, leaf_at
from swiommu.verify.timeline import NOBODY
from swiommu.verify.worlds import DOUBTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.verify.emulated.log import Emulated
    from swiommu.verify.tally import Tally
    from swiommu.verify.timeline import Op

__all__ = ["Beliefs", "Windows"]


class Beliefs:
    """Judges numbers that follow from what the trace says was mapped.

    A record that contradicts the trace leaves two histories (`swiommu.verify.worlds`): of that mapping, either
    this record is wrong or the trace's line is, and then all that follows is off by as much. Both are gone on with,
    until the next record of it tells.

    >>> from swiommu.verify.tally import Tally
    >>> tally = Tally("pte")
    >>> beliefs = Beliefs(tally)
    >>> for predicted, recorded in ((0x1000, 0x1000), (0x2000, 0xa000), (0x3000, 0xb000)):
    ...     beliefs.judge("leaf", 7, "this mapping", predicted, recorded)
    >>> tally.matched, tally.mismatched
    (2, 1)
    """

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.off: dict[tuple[str, object], int] = {}

    def believe(self, kind: str, mapping: object, predicted: int, recorded: int) -> int:
        """The prediction of whichever history the record agrees with."""
        off = recorded - predicted
        if not off:
            self.off.pop((kind, mapping), None)
        elif self.off.get((kind, mapping)) == off:
            return recorded
        elif self.tally.mismatched < DOUBTS:
            self.off[kind, mapping] = off
        return predicted

    def judge(
        self, kind: str, line: int, mapping: object, predicted: int, recorded: int, *, more: tuple[str, str] = ("", "")
    ) -> None:
        """Judge one number, with ``more`` predicted and recorded text that has no history."""
        predicted = self.believe(kind, mapping, predicted, recorded)
        self.tally.judge(kind, line, predicted=f"{predicted:#x}{more[0]}", recorded=f"{recorded:#x}{more[1]}")


class Windows:
    """The page tables of every owner, as far as the log has come; what was unmapped stays in reach until it is flushed.

    ``unmapped`` is called with each range that leaves a page table, or is mapped anew: (owner, first address, stop).
    """

    def __init__(
        self, tally: Tally, emulated: Emulated, unmapped: Callable[[str, int, int], None] | None = None
    ) -> None:
        self.tally = tally
        self.emulated = emulated
        self.ops = emulated.timeline.ops
        self.unmapped = unmapped
        self.live: dict[str, Mapped] = {}
        self.going: dict[str, Mapped] = {}
        self.applied = 0
        self.came = 0
        self.ended = False
        self.advance(emulated.order.first)

    @property
    def last(self) -> bool:
        """Whether all that was expected has come, so that nothing tells how long the window is."""
        return self.applied >= len(self.ops)

    def reach(self, line: int) -> None:
        """The log is at ``line``: the commands up to there have come."""
        noted, order = self.emulated.noted, self.emulated.order
        while self.came < len(noted) and noted[self.came].line <= line:
            self.advance(order.reached[self.came])
            past = order.pairs[self.came] is None and order.reached[self.came] >= len(self.emulated.expected)
            self.ended = self.ended or past
            self.came += 1

    def advance(self, reached: int) -> None:
        """Everything is done that comes before the operation of the next expected command."""
        expected = self.emulated.expected
        limit = expected[reached].place if reached < len(expected) else len(self.ops)
        while self.applied < limit:
            self.apply(self.ops[self.applied])
            self.applied += 1

    def apply(self, op: Op) -> None:
        """One operation is done."""
        live = self.live.setdefault(op.owner, Mapped())
        if op.kind is Kind.FLUSH_ALL:
            self.going.pop(op.owner, None)
        elif op.kind is Kind.IOMMU_MAP:
            live.add(op)
        else:
            for start, stop, mapped in live.cut(op.iova, op.stop):
                if self.emulated.is_lazy(op.owner):
                    going = self.going.setdefault(op.owner, Mapped())
                    going.cut(start, stop)
                    going.put(start, stop, mapped)
        if self.unmapped is not None and op.kind is not Kind.FLUSH_ALL:
            self.unmapped(op.owner, op.iova, op.stop)

    def find(self, owner: str, iova: int) -> Op | str | None:
        """Who mapped ``iova``; or why that is not determined; None if nothing can be mapped there."""
        if self.came < self.emulated.order.before:
            return "before the trace begins"
        if self.ended or (self.last and self.emulated.timeline.lost is not None):
            return self.emulated.behind
        for whose in (owner, NOBODY):
            for state in (self.live, self.going):
                op = state[whose].at(iova) if whose in state else None
                if op is not None:
                    return op
        if self.last or owner not in self.emulated.timeline.attached:
            return "it may have been mapped before the trace began or after its end"
        return None

    def mapped(self, kind: str, line: int, owner: str | None, iova: int, recorded: int) -> Op | None:
        """Who mapped the address; None where that could be judged, or left, without more."""
        found = "the trace knows no such device" if owner is None else self.find(owner, iova)
        if isinstance(found, str):
            self.tally.leave(found)
            return None
        if found is None:
            self.tally.judge(kind, line, predicted="nothing mapped", recorded=f"{recorded:#x}")
        return found

    def prot(self, op: Op) -> int | None:
        """With what protection it was mapped; None, and left, if nothing tells."""
        if op.prot is None:
            self.tally.leave("nothing tells in which direction it is mapped")
        return op.prot

    def leaf(self, op: Op, iova: int, bitmap: int) -> Leaf:
        """The leaf at ``iova``; a page if no larger ones fit."""
        page = iova & ~0xFFF
        return leaf_at(op, iova, bitmap) or Leaf(page, op.paddr + page - op.iova, 0x1000)
