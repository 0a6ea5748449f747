import pytest

from swiommu.address import Access, BusSpace, PhysRange, PhysSpace, Prot
from swiommu.errors import (
    AddressInUse,
    Busy,
    DeviceFault,
    InvalidArgument,
    NoMemory,
    NotFound,
    NotSupported,
    OutOfRange,
)
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.layer import FaultKind, Reserved
from swiommu.memory import Frames
from swiommu.region import Region

MIB = 1 << 20
ram = PhysSpace("ram", width=40)
bus = BusSpace("camera", width=32)
DELTA = 0x1000_0000
BASE = 0x4000_0000


def piece(start, size):
    return PhysRange(ram.at(start), size)


def linear(size=MIB, window=None, delta=DELTA, **options):
    return LinearDomain(bus, Region(ram.at(BASE), size, **options), window=window, delta=delta)


def wide():
    return linear(window=piece(BASE - MIB, 4 * MIB))


def test_alloc_is_a_chunk_seen_through_the_window():
    domain = linear()
    mapping = domain.alloc(5000, 0x10000, prot=Prot.READ)
    assert mapping.pieces == (piece(BASE, 8192),)
    assert mapping.iova.start == bus.at(BASE + DELTA)
    assert (mapping.size, mapping.owns_memory, mapping.prot, mapping.domain) == (8192, True, Prot.READ, domain)
    assert domain.region.users == 1
    assert domain.iova_to_phys(mapping.iova.start + 4097) == ram.at(BASE + 4097)
    assert domain.iova_to_phys(bus.at(mapping.iova.stop)) is None
    domain.release(mapping)
    assert (domain.region.users, domain.iova_to_phys(mapping.iova.start)) == (0, None)


def test_it_records_and_can_not_enforce():
    domain = linear()
    assert domain.enforces is False
    run = domain.translate(bus.at(BASE + DELTA), MIB, Access.WRITE)[0]
    assert (run.output, run.size, run.prot) == (BASE, MIB, Prot.READ | Prot.WRITE)
    mapping = domain.alloc(4096, prot=Prot.READ)
    assert domain.translate(mapping.iova.start, 4096, Access.WRITE)[0].output == BASE
    with pytest.raises(DeviceFault) as caught:
        domain.translate(bus.at(BASE + DELTA + MIB), 1, Access.READ)
    assert caught.value.fault.kind is FaultKind.RANGE


def test_stats_count_records_only():
    domain = linear()
    domain.release(domain.alloc(8192))
    stats = domain.stats
    assert (stats.maps, stats.map_bytes, stats.unmaps) == (1, 8192, 1)
    assert (stats.invalidations, stats.table_pages, stats.walk_refs) == (0, 0, 0)


def test_two_buffers_in_one_page_are_both_bound():
    domain = wide()
    first, second = domain.bind([piece(BASE, 512)]), domain.bind([piece(BASE + 512, 512)])
    assert domain.iova_to_phys(bus.at(BASE + DELTA + 1023)) == ram.at(BASE + 1023)
    assert domain.iova_to_phys(bus.at(BASE + DELTA + 1024)) is None
    domain.release(first)
    assert domain.mappings() == [second]


def test_pieces_that_touch_are_one_run():
    mapping = wide().bind([piece(BASE, 512), piece(BASE + 512, 8192)])
    assert mapping.pieces == (piece(BASE, 512 + 8192),)


REFUSED = [
    (
        lambda d: d.bind([piece(BASE, 4096), piece(BASE + 8192, 4096)]),
        NotSupported,
        "2 separate pieces can't be one bus range without translation",
    ),
    (
        lambda d: d.bind([piece(BASE + 3 * MIB - 1, 2)]),
        NotSupported,
        "[0x402fffff, 0x40300001) is not inside the window PhysRange(ram:0x3ff00000+0x400000)",
    ),
    (
        lambda d: d.bind([piece(BASE - MIB - 1, 2)]),
        NotSupported,
        "[0x3fefffff, 0x3ff00001) is not inside the window PhysRange(ram:0x3ff00000+0x400000)",
    ),
    (
        lambda d: d.bind([piece(BASE, 4096)], limit=BASE),
        NotSupported,
        "4096 bytes at bus 0x50000000 are not all at or below 0x40000000",
    ),
    (
        lambda d: d.map(bus.at(BASE), ram.at(BASE), 4096),
        NotSupported,
        "bus 0x40000000 leads to 0x30000000 through delta 0x10000000, never to 0x40000000",
    ),
    (
        lambda d: d.map(bus.at(0x1000_0000), ram.at(0), 4096),
        OutOfRange,
        "0x1000 bytes at bus 0x10000000 are not inside the window PhysRange(ram:0x3ff00000+0x400000)",
    ),
    (
        lambda d: d.alloc(4096, 0x2000_0000),
        NotSupported,
        "a window with delta 0x10000000 can't keep an alignment of 0x20000000",
    ),
    (
        lambda d: d.alloc(8192, limit=BASE + DELTA + 4096),
        NoMemory,
        "the region's 8192 bytes at bus 0x50000000 are not all at or below 0x50001000",
    ),
    (
        lambda d: d.map(bus.at(BASE + DELTA), ram.at(BASE), 512),
        InvalidArgument,
        "0x200 bytes at 0x50000000 to 0x40000000 are not aligned to the granule 0x1000",
    ),
    (lambda d: d.alloc(0), InvalidArgument, "0 bytes can't be allocated: at least 1 is needed"),
]


@pytest.mark.parametrize(("call", "error", "text"), REFUSED, ids=[text[:40] for _, _, text in REFUSED])
def test_what_is_refused_and_how(call, error, text):
    domain = wide()
    with pytest.raises(error) as caught:
        call(domain)
    assert (type(caught.value), str(caught.value)) == (error, text)
    assert domain.region.users == 0
    assert domain.mappings() == []
    domain.check()


def test_overlap_is_in_use():
    domain = wide()
    mapping = domain.alloc(8192)
    at = mapping.iova.start.value
    for call in (
        lambda: domain.bind([piece(BASE + 4096, 4096)]),
        lambda: domain.map(mapping.iova.start, ram.at(BASE), 4096),
    ):
        with pytest.raises(AddressInUse):
            call()
    with pytest.raises(AddressInUse) as caught:
        domain.map(bus.at(at + 4096), ram.at(BASE + 4096), 8192)
    assert str(caught.value) == f"0x2000 bytes at {at + 4096:#x} lie partly in the live mapping at {at:#x}"
    assert domain.mappings() == [mapping]
    domain.check()


def test_a_chunk_on_bound_memory_is_refused_and_given_back():
    domain = wide()
    domain.bind([piece(BASE + 100, 8)])
    with pytest.raises(AddressInUse) as caught:
        domain.alloc(4096)
    assert str(caught.value) == "[0x50000000, 0x50001000) overlaps [0x50000064, 0x5000006c), which is in use"
    assert domain.region.users == 0
    domain.check()


def test_a_range_stays_its_mapping_s_though_unmapped():
    domain = wide()
    mapping = domain.bind([piece(BASE, 8192)])
    assert domain.unmap(mapping.iova.start, 8192) == 8192
    assert domain.iova_to_phys(mapping.iova.start) is None
    with pytest.raises(AddressInUse):
        domain.bind([piece(BASE, 4096)])
    domain.check()
    domain.map(mapping.iova.start, ram.at(BASE), 4096)
    domain.release(mapping)
    assert domain.iova_to_phys(mapping.iova.start) is None
    domain.bind([piece(BASE, 4096)])


def test_map_and_unmap_by_hand():
    domain = wide()
    domain.map(bus.at(BASE + DELTA), ram.at(BASE), 0x4000)
    assert domain.unmap(bus.at(BASE + DELTA + 0x1000), 0x1000) == 0x1000
    assert domain.unmap(bus.at(BASE + DELTA), 0x4000) == 0x1000  # to the hole
    assert domain.unmap(bus.at(BASE + DELTA), 0x1000) == 0
    with pytest.raises(Busy) as caught:
        domain.destroy()
    assert str(caught.value) == "the domain of 'camera' has 1 ranges mapped by hand"
    assert domain.unmap(bus.at(BASE + DELTA + 0x2000), 0x10000) == 0x2000
    assert domain.stats.unmaps == 3
    domain.destroy()


def test_no_memory_when_the_region_says_so():
    domain = linear()
    domain.region.allocator.fail_nth(1)
    with pytest.raises(NoMemory):
        domain.alloc(4096)
    domain.alloc(MIB)
    with pytest.raises(NoMemory):
        domain.alloc(4096)
    domain.check()


def test_double_release():
    domain = linear()
    mapping = domain.alloc(4096)
    domain.release(mapping)
    again = domain.alloc(4096)
    with pytest.raises(NotFound) as caught:
        domain.release(mapping)
    assert str(caught.value) == "Mapping(camera:0x50000000+0x1000, 1 pieces) is not live in the domain of 'camera'"
    assert domain.mappings() == [again]


def test_what_can_not_be_built():
    with pytest.raises(InvalidArgument) as caught:
        linear(window=piece(BASE, MIB // 2))
    assert str(caught.value).endswith(
        "ram:0x40000000+0x100000 best_fit, 0 users, 1048576 bytes free> "
        "is not inside the window PhysRange(ram:0x40000000+0x80000)"
    )
    with pytest.raises(InvalidArgument) as caught:
        linear(delta=0x800)
    assert str(caught.value) == "a delta of 0x800 is not a multiple of the page size 4096"
    for delta in (-BASE - 4096, 0xF000_0000):
        with pytest.raises(OutOfRange) as caught:
            linear(delta=delta)
        assert str(caught.value) == (
            f"the window PhysRange(ram:0x40000000+0x100000) with delta {delta:#x} leaves the 32-bit space 'camera'"
        )


@pytest.mark.parametrize("falsify", ["record", "chunk"])
def test_check_finds_what_is_falsified(falsify):
    domain = linear()
    mapping = domain.alloc(4096)
    domain.check()
    if falsify == "record":
        domain.mapper._record.add(0, 4096)
    else:
        domain.region.free(mapping.pieces[0].start)
    with pytest.raises(AssertionError):
        domain.check()


def above_messages(delta, region_at):
    """A linear domain on one that has an MSI region; pages below are mapped where its region lies."""
    ipa = BusSpace("ipa", width=32)
    lower = PagedDomain(ipa, frames=Frames(ram.at(0), 64 * MIB), output_space=ram)
    lower.reserve(Reserved(0xFEE0_0000, MIB, "msi"))
    return LinearDomain(BusSpace("nic", width=32), Region(ipa.at(region_at), 2 * MIB), delta=delta, below=lower)


def test_on_a_domain_with_an_msi_region_elsewhere():
    upper = above_messages(0, 0x8000_0000)
    assert [(region.start, region.size) for region in upper.node.reserved] == [(0xFEE0_0000, MIB)]
    assert upper.alloc(2 * MIB).iova.start.value == 0x8000_0000
    upper.check()


def test_chunks_that_the_bus_would_show_among_messages_are_not_given_out():
    upper = above_messages(0xFED0_0000 - 0x8000_0000, 0x8000_0000)  # the second half appears where the messages are
    with pytest.raises(NoMemory):
        upper.alloc(2 * MIB)
    assert upper.alloc(MIB).iova.start.value == 0xFED0_0000
    with pytest.raises(NoMemory):
        upper.alloc(4096)
    upper.check()
