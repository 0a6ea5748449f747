"""One camera and one driver, in every world: the same memory image. And what is left when something fails."""

import struct

import pytest

from swiommu.address import BusSpace, PhysRange, PhysSpace
from swiommu.device import Camera, CameraDriver, FrameGrabber, line_writes
from swiommu.dma import CpuMemory, DirectBus, DirectDma, DmaDevice, DmaDirection, IommuDma, LinearDma, SwiotlbPool
from swiommu.errors import DeviceFault, InvalidArgument, NoDevice, NoMemory, OutOfRange, SwiommuError
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.memory import Frames, SparseRam
from swiommu.region import Region

MIB = 1 << 20
LOW, POOL, USER, TABLE, HIGH = 0x4000_0000, 0x7800_0000, 0x5000_0000, 0x5800_0040, 0x9_0000_0000
BPL, LINES = 1100, 60  # 66,000 bytes: lines that no page holds whole, and more than one segment


class World:
    """A machine: memory, a way to it, a camera on it. `far` is added to where user memory lies."""

    def __init__(self, far=0):
        self.space = PhysSpace("ram", width=40)
        self.ram = SparseRam(self.space)
        self.far = far
        self.bus = self.domain = self.backend = None
        self.frames = Frames(self.at(LOW), 8 * MIB)
        self.region = Region(self.at(LOW), 8 * MIB)

    def at(self, phys):
        return self.space.at(phys)

    def drive(self):
        camera = Camera("camera", self.ram, bus=self.bus)
        if self.domain is not None:
            self.domain.attach(camera)
        dev = DmaDevice("camera", self.backend)
        table = CpuMemory(self.ram, [PhysRange(self.at(TABLE + self.far), 256)])
        return CameraDriver(dev, camera, table)

    def user_pages(self, shift=0x123):
        """Scattered, out of order, beginning and ending inside a page."""
        pages = [(USER + self.far + 0x10_0000 - 0x3000 * n) for n in range(17)]
        pieces = [PhysRange(self.at(pages[0] + shift), 0x1000 - shift)]
        pieces += [PhysRange(self.at(page), 0x1000) for page in pages[1:-1]]
        return CpuMemory(self.ram, [*pieces, PhysRange(self.at(pages[-1]), 0x7FF)])


def direct():
    world = World()
    world.bus = DirectBus(BusSpace("soc", width=40), world.space)
    world.backend = DirectDma(world.bus, world.ram, [world.frames])
    return world


def offset():
    world = World()
    space = BusSpace("soc", width=32)
    world.bus = DirectBus(space, world.space, [(PhysRange(world.at(LOW), 1 << 30), space.at(0x1000_0000))])
    world.backend = DirectDma(world.bus, world.ram, [world.region])
    return world


def linear(delta=0):
    world = World()
    window = PhysRange(world.at(LOW), 1 << 30)
    world.domain = LinearDomain(BusSpace("soc", width=32), world.region, window=window, delta=delta)
    world.backend = LinearDma(world.domain, world.ram)
    return world


def linear_shifted():
    return linear(-0x2000_0000)


def paged(far=0, **options):
    world = World(far)
    world.domain = PagedDomain(BusSpace("iova", width=32), frames=world.frames, output_space=world.space)
    world.backend = IommuDma(world.domain, world.ram, **options)
    return world


def paged_far():
    return paged(HIGH)


def paged_untrusted():
    return paged(HIGH, pool=SwiotlbPool(POOL, 2048), untrusted=True)


def swiotlb_natural():
    world = World(HIGH)
    world.bus = DirectBus(BusSpace("soc", width=40), world.space)
    pool = SwiotlbPool(POOL, 2048)
    world.backend = DirectDma(world.bus, world.ram, [world.frames], pool=pool, top_of_ram=HIGH * 2)
    return world


def swiotlb_forced():
    world = World()
    world.bus = DirectBus(BusSpace("soc", width=40), world.space)
    pool = SwiotlbPool(POOL, 2048)
    world.backend = DirectDma(world.bus, world.ram, [world.frames], pool=pool, force_bounce=True)
    return world


def swiotlb_behind_a_window():
    world = World(HIGH)
    space = BusSpace("soc", width=32)
    window = PhysRange(world.at(LOW), 1 << 30)
    world.domain = LinearDomain(space, world.region, window=window, delta=-0x4000_0000)
    world.backend = LinearDma(world.domain, world.ram, pool=SwiotlbPool(POOL, 2048))
    return world


WORLDS = [
    direct,
    offset,
    linear,
    linear_shifted,
    paged,
    paged_far,
    paged_untrusted,
    swiotlb_natural,
    swiotlb_forced,
    swiotlb_behind_a_window,
]
worlds = pytest.mark.parametrize("make", WORLDS, ids=lambda make: make.__name__)


def nothing_left(world, driver):
    driver.dev.check()
    tables = 0 if world.domain is None else world.domain.stats.table_pages
    assert tables <= 1
    assert world.frames.free_count == world.frames.count - tables
    assert world.region.users == 0
    assert driver.dev.live == (0, 0)
    if world.domain is not None:
        world.domain.check()
        assert world.domain.mappings() == []
    if world.backend.buffers is not None:
        world.backend.buffers.pool.check()
        assert world.backend.buffers.pool.used == 0


@worlds
def test_the_same_image(make):
    world = make()
    driver = world.drive()
    buffer = world.user_pages()
    # What lies around the buffer, and in it before, must be there afterwards wherever the camera did not write.
    for piece in buffer.pieces:
        page = piece.start.value & ~0xFFF
        world.ram.fill(world.at(page), 0x1000, 0xEE)
    assert driver.stream_on(buffer, bytes_per_line=BPL, lines=LINES) == 0
    size = BPL * LINES
    assert driver.grab() == 0
    assert buffer.read(0, size) == FrameGrabber.pattern(1, size)
    negative = bytes(255 - value for value in range(256))
    driver.set_table(negative)
    assert driver.grab() == 0
    assert buffer.read(0, size) == FrameGrabber.pattern(2, size).translate(negative)
    assert driver.grab() == 0
    driver.stream_off()
    assert buffer.read(0, size) == FrameGrabber.pattern(3, size).translate(negative)
    assert buffer.read(size) == b"\xee" * (buffer.size - size)
    first, last = buffer.pieces[0], buffer.pieces[-1]
    assert world.ram.read(world.at(first.start.value - 0x123), 0x123) == b"\xee" * 0x123
    assert world.ram.read(world.at(last.stop), 0x801) == b"\xee" * 0x801
    nothing_left(world, driver)


@worlds
def test_a_late_write_comes_back_at_the_unmap_too(make):
    world = make()
    driver = world.drive()
    buffer = world.user_pages(0)
    assert driver.stream_on(buffer, bytes_per_line=BPL, lines=LINES) == 0
    driver.camera.capture()  # nobody syncs
    driver.stream_off()
    assert buffer.read(0, BPL * LINES) == FrameGrabber.pattern(1, BPL * LINES)


@worlds
def test_only_a_domain_that_enforces_keeps_the_camera_out_afterwards(make):
    world = make()
    driver = world.drive()
    assert driver.stream_on(world.user_pages(), bytes_per_line=BPL, lines=LINES) == 0
    driver.stream_off()
    if world.domain is not None and world.domain.enforces:
        with pytest.raises(DeviceFault):
            driver.camera.capture()
        assert driver.camera.stopped.doing == "fetch"
        assert driver.grab() != 0
    else:
        driver.camera.capture()
        assert driver.camera.stopped is None


def failures(world):
    """Everything that can be told to fail; a world uses one of the first two."""
    yield world.frames
    yield world.region.allocator
    if world.backend.buffers is not None:
        yield world.backend.buffers.pool


@worlds
def test_whatever_fails_nothing_is_left_behind(make):
    world = make()
    driver = world.drive()
    failed = 0
    for source in failures(world):
        for nth in range(1, 60):
            source.fail_nth(nth)
            answer = driver.stream_on(world.user_pages(), bytes_per_line=BPL, lines=LINES)
            if answer == 0:
                driver.stream_off()
                break
            assert answer == -12
            assert isinstance(driver.dev.last_error, NoMemory)
            failed += 1
            nothing_left(world, driver)
        else:
            pytest.fail("it never succeeds")
        nothing_left(world, driver)
        source.fail_nth(10**9)
    assert failed


def test_a_merged_list_needs_the_smallest_program():
    # Scattered pages look like one buffer behind an IOMMU: no line has to be torn at a page.
    sizes = {}
    for make in (direct, paged):
        world = make()
        driver = world.drive()
        driver.dev.dma_set_max_seg_size(MIB)
        assert driver.stream_on(world.user_pages(0), bytes_per_line=BPL, lines=LINES) == 0
        sizes[make.__name__] = driver._size
    assert sizes == {"direct": (2 * (LINES + 16) + 4) * 4, "paged": (2 * LINES + 4) * 4}


@pytest.mark.parametrize(
    ("segments", "lines", "bpl", "words"),
    [
        (
            [(0x8F00, 0x100), (0x3000, 0x1000)],
            2,
            0x180,
            [0x18000100, 0x8F00, 0x14000080, 0x3000, 0x1C000180, 0x3080],
        ),
        ([(0, 0x3000)], 1, 0x1800, [0x18000FFC, 0, 0x14000804, 0xFFC]),
        ([(0x1000, 4), (0x2000, 4), (0x3000, 4)], 1, 12, [0x18000004, 0x1000, 0x10000004, 0x2000, 0x14000004, 0x3000]),
    ],
)
def test_programs_by_hand(segments, lines, bpl, words):
    assert line_writes(segments, bpl, lines) == words


@pytest.mark.parametrize(
    ("name", "bpl", "lines", "pages", "contiguous", "scattered"),
    [("PAL", 1440, 576, 203, 576, 774), ("NTSC", 1440, 480, 169, 480, 645), ("VGA", 1280, 480, 150, 480, 600)],
)
def test_how_many_writes_the_formats_of_the_time_need(name, bpl, lines, pages, contiguous, scattered):
    assert len(line_writes([(0, pages * 4096)], bpl, lines)) == 2 * contiguous
    assert len(line_writes([(8192 * n, 4096) for n in range(pages)], bpl, lines)) == 2 * scattered


def test_a_frame_that_the_buffer_does_not_hold():
    with pytest.raises(InvalidArgument) as caught:
        line_writes([(0, 100), (200, 100)], 67, 3)
    assert str(caught.value) == "3 lines of 67 bytes in segments of 200 bytes"


@pytest.fixture
def bare():
    world = direct()
    return world, Camera("camera", world.ram, bus=world.bus)


def program(world, *words):
    world.ram.write(world.at(0x1000), struct.pack(f"<{len(words)}I", *words))
    return world.bus.input_space.at(0x1000)


def test_a_camera_that_was_not_started(bare):
    with pytest.raises(NoDevice) as caught:
        bare[1].capture()
    assert str(caught.value) == "camera 'camera' was not started"


def test_a_program_that_never_interrupts(bare):
    world, camera = bare
    camera.start(program(world, 0x70000000, 0x1000))
    camera.longest_program = 10
    with pytest.raises(SwiommuError) as caught:
        camera.capture()
    assert str(caught.value) == "camera 'camera' stopped at 0x1000: no interrupt in 10 instructions"
    assert (camera.stopped.doing, camera.stopped.pc, camera.stopped.fault) == ("run", 0x1000, None)


def test_a_program_that_is_none(bare):
    world, camera = bare
    camera.start(program(world, 0x5000_0001, 0x8000))
    with pytest.raises(SwiommuError) as caught:
        camera.capture()
    assert str(caught.value) == "camera 'camera' stopped at 0x1000: there is no instruction 0x50000001"
    assert (camera.stopped.doing, camera.stopped.instruction) == ("decode", 0x5000_0001)


def test_fetching_and_writing_fail_apart():
    world = paged()
    driver = world.drive()
    assert driver.stream_on(world.user_pages(), bytes_per_line=BPL, lines=LINES) == 0
    camera = driver.camera
    writes = CpuMemory(world.ram, driver._cpu.pieces)
    words = list(struct.unpack(f"<{driver._size // 4}I", writes.read(0, driver._size)))
    words[5] = 0x1000  # the second line goes astray
    writes.write(struct.pack(f"<{len(words)}I", *words))
    with pytest.raises(DeviceFault):
        camera.capture()
    assert (camera.stopped.doing, camera.stopped.pc) == ("write", driver._handle.value + 16)
    writes.write(struct.pack("<2I", 0x9000_0100, 0x2000))
    camera.start(driver._handle)
    with pytest.raises(DeviceFault):
        camera.capture()
    assert camera.stopped.doing == "read"


def test_a_driver_that_promises_more_lines_than_the_camera_has():
    world = World(HIGH)
    world.bus = DirectBus(BusSpace("soc", width=40), world.space)
    world.backend = DirectDma(world.bus, world.ram, [world.frames])
    driver = world.drive()
    driver.dev.dma_set_mask((1 << 40) - 1)
    address = driver.dev.dma_map_single(world.at(HIGH), 4096, DmaDirection.FROM_DEVICE)
    assert driver.dev.dma_mapping_error(address) == 0
    with pytest.raises(OutOfRange) as caught:
        driver.camera.write(address, b"x")
    assert str(caught.value) == (
        "device 'camera' can't drive 1 bytes at BusAddr(soc:0x900000000): its mask is 0xffffffff"
    )
