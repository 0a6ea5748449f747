"""What reviewers of 2010 asked of the shim, where no other test shows it; the numbers are those of the docs' page."""

import inspect
import threading

import attrs
import pytest

import cma_compat
from cma_compat import CmaContext, CmaInfo, cma_allocator, cma_chunk, cma_device, cma_region
from swiommu.address import BusSpace, PhysRange, PhysSpace
from swiommu.dma import DirectBus
from swiommu.errors import NoMemory, OutOfRange
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.memory import Bootmem, Frames, Memblock
from swiommu.region import Region

KIB, MIB = 1 << 10, 1 << 20
BASE = 0x4000_0000


def board(text, *regions, **options):
    """A context with regions and a map."""
    cma = CmaContext(**options)
    for region in regions:
        cma.register_region(region)
    cma.set_map(text)
    return cma


def test_two_devices_share_a_region_because_the_map_says_so():  # 3
    pool = cma_region(BASE, 16 * MIB, name="pool")
    cma = board("camera,video=pool", pool)
    first, second = cma.alloc(cma_device("camera"), None, MIB), cma.alloc(cma_device("video"), None, MIB)
    assert (first.value, second.value, pool.users) == (BASE, BASE + MIB, 2)
    assert cma.map == "camera,video=pool"


def test_a_platform_reserves_with_a_function_of_its_own():  # 4
    cma, asked = CmaContext(), []
    cma.cma_set_defaults([cma_region(0, MIB, name="a"), cma_region(0, MIB, name="b")], "*=a,b")

    def reserve(region):
        asked.append(region.name)
        region.start = BASE
        return -12 if region.name == "b" else 0

    cma.cma_early_regions_reserve(reserve)
    assert [region.reserved for region in cma.early_regions] == [True, False]
    cma.cma_init()
    assert asked == ["a", "b"]
    assert [(region.name, region.start) for region in cma.regions] == [("a", BASE)]


def test_every_device_gets_addresses_of_its_own_bus():  # 5, 6, 47
    ram = PhysSpace("ram", width=40)
    buses = [BusSpace(name, width=32) for name in ("near", "far")]
    seen = [
        DirectBus(buses[0], ram, [(PhysRange(ram.at(BASE), MIB), buses[0].at(0x1000_0000))]),
        DirectBus(buses[1], ram, [(PhysRange(ram.at(BASE), 64 * KIB), buses[1].at(0xC000_0000))]),
    ]
    cma = board("*=pool", cma_region(BASE, MIB, name="pool"), memory=ram)
    near, far = (cma_device(bus.input_space.name, bus=bus) for bus in seen)
    buffer = cma.alloc(near, None, 8 * KIB)
    assert buffer == buses[0].at(0x1000_0000)
    assert cma.bus_address(buffer, far) == buses[1].at(0xC000_0000)
    big = cma.alloc(near, None, 128 * KIB)
    with pytest.raises(OutOfRange) as caught:  # this memory is not DMA-able for that device
        cma.bus_address(big, far)
    assert str(caught.value) == "the bus 'far' does not show all of PhysRange(ram:0x40002000+0x20000)"


def test_the_core_fills_in_start_and_size_before_init():  # 7
    seen = []
    plug_in = cma_allocator(
        "mine",
        alloc=lambda region, size, _: cma_chunk(region.start, size),
        free=lambda chunk: None,
        init=lambda region: seen.append((region.start, region.size, region.free_space)),
    )
    cma = CmaContext()
    assert cma.cma_allocator_register(plug_in) == 0  # 39
    region = cma_region(BASE, MIB, alloc_name="mine")
    assert (cma.cma_region_register(region), seen) == (0, [])
    assert cma.cma_alloc_from_region(region, 4096) == cma.space.at(BASE)
    assert seen == [(BASE, MIB, MIB)]


def test_regions_are_named_by_a_sequence_of_names():  # 9, 10
    cma = board("", cma_region(BASE, MIB, name="a,b;c"), cma_region(BASE + MIB, MIB, name="d"))
    assert cma.alloc_from(["none", "a,b;c"], 4096).value == BASE
    assert cma.alloc_from("none,d;c", 4096).value == BASE + MIB


def test_structures_have_no_field_for_what_is_gone():  # 12, 13
    assert [field.name for field in attrs.fields(cma_allocator)][:5] == ["name", "alloc", "free", "init", "cleanup"]
    needed = [field.name for field in attrs.fields(cma_region) if field.init and field.default is attrs.NOTHING]
    assert needed == ["start", "size"]
    assert "fill in ``start`` and ``size``" in cma_region.__doc__


def test_a_preset_allocator_that_fails_leaves_the_memory_reserved_and_unused():  # 14
    frames = Frames(PhysSpace("ram").at(BASE), 16 * MIB)
    cma = CmaContext(memory=frames.range.start.space, bootmem=Bootmem(frames))
    sick = cma_allocator("sick", alloc=lambda *_: None, free=lambda _: None, init=lambda _: -5)
    region = cma_region(0, MIB, name="pool", alloc=sick)
    cma.cma_set_defaults([region], "*=pool")
    cma.cma_early_regions_reserve()
    assert cma.cma_init() == 0
    assert (region.reserved, region.registered, cma.regions, cma.early_regions) == (True, False, (), ())
    assert frames.free_count == 15 * MIB // 4096


@pytest.mark.parametrize(
    ("reservers", "code"),
    [(("bootmem", "memblock"), 0), (("bootmem",), -12), (("memblock",), 0), ((), -95)],
    ids=["both", "bootmem", "memblock", "neither"],
)
def test_one_reserver_tries_what_the_platform_has(reservers, code):  # 15
    ram = PhysSpace("ram")
    full = Frames(ram.at(BASE), MIB)
    full.occupy(full.start_pfn, full.count)
    have = {"bootmem": Bootmem(full), "memblock": Memblock([PhysRange(ram.at(BASE + MIB), MIB)])}
    cma = CmaContext(memory=ram, **{name: have[name] for name in reservers})
    region = cma_region(0, 64 * KIB)
    assert cma.cma_early_region_register(region) == 0
    assert cma.cma_early_region_reserve(region) == code
    assert region.reserved == (code == 0)


@pytest.mark.parametrize("size", [20 * MIB, 24883200, 64 * MIB])
@pytest.mark.parametrize("allocator", ["bf", "best_fit", "bitmap", "buddy", "first_fit", "tlsf"])
def test_buffers_far_larger_than_the_largest_page_order(allocator, size):  # 24
    region = cma_region(BASE, 128 * MIB, alloc_name=allocator)
    cma = board("", region)
    buffer = cma.alloc_from_region(region, size)
    assert [piece.size for piece in cma.memory_behind(buffer)] == [-(-size // 4096) * 4096]
    cma.free(buffer)
    assert region.free_space == 128 * MIB


def test_what_can_be_had_is_told_before_anybody_relies_on_it():  # 26
    cma = board("camera=pool", cma_region(BASE, MIB, name="pool"))
    camera, info = cma_device("camera"), CmaInfo()
    cma.alloc(camera, None, 300 * KIB)
    assert cma.cma_info(info, camera) == 0
    assert info == CmaInfo(BASE, BASE + MIB, MIB, 724 * KIB, 1)
    region = cma.regions[0].served_by
    assert region.fits(724 * KIB)
    assert not region.fits(725 * KIB)


def test_a_codec_has_firmware_at_128_kib_before_its_buffers_in_two_banks():  # 32, 23
    left, right = cma_region(BASE, 8 * MIB, name="left"), cma_region(0x5000_0000, 8 * MIB, name="right")
    cma = board("codec/firmware,codec/left=left;codec/right=right", left, right)
    codec = cma_device("codec")
    firmware = cma.alloc(codec, "firmware", 300 * KIB, 128 * KIB)
    buffers = [cma.alloc(codec, bank, 3110400, 2 * KIB) for bank in ("left", "right")]
    assert firmware.value % (128 * KIB) == 0
    # The engine is told where a buffer is by its distance from the bank's base, in units of 2 KiB, in 16 bits.
    for buffer, bank in zip(buffers, (left, right), strict=True):
        distance = buffer.value - bank.start
        assert distance % 2048 == 0
        assert 0 <= distance >> 11 < 1 << 16
    assert buffers[0] > firmware


def test_types_may_overlap_and_a_board_with_one_bank_needs_another_map_only():  # 33, 34, 55
    def addresses(cma):
        codec = cma_device("codec")
        return [cma.alloc(codec, type_, MIB).value for type_ in ("a", "b", None)]

    banks = [cma_region(BASE, 4 * MIB, name="first"), cma_region(0x5000_0000, 4 * MIB, name="second")]
    two = board("codec/a=first,second;/b=second,first;/common=first", *banks)
    assert addresses(two) == [BASE, 0x5000_0000, BASE + MIB]
    one = board("codec=only", cma_region(BASE, 4 * MIB, name="only"))
    assert addresses(one) == [BASE, BASE + MIB, BASE + 2 * MIB]


def test_regions_are_tried_in_the_order_of_the_rule_and_ordinary_memory_may_come_last():  # 35, 38
    ram, bus = PhysSpace("ram"), BusSpace("camera", width=32)
    domain = PagedDomain(bus, frames=Frames(ram.at(0x8000_0000), 4 * MIB), output_space=ram)
    camera = cma_device("camera", domain=domain)
    pool = cma_region(BASE, 2 * MIB, name="pool")
    ordinary = cma_region(0x6000_0000, 64 * MIB, name="ordinary", within=domain)
    cma = board("camera/still=pool;/film=pool,ordinary", pool, ordinary, memory=ram)
    behind = [cma.memory_behind(cma.alloc(camera, "film", MIB))[0].start.value for _ in range(3)]
    assert behind[:2] == [BASE, BASE + MIB]
    assert behind[2] >= 0x8000_0000
    with pytest.raises(NoMemory):
        cma.alloc(camera, "still", MIB)


def test_what_the_first_of_two_devices_takes_does_not_break_up_the_others_64_mib():  # 37
    regions = [cma_region(BASE, 64 * MIB, name="a"), cma_region(BASE + 64 * MIB, 64 * MIB, name="b")]
    cma = board("first=a;second=b", *regions)
    held = [cma.alloc(cma_device("first"), None, size) for size in (MIB, 4096, 20 * MIB, 4096)]
    for buffer in held[::2]:
        cma.free(buffer)
    assert cma.alloc(cma_device("second"), None, 64 * MIB).value == BASE + 64 * MIB


def test_operations_of_an_allocator_never_overlap():  # 42
    inside, overlaps, turns = threading.Lock(), [], []

    def alloc(region, size, _):
        if not inside.acquire(blocking=False):
            overlaps.append(size)
            return None
        turns.append(size)
        place = region.start + len(turns) * size
        inside.release()
        return cma_chunk(place, size)

    cma = CmaContext()
    cma.register_allocator(cma_allocator("mine", alloc=alloc, free=lambda chunk: None))
    region = cma_region(BASE, 16 * MIB, alloc_name="mine")
    cma.register_region(region)
    workers = [
        threading.Thread(target=lambda: [cma.alloc_from_region(region, 4096) for _ in range(50)]) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (overlaps, len(turns), region.users) == ([], 200, 200)


def test_a_buffer_has_an_address_for_the_device_and_memory_for_the_processor():  # 43, 48
    ram, bus = PhysSpace("ram", width=40), BusSpace("camera", width=32)
    camera = cma_device("camera", domain=LinearDomain(bus, Region(ram.at(BASE), 16 * MIB), delta=-BASE))
    cma = board("camera=pool", cma_region(BASE, MIB, name="pool"), memory=ram)
    buffer = cma.alloc(camera, None, 5000)
    assert buffer == bus.at(0)
    assert cma.memory_behind(buffer) == (PhysRange(ram.at(BASE), 8192),)


def test_a_driver_brings_the_memory_of_its_card():  # 44
    card = PhysSpace("card", width=32)
    vram = cma_region(0, 8 * MIB, within=card)
    cma = board("*=pool", cma_region(0, MIB, name="pool"), vram)
    frame = cma.alloc_from_region(vram, 4 * MIB)
    assert cma.memory_behind(frame) == (PhysRange(card.at(0), 4 * MIB),)
    assert cma.info(cma_device("anybody")).total_size == MIB  # no map leads to a private region
    cma.free(frame)
    cma.unregister_region(vram)


def test_nothing_is_read_from_a_command_line_and_defaults_work_without_any():  # 30, 54, 55
    cma = CmaContext()
    assert (cma.regions, cma.early_regions, cma.map) == ((), (), "")
    assert [allocator.name for allocator in cma.allocators] == ["bf"]
    assert "apply_command_line" not in cma_compat.__all__
    region = cma_region(BASE, MIB, name="pool")
    cma.register_region(region)
    assert cma.alloc_from(["pool"], 4096).value == BASE
    assert region.alloc.name == "bf"


# Every call with a use that works and one that does not, in this order on one context.
REGION = cma_region(BASE, MIB, name="pool")
USES = {
    "cma_set_defaults": (lambda cma: cma.cma_set_defaults([cma_region(BASE, MIB, name="early")], "*=pool"), -22),
    "cma_early_region_register": (lambda cma: cma.cma_early_region_register(cma_region(0, MIB)), -22),
    "cma_early_region_reserve": (lambda cma: cma.cma_early_region_reserve(cma.early_regions[0]), -22),
    "cma_early_regions_reserve": (lambda cma: cma.cma_early_regions_reserve(), None),
    "cma_init": (lambda cma: cma.cma_init(), None),
    "cma_allocator_register": (lambda cma: cma.cma_allocator_register(cma_allocator("x", print, print)), -22),
    "cma_region_register": (lambda cma: cma.cma_region_register(cma_region(0, MIB, name="pool")), -22),
    "cma_alloc": (lambda cma: cma.cma_alloc(cma_device("camera"), None, 4096, 0), -22),
    "cma_alloc_from": (lambda cma: cma.cma_alloc_from(["pool"], 4096), -22),
    "cma_alloc_from_region": (lambda cma: cma.cma_alloc_from_region(cma.regions[0], 4096), -22),
    "cma_info": (lambda cma: cma.cma_info(CmaInfo(), cma_device("camera")), -22),
    "cma_info_about": (lambda cma: cma.cma_info_about(CmaInfo(), ["pool"]), -22),
    "cma_free": (lambda cma: cma.cma_free(cma.cma_alloc_from(["pool"], 4096)), -2),
    "cma_region_unregister": (
        lambda cma: cma.cma_region_register(REGION) or cma.cma_region_unregister(REGION),
        -22,
    ),
}
WRONG = {
    "cma_set_defaults": (None, "no rule"),
    "cma_early_region_register": (cma_region(0, MIB, alignment=3),),
    "cma_early_region_reserve": (cma_region(0, 0),),
    "cma_allocator_register": (cma_allocator("x"),),
    "cma_region_register": (cma_region(0, 0),),
    "cma_alloc": (None, None, 4096, 0),
    "cma_alloc_from": (None, 4096),
    "cma_alloc_from_region": (None, 4096),
    "cma_info": (None, None),
    "cma_info_about": (None, []),
    "cma_free": (0x1234,),
    "cma_region_unregister": (None,),
}


def test_every_call_is_used_well_and_badly():  # 50
    calls = {
        name for name in cma_compat.__all__ if name.startswith("cma_") and inspect.ismethod(getattr(cma_compat, name))
    }
    assert set(USES) == calls == set(WRONG) | {"cma_early_regions_reserve", "cma_init"}  # those two never fail
    ram = PhysSpace("ram")
    cma = CmaContext(memory=ram, memblock=Memblock([PhysRange(ram.at(BASE), 16 * MIB)]))
    for name, (good, code) in USES.items():
        answer = good(cma)
        assert not answer or not cma_compat.IS_ERR_VALUE(answer), f"{name}: {answer}"
        if name in WRONG:
            refused = getattr(cma, name)(*WRONG[name])
            assert (refused if isinstance(refused, int) else cma_compat.errno_of(refused)) == code, name
    cma.check()
