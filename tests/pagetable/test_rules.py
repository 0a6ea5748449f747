"""The families of page-table code, against a table written down from the kernels' sources."""

import attrs
import pytest

from swiommu.errors import AddressInUse, AlreadyMapped, InvalidArgument, NoPageSize
from swiommu.pagetable.formats import FORMATS, amd_v1, arm_lpae, riscv, vtd_ss
from swiommu.pagetable.rules import ARM_LPAE_SPLITTING, GENERIC_PT, SWIOMMU

# occupied, misaligned, no_access, maps_nothing, short_unmap, entered, replaces_live, drops_tables, keeps_empty, gathers
OWN = (AddressInUse, InvalidArgument, InvalidArgument, False, "whole", "stop", False, False, False, "range")
GENERIC = (AddressInUse, NoPageSize, InvalidArgument, False, "whole", "stop", False, False, True, "range")
VTD = (AddressInUse, InvalidArgument, InvalidArgument, True, "whole", "walk", False, False, True, "chunk")
AMD = (*VTD[:5], "remove", *VTD[6:9], "range")
RISCV = (AddressInUse, InvalidArgument, None, True, "whole", "stop", False, False, True, "leaf")
LPAE = (AlreadyMapped, InvalidArgument, InvalidArgument, True, "split", "stop", True, True, True, "leaf")
NEWER_LPAE = (*LPAE[:4], "refuse", *LPAE[5:])


def values(rules):
    return attrs.astuple(rules)[1:]


@pytest.mark.parametrize(
    ("make", "older", "newer"),
    [(vtd_ss, VTD, GENERIC), (amd_v1, AMD, GENERIC), (riscv, RISCV, GENERIC), (arm_lpae, LPAE, NEWER_LPAE)],
)
def test_the_rules_of_a_family_by_profile(make, older, newer):
    assert [values(make(profile=profile).rules) for profile in ("6.12", "7.3")] == [older, newer]


def test_what_no_hardware_has_goes_by_rules_of_our_own():
    assert values(FORMATS["mock"].rules) == values(SWIOMMU) == OWN
    assert (values(GENERIC_PT), values(ARM_LPAE_SPLITTING)) == (GENERIC, LPAE)
