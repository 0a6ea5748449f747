"""Every door of a stacked domain against every address that is not its own: a TypeError, whole, and nothing changed."""

import pytest

from swiommu.address import Access, BusRange, BusSpace, PhysRange, PhysSpace
from swiommu.device import BusDevice
from swiommu.errors import SpaceMismatch
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.layer import Memory, Node
from swiommu.memory import Frames, SparseRam
from swiommu.region import Region

# Bus, intermediate and physical ranges are apart, so that a confusion that were let through would not go unnoticed.
AT_BUS, AT_IPA, AT_PHYS = 0x1000_0000, 0x5000_0000, 0x9000_0000


class Stack:
    """Two domains of one width over a memory, with one page mapped all the way; each space has a namesake."""

    def __init__(self):
        self.ram = PhysSpace("ram", width=40)
        memory = Node(Memory("ram", SparseRam(self.ram)))
        frames = Frames(self.ram.at(AT_PHYS), 1 << 22)
        self.lower = PagedDomain(BusSpace("stage", width=40), frames=frames, output_space=self.ram, memory=memory)
        self.upper = PagedDomain(BusSpace("stage", width=40), below=self.lower)
        self.bus, self.ipa = self.upper.input_space, self.lower.input_space
        self.device = BusDevice("nic", memory.layer.ram)
        self.lower.map(self.ipa.at(AT_IPA), self.ram.at(AT_PHYS + 0x10_0000), 4096)
        self.upper.map(self.bus.at(AT_BUS), self.ipa.at(AT_IPA), 4096)
        self.upper.attach(self.device)

    def state(self):
        domains = self.upper, self.lower
        return [
            (
                domain.stats.maps,
                domain.stats.unmaps,
                [(each.input, each.output) for each in domain.node.layer.extents()],
            )
            for domain in domains
        ]


@pytest.fixture
def stack():
    return Stack()


WRONG_INPUTS = {
    "of the stage below": lambda stack: stack.ipa.at(AT_BUS),
    "of the memory": lambda stack: stack.ram.at(AT_BUS),
    "of a namesake": lambda stack: BusSpace("stage", width=40).at(AT_BUS),
    "a number": lambda stack: AT_BUS,
    "nothing": lambda stack: None,
}
INPUT_DOORS = {
    "map": lambda stack, at: stack.upper.map(at, stack.ipa.at(AT_IPA), 4096),
    "unmap": lambda stack, at: stack.upper.unmap(at, 4096),
    "iova_to_phys": lambda stack, at: stack.upper.iova_to_phys(at),
    "iova_to_memory": lambda stack, at: stack.upper.iova_to_memory(at),
    "translate": lambda stack, at: stack.upper.translate(at, 4, Access.READ),
    "node": lambda stack, at: stack.upper.node.translate(at, 4, Access.READ),
    "read": lambda stack, at: stack.device.read(at, 4),
    "write": lambda stack, at: stack.device.write(at, b"four"),
}
WRONG_OUTPUTS = {
    "of the memory, two stages below": lambda stack: stack.ram.at(AT_IPA),
    "of the domain itself": lambda stack: stack.bus.at(AT_IPA),
    "of a namesake": lambda stack: BusSpace("stage", width=40).at(AT_IPA),
    "a number": lambda stack: AT_IPA,
}


def refused(stack, call):
    before = stack.state()
    with pytest.raises(TypeError) as caught:
        call()
    assert isinstance(caught.value, SpaceMismatch)
    assert stack.state() == before
    return str(caught.value)


@pytest.mark.parametrize("door", INPUT_DOORS.values(), ids=INPUT_DOORS)
@pytest.mark.parametrize("wrong", WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_an_input_of_another_space(stack, door, wrong):
    address = wrong(stack)
    text = refused(stack, lambda: door(stack, address))
    assert text in {
        f"{address!r} is no address of the domain's bus space 'stage'",
        f"{address!r} is no address of the space 'stage'",
    }


@pytest.mark.parametrize("door", INPUT_DOORS.values(), ids=INPUT_DOORS)
def test_the_right_input(stack, door):
    if door is INPUT_DOORS["map"]:
        stack.upper.unmap(stack.bus.at(AT_BUS), 4096)
    door(stack, stack.bus.at(AT_BUS))


@pytest.mark.parametrize("wrong", WRONG_OUTPUTS.values(), ids=WRONG_OUTPUTS)
def test_an_output_of_another_space(stack, wrong):
    address = wrong(stack)
    text = refused(stack, lambda: stack.upper.map(stack.bus.at(0x2000_0000), address, 4096))
    assert text == f"{address!r} is no address of the domain's output space 'stage'"


def test_a_piece_of_another_space(stack):
    for piece in (PhysRange(stack.ram.at(AT_IPA), 4096), BusRange(stack.bus.at(AT_IPA), 4096)):
        text = refused(stack, lambda piece=piece: stack.upper.bind([piece]))
        assert text == f"{piece.start!r} is no address of the domain's output space 'stage'"
    text = refused(stack, lambda: stack.lower.bind([BusRange(stack.ipa.at(AT_IPA), 4096)]))
    assert text == "BusAddr(stage:0x50000000) is no address of the domain's output space 'ram'"


def test_answers_are_of_the_space_below_not_of_the_memory(stack):
    found = stack.upper.iova_to_phys(stack.bus.at(AT_BUS))
    assert found == stack.ipa.at(AT_IPA)
    assert stack.lower.iova_to_phys(found) == stack.ram.at(AT_PHYS + 0x10_0000)
    with pytest.raises(TypeError) as caught:
        found == stack.ram.at(AT_IPA)  # noqa: B015
    assert str(caught.value) == "BusAddr(stage:0x50000000) and PhysAddr(ram:0x50000000) are of different spaces"


def test_attached_anew_old_addresses_are_of_no_use(stack):
    old = stack.bus.at(AT_BUS)
    stack.device.write(old, b"frame")
    stack.upper.detach(stack.device)
    other = PagedDomain(BusSpace("stage", width=40), below=stack.lower)
    other.attach(stack.device)
    text = refused(stack, lambda: stack.device.read(old, 5))
    assert text == "BusAddr(stage:0x10000000) is no address of the space 'stage'"
    other.map(other.input_space.at(AT_BUS), stack.ipa.at(AT_IPA), 4096)
    assert stack.device.read(other.input_space.at(AT_BUS), 5) == b"frame"


def test_a_region_of_another_stage(stack):
    with pytest.raises(TypeError) as caught:
        LinearDomain(BusSpace("soc", width=40), Region(stack.bus.at(AT_BUS), 1 << 20), below=stack.lower)
    assert isinstance(caught.value, SpaceMismatch)
    assert str(caught.value) == (
        "a region of bus addresses of 'stage', and not the domain of 'stage' is below to map them"
    )


def test_memory_of_another_space(stack):
    other = PhysSpace("ram", width=40)
    with pytest.raises(TypeError) as caught:
        PagedDomain(BusSpace("iommu", width=40), frames=Frames(other.at(0), 1 << 20), output_space=stack.ram)
    assert isinstance(caught.value, SpaceMismatch)
    assert str(caught.value) == "PhysRange(ram:0x0+0x100000) is no memory of the output space 'ram'"
