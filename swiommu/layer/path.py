"""What travels down a stack of layers: the address, why it travels, and what is known of its way so far.

A `Path` is one layer or many with a way in at the top. ``rest`` is what the finished chain has below it: an upper
layer's table is read through everything below, and what that is, is known only when somebody starts at the top.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from swiommu.layer.attributes import Attributes, meet_prot
from swiommu.layer.base import Fault, FaultClass
from swiommu.layer.cache.place import CacheHolder

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from swiommu.address import Access, Prot
    from swiommu.layer.base import FaultKind, Layer, MemoryEnd, Read
    from swiommu.layer.cache.changes import Stale

__all__ = [
    "Hop",
    "HopKind",
    "Part",
    "Path",
    "Purpose",
    "Reach",
    "Refused",
    "Stage",
    "Trip",
    "Walker",
    "descend",
    "stages",
    "steps",
]


class Part(NamedTuple):
    """What one layer of a way contributed: where it was entered, which block it answered with, what it allows."""

    layer: str
    address: int
    block: int
    prot: Prot
    attributes: Attributes


class Reach(NamedTuple):
    """Where a way leads from an address: the run around it with one delta over all layers, uppermost part first."""

    input: int
    output: int
    size: int
    block: int
    prot: Prot
    attributes: Attributes
    memory: MemoryEnd | None
    parts: tuple[Part, ...]

    def to(self, at: int) -> int:
        """The output of one address of the run."""
        return self.output + at - self.input

    def then(self, lower: Reach) -> Reach:
        """This way, continued by ``lower``, which answered for an output of this one."""
        delta = self.output - self.input
        start = max(self.input, lower.input - delta)
        stop = min(self.input + self.size, lower.input + lower.size - delta)
        return Reach(
            start,
            lower.to(start + delta),
            stop - start,
            min(self.block, lower.block),
            meet_prot(self.prot, lower.prot),
            self.attributes.then(lower.attributes),
            lower.memory,
            self.parts + lower.parts,
        )


class Purpose(NamedTuple):
    """Why an address travels: bits of `Access` needed on the way, and whose table is read if it is no data."""

    wanted: int
    fault_class: FaultClass = FaultClass.DATA
    walk_of: str | None = None
    implicit_write: bool = False
    nesting: int = 0


class HopKind(enum.StrEnum):
    """What happened at one point of a walk."""

    ENTER = "enter"
    READ = "read"
    HIT = "hit"
    LEAVE = "leave"
    FAULT = "fault"


class Hop(NamedTuple):
    """One event of a walk, for those who want to see it: ``nesting`` walks inside each other led here.

    ENTER: ``address`` arrives at ``layer``. READ: its entry at ``address`` of the walker's side was found at
    ``output`` and holds ``value``; it was reference number ``ref``. HIT: a cache of ``layer`` said that ``address``
    leads to ``output``, after which a LEAVE follows if it spoke for this layer alone; or, with a ``value``, what its
    entry at ``address`` holds. LEAVE: it goes on at ``output``. FAULT: it goes nowhere.
    """

    nesting: int
    kind: HopKind
    layer: str
    address: int
    output: int | None = None
    value: int | None = None
    ref: int | None = None


class Trip:
    """One access under way: what the device wants, at which top address, and what it has cost so far.

    ``hops`` is None unless somebody watches. ``way`` are the nodes entered, top first, ``touches`` the layers whose
    marks are set if the access succeeds. ``stream`` tells devices that share a top layer apart. ``fillers`` are the
    places whose caches will keep what is being found out, ``stale`` the answers that the tables contradict.
    """

    __slots__ = ("access", "fillers", "hops", "iova", "refs", "stale", "stream", "touches", "uncached", "way")

    def __init__(
        self, access: Access, *, stream: Hashable = None, watched: bool = False, uncached: bool = False
    ) -> None:
        self.access = access
        self.stream = stream
        self.uncached = uncached
        self.iova = 0
        self.refs = 0
        self.hops: list[Hop] | None = [] if watched else None
        self.way: list[Stage] = []
        self.touches: list[tuple[Layer, int, bool]] = []
        self.fillers: list[CacheHolder] = []
        self.stale: list[Stale] = []

    def begin(self, at: int) -> None:
        """Start anew at the top with the next address of the burst."""
        self.iova = at
        self.way.clear()
        self.touches.clear()


class Refused(Exception):
    """A layer said no; carries the record to where the access began, and never leaves the room."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class Walker(enum.Enum):
    """Where a layer's table entries are read, if not through a node of its own."""

    NESTED = "nested"  # through everything below the layer
    PHYSICAL = "physical"  # at the address as it stands, from the table's own pages


class Path(Protocol):
    """Something with a way in at the top: a node of a graph, or a chain of such."""

    def travel(self, at: int, why: Purpose, trip: Trip, rest: tuple[Path, ...]) -> Reach:
        """Where ``at`` leads; ``rest`` is below it in the finished chain. Raises `Refused`."""
        ...


class Stage(CacheHolder, Path, Protocol):
    """A layer in its place, as accesses on their way, caches and pictures see it; `Node` is all of it."""

    forwards: bool
    reserved: tuple[Any, ...]

    @property
    def layer(self) -> Layer:
        """What translates here."""
        ...

    @property
    def lowers(self) -> Sequence[Stage]:
        """Where its ports lead."""
        ...

    @property
    def readers(self) -> Sequence[Stage]:
        """Whose tables are read through it."""
        ...

    @property
    def walker(self) -> Walker | Path:
        """Where its table entries are read."""
        ...

    @property
    def handlers(self) -> Sequence[Callable[[Fault], None]]:
        """Who is told of its faults."""
        ...

    def reader(self, why: Purpose, trip: Trip, rest: tuple[Path, ...]) -> Read:
        """How its layer reads its table on this trip."""
        ...

    def refusal(self, kind: FaultKind, at: int, why: Purpose, trip: Trip) -> Refused:
        """The record of what its layer refuses, to be raised."""
        ...


def descend(paths: tuple[Path, ...], at: int, why: Purpose, trip: Trip) -> Reach | None:
    """Through ``paths``, one below the other, until a memory or the end; None if there are none."""
    reach: Reach | None = None
    for place, path in enumerate(paths):
        found = path.travel(at if reach is None else reach.to(at), why, trip, paths[place + 1 :])
        reach = found if reach is None else reach.then(found)
        if reach.memory is not None:
            break
    return reach


def steps(path: Path) -> tuple[Path, ...]:
    """A chain taken apart, top first; anything else is one step."""
    apart: tuple[Path, ...] = getattr(path, "steps", (path,))
    return apart


def stages(way: Walker | Path) -> tuple[Stage, ...]:
    """The nodes that a way begins with or is a chain of; what hangs below them is theirs to tell."""
    nodes: tuple[Stage, ...] = getattr(way, "members", ())
    return nodes
