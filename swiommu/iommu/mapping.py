"""What a domain hands out, and its register: live bus ranges and the memory behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import attrs

from swiommu.address import BusAddr, BusRange, PhysAddr, PhysRange, PhysSpace
from swiommu.errors import Busy, NotFound

if TYPE_CHECKING:
    from swiommu.address import AddressRange, BusSpace, Prot, Space
    from swiommu.iommu.stacking import StackPlace, User
    from swiommu.pagetable import Rules
    from swiommu.ranges import RangeSet

__all__ = ["MappedSpan", "Mapping", "Register", "notify_release", "require_releasable"]

A = TypeVar("A", PhysAddr, BusAddr)


class MappingOwner(Protocol):
    """The domain of a mapping; see `swiommu.iommu.Domain`."""

    input_space: BusSpace
    output_space: Space

    @property
    def place(self) -> StackPlace:
        """Its place in a stack."""
        ...

    @property
    def below(self) -> MappingOwner | None:
        """The domain that its memory is mapped in first."""
        ...

    def release(self, mapping: Any) -> None:
        """Unmap, and give everything back."""
        ...

    def let_go(self, mapping: Any) -> None:
        """The same, when nobody objects."""
        ...

    def held(self, mapping: Any) -> tuple[int, int] | None:
        """What it owns, if it is live."""
        ...

    def memory_behind(self, start: int, size: int) -> tuple[PhysRange, ...]:
        """Where bus addresses lead in the end."""
        ...


@attrs.frozen(eq=False, repr=False)
class Mapping(Generic[A]):
    """A live bus range and the memory behind it, in order; two mappings are equal only if identical.

    ``pieces`` are in the output space of its domain, ``memory`` is where they are in the end. ``owns_memory``: the
    memory came with the mapping and goes with it. ``below``: what was mapped for it in the domain below.

    >>> from swiommu.address import BusSpace, PhysRange, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram")
    >>> domain = PagedDomain(BusSpace("nvme"), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
    >>> domain.bind([PhysRange(ram.at(0x5000_0200), 512)])
    Mapping(nvme:0xfffffffff200+0x200, 1 pieces)
    """

    iova: BusRange
    pieces: tuple[AddressRange[A], ...]
    prot: Prot
    domain: MappingOwner
    owns_memory: bool
    below: Mapping[Any] | None = None

    @property
    def size(self) -> int:
        """Bytes, of the bus range and of all pieces together."""
        return self.iova.size

    @property
    def memory(self) -> tuple[PhysRange, ...]:
        """Where the bytes are: the pieces, or what they lead to through the domains below; `NotFound` for a hole."""
        if self.below is not None:
            return self.below.memory
        lower = self.domain.below
        if lower is None:
            return cast("tuple[PhysRange, ...]", self.pieces)
        return tuple(part for piece in self.pieces for part in lower.memory_behind(piece.start.value, piece.size))

    def __repr__(self) -> str:
        start = self.iova.start
        return f"Mapping({start.space.name}:{start.value:#x}+{self.size:#x}, {len(self.pieces)} pieces)"


@attrs.frozen
class MappedSpan(Generic[A]):
    """Where one bus address leads: to ``output``, by a leaf of ``leaf_size`` bytes.

    ``extent`` are the bus addresses around it that lead on from there by the same leaf, or, without a page table, by
    the same record.
    """

    output: A
    leaf_size: int
    extent: BusRange


def require_releasable(mapping: Mapping[Any], but: User | None = None) -> None:
    """`Busy` if a domain above uses a byte of ``mapping``, or of what was mapped for it below."""
    owned, place = mapping.domain.held(mapping), mapping.domain.place
    if owned is not None:
        place.require_unused(*owned, but)
        if mapping.below is not None:
            require_releasable(mapping.below, (place, *owned))


def notify_release(mapping: Mapping[Any], but: User | None = None) -> None:
    """Let those above unmap what leads into ``mapping``, or into what was mapped for it below."""
    owned, place = mapping.domain.held(mapping), mapping.domain.place
    if owned is not None:
        place.notify(*owned, but)
        if mapping.below is not None:
            notify_release(mapping.below, (place, *owned))


class Register(Generic[A]):
    """The live mappings of one domain, by the bus addresses that each owns; plain ints.

    ``owned`` are those addresses, in whole units of ``unit`` bytes; ``held`` are ranges that a caller keeps, for maps
    of its own and for mappings put there.
    """

    def __init__(self, owner: MappingOwner, owned: RangeSet, held: RangeSet, unit: int) -> None:
        self.owned = owned
        self.held = held
        self._owner = owner
        self._unit = unit
        self._mappings: dict[int, Mapping[A]] = {}
        physical = isinstance(owner.output_space, PhysSpace)
        self._kinds: Any = (PhysAddr, PhysRange) if physical else (BusAddr, BusRange)

    def __len__(self) -> int:
        return len(self._mappings)

    def mappings(self) -> list[Mapping[A]]:
        """Every live mapping, by bus address."""
        return [self._mappings[start] for start in sorted(self._mappings)]

    def range_of(self, mapping: Mapping[A]) -> tuple[int, int] | None:
        """What ``mapping`` owns, as start and stop; None if it is not live here."""
        owned = self.owned.at(mapping.iova.start.value)
        return owned if owned is not None and self._mappings.get(owned[0]) is mapping else None

    def owns(self, start: int, size: int, rules: Rules) -> bool:
        """Whether all of it is in one mapping, or one held range, or none of it; else refused as ``rules`` say."""
        for ranges in (self.owned, self.held):
            owner = ranges.first_over(start, start + size)
            if owner is not None:
                if owner[0] <= start < start + size <= owner[1]:
                    return True
                raise rules.occupied(
                    f"{size:#x} bytes at {start:#x} lie partly in the live mapping at {owner[0]:#x}",
                    iova=start,
                    size=size,
                )
        return False

    def require_droppable(self, where: BusRange) -> None:
        """`NotFound` unless just this range is held, `Busy` while a mapping is in it."""
        start, name = where.start.value, self._owner.input_space.name
        if where.start.space is not self._owner.input_space or self.held.at(start) != (start, where.stop):
            raise NotFound(f"{where!r} is not held in the domain of {name!r}", start=start)
        if self.owned.first_over(start, where.stop) is not None:
            raise Busy(f"some of {where!r} is mapped in the domain of {name!r}", start=start)

    def remember(
        self,
        start: int,
        iova: int,
        size: int,
        runs: list[tuple[int, int]],
        prot: Prot,
        below: Mapping[Any] | None,
        *,
        owns_memory: bool,
    ) -> Mapping[A]:
        """A mapping of ``runs`` of the output space at ``iova``; its bus addresses, from ``start`` on, are owned.

        A domain below knows from now on that they are used.
        """
        owner = self._owner
        if owner.below is not None:
            owner.place.note_references(iova, runs)
        where = BusRange(BusAddr(owner.input_space, iova), size)
        mapping = Mapping(where, self.pieces(runs), prot, owner, owns_memory, below)
        self._mappings[start] = mapping
        return mapping

    def pieces(self, runs: list[tuple[int, int]]) -> tuple[AddressRange[A], ...]:
        """``runs`` as ranges of the output space."""
        (address, kind), space = self._kinds, self._owner.output_space
        return tuple([kind(address(space, start), stop - start) for start, stop in runs])

    def output_at(self, output: int) -> A:
        """The address of the output space with this number."""
        address: A = self._kinds[0](self._owner.output_space, output)
        return address

    def remove(self, mapping: Mapping[A]) -> tuple[int, int]:
        """What it owned, as start and stop; `NotFound` if it is not live."""
        start = mapping.iova.start.value & -self._unit
        if self._mappings.get(start) is not mapping:
            owned = self.range_of(mapping)  # for a larger unit above it may own more, before it too
            if owned is None:
                raise NotFound(f"{mapping!r} is not live in the domain of {self._owner.input_space.name!r}", iova=start)
            start = owned[0]
        del self._mappings[start]
        return start, self.owned.remove(start)

    def check(self) -> None:
        """Mappings own disjoint ranges that hold them, and pieces add up; `AssertionError` with a dump."""
        self.owned.check()
        self.held.check()
        owned = dict(self.owned)
        dump = f"{self.mappings()} own {owned}"
        assert owned.keys() == self._mappings.keys(), dump
        for start, mapping in self._mappings.items():
            assert start <= mapping.iova.start.value < mapping.iova.stop <= owned[start], dump
            assert sum(piece.size for piece in mapping.pieces) == mapping.size, f"{mapping.pieces}: {dump}"
            assert mapping.domain is self._owner, dump
