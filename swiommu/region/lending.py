"""An area whose idle frames serve others until it needs them: moved elsewhere (mainline's CMA) or dropped (GCMA).

Mainline lends to *movable* pages: taking a frame back copies its contents elsewhere, and a frame that is *pinned* just
then makes the whole range busy, so that the next place is tried. Guaranteed CMA lends to clean *droppable* copies
alone, which nobody refers to: taking back costs no copy and can't fail. Counts are in frames.
"""

from __future__ import annotations

import errno
import re
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from swiommu.address import PAGE_SIZE, as_integer, as_integers
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NotFound, NotSupported, OutOfRange
from swiommu.locking import Lock, locked
from swiommu.memory import FrameState
from swiommu.profile import DEFAULT_PROFILE
from swiommu.region.bitmap import Bitmap, Migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from swiommu.profile import Profile
    from swiommu.undo import Undoable, UndoLog

__all__ = ["Lending", "LendingAccount", "Returns", "Tenants"]

_IDLE = re.compile(rb"\x00+")
_WHERE_IDLE = b"\xff" + bytes(255)
_STATES = tuple(map(int, FrameState))
_LENT = (FrameState.MOVABLE, FrameState.PINNED, FrameState.DROPPABLE)


class LendingAccount(NamedTuple):
    """Frames of an area now; ``reserved`` is always the sum of the other three."""

    reserved: int
    used: int
    lent: int
    idle: int


@attrs.frozen
class Returns:
    """What taking frames back has cost so far.

    ``moved`` and ``dropped`` frames, ``in_vain`` those of both in ranges that turned out to be busy; ``busy`` such
    ranges; ``asked`` ranges in all.
    """

    moved: int = 0
    dropped: int = 0
    in_vain: int = 0
    busy: int = 0
    asked: int = 0


class Tenants(Protocol):
    """Who uses lent frames: told, frame by frame, before one is taken away.

    ``room`` frames can be moved to. ``move`` answers 0, or a positive errno if this frame can't be moved after all.
    """

    def room(self) -> int:
        """How many frames there is room for elsewhere."""

    def move(self, pfn: int) -> int:
        """Bring the contents of this frame elsewhere."""

    def drop(self, pfn: int) -> None:
        """The contents of this frame are gone."""


class Lending(Bitmap):
    """Mainline's allocator over an area that lends what is idle; ``reserved == used + lent + idle`` at any time.

    ``standing`` (a `FrameState` for every frame) says who uses each frame from the moment it is idle, as a busy system
    would; without it frames are lent by `lend` alone. ``tenants`` are asked and told about each frame; without them
    there is always room elsewhere, and returns are only counted. ``before_try``, if it is set, is called for each range
    that is to be taken back, with one past its last pfn: pins that depend on the request can be set there.

    An allocation that meets a pinned frame has moved what lies below it in that range: those moves were in vain.
    `NoMemory` where there is no room to move to; `InvalidArgument` for ``standing`` of another length.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.region import Region
    >>> area = Lending(0x4000_0000, 1 << 20)
    >>> region = Region(PhysSpace("ram").at(0x4000_0000), 1 << 20, allocator=area)
    >>> area.lend(0x40000, 200); area.pin(0x40003)
    >>> region.alloc(0x10000, align=0x10000), area.account()
    (Chunk(ram:0x40010000+0x10000), LendingAccount(reserved=256, used=16, lent=181, idle=59))
    >>> area.returns
    Returns(moved=19, dropped=0, in_vain=3, busy=1, asked=2)
    """

    __slots__ = ("_frames", "_met", "_numbers", "_standing", "_tenants", "before_try", "lock", "returns")

    name = "lending"

    def __init__(
        self,
        start: int,
        size: int,
        *,
        standing: bytes = b"",
        tenants: Tenants | None = None,
        page_size: int = PAGE_SIZE,
        profile: Profile | str = DEFAULT_PROFILE,
    ) -> None:
        super().__init__(start, size, page_size=page_size, profile=profile)
        if standing and len(standing) != self.count:
            raise InvalidArgument(f"{len(standing)} states stand ready for {self.count} frames", count=self.count)
        if standing.translate(None, bytes((FrameState.FREE, FrameState.MOVABLE, FrameState.DROPPABLE))):
            raise InvalidArgument("frames stand ready for FREE, MOVABLE or DROPPABLE use only")
        self.lock = Lock()
        self._standing = standing
        self._tenants = tenants
        self._met: tuple[int, bool] | None = None  # the pinned frame that made a place busy, and if that was counted
        self._frames = bytearray(standing) or bytearray(self.count)
        self._numbers = [self._frames.count(state) for state in FrameState]  # of frames, by state
        self.before_try: Callable[[int], None] | None = None
        self.returns = Returns()

    # -- lending -----------------------------------------------------------------------------------------------------

    @locked
    def lend(self, pfn: int, count: int = 1, *, droppable: bool = False) -> None:
        """Let others use ``count`` idle frames from ``pfn``; `AddressInUse` if one isn't idle, `OutOfRange` outside."""
        pfn, count = as_integers(pfn=pfn, count=count)
        low, high = self._span(pfn, count)
        if self._frames.count(FrameState.FREE, low, high) < count:
            raise AddressInUse(f"not all of the {count} frames at {pfn:#x} are idle", pfn=pfn, count=count)
        self._write(low, bytes((FrameState.DROPPABLE if droppable else FrameState.MOVABLE,)) * count)

    @locked
    def give_back(self, pfn: int, count: int = 1) -> None:
        """Others need these frames no more; `NotFound` if one isn't lent, `Busy` if one is pinned, and all stay.

        >>> area = Lending(0, 1 << 20)
        >>> area.lend(0, 9); area.give_back(0, 4); area.account().lent
        5
        """
        pfn, count = as_integers(pfn=pfn, count=count)
        low, high = self._span(pfn, count)
        states = self._frames[low:high]
        if FrameState.PINNED in states:
            raise Busy(f"one of the {count} frames at {pfn:#x} is pinned", pfn=pfn, count=count)
        if FrameState.FREE in states or FrameState.TAKEN in states:
            raise NotFound(f"not all of the {count} frames at {pfn:#x} are lent", pfn=pfn, count=count)
        self._write(low, bytes(count))

    @locked
    def pin(self, pfn: int) -> None:
        """A lent frame can't move for now. `NotFound` unless movable contents are there: nobody refers to others.

        >>> area = Lending(0, 1 << 20)
        >>> area.lend(7); area.pin(7); area.fits(1 << 20, 4096); area.unpin(7); area.fits(1 << 20, 4096)
        False
        True
        """
        pfn = as_integer(pfn, "pfn")
        self._restate(pfn, FrameState.MOVABLE, FrameState.PINNED)

    @locked
    def unpin(self, pfn: int) -> None:
        """It can move again; `NotFound` unless it was pinned."""
        pfn = as_integer(pfn, "pfn")
        self._restate(pfn, FrameState.PINNED, FrameState.MOVABLE)

    @locked
    def pin_movable(self, pfns: Iterable[int]) -> list[int]:
        """Pin those of ``pfns`` that hold movable contents, and answer them: what `pin` does, for many at once.

        >>> area = Lending(0, 1 << 20)
        >>> area.lend(4, 4); area.pin_movable(range(2, 6))
        [4, 5]
        """
        return self._restate_many(pfns, FrameState.MOVABLE, FrameState.PINNED)

    @locked
    def unpin_all(self, pfns: Iterable[int]) -> None:
        """`unpin` of many frames at once; those that are not pinned are left as they are."""
        self._restate_many(pfns, FrameState.PINNED, FrameState.MOVABLE)

    def state(self, pfn: int) -> FrameState:
        """What this frame is in: FREE is idle, TAKEN in use by the area's own; `OutOfRange` outside."""
        pfn = as_integer(pfn, "pfn")
        return FrameState(self._frames[self._span(pfn, 1)[0]])

    def idle_frames(self) -> Iterator[int]:
        """The idle frames, ascending."""
        for run in _IDLE.finditer(self._frames):
            yield from range(self.base_pfn + run.start(), self.base_pfn + run.end())

    @locked
    def account(self) -> LendingAccount:
        """How the area's frames are used now."""
        idle, used = self._numbers[FrameState.FREE], self._numbers[FrameState.TAKEN]
        return LendingAccount(self.count, used, sum(self._numbers[state] for state in _LENT), idle)

    # -- what an allocator does --------------------------------------------------------------------------------------

    @locked
    def alloc_pages(self, count: int, align_order: int, *, migrate: Migrate | None = None) -> int:
        """See `Bitmap.alloc_pages`; each candidate that ``migrate`` lets pass is taken back from its users."""
        emptied: list[tuple[int, int]] = []  # (pfn, stop); ranges of a search overlap, nearly all of each

        def take_back(pfn: int, count: int) -> int:
            code = migrate(pfn, count) if migrate else 0
            if code:
                return code
            if emptied and emptied[-1][0] <= pfn <= emptied[-1][1]:
                emptied[-1] = emptied[-1][0], max(emptied[-1][1], pfn + count)
            else:
                emptied.append((pfn, pfn + count))
            if self.before_try:
                self.before_try(pfn + count)
            return self._take_back(pfn, count, alone=migrate is None)

        try:
            pfn = super().alloc_pages(count, align_order, migrate=take_back)
            self._mark(pfn, count, FrameState.TAKEN)
        finally:
            for start, stop in emptied:
                self._let_again(start, stop - start)
        return pfn

    @locked
    def fits(self, size: int, align: int) -> bool:
        """Whether `alloc` would succeed now, pinned frames and room elsewhere considered; nothing changes."""
        if not super().fits(size, align):
            return False
        return self._search(size // self.page_size, self._order(align), self._trial())[0] == 0

    @locked
    def release(self, pfn: int, count: int) -> bool:
        """See `Bitmap.release`; what others use of these frames stays theirs."""
        released = super().release(pfn, count)
        if released:
            self._clear(pfn, count)
        return released

    @locked
    def free(self, start: int, size: int) -> None:
        """See `Bitmap.free`."""
        super().free(start, size)
        self._clear(start // self.page_size, size // self.page_size)

    @locked
    def reserve(self, start: int, size: int) -> None:
        """See `Bitmap.reserve`; lent frames are taken back. `Busy` if one can't be: nothing is taken then."""
        super().reserve(start, size)
        pfn, count = start // self.page_size, size // self.page_size
        code: int | None = None
        try:
            code = self._take_back(pfn, count)
        finally:
            if code != 0:
                super().free(start, size)
                self._let_again(pfn, count)
        if code:
            raise Busy(f"{size} bytes at {start:#x} can't be taken back: errno {code}", start=start, size=size)
        self._mark(pfn, count, FrameState.TAKEN)

    def begin_undo(self, log: UndoLog) -> tuple[Undoable, ...]:
        """See `Undoable.begin_undo`; `NotSupported` with tenants, who can't be moved back."""
        if self._tenants is not None:
            raise NotSupported(f"{self!r} has tenants, which a dry run would move")
        log.save(self, "returns")
        return super().begin_undo(log)

    @locked
    def check(self) -> None:
        """Also assert: frames are TAKEN just where bits are set, and the account adds up."""
        super().check()
        clear = {bit + i for bit, length in self.free_runs() for i in range(length)}
        taken = {i for i, state in enumerate(self._frames) if state == FrameState.TAKEN}
        assert taken == set(range(self.count)) - clear, f"taken by state: {taken}, clear by bits: {clear}"
        account = self.account()
        numbers = [self._frames.count(state) for state in FrameState]
        assert numbers == self._numbers, f"{self._numbers}, counted {numbers}"
        assert account.reserved == account.used + account.lent + account.idle, f"{account} does not add up"

    # -- inside ------------------------------------------------------------------------------------------------------

    def _also_busy(self, bit: int, step: int, need: int) -> int:
        """See `Bitmap._also_busy`: up to the pinned frame nobody is left to be moved, so places there are only counted.

        A pinned frame in every few hundred makes nearly all places busy, and each was looked at.
        """
        met, self._met = self._met, None
        run = self._runs.run_at(bit)
        if met is None or run is None:
            return 0
        pinned, is_counted = met
        last = min(pinned, sum(run) - need)
        index = bisect_right(self._busy_pfns, self.base_pfn + bit)
        if index < len(self._busy_pfns) and self._busy_pfns[index] < self.base_pfn + last + need:
            return 0  # which `set_busy` has its own word for
        more = max(last - bit, 0) // step
        if is_counted:
            returns = self.returns
            self.returns = attrs.evolve(returns, busy=returns.busy + more, asked=returns.asked + more)
        return more

    def _take_back(self, pfn: int, count: int, *, alone: bool = False) -> int:
        """Empty these frames from below up to the first that is pinned: 0, or EBUSY, or ENOMEM before the first.

        ``alone``: nobody else is asked of the next place.
        """
        low = pfn - self.base_pfn
        pinned = self._frames.find(FrameState.PINNED, low, low + count)
        high = low + count if pinned < 0 else pinned
        left = dict.fromkeys((FrameState.MOVABLE, FrameState.DROPPABLE), 0)
        code: int | None = None  # what a tenant raises stops it as an errno does
        try:
            code = self._send_away(low, high, left) or (errno.EBUSY if pinned >= 0 else 0)
        finally:
            moved, dropped = left.values()
            before = self.returns
            self.returns = Returns(
                moved=before.moved + moved,
                dropped=before.dropped + dropped,
                in_vain=before.in_vain + (0 if code == 0 else moved + dropped),
                busy=before.busy + (code == errno.EBUSY),
                asked=before.asked + 1,
            )
        self._met = (pinned, True) if alone and pinned >= 0 and self._tenants is None else None
        return code

    def _send_away(self, low: int, high: int, left: dict[FrameState, int]) -> int:
        """0 or errno: who uses these frames leaves one by one, counted in ``left``, and each frame is idle then."""
        frames, tenants = self._frames, self._tenants
        if tenants is None:
            for state in left:
                left[state] = frames.count(state, low, high)
            if any(left.values()):
                self._write(low, bytes(high - low))
            return 0
        if frames.count(FrameState.MOVABLE, low, high) > tenants.room():
            return errno.ENOMEM
        for position in range(low, high):
            state = FrameState(frames[position])
            if state == FrameState.MOVABLE:
                code = tenants.move(self.base_pfn + position)
                if code:
                    return code
            elif state == FrameState.DROPPABLE:
                tenants.drop(self.base_pfn + position)
            else:
                continue
            left[state] += 1
            self._write(position, bytes(1))
        return 0

    def _trial(self) -> Migrate:
        """What `_take_back` would answer, range after range of one search: moves in vain use up room as well."""
        room = self.count if self._tenants is None else self._tenants.room()
        emptied = 0  # ranges come from below, so that one before has emptied all of the next one up to here

        def take_back(pfn: int, count: int) -> int:
            nonlocal room, emptied
            if self.before_try:
                self.before_try(pfn + count)
            low, high = pfn - self.base_pfn, pfn - self.base_pfn + count
            pinned = self._frames.find(FrameState.PINNED, low, high)
            high = high if pinned < 0 else pinned
            room -= self._frames.count(FrameState.MOVABLE, max(low, emptied), max(high, emptied))
            emptied = max(high, emptied)
            if room < 0:
                return errno.ENOMEM
            self._met = None if pinned < 0 else (pinned, False)
            return 0 if pinned < 0 else errno.EBUSY

        return take_back

    def _write(self, low: int, states: bytes | bytearray) -> None:
        """The one way to change what frames are in."""
        high, numbers = low + len(states), self._numbers
        before = self._frames[low:high]
        if self.undo_log is not None:
            self.undo_log.note(self._write, low, before)
        if len(states) == 1:  # a pin: there are many for each request
            numbers[before[0]] -= 1
            numbers[states[0]] += 1
        else:
            for state in _STATES:
                numbers[state] += states.count(state) - before.count(state)
        self._frames[low:high] = states

    def _mark(self, pfn: int, count: int, state: FrameState) -> None:
        self._write(pfn - self.base_pfn, bytes((state,)) * count)

    def _clear(self, pfn: int, count: int) -> None:
        """Frames that were the area's own are idle, or lent at once."""
        low = pfn - self.base_pfn
        high = min(low + count, self.count)
        self._write(low, self._frames[low:high].replace(b"\x01", b"\x00"))
        self._let_again(pfn, count)

    def _let_again(self, pfn: int, count: int) -> None:
        """Those who stand ready use what is idle of these frames."""
        if self._standing:
            low = pfn - self.base_pfn
            part, ready = (states[low : low + count] for states in (self._frames, self._standing))
            # All at once, as one number: a frame that is idle is 0.
            idle = int.from_bytes(part.translate(_WHERE_IDLE))
            states = int.from_bytes(part) | int.from_bytes(ready) & idle
            self._write(low, states.to_bytes(len(part)))

    def _restate(self, pfn: int, was: FrameState, becomes: FrameState) -> None:
        position = self._span(pfn, 1)[0]
        if self._frames[position] != was:
            now = FrameState(self._frames[position])
            raise NotFound(f"frame {pfn:#x} is {now.name}, not {was.name}", pfn=pfn)
        self._write(position, bytes((becomes,)))

    def _restate_many(self, pfns: Iterable[int], was: int, becomes: int) -> list[int]:
        frames, base, last, log = self._frames, self.base_pfn, self.count - 1, self.undo_log
        after, changed = int(becomes), list[int]()
        try:
            for pfn in pfns:
                at = pfn - base
                if 0 <= at <= last and frames[at] == was:
                    changed.append(at)
                    frames[at] = after
        except BaseException:  # of whoever draws them
            for at in changed:
                frames[at] = was
            raise
        self._numbers[was] -= len(changed)
        self._numbers[after] += len(changed)
        pfns = [at + base for at in changed]
        if log is not None and pfns:
            log.note(self._restate_many, pfns, becomes, was)
        return pfns

    def _span(self, pfn: int, count: int) -> tuple[int, int]:
        if count < 1 or pfn < self.base_pfn or pfn + count > self.base_pfn + self.count:
            raise OutOfRange(f"{count} frames at {pfn:#x} are not all in the area", pfn=pfn, count=count)
        return pfn - self.base_pfn, pfn - self.base_pfn + count
