"""Early regions: registered, reserved by whatever the platform has, handed over; platforms with ways of their own."""

import errno
import logging

import pytest

from cma_compat import CmaContext, cma_allocator, cma_device, cma_region, errno_of
from swiommu.address import BusSpace, PhysRange, PhysSpace
from swiommu.device import BusDevice
from swiommu.errors import InvalidArgument, NoMemory, SpaceMismatch
from swiommu.iommu import PagedDomain
from swiommu.memory import Bootmem, Frames, Memblock, SparseRam

PAGE = 4096
MIB = 1 << 20
BASE = 0x4000_0000
ram = PhysSpace("ram", width=40)


def bootmem(size=4 * MIB):
    return Bootmem(Frames(ram.at(BASE), size))


def memblock(size=4 * MIB):
    return Memblock([PhysRange(ram.at(BASE), size)])


def platform(*, boot=False, block=False):
    return CmaContext(memory=ram, bootmem=bootmem() if boot else None, memblock=memblock() if block else None)


@pytest.mark.parametrize(
    ("start", "size", "alignment", "written"),
    [
        (0, 5000, 0, (0, 8192, 4096)),
        (1, 1, 0x10000, (0x10000, 4096, 0x10000)),
        (0x1001, 0, 1, (0x2000, 0, 4096)),  # size 0 is not refused here
        (0, PAGE, 3, None),
        (2**40 - PAGE, PAGE, 0, None),  # wraps
        (2**40, PAGE, 0, None),
    ],
)
def test_what_early_registration_writes_back(start, size, alignment, written):
    cma = platform()
    reg = cma_region(start, size, alignment=alignment)
    code = cma.cma_early_region_register(reg)
    assert code == (0 if written else -errno.EINVAL)
    assert (reg.start, reg.size, reg.alignment) == (written or (start, size, alignment))
    assert cma.early_regions == ((reg,) if written else ())


def test_defaults_replace_the_map_and_add_regions():
    cma = platform()
    first, second, bad, never = (
        cma_region(0, PAGE),
        cma_region(0, PAGE),
        cma_region(0, PAGE, alignment=5),
        cma_region(0, 1),
    )
    assert cma.cma_set_defaults([first, cma_region(0, 0), never], "*=a;") == 0
    assert (cma.map, cma.early_regions) == ("*=a", (first,))
    assert cma.cma_set_defaults([second], ";;") == -errno.EINVAL  # the map first: no region is looked at
    assert (cma.map, cma.early_regions) == ("*=a", (first,))
    assert cma.cma_set_defaults([second, bad, never], "*=b") == -errno.EINVAL
    assert (cma.map, cma.early_regions) == ("*=b", (first, second))
    assert cma.cma_set_defaults(None, None) == 0
    assert (cma.map, cma.early_regions) == ("*=b", (first, second))


def test_a_fixed_start_is_a_hint_for_bootmem_and_an_order_for_memblock():
    wanted = [BASE + MIB, BASE + MIB, BASE + 64 * MIB, 0]
    for options, results, starts in [
        ({"boot": True}, [0, 0, 0, 0], [BASE + MIB, BASE + 2 * MIB, BASE, BASE + 3 * MIB]),
        (
            {"block": True},
            [0, -errno.ENOMEM, -errno.ENOMEM, 0],
            [BASE + MIB, BASE + MIB, BASE + 64 * MIB, BASE + 3 * MIB],
        ),
    ]:
        cma = platform(**options)
        regions = [cma_region(start, MIB, alignment=PAGE) for start in wanted]
        assert [cma.cma_early_region_reserve(reg) for reg in regions] == results
        assert [reg.start for reg in regions] == starts
        assert [reg.reserved for reg in regions] == [code == 0 for code in results]


def test_memblock_comes_after_bootmem_failed():
    cma = CmaContext(memory=ram, bootmem=bootmem(MIB), memblock=Memblock([PhysRange(ram.at(8 * BASE), 4 * MIB)]))
    small, large = cma_region(0, PAGE), cma_region(0, 2 * MIB)
    assert [cma.cma_early_region_reserve(reg) for reg in (small, large, cma_region(0, 8 * MIB))] == [
        0,
        0,
        -errno.ENOMEM,
    ]
    assert (small.start, large.start) == (BASE, 8 * BASE + 2 * MIB)


def test_what_can_not_be_reserved():
    cma = platform(boot=True)
    done = cma_region(0, PAGE)
    assert cma.cma_early_region_reserve(done) == 0
    card = PhysSpace("card")
    for reg in (done, cma_region(0, 0), cma_region(0, PAGE, alignment=3), cma_region(0, PAGE, within=card)):
        assert cma.cma_early_region_reserve(reg) == -errno.EINVAL
    assert platform().cma_early_region_reserve(cma_region(0, PAGE)) == -errno.EOPNOTSUPP
    with pytest.raises(SpaceMismatch) as caught:
        CmaContext(bootmem=bootmem())
    assert str(caught.value) == "Bootmem reserves in 'ram', the context's memory is 'memory'"


def test_address_zero_and_the_end_of_memory_are_given_back():
    for start in (0, 2**40 - MIB):
        block = Memblock([PhysRange(ram.at(start), MIB)])
        cma = CmaContext(memory=ram, memblock=block)
        assert cma.cma_early_region_reserve(cma_region(0, MIB)) == -errno.ENOMEM
        assert block.reserved == []


def test_the_walk_skips_what_is_reserved_and_goes_on_after_a_failure(caplog):
    cma = platform()
    regions = [cma_region(0, PAGE, name=name) for name in "abcde"]
    assert cma.cma_set_defaults(regions, None) == 0
    regions[0].reserved = True
    seen = []

    def reserve(reg):
        seen.append(reg.name)
        if reg.name == "c":
            raise NoMemory("the last bank is full")
        reg.start = 0x1000 * ord(reg.name)
        return {"b": 0, "d": -errno.ENODEV, "e": None}[reg.name]

    with caplog.at_level(logging.WARNING, "cma_compat"):
        assert cma.cma_early_regions_reserve(reserve) is None
    assert seen == list("bcde")
    assert [reg.reserved for reg in regions] == [True, True, False, False, True]
    assert [record.getMessage() for record in caplog.records] == [
        "the early region 'c' was not reserved: the last bank is full",
        f"the early region 'd' was not reserved: error -{errno.ENODEV}",
    ]
    assert regions[1].start == 0x62000


def test_the_platform_walks_the_list_and_reserves_by_its_own_rules():
    # A board that wants all of its regions in one bank, one behind the other.
    cma = platform(boot=True)
    assert cma.cma_set_defaults([cma_region(0, MIB, name="a"), cma_region(0, 5000, name="b")], "*=a,b") == 0
    at = BASE + 3 * MIB - sum(reg.size for reg in cma.early_regions)
    for reg in cma.early_regions:
        reg.start = at
        at += reg.size
    cma.cma_early_regions_reserve()
    assert [hex(reg.start) for reg in cma.early_regions] == ["0x401fe000", "0x402fe000"]
    assert cma.cma_init() == 0
    assert cma.early_regions == ()
    assert cma.cma_alloc(cma_device("camera"), None, 2 * PAGE, 0).value == 0x401F_E000


def test_handing_over_registers_what_is_reserved_and_drops_the_rest(caplog):
    cma = platform(boot=True)
    broken = cma_allocator("broken", alloc=lambda *_: None, free=lambda _: None, init=lambda _: -errno.ENODEV)
    good, failing, late = (
        cma_region(0, MIB, "good"),
        cma_region(0, MIB, "failing", alloc=broken),
        cma_region(0, MIB, "late"),
    )
    assert cma.cma_set_defaults([good, failing], None) == 0
    cma.cma_early_regions_reserve()
    assert cma.cma_early_region_register(late) == 0
    with caplog.at_level(logging.WARNING, "cma_compat"):
        assert cma.cma_init() == 0
    # The preset allocator failed: the space stays reserved, and nobody can use it.
    assert [(reg.reserved, reg.registered) for reg in (good, failing, late)] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        (
            f"the early region 'failing' stays reserved and unused: error -{errno.ENODEV}: "
            f"the allocator 'broken' answered -{errno.ENODEV} to init of 0x40100000"
        )
    ]
    assert (failing.alloc, cma.regions, cma.early_regions) == (None, (good,), ())
    assert cma.cma_init() == 0  # nothing is left to do
    assert cma.regions == (good,)


def test_half_of_the_frames_pinned_leaves_nothing_to_reserve():
    frames = Frames(ram.at(BASE), 4 * MIB)
    for pfn in range(frames.start_pfn, frames.start_pfn + frames.count, 2):
        frames.occupy(pfn, 1)
    cma = CmaContext(memory=ram, bootmem=Bootmem(frames))
    assert cma.cma_set_defaults([cma_region(0, 2 * PAGE, "pool")], "*=pool") == 0
    cma.cma_early_regions_reserve()
    cma.cma_init()
    assert errno_of(cma.cma_alloc(cma_device("camera"), None, 2 * PAGE, 0)) == -errno.ENOMEM


class Guest:
    """Like a guest of Xen: what it takes for memory is mapped to frames of the machine one by one."""

    def __init__(self):
        self.machine = PhysSpace("machine", width=40)
        self.frames = Frames(self.machine.at(0x8000_0000), 16 * MIB)
        self.guest = PagedDomain(
            BusSpace("guest", width=36), frames=Frames(self.machine.at(0x7000_0000), MIB), output_space=self.machine
        )
        # Every second frame belongs to somebody else.
        for pfn in range(self.frames.start_pfn, self.frames.start_pfn + self.frames.count // 2, 2):
            self.frames.occupy(pfn, 1)
        for page in range(4 * MIB >> 12):
            self.populate(page, self.frames.take(0))

    def populate(self, page, pfn, count=1):
        self.guest.map(self.guest.input_space.at(page << 12), self.machine.at(pfn << 12), count << 12)

    def behind(self, start, size):
        return self.guest.memory_behind(start, size)

    def exchange(self, reg):
        """A reserver: the region's pages change their frames for a block that is contiguous below."""
        pages = reg.size >> 12
        try:
            block = self.frames.take((pages - 1).bit_length())
        except NoMemory:
            return -errno.ENOMEM
        old = self.behind(reg.start, reg.size)
        assert self.guest.unmap(self.guest.input_space.at(reg.start), reg.size) == reg.size
        self.populate(reg.start >> 12, block, pages)
        for piece in old:
            self.frames.give(piece.start.value >> 12, piece.size >> 12)
        return 0


def test_a_platform_exchanges_frames_so_that_a_region_is_contiguous_below():
    xen = Guest()
    pool, video = cma_region(MIB, MIB, "pool"), cma_region(2 * MIB, MIB, "video")
    cma = CmaContext(memory=PhysSpace("pseudo", width=36))
    assert cma.cma_set_defaults([pool, video, cma_region(3 * MIB, 32 * MIB, "huge")], "*=pool") == 0
    assert len(xen.behind(MIB, MIB)) == 256  # scattered
    cma.cma_early_regions_reserve(xen.exchange)
    cma.cma_init()
    assert [len(xen.behind(reg.start, reg.size)) for reg in (pool, video)] == [1, 1]
    assert [reg.name for reg in cma.regions] == ["video", "pool"]
    xen.frames.check()
    # A device of the machine, which knows nothing of the guest, reaches the buffer as one range.
    buffer = cma.cma_alloc(cma_device("camera"), None, 256 << 10, 0)
    (piece,) = xen.behind(buffer.value, 256 << 10)
    memory = SparseRam(xen.machine)
    seen_by_guest = BusDevice("cpu", memory, dma_mask=(1 << 36) - 1)
    xen.guest.attach(seen_by_guest)
    memory.write(piece.start, b"frame")
    assert seen_by_guest.read(xen.guest.input_space.at(buffer.value), 5) == b"frame"


def test_the_methods_that_raise_say_why():
    cma = platform()
    with pytest.raises(InvalidArgument) as caught:
        cma.register_early(cma_region(0, PAGE, alignment=3))
    assert str(caught.value) == "the alignment 3 is no power of two"
