"""Invalidation commands against brute force: what they cover, and that nothing smaller would do."""

from hypothesis import given
from hypothesis import strategies as st

from swiommu.iommu.commands import aligned_pieces, amd_pieces, chunks, smmu_commands, smmu_unmap, vtd_block, vtd_unmap

PAGE = 4096
BITMAP = 1 << 12 | 1 << 21 | 1 << 30
pfns = st.integers(0, 1 << 21)
counts = st.integers(1, 1 << 12) | st.integers(1, 1 << 20)


@given(pfns, counts)
def test_a_block_is_the_smallest_that_covers_both_ends(pfn, count):
    block, mask = vtd_block(pfn * PAGE, (pfn + count) * PAGE - 1)
    first = block // PAGE
    assert first % (1 << mask) == 0
    assert first <= pfn
    assert pfn + count <= first + (1 << mask)
    half = 1 << mask >> 1
    assert mask == 0 or pfn // half != (pfn + count - 1) // half


@given(pfns, counts)
def test_pieces_tile_the_range_as_large_as_they_can(pfn, count):
    at, left = pfn * PAGE, count * PAGE
    for start, size in aligned_pieces(at, at + left - 1):
        fitting = [1 << bit for bit in range(63) if start % (1 << bit) == 0 and 1 << bit <= left]
        assert (start, size) == (at, max(fitting))
        at, left = at + size, left - size
    assert left == 0
    assert amd_pieces(pfn * PAGE, at - 1) == list(aligned_pieces(pfn * PAGE, at - 1))


@given(pfns, counts, st.booleans())
def test_range_commands_are_five_bits_each(pfn, count, leaf):
    at, pages = pfn * PAGE, 0
    for each in smmu_commands(at, count * PAGE, PAGE, leaf=leaf):
        lowest = each.pages & -each.pages
        assert each.pages // lowest <= 31
        assert (each.iova, each.ttl) == (at + pages * PAGE, 3 if leaf else 0)
        pages += each.pages
    assert count <= pages <= count + (not leaf)


@given(pfns, counts)
def test_chunks_and_what_is_gathered(pfn, count):
    at, size = pfn * PAGE, count * PAGE
    lengths = [pgsize * many for _, pgsize, many in chunks(BITMAP, at, size)]
    assert sum(lengths) == size
    ranges = vtd_unmap(at, size, bitmap=BITMAP)
    assert [start for start, _ in ranges][:1] == [at]
    assert sum(last + 1 - start for start, last in ranges) == size
    assert len(ranges) <= len(lengths)
    assert vtd_unmap(at, size, bitmap=BITMAP, by_chunk=False) == [(at, at + size - 1)]
    leaves = [each for each in smmu_unmap(at, size, lambda _iova, _pgsize: True) if each.leaf]
    assert sum(each.pages for each in leaves) == count


def test_leaves_of_each_size_and_tables_between():
    mixed = smmu_unmap(0x1FF000, 0x402000, lambda iova, _pgsize: iova == 0x200000)
    assert [(hex(each.iova), each.pages, each.ttl, each.leaf) for each in mixed] == [
        ("0x400000", 512, 0, False),
        ("0x1ff000", 1, 3, True),
        ("0x200000", 1024, 2, True),
        ("0x600000", 1, 3, True),
    ]
