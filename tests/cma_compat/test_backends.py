"""One suite of the shim over every way from a device to memory: choose the region, take a chunk, make it visible.

A `World` is a machine with 16 MiB of memory: it makes the regions of a board, and devices whose accesses end in the
same bytes. Contiguous worlds reserve their regions in that memory; in the others a region is a range of some bus
space, and memory comes from wherever there is some.
"""

import errno

import pytest

from cma_compat import IS_ERR_VALUE, CmaContext, DomainBackend, cma_region, errno_of
from swiommu.address import BusRange, BusSpace, PhysRange, PhysSpace
from swiommu.device import BusDevice, FrameGrabber
from swiommu.dma import DirectBus
from swiommu.errors import AddressInUse, DeviceFault, InvalidArgument, NotFound, NotSupported, OutOfRange
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.iommu.groups import IdentityDomain
from swiommu.layer import TranslationCache
from swiommu.memory import Bootmem, Frames, SparseRam
from swiommu.region import Region

PAGE = 4096
KIB = 1 << 10
MIB = 1 << 20
RAM = 0x8000_0000


class World:
    """Direct memory: what a device drives is where the memory is."""

    contiguous = True
    delta = 0

    def __init__(self, pinned=()):
        self.space = PhysSpace("ram", width=40)
        self.ram = SparseRam(self.space)
        self.frames = Frames(self.space.at(RAM), 16 * MIB)
        for pfn in pinned:
            self.frames.occupy(self.frames.start_pfn + pfn, 1)
        self.build()
        self.free_at_first = self.frames.free_count
        self.cma = CmaContext(memory=self.space, bootmem=Bootmem(self.frames))

    def build(self):
        self.path = {"bus": DirectBus(BusSpace("soc", width=36), self.space)}

    def device(self, name="camera", **options):
        """On the world's own bus or domain."""
        device = FrameGrabber(name, self.ram, **{"dma_mask": (1 << 36) - 1, **options, **self.bus()})
        if "domain" in self.path:
            self.path["domain"].attach(device)
        return device

    def bus(self):
        return {"bus": self.path["bus"]} if "bus" in self.path else {}

    def region(self, size, name=None, at=0):
        """A registered region: reserved early, in worlds where memory has to be contiguous."""
        reg = cma_region(RAM + at, size, name, alignment=PAGE)
        self.cma.register_early(reg)
        self.cma.reserve_all_early()
        self.cma.init()
        return reg

    def check(self):
        self.cma.check()
        self.frames.check()
        if "domain" in self.path:
            domain = self.path["domain"]
            while domain is not None:
                domain.check()
                domain = domain.below

    def memory_in_use(self):
        """Bytes that nobody else can use: of regions here, of chunks in worlds that scatter."""
        return (self.free_at_first - self.frames.free_count) * PAGE


class OffsetWindow(World):
    """The bus shows memory lower than it is."""

    delta = -0x4000_0000

    def build(self):
        window = PhysRange(self.space.at(RAM), 16 * MIB)
        bus = BusSpace("soc", width=32)
        self.path = {"bus": DirectBus(bus, self.space, [(window, bus.at(RAM + self.delta))])}


class Linear(World):
    """A domain without translation hardware, which records."""

    delta = 0x1000_0000

    def build(self):
        window = PhysRange(self.space.at(RAM), 32 * MIB)
        own = Region(self.space.at(RAM + 16 * MIB), 16 * MIB)
        self.path = {"domain": LinearDomain(BusSpace("soc", width=36), own, window=window, delta=self.delta)}


class Paged(World):
    """An IOMMU: a region is a range of its bus addresses."""

    contiguous = False

    def build(self, **options):
        self.path = {"domain": self.bottom("camera", **options)}
        self.within = self.path["domain"]

    def bottom(self, name, **options):
        return PagedDomain(BusSpace(name, width=36), frames=self.frames, output_space=self.space, **options)

    def region(self, size, name=None, at=0):
        reg = cma_region(0x1_0000_0000 + at, size, name, within=self.within)
        assert self.cma.cma_region_register(reg) == 0
        return reg

    def memory_in_use(self):
        """Without the page tables, which come from the same frames."""
        domain = self.path["domain"]
        tables = 0
        while domain is not None:
            tables += domain.stats.table_pages
            domain = domain.below
        return (self.frames.count - self.frames.free_count - self.pinned - tables) * PAGE

    pinned = 0

    def __init__(self, pinned=()):
        self.pinned = len(pinned)
        super().__init__(pinned)


class LazyPaged(Paged):
    """Unmapped ranges wait for a flush, and the device has a cache: the shim gives places out again at once."""

    def build(self):
        super().build(flush="lazy")
        self.path["domain"].node.tlb = TranslationCache(64)


class TwoStages(Paged):
    """A guest's IOMMU on the host's; the region is the guest's."""

    def build(self):
        self.within = PagedDomain(BusSpace("guest", width=36), below=self.bottom("host"))
        self.path = {"domain": self.within}


class RegionBelow(Paged):
    """The shim over an IOMMU: the region lies in the lower one's bus space, the device has another above."""

    def build(self):
        self.within = self.bottom("host")
        self.path = {"domain": PagedDomain(BusSpace("camera", width=36), below=self.within)}


class LinearOverPaged(Paged):
    """As the reviewer drew it: no translation in front, an IOMMU behind."""

    delta = 0x20_0000

    def build(self):
        self.within = self.bottom("host")
        space = self.within.input_space
        own = Region(space.at(0x2_0000_0000), MIB)
        window = BusRange(space.at(0x1_0000_0000), 0x1_1000_0000)
        top = LinearDomain(BusSpace("camera", width=36), own, window=window, delta=self.delta, below=self.within)
        self.path = {"domain": top}


WORLDS = [World, OffsetWindow, Linear, Paged, LazyPaged, TwoStages, RegionBelow, LinearOverPaged]
SCATTERED = [world for world in WORLDS if not world.contiguous]
every_world = pytest.mark.parametrize("make", WORLDS, ids=lambda world: world.__name__)


def half_pinned():
    return range(0, 16 * MIB // PAGE, 2)


def separate_domain(world, name, width=32):
    """An IOMMU of another device, with tables in memory of their own."""
    tables = Frames(world.space.at(0x1000_0000), MIB)
    return PagedDomain(BusSpace(name, width=width), frames=tables, output_space=world.space)


def behind(world, address, size):
    """What the processor reads of a chunk."""
    pieces = world.cma.memory_behind(address)
    return b"".join(world.ram.read(piece.start, piece.size) for piece in pieces)[:size]


@every_world
def test_a_device_writes_what_the_processor_reads(make):
    world = make()
    reg = world.region(8 * MIB, "pool")
    world.cma.set_map("camera/frames=nowhere,pool")
    camera = world.device()
    for size, alignment in [(1, 0), (5000, 0), (300 * KIB, 64 * KIB), (3 * MIB + 17, MIB)]:
        address = world.cma.cma_alloc(camera, "frames", size, alignment)
        assert not IS_ERR_VALUE(address)
        assert address.space is world.path.get("domain", world.path.get("bus")).input_space
        assert address.value % max(alignment, PAGE) == 0
        number = camera.capture(address, size)
        assert behind(world, address, size) == FrameGrabber.pattern(number, size)
        assert camera.read(address, size) == FrameGrabber.pattern(number, size)
        assert (reg.users, reg.free_space) == (1, 8 * MIB - -(-size // PAGE) * PAGE)
        world.check()
        assert world.cma.cma_free(address) == 0
        assert (reg.users, reg.free_space) == (0, 8 * MIB)
    world.check()
    assert world.memory_in_use() == 8 * MIB * world.contiguous  # there it is the region's, used or not
    assert world.cma.cma_region_unregister(reg) == 0
    world.check()


@every_world
def test_without_a_device_the_answer_is_of_the_regions_own_bus(make):
    world = make()
    reg = world.region(MIB, "pool")
    address = world.cma.cma_alloc_from("pool", 3 * PAGE, 0)
    private = world.cma.cma_alloc_from_region(reg, PAGE, 0)
    own = world.cma.space if world.contiguous else world.within.input_space
    assert (address.space, address.value) == (own, reg.start)
    assert (private.space, private.value) == (own, reg.start + 3 * PAGE)
    camera = world.device()
    seen = world.cma.bus_address(address, camera)
    if world.contiguous:
        assert seen.value == reg.start + world.delta
    camera.write(seen, b"frame")
    assert behind(world, address, 5) == behind(world, seen, 5) == b"frame"
    assert world.cma.bus_address(seen, None) == address
    assert [world.cma.cma_free(each) for each in (seen, address, private)] == [0, -errno.ENOENT, 0]
    world.check()


@every_world
def test_two_devices_share_a_buffer(make):
    world = make()
    world.region(MIB, "pool")
    world.cma.set_map("*=pool")
    camera, video = world.device("camera"), world.device("video")
    address = world.cma.alloc(camera, None, 2 * PAGE)
    mapped = len(world.path["domain"].mappings()) if "domain" in world.path else 0
    seen = world.cma.bus_address(address, video)
    assert seen == address  # one domain, one view
    assert mapped == (len(world.path["domain"].mappings()) if "domain" in world.path else 0)
    camera.write(address, b"frame")
    assert video.read(seen, 5) == b"frame"


@every_world
def test_a_sharer_with_a_domain_of_its_own_sees_it_elsewhere(make):
    world = make()
    world.region(MIB, "pool")
    world.cma.set_map("camera=pool")
    camera = world.device("camera")
    other = PagedDomain(
        BusSpace("encoder", width=32), frames=Frames(world.space.at(0x1000_0000), MIB), output_space=world.space
    )
    encoder = BusDevice("encoder", world.ram)
    other.attach(encoder)
    address = world.cma.alloc(camera, None, 64 * KIB, 64 * KIB)
    seen = world.cma.bus_address(address, encoder)
    assert (seen.space, seen.value % (64 * KIB)) == (other.input_space, 0)
    camera.write(address, b"frame" * 1000)
    assert encoder.read(seen + 8 * PAGE, 1) == b"\0"
    assert encoder.read(seen, 5000) == b"frame" * 1000
    world.check()
    other.check()
    assert world.cma.bus_address(seen, camera) == address
    assert world.cma.cma_free(seen) == 0  # any view will do
    assert other.mappings() == []
    with pytest.raises(DeviceFault):
        encoder.read(seen, 1)
    with pytest.raises(NotFound):
        world.cma.bus_address(address, camera)
    other.detach(encoder)
    other.destroy()


@every_world
def test_half_of_the_frames_pinned(make):
    """On the last worlds requests succeed that must fail with contiguous memory."""
    world = make(half_pinned())
    camera = world.device()
    world.cma.set_map("camera=pool")
    reg = world.region(6 * MIB, "pool")
    answers = [world.cma.cma_alloc(camera, None, size, 0) for size in (2 * PAGE, MIB, 4 * MIB)]
    if world.contiguous:
        # Not even two pages side by side can be had, so there is no region to serve anybody.
        assert not reg.registered
        assert [errno_of(answer) for answer in answers] == [-errno.ENOMEM] * 3
        return
    for answer, size in zip(answers, (2 * PAGE, MIB, 4 * MIB), strict=True):
        number = camera.capture(answer, size)
        assert behind(world, answer, size) == FrameGrabber.pattern(number, size)
        assert len(world.cma.memory_behind(answer)) == size // PAGE
    assert world.memory_in_use() >= 5 * MIB + 2 * PAGE
    assert [world.cma.cma_free(answer) for answer in answers] == [0, 0, 0]
    world.check()


@pytest.mark.parametrize("make", SCATTERED, ids=lambda world: world.__name__)
def test_a_region_may_be_larger_than_memory_and_says_so_late(make):
    world = make()
    reg = world.region(64 * MIB, "pool")
    free = world.frames.free_count
    assert errno_of(world.cma.cma_alloc_from("pool", 32 * MIB)) == -errno.ENOMEM
    assert (reg.users, reg.free_space, world.frames.free_count) == (0, 64 * MIB, free)
    assert errno_of(world.cma.cma_alloc_from("pool", 12 * MIB)) == 0
    world.check()


@pytest.mark.parametrize("make", SCATTERED, ids=lambda world: world.__name__)
def test_a_freed_chunk_is_out_of_reach_at_once_and_its_place_leads_elsewhere(make):
    world = make()
    world.region(2 * PAGE, "pool")
    world.cma.set_map("camera=pool")
    camera = world.device()
    first = world.cma.alloc(camera, None, PAGE)
    camera.write(first, b"first")
    old = world.cma.memory_behind(first)
    world.cma.free(first)
    if world.path["domain"].enforces:
        with pytest.raises(DeviceFault):
            camera.read(first, 1)
    world.frames.occupy(old[0].start.value // PAGE, 1)
    second = world.cma.alloc(camera, None, PAGE)
    camera.write(second, b"again")
    assert world.ram.read(old[0].start, 5) == b"first"
    assert behind(world, second, 5) == b"again"


@pytest.mark.parametrize("make", SCATTERED, ids=lambda world: world.__name__)
def test_every_failing_step_is_rolled_back(make):
    for nth in range(1, 12):
        world = make()
        reg = world.region(8 * MIB, "pool")
        world.cma.set_map("camera=pool")
        camera = world.device()
        free = world.frames.free_count
        world.frames.fail_nth(nth)
        answer = world.cma.cma_alloc(camera, None, 3 * MIB + PAGE, 0)
        world.check()
        if not IS_ERR_VALUE(answer):
            if nth == 1 and make is TwoStages:
                continue  # the domain above asks the one below again, with less alignment
            assert nth > 1
            return
        assert errno_of(answer) == -errno.ENOMEM
        assert (reg.users, reg.free_space, world.frames.free_count) == (0, 8 * MIB, free)
    pytest.fail("the steps never end")


@every_world
def test_regions_hold_their_place_until_they_are_gone(make):
    world = make()
    reg = world.region(MIB, "pool")
    over = cma_region(reg.start + MIB - PAGE, PAGE, within=reg.within)
    assert world.cma.cma_region_register(over) == -errno.EADDRINUSE
    domain = world.path.get("domain")
    if world.contiguous or world.within is not domain:
        return
    mappings = [domain.alloc(PAGE) for _ in range(20)]
    assert all(mapping.iova.stop <= reg.start or reg.start + MIB <= mapping.iova.start.value for mapping in mappings)
    for mapping in mappings:
        domain.release(mapping)
    hand = domain.input_space.at(reg.start + MIB // 2)
    domain.map(hand, domain.output_space.at(0x5000_0000), PAGE)  # somebody who does not know
    assert world.cma.cma_region_unregister(reg) == -errno.EBUSY
    taken = [world.cma.cma_alloc_from("pool", size) for size in (MIB // 2, PAGE)]
    assert [errno_of(each) for each in taken] == [0, -errno.ENOMEM]
    assert domain.iova_to_phys(hand).value == 0x5000_0000
    domain.unmap(hand, PAGE)
    assert [world.cma.cma_free(taken[0]), world.cma.cma_region_unregister(reg)] == [0, 0]
    world.check()


def test_a_window_says_what_alignment_it_can_not_keep():
    world = Linear()
    world.path["domain"] = LinearDomain(
        BusSpace("odd", width=36),
        Region(world.space.at(RAM + 16 * MIB), MIB),
        window=PhysRange(world.space.at(RAM), 32 * MIB),
        delta=0x1_0000,
    )
    reg = world.region(8 * MIB, "pool")
    world.cma.set_map("*=pool")
    camera = world.device()
    assert world.cma.promised_alignment(reg, camera) == 64 * KIB
    assert world.cma.promised_alignment(reg, None) == 2**64
    assert world.cma.alloc(camera, None, PAGE, 64 * KIB).value % (64 * KIB) == 0
    assert errno_of(world.cma.cma_alloc(camera, None, PAGE, 128 * KIB)) == -errno.ENOMEM
    assert (reg.users, len(world.path["domain"].mappings())) == (1, 1)
    plain = world.cma.alloc_from("pool", PAGE, 128 * KIB)  # without a device nothing is in the way
    with pytest.raises(NotSupported) as caught:
        world.cma.bus_address(plain, camera)
    assert str(caught.value) == (
        "BusAddr(odd:0x80030000) is where the device 'camera' would see a chunk aligned to 0x20000: its window keeps "
        "no more than 0x10000"
    )
    world.check()


def test_a_device_gets_what_it_can_drive():
    world = World()
    high = world.region(MIB, "high", at=8 * MIB)
    world.region(MIB, "low", at=0)
    world.cma.set_map("*=high,low")
    near = world.device("near", dma_mask=RAM - 1)
    assert errno_of(world.cma.cma_alloc(near, None, PAGE, 0)) == -errno.ENOMEM
    assert high.users == 0
    address = world.cma.alloc(world.device("far"), None, PAGE)
    assert address.value == RAM + 8 * MIB
    with pytest.raises(OutOfRange) as caught:
        world.cma.bus_address(address, near)
    assert str(caught.value) == (
        "the device 'near' can't drive 4096 bytes at BusAddr(soc:0x80800000): its mask is 0x7fffffff"
    )


def test_a_bus_that_does_not_reach_is_passed_over():
    world = OffsetWindow()
    bus = BusSpace("narrow", width=32)
    narrow = DirectBus(bus, world.space, [(PhysRange(world.space.at(RAM), MIB), bus.at(0))])
    device = BusDevice("old", world.ram, bus=narrow)
    far, near = world.region(MIB, "far", at=4 * MIB), world.region(2 * MIB, "near")
    world.cma.set_map("*=far,near")
    assert world.cma.alloc(device, None, MIB).value == 0
    assert errno_of(world.cma.cma_alloc(device, None, PAGE, 0)) == -errno.ENOMEM  # the window ends in the middle
    assert (far.users, near.users) == (0, 1)
    assert [world.cma.promised_alignment(reg, device) for reg in (far, near)] == [0, RAM]


def test_a_chunk_that_somebody_maps_further_stays():
    world = RegionBelow()
    world.region(MIB, "pool")
    world.cma.set_map("*=pool")
    camera = world.device()
    address = world.cma.alloc(camera, None, PAGE)
    middle = world.path["domain"]
    top = PagedDomain(BusSpace("top", width=36), below=middle)
    top.map(top.input_space.at(0x1000), address, PAGE)
    with pytest.raises(Exception, match="are mapped by the domain of 'top'"):
        world.cma.free(address)
    assert world.cma.cma_free(address) == -errno.EBUSY
    camera.write(address, b"still")
    own = world.cma.bus_address(address, None)
    top.unmap(top.input_space.at(0x1000), PAGE)
    side = PagedDomain(BusSpace("side", width=36), below=world.within)
    side.map(side.input_space.at(0x1000), own, PAGE)
    assert world.cma.cma_free(address) == -errno.EBUSY
    side.unmap(side.input_space.at(0x1000), PAGE)
    assert world.cma.cma_free(address) == 0
    world.check()


def test_a_number_frees_only_what_it_means_alone():
    world = Paged()
    left = world.region(MIB, "left")
    other = PagedDomain(
        BusSpace("other", width=36), frames=Frames(world.space.at(0x1000_0000), MIB), output_space=world.space
    )
    right = cma_region(left.start, MIB, "right", within=other)
    assert world.cma.cma_region_register(right) == 0  # another space: no overlap
    first, second = (world.cma.alloc_from(name, PAGE) for name in ("left", "right"))
    assert first.value == second.value
    with pytest.raises(InvalidArgument) as caught:
        world.cma.free(first.value)
    assert str(caught.value) == ("0x100000000 is the start of 2 chunks, in camera, other: say which by a bus address")
    assert world.cma.cma_free(first.value) == -errno.EINVAL
    assert world.cma.cma_free(world.space.at(first.value)) == -errno.EINVAL  # physical for bus
    assert world.cma.cma_free(BusSpace("stale").at(first.value)) == -errno.ENOENT
    assert [world.cma.cma_free(each) for each in (second, first.value, first)] == [0, 0, -errno.ENOENT]


def test_a_region_of_a_domain_has_whole_granules_and_pages_that_can_be_put_anywhere():
    world = Paged()
    for reg in (
        cma_region(0x1_0000_0800, MIB, within=world.within),
        cma_region(2**36 - MIB, MIB, within=world.within),
        cma_region(RAM, MIB, within=IdentityDomain(BusSpace("pci", width=36), world.space)),
    ):
        assert world.cma.cma_region_register(reg) == -errno.EINVAL
    small = CmaContext(page_size=1024)
    assert small.cma_region_register(cma_region(0x1_0000_0000, MIB, within=world.within)) == -errno.EINVAL
    world.check()


def codec_world():
    """Two banks, as the codec of 2010 wants them: firmware at 128 KiB, offsets of what it reads in units of 2 KiB."""
    world = World()
    world.region(4 * MIB, "bank0", at=64 * KIB)
    world.region(4 * MIB, "bank1", at=8 * MIB)
    return world


@pytest.mark.parametrize("make", [codec_world, Paged, TwoStages], ids=["two banks", "paged", "two stages"])
def test_the_codec(make):
    world = make()
    if not world.contiguous:
        world.region(4 * MIB, "bank0", at=64 * KIB)
        world.region(4 * MIB, "bank1", at=8 * MIB)
    world.cma.set_map("codec/firmware=bank0;codec/a=bank0;codec/b=bank1,bank0;other=bank1")
    codec = world.device("codec")
    # Other buffers come first, so that alignment has to be asked for.
    table = world.cma.alloc(codec, "a", 5 * PAGE)
    firmware = world.cma.cma_alloc(codec, "firmware", 300 * KIB, 128 * KIB)
    base = firmware.value & -(128 * KIB)
    assert (firmware.value, base % (128 * KIB)) == (base, 0)
    luma, chroma = (world.cma.alloc(codec, type_, 640 * KIB, 2 * KIB) for type_ in "ab")
    registers = [(luma - firmware) >> 11, (chroma - firmware) >> 11]
    assert [firmware + (register << 11) for register in registers] == [luma, chroma]
    assert all(0 < register < 1 << 17 for register in registers)
    for address, data in ((table, b"table"), (firmware, b"firmware"), (luma, b"luma"), (chroma, b"chroma")):
        codec.write(address, data)
    assert codec.read(firmware + (registers[1] << 11), 6) == b"chroma"
    assert errno_of(world.cma.cma_alloc(codec, "c", PAGE, 0)) == -errno.ENOENT
    assert [reg.users for reg in world.cma.regions] == [1, 3]
    assert [world.cma.cma_free(address) for address in (table, firmware, luma, chroma)] == [0] * 4
    world.check()


def test_a_driver_brings_its_own_memory():
    """A frame buffer on a card is a region that nobody else can be given a piece of."""
    world = World()
    card = PhysSpace("card", width=24)
    memory = SparseRam(card)
    frame_buffer = cma_region(0, 8 * MIB, within=card)
    assert world.cma.cma_region_register(frame_buffer) == 0
    world.region(MIB, "pool")
    world.cma.set_map("*=pool")
    screen = world.cma.cma_alloc_from_region(frame_buffer, MIB, 0)
    (piece,) = world.cma.memory_behind(screen)
    memory.write(piece.start, b"pixel")
    slot = BusSpace("slot", width=32)
    bus = DirectBus(slot, card, [(PhysRange(card.at(0), 16 * MIB), slot.at(0xE000_0000))])
    engine = BusDevice("blitter", memory, bus=bus)
    assert engine.read(world.cma.bus_address(screen, engine), 5) == b"pixel"
    assert world.cma.bus_address(screen, engine).value == 0xE000_0000
    camera = world.device()
    with pytest.raises(NotSupported) as caught:
        world.cma.bus_address(screen, camera)
    assert str(caught.value) == "the bus 'soc' does not lead to the memory 'card'"
    assert world.cma.alloc(camera, None, PAGE).value == RAM
    assert world.cma.cma_free(screen) == 0


class Vanity:
    """A backend of somebody's own: every chunk has the same address."""

    def __init__(self, inner):
        self.inner, self.space, self.own_space = inner, inner.space, inner.own_space
        self.admit, self.dismiss, self.promises = inner.admit, inner.dismiss, inner.promises
        self.memory, self.require_free, self.withdraw = inner.memory, inner.require_free, inner.withdraw

    def place(self, chunk, device, align):
        self.inner.place(chunk, device, align)
        return self.own_space.at(0x7000)


def test_a_backend_of_ones_own_serves_its_regions_and_can_not_confuse_the_index():
    world = Paged()
    vanity = Vanity(DomainBackend(world.within))
    reg = cma_region(0x1_0000_0000, MIB, "pool", within=vanity)
    assert world.cma.cma_region_register(reg) == 0
    first = world.cma.alloc_from("pool", PAGE)
    free = world.frames.free_count
    with pytest.raises(AddressInUse) as caught:
        world.cma.alloc_from_region(reg, PAGE)
    assert str(caught.value) == "BusAddr(camera:0x7000) is the start of a live chunk already"
    assert (first.value, reg.users, world.frames.free_count) == (0x7000, 1, free)
    world.cma.free(first)
    world.check()


def test_a_bus_without_translation_can_not_show_scattered_memory():
    world = Paged(half_pinned())
    world.region(MIB, "pool")
    world.cma.set_map("*=pool")
    device = BusDevice("old", world.ram, bus=DirectBus(BusSpace("old", width=36), world.space))
    one = world.cma.alloc(device, None, PAGE)
    device.write(one, b"a page is contiguous")
    assert behind(world, one, 20) == b"a page is contiguous"
    assert errno_of(world.cma.cma_alloc(device, None, 2 * PAGE, 0)) == -errno.ENOMEM
    two = world.cma.alloc(world.device(), None, 2 * PAGE)
    with pytest.raises(NotSupported) as caught:
        world.cma.bus_address(two, device)
    assert str(caught.value) == "2 pieces of memory can't be one range of a bus without translation"
    assert world.cma.promised_alignment(world.cma.regions[0], device) == 2**36
    world.check()


@pytest.mark.parametrize("in_use", ["notify", "force"])
def test_a_domain_that_does_not_refuse_lets_go_of_what_is_used_above(in_use):
    world = Paged()
    world.within = world.bottom("host", in_use=in_use)
    world.path = {"domain": PagedDomain(BusSpace("camera", width=36), below=world.within)}
    world.region(MIB, "pool")
    own = world.cma.alloc_from("pool", PAGE)
    side = world.path["domain"]
    hand = side.input_space.at(0x1000)
    side.map(hand, own, PAGE)
    assert world.cma.cma_free(own) == 0
    assert (side.iova_to_phys(hand) is None) is (in_use == "notify")
    side.unmap(hand, PAGE)
    world.check()


# -- no translation at all: the domain is a window, and the region a part of it


@pytest.mark.parametrize("delta", [0, -0x4000_0000, 0x1000_0000])
def test_a_region_of_a_linear_domain_is_the_memory_behind_its_window(delta):
    world = World()
    camera = LinearDomain(BusSpace("camera", width=36), Region(world.space.at(RAM), 16 * MIB), delta=delta)
    base = RAM + delta
    reg = cma_region(base + MIB, 4 * MIB, within=camera, name="pool")
    assert world.cma.cma_region_register(reg) == 0
    camera.check()
    free = camera.region.free_space
    assert free == 12 * MIB  # what is reserved is the memory, as CMA does it
    assert camera.alloc(8 * MIB).iova.start.value >= base + 5 * MIB
    first, second = (world.cma.alloc_from("pool", size) for size in (MIB, PAGE))
    assert (first.value, second.value) == (base + MIB, base + 2 * MIB)
    assert camera.iova_to_phys(first).value == RAM + MIB
    assert [mapping.iova.start for mapping in camera.mappings()][:2] == [first, second]
    device = BusDevice("camera", world.ram)
    camera.attach(device)
    device.write(second, b"contiguous")
    assert world.ram.read(world.space.at(RAM + 2 * MIB), 10) == b"contiguous"
    assert world.cma.cma_region_unregister(reg) == -errno.EBUSY
    assert [world.cma.cma_free(first), world.cma.cma_free(second)] == [0, 0]
    assert world.cma.cma_region_unregister(reg) == 0
    camera.check()


def test_a_region_is_not_made_of_what_a_linear_domain_has_given_out():
    world = World()
    camera = LinearDomain(BusSpace("camera", width=36), Region(world.space.at(RAM), 16 * MIB))
    mapping = camera.alloc(MIB)
    reg = cma_region(mapping.iova.start.value, MIB, within=camera)
    assert world.cma.cma_region_register(reg) == -errno.EADDRINUSE
    camera.release(mapping)
    assert world.cma.cma_region_register(reg) == 0
    camera.check()
