"""The two boot allocators: a start that is a hint, and a start that is an order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import PhysRange, PhysSpace
from swiommu.errors import AddressInUse, InvalidArgument, NoMemory, NotFound, OutOfRange, SpaceMismatch
from swiommu.memory import Bootmem, Frames, Memblock, SystemMap

PAGE = 4096
BASE = 0x4000_0000
ram = PhysSpace("ram", width=40)


def test_bootmem_takes_the_goal_as_a_hint():
    frames = Frames(ram.at(BASE), 16 * PAGE)
    bootmem = Bootmem(frames)
    frames.occupy((BASE >> 12) + 8, 2)
    assert bootmem.space is ram
    assert [hex(bootmem.reserve(2 * PAGE, PAGE, BASE + 7 * PAGE)) for _ in range(5)] == [
        "0x4000a000",
        "0x4000c000",
        "0x4000e000",
        "0x40000000",  # nothing is left above: anywhere
        "0x40002000",
    ]
    with pytest.raises(NoMemory) as caught:
        bootmem.reserve(5 * PAGE, PAGE, 0)
    assert str(caught.value) == "no 20480 bytes of memory aligned to 0x1000 are left"
    bootmem.release(BASE, 2 * PAGE)
    assert bootmem.reserve(100, 4 * PAGE) == BASE
    with pytest.raises(InvalidArgument) as refused:
        bootmem.reserve(PAGE, 3)
    assert str(refused.value) == "4096 bytes aligned to 3: at least 1 byte and a power of two are needed"


def test_memblock_takes_the_start_as_an_order():
    memblock = Memblock([PhysRange(ram.at(BASE), 8 * PAGE), PhysRange(ram.at(BASE + 8 * PAGE), 8 * PAGE)])
    memblock.reserve(BASE + 7 * PAGE, 2 * PAGE)  # neighbours are one memory
    for start, size, error, text in [
        (BASE + 8 * PAGE, PAGE, AddressInUse, "0x1000 bytes at 0x40008000 touch what is reserved at 0x40007000"),
        (BASE - PAGE, 2 * PAGE, OutOfRange, "0x2000 bytes at 0x3ffff000 are not all memory"),
        (BASE, 0, InvalidArgument, "0 bytes aligned to 1: at least 1 byte and a power of two are needed"),
    ]:
        with pytest.raises(error) as caught:
            memblock.reserve(start, size)
        assert str(caught.value) == text
    assert memblock.reserved == [(BASE + 7 * PAGE, 2 * PAGE)]
    assert [memblock.alloc(4 * PAGE, 4 * PAGE) for _ in range(2)] == [BASE + 12 * PAGE, BASE]
    with pytest.raises(NoMemory):
        memblock.alloc(4 * PAGE, PAGE)
    with pytest.raises(NotFound) as missing:
        memblock.release(BASE, PAGE)
    assert str(missing.value) == "0x1000 bytes at 0x40000000 are not reserved"
    memblock.release(BASE, 4 * PAGE)
    assert memblock.alloc(7 * PAGE, PAGE) == BASE


def test_memblock_reserves_in_the_ram_of_a_system():
    lines = ["40000000-4000ffff : System RAM", "  40001000-40001fff : Kernel code", "50000000-50000fff : uart"]
    memblock = Memblock(SystemMap.from_lines(ram, lines).ram())
    memblock.reserve(0x4000_1000, PAGE)
    assert memblock.alloc(0xE000, PAGE) == 0x4000_2000
    with pytest.raises(OutOfRange):
        memblock.reserve(0x5000_0000, PAGE)


def test_memory_is_of_one_space():
    with pytest.raises(SpaceMismatch):
        Memblock([PhysRange(ram.at(0), PAGE), PhysRange(PhysSpace("other").at(0), PAGE)])
    with pytest.raises(InvalidArgument) as caught:
        Memblock([])
    assert str(caught.value) == "no memory to reserve from"


requests = st.lists(st.tuples(st.integers(1, 6), st.sampled_from([1, 2, 4, 8]), st.integers(0, 20)), max_size=12)


def free_places(taken, size, align, low, high):
    """Every aligned place for ``size`` pages, page by page."""
    return [
        page
        for page in range(low, high - size + 1)
        if page % align == 0 and not any(at in taken for at in range(page, page + size))
    ]


@given(requests)
def test_both_choose_as_a_page_by_page_search_does(asked):
    bootmem = Bootmem(Frames(PhysSpace("ram").at(3 * PAGE), 16 * PAGE))
    memblock = Memblock([PhysRange(ram.at(3 * PAGE), 7 * PAGE), PhysRange(ram.at(12 * PAGE), 7 * PAGE)])
    low, high = set(), set()
    for size, align, goal in asked:
        places = free_places(low, size, align, 3, 19)
        expected = next((page for page in places if page >= goal), places[0] if places else None)
        assert outcome(bootmem.reserve, size * PAGE, align * PAGE, goal * PAGE) == expected
        if expected is not None:
            low |= set(range(expected, expected + size))
        places = free_places(high, size, align, 3, 10) + free_places(high, size, align, 12, 19)
        expected = max(places, default=None)
        assert outcome(memblock.alloc, size * PAGE, align * PAGE) == expected
        if expected is not None:
            high |= set(range(expected, expected + size))


def outcome(call, *args):
    try:
        return call(*args) // PAGE
    except NoMemory:
        return None
