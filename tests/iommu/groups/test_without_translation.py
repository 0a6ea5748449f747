"""A bus without translation, and an IOMMU on another one, behind the kernel's core: what they have and refuse."""

import pytest

from swiommu.address import BusSpace, PhysRange, PhysSpace
from swiommu.device import BusDevice
from swiommu.errors import (
    AddressInUse,
    Busy,
    DeviceFault,
    InvalidArgument,
    NoMemory,
    NotSupported,
    OutOfRange,
    SpaceMismatch,
)
from swiommu.iommu.groups import (
    Capability,
    Cookie,
    Defaults,
    DomainType,
    Hardware,
    HostBridge,
    Hwpt,
    IommuCore,
    PciBus,
    PciFunction,
    SgEntry,
    attach_pasid,
    capable,
    claim_device,
    free_domain,
    gather_for,
    iova_to_phys,
    map_range,
    map_sg,
    release_device,
    reset_done,
    reset_prepare,
    sync_map,
    unmap_range,
    write_type,
)
from swiommu.layer import Reserved
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK
from swiommu.region import Region

RW = 3
BASE, SIZE, DELTA = 0x8000_0000, 1 << 20, -0x4000_0000
ON_BUS = BASE + DELTA


class Soc:
    def __init__(self, defaults=None, **options):
        self.ram = SparseRam(PhysSpace("ram", width=40))
        self.bus = BusSpace("soc", width=32)
        self.region = Region(self.ram.space.at(BASE), SIZE)
        options = {"delta": DELTA, **options}
        self.hardware = Hardware(name="soc", bus=self.bus, region=self.region, **options)
        self.core, self.events = IommuCore(defaults or Defaults()), []
        self.core.listeners.append(lambda event: self.events.append(str(event)))

    def probe(self, name="camera", **facts):
        device = BusDevice(name, self.ram)
        return device, self.core.probe(device, self.hardware, **facts)


def test_a_device_is_found_and_has_a_domain_of_the_dma_api():
    soc = Soc()
    camera, group = soc.probe()
    domain = group.default_domain
    assert (domain.kernel.type, domain.kernel.cookie, group.type_text) == (DomainType.DMA, Cookie.DMA_IOVA, "DMA\n")
    assert group.domain is domain
    assert soc.events == [
        "add_device_to_group: IOMMU: groupID=0 device=camera",
        "attach_device_to_domain: IOMMU: device=camera",
    ]
    geometry = domain.kernel.geometry
    assert (geometry.aperture_start, geometry.aperture_end, geometry.force_aperture) == (
        ON_BUS,
        ON_BUS + SIZE - 1,
        True,
    )
    assert domain.kernel.pgsize_bitmap == 0xFFFF_F000
    camera.write(soc.bus.at(ON_BUS + 0x100), b"frame")
    assert soc.ram.read(soc.ram.space.at(BASE + 0x100), 5) == b"frame"
    soc.core.release(camera)
    assert (soc.core.groups, soc.region.users) == ({}, 0)


def test_all_devices_of_a_bus_without_translation_are_one_group(refused):
    soc = Soc()
    camera, group = soc.probe()
    codec, other = soc.probe("codec")
    assert other is group
    mine = soc.hardware.alloc(DomainType.UNMANAGED)
    assert refused(InvalidArgument, group.attach_device, mine, camera) == (
        "device 'camera' is one of 2 in IOMMU group 0: attach the group"
    )
    group.attach_group(mine)
    assert group.domain is mine
    group.check()
    soc.core.release(codec)
    assert refused(Busy, free_domain, mine).startswith("the domain of 'soc' has 1 devices")


def test_what_it_can_not_enforce_is_no_capability():
    soc = Soc()
    camera, _ = soc.probe()
    assert [capable(camera, capability) for capability in Capability] == [False] * len(Capability)
    coherent, _ = Soc(capabilities={Capability.CACHE_COHERENCY}).probe()
    assert [each.name for each in Capability if capable(coherent, each)] == ["CACHE_COHERENCY"]
    assert not soc.hardware.deferred_flush


def test_maps_where_the_window_shows_it(refused):
    mine = Soc().hardware.alloc(DomainType.UNMANAGED)
    map_range(mine, ON_BUS + 0x2000, BASE + 0x2000, 0x3000, RW)
    assert iova_to_phys(mine, ON_BUS + 0x3010) == BASE + 0x3010
    assert iova_to_phys(mine, ON_BUS + 0x1000) == 0
    assert refused(NotSupported, map_range, mine, ON_BUS + 0x8000, BASE + 0x9000, 0x1000, RW) == (
        "bus 0x40008000 leads to 0x80008000 through delta -0x40000000, never to 0x80009000"
    )
    assert refused(AddressInUse, map_range, mine, ON_BUS + 0x4000, BASE + 0x4000, 0x2000, RW) == (
        "[0x40004000, 0x40006000) overlaps [0x40002000, 0x40005000), which is in use"
    )
    assert refused(OutOfRange, map_range, mine, ON_BUS + SIZE, BASE + SIZE, 0x1000, RW) == (
        "0x1000 bytes at bus 0x40100000 are not inside the window PhysRange(ram:0x80000000+0x100000)"
    )
    assert unmap_range(mine, ON_BUS + 0x3000, 0x1000) == 0x1000
    assert unmap_range(mine, ON_BUS + 0x3000, 0x1000) == 0
    assert unmap_range(mine, ON_BUS + 0x2000, 0x10_0000) == 0x1000
    assert unmap_range(mine, ON_BUS + 0x4000, 0x10_0000) == 0x1000
    assert mine.mapped() == []


@pytest.mark.parametrize(
    ("kind", "arguments", "text"),
    [
        (
            InvalidArgument,
            (ON_BUS, BASE, 0x800, RW),
            "unaligned: iova 0x40000000 pa 0x80000000 size 0x800 min_pagesz 0x1000",
        ),
        (InvalidArgument, (ON_BUS, BASE, 0, RW), "0 bytes at 0x40000000 can't be mapped"),
        (InvalidArgument, (ON_BUS, BASE, 0x1000, 0), "protection 0x0: READ or WRITE is needed"),
        (OutOfRange, (ON_BUS, 1 << 40, 0x1000, RW), "paddr 0x10000000000 is beyond the 40 bits of the output"),
        (
            OutOfRange,
            (0xFFFF_F000, BASE, 0x2000, RW),
            "0x2000 bytes at iova 0xfffff000 to 0x80000000 leave the 32 bits of the input or the 40 of the output",
        ),
        (
            NotSupported,
            (0x1000, 0xFF_0000_0000, 0x1000, RW),
            "bus 0x1000 leads to 0x40001000 through delta -0x40000000, never to 0xff00000000",
        ),
    ],
    ids=["size", "nothing", "rights", "output", "input", "far"],
)
def test_maps_that_are_refused(refused, kind, arguments, text):
    mine = Soc().hardware.alloc(DomainType.UNMANAGED)
    assert refused(kind, map_range, mine, *arguments) == text
    assert mine.mapped() == []


def test_a_scatter_list_has_to_be_one_piece_of_memory(refused):
    mine = Soc().hardware.alloc(DomainType.UNMANAGED)
    pieces = [SgEntry(BASE + 0x5000, 0x1000), SgEntry(BASE + 0x6000, 0x1000)]
    assert map_sg(mine, ON_BUS + 0x5000, pieces, RW) == 0x2000
    apart = [SgEntry(BASE + 0x8000, 0x1000), SgEntry(BASE + 0xA000, 0x1000)]
    assert refused(NotSupported, map_sg, mine, ON_BUS + 0x8000, apart, RW) == (
        "bus 0x40009000 leads to 0x80009000 through delta -0x40000000, never to 0x8000a000"
    )
    assert mine.mapped() == [(ON_BUS + 0x5000, ON_BUS + 0x7000)]


def test_nothing_is_cached_and_so_nothing_flushed():
    mine = Soc().hardware.alloc(DomainType.UNMANAGED)
    map_range(mine, ON_BUS, BASE, 0x2000, RW)
    gather = gather_for(mine)
    assert unmap_range(mine, ON_BUS, 0x2000, gather) == 0x2000
    gather.sync()
    sync_map(mine, ON_BUS, 0x1000)
    assert mine.stats.invalidations == 0
    assert not mine.enforce_cache_coherency()


def test_what_is_freed_gives_back_what_was_mapped_by_hand():
    soc = Soc()
    mine = soc.hardware.alloc(DomainType.UNMANAGED)
    map_range(mine, ON_BUS + 0x3000, BASE + 0x3000, 0x1000, RW)
    map_range(mine, ON_BUS + 0x1000, BASE + 0x1000, 0x1000, RW)
    free_domain(mine)
    assert mine.destroyed
    assert soc.region.users == 0


def test_an_owner_keeps_drivers_out_and_the_device_is_not_kept_from_memory():
    soc = Soc()
    camera, group = soc.probe()
    claim_device(camera, "vfio")
    assert (group.domain.kernel.type, group.domain is group.blocking_domain) == (DomainType.UNMANAGED, True)
    camera.write(soc.bus.at(ON_BUS), b"still")
    assert soc.ram.read(soc.ram.space.at(BASE), 5) == b"still"
    mine = soc.hardware.alloc(DomainType.UNMANAGED)
    group.attach_device(mine, camera)
    group.detach_device(camera)
    assert group.domain is group.blocking_domain
    release_device(camera)
    assert group.domain is group.default_domain


def test_a_device_that_is_reset_goes_to_an_empty_domain_and_comes_back():
    camera, group = Soc().probe()
    reset_prepare(camera)
    assert camera.domain is group.blocking_domain
    reset_done(camera)
    assert camera.domain is group.default_domain


def test_an_access_outside_of_the_window_is_a_fault_of_the_device():
    soc = Soc()
    camera, group = soc.probe(driver="isp")
    seen = []
    assert group.domain.kernel.set_fault_handler(lambda *arguments: seen.append(arguments) or 0, "token")
    soc.events.clear()
    with pytest.raises(DeviceFault):
        camera.read(soc.bus.at(ON_BUS + SIZE), 4)
    assert soc.events == ["io_page_fault: IOMMU:isp camera iova=0x0000000040100000 flags=0x0000"]
    assert seen == [(group.domain, camera, ON_BUS + SIZE, 0, "token")]


def test_passthrough_falls_back_to_the_window(caplog):
    _, group = Soc(Defaults(passthrough=True)).probe()
    assert group.default_domain.kernel.type is DomainType.DMA
    assert [record.getMessage() for record in caplog.records] == [
        "Failed to allocate default IOMMU domain of type 4 for group 0 - Falling back to IOMMU_DOMAIN_DMA"
    ]


def test_its_type_in_sysfs(refused):
    soc = Soc()
    _, group = soc.probe(regions=(Reserved(ON_BUS + 0x8000, 0x2000, "msi"),))
    first = group.default_domain
    assert [chunk.range for chunk in soc.region.chunks()] == [PhysRange(soc.ram.space.at(BASE + 0x8000), 0x2000)]
    write_type(group, "auto", soc.core.defaults)
    assert (group.default_domain is first, group.default_domain.kernel.type) == (False, DomainType.DMA)
    assert first.destroyed
    assert [chunk.range for chunk in soc.region.chunks()] == [PhysRange(soc.ram.space.at(BASE + 0x8000), 0x2000)]
    assert refused(NotSupported, write_type, group, "DMA-FQ", soc.core.defaults) == (
        "the domain of 'soc' caches no translation: it has no flush to defer"
    )
    assert refused(NotSupported, write_type, group, "identity", soc.core.defaults) == (
        "IOMMU 'soc' has no passthrough domain"
    )


def test_memory_that_firmware_uses_is_recorded_where_the_bus_shows_it(refused):
    soc = Soc(delta=0)
    _, group = soc.probe(regions=(Reserved(BASE + 0x4000, 0x2000, "direct"),))
    assert group.default_domain.mapped() == [(BASE + 0x4000, BASE + 0x6000)]
    shifted = Soc()
    assert refused(NotSupported, shifted.probe, regions=(Reserved(ON_BUS, 0x1000, "direct"),)) == (
        "bus 0x40000000 leads to 0x80000000 through delta -0x40000000, never to 0x40000000"
    )
    assert shifted.core.groups == {}


def test_what_a_host_bridge_hides_is_no_memory_to_give_out():
    soc = Soc()
    root = PciBus(0, host=HostBridge(windows=((ON_BUS + 0x1_0000, 0x4000),)))
    soc.probe(pci=PciFunction(root, 1))
    assert [chunk.range for chunk in soc.region.chunks()] == [PhysRange(soc.ram.space.at(BASE + 0x1_0000), 0x4000)]


def test_a_region_that_is_given_out_is_shared_by_its_domains(refused):
    soc = Soc()
    one, two = (soc.hardware.alloc(DomainType.DMA) for _ in range(2))
    first, second = one.alloc(SIZE // 2), two.alloc(SIZE // 2)
    assert not first.pieces[0].overlaps(second.pieces[0])
    assert refused(NoMemory, one.alloc, 1) == "4096 bytes were asked for and 0 are free"


def test_pasids_and_flags_are_not_there(refused):
    soc = Soc()
    camera, _ = soc.probe(max_pasids=16)
    mine = soc.hardware.alloc(DomainType.UNMANAGED)
    assert refused(NotSupported, attach_pasid, mine, camera, 1) == "Hardware('soc') attaches no PASIDs"
    assert refused(NotSupported, soc.hardware.alloc, DomainType.UNMANAGED, 8) == (
        "IOMMU 'soc' has no paging domains with flags 0x8"
    )
    assert refused(NotSupported, soc.hardware.alloc, DomainType.BLOCKED) == "IOMMU 'soc' has no blocked domain"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"frames": Frames(PhysSpace("other").at(0), 1 << 20)}, "frames"),
        ({"format": MOCK}, "a page table format 'mock'"),
        ({"walker_mask": 0xFFFF_FFFF}, "a walker that reads tables up to 0xffffffff"),
        ({"grouping": "device"}, "groups by 'device'"),
        ({"grouping": "pci"}, "groups by 'pci'"),
        ({"hwpt": Hwpt.PASID}, "flags 0x8 of a domain"),
        ({"identity": True}, "an identity domain"),
        ({"blocked": True}, "a blocked domain"),
        ({"knows_pasids": True}, "PASIDs"),
        (
            {"capabilities": {Capability.NOEXEC, Capability.CACHE_COHERENCY, Capability.DEFERRED_FLUSH}},
            "DEFERRED_FLUSH, NOEXEC",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_translation_is_refused(refused, options, what):
    assert refused(InvalidArgument, Soc, **options) == f"IOMMU 'soc' translates nothing: it can't have {what}"


def test_windows_that_no_domain_could_have(refused):
    space = PhysSpace("ram", width=40)
    assert refused(OutOfRange, Soc, delta=-0x9000_0000) == (
        "the window PhysRange(ram:0x80000000+0x100000) with delta -0x90000000 leaves the 32-bit space 'soc'"
    )
    assert refused(SpaceMismatch, Soc, ram=space) == (
        "<Region ram:0x80000000+0x100000 best_fit, 0 users, 1048576 bytes free> is no memory of 'ram'"
    )


# -- another IOMMU below


class Host:
    def __init__(self, **options):
        self.ram = SparseRam(PhysSpace("ram", width=40))
        self.frames = Frames(self.ram.space.at(0x4000_0000), 1 << 20)
        self.smmu = Hardware(
            name="smmu", bus=BusSpace("ipa", width=40), ram=self.ram.space, frames=self.frames, identity=False
        )
        self.lower = self.smmu.alloc(DomainType.DMA)
        self.bus = BusSpace("guest", width=40)
        self.hardware = Hardware(name="vsmmu", bus=self.bus, below=self.lower, **options)
        self.core = IommuCore(Defaults(strict=True))


def test_an_iommu_on_another_one():
    host = Host()
    nic = BusDevice("nic", host.ram)
    group = host.core.probe(nic, host.hardware)
    mine = host.hardware.alloc(DomainType.UNMANAGED)
    host.lower.map(host.lower.input_space.at(0x5000), host.ram.space.at(0x1234_5000), 0x2000)
    map_range(mine, 0x8000, 0x5000, 0x2000, RW)
    assert iova_to_phys(mine, 0x9010) == 0x6010
    group.attach_device(mine, nic)
    nic.write(host.bus.at(0x9000), b"hello")
    assert host.ram.read(host.ram.space.at(0x1234_6000), 5) == b"hello"
    assert mine.table.root in range(1 << 40)
    group.detach_device(nic)
    free_domain(mine)
    host.core.release(nic)
    assert host.lower.mappings() == []


def test_static_domains_on_another_one():
    host = Host()
    nic = BusDevice("nic", host.ram)
    group = IommuCore(Defaults(passthrough=True)).probe(nic, host.hardware)
    host.lower.map(host.lower.input_space.at(0x5000), host.ram.space.at(0x1234_5000), 0x1000)
    assert group.domain is host.hardware.identity_domain
    nic.write(host.bus.at(0x5008), b"hello")
    assert host.ram.read(host.ram.space.at(0x1234_5008), 5) == b"hello"
    claim_device(nic, "vfio")
    with pytest.raises(DeviceFault) as caught:
        nic.read(host.bus.at(0x5008), 5)
    assert str(caught.value) == (
        "device 'nic' transferred 0 of 5 bytes: translation fault of READ access at 0x5008 in layer 'guest'"
    )


def test_what_is_mapped_above_is_not_taken_away_below(refused):
    host = Host()
    mine = host.hardware.alloc(DomainType.UNMANAGED)
    host.lower.map(host.lower.input_space.at(0x5000), host.ram.space.at(0x1234_5000), 0x1000)
    map_range(mine, 0x8000, 0x5000, 0x1000, RW)
    assert refused(Busy, host.lower.unmap, host.lower.input_space.at(0x5000), 0x1000) == (
        "0x1000 bytes at 0x5000 are mapped by the domain of 'guest' at 0x8000: they can't be unmapped in the domain of "
        "'ipa'"
    )


def test_tables_in_frames_below_are_read_there(refused):
    host = Host()
    frames = Frames(host.ram.space.at(0x6000_0000), 1 << 20)
    guest = Hardware(name="vsmmu", bus=BusSpace("guest", width=40), below=host.lower, frames=frames)
    before = frames.free_count
    mine = guest.alloc(DomainType.UNMANAGED)
    assert (before - frames.free_count, host.lower.mappings()) == (1, [])
    map_range(mine, 0x8000, 0x5000, 0x1000, RW)
    assert 0x6000_0000 <= mine.table.root < 0x6010_0000
    near = Hardware(
        name="near", bus=BusSpace("near", width=40), below=host.lower, frames=frames, walker_mask=0x5FFF_FFFF
    )
    assert refused(NoMemory, near.alloc, DomainType.UNMANAGED) == (
        "no table can be at 0x60004000: the walker reads up to 0x5fffffff, and sees a table at its own address only"
    )


def test_no_translation_on_another_iommu():
    host = Host()
    bus = BusSpace("camera", width=32)
    region = Region(host.lower.input_space.at(0x10_0000), 0x4000)
    none = Hardware(name="none", bus=bus, below=host.lower, region=region, delta=0x1000)
    camera = BusDevice("camera", host.ram)
    group = host.core.probe(camera, none)
    host.lower.map(host.lower.input_space.at(0x10_0000), host.ram.space.at(0x1234_5000), 0x1000)
    map_range(group.domain, 0x10_1000, 0x10_0000, 0x1000, RW)
    camera.write(bus.at(0x10_1004), b"frame")
    assert host.ram.read(host.ram.space.at(0x1234_5004), 5) == b"frame"


ELSEWHERE = (
    "IOMMU 'smmu' is on the domain of 'ipa': that is its output space, and its tables are there unless they are in "
    "frames"
)


def test_what_is_reserved_below_is_withheld_once_for_all_domains_of_a_bus():
    host = Host()
    host.lower.reserve(Reserved(0x10_2000, 0x1000))
    bus = BusSpace("camera", width=32)
    region = Region(host.lower.input_space.at(0x10_0000), 0x8000)
    none = Hardware(name="none", bus=bus, below=host.lower, region=region)
    assert region.users == 0
    camera = BusDevice("camera", host.ram)
    group = host.core.probe(camera, none, regions=(Reserved(0x10_2000, 0x2000, "msi"),))
    mine, other = none.alloc(DomainType.UNMANAGED), none.alloc(DomainType.UNMANAGED)
    assert [(chunk.start.value, chunk.size) for chunk in region.chunks()] == [(0x10_2000, 0x1000), (0x10_3000, 0x1000)]
    group.attach_device(mine, camera)
    free_domain(other)
    group.detach_device(camera)
    host.core.release(camera)  # whose own region was the default domain's alone
    assert [(chunk.start.value, chunk.size) for chunk in region.chunks()] == [(0x10_2000, 0x1000)]
    free_domain(mine)
    assert region.users == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "IOMMU 'smmu' needs frames of a memory, a region, or a domain below"),
        ({"ram": True}, "IOMMU 'smmu' needs frames of a memory, a region, or a domain below"),
        (
            {"ram": True, "frames": True, "delta": 4096},
            "IOMMU 'smmu' has no region: only one with a region has a window and no format",
        ),
        (
            {"ram": True, "frames": True, "format": None},
            "IOMMU 'smmu' has no region: only one with a region has a window and no format",
        ),
        (
            {"ram": True, "below": True},
            ELSEWHERE,
        ),
        (
            {"walker_mask": 0xFFFF_FFFF, "below": True},
            ELSEWHERE,
        ),
    ],
    ids=["nothing", "no-frames", "delta", "no-format", "ram-and-below", "mask-without-frames"],
)
def test_sources_that_do_not_go_together(refused, options, text):
    host = Host()
    values = {"ram": host.ram.space, "frames": host.frames, "below": host.lower}
    options = {name: values[name] if value is True else value for name, value in options.items()}
    assert refused(InvalidArgument, Hardware, name="smmu", bus=BusSpace("pci"), **options) == text
