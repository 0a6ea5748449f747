"""What a type checker must refuse: every line with ``# refused`` is an error, no other line is."""

from swiommu.address import BusAddr, BusRange, BusSpace, PhysAddr, PhysRange, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.iommu import Domain, LinearDomain, Mapping, PagedDomain
from swiommu.memory import Frames
from swiommu.region import Region


def allowed(domain: Domain[PhysAddr], device: BusDevice, iova: BusAddr, paddr: PhysAddr) -> Mapping[PhysAddr]:
    domain.map(iova, paddr, 4096, Prot.READ)
    domain.unmap(iova + 4096, 4096)
    back: PhysAddr | None = domain.iova_to_phys(iova)
    domain.attach(device)
    device.write(iova, b"x")
    assert back is not None
    return domain.bind([PhysRange(back, 4096)])


def refused(domain: Domain[PhysAddr], device: BusDevice, iova: BusAddr, paddr: PhysAddr) -> None:
    domain.map(iova, iova, 4096)  # refused: bus for physical
    domain.map(paddr, paddr, 4096)  # refused: physical for bus
    domain.map(0x1000, paddr, 4096)  # refused: int for bus
    domain.map(iova, 0x1000, 4096)  # refused: int for physical
    domain.unmap(paddr, 4096)  # refused: physical for bus
    domain.unmap(4096, 4096)  # refused: int for bus
    domain.iova_to_phys(paddr)  # refused: physical for bus
    domain.bind([BusRange(iova, 4096)])  # refused: bus for physical
    domain.bind([paddr])  # refused: an address for a range
    device.read(paddr, 4)  # refused: physical for bus
    device.write(0x1000, b"x")  # refused: int for bus
    PhysRange(iova, 4096)  # refused: bus for physical
    wrong: BusAddr | None = domain.iova_to_phys(iova)  # refused: physical for bus
    number: int = iova  # refused: no silent int
    print(wrong, number)


def refused_when_built(bus: BusSpace, ram: PhysSpace, frames: Frames) -> None:
    PagedDomain(ram, frames=frames, output_space=ram)  # refused: a memory for a bus
    PagedDomain(bus, frames=frames, output_space=bus)  # refused: a bus for a memory
    LinearDomain(bus, Region(bus.at(0), 4096))  # refused: a region of bus addresses
    LinearDomain(bus, Region(ram.at(0), 4096), window=BusRange(bus.at(0), 4096))  # refused: bus for physical
