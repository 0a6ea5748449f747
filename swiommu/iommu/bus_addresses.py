"""The bus addresses of a paged domain: a policy chooses them, and gets back what is unmapped and flushed.

The policy may be anybody's. What it answers is checked before anything is written, and what it does not take back when
it is offered is owed to it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from swiommu.address import align_up, as_integer
from swiommu.errors import AddressInUse, NotAnInteger, NotFound, SwiommuError
from swiommu.ranges import RangeSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swiommu.iommu.iova import IovaPolicy
    from swiommu.locking import Running

__all__ = ["BusAddresses", "without"]

_POLICY = "an address policy"


class BusAddresses:
    """``owned`` are those of mappings, ``held`` a caller's, ``direct`` are withheld but for the owner to map.

    What is mapped inside of ``held`` ranges is taken from the policy once, with them. ``running``: what runs inside.

    ``granule`` is the smallest page, ``last`` the highest address that can be mapped, both in bytes.
    """

    def __init__(
        self, policy: IovaPolicy, owned: RangeSet, held: RangeSet, running: Running, granule: int, last: int
    ) -> None:
        self.policy = policy
        self.owned = owned
        self.held = held
        self.direct = RangeSet()
        self._running = running
        self._granule = granule
        self.last = last
        self._owed: list[tuple[int, int]] = []

    def choose(self, size: int, highest: int, align: int) -> int:
        """``size`` bus bytes by the policy, for a mapping; what the policy must not answer is refused."""
        running = self._running
        running.what = _POLICY
        try:
            at = self.policy.alloc(size, highest, align)
        finally:
            running.what = None
        if type(at) is not int or at & (align - 1) or not 0 <= at <= highest - size + 1:
            self._distrust(at, size, highest, align)
            at = as_integer(at, "iova")
        try:
            self.owned.add(at, at + size)
        except AddressInUse as error:
            raise AddressInUse(
                f"the address policy answered {at:#x} for {size} bytes: {error}", iova=at, size=size
            ) from None
        return at

    def _distrust(self, answer: object, size: int, highest: int, align: int) -> None:
        said = f"the address policy answered {answer!r} for {size} bytes aligned to {align:#x} up to {highest:#x}"
        try:
            at = as_integer(answer, "iova")
        except NotAnInteger:
            raise SwiommuError(f"{said}, which is no address", size=size) from None
        if not 0 <= at <= highest - size + 1:
            raise SwiommuError(f"{said}, which is out of these bounds", iova=at, size=size)
        if at & (align - 1):  # not given back: that might free what is beside it
            raise SwiommuError(f"{said}, which is not aligned", iova=at, size=size, align=align)

    def own(self, start: int, size: int) -> None:
        """Exactly these bytes, for a mapping; of what a caller holds, or of what nobody has. `AddressInUse`."""
        held = self.held.first_over(start, start + size)
        inside = held is not None and held[0] <= start < start + size <= held[1]
        if not inside:
            self.take(start, size)
        try:
            self.owned.add(start, start + size)
        except BaseException:
            if not inside:
                self.give_back([(start, start + size)])
            raise

    def disown(self, start: int, size: int) -> None:
        """Undo `choose` or `own`: nothing is mapped there."""
        self.owned.remove(start)
        self.give_back(self.not_held(start, start + size))

    def hold(self, start: int, size: int) -> None:
        """Keep exactly these bytes for a caller; `AddressInUse`."""
        self.take(start, size)
        try:
            self.held.add(start, start + size)
        except BaseException:
            self.give_back([(start, start + size)])
            raise

    def drop(self, start: int, size: int) -> None:
        """Undo `hold`."""
        self.held.remove(start)
        self.give_back([(start, start + size)])

    def not_held(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of the range goes back to the policy when it is unmapped: no caller holds it."""
        return list(self.held.gaps(start, stop))

    def take(self, start: int, size: int) -> None:
        """Let the policy give these bytes to nobody; `AddressInUse` if it has given out some."""
        running = self._running
        running.what = _POLICY
        try:
            self.policy.take(start, size)
        finally:
            running.what = None

    def take_but(self, live: list[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
        """Take what of the range was not taken by earlier maps, as that of ``live`` pages was, nor withheld for such.

        What was taken; all or nothing.
        """
        taken: list[tuple[int, int]] = []
        try:
            for gap in self.direct.gaps(start, stop):
                for at, end in without(live, *gap):
                    self.take(at, end - at)
                    taken.append((at, end))
        except BaseException:
            self.give_back(taken)
            raise
        return taken

    def unowned(self, stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """What of unmapped stretches goes back to the policy: no mapping owns it, and it is not withheld."""
        free = [part for each in stretches for gap in self.owned.gaps(*each) for part in self.held.gaps(*gap)]
        return [gap for each in free for gap in self.direct.gaps(*each)]

    def give_back(self, ranges: list[tuple[int, int]]) -> None:
        """To the policy; what it does not take back now is owed to it."""
        running, done = self._running, 0
        running.what = _POLICY
        try:
            for start, stop in ranges:
                self.policy.free(start, stop - start)
                done += 1
        except NotFound:
            done += 1  # the policy says that it has not got these
            raise
        finally:
            running.what = None
            if done < len(ranges):
                self.owe(ranges[done:])

    def give_flushed(self, ranges: list[tuple[int, int]], cpu: int) -> None:
        """The same as the CPU that flushed does it; what is left in ``ranges`` if this raises was not given back."""
        running, policy = self._running, self.policy
        caller, policy.cpu = policy.cpu, cpu
        running.what = _POLICY
        try:
            while ranges:
                start, stop = ranges[0]
                policy.free(start, stop - start)
                del ranges[0]
        except NotFound:
            del ranges[0]  # the policy says that it has not got these
            raise
        finally:
            running.what = None
            policy.cpu = caller

    def owe(self, ranges: list[tuple[int, int]]) -> None:
        """To be given back by `settle`."""
        self._owed += ranges

    @property
    def owes(self) -> bool:
        """Whether there is something to `settle`."""
        return bool(self._owed)

    def settle(self) -> None:
        """Give back what is owed."""
        owed, self._owed = self._owed, []
        self.give_back(owed)

    def reserve(self, first: int, last: int, mapped: Iterable[tuple[int, int]] | None, *, dry: bool) -> None:
        """Withhold ``first`` to ``last`` for good; ``dry``: only ask whether that would do.

        ``mapped`` is what the owner of a direct region has mapped of it already; None: it is not direct.
        """
        if dry:
            with self.policy.dry_run():
                self._reserve(first, last, mapped)
            return
        self._reserve(first, last, mapped)
        if mapped is not None:
            for gap in list(self.direct.gaps(*self.whole(first, last))):
                self.direct.add(*gap)

    def _reserve(self, first: int, last: int, mapped: Iterable[tuple[int, int]] | None) -> None:
        policy = self.policy
        if mapped is None:
            policy.reserve(first, last)
            return
        # Of a direct region some may be mapped already, by its owner: it stays taken, as it is never given back.
        low, high = self.whole(first, last)
        owner = self.owned.first_over(low, high) or self.held.first_over(low, high)
        if owner is not None:
            raise AddressInUse(
                f"{first:#x} to {last:#x} can't be reserved: a mapping owns {owner[0]:#x} to {owner[1] - 1:#x}",
                start=first,
            )
        live = list(mapped)
        for start, end in live:
            with suppress(AddressInUse):  # of a policy that knows nothing of maps by hand
                policy.reserve(start, end - 1)
        for start, end in without(live, low, high):
            policy.reserve(start, end - 1)

    def whole(self, first: int, last: int) -> tuple[int, int]:
        """The granules of the aperture that hold ``first`` to ``last``, as start and stop."""
        return first & -self._granule, min(align_up(last + 1, self._granule), self.last + 1)

    def check(self) -> None:
        """The policy and what is withheld are sound."""
        self.policy.check()
        self.direct.check()


def without(live: list[tuple[int, int]], at: int, stop: int) -> Iterator[tuple[int, int]]:
    """What of ``[at, stop)`` is in none of the stretches, which are ascending.

    >>> list(without([(2, 4), (6, 9)], 0, 8))
    [(0, 2), (4, 6)]
    """
    for start, end in [*live, (stop, stop)]:
        if at < min(start, stop):
            yield at, min(start, stop)
        at = max(at, end)
