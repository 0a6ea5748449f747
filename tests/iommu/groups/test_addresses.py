"""B.3, C.5, C.6: which bus addresses the default domain of a group gives out, by who is in it and `iommu.forcedac`."""

import pytest

from swiommu.iommu import IovaDomain, LinuxIova
from swiommu.iommu.groups import Defaults, DomainType, PciBus, PciFunction, write_type

PAGES = (1, 4, 1, 40, 2)
BELOW_4G = [0xFFFF_F000, 0xFFFF_8000, 0xFFFF_7000, 0xFFFC_0000, 0xFFFB_E000]
TOP = [0xFFFF_0000_0000 | low for low in BELOW_4G]
kinds = pytest.mark.parametrize("strict", [True, False], ids=["DMA", "DMA_FQ"])


def function(slot=0):
    return PciFunction(PciBus(0), slot)


def chosen(group, **options):
    domain = group.default_domain
    return [domain.alloc(pages << 12, **options).iova.start.value for pages in PAGES]


@kinds
@pytest.mark.parametrize(
    ("pci", "forcedac", "expected"),
    [(True, False, BELOW_4G), (True, True, TOP), (False, False, TOP), (False, True, TOP)],
    ids=["pci", "pci-forcedac", "platform", "platform-forcedac"],
)
def test_the_worked_example(machine, strict, pci, forcedac, expected):
    host = machine(Defaults(strict=strict, forcedac=forcedac))
    _, group = host.probe("nic", pci=function() if pci else None)
    assert group.default_domain.kernel.type is (DomainType.DMA if strict else DomainType.DMA_FQ)
    assert chosen(group) == expected
    group.default_domain.check()


@pytest.mark.parametrize("forcedac", [True, False])
def test_what_a_device_can_drive_is_the_limit_all_the_same(machine, forcedac):
    host = machine(Defaults(forcedac=forcedac))
    nic = host.device("nic", dma_mask=(1 << 32) - 1)
    assert chosen(host.core.probe(nic, host.hardware)) == BELOW_4G


def test_the_first_device_that_is_pci_lets_all_try_below_4g(machine):
    host = machine(grouping="iommu")
    _, group = host.probe("uart")
    domain = group.default_domain
    assert domain.alloc(4096).iova.start.value == TOP[0]
    nic, _ = host.probe("nic", pci=function())
    assert domain.alloc(4096).iova.start.value == BELOW_4G[0]
    host.core.release(nic)
    assert domain.alloc(4096).iova.start.value == TOP[0] - 4096


def test_a_domain_made_later_follows_too(machine):
    host = machine(Defaults(passthrough=True, forcedac=True))
    _, group = host.probe("nic", pci=function())
    write_type(group, "DMA", host.core.defaults)
    assert chosen(group) == TOP
    write_type(group, "identity", host.core.defaults)
    host.core.defaults.forcedac = False
    write_type(group, "DMA-FQ", host.core.defaults)
    assert chosen(group) == BELOW_4G


def test_all_found_before_the_domain_is_made(machine):
    host = machine(grouping="iommu")
    for name, pci in (("uart", None), ("nic", function())):
        _, group = host.probe(name, pci=pci, defer=True)
    host.core.finish()
    assert chosen(group) == BELOW_4G


def test_a_policy_of_ones_own_is_told_if_it_is_that_of_linux(machine):
    made = []

    def policy():
        made.append(LinuxIova(IovaDomain(start_pfn=16), forcedac=False))
        return made[0]

    host = machine(Defaults(forcedac=True), policy=policy)
    _, group = host.probe("nic", pci=function())
    assert (made[0].pci, made[0].forcedac, made[0].uses_full_range) == (True, True, True)
    assert chosen(group, limit=0xFFFF_FFFF) == BELOW_4G
