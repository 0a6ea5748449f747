"""A domain's place in a stack: what is below it, who is above it, and what may happen to one while the other lives.

Memory is mapped from the bottom up and unmapped from the top down, so that no address leads to something that is not
there yet, or not there any more. What a domain maps into the one below it is written down there (`Uses`), and asked
for before anything below is taken away.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from swiommu.address import BusAddr, BusRange, PhysAddr, PhysRange, as_integer, as_integers
from swiommu.errors import AddressInUse, Busy, InvalidArgument, NotFound, OutOfRange, SpaceMismatch
from swiommu.iommu.door import READ_WRITE, Door
from swiommu.iommu.reserving import NO_TARGET, consequences, require_free, seen_from, withhold
from swiommu.iommu.uses import Uses
from swiommu.layer import Node, ReservedKind, Walker, connect, disconnect, reserved_regions, terminals
from swiommu.locking import Lock, Running, locked, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swiommu.address import BusSpace, Prot, Space
    from swiommu.iommu.domain import Domain
    from swiommu.iommu.mapping import Mapping
    from swiommu.iommu.uses import Use
    from swiommu.layer import Layer, Reserved
    from swiommu.memory import SparseRam

__all__ = ["IN_USE", "Stacked", "User", "require_in_use"]

A = TypeVar("A", PhysAddr, BusAddr)

IN_USE = ("refuse", "notify", "force")
User = tuple["Stacked[Any]", int, int]
"""A domain above, and from where to where of its own bus space: a use that is no obstacle."""
DIRECT = (ReservedKind.DIRECT, ReservedKind.DIRECT_RELAXABLE)


def require_in_use(policy: str) -> None:
    """Refuse a policy that is none."""
    if policy not in IN_USE:
        raise InvalidArgument(f"no policy {policy!r} for what is in use above: there are {', '.join(IN_USE)}")


class Stacked(Door[A], ABC):
    """What `Domain` is made of as far as others are below or above it.

    ``below`` is the domain that its output space is the bus space of, None at the bottom; ``uses`` is what those above
    map here. ``in_use`` says what happens when something is to be unmapped that they use: "refuse" (`Busy`), "notify"
    (they unmap theirs first; their ``on_notice`` is told the range) or "force" (their accesses fault here from then
    on). What is told may look, but every call that changes a domain of the stack is `Busy` until it is back.
    ``stack_granule`` and ``finest_granule`` are the largest and the smallest granule from here down, ``memory_granule``
    that of the bottom, where memory is put together. ``node`` is its layer in its place.
    """

    aperture_first = 0

    def __init__(
        self,
        input_space: BusSpace,
        output_space: Space,
        layer: Layer,
        pgsize_bitmap: int,
        last: int,
        *,
        below: Domain[Any] | None = None,
        memory: Node | None = None,
        walker: Walker = Walker.NESTED,
        in_use: str = "refuse",
    ) -> None:
        super().__init__(input_space, output_space, pgsize_bitmap, last)
        require_in_use(in_use)
        self.lock, self.notifying = (Lock(), Running()) if below is None else (below.lock, below.notifying)
        self.node = Node(layer, input_space=input_space, walker=walker)
        self.below = below
        self.uses = Uses()
        self.in_use = in_use
        self.on_notice: list[Callable[[BusRange], None]] = []
        self.finest_granule = self.memory_granule = self.granule
        self._guarded = below is not None  # whether unmapping has to look above or below
        if below is not None:
            with self.lock:
                self._enter(below)
        elif memory is not None:
            if memory.input_space is not output_space:
                raise SpaceMismatch(f"{memory.name!r} is no memory of the output space {output_space.name!r}")
            connect(self.node, memory)
        self._memory = memory
        self._walker = walker
        self.node.owner = self

    # -- downwards

    @property
    def memory_space(self) -> Space:
        """The space at the end of all stages, where the bytes are."""
        return self.output_space if self.below is None else self.below.memory_space

    @property
    def end_spaces(self) -> tuple[Space, ...]:
        """The spaces of the memories that accesses can end in; `memory_space` alone where none is modelled."""
        ends = (None,) if self.bottom is None else terminals(self.bottom)
        return tuple(dict.fromkeys(self.memory_space if end is None else end.ram.space for end in ends))

    @locked
    def iova_to_memory(self, iova: BusAddr) -> PhysAddr | None:
        """Where ``iova`` leads in the end, through all domains, by their records; None if one of them has a hole.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.memory import Frames
        >>> ram = PhysSpace("ram")
        >>> lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> upper = PagedDomain(BusSpace("nic", width=32), below=lower)
        >>> upper.map(upper.input_space.at(0x8000), lower.input_space.at(0x5000), 0x1000)
        >>> upper.iova_to_phys(upper.input_space.at(0x8010)), upper.iova_to_memory(upper.input_space.at(0x8010))
        (BusAddr(ipa:0x5010), None)
        >>> lower.map(lower.input_space.at(0x5000), ram.at(0x70000), 0x1000)
        >>> upper.iova_to_memory(upper.input_space.at(0x8010))
        PhysAddr(ram:0x70010)
        """
        found: Any = self.iova_to_phys(iova)
        return found if found is None or self.below is None else self.below.iova_to_memory(found)

    @locked
    def memory_behind(self, start: int, size: int) -> tuple[PhysRange, ...]:
        """What ``size`` bytes from ``start`` lead to in the end, merged; `NotFound` if a byte leads nowhere."""
        start, size = as_integers(start=start, size=size)
        runs: list[tuple[PhysAddr, int]] = []
        at, stop = start, start + size
        while at < stop:
            found = self.iova_to_memory(BusAddr(self.input_space, at))
            if found is None:
                raise NotFound(f"{at:#x} of the domain of {self.input_space.name!r} leads to no memory", iova=at)
            length = min(stop, (at | self.finest_granule - 1) + 1) - at
            if runs and runs[-1][0].value + runs[-1][1] == found.value:
                runs[-1] = (runs[-1][0], runs[-1][1] + length)
            else:
                runs.append((found, length))
            at += length
        return tuple(PhysRange(first, length) for first, length in runs)

    @locked
    def bind_memory(
        self, pieces: Sequence[PhysRange], prot: Prot = READ_WRITE, *, limit: int | None = None, align: int = 0
    ) -> Mapping[A]:
        """`Domain.bind` of memory, from the bottom up: each domain below picks an address for it and maps it first.

        At the bottom this is `Domain.bind`. ``align``: no other mapping shares a block of that many bytes with it, so
        that pages of that size above reach nothing else. All or nothing; raises what `Domain.bind` raises of any of
        the domains.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.memory import Frames
        >>> ram = PhysSpace("ram")
        >>> lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> upper = PagedDomain(BusSpace("nic", width=32), below=lower)
        >>> packet = upper.bind_memory([PhysRange(ram.at(0x5000_0200), 1500)])
        >>> packet.iova, packet.pieces, packet.memory[0]
        (BusRange(nic:0xfffff200+0x5dc), (BusRange(ipa:0xffffffe200+0x5dc),), PhysRange(ram:0x50000200+0x5dc))
        >>> upper.release(packet); [mapping.size for mapping in lower.mappings()]
        [4096]
        """
        self._require_live()
        self._require_prot(prot)
        highest = self._highest(limit)
        align = max(as_integer(align, "align"), self._unit)
        if self.below is None:
            runs = self._runs(pieces)  # type: ignore[arg-type] # at the bottom the output space is a memory
            return self._bind(runs, prot, highest, align)
        lower = self.below.bind_memory(pieces, prot, limit=self._highest_output(), align=self.granule)
        done = None
        try:
            done = self._bind([(lower.iova.start.value, lower.iova.stop)], prot, highest, align, lower)
        finally:
            if done is None:
                self.below.let_go(lower)
        return done

    def _enter(self, below: Domain[Any]) -> None:
        # Stands on `below` from now on; what can't work is refused first.
        below.admit(self.output_space)
        self.stack_granule = max(self.granule, below.stack_granule)
        self.finest_granule = min(self.granule, below.finest_granule)
        self.memory_granule = below.memory_granule
        found = [each for region in reserved_regions(below.node) for each in seen_from(self, region)]
        require_free(found)
        connect(self.node, below.node)
        try:
            withhold(found)
        except BaseException:
            disconnect(self.node)
            raise

    def check_place(self) -> None:
        """Assert that the node is on what the domain is on: its ``below``, its memory, or nothing."""
        if self.destroyed:
            return
        below = self._memory if self.below is None else self.below.node
        names = [lower.name for lower in self.node.lowers]
        assert self.node.lowers == ([] if below is None else [below]), (
            f"the node of the domain of {self.input_space.name!r} is on {names}, "
            f"the domain on {None if below is None else below.name!r}"
        )
        assert self.node.walker is self._walker, (
            f"tables of the domain of {self.input_space.name!r} are read {self._walker}, by its node {self.node.walker}"
        )

    def _leave(self) -> None:
        self.node.owner = None
        if self.node.lowers:
            disconnect(self.node)

    def _highest_output(self) -> int:
        # The highest address below that this domain can lead to.
        return (1 << self.node.layer.output_width) - 1

    def _require_reached(self, start: int, size: int) -> None:
        # An output has to be something that the domain below can map.
        lower = self.below
        if lower is None:
            return
        self._require_aperture(start, size)
        for region in reserved_regions(lower.node):  # those below a window too, as they are seen through it
            if region.kind in NO_TARGET and start < region.stop and region.start < start + size:
                raise OutOfRange(
                    f"{size:#x} bytes at {start:#x} are not to be led to: the domain of {lower.input_space.name!r} has "
                    f"the {region} there",
                    paddr=start,
                    size=size,
                )

    def _require_aperture(self, start: int, size: int) -> None:
        lower = self.below
        if lower is not None and (start < lower.aperture_first or start + size - 1 > lower.aperture_last):
            raise OutOfRange(
                f"{size:#x} bytes at {start:#x} are not all in the aperture of the domain of "
                f"{lower.input_space.name!r}, {lower.aperture_first:#x} to {lower.aperture_last:#x}",
                paddr=start,
                size=size,
            )

    def _note_uses(self, iova: int, runs: list[tuple[int, int]]) -> None:
        if self.below is not None:
            for start, stop in runs:
                self.below.uses.add(self, iova, start, stop - start)
                iova += stop - start

    def _note_unused(self, iova: int, size: int) -> None:
        if self.below is not None and size:
            self.below.uses.remove(self, iova, size)

    @property
    def ram(self) -> SparseRam | None:
        """The bytes at the end, if the bottom domain is on a node that ends in one memory."""
        memories = [] if self.bottom is None else terminals(self.bottom)
        return memories[0].ram if len(memories) == 1 and memories[0] is not None else None

    @property
    def bottom(self) -> Node | None:
        """The node below the lowest domain, where its output space is entered; None if none is modelled."""
        return self._memory if self.below is None else self.below.bottom

    # -- upwards

    def admit(self, space: Space) -> None:
        """Let a domain that leads into ``space`` stand on this one; `SpaceMismatch` if that is another bus space."""
        self._require_live()
        if space is not self.input_space:
            raise SpaceMismatch(f"{space.name!r} is not the bus space of the domain of {self.input_space.name!r}")
        self._guarded = True

    @locked
    def reserve(self, region: Reserved) -> None:
        """Withhold a region of the bus space: neither given out here nor, unless it is direct, led to from above.

        The domains above withhold what follows from it, see `swiommu.iommu.reserving`. A direct region can be mapped by
        the owner, before or after. `AddressInUse`, and nothing has changed, if another part of it is in use already.

        >>> from swiommu.address import BusSpace, PhysSpace
        >>> from swiommu.iommu import PagedDomain
        >>> from swiommu.layer import Reserved
        >>> from swiommu.memory import Frames
        >>> ram = PhysSpace("ram")
        >>> domain = PagedDomain(BusSpace("nic", width=32), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
        >>> domain.reserve(Reserved(0xFEE0_0000, 0x10_0000, "msi")); domain.node.reserved[0].stop
        4277141504
        """
        self._require_live()
        found = list(consequences(self, region))
        require_free(found)
        withhold(found)

    def upper_domains(self) -> list[Stacked[Any]]:
        """The domains that are directly above this one."""
        owners = [upper.owner for upper in self.node.uppers]
        return [owner for owner in owners if isinstance(owner, Stacked)]

    def require_reservable(self, region: Reserved) -> None:
        """`AddressInUse` if some of ``region`` is allocated or, unless it is direct, mapped by a domain above."""
        uses = self.uses.over(region.start, region.stop) if region.kind in NO_TARGET else []
        if uses:
            raise AddressInUse(
                f"the {region} can't be reserved in the domain of {self.input_space.name!r}: {uses[0]}",
                use=uses[0],
                start=region.start,
                size=region.size,
            )
        self._require_free(region.start, region.stop - 1, direct=region.kind in DIRECT)

    def withhold_region(self, region: Reserved, *, own: bool) -> None:
        """Withhold ``region``, which is free; ``own``: the node lists it."""
        self._withhold(region.start, region.stop - 1, direct=region.kind in DIRECT)
        if own:
            self.node.reserved += (region,)

    def require_unused(self, start: int, stop: int, but: User | None = None) -> None:
        """`Busy` if somebody above uses a byte of the range, by ``in_use``; ``but``: that use does not count.

        Tables of those above are not given up on notice.
        """
        if self.in_use == "force":
            return
        for use in self._used(start, stop, but):
            if self.in_use == "refuse" or use.iova is None:
                raise Busy(f"{use}: they can't be unmapped in the domain of {self.input_space.name!r}", use=use)
            use.user.require_unused(*use.user.can_give_up(use.iova, use.size))

    def notify(self, start: int, stop: int, but: User | None = None) -> None:
        """Let everybody above unmap what leads into the range, if that is how it is done here."""
        if self.in_use == "notify":
            for use in self._used(start, stop, but):
                if use.iova is not None:
                    use.user.give_up(use.iova, use.size)

    def can_give_up(self, iova: int, size: int) -> tuple[int, int]:
        """From where to where this domain would unmap if its lower one takes these bytes away; `Busy` if it can't."""
        return iova & -self._unit, iova + size + self._unit - 1 & -self._unit

    def give_up(self, iova: int, size: int) -> None:
        """Unmap what leads to something that is about to go; ``on_notice`` hears of it."""
        start, stop = self.can_give_up(iova, size)
        at = start
        while at < stop:
            at += self._unmap(at, self._before_unmap(at, stop - at)) or self._unit
        self._tell(BusRange(BusAddr(self.input_space, start), stop - start))

    def _tell(self, gone: BusRange) -> None:
        # All of them, whatever one of them raises: what was unmapped stays so.
        before, self.notifying.what = self.notifying.what, "an unmap notifier"
        try:
            run_all([partial(told, gone) for told in self.on_notice])
        finally:
            self.notifying.what = before

    def _used(self, start: int, stop: int, but: User | None) -> list[Use]:
        uses = self.uses.over(start, stop)
        if but is None:
            return uses
        user, low, high = but
        return [use for use in uses if use.user is not user or use.iova is None or not low <= use.iova < high]

    def _before_unmap(self, iova: int, size: int) -> int:
        # Asks those above; how much to unmap.
        self.require_unused(iova, iova + size)
        self.notify(iova, iova + size)
        return size

    # -- what a driver does

    @abstractmethod
    def iova_to_phys(self, iova: BusAddr) -> A | None:
        """See `Domain.iova_to_phys`."""

    @abstractmethod
    def let_go(self, mapping: Mapping[A]) -> None:
        """What `Domain.release` does when nobody objects: unmap, and give everything back, here and below."""

    @abstractmethod
    def _bind(
        self,
        runs: list[tuple[int, int]],
        prot: Prot,
        highest: int,
        align: int,
        below: Mapping[Any] | None = None,
    ) -> Mapping[A]: ...

    @abstractmethod
    def _unmap(self, iova: int, size: int) -> int: ...

    @abstractmethod
    def _require_free(self, first: int, last: int, *, direct: bool) -> None: ...

    @abstractmethod
    def _withhold(self, first: int, last: int, *, direct: bool) -> None: ...
