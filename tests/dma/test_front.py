"""The calls by the kernel's names: return values, what they do to bytes, and what no driver may do."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import BusSpace, PhysRange, PhysSpace, Prot
from swiommu.dma import (
    DMA_BIT_MASK,
    DMA_MAPPING_ERROR,
    BounceBuffers,
    CpuMemory,
    DirectBus,
    DirectDma,
    DmaAttr,
    DmaDevice,
    DmaDirection,
    IommuDma,
    LinearDma,
    Scatterlist,
    SwiotlbPool,
)
from swiommu.errors import (
    AddressOverflow,
    DeviceFault,
    InvalidArgument,
    NoMemory,
    NoSpace,
    NotFound,
    NotSupported,
    OutOfRange,
    SpaceMismatch,
)
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.memory import Frames, SparseRam
from swiommu.region import Region

TO, FROM, BOTH, NONE = (
    DmaDirection.TO_DEVICE,
    DmaDirection.FROM_DEVICE,
    DmaDirection.BIDIRECTIONAL,
    DmaDirection.NONE,
)
MIB = 1 << 20
LOW, POOL, HIGH = 0x4000_0000, 0x7800_0000, 0x5_0000_0000
SIZE_MAX = (1 << 64) - 1

space = PhysSpace("ram", width=40)


def direct(*, width=40, ranges=(), pool=True, memory=None, **options):
    ram = SparseRam(space)
    bus = BusSpace("soc", width=width)
    soc = DirectBus(bus, space, [(memory, bus.at(start)) for memory, start in ranges])
    sources = [Frames(space.at(LOW), 4 * MIB)] if memory is None else memory
    slots = SwiotlbPool(POOL, 512) if pool else None
    return DmaDevice("nic", DirectDma(soc, ram, sources, pool=slots, **options))


def linear(*, delta=0, pool=None, size=1 << 30, **options):
    ram = SparseRam(space)
    window = PhysRange(space.at(LOW), size)
    domain = LinearDomain(BusSpace("soc", width=40), Region(space.at(LOW), 4 * MIB), window=window, delta=delta)
    return DmaDevice("nic", LinearDma(domain, ram, pool=pool, **options))


def paged(*, width=48, pool=None, untrusted=False):
    ram = SparseRam(space)
    domain = PagedDomain(BusSpace("iova", width=width), frames=Frames(space.at(LOW), 4 * MIB), output_space=space)
    return DmaDevice("nic", IommuDma(domain, ram, pool=pool, untrusted=untrusted))


def forced():
    return direct(force_bounce=True)


def untrusted():
    return paged(pool=SwiotlbPool(POOL, 512), untrusted=True)


EVERY = pytest.mark.parametrize("make", [direct, forced, linear, paged, untrusted], ids=lambda make: make.__name__)


def used(dev):
    return 0 if dev.backend.buffers is None else dev.backend.buffers.pool.used


def nothing_left(dev):
    dev.check()
    assert (dev.live, used(dev)) == ((0, 0), 0)


# -- one buffer


@EVERY
def test_map_and_unmap(make):
    dev = make()
    phys = space.at(LOW + 0x10_0123)
    for call in (dev.dma_map_single, dev.dma_map_phys):
        address = call(phys, 1500, TO)
        assert dev.dma_mapping_error(address) == 0
        assert dev.live == (1, 0)
        dev.dma_unmap_single(address, 1500, TO)
    address = dev.dma_map_page((LOW >> 12) + 0x100, 0x123, 1500, TO)
    dev.dma_unmap_page(address, 1500, TO)
    nothing_left(dev)


@pytest.mark.parametrize("make", [forced, untrusted], ids=lambda make: make.__name__)
@pytest.mark.parametrize("direction", [TO, FROM, BOTH], ids=lambda direction: direction.name)
def test_when_bytes_are_copied(make, direction):
    dev = make()
    ram = dev.backend.ram
    phys = space.at(HIGH + 0x40)
    ram.write(phys, b"before__")
    address = dev.dma_map_single(phys, 8, direction)
    bounce = space.at(dev._book.holding(address.value, 8).parts[0].bounce)
    assert ram.read(bounce, 8) == b"before__"  # whatever the direction
    ram.write(phys, b"cpu_____")
    ram.write(bounce, b"device__")
    dev.dma_sync_single_for_device(address + 4, 2, direction)
    assert ram.read(bounce, 8) == (b"device__" if direction == FROM else b"devi____")
    ram.write(bounce, b"device__")
    dev.dma_sync_single_for_cpu(address + 2, 4, direction)
    assert ram.read(phys, 8) == (b"cpu_____" if direction == TO else b"cpvice__")
    dev.dma_unmap_single(address, 8, direction)
    assert ram.read(phys, 8) == (b"cpu_____" if direction == TO else b"device__")
    nothing_left(dev)


def test_skipping_the_copy_at_the_unmap():
    dev = forced()
    dev.backend.ram.write(space.at(HIGH), b"cpu")
    address = dev.dma_map_single(space.at(HIGH), 3, FROM)
    dev.backend.ram.write(space.at(address.value), b"dev")
    dev.dma_unmap_single(address, 3, FROM, DmaAttr.SKIP_CPU_SYNC)
    assert dev.backend.ram.read(space.at(HIGH), 3) == b"cpu"
    assert dev.backend.buffers.copied == 3
    nothing_left(dev)


def test_direct_bounces_only_what_is_out_of_reach():
    dev = direct()
    near = dev.dma_map_single(space.at(0xFFFF_F000), 4096, TO)
    assert (near.value, used(dev)) == (0xFFFF_F000, 0)
    far = dev.dma_map_single(space.at(0xFFFF_F800), 4096, TO)
    assert (far.value, used(dev)) == (POOL, 2)
    assert dev.dma_set_mask(DMA_BIT_MASK(40)) == 0
    assert dev.dma_map_single(space.at(HIGH), 4096, TO).value == HIGH
    dev.bus_dma_limit = 0x3FFF_FFFF
    address = dev.dma_map_single(space.at(HIGH), 4096, TO)
    assert dev.dma_mapping_error(address) == -12  # the pool itself is beyond the limit of the bus
    assert str(dev.last_error) == "device 'nic' does not reach the bounce buffer at physical 0x78001000 either"
    assert used(dev) == 2


def test_a_full_pool_is_an_error_value():
    dev = forced()
    held = [dev.dma_map_single(space.at(HIGH), 256 << 10, TO) for _ in range(4)]
    address = dev.dma_map_single(space.at(HIGH), 1, TO)
    assert dev.dma_mapping_error(address) == -12
    assert address.value == DMA_MAPPING_ERROR
    assert str(dev.last_error) == "swiotlb buffer is full (sz: 1 bytes), total 512 (slots), used 512 (slots)"
    for mapped in held:
        dev.dma_unmap_single(mapped, 256 << 10, TO)
    assert dev.dma_mapping_error(dev.dma_map_single(space.at(HIGH), (256 << 10) + 1, TO)) == -12
    nothing_left(dev)


def test_the_mask_decides_where_an_iommu_puts_it():
    dev = paged()
    assert dev.dma_map_single(space.at(HIGH + 0x123), 4096, TO).value == 0xFFFF_E123
    dev.dma_set_mask(DMA_BIT_MASK(48))
    assert dev.dma_map_single(space.at(HIGH + 0x123), 4096, TO).value == (1 << 48) - 0x2000 + 0x123
    dev.bus_dma_limit = 0x7FFF_FFFF
    assert dev.dma_map_single(space.at(HIGH + 0x123), 4096, TO).value == 0x7FFF_E123


def test_no_bus_addresses_left():
    dev = paged()
    dev.dma_set_mask(0x1FFF)
    assert dev.dma_mapping_error(dev.dma_map_single(space.at(HIGH), 4096, TO)) == 0
    assert dev.dma_mapping_error(dev.dma_map_single(space.at(HIGH), 4096, TO)) == -12
    assert isinstance(dev.last_error, NoSpace)


def test_alignment_that_an_iommu_can_not_keep():
    dev = paged()
    dev.dma_set_min_align_mask(0xFFF)
    assert dev.dma_mapping_error(dev.dma_map_single(space.at(HIGH), 1, TO)) == 0
    dev.dma_set_min_align_mask(0x1FFF)
    assert dev.dma_mapping_error(dev.dma_map_single(space.at(HIGH), 1, TO)) == -12
    assert isinstance(dev.last_error, NotSupported)
    assert str(dev.last_error) == "device 'nic' wants address bits 0x1fff kept, beyond the granule 0x1000"
    assert dev.dma_map_sg([Scatterlist(space.at(HIGH), 1)], 1, TO) == 0


@pytest.mark.parametrize(
    ("direction", "attributes", "prot"),
    [
        (TO, DmaAttr.NONE, Prot.READ | Prot.CACHE),
        (FROM, DmaAttr.NONE, Prot.WRITE | Prot.CACHE),
        (BOTH, DmaAttr.PRIVILEGED, Prot.READ | Prot.WRITE | Prot.CACHE | Prot.PRIV),
        (TO, DmaAttr.MMIO, Prot.READ | Prot.MMIO),
    ],
)
def test_what_a_translation_allows(direction, attributes, prot):
    dev = paged()
    dev.dma_map_single(space.at(HIGH), 4096, direction, attributes)
    assert dev.backend.domain.mappings()[0].prot == prot


def test_registers_keep_their_address_on_a_direct_bus_and_never_bounce():
    dev = direct(width=32, ranges=[(PhysRange(space.at(LOW), 1 << 30), 0)], force_bounce=True)
    address = dev.dma_map_resource(space.at(0x1234_5000), 4096, TO)
    assert (address.value, used(dev)) == (0x1234_5000, 0)
    dev.dma_unmap_resource(address, 4096, TO)
    assert dev.dma_mapping_error(dev.dma_map_resource(space.at(HIGH), 4096, TO)) == -12
    shifted = linear(delta=-0x1000_0000)
    assert shifted.dma_map_resource(space.at(0x1234_5000), 4, BOTH).value == 0x1234_5000
    assert shifted.dma_mapping_error(shifted.dma_map_resource(space.at(HIGH), 4, BOTH)) == -12
    with pytest.raises(InvalidArgument) as caught:
        dev.dma_map_page(5, 0, 1, TO, DmaAttr.MMIO)
    assert str(caught.value) == "page 0x5 can't be mapped as MMIO: use dma_map_resource"
    nothing_left(dev)


def test_the_error_value_is_all_ones_of_64_bits_on_every_bus():
    assert DMA_MAPPING_ERROR == (1 << 64) - 1
    dev = direct(width=32, pool=False)
    last = dev.dma_map_single(space.at(0xFFFF_FFFF), 1, TO)  # all ones of the bus is an address like any other
    assert (last.value, dev.dma_mapping_error(last)) == (0xFFFF_FFFF, 0)
    dev.dma_unmap_single(last, 1, TO)
    failed = dev.dma_map_single(space.at(0x1_0000_0000), 1, TO)
    assert (failed.value, dev.dma_mapping_error(failed)) == (DMA_MAPPING_ERROR, -12)
    with pytest.raises(SpaceMismatch) as caught:
        dev.dma_unmap_single(failed, 1, TO)
    assert str(caught.value) == "BusAddr(dma_addr_t:0xffffffffffffffff) is no address of the bus 'soc'"
    nothing_left(dev)


def test_the_last_byte_of_64_bits_can_not_be_mapped():
    wide, bus = PhysSpace("ram", width=64), BusSpace("soc", width=64)
    dev = DmaDevice("nic", DirectDma(DirectBus(bus, wide), SparseRam(wide)))
    assert dev.dma_set_mask_and_coherent(DMA_BIT_MASK(64)) == 0
    failed = dev.dma_map_single(wide.at(DMA_MAPPING_ERROR), 1, TO)
    assert (failed.value, dev.dma_mapping_error(failed)) == (DMA_MAPPING_ERROR, -12)
    assert str(dev.last_error) == "bus address 0xffffffffffffffff is the error value"
    nothing_left(dev)


def test_untrusted_devices_see_only_the_buffer():
    dev = untrusted()
    ram = dev.backend.ram
    ram.fill(space.at(POOL), MIB, 0x55)
    torn = dev.dma_map_single(space.at(HIGH + 0x40), 100, TO)
    [whole] = dev.backend.domain.translate(torn, 4096, 1)
    seen = ram.read(space.at(whole.output), 4096)
    assert seen == bytes(4096)
    fits = dev.dma_map_single(space.at(HIGH), 8192, TO)
    assert dev.backend.domain.iova_to_phys(fits) == space.at(HIGH)
    assert (used(dev), dev.dma_max_mapping_size()) == (2, 256 << 10)
    dev.dma_unmap_single(torn, 100, TO)
    dev.dma_unmap_single(fits, 8192, TO)
    nothing_left(dev)


# -- the linear domain records


def test_bytes_may_be_mapped_twice():
    for dev in (direct(), linear(), paged()):
        first = dev.dma_map_single(space.at(LOW + 0x20_0000), 4096, TO)
        second = dev.dma_map_single(space.at(LOW + 0x20_0000), 4096, TO)
        third = dev.dma_map_single(space.at(LOW + 0x20_0800), 4096, FROM)
        for address, direction in ((first, TO), (third, FROM), (second, TO)):
            assert dev.dma_mapping_error(address) == 0
            dev.dma_unmap_single(address, 4096, direction)
        nothing_left(dev)


def test_outside_the_window():
    dev = linear()
    assert dev.dma_mapping_error(dev.dma_map_single(space.at(HIGH), 4096, TO)) == -12
    assert str(dev.last_error) == (
        "device 'nic' does not reach 4096 bytes at physical 0x500000000: its mask is 0xffffffff"
    )
    dev = linear(pool=SwiotlbPool(POOL, 512), delta=0x1000_0000)
    assert dev.dma_map_single(space.at(HIGH), 4096, TO).value == POOL + 0x1000_0000


# -- coherent memory


@EVERY
def test_coherent_memory(make):
    dev = make()
    first = dev.dma_alloc_coherent(5000)
    assert first is not None
    cpu, handle = first
    assert cpu.size >= 5000
    cpu.write(b"\xff" * cpu.size)
    dev.dma_free_coherent(5000, cpu, handle)
    cpu, handle = dev.dma_alloc_coherent(5000)
    assert cpu.read() == bytes(cpu.size)
    dev.dma_free_coherent(5000, None, handle)
    assert dev.live == (0, 1)
    with pytest.raises(InvalidArgument) as caught:
        dev.dma_free_coherent(4096, cpu, handle)
    text = f"5000 bytes were allocated at {handle.value:#x}, not 4096 bytes of that pointer"
    assert str(caught.value) == text
    with pytest.raises(InvalidArgument):
        dev.dma_free_coherent(5000, CpuMemory(cpu.ram, cpu.pieces), handle)
    dev.dma_free_coherent(5000, cpu, handle)
    with pytest.raises(NotFound) as caught:
        dev.dma_free_coherent(5000, cpu, handle)
    assert str(caught.value) == f"no coherent memory is at bus address {handle.value:#x}"
    assert dev.dma_alloc_coherent(64 * MIB) is None
    assert isinstance(dev.last_error, NoMemory)
    with pytest.raises(InvalidArgument) as caught:
        dev.dma_alloc_coherent(0)
    assert str(caught.value) == "0 bytes can't be allocated: at least 1 is needed"
    nothing_left(dev)


def test_zones_are_tried_in_order_and_what_is_out_of_reach_goes_back():
    high, low = Frames(space.at(HIGH), MIB), Frames(space.at(LOW), MIB)
    area = Region(space.at(0x8000_0000), MIB)
    dev = direct(memory=[high, area, low])
    cpu, handle = dev.dma_alloc_coherent(20_000)
    assert (handle.value, high.free_count) == (0x8000_0000, 256)
    _, second = dev.dma_alloc_coherent(MIB)
    assert second.value == LOW
    assert dev.dma_alloc_coherent(MIB) is None
    dev.dma_set_coherent_mask(DMA_BIT_MASK(40))
    wide, far = dev.dma_alloc_coherent(20_000)
    assert (far.value, high.free_count) == (HIGH, 248)
    dev.dma_free_coherent(20_000, wide, far)
    dev.dma_free_coherent(20_000, cpu, handle)
    assert (high.free_count, area.users) == (256, 0)
    only = direct(memory=[high])
    high.fail_nth(10)
    assert only.dma_alloc_coherent(1) is None
    assert str(only.last_error) == "1 bytes at physical 0x500000000 are beyond the coherent mask 0xffffffff"
    assert direct(memory=[]).dma_alloc_coherent(1) is None
    none = direct(memory=[])
    none.dma_alloc_coherent(1)
    assert str(none.last_error) == "device 'nic' has no memory to allocate from"


# -- masks


def test_masks():
    dev = direct(memory=[Frames(space.at(LOW), 4 * MIB)])
    assert (dev.dma_mask, dev.coherent_dma_mask) == (0xFFFF_FFFF, 0xFFFF_FFFF)
    assert dev.dma_set_mask_and_coherent(DMA_BIT_MASK(40)) == 0
    assert (dev.dma_mask, dev.coherent_dma_mask) == (DMA_BIT_MASK(40), DMA_BIT_MASK(40))
    assert dev.dma_set_mask(DMA_BIT_MASK(24)) == 0  # the DMA zone has memory for it
    assert dev.dma_set_mask(DMA_BIT_MASK(23)) == -5
    assert dev.dma_set_coherent_mask(DMA_BIT_MASK(23)) == -5
    assert dev.dma_set_mask_and_coherent(DMA_BIT_MASK(23)) == -5
    assert dev.dma_mask == DMA_BIT_MASK(24)
    for mask in (0, -1, 0x1000):
        with pytest.raises(InvalidArgument) as caught:
            dev.dma_set_mask(mask)
        assert str(caught.value) == f"a DMA mask is 2**n - 1, not {mask:#x}"
    assert paged().dma_set_mask(DMA_BIT_MASK(13)) == 0
    for bits in (0, 65):
        with pytest.raises(InvalidArgument) as caught:
            DMA_BIT_MASK(bits)
        assert str(caught.value) == f"a DMA mask has 1 to 64 bits, not {bits}"
    assert DMA_BIT_MASK(64) == SIZE_MAX


def test_the_mask_that_is_required():
    assert direct(top_of_ram=0x4040_0000).dma_get_required_mask() == 0x7FFF_FFFF
    assert direct(top_of_ram=HIGH + 1).dma_get_required_mask() == DMA_BIT_MASK(35)
    shown_low = direct(width=32, ranges=[(PhysRange(space.at(LOW), 1 << 30), 0)], top_of_ram=0x4100_0000)
    assert shown_low.dma_get_required_mask() == 0xFF_FFFF
    assert shown_low.dma_set_mask(DMA_BIT_MASK(25)) == -5  # the DMA zone is not shown at all
    hidden = direct(width=32, ranges=[(PhysRange(space.at(LOW), 1 << 30), 0)], top_of_ram=HIGH)
    assert hidden.dma_get_required_mask() == SIZE_MAX
    assert paged().dma_get_required_mask() == 0xFFFF_FFFF
    assert linear().dma_get_required_mask() == 0x7FFF_FFFF


def test_how_much_can_be_mapped_at_once():
    assert direct(top_of_ram=HIGH).dma_addressing_limited()
    assert direct(top_of_ram=HIGH).dma_max_mapping_size() == 256 << 10
    assert not direct(top_of_ram=0x4040_0000).dma_addressing_limited()
    assert direct(top_of_ram=0x4040_0000).dma_max_mapping_size() == SIZE_MAX
    assert direct(top_of_ram=HIGH, pool=False).dma_max_mapping_size() == SIZE_MAX
    dev = forced()
    dev.dma_set_min_align_mask(0xFFF)
    assert dev.dma_max_mapping_size() == 252 << 10
    assert dev.dma_map_single(space.at(HIGH + 0xABC), 252 << 10, TO).value & 0xFFF == 0xABC
    assert paged().dma_max_mapping_size() == SIZE_MAX


def test_limits_that_are_none():
    dev = direct()
    for call, value, text in (
        (dev.dma_set_max_seg_size, 0, "segments of at most 0 bytes can't be: at least 1 is needed"),
        (dev.dma_set_seg_boundary, 0x7FF, "a segment boundary is 2**n - 1 and at least a page, not 0x7ff"),
        (dev.dma_set_seg_boundary, 0x1001, "a segment boundary is 2**n - 1 and at least a page, not 0x1001"),
        (dev.dma_set_min_align_mask, 0x800, "a mask is 2**n - 1, not 0x800"),
    ):
        with pytest.raises(InvalidArgument, match=re.escape(text)):
            call(value)


# -- scatter lists


def pages(*starts, size=4096):
    return [Scatterlist(space.at(start), size) for start in starts]


@EVERY
def test_a_list(make):
    dev = make()
    ram = dev.backend.ram
    sg = pages(LOW + 0x10_0000, LOW + 0x30_0000, LOW + 0x20_0000)
    for number, entry in enumerate(sg):
        ram.fill(entry.phys, 4096, number + 1)
    count = dev.dma_map_sg(sg, 3, BOTH)
    assert count == (1 if make is paged else 3)
    assert sum(entry.dma_length for entry in sg) == 3 * 4096
    assert [entry.dma_address is None for entry in sg] == [number >= count for number in range(3)]
    bounced = make is forced
    dev.dma_sync_sg_for_device(sg, 3, BOTH)
    if bounced:
        ram.fill(space.at(sg[2].dma_address.value), 4096, 9)
    dev.dma_sync_sg_for_cpu(sg, 3, BOTH)
    assert ram.read(sg[2].phys, 2) == (b"\x09\x09" if bounced else b"\x03\x03")
    with pytest.raises(InvalidArgument) as caught:
        dev.dma_unmap_sg(sg, 3, TO)
    start = sg[0].dma_address.value
    assert str(caught.value) == (
        f"unmapping 3 entries TO_DEVICE at {start:#x}, where 3 entries BIDIRECTIONAL are mapped"
    )
    dev.dma_unmap_sg(sg, 3, BOTH)
    assert [(entry.dma_address, entry.dma_length) for entry in sg] == [(None, 0)] * 3
    with pytest.raises(NotFound) as caught:
        dev.dma_unmap_sg(sg, 3, BOTH)
    assert str(caught.value) == "the scatter list is not mapped"
    nothing_left(dev)


def test_unmapping_takes_the_number_that_was_given():
    dev = paged()
    sg = pages(HIGH, HIGH + 0x4000)
    count = dev.dma_map_sg(sg, 2, TO)
    assert count == 1
    with pytest.raises(InvalidArgument) as caught:
        dev.dma_unmap_sg(sg, count, TO)
    assert str(caught.value) == ("unmapping 1 entries TO_DEVICE at 0xffffe000, where 2 entries TO_DEVICE are mapped")
    dev.dma_unmap_sg(sg, 2, TO)
    nothing_left(dev)


def test_the_worked_example_through_a_domain():
    dev = paged()
    sg = [Scatterlist(space.at(HIGH + 0x400), 0xC00), *pages(HIGH + 0x10000, size=0x2000)]
    sg.append(Scatterlist(space.at(HIGH + 0x20000), 0x300))
    assert dev.dma_map_sg(sg, 3, FROM) == 1
    assert (sg[0].dma_address.value, sg[0].dma_length) == (0xFFFF_C400, 0x2F00)
    domain = dev.backend.domain
    for offset, phys in ((0, HIGH + 0x400), (0xC00, HIGH + 0x10000), (0x2C00, HIGH + 0x20000)):
        assert domain.iova_to_phys(sg[0].dma_address + offset) == space.at(phys)
    dev.dma_set_max_seg_size(0x1000)
    more = pages(*(HIGH + 0x2000 * n for n in range(4)))
    assert dev.dma_map_sg(more, 4, FROM) == 4
    dev.dma_unmap_sg(more, 4, FROM)
    dev.dma_set_max_seg_size(1 << 20)
    dev.dma_set_seg_boundary(0x3FFF)
    torn = [*pages(HIGH, size=0x3000), *pages(HIGH + 0x8000, size=0x2000)]
    assert dev.dma_map_sg(torn, 2, FROM) == 2
    assert torn[1].dma_address.value & 0x3FFF == 0


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_list_is_all_or_nothing(fails_at):
    dev = forced()
    dev.backend.buffers.pool.fail_nth(fails_at)
    sg = pages(HIGH, HIGH + 0x4000, HIGH + 0x8000)
    assert dev.dma_map_sg(sg, 3, FROM) == 0
    assert isinstance(dev.last_error, NoMemory)
    assert sg[0].dma_address is None
    nothing_left(dev)
    assert dev.dma_map_sg(sg, 3, FROM) == 3


def test_a_list_without_frames_for_tables():
    dev = paged()
    dev.backend.domain.frames.fail_nth(1)
    assert dev.dma_map_sg(pages(HIGH), 1, FROM) == 0
    assert isinstance(dev.last_error, NoMemory)
    nothing_left(dev)
    dev.backend.domain.check()


def test_lists_that_are_none():
    dev = direct()
    for nents in (0, 2):
        with pytest.raises(InvalidArgument) as caught:
            dev.dma_map_sg(pages(LOW), nents, TO)
        assert str(caught.value) == f"{nents} entries of a scatter list of 1"
    with pytest.raises(InvalidArgument) as caught:
        Scatterlist(space.at(0), 0)
    assert str(caught.value) == "a scatter list entry of 0 bytes: at least 1 is needed"
    with pytest.raises(SpaceMismatch):
        dev.dma_map_sg([Scatterlist(PhysSpace("other").at(0), 1)], 1, TO)
    with pytest.raises(SpaceMismatch) as caught:
        dev.dma_map_sg([Scatterlist(4096, 1)], 1, TO)
    assert str(caught.value) == "4096 is no address of the memory 'ram'"
    with pytest.raises(InvalidArgument) as caught:
        dev.dma_map_sg([*pages(LOW), Scatterlist(space.at(LOW), 1, bus_address=True)], 2, TO)
    assert str(caught.value) == "entry 1 of the scatter list is a peer's bus address: there is nothing to map"
    assert dev.live == (0, 0)


# -- what no driver may do


@EVERY
def test_no_direction(make):
    dev = make()
    phys = space.at(LOW + 0x10_0000)
    address = dev.dma_map_single(phys, 64, BOTH)
    sg = pages(LOW + 0x20_0000)
    assert dev.dma_map_sg(sg, 1, BOTH) == 1
    for call in (
        lambda: dev.dma_map_single(phys, 64, NONE),
        lambda: dev.dma_unmap_single(address, 64, NONE),
        lambda: dev.dma_sync_single_for_cpu(address, 64, NONE),
        lambda: dev.dma_sync_single_for_device(address, 64, NONE),
        lambda: dev.dma_map_sg(sg, 1, NONE),
        lambda: dev.dma_unmap_sg(sg, 1, NONE),
        lambda: dev.dma_sync_sg_for_cpu(sg, 1, NONE),
    ):
        with pytest.raises(InvalidArgument) as caught:
            call()
        assert str(caught.value) == "a mapping has a direction, and NONE is none"
    assert dev.live == (2, 0)


@EVERY
def test_what_is_not_mapped(make):
    dev = make()
    phys = space.at(LOW + 0x10_0000)
    address = dev.dma_map_single(phys, 64, TO)
    with pytest.raises(NotFound) as caught:
        dev.dma_unmap_single(address + 8, 64, TO)
    assert str(caught.value) == f"nothing is mapped at bus address {address.value + 8:#x}"
    for size, direction in ((65, TO), (64, FROM)):
        with pytest.raises(InvalidArgument) as caught:
            dev.dma_unmap_single(address, size, direction)
        assert str(caught.value) == (
            f"unmapping {size} bytes {direction.name} at {address.value:#x}, where 64 bytes TO_DEVICE are mapped"
        )
    with pytest.raises(NotFound) as caught:
        dev.dma_sync_single_for_cpu(address + 60, 5, TO)
    assert str(caught.value) == f"no mapping holds 5 bytes at bus address {address.value + 60:#x}"
    dev.dma_unmap_single(address, 64, TO)
    with pytest.raises(NotFound):
        dev.dma_unmap_single(address, 64, TO)
    with pytest.raises(NotFound):
        dev.dma_sync_single_for_cpu(address, 1, TO)


@EVERY
def test_addresses_of_another_world(make):
    dev = make()
    stranger = BusSpace("soc", width=40).at(0x1000)
    other = PhysSpace("ram", width=40).at(LOW)
    for call in (
        lambda: dev.dma_unmap_single(stranger, 1, TO),
        lambda: dev.dma_mapping_error(stranger),
        lambda: dev.dma_sync_single_for_cpu(stranger, 1, TO),
        lambda: dev.dma_sync_single_for_device(0x1000, 1, TO),
        lambda: dev.dma_free_coherent(1, CpuMemory(dev.backend.ram, [PhysRange(other, 1)]), stranger),
        lambda: dev.dma_map_single(other, 1, TO),
        lambda: dev.dma_map_single(0x1000, 1, TO),
    ):
        with pytest.raises(SpaceMismatch):
            call()
    with pytest.raises(InvalidArgument) as caught:
        dev.dma_map_single(space.at(LOW), 0, TO)
    assert str(caught.value) == "0 bytes can't be mapped: at least 1 is needed"
    with pytest.raises(AddressOverflow) as caught:
        dev.dma_map_single(space.at((1 << 40) - 1), 2, TO)
    assert str(caught.value) == "2 bytes at PhysAddr(ram:0xffffffffff) leave the memory"


def test_backends_that_can_not_be():
    for make, text in (
        (lambda: direct(pool=False, force_bounce=True), "bouncing everything needs a pool"),
        (lambda: paged(untrusted=True), "an untrusted device needs a pool to bounce in"),
        (
            lambda: IommuDma(linear().backend.domain, SparseRam(space)),
            "the domain of 'soc' does not translate: LinearDma serves it",
        ),
    ):
        with pytest.raises(InvalidArgument, match=re.escape(text)):
            make()


# -- buses and buffers


def test_a_bus_with_two_ranges():
    bus = BusSpace("soc", width=32)
    first, second = PhysRange(space.at(0x1_0000_0000), 0x1000), PhysRange(space.at(0x8000_0000), 0x2000)
    soc = DirectBus(bus, space, [(first, bus.at(0x3000)), (second, bus.at(0x4000))])
    assert [soc.phys_to_dma(at) for at in (0x1_0000_0FFF, 0x8000_1FFF, 0x8000_2000, 0)] == [0x3FFF, 0x5FFF, None, None]
    assert [soc.dma_to_phys(at) for at in (0x3000, 0x5FFF, 0x2FFF, 0x6000)] == [0x1_0000_0000, 0x8000_1FFF, None, None]
    runs = soc.translate(bus.at(0x3800), 0x1000, 1)
    assert [(run.input, run.output, run.size) for run in runs] == [
        (0x3800, 0x1_0000_0800, 0x800),
        (0x4000, 0x8000_0000, 0x800),
    ]
    with pytest.raises(DeviceFault) as caught:
        soc.translate(bus.at(0x5800), 0x1000, 1)
    assert (caught.value.fault.address, [run.size for run in caught.value.runs]) == (0x6000, [0x800])
    with pytest.raises(InvalidArgument):
        soc.translate(bus.at(0x3000), 0, 1)
    with pytest.raises(SpaceMismatch):
        soc.translate(BusSpace("soc").at(0x3000), 1, 1)
    with pytest.raises(SpaceMismatch):
        DirectBus(bus, space, [(first, BusSpace("soc").at(0))])
    with pytest.raises(OutOfRange) as caught:
        DirectBus(bus, space, [(first, bus.at(0xFFFF_F001))])
    assert str(caught.value) == "PhysRange(ram:0x100000000+0x1000) at BusAddr(soc:0xfffff001) leaves the 32-bit bus"


def test_memory_in_pieces():
    memory = CpuMemory(SparseRam(space), [PhysRange(space.at(0x5000), 3), PhysRange(space.at(0x1000), 5)])
    memory.write(b"abcdefgh")
    assert (memory.read(2, 3), memory.read(), memory.read(8, 0)) == (b"cde", b"abcdefgh", b"")
    for offset, size in ((0, 9), (-1, 2), (8, 1)):
        with pytest.raises(OutOfRange) as caught:
            memory.read(offset, size)
        assert str(caught.value) == f"{size} bytes from {offset} are not in a buffer of 8 bytes"
    memory.zero()
    assert memory.read() == bytes(8)
    with pytest.raises(InvalidArgument) as caught:
        CpuMemory(memory.ram, [])
    assert str(caught.value) == "memory of no pieces: at least one is needed"


def test_a_bounce_buffer_that_is_not_live():
    buffers = BounceBuffers(SwiotlbPool(POOL, 128), SparseRam(space))
    with pytest.raises(NotFound):
        buffers.unmap(POOL, copy_back=True)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20), st.booleans()), max_size=40))
@settings(max_examples=60)
def test_the_book_finds_what_a_list_would(steps):
    dev = direct(pool=False)
    live = []
    for start, size, ending in steps:
        if ending and live:
            begin, length = live.pop(start % len(live))
            dev.dma_unmap_single(dev.backend.bus.at(begin), length, TO)
        else:
            live.append((dev.dma_map_single(space.at(start), size, TO).value, size))
        held = any(begin <= start and start + size <= begin + length for begin, length in live)
        try:
            dev.dma_sync_single_for_cpu(dev.backend.bus.at(start), size, TO)
        except NotFound:
            assert not held
        else:
            assert held
        dev.check()
        assert dev.live == (len(live), 0)


def test_check_finds_what_is_false():
    dev = direct()
    dev.dma_map_single(space.at(LOW), 1, TO)
    dev._book._starts.append(7)
    with pytest.raises(AssertionError):
        dev.check()
