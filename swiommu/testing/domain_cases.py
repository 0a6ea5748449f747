"""Laws of domains, devices and allocators, with what they are tried on."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st

from swiommu.address import PAGE_SIZE, Access, BusAddr, BusSpace, PhysRange, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.errors import AddressInUse, AddressOverflow, Busy, DeviceFault, InvalidArgument, NoMemory, NoSpace
from swiommu.iommu import LinearDomain, PagedDomain, TopDownIova
from swiommu.layer import Memory, Node
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import CountingTables
from swiommu.region import Region, allocator_names
from swiommu.testing import laws
from swiommu.testing.case import Case
from swiommu.testing.formats import LAW_FORMATS
from swiommu.testing.laws.conservation import Grant, Holdings
from swiommu.testing.probes import Probe
from swiommu.testing.strategies import formats, probes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

    from swiommu.iommu import Domain

__all__ = ["domain_cases_of"]

_BASE = 0x40_0000
_SIZE = 256  # pages of memory
_PAGES = 32  # of each space that maps are drawn for
_Formats = tuple[str, str, str]
"""Names of the formats of domains on each other, top first; a page of their world is the largest of their pages."""


_RW = Prot.READ | Prot.WRITE
_PROTS = (_RW, _RW, Prot.READ, Prot.WRITE, _RW | Prot.NOEXEC, Prot.READ | Prot.NOEXEC, Prot.READ | Prot.CACHE)


class Request(NamedTuple):
    """Map ``pages`` pages of the domain at ``level`` (0: the top), from page ``at`` to page ``to``."""

    level: int
    at: int
    to: int
    pages: int
    prot: Prot


class World:
    """A memory, and domains on each other, top first; ``page`` is the size of all pages that are asked for."""

    def __init__(self, page: int) -> None:
        self.page = page
        self.space = PhysSpace("ram", width=32)
        self.ram = SparseRam(self.space)
        self.node = Node(Memory("ram", self.ram))
        self.domains: list[PagedDomain[Any]] = []
        self._frames: dict[int, Frames] = {}

    def frames(self, granule: int = PAGE_SIZE) -> Frames:
        """Memory in frames of that size: all domains that want the same share it."""
        if granule not in self._frames:
            size = _SIZE * self.page
            start = self.space.at(_BASE + len(self._frames) * size)
            self._frames[granule] = Frames(start, size, page_size=granule)
        return self._frames[granule]

    def map(self, request: Request, *, whole: bool) -> None:
        """Do it in one call, or page by page."""
        domain = self.domains[request.level]
        base = 0 if request.level + 1 < len(self.domains) else _BASE
        step = request.pages if whole else 1
        for page in range(0, request.pages, step):
            at = domain.input_space.at((request.at + page) * self.page)
            domain.map(at, self._below(domain, base, request.to + page), step * self.page, request.prot)

    def fill(self) -> None:
        """Let what is left of the lower stages lead somewhere, so that most of what is mapped above gets through."""
        for level in range(1, len(self.domains)):
            for page in range(2 * _PAGES):
                with suppress(AddressInUse):
                    self.map(Request(level, page, page ^ 0x15, 1, _RW), whole=True)

    def _below(self, domain: PagedDomain[Any], base: int, page: int) -> Any:
        return domain.output_space.at(base + page * self.page)  # type: ignore[attr-defined]

    def stand_on(self, name: str, below: Domain[Any] | None, form: str, walker: str = "nested") -> PagedDomain[Any]:
        """One more domain, on the memory or on another one."""
        bus, chosen = BusSpace(name, width=26), LAW_FORMATS[form]
        if below is None:
            frames = self.frames(chosen.granule)
            return PagedDomain(bus, frames=frames, output_space=self.space, memory=self.node, format=chosen)
        tables = self.frames() if walker == "physical" else None
        return PagedDomain(bus, below=below, walker=walker, frames=tables, format=chosen)

    def scaled(self, asked: Sequence[Probe]) -> list[Probe]:
        """Probes around the borders of pages of 4 KiB, as such around those of this world's."""
        return [Probe(self._scaled(each.start), self._scaled(each.size), each.access) for each in asked]

    def _scaled(self, at: int) -> int:
        page, offset = divmod(at, PAGE_SIZE)
        last = offset >= PAGE_SIZE // 2  # as far from the end of the page as it was
        return page * self.page + offset + (self.page - PAGE_SIZE if last else 0)


def _world(formats: Sequence[str], walkers: Sequence[str] = (), others: Sequence[str] = ()) -> World:
    """The domains that the ``walkers`` of all but the lowest say, of the last of ``formats``; ``others`` will come."""
    used = formats[len(formats) - len(walkers) - 1 :]
    world = World(max(LAW_FORMATS[form].granule for form in (*used, *others)))
    for number in reversed(range(len(walkers) + 1)):
        below = world.domains[0] if world.domains else None
        walker = walkers[number] if below else "nested"
        world.domains.insert(0, world.stand_on(f"s{number}", below, used[number], walker))
    return world


@st.composite
def _requests(draw: DrawFn) -> list[Request]:
    """Maps that do not touch each other, in a stack of at most two stages more than the walkers say."""
    taken: set[tuple[int, int]] = set()
    chosen = []
    place, units = st.integers(0, _PAGES - 1), st.sampled_from((1, 1, 4, 16))  # so that large leaves are met
    sizes, allowed = st.sampled_from((1, 1, 2, 4, 7, 16, 20)), st.sampled_from(_PROTS)
    drawn = draw(st.lists(st.tuples(st.sampled_from((0, 0, 0, 1, 2)), place, place, units, sizes, allowed), max_size=6))
    for level, first, second, unit, pages, prot in drawn:
        at, to = first // unit * unit, second // unit * unit
        wanted = {(level, page) for page in range(at, at + pages)}
        if not wanted & taken:
            taken |= wanted
            chosen.append(Request(level, at, to, pages, prot))
    return chosen


def _of(world: World, requests: Sequence[Request]) -> list[Request]:
    return [request for request in requests if request.level < len(world.domains)]


def _split_merge(formats: _Formats, walkers: list[str], requests: list[Request], asked: list[Probe]) -> None:
    one, many = _world(formats, walkers), _world(formats, walkers)
    for request in _of(one, requests):
        one.map(request, whole=True)
        many.map(request, whole=False)
    one.fill()
    many.fill()
    laws.split_merge(one.domains[0].node, many.domains[0].node, one.scaled(asked))


def _order_independence(
    formats: _Formats, walkers: list[str], requests: list[Request], order: list[int], asked: list[Probe]
) -> None:
    one, other = _world(formats, walkers), _world(formats, walkers)
    for request in _of(one, requests):
        one.map(request, whole=True)
    for index in order:
        if index < len(requests) and requests[index].level < len(other.domains):
            other.map(requests[index], whole=True)
    one.fill()
    other.fill()
    laws.order_independence(one.domains[0].node, other.domains[0].node, one.scaled(asked))


def _round_trip(
    formats: _Formats, walkers: list[str], requests: list[Request], unmapped: list[tuple[int, int]], asked: list[Probe]
) -> None:
    world = _world(formats, walkers)
    for request in _of(world, requests):
        world.map(request, whole=True)
    world.fill()
    for level, page in unmapped:
        domain = world.domains[level % len(world.domains)]
        with suppress(Busy, InvalidArgument):  # somebody above leads there, or it is a part of a leaf
            domain.unmap(domain.input_space.at(page * world.page), world.page)
    for domain in world.domains:
        domain.check()
        laws.round_trip(domain, world.scaled(asked))


def _linear_round_trip(sizes: list[int], delta: int, asked: list[Probe]) -> None:
    world = World(PAGE_SIZE)
    domain = _linear(world, "linear", delta)
    for size in sizes:
        with suppress(NoMemory):
            domain.alloc(size)
    start = _BASE + delta
    laws.round_trip(domain, [Probe(start + probe.start, probe.size, probe.access) for probe in asked])


def _linear(world: World, name: str, delta: int = 0) -> LinearDomain[Any]:
    size = _SIZE * world.page
    region = Region(world.space.at(_BASE), size // 2)
    window = PhysRange(world.space.at(_BASE), size)
    return LinearDomain(BusSpace(name, width=32), region, window=window, delta=delta, memory=world.node)


# -- devices


def _isolation(formats: _Formats, shared: bool, walkers: tuple[str, str], steps: list[tuple[str, int]]) -> None:
    world = _world(formats, others=formats)
    below = world.domains[0] if shared else None
    offender, victim = (world.stand_on(*each) for each in zip("ab", (below, below), formats, walkers, strict=False))
    _against(world, offender, victim, steps)


def _linear_isolation(form: str, steps: list[tuple[str, int]]) -> None:
    # The victim's tables are out of the window's reach: a device without an IOMMU could write them.
    chosen = LAW_FORMATS[form]
    world, bus, tables = World(chosen.granule), BusSpace("b", width=26), CountingTables()
    frames = world.frames(chosen.granule)
    victim = PagedDomain(bus, frames=frames, output_space=world.space, tables=tables, format=chosen)
    _against(world, _linear(world, "a"), victim, steps)


def _against(world: World, offender: Domain[Any], victim: PagedDomain[Any], steps: list[tuple[str, int]]) -> None:
    mine = victim.alloc(5 * world.page)
    for piece in mine.memory:
        world.ram.fill(piece.start, piece.size, 0x5A)
    device = BusDevice("device of a", world.ram)
    offender.attach(device)
    held = _Held(world, victim, mine)
    start, inside = mine.iova.start.value, 3 * world.page - 1
    asked = [Probe(start, 5 * world.page), Probe(start + inside, 2, Access.WRITE), Probe(start - 1)]
    todo = [_step(offender, device, world.page, *step) for step in steps]
    laws.isolation(offender, victim, asked, todo, held)


class _Held:
    """The bytes of a mapping, and of the table pages that lead to it."""

    def __init__(self, world: World, domain: PagedDomain[Any], mapping: Any) -> None:
        self._world, self._domain, self._mapping = world, domain, mapping

    def __call__(self) -> dict[str, bytes]:
        table, iova, ram = self._domain.table, self._mapping.iova, self._world.ram
        data = [ram.read(piece.start, piece.size) for piece in self._mapping.memory]
        walks = [table.walk(at) for at in range(iova.start.value, iova.stop, self._world.page)]
        pages = sorted({step.table for walk in walks for step in walk.steps})
        return {"data": _digest(data), "tables": _digest([table.dump_bytes(page) for page in pages])}


def _digest(pages: list[bytes]) -> bytes:
    # Short enough to be told; a change of one byte shows.
    import hashlib

    return hashlib.blake2b(b"".join(pages), digest_size=8).digest()


def _step(domain: Domain[Any], device: BusDevice, page: int, what: str, number: int) -> Callable[[], object]:
    def step() -> None:
        space, live = domain.input_space, domain.mappings()
        with suppress(NoMemory, NoSpace, Busy, DeviceFault, AddressOverflow, InvalidArgument):
            if what == "alloc":
                domain.alloc((1 + number % 20) * page)
            elif what == "release" and live:
                domain.release(live[number % len(live)])
            elif what == "unmap" and live:
                domain.unmap(live[number % len(live)].iova.start, page)
            elif what == "write":
                start = live[number % len(live)].iova.start.value if live else 0
                device.write(BusAddr(space, start + number * 0x333), b"\xff" * 0x1800)

    return step


def _duplication(formats: _Formats, tops: tuple[str, str], first: int, pages: int, offset: int, data: bytes) -> None:
    world = _world(formats, others=formats)
    size = pages * world.page
    memory = [PhysRange(world.space.at(_BASE + (_SIZE // 2 + first) * world.page), size)]
    sides: list[tuple[BusDevice, BusAddr]] = []
    for number, kind in enumerate(tops):
        domain: Domain[Any]
        if kind == "linear":
            domain = _linear(world, f"top{number}")
        else:
            domain = world.stand_on(f"top{number}", world.domains[0] if kind == "stacked" else None, formats[number])
        device = BusDevice(f"device{number}", world.ram)
        domain.attach(device)
        sides.append((device, domain.bind_memory(memory).iova.start + offset % (size - len(data) + 1)))
    (writer, at), (reader, there) = sides
    laws.duplication(writer, at, reader, there, data)
    laws.duplication(reader, there, writer, at, data[::-1])


# -- allocators


_Calls = list[tuple[int, int, int]]
"""(size or order, alignment as an order, which one to free first: -1 for none)."""


def _regions(name: str, calls: _Calls) -> None:
    region = Region(PhysSpace("ram").at(0x4001_3000), 48 * PAGE_SIZE, allocator=name)
    aligns: dict[int, int] = {}
    for size, order, freed in calls:
        chunks = region.chunks()
        if 0 <= freed < len(chunks):
            region.free(chunks[freed])
        with suppress(NoMemory, Busy):
            chunk = region.alloc(size * 0x800, PAGE_SIZE << order)
            aligns[chunk.start.value] = PAGE_SIZE << order
        laws.conservation(laws.account_of_region(region, aligns))


def _frames(calls: _Calls) -> None:
    frames = Frames(PhysSpace("ram").at(0x1_3000), 45 * PAGE_SIZE)
    taken: list[tuple[int, int]] = []
    for _, order, freed in calls:
        if 0 <= freed < len(taken):
            pfn, was = taken.pop(freed)
            frames.give(pfn, 1 << was)
        with suppress(NoMemory):
            taken.append((frames.take(order), order))
        laws.conservation(laws.account_of_frames(frames, taken))


def _iovas(calls: _Calls) -> None:
    policy = TopDownIova(PAGE_SIZE, 64 * PAGE_SIZE - 1)
    taken: list[Grant] = []
    for size, order, freed in calls:
        if 0 <= freed < len(taken):
            grant = taken.pop(freed)
            policy.free(grant.start, grant.size)
        with suppress(NoSpace):
            align = max(PAGE_SIZE << order, 1 << (size * PAGE_SIZE - 1).bit_length())  # of the size, as Linux has it
            taken.append(
                Grant(policy.alloc(size * PAGE_SIZE, (1 << 32) - 1, PAGE_SIZE << order), size * PAGE_SIZE, align)
            )
        laws.conservation(Holdings(policy.start, policy.last + 1 - policy.start, taken, policy.free_bytes))


def domain_cases_of(names: Sequence[str]) -> list[Case]:
    """Laws of domains, devices and allocators, with what they are tried on; page tables have formats of ``names``.

    >>> sorted({case.number for case in domain_cases_of(["amd-v1"])})
    [12, 14, 18, 19, 21, 23]
    """
    form = formats(names)
    asked: SearchStrategy[list[Probe]] = probes(0, _PAGES * PAGE_SIZE)
    walkers = st.lists(st.sampled_from(("nested", "physical")), max_size=2)
    step = st.tuples(st.sampled_from(("alloc", "release", "unmap", "write", "write")), st.integers(0, 63))
    steps = st.lists(step, min_size=1, max_size=8)
    tops = st.sampled_from(("paged", "stacked", "linear"))
    calls = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 4), st.integers(-1, 5)), max_size=24)
    walker = st.sampled_from(("nested", "physical"))
    pages = st.tuples(st.integers(0, 2), st.integers(0, _PAGES))
    sizes = st.lists(st.integers(1, 40 * PAGE_SIZE), max_size=4)
    three = st.tuples(form, form, form)
    delta = st.integers(-8, 8).map(lambda n: n * 0x1_0000)
    return [
        Case(12, "domains", (three, st.booleans(), st.tuples(walker, walker), steps), _isolation),
        Case(12, "linear domains, one way", (form, steps), _linear_isolation),
        Case(14, "domains", (three, walkers, _requests(), asked), _split_merge),
        Case(18, "regions", (st.sampled_from(allocator_names()), calls), _regions),
        Case(18, "frames", (calls,), _frames),
        Case(18, "bus addresses", (calls,), _iovas),
        Case(19, "domains", (three, walkers, _requests(), st.permutations(range(6)), asked), _order_independence),
        Case(21, "domains", (three, walkers, _requests(), st.lists(pages, max_size=4), asked), _round_trip),
        Case(21, "linear domains, one way", (sizes, delta, asked), _linear_round_trip),
        Case(
            23,
            "devices",
            (
                three,
                st.tuples(tops, tops),
                st.integers(0, 60),
                st.integers(1, 20),
                st.integers(0, 1 << 20),
                st.binary(min_size=1, max_size=4096),
            ),
            _duplication,
        ),
    ]
