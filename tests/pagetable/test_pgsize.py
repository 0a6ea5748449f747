import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swiommu.errors import InvalidArgument
from swiommu.pagetable import page_size_choice

SIZES = (0x1000, 0x4000, 0x10000)
PAGE = st.integers(0, 40).map(lambda n: n * 0x1000)


def by_definition(sizes, iova, paddr, size):
    """The largest size that divides both and fits; as many as there are until the next larger one can take over."""
    pgsize = max(s for s in sizes if s <= size and iova % s == 0 and paddr % s == 0)
    larger = [s for s in sizes if s > pgsize]
    for count in range(1, size // pgsize + 1):
        done = pgsize * count
        if larger and (iova + done) % larger[0] == (paddr + done) % larger[0] == 0 and size - done >= larger[0]:
            return pgsize, count
    return pgsize, size // pgsize


@given(PAGE, PAGE, PAGE.filter(bool), st.sets(st.sampled_from(SIZES)))
@example(0x3000, 0x3000, 0x4000, {0x4000})  # less than one larger page remains: small pages run across the border
def test_equals_the_definition(iova, paddr, size, more):
    sizes = sorted(more | {0x1000})
    assert page_size_choice(sum(sizes), iova, paddr, size) == by_definition(sizes, iova, paddr, size)


def test_every_small_corner():
    for iova in range(0, 0x9000, 0x1000):
        for paddr in range(0, 0x9000, 0x1000):
            for size in range(0x1000, 0xB000, 0x1000):
                assert page_size_choice(0x5000, iova, paddr, size) == by_definition((0x1000, 0x4000), iova, paddr, size)


@pytest.mark.parametrize(
    ("iova", "paddr", "size"), [(0, 0, 0), (0, 0, -0x1000), (0, 0, 0x800), (0x800, 0, 0x1000), (0, 0x10, 0x1000)]
)
def test_what_no_page_size_maps(iova, paddr, size):
    with pytest.raises(InvalidArgument) as caught:
        page_size_choice(0x5000, iova, paddr, size)
    assert str(caught.value) == f"no page size of 0x5000 maps {size:#x} bytes at {iova:#x} to {paddr:#x}"
