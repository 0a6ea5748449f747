"""Two threads on one thing: it stays sound, and nothing is lost. With --slow they go on for a minute each."""

import random
import sys
import threading
import time

import pytest

from cma_compat import CmaContext, cma_device, cma_region
from swiommu.address import Access, BusRange, BusSpace, PhysRange, PhysSpace
from swiommu.device import BusDevice
from swiommu.dma import DirectBus, DirectDma, DmaDevice, DmaDirection, IommuDma, SwiotlbPool
from swiommu.errors import AddressInUse, Busy, DeviceFault, NoMemory, NotFound
from swiommu.iommu import LinearDomain, LinuxIova, PagedDomain
from swiommu.memory import Frames, SparseRam
from swiommu.region import Guarantee, Lending, LentPages, Region

PAGE, MIB = 4096, 1 << 20
BASE = 0x4000_0000
BOTH = DmaDirection.BIDIRECTIONAL


@pytest.fixture(autouse=True)
def switching():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def hammer(call, seconds, threads=2):
    """``call(random, number of the thread)`` again and again, in each thread; how often in all."""
    stop, errors, done = time.monotonic() + seconds, [], [0] * threads

    def run(number):
        drawn = random.Random(number)
        try:
            while time.monotonic() < stop and not errors:
                call(drawn, number)
                done[number] += 1
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the test
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(seconds + 30)
    assert not [thread for thread in running if thread.is_alive()], "a thread waits for ever"
    if errors:
        raise errors[0]
    assert min(done) > 0
    return sum(done)


def on_a_domain(flush="lazy", **options):
    ram = PhysSpace("ram", width=40)
    frames = Frames(ram.at(BASE), 64 * MIB)
    domain = PagedDomain(BusSpace("bus", width=32), frames=frames, output_space=ram, flush=flush, **options)
    device = BusDevice("nic", SparseRam(ram))
    domain.attach(device)

    def call(drawn, number):
        mapping = domain.alloc(drawn.choice((PAGE, 16 * PAGE, MIB)))
        assert domain.iova_to_phys(mapping.iova.start) == mapping.pieces[0].start
        device.write(mapping.iova.start, b"frame")
        at = domain.input_space.at(0x100_0000 * (drawn.randrange(3) + number))
        try:
            domain.map(at, ram.at(0x5000), PAGE)
        except AddressInUse:  # the other thread has it
            domain.mappings()
        else:
            domain.translate(at, 8, Access.READ)
            assert domain.unmap(at, PAGE) == PAGE
        domain.release(mapping)
        with pytest.raises(NotFound):
            domain.release(mapping)

    def left():
        domain.flush()
        domain.check()
        assert (domain.mappings(), list(domain.table.each_leaf())) == ([], [])
        assert frames.count - frames.free_count == domain.stats.table_pages

    return call, left


def on_a_region():
    region = Region(PhysSpace("ram").at(BASE), 4 * MIB)

    def call(drawn, _):
        chunk = region.alloc(drawn.choice((PAGE, 16 * PAGE, 3 * PAGE)))
        assert region.chunk_at(chunk.start) is chunk
        region.free(chunk)
        region.holes()

    def left():
        region.check()
        assert (region.users, region.free_space, len(region.holes())) == (0, 4 * MIB, 1)

    return call, left


def on_the_shim():
    cma = CmaContext()
    pool = cma_region(BASE, 4 * MIB, name="pool")
    assert cma.cma_region_register(pool) == 0
    cma.cma_set_defaults(None, "*=pool")

    def call(drawn, number):
        address = cma.alloc(
            cma_device(f"nic{number}"), None, drawn.choice((PAGE, 3 * PAGE)), drawn.choice((0, 16 * PAGE))
        )
        assert cma.info_about("pool").count == 1
        if drawn.random() < 0.05:
            cma.set_defaults(None, "*=pool")
        cma.free(address)

    def left():
        cma.check()
        assert (pool.users, pool.free_space) == (0, 4 * MIB)

    return call, left


def on_a_stack(in_use="notify"):
    ram = PhysSpace("ram", width=40)
    frames = Frames(ram.at(BASE), 64 * MIB)
    lower = PagedDomain(BusSpace("ipa", width=32), frames=frames, output_space=ram, in_use=in_use)
    upper = [PagedDomain(BusSpace(f"bus{number}", width=32), below=lower) for number in range(2)]
    tables = lower.mappings()

    def call(drawn, number):
        own = upper[number]
        buffer = own.alloc(drawn.choice((PAGE, 16 * PAGE)))
        bound = own.bind([BusRange(buffer.below.iova.start, PAGE)])
        if drawn.random() < 0.5:
            lower.unmap(buffer.below.iova.start, PAGE)  # those above unmap theirs, too
        own.release(bound)
        own.release(buffer)
        chunk = own.bind_memory([PhysRange(ram.at(BASE + 128 * MIB), drawn.choice((1, 5 * PAGE)))])
        own.release(chunk)

    def left():
        for domain in (*upper, lower):
            domain.check()
            assert list(domain.uses) == [] if domain is not lower else True
        assert [domain.mappings() for domain in upper] == [[], []]
        assert lower.mappings() == tables

    return call, left


def on_a_linear_domain():
    ram = PhysSpace("ram", width=40)
    region = Region(ram.at(BASE), 4 * MIB)
    domain = LinearDomain(BusSpace("bus", width=40), region)

    def call(drawn, number):
        mapping = domain.alloc(drawn.choice((PAGE, 16 * PAGE)))
        domain.iova_to_phys(mapping.iova.start)
        domain.release(mapping)
        chunk = region.alloc(PAGE)
        bound = domain.bind([PhysRange(chunk.start + 512 * number, 512)])
        domain.release(bound)
        region.free(chunk)

    def left():
        domain.check()
        region.check()
        assert (domain.mappings(), region.users) == ([], 0)

    return call, left


def on_a_pool():
    ram = SparseRam(PhysSpace("ram", width=40))
    pool = SwiotlbPool(0x7000_0000, 512, areas=2)
    frames = Frames(ram.space.at(BASE), 16 * MIB)
    domain = PagedDomain(BusSpace("bus", width=40), frames=frames, output_space=ram.space)
    direct = DirectDma(DirectBus(BusSpace("soc", width=32), ram.space), ram, [frames], pool=pool)
    shared = DmaDevice("nic", direct)
    devices = [shared, DmaDevice("usb", IommuDma(domain, ram, pool=pool, untrusted=True))]

    def call(drawn, number):
        for dev in (shared, devices[number]):
            size = drawn.randrange(1, 9000)
            at = ram.space.at(0x8_0000_0000 + number * 0x10_0000 + drawn.randrange(4096))
            ram.write(at, bytes([number + 1]) * 16)
            address = dev.dma_map_single(at, size, BOTH)
            assert dev.dma_mapping_error(address) == 0, dev.last_error
            dev.dma_sync_single_for_cpu(address, size, BOTH)
            dev.dma_unmap_single(address, size, BOTH)
            assert ram.read(at, min(size, 16)) == bytes([number + 1]) * min(size, 16)
            memory = dev.dma_alloc_coherent(64)
            dev.dma_free_coherent(64, *memory)

    def left():
        pool.check()
        frames.check()
        domain.check()
        assert (pool.used, [dev.live for dev in devices]) == (0, [(0, 0)] * 2)
        assert frames.count - frames.free_count == domain.stats.table_pages

    return call, left


def on_lent_pages():
    space = PhysSpace("ram", width=40)
    elsewhere = Frames(space.at(BASE + 64 * MIB), 4 * MIB)
    pages = LentPages(SparseRam(space), elsewhere)
    area = Lending(BASE, MIB, tenants=pages)
    region = Region(space.at(BASE), MIB, allocator=area)
    promise = Guarantee(Region(space.at(2 * BASE), 4 * MIB), 64 * PAGE, 4 * PAGE)

    def call(drawn, number):
        page = pages.put(area, bytes([number + 1]) * 9)
        chunk = region.alloc(drawn.choice((PAGE, 32 * PAGE)))
        assert pages.read(page)[:9] == bytes([number + 1]) * 9
        region.free(chunk)
        pages.take_away(page)
        promise.free(promise.alloc(drawn.randrange(1, 4 * PAGE)))

    def left():
        region.check()
        promise.check()
        elsewhere.check()
        assert (area.account().lent, elsewhere.free_count, promise.live_bytes) == (0, elsewhere.count, 0)

    return call, left


def on_frames():
    frames = Frames(PhysSpace("ram").at(BASE), 4 * MIB)

    def call(drawn, _):
        runs = frames.take_largest_first(drawn.randrange(1, 99), (5, 2, 0))
        order = drawn.randrange(3)
        pfn = frames.take(order)
        frames.set_state(runs[0][0], 1, 3)
        with pytest.raises(Busy):
            frames.give(runs[0][0], runs[0][1])
        frames.set_state(runs[0][0], 1, 1)
        frames.give_all(runs)
        frames.give(pfn, 1 << order)
        frames.free_runs()

    def left():
        frames.check()

    return call, left


def on_bytes():
    ram = SparseRam(PhysSpace("ram"))

    def call(drawn, number):
        place = drawn.randrange(64) * PAGE + 8 * number
        ram.write(ram.space.at(place), bytes([number + 1]) * 8)
        assert ram.read(ram.space.at(place), 8) == bytes([number + 1]) * 8
        ram.fill(ram.space.at(place), 8, 0)
        if drawn.random() < 0.01:
            ram.words(ram.space.at(place & -PAGE))

    def left():
        ram.check()

    return call, left


def on_a_shrinking_domain():
    """One thread maps and unmaps, the other looks: what it sees is there or not, never in between."""
    ram = PhysSpace("ram", width=40)
    domain = PagedDomain(BusSpace("bus", width=32), frames=Frames(ram.at(BASE), 64 * MIB), output_space=ram)
    at, to = domain.input_space.at(0x100_0000), ram.at(0x200_0000)

    def call(drawn, number):
        if number:
            domain.map(at, to, 2 * MIB + PAGE)
            assert domain.unmap(at, 2 * MIB + PAGE) == 2 * MIB + PAGE
            return
        offset = drawn.randrange(2 * MIB)
        assert domain.iova_to_phys(at + offset) in {None, to + offset}
        try:
            assert domain.translate(at + offset, 4, Access.READ)[0].output == to.value + offset
        except DeviceFault:
            domain.check()

    return call, domain.check


EVERY = {
    "a domain": on_a_domain,
    "a region": on_a_region,
    "the shim": on_the_shim,
}
OTHERS = {
    "a strict domain with Linux' addresses": lambda: on_a_domain("strict", iova=LinuxIova()),
    "a stack": on_a_stack,
    "a linear domain": on_a_linear_domain,
    "a pool and DMA devices": on_a_pool,
    "lent pages": on_lent_pages,
    "frames": on_frames,
    "bytes": on_bytes,
    "a domain that is read": on_a_shrinking_domain,
}


@pytest.mark.parametrize("what", EVERY)
def test_two_threads(what):
    call, left = EVERY[what]()
    hammer(call, 2)
    left()


@pytest.mark.parametrize("what", OTHERS)
def test_two_threads_for_a_moment(what):
    call, left = OTHERS[what]()
    hammer(call, 0.25)
    left()


@pytest.mark.slow
@pytest.mark.parametrize("what", EVERY | OTHERS)
def test_two_threads_for_a_minute(what):
    call, left = (EVERY | OTHERS)[what]()
    hammer(call, 60)
    left()


def test_a_full_thing_is_full_for_both():
    region = Region(PhysSpace("ram").at(BASE), 16 * PAGE)
    held = [[], []]

    def call(_, number):
        try:
            held[number].append(region.alloc(PAGE))
        except NoMemory:
            if held[number]:
                region.free(held[number].pop())

    hammer(call, 0.2)
    region.check()
    assert region.users == len(held[0]) + len(held[1])
