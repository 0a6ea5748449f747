"""One device is one object: its mask, its bus, its group and what its driver calls; the backend is found."""

import pytest

from swiommu.address import BusSpace, PhysSpace
from swiommu.device import BusDevice
from swiommu.dma import (
    DMA_BIT_MASK,
    DirectBus,
    DirectDma,
    DmaDevice,
    DmaDirection,
    IommuDma,
    LinearDma,
    SwiotlbPool,
    backend_of,
)
from swiommu.errors import Busy, InvalidArgument, NoDevice, NotSupported, OutOfRange, ProbeDeferred, SpaceMismatch
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.iommu.groups import Defaults, DomainType, Hardware, IommuCore, claim_device, write_type
from swiommu.memory import Frames, SparseRam
from swiommu.region import Region

TO, FROM = DmaDirection.TO_DEVICE, DmaDirection.FROM_DEVICE
HIGH = 0x1_2345_6000


class Machine:
    def __init__(self, *, default=None, defaults=None, **options):
        self.ram = SparseRam(PhysSpace("ram", width=40))
        self.bus = BusSpace("pci", width=48)
        self.frames = Frames(self.ram.space.at(0x4000_0000), 1 << 20)
        self.smmu = Hardware(name="smmu", bus=self.bus, ram=self.ram.space, frames=self.frames, **options)
        self.core = IommuCore(defaults or Defaults(strict=True))

    def probe(self, name="nic", *, device=None, **facts):
        nic = BusDevice(name, self.ram, **(device or {}))
        return nic, self.core.probe(nic, self.smmu, **facts)

    def at(self, value):
        return self.ram.space.at(value)


def transfer(nic, phys):
    """Map for reading by the device, let it read, unmap; what it read and the address that it used."""
    nic.ram.write(phys, b"packet")
    address = nic.dma.dma_map_single(phys, 6, TO)
    assert nic.dma.dma_mapping_error(address) == 0, str(nic.dma.last_error)
    data = nic.read(address, 6)
    nic.dma.dma_unmap_single(address, 6, TO)
    return data, address.value


# -- the backend is found


def test_a_domain_that_translates():
    machine = Machine()
    nic, group = machine.probe()
    assert isinstance(nic.dma.backend, IommuDma)
    assert nic.dma.backend.domain is group.default_domain
    assert transfer(nic, machine.at(HIGH)) == (b"packet", 0xFFFF_F000)
    cpu, handle = nic.dma.dma_alloc_coherent(4096)
    nic.write(handle, b"done")
    assert cpu.read(0, 4) == b"done"
    nic.dma.dma_free_coherent(4096, cpu, handle)


def test_passthrough_is_direct():
    machine = Machine(defaults=Defaults(passthrough=True))
    nic, _ = machine.probe(device={"dma_mask": DMA_BIT_MASK(40)})
    assert isinstance(nic.dma.backend, DirectDma)
    assert transfer(nic, machine.at(HIGH)) == (b"packet", HIGH)
    cpu, handle = nic.dma.dma_alloc_coherent(4096)  # of the frames of the IOMMU
    assert 0x4000_0000 <= handle.value < 0x4010_0000
    nic.write(handle, b"done")
    assert cpu.read(0, 4) == b"done"
    nic.dma.dma_free_coherent(4096, cpu, handle)
    assert machine.frames.free_count == 256


def test_passthrough_takes_coherent_memory_of_the_device_if_it_has_some():
    machine = Machine(defaults=Defaults(passthrough=True))
    region = Region(machine.at(0x6000_0000), 1 << 20)
    nic, _ = machine.probe(device={"memory": [region]})
    _, handle = nic.dma.dma_alloc_coherent(4096)
    assert (handle.value, region.users) == (0x6000_0000, 1)


def test_no_translation_is_linear():
    ram = SparseRam(PhysSpace("ram", width=40))
    region = Region(ram.space.at(0x8000_0000), 1 << 20)
    none = Hardware(name="soc", bus=BusSpace("soc", width=32), region=region, delta=-0x4000_0000)
    camera = BusDevice("camera", ram)
    group = IommuCore().probe(camera, none)
    assert isinstance(camera.dma.backend, LinearDma)
    assert transfer(camera, ram.space.at(0x8000_2000)) == (b"packet", 0x4000_2000)
    _, handle = camera.dma.dma_alloc_coherent(8192)
    assert (handle.value, group.domain.mapped()) == (0x4000_0000, [(0x4000_0000, 0x4000_2000)])
    address = camera.dma.dma_map_single(ram.space.at(0x9000_0000), 6, TO)
    assert camera.dma.dma_mapping_error(address) == -12
    assert str(camera.dma.last_error) == (
        "device 'camera' does not reach 6 bytes at physical 0x90000000: its mask is 0xffffffff"
    )


def test_another_iommu_below():
    machine = Machine()
    lower = machine.smmu.alloc(DomainType.DMA)
    guest = Hardware(name="vsmmu", bus=BusSpace("guest", width=40), below=lower)
    nic = BusDevice("nic", machine.ram)
    IommuCore(Defaults(strict=True)).probe(nic, guest)
    assert isinstance(nic.dma.backend, IommuDma)
    assert transfer(nic, machine.at(HIGH))[0] == b"packet"
    assert [mapping.size for mapping in lower.mappings() if mapping.pieces[0].start.value == HIGH] == []


@pytest.mark.parametrize("kind", ["identity", "linear"])
def test_bus_addresses_of_another_iommu_are_no_memory_of_a_driver(kind):
    machine = Machine()
    lower = machine.smmu.alloc(DomainType.DMA)
    options = {"region": Region(lower.input_space.at(0x10_0000), 1 << 20)} if kind == "linear" else {}
    guest = Hardware(name="vsmmu", bus=BusSpace("guest", width=40), below=lower, **options)
    nic = BusDevice("nic", machine.ram)
    IommuCore(Defaults(passthrough=kind == "identity")).probe(nic, guest)
    assert nic.dma.dma_mapping_error(nic.dma.dma_map_single(machine.at(HIGH), 6, TO)) == -12
    assert type(nic.dma.last_error) is NotSupported
    assert (
        str(nic.dma.last_error)
        == "the output space of the domain of 'guest' is the bus space 'pci', where a driver has no memory"
    )


def test_a_domain_without_a_group_and_a_bus_without_a_domain():
    ram = SparseRam(PhysSpace("ram", width=40))
    nic = BusDevice("nic", ram, bus=DirectBus(BusSpace("soc", width=40), ram.space))
    assert isinstance(backend_of(nic), DirectDma)
    assert transfer(nic, ram.space.at(0x5000)) == (b"packet", 0x5000)
    linear = LinearDomain(BusSpace("bus", width=32), Region(ram.space.at(0x8000_0000), 1 << 20))
    linear.attach(nic)
    assert isinstance(nic.dma.backend, LinearDma)
    assert transfer(nic, ram.space.at(0x8000_2000)) == (b"packet", 0x8000_2000)
    linear.detach(nic)
    frames = Frames(ram.space.at(0x4000_0000), 1 << 20)
    paged = PagedDomain(BusSpace("iova", width=32), frames=frames, output_space=ram.space)
    paged.attach(nic)
    assert isinstance(nic.dma.backend, IommuDma)
    assert transfer(nic, ram.space.at(0x5000))[0] == b"packet"


def test_a_device_that_is_nowhere():
    nic = BusDevice("nic", SparseRam(PhysSpace("ram")))
    assert nic.dma.dma_alloc_coherent(4096) is None
    assert type(nic.dma.last_error) is NoDevice
    assert nic.dma.dma_mapping_error(nic.dma.dma_map_single(nic.ram.space.at(HIGH), 6, TO)) == -12
    with pytest.raises(NoDevice) as caught:
        nic.dma.dma_get_required_mask()
    assert (
        str(caught.value)
        == str(nic.dma.last_error)
        == "device 'nic' has no domain, and no bus that shows memory: nothing maps for it"
    )


def test_a_group_that_has_no_default_domain_yet():
    machine = Machine()
    nic, _ = machine.probe(defer=True)
    assert nic.dma.dma_alloc_coherent(4096) is None
    assert type(nic.dma.last_error) is ProbeDeferred
    assert str(nic.dma.last_error) == "IOMMU group 0 has no default domain yet"
    machine.core.finish()
    assert isinstance(nic.dma.backend, IommuDma)


def test_memory_of_another_space_is_refused():
    machine = Machine()
    nic = BusDevice("nic", SparseRam(PhysSpace("other")))
    machine.core.probe(nic, machine.smmu)
    with pytest.raises(SpaceMismatch) as caught:
        nic.dma.dma_alloc_coherent(4096)
    assert str(caught.value) == "the domain of 'pci' leads to memory 'ram', not to 'other'"


def test_an_untrusted_device_is_bounced():
    machine = Machine()
    pool = SwiotlbPool(0x7800_0000, 128)
    nic, _ = machine.probe(device={"pool": pool}, untrusted=True)
    address = nic.dma.dma_map_single(machine.at(HIGH + 0x10), 6, TO)
    assert nic.dma.backend.untrusted
    assert pool.used > 0
    nic.dma.dma_unmap_single(address, 6, TO)
    bare, _ = machine.probe("usb", untrusted=True)
    with pytest.raises(InvalidArgument) as caught:
        bare.dma.dma_map_single(machine.at(HIGH), 6, TO)
    assert str(caught.value) == "an untrusted device needs a pool to bounce in"


def test_what_is_out_of_reach_bounces_in_the_pool_of_the_device():
    machine = Machine(defaults=Defaults(passthrough=True))
    nic, _ = machine.probe(device={"pool": SwiotlbPool(0x7800_0000, 128)})
    data, address = transfer(nic, machine.at(HIGH))
    assert (data, address) == (b"packet", 0x7800_0000)


# -- another default domain


def test_another_default_domain_serves_when_no_mapping_is_left():
    machine = Machine()
    nic, group = machine.probe(device={"dma_mask": DMA_BIT_MASK(40)})
    address = nic.dma.dma_map_single(machine.at(HIGH), 6, FROM)
    before = nic.dma.backend
    write_type(group, "identity", machine.core.defaults)
    assert group.default_domain is machine.smmu.identity_domain
    assert nic.dma.backend is before  # which has to end what it began
    nic.dma.dma_unmap_single(address, 6, FROM)
    assert isinstance(nic.dma.backend, DirectDma)
    assert transfer(nic, machine.at(HIGH)) == (b"packet", HIGH)
    write_type(group, "DMA", machine.core.defaults)
    assert transfer(nic, machine.at(HIGH)) == (b"packet", 0xFF_FFFF_F000)
    nic.dma.check()


def test_the_default_domain_serves_also_while_the_group_is_owned():
    machine = Machine()
    nic, group = machine.probe()
    claim_device(nic, "vfio")
    address = nic.dma.dma_map_single(machine.at(HIGH), 6, TO)
    assert nic.dma.backend.domain is group.default_domain
    assert group.domain is not group.default_domain
    nic.dma.dma_unmap_single(address, 6, TO)


# -- one mask


def test_the_mask_that_a_driver_sets_is_that_of_the_device_and_its_domain():
    machine = Machine(defaults=Defaults(strict=True, forcedac=True))
    nic, group = machine.probe()
    assert (nic.dma_mask, nic.dma.dma_mask) == (DMA_BIT_MASK(32), DMA_BIT_MASK(32))
    assert group.domain.alloc(4096).iova.start.value == 0xFFFF_F000
    assert nic.dma.dma_set_mask(DMA_BIT_MASK(40)) == 0
    assert (nic.dma_mask, nic.dma.dma_mask) == (DMA_BIT_MASK(40), DMA_BIT_MASK(40))
    high = group.domain.alloc(4096)
    assert high.iova.start.value == 0xFF_FFFF_F000
    nic.write(high.iova.start, b"reaches")
    assert nic.dma.dma_map_single(machine.at(HIGH), 6, TO).value == 0xFF_FFFF_E000


def test_the_mask_that_is_set_on_the_device_is_that_of_its_driver():
    machine = Machine()
    nic, group = machine.probe()
    nic.dma_mask = DMA_BIT_MASK(24)
    assert (nic.dma.dma_mask, nic.dma.dma_addressing_limited()) == (DMA_BIT_MASK(24), True)
    assert nic.dma.dma_map_single(machine.at(HIGH), 6, TO).value == 0xFF_F000
    assert group.domain.alloc(4096).iova.start.value == 0xFF_E000
    with pytest.raises(OutOfRange) as caught:
        nic.read(machine.bus.at(1 << 24), 1)
    assert str(caught.value) == ("device 'nic' can't drive 1 bytes at BusAddr(pci:0x1000000): its mask is 0xffffff")


def test_a_mask_follows_to_the_next_domain_and_the_narrowest_of_a_group_counts():
    machine = Machine(grouping="iommu")
    nic, group = machine.probe()
    usb, _ = machine.probe("usb", device={"dma_mask": DMA_BIT_MASK(48)})
    usb.dma.dma_set_mask(DMA_BIT_MASK(30))
    assert group.domain.alloc(4096).iova.stop == 1 << 30
    mine = machine.smmu.alloc(DomainType.DMA)
    group.attach_group(mine)
    assert mine.alloc(4096).iova.stop == 1 << 30
    nic.dma_mask = DMA_BIT_MASK(20)
    assert mine.alloc(4096).iova.stop == 1 << 20


def test_a_wide_mask_does_not_widen_an_aperture():
    machine = Machine(defaults=Defaults(strict=True, forcedac=True))
    nic, group = machine.probe()
    nic.dma_mask = DMA_BIT_MASK(64)
    assert group.domain.alloc(4096).iova.stop == 1 << 48
    other = BusDevice("other", machine.ram)
    domain = PagedDomain(
        BusSpace("iova", width=32), frames=Frames(machine.at(0x7000_0000), 1 << 20), output_space=machine.ram.space
    )
    domain.attach(nic2 := BusDevice("nic2", machine.ram, dma_mask=DMA_BIT_MASK(64)))
    domain.attach(other)
    domain.detach(other)
    assert nic2.domain is domain
    assert domain.alloc(4096).iova.stop == 1 << 32


@pytest.mark.parametrize("mask", [0, -1, 0x1000, 0xFFFF_FFFE])
def test_masks_that_are_none(mask):
    nic = BusDevice("nic", SparseRam(PhysSpace("ram")))
    with pytest.raises(InvalidArgument) as caught:
        nic.dma_mask = mask
    assert str(caught.value) == f"a DMA mask is 2**n - 1, not {mask:#x}"
    assert nic.dma_mask == DMA_BIT_MASK(32)


def test_a_mask_that_the_platform_does_not_serve_changes_nothing():
    machine = Machine(defaults=Defaults(passthrough=True))
    nic, _ = machine.probe()
    assert nic.dma.dma_set_mask(DMA_BIT_MASK(20)) == -5
    assert nic.dma_mask == DMA_BIT_MASK(32)


# -- a device with a backend of its own, and a name without one


def test_a_backend_that_is_given_serves_and_the_mask_is_still_one():
    machine = Machine()
    nic, _ = machine.probe()
    direct = DirectDma(DirectBus(BusSpace("soc", width=40), machine.ram.space), machine.ram, [machine.frames])
    dev = DmaDevice(nic, direct)
    assert dev.backend is direct
    assert dev.dma_set_mask(DMA_BIT_MASK(40)) == 0
    assert (nic.dma_mask, dev.name) == (DMA_BIT_MASK(40), "nic")


def test_a_name_alone_needs_a_backend():
    with pytest.raises(InvalidArgument) as caught:
        DmaDevice("nic")
    assert str(caught.value) == "a device that is the name 'nic' alone needs a backend"


def test_freeing_a_default_domain_in_use_is_refused_by_its_mappings():
    machine = Machine()
    nic, group = machine.probe()
    address = nic.dma.dma_map_single(machine.at(HIGH), 6, TO)
    with pytest.raises(Busy):
        group.default_domain.destroy()
    nic.dma.dma_unmap_single(address, 6, TO)
