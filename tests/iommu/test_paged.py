import pytest

from swiommu.address import BusSpace, PhysRange, PhysSpace, Prot
from swiommu.errors import (
    AddressInUse,
    Busy,
    InvalidArgument,
    NoMemory,
    NoSpace,
    NotFound,
    SpaceMismatch,
    SwiommuError,
)
from swiommu.iommu import PagedDomain, TopDownIova
from swiommu.memory import Frames
from swiommu.pagetable import CountingTables

MIB = 1 << 20
ram = PhysSpace("ram", width=40)
bus = BusSpace("nvme", width=48)


def frames(size=16 * MIB, start=0x4000_0000):
    return Frames(ram.at(start), size)


def paged(pool=None, **options):
    return PagedDomain(bus, frames=pool or frames(), output_space=ram, **options)


def piece(start, size):
    return PhysRange(ram.at(start), size)


def test_alloc_of_four_mib_is_what_linux_takes():
    pool = frames()
    pool.take_pages(512)  # the first 2 MiB go
    for pfn in range(0x40001, 0x40200, 2):
        pool.give(pfn, 1)  # and come back as 256 loose frames
    pool.occupy(0x40600, 2560)
    pool.give(0x40C00, 300)
    domain = paged(pool, tables=CountingTables())
    mapping = domain.alloc(4 * MIB)
    # Two blocks of 2 MiB are free and side by side: one piece.
    assert mapping.pieces == (piece(0x4020_0000, 4 * MIB),)
    assert mapping.iova.start.value == (1 << 48) - 4 * MIB
    assert domain.table.leaves == {1 << 30: 0, 1 << 21: 2, 4096: 0}
    small = domain.alloc(2 * MIB + 8192)
    assert len(small.pieces) > 1
    assert small.size == 2 * MIB + 8192
    domain.check()


def test_stats_of_alloc_and_release():
    domain = paged(tables=CountingTables())
    assert (domain.stats.table_pages, domain.stats.maps) == (1, 0)
    mapping = domain.alloc(2 * MIB + 4096)
    stats = domain.stats
    assert (stats.maps, stats.map_bytes, stats.walk_refs) == (1, 2 * MIB + 4096, 3 + 4)
    assert (stats.table_pages, stats.unmaps, stats.invalidations) == (4, 0, 0)
    domain.release(mapping)
    assert (stats.table_pages, stats.table_pages_peak, stats.unmaps, stats.invalidations) == (1, 4, 1, 1)
    assert stats is domain.stats


def test_tables_and_data_share_the_frames():
    pool = frames(8 * 4096)
    domain = paged(pool)
    assert pool.free_count == 7
    mapping = domain.alloc(4 * 4096)
    assert pool.free_count == 0
    with pytest.raises(NoMemory):
        domain.alloc(4096)
    domain.release(mapping)
    assert pool.free_count == 7
    domain.destroy()
    assert pool.free_count == 8


@pytest.mark.parametrize("call", ["alloc", "bind", "map"])
def test_any_failing_call_below_leaves_nothing_behind(call):
    """Frames and table pages fail one after the other, and then the choice of a bus address."""
    wanted = 3 * 4096
    for nth in range(1, 20):
        pool = frames(64 * 4096)
        iova = TopDownIova()
        domain = paged(pool, iova=iova)
        if nth < 19:
            pool.fail_nth(nth)
        else:
            iova.fail_nth(1)
        before = (pool.free_count, iova.free_bytes)
        try:
            if call == "alloc":
                domain.alloc(wanted)
            elif call == "bind":
                domain.bind([piece(0x8000_1000, 2 * MIB), piece(0x9000_1000, 2 * MIB)])  # a leaf table each
            else:
                domain.map(bus.at(0x1FF000), ram.at(0x8000_0000), wanted)
        except SwiommuError:
            assert (pool.free_count, iova.free_bytes) == before
            assert domain.mappings() == []
            assert (domain.stats.maps, domain.stats.walk_refs, domain.stats.map_bytes) == (0, 0, 0)
            assert nth < 6 or nth == 19
        else:
            assert nth > 3
            assert call == "map" or nth < 19
        domain.check()
        pool.check()


def test_no_bus_address_is_no_space_and_gives_the_frames_back():
    pool = frames()
    domain = paged(pool)
    free = pool.free_count
    with pytest.raises(NoSpace) as caught:
        domain.alloc(8192, limit=0x1FFF)
    assert str(caught.value) == "no 8192 free bus bytes aligned to 0x2000 at or below 0x1fff"
    assert pool.free_count == free


def test_bind_keeps_the_offset_and_maps_whole_granules():
    domain = paged()
    mapping = domain.bind([piece(0x8000_0E00, 0x400)], Prot.READ)
    assert mapping.iova.start.value & 0xFFF == 0xE00
    assert (mapping.size, mapping.owns_memory) == (0x400, False)
    assert mapping.pieces == (piece(0x8000_0E00, 0x400),)
    assert domain.stats.map_bytes == 8192
    assert domain.iova_to_phys(mapping.iova.start) == ram.at(0x8000_0E00)
    assert domain.iova_to_phys(mapping.iova.last) == ram.at(0x8000_11FF)
    domain.release(mapping)
    assert domain.table.leaves[4096] == 0
    assert domain.iova.free_bytes == (1 << 48) - 4096


def test_bind_puts_pieces_one_behind_the_other():
    domain = paged()
    pieces = [piece(0x8000_0200, 0xE00), piece(0x8000_1000, 0x1000), piece(0x9000_0000, 0x1000), piece(0x7000_0000, 5)]
    mapping = domain.bind(pieces)
    # The first two touch: one call of the kernel's map, one piece.
    assert mapping.pieces == (piece(0x8000_0200, 0x1E00), piece(0x9000_0000, 0x1000), piece(0x7000_0000, 5))
    assert domain.stats.maps == 3
    start = mapping.iova.start
    assert domain.iova_to_phys(start + 0x1E00) == ram.at(0x9000_0000)
    assert domain.iova_to_phys(start + 0x2E00) == ram.at(0x7000_0000)


def test_pieces_that_touch_inside_a_granule_are_one():
    mapping = paged().bind([piece(0x8000_0000, 0x200), piece(0x8000_0200, 0x200)])
    assert mapping.pieces == (piece(0x8000_0000, 0x400),)


@pytest.mark.parametrize(
    "pieces", [[(0x8000_0000, 0x800), (0x9000_0000, 0x1000)], [(0x8000_0000, 0x1000), (0x9000_0800, 0x800)]]
)
def test_pieces_that_tear_a_granule(pieces):
    domain = paged()
    with pytest.raises(InvalidArgument) as caught:
        domain.bind([piece(*each) for each in pieces])
    stop, start = sum(pieces[0]), pieces[1][0]
    assert str(caught.value) == (f"pieces that end at {stop:#x} and go on at {start:#x} tear a granule of 4096 bytes")
    assert domain.stats.table_pages == 1


def test_nothing_to_bind():
    with pytest.raises(InvalidArgument) as caught:
        paged().bind([])
    assert str(caught.value) == "nothing to bind: at least one piece is needed"


def test_map_takes_large_leaves_where_it_can():
    domain = paged()
    domain.map(bus.at(0x1FE000), ram.at(0x5FE000), 0x804000)
    assert domain.table.leaves == {1 << 30: 0, 1 << 21: 4, 4096: 4}
    assert domain.stats.walk_refs == 4 * 3 + 4 * 4
    assert domain.stats.maps == 1


def test_unmap_of_a_large_leaf_and_of_a_hole():
    domain = paged()
    domain.map(bus.at(0x200000), ram.at(0x200000), 0x201000)
    assert domain.unmap(bus.at(0x201000), 0x1000) == 0  # its middle
    assert domain.stats.unmaps == domain.stats.invalidations == 0
    assert domain.unmap(bus.at(0x200000), 0x1000) == 0x200000  # its first byte: all of it
    assert domain.unmap(bus.at(0x400000), 0x10000) == 0x1000  # then a hole
    assert domain.stats.unmaps == domain.stats.invalidations == 2
    assert domain.iova.free_bytes == (1 << 48) - 4096


def test_alloc_keeps_off_what_was_mapped_by_hand():
    domain = paged(iova=TopDownIova(4096, 0x3FFF))
    domain.map(bus.at(0x3000), ram.at(0), 0x1000)
    assert domain.alloc(4096).iova.start.value == 0x2000
    with pytest.raises(AddressInUse) as caught:
        domain.map(bus.at(0x3000), ram.at(0), 0x1000)
    assert str(caught.value) == "0x1000 bus bytes at 0x3000 are not all free"
    domain.unmap(bus.at(0x3000), 0x1000)
    assert domain.alloc(4096).iova.start.value == 0x3000


def test_inside_a_mapping_the_caller_may_remap_but_not_across_its_border():
    domain = paged()
    mapping = domain.alloc(8192)
    start = mapping.iova.start
    with pytest.raises(AddressInUse) as caught:
        domain.map(start, ram.at(0), 4096)
    assert str(caught.value) == f"a live leaf of 0x1000 bytes is at {start.value:#x}"
    assert domain.unmap(start, 4096) == 4096
    domain.map(start, ram.at(0x7000), 4096, Prot.READ)
    assert domain.iova_to_phys(start) == ram.at(0x7000)
    with pytest.raises(AddressInUse) as caught:
        domain.map(start + -4096, ram.at(0), 8192)
    assert str(caught.value) == (
        f"0x2000 bytes at {start.value - 4096:#x} lie partly in the live mapping at {start.value:#x}"
    )
    domain.unmap(start + 4096, 4096)
    domain.release(mapping)
    domain.check()
    assert domain.frames.free_count == domain.frames.count - 1


def test_release_steps_over_what_was_unmapped_by_hand():
    for hole in range(3):
        domain = paged()
        mapping = domain.alloc(3 * 4096)
        domain.unmap(mapping.iova.start + hole * 4096, 4096)
        domain.release(mapping)
        assert (domain.table.leaves[4096], domain.table.table_pages) == (0, 1)
        assert domain.stats.invalidations == 2
        domain.check()


def test_page_zero_can_be_mapped_by_hand():
    domain = paged()
    domain.map(bus.at(0), ram.at(0), 4096)
    assert domain.iova_to_phys(bus.at(5)) == ram.at(5)
    assert domain.unmap(bus.at(0), 4096) == 4096


def test_what_lies_beyond_the_table_is_not_mapped():
    wide = BusSpace("wide", width=64)
    domain = PagedDomain(wide, frames=frames(), output_space=ram)
    assert domain.iova_to_phys(wide.at(1 << 50)) is None


def test_release_only_what_lives_here():
    domain, other = paged(), paged()
    mapping = domain.alloc(4096)
    same_place = other.alloc(4096)
    assert same_place.iova == mapping.iova
    for wrong in (same_place,):
        with pytest.raises(NotFound):
            domain.release(wrong)
    domain.release(mapping)
    with pytest.raises(NotFound) as caught:
        domain.release(mapping)
    assert str(caught.value) == f"{mapping!r} is not live in the domain of 'nvme'"
    assert domain.frames.free_count == domain.frames.count - 1


def test_destroy():
    domain = paged()
    mapping = domain.alloc(4096)
    with pytest.raises(Busy) as caught:
        domain.destroy()
    assert str(caught.value) == "the domain of 'nvme' has 0 devices and 1 mappings"
    domain.release(mapping)
    domain.map(bus.at(0), ram.at(0), 4096)
    with pytest.raises(Busy) as caught:
        domain.destroy()
    assert str(caught.value) == "a table with 1 live leaves can't be closed"
    domain.unmap(bus.at(0), 4096)
    domain.destroy()
    assert domain.frames.free_count == domain.frames.count
    with pytest.raises(InvalidArgument) as caught:
        domain.alloc(4096)
    assert str(caught.value) == "the domain of 'nvme' was destroyed"


def test_what_can_not_be_built():
    with pytest.raises(InvalidArgument) as caught:
        paged(flush="eager")
    assert str(caught.value) == "no flush policy is named 'eager'; there are strict, lazy"
    with pytest.raises(InvalidArgument) as caught:
        paged(Frames(ram.at(0), MIB, page_size=16384))
    assert str(caught.value) == "frames of 16384 bytes under format 'mock', whose smallest page is 4096"
    with pytest.raises(SpaceMismatch) as caught:
        paged(Frames(PhysSpace("other").at(0), MIB))
    assert str(caught.value) == "PhysRange(other:0x0+0x100000) is no memory of the output space 'ram'"
    full = frames(4096)
    full.take(0)
    with pytest.raises(NoMemory):
        paged(full)


@pytest.mark.parametrize("falsify", ["owner", "piece", "tables"])
def test_check_finds_what_is_falsified(falsify):
    domain = paged()
    mapping = domain.alloc(8192)
    domain.check()
    if falsify == "owner":
        domain.register.owned.clear(mapping.iova.start.value, mapping.iova.start.value + 4096)
    elif falsify == "piece":
        object.__setattr__(mapping, "pieces", (piece(0, 4096),))
    else:
        domain.stats.table_pages += 1
    with pytest.raises(AssertionError):
        domain.check()
