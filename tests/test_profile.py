"""The facts that kernels differ in, each at the release where it changes."""

import errno

import attrs
import pytest

from swiommu.address import BusSpace, PhysSpace
from swiommu.errors import InvalidArgument
from swiommu.iommu.groups import Hardware
from swiommu.memory import Frames
from swiommu.pagetable.formats import FORMATS, vtd_ss
from swiommu.profile import DEFAULT_PROFILE, Profile, profile_of
from swiommu.region import Bitmap

# Fact, the last release before a change, the first one after it, what it is before and after.
CHANGES = [
    ("cma_full_errno", "6.14", "6.15", errno.ENOMEM, errno.EBUSY),
    ("cma_counts_pages", "6.14", "6.15", False, True),
    ("cma_several_ranges", "6.14", "6.15", False, True),
    ("cma_aligns_to_largest_block", "5.17", "5.18", True, False),
    ("generic_page_table", "6.18", "6.19", set(), {"vtd", "amd"}),
    ("generic_page_table", "7.0", "7.1", {"vtd", "amd"}, {"vtd", "amd", "riscv"}),
    ("arm_splits_blocks", "6.12", "6.13", True, False),
    ("arm_concatenates_where_it_can", "6.13", "6.14", True, False),
    ("vtd_reads_always", "6.18", "6.19", True, False),
    ("gfp_checked_first", "6.15", "6.16", True, False),
    ("fault_handler_replaces_cookie", "6.14", "6.15", True, False),
    ("core_keeps_direct_regions", "6.6", "6.7", False, True),
    ("iova_magazine", "6.0", "6.1", 128, 127),
]


@pytest.mark.parametrize(("fact", "old", "new", "before", "after"), CHANGES)
def test_a_fact_changes_with_its_release(fact, old, new, before, after):
    assert (getattr(profile_of(old), fact), getattr(profile_of(new), fact)) == (before, after)
    assert getattr(profile_of(f"{old}.250-generic"), fact) == before


def test_every_fact_is_in_the_table():
    assert {change[0] for change in CHANGES} == {field.name for field in attrs.fields(Profile)} - {"name"}


@pytest.mark.parametrize("text", ["", "new", "6", "v6.12", "6.1234"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(InvalidArgument) as caught:
        profile_of(text)
    assert str(caught.value) == f"{text!r} is no version of a kernel: one is needed such as 6.12"


def test_hardware_formats_and_allocators_agree_where_no_kernel_is_named():
    ram = PhysSpace("ram", width=40)

    def hardware(**options):
        return Hardware(name="iommu", bus=BusSpace("pci"), ram=ram, frames=Frames(ram.at(0), 1 << 20), **options)

    assert {form.profile for form in FORMATS.values()} == {DEFAULT_PROFILE}
    assert hardware().profile is Bitmap(0, 1 << 20).profile is DEFAULT_PROFILE
    assert hardware(format=vtd_ss(profile="7.3")).profile is profile_of("7.3")
    assert hardware(format=vtd_ss(profile="7.3"), profile="6.12").profile is DEFAULT_PROFILE
