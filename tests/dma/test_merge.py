"""How lists are laid out and merged: the worked example, each rule by hand, and what must always hold."""

from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.dma import join_entries, pad_entries

PAGE = 4096
ALL = (1 << 64) - 1


def lay(entries, *, iova=0xFFF0_0000, boundary=ALL, longest=65536, granule=PAGE):
    padded = pad_entries(entries, granule, boundary)
    joined = join_entries(iova, entries, padded, granule=granule, boundary_mask=boundary, max_seg_size=longest)
    return padded, joined


def test_the_worked_example():
    entries = [(0x8000_0400, 0xC00), (0x9000_0000, 0x2000), (0xA000_0000, 0x300)]
    assert lay(entries, iova=0xFFFF_C000) == ([0x1000, 0x2000, 0x1000], [(0xFFFF_C400, 0x2F00)])


def test_an_offset_starts_a_segment():
    assert lay([(0x1000, PAGE), (0x5010, 0x20)], iova=0)[1] == [(0, PAGE), (0x1010, 0x20)]


def test_a_gap_at_the_end_ends_a_segment():
    assert lay([(0x1000, 0x800), (0x5000, PAGE)], iova=0)[1] == [(0, 0x800), (0x1000, PAGE)]


def test_a_segment_is_as_long_as_the_device_takes():
    entries = [(PAGE * 3 * n, PAGE) for n in range(5)]
    assert lay(entries, iova=0, longest=2 * PAGE)[1] == [(0, 2 * PAGE), (2 * PAGE, 2 * PAGE), (4 * PAGE, PAGE)]


def test_an_entry_beyond_the_limit_does_not_keep_others_from_joining():
    # The room is unsigned in the kernel: too long once, and everything fits.
    assert lay([(0, 3 * PAGE), (0x10000, PAGE)], iova=0, longest=2 * PAGE)[1] == [(0, 4 * PAGE)]


def test_no_entry_crosses_a_boundary_and_none_joins_at_one():
    entries = [(0x10000, 3 * PAGE), (0x20000, 2 * PAGE), (0x30000, 2 * PAGE)]
    padded, joined = lay(entries, iova=0x10_0000, boundary=4 * PAGE - 1)
    assert padded == [4 * PAGE, 2 * PAGE, 2 * PAGE]
    assert joined == [(0x10_0000, 3 * PAGE), (0x10_4000, 4 * PAGE)]
    padded, joined = lay([(0x10000, 4 * PAGE), (0x20000, PAGE)], iova=0x10_0000, boundary=4 * PAGE - 1)
    assert padded == [4 * PAGE, PAGE]
    assert joined == [(0x10_0000, 4 * PAGE), (0x10_4000, PAGE)]


def test_the_padding_rule_is_off_by_one_as_it_stands():
    # pad < length - 1: an entry of pad + 1 bytes would just cross, and granules make that impossible.
    assert pad_entries([(0, 3 * PAGE), (0x9000, PAGE)], PAGE, 4 * PAGE - 1) == [3 * PAGE, PAGE]


lists = st.lists(
    st.tuples(st.integers(0, 1 << 32), st.one_of(st.integers(1, 3 * PAGE), st.just(PAGE), st.just(2 * PAGE))),
    min_size=1,
    max_size=12,
)


@given(lists, st.sampled_from([ALL, 0xFFFF_FFFF, 0xFFFF, 0x7FFF]), st.sampled_from([4 * PAGE, 65536, 1 << 32]))
@settings(max_examples=100)
def test_what_a_device_reads_is_the_list(entries, boundary, longest):
    # As the allocator aligns a range: to the next power of two of its size.
    padded = pad_entries(entries, PAGE, boundary)
    iova = 1 << (sum(padded) - 1).bit_length()
    _, segments = lay(entries, iova=iova, boundary=boundary, longest=longest)
    where = {}
    at = iova
    for (phys, _), whole in zip(entries, padded, strict=True):
        for page in range(0, whole, PAGE):
            where[at + page] = (phys & ~0xFFF) + page
        at += whole
    got = [(where[start & -PAGE] + start % PAGE, count) for start, count in by_page(segments)]
    assert got == by_page(entries)
    assert len(segments) <= len(entries)
    for address, length in segments:
        assert length <= max(longest, 3 * PAGE)
        assert address & ~boundary == (address + length - 1) & ~boundary


def by_page(runs):
    cut = []
    for first, length in runs:
        start, stop = first, first + length
        while start < stop:
            end = min(stop, (start & -PAGE) + PAGE)
            cut.append((start, end - start))
            start = end
    return cut
