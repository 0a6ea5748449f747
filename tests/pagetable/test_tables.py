import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import PhysSpace
from swiommu.errors import NoMemory, NotFound, SpaceMismatch
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import CountingTables, FrameTables


def frames(pages=4, **options):
    return Frames(PhysSpace("ram").at(0x4000_0000), pages * 4096, **options)


@pytest.mark.parametrize("make", [lambda: FrameTables(frames()), CountingTables], ids=["frames", "counting"])
def test_pages_are_zeroed_distinct_and_known(make):
    tables = make()
    first, second = tables.alloc(), tables.alloc()
    assert first != second
    assert len(tables) == 2
    tables.entries(first)[511] = 7
    assert tables.entries(first)[511] == 7
    assert not any(tables.entries(second))
    tables.free(first)
    again = tables.alloc()
    assert again == first
    assert not any(tables.entries(again))
    for call in (tables.free, tables.entries):
        with pytest.raises(NotFound) as caught:
            call(0x123000)
        assert str(caught.value) == "0x123000 is no table page"


def test_frames_pay_and_get_back():
    pool = frames(2)
    tables = FrameTables(pool)
    pages = [tables.alloc(), tables.alloc()]
    assert pool.free_count == 0
    with pytest.raises(NoMemory):
        tables.alloc()
    for page in pages:
        tables.free(page)
    assert pool.free_count == 2
    pool.check()


def test_a_table_takes_a_whole_frame_and_a_larger_one_several():
    pool = Frames(PhysSpace("ram").at(0), 1 << 20, page_size=16384)
    tables = FrameTables(pool)
    small, large = tables.alloc(), tables.alloc(65536)
    assert (pool.free_count, large % 65536) == (59, 0)
    assert [len(tables.entries(at)) for at in (small, large)] == [512, 8192]
    tables.free(small)
    tables.free(large)
    assert pool.free_count == 64
    pool.check()


@given(st.lists(st.tuples(st.integers(0, 1023), st.integers(1, 700)), max_size=8))
def test_the_words_of_a_larger_table_are_one_row(writes):
    space = PhysSpace("ram")
    ram = SparseRam(space)
    tables = FrameTables(Frames(space.at(0x4000_0000), 1 << 20), ram)
    at = tables.alloc(8192)
    words, twin = tables.entries(at), [0] * 1024
    for n, (first, count) in enumerate(writes, 1):
        run = range(n << 32, (n << 32) + min(count, 1024 - first))
        words[first : first + len(run)] = array("Q", run)
        twin[first : first + len(run)] = run
        assert words[first : first + count].tolist() == list(run)
    assert list(words) == twin == [words[n] for n in range(1024)]
    assert array("Q", ram.read(space.at(at), 8192)).tolist() == twin
    assert [tables.word(at + 8 * n) for n in (0, 511, 512, 1023)] == [twin[n] for n in (0, 511, 512, 1023)]
    assert tables.pages() == [at, at + 4096]


def test_counting_has_a_limit_and_a_failure_to_order():
    tables = CountingTables(limit=2)
    tables.fail_nth(2)
    tables.alloc()
    with pytest.raises(NoMemory) as caught:
        tables.alloc()
    assert str(caught.value) == "no table page: this call was told to fail"
    tables.alloc()
    with pytest.raises(NoMemory) as caught:
        tables.alloc()
    assert str(caught.value) == "no table page: all 2 are in use"


def test_tables_in_ram_are_bytes_there():
    pool = frames(2)
    ram = SparseRam(pool.range.start.space)
    ram.fill(pool.range.start, 8192, 0xEE)  # what the former owner left
    tables = FrameTables(pool, ram)
    page = tables.alloc()
    assert not any(tables.entries(page))
    tables.entries(page)[1] = 0x0102_0304_0506_0708
    at = ram.space.at(page + 8)
    assert ram.read(at, 8) == (0x0102_0304_0506_0708).to_bytes(8, sys.byteorder)
    ram.fill(at, 8, 0)
    assert not any(tables.entries(page))
    tables.entries(page)[2] = 5
    tables.free(page)
    assert any(ram.read(ram.space.at(page), 4096))  # nobody wipes a frame that is given back
    assert tables.alloc() == page
    assert not any(ram.read(ram.space.at(page), 4096))


def test_tables_of_one_memory_can_not_lie_in_another():
    with pytest.raises(SpaceMismatch) as caught:
        FrameTables(frames(1), SparseRam(PhysSpace("vram")))
    assert str(caught.value) == "PhysRange(ram:0x40000000+0x1000) is no memory of the space 'vram'"
