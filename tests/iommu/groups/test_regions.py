"""A.12: reserved regions, their order, their merging, and the text of sysfs, to the byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.errors import InvalidArgument
from swiommu.iommu.groups import HostBridge, host_bridge_holes, merged_regions, regions_text
from swiommu.layer import Reserved, ReservedKind

ORDER = [
    ReservedKind.DIRECT,
    ReservedKind.DIRECT_RELAXABLE,
    ReservedKind.RESERVED,
    ReservedKind.MSI,
    ReservedKind.SW_MSI,
]
WORDS = ["direct", "direct-relaxable", "reserved", "msi", "msi"]


@pytest.mark.parametrize(
    ("kind", "word"), list(zip(ORDER, WORDS, strict=True)), ids=[f"A.12-{kind.name}" for kind in ORDER]
)
def test_words(kind, word):
    text = regions_text([Reserved(0xFEE0_0000, 0x10_0000, kind)])
    assert text == f"0x00000000fee00000 0x00000000feefffff {word}\n"


def test_the_whole_file_of_a_group(machine):
    host = machine(grouping="iommu")
    host.probe("gpu", regions=(Reserved(0x9D80_0000, 0x280_0000, "direct"), Reserved(0xFEE0_0000, 0x10_0000, "msi")))
    _, group = host.probe("usb", regions=(Reserved(0x9D00_0000, 0x80_0000, "direct-relaxable"),))
    host.probe("nic", regions=(Reserved(0xFEE0_0000, 0x10_0000, "msi"), Reserved(0xFD_0000_0000, 0x3_0000_0000)))
    assert group.reserved_regions_text == (
        "0x000000009d000000 0x000000009d7fffff direct-relaxable\n"
        "0x000000009d800000 0x000000009fffffff direct\n"
        "0x00000000fee00000 0x00000000feefffff msi\n"
        "0x000000fd00000000 0x000000ffffffffff reserved\n"
    )


def test_none_is_an_empty_file(machine):
    _, group = machine().probe("nic")
    assert group.reserved_regions_text == ""


def test_the_last_byte_of_64_bits():
    assert regions_text([Reserved((1 << 64) - 4096, 4096)]) == "0xfffffffffffff000 0xffffffffffffffff reserved\n"


@pytest.mark.parametrize("gap", [-0x800, 0, 1], ids=["overlap", "touch", "apart"])
@pytest.mark.parametrize("same", [True, False], ids=["one-kind", "two-kinds"])
def test_merging(gap, same):
    first = Reserved(0x1000, 0x1000, "direct")
    second = Reserved(0x2000 + gap, 0x1000, "direct" if same else "msi")
    found = merged_regions([second, first])
    if same and gap <= 0:
        assert found == [Reserved(0x1000, 0x2000 + gap, "direct")]
    else:
        assert found == [first, second]


def kernel_insert(regions, new):
    """``iommu_insert_resv_region``, word by word: sorted in, then everything of its kind merged over a stack."""
    rank = ORDER.index
    place = 0
    while place < len(regions):
        other = regions[place]
        if new.start < other.start or (new.start == other.start and rank(new.kind) <= rank(other.kind)):
            break
        place += 1
    stack = []
    for each in [*regions[:place], new, *regions[place:]]:
        top = next((n for n in range(len(stack) - 1, -1, -1) if stack[n].kind == each.kind), None)
        if each.kind != new.kind or top is None or each.start > stack[top].stop:
            stack.append(each)
        else:
            stop = max(stack[top].stop, each.stop)
            stack[top] = Reserved(stack[top].start, stop - stack[top].start, each.kind)
    return stack


REGIONS = st.lists(st.builds(Reserved, st.integers(0, 12), st.integers(1, 5), st.sampled_from(ORDER)), max_size=8)


@given(REGIONS)
def test_as_the_kernel_inserts_one_by_one(regions):
    expected = []
    for region in regions:
        expected = kernel_insert(expected, region)
    assert merged_regions(regions) == expected


@given(REGIONS)
def test_every_byte_keeps_its_kinds(regions):
    def bytes_of(some):
        return {(at, region.kind) for region in some for at in range(region.start, region.stop)}

    assert bytes_of(merged_regions(regions)) == bytes_of(regions)


# -- host bridges


def test_a_bridge_without_ranges_has_windows_only():
    assert host_bridge_holes(HostBridge(windows=((0xE000_0000, 0x1000),))) == [(0xE000_0000, 0xE000_0FFF)]


def test_ranges_leave_gaps_between_them():
    bridge = HostBridge(dma_ranges=((0x8000, 0x1000), (0, 0x1000), (0x9000, 0x1000)))
    assert host_bridge_holes(bridge) == [(0x1000, 0x8000), (0xA000, (1 << 64) - 1)]


def test_ranges_of_everything_leave_none():
    assert host_bridge_holes(HostBridge(dma_ranges=((0, 1 << 64),))) == []


def test_ranges_that_overlap_are_refused(refused):
    bridge = HostBridge(dma_ranges=((0, 0x2000), (0x1000, 0x2000)))
    assert refused(InvalidArgument, host_bridge_holes, bridge) == (
        "failed to reserve IOVA [0x2000-0x1000]: dma-ranges overlap"
    )
