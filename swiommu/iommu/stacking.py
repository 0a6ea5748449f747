"""A domain's place in a stack: what is below it, who is above it, and what may happen to one while the other lives.

Memory is mapped from the bottom up and unmapped from the top down, so that no address leads to something that is not
there yet, or not there any more. What a domain maps into the one below it is written down there (`ReverseMap`), and
asked for before anything below is taken away.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from swiommu.address import BusAddr, BusRange
from swiommu.errors import AddressInUse, Busy, NotFound, OutOfRange, SpaceMismatch
from swiommu.iommu.reserving import NO_TARGET, require_free, seen_from, withhold
from swiommu.iommu.reverse_map import ReverseMap
from swiommu.layer import Node, ReservedKind, Walker, connect, disconnect, reserved_regions, terminals
from swiommu.locking import Lock, Running, run_all
from swiommu.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.address import BusSpace, Space
    from swiommu.iommu.mapper import Mapper
    from swiommu.iommu.reverse_map import Reference
    from swiommu.layer import Reserved
    from swiommu.memory import SparseRam

__all__ = ["BusyPolicy", "StackPlace"]

DIRECT = (ReservedKind.DIRECT, ReservedKind.DIRECT_RELAXABLE)
User = tuple["StackPlace", int, int]
"""A domain above, and from where to where of its own bus space: a use that is no obstacle."""


class BusyPolicy(Policy):
    """What happens when something is to be unmapped that domains above use.

    "refuse": `Busy`. "notify": they unmap theirs first; their ``on_notice`` is told the range. "force": their accesses
    fault here from then on.
    """

    REFUSE = "refuse"
    NOTIFY = "notify"
    FORCE = "force"


class StackPlace:
    """Where one domain is in a stack, from when it enters until it leaves.

    ``node`` is its layer in its place, ``below`` the place of the domain that its output space is the bus space of,
    None at the bottom; ``references`` are what those above map here. What is told of an unmap may look, but every call
    that changes a domain of the stack is `Busy` until it is back: ``notifying`` says what runs, ``lock`` is one for the
    whole stack. ``stack_granule`` and ``finest_granule`` are the largest and the smallest granule from here down,
    ``memory_granule`` that of the bottom, where memory is put together. ``guarded``: unmapping looks above or below.
    """

    def __init__(
        self,
        input_space: BusSpace,
        output_space: Space,
        mapper: Mapper,
        first: int,
        last: int,
        *,
        below: StackPlace | None,
        memory: Node | None,
        walker: Walker,
        in_use: BusyPolicy,
    ) -> None:
        self.input_space = input_space
        self.output_space = output_space
        self.mapper = mapper
        self.aperture_first, self.aperture_last = first, last
        self.lock: Lock = Lock() if below is None else below.lock
        self.notifying: Running = Running() if below is None else below.notifying
        self.node = Node(mapper.layer, input_space=input_space, walker=walker)
        self.below = below
        self.references = ReverseMap()
        self.in_use = in_use
        self.on_notice: list[Callable[[BusRange], None]] = []
        granule = mapper.pgsize_bitmap & -mapper.pgsize_bitmap
        self.stack_granule = self.finest_granule = self.memory_granule = granule
        self.guarded = below is not None
        self.left = False
        self._unit = mapper.unit
        self._memory = memory
        self._walker = walker
        mapper.place = self
        if below is not None:
            with self.lock:
                self._enter(below)
        elif memory is not None:
            if memory.input_space is not output_space:
                raise SpaceMismatch(f"{memory.name!r} is no memory of the output space {output_space.name!r}")
            connect(self.node, memory)
        self.node.owner = self

    @property
    def name(self) -> str:
        """The name of its bus space, which errors use."""
        return self.input_space.name

    # -- downwards

    def _enter(self, below: StackPlace) -> None:
        # What can't work is refused first.
        if self.output_space is not below.input_space:
            raise SpaceMismatch(f"{self.output_space.name!r} is not the bus space of the domain of {below.name!r}")
        below.guarded = True
        self.stack_granule = max(self.stack_granule, below.stack_granule)
        self.finest_granule = min(self.finest_granule, below.finest_granule)
        self.memory_granule = below.memory_granule
        found = [each for region in reserved_regions(below.node) for each in seen_from(self, region)]
        require_free(found)
        connect(self.node, below.node)
        try:
            withhold(found)
        except BaseException:
            disconnect(self.node)
            raise

    def leave(self) -> None:
        """Be on nothing any more."""
        self.left = True
        self.node.owner = None
        if self.node.lowers:
            disconnect(self.node)

    def check_place(self) -> None:
        """Assert that the node is on what the domain is on: its ``below``, its memory, or nothing."""
        if self.left:
            return
        below = self._memory if self.below is None else self.below.node
        names = [lower.name for lower in self.node.lowers]
        assert self.node.lowers == ([] if below is None else [below]), (
            f"the node of the domain of {self.name!r} is on {names}, "
            f"the domain on {None if below is None else below.name!r}"
        )
        assert self.node.walker is self._walker, (
            f"tables of the domain of {self.name!r} are read {self._walker}, by its node {self.node.walker}"
        )

    @property
    def memory_space(self) -> Space:
        """The space at the end of all stages, where the bytes are."""
        return self.output_space if self.below is None else self.below.memory_space

    @property
    def bottom(self) -> Node | None:
        """The node below the lowest domain, where its output space is entered; None if none is modelled."""
        return self._memory if self.below is None else self.below.bottom

    @property
    def end_spaces(self) -> tuple[Space, ...]:
        """The spaces of the memories that accesses can end in; `memory_space` alone where none is modelled."""
        ends = (None,) if self.bottom is None else terminals(self.bottom)
        return tuple(dict.fromkeys(self.memory_space if end is None else end.ram.space for end in ends))

    @property
    def ram(self) -> SparseRam | None:
        """The bytes at the end, if the bottom domain is on a node that ends in one memory."""
        memories = [] if self.bottom is None else terminals(self.bottom)
        return memories[0].ram if len(memories) == 1 and memories[0] is not None else None

    def memory_at(self, iova: int) -> int | None:
        """Where ``iova`` leads in the end, through all domains, by their records; None if one of them has a hole."""
        found = self.mapper.lookup(iova)
        if found is None or self.below is None:
            return None if found is None else found[0]
        return self.below.memory_at(found[0])

    def memory_behind(self, start: int, size: int) -> list[tuple[int, int]]:
        """What ``size`` bytes from ``start`` lead to in the end, merged, as (start, stop); `NotFound` for a hole."""
        runs: list[tuple[int, int]] = []
        at, stop = start, start + size
        while at < stop:
            found = self.memory_at(at)
            if found is None:
                raise NotFound(f"{at:#x} of the domain of {self.name!r} leads to no memory", iova=at)
            length = min(stop, (at | self.finest_granule - 1) + 1) - at
            if runs and runs[-1][1] == found:
                runs[-1] = (runs[-1][0], found + length)
            else:
                runs.append((found, found + length))
            at += length
        return runs

    def highest_output(self) -> int:
        """The highest address below that this domain can lead to."""
        return (1 << self.node.layer.output_width) - 1

    def require_reached(self, start: int, size: int) -> None:
        """`OutOfRange` for an output that the domain below could not map, or must not be led to."""
        lower = self.below
        if lower is None:
            return
        lower.require_aperture(start, size)
        for region in reserved_regions(lower.node):  # those below a window too, as they are seen through it
            if region.kind in NO_TARGET and start < region.stop and region.start < start + size:
                raise OutOfRange(
                    f"{size:#x} bytes at {start:#x} are not to be led to: the domain of {lower.name!r} has "
                    f"the {region} there",
                    paddr=start,
                    size=size,
                )

    def require_aperture(self, start: int, size: int) -> None:
        """`OutOfRange` for what a domain above can't lead to: it is not in the aperture of this one."""
        if start < self.aperture_first or start + size - 1 > self.aperture_last:
            raise OutOfRange(
                f"{size:#x} bytes at {start:#x} are not all in the aperture of the domain of "
                f"{self.name!r}, {self.aperture_first:#x} to {self.aperture_last:#x}",
                paddr=start,
                size=size,
            )

    def note_references(self, iova: int, runs: list[tuple[int, int]]) -> None:
        """Write down below that ``runs`` are mapped from ``iova`` on, one behind the other."""
        if self.below is not None:
            for start, stop in runs:
                self.below.references.add(self, iova, start, stop - start)
                iova += stop - start

    def forget_references(self, iova: int, size: int) -> None:
        """These bus addresses lead nowhere any more."""
        if self.below is not None and size:
            self.below.references.remove(self, iova, size)

    # -- reserved regions

    def uppers(self) -> list[StackPlace]:
        """The places of the domains that are directly above this one."""
        owners = [upper.owner for upper in self.node.uppers]
        return [owner for owner in owners if isinstance(owner, StackPlace)]

    def require_reservable(self, region: Reserved) -> None:
        """`AddressInUse` if some of ``region`` is allocated or, unless it is direct, mapped by a domain above."""
        references = self.references.over(region.start, region.stop) if region.kind in NO_TARGET else []
        if references:
            raise AddressInUse(
                f"the {region} can't be reserved in the domain of {self.name!r}: {references[0]}",
                start=region.start,
                size=region.size,
            )
        self.mapper.reserve(region.start, region.stop - 1, direct=region.kind in DIRECT, dry=True)

    def withhold_region(self, region: Reserved, *, own: bool) -> None:
        """Withhold ``region``, which is free; ``own``: the node lists it."""
        self.mapper.reserve(region.start, region.stop - 1, direct=region.kind in DIRECT, dry=False)
        if own:
            self.node.reserved += (region,)

    # -- upwards

    def require_top(self) -> None:
        """`Busy` while a domain is above, or the tables of another are read through this one."""
        if self.node.uppers:
            above = ", ".join(repr(upper.name) for upper in self.node.uppers)
            raise Busy(f"the domain of {self.name!r} is below {above}")
        if self.node.readers:
            readers = ", ".join(repr(reader.name) for reader in self.node.readers)
            raise Busy(f"tables of {readers} are read through the domain of {self.name!r}")

    def require_unused(self, start: int, stop: int, but: User | None = None) -> None:
        """`Busy` if a domain above uses a byte of the range, by ``in_use``; ``but``: that use does not count.

        Tables of those above are not given up on notice.
        """
        if self.in_use is BusyPolicy.FORCE:
            return
        for each in self._used(start, stop, but):
            if self.in_use is BusyPolicy.REFUSE or each.user is None or each.iova is None:
                raise Busy(f"{each}: they can't be unmapped in the domain of {self.name!r}")
            each.user.require_unused(*each.user.invalidated_with(each.iova, each.size))

    def notify(self, start: int, stop: int, but: User | None = None) -> None:
        """Let the domains above unmap what leads into the range, if that is how it is done here."""
        if self.in_use is BusyPolicy.NOTIFY:
            for each in self._used(start, stop, but):
                if each.user is not None and each.iova is not None:
                    each.user.invalidate(each.iova, each.size)

    def invalidated_with(self, iova: int, size: int) -> tuple[int, int]:
        """From where to where this domain would unmap if its lower one takes these bytes away; `Busy` if it can't."""
        start, stop = iova & -self._unit, iova + size + self._unit - 1 & -self._unit
        self.mapper.before_unmap(start, stop - start, only_ask=True)
        return start, stop

    def invalidate(self, iova: int, size: int) -> None:
        """Unmap what leads to something that is about to go; ``on_notice`` hears of it."""
        start, stop = self.invalidated_with(iova, size)
        at = start
        while at < stop:
            self.mapper.before_unmap(at, stop - at)
            at += self.mapper.unmap(at, stop - at) or self._unit
        self._tell(BusRange(BusAddr(self.input_space, start), stop - start))

    def _tell(self, gone: BusRange) -> None:
        # All of them, whatever one of them raises: what was unmapped stays so.
        before, self.notifying.what = self.notifying.what, "an unmap notifier"
        try:
            run_all([partial(told, gone) for told in self.on_notice])
        finally:
            self.notifying.what = before

    def _used(self, start: int, stop: int, but: User | None) -> list[Reference]:
        references = self.references.over(start, stop)
        if but is None:
            return references
        user, low, high = but
        return [each for each in references if each.user is not user or not low <= (each.iova or 0) < high]
