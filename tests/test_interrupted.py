"""What foreign code raises inside calls of the shim, of areas that lend and of the DMA front: nothing is lost.

Domains have tests of their own: tests/iommu/test_interrupted.py.
"""

import pytest

from cma_compat import CmaContext, cma_allocator, cma_chunk, cma_device, cma_region
from swiommu.address import BusSpace, PhysRange, PhysSpace
from swiommu.dma import DirectBus, DirectDma, DmaDevice, DmaDirection, IommuDma, Scatterlist, SwiotlbPool
from swiommu.iommu import PagedDomain, TopDownIova
from swiommu.layer import Graph, Memory, Span, Window
from swiommu.memory import Bootmem, Frames, SparseRam
from swiommu.region import Lending, LentPages, Region

PAGE, MIB = 4096, 1 << 20
BASE, FAR = 0x4000_0000, 0x8_0000_0000
BOTH = DmaDirection.BIDIRECTIONAL
RAISED = (KeyboardInterrupt, RuntimeError)
raised = pytest.mark.parametrize("error", RAISED)


class Wire:
    """Raises at the n-th call of foreign code, once."""

    def __init__(self):
        self.left, self.error = 0, RuntimeError

    def __deepcopy__(self, memo):
        return self

    def arm(self, n, error):
        self.left, self.error = n, error

    def __call__(self, what=None):
        if self.left:
            self.left -= 1
            if not self.left:
                raise self.error(what)


class Iova(TopDownIova):
    """A policy that passes the wire first."""

    def __init__(self, wire):
        super().__init__(PAGE, 0xFFFF_FFFF)
        self.wire = wire

    def alloc(self, *asked):
        self.wire("alloc")
        return super().alloc(*asked)

    def free(self, iova, size):
        self.wire("free")
        super().free(iova, size)

    def take(self, iova, size):
        self.wire("take")
        super().take(iova, size)


def until_done(wire, error, call, limit=40):
    """Each n for which the call was stopped at its n-th call of foreign code."""
    for n in range(1, limit):
        wire.arm(n, error)
        try:
            call()
        except error:
            yield n
        else:
            assert n > 1, "no foreign code runs"
            wire.arm(0, error)
            return
    raise AssertionError("it never ends")


# -- the shim


class Upward:
    """A plug-in of 2010."""

    name = "up"

    def __init__(self, wire):
        self.wire, self.at, self.alive = wire, {}, set()

    def init(self, reg):
        self.wire("init")
        self.at.setdefault(reg.start, reg.start)

    def cleanup(self, reg):
        self.wire("cleanup")

    def alloc(self, reg, size, alignment):
        self.wire("alloc")
        start = (self.at[reg.start] + alignment - 1) & -alignment
        self.at[reg.start] = start + size
        self.alive.add(start)
        return cma_chunk(start, size)

    def free(self, chunk):
        self.wire("free")
        self.alive.remove(chunk.start)


def shim(wire):
    cma = CmaContext(allocators=[Upward(wire)])
    pool = cma_region(BASE, MIB, name="pool")
    cma.register_region(pool)
    return cma, pool


def seen(cma, *regions):
    cma.check()
    return [(reg.registered, reg.users, reg.free_space, reg.used) for reg in regions]


def test_a_plug_in_that_is_interrupted():
    wire = Wire()
    cma, pool = shim(wire)
    wire.arm(1, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):  # in init
        cma.alloc_from_region(pool, PAGE)
    assert seen(cma, pool) == [(True, 0, MIB, False)]
    kept = cma.alloc_from_region(pool, PAGE)
    for call in (lambda: cma.alloc_from_region(pool, PAGE), lambda: cma.free(kept)):
        wire.arm(1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            call()
        assert seen(cma, pool) == [(True, 1, MIB - PAGE, False)]
    cma.free(kept)
    wire.arm(1, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):  # in cleanup, when all else is done
        cma.unregister_region(pool)
    assert seen(cma, pool) == [(False, 0, MIB, False)]
    cma.register_region(pool)
    assert cma.cma_free(cma.alloc_from_region(pool, PAGE)) == 0


def test_what_a_plug_in_raises_is_an_error_of_the_region():
    wire = Wire()
    cma, pool = shim(wire)
    kept = cma.alloc_from_region(pool, PAGE)
    wire.arm(1, RuntimeError)
    assert cma.cma_free(kept) == -5
    assert seen(cma, pool) == [(True, 1, MIB - PAGE, False)]
    assert cma.cma_free(kept) == 0


@raised
def test_a_factory_and_a_preset_allocator(error):
    wire, made = Wire(), []

    def factory(start, size, *, page_size):
        wire("factory")
        made.append(start)
        return Lending(start, size, page_size=page_size)

    cma = CmaContext(allocators=[])
    pool = cma_region(BASE, MIB, alloc=cma_allocator("late", factory=factory))
    wire.arm(1, error)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            cma.register_region(pool)
    else:
        assert cma.cma_region_register(pool) == -5
        pool.alloc = cma_allocator("late", factory=factory)
    assert (seen(cma, pool), cma.regions) == ([(False, 0, MIB, error is RuntimeError)], ())
    cma.register_region(pool)
    assert cma.cma_free(cma.alloc_from_region(pool, PAGE)) == 0


@raised
def test_reserving_early(error):
    ram = PhysSpace("memory")
    cma = CmaContext(memory=ram, bootmem=Bootmem(Frames(ram.at(BASE), 4 * MIB)))
    regions = [cma_region(0, MIB, name=name) for name in "abc"]
    cma.cma_set_defaults(regions, None)
    wire = Wire()

    def reserve(reg):
        wire(reg.name)
        return cma.cma_early_region_reserve(reg)

    wire.arm(2, error)
    with pytest.raises(error):
        cma.cma_early_regions_reserve(reserve)
    assert [reg.reserved for reg in regions] == [True, False, False]
    cma.cma_early_regions_reserve(reserve)
    assert [reg.reserved for reg in regions] == [True, True, True]
    regions[1].alloc = cma_allocator("odd", alloc=print, free=print, init=lambda _: wire("init"))
    wire.arm(1, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        cma.init()
    assert [reg.registered for reg in regions] == [True, False, False]
    cma.init()
    assert [reg.registered for reg in regions] == [True, False, True], "the one that was interrupted stays unused"
    cma.check()


@raised
def test_a_region_of_bus_addresses(error):
    wire, ram = Wire(), PhysSpace("memory", width=40)
    frames = Frames(ram.at(BASE), 4 * MIB)
    domain = PagedDomain(BusSpace("camera", width=32), frames=frames, output_space=ram, iova=Iova(wire))
    video = PagedDomain(BusSpace("video", width=32), frames=frames, output_space=ram, iova=Iova(wire))
    upper = [PagedDomain(BusSpace("one", width=32), below=domain, iova=Iova(wire))]
    upper.append(PagedDomain(BusSpace("two", width=32), below=upper[0], iova=Iova(wire)))
    cma = CmaContext(memory=ram)
    pool = cma_region(0x8000_0000, MIB, within=domain)
    devices = [
        cma_device("camera", domain=domain, dma_mask=0xFFFF_FFFF),
        cma_device("video", domain=video),
        cma_device("guest", domain=upper[1]),
    ]

    def state():
        cma.check()
        for each in (*reversed(upper), domain, video):
            each.flush()
            each.check()
        return (
            [(each.mappings(), each.iova.free_bytes) for each in upper],
            frames.free_count,
            list(domain.table.each_leaf()),
            domain.iova.free_bytes,
            video.iova.free_bytes,
            video.mappings(),
            pool.users,
        )

    before = state()
    for _ in until_done(wire, error, lambda: cma.register_region(pool)):
        assert state() == before
    before = state()
    for device in devices[1:]:
        for _ in until_done(wire, error, lambda device=device: cma.alloc_from_region(pool, 3 * PAGE, 0, device)):
            assert state() == before
        if device is not devices[-1]:
            cma.free(next(iter(cma._index.all())).addresses[0])
    address = next(iter(cma._index.all())).addresses[0]
    shared = cma.bus_address(address, devices[0])
    assert shared.space is domain.input_space
    wire.arm(1, error)
    with pytest.raises(error):
        cma.free(address)
    assert state() == before, "the chunk is gone, and what was not taken back is now"


# -- areas that lend


class Slow(LentPages):
    """Pages whose users may raise when they are asked to leave."""

    def __init__(self, wire, *args):
        super().__init__(*args)
        self.wire = wire

    def room(self):
        self.wire("room")
        return super().room()

    def move(self, pfn):
        self.wire("move")
        return super().move(pfn)

    def drop(self, pfn):
        self.wire("drop")
        super().drop(pfn)


@raised
@pytest.mark.parametrize("reserve", [False, True])
def test_tenants(error, reserve):
    for n in range(1, 7):
        wire, space = Wire(), PhysSpace("ram", width=40)
        elsewhere = Frames(space.at(BASE + 64 * MIB), MIB)
        pages = Slow(wire, SparseRam(space), elsewhere)
        area = Lending(BASE, MIB, tenants=pages)
        region = Region(space.at(BASE), MIB, allocator=area)
        lent = [pages.put(area, bytes([place]) * 9, droppable=place % 3 == 2) for place in range(9)]
        wire.arm(n, error)
        with pytest.raises(error):
            region.reserve(region.start, 16 * PAGE) if reserve else region.alloc(16 * PAGE)
        region.check()
        assert (region.users, region.free_space, area.account().used) == (0, MIB, 0)
        left = max(n - 2, 0)  # pages that had left before; those to drop are gone
        assert area.account().lent == 9 - left
        assert elsewhere.count - elsewhere.free_count == left - left // 3
        assert area.returns.in_vain == area.returns.moved + area.returns.dropped == left
        for place, page in enumerate(lent):
            if page.pfn is not None:
                assert pages.read(page)[:9] == bytes([place]) * 9
        chunk = region.alloc(16 * PAGE)
        assert area.account().lent == 0
        region.free(chunk)


@raised
def test_who_moves_pages_for_an_area(error):
    area = Lending(BASE, MIB)
    area.lend(0x40000, 9)

    def migrate(pfn, count):
        raise error

    with pytest.raises(error):
        area.alloc_pages(16, 0, migrate=migrate)
    area.check()
    assert (area.account().lent, area.account().used, area.available) == (9, 0, 256)


# -- the DMA front


@raised
def test_a_device_behind_a_domain(error):
    wire, ram = Wire(), SparseRam(PhysSpace("ram", width=40))
    frames, pool = Frames(ram.space.at(BASE), 4 * MIB), SwiotlbPool(0x7000_0000, 128)
    domain = PagedDomain(BusSpace("bus", width=32), frames=frames, output_space=ram.space, iova=Iova(wire))
    dev = DmaDevice("usb", IommuDma(domain, ram, pool=pool, untrusted=True))
    entries = [Scatterlist(ram.space.at(FAR + place * 3 * PAGE), 700) for place in range(3)]

    def state():
        domain.flush()
        for each in (domain, pool, dev, frames):
            each.check()
        return pool.used, dev.live, frames.free_count, domain.mappings(), domain.iova.free_bytes

    def single():
        return dev.dma_map_single(ram.space.at(FAR), 700, BOTH)

    before = state()
    for map_, unmap in (
        (single, lambda address: dev.dma_unmap_single(address, 700, BOTH)),
        (lambda: dev.dma_map_sg(entries, 3, BOTH), lambda _: dev.dma_unmap_sg(entries, 3, BOTH)),
        (lambda: dev.dma_alloc_coherent(PAGE), lambda memory: dev.dma_free_coherent(PAGE, *memory)),
    ):
        answers = []
        for _ in until_done(wire, error, lambda map_=map_, answers=answers: answers.append(map_())):
            assert state() == before
        # What has begun to end is ended by another call.
        for _ in until_done(wire, error, lambda unmap=unmap, answers=answers: unmap(answers[0])):
            state()
        assert state() == before


@raised
def test_bytes_that_can_not_be_zeroed(error, monkeypatch):
    ram = SparseRam(PhysSpace("ram", width=40))
    frames = Frames(ram.space.at(BASE), MIB)
    dev = DmaDevice("nic", DirectDma(DirectBus(BusSpace("soc", width=40), ram.space), ram, [frames]))

    def fill(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(SparseRam, "fill", fill)
        with pytest.raises(error):
            dev.dma_alloc_coherent(64)
    assert (frames.free_count, dev.live) == (frames.count, (0, 0))


def test_a_pool_where_there_is_no_memory():
    ram = SparseRam(PhysSpace("ram", width=32))
    pool = SwiotlbPool(1 << 32, 128)
    dev = DmaDevice(
        "nic", DirectDma(DirectBus(BusSpace("soc", width=32), ram.space), ram, pool=pool, force_bounce=True)
    )
    dev.dma_map_single(ram.space.at(BASE), 64, BOTH)
    assert str(dev.last_error) == "0x100000000 is outside the 32-bit space 'ram'"
    assert (pool.used, dev.live) == (0, (0, 0))
    pool.check()


# -- graphs


@raised
def test_a_layer_of_ones_own(error):
    class Odd(Window):
        def extents(self):
            raise error

    graph = Graph()
    ram = graph.add(Memory("ram", SparseRam(PhysSpace("ram")), base=BASE, size=MIB))
    with pytest.raises(error):
        graph.add(Odd("odd", Span(0, MIB, BASE)), on="ram")
    assert (len(graph), ram.uppers) == (1, [])
    graph.check()
    assert graph.add(Window("odd", Span(0, MIB, BASE)), on="ram").lowers == [ram]


@raised
def test_pieces_that_end_in_an_exception(error):
    ram = PhysSpace("ram", width=40)
    domain = PagedDomain(BusSpace("bus", width=32), frames=Frames(ram.at(BASE), MIB), output_space=ram)

    def pieces():
        yield PhysRange(ram.at(BASE), PAGE)
        raise error

    with pytest.raises(error):
        domain.bind(pieces())
    domain.check()
    assert domain.mappings() == []
