"""The ring and its timer against a transcription of dma-iommu.c, and what they do to a lazy domain."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import BusSpace, PhysRange, PhysSpace
from swiommu.errors import AddressInUse, InvalidArgument, NoMemory, NoSpace
from swiommu.iommu import Exposure, FlushQueue, IovaDomain, LinuxIova, PagedDomain, TopDownIova
from swiommu.memory import Frames
from swiommu.pagetable import CountingTables

PAGE = 4096
MS = 1_000_000
ram = PhysSpace("ram")


class Twin:
    """``struct iova_fq`` with an array and indexes, as the kernel has it."""

    def __init__(self, size, timeout, tick, cpus, log):
        self.size, self.timeout, self.tick, self.log = size, timeout, tick, log
        self.entries = [[None] * size for _ in range(cpus)]
        self.head, self.tail = [0] * cpus, [0] * cpus
        self.start_cnt = self.finish_cnt = 0
        self.timer = None

    def ring_free(self, cpu):
        while self.head[cpu] != self.tail[cpu]:
            item, counter = self.entries[cpu][self.head[cpu]]
            if counter >= self.finish_cnt:
                break
            self.log.append(("free", item))
            self.head[cpu] = (self.head[cpu] + 1) % self.size

    def flush(self, now):
        self.start_cnt += 1
        self.log.append(("flush", now))
        self.finish_cnt += 1

    def queue(self, item, now, cpu):
        self.ring_free(cpu)
        if (self.tail[cpu] + 1) % self.size == self.head[cpu]:
            self.flush(now)
            self.ring_free(cpu)
        self.entries[cpu][self.tail[cpu]] = (item, self.start_cnt)
        self.tail[cpu] = (self.tail[cpu] + 1) % self.size
        if self.timer is None:  # mod_timer(jiffies + msecs_to_jiffies(timeout)), and calc_index adds one
            jiffies, rounded = now // self.tick, (self.timeout + self.tick - 1) // self.tick
            self.timer = (jiffies + rounded + 1) * self.tick

    def advance(self, now):
        if self.timer is not None and self.timer <= now:
            due, self.timer = self.timer, None
            self.flush(due)
            for cpu in range(len(self.entries)):
                self.ring_free(cpu)


class Small(FlushQueue):
    SIZE = 4
    TIMEOUT_NS = 10


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), max_size=60), st.sampled_from([1, 4, 5, 10, 16]))
def test_the_ring_does_what_the_kernels_does(steps, tick):
    log, twin_log = [], []
    free = lambda item, _cpu: log.append(("free", item))  # noqa: E731 - one of a pair
    queue = Small(lambda now: log.append(("flush", now)), free, cpus=2, hz=10**9 // tick)
    twin = Twin(4, 10, tick, 2, twin_log)
    now = 0
    for item, (pause, cpu) in enumerate(steps):
        now += pause
        queue.advance(now)
        twin.advance(now)
        queue.queue(item, now, cpu=cpu)
        twin.queue(item, now, cpu)
        queue.check()
        assert log == twin_log
    queue.advance(now + 10 + 2 * tick)
    assert len(queue) == 0
    assert sorted(item for what, item in log if what == "free") == list(range(len(steps)))


def test_255_entries_wait_and_the_256th_flushes():
    flushes, freed = [], []
    queue = FlushQueue(flushes.append, lambda item, _cpu: freed.append(item))
    for item in range(255):
        queue.queue(item, 7)
    assert (len(queue), flushes) == (255, [])
    queue.queue(255, 8)
    assert (flushes, len(freed), len(queue)) == ([8], 255, 1)
    assert (queue.full_flushes, queue.timer_flushes) == (1, 0)
    queue.advance(16 * MS - 1)
    assert flushes == [8]
    queue.advance(16 * MS)  # started by the first of all, not by what followed the full flush
    assert (flushes, freed) == ([8, 16 * MS], list(range(256)))


# A timer counts whole ticks from the one that runs: never before 10 ms have passed, at most two ticks late.
@pytest.mark.parametrize(
    ("hz", "now", "due"),
    [
        (100, 0, 20 * MS),
        (100, 9_999_999, 20 * MS),
        (100, 10 * MS, 30 * MS),
        (250, 0, 16 * MS),
        (250, 3_999_999, 16 * MS),
        (250, 4 * MS, 20 * MS),
        (300, 0, 13_333_334),
        (300, 3_333_333, 13_333_334),
        (300, 3_333_334, 16_666_667),
        (1000, 123_456_789, 134 * MS),
        (1, 5, 2000 * MS),
    ],
)
def test_a_timer_fires_at_the_beginning_of_a_tick(hz, now, due):
    flushes = []
    queue = FlushQueue(flushes.append, lambda item, cpu: None, hz=hz)
    queue.queue("x", now)
    queue.advance(due - 1)
    assert flushes == []
    queue.advance(due)
    assert flushes == [due]


def test_a_full_ring_frees_its_own_and_the_others_wait_for_their_cpu():
    freed = []
    queue = Small(lambda now: None, lambda item, cpu: freed.append((item, cpu)), cpus=2)
    queue.queue("other", 0, cpu=1)
    for item in range(4):
        queue.queue(item, 0, cpu=0)
    assert freed == [(0, 0), (1, 0), (2, 0)]
    queue.queue("next", 1, cpu=1)
    assert freed[3:] == [("other", 1)]


def test_what_is_no_queue_and_no_cpu():
    with pytest.raises(InvalidArgument) as caught:
        FlushQueue(print, print, cpus=0)
    assert str(caught.value) == "a flush queue for 0 CPUs: at least 1 is needed"
    with pytest.raises(InvalidArgument) as caught:
        FlushQueue(print, print, hz=0)
    assert str(caught.value) == "a flush queue with 0 ticks a second: at least 1 is needed"
    with pytest.raises(InvalidArgument) as caught:
        FlushQueue(print, print).queue("x", 0, cpu=1)
    assert str(caught.value) == "no CPU 1: there are 1"


@pytest.mark.parametrize("falsify", ["timer", "order", "full", "future"])
def test_check_finds_what_is_falsified(falsify):
    queue = Small(lambda now: None, lambda item, cpu: None)
    for item in range(2):
        queue.queue(item, 0)
    queue.check()
    match falsify:
        case "timer":
            queue.expires = None
        case "order":
            queue._rings[0].append((-1, "x"))
        case "full":
            queue._rings[0].extend([(0, "x")] * 9)
        case "future":
            queue._rings[0].append((5, "x"))
    with pytest.raises(AssertionError):
        queue.check()


# -- a domain


def lazy(frames=None, **options):
    frames = frames or Frames(ram.at(0), 16 << 20)
    return PagedDomain(BusSpace("nvme"), frames=frames, output_space=ram, flush="lazy", **options)


def page(number=0):
    return [PhysRange(ram.at(0x100_0000 + number * PAGE), PAGE)]


def test_entries_go_at_once_and_addresses_after_the_flush():
    domain = lazy(iova=TopDownIova())
    mapping = domain.bind(page())
    at = mapping.iova.start
    pages = domain.stats.table_pages
    domain.release(mapping)
    assert domain.iova_to_phys(at) is None
    assert (domain.stats.unmaps, domain.stats.invalidations, domain.stats.flushes) == (1, 0, 0)
    assert domain.stats.table_pages == pages == 4
    with pytest.raises(AddressInUse):
        domain.map(at, ram.at(0), PAGE)
    assert domain.bind(page()).iova.start != at
    domain.advance(16 * MS)
    assert (domain.stats.invalidations, domain.stats.flushes) == (1, 1)
    assert domain.bind(page()).iova.start == at
    domain.check()


def test_memory_comes_back_at_once_which_is_what_exposure_measures():
    domain = lazy()
    free = domain.frames.free_count
    domain.advance(3 * MS)
    mapping = domain.alloc(5 * PAGE)
    domain.release(mapping)
    assert domain.frames.free_count == free - domain.stats.table_pages + 1
    domain.advance(5 * MS)
    domain.bind(page())
    other = domain.bind(page())
    domain.release(other)
    domain.advance(12 * MS)
    assert (domain.exposure.ns, domain.exposure.ops, domain.exposure.bytes) == (9 * MS, 3, 6 * PAGE)
    domain.advance(40 * MS)
    assert domain.exposure.ns == 13 * MS  # the flush came when it was due, not when somebody looked
    assert domain.stats.flushes == 1


@pytest.mark.parametrize(("options", "due"), [({}, 16 * MS), ({"hz": 1000}, 11 * MS), ({"hz": 100}, 20 * MS)])
@pytest.mark.parametrize("later", [False, True])
def test_a_domain_flushes_by_the_ticks_of_its_kernel(options, due, later):
    domain = (
        lazy(**options)
        if not later
        else PagedDomain(BusSpace("nvme"), frames=Frames(ram.at(0), 1 << 20), output_space=ram, **options)
    )
    domain.flush_lazily()
    domain.release(domain.bind(page()))
    domain.advance(due - 1)
    assert domain.stats.flushes == 0
    domain.advance(due)
    assert (domain.stats.flushes, domain.exposure.ns) == (1, due)


def test_a_full_ring_flushes_before_the_timer():
    domain = lazy(iova=LinuxIova())
    for _ in range(256):
        domain.release(domain.bind(page()))
    assert (domain.stats.flushes, domain.flush_queue.full_flushes) == (1, 1)
    assert domain.exposure.bytes == 256 * PAGE  # the last entry was cleared before the flush that it caused
    assert domain.exposure.ns == 0
    domain.check()


def test_strict_is_never_exposed():
    domain = PagedDomain(BusSpace("nvme"), frames=Frames(ram.at(0), 16 << 20), output_space=ram)
    domain.release(domain.bind(page()))
    domain.advance(MS)
    assert domain.exposure == Exposure()
    assert (domain.stats.invalidations, domain.stats.flushes, domain.now) == (1, 0, MS)


def test_unmap_by_hand_waits_too():
    domain = lazy()
    bus = domain.input_space
    domain.map(bus.at(0x8000), ram.at(0), 4 * PAGE)
    assert domain.unmap(bus.at(0x9000), PAGE) == PAGE
    with pytest.raises(AddressInUse):
        domain.map(bus.at(0x9000), ram.at(0), PAGE)
    domain.advance(16 * MS)
    domain.map(bus.at(0x9000), ram.at(0), PAGE)
    domain.check()


def test_each_cpu_has_its_ring():
    domain = lazy(iova=LinuxIova(IovaDomain(cpus=2)), cpus=2)
    for cpu in (0, 1):
        domain.cpu = cpu
        for _ in range(200):
            domain.release(domain.bind(page()))
    assert (domain.cpu, domain.stats.flushes, len(domain.flush_queue)) == (1, 0, 400)
    with pytest.raises(InvalidArgument) as caught:
        domain.cpu = 2
    assert str(caught.value) == "no CPU 2: there are 2"
    domain.advance(16 * MS)
    assert domain.cpu == 1
    domain.check()


def test_nothing_leaks():
    domain = lazy(iova=LinuxIova())
    for number in range(40):
        domain.release(domain.alloc((number % 7 + 1) * PAGE))
        domain.advance(domain.now + 3 * MS)
    domain.destroy()
    assert domain.stats.table_pages == 0
    assert domain.frames.free_count == domain.frames.count
    domain.iova.allocator.flush_rcaches()
    assert domain.iova.allocator.ranges() == []


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_failed_map_leaves_no_table_behind(n):
    tables = CountingTables()
    domain = lazy(tables=tables, iova=LinuxIova())
    domain.advance(MS)
    tables.fail_nth(n)
    with pytest.raises(NoMemory):
        domain.alloc(PAGE)
    assert (len(tables), domain.stats.table_pages, len(domain.flush_queue)) == (1, 1, 0)
    assert domain.frames.free_count == domain.frames.count
    domain.check()


def test_no_address_no_mapping():
    domain = lazy(iova=LinuxIova())
    domain.iova.fail_nth(1)
    with pytest.raises(NoSpace):
        domain.alloc(PAGE)
    assert domain.frames.free_count == domain.frames.count - 1
    domain.check()


@settings(max_examples=40)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("alloc"), st.integers(1, 600)),
            st.tuples(st.just("bind"), st.integers(1, 20)),
            st.tuples(st.just("release"), st.integers(0, 99)),
            st.tuples(st.just("wait"), st.integers(0, 12)),
        ),
        max_size=30,
    ),
    st.booleans(),
)
def test_no_bus_address_is_used_again_before_a_flush(steps, linux):
    domain = lazy(iova=LinuxIova() if linux else TopDownIova())
    live, stale, flushes = [], [], 0
    for step in steps:
        match step:
            case ("alloc", pages):
                live.append(domain.alloc(pages * PAGE))
            case ("bind", pages):
                live.append(domain.bind([PhysRange(ram.at(0x100_0000), pages * PAGE)]))
            case ("release", index) if live:
                mapping = live.pop(index % len(live))
                domain.release(mapping)
                stale.append(mapping.iova)
            case ("wait", ms):
                domain.advance(domain.now + ms * MS)
        if domain.stats.flushes > flushes:
            stale, flushes = [], domain.stats.flushes
        assert not any(old.overlaps(new.iova) for old in stale for new in live)
        domain.check()
    for mapping in live:
        domain.release(mapping)
    domain.destroy()
    assert domain.frames.free_count == domain.frames.count
