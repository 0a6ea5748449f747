"""What fits on what: devices that have a domain, apertures, masks, granules, regions, sources of memory."""

import attrs
import pytest

from swiommu.address import Access, BusRange, BusSpace, PhysRange, PhysSpace
from swiommu.device import BusDevice
from swiommu.errors import (
    AddressInUse,
    Busy,
    DeviceFault,
    InvalidArgument,
    NotSupported,
    OutOfRange,
    SpaceMismatch,
)
from swiommu.iommu import LinearDomain, PagedDomain, TopDownIova
from swiommu.layer import Memory, Node, Reserved
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK, MOCK64K, CountingTables, FrameTables
from swiommu.region import Region

MIB = 1 << 20
PAGE = 0x1000
RAM = 0x4000_0000
ram = PhysSpace("ram", width=40)


def host(name="host", size=16 * MIB, **options):
    return PagedDomain(BusSpace(name, width=40), frames=Frames(ram.at(RAM), size), output_space=ram, **options)


def on(lower, name="nic", width=32, **options):
    return PagedDomain(BusSpace(name, width=width), below=lower, **options)


def at(domain, value):
    return domain.input_space.at(value)


# -- devices that have a domain already


def test_stack_and_back():
    lower = host()
    upper = on(lower)
    top = on(upper, "top", width=24)
    nic = BusDevice("nic", SparseRam(ram))
    lower.attach(nic)
    stale = lower.alloc(PAGE)
    upper.attach(nic)
    top.attach(nic)
    assert (nic.domain, lower.devices, upper.devices, top.devices) == (top, (), (), (nic,))
    with pytest.raises(SpaceMismatch):
        nic.read(stale.iova.start, 1)
    buffer = top.alloc(PAGE)
    nic.write(buffer.iova.start, b"x")
    assert nic.ram.read(buffer.memory[0].start, 1) == b"x"
    top.release(buffer)
    top.detach(nic)
    assert (nic.domain, upper.devices) == (upper, (nic,))
    upper.detach(nic)
    assert (nic.domain, lower.devices) == (lower, (nic,))
    nic.read(stale.iova.start, 1)
    lower.detach(nic)
    assert nic.domain is None


def test_replace_and_back():
    first, second = host("first"), host("second")
    nic = BusDevice("nic", SparseRam(ram))
    first.attach(nic)
    second.attach(nic, "replace")
    assert (nic.domain, first.devices) == (second, ())
    second.detach(nic)
    assert nic.domain is first
    second.attach(nic, policy="replace")
    first.destroy()
    second.detach(nic)
    assert nic.domain is None


def test_what_can_not_be_attached():
    lower, other = host(), host("other")
    nic = BusDevice("nic", SparseRam(ram), dma_mask=0xFFFF)
    lower.attach(nic)
    for policy in ("stack", "refuse"):
        with pytest.raises(Busy, match="device 'nic' is attached to the domain of 'host'"):
            other.attach(nic, policy)
    with pytest.raises(InvalidArgument) as caught:
        other.attach(nic, "overlay")
    assert str(caught.value) == "no attach policy is named 'overlay'; there are stack, replace, refuse"
    lower.detach(nic)
    backing = lower.alloc(MIB)
    lower.attach(nic)
    shim = LinearDomain(BusSpace("shim"), Region(backing.iova.start, MIB), below=lower, delta=1 << 40)
    with pytest.raises(OutOfRange) as caught:
        shim.attach(nic)
    assert str(caught.value) == (
        "device 'nic' drives addresses up to 0xffff, the aperture of the domain of 'shim' begins at "
        f"{backing.iova.start.value + (1 << 40):#x}"
    )
    assert nic.domain is lower


def test_a_domain_that_others_stand_on_stays():
    lower = host()
    upper = on(lower)
    with pytest.raises(Busy) as caught:
        lower.destroy()
    assert str(caught.value) == "the domain of 'host' is below 'nic'"
    upper.destroy()
    lower.destroy()
    with pytest.raises(InvalidArgument) as caught:
        on(lower)
    assert str(caught.value) == "the domain of 'host' was destroyed"


# -- apertures, masks, granules, reserved regions


def test_masks_narrow_the_top_and_widths_narrow_what_is_below():
    lower = host()
    narrow = attrs.evolve(MOCK, name="narrow", output_width=32)
    upper = on(lower, format=narrow, width=40)
    isa = BusDevice("isa", SparseRam(ram), dma_mask=0xFF_FFFF)
    upper.attach(isa)
    buffer = upper.alloc(PAGE)
    assert buffer.iova.stop <= 1 << 24
    assert buffer.pieces[0].stop <= 1 << 32 < lower.alloc(PAGE).iova.start.value
    assert upper.table.root < 1 << 32
    assert upper.bind_memory([PhysRange(ram.at(0x9000_0000), 1)]).pieces[0].stop <= 1 << 32
    with pytest.raises(OutOfRange, match="leave the 32-bit output of format 'narrow'"):
        upper.map(at(upper, 0), at(lower, 1 << 32), PAGE)


def test_outputs_beyond_what_the_domain_below_can_map():
    tiny = PagedDomain(BusSpace("tiny", width=64), frames=Frames(ram.at(RAM), MIB), output_space=ram)
    upper = on(tiny)
    for call in (
        lambda: upper.map(at(upper, 0), at(tiny, 1 << 48), PAGE),
        lambda: upper.bind([BusRange(at(tiny, 1 << 48), PAGE)]),
    ):
        with pytest.raises(OutOfRange) as caught:
            call()
        assert str(caught.value) == (
            "0x1000 bytes at 0x1000000000000 are not all in the aperture of the domain of 'tiny', 0x0 to 0xffffffffffff"
        )
    window = LinearDomain(BusSpace("window"), Region(ram.at(RAM), MIB), delta=PAGE)
    upper = on(window, tables=CountingTables())
    with pytest.raises(OutOfRange) as caught:
        upper.map(at(upper, 0), at(window, RAM), PAGE)
    assert str(caught.value) == (
        "0x1000 bytes at 0x40000000 are not all in the aperture of the domain of 'window', 0x40001000 to 0x40100fff"
    )


@pytest.mark.parametrize("kind", ["reserved", "msi"])
def test_nobody_leads_to_a_reserved_region_below(kind):
    lower = host()
    lower.reserve(Reserved(0xFEE0_0000, MIB, kind))
    upper = on(lower, width=40)
    with pytest.raises(OutOfRange) as caught:
        upper.map(at(upper, 0), at(lower, 0xFEE0_0000), PAGE)
    assert str(caught.value) == (
        "0x1000 bytes at 0xfee00000 are not to be led to: the domain of 'host' has the "
        f"{kind} region [0xfee00000, 0xfef00000) there"
    )
    if kind == "msi":  # a hole in what the device sees as well
        with pytest.raises(AddressInUse):
            upper.iova.take(0xFEE0_0000, PAGE)
    else:
        upper.iova.take(0xFEE0_0000, PAGE)
    assert lower.alloc(PAGE, limit=0xFEEF_FFFF).iova.stop == 0xFEE0_0000


def test_a_reserved_region_is_seen_shifted_through_a_window():
    lower = host()
    shim = LinearDomain(
        BusSpace("shim", width=40), Region(at(lower, 0x8000_0000), 16 * MIB), delta=0x1000_0000, below=lower
    )
    lower.reserve(Reserved(0x8010_0000, MIB))
    upper = on(shim, tables=CountingTables())
    upper.map(at(upper, 0), at(shim, 0x9000_0000), MIB)
    with pytest.raises(OutOfRange) as caught:
        upper.map(at(upper, MIB), at(shim, 0x9010_0000), PAGE)
    assert str(caught.value) == (
        "0x1000 bytes at 0x90100000 are not to be led to: the domain of 'shim' has the "
        "reserved region [0x90100000, 0x90200000) there"
    )


def test_a_direct_region_must_be_found_at_its_own_addresses():
    lower = host()
    nic = BusDevice("nic", SparseRam(ram))
    lower.attach(nic)
    lower.reserve(Reserved(0x8000_0000, 2 * PAGE, "direct"))
    upper = on(lower)
    text = (
        "the direct region [0x80000000, 0x80002000) of the domain of 'host' must be found at the same addresses in "
        "memory, but {} of the domain of 'nic' leads {}"
    )
    with pytest.raises(InvalidArgument) as caught:
        upper.attach(nic)
    assert str(caught.value) == text.format("0x80000000", "nowhere")
    upper.map(at(upper, 0x8000_0000), at(lower, 0x10_0000), 2 * PAGE)
    lower.map(at(lower, 0x10_0000), ram.at(0x8000_0000), PAGE)  # inverse offsets are as good as none
    lower.map(at(lower, 0x10_1000), ram.at(0x8000_3000), PAGE)
    with pytest.raises(InvalidArgument) as caught:
        upper.attach(nic)
    assert str(caught.value) == text.format("0x80001000", "to 0x80003000")
    upper.unmap(at(upper, 0x8000_1000), PAGE)
    lower.unmap(at(lower, 0x10_1000), PAGE)
    lower.map(at(lower, 0x10_1000), ram.at(0x8000_1000), PAGE)
    upper.map(at(upper, 0x8000_1000), at(lower, 0x10_1000), PAGE)
    upper.attach(nic)


def test_large_granules_above_small_ones():
    lower = host()
    upper = on(lower, format=MOCK64K)
    assert (upper.granule, upper.stack_granule, upper.finest_granule, upper.memory_granule) == (
        0x10000,
        0x10000,
        PAGE,
        PAGE,
    )
    assert upper.alloc(1).size == 0x10000
    packet = upper.bind_memory([PhysRange(ram.at(0x9000_0200), 0x100)])
    other = upper.bind_memory([PhysRange(ram.at(0x9100_0000), PAGE)])
    first, second = packet.pieces[0].start.value, other.pieces[0].start.value
    assert abs(first - second) >= 0x10000 - 0x200  # no 64 KiB page reaches both
    with pytest.raises(DeviceFault) as caught:
        upper.translate(packet.iova.start + PAGE, 1, Access.READ)
    assert caught.value.fault.layer == "host"  # the page above is larger than what is bound
    assert upper.translate(packet.iova.start, 0x100, Access.READ)[0].page_size == PAGE
    for mapping in (packet, other):
        upper.release(mapping)
    upper.check()
    lower.check()


def test_small_granules_above_large_ones():
    frames, tables = Frames(ram.at(RAM), 16 * MIB, page_size=0x10000), Frames(ram.at(0x8000_0000), MIB)
    lower = PagedDomain(
        BusSpace("host", width=40),
        frames=frames,
        output_space=ram,
        format=MOCK64K,
        tables=FrameTables(tables),
        orders=(5, 0),
    )
    upper = on(lower)
    assert lower.mappings()[0].size == 0x10000  # the root, and room for 15 tables more
    assert upper.alloc(1).size == 0x10000
    assert [mapping.size for mapping in lower.mappings()] == [0x10000, 0x10000]
    packet = upper.bind_memory([PhysRange(ram.at(0x9000_3200), 0x2000)])
    assert packet.iova.start.value & 0xFFF == 0x200
    assert packet.pieces[0].start.value & 0xFFFF == 0x3200
    assert upper.translate(packet.iova.start, 0x2000, Access.READ)[0].output == 0x9000_3200
    assert [mapping.iova.size for mapping in upper.mappings()] == [0x2000, 0x10000]
    upper.check()
    lower.check()


def test_a_window_below_keeps_whole_granules_or_nothing():
    lower = LinearDomain(
        BusSpace("window"), Region(ram.at(RAM), MIB), window=PhysRange(ram.at(RAM), 16 * MIB), delta=-RAM
    )
    upper = on(lower, format=MOCK64K, tables=CountingTables())
    upper.bind_memory([PhysRange(ram.at(RAM + MIB), 0x10000)])
    with pytest.raises(NotSupported) as caught:
        upper.bind_memory([PhysRange(ram.at(RAM + 2 * MIB + 0x200), 0x100)])
    assert str(caught.value) == (
        "256 bytes at bus 0x200200 are not whole granules of 0x10000 bytes, and without translation they stay where "
        "they are"
    )
    lower.check()


# -- a region of an IOMMU's addresses


def test_the_shim_over_an_iommu():
    lower = host()
    backing = lower.alloc(2 * MIB)
    shim = LinearDomain(
        BusSpace("shim", width=32), Region(backing.iova.start, 2 * MIB), below=lower, delta=-backing.iova.start.value
    )
    buffer = shim.alloc(3 * PAGE)
    assert (buffer.iova.start.value, buffer.pieces[0].start) == (0, backing.iova.start)
    assert buffer.memory[0].start == backing.memory[0].start
    with pytest.raises(Busy, match="are mapped by the domain of 'shim' at 0x0"):
        lower.release(backing)
    assert shim.unmap(at(shim, PAGE), PAGE) == PAGE
    shim.release(buffer)
    assert len(lower.uses) == 0
    lower.release(backing)
    with pytest.raises(DeviceFault, match=r"translation fault of READ access at 0x.* in layer 'host'"):
        shim.translate(at(shim, 0), 1, Access.READ)  # no translation above, but there is below
    shim.destroy()
    lower.destroy()


def test_windows_that_can_not_be_built():
    lower = host()
    with pytest.raises(SpaceMismatch) as caught:
        LinearDomain(BusSpace("shim"), Region(at(lower, 0), MIB))
    assert str(caught.value) == "a region of bus addresses of 'host', and no domain is below to map them"
    with pytest.raises(SpaceMismatch) as caught:
        LinearDomain(BusSpace("shim"), Region(BusSpace("nowhere").at(0), MIB), below=lower)
    assert str(caught.value) == (
        "a region of bus addresses of 'nowhere', and not the domain of 'host' is below to map them"
    )
    large = PagedDomain(
        BusSpace("large"),
        frames=Frames(ram.at(RAM), MIB, page_size=0x10000),
        output_space=ram,
        format=MOCK64K,
        tables=CountingTables(),
    )
    with pytest.raises(InvalidArgument) as caught:
        LinearDomain(BusSpace("shim"), Region(at(large, 0x1000), 0x1F000), below=large)
    assert str(caught.value) == (
        "the window BusRange(large:0x1000+0x1f000) tears a granule of 0x10000 bytes of the domain of 'large'"
    )
    with pytest.raises(OutOfRange, match="are not all in the aperture of the domain of 'large', 0x0 to 0xffffffffffff"):
        LinearDomain(BusSpace("shim"), Region(at(large, 1 << 48), 0x10000), below=large)


# -- building


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "a domain needs frames and their space, or a domain below"),
        ({"walker": "sideways"}, "no walker 'sideways': tables are read 'nested' or 'physical'"),
        ({"in_use": "ask"}, "no busy policy is named 'ask'; there are refuse, notify, force"),
        ({"partial": "half"}, "no partial unmap is named 'half'; there are kernel, refuse, split"),
        (
            {"below": 1, "output_space": ram},
            "a domain on that of 'host' leads there, and nowhere else",
        ),
        (
            {"below": 1, "walker": "physical"},
            "frames below a stacked domain are for page tables that are physical, and only for those",
        ),
        (
            {"below": 1, "frames": Frames(ram.at(RAM), MIB)},
            "frames below a stacked domain are for page tables that are physical, and only for those",
        ),
    ],
)
def test_sources_that_do_not_go_together(options, text):
    if "below" in options:
        options = {**options, "below": host()}
    with pytest.raises(InvalidArgument) as caught:
        PagedDomain(BusSpace("nic"), **options)
    assert str(caught.value) == text


def test_foreign_memories():
    other = PhysSpace("other")
    with pytest.raises(SpaceMismatch) as caught:
        on(host(), walker="physical", frames=Frames(other.at(0), MIB))
    assert str(caught.value) == "PhysRange(other:0x0+0x100000) is no memory of the output space 'ram'"
    with pytest.raises(SpaceMismatch):
        host(memory=Node(Memory("other", SparseRam(other))))


def test_a_lower_policy_of_another_granule_takes_part_in_the_choice():
    upper = on(host(iova=TopDownIova(PAGE, (1 << 30) - 1)))
    assert upper.alloc(PAGE).pieces[0].stop <= 1 << 30


def test_a_dry_run_in_a_stack_leaves_nothing_behind():
    lower = host(flush="lazy")
    upper = on(lower, flush="lazy")
    before = lower.stats.maps, lower.frames.free_count, lower.iova.free_bytes, upper.iova.free_bytes
    with upper.dry_run():
        upper.release(upper.alloc(MIB))
    assert (lower.stats.maps, lower.frames.free_count, lower.iova.free_bytes, upper.iova.free_bytes) == before
    upper.check()
    lower.check()
