"""A.6, A.7, A.10, A.11: what mapping by the kernel's numbers answers, by family of page table."""

import logging

import attrs
import pytest

from swiommu.address import BusSpace, PhysSpace, Prot
from swiommu.errors import (
    AddressInUse,
    AddressOverflow,
    AlreadyMapped,
    InvalidArgument,
    NoDevice,
    NoMemory,
    NoPageSize,
    OutOfRange,
    SpaceMismatch,
)
from swiommu.iommu import PagedDomain
from swiommu.iommu.groups import (
    DomainType,
    Gfp,
    SgEntry,
    gather_for,
    iova_to_phys,
    map_range,
    map_sg,
    sync_map,
    unmap_range,
)
from swiommu.pagetable import MOCK, CountingTables
from swiommu.pagetable.formats import amd_v1, arm_lpae, riscv, vtd_ss, x86_64

RW = Prot.READ | Prot.WRITE
MIB2, TOP = 1 << 21, 1 << 64
CLASSIC, GENERIC = vtd_ss(), vtd_ss(profile="7.3")
LPAE, LPAE_73 = arm_lpae(), arm_lpae(profile="7.3")
RISCV, RISCV_73 = riscv(4), riscv(4, profile="7.3")
AMD_73, X86_73 = amd_v1("7.3"), x86_64(4, profile="7.3")


@pytest.fixture
def domain(machine):
    def make(form=MOCK, *, profile="7.3", **options):
        return machine(format=form, profile=profile, pages=512, **options).hardware.alloc(DomainType.UNMANAGED)

    return make


def family(form):
    return form.rules.name if form in {LPAE, LPAE_73} else f"{form.name}-{form.rules.name}"


# -- A.6: the order of the checks


@pytest.mark.parametrize("gfp", [Gfp.COMP, Gfp.DMA, Gfp.DMA32, Gfp.HIGHMEM], ids=lambda gfp: f"A.6-3-{gfp.name}-EINVAL")
def test_zones_are_refused(domain, refused, gfp):
    assert refused(InvalidArgument, map_range, domain(), 0x1000, 0x1000, 0x1000, RW, Gfp.KERNEL | gfp) == (
        f"gfp flags {Gfp.KERNEL | gfp:#x} ask for a zone or a compound page: tables take neither"
    )
    map_range(domain(), 0x1000, 0x1000, 0x1000, RW, Gfp.ATOMIC)


@pytest.mark.parametrize("profile", ["6.12", "7.3"], ids=lambda profile: f"A.6-1-to-3-order-{profile}")
def test_what_is_asked_first(domain, refused, profile):
    blank = domain(profile=profile)
    blank.kernel.pgsize_bitmap = 0
    fixed = blank.kernel.owner.blocked_domain
    first = profile == "6.12"
    gfp = "gfp flags 0xcc1 ask for a zone or a compound page: tables take neither"
    for each, kind, text in (
        (fixed, InvalidArgument, "IommuDomain(Blocked of 'smmu') takes no mappings"),
        (blank, NoDevice, "IommuDomain(Unmanaged of 'smmu') has no page size to map with"),
    ):
        assert refused(InvalidArgument if first else kind, map_range, each, 1, 1, 1, RW, Gfp.KERNEL | Gfp.DMA) == (
            gfp if first else text
        )
        assert refused(kind, map_range, each, 1, 1, 1, RW) == text
    usual = domain(profile=profile)
    assert refused(InvalidArgument, map_range, usual, 1, 1, 1, RW, Gfp.KERNEL | Gfp.DMA) == gfp


@pytest.mark.parametrize(
    ("form", "error"),
    [(CLASSIC, InvalidArgument), (LPAE, InvalidArgument), (RISCV, InvalidArgument)]
    + [(form, NoPageSize) for form in (GENERIC, AMD_73, X86_73, RISCV_73)],
    ids=lambda value: f"A.6-4-misaligned-{family(value)}" if attrs.has(type(value)) else value.__name__,
)
@pytest.mark.parametrize("numbers", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["iova", "paddr", "size"])
def test_misaligned(domain, refused, form, error, numbers):
    iova, paddr, size = (number + 0x1000 for number in numbers)
    assert refused(error, map_range, domain(form), iova, paddr, size, RW) == (
        f"unaligned: iova {iova:#x} pa {paddr:#x} size {size:#x} min_pagesz 0x1000"
    )


@pytest.mark.parametrize("form", [CLASSIC, LPAE, LPAE_73, RISCV], ids=lambda form: f"A.6-size-0-{family(form)}-is-0")
def test_nothing_is_mapped_by_classic_drivers(domain, form):
    mine = domain(form)
    map_range(mine, 0x1000, 0x1000, 0, RW)
    assert mine.stats.maps == 0


@pytest.mark.parametrize(
    "form", [GENERIC, AMD_73, X86_73, RISCV_73, MOCK], ids=lambda form: f"A.6-size-0-{family(form)}-EINVAL"
)
def test_nothing_is_refused_by_the_generic_table(domain, refused, form):
    assert (
        refused(InvalidArgument, map_range, domain(form), 0x1000, 0x1000, 0, RW) == "0 bytes at 0x1000 can't be mapped"
    )


@pytest.mark.parametrize(
    "form",
    [CLASSIC, GENERIC, LPAE, AMD_73, X86_73, RISCV_73],
    ids=lambda value: f"A.6-no-rights-{family(value)}",
)
@pytest.mark.parametrize("prot", [0, Prot.NOEXEC, Prot.CACHE | Prot.MMIO | Prot.PRIV])
def test_no_rights(domain, refused, form, prot):
    text = refused(InvalidArgument, map_range, domain(form), 0x1000, 0x1000, 0x1000, prot)
    assert text == f"protection {prot:#x}: READ or WRITE is needed"


@pytest.mark.parametrize("prot", [0, Prot.NOEXEC, Prot.CACHE])
@pytest.mark.parametrize(
    "form", [riscv(3), RISCV, riscv(5), riscv(4, gstage=True), riscv(napot=True)], ids=lambda form: form.name
)
def test_no_rights_is_read_for_the_driver_of_riscv(domain, form, prot):
    mine = domain(form, profile="6.12")
    map_range(mine, 0x20_0000, 0x4000_0000, MIB2, prot)
    map_range(mine, 0x1000, 0x8000, 0x1000, prot)
    for at in (0x20_0000, 0x1000):
        _, _, allowed = mine.table.lookup(at)
        assert allowed & RW == Prot.READ
    assert unmap_range(mine, 0x1000, 0x1000) == 0x1000
    mine.check()


@pytest.mark.parametrize("form", [GENERIC, LPAE, RISCV], ids=lambda form: f"A.6-ERANGE-{family(form)}")
def test_beyond_the_output_and_the_input(domain, refused, form):
    mine = domain(form)
    assert "beyond the 40 bits of the output" in refused(OutOfRange, map_range, mine, 0x1000, 1 << 40, 0x1000, RW)
    assert "leave the 48 bits of the input" in refused(OutOfRange, map_range, mine, 1 << 48, 0x1000, 0x1000, RW)
    assert "leave the 48 bits" in refused(OutOfRange, map_range, mine, 0x1000, (1 << 40) - 0x1000, 0x2000, RW)


@pytest.mark.parametrize(
    ("form", "error"), [(GENERIC, AddressOverflow), (LPAE, OutOfRange)], ids=["A.6-EOVERFLOW", "LPAE"]
)
def test_a_range_that_wraps(domain, form, error):
    with pytest.raises(error):
        map_range(domain(form), TOP - 0x1000, 0x1000, 0x2000, RW)


@pytest.mark.parametrize("numbers", [(TOP, 0, 1), (0, TOP, 1), (0, 0, TOP), (-4096, 0, 4096), (0, 0, -4096)], ids=str)
def test_numbers_of_more_than_64_bits(domain, numbers):
    with pytest.raises(InvalidArgument, match="are not all of 64 bits"):
        map_range(domain(), *numbers, RW)


@pytest.mark.parametrize(
    ("form", "error"),
    [(LPAE, AlreadyMapped), (LPAE_73, AlreadyMapped), (GENERIC, AddressInUse), (RISCV_73, AddressInUse)],
    ids=["A.6-LPAE-EEXIST-6.12", "A.6-LPAE-EEXIST-7.3", "A.6-generic-EADDRINUSE", "A.6-riscv-EADDRINUSE"],
)
def test_occupied(domain, form, error):
    mine = domain(form)
    map_range(mine, 0x3000, 0x1000, 0x1000, RW)
    with pytest.raises(error) as caught:
        map_range(mine, 0x1000, 0x1000, 0x4000, RW)
    assert type(caught.value) is error
    # rolled back: everything that this call mapped, and nothing else
    assert [iova_to_phys(mine, at) for at in (0x1000, 0x2000, 0x3000, 0x4000)] == [0, 0, 0x1000, 0]


def test_a_block_over_live_pages(domain):
    """LPAE replaces the table and the pages vanish; the generic table refuses."""
    for form, replaced in ((LPAE, True), (GENERIC, False)):
        mine = domain(form)
        map_range(mine, MIB2, 0x5000, 0x1000, RW)
        if replaced:
            map_range(mine, MIB2, 4 * MIB2, MIB2, RW)
            assert iova_to_phys(mine, MIB2 + 0x1000) == 4 * MIB2 + 0x1000
        else:
            with pytest.raises(AddressInUse):
                map_range(mine, MIB2, 4 * MIB2, MIB2, RW)
            assert iova_to_phys(mine, MIB2 + 0x10) == 0x5010
            unmap_range(mine, MIB2, 0x1000)
            map_range(mine, MIB2, 4 * MIB2, MIB2, RW)  # the table is empty now


def test_page_0_can_be_mapped_and_not_be_seen(domain):
    mine = domain()
    map_range(mine, 0, 0, 0x1000, RW)
    assert (iova_to_phys(mine, 0), iova_to_phys(mine, 1), iova_to_phys(mine, -1), iova_to_phys(mine, TOP)) == (
        0,
        1,
        0,
        0,
    )


def test_memory_for_tables_runs_out(domain):
    mine = domain()
    free = mine.kernel.owner.frames.free_count
    mine.kernel.owner.frames.fail_nth(2)
    with pytest.raises(NoMemory):
        map_range(mine, 0x1000, 0x1000, 0x1000, RW)
    assert mine.kernel.owner.frames.free_count == free
    assert iova_to_phys(mine, 0x1000) == 0


# -- A.6 step 7


def test_the_hardware_is_told_once_and_may_refuse(domain):
    told = []

    def sync(mine, iova, size):
        told.append((iova, size))
        if iova == 0x10_0000:
            raise NoDevice("the hardware is gone")

    mine = domain(sync_map=sync)
    map_range(mine, MIB2 - 0x2000, 0, 2 * MIB2, RW)
    assert told == [(MIB2 - 0x2000, 2 * MIB2)]
    with pytest.raises(NoDevice, match="the hardware is gone"):
        map_range(mine, 0x10_0000, 0x1000, 0x1000, RW)
    assert iova_to_phys(mine, 0x10_0000) == 0
    told.clear()
    map_range(mine, 0x10_1000, 0x1000, 0x1000, RW, sync=False)
    assert told == []
    sync_map(mine, 0x10_1000, 0x1000)
    assert told == [(0x10_1000, 0x1000)]


# -- A.7


@pytest.mark.parametrize(
    ("spec", "iova", "size", "answer"),
    [
        ("whole", 0x8000, 0x3000, 0x3000),
        ("short-at-a-hole", 0x8000, 0x10_0000, 0x3000),
        ("in-a-hole", 0x1000, 0x1000, 0),
        ("misaligned-iova", 0x8800, 0x1000, 0),
        ("misaligned-size", 0x8000, 0x800, 0),
        ("nothing", 0x8000, 0, 0),
        ("negative", -0x1000, 0x1000, 0),
        ("beyond", 1 << 48, 0x1000, 0),
        ("wraps", TOP - 0x1000, 0x2000, 0),
        ("too-long", 0x8000, TOP - 0x1000, 0x3000),
        ("long-at-a-large-leaf", MIB2, 0x1000, MIB2),
        ("starts-inside-a-large-leaf", MIB2 + 0x1000, 0x1000, 0),
    ],
    ids=lambda value: f"A.7-{value}" if isinstance(value, str) else "",
)
def test_unmap_answers_bytes(domain, spec, iova, size, answer):
    mine = domain(GENERIC)
    map_range(mine, 0x8000, 0x10_0000, 0x3000, RW)
    map_range(mine, MIB2, MIB2, MIB2, RW)
    assert unmap_range(mine, iova, size) == answer


@pytest.mark.parametrize(
    ("form", "answer", "left"),
    [(LPAE, 0x1000, MIB2 + 0x1000), (LPAE_73, 0, MIB2 + 0x1000), (GENERIC, MIB2, 0)],
    ids=["A.7-LPAE-6.12-splits", "A.7-LPAE-7.3-refuses", "A.7-generic-takes-it-whole"],
)
def test_a_part_of_a_large_leaf(domain, form, answer, left):
    mine = domain(form)
    map_range(mine, MIB2, MIB2, MIB2, RW)
    assert unmap_range(mine, MIB2, 0x1000) == answer
    assert iova_to_phys(mine, MIB2 + 0x1000) == left


def test_misaligned_is_logged(domain, caplog):
    with caplog.at_level(logging.ERROR):
        unmap_range(domain(), 0x8001, 0x1000)
    assert [record.getMessage() for record in caplog.records] == [
        "unaligned: iova 0x8001 size 0x1000 min_pagesz 0x1000"
    ]


def test_without_page_sizes_nothing_is_unmapped(domain):
    mine = domain()
    map_range(mine, 0x8000, 0x1000, 0x1000, RW)
    mine.kernel.pgsize_bitmap = 0
    assert unmap_range(mine, 0x8000, 0x1000) == 0


def test_a_domain_above_objects_and_nothing_is_unmapped(domain):
    mine = domain()
    map_range(mine, 0x8000, 0x1000, 0x1000, RW)
    upper = PagedDomain(BusSpace("guest", width=32), below=mine, tables=CountingTables())
    upper.map(upper.input_space.at(0x4000), mine.kernel.owner.bus.at(0x8000), 0x1000)
    assert unmap_range(mine, 0x8000, 0x1000) == 0
    assert iova_to_phys(mine, 0x8000) == 0x1000


def test_unmapping_with_a_gather_flushes_later_and_once(domain):
    mine = domain()
    own = mine
    map_range(mine, 0x8000, 0x1000, 0x2000, RW)
    map_range(mine, 1 << 40, 0x1000, 0x1000, RW)
    free, gather = mine.kernel.owner.frames.free_count, gather_for(mine)
    assert unmap_range(mine, 0x8000, 0x2000, gather) == 0x2000
    assert unmap_range(mine, 1 << 40, 0x1000, gather) == 0x1000
    assert (own.stats.invalidations, mine.kernel.owner.frames.free_count) == (0, free)
    assert (gather.start, gather.last) == (0x8000, (1 << 40) + 0xFFF)
    own.check()
    gather.sync()
    assert own.stats.invalidations == 1
    assert mine.kernel.owner.frames.free_count > free
    gather.sync()
    assert own.stats.invalidations == 1
    own.check()


def test_another_unmap_gives_nothing_of_a_gather_back(domain):
    mine = domain()
    map_range(mine, 0x8000, 0x1000, 0x1000, RW)
    map_range(mine, 1 << 40, 0x1000, 0x1000, RW)
    gather = gather_for(mine)
    unmap_range(mine, 1 << 40, 0x1000, gather)
    free = mine.kernel.owner.frames.free_count
    unmap_range(mine, 0x8000, 0x1000)
    lower = mine.kernel.owner.frames.free_count - free
    gather.sync()
    assert mine.kernel.owner.frames.free_count - free > lower
    mine.check()


def test_nothing_to_gather_in_a_fixed_domain(domain, refused):
    fixed = domain().kernel.owner.identity_domain
    assert refused(InvalidArgument, gather_for, fixed) == "IommuDomain(Passthrough of 'smmu') has nothing to flush"


# -- A.10


def test_neighbours_are_one_map_and_peers_are_left_out(domain):
    mine = domain()
    peer = SgEntry(0x9_0000, 0x1000, bus_address=True)
    pieces = [SgEntry(0x5000, 0x1000), SgEntry(0x6000, 0x1000), peer, SgEntry(0x7000, 0x1000), SgEntry(0x1000, 0x1000)]
    assert map_sg(mine, 0x8000, pieces, RW) == 0x4000
    assert [iova_to_phys(mine, at) for at in range(0x8000, 0xD000, 0x1000)] == [0x5000, 0x6000, 0x7000, 0x1000, 0]
    assert mine.stats.maps == 2


@pytest.mark.parametrize("pieces", [[], [SgEntry(0x9_0000, 0x1000, bus_address=True)]], ids=["none", "peers-only"])
def test_nothing_to_map(domain, pieces):
    assert map_sg(domain(), 0x8000, pieces, RW) == 0


def test_a_failure_unmaps_what_was_mapped(domain):
    mine = domain(GENERIC)
    map_range(mine, 0xA000, 0x1000, 0x1000, RW)
    with pytest.raises(AddressInUse):
        map_sg(mine, 0x8000, [SgEntry(0x5000, 0x1000), SgEntry(0x9000, 0x1000), SgEntry(0x7000, 0x1000)], RW)
    assert [iova_to_phys(mine, at) for at in (0x8000, 0x9000, 0xA000)] == [0, 0, 0x1000]


def test_a_torn_entry_fails_like_a_map(domain, refused):
    text = refused(NoPageSize, map_sg, domain(GENERIC), 0x8000, [SgEntry(0x5000, 0x800), SgEntry(0x9000, 0x1000)], RW)
    assert text == "unaligned: iova 0x8000 pa 0x5000 size 0x800 min_pagesz 0x1000"
    whole = [SgEntry(0x5000, 0x800), SgEntry(0x5800, 0x800)]
    assert map_sg(domain(GENERIC), 0x8000, whole, RW) == 0x1000


def test_the_hardware_is_told_of_a_list_once(domain):
    told = []
    mine = domain(sync_map=lambda _, iova, size: told.append((iova, size)))
    map_sg(mine, 0x8000, [SgEntry(0x5000, 0x1000), SgEntry(0x9000, 0x2000)], RW)
    assert told == [(0x8000, 0x3000)]


def test_coherency_is_enforced_where_the_format_can(domain):
    assert domain(GENERIC).enforce_cache_coherency() is True
    assert domain(LPAE).enforce_cache_coherency() is False
    assert domain().kernel.owner.identity_domain.enforce_cache_coherency() is False


# -- addresses that know their space


def test_addresses_are_taken_as_their_numbers(domain):
    mine = domain()
    bus, ram = mine.input_space, mine.output_space
    map_range(mine, bus.at(0x8000), ram.at(0x5000), 0x2000, RW)
    assert iova_to_phys(mine, bus.at(0x9010)) == iova_to_phys(mine, 0x9010) == 0x6010
    sync_map(mine, bus.at(0x8000), 0x2000)
    assert unmap_range(mine, bus.at(0x8000), 0x1000) == 0x1000
    assert map_sg(mine, bus.at(0xA000), [SgEntry(ram.at(0x7000), 0x1000), SgEntry(0x3000, 0x1000)], RW) == 0x2000
    assert iova_to_phys(mine, 0xB000) == 0x3000


def test_addresses_of_other_spaces_are_refused(domain, refused):
    mine = domain()
    bus, ram, other = mine.input_space, mine.output_space, PhysSpace("other")
    assert refused(SpaceMismatch, map_range, mine, ram.at(0x8000), 0x5000, 0x1000, RW) == (
        "iova PhysAddr(ram:0x8000) is no address of the space 'pci'"
    )
    assert refused(SpaceMismatch, map_range, mine, 0x8000, bus.at(0x5000), 0x1000, RW) == (
        "paddr BusAddr(pci:0x5000) is no address of the space 'ram'"
    )
    assert refused(SpaceMismatch, map_sg, mine, 0x8000, [SgEntry(0, 0x1000), SgEntry(other.at(0), 0x1000)], RW) == (
        "phys PhysAddr(other:0x0) is no address of the space 'ram'"
    )
    for call in (iova_to_phys, unmap_range):
        assert refused(SpaceMismatch, call, mine, other.at(0x8000), *([0x1000] if call is unmap_range else [])) == (
            "iova PhysAddr(other:0x8000) is no address of the space 'pci'"
        )
    assert mine.mapped() == []


@pytest.mark.parametrize(
    ("form", "arguments", "kind", "text"),
    [
        (GENERIC, (0x8001, 0x1000), NoPageSize, "unaligned: iova 0x8001 size 0x1000 min_pagesz 0x1000"),
        (LPAE, (0x8001, 0x1000), InvalidArgument, "unaligned: iova 0x8001 size 0x1000 min_pagesz 0x1000"),
        (GENERIC, (0x8000, 0), OutOfRange, "0x0 bytes at 0x8000 are none of the 48-bit space 'pci'"),
        (GENERIC, (1 << 48, 0x1000), OutOfRange, "0x1000 bytes at 0x1000000000000 are none of the 48-bit space 'pci'"),
        (GENERIC, (-0x1000, 0x1000), OutOfRange, "0x1000 bytes at -0x1000 are none of the 48-bit space 'pci'"),
    ],
    ids=["misaligned", "misaligned-LPAE", "nothing", "beyond", "negative"],
)
def test_why_nothing_was_unmapped(domain, form, arguments, kind, text):
    told = []
    assert unmap_range(domain(form), *arguments, refused=told.append) == 0
    assert [(type(error), str(error)) for error in told] == [(kind, text)]


def test_a_hole_is_no_refusal(domain):
    told = []
    assert unmap_range(domain(), 0x8000, 0x1000, refused=told.append) == 0
    assert told == []


def test_why_a_fixed_domain_unmaps_nothing(machine):
    told = []
    assert unmap_range(machine().hardware.identity_domain, 0x8000, 0x1000, refused=told.append) == 0
    assert [str(error) for error in told] == ["IommuDomain(Passthrough of 'smmu') has no mappings"]
