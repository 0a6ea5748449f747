"""Where a domain's memory comes from: frames, or the domain below, which has its own to ask."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from swiommu.address import Prot
from swiommu.errors import InvalidArgument, NoMemory, NoSpace, NotSupported, OutOfRange, SpaceMismatch
from swiommu.iommu.validate import READ_WRITE
from swiommu.layer import reachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import AddressRange, BusSpace, PhysSpace, Space
    from swiommu.iommu.reverse_map import ReverseMap
    from swiommu.layer import Node
    from swiommu.memory import Frames
    from swiommu.pagetable import Format, TableMemory
    from swiommu.ranges import RangeSet
    from swiommu.region import Chunk, Region

__all__ = [
    "Backing",
    "FrameBacking",
    "LowerBacking",
    "NoBacking",
    "OwedMemory",
    "RegionBacking",
    "backing",
    "require_sources",
]


Runs = list[tuple[int, int]]


class LowerDomain(Protocol):
    """The domain below, as far as memory is taken from it; its mappings are its own business."""

    @property
    def place(self) -> LowerPlace:
        """Its place in the stack."""
        ...

    def alloc(self, size: int, align: int = 0, *, prot: Prot = ..., limit: int | None = None) -> Any:
        """See `Domain.alloc`."""
        ...

    def alloc_for_tables(self, size: int, *, limit: int | None = None) -> Any:
        """See `Domain.alloc_for_tables`."""
        ...

    def held(self, mapping: Any) -> object:
        """Whether a mapping is live."""
        ...

    def let_go(self, mapping: Any) -> None:
        """See `Domain.let_go`."""
        ...

    def require_givable(self, mapping: Any) -> None:
        """See `Domain.require_givable`."""
        ...


class LowerPlace(Protocol):
    """Its place in the stack."""

    node: Node
    references: ReverseMap
    input_space: BusSpace
    stack_granule: int

    @property
    def memory_space(self) -> Space:
        """The space at the end of all stages."""
        ...

    @property
    def bottom(self) -> Node | None:
        """The node below the lowest domain."""
        ...

    @property
    def name(self) -> str:
        """The name of its bus space."""
        ...


class Backing(Protocol):
    """Gives memory to `Domain.alloc`; sizes and alignments are multiples of the largest granule of the stack."""

    def take(self, size: int, align: int, prot: Prot, highest: int, at: int | None = None) -> tuple[Runs, Any]:
        """``size`` bytes of the output space as (start, stop), in order, and the lower domain's mapping of them.

        Where the bus address follows from the memory, it will be a multiple of ``align`` and none above ``highest``,
        or just ``at``. All or nothing; `NoMemory` or `NoSpace`.
        """
        ...

    def take_for_tables(self, size: int, highest: int) -> tuple[Runs, Any]:
        """The same for tables of a domain above, at a multiple of ``size``, where large leaves need it least."""
        ...

    def give(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """Take it all back."""
        ...

    def require_givable(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """`Busy` if `give` would not take all of it back now."""
        ...

    def may_refuse(self) -> bool:
        """Whether `require_givable` of anything could raise now."""
        ...

    def check(self, live: Sequence[tuple[Sequence[AddressRange[Any]], Any]]) -> None:
        """Assert that what was taken and not given is what ``live`` holds, as pieces and the mapping below."""
        ...


class FrameBacking:
    """Frames, largest ``orders`` first, as dma-iommu takes them.

    >>> from swiommu.address import PhysSpace, Prot
    >>> from swiommu.memory import Frames
    >>> FrameBacking(Frames(PhysSpace("ram").at(0), 1 << 20), (9, 0)).take(0x3000, 0x1000, Prot.READ, 0xFFFF_FFFF)
    ([(0, 12288)], None)
    """

    def __init__(self, frames: Frames, orders: Sequence[int]) -> None:
        self._frames = frames
        self._orders = tuple(orders)
        self._shift = frames.page_size.bit_length() - 1
        self._taken = 0  # frames

    def take(self, size: int, align: int, prot: Prot, highest: int, at: int | None = None) -> tuple[Runs, None]:
        """See `Backing.take`."""
        del align, prot, highest, at  # it is a matter of the page table
        shift = self._shift
        taken = self._frames.take_largest_first(size >> shift, self._orders)
        self._taken += size >> shift
        return [(pfn << shift, pfn + count << shift) for pfn, count in taken], None

    def take_for_tables(self, size: int, highest: int) -> tuple[Runs, None]:
        """See `Backing.take_for_tables`."""
        return self.take(size, size, Prot.READ, highest)

    def give(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """See `Backing.give`."""
        del below  # there is none
        frames, shift = self._frames, self._shift
        runs = [(piece.start.value >> shift, piece.size >> shift) for piece in pieces]
        frames.give_all(runs)
        for _, count in runs:
            self._taken -= count

    def require_givable(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """See `Backing.require_givable`: pinned frames stay."""
        del below
        for piece in pieces:
            self._frames.require_givable(piece.start.value >> self._shift, piece.size >> self._shift)

    def may_refuse(self) -> bool:
        """See `Backing.may_refuse`."""
        return self._frames.pinned > 0

    def check(self, live: Sequence[tuple[Sequence[AddressRange[Any]], Any]]) -> None:
        """See `Backing.check`; and all of these frames are taken."""
        pieces = [piece for held, _ in live for piece in held]
        frames, shift = self._frames, self._shift
        held = sum(piece.size for piece in pieces) >> shift
        assert self._taken == held, f"{self._taken} frames were taken and not given back, mappings have {held}"
        for piece in pieces:
            pfn, count = piece.start.value >> shift, piece.size >> shift
            assert frames.are_taken(pfn, count), f"{piece!r} is mapped, and not all of its frames are taken"


class LowerBacking:
    """One mapping of the domain below for each request: contiguous there, whatever is behind it.

    The lower domain picks the address, none above ``highest``, at a multiple of ``align``. If there is such a place it
    is one for leaves of the uppermost level of ``form`` that has leaves no larger than the request, else of the next:
    each saves a walk one read. Larger leaves of the same level save none.
    """

    def __init__(self, below: LowerDomain, highest: int, align: int, form: Format) -> None:
        self._below = below
        self._highest = highest
        self._align = align
        self._pgsizes = [min(level.sizes.values()) for level in form.levels if level.sizes]  # the largest first
        self._taken: set[Any] = set()

    def take(self, size: int, align: int, prot: Prot, highest: int, at: int | None = None) -> tuple[Runs, Any]:
        """See `Backing.take`; the addresses are those of the domain below, where ``align`` and the like say nothing."""
        del align, highest, at
        mapping = None
        for align in self._pgsizes:
            if mapping is None and self._align < align <= size:
                with suppress(NoMemory, NoSpace, NotSupported):
                    mapping = self._below.alloc(size, align, prot=prot, limit=self._highest)
        if mapping is None:
            mapping = self._below.alloc(size, self._align, prot=prot, limit=self._highest)
        self._taken.add(mapping)
        return [(mapping.iova.start.value, mapping.iova.stop)], mapping

    def take_for_tables(self, size: int, highest: int) -> tuple[Runs, Any]:
        """See `Backing.take_for_tables`."""
        return self.take(size, size, READ_WRITE, highest)

    def give(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """See `Backing.give`; what the lower domain has given up already is not given back twice."""
        del pieces
        if below is not None:
            if self._below.held(below):
                self._below.let_go(below)
            self._taken.discard(below)

    def require_givable(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """See `Backing.require_givable`."""
        del pieces
        if below is not None and self._below.held(below):
            self._below.require_givable(below)

    def may_refuse(self) -> bool:
        """See `Backing.may_refuse`."""
        return True

    def check(self, live: Sequence[tuple[Sequence[AddressRange[Any]], Any]]) -> None:
        """See `Backing.check`; what the lower domain has given up already is nobody's."""
        held = {below for _, below in live}
        lost = [mapping for mapping in self._taken if mapping not in held and self._below.held(mapping)]
        assert not lost, f"{lost} were taken in the domain of {self._below.place.name!r}, and no mapping has them"


class RegionBacking:
    """Chunks of a contiguous region, which are found at their own addresses + ``delta`` on the bus.

    The memory of ``held`` bus addresses was taken with them: what is put there needs no chunk of its own.
    """

    def __init__(self, region: Region[Any], delta: int, held: RangeSet) -> None:
        self._region = region
        self._space: Any = region.space
        self._delta = delta
        self._held = held
        self._taken: set[int] = set()  # where the chunks begin that are not given back
        self._inside = Counter[int]()  # where memory begins that is in held ranges; twice while a mapping is refused

    def take(self, size: int, align: int, prot: Prot, highest: int, at: int | None = None) -> tuple[Runs, None]:
        """See `Backing.take`; `NotSupported` where the delta is no multiple of ``align``."""
        del prot  # without translation there is none
        if at is not None:
            start = at - self._delta
            held = self._held.first_over(at, at + size)
            if held is None or not held[0] <= at < at + size <= held[1]:
                return self._own(self._region.reserve(self._space.at(start), size), highest)
            self._inside[start] += 1
            return [(start, start + size)], None
        if self._delta & (align - 1):
            raise NotSupported(
                f"a window with delta {self._delta:#x} can't keep an alignment of {align:#x}",
                align=align,
            )
        return self._own(self._region.alloc(size, align), highest)

    def take_for_tables(self, size: int, highest: int) -> tuple[Runs, None]:
        """See `Backing.take_for_tables`: from the high end of the region."""
        region, delta = self._region, self._delta
        with region.lock:
            for hole in reversed(region.holes()):
                stop = min(hole.stop + delta, highest + 1)
                start = (stop - size & -size) - delta
                if start >= hole.start.value:
                    return self._own(region.reserve(self._space.at(start), size), highest)
        return self.take(size, size, READ_WRITE, highest)  # which says what is missing

    def _own(self, chunk: Chunk[Any], highest: int) -> tuple[Runs, None]:
        start, stop = chunk.start.value, chunk.range.stop
        if stop - 1 + self._delta > highest:
            self._region.free(chunk)
            raise NoMemory(
                f"the region's {stop - start} bytes at bus {start + self._delta:#x} are not all at or below "
                f"{highest:#x}",
                size=stop - start,
                limit=highest,
            )
        self._taken.add(start)
        return [(start, stop)], None

    def give(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """See `Backing.give`."""
        del below
        start = pieces[0].start
        if start.value in self._inside:
            self._inside -= Counter({start.value: 1})
            return
        self._region.free(start)
        self._taken.remove(start.value)

    def require_givable(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """See `Backing.require_givable`: a chunk can always be given back, or says so when it is."""

    def may_refuse(self) -> bool:
        """See `Backing.may_refuse`."""
        return False

    def check(self, live: Sequence[tuple[Sequence[AddressRange[Any]], Any]]) -> None:
        """See `Backing.check`."""
        owners = {pieces[0].start.value: pieces[0] for pieces, _ in live}
        taken = self._taken | self._inside.keys()
        assert taken == owners.keys(), f"chunks at {taken} were allocated, mappings have {owners}"
        for start in self._taken:
            chunk = self._region.chunk_at(owners[start].start)
            assert chunk is not None, f"{owners[start]!r} is no chunk"
            assert chunk.range == owners[start], f"{owners[start]!r} is not {chunk!r}"
        for start in self._inside:
            held = self._held.at(start + self._delta)
            assert held is not None, f"{owners[start]!r} is in no held range"


class NoBacking:
    """Where no memory is given: a domain that gives out no addresses; ``word`` is what it is called in errors."""

    def __init__(self, word: str) -> None:
        self._word = word

    def take(self, size: int, align: int, prot: Prot, highest: int, at: int | None = None) -> NoReturn:
        """`NotSupported`: who allocates for a device behind it has to know where the device reaches."""
        del align, prot, highest, at
        raise NotSupported(f"{size} bytes can't be allocated in {self._word} domain: it gives out no addresses")

    def take_for_tables(self, size: int, highest: int) -> NoReturn:
        """As `take`."""
        self.take(size, size, READ_WRITE, highest)

    def give(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """See `Backing.give`: nothing was taken."""

    def require_givable(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """See `Backing.require_givable`."""

    def may_refuse(self) -> bool:
        """See `Backing.may_refuse`."""
        return False

    def check(self, live: Sequence[tuple[Sequence[AddressRange[Any]], Any]]) -> None:
        """See `Backing.check`."""
        assert not live, f"{live} in {self._word} domain"


class OwedMemory:
    """Gives memory back to where it came from; what that does not take now is owed to it, in ``pieces``."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self.pieces: list[tuple[Sequence[AddressRange[Any]], Any]] = []

    def give(self, pieces: Sequence[AddressRange[Any]], below: Any) -> None:
        """Give these pieces back."""
        try:
            self._backing.give(pieces, below)
        except BaseException:
            self.pieces.append((pieces, below))
            raise

    def settle(self) -> None:
        """Give back what is owed."""
        owed, self.pieces = self.pieces, []
        for number, each in enumerate(owed):
            try:
                self.give(*each)
            except BaseException:
                self.pieces += owed[number + 1 :]
                raise


def require_sources(
    form: Format,
    frames: Frames | None,
    output_space: PhysSpace | None,
    memory: Node | None,
    below: LowerDomain | None,
    walker: str | None,
    tables: TableMemory | None,
) -> Space:
    """The output space of a paged domain; raises for sources that don't go together.

    `InvalidArgument`, `SpaceMismatch`, and `OutOfRange` for frames that are not where ``memory`` leads.
    """
    if walker not in {None, "nested", "physical"}:
        raise InvalidArgument(f"no walker {walker!r}: tables are read 'nested' or 'physical'")
    if below is None:
        if frames is None or output_space is None:
            raise InvalidArgument("a domain needs frames and their space, or a domain below")
        granule = form.granule
        if frames.range.start.space is output_space and frames.page_size != granule:
            raise InvalidArgument(
                f"frames of {frames.page_size} bytes under format {form.name!r}, whose smallest page is {granule}"
            )
        _require_space(frames, output_space)
        if memory is not None:
            _require_reachable(frames, memory)
        return output_space
    if output_space is not None or memory is not None:
        raise InvalidArgument(f"a domain on that of {below.place.name!r} leads there, and nowhere else")
    if (walker == "physical" and tables is None) != (frames is not None):
        raise InvalidArgument("frames below a stacked domain are for page tables that are physical, and only for those")
    if frames is not None:
        _require_space(frames, below.place.memory_space)
        if below.place.bottom is not None:
            _require_reachable(frames, below.place.bottom)
    return below.place.input_space


def _require_space(frames: Frames, space: Space) -> None:
    if frames.range.start.space is not space:
        raise SpaceMismatch(f"{frames.range!r} is no memory of the output space {space.name!r}")


def _require_reachable(frames: Frames, memory: Node) -> None:
    # Pages of tables below a node that may change are looked for when they are taken.
    first, stop = frames.range.start.value, frames.range.stop
    ranges = reachable(memory)
    if memory.input_space is frames.range.start.space and not any(
        low <= first and stop <= high for low, high in ranges
    ):
        taken = ", ".join(f"[{low:#x}, {high:#x})" for low, high in ranges) or "nothing"
        raise OutOfRange(
            f"the frames [{first:#x}, {stop:#x}) are not all in {memory.name!r}, which takes {taken}",
            start=first,
            size=stop - first,
        )


def backing(frames: Frames | None, orders: Sequence[int], below: LowerDomain | None, form: Format) -> Backing:
    """Where `Domain.alloc` takes memory: from the domain below if there is one, else frames."""
    if below is not None:
        highest = (1 << form.output_width) - 1
        return LowerBacking(below, highest, max(form.granule, below.place.stack_granule), form)
    assert frames is not None, "no source of memory"
    return FrameBacking(frames, orders)
