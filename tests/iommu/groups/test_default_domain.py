"""A.4: default domains, direct regions, and the file that changes their type."""

import logging

import pytest

from swiommu.errors import AccessDenied, Busy, InvalidArgument, NoDevice, NoMemory, NotPermitted, NotSupported
from swiommu.iommu.groups import (
    Capability,
    Defaults,
    DomainType,
    HostBridge,
    Hwpt,
    PciBus,
    PciFunction,
    iova_to_phys,
    use_default_domain,
    write_type,
)
from swiommu.layer import Reserved
from swiommu.pagetable import MOCK

DMA, DMA_FQ, IDENTITY = DomainType.DMA, DomainType.DMA_FQ, DomainType.IDENTITY


@pytest.mark.parametrize(
    ("passthrough", "strict", "kind", "text"),
    [
        (False, False, DMA_FQ, "DMA-FQ\n"),
        (False, True, DMA, "DMA\n"),
        (True, False, IDENTITY, "identity\n"),
        (True, True, IDENTITY, "identity\n"),
    ],
)
def test_step_4_the_command_line(machine, passthrough, strict, kind, text):
    _, group = machine(Defaults(passthrough=passthrough, strict=strict)).probe("nic")
    assert (group.default_domain.kernel.type, group.type_text) == (kind, text)


def two(machine, first, second, **facts):
    host = machine(Defaults(strict=True), grouping="iommu", demands={"a": first, "b": second})
    host.core.probe(host.device("a"), host.hardware, defer=True)
    _, group = host.probe("b", defer=True, **facts)
    return host, group


@pytest.mark.parametrize(("first", "second"), [(IDENTITY, DMA), (DMA, IDENTITY)], ids=["identity-first", "dma-first"])
def test_step_1_identity_wins_a_conflict(machine, caplog, first, second):
    host, group = two(machine, first, second)
    with caplog.at_level(logging.ERROR):
        host.core.finish()
    assert group.default_domain.kernel.type is IDENTITY
    (record,) = caplog.records
    assert record.getMessage() == (
        f"IOMMU driver error, requesting conflicting def_domain_type, {first.log_name} and {second.log_name}, "
        "for devices in group 0"
    )


def test_step_1_other_conflicts_go_to_the_first(machine):
    host, group = two(machine, DMA, DMA_FQ)
    host.core.finish()
    assert group.default_domain.kernel.type is DMA


def test_step_2_untrusted_devices_translate(machine):
    _, group = machine(Defaults(passthrough=True)).probe("dock", untrusted=True)
    assert group.default_domain.kernel.type is DMA


def test_step_2_against_the_driver_einval(machine, refused):
    host = machine(demands={"dock": IDENTITY})
    assert refused(InvalidArgument, host.probe, "dock", untrusted=True) == (
        "device 'dock' is not trusted, but its driver demands <DomainType.IDENTITY: 4> for IOMMU group 0"
    )
    assert host.core.groups == {}


def test_step_3_wanted_against_demanded_einval(machine, refused):
    host = machine(demands={"gpu": IDENTITY})
    gpu, group = host.probe("gpu")
    assert refused(InvalidArgument, write_type, group, "DMA", host.core.defaults) == (
        "IOMMU group 0 can't have <DomainType.DMA: 3>: it must have <DomainType.IDENTITY: 4>"
    )
    assert gpu.domain is host.hardware.identity_domain


def test_step_5_falls_back_to_dma(machine, caplog):
    host = machine(Defaults(passthrough=True), identity=False)
    with caplog.at_level(logging.WARNING):
        _, group = host.probe("nic")
    assert group.default_domain.kernel.type is DMA
    assert caplog.records[-1].getMessage() == (
        "Failed to allocate default IOMMU domain of type 4 for group 0 - Falling back to IOMMU_DOMAIN_DMA"
    )


def test_step_5_nothing_left_to_fall_back_to(machine, refused):
    host = machine(Defaults(strict=True), paging=False)
    assert refused(NotSupported, host.probe, "nic") == "IOMMU 'smmu' has no paging domains with flags 0x0"
    assert host.core.groups == {}
    assert host.told() == [
        "add_device_to_group: IOMMU: groupID=0 device=nic",
        "remove_device_from_group: IOMMU: groupID=0 device=nic",
    ]


@pytest.mark.parametrize("hwpt", [Hwpt.NONE, Hwpt.PASID], ids=["retried-without", "with"])
def test_step_6_pasids_are_asked_for(machine, monkeypatch, hwpt):
    host = machine(hwpt=hwpt)
    asked = []
    alloc = type(host.hardware).alloc
    monkeypatch.setattr(
        type(host.hardware), "alloc", lambda own, kind, flags=0: (asked.append(flags), alloc(own, kind, flags))[1]
    )
    host.probe("nic", max_pasids=16)
    assert asked == ([Hwpt.PASID] if hwpt else [Hwpt.PASID, 0])
    asked.clear()
    host.probe("uart")
    assert asked == [0]


def test_without_deferred_flush_lazy_becomes_strict(machine):
    _, group = machine(capabilities=frozenset(Capability) - {Capability.DEFERRED_FLUSH}).probe("nic")
    assert group.default_domain.kernel.type is DMA
    assert group.domain.flush_queue is None


# -- direct regions


def test_direct_regions_are_there_before_the_device(machine):
    seen = []
    host = machine(attach_hook=lambda domain, device: seen.append(iova_to_phys(domain, 0x8010)))
    gpu, _ = host.probe("gpu", regions=(Reserved(0x8000, 0x1000, "direct"),))
    assert seen == [0x8010]
    gpu.write(host.bus(0x8010), b"frame")
    assert host.ram.read(host.at(0x8010), 5) == b"frame"


@pytest.mark.parametrize(
    ("start", "size", "pages"),
    [(0x8000, 0x1000, [0x8000]), (0x8800, 0x1000, [0x9000]), (0x8001, 0x1FFF, [0x9000]), (0x8001, 0xFFE, [])],
    ids=["whole", "both-ends-up", "start-up", "vanishes"],
)
@pytest.mark.parametrize("kind", ["direct", "direct-relaxable"])
def test_both_ends_are_rounded_up(machine, start, size, pages, kind):
    _, group = machine().probe("gpu", regions=(Reserved(start, size, kind),))
    found = [at for at in range(0x7000, 0xC000, 0x1000) if iova_to_phys(group.domain, at)]
    assert found == pages


def test_pages_that_are_mapped_already_are_left(machine):
    host = machine(grouping="iommu")
    regions = [(Reserved(0x8000, 0x2000, "direct"),), (Reserved(0x7000, 0x4000, "direct"),)]
    host.probe("a", regions=regions[0])
    _, group = host.probe("b", regions=regions[1])
    assert [iova_to_phys(group.domain, at) for at in (0x7000, 0x8000, 0x9000, 0xA000)] == [
        0x7000,
        0x8000,
        0x9000,
        0xA000,
    ]
    assert group.domain.stats.maps == 3


@pytest.mark.parametrize("kind", ["reserved", "msi", "sw-msi"])
def test_other_regions_are_not_mapped(machine, kind):
    _, group = machine().probe("gpu", regions=(Reserved(0x8000, 0x1000, kind),))
    assert iova_to_phys(group.domain, 0x8000) == 0


def test_only_a_domain_of_the_dma_api_gets_them(machine):
    _, group = machine(Defaults(passthrough=True)).probe("gpu", regions=(Reserved(0x8000, 0x1000, "direct"),))
    assert group.domain.stats.maps == 0


def test_a_region_that_can_not_be_mapped_is_tried_again_and_refused(machine, caplog):
    host = machine()
    with caplog.at_level(logging.WARNING), pytest.raises(Exception, match="beyond the 40 bits"):
        host.probe("gpu", regions=(Reserved(1 << 41, 0x1000, "direct"),))
    assert "was not able to establish FW requested direct mapping" in caplog.text
    assert host.core.groups == {}
    assert host.hardware.frames.free_count == 256


# -- what the DMA API keeps clear of


def test_the_dma_api_gives_out_nothing_reserved(machine):
    host = machine(Defaults(strict=True))
    top = 0xFFFF_F000
    _, group = host.probe(
        "nic",
        regions=(
            Reserved(top, 0x1000, "msi"),
            Reserved(top - 0x1000, 0x1000),
            Reserved(top - 0x2000, 0x1000, "sw-msi"),
        ),
    )
    mapping = group.domain.alloc(4096, limit=0xFFFF_FFFF)
    assert mapping.iova.start.value == top - 0x2000  # software's own window is not reserved


def test_windows_and_gaps_of_the_host_bridge(machine):
    host = machine(Defaults(strict=True), grouping="pci")
    bridge = HostBridge(windows=((0xC000_0000, 0x1000_0000),), dma_ranges=((0x8000_0000, 0x5000_0000),))
    _, group = host.probe("nic", pci=PciFunction(PciBus(0, host=bridge), 3))
    translation = group.domain
    assert translation.alloc(4096).iova.start.value == 0xBFFF_F000


# -- the file


def test_the_file_needs_rights_eacces(machine, refused):
    host = machine()
    _, group = host.probe("nic")
    assert refused(AccessDenied, write_type, group, "nonsense", host.core.defaults, ["SYS_ADMIN"]) == (
        "the type of IOMMU group 0 can't be changed without SYS_RAWIO"
    )
    assert AccessDenied.errno == 13


@pytest.mark.parametrize("word", ["", "dma", "DMA ", "unmanaged", "blocked", "auto\n\n"])
def test_other_words_einval(machine, refused, word):
    host = machine()
    _, group = host.probe("nic")
    assert refused(InvalidArgument, write_type, group, word, host.core.defaults) == (
        f"IOMMU group 0 can't have type {word.removesuffix(chr(10))!r}: there are identity, DMA, DMA-FQ, auto"
    )


def test_before_there_is_a_default_domain_einval(machine):
    host = machine()
    _, group = host.probe("nic", defer=True)
    with pytest.raises(InvalidArgument):
        write_type(group, "DMA", host.core.defaults)


@pytest.mark.parametrize("word", ["identity", "DMA", "auto"])
def test_in_use_eperm(machine, refused, word):
    host = machine()
    nic, group = host.probe("nic")
    use_default_domain(nic)
    assert refused(NotPermitted, write_type, group, word, host.core.defaults) == (
        "IOMMU group 0 can't change its type with 1 devices, in use 1 times"
    )


def test_an_empty_group_eperm(machine):
    host = machine()
    _, group = host.probe("nic")
    group.members = []
    with pytest.raises(NotPermitted):
        write_type(group, "identity", host.core.defaults)


@pytest.mark.parametrize("word", ["identity\n", "DMA", "auto"])
def test_another_type(machine, word):
    host = machine()
    nic, group = host.probe("nic", regions=(Reserved(0x8000, 0x1000, "direct"),))
    write_type(group, word, host.core.defaults)
    expected = {"identity\n": IDENTITY, "DMA": DMA, "auto": DMA_FQ}[word]
    assert group.default_domain.kernel.type is expected
    assert nic.read(host.bus(0x8000), 1) == b"\0"
    group.check()
    write_type(group, "identity", host.core.defaults)
    assert host.hardware.frames.free_count == 256  # the others' tables are given back


def test_from_dma_to_lazy_it_is_the_same_domain_while_in_use(machine):
    host = machine(Defaults(strict=True))
    nic, group = host.probe("nic")
    use_default_domain(nic)
    domain, own = group.default_domain, group.default_domain
    first, second = own.alloc(4096), own.alloc(4096)
    own.release(first)
    assert own.stats.invalidations == 1
    write_type(group, "DMA-FQ", host.core.defaults)
    assert (group.default_domain, domain.kernel.type, group.type_text) == (domain, DMA_FQ, "DMA-FQ\n")
    own.release(second)
    assert own.stats.invalidations == 1
    own.flush()
    assert own.stats.flushes == 1
    own.check()


def test_a_change_that_fails_changes_nothing(machine):
    host = machine(Defaults(strict=True))
    nic, group = host.probe("nic")
    before = group.default_domain
    host.hardware.fail_nth(1, NoMemory("no context"))
    with pytest.raises(NoMemory):
        write_type(group, "identity", host.core.defaults)
    assert group.default_domain is group.domain is before
    assert nic.domain is before
    host.hardware.frames.fail_nth(1)
    with pytest.raises(NoMemory):
        write_type(group, "DMA", host.core.defaults)
    assert group.default_domain is before


# -- probing


def test_a_device_is_found_once(machine):
    host = machine()
    nic, group = host.probe("nic")
    assert host.core.probe(nic, host.hardware) is group
    assert len(group.members) == 1


def test_numbers_are_the_lowest_free(machine):
    host = machine()
    devices = [host.probe(name)[0] for name in "abc"]
    host.core.release(devices[1])
    assert host.probe("d")[1].id == 1
    assert host.hardware.format is MOCK


def test_gone_devices_leave_nothing(machine, refused):
    host = machine(grouping="iommu", blocked=False)
    nic, group = host.probe("nic", regions=(Reserved(0x8000, 0x1000, "direct-relaxable"),))
    disk, _ = host.probe("disk")
    host.core.release(nic)
    assert (nic.group, nic.domain, [member.device for member in group.members]) == (None, None, [disk])
    use_default_domain(disk)
    assert refused(NotPermitted, host.core.release, disk) == "IOMMU group 0 is in use 1 times"
    group.owner_cnt = 0
    host.core.release(disk)
    assert host.hardware.frames.free_count == 256
    assert refused(NoDevice, host.core.release, disk) == "device 'disk' is in no IOMMU group"
    assert refused(NoDevice, disk.read, host.bus(0), 1) == "device 'disk' is not attached to a domain"


def test_a_device_with_a_domain_of_its_own_ebusy(machine, refused):
    host = machine()
    nic = host.device("nic")
    host.hardware.alloc(DomainType.UNMANAGED).attach(nic)
    assert refused(Busy, host.core.probe, nic, host.hardware) == "device 'nic' is attached to the domain of 'pci'"


def test_a_late_device_gets_what_the_group_has(machine):
    host = machine(grouping="iommu")
    _, group = host.probe("nic")
    group.attach_group(host.hardware.identity_domain)
    disk, _ = host.probe("disk")
    assert disk.domain is host.hardware.identity_domain
    host.hardware.fail_nth(1)
    with pytest.raises(InvalidArgument):
        host.probe("gpu")
    assert [member.device.name for member in group.members] == ["nic", "disk"]
