"""What is pickled or copied comes back sound, answers the same, and has nothing in common with the original."""

import copy
import pickle
import subprocess
import sys
import threading

import attrs
import pytest

from cma_compat import CmaContext, cma_device, cma_region
from swiommu.address import Access, BusSpace, PhysRange, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.dma import DirectBus, DirectDma, DmaDevice, DmaDirection, IommuDma, LinearDma, SwiotlbPool
from swiommu.errors import InputError, NoMemory, NotFound, SpaceMismatch
from swiommu.iommu import LinearDomain, LinuxIova, PagedDomain
from swiommu.iommu.groups import DomainType, Hardware, IommuCore
from swiommu.layer import ChangeLog, FlatTable, Graph, Memory, Node, Paged, Span, TranslationCache, Walker, Window
from swiommu.memory import Bootmem, Frames, Memblock, SparseRam, SystemMap
from swiommu.pagetable import MOCK, CountingTables, RadixTable
from swiommu.pagetable.formats import FORMATS, amd_v1, arm_lpae, riscv, vtd_ss, x86_64
from swiommu.region import Guarantee, Lending, LentPages, Region, allocator_names
from swiommu.stackfile import bundled_stacks, read_stack

PAGE, MIB = 4096, 1 << 20
BASE = 0x4000_0000
TO = DmaDirection.TO_DEVICE


def by_pickle(thing):
    return pickle.loads(pickle.dumps(thing))


both = pytest.mark.parametrize("again", [by_pickle, copy.deepcopy], ids=["pickle", "deepcopy"])


def space(width=40):
    return PhysSpace("ram", width=width)


def paged(ram=None, **options):
    ram = ram or space()
    made = PagedDomain(BusSpace("bus", width=32), frames=Frames(ram.at(BASE), 16 * MIB), output_space=ram, **options)
    made.alloc(3 * PAGE)
    made.release(made.alloc(MIB))
    made.map(made.input_space.at(0x10_0000), ram.at(0), 4 * PAGE)
    return made


def stacked():
    lower = paged(in_use="notify")
    upper = PagedDomain(BusSpace("guest", width=32), below=lower)
    upper.alloc(2 * PAGE)
    upper.map(upper.input_space.at(0x8000), lower.input_space.at(0x10_0000), PAGE)
    return upper


def linear():
    domain = LinearDomain(BusSpace("soc", width=40), Region(space().at(BASE), MIB), delta=0x1000_0000)
    domain.alloc(2 * PAGE)
    return domain


def attached():
    ram = SparseRam(space())
    end = Node(Memory("ram", ram))
    frames = Frames(ram.space.at(BASE), 16 * MIB)
    domain = PagedDomain(BusSpace("bus", width=32), frames=frames, output_space=ram.space, memory=end)
    nic = BusDevice("nic", ram)
    domain.attach(nic)
    nic.write(domain.alloc(2 * PAGE).iova.start, b"hello")
    return nic


def lending():
    ram = space()
    pages = LentPages(SparseRam(ram), Frames(ram.at(0), MIB))
    area = Lending(BASE, MIB, tenants=pages)
    region = Region(ram.at(BASE), MIB, allocator=area)
    return region, pages, pages.put(area, b"dear")


def driver(kind):
    ram = SparseRam(space())
    frames = Frames(ram.space.at(BASE), 16 * MIB)
    if kind == "direct":
        sources = [frames, Region(ram.space.at(2 * BASE), MIB)]
        bus = DirectBus(BusSpace("soc", width=32), ram.space)
        backend = DirectDma(bus, ram, sources, pool=SwiotlbPool(0x7000_0000, 128))
    elif kind == "linear":
        backend = LinearDma(LinearDomain(BusSpace("soc", width=40), Region(ram.space.at(BASE), MIB)), ram)
    else:
        domain = PagedDomain(BusSpace("bus", width=32), frames=frames, output_space=ram.space)
        backend = IommuDma(domain, ram, pool=SwiotlbPool(0x7000_0000, 128), untrusted=True)
    dev = DmaDevice("nic", backend)
    memory = dev.dma_alloc_coherent(100)
    address = dev.dma_map_single(ram.space.at(BASE + 8 * PAGE + 16), 100, TO)
    assert dev.dma_mapping_error(address) == 0
    return dev, memory, address


def probed():
    ram, core = SparseRam(space()), IommuCore()
    smmu = Hardware(
        name="smmu", bus=BusSpace("pci", width=48), ram=ram.space, frames=Frames(ram.space.at(BASE), 4 * MIB)
    )
    nic = BusDevice("nic", ram)
    core.probe(nic, smmu)
    return core, nic, smmu.alloc(DomainType.UNMANAGED)


def graph():
    made = Graph()
    made.add(Memory("ram", SparseRam(space()), base=BASE, size=MIB))
    made.add(Window("bus", Span(0, MIB, BASE)), on="ram")
    table = RadixTable(MOCK, CountingTables())
    table.map_run(0x8000, 0, PAGE, 3, Prot.READ)
    made.add(Paged("iommu", table), on="bus", walker=Walker.PHYSICAL)
    made.add(FlatTable("gart", base=0, size=MIB), on="bus", walker="ram")
    return made


def cached():
    log, table = ChangeLog(), RadixTable(MOCK, CountingTables())
    node = Node(Paged("iommu", table), tlb=TranslationCache(64, log=log), iotlb=TranslationCache())
    log.watch(node)
    table.map_run(0x8000, 0, PAGE, 3, Prot.READ)
    node.translate(node.input_space.at(0x8000), 4, Access.READ)
    return node


def shim():
    cma = CmaContext()
    pool = cma_region(BASE, MIB, name="pool")
    cma.register_region(pool)
    cma.set_defaults([], "*=pool")
    return cma, cma.alloc(cma_device("nic"), None, 5000)


def scattered():
    domain = paged()
    cma = CmaContext(memory=domain.output_space)
    pool = cma_region(0x8000_0000, MIB, within=domain, alloc_name="bitmap")
    cma.register_region(pool)
    return cma, cma.alloc_from_region(pool, 5000)


ZOO = {
    "paged": paged,
    "lazy": lambda: paged(flush="lazy"),
    "with Linux' addresses": lambda: paged(iova=LinuxIova(), flush="lazy"),
    "stacked": stacked,
    "linear": linear,
    "a device": attached,
    "lending": lending,
    "frames": lambda: Frames(space().at(BASE), MIB),
    "a pool": lambda: SwiotlbPool(0x7000_0000, 128),
    "a promise": lambda: Guarantee(Region(space().at(BASE), 16 * MIB), MIB, 64 * PAGE),
    "a map": lambda: SystemMap.from_lines(
        space(), ["00001000-0009fbff : System RAM", "00002000-00002fff : Kernel code"]
    ),
    "bootmem": lambda: Bootmem(Frames(space().at(BASE), MIB)),
    "memblock": lambda: Memblock([PhysRange(space().at(BASE), MIB)]),
    "direct": lambda: driver("direct"),
    "linear DMA": lambda: driver("linear"),
    "IOMMU DMA": lambda: driver("iommu"),
    "groups": probed,
    "a graph": graph,
    "a cache": cached,
    "the shim": shim,
    "the shim, scattered": scattered,
    "a flat table": lambda: FlatTable("gart", base=BASE, size=MIB),
} | {f"region {name}": lambda name=name: Region(space().at(BASE), MIB, allocator=name) for name in allocator_names()}


def parts(thing):
    return thing if isinstance(thing, tuple) else (thing,)


@both
@pytest.mark.parametrize("what", ZOO)
def test_everything_comes_back(what, again):
    thing = ZOO[what]()
    other = again(thing)
    for one, two in zip(parts(thing), parts(other), strict=True):
        assert type(one) is type(two)
        assert one is not two
        for each in (one, two):
            if hasattr(each, "check"):
                each.check()
        if " object at " not in repr(one):
            assert repr(one) == repr(two)


def answers(domain):
    at = domain.input_space.at
    seen = [domain.iova_to_phys(at(place)) for place in (0, 0x8000, 0x10_0000, 0x10_1234)]
    return (
        [None if found is None else found.value for found in seen],
        [
            (each.iova.start.value, each.size, [(p.start.value, p.size) for p in each.memory])
            for each in domain.mappings()
        ],
        list(domain.table.each_leaf()),
        attrs.asdict(domain.stats),
    )


@both
@pytest.mark.parametrize("make", [paged, stacked, lambda: paged(flush="lazy"), lambda: paged(iova=LinuxIova())])
def test_a_domain_answers_the_same_and_goes_its_own_way(make, again):
    domain = make()
    other, mapping, address = again((domain, domain.mappings()[0], domain.input_space.at(0x10_0000)))
    before = answers(domain)
    assert answers(other) == before
    assert other.iova_to_phys(address) is None or other.iova_to_phys(address).space is other.output_space
    assert (other.input_space is domain.input_space, address.space is other.input_space) == (False, True)
    with pytest.raises(SpaceMismatch):
        other.iova_to_phys(domain.input_space.at(0))
    with pytest.raises(NotFound):
        other.release(domain.mappings()[0])
    other.release(mapping)
    assert [each.iova.start.value for each in (domain.alloc(PAGE), other.alloc(PAGE))]
    domain.release(domain.mappings()[0] if domain.mappings()[0].size == PAGE else domain.mappings()[-1])
    for each in (domain, other, domain.below, other.below):
        if each is not None:
            each.check()


@both
def test_nothing_that_is_done_to_a_copy_is_done_to_the_original(again):
    nic = attached()
    other = again(nic)
    at = other.domain.mappings()[0].iova.start
    other.write(at, b"HELLO")
    assert other.read(at, 5) == b"HELLO"
    assert nic.read(nic.domain.mappings()[0].iova.start, 5) == b"hello"
    assert other.domain.node.lowers[0].layer.ram is other.ram
    assert other.domain.devices == (other,)


@both
def test_what_a_driver_holds_is_held_in_the_copy(again):
    for kind in ("direct", "linear", "iommu"):
        dev, memory, address = again(driver(kind))
        dev.dma_unmap_single(address, 100, TO)
        dev.dma_free_coherent(100, *memory)
        assert dev.live == (0, 0)
        dev.check()


@both
def test_pages_that_are_lent_move_in_the_copy_alone(again):
    region, pages, letter = lending()
    other_region, other_pages, other_letter = again((region, pages, letter))
    other_region.alloc(16 * PAGE)
    assert (other_pages.read(other_letter)[:4], pages.read(letter)[:4]) == (b"dear", b"dear")
    assert (letter.pfn, other_letter.pfn) == (BASE // PAGE, 0)
    assert region.allocator.account().lent == 1


@both
def test_the_shim_frees_in_the_copy(again):
    for make in (shim, scattered):
        cma, address = make()
        other, same = again((cma, address))
        other.free(same)
        assert other.cma_free(same) == -2
        assert cma.cma_free(address) == 0
        for each in (cma, other):
            each.check()


@both
def test_a_graph_keeps_who_reads_through_whom(again):
    other = again(graph())
    other.check()
    assert [node.name for node in other["ram"].readers] == ["gart"]
    top = other["iommu"]
    assert top.translate(top.input_space.at(0x8000), 4, Access.READ)[0].memory == "ram"
    for name in bundled_stacks():
        again(read_stack(name)).check()


@both
def test_entries_of_tables_stay_bytes_of_the_memory(again):
    nic = again(attached())
    domain = nic.domain
    entry = domain.table.root + 8
    word = int.from_bytes(nic.ram.read(domain.memory_space.at(entry), 8), sys.byteorder)
    assert domain.table.entry_at(entry) == word
    nic.ram.write(domain.memory_space.at(entry), (0xAB).to_bytes(8, sys.byteorder))
    assert domain.table.entry_at(entry) == 0xAB
    flat = again(FlatTable("gart", base=BASE, size=MIB))
    flat.map(BASE, 0, PAGE)
    assert flat.stored(0, 4) & 1


@both
def test_locks_are_made_anew(again):
    domain = stacked()
    other = again(domain)
    assert other.lock is other.below.lock
    assert other.lock is not domain.lock
    done = []
    with domain.lock:
        thread = threading.Thread(target=lambda: done.append(other.alloc(PAGE)))
        thread.start()
        thread.join(10)
    assert len(done) == 1


def test_formats_are_the_same_after_a_pickle():
    for form in FORMATS.values():
        assert by_pickle(form) == form
        assert copy.deepcopy(form) is copy.copy(form) is form
    for make in (vtd_ss, x86_64, amd_v1, arm_lpae, riscv):
        newer = make(profile="7.3")
        assert by_pickle(newer) is newer is make(profile="7.3")
    own = attrs.evolve(MOCK, table_entry=lambda oa, _: oa | 1, name="own")
    with pytest.raises(TypeError) as caught:
        pickle.dumps(own)
    assert str(caught.value) == (
        "format 'own' can't be pickled: test_formats_are_the_same_after_a_pickle.<locals>.<lambda> is no function of a "
        "module. A function of a module that makes the format, with @remembered, helps"
    )


def test_another_process_goes_on():
    code = """
import pickle, sys
domain, mapping = pickle.load(sys.stdin.buffer)
domain.check()
domain.below.check()
print(mapping.iova, domain.iova_to_memory(mapping.iova.start))
domain.release(mapping)
print(domain.alloc(4096).iova)
"""
    domain = stacked()
    mapping = domain.mappings()[0]
    sent = pickle.dumps((domain, mapping))
    ran = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=False)
    assert ran.stderr == b""
    said = ran.stdout.decode().splitlines()
    assert said[0] == f"{mapping.iova} {domain.iova_to_memory(mapping.iova.start)}"
    domain.release(mapping)
    assert said[1] == str(domain.alloc(4096).iova)


@pytest.mark.parametrize("what", [what for what in ZOO if what != "a cache"])
def test_a_shallow_copy_is_refused(what):
    thing = parts(ZOO[what]())[0]
    with pytest.raises(TypeError) as caught:
        copy.copy(thing)
    assert str(caught.value) == (
        f"a shallow copy of a {type(thing).__name__} would share its state with the original: use copy.deepcopy"
    )


def test_addresses_and_mappings():
    domain = paged()
    mapping = domain.mappings()[0]
    assert copy.copy(mapping.iova.start) == mapping.iova.start
    domain_, mapping_, start = by_pickle((domain, mapping, mapping.iova.start))
    assert (mapping_.domain, start == mapping_.iova.start) == (domain_, True)
    assert hash(start) == hash(mapping_.iova.start)
    with pytest.raises(SpaceMismatch):
        assert by_pickle(start) == start  # a space of its own


@both
def test_errors_keep_their_numbers(again):
    short = again(NoMemory("no hole of 8192 bytes", size=8192))
    assert (str(short), short.size) == ("no hole of 8192 bytes", 8192)
    bad = again(InputError("number beyond 64 bits", path="t.txt", line=7))
    assert (str(bad), bad.path, bad.line, bad.reason) == (
        "t.txt:7: number beyond 64 bits",
        "t.txt",
        7,
        "number beyond 64 bits",
    )
