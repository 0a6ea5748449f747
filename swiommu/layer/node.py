"""Layers on each other: a `Node` is a layer in its place, a `Chain` is two ways, one below the other.

The order in which things are found out is the order of blame (range, walk, translation, permission, address size;
upper before lower), so exactly one layer is named for a failing access. Tables of a nested layer are read through
what is below it: each entry's address travels the rest of the chain as a read of its own, and counts as one
reference when it has arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from swiommu.address import Access, BusSpace
from swiommu.errors import InvalidArgument, SpaceMismatch
from swiommu.layer.attributes import allowed
from swiommu.layer.base import Extent, Fault, FaultClass, FaultKind, Layer
from swiommu.layer.cache.answers import own_answer, whole_answer
from swiommu.layer.cache.invalidating import feed
from swiommu.layer.path import Hop, HopKind, Part, Purpose, Reach, Refused, Walker, descend, stages, steps
from swiommu.layer.picture import tree
from swiommu.layer.translation import burst, deliver
from swiommu.locking import no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from swiommu.address import Address, Space
    from swiommu.layer.base import Read, Run
    from swiommu.layer.cache import CacheHolder, TranslationCache
    from swiommu.layer.graph.reserved import Reserved
    from swiommu.layer.path import Path, Trip

__all__ = ["Chain", "Node", "NodeOwner", "Walker", "members"]

_READ, _READ_WRITE, _WRITE = int(Access.READ), int(Access.READ | Access.WRITE), int(Access.WRITE)


class NodeOwner(Protocol):
    """What alone connects a node, because it knows by itself what is below it: a domain."""

    def check_place(self) -> None:
        """Assert that the node is connected as its owner believes."""
        ...


class Node:
    """A layer in its place: ``lowers`` are the nodes its ports lead to (none: an open end, or a memory).

    ``input_space`` is the space that addresses enter by; ``walker`` says where table entries are read: `Walker`, or
    another node. ``handlers`` are called with every fault that is this layer's; with ``forwards`` set, those of the
    layer above it on the way get a sanitised record as well. ``uppers`` are the nodes that sit on this one, ``readers``
    those whose walker is this one, ``reserved`` the ranges of its input space that are not for everybody.
    `swiommu.layer.connect` puts nodes on each other. ``tlb`` keeps what this layer answered, ``iotlb`` where the whole
    way from here ended, see `TranslationCache`; ``feeds`` are the places whose caches hold what was found through here.
    ``owner``, if set, decides what is below and where tables are read: others can't change either.

    >>> from swiommu.layer import Memory, Window, Span, access
    >>> from swiommu.address import PhysSpace
    >>> from swiommu.memory import SparseRam
    >>> ram = Node(Memory("ram", SparseRam(PhysSpace("ram")), base=0x4000_0000, size=1 << 20))
    >>> window = Node(Window("bus", Span(0x1000_0000, 1 << 20, 0x3000_0000)))
    >>> run = access(Chain(window, ram), 0x1000_0010, 4, Access.READ).runs[0]
    >>> hex(run.output), run.memory
    ('0x40000010', 'ram')
    """

    def __init__(
        self,
        layer: Layer,
        *,
        input_space: Space | None = None,
        walker: Walker | Path = Walker.NESTED,
        tlb: TranslationCache | None = None,
        iotlb: TranslationCache | None = None,
    ) -> None:
        self.layer = layer
        self.tlb = tlb
        self.iotlb = iotlb
        self.feeds: dict[CacheHolder, None] = {}
        self.fed_by: dict[CacheHolder, None] = {}
        self.input_space = input_space or layer.space or BusSpace(layer.name, width=layer.input_width)
        self.lowers: list[Node] = []
        self.uppers: list[Node] = []
        self.reserved: tuple[Reserved, ...] = ()
        self.handlers: list[Callable[[Fault], None]] = []
        self.forwards = False
        self.owner: NodeOwner | None = None
        # Weak, so that a node that was never put anywhere and is forgotten does not count as a reader for ever.
        self._readers: WeakKeyDictionary[Node, None] = WeakKeyDictionary()
        self._walker: Walker | Path = Walker.NESTED
        self.walker = walker

    def __repr__(self) -> str:
        return tree([self])

    __copy__ = no_shallow_copy

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_readers": self.readers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _readers=WeakKeyDictionary(dict.fromkeys(state["_readers"])))

    @property
    def name(self) -> str:
        """The layer's name, which faults and pictures use."""
        return self.layer.name

    @property
    def members(self) -> tuple[Node, ...]:
        """Itself; see `members`."""
        return (self,)

    @property
    def walker(self) -> Walker | Path:
        """Where table entries are read; `swiommu.layer.read_through` changes it with all checks."""
        return self._walker

    @walker.setter
    def walker(self, walker: Walker | Path) -> None:
        for node in members(self._walker):
            node._readers.pop(self, None)  # noqa: SLF001 - of its own class
        self._walker = walker
        for node in members(walker):
            node._readers[self] = None  # noqa: SLF001 - of its own class

    @property
    def readers(self) -> list[Node]:
        """The nodes whose tables are read through this one, other than by being nested on it."""
        return list(self._readers)

    def translate(
        self, address: Address, size: int, wanted: Access, *, stream: Hashable = None, atomic: bool = False
    ) -> list[Run]:
        """What a device reaches with ``size`` bytes from ``address``, as runs in ascending order.

        Raises `SpaceMismatch` for an address of another space, `InvalidArgument` for an empty range, and `DeviceFault`
        at the first byte that leads nowhere: the record is in its ``fault`` and was delivered (see `deliver`), the runs
        before it are in ``runs``.
        """
        if getattr(address, "space", None) is not self.input_space:
            raise SpaceMismatch(f"{address!r} is no address of the space {self.input_space.name!r}")
        answer = burst(self, address.value, size, wanted, stream=stream, atomic=atomic)
        if answer.fault is not None:
            deliver(answer.fault, answer.way)
        return answer.or_raise()

    def above(self) -> list[CacheHolder]:
        """The places whose caches may hold what was found out through this one."""
        return [*self.uppers, *(self._readers or ()), *self.feeds]

    def travel(self, at: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]) -> Reach:
        """Where ``at`` leads from here to the end; see `swiommu.layer.path.Path`."""
        if trip.fillers:
            feed(self, trip.fillers)
        if self.iotlb is None or trip.uncached or why.fault_class is not FaultClass.DATA:
            return self._walk(at, why, trip, rest)
        return whole_answer(self, self.iotlb, self._walk, at, why, trip, rest)

    def _walk(self, at: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]) -> Reach:
        own = self._own(at, why, trip, rest)
        part = Part(self.layer.name, at, own.block, own.prot, own.attributes)
        memory = self.layer.as_memory()
        reach = Reach(own.input, own.output, own.size, own.block, own.prot, own.attributes, memory, (part,))
        if not self.lowers:
            return reach
        return reach.then(self.lowers[own.port].travel(reach.to(at), why, trip, rest))

    def _own(self, at: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]) -> Extent:
        layer = self.layer
        trip.way.append(self)
        if trip.hops is not None:
            trip.hops.append(Hop(why.nesting, HopKind.ENTER, layer.name, at))
        if self.tlb is None or trip.uncached:
            found = layer.look(at, self.reader(why, trip, rest))
        else:
            found = own_answer(self, self.tlb, at, why, trip, rest)
        if isinstance(found, FaultKind):
            raise self.refusal(found, at, why, trip)
        if why.wanted & ~allowed(found.prot):
            raise self.refusal(FaultKind.PERMISSION, at, why, trip)
        output = found.output + at - found.input
        if output >> layer.output_width:
            raise self.refusal(FaultKind.ADDRESS_SIZE, at, why, trip)
        if layer.keeps_marks:
            trip.touches.append((layer, at, bool(why.wanted & _WRITE)))
        if trip.hops is not None:
            trip.hops.append(Hop(why.nesting, HopKind.LEAVE, layer.name, at, output))
        return found

    def reader(self, why: Purpose, trip: Trip, rest: tuple[Path, ...]) -> Read:
        """How the layer reads its table on this trip."""

        def read(address: int, width: int = 8) -> int:
            return self._read(address, width, why, trip, rest)

        return read

    def _read(self, address: int, width: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]) -> int:
        # One entry of this layer's table, by the way of its walker; one reference, once it has arrived.
        layer = self.layer
        wanted = _READ_WRITE if layer.hardware_ad else _READ
        inner = Purpose(wanted, FaultClass.WALK, layer.name, layer.hardware_ad, why.nesting + 1)
        entered = len(trip.way)
        reach = descend(self._through(rest), address, inner, trip)
        del trip.way[entered:]
        trip.refs += 1
        output = address if reach is None else reach.to(address)
        if reach is None or reach.memory is None:
            value = layer.stored(address, width)
        else:
            value = reach.memory.word(output, width)
        if trip.hops is not None:
            trip.hops.append(Hop(why.nesting, HopKind.READ, layer.name, address, output, value, trip.refs))
        return value

    def _through(self, rest: tuple[Path, ...]) -> tuple[Path, ...]:
        walker = self._walker
        if walker is Walker.NESTED:
            return (self.lowers[0], *rest) if self.lowers else rest
        return () if walker is Walker.PHYSICAL else (walker,)

    def refusal(self, kind: FaultKind, at: int, why: Purpose, trip: Trip) -> Refused:
        """The record of what this layer refuses, to be raised."""
        name = self.layer.name
        if trip.hops is not None:
            trip.hops.append(Hop(why.nesting, HopKind.FAULT, name, at))
        fault = Fault(name, kind, trip.access, at, trip.iova, why.fault_class, why.walk_of, why.implicit_write)
        return Refused(self.layer.blame(fault))


class Chain:
    """``upper`` above ``lower``: again a way, which can be put above or below others.

    A chain binds nothing: what an upper layer's walker reads goes through all that is below it in the whole chain.
    ``iotlb`` keeps where the way from its top to its bottom ended, as that of a `Node`. `InvalidArgument` for anything
    below a memory: the way ends there, as it does where the upper path is connected to one.

    >>> from swiommu.layer import Identity, Span, Window, access
    >>> up, down = Window("up", Span(0, 0x1000, 0x4000)), Window("down", Span(0x4000, 0x1000, -0x3000))
    >>> hex(access(Chain(Chain(up, down), Identity("bypass")), 0x10, 1, Access.READ).runs[0].output)
    '0x1010'
    """

    tlb = None

    def __init__(self, upper: Path | Layer, lower: Path | Layer, *, iotlb: TranslationCache | None = None) -> None:
        self.upper = as_path(upper)
        self.lower = as_path(lower)
        for node in members(self.upper):
            if node.layer.as_memory() is not None:
                raise InvalidArgument(f"nothing can be below {node.name!r}: it is a memory", name=node.name)
        self.iotlb = iotlb
        self.feeds: dict[CacheHolder, None] = {}
        self.fed_by: dict[CacheHolder, None] = {}

    @property
    def steps(self) -> tuple[Path, ...]:
        """What it is a chain of, top first, with chains in it taken apart."""
        return steps(self.upper) + steps(self.lower)

    @property
    def members(self) -> tuple[Node, ...]:
        """The nodes among its steps."""
        return tuple(members(self.upper) + members(self.lower))

    @property
    def name(self) -> str:
        """The name of its topmost layer, where it is entered."""
        return members(self)[0].name

    def above(self) -> list[CacheHolder]:
        """The places whose caches may hold what was found out through this one."""
        return list(self.feeds)

    def travel(self, at: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]) -> Reach:
        """Where ``at`` leads through both; see `swiommu.layer.path.Path`."""
        if trip.fillers:
            feed(self, trip.fillers)
        if self.iotlb is None or trip.uncached or why.fault_class is not FaultClass.DATA:
            return self._walk(at, why, trip, rest)
        return whole_answer(self, self.iotlb, self._walk, at, why, trip, rest)

    def _walk(self, at: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]) -> Reach:
        first = self.upper.travel(at, why, trip, (self.lower, *rest))
        if first.memory is not None:  # what the upper path is connected to may end the access
            return first
        return first.then(self.lower.travel(first.to(at), why, trip, rest))


def as_path(thing: Path | Layer) -> Path:
    """A layer in a place of its own; what is a way already stays as it is."""
    return Node(thing) if isinstance(thing, Layer) else thing


def members(way: Walker | Path) -> list[Node]:
    """The nodes that a way begins with or is a chain of; what hangs below them is theirs to tell."""
    return [stage for stage in stages(way) if isinstance(stage, Node)]
