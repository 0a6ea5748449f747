"""Domains in the situations of public reports, with the answer that is right for each."""

import errno

import pytest

from swiommu import linux
from swiommu.address import Access, BusSpace, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.dma import DMA_BIT_MASK
from swiommu.errors import NoMemory
from swiommu.iommu import PagedDomain
from swiommu.iommu.groups import DomainType, Hardware, IommuCore
from swiommu.layer import Memory, Node, access
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable.formats import arm_lpae, riscv, vtd_ss

K4, M, G = 1 << 12, 1 << 20, 1 << 30
RW = Prot.READ | Prot.WRITE


# -- B28: a map of 16 MiB


def test_16_mib_are_8_leaves_of_2_mib():
    ram = PhysSpace("ram", width=46)
    smmu = Hardware(
        name="smmu",
        bus=BusSpace("pci", width=40),
        ram=ram,
        frames=Frames(ram.at(0x1000_0000), 64 * M),
        format=arm_lpae(stage=2, ias=40),
        profile="6.12",
    )
    domain = smmu.alloc(DomainType.UNMANAGED)
    assert linux.iommu_map(domain, G, G, 1 << 24, RW) == 0
    assert domain.table.leaves == {K4: 0, 2 * M: 8, G: 0}
    assert domain.stats.walk_refs == domain.translation.stats.walk_refs == 16


# -- B34: a shadow of the guest's tables needs to hear of new maps


@pytest.mark.parametrize(("caching_mode", "first", "second", "unmapped"), [(False, 0, 0, 1), (True, 1, 2, 3)])
def test_only_caching_mode_tells_of_new_maps(caching_mode, first, second, unmapped):
    ram = PhysSpace("ram", width=40)
    domain = PagedDomain(
        BusSpace("guest", width=39),
        frames=Frames(ram.at(0x1000_0000), M),
        output_space=ram,
        format=vtd_ss(levels=3),
        caching_mode=caching_mode,
    )
    at = domain.input_space.at
    domain.map(at(0x1000), ram.at(0x2000_0000), K4)
    assert domain.stats.invalidations == first
    domain.map(at(0x2000), ram.at(0x3000_0000), K4)
    assert domain.stats.invalidations == second
    assert domain.unmap(at(0x1000), K4) == K4
    assert domain.stats.invalidations == unmapped


# -- B44: a table page must be seen at its own address


def domain_at(form, start, size=16 * M, width=32, **options):
    ram = PhysSpace("ram", width=44)
    frames = Frames(ram.at(start), size)
    return (
        ram,
        frames,
        lambda: PagedDomain(BusSpace("dev", width=width), frames=frames, output_space=ram, format=form, **options),
    )


@pytest.mark.parametrize(("form", "start"), [(arm_lpae(ias=32, oas=32), 8 * G), (arm_lpae(ias=32, oas=36), 64 * G)])
def test_tables_beyond_what_an_entry_holds_are_refused(form, start):
    _, frames, make = domain_at(form, start)
    free = frames.free_count
    with pytest.raises(NoMemory) as caught:
        make()
    assert str(caught.value) == (
        f"no table can be at {start:#x}: an entry of format {form.name!r} has {form.output_width} bits of address, "
        "and a walk sees a table at its own address only"
    )
    assert frames.free_count == free


def test_a_map_that_needs_such_a_table_changes_nothing():
    form = arm_lpae(ias=32, oas=32)
    ram, frames, make = domain_at(form, 4 * G - 4 * K4, size=8 * K4)
    domain = make()
    assert domain.table.root == 4 * G - 4 * K4
    while frames.free_count > 4:
        frames.take(0)
    with pytest.raises(NoMemory) as caught:
        domain.map(domain.input_space.at(0x1000), ram.at(0x2000_0000), K4)
    assert str(caught.value) == (
        "no table can be at 0x100000000: an entry of format 'arm-lpae-4k-s1-32-32' has 32 bits of address, "
        "and a walk sees a table at its own address only"
    )
    assert frames.free_count == 4
    assert (domain.stats.maps, domain.stats.table_pages, domain.table.leaves[K4]) == (0, 1, 0)
    domain.check()
    domain.destroy()


def test_a_walker_of_32_bits_reads_no_table_above_4_gib():
    ram = PhysSpace("ram", width=40)
    frames = Frames(ram.at(8 * G), M)

    def hardware(**options):
        return Hardware(name="smmu", bus=BusSpace("pci", width=40), ram=ram, frames=frames, format=riscv(), **options)

    narrow, wide = hardware(walker_mask=DMA_BIT_MASK(32)), hardware(walker_mask=DMA_BIT_MASK(34))
    with pytest.raises(NoMemory) as caught:
        narrow.alloc(DomainType.UNMANAGED)
    assert str(caught.value) == (
        "no table can be at 0x200000000: the walker reads up to 0xffffffff, and sees a table at its own address only"
    )
    assert frames.free_count == 256
    nic = BusDevice("nic", SparseRam(ram))
    with pytest.raises(NoMemory):
        IommuCore().probe(nic, narrow)
    assert nic.group is None
    IommuCore().probe(nic, wide)
    domain = linux.iommu_paging_domain_alloc(nic)
    assert linux.iommu_map(domain, 0x1000, 0x1000, K4, RW) == 0
    domain.kernel.owner.walker_mask = DMA_BIT_MASK(32)
    assert linux.iommu_paging_domain_alloc(nic) == -errno.ENOMEM


def test_nested_tables_are_asked_for_where_the_walker_reaches():
    ram = PhysSpace("ram", width=40)
    lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(G), 16 * M), output_space=ram)
    upper = PagedDomain(BusSpace("nic", width=32), below=lower, format=arm_lpae(ias=32, oas=32))
    assert upper.table.root < 4 * G
    upper.alloc(K4)
    assert all(mapping.iova.stop <= 4 * G for mapping in lower.mappings())


# -- B47: a guest maps a device's registers that the host has not mapped


@pytest.mark.parametrize("mapped", [False, True])
def test_the_host_has_to_map_the_registers_too(mapped):
    ram = PhysSpace("ram", width=44)
    memory = SparseRam(ram)
    host = PagedDomain(
        BusSpace("host", width=46),
        frames=Frames(ram.at(0x4000_0000), 64 * M),
        output_space=ram,
        memory=Node(Memory("ram", memory)),
    )
    host.map(host.input_space.at(0), ram.at(0x4000_0000), 16 * M)
    if mapped:
        host.map(host.input_space.at(0xE0_0010_0000), ram.at(0xE0_0010_0000), K4)
    guest = PagedDomain(BusSpace("guest", width=48), below=host)
    guest.map(guest.input_space.at(0x8000_0000), host.input_space.at(0xE0_0010_0000), K4)
    found = access(guest.node, 0x8000_0010, 4, Access.READ)
    if mapped:
        assert found.fault is None
    else:
        assert str(found.fault) == ("translation fault of READ access at 0xe000100010 in layer 'host'")
