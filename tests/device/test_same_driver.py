"""The point of it all: one driver, unchanged, with translation hardware and without, and on stacks of it."""

import hashlib

import pytest

from swiommu.address import BusSpace, PhysRange, PhysSpace
from swiommu.device import Camera, CameraDriver, FrameGrabber, GrabberDriver
from swiommu.dma import CpuMemory, DmaDevice, IommuDma
from swiommu.errors import NoMemory
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.layer import Memory, Node, TranslationCache
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK64K, FrameTables
from swiommu.region import Region

MIB = 1 << 20
ram = PhysSpace("ram", width=40)


def without_hardware():
    # Bus addresses are not physical ones: the bridge adds a constant.
    return LinearDomain(BusSpace("camera", width=32), Region(ram.at(0x8000_0000), 16 * MIB), delta=-0x4000_0000)


def with_the_bitmap_of_cma():
    return LinearDomain(BusSpace("camera", width=32), Region(ram.at(0x8000_0000), 16 * MIB, allocator="bitmap"))


def with_hardware():
    return PagedDomain(BusSpace("camera", width=32), frames=Frames(ram.at(0x8000_0000), 16 * MIB), output_space=ram)


def with_hardware_and_scattered_memory():
    frames = Frames(ram.at(0x8000_0000), 16 * MIB)
    frames.occupy(frames.start_pfn, frames.count)
    for pfn in range(frames.start_pfn, frames.start_pfn + frames.count, 2):
        frames.give(pfn, 1)
    return PagedDomain(BusSpace("camera", width=32), frames=frames, output_space=ram)


def bottom(**options):
    frames = Frames(ram.at(0x8000_0000), 16 * MIB)
    return PagedDomain(BusSpace("host", width=40), frames=frames, output_space=ram, **options)


def pool_of_tables():
    return Frames(ram.at(0x9800_0000), MIB)


def over(lower, name, walker="nested", **options):
    if walker == "physical":
        options["frames"] = pool_of_tables()
    return PagedDomain(BusSpace(name, width=36), below=lower, walker=walker, **options)


def two_stages():
    return over(bottom(), "camera")


def two_stages_with_physical_tables():
    return over(bottom(), "camera", "physical")


def two_stages_over_scattered_memory():
    return over(with_hardware_and_scattered_memory(), "guest")


def two_stages_over_bytes():
    # What tables lead through is what lies in memory.
    return over(bottom(memory=Node(Memory("ram", SparseRam(ram)))), "camera")


def three_stages():
    return over(over(bottom(), "guest"), "camera")


def three_stages_with_mixed_walkers():
    return over(over(bottom(), "guest", "physical"), "camera")


def three_stages_with_caches():
    top = over(over(bottom(), "guest"), "camera")
    for domain in (top, top.below, top.below.below):
        domain.node.tlb = TranslationCache(64)
    top.node.iotlb = TranslationCache(64)
    return top


def large_granules_above():
    return over(bottom(), "camera", format=MOCK64K)


def large_granules_below():
    frames = Frames(ram.at(0x8000_0000), 16 * MIB, page_size=0x10000)
    tables = FrameTables(pool_of_tables())
    lower = PagedDomain(
        BusSpace("host", width=40), frames=frames, output_space=ram, format=MOCK64K, tables=tables, orders=(5, 0)
    )
    return over(lower, "camera")


def over_no_hardware():
    # Contiguous memory below, an IOMMU above.
    window = PhysRange(ram.at(0x4000_0000), 0x6000_0000)
    region = Region(ram.at(0x8000_0000), 16 * MIB)
    return over(LinearDomain(BusSpace("host", width=36), region, window=window, delta=0x10000), "camera")


STACKS = [
    two_stages,
    two_stages_with_physical_tables,
    two_stages_over_scattered_memory,
    two_stages_over_bytes,
    three_stages,
    three_stages_with_mixed_walkers,
    three_stages_with_caches,
    large_granules_above,
    large_granules_below,
    over_no_hardware,
]


def contiguous_below_nothing():
    # The reviewer's proposal: a contiguous region of an IOMMU's addresses, and scattered memory below.
    lower = with_hardware_and_scattered_memory()
    backing = lower.alloc(7 * MIB)
    return LinearDomain(BusSpace("shim", width=36), Region(backing.iova.start, backing.size), below=lower)


WORLDS = [
    without_hardware,
    with_the_bitmap_of_cma,
    with_hardware,
    with_hardware_and_scattered_memory,
    contiguous_below_nothing,
    *STACKS,
]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
def test_the_driver_sees_its_frames(world):
    domain = world()
    camera = FrameGrabber("camera", domain.ram or SparseRam(ram))
    domain.attach(camera)
    driver = GrabberDriver(camera)
    for number, size in enumerate((1, 4096, 5000, 640 * 480 * 2, 3 * MIB + 17), 1):
        assert driver.grab(size) == FrameGrabber.pattern(number, size)
    assert domain.mappings() == []
    assert domain.stats.maps >= 5
    assert domain.stats.unmaps == 5
    domain.check()
    domain.detach(camera)
    lower, held = domain.below, 0 if domain.below is None else len(domain.below.uses)
    domain.destroy()
    if lower is not None:
        lower.check()
        assert (held > 0, len(lower.uses), lower.node.uppers) == (
            domain.enforces and domain.node.walker.value == "nested",
            0,
            [],
        )


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
def test_memory_that_is_short_is_short_in_every_world(world):
    domain = world()
    camera = FrameGrabber("camera", SparseRam(ram))
    domain.attach(camera)
    with pytest.raises(NoMemory):
        GrabberDriver(camera).grab(64 * MIB)
    assert camera.frames == 0
    assert GrabberDriver(camera).grab(100) == FrameGrabber.pattern(1, 100)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
def test_the_buffer_goes_back_when_the_device_fails(world, monkeypatch):
    domain = world()
    camera = FrameGrabber("camera", SparseRam(ram))
    domain.attach(camera)
    camera._dma_mask = 0xFFF  # address lines that broke: the domain does not learn of them
    driver = GrabberDriver(camera)
    with pytest.raises(Exception, match="can't drive"):
        driver.grab(100)
    assert domain.mappings() == []


def image(domain):
    """What memory holds after a camera has written two frames through all that is below."""
    memory = domain.ram or SparseRam(ram)
    camera = Camera("camera", memory)
    domain.attach(camera)
    pages = [0x5010_0000 - 0x3000 * n for n in range(17)]
    pieces = [PhysRange(ram.at(pages[0] + 0x123), 0x1000 - 0x123), *(PhysRange(ram.at(p), 0x1000) for p in pages[1:-1])]
    if domain.memory_granule > 0x1000 or (domain.below and not domain.below.enforces):
        pieces = [PhysRange(ram.at(0x5010_0000), 0x20000)]  # what the bottom can't put together from smaller ones
    buffer = CpuMemory(memory, pieces)
    dev = DmaDevice("camera", IommuDma(domain, memory))
    driver = CameraDriver(dev, camera, CpuMemory(memory, [PhysRange(ram.at(0x5800_0040), 256)]))
    assert driver.stream_on(buffer, bytes_per_line=1000, lines=60) == 0
    driver.set_table(bytes(range(255, -1, -1)))
    assert [driver.grab(), driver.grab()] == [0, 0]
    driver.stream_off()
    assert dev.live == (0, 0)
    for lower in (domain, domain.below):
        if lower is not None:
            lower.check()
    assert domain.mappings() == []
    domain.detach(camera)
    return hashlib.sha256(buffer.read(0, 60_000)).hexdigest()


@pytest.mark.parametrize("world", [world for world in WORLDS if world().enforces], ids=lambda world: world.__name__)
def test_the_same_memory_image_in_every_world(world):
    assert image(world()) == image(with_hardware())


def test_frames_differ():
    assert len({FrameGrabber.pattern(number, 64) for number in range(1, 250)}) == 249
