"""A.5: who may do DMA with a group."""

import pytest

from swiommu.errors import Busy, InvalidArgument, NoDevice, NotPermitted, NotSupported, ProbeDeferred
from swiommu.iommu.groups import (
    DomainType,
    attach_pasid,
    claim_device,
    claim_group,
    detach_pasid,
    release_device,
    release_group,
    unuse_default_domain,
    use_default_domain,
)


def pasid(host, device, number=3):
    attach_pasid(host.hardware.alloc(DomainType.UNMANAGED), device, number)


def test_drivers_are_counted(machine):
    nic, group = machine().probe("nic")
    use_default_domain(nic)
    use_default_domain(nic)
    assert group.owner_cnt == 2
    unuse_default_domain(nic)
    unuse_default_domain(nic)
    unuse_default_domain(nic)
    assert group.owner_cnt == 0


def test_without_a_group_there_is_nothing_to_ask(machine):
    nic = machine().device("nic")
    use_default_domain(nic)
    unuse_default_domain(nic)
    assert nic.group is None


def test_no_default_domain_yet_eprobe_defer(machine, refused):
    host = machine()
    nic, group = host.probe("nic", defer=True)
    assert refused(ProbeDeferred, use_default_domain, nic) == "IOMMU group 0 has no default domain yet"
    assert ProbeDeferred.errno == 517
    host.core.finish()
    use_default_domain(nic)
    assert group.owner_cnt == 1


@pytest.mark.parametrize("why", ["owned", "off-the-default-domain", "PASID"])
def test_not_free_for_a_driver_ebusy(machine, refused, why):
    host = machine()
    nic, group = host.probe("nic", max_pasids=16)
    if why == "owned":
        claim_device(nic, "vfio")
        state = "owned by 'vfio'"
    elif why == "PASID":
        pasid(host, nic)
        state = "attached with 1 PASIDs"
    else:
        group.attach_device(host.hardware.alloc(DomainType.UNMANAGED), nic)
        state = "attached to IommuDomain(Unmanaged of 'smmu')"
    before = group.owner_cnt
    assert refused(Busy, use_default_domain, nic) == f"IOMMU group 0 is not free for a driver: {state}"
    assert group.owner_cnt == before


def test_claims_by_device(machine, refused):
    host = machine(grouping="iommu")
    nic, group = host.probe("nic")
    disk, _ = host.probe("disk")
    owner = object()
    claim_device(nic, owner)
    claim_device(disk, owner)
    assert group.owner_cnt == 2
    assert group.domain is host.hardware.blocked_domain
    other = object()
    assert refused(NotPermitted, claim_device, nic, other) == f"IOMMU group 0 is owned by {owner!r}"
    release_device(nic)
    assert group.domain is host.hardware.blocked_domain
    release_device(disk)
    assert (group.owner, group.owner_cnt, group.domain) == (None, 0, group.default_domain)
    claim_device(nic, other)


@pytest.mark.parametrize("call", [claim_device, claim_group], ids=["device", "group"])
def test_no_owner_einval(machine, refused, call):
    nic, group = machine().probe("nic")
    assert refused(InvalidArgument, call, nic if call is claim_device else group, None) == "nobody can't be an owner"


def test_no_group_enodev(machine, refused):
    nic = machine().device("nic")
    assert refused(NoDevice, claim_device, nic, "vfio") == "device 'nic' is in no IOMMU group"
    assert refused(NoDevice, release_device, nic) == "device 'nic' is in no IOMMU group"


def test_used_by_drivers_eperm(machine, refused):
    nic, group = machine().probe("nic")
    use_default_domain(nic)
    text = "IOMMU group 0 is in use by 1 drivers of the kernel"
    assert refused(NotPermitted, claim_group, group, "vfio") == text.replace("in use", "in use")
    assert "in use by 1 drivers" in refused(NotPermitted, claim_device, nic, "vfio")
    release_group(group)  # nobody owns it
    assert group.owner_cnt == 1


def test_a_group_is_claimed_once_eperm(machine, refused):
    nic, group = machine().probe("nic")
    claim_group(group, "vfio")
    assert refused(NotPermitted, claim_group, group, "vfio") == "IOMMU group 0 is owned by 'vfio'"
    claim_device(nic, "vfio")
    release_group(group)
    assert (group.owner, group.owner_cnt) == (None, 0)


@pytest.mark.parametrize("why", ["off-the-default-domain", "PASID"])
def test_can_not_be_claimed_ebusy(machine, refused, why):
    host = machine()
    nic, group = host.probe("nic", max_pasids=16)
    if why == "PASID":
        pasid(host, nic)
    else:
        group.attach_device(host.hardware.alloc(DomainType.UNMANAGED), nic)
    for call, what in ((claim_device, nic), (claim_group, group)):
        assert refused(Busy, call, what, "vfio").startswith("IOMMU group 0 can't be claimed: it is attached ")


def test_a_group_with_pasids_stays_claimed(machine):
    host = machine()
    nic, group = host.probe("nic", max_pasids=16)
    claim_device(nic, "vfio")
    pasid(host, nic)
    release_group(group)
    assert group.owner == "vfio"
    detach_pasid(nic, 3)
    release_group(group)
    assert group.owner is None


# -- A.16, as far as who has which


@pytest.mark.parametrize(
    ("spec", "options", "number", "error", "text"),
    [
        ("EOPNOTSUPP", {"knows_pasids": False}, 3, NotSupported, "Hardware('smmu') attaches no PASIDs"),
        ("no-blocked-EOPNOTSUPP", {"blocked": False}, 3, NotSupported, "Hardware('smmu') attaches no PASIDs"),
        ("0-EINVAL", {}, 0, InvalidArgument, "PASID 0 of device 'gpu' can't have IommuDomain(Unmanaged of 'smmu')"),
        ("too-high-EINVAL", {}, 16, InvalidArgument, "device 'gpu' has PASIDs below 16, not 16"),
    ],
    ids=lambda value: f"A.16-{value}" if isinstance(value, str) and value[-3:].isupper() else "",
)
def test_pasids_that_can_not_be(machine, refused, spec, options, number, error, text):
    host = machine(**options)
    gpu, group = host.probe("gpu", max_pasids=16)
    assert refused(error, pasid, host, gpu, number) == text
    assert group.pasids == {}


def test_pasid_taken_ebusy_foreign_einval_no_group_enodev(machine, refused):
    host, other = machine(), machine()
    gpu, group = host.probe("gpu", max_pasids=16)
    pasid(host, gpu)
    assert refused(Busy, pasid, host, gpu) == "PASID 3 of IOMMU group 0 has IommuDomain(Unmanaged of 'smmu')"
    with pytest.raises(InvalidArgument):
        attach_pasid(other.hardware.alloc(DomainType.UNMANAGED), gpu, 4)
    with pytest.raises(NoDevice):
        pasid(host, host.device("nic"))
    detach_pasid(gpu, 3)
    detach_pasid(gpu, 3)
    assert group.pasids == {}
