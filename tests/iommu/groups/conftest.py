import attrs
import pytest

from swiommu.address import BusSpace, PhysSpace
from swiommu.device import BusDevice
from swiommu.iommu.groups import Defaults, Hardware, IommuCore
from swiommu.memory import Frames, SparseRam


@attrs.define
class Machine:
    """A bus with devices, an IOMMU, memory and the kernel's core; ``events`` is what the core told."""

    core: IommuCore
    hardware: Hardware
    ram: SparseRam
    events: list

    def device(self, name, **options):
        return BusDevice(name, self.ram, **{"dma_mask": (1 << 48) - 1, **options})

    def probe(self, name, **facts):
        device = self.device(name)
        return device, self.core.probe(device, self.hardware, **facts)

    def bus(self, value):
        return self.hardware.bus.at(value)

    def at(self, value):
        return self.ram.space.at(value)

    def told(self):
        texts = [str(event) for event in self.events]
        self.events.clear()
        return texts


@pytest.fixture
def machine():
    def make(defaults=None, *, pages=256, **options):
        space, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
        frames = Frames(space.at(0x4000_0000), pages << 12)
        hardware = Hardware(name="smmu", bus=bus, ram=space, frames=frames, **options)
        core, events = IommuCore(defaults or Defaults()), []
        core.listeners.append(events.append)
        return Machine(core, hardware, SparseRam(space), events)

    return make


@pytest.fixture
def refused():
    """Call something that must raise; its class and whole text."""

    def call(kind, thing, *arguments, **named):
        with pytest.raises(kind) as caught:
            thing(*arguments, **named)
        assert type(caught.value) is kind
        return str(caught.value)

    return call
