"""Unmaps that begin in the middle of a large leaf, as AMD's and VT-d's drivers of 6.12 answer them: A.7."""

import pytest

from swiommu import linux
from swiommu.address import BusRange, BusSpace, PhysRange, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.errors import AddressInUse, Busy, InvalidArgument
from swiommu.iommu import PagedDomain
from swiommu.iommu.groups import DomainType, Hardware, IommuCore
from swiommu.layer import TranslationCache
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import DataPageWrite
from swiommu.pagetable.formats import amd_v1, arm_lpae, riscv, vtd_ss, x86_64

RW = Prot.READ | Prot.WRITE
K4, K64, M2, M4, GIB = 1 << 12, 1 << 16, 1 << 21, 1 << 22, 1 << 30
AMD, VTD, FIRST = amd_v1(), vtd_ss(), x86_64()
WALKS = [VTD, vtd_ss(3), vtd_ss(5), FIRST]
DATA = 0x4000_0000


class World:
    def __init__(self, form, **options):
        self.ram, self.bus = PhysSpace("ram", width=50), BusSpace("bus", width=47 if form is not VTD else 48)
        self.frames = Frames(self.ram.at(0), 64 << 20, page_size=form.granule)
        self.domain = PagedDomain(self.bus, frames=self.frames, output_space=self.ram, format=form, **options)
        self.flushed, self.writes = [], []
        invalidation = self.domain.mapper.invalidation
        flush = invalidation.flush_range
        invalidation.flush_range = lambda start, last: (
            self.flushed.append((start, last)),
            flush(start, last),
        )
        self.domain.on_data_page_write.append(self.writes.append)

    def map(self, iova, paddr, size):
        self.domain.map(self.bus.at(iova), self.ram.at(paddr), size, RW)

    def unmap(self, iova, size):
        return self.domain.unmap(self.bus.at(iova), size)

    def where(self, *places):
        found = [self.domain.iova_to_phys(self.bus.at(place)) for place in places]
        return [None if each is None else each.value for each in found]


@pytest.mark.parametrize("leaf", [K64, 1 << 20, M2, 8 << 20, GIB, 4 << 30], ids=lambda size: f"{size >> 10}k")
@pytest.mark.parametrize("place", ["start", "page", "middle", "end"])
def test_amd_takes_the_leaf_whole_and_answers_its_size(leaf, place):
    world = World(AMD)
    world.map(leaf, DATA & -leaf, leaf)
    assert world.domain.table.leaves[leaf] == 1
    offset = {"start": 0, "page": K4, "middle": leaf // 2, "end": leaf - K4}[place]
    assert world.unmap(leaf + offset, K4) == leaf
    assert world.where(leaf, leaf + offset, 2 * leaf - 1) == [None] * 3
    assert (world.domain.stats.unmaps, world.domain.stats.invalidations, world.writes) == (1, 1, [])
    world.domain.hold(BusRange(world.bus.at(leaf), leaf))  # all of its bus addresses are free again
    world.domain.check()
    assert world.unmap(leaf, leaf) == 0


@pytest.mark.parametrize("leaf", [M2, GIB], ids=["2m", "1g"])
@pytest.mark.parametrize("place", ["page", "middle", "end"])
@pytest.mark.parametrize("form", WALKS, ids=lambda form: form.name)
def test_vtd_answers_the_size_and_leaves_the_leaf(form, leaf, place, caplog):
    world = World(form)
    world.map(leaf, DATA & -leaf, leaf)
    before = world.domain.table.dump_bytes(world.domain.table.root)
    offset = {"page": K4, "middle": leaf // 2, "end": leaf - K4}[place]
    assert world.unmap(leaf + offset, K4) == leaf
    assert world.where(leaf, leaf + offset, 2 * leaf - 1) == [DATA, DATA + offset, DATA + leaf - 1]
    assert world.domain.table.dump_bytes(world.domain.table.root) == before
    assert world.writes == [DataPageWrite(leaf, leaf, DATA)]
    sentence = (
        f"the kernel would write into the data page at 0x40000000: it takes the leaf of {leaf:#x} bytes at {leaf:#x} "
        "for a table"
    )
    assert str(world.writes[0]) == sentence
    assert [record.getMessage() for record in caplog.records] == [f"the domain of 'bus': {sentence}"]
    assert world.flushed == [(leaf + offset, 2 * leaf + offset - 1)], "what the driver gathers"
    assert (world.domain.stats.unmaps, world.domain.stats.invalidations) == (1, 1)
    with pytest.raises(AddressInUse):
        world.domain.hold(BusRange(world.bus.at(leaf), K4))
    world.domain.check()
    assert world.unmap(leaf, leaf) == leaf, "as if nothing had been"
    assert world.where(leaf) == [None]
    world.domain.destroy()


def test_vtd_takes_a_leaf_whole_that_an_unmap_begins_with():
    for size in (K4, M2 - K4, M2):
        world = World(VTD)
        world.map(M2, DATA, M2)
        assert (world.unmap(M2, size), world.where(M2, 2 * M2 - 1), world.writes) == (M2, [None, None], [])


def test_what_others_do_in_the_middle():
    for form, answer, left in [
        (amd_v1("7.3"), 0, DATA + K4),
        (vtd_ss(profile="7.3"), 0, DATA + K4),
        (x86_64(profile="7.3"), 0, DATA + K4),
        (riscv(), 0, DATA + K4),
        (riscv(profile="7.3"), 0, DATA + K4),
        (arm_lpae(), K4, None),
        (arm_lpae(stage=2), K4, None),
        (arm_lpae(profile="7.3"), 0, DATA + K4),
    ]:
        world = World(form)
        world.map(M2, DATA, M2)
        assert (world.unmap(M2 + K4, K4), world.where(M2 + K4), world.where(M2)) == (answer, [left], [DATA]), form.name
        world.domain.check()
    for form, block in [(arm_lpae(16384), 32 << 20), (arm_lpae(65536), 512 << 20)]:
        world = World(form)
        world.map(block, DATA & -block, block)
        page = form.granule
        assert (world.unmap(block + page, page), world.where(block, block + page)) == (page, [DATA & -block, None])


# -- the range goes on behind the leaf


def beside(form, **options):
    """Two leaves of 2 MiB, three pages; a hole."""
    world = World(form, **options)
    world.map(M2, DATA, 2 * M2)
    world.map(3 * M2, 0x5000_1000, 3 * K4)
    return world


def left(world):
    """Which of the leaves of `beside` are still there."""
    return [found is not None for found in world.where(M2, 2 * M2, 3 * M2, 3 * M2 + K4, 3 * M2 + 2 * K4)]


@pytest.mark.parametrize(
    ("iova", "size", "answer", "there"),
    [
        # what was counted of a leaf is not counted again: the core goes on 2 MiB behind where it began
        (M2 + K4, M2, M2, [0, 1, 1, 1, 1]),
        (M2 + K4, M2 + K4, 2 * M2, [0, 0, 1, 1, 1]),
        (2 * M2 + K4, M2, M2, [1, 0, 1, 1, 1]),
        (2 * M2 + K4, M2 + K4, M2 + K4, [1, 0, 1, 0, 1]),
        (2 * M2 - K4, 2 * K4, M2, [0, 1, 1, 1, 1]),
        (M2 + K4, 2 * M2 + K4, 2 * M2 + K4, [0, 0, 1, 0, 1]),
        (3 * M2 + K4, M2, 2 * K4, [1, 1, 1, 0, 0]),
    ],
)
def test_amd_goes_on_behind_what_it_counted(iova, size, answer, there):
    world = beside(AMD)
    assert world.unmap(iova, size) == answer
    assert left(world) == [bool(each) for each in there]
    world.domain.check()
    assert world.domain.stats.invalidations == 1
    (flushed,) = world.flushed
    assert flushed[0] == min(iova, iova & -M2 if iova < 3 * M2 else iova)
    assert flushed[1] == iova + answer - 1


@pytest.mark.parametrize(
    ("iova", "size", "answer", "there", "writes", "flushed"),
    [
        # one call of the driver clears 2 MiB from where it begins: pages behind the leaf go, leaves in part stay
        (2 * M2 + K4, K4, M2, [1, 1, 0, 1, 1], [2], [(2 * M2 + K4, 3 * M2 + K4 - 1)]),
        (3 * M2 - K4, K4, M2, [1, 1, 0, 0, 0], [2], [(3 * M2 - K4, 4 * M2 - K4 - 1)]),
        (M2 + K4, K4, M2, [1, 1, 1, 1, 1], [1, 2], [(M2 + K4, 2 * M2 + K4 - 1)]),
        (2 * M2 - K4, 2 * K4, M2, [1, 1, 1, 1, 1], [1, 2], [(2 * M2 - K4, 3 * M2 - K4 - 1)]),
        (M2 + K4, M2 + K4, M2 + K4, [1, 1, 1, 1, 1], [1, 2], [(M2 + K4, 2 * M2 + 2 * K4 - 1)]),
        (
            M2 + K4,
            2 * M2 + K4,
            2 * M2 + K4,
            [1, 1, 0, 0, 1],
            [1, 2],
            [(M2 + K4, 2 * M2 + K4 - 1), (2 * M2 + K4, 3 * M2 + 2 * K4 - 1)],
        ),
        # small pages straight on into a leaf that they end in
        (3 * M2, K4, K4, [1, 1, 0, 1, 1], [], [(3 * M2, 3 * M2 + K4 - 1)]),
    ],
)
def test_vtd_clears_as_many_bytes_from_where_it_begins(iova, size, answer, there, writes, flushed):
    world = beside(VTD)
    assert world.unmap(iova, size) == answer
    assert left(world) == [bool(each) for each in there]
    assert [write.iova // M2 for write in world.writes] == writes
    assert world.flushed == flushed
    world.domain.check()


def test_small_pages_straight_on_into_a_leaf():
    """With less than a leaf behind the border the core asks for small pages across it, in one call."""
    for form, answer, there, writes in [(AMD, M2 + K4, None, 0), (VTD, 2 * K4, DATA, 1), (riscv(), M2 + K4, None, 0)]:
        world = World(form)
        world.map(M2 - K4, 0x5000_0000, K4)
        world.map(M2, DATA, M2)
        assert world.unmap(M2 - K4, 2 * K4) == answer, form.name
        assert (world.where(M2 - K4, M2), len(world.writes)) == ([None, there], writes)
        world.domain.check()


def test_vtd_does_nothing_beyond_the_width_of_its_table():
    world = World(vtd_ss(3))
    last = (1 << 39) - M2
    world.map(last, DATA, M2)
    assert (world.unmap(last + K4, K4), world.where(last), world.writes) == (M2, [DATA], [])


# -- what else the domain knows


def test_lazily_what_went_waits_for_the_flush():
    for form, exposed, free in [(AMD, M2, True), (VTD, 0, False)]:
        world = World(form, flush="lazy")
        world.map(M2, DATA, M2)
        assert world.unmap(M2 + K4, K4) == M2
        assert (world.domain.exposure.bytes, world.domain.stats.unmaps) == (exposed, 1)
        with pytest.raises(AddressInUse):
            world.domain.hold(BusRange(world.bus.at(M2), M2))
        world.domain.flush()
        if free:
            world.domain.hold(BusRange(world.bus.at(M2), M2))
        else:
            with pytest.raises(AddressInUse):
                world.domain.hold(BusRange(world.bus.at(M2), M2))
        world.domain.check()


@pytest.mark.parametrize("form", [AMD, VTD], ids=lambda form: form.name)
def test_gathered_it_is_the_same(form):
    world = World(form)
    world.map(M2, DATA, M2)
    gather = world.domain.gather()
    assert world.domain.unmap_gathered(world.bus.at(M2 + K4), K4, gather) == M2
    assert (world.flushed, len(world.writes)) == ([], form is VTD)
    with pytest.raises(AddressInUse):
        world.domain.hold(BusRange(world.bus.at(M2), M2))
    gather.sync()
    assert len(world.flushed) == 1
    world.domain.check()
    if form is AMD:
        world.domain.hold(BusRange(world.bus.at(M2), M2))


@pytest.mark.parametrize("form", [AMD, VTD], ids=lambda form: form.name)
def test_a_mapping_that_was_torn_by_hand_is_released(form):
    world = World(form)
    free = world.frames.free_count
    mapping = world.domain.bind([PhysRange(world.ram.at(DATA + place * 4 * M2), M2) for place in range(3)])
    start = mapping.iova.start.value
    assert start % M2 == 0
    assert world.unmap(start + M2 + K4, K4) == M2
    assert world.where(start, start + M2, start + 2 * M2) == [
        DATA,
        DATA + 4 * M2 if form is VTD else None,
        DATA + 8 * M2,
    ]
    with pytest.raises(AddressInUse):
        world.domain.hold(BusRange(world.bus.at(start + M2), M2))
    world.domain.check()
    world.domain.release(mapping)
    world.domain.check()
    assert not any(world.domain.table.leaves.values())
    world.domain.hold(BusRange(world.bus.at(start), 3 * M2))
    world.domain.drop(BusRange(world.bus.at(start), 3 * M2))
    world.domain.destroy()
    assert world.frames.free_count == free + 1


def test_what_was_cached_of_the_leaf_is_forgotten():
    world = World(AMD)
    cache = world.domain.node.tlb = TranslationCache()
    memory = SparseRam(world.ram)
    nic = BusDevice("nic", memory)
    world.domain.attach(nic)
    world.map(M2, DATA, M2)
    for offset in (0, K4, M2 - K4):
        world.domain.translate(world.bus.at(M2 + offset), 4, 1)
    assert len(cache)
    assert world.unmap(M2 + K4, K4) == M2
    assert len(cache) == 0


# -- domains above and below


def test_in_a_stack_it_is_refused_unless_the_kernel_is_asked_for():
    for form in (AMD, VTD):
        lower = World(form, in_use="refuse")
        PagedDomain(BusSpace("upper", width=40), below=lower.domain)
        lower.map(M2, DATA, M2)
        with pytest.raises(InvalidArgument) as caught:
            lower.unmap(M2 + K4, K4)
        assert (
            str(caught.value) == "0x1000 bytes at 0x201000 cover only a part of the leaf of 0x200000 bytes at 0x200000"
        )


@pytest.mark.parametrize("used", [M2, M2 + 2 * K4, 2 * M2 - K4])
def test_what_is_used_above_keeps_all_of_amds_leaf(used):
    lower = World(AMD, partial="kernel", in_use="refuse")
    upper = PagedDomain(BusSpace("upper", width=40), below=lower.domain)
    lower.map(M2, DATA, M2)
    upper.map(upper.input_space.at(K4), lower.bus.at(used), K4)
    with pytest.raises(Busy) as caught:
        lower.unmap(M2 + K4, K4)
    assert str(caught.value) == (
        f"0x1000 bytes at {used:#x} are mapped by the domain of 'upper' at 0x1000: they can't be unmapped in the "
        "domain of 'bus'"
    )
    assert lower.where(M2) == [DATA]
    lower.domain.check()
    upper.unmap(upper.input_space.at(K4), K4)
    assert lower.unmap(M2 + K4, K4) == M2


def test_those_above_are_told_of_all_that_goes():
    lower = World(AMD, partial="kernel", in_use="notify")
    upper = PagedDomain(BusSpace("upper", width=40), below=lower.domain)
    lower.map(M2, DATA, M2)
    told = []
    upper.on_notice.append(told.append)
    at = upper.input_space.at
    upper.map(at(K4), lower.bus.at(M2), K4)
    upper.map(at(4 * K4), lower.bus.at(2 * M2 - K4), K4)
    assert lower.unmap(M2 + K4, K4) == M2
    assert [(each.start.value, each.size) for each in told] == [(K4, K4), (4 * K4, K4)]
    assert [upper.iova_to_phys(at(place)) for place in (K4, 4 * K4)] == [None, None]
    upper.check()
    lower.domain.check()


def test_vtd_asks_those_above_only_for_what_it_clears():
    lower = World(VTD, partial="kernel", in_use="refuse")
    upper = PagedDomain(BusSpace("upper", width=40), below=lower.domain)
    at = upper.input_space.at
    lower.map(M2, DATA, M2)
    lower.map(2 * M2, 0x5000_0000, 2 * K4)
    upper.map(at(K4), lower.bus.at(M2 + K4), K4)
    upper.map(at(8 * K4), lower.bus.at(2 * M2), K4)
    with pytest.raises(Busy, match=r"^0x1000 bytes at 0x400000 are mapped by the domain of 'upper' at 0x8000: "):
        lower.unmap(M2 + K4, K4)
    assert (lower.where(2 * M2), lower.writes) == ([0x5000_0000], [])
    upper.unmap(at(8 * K4), K4)
    assert lower.unmap(M2 + K4, K4) == M2
    assert (lower.where(M2 + K4, 2 * M2, 2 * M2 + K4), len(lower.writes)) == ([DATA + K4, None, 0x5000_1000], 1)
    assert upper.iova_to_memory(at(K4)) == lower.ram.at(DATA + K4)
    lower.domain.check()


@pytest.mark.parametrize("form", [AMD, VTD], ids=lambda form: form.name)
def test_below_it_is_known_what_is_led_to_no_more(form):
    lower = World(vtd_ss(profile="7.3"))
    upper = PagedDomain(BusSpace("upper", width=40), below=lower.domain, format=form, partial="kernel")
    lower.map(M2, DATA, 2 * M2)
    at = upper.input_space.at
    upper.map(at(2 * M2), lower.bus.at(M2), M2)
    upper.map(at(3 * M2), lower.bus.at(2 * M2), K4)
    assert upper.unmap(at(2 * M2 + K4), K4) == M2
    uses = [(use.iova, use.start, use.size) for use in lower.domain.uses if use.iova is not None]
    kept, page = (2 * M2, M2, M2), (3 * M2, 2 * M2, K4)
    assert uses == ([page] if form is AMD else [kept])
    upper.check()
    lower.domain.check()


# -- through the kernel's calls


@pytest.mark.parametrize("form", [AMD, VTD], ids=lambda form: form.name)
def test_the_group_of_a_device_hears_of_the_write(form, caplog):
    memory = SparseRam(PhysSpace("ram", width=46))
    hardware = Hardware(
        name="iommu",
        bus=BusSpace("pci", width=48),
        ram=memory.space,
        frames=Frames(memory.space.at(0x1000_0000), 64 << 20),
        format=form,
        profile="6.12",
    )
    core, events = IommuCore(), []
    nic = BusDevice("nic", memory)
    core.probe(nic, hardware)
    domain = hardware.alloc(DomainType.UNMANAGED)
    assert linux.iommu_attach_device(domain, nic) == 0
    core.listeners.append(events.append)
    assert linux.iommu_map(domain, M2, DATA, M2, RW) == 0
    memory.fill(memory.space.at(DATA), 64, 0xFF)
    assert linux.iommu_unmap(domain, M2 + K4, K4) == M2
    assert linux.iommu_iova_to_phys(domain, M2) == (DATA if form is VTD else 0)
    assert memory.read(memory.space.at(DATA), 64) == b"\xff" * 64, "the model writes nothing"
    sentence = (
        "the kernel would write into the data page at 0x40000000: it takes the leaf of 0x200000 bytes at 0x200000 "
        "for a table"
    )
    assert [str(event) for event in events] == (
        [f"data_page_write: IOMMU: device=nic {sentence}"] if form is VTD else []
    )
    assert [record.getMessage() for record in caplog.records] == (
        [f"the domain of 'pci': {sentence}"] if form is VTD else []
    )
    assert linux.iommu_unmap(domain, M2, M2) == (M2 if form is VTD else 0)
    domain.check()
