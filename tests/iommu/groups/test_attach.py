"""A.5: who can be attached to what, and with which errno not."""

import errno

import pytest

from swiommu import linux
from swiommu.address import BusSpace
from swiommu.errors import (
    Busy,
    DeviceFault,
    InvalidArgument,
    Loop,
    NoDevice,
    NoMemory,
    NoSpace,
    NotPermitted,
)
from swiommu.iommu import PagedDomain
from swiommu.iommu.groups import (
    DomainType,
    claim_device,
    claim_group,
    group_of,
    iova_to_phys,
    map_range,
    reset_done,
    reset_prepare,
)
from swiommu.layer import Reserved
from swiommu.pagetable.formats import amd_v1, arm_lpae, vtd_ss

DIRECT = Reserved(0x1000, 0x1000, "direct")


def unmanaged(host):
    return host.hardware.alloc(DomainType.UNMANAGED)


def attached(host):
    return [str(event) for event in host.events if event.name == "attach_device_to_domain"]


def test_accesses_go_where_the_group_says(machine):
    host = machine()
    nic, group = host.probe("nic")
    domain = unmanaged(host)
    map_range(domain, 0x8000, 0x10_0000, 0x1000, 1)
    host.ram.write(host.at(0x10_0010), b"memory")
    group.attach_device(domain, nic)
    assert nic.read(host.bus(0x8010), 6) == b"memory"
    with pytest.raises(DeviceFault, match="permission fault of WRITE access at 0x8010 in layer 'pci'"):
        nic.write(host.bus(0x8010), b"x")
    group.detach_device(nic)
    with pytest.raises(DeviceFault, match="translation fault of READ"):
        nic.read(host.bus(0x8010), 1)
    group.attach_group(host.hardware.identity_domain)
    assert nic.read(host.bus(0x10_0010), 6) == b"memory"
    group.detach_group()
    claim_device(nic, "vfio")
    with pytest.raises(DeviceFault, match="translation fault"):
        nic.read(host.bus(0x10_0010), 1)
    group.check()


def test_no_group_enodev(machine, refused):
    nic = machine().device("nic")
    assert refused(NoDevice, group_of, nic) == "device 'nic' is in no IOMMU group"


def test_of_another_group_enodev(machine, refused):
    host = machine()
    _, group = host.probe("nic")
    disk, _ = host.probe("disk")
    for call in (lambda: group.attach_device(unmanaged(host), disk), lambda: group.detach_device(disk)):
        assert refused(NoDevice, call) == "device 'disk' is not in IOMMU group 0"


def test_more_than_one_device_einval(machine, refused):
    host = machine(grouping="iommu")
    nic, group = host.probe("nic")
    host.probe("disk")
    assert refused(InvalidArgument, group.attach_device, unmanaged(host), nic) == (
        "device 'nic' is one of 2 in IOMMU group 0: attach the group"
    )
    before = group.domain
    group.detach_device(nic)  # only warns
    assert group.domain is before


def test_attached_elsewhere_ebusy_and_not_idempotent(machine, refused):
    host = machine()
    nic, group = host.probe("nic")
    domain = unmanaged(host)
    group.attach_device(domain, nic)
    text = "IOMMU group 0 is attached to IommuDomain(Unmanaged of 'smmu') already"
    assert refused(Busy, group.attach_device, unmanaged(host), nic) == text
    assert refused(Busy, group.attach_device, domain, nic) == text
    assert group.domain is domain


def test_the_default_domain_again_is_silent(machine):
    host = machine()
    nic, group = host.probe("nic")
    host.told()
    group.attach_device(group.default_domain, nic)
    assert host.told() == []


def test_of_another_iommu_einval(machine, refused):
    host, other = machine(), machine()
    nic, group = host.probe("nic")
    assert refused(InvalidArgument, group.attach_device, unmanaged(other), nic) == (
        "IommuDomain(Unmanaged of 'smmu') is not a domain of IOMMU 'smmu', where group 0 is"
    )
    group.attach_device(host.hardware.blocked_domain, nic)
    assert group.domain is host.hardware.blocked_domain


def test_a_reset_ebusy(machine, refused):
    host = machine()
    nic, group = host.probe("nic")
    reset_prepare(nic)
    with pytest.raises(DeviceFault):
        nic.read(host.bus(0x1000), 1)
    assert refused(Busy, group.attach_device, unmanaged(host), nic) == ("device 'nic' of IOMMU group 0 is being reset")
    assert refused(Busy, reset_prepare, nic) == "device 'nic' of IOMMU group 0 is being reset"
    reset_done(nic)
    reset_done(nic)
    group.attach_device(unmanaged(host), nic)
    group.check()
    assert refused(NoDevice, reset_prepare, host.device("other")) == "device 'other' is in no IOMMU group"


def test_one_event_for_each_device(machine):
    host = machine(grouping="iommu")
    for name in ("nic", "disk", "gpu"):
        _, group = host.probe(name)
    host.told()
    group.attach_group(unmanaged(host))
    assert host.told() == [f"attach_device_to_domain: IOMMU: device={name}" for name in ("nic", "disk", "gpu")]
    group.detach_group()
    assert len(host.told()) == 3


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_failure_midway_puts_all_back(machine, nth):
    host = machine(grouping="iommu")
    devices = [host.probe(name)[0] for name in ("nic", "disk", "gpu")]
    group = devices[0].group
    before = group.domain
    host.told()
    host.hardware.fail_nth(nth, NoMemory("no room for a context"))
    with pytest.raises(NoMemory, match="no room for a context"):
        group.attach_group(unmanaged(host))
    assert group.domain is before
    assert all(device.domain is before for device in devices)
    # The earlier ones once there, and all that were tried once back.
    assert len(host.told()) == nth - 1 + nth
    group.check()
    group.attach_group(unmanaged(host))


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (InvalidArgument("x"), InvalidArgument),
        (NoMemory("x"), NoMemory),
        (NoSpace("x"), NoSpace),
        (Busy("x"), Busy),
        (NoDevice("x"), NoDevice),
        (Loop("x"), NoDevice),
    ],
    ids=["EINVAL", "ENOMEM", "ENOSPC", "EBUSY", "ENODEV", "other-is-ENODEV"],
)
def test_what_a_driver_may_answer(machine, raised, becomes):
    host = machine()
    nic, group = host.probe("nic")
    host.hardware.fail_nth(1, raised)
    with pytest.raises(becomes) as caught:
        group.attach_device(unmanaged(host), nic)
    if becomes is not type(raised):
        assert str(caught.value) == "IOMMU 'smmu' can't attach device 'nic': x"


def test_a_driver_may_look_at_what_it_attaches(machine, refused):
    def hook(domain, device):
        if device.name == "odd" and domain.kernel.type is DomainType.UNMANAGED:
            raise InvalidArgument("too wide")

    host = machine(attach_hook=hook)
    odd, group = host.probe("odd")
    assert refused(InvalidArgument, group.attach_device, unmanaged(host), odd) == "too wide"


def test_direct_regions_forbid_blocking_einval(machine, refused):
    host = machine()
    gpu, group = host.probe("gpu", regions=(DIRECT,))
    assert refused(InvalidArgument, group.attach_device, host.hardware.blocked_domain, gpu) == (
        "device 'gpu' needs memory at the same addresses: firmware rejects IommuDomain(Blocked of 'smmu')"
    )
    with pytest.raises(InvalidArgument):
        claim_device(gpu, "vfio")
    assert (group.owner, group.owner_cnt) == (None, 0)
    group.attach_device(unmanaged(host), gpu)


@pytest.mark.parametrize("profile", ["6.7", "6.12", "7.3"])
@pytest.mark.parametrize("form", [vtd_ss(), amd_v1()], ids=lambda form: form.name)
def test_an_rmrr_keeps_vfio_away_since_6_7(machine, refused, profile, form):
    host = machine(profile=profile, format=form)
    nic, group = host.probe("0000:05:00.1", regions=(Reserved(0xBDE0_0000, 0x7000, "direct"),))
    for claim, owned in ((claim_device, nic), (claim_group, group)):
        assert refused(InvalidArgument, claim, owned, "vfio") == (
            "device '0000:05:00.1' needs memory at the same addresses: firmware rejects IommuDomain(Blocked of 'smmu')"
        )
    assert linux.iommu_device_claim_dma_owner(nic, "vfio") == -errno.EINVAL
    assert (group.owner, group.owner_cnt, group.domain) == (None, 0, group.default_domain)
    assert iova_to_phys(group.domain, 0xBDE0_0010) == 0xBDE0_0010, "firmware goes on"
    group.check()


@pytest.mark.parametrize("profile", ["5.19", "6.1", "6.6.30"])
def test_before_6_7_the_attach_of_vtd_was_not_permitted(machine, refused, profile):
    host = machine(profile=profile, format=vtd_ss())
    nic, group = host.probe("0000:05:00.1", regions=(Reserved(0xBDE0_0000, 0x7000, "direct"),))
    assert linux.iommu_device_claim_dma_owner(nic, "vfio") == 0
    assert group.domain is host.hardware.blocked_domain
    mine = unmanaged(host)
    assert refused(NotPermitted, group.attach_device, mine, nic) == (
        "device '0000:05:00.1' needs memory at the same addresses (RMRR): VT-d refuses IommuDomain(Unmanaged of 'smmu')"
    )
    assert linux.iommu_attach_device(mine, nic) == linux.iommu_attach_group(mine, group) == -errno.EPERM
    assert group.domain is host.hardware.blocked_domain
    group.check()
    linux.iommu_device_release_dma_owner(nic)
    assert group.domain is group.default_domain
    assert iova_to_phys(group.domain, 0xBDE0_0010) == 0xBDE0_0010


@pytest.mark.parametrize(
    ("form", "kind"), [(amd_v1(), "direct"), (arm_lpae(), "direct"), (vtd_ss(), "direct-relaxable")]
)
def test_before_6_7_others_were_attached(machine, form, kind):
    host = machine(profile="6.6", format=form)
    nic, group = host.probe("nic", regions=(Reserved(0xBDE0_0000, 0x7000, kind),))
    claim_device(nic, "vfio")
    mine = unmanaged(host)
    group.attach_device(mine, nic)
    assert group.domain is mine


def test_before_6_7_one_device_of_a_group_keeps_the_group_away(machine, refused):
    host = machine(profile="6.6", format=vtd_ss(), grouping="iommu")
    gpu, group = host.probe("gpu")
    host.probe("nic", regions=(DIRECT,))
    before = group.domain
    assert refused(NotPermitted, group.attach_group, unmanaged(host)) == (
        "device 'nic' needs memory at the same addresses (RMRR): VT-d refuses IommuDomain(Unmanaged of 'smmu')"
    )
    assert group.domain is before
    assert gpu.domain is before
    group.check()


def test_relaxable_regions_do_not(machine):
    host = machine()
    gpu, group = host.probe("gpu", regions=(Reserved(0x1000, 0x1000, "direct-relaxable"),))
    claim_device(gpu, "vfio")
    assert group.domain is host.hardware.blocked_domain


def test_without_a_static_blocked_domain_an_empty_one_blocks(machine, refused):
    host = machine(blocked=False)
    nic, group = host.probe("nic")
    gpu, other = host.probe("gpu", regions=(DIRECT,))
    claim_device(nic, "vfio")
    assert group.domain is group.blocking_domain
    assert group.domain.kernel.type is DomainType.UNMANAGED
    with pytest.raises(DeviceFault):
        nic.read(host.bus(0x1000), 1)
    with pytest.raises(InvalidArgument):
        claim_device(gpu, "vfio")
    assert other.domain is other.default_domain


def test_detaching_from_an_owned_group_blocks(machine):
    host = machine()
    nic, group = host.probe("nic")
    claim_device(nic, "vfio")
    group.attach_device(unmanaged(host), nic)
    group.detach_device(nic)
    assert group.domain is group.blocking_domain


# -- domains of software, and the group


def test_the_group_decides(machine, refused):
    host = machine()
    nic, group = host.probe("nic")
    own, other = group.domain, unmanaged(host)
    text = "device 'nic' is in an IOMMU group, which decides on its domain: IommuGroup(0: nic)"
    assert refused(Busy, own.detach, nic) == text
    assert refused(Busy, other.attach, nic, "replace") == text
    assert nic.domain is own


def test_a_software_domain_stands_on_that_of_the_group(machine, refused):
    host = machine()
    nic, group = host.probe("nic")
    domain = unmanaged(host)
    group.attach_device(domain, nic)
    map_range(domain, 0, 0x4000_0000, 0x10_0000, 3)
    upper = PagedDomain(BusSpace("guest", width=32), below=domain, frames=None, tables=_tables())
    upper.attach(nic)
    upper.map(upper.input_space.at(0x8000), host.bus(0x1000), 0x1000)
    nic.write(upper.input_space.at(0x8000), b"two stages")
    assert host.ram.read(host.at(0x4000_1000), 10) == b"two stages"
    assert refused(Busy, group.detach_device, nic) == (
        "device 'nic' of IOMMU group 0 is attached to the domain of 'guest', which stands on the group's"
    )
    assert nic.domain is upper
    group.check()
    upper.detach(nic)
    assert nic.domain is domain
    group.detach_device(nic)


def _tables():
    from swiommu.pagetable import CountingTables

    return CountingTables()
