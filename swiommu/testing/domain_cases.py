"""Laws of domains, devices and allocators, with what they are tried on."""

from swiommu.testing.case import Case

DOMAIN_CASES: list[Case] = []
