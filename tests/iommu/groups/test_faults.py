"""A.13, A.3: fault handlers, and what an IOMMU says it can do."""

import logging

import pytest

from swiommu.address import Access, BusSpace
from swiommu.errors import DeviceFault
from swiommu.iommu import PagedDomain
from swiommu.iommu.groups import (
    FAULT_READ,
    FAULT_WRITE,
    Capability,
    Cookie,
    DomainType,
    capable,
    map_range,
    report_fault,
)
from swiommu.pagetable.formats import vtd_ss


@pytest.fixture
def attached(machine):
    def make(**options):
        host = machine(**options)
        nic, group = host.probe("nic", driver="e1000")
        domain = host.hardware.alloc(DomainType.UNMANAGED)
        group.attach_device(domain, nic)
        host.told()
        return host, nic, domain

    return make


def test_without_a_handler_enosys_and_the_event(attached):
    host, nic, domain = attached()
    assert report_fault(domain, nic, 0x1234, FAULT_WRITE) == -38
    assert host.told() == ["io_page_fault: IOMMU:e1000 nic iova=0x0000000000001234 flags=0x0001"]


@pytest.mark.parametrize("value", [0, -11, 7])
def test_the_handlers_value_comes_back_and_the_event_is_after_it(attached, value):
    host, nic, domain = attached()

    def handler(*arguments):
        assert arguments == (domain, nic, 0x1000, FAULT_READ, "token")
        assert host.told() == []
        return value

    assert domain.kernel.set_fault_handler(handler, "token")
    assert report_fault(domain, nic, 0x1000, FAULT_READ) == value
    assert host.told() == ["io_page_fault: IOMMU:e1000 nic iova=0x0000000000001000 flags=0x0000"]


def test_a_device_in_no_group_has_no_event(attached):
    host, _, domain = attached()
    assert report_fault(domain, host.device("other"), 0, 0) == -38
    assert host.told() == []


def test_a_devices_fault_reaches_the_handler_of_its_domain(attached):
    host, nic, domain = attached()
    map_range(domain, 0x8000, 0x1000, 0x1000, 1)
    seen = []
    domain.kernel.set_fault_handler(lambda *arguments: seen.append(arguments) or 0, 42)
    nic.read(host.bus(0x8000), 4)
    with pytest.raises(DeviceFault, match="device 'nic' transferred 4 of 8 bytes: translation fault"):
        nic.read(host.bus(0x8FFC), 8)
    with pytest.raises(DeviceFault):
        nic.write(host.bus(0x8010), b"x")
    assert seen == [(domain, nic, 0x9000, FAULT_READ, 42), (domain, nic, 0x8010, FAULT_WRITE, 42)]
    assert host.told() == [
        "io_page_fault: IOMMU:e1000 nic iova=0x0000000000009000 flags=0x0000",
        "io_page_fault: IOMMU:e1000 nic iova=0x0000000000008010 flags=0x0001",
    ]


def test_the_right_device_is_named(attached):
    host, nic, domain = attached()
    disk, group = host.probe("disk")
    group.attach_group(domain)
    seen = []
    domain.kernel.set_fault_handler(lambda _, device, *__: seen.append(device) or 0)
    for device in (disk, nic, disk):
        with pytest.raises(DeviceFault):
            device.read(host.bus(0x1000), 1)
    assert seen == [disk, nic, disk]
    # somebody who looks, and is no device
    with pytest.raises(DeviceFault):
        domain.translate(host.bus(0x1000), 1, Access.READ)
    assert len(seen) == 3


def test_after_detaching_it_is_the_other_domains_business(attached):
    host, nic, domain = attached()
    seen = []
    domain.kernel.set_fault_handler(lambda *arguments: seen.append(arguments) or 0)
    nic.group.detach_device(nic)
    with pytest.raises(DeviceFault):
        nic.read(host.bus(0x1000), 1)
    assert seen == []


def test_a_fault_below_a_software_domain_is_reported_where_it_happened(attached):
    host, nic, domain = attached()
    upper = PagedDomain(BusSpace("guest", width=32), below=domain, walker="physical", frames=host.hardware.frames)
    upper.attach(nic)
    upper.map(upper.input_space.at(0x8000), host.bus(0x5000), 0x1000)
    seen = []
    domain.kernel.set_fault_handler(lambda _, device, iova, flags, token: seen.append((device, iova, flags)) or 0)
    with pytest.raises(DeviceFault):
        nic.read(upper.input_space.at(0x8010), 1)
    assert seen == [(nic, 0x5010, FAULT_READ)]
    with pytest.raises(DeviceFault):
        nic.read(upper.input_space.at(0x1000), 1)  # the upper one's own affair
    assert len(seen) == 1


@pytest.mark.parametrize(("profile", "taken"), [("6.12", True), ("7.3", False)])
def test_a_handler_beside_another_cookie(attached, caplog, profile, taken):
    _, nic, domain = attached(profile=profile)
    domain.kernel.take_cookie(Cookie.DMA_MSI)
    with caplog.at_level(logging.WARNING):
        assert domain.kernel.set_fault_handler(lambda *_: 5) is taken
    assert report_fault(domain, nic, 0, 0) == (5 if taken else -38)
    assert len(caplog.records) == (not taken)


def test_a_handler_can_be_exchanged(attached):
    _, nic, domain = attached(profile="7.3")
    assert domain.kernel.set_fault_handler(lambda *_: 1)
    assert domain.kernel.set_fault_handler(lambda *_: 2)
    assert (report_fault(domain, nic, 0, 0), domain.kernel.cookie) == (2, Cookie.FAULT_HANDLER)


# -- A.3


@pytest.mark.parametrize("capability", Capability, ids=lambda capability: f"A.3-{capability.name}")
def test_capabilities(machine, capability):
    able, unable = machine(capabilities={capability}), machine(capabilities=frozenset(Capability) - {capability})
    assert capable(able.probe("nic")[0], capability)
    assert not capable(unable.probe("nic")[0], capability)
    assert not capable(able.device("elsewhere"), capability)


def test_coherency_is_by_device(machine):
    host = machine(format=vtd_ss(), not_coherent={"gpu"})
    assert capable(host.probe("nic")[0], Capability.ENFORCE_CACHE_COHERENCY)
    gpu = host.probe("gpu")[0]
    assert not capable(gpu, Capability.ENFORCE_CACHE_COHERENCY)
    assert capable(gpu, Capability.CACHE_COHERENCY)
