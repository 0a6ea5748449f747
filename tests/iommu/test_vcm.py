"""What the layer of 2010's fifth version, VCM, could do, in our calls: with hardware, on a stack, and without."""

import pytest

from swiommu.address import Access, BusRange, BusSpace, PhysRange, PhysSpace
from swiommu.device import BusDevice
from swiommu.errors import Busy, NotSupported
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.memory import Frames, SparseRam
from swiommu.region import Region

MIB = 1 << 20
ram = PhysSpace("ram", width=40)


def one_to_one():
    return LinearDomain(BusSpace("direct", width=40), Region(ram.at(0x8000_0000), 16 * MIB))


def mmu():
    return PagedDomain(BusSpace("mmu", width=32), frames=Frames(ram.at(0x4000_0000), 16 * MIB), output_space=ram)


def two_mmus():
    return PagedDomain(BusSpace("upper", width=32), below=mmu())


@pytest.mark.parametrize("create", [one_to_one, mmu, two_mmus])
def test_make_binding_works_everywhere(create):
    context = create()
    binding = context.alloc(MIB)
    assert binding.iova.size == sum(piece.size for piece in binding.pieces) == MIB
    assert context.iova_to_phys(binding.iova.start) == binding.pieces[0].start
    with pytest.raises(Busy):
        context.destroy()
    context.release(binding)
    context.destroy()


def test_one_memory_in_several_contexts():
    # The example of VCM's own documentation: the memory has to come from the one that can't take it in pieces.
    direct, behind = one_to_one(), mmu()
    memory = SparseRam(ram)
    camera, screen = BusDevice("camera", memory), BusDevice("screen", memory)
    first = direct.alloc(2 * MIB)
    second = behind.bind(first.pieces)
    direct.attach(camera)
    behind.attach(screen)
    camera.write(first.iova.start, b"frame")
    assert screen.read(second.iova.start, 5) == b"frame"
    behind.release(second)
    assert camera.read(first.iova.start, 5) == b"frame"  # unmapping gave no memory back
    direct.release(first)


def test_reserve_bind_and_unbind_are_for_real_mmus():
    context, where = mmu(), 0x8000_0000
    reservation = BusRange(context.input_space.at(where), MIB)
    context.hold(reservation)
    assert context.iova_to_phys(reservation.start) is None
    frames = Frames(ram.at(0x1_0000_0000), MIB)
    for _ in range(2):  # a reservation may be bound anew, to other memory
        at = reservation.start
        for pfn, count in frames.take_largest_first(64):
            context.map(at, ram.at(pfn * 4096), count * 4096)
            at += count * 4096
        assert context.iova_to_phys(reservation.start) is not None
        with pytest.raises(Busy):
            context.drop(reservation)
        assert context.unmap(reservation.start, 64 * 4096) == 64 * 4096
    context.drop(reservation)


def test_a_one_to_one_context_says_that_it_never_can():
    context = one_to_one()
    with pytest.raises(NotSupported):
        context.map(context.input_space.at(0x1000), ram.at(0x8000_0000), 4096)
    pieces = PhysRange(ram.at(0x8000_0000), 4096), PhysRange(ram.at(0x8000_4000), 4096)
    with pytest.raises(NotSupported):
        context.bind(pieces)
    reservation = BusRange(context.input_space.at(context.aperture_first), 64 * 4096)
    context.hold(reservation)  # with the memory that is there, and no other
    with pytest.raises(NotSupported):
        context.map(reservation.start, ram.at(0x1_0000_0000), 4096)
    context.drop(reservation)


def test_an_active_context_shows_later_bindings_by_itself():
    context, device = mmu(), BusDevice("camera", SparseRam(ram))
    before = context.alloc(4096)
    context.attach(device)
    after = context.alloc(4096)
    for binding in (before, after):
        device.write(binding.iova.start, b"seen")
        assert context.translate(binding.iova.start, 4, Access.READ)
    with pytest.raises(Busy):
        context.attach(device)  # VCM counted activations; here a device is attached or not
    context.detach(device)


def test_memory_comes_in_as_few_parts_as_the_page_sizes_allow():
    frames = Frames(ram.at(0x4000_0000), 16 * MIB)
    frames.occupy(frames.start_pfn, 1)
    context = PagedDomain(BusSpace("mmu", width=32), frames=frames, output_space=ram)
    binding = context.alloc(4 * MIB + 4096)
    assert [piece.size for piece in binding.pieces] == [4 * MIB, 4096]
