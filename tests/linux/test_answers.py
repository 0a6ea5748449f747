"""What kernel functions answer, and why: errnos in pointers and numbers, `last_error`, constants; CMA's calls."""

import errno
import logging
import threading

import pytest

from swiommu import linux
from swiommu.address import BusSpace, PhysSpace
from swiommu.device import BusDevice
from swiommu.errors import InvalidArgument, OutOfRange
from swiommu.iommu.groups import Hardware, IommuCore
from swiommu.memory import Frames, SparseRam
from swiommu.region import Bitmap
from swiommu.region.mainline import CmaArea


@pytest.fixture
def nic():
    ram = SparseRam(PhysSpace("ram", width=40))
    device = BusDevice("nic", ram)
    smmu = Hardware(
        name="smmu", bus=BusSpace("pci", width=48), ram=ram.space, frames=Frames(ram.space.at(0x4000_0000), 1 << 20)
    )
    IommuCore().probe(device, smmu)
    return device


# -- errnos in pointers and numbers


@pytest.mark.parametrize(
    ("value", "is_error", "or_null"),
    [
        (-1, True, True),
        (-4095, True, True),
        (-4096, False, False),
        (0, False, False),
        (1, False, False),
        (None, False, True),
        ("a domain", False, False),
        (-22.0, False, False),
    ],
)
def test_errnos_in_pointers(value, is_error, or_null):
    assert linux.IS_ERR(value) is is_error
    assert linux.IS_ERR_OR_NULL(value) is or_null
    assert linux.PTR_ERR_OR_ZERO(value) == (value if is_error else 0)
    if is_error:
        assert linux.PTR_ERR(value) == value
    else:
        with pytest.raises(InvalidArgument) as caught:
            linux.PTR_ERR(value)
        assert str(caught.value) == f"{value!r} is no negative errno"


def test_errnos_in_numbers_and_addresses():
    top = 1 << 64
    numbers = [-1, -4095, -4096, top - 1, top - 4095, top - 4096, 0, 1]
    assert [linux.IS_ERR_VALUE(number) for number in numbers] == [True, True, False, True, True, False, False, False]
    narrow = BusSpace("soc", width=32)
    assert [linux.IS_ERR_VALUE(narrow.at(value)) for value in (0xFFFF_FFFF, 0xFFFF_F001, 0xFFFF_F000, 0)] == [
        True,
        True,
        False,
        False,
    ]


# -- why


def test_the_last_error_is_that_of_the_last_failure(nic):
    domain = linux.iommu_paging_domain_alloc(nic)
    assert linux.iommu_paging_domain_alloc_flags(nic, 1) == -errno.EOPNOTSUPP
    assert str(linux.last_error()) == "IOMMU 'smmu' has no paging domains with flags 0x1"
    assert linux.iommu_map(domain, 0x8000, 0, 0x1000, linux.IOMMU_READ) == 0
    assert str(linux.last_error()) == "IOMMU 'smmu' has no paging domains with flags 0x1"  # as errno, left alone
    assert linux.iommu_map(domain, 0x8800, 0, 0x1000, linux.IOMMU_READ) == -errno.EINVAL
    assert str(linux.last_error()) == "unaligned: iova 0x8800 pa 0x0 size 0x1000 min_pagesz 0x1000"
    assert (linux.last_error().iova, linux.last_error().__traceback__) == (0x8800, None)


@pytest.mark.parametrize("fast", [False, True])
def test_why_an_unmap_answers_nothing(nic, fast):
    domain = linux.iommu_paging_domain_alloc(nic)
    gather = [linux.iommu_iotlb_gather_init(domain)] if fast else []
    unmap = linux.iommu_unmap_fast if fast else linux.iommu_unmap
    assert unmap(domain, 0x8001, 0x1000, *gather) == 0
    assert str(linux.last_error()) == "unaligned: iova 0x8001 size 0x1000 min_pagesz 0x1000"
    assert unmap(domain, 1 << 50, 0x1000, *gather) == 0
    why = linux.last_error()
    assert str(why) == "0x1000 bytes at 0x4000000000000 are none of the 48-bit space 'pci'"
    assert unmap(domain, 0x8000, 0x1000, *gather) == 0  # a hole
    assert linux.last_error() is why


def test_each_thread_has_its_own_last_error(nic):
    linux.iommu_paging_domain_alloc_flags(nic, 1)
    seen = []

    def other():
        seen.append(linux.last_error())
        linux.iommu_paging_domain_alloc_flags(nic, 2)
        seen.append(str(linux.last_error()))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [None, "IOMMU 'smmu' has no paging domains with flags 0x2"]
    assert str(linux.last_error()) == "IOMMU 'smmu' has no paging domains with flags 0x1"


# -- constants: names and values of include/linux/iommu.h

VALUES = {
    "IOMMU_READ": 1,
    "IOMMU_WRITE": 2,
    "IOMMU_CACHE": 4,
    "IOMMU_NOEXEC": 8,
    "IOMMU_MMIO": 16,
    "IOMMU_PRIV": 32,
    "IOMMU_DOMAIN_BLOCKED": 0,
    "IOMMU_DOMAIN_IDENTITY": 4,
    "IOMMU_DOMAIN_UNMANAGED": 1,
    "IOMMU_DOMAIN_DMA": 3,
    "IOMMU_DOMAIN_DMA_FQ": 0xB,
    "IOMMU_DOMAIN_SVA": 0x10,
    "IOMMU_DOMAIN_PLATFORM": 0x20,
    "IOMMU_DOMAIN_NESTED": 0x40,
    "IOMMU_RESV_DIRECT": 0,
    "IOMMU_RESV_DIRECT_RELAXABLE": 1,
    "IOMMU_RESV_RESERVED": 2,
    "IOMMU_RESV_MSI": 3,
    "IOMMU_RESV_SW_MSI": 4,
    "IOMMU_CAP_CACHE_COHERENCY": 0,
    "IOMMU_CAP_NOEXEC": 1,
    "IOMMU_CAP_PRE_BOOT_PROTECTION": 2,
    "IOMMU_CAP_ENFORCE_CACHE_COHERENCY": 3,
    "IOMMU_CAP_DEFERRED_FLUSH": 4,
    "IOMMU_CAP_DIRTY_TRACKING": 5,
    "IOMMU_CAP_PCI_ATS_SUPPORTED": 6,
    "IOMMU_HWPT_ALLOC_NEST_PARENT": 1,
    "IOMMU_HWPT_ALLOC_DIRTY_TRACKING": 2,
    "IOMMU_HWPT_FAULT_ID_VALID": 4,
    "IOMMU_HWPT_ALLOC_PASID": 8,
    "IOMMU_FAULT_READ": 0,
    "IOMMU_FAULT_WRITE": 1,
    "GFP_KERNEL": 0xCC0,
    "GFP_ATOMIC": 0x820,
    "MAX_ERRNO": 4095,
}


def test_constants_have_the_kernels_values():
    found = {name: getattr(linux, name) for name in linux.__all__ if name.startswith(("IOMMU_", "GFP_", "MAX_"))}
    assert found == VALUES


def test_constants_are_what_calls_take(nic):
    assert linux.device_iommu_capable(nic, linux.IOMMU_CAP_CACHE_COHERENCY)
    assert linux.device_iommu_capable(nic, 0)
    assert not linux.device_iommu_capable(nic, linux.IOMMU_CAP_DIRTY_TRACKING)
    domain = linux.iommu_paging_domain_alloc_flags(nic, linux.IOMMU_HWPT_ALLOC_PASID)
    assert domain.kernel.type == linux.IOMMU_DOMAIN_UNMANAGED
    assert linux.iommu_map(domain, 0, 0x1000, 0x1000, linux.IOMMU_READ | linux.IOMMU_CACHE, linux.GFP_ATOMIC) == 0


# -- the contiguous memory allocator


def area(profile="6.12", pages=256):
    return CmaArea("camera", Bitmap(0x4000_0000, pages << 12, profile=profile))


def test_pages_of_an_area():
    cma = area()
    assert linux.cma_alloc(cma, 3, 0, no_warn=False) == 0x40000
    assert linux.cma_alloc(cma, 1, 4, False) == 0x40010
    assert (linux.cma_get_base(cma), linux.cma_get_size(cma), linux.cma_get_name(cma)) == (
        0x4000_0000,
        1 << 20,
        "camera",
    )
    assert linux.cma_release(cma, 0x40000, 3) is True
    assert (cma.pages_succeeded, cma.pages_released, cma.used) == (4, 3, 1)


def test_an_area_of_several_ranges():
    cma = CmaArea.over(None, [(0x1_0000_0000, 1 << 20), (0x2_0000_0000, 2 << 20)])
    assert (linux.cma_get_base(cma), linux.cma_get_size(cma), linux.cma_get_name(cma)) == (
        0x1_0000_0000,
        3 << 20,
        "cma0\n",
    )
    assert linux.cma_alloc(cma, 300, 0) == 0x20_0000


NO_PLACE = (
    "no place for 257 pages aligned to 2**0 pages: 256 of 256 bits are clear, at most 256 in a row, and 0 places were "
    "busy"
)


@pytest.mark.parametrize(
    ("profile", "code", "why"),
    [
        (
            "6.12",
            errno.ENOMEM,
            NO_PLACE,
        ),
        ("7.3", errno.EBUSY, "257 pages were asked for and 256 are available"),
    ],
)
def test_a_failure_is_logged_as_a_kernel_does(caplog, profile, code, why):
    cma = area(profile)
    with caplog.at_level(logging.INFO):
        assert linux.cma_alloc(cma, 257, 0, False) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"cma: cma_alloc: camera: alloc failed, req-size: 257 pages, ret: -{code}",
        "cma: number of available pages: 256@0=> 256 free of 256 total pages",
    ]
    assert (str(linux.last_error()), linux.last_error().kernel_errno, cma.pages_failed) == (why, code, 257)


def test_a_failure_that_is_not_logged(caplog):
    cma = area()
    with caplog.at_level(logging.DEBUG):
        assert linux.cma_alloc(cma, 257, 0, True) is None
        assert linux.cma_alloc(None, 1, 0, False) is None
        assert str(linux.last_error()) == "no area to allocate from"
        assert linux.cma_alloc(cma, 0, 0, False) is None
        assert str(linux.last_error()) == "no pages of area 'camera' were asked for"
        assert linux.cma_alloc(cma, 1, -1, False) is None
        assert str(linux.last_error()) == "1 pages aligned to 2**-1 pages can't be allocated"
    assert caplog.records == []
    assert (cma.pages_failed, cma.used) == (257, 0)


def test_a_failure_by_injection_has_an_errno_too(caplog):
    cma = area()
    cma.allocator.fail_nth(1)
    assert linux.cma_alloc(cma, 1, 0, False) is None
    assert caplog.records[0].getMessage() == "cma: cma_alloc: camera: alloc failed, req-size: 1 pages, ret: -12"


def test_pages_that_are_not_released():
    cma = area("7.3")
    page = linux.cma_alloc(cma, 2, 0, False)
    for arguments, why in [
        ((None, page, 2), "no area, or no page, to release"),
        ((cma, None, 2), "no area, or no page, to release"),
        ((cma, 0x3FFFF, 2), "2 pages from pfn 0x3ffff are none of the area 'camera'"),
        ((cma, 0x400FF, 2), "2 pages from pfn 0x400ff are none of the area 'camera'"),
    ]:
        assert linux.cma_release(*arguments) is False
        assert str(linux.last_error()) == why
    assert cma.used == 2
    with pytest.raises(OutOfRange) as caught:
        linux.cma_release(area("6.12"), 0x400FF, 2)
    assert str(caught.value) == "2 pages from pfn 0x400ff run over the end of the area at 0x40100"
