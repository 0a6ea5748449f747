"""Numbers of other types become Python's integers wherever they enter: numpy's wrap without a word."""

import re

import pytest

from cma_compat import IS_ERR_VALUE, CmaContext, cma_allocator, cma_chunk, cma_device, cma_region, errno_of, error_value
from swiommu import linux
from swiommu.address import (
    Access,
    BusRange,
    BusSpace,
    PhysRange,
    PhysSpace,
    Prot,
    align_down,
    align_up,
    is_power_of_two,
    order_of,
)
from swiommu.device import BusDevice
from swiommu.dma import (
    DMA_BIT_MASK,
    CpuMemory,
    DirectBus,
    DirectDma,
    DmaDevice,
    DmaDirection,
    DmaLimits,
    Scatterlist,
    SwiotlbPool,
)
from swiommu.errors import NotAnInteger, SwiommuError
from swiommu.iommu import FlushQueue, IotlbGather, IovaDomain, LinearDomain, LinuxIova, PagedDomain, TopDownIova
from swiommu.iommu.groups import DomainType, Hardware, SgEntry, map_sg
from swiommu.layer import Blocked, FlatTable, Identity, Memory, Node, Reserved, Router, Span, Window, access, invalidate
from swiommu.memory import Bootmem, Frames, Memblock, SparseRam
from swiommu.pagetable import MOCK, CountingTables, RadixTable
from swiommu.region import BestFit, Bitmap, Guarantee, Lending, Region, allocator_names, make_allocator

MIB = 1 << 20
BASE = 0x4000_0000
TO = DmaDirection.TO_DEVICE
RAM = PhysSpace("ram", width=48)
BUS = BusSpace("bus", width=40)


class Narrow:
    """An integer of 32 bits, as numpy's: arithmetic wraps, comparisons and hashes are those of the number."""

    def __init__(self, value):
        self.value = int(value)

    def __index__(self):
        return self.value

    __int__ = __index__

    def __hash__(self):
        return hash(self.value)

    def __repr__(self):
        return f"narrow {self.value}"

    def __bool__(self):
        return bool(self.value)


def _wrapping(name):
    def operation(self, other):
        return Narrow(getattr(self.value & 0xFFFF_FFFF, name)(int(other)) & 0xFFFF_FFFF)

    return operation


def _comparing(name):
    return lambda self, other: getattr(self.value, name)(int(other))


for _name in ("add", "sub", "and", "or", "mod", "floordiv", "lshift", "rshift"):
    setattr(Narrow, f"__{_name}__", _wrapping(f"__{_name}__"))
    setattr(Narrow, f"__r{_name}__", _wrapping(f"__r{_name}__"))
for _name in ("__eq__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(Narrow, _name, _comparing(_name))
Narrow.__neg__ = lambda self: Narrow(-self.value & 0xFFFF_FFFF)


def frames():
    return Frames(RAM.at(BASE), MIB)


def paged(**options):
    return PagedDomain(BUS, frames=frames(), output_space=RAM, **options)


def linear(delta=0):
    return LinearDomain(BUS, Region(RAM.at(BASE), MIB), delta=delta)


def driver():
    ram = SparseRam(RAM)
    pool = SwiotlbPool(0x7000_0000, 128)
    return DmaDevice("nic", DirectDma(DirectBus(BUS, RAM), ram, [frames()], pool=pool))


def kernel_domain():
    smmu = Hardware(name="smmu", bus=BusSpace("pci", width=48), ram=RAM, frames=frames())
    return smmu.alloc(DomainType.UNMANAGED)


def context():
    made = CmaContext()
    assert made.cma_region_register(cma_region(BASE, MIB, name="pool")) == 0
    made.cma_set_defaults(None, "*=pool")
    return made


def mapped():
    domain = paged()
    domain.map(BUS.at(0x8000), RAM.at(0x5000), 0x3000)
    return domain


def state(domain):
    domain.check()
    return list(domain.table.each_leaf()), [repr(mapping) for mapping in domain.mappings()], domain.frames.free_count


def after(thing, *calls):
    """What the calls answered, and what they left of a domain."""
    answers = [repr(call(thing)) for call in calls]
    return answers, state(thing) if isinstance(thing, PagedDomain) else repr(thing)


def held_by(allocator, *calls):
    for call in calls:
        call(allocator)
    allocator.check()
    return allocator.holes()


def mapped_by_driver(call):
    dev = driver()
    return [repr(call(dev)), repr(dev.last_error), dev.live]


def synced(call):
    dev = driver()
    address = dev.dma_map_single(RAM.at(0x8_0000_0000), 64, TO)
    call(dev, address)
    return dev.backend.buffers.copied


def freed(size):
    dev = driver()
    cpu, address = dev.dma_alloc_coherent(5000)
    dev.dma_free_coherent(size, cpu, address)
    return dev.live


def held_frames(*calls):
    made = frames()
    for call in calls:
        try:
            call(made)
        except NotAnInteger:
            raise
        except SwiommuError as error:
            return str(error)
    made.check()
    return made.free_runs()


def filled(byte):
    ram = SparseRam(RAM)
    ram.fill(RAM.at(BASE), 4, byte)
    return ram.read(RAM.at(BASE), 6)


def lent(call):
    area = Lending(BASE, MIB)
    call(area)
    area.check()
    return area.account()


def flat(call):
    table = FlatTable("f", base=0x8000_0000, size=MIB)
    call(table)
    return list(table.extents())


def table(call):
    made = RadixTable(MOCK, CountingTables())
    made.map_run(0x8000, 0xFFFF_E000, 0x1000, 3, 3)
    made.map_run(0x20_0000, 0, 0x20_0000, 1, 3)
    answer = call(made)
    made.check()
    return answer, list(made.each_leaf())


def gathered(iova):
    flushed = []
    gather = IotlbGather(lambda start, last: flushed.append((start, last)))
    gather.add_page(iova, 0x1000, 2)
    gather.sync()
    return flushed


def translated(size):
    node = Node(Window("w", Span(0xFFFF_F000, 0x2000)))
    return node.translate(node.input_space.at(0xFFFF_F800), size, Access.READ)


def occupied(*calls):
    pool = SwiotlbPool(BASE, 128)
    for call in calls:
        call(pool)
    pool.check()
    return pool.live(), pool.used


def kernel(call):
    domain = kernel_domain()
    answer = call(domain)
    if answer == -22:
        raise NotAnInteger("what the kernel's functions answer as -EINVAL")
    return answer, list(domain.table.each_leaf())


def shimmed(*calls):
    cma = context()
    answers = [repr(call(cma)) for call in calls]
    cma.check()
    return answers, cma.info_about("pool")


# What is asked, the name in the sentence, a number that is right, the call.
CALLS = {
    "space": ("width", 32, lambda n: BusSpace("b", width=n).limit),
    "at": ("value", 0xFFFF_F000, lambda n: (RAM.at(n) + 8192).value),
    "address +": ("offset", 0xFFFF_F000, lambda n: (RAM.at(8192) + n).value),
    "is_aligned": ("alignment", 0x2000, lambda n: RAM.at(0x1_0000_1000).is_aligned(n)),
    "range": ("size", 0xFFFF_F000, lambda n: PhysRange(RAM.at(0x2000), n).stop),
    "align_up": ("value", 0xFFFF_F001, lambda n: align_up(n, 0x1000)),
    "align_down": ("alignment", 0x1000, lambda n: align_down(0x1_0000_1001, n)),
    "is_power_of_two": ("value", 1 << 32, is_power_of_two),
    "order_of": ("size", 0xFFFF_F001, order_of),
    "Frames size": ("size", MIB, lambda n: Frames(RAM.at(BASE), n).free_count),
    "Frames page": ("page_size", 4096, lambda n: Frames(RAM.at(BASE), MIB, page_size=n).count),
    "Frames max_order": ("max_order", 3, lambda n: Frames(RAM.at(BASE), MIB, max_order=n).has_room(4)),
    "Frames.take": ("order", 3, lambda n: frames().take(n)),
    "Frames.take_pages": ("n", 3, lambda n: frames().take_pages(n)),
    "Frames orders": ("order", 1, lambda n: frames().take_largest_first(4, (n,))),
    "Frames.occupy": ("pfn", 0x40003, lambda n: held_frames(lambda f: f.occupy(n, 4))),
    "Frames.give": ("count", 2, lambda n: held_frames(lambda f: f.occupy(0x40003, 4), lambda f: f.give(0x40004, n))),
    "Frames.is_free": ("pfn", 0x40003, lambda n: frames().is_free(n)),
    "Frames.state": ("pfn", 0x40003, lambda n: frames().state(n)),
    "Frames.has_room": ("order", 3, lambda n: frames().has_room(n)),
    "Frames.set_state": ("count", 1, lambda n: held_frames(lambda f: f.take(1), lambda f: f.set_state(0x40000, n, 3))),
    "Frames.fail_nth": ("n", 2, lambda n: held_frames(lambda f: f.fail_nth(n), lambda f: f.take(0))),
    "SparseRam.read": ("size", 3, lambda n: SparseRam(RAM).read(RAM.at(BASE), n)),
    "SparseRam.fill": ("byte", 5, filled),
    "Bootmem": ("goal", BASE + 0x8000, lambda n: Bootmem(frames()).reserve(0x1000, 0x1000, n)),
    "Memblock": ("size", 0x3000, lambda n: Memblock([PhysRange(RAM.at(BASE), MIB)]).alloc(n, 0x1000)),
    "Memblock.reserve": ("start", BASE, lambda n: Memblock([PhysRange(RAM.at(BASE), MIB)]).reserve(n, 0x1000)),
    "Region": ("size", MIB, lambda n: repr(Region(RAM.at(BASE), n))),
    "Region.alloc": ("size", 5000, lambda n: repr(Region(RAM.at(BASE), MIB).alloc(n))),
    "Region align": ("align", 0x8000, lambda n: repr(Region(RAM.at(BASE), MIB).alloc(5000, n))),
    "Region.fits": ("size", 5000, lambda n: Region(RAM.at(BASE), MIB).fits(n)),
    "Region.reserve": ("size", 5000, lambda n: repr(Region(RAM.at(BASE), MIB).reserve(RAM.at(BASE), n))),
    "Region.explain_failure": ("size", 2 * MIB, lambda n: str(Region(RAM.at(BASE), MIB).explain_failure(n))),
    "Bitmap.alloc_pages": ("count", 3, lambda n: Bitmap(BASE, MIB).alloc_pages(n, 1)),
    "Bitmap.release": ("pfn", 0x40000, lambda n: held_by(Bitmap(BASE, MIB), lambda b: b.release(n, 1))),
    "Bitmap.order_per_bit": ("order_per_bit", 1, lambda n: Bitmap(BASE, MIB, order_per_bit=n).free_bits),
    "Lending.lend": ("count", 3, lambda n: lent(lambda a: a.lend(0x40000, n))),
    "Guarantee": ("total", MIB, lambda n: Guarantee(Region(RAM.at(BASE), 16 * MIB), n, 4096).reserved_bytes),
    "TopDownIova": ("start", 4096, lambda n: TopDownIova(n).free_bytes),
    "TopDownIova.alloc": ("size", 5000, lambda n: TopDownIova().alloc(n, 0xFFFF_FFFF)),
    "TopDownIova.take": (
        "iova",
        0xFFFF_F000,
        lambda n: (iova := TopDownIova(), iova.take(n, 8192), iova.free_bytes)[2],
    ),
    "TopDownIova.reserve": (
        "high",
        0x1_0000_0FFF,
        lambda n: (iova := TopDownIova(), iova.reserve(0xFFFF_F000, n), iova.free_bytes)[2],
    ),
    "LinuxIova.alloc": ("limit_inclusive", 0xFFFF_FFFF, lambda n: LinuxIova().alloc(4096, n)),
    "LinuxIova.take": (
        "size",
        8192,
        lambda n: (iova := LinuxIova(), iova.take(0xFFFF_F000, n), iova._taken)[2].at(0xFFFFF),
    ),
    "IovaDomain": ("granule", 4096, lambda n: IovaDomain(n).dma_32bit_pfn),
    "IovaDomain.alloc": ("size", 3, lambda n: IovaDomain().alloc_iova_fast(n, 0xFFFFF, flush_rcache=True)),
    "FlushQueue": ("cpus", 2, lambda n: len(FlushQueue(print, print, cpus=n)._rings)),
    "PagedDomain cpus": ("cpus", 2, lambda n: paged(flush="lazy", cpus=n).flush_queue is not None),
    "domain.map size": ("size", 0x3000, lambda n: after(paged(), lambda d: d.map(BUS.at(0x8000), RAM.at(0x5000), n))),
    "domain.map paddr": (
        "value",
        0x7FFF_F000,
        lambda n: after(paged(), lambda d: d.map(BUS.at(0x8000), RAM.at(n), 0x3000)),
    ),
    "domain.map iova": (
        "value",
        0xFFFF_F000,
        lambda n: after(paged(), lambda d: d.map(BUS.at(n), RAM.at(0x5000), 0x3000)),
    ),
    "domain.map prot": ("prot", 3, lambda n: after(paged(), lambda d: d.map(BUS.at(0), RAM.at(0), 0x1000, n))),
    "domain.unmap": ("size", 0x2000, lambda n: after(mapped(), lambda d: d.unmap(BUS.at(0x8000), n))),
    "domain.unmap_gathered": (
        "size",
        0x2000,
        lambda n: after(mapped(), lambda d: d.unmap_gathered(BUS.at(0x8000), n, d.gather())),
    ),
    "domain.alloc": ("size", 5000, lambda n: after(paged(), lambda d: d.alloc(n))),
    "domain.alloc align": ("align", 0x8000, lambda n: after(paged(), lambda d: d.alloc(5000, n))),
    "domain.alloc limit": ("limit", 0xFFFF_FFFF, lambda n: after(paged(), lambda d: d.alloc(5000, limit=n))),
    "domain.bind": ("align", 0x8000, lambda n: after(paged(), lambda d: d.bind([PhysRange(RAM.at(0), 1)], align=n))),
    "domain.bind_memory": (
        "align",
        0x8000,
        lambda n: after(paged(), lambda d: d.bind_memory([PhysRange(RAM.at(0), 1)], align=n)),
    ),
    "domain.hold": ("size", 0x2000, lambda n: after(paged(), lambda d: d.hold(BusRange(BUS.at(0x8000), n)))),
    "domain.translate": ("size", 8, lambda n: after(mapped(), lambda d: d.translate(BUS.at(0x8000), n, Access.READ))),
    "domain.memory_behind": ("start", 0x8000, lambda n: after(mapped(), lambda d: d.memory_behind(n, 8))),
    "domain.advance": ("now_ns", 1 << 40, lambda n: after(paged(), lambda d: d.advance(n), lambda d: d.now)),
    "domain.cpu": ("cpu", 1, lambda n: after(paged(cpus=2), lambda d: setattr(d, "cpu", n), lambda d: d.cpu)),
    "LinearDomain": ("delta", 0xF000_0000, lambda n: repr(linear(n).alloc(4096))),
    "LinearDomain.alloc": ("size", 5000, lambda n: repr(linear().alloc(n))),
    "Reserved": ("start or size of a reserved region", 0xFEE0_0000, lambda n: str(Reserved(n, MIB))),
    "Span": ("base", 0xFFFF_F000, lambda n: Window("w", Span(n, 0x2000, 0x1000)).describe()),
    "Router": ("port", 1, lambda n: Router("r", Span(0, 0x2000, 0x1000, port=n)).describe()),
    "Memory": ("base", BASE, lambda n: Memory("m", SparseRam(RAM), base=n, size=MIB).describe()),
    "Identity": ("width", 32, lambda n: Identity("i", width=n).describe()),
    "Blocked": ("width", 32, lambda n: Blocked("b", width=n).describe()),
    "FlatTable": ("base", 0x8000_0000, lambda n: FlatTable("f", base=n, size=MIB).describe()),
    "FlatTable.map": ("to", 0xF_FFFF_F000, lambda n: flat(lambda t: t.map(0x8000_0000, n, 0x2000))),
    "FlatTable.unmap": ("size", 0x1000, lambda n: flat(lambda t: t.unmap(0x8000_0000, n))),
    "access": ("start", 0xFFFF_F800, lambda n: access(Window("w", Span(0xFFFF_F000, 0x2000)), n, 0x1000, Access.READ)),
    "Node.translate": ("size", 0x1000, translated),
    "RadixTable.map_run": ("paddr", 0xFFFF_F000, lambda n: table(lambda t: t.map_run(0, n, 0x1000, 2, 3))),
    "RadixTable.unmap": ("iova", 0x8000, lambda n: table(lambda t: t.unmap(n, 0x2000))),
    "RadixTable.lookup": ("iova", 0x8010, lambda n: table(lambda t: t.lookup(n))),
    "RadixTable.mapped": ("size", 0x2000, lambda n: table(lambda t: list(t.mapped(0x8000, n)))),
    "RadixTable.split": ("cut", 0x20_1000, lambda n: table(lambda t: t.split([n]))),
    "IotlbGather": ("iova", 0xFFFF_F000, gathered),
    "invalidate": ("start", 0xFFFF_F000, lambda n: invalidate(Node(Identity("i")), n, 0x2000)),
    "SwiotlbPool": ("start", 0x7000_0000, lambda n: SwiotlbPool(n, 128).stop),
    "SwiotlbPool.find_slots": ("size", 5000, lambda n: SwiotlbPool(BASE, 128).find_slots(0xFFFF_FE00, n)),
    "SwiotlbPool phys": ("phys", 0x1_0000_0E00, lambda n: SwiotlbPool(BASE, 128).find_slots(n, 1, min_align_mask=4095)),
    "SwiotlbPool.occupy": ("address", BASE, lambda n: occupied(lambda pool: pool.occupy(n, 4096))),
    "SwiotlbPool.release": (
        "address",
        BASE,
        lambda n: occupied(lambda pool: pool.occupy(BASE, 1), lambda p: p.release(n)),
    ),
    "SwiotlbPool.slots_of": ("address", BASE, lambda n: SwiotlbPool(BASE, 128).slots_of(n)),
    "DMA_BIT_MASK": ("bits", 40, DMA_BIT_MASK),
    "DmaLimits": ("a limit of a device", 0xFFFF, lambda n: DmaLimits("nic", dma_mask=n)),
    "Scatterlist": ("a number of bytes", 9, lambda n: Scatterlist(RAM.at(0), n)),
    "CpuMemory.read": ("offset", 9, lambda n: CpuMemory(SparseRam(RAM), [PhysRange(RAM.at(0), 64)]).read(n)),
    "phys_to_dma": ("phys", 0xFFFF_F000, lambda n: DirectBus(BUS, RAM).phys_to_dma(n)),
    "dma_to_phys": ("address", 0xFFFF_F000, lambda n: DirectBus(BUS, RAM).dma_to_phys(n)),
    "dma_set_mask": ("mask", (1 << 40) - 1, lambda n: mapped_by_driver(lambda d: d.dma_set_mask(n))),
    "dma_set_coherent_mask": ("mask", (1 << 40) - 1, lambda n: mapped_by_driver(lambda d: d.dma_set_coherent_mask(n))),
    "dma_set_seg_boundary": ("mask", 0xFFFF, lambda n: mapped_by_driver(lambda d: d.dma_set_seg_boundary(n))),
    "dma_set_max_seg_size": ("size", 0xFFFF, lambda n: mapped_by_driver(lambda d: d.dma_set_max_seg_size(n))),
    "dma_set_min_align_mask": ("mask", 0xFFF, lambda n: mapped_by_driver(lambda d: d.dma_set_min_align_mask(n))),
    "dma_alloc_coherent": ("size", 5000, lambda n: mapped_by_driver(lambda d: d.dma_alloc_coherent(n)[1])),
    "dma_free_coherent": ("size", 5000, freed),
    "dma_map_single": ("size", 5000, lambda n: mapped_by_driver(lambda d: d.dma_map_single(RAM.at(BASE), n, TO))),
    "dma_map_page": ("pfn", 0x40000, lambda n: mapped_by_driver(lambda d: d.dma_map_page(n, 9, 64, TO))),
    "dma_map_sg": ("nents", 1, lambda n: mapped_by_driver(lambda d: d.dma_map_sg([Scatterlist(RAM.at(0), 9)], n, TO))),
    "dma_unmap_single": ("size", 64, lambda n: synced(lambda d, at: d.dma_unmap_single(at, n, TO))),
    "dma_sync_for_cpu": ("size", 32, lambda n: synced(lambda d, at: d.dma_sync_single_for_cpu(at, n, TO))),
    "dma_sync_for_device": ("size", 32, lambda n: synced(lambda d, at: d.dma_sync_single_for_device(at, n, TO))),
    "BusDevice": ("dma_mask", (1 << 40) - 1, lambda n: BusDevice("nic", SparseRam(RAM), dma_mask=n).dma_mask),
    "iommu_map": ("iova", 0xFFFF_F000, lambda n: kernel(lambda d: linux.iommu_map(d, n, 0x8000, 0x3000, 3))),
    "iommu_map paddr": ("paddr", 0xFFFF_F000, lambda n: kernel(lambda d: linux.iommu_map(d, 0x8000, n, 0x3000, 3))),
    "iommu_map prot": ("prot", 3, lambda n: kernel(lambda d: linux.iommu_map(d, 0x8000, 0x8000, 0x3000, n))),
    "iommu_map_sg": ("length", 0x1000, lambda n: kernel(lambda d: map_sg(d, 0x8000, [SgEntry(0xFFFF_F000, n)], 3))),
    "cma_region": ("a number of bytes", MIB, lambda n: cma_region(BASE, n)),
    "cma_device": ("a number of bytes", MIB - 1, lambda n: cma_device("cam", dma_mask=n).dma_mask),
    "CmaContext": ("width", 48, lambda n: CmaContext(width=n, memory=PhysSpace("m", width=48)).space.limit),
    "cma alloc": ("size", 5000, lambda n: shimmed(lambda c: c.alloc(cma_device("cam"), None, n))),
    "cma alloc_from": ("alignment", 0x8000, lambda n: shimmed(lambda c: c.alloc_from("pool", 5000, n))),
    "cma free": ("a bus address", BASE, lambda n: shimmed(lambda c: c.alloc_from("pool", 1), lambda c: c.free(n))),
    "IS_ERR_VALUE": ("value", (1 << 64) - 12, IS_ERR_VALUE),
    "errno_of": ("value", (1 << 64) - 12, errno_of),
    "error_value": ("code", 12, error_value),
} | {
    f"{name}.{call}": (argument, number, make)
    for name in allocator_names()
    for call, argument, number, make in (
        ("init", "size", MIB, lambda n, name=name: make_allocator(name, BASE, n).holes()),
        ("alloc", "align", 0x8000, lambda n, name=name: make_allocator(name, BASE, MIB).alloc(4096, n)),
        (
            "free",
            "start",
            BASE,
            lambda n, name=name: held_by(
                make_allocator(name, BASE, MIB), lambda a: a.alloc(4096, 4096), lambda a: a.free(n, 4096)
            ),
        ),
        (
            "reserve",
            "size",
            8192,
            lambda n, name=name: held_by(make_allocator(name, BASE, MIB), lambda a: a.reserve(BASE, n)),
        ),
        ("fits", "size", 8192, lambda n, name=name: make_allocator(name, BASE, MIB).fits(n, 4096)),
    )
}


@pytest.mark.parametrize("call", CALLS)
def test_a_number_of_another_type_counts_as_the_number(call):
    _, number, make = CALLS[call]
    expected = make(number)
    assert make(Narrow(number)) == expected or repr(make(Narrow(number))) == repr(expected)


@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_integer_is_refused_in_a_sentence(call):
    name, number, make = CALLS[call]
    for wrong in (float(number), str(number), True, None):
        if wrong is None and call == "domain.alloc limit":
            continue  # no limit
        with pytest.raises(TypeError) as caught:
            make(wrong)
        assert isinstance(caught.value, NotAnInteger)
        if not call.startswith("iommu_map"):
            assert re.fullmatch(rf"{name} must be an integer, not {re.escape(repr(wrong))}", str(caught.value))


def test_numpy():
    np = pytest.importorskip("numpy")
    with pytest.raises(OverflowError) as caught:
        PhysSpace("ram").at(np.uint64(2**64 - 4096)) + 8192
    assert str(caught.value) == "0x10000000000001000 is outside the 64-bit space 'ram'"
    domain = paged()
    domain.map(BUS.at(np.int64(0x10000)), RAM.at(np.int32(2**31 - 4096)), np.uint16(4096), np.int8(3))
    assert domain.iova_to_phys(BUS.at(0x10000)) == RAM.at(2**31 - 4096)
    assert domain.unmap(BUS.at(0x10000), np.int64(4096)) == 4096
    for wrong in (np.float64(4096), np.bool_(True), np.array([4096, 4096])):
        with pytest.raises(NotAnInteger):
            RAM.at(wrong)
    domain.check()


def test_allocators_may_answer_numbers_of_another_type():
    class Far(BestFit):
        def alloc(self, size, align):
            return Narrow(super().alloc(size, align))

    region = Region(RAM.at(0x1_4000_0000), MIB, allocator=Far(0x1_4000_0000, MIB))
    chunk = region.alloc(5000, 0x8000)
    assert type(chunk.start.value) is int
    region.free(chunk)
    region.check()


def test_plug_ins_may_answer_numbers_of_another_type():
    plug_in = cma_allocator(
        "far", alloc=lambda reg, size, _: cma_chunk(Narrow(reg.start), Narrow(size)), free=lambda _: 0
    )
    cma = CmaContext(allocators=[plug_in])
    reg = cma_region(0x1_4000_0000, MIB)
    cma.register_region(reg)
    address = cma.alloc_from_region(reg, 5000)
    assert type(address.value) is int
    cma.free(address)
    cma.check()


def test_no_number_that_wraps_stays_in_an_address():
    far = RAM.at(Narrow(0xFFFF_F000)) + Narrow(0x1000)
    assert (type(far.value), far.value) == (int, 0x1_0000_0000)
    assert type(PhysRange(far, Narrow(4096)).size) is int


def test_a_protection_may_be_a_number():
    domain = paged()
    domain.map(BUS.at(0x8000), RAM.at(0x5000), 4096, 1)
    assert domain.table.lookup(0x8000)[2] == Prot.READ
