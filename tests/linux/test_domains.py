"""The IOMMU API by the kernel's names: 0, bytes and negative errnos, one positive and one negative answer each."""

import errno
import inspect
from pathlib import Path

import pytest

from swiommu import linux
from swiommu.address import BusSpace, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.errors import Busy, DeviceFault, NoDevice, SpaceMismatch
from swiommu.iommu.groups import Capability, DomainType, Hardware, Hwpt, IommuCore, SgEntry
from swiommu.layer import Reserved
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK
from swiommu.pagetable.formats import amd_v1, arm_lpae, riscv, vtd_ss, x86_64

RW = Prot.READ | Prot.WRITE


class World:
    def __init__(self, **options):
        self.ram = SparseRam(PhysSpace("ram", width=40))
        self.bus = BusSpace("pci", width=48)
        self.frames = Frames(self.ram.space.at(0x4000_0000), 1 << 20)
        self.hardware = Hardware(name="smmu", bus=self.bus, ram=self.ram.space, frames=self.frames, **options)
        self.core = IommuCore()
        self.nic, self.group = self.probe("nic", max_pasids=16)
        self.stranger = BusDevice("stranger", self.ram)

    def probe(self, name, **facts):
        device = BusDevice(name, self.ram, dma_mask=(1 << 48) - 1)
        return device, self.core.probe(device, self.hardware, **facts)

    def domain(self):
        return linux.iommu_paging_domain_alloc(self.nic)


@pytest.fixture
def world():
    return World()


def test_allocating_and_freeing(world):
    free = world.frames.free_count
    domain = world.domain()
    assert domain.kernel.type is DomainType.UNMANAGED
    linux.iommu_domain_free(domain)
    linux.iommu_domain_free(None)
    assert world.frames.free_count == free
    assert linux.iommu_paging_domain_alloc(world.stranger) == -errno.ENODEV
    assert linux.iommu_paging_domain_alloc_flags(world.nic, 1) == -errno.EOPNOTSUPP
    assert linux.iommu_paging_domain_alloc_flags(world.nic, 8).kernel.type is DomainType.UNMANAGED
    world.frames.fail_nth(1)
    assert world.domain() == -errno.ENOMEM


def test_a_domain_in_use_is_not_freed(world):
    domain = world.domain()
    linux.iommu_attach_device(domain, world.nic)
    with pytest.raises(Busy):
        linux.iommu_domain_free(domain)


def test_attaching_a_device(world):
    domain = world.domain()
    assert linux.iommu_attach_device(domain, world.nic) == 0
    assert linux.iommu_get_domain_for_dev(world.nic) is domain
    assert linux.iommu_attach_device(domain, world.nic) == -errno.EBUSY
    linux.iommu_detach_device(domain, world.nic)
    assert linux.iommu_get_domain_for_dev(world.nic) is world.group.default_domain
    assert linux.iommu_attach_device(domain, world.stranger) == -errno.ENODEV
    assert linux.iommu_attach_device(World().domain(), world.nic) == -errno.EINVAL
    assert linux.iommu_get_domain_for_dev(world.stranger) is None
    linux.iommu_detach_device(domain, world.stranger)


def test_attaching_a_group():
    world = World(grouping="iommu")
    world.probe("disk")
    domain = world.domain()
    assert linux.iommu_attach_device(domain, world.nic) == -errno.EINVAL
    assert linux.iommu_group_get(world.nic) is world.group
    assert linux.iommu_group_get(world.stranger) is None
    world.hardware.fail_nth(2, Busy("pinned"))
    assert linux.iommu_attach_group(domain, world.group) == -errno.EBUSY
    assert world.group.domain is world.group.default_domain
    assert linux.iommu_attach_group(domain, world.group) == 0
    linux.iommu_detach_group(domain, world.group)
    assert world.group.domain is world.group.default_domain


def test_pasids(world):
    domain = world.domain()
    assert linux.iommu_attach_device_pasid(domain, world.nic, 1) == 0
    assert linux.iommu_attach_device_pasid(domain, world.nic, 1) == -errno.EBUSY
    assert linux.iommu_attach_device_pasid(domain, world.nic, 0) == -errno.EINVAL
    assert linux.iommu_attach_device_pasid(domain, world.stranger, 1) == -errno.ENODEV
    linux.iommu_detach_device_pasid(domain, world.nic, 1)
    linux.iommu_detach_device_pasid(domain, world.stranger, 1)
    assert world.group.pasids == {}


def test_drivers_and_owners(world):
    assert linux.iommu_device_use_default_domain(world.nic) == 0
    assert linux.iommu_group_dma_owner_claimed(world.group)
    assert linux.iommu_device_claim_dma_owner(world.nic, "vfio") == -errno.EPERM
    assert linux.iommu_group_claim_dma_owner(world.group, "vfio") == -errno.EPERM
    linux.iommu_device_unuse_default_domain(world.nic)
    assert not linux.iommu_group_dma_owner_claimed(world.group)
    assert linux.iommu_device_claim_dma_owner(world.nic, None) == -errno.EINVAL
    assert linux.iommu_device_claim_dma_owner(world.stranger, "vfio") == -errno.ENODEV
    assert linux.iommu_device_claim_dma_owner(world.nic, "vfio") == 0
    assert linux.iommu_device_use_default_domain(world.nic) == -errno.EBUSY
    linux.iommu_device_release_dma_owner(world.nic)
    linux.iommu_device_release_dma_owner(world.stranger)
    assert linux.iommu_group_claim_dma_owner(world.group, "vfio") == 0
    linux.iommu_group_release_dma_owner(world.group)
    assert world.group.owner is None
    late, _ = world.probe("late", defer=True)
    assert linux.iommu_device_use_default_domain(late) == -517


def test_mapping(world):
    domain = world.domain()
    assert linux.iommu_map(domain, 0x8000, 0x10_0000, 0x3000, RW) == 0
    assert linux.iommu_iova_to_phys(domain, 0x9010) == 0x10_1010
    assert linux.iommu_iova_to_phys(domain, 0x1000) == 0
    assert linux.iommu_map(domain, 0x8000, 0x10_0000, 0x1000, RW) == -errno.EADDRINUSE
    assert linux.iommu_map(domain, 0x1, 0x10_0000, 0x1000, RW) == -errno.EINVAL
    assert linux.iommu_map(world.hardware.identity_domain, 0x1000, 0, 0x1000, RW) == -errno.EINVAL
    assert linux.iommu_unmap(domain, 0x8000, 0x10_0000) == 0x3000
    assert linux.iommu_unmap(domain, 0x8001, 0x1000) == 0


@pytest.mark.parametrize(
    ("form", "arguments", "answer"),
    [
        (arm_lpae(), (0x8000, 0, 0x1000, RW), -errno.EEXIST),
        (arm_lpae(), (1 << 48, 0, 0x1000, RW), -errno.ERANGE),
        (arm_lpae(), (0x1000, 0, 0, RW), 0),
        (vtd_ss(profile="7.3"), (0x8000, 0, 0x1000, RW), -errno.EADDRINUSE),
        (vtd_ss(profile="7.3"), (0x8800, 0, 0x1000, RW), -errno.ENXIO),
        (vtd_ss(profile="7.3"), ((1 << 64) - 0x1000, 0, 0x2000, RW), -errno.EOVERFLOW),
        (vtd_ss(profile="7.3"), (0x1000, 1 << 60, 0x1000, RW), -errno.ERANGE),
        (vtd_ss(profile="7.3"), (0x1000, 0, 0, RW), -errno.EINVAL),
        (vtd_ss(profile="7.3"), (0x1000, 0, 0x1000, 0), -errno.EINVAL),
    ],
    ids=["EEXIST", "ERANGE", "size-0", "EADDRINUSE", "ENXIO", "EOVERFLOW", "ERANGE-output", "size-0-EINVAL", "rights"],
)
def test_errnos_of_map(form, arguments, answer):
    domain = World(format=form).domain()
    assert linux.iommu_map(domain, 0x8000, 0x1000, 0x1000, RW) == 0
    assert linux.iommu_map(domain, *arguments) == answer


def test_mapping_in_two_steps():
    told = []

    def sync(_, iova, size):
        told.append((iova, size))
        raise NoDevice("gone")

    world = World(sync_map=sync)
    domain = world.domain()
    assert linux.iommu_map_nosync(domain, 0x8000, 0x1000, 0x1000, RW) == 0
    assert linux.iommu_map_nosync(domain, 0x8001, 0x1000, 0x1000, RW) == -errno.EINVAL
    assert told == []
    assert linux.iommu_sync_map(domain, 0x8000, 0x1000) == -errno.ENODEV
    assert linux.iommu_iova_to_phys(domain, 0x8000) == 0
    assert linux.iommu_sync_map(World().domain(), 0x8000, 0x1000) == 0


def test_a_scatter_list(world):
    domain = world.domain()
    pieces = [SgEntry(0x5000, 0x1000), SgEntry(0x6000, 0x1000), SgEntry(0x2000, 0x1000)]
    assert linux.iommu_map_sg(domain, 0x8000, pieces, 3, RW) == 0x3000
    assert linux.iommu_map_sg(domain, 0x7000, pieces, 3, RW) == -errno.EADDRINUSE
    assert linux.iommu_iova_to_phys(domain, 0x7000) == 0
    assert linux.iommu_map_sg(domain, 0xC000, pieces, 1, RW) == 0x1000
    assert linux.iommu_map_sg(domain, 0xD000, pieces, 0, RW) == 0
    assert linux.iommu_iova_to_phys(domain, 0xD000) == 0
    for nents in (4, -1):
        assert linux.iommu_map_sg(domain, 0xD000, pieces, nents, RW) == -errno.EINVAL
        assert str(linux.last_error()) == f"{nents} entries of a scatter list of 3"


def test_unmapping_fast(world):
    domain = world.domain()
    linux.iommu_map(domain, 0x8000, 0x1000, 0x2000, RW)
    gather = linux.iommu_iotlb_gather_init(domain)
    assert linux.iommu_unmap_fast(domain, 0x8000, 0x2000, gather) == 0x2000
    assert linux.iommu_unmap_fast(domain, 0x8000, 0x2000, gather) == 0
    assert domain.stats.invalidations == 0
    linux.iommu_iotlb_sync(domain, gather)
    assert domain.stats.invalidations == 1


def test_faults(world):
    domain = world.domain()
    linux.iommu_attach_device(domain, world.nic)
    assert linux.report_iommu_fault(domain, world.nic, 0, 0) == -errno.ENOSYS
    seen = []
    linux.iommu_set_fault_handler(domain, lambda *arguments: seen.append(arguments) or -errno.EAGAIN, "token")
    assert linux.report_iommu_fault(domain, world.nic, 0x1000, 1) == -errno.EAGAIN
    with pytest.raises(DeviceFault):
        world.nic.read(world.bus.at(0x2000), 1)
    assert seen == [(domain, world.nic, 0x1000, 1, "token"), (domain, world.nic, 0x2000, 0, "token")]


@pytest.mark.parametrize("flags", [0x100, 0x10, 0x108, 1 << 31, 1 << 32, -1, -8])
def test_flags_that_mean_nothing_are_refused(world, flags):
    assert linux.iommu_paging_domain_alloc_flags(world.nic, flags) == -errno.EOPNOTSUPP
    assert linux.iommu_paging_domain_alloc_flags(world.stranger, flags) == -errno.ENODEV


ALWAYS = {Capability.CACHE_COHERENCY, Capability.DEFERRED_FLUSH}


@pytest.mark.parametrize(
    ("form", "more"),
    [
        *(
            (form, {Capability.ENFORCE_CACHE_COHERENCY})
            for form in (vtd_ss(), vtd_ss(profile="7.3"), amd_v1(), x86_64())
        ),
        *((form, {Capability.NOEXEC}) for form in (arm_lpae(), arm_lpae(stage=2), MOCK)),
        (riscv(), {Capability.ENFORCE_CACHE_COHERENCY, Capability.NOEXEC}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_capabilities_are_those_of_the_format(form, more):
    world = World(format=form)
    found = {capability for capability in Capability if linux.device_iommu_capable(world.nic, capability)}
    assert found == ALWAYS | more
    dirty = World(format=form, hwpt=Hwpt.DIRTY_TRACKING)
    assert linux.device_iommu_capable(dirty.nic, Capability.DIRTY_TRACKING)
    assert linux.iommu_paging_domain_alloc_flags(dirty.nic, 2).kernel.type is DomainType.UNMANAGED
    assert linux.iommu_paging_domain_alloc_flags(world.nic, 2) == -errno.EOPNOTSUPP


def test_capabilities_and_regions(world):
    assert linux.device_iommu_capable(world.nic, Capability.CACHE_COHERENCY) is True
    assert linux.device_iommu_capable(world.stranger, Capability.CACHE_COHERENCY) is False
    region = Reserved(0xFEE0_0000, 0x10_0000, "msi")
    _, group = world.probe("usb", regions=(region,))
    assert linux.iommu_get_group_resv_regions(group) == [region]
    assert linux.iommu_get_group_resv_regions(world.group) == []


def test_every_public_function_is_called_here():
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    functions = [name for name in linux.__all__ if inspect.isfunction(getattr(linux, name))]
    assert [name for name in functions if f"linux.{name}(" not in text] == []
    assert linux.errno_of(Busy("in use")) == -errno.EBUSY


def test_gathering_by_hand(world):
    domain = world.domain()
    gather = linux.iommu_iotlb_gather_init(domain)
    linux.iommu_iotlb_gather_add_range(gather, 0x3000, 0x1000)
    assert not linux.iommu_iotlb_gather_is_disjoint(gather, 0x4000, 0x1000)
    assert linux.iommu_iotlb_gather_is_disjoint(gather, 0x5000, 0x1000)
    linux.iommu_iotlb_gather_add_page(domain, gather, 0x5000, 0x1000)
    assert domain.stats.invalidations == 1  # a gap: what was before was flushed
    assert (gather.start, gather.last) == (0x5000, 0x5FFF)
    assert linux.iommu_iotlb_gather_is_disjoint(gather, world.bus.at(0x8000), 0x1000)
    linux.iommu_iotlb_gather_add_range(gather, world.bus.at(0x6000), 0x1000)
    linux.iommu_iotlb_gather_add_page(domain, gather, world.bus.at(0x7000), 0x1000)
    assert (gather.start, gather.last) == (0x5000, 0x7FFF)
    with pytest.raises(SpaceMismatch) as caught:
        linux.iommu_iotlb_gather_add_page(domain, gather, BusSpace("usb").at(0x8000), 0x1000)
    assert str(caught.value) == "iova BusAddr(usb:0x8000) is no address of the space 'pci'"
    assert not linux.iommu_iotlb_gather_queued(gather)
    assert not linux.iommu_iotlb_gather_queued(None)
    linux.iommu_iotlb_sync(domain, gather)
    assert domain.stats.invalidations == 2
    linux.iommu_flush_iotlb_all(domain)
    assert (domain.stats.invalidations, domain.stats.flushes) == (3, 1)


def test_the_number_of_a_group(world):
    _, other = world.probe("disk")
    assert [linux.iommu_group_id(group) for group in (world.group, other)] == [0, 1]


def test_addresses_that_know_their_space(world):
    domain = world.domain()
    bus, ram = world.bus, world.ram.space
    assert linux.iommu_map(domain, bus.at(0x8000), ram.at(0x10_0000), 0x2000, RW) == 0
    assert linux.iommu_iova_to_phys(domain, bus.at(0x9010)) == 0x10_1010
    assert linux.iommu_map(domain, ram.at(0xA000), 0x10_0000, 0x1000, RW) == -errno.EINVAL
    assert str(linux.last_error()) == "iova PhysAddr(ram:0xa000) is no address of the space 'pci'"
    assert linux.iommu_unmap(domain, bus.at(0x8000), 0x2000) == 0x2000
    assert linux.report_iommu_fault(domain, world.nic, bus.at(0x8000), 0) == -errno.ENOSYS


def test_what_undoes_nothing_changes_nothing():
    world = World(profile="7.3")
    default, domain = world.group.default_domain, world.domain()
    linux.iommu_detach_group(default, world.group)
    assert linux.iommu_get_domain_for_dev(world.nic) is default
    before = domain.stats.invalidations
    linux.iommu_iotlb_sync(domain, linux.iommu_iotlb_gather_init(domain))
    assert domain.stats.invalidations == before
    linux.iommu_set_fault_handler(default, lambda *_: 0)
    assert linux.report_iommu_fault(default, world.nic, 0x1000, 0) == -errno.ENOSYS  # its cookie is the allocator's
    linux.iommu_device_unuse_default_domain(world.nic)
    linux.iommu_device_release_dma_owner(world.nic)
    linux.iommu_group_release_dma_owner(world.group)
    assert not linux.iommu_group_dma_owner_claimed(world.group)
    assert linux.iommu_group_claim_dma_owner(world.group, "vfio") == 0
