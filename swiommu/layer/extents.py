"""What a whole way maps, by what software knows: the extents of its layers put through each other, nothing walked.

This is the owner's view: what the tables say, not what a walker would find on its way to them.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from swiommu.errors import NotFound, NotSupported
from swiommu.layer.attributes import Attributes, meet_prot
from swiommu.layer.base import Extent, FaultKind, Layer, MemoryEnd, largest_block
from swiommu.layer.node import Chain, Node, as_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swiommu.address import Prot
    from swiommu.layer.path import Path

__all__ = ["End", "Piece", "end_of", "extents", "pieces", "place_of", "terminals"]


class Piece(NamedTuple):
    """``size`` bytes from ``input`` that lead to ``output`` in ``memory`` (None: an open end) with one delta.

    ``prot`` and ``attributes`` are those of all layers together. ``way`` has the nodes passed, top first, each with its
    own extent; in a merged piece it is the way of the first byte.

    >>> from swiommu.layer import Chain, Identity, Span, Window
    >>> [piece] = extents(Chain(Window("soc", Span(0x4000, 0x8000, 0x3000)), Identity("bypass")))
    >>> [node.name for node, _ in piece.way], hex(piece.stop), piece.block
    (['soc', 'bypass'], '0xc000', 4096)
    """

    input: int
    output: int
    size: int
    prot: Prot
    attributes: Attributes
    memory: MemoryEnd | None
    way: tuple[tuple[Node, Extent], ...]

    @property
    def stop(self) -> int:
        """One past the last input."""
        return self.input + self.size

    @property
    def block(self) -> int:
        """The page size of the first byte, as `Run` has it."""
        at, block = self.input, 1 << 64
        for _, own in self.way:
            delta = own.output - own.input
            block = min(block, largest_block(own.input, own.size, delta, at))
            at += delta
        return block

    @property
    def alignment(self) -> int:
        """The largest power of two that every layer of the way leaves aligned; no block of the piece is larger."""
        deltas = [own.output - own.input for _, own in self.way]
        return min((delta & -delta for delta in deltas if delta), default=1 << 64)

    def then(self, lower: Piece) -> Piece:
        """The part of this piece that goes on in ``lower``, which overlaps its outputs."""
        delta = self.output - self.input
        start = max(self.output, lower.input)
        return Piece(
            start - delta,
            lower.output + start - lower.input,
            min(self.output + self.size, lower.stop) - start,
            meet_prot(self.prot, lower.prot),
            self.attributes.then(lower.attributes),
            lower.memory,
            self.way + lower.way,
        )


def extents(path: Path | Layer) -> Iterator[Piece]:
    """What ``path`` maps now, ascending, in the fewest pieces of one delta, prot, attributes and memory.

    What can't be accessed for want of permission is a piece too, with a ``prot`` that says so. `NotSupported` for a
    way that is neither nodes nor chains of such.

    >>> from swiommu.layer import Chain, Span, Window
    >>> up, down = Window("up", Span(0x1000, 0x4000, 0x7000)), Window("down", Span(0x9000, 0x2000), Span(0xB000, 0x800))
    >>> [(hex(piece.input), hex(piece.output), hex(piece.size)) for piece in extents(Chain(up, down))]
    [('0x2000', '0x9000', '0x2800')]
    """
    last: Piece | None = None
    for piece in pieces(path):
        if last is None:
            last = piece
        elif (last.stop, last.output + last.size) == piece[:2] and last[3:6] == piece[3:6]:
            last = last._replace(size=last.size + piece.size)
        else:
            yield last
            last = piece
    if last is not None:
        yield last


def pieces(path: Path | Layer) -> Iterator[Piece]:
    """As `extents`, but each piece lies in one extent of every layer.

    >>> from swiommu.layer import Span, Window
    >>> [piece.size for piece in pieces(Window("two", Span(0, 0x1000), Span(0x1000, 0x1000)))]
    [4096, 4096]
    """
    return _Survey().along(as_path(path))


class End(NamedTuple):
    """Where an address ends: at ``address`` of ``memory``, or of an open end (None)."""

    memory: MemoryEnd | None
    address: int


def end_of(node: Node, at: int) -> End | None:
    """Where ``at`` goes from ``node`` on, by what software knows: nothing is walked, nothing refused; None in a hole.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.layer import Memory, Node, Span, Window, connect
    >>> from swiommu.memory import SparseRam
    >>> window = Node(Window("bus", Span(0, 0x1000, 0x8000_0000)))
    >>> hex(end_of(window, 0x10).address), end_of(window, 0x10).memory
    ('0x80000010', None)
    >>> connect(window, Node(Memory("ram", SparseRam(PhysSpace("ram")))))
    >>> end_of(window, 0x10).memory.name, end_of(window, 0x1000)
    ('ram', None)
    """
    while True:
        layer = node.layer
        try:
            found = layer.look(at, partial(_stored, layer))
        except NotFound:  # an entry that somebody overwrote
            return None
        if isinstance(found, FaultKind):
            return None
        at += found.output - found.input
        if at >> layer.output_width:
            return None
        if not node.lowers:
            return End(layer.as_memory(), at)
        node = node.lowers[found.port]


def place_of(node: Node | None, at: int) -> tuple[MemoryEnd, int] | None:
    """As `end_of`, but only in a memory: None in a hole, at an open end, and without a node.

    >>> from swiommu.layer import Identity, Node
    >>> place_of(Node(Identity("bypass")), 0x10) is place_of(None, 0x10) is None
    True
    """
    found = None if node is None else end_of(node, at)
    return None if found is None or found.memory is None else (found.memory, found.address)


def terminals(path: Path) -> tuple[MemoryEnd | None, ...]:
    """The memories that ``path`` can end in, each once; None among them if it can end openly.

    >>> from swiommu.layer import Identity, Node
    >>> terminals(Node(Identity("bypass")))
    (None,)
    """
    found: dict[MemoryEnd | None, None] = {}
    seen: set[Node] = set()
    waiting = [path]
    while waiting:
        place = waiting.pop()
        if isinstance(place, Chain):
            waiting.append(place.lower)
        elif isinstance(place, Node) and place not in seen:
            seen.add(place)
            waiting += reversed(place.lowers)
            if not place.lowers:
                found[place.layer.as_memory()] = None
    return tuple(found) or (None,)


def _stored(layer: Layer, address: int, width: int = 8) -> int:
    return layer.stored(address, width)


class _Survey:
    """One look at a graph: what is below is listed once, however many ways lead there."""

    def __init__(self) -> None:
        self._below: dict[Path, tuple[list[int], list[Piece]]] = {}

    def along(self, path: Path) -> Iterator[Piece]:
        if isinstance(path, Chain):
            return self._through(self.along(path.upper), path.lower)
        if not isinstance(path, Node):
            raise NotSupported(f"{path!r} can't list what it maps: only nodes and chains of them can")
        return self._from(path)

    def _from(self, node: Node) -> Iterator[Piece]:
        layer, limit = node.layer, 1 << node.layer.output_width
        memory = layer.as_memory()
        for own in layer.extents():
            size = min(own.size, limit - own.output)  # what is beyond the layer's output faults there
            if size < 1:
                continue
            piece = Piece(own.input, own.output, size, own.prot, own.attributes, memory, ((node, own),))
            if node.lowers:
                yield from self._through((piece,), node.lowers[own.port])
            else:
                yield piece

    def _through(self, upper: Iterable[Piece], lower: Path) -> Iterator[Piece]:
        if lower not in self._below:
            below = list(self.along(lower))
            self._below[lower] = [piece.input for piece in below], below
        starts, below = self._below[lower]
        for piece in upper:
            if piece.memory is not None:  # it ends there
                yield piece
                continue
            stop = piece.output + piece.size
            for found in below[max(bisect_right(starts, piece.output) - 1, 0) :]:
                if found.input >= stop:
                    break
                if found.stop > piece.output:
                    yield piece.then(found)
