"""The pool's slots against a transcription of the kernel's loops, one list entry a slot."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.dma import IO_TLB_DEFAULT_SLOTS, Slots, SwiotlbPool
from swiommu.errors import AddressInUse, InvalidArgument, NoMemory, NotFound

BASE = 0x7BF0_0000
ALL = (1 << 64) - 1
PAGE = 4096


class Twin:
    """kernel/dma/swiotlb.c with its names: swiotlb_search_pool_area, swiotlb_find_slots, swiotlb_release_slots."""

    def __init__(self, start, nslabs, nareas):
        self.start, self.nslabs, self.nareas = start, nslabs, nareas
        self.area_nslabs = nslabs // nareas
        self.list = [128 - i % 128 for i in range(nslabs)]
        self.alloc_size = [0] * nslabs
        self.pad_slots = [0] * nslabs
        self.index = [0] * nareas
        self.used = [0] * nareas

    def wrap(self, index):
        return 0 if index >= self.area_nslabs else index

    def search_area(self, area, orig_addr, alloc_size, alloc_align_mask, iotlb_align_mask, boundary_mask, delta):
        tbl = (self.start + delta) & boundary_mask
        max_slots = (boundary_mask >> 11) + 1
        nslots = (alloc_size + 2047) >> 11
        offset = orig_addr & iotlb_align_mask & 2047
        if not alloc_align_mask and not iotlb_align_mask and alloc_size >= PAGE:
            alloc_align_mask = PAGE - 1
        alloc_align_mask |= 2047
        iotlb_align_mask &= ~alloc_align_mask
        stride = (max(alloc_align_mask, iotlb_align_mask) >> 11) + 1
        if nslots > self.area_nslabs - self.used[area]:
            return -1
        slot_base = area * self.area_nslabs
        index = self.index[area]
        slots_checked = 0
        while slots_checked < self.area_nslabs:
            slot_index = slot_base + index
            tlb_addr = tbl + (slot_index << 11)
            if tlb_addr & alloc_align_mask or (
                orig_addr and tlb_addr & iotlb_align_mask != orig_addr & iotlb_align_mask
            ):
                index = self.wrap(index + 1)
                slots_checked += 1
                continue
            spans = (((tbl + 2047) >> 11) + slot_index) & (max_slots - 1)
            if spans + nslots <= max_slots and self.list[slot_index] >= nslots:
                break
            index = self.wrap(index + stride)
            slots_checked += stride
        else:
            return -1
        for i in range(slot_index, slot_index + nslots):
            self.list[i] = 0
            self.alloc_size[i] = alloc_size - (offset + ((i - slot_index) << 11))
        self.merge_backwards(slot_index, 0)
        self.index[area] = self.wrap(index + nslots)
        self.used[area] += nslots
        return slot_index

    def merge_backwards(self, index, count):
        i = index - 1
        while i % 128 != 127 and self.list[i]:
            count += 1
            self.list[i] = count
            i -= 1

    def map(self, orig_addr, size, min_align_mask, boundary_mask, alloc_align_mask, cpu, delta):
        offset = orig_addr & min_align_mask & (alloc_align_mask | 2047)
        size = (size + offset + alloc_align_mask) // (alloc_align_mask + 1) * (alloc_align_mask + 1)
        start = area = cpu & (self.nareas - 1)
        while True:
            index = self.search_area(area, orig_addr, size, alloc_align_mask, min_align_mask, boundary_mask, delta)
            if index >= 0:
                break
            area = (area + 1) % self.nareas
            if area == start:
                return None
        pad = offset >> 11
        index += pad
        self.pad_slots[index] = pad
        return self.start + (index << 11) + (offset & 2047)

    def unmap(self, tlb_addr, min_align_mask):
        offset = tlb_addr & min_align_mask & 2047
        index = (tlb_addr - offset - self.start) >> 11
        pad, self.pad_slots[index] = self.pad_slots[index], 0
        index -= pad
        nslots = (self.alloc_size[index] + offset + 2047) >> 11
        count = self.list[index + nslots] if index + nslots < (index // 128 + 1) * 128 else 0
        for i in range(index + nslots - 1, index - 1, -1):
            count += 1
            self.list[i] = count
            self.alloc_size[i] = 0
        self.merge_backwards(index, count)
        self.used[index // self.area_nslabs] -= nslots


def ask(pool, phys, size, min_align, boundary, alloc_align, area, delta):
    try:
        return pool.find_slots(
            phys,
            size,
            min_align_mask=min_align,
            boundary_mask=boundary,
            alloc_align_mask=alloc_align,
            area=area,
            delta=delta,
        )
    except NoMemory:
        return None


sizes = st.sampled_from([1, 8, 512, 1522, 2048, 2049, 4096, 6144, 8192, 20_000, 65_536, 200_000, 262_144, 262_145])
requests = st.tuples(
    st.one_of(st.just(0), st.integers(0, 1 << 20), st.integers(0, (1 << 33) - 1)),
    st.one_of(sizes, st.integers(1, 5000)),
    st.sampled_from([0, 0x1FF, 0x7FF, 0xFFF, 0x3FFF, 0xFFFF, 0xF_FFFF]),
    st.sampled_from([ALL, 0xFFFF_FFFF, 0xFFFF, 0x3FFF, 0x7_FFFF]),
    st.sampled_from([0, 0, 0xFFF, 0x3FFF]),
    st.integers(0, 3),
    st.sampled_from([0, 0, 0x1000, 0x4000_0000]),
)
steps = st.lists(st.one_of(requests, st.integers(0, 100)), min_size=1, max_size=60)


def both(start, slots, areas, steps):
    pool, twin = SwiotlbPool(start, slots, areas=areas), Twin(start, slots, areas)
    live = []
    for step in steps:
        if isinstance(step, tuple):
            address = ask(pool, *step)
            assert address == twin.map(*step), [hex(value) for value in step]
            if address is not None:
                live.append((address, step[2]))
        elif live:
            address, min_align = live.pop(step % len(live))
            pool.release(address)
            twin.unmap(address, min_align)
        assert pool.area_used == twin.used
        assert pool._index == twin.index
    pool.check()
    assert pool.live() == sorted(address for address, _ in live)
    # A full search in each area finds the same room, whatever order it was freed in.
    runs = [max(twin.list[low : low + 128]) for low in range(0, slots, 128)]
    assert all(run <= room for run, room in zip(runs, pool._room, strict=True))
    for address, _ in live:
        pool.release(address)
    pool.check()
    assert pool.used == 0


@given(st.sampled_from([(128, 1), (256, 1), (512, 1), (256, 2), (512, 4)]), st.sampled_from([0, 0x1000, 0xB000]), steps)
@settings(max_examples=150)
def test_every_answer_is_the_kernels(shape, shifted, steps):
    both(BASE + shifted, *shape, steps)


# A pool of which every slot is taken but for a few holes, and what is asked of it then: searches wrap around, meet
# their own start again, and go on in the next area.
holes = st.lists(st.integers(0, 1 << 20), min_size=1, max_size=8)
small = st.tuples(
    st.sampled_from([0, 0x1000, 0x1E00, 0x4321_0800]),
    st.sampled_from([1, 2048, 2049, 4096, 6144, 8192]),
    st.sampled_from([0, 0x7FF, 0xFFF, 0x3FFF]),
    st.sampled_from([ALL, 0xFFFF, 0x3FFF]),
    st.sampled_from([0, 0, 0xFFF]),
    st.integers(0, 3),
    st.sampled_from([0, 0x1000]),
)


@given(
    st.sampled_from([(128, 1), (256, 1), (256, 2), (512, 2), (512, 4)]),
    st.sampled_from([1, 2048, 4096, 8192]),
    holes,
    st.lists(st.one_of(small, small, st.integers(0, 1 << 20)), min_size=2, max_size=30),
)
@settings(max_examples=80)
def test_every_answer_of_a_nearly_full_pool_is_the_kernels(shape, filled_with, holes, steps):
    slots, areas = shape
    each = (0x1000, filled_with, 0, ALL, 0)
    full = [
        (*each, area, 0) for area in range(areas) for _ in range(-(-slots // areas * 2048 // max(filled_with, 2048)))
    ]
    both(BASE, slots, areas, [*full, *holes, *steps])


@given(st.sampled_from([(128, 1), (256, 2), (512, 4)]), steps)
@settings(max_examples=60)
def test_a_pool_that_adopts_what_another_did_goes_on_alike(shape, steps):
    slots, areas = shape
    pool, adopter = (SwiotlbPool(BASE, slots, areas=areas) for _ in range(2))
    for step in steps:
        if isinstance(step, tuple):
            address = ask(pool, *step)
            if address is not None:
                first, held = pool.slots_of(address)
                adopter.occupy(BASE + (first << 11), held << 11)
        elif pool.live():
            address = pool.live()[step % len(pool.live())]
            adopter.release(BASE + (pool.slots_of(address).first << 11))
            pool.release(address)
        assert (adopter.indices, adopter.area_used, adopter.used) == (pool.indices, pool.area_used, pool.used)
        adopter.check()


@pytest.mark.slow
@given(
    st.sampled_from([(128, 1), (384, 1), (512, 4), (1024, 2)]),
    st.integers(0, 127).map(lambda page: page * PAGE),
    st.lists(st.one_of(requests, st.integers(0, 100)), min_size=20, max_size=400),
)
@settings(max_examples=3000)
def test_every_answer_is_the_kernels_in_long_runs(shape, shifted, steps):
    both(BASE + shifted, *shape, steps)


def test_next_fit_not_first_fit():
    pool = SwiotlbPool(BASE, 256)
    first = pool.find_slots(PAGE, 512)
    assert first == BASE
    assert pool.release(first) == 1
    assert pool.find_slots(PAGE, 512) == BASE + 2048
    assert pool.find_slots(PAGE, 512) == BASE + 4096


def test_the_index_wraps_inside_its_area():
    pool = SwiotlbPool(BASE, 512, areas=2)
    whole = 256 << 10
    places = [pool.find_slots(PAGE, whole, area=1) for _ in range(4)]
    assert places == [BASE + 2 * whole, BASE + 3 * whole, BASE, BASE + whole]  # then the other area helps out
    pool.release(places[1])
    assert pool.find_slots(PAGE, whole, area=0) == places[1]


def test_the_one_hole_of_a_full_pool_is_found_from_wherever_the_search_starts():
    pool = SwiotlbPool(BASE, 128)
    pages = [pool.find_slots(PAGE, PAGE) for _ in range(64)]
    pool.release(pages[10])
    assert pool.find_slots(PAGE, PAGE) == BASE + 0xA000
    pool.release(BASE + 0xA000)
    assert pool.find_slots(PAGE, PAGE) == BASE + 0xA000  # from behind it, around the end of the pool


def test_what_is_adopted_moves_the_index_of_its_area():
    pool = SwiotlbPool(0x1000_0000, 512, areas=2)
    pool.occupy(0x1000_0000 + 2048 * 300, 4096)
    assert (pool.indices, pool.area_used) == ((0, 46), [0, 2])


def test_alignment_is_a_page_from_a_page_on_unless_somebody_asked_otherwise():
    pool = SwiotlbPool(BASE)
    assert pool.find_slots(PAGE, 1) == BASE
    assert pool.find_slots(PAGE, PAGE) == BASE + 0x1000
    assert pool.find_slots(PAGE, 1) == BASE + 0x2000
    assert pool.find_slots(PAGE + 0x800, PAGE, min_align_mask=0xFFF) == BASE + 0x2800
    assert pool.find_slots(PAGE, 1, alloc_align_mask=0xFFF) == BASE + 0x4000


def test_the_slot_that_a_device_can_use_may_be_in_a_later_segment():
    mask, place = 0xF_FFFF, 0xF_F800  # three slots before the end of the fourth segment
    with pytest.raises(NoMemory):
        SwiotlbPool(BASE + 0x1000, 512).find_slots(place, 6145, min_align_mask=mask)
    assert SwiotlbPool(BASE + 0x1000, 512).find_slots(place, 6144, min_align_mask=mask) == BASE + place


def test_the_device_keeps_the_bits_it_needs():
    pool = SwiotlbPool(BASE)
    for phys in (0x1234_5678, 0x1234_5E00, 0x9_8765_43FF):
        assert pool.find_slots(phys, 700, min_align_mask=0xFFF) & 0xFFF == phys & 0xFFF


def test_padding_slots_stand_before_the_address():
    pool = SwiotlbPool(BASE)
    address = pool.find_slots(0x1234_5E00, 256, min_align_mask=0xFFF, alloc_align_mask=0xFFF)
    assert address == BASE + 0xE00
    assert pool.slots_of(address) == Slots(0, 2)
    assert pool.release(address) == 2


def test_no_mapping_spans_the_boundary():
    pool = SwiotlbPool(BASE)
    boundary = 0xFFFF
    for _ in range(40):
        address = pool.find_slots(PAGE, 6 * 2048, boundary_mask=boundary)
        assert address & ~boundary == (address + 6 * 2048 - 1) & ~boundary
    with pytest.raises(NoMemory):
        pool.find_slots(PAGE, 0x1_0800, boundary_mask=boundary)


def test_alignment_holds_on_the_bus():
    pool = SwiotlbPool(BASE)
    assert pool.find_slots(PAGE, 1) == BASE
    address = pool.find_slots(0x3000, 1, min_align_mask=0x3FFF, delta=0x1000)
    assert (address + 0x1000) & 0x3FFF == 0x3000


def test_more_than_a_segment_never_fits():
    pool = SwiotlbPool(BASE)
    with pytest.raises(NoMemory) as caught:
        pool.find_slots(PAGE, (256 << 10) + 1)
    assert str(caught.value) == "swiotlb buffer is full (sz: 262145 bytes), total 32768 (slots), used 0 (slots)"
    assert (caught.value.size, caught.value.slots, caught.value.used) == (262145, IO_TLB_DEFAULT_SLOTS, 0)
    for mask in (0, 0x7FF, 0xFFF, 0xFFFF):
        most = pool.max_mapping(mask)
        assert pool.find_slots(0x1_FFFF, most, min_align_mask=mask)
    with pytest.raises(NoMemory):
        pool.find_slots(0x1_FFFF, pool.max_mapping(0xFFF) + 2049, min_align_mask=0xFFF)


def test_full():
    pool = SwiotlbPool(BASE, 128)
    held = [pool.find_slots(PAGE, 2048) for _ in range(128)]
    with pytest.raises(NoMemory):
        pool.find_slots(PAGE, 1)
    assert (pool.used, pool.hiwater) == (128, 128)
    for address in held[::2]:
        pool.release(address)
    with pytest.raises(NoMemory):
        pool.find_slots(PAGE, 2049)
    assert pool.find_slots(PAGE, 2048) == held[0]
    pool.check()
    assert (pool.used, pool.hiwater) == (65, 128)


def test_only_what_was_given_is_taken_back():
    pool = SwiotlbPool(BASE, 128)
    address = pool.find_slots(PAGE + 0x10, 4096, min_align_mask=0x7FF)
    for wrong in (BASE, address + 2048, BASE - 1):
        with pytest.raises(NotFound) as caught:
            pool.release(wrong)
        assert str(caught.value) == f"{wrong:#x} is not the address of a live bounce buffer"
    pool.release(address)
    with pytest.raises(NotFound):
        pool.release(address)
    pool.check()


def test_what_a_kernel_did_can_be_adopted():
    pool = SwiotlbPool(BASE, 256)
    pool.occupy(BASE + 0x4600, 1024)
    assert pool.slots_of(BASE + 0x4600) == Slots(8, 2)
    assert pool.find_slots(PAGE, 1) == BASE + 0x5000
    with pytest.raises(AddressInUse) as caught:
        pool.occupy(BASE + 0x4000, 5000)
    assert str(caught.value) == "the slots of 5000 bytes at 0x7bf04000 are not all free"
    for address, size in ((BASE - 1, 1), (BASE + 0x3_FC00, 1025), (BASE, 0), (pool.stop, 1)):
        with pytest.raises(InvalidArgument) as caught:
            pool.occupy(address, size)
        assert str(caught.value) == f"{size} bytes at {address:#x} are in no segment of the pool"
    pool.occupy(pool.stop - 2048, 2048)
    assert pool.find_slots(PAGE, 1) == BASE
    pool.check()


def test_the_nth_search_fails_and_changes_nothing():
    pool = SwiotlbPool(BASE, 128)
    pool.fail_nth(2)
    pool.find_slots(PAGE, 1)
    with pytest.raises(NoMemory):
        pool.find_slots(PAGE, 1)
    assert pool.used == 1
    assert pool.find_slots(PAGE, 1) == BASE + 2048


def test_a_copy_goes_its_own_way():
    pool = SwiotlbPool(BASE, 256, areas=2)
    held = pool.find_slots(PAGE, 5000, area=1)
    other = pool.copy()
    assert other.release(held) == 3
    other.check()
    pool.check()
    assert (pool.used, other.used, other.hiwater, other.indices) == (3, 0, 3, (0, 3))
    assert pool.find_slots(PAGE, 1) == other.find_slots(PAGE, 1)


def test_the_pool_knows_its_addresses():
    pool = SwiotlbPool(BASE, 512)
    assert (pool.size, pool.stop) == (1 << 20, BASE + (1 << 20))
    assert (BASE in pool, BASE - 1 in pool, pool.stop - 1 in pool, pool.stop in pool) == (True, False, True, False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0x800, 128, 1), "a pool at 0x800 is not aligned to a page"),
        ((-4096, 128, 1), "a pool at -0x1000 is not aligned to a page"),
        ((0, 384, 3), "3 areas are not a power of two"),
        ((0, 384, 2), "384 slots in 2 areas are not whole segments of 128 slots each"),
        ((0, 0, 1), "0 slots in 1 areas are not whole segments of 128 slots each"),
    ],
)
def test_no_such_pool(arguments, sentence):
    start, slots, areas = arguments
    with pytest.raises(InvalidArgument) as caught:
        SwiotlbPool(start, slots, areas=areas)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"size": 0}, "0 bytes can't be bounced: at least 1 is needed"),
        ({"size": 1, "min_align_mask": 0x800}, "a mask is 2**n - 1, not 0x800"),
        ({"size": 1, "boundary_mask": -1}, "a mask is 2**n - 1, not -0x1"),
        ({"size": 1, "alloc_align_mask": 0xFFE}, "a mask is 2**n - 1, not 0xffe"),
    ],
)
def test_no_such_request(arguments, sentence):
    pool = SwiotlbPool(BASE, 128)
    with pytest.raises(InvalidArgument) as caught:
        pool.find_slots(PAGE, **arguments)
    assert str(caught.value) == sentence
    assert pool.used == 0


@pytest.mark.parametrize(
    "falsify",
    [
        lambda pool: pool._free.__setitem__(0, 5),
        lambda pool: setattr(pool, "used", 7),
        lambda pool: pool.area_used.__setitem__(0, 0),
        lambda pool: pool._index.__setitem__(0, 128),
        lambda pool: pool._room.__setitem__(0, 3),
        lambda pool: pool._live.__setitem__(BASE + 2048, Slots(1, 1)),
        lambda pool: pool._live.__setitem__(BASE + 0x3_F800, Slots(127, 2)),
    ],
)
def test_check_finds_what_is_false(falsify):
    pool = SwiotlbPool(BASE, 128)
    pool.find_slots(PAGE, 4096)
    pool.check()
    falsify(pool)
    with pytest.raises(AssertionError):
        pool.check()
