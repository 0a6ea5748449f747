"""What the sidecar says of the recorded machine, and what holds without one."""

import pytest

from swiommu.errors import InputError
from swiommu.profile import DEFAULT_PROFILE
from swiommu.requests import Area
from swiommu.requests.machine import Machine
from swiommu.trace import CmaArea, DeviceFacts, GroupFacts

PAGE = 4096


def test_without_a_sidecar_the_kernels_defaults_hold():
    machine = Machine(None)
    facts = machine.device("eth")
    assert (facts.mask, facts.coherent_mask) == (0xFFFF_FFFF, 0xFFFF_FFFF)
    assert (facts.translated, facts.is_iommu) == (False, False)
    assert facts.group != machine.device("nvme").group
    assert (machine.area, machine.system_map, machine.profile, machine.page_size) == (None, None, DEFAULT_PROFILE, PAGE)
    assert machine.mode == "unknown"
    assert machine.may_be_ram(0) is machine.may_be_ram(1 << 60) is True


@pytest.mark.parametrize("size", [16384, 65536])
def test_other_pages_are_refused(sidecar_of, size):
    """An area of 16384 pages would be taken for 64 MiB instead of 1024."""
    with pytest.raises(InputError) as error:
        Machine(sidecar_of(path="t.json", page_size=size, cma_area=CmaArea(0x8000, 16384)), "t.trace")
    assert str(error.value) == (
        f"t.json: recorded with pages of {size} bytes; designs know pages of 4096 bytes only, so it can't be replayed"
    )


def test_masks_and_groups_are_the_sidecars(sidecar_of):
    sidecar = sidecar_of(
        devices={"0000:00:01.0": DeviceFacts("0000:00:01.0", "nvme", 36, 40)},
        groups=(
            GroupFacts(3, "DMA", ("0000:00:01.0", "0000:00:01.1"), ()),
            GroupFacts(4, "DMA-FQ", ("0000:00:02.0",), ()),
            GroupFacts(5, "identity", ("0000:00:03.0",), ()),
        ),
        version=(7, 3),
        iommu_mode="strict",
    )
    machine = Machine(sidecar)
    facts = machine.device("0000:00:01.0")
    assert (facts.mask, facts.coherent_mask, facts.translated) == ((1 << 36) - 1, (1 << 40) - 1, True)
    assert facts.group == machine.device("0000:00:01.1").group != machine.device("0000:00:02.0").group
    assert machine.device("0000:00:01.1").mask == 0xFFFF_FFFF
    assert machine.device("0000:00:02.0").translated
    assert not machine.device("0000:00:03.0").translated
    assert (machine.profile.name, machine.mode) == ("7.3", "strict")


def test_that_a_device_is_translated_is_learned_and_kept():
    machine = Machine(None)
    assert not machine.device("eth").translated
    assert machine.device("eth", translated=True).translated
    assert machine.device("eth").translated
    assert not machine.device("nvme").translated


@pytest.mark.parametrize(
    ("name", "is_iommu"), [("9050000.smmuv3", True), ("dmar0", True), ("arm-smmu.1", True), ("vivid.0", False)]
)
def test_an_iommu_is_known_by_its_name(name, is_iommu):
    assert Machine(None).device(name).is_iommu == is_iommu


def test_an_iommu_is_known_by_its_class(sidecar_of):
    facts = DeviceFacts("0000:00:03.0", "", 32, 32, pci_class=0x080600)
    assert Machine(sidecar_of(devices={facts.name: facts})).device(facts.name).is_iommu


def test_ram_is_what_is_listed(sidecar_of):
    lines = ("40000000-7fffffff : System RAM", "  40080000-40ffffff : Kernel code", "100000000-1ffffffff : System RAM")
    machine = Machine(sidecar_of(system_ram=lines))
    for address, is_ram in [
        (0x4000_0000, True),
        (0x4008_0000, True),
        (0x7FFF_FFFF, True),
        (0x8000_0000, False),
        (0x3FFF_FFFF, False),
        (0x809_0000, False),
        (0x1_8000_0000, True),
    ]:
        assert machine.may_be_ram(address) == is_ram, hex(address)


def test_the_area_is_as_it_lay(sidecar_of):
    machine = Machine(sidecar_of(cma_area=CmaArea(0x40000, 512, ((0, 3),))))
    assert machine.area == Area(0x40000, 512, ((0, 3),))
    assert Machine(sidecar_of(cma_area=CmaArea(0x40000, 512))).area == Area(0x40000, 512, None)
    assert Machine(sidecar_of()).area is None
