"""Domains over every page-table format: the same calls, and what the rules of each say (A.6, A.7, A.9, A.15)."""

import errno

import pytest

from swiommu.address import Access, BusSpace, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.errors import AddressInUse, AlreadyMapped, Busy, DeviceFault, NoMemory, SwiommuError
from swiommu.iommu import PagedDomain, TopDownIova
from swiommu.layer import Reserved, ReservedKind
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import CountingTables
from swiommu.pagetable.formats import AMD_V1, FORMATS, MOCK, amd_v1, arm_lpae, riscv, vtd_ss, x86_64

RW = Prot.READ | Prot.WRITE
K4, K64, M2 = 1 << 12, 1 << 16, 1 << 21
every_format = pytest.mark.parametrize("form", [pytest.param(form, id=name) for name, form in FORMATS.items()])


class World:
    def __init__(self, form, **options):
        self.ram, self.bus = PhysSpace("ram", width=64), BusSpace("bus", width=64)
        self.frames = Frames(self.ram.at(0x4000_0000), 64 << 20, page_size=form.granule)
        self.domain = PagedDomain(self.bus, frames=self.frames, output_space=self.ram, format=form, **options)
        self.memory = SparseRam(self.ram)

    def map(self, iova, paddr, size, prot=RW):
        self.domain.map(self.bus.at(iova), self.ram.at(paddr), size, prot)

    def unmap(self, iova, size):
        return self.domain.unmap(self.bus.at(iova), size)

    def where(self, iova):
        found = self.domain.iova_to_phys(self.bus.at(iova))
        return None if found is None else found.value


def refusal(call, *args):
    with pytest.raises(SwiommuError) as caught:
        call(*args)
    return caught.value


@every_format
def test_a_driver_works_the_same_on_every_format(form):
    world = World(form)
    free = world.frames.free_count
    device = BusDevice("nic", world.memory, dma_mask=world.domain.aperture_last)
    world.domain.attach(device)
    mapping = world.domain.alloc(5 * form.granule + 1)
    device.write(mapping.iova.start + 3, b"over the bus")
    assert world.memory.read(mapping.pieces[0].start + 3, 12) == b"over the bus"
    assert device.read(mapping.iova.start + 3, 12) == b"over the bus"
    with pytest.raises(DeviceFault):
        device.read(world.bus.at(mapping.iova.stop), 1)
    world.domain.check()
    world.domain.release(mapping)
    with pytest.raises(DeviceFault):
        device.read(mapping.iova.start, 1)
    world.domain.detach(device)
    world.domain.destroy()
    assert world.frames.free_count == free + max(form.levels[form.start].table_bytes // form.granule, 1)


@every_format
def test_protection_is_what_the_format_can_say(form):
    world = World(form)
    for n, prot in enumerate((Prot.READ, Prot.WRITE, RW)):
        iova = world.bus.at((n + 1) * form.granule)
        world.domain.map(iova, world.ram.at(form.granule), form.granule, prot)
        for access in (Access.READ, Access.WRITE):
            if int(access) & int(form.effective(prot)):
                assert world.domain.translate(iova, 4, access)[0].output == form.granule
            else:
                with pytest.raises(DeviceFault) as caught:
                    world.domain.translate(iova, 4, access)
                assert caught.value.fault.kind.name == "PERMISSION"


NEW_VTD, NEW_AMD, NEW_RISCV = vtd_ss(profile="7.3"), amd_v1(profile="7.3"), riscv(profile="7.3")
OLD_ARM, NEW_ARM = arm_lpae(), arm_lpae(profile="7.3")
OLD = [vtd_ss(), x86_64(), AMD_V1, riscv(), OLD_ARM, MOCK]
NEW = [NEW_VTD, NEW_AMD, NEW_RISCV]


@pytest.mark.parametrize("form", [*OLD, *NEW, NEW_ARM], ids=lambda form: f"{form.name} {form.rules.name}")
def test_what_map_refuses_and_with_which_errno(form):
    world = World(form)
    refused = errno.ENXIO if form in NEW else errno.EINVAL
    for at in [(0x1800, 0x4000, K4), (0x1000, 0x4010, K4), (0x1000, 0x4000, 0x800)]:
        assert refusal(world.map, *at).errno == refused, "A.6.4: not aligned to the smallest page"
    if form.rules.no_access is not None:
        refused = refusal(world.map, 0x1000, 0x4000, K4, Prot.CACHE)
        assert refused.errno == errno.EINVAL, "A.1: neither READ nor WRITE"
    world.map(0x4000, 0x8000, 2 * K4)
    taken = errno.EEXIST if form in {OLD_ARM, NEW_ARM} else errno.EADDRINUSE
    assert refusal(world.map, 0x3000, 0x8000, 2 * K4).errno == taken, "A.6: occupied"
    assert [world.where(at) for at in (0x3000, 0x4000, 0x5000, 0x6000)] == [None, 0x8000, 0x9000, None]
    world.domain.check()
    assert world.unmap(0x4000, 2 * K4) == 2 * K4


@every_format
def test_what_leaves_the_format_is_refused_before_anything_has_changed(form):
    world = World(form)
    page, stats = form.granule, repr(world.domain.stats)
    assert refusal(world.map, page, 1 << form.output_width, page).errno == errno.ERANGE
    assert refusal(world.map, page, (1 << form.output_width) - page, 2 * page).errno == errno.ERANGE
    assert refusal(world.map, page, (1 << 64) - page, 2 * page).errno == errno.EOVERFLOW
    assert refusal(world.map, (1 << 64) - page, page, 2 * page).errno == errno.EOVERFLOW
    if form.aperture_width < 64:
        assert refusal(world.map, 1 << form.aperture_width, page, page).errno == errno.ERANGE
        assert refusal(world.map, (1 << form.aperture_width) - page, page, 2 * page).errno == errno.ERANGE
        assert refusal(world.unmap, 1 << form.aperture_width, page).errno == errno.ERANGE
    for size in (0, -page):
        assert refusal(world.map, page, page, size).errno == errno.EINVAL
        assert refusal(world.unmap, page, size).errno == errno.EINVAL
    assert repr(world.domain.stats) == stats
    world.domain.check()


def block_and_pages(form, **options):
    """2 MiB at 2 MiB, two pages behind it."""
    world = World(form, **options)
    world.map(M2, 0x4000_0000, M2)
    world.map(2 * M2, 0x5000_0000, 2 * K4)
    return world


@pytest.mark.parametrize(
    "form", [MOCK, NEW_VTD, NEW_AMD, riscv(), NEW_RISCV], ids=lambda form: f"{form.name} {form.rules.name}"
)
def test_a_large_leaf_goes_whole_or_stops_the_unmap(form):
    world = block_and_pages(form)
    assert (world.unmap(M2 + K4, K4), world.where(M2 + K4)) == (0, 0x4000_1000), "entered in the middle"
    assert (world.unmap(M2, K4), world.where(2 * M2 - 1)) == (M2, None), "long: the leaf went whole"
    assert world.where(2 * M2) == 0x5000_0000
    assert world.unmap(2 * M2, M2) == 2 * K4, "short: a hole was met"
    assert world.unmap(2 * M2, M2) == 0
    world.domain.check()
    world.domain.destroy()


def test_amd_has_leaves_between_the_levels():
    world = World(NEW_AMD)
    world.map(K64, 0x9000_0000, K64)
    assert world.domain.table.leaves[K64] == 1
    assert (world.unmap(K64 + K4, K4), world.unmap(K64, K4), world.where(K64 + K4)) == (0, K64, None)


@pytest.mark.parametrize("stage", [1, 2])
def test_arm_splits_a_block_up_to_6_12(stage):
    world = block_and_pages(arm_lpae(stage=stage))
    before = world.domain.stats.table_pages
    assert world.unmap(M2 + K4, 2 * K4) == 2 * K4
    assert [world.where(M2 + n * K4) for n in (0, 1, 2, 3, 511)] == [0x4000_0000, None, None, 0x4000_3000, 0x401F_F000]
    assert (world.domain.table.leaves[M2], world.domain.stats.table_pages) == (0, before + 1)
    assert world.unmap(M2, 4 * K4) == K4, "the hole ends it"
    world.domain.check()


def test_arm_splits_nothing_when_no_page_is_left():
    tables = CountingTables(limit=4)
    world = World(OLD_ARM, tables=tables)
    world.map(M2, 0x4000_0000, M2)
    tables.fail_nth(1)
    assert (world.unmap(M2, K4), world.where(M2)) == (0, 0x4000_0000)
    assert world.unmap(M2, K4) == K4


def test_arm_refuses_a_part_of_a_block_from_6_13():
    world = block_and_pages(NEW_ARM)
    assert [world.unmap(M2, K4), world.unmap(M2 + K4, K4), world.unmap(M2, M2 - K4)] == [0, 0, 0]
    assert world.unmap(M2, M2 + K4) == M2 + K4
    assert world.where(2 * M2 + K4) == 0x5000_1000


@pytest.mark.parametrize("form", [OLD_ARM, NEW_ARM], ids=["6.12", "7.3"])
def test_a_block_of_arm_replaces_live_pages(form):
    flushed = []
    world = World(form)
    world.map(M2 + 5 * K4, 0x7000_0000, K4)
    pages, invalidations = world.domain.stats.table_pages, world.domain.stats.invalidations
    world.domain.mapper.invalidation.flush_range = lambda start, last: flushed.append(
        (start, last)
    )  # what a walk cache would be told
    world.map(M2, 0x4000_0000, M2)
    assert (world.where(M2 + 5 * K4), world.domain.stats.table_pages) == (0x4000_5000, pages - 1)
    assert flushed == [(M2, 2 * M2 - 1)], "before its page can be used again"
    assert refusal(world.map, M2, 0x4000_0000, M2).errno == errno.EEXIST
    assert refusal(world.map, M2 + K4, 0x4000_0000, K4).errno == errno.EEXIST
    del world.domain.mapper.invalidation.flush_range
    assert world.unmap(M2, M2) == M2
    assert world.domain.stats.invalidations == invalidations + 1
    mapping = world.domain.bind([world.domain.alloc(K4).pieces[0]])
    world.domain.check()
    assert mapping.size == K4


def test_live_pages_are_not_replaced_in_a_stack_unless_asked():
    for partial, replaced in ((None, False), ("kernel", True)):
        world = World(OLD_ARM, partial=partial, in_use="refuse")
        upper = PagedDomain(BusSpace("upper", width=40), below=world.domain)
        world.map(M2 + 5 * K4, 0x7000_0000, K4)
        if replaced:
            world.map(M2, 0x4000_0000, M2)
        else:
            error = refusal(world.map, M2, 0x4000_0000, M2)
            assert isinstance(error, AlreadyMapped)
            assert str(error) == "0x200000 bytes at 0x200000 to 0x40000000 would replace live pages from 0x205000 on"
        assert (world.where(M2) is not None) == replaced
        assert upper.table.table_pages == 1


@pytest.mark.parametrize(
    ("form", "iova", "size"),
    [(OLD_ARM, M2 + 8 * K4, K4), (OLD_ARM, M2 + 4 * K4, 8 * K4), (NEW_VTD, M2, K4), (MOCK, M2, K4)],
    ids=["split", "split around", "whole", "whole too"],
)
def test_what_a_domain_above_uses_of_a_leaf_keeps_what_would_go_with_it(form, iova, size):
    world = World(form, partial="kernel", in_use="refuse")
    upper = PagedDomain(BusSpace("upper", width=40), below=world.domain)
    world.map(M2, 0x7000_0000, M2)
    upper.map(upper.input_space.at(K4), world.bus.at(M2 + 8 * K4), K4)
    assert isinstance(refusal(world.unmap, iova, size), Busy)
    assert world.where(M2 + 8 * K4) == 0x7000_8000
    assert upper.unmap(upper.input_space.at(K4), K4) == K4
    assert world.unmap(iova, size) == (size if form is OLD_ARM else M2)


def test_an_unmap_of_arm_takes_a_table_whole():
    world = World(OLD_ARM)
    world.map(M2, 0x4000_0000, K4)
    world.map(M2 + 9 * K4, 0x4000_0000, K4)
    pages = world.domain.stats.table_pages
    assert world.unmap(M2, M2) == M2, "its holes count"
    assert world.domain.stats.table_pages == pages - 1
    world.map(M2, 0x4000_0000, K4)
    assert (world.unmap(M2, K4), world.domain.stats.table_pages) == (K4, pages), "left behind, empty"
    world.domain.check()
    world.domain.destroy()


@pytest.mark.parametrize(
    "form", [vtd_ss(), NEW_VTD, AMD_V1, x86_64(), riscv()], ids=lambda form: f"{form.name} {form.rules.name}"
)
def test_an_empty_table_stays_until_it_is_covered_or_replaced(form):
    world = World(form)
    fresh = world.domain.stats.table_pages
    world.map(M2 + K4, 0x4000_0000, K4)
    assert world.unmap(M2 + K4, K4) == K4
    with_empty = world.domain.stats.table_pages
    assert with_empty > fresh
    world.map(M2, 0x4000_0000, M2)
    assert (world.domain.stats.table_pages, world.domain.table.leaves[M2]) == (with_empty - 1, 1)
    assert world.unmap(M2, M2) == M2
    world.map(M2, 0x4000_0000, K4)
    world.map(M2 + K4, 0x9000_0000, M2 - K4)
    assert (world.domain.stats.table_pages, world.unmap(M2, M2)) == (with_empty, M2)
    assert world.domain.stats.table_pages == with_empty - 1, "covered"
    world.domain.check()


def test_a_table_of_amd_grows_when_it_must_and_never_shrinks():
    world = World(AMD_V1)
    table = world.domain.table
    assert (table.root_depth, world.domain.stats.table_pages) == (3, 1)
    world.map(0x1000, 0x8000, K4)
    world.map(1 << 40, 0x9000, K4)
    assert (table.root_depth, len(table.walk(0x1000).steps), world.where(0x1000)) == (2, 4, 0x8000)
    world.map((1 << 64) - 2 * K4, 0xA000, K4)
    assert (table.root_depth, world.where((1 << 64) - K4 - 1), world.where(1 << 40)) == (0, 0xAFFF, 0x9000)
    assert [world.unmap(at, K4) for at in ((1 << 64) - 2 * K4, 1 << 40, 0x1000)] == [K4] * 3
    assert table.root_depth == 0
    world.domain.check()
    world.domain.destroy()


def test_a_table_of_amd_that_can_not_grow_is_as_before():
    tables = CountingTables()
    world = World(AMD_V1, tables=tables)
    world.map(0x1000, 0x8000, K4)
    for n in (1, 2, 3):
        tables.fail_nth(n)
        with pytest.raises(NoMemory):
            world.map(1 << 60, 0x9000, K4)
        assert (len(tables), world.where(0x1000)) == (3 if n < 4 else 6, 0x8000)
        world.domain.check()


def flushes(form, unmaps, **options):
    world, seen = block_and_pages(form, **options), []
    world.map(3 * M2, 0x6000_0000, K4)
    flush = world.domain.mapper.invalidation.flush_range
    world.domain.mapper.invalidation.flush_range = lambda start, last: (seen.append((start, last)), flush(start, last))
    gather = world.domain.gather()
    gather.flush, plain = (lambda start, last: (seen.append((start, last)), plain(start, last))), gather.flush
    world.domain.mapper.invalidation.flush_range = flush
    for iova, size in unmaps:
        world.domain.unmap_gathered(world.bus.at(iova), size, gather)
    gather.sync()
    world.domain.check()
    return seen


@pytest.mark.parametrize(
    ("form", "parts"),
    [
        (MOCK, [(M2, 3 * M2 + K4 - 1)]),
        (NEW_VTD, [(M2, 3 * M2 + K4 - 1)]),
        (AMD_V1, [(M2, 3 * M2 + K4 - 1)]),
        (vtd_ss(), [(M2, 2 * M2 - 1), (2 * M2, 2 * M2 + 2 * K4 - 1), (3 * M2, 3 * M2 + K4 - 1)]),
        (OLD_ARM, [(M2, 2 * M2 - 1), (2 * M2, 2 * M2 + 2 * K4 - 1), (3 * M2, 3 * M2 + K4 - 1)]),
    ],
    ids=lambda value: getattr(getattr(value, "rules", None), "name", None),
)
def test_a_gather_is_flushed_where_sizes_change_or_a_gap_is(form, parts):
    assert flushes(form, [(M2, M2 + 2 * K4), (3 * M2, K4)]) == parts


def test_hardware_that_remembers_holes_is_told_of_maps_too():
    world = World(vtd_ss(), caching_mode=True)
    world.map(M2, 0x4000_0000, 2 * K4)
    assert world.domain.stats.invalidations == 1
    assert (world.unmap(M2, 2 * K4), world.domain.stats.invalidations) == (2 * K4, 2)


@pytest.mark.parametrize(
    ("form", "before", "after"),
    [
        (vtd_ss(), 0x4000_0003, 0x4000_0803),
        (AMD_V1, 0x7000_0000_4000_0001, 0x7000_0000_4000_0001),
        (OLD_ARM, None, None),
    ],
    ids=["vtd", "amd", "arm"],
)
def test_coherency_is_enforced_on_what_is_mapped_from_then_on(form, before, after):
    world = World(form)
    world.map(0x1000, 0x4000_0000, K4)
    word = world.domain.table.walk(0x1000).steps[-1].entry
    assert world.domain.table.enforce_coherency() == (before is not None)
    world.map(0x2000, 0x4000_0000, K4)
    world.map(0x10_1000, 0x4000_0000, 2 * K4)
    later = {world.domain.table.walk(at).steps[-1].entry for at in (0x2000, 0x10_1000)}
    assert later == {after or word}
    assert word == (before or word)
    assert world.domain.table.walk(0x1000).steps[-1].entry == word
    assert isinstance(refusal(world.map, 0x2000, 0, K4), AddressInUse)


def test_a_domain_that_can_not_be_made_leaves_nothing_behind():
    world = World(MOCK)
    world.domain.reserve(Reserved(0xFEE0_0000, 1 << 20, ReservedKind.MSI))
    policy = TopDownIova(K4, (1 << 32) - 1)
    policy.take(0xFEE0_0000, K4)
    before = world.domain.mappings(), world.frames.free_count, repr(world.domain.stats)
    with pytest.raises(AddressInUse):
        PagedDomain(BusSpace("upper", width=32), below=world.domain, iova=policy)
    assert (world.domain.mappings(), world.frames.free_count) == before[:2]
    world.domain.check()
    world.domain.destroy()
