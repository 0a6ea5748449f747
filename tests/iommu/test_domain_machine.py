"""Both kinds of domain under random calls, beside plain dicts of pages, the bytes seen through a device as well."""

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swiommu.address import BusSpace, PhysRange, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.errors import AddressInUse, Busy, DeviceFault, NoMemory, NoSpace, NotFound, NotSupported, OutOfRange
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK, Level
from swiommu.region import Region

PAGE = 4096
RW = Prot.READ | Prot.WRITE
PROTS = st.sampled_from([RW, Prot.READ, Prot.WRITE])
PAGES = 64  # of bus space and of memory alike
BASE = 16  # the first page that alloc may hand out; the pages below exist and are bound
LEVELS = tuple(Level(shift, 2, can_leaf=True) for shift in (16, 14, 12))
TINY = attrs.evolve(
    MOCK,
    name="tiny",
    levels=LEVELS,
    output_width=18,
)


class DomainMachine(RuleBasedStateMachine):
    """What holds for every driver; ``table`` is bus page -> (memory page, prot), ``live`` the mappings."""

    def __init__(self):
        super().__init__()
        self.phys, self.bus = PhysSpace("ram", width=18), BusSpace("bus", width=18)
        self.ram = SparseRam(self.phys)
        self.device = BusDevice("device", self.ram)
        self.domain = self.make()
        self.domain.attach(self.device)
        self.table: dict[int, tuple[int, Prot]] = {}
        self.live = []
        self.bytes: dict[int, int] = {}  # memory page -> what its first byte holds

    def owned(self, mapping):
        start = mapping.iova.start.value // PAGE
        return range(start, -(-mapping.iova.stop // PAGE))

    def adopt(self, mapping, size, pages, prot):
        """A new mapping is where nothing was, and leads to ``pages``."""
        owned = self.owned(mapping)
        assert len(owned) == len(pages)
        assert mapping.size == size == sum(piece.size for piece in mapping.pieces)
        assert not set(owned) & self.table.keys()
        assert not any(set(owned) & set(self.owned(other)) for other in self.live)
        self.table.update(zip(owned, ((page, prot) for page in pages), strict=True))
        self.live.append(mapping)

    def memory_pages(self, mapping):
        return [page for piece in mapping.pieces for page in range(piece.start.value // PAGE, -(-piece.stop // PAGE))]

    @rule(
        size=st.integers(1, 20 * PAGE), order=st.integers(0, 2), prot=PROTS, limit=st.none() | st.integers(0, 1 << 18)
    )
    def alloc(self, size, order, prot, limit):
        try:
            mapping = self.domain.alloc(size, PAGE << order, prot=prot, limit=limit)
        except (NoMemory, NoSpace, AddressInUse):
            return
        pages = self.memory_pages(mapping)
        assert mapping.iova.start.is_aligned(PAGE << order)
        assert limit is None or mapping.iova.last.value <= limit
        assert all(page >= BASE for page in pages)
        mine = [page for other in self.live if other.owns_memory for page in self.memory_pages(other)]
        assert not set(pages) & set(mine)
        self.adopt(mapping, -(-size // PAGE) * PAGE, pages, prot)

    @rule(
        first=st.integers(0, BASE - 1),
        pages=st.integers(1, 4),
        head=st.sampled_from([0, 0, 512]),
        tail=st.sampled_from([0, 0, 100]),
        second=st.none() | st.integers(0, BASE - 4),
        prot=PROTS,
    )
    def bind(self, first, pages, head, tail, second, prot):
        pages = min(pages, BASE - first)
        pieces = [(first * PAGE + head, pages * PAGE - head)]
        if second is not None:
            pieces.append((second * PAGE, 2 * PAGE))
        pieces[-1] = (pieces[-1][0], pieces[-1][1] - tail)
        try:
            mapping = self.domain.bind([PhysRange(self.phys.at(at), size) for at, size in pieces], prot)
        except NotSupported:
            assert not self.domain.enforces
            assert second not in {None, first + pages}
            return
        except (NoMemory, NoSpace, AddressInUse):
            return
        reached = [*range(first, first + pages), *(() if second is None else (second, second + 1))]
        assert mapping.iova.start.value % PAGE == head
        self.adopt(mapping, sum(size for _, size in pieces), reached, prot)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data):
        mapping = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        self.domain.release(mapping)
        for page in self.owned(mapping):
            self.table.pop(page, None)
        try:
            self.domain.release(mapping)
        except NotFound:
            pass
        else:
            raise AssertionError("released twice")

    @rule(at=st.integers(0, PAGES - 1), to=st.integers(0, PAGES - 1), pages=st.integers(1, 9), prot=PROTS)
    def map_there(self, at, to, pages, prot):
        pages = min(pages, PAGES - at, PAGES - to)
        wanted = range(at, at + pages)
        torn = any(0 < len(set(wanted) & set(self.owned(m))) < pages for m in self.live)
        try:
            self.domain.map(self.bus.at(at * PAGE), self.phys.at(to * PAGE), pages * PAGE, prot)
        except AddressInUse:
            assert torn or set(wanted) & self.table.keys()
        except (NotSupported, OutOfRange):
            assert not self.domain.enforces
            assert at - to != self.delta_pages
        except NoMemory:
            pass
        else:
            assert not torn
            assert not set(wanted) & self.table.keys()
            self.table.update({at + i: (to + i, prot) for i in range(pages)})

    @precondition(lambda self: self.live)
    @rule(data=st.data(), pages=st.integers(1, 4))
    def unmap_inside_a_mapping(self, data, pages):
        owned = self.owned(data.draw(st.sampled_from(self.live)))
        self.unmap_there(data.draw(st.sampled_from(owned)), pages)

    @rule(at=st.integers(0, PAGES - 1), pages=st.integers(1, 20))
    def unmap(self, at, pages):
        self.unmap_there(at, pages)

    def unmap_there(self, at, pages):
        pages = min(pages, PAGES - at)
        done = self.domain.unmap(self.bus.at(at * PAGE), pages * PAGE)
        if done > pages * PAGE:
            assert self.domain.enforces  # a large leaf went whole
        gone = range(at, at + done // PAGE)
        assert set(gone) <= self.table.keys()
        after = at + done // PAGE
        self.unmapped_short(done < pages * PAGE, after)
        for page in gone:
            del self.table[page]

    def unmapped_short(self, short, after):
        """Why an unmap may stop early; the drivers differ."""
        raise NotImplementedError

    @rule(page=st.integers(0, PAGES - 1), value=st.integers(0, 255))
    def device_writes(self, page, value):
        held = self.table.get(page)
        reached = self.reaches(page, held, Prot.WRITE)
        try:
            self.device.write(self.bus.at(page * PAGE), bytes((value,)))
        except DeviceFault:
            assert reached is None
        else:
            self.bytes[reached] = value
        reached = self.reaches(page, held, Prot.READ)
        try:
            data = self.device.read(self.bus.at(page * PAGE), 1)
        except DeviceFault:
            assert reached is None
        else:
            assert data[0] == self.bytes.get(reached, 0)

    @invariant()
    def agrees(self):
        self.domain.check()
        for page in range(PAGES):
            found = self.domain.iova_to_phys(self.bus.at(page * PAGE + 2048))
            held = self.table.get(page)
            assert (found and found.value) == (held and held[0] * PAGE + 2048)
        assert sorted(self.live, key=lambda m: m.iova.start.value) == self.domain.mappings()

    def teardown(self):
        for mapping in self.live:
            self.domain.release(mapping)
            for page in self.owned(mapping):
                self.table.pop(page, None)
        for page in sorted(self.table):
            self.domain.unmap(self.bus.at(page * PAGE), PAGE)
        try:
            self.domain.destroy()
        except Busy:
            self.domain.detach(self.device)
            self.domain.destroy()
        self.nothing_leaked()


class PagedMachine(DomainMachine):
    def make(self):
        self.frames = Frames(self.phys.at(BASE * PAGE), 40 * PAGE)
        return PagedDomain(self.bus, frames=self.frames, output_space=self.phys, format=TINY, orders=(2, 0))

    @rule(n=st.integers(1, 3))
    def let_memory_fail(self, n):
        self.frames.fail_nth(n)

    def reaches(self, page, held, prot):
        del page
        return held[0] if held and held[1] & prot else None

    def unmapped_short(self, short, after):
        if short and after in self.table:  # not a hole: the middle of a large leaf
            pgsize = self.domain.table.lookup(after * PAGE)[1]
            assert after * PAGE % pgsize

    @invariant()
    def frames_are_data_tables_or_free(self):
        data = sum(m.size for m in self.live if m.owns_memory) // PAGE
        assert self.frames.count - self.frames.free_count == data + self.domain.stats.table_pages
        self.frames.check()

    def nothing_leaked(self):
        assert self.frames.free_count == self.frames.count
        assert self.domain.iova.free_bytes == (PAGES - 1) * PAGE


class LinearMachine(DomainMachine):
    delta_pages = 4

    def make(self):
        self.region = Region(self.phys.at(BASE * PAGE), 40 * PAGE)
        window = PhysRange(self.phys.at(0), 60 * PAGE)
        return LinearDomain(self.bus, self.region, window=window, delta=self.delta_pages * PAGE)

    @rule(n=st.integers(1, 3))
    def let_memory_fail(self, n):
        self.region.allocator.fail_nth(n)

    @rule(order=st.integers(3, 6))
    def alignment_beyond_the_delta(self, order):
        try:
            self.domain.alloc(PAGE, PAGE << order)
        except NotSupported:
            return
        raise AssertionError("an alignment that the window can't keep")

    def reaches(self, page, held, prot):
        del held, prot
        return page - self.delta_pages if self.delta_pages <= page < 60 + self.delta_pages else None

    def unmapped_short(self, short, after):
        assert not short or after not in self.table

    # Sub-page bindings are records to the byte: the page twin can't say what half a page holds.
    @rule()
    def bind(self):
        pass

    @rule(first=st.integers(0, BASE - 1), pages=st.integers(1, 4), prot=PROTS)
    def bind_pages(self, first, pages, prot):
        pages = min(pages, BASE - first)
        wanted = range(first + self.delta_pages, first + self.delta_pages + pages)
        free = not set(wanted) & self.table.keys() and not any(set(wanted) & set(self.owned(m)) for m in self.live)
        try:
            mapping = self.domain.bind([PhysRange(self.phys.at(first * PAGE), pages * PAGE)], prot)
        except AddressInUse:
            assert not free
        else:
            assert free
            assert self.owned(mapping) == wanted
            self.adopt(mapping, pages * PAGE, range(first, first + pages), prot)

    @invariant()
    def the_region_holds_what_was_allocated(self):
        self.region.check()
        assert self.region.users == sum(m.owns_memory for m in self.live)

    def nothing_leaked(self):
        assert (self.region.users, self.region.free_space) == (0, self.region.size)


TestPaged = PagedMachine.TestCase
TestPaged.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
TestLinear = LinearMachine.TestCase
TestLinear.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
