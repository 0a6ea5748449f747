from types import SimpleNamespace

import pytest

from swiommu.address import Access, BusSpace, PhysRange, PhysSpace, Prot
from swiommu.device import BusDevice, FrameGrabber, GrabberDriver
from swiommu.errors import Busy, DeviceFault, InvalidArgument, NoDevice, OutOfRange, SpaceMismatch
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.layer import FaultKind, Graph, Memory, Node, Paged, Router, Span, TranslationCache, Window, connect
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable
from swiommu.region import Region

ram = PhysSpace("ram", width=40)
bus = BusSpace("bus", width=48)


def paged(space=bus):
    return PagedDomain(space, frames=Frames(ram.at(0x4000_0000), 1 << 20), output_space=ram)


@pytest.fixture
def memory():
    return SparseRam(ram)


@pytest.fixture
def device(memory):
    return BusDevice("nic", memory)


def test_bytes_go_where_the_pieces_are(device, memory):
    domain = paged()
    domain.attach(device)
    ring = domain.bind([PhysRange(ram.at(0x8000_0F00), 0x100), PhysRange(ram.at(0x9000_0000), 0x100)])
    data = bytes(range(256)) * 2
    device.write(ring.iova.start, data)
    assert memory.read(ram.at(0x8000_0F00), 0x100) == data[:0x100]
    assert memory.read(ram.at(0x9000_0000), 0x100) == data[0x100:]
    assert device.read(ring.iova.start + 0x80, 0x100) == data[0x80:0x180]


def test_a_burst_moves_up_to_the_first_failing_byte(device, memory):
    domain = paged()
    domain.attach(device)
    domain.map(bus.at(0x8000), ram.at(0x5000_0000), 0x1000)
    with pytest.raises(DeviceFault) as caught:
        device.write(bus.at(0x8FFC), b"abcdefgh")
    error = caught.value
    assert str(error) == (
        "device 'nic' transferred 4 of 8 bytes: translation fault of WRITE access at 0x9000 in layer 'bus'"
    )
    assert (error.transferred, error.fault.kind, error.fault.iova) == (4, FaultKind.TRANSLATION, 0x9000)
    assert memory.read(ram.at(0x5000_0FFC), 8) == b"abcd\0\0\0\0"
    with pytest.raises(DeviceFault) as caught:
        device.read(bus.at(0x8FFC), 8)
    assert caught.value.data == b"abcd"


def test_permissions_hold_where_they_are_enforced(device):
    domain = paged()
    domain.attach(device)
    domain.map(bus.at(0x8000), ram.at(0x5000_0000), 0x1000, Prot.READ)
    assert device.read(bus.at(0x8000), 4) == bytes(4)
    with pytest.raises(DeviceFault) as caught:
        device.write(bus.at(0x8000), b"x")
    assert (caught.value.fault.kind, caught.value.fault.access) == (FaultKind.PERMISSION, Access.WRITE)
    assert caught.value.transferred == 0


def test_after_release_only_an_enforcing_domain_keeps_the_device_out(device, memory):
    domain = paged()
    domain.attach(device)
    buffer = domain.alloc(4096)
    domain.release(buffer)
    with pytest.raises(DeviceFault):
        device.write(buffer.iova.start, b"late")
    domain.detach(device)
    linear = LinearDomain(bus, Region(ram.at(0x4000_0000), 1 << 20))
    linear.attach(device)
    buffer = linear.alloc(4096)
    linear.release(buffer)
    device.write(buffer.iova.start, b"late")
    assert memory.read(ram.at(0x4000_0000), 4) == b"late"


def test_no_domain(device):
    for call in (lambda: device.read(bus.at(0), 1), lambda: device.write(bus.at(0), b"x")):
        with pytest.raises(NoDevice) as caught:
            call()
        assert str(caught.value) == "device 'nic' is not attached to a domain"
    with pytest.raises(NoDevice) as caught:
        GrabberDriver(FrameGrabber("camera", device.ram)).grab(4)
    assert str(caught.value) == "device 'camera' is not attached to a domain"


def test_the_mask_bounds_the_device_and_what_the_domain_gives_it(device, memory):
    domain = paged()
    assert domain.alloc(4096).iova.start.value > 1 << 32
    domain.attach(device)
    low = domain.alloc(4096)
    assert low.iova.stop == 1 << 32
    narrow = BusDevice("isa", memory, dma_mask=0xFF_FFFF)
    domain.attach(narrow)
    assert domain.alloc(4096).iova.stop == 1 << 24
    assert domain.alloc(4096, limit=1 << 40).iova.stop <= 1 << 24
    with pytest.raises(OutOfRange) as caught:
        narrow.read(low.iova.start, 2)
    assert str(caught.value) == "device 'isa' can't drive 2 bytes at BusAddr(bus:0xfffff000): its mask is 0xffffff"
    domain.detach(narrow)
    assert domain.alloc(4096).iova.start.value == 0xFFFFE000
    domain.detach(device)
    assert domain.alloc(4096).iova.start.value > 1 << 32


@pytest.mark.parametrize("mask", [0, -1, 0x1000, 0xFFFE])
def test_a_mask_that_is_none(memory, mask):
    with pytest.raises(InvalidArgument) as caught:
        BusDevice("odd", memory, dma_mask=mask)
    assert str(caught.value) == f"a DMA mask is 2**n - 1, not {mask:#x}"


def test_attach_and_detach(device):
    first, second = paged(), paged(BusSpace("other"))
    first.attach(device)
    assert first.devices == (device,)
    attached = "device 'nic' is attached to the domain of 'bus'"
    unfit = ", and the domain of 'other' can't be stacked on that: it leads to 'ram'"
    for domain, policy, text in ((first, "stack", ""), (second, "refuse", ""), (second, "stack", unfit)):
        with pytest.raises(Busy) as caught:
            domain.attach(device, policy)
        assert str(caught.value) == attached + text
    with pytest.raises(NoDevice) as caught:
        second.detach(device)
    assert str(caught.value) == "device 'nic' is not attached to the domain of 'other'"
    with pytest.raises(Busy) as caught:
        first.destroy()
    assert str(caught.value) == "the domain of 'bus' has 1 devices and 0 mappings"
    first.detach(device)
    assert (first.devices, device.domain) == ((), None)
    first.destroy()
    with pytest.raises(InvalidArgument) as caught:
        first.attach(device)
    assert str(caught.value) == "the domain of 'bus' was destroyed"
    assert device.domain is None


def test_addresses_from_before_a_new_attachment_are_type_errors(device):
    first, second = paged(BusSpace("bus", width=32)), paged(BusSpace("bus", width=32))
    first.attach(device)
    stale = first.alloc(4096)
    first.detach(device)
    second.attach(device)
    second.alloc(4096)
    with pytest.raises(SpaceMismatch) as caught:
        device.read(stale.iova.start, 1)
    assert isinstance(caught.value, TypeError)
    assert str(caught.value) == "BusAddr(bus:0xfffff000) is no address of the space 'bus'"
    for call in (
        lambda: second.map(stale.iova.start, ram.at(0), 4096),
        lambda: second.unmap(stale.iova.start, 4096),
        lambda: second.iova_to_phys(stale.iova.start),
    ):
        with pytest.raises(SpaceMismatch):
            call()


def test_a_device_on_another_memory():
    device = BusDevice("lost", SparseRam(PhysSpace("elsewhere")))
    domain = paged()
    domain.attach(device)
    with pytest.raises(SpaceMismatch) as caught:
        device.read(bus.at(0), 1)
    assert str(caught.value) == "device 'lost' is on memory 'elsewhere', its domain leads to 'ram'"


def test_a_burst_of_nothing(device):
    paged().attach(device)
    with pytest.raises(InvalidArgument) as caught:
        device.read(bus.at(0), 0)
    assert str(caught.value) == "0 bytes at 0x0 can't be accessed: at least 1 at 0 or above"


def test_a_burst_over_two_memories_lands_in_both(memory):
    vram = SparseRam(PhysSpace("vram", width=32))
    spans = Span(0x1000, 0x1000, 0x8000), Span(0x2000, 0x1000, -0x2000, port=1)
    router = Node(Router("gpu", *spans), input_space=bus)
    connect(router, Node(Memory("dram", memory)), Node(Memory("vram", vram)))
    device = BusDevice("gpu", memory)
    device.bus = SimpleNamespace(input_space=bus, output_space=ram, translate=router.translate)
    device.write(bus.at(0x1FFE), b"abcd")
    assert memory.read(ram.at(0x9FFE), 4) == b"ab\0\0"
    assert memory.read(ram.at(0), 2) == bytes(2)  # what is vram's is not written to the same number in dram
    assert vram.read(vram.space.at(0), 2) == b"cd"
    assert device.read(bus.at(0x1FFD), 4) == b"\0abc"


def test_a_device_says_who_it_is_to_the_caches_on_its_way(memory):
    domain = paged()
    domain.node.tlb = TranslationCache()
    devices = [BusDevice(name, memory) for name in ("nic", "disk")]
    for each in devices:
        domain.attach(each)
    domain.map(bus.at(0x8000), ram.at(0x5000_0000), 0x1000)
    for each in devices:
        each.read(bus.at(0x8000), 4)
        each.read(bus.at(0x8000), 4)
    assert [line.stream for line in domain.node.tlb] == devices
    assert (domain.node.tlb.hits, domain.node.tlb.misses) == (2, 2)


# -- on a node of a graph


def test_a_device_on_a_window_writes_where_it_leads():
    space = PhysSpace("ram")
    ram = SparseRam(space)
    graph = Graph()
    graph.add(Memory("ram", ram, base=0x4000_0000, size=1 << 20))
    window = graph.add(Window("bus", Span(0x1000, 0x2000, 0x3FFF_F000)), on="ram")
    device = BusDevice("nic", ram, bus=window)
    device.write(window.input_space.at(0x1800), b"hello")
    assert ram.read(space.at(0x4000_0800), 5) == b"hello"
    assert device.read(window.input_space.at(0x1800), 5) == b"hello"
    with pytest.raises(DeviceFault) as caught:
        device.read(window.input_space.at(0x2FFE), 8)
    assert (caught.value.transferred, str(caught.value)) == (
        2,
        "device 'nic' transferred 2 of 8 bytes: range fault of READ access at 0x3000 in layer 'bus'",
    )


def test_a_device_on_a_table_or_an_open_end_reaches_its_memory():
    space = PhysSpace("ram")
    ram = SparseRam(space)
    table = RadixTable(MOCK, CountingTables())
    table.map(0x1000, 0x8000, 0x1000, Prot.READ | Prot.WRITE)
    node = Node(Paged("iommu", table))
    device = BusDevice("nic", ram, bus=node)
    device.write(node.input_space.at(0x1004), b"open")
    assert ram.read(space.at(0x8004), 4) == b"open"


def test_a_device_whose_memory_is_nowhere_below_is_told():
    other = SparseRam(PhysSpace("elsewhere"))
    node = Node(Window("bus", Span(0, 0x1000, 0)))
    connect(node, Node(Memory("ram", SparseRam(PhysSpace("ram")))))
    with pytest.raises(SpaceMismatch) as caught:
        BusDevice("lost", other, bus=node).read(node.input_space.at(0), 1)
    assert str(caught.value) == "device 'lost' is on memory 'elsewhere', its bus leads to 'ram'"
