"""What a domain takes because its layer or its node has it: marks, hardware bits, caches, where the aperture begins."""

import pytest

from swiommu.address import Access, BusRange, BusSpace, PhysSpace
from swiommu.errors import InvalidArgument, NoSpace, OutOfRange
from swiommu.iommu import PagedDomain
from swiommu.layer import Marks, TranslationCache, access
from swiommu.memory import Frames

PAGE = 4096


def made(**more):
    ram, bus = PhysSpace("ram"), BusSpace("nic", width=32)
    return PagedDomain(bus, frames=Frames(ram.at(0), 16 << 20), output_space=ram, **more)


def test_marks_note_what_devices_touch():
    marks = Marks()
    domain = made(marks=marks)
    buffer = domain.alloc(2 * PAGE)
    start = buffer.iova.start.value
    access(domain.node, start, 8, Access.READ)
    access(domain.node, start + PAGE, 8, Access.WRITE)
    assert marks.accessed == {(start, PAGE), (start + PAGE, PAGE)}
    assert marks.read_and_clear() == {(start + PAGE, PAGE)}


def test_a_walker_that_writes_bits_needs_writable_tables_below():
    ram = PhysSpace("ram")
    lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(0), 16 << 20), output_space=ram)
    for hardware_ad in (False, True):
        upper = PagedDomain(BusSpace(f"nic{hardware_ad}", width=32), below=lower, hardware_ad=hardware_ad)
        assert upper.node.layer.hardware_ad is hardware_ad
        buffer = upper.alloc(PAGE)
        answer = access(upper.node, buffer.iova.start.value, 8, Access.READ, watched=True)
        assert answer.fault is None


def test_memory_types_can_be_forced():
    assert made(force_write_back=True).node.layer.force_write_back
    assert not made().node.layer.force_write_back


def test_caches_answer_until_they_are_told():
    tlb, iotlb = TranslationCache(16), TranslationCache(16)
    domain = made(tlb=tlb, iotlb=iotlb)
    buffer = domain.alloc(PAGE)
    refs = [access(domain.node, buffer.iova.start.value, 8, Access.READ).refs for _ in range(2)]
    assert (refs, iotlb.hits) == ([4, 0], 1)
    domain.release(buffer)
    assert access(domain.node, buffer.iova.start.value, 8, Access.READ).fault is not None


def test_no_bus_address_is_below_the_aperture():
    domain = made(aperture_first=0x8000_0000)
    space, ram = domain.input_space, domain.output_space
    assert (domain.aperture_first, domain.aperture_last) == (0x8000_0000, 0xFFFF_FFFF)
    assert domain.alloc(PAGE, limit=0x8000_0FFF).iova.start.value == 0x8000_0000
    with pytest.raises(NoSpace):
        domain.alloc(PAGE, limit=0x8000_0FFF)
    with pytest.raises(OutOfRange) as caught:
        domain.map(space.at(0x7FFF_E000), ram.at(0), 2 * PAGE)
    assert str(caught.value) == "0x2000 bytes at 0x7fffe000 are below the aperture, which begins at 0x80000000"
    with pytest.raises(InvalidArgument) as caught:
        domain.alloc_at(BusRange(space.at(0x1000), PAGE))
    assert str(caught.value) == (
        "BusRange(nic:0x1000+0x1000) is not whole granules of 0x1000 bytes from 0x80000000 to 0xffffffff"
    )
    assert domain.mapped() == [(0x8000_0000, 0x8000_0000 + PAGE)]


@pytest.mark.parametrize("first", [-4096, 0x1001, 1 << 32])
def test_an_aperture_that_can_t_begin_there(first):
    with pytest.raises(InvalidArgument) as caught:
        made(aperture_first=first)
    assert str(caught.value) == (
        f"an aperture can't begin at {first:#x}: not at a granule of 0x1000 bytes up to 0xffffffff"
    )


def test_a_domain_above_leads_into_the_aperture_only():
    lower = made(aperture_first=0x4000_0000)
    upper = PagedDomain(BusSpace("guest", width=32), below=lower)
    with pytest.raises(OutOfRange):
        upper.map(upper.input_space.at(0x1000), lower.input_space.at(0x1000), PAGE)
    assert upper.alloc(PAGE).pieces[0].start.value >= 0x4000_0000
