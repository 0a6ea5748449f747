"""The point of it all: one driver, unchanged, with translation hardware and without."""

import pytest

from swiommu.address import BusSpace, PhysSpace
from swiommu.device import FrameGrabber, GrabberDriver
from swiommu.errors import NoMemory
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.memory import Frames, SparseRam
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


WORLDS = [without_hardware, with_the_bitmap_of_cma, with_hardware, with_hardware_and_scattered_memory]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
def test_the_driver_sees_its_frames(world):
    domain = world()
    camera = FrameGrabber("camera", SparseRam(ram))
    domain.attach(camera)
    driver = GrabberDriver(camera)
    for number, size in enumerate((1, 4096, 5000, 640 * 480 * 2, 3 * MIB + 17), 1):
        assert driver.grab(size) == FrameGrabber.pattern(number, size)
    assert domain.mappings() == []
    assert domain.stats.maps >= 5
    assert domain.stats.unmaps == 5
    domain.check()
    domain.detach(camera)
    domain.destroy()


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
    camera.dma_mask = 0xFFF
    driver = GrabberDriver(camera)
    with pytest.raises(Exception, match="can't drive"):
        driver.grab(100)
    assert domain.mappings() == []


def test_frames_differ():
    assert len({FrameGrabber.pattern(number, 64) for number in range(1, 250)}) == 249
