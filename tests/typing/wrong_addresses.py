"""What a type checker must refuse: every line with ``# refused`` is an error, no other line is."""

from swiommu import linux
from swiommu.address import Access, BusAddr, BusRange, BusSpace, PhysAddr, PhysRange, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.dma import DMA_BIT_MASK, DmaDirection
from swiommu.iommu import Domain, LinearDomain, Mapping, PagedDomain
from swiommu.layer import Graph, Identity, Layer, Node, Reserved, allocatable, connect
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


def allowed_in_a_driver_of_a_kernel(device: BusDevice, iova: BusAddr, paddr: PhysAddr) -> int:
    domain = linux.iommu_paging_domain_alloc(device)
    if linux.IS_ERR(domain):
        return linux.PTR_ERR(domain)
    linux.iommu_map(domain, iova, paddr, 4096, linux.IOMMU_READ)
    linux.iommu_map(domain, 0x1000, 0x2000, 4096, linux.IOMMU_READ)
    address = device.dma.dma_map_single(paddr, 4096, DmaDirection.TO_DEVICE)
    device.dma_mask = DMA_BIT_MASK(40)
    device.dma.dma_unmap_single(address, 4096, DmaDirection.TO_DEVICE)
    return linux.iommu_unmap(domain, iova, 4096)


def refused_in_a_driver_of_a_kernel(device: BusDevice, domain: Domain[PhysAddr], iova: BusAddr) -> None:
    linux.iommu_unmap(linux.iommu_paging_domain_alloc(device), iova, 4096)  # refused: it may be an errno
    linux.iommu_unmap(domain, PhysSpace("ram").at(0), 4096)  # refused: physical for bus
    device.dma.dma_map_single(iova, 4096, DmaDirection.TO_DEVICE)  # refused: bus for physical


def refused_when_built(bus: BusSpace, ram: PhysSpace, frames: Frames) -> None:
    PagedDomain(ram, frames=frames, output_space=ram)  # refused: a memory for a bus
    PagedDomain(bus, frames=frames, output_space=bus)  # refused: a bus for a memory
    LinearDomain(bus, Region(bus.at(0), 4096))  # refused: a region of bus addresses
    LinearDomain(bus, Region(ram.at(0), 4096), window=BusRange(bus.at(0), 4096))  # refused: bus for physical


def allowed_when_stacked(
    upper: Domain[BusAddr], lower: Domain[PhysAddr], iova: BusAddr, ipa: BusAddr
) -> BusAddr | None:
    upper.map(iova, ipa, 4096)
    upper.bind([BusRange(ipa, 4096)])
    lower.translate(ipa, 4, Access.READ)
    connect(upper.node, lower.node)
    upper.node.translate(iova, 4, Access.READ)
    return upper.iova_to_phys(iova)


def refused_when_stacked(upper: Domain[BusAddr], lower: Domain[PhysAddr], iova: BusAddr, paddr: PhysAddr) -> None:
    upper.map(iova, paddr, 4096)  # refused: memory is two stages below
    upper.bind([PhysRange(paddr, 4096)])  # refused: memory for an intermediate space
    lower.map(iova, iova, 4096)  # refused: the last stage leads to memory
    back: PhysAddr | None = upper.iova_to_phys(iova)  # refused: it leads to an intermediate space
    upper.node.translate(0x1000, 4, Access.READ)  # refused: int for an address
    upper.node.translate(iova, 4, 1)  # refused: int for a kind of access
    connect(upper, lower)  # refused: domains for nodes
    one: Domain[PhysAddr] = upper  # refused: another output space
    two: Domain[PhysAddr] = PagedDomain(iova.space, below=lower)  # refused: what is on a domain leads into its space
    PagedDomain(iova.space, below=iova.space)  # refused: a space for a domain
    PagedDomain(paddr.space, below=lower)  # refused: a memory for a bus
    print(back, one, two)


def refused_in_a_graph(graph: Graph, node: Node, layer: Layer, iova: BusAddr) -> None:
    graph.add(layer, on=layer)  # refused: a layer has no place
    graph.add(layer, walker=7)  # refused: int for a node
    connect(node, Identity("bypass"))  # refused: a layer for a node
    Reserved(iova, 4096)  # refused: an address for a number of the node's own space
    allocatable(node, iova)  # refused: an address for a mask
