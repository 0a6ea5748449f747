"""One script of iommu_* calls with an IOMMU, without one, and on another IOMMU: the answers side by side."""

import errno

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiommu import linux
from swiommu.address import BusSpace, PhysSpace
from swiommu.device import BusDevice
from swiommu.errors import DeviceFault
from swiommu.iommu import Scatterlist
from swiommu.iommu.groups import Hardware, IommuCore
from swiommu.layer import Reserved
from swiommu.memory import Frames, SparseRam
from swiommu.region import Region

BASE, PAGES, PAGE = 0x8000_0000, 256, 4096
DELTA = -0x4000_0000
RW = linux.IOMMU_READ | linux.IOMMU_WRITE


class Machine:
    """1 MiB of memory at `BASE`, a bus, and a device that was found on it; ``kind`` is what is between them."""

    def __init__(self, kind, **facts):
        self.kind = kind
        self.ram = SparseRam(PhysSpace("ram", width=40))
        self.bus = BusSpace("soc", width=32)
        frames = Frames(self.ram.space.at(0x2_0000_0000), 1 << 20)
        if kind == "hardware":
            self.hardware = Hardware(name="smmu", bus=self.bus, ram=self.ram.space, frames=frames)
        elif kind == "none":
            region = Region(self.ram.space.at(BASE), PAGES * PAGE)
            self.hardware = Hardware(name="soc", bus=self.bus, region=region, delta=DELTA)
        else:
            host = Hardware(name="host", bus=BusSpace("ipa", width=40), ram=self.ram.space, frames=frames)
            self.lower = host.alloc(linux.IOMMU_DOMAIN_DMA)
            # What the machine calls memory is mapped below at the same numbers.
            assert linux.iommu_map(self.lower, BASE, BASE, PAGES * PAGE, RW) == 0
            self.hardware = Hardware(name="vsmmu", bus=self.bus, below=self.lower)
        self.core = IommuCore()
        self.device = BusDevice("camera", self.ram)
        self.group = self.core.probe(self.device, self.hardware, **facts)

    def write(self, iova):
        """Whether the device can write there, and memory has it then at the address that the window would show."""
        try:
            self.device.write(self.bus.at(iova), b"frame")
        except DeviceFault:
            return "fault"
        return "written" if self.ram.read(self.ram.space.at(iova - DELTA), 5) == b"frame" else "elsewhere"


KINDS = ("hardware", "none", "stacked")


def bus(page):
    return BASE + DELTA + page * PAGE


def memory(page):
    return BASE + page * PAGE


def script(machine):
    """What a driver could call, by what it gets; nothing in it knows the machine but for its device."""
    dev = machine.device
    group = linux.iommu_group_get(dev)
    yield "group", linux.iommu_group_id(group)
    default = linux.iommu_get_domain_for_dev(dev)
    yield "type of the default domain", default.kernel.type.name
    flagged = linux.iommu_paging_domain_alloc_flags(dev, linux.IOMMU_HWPT_ALLOC_PASID)
    yield "flags", linux.PTR_ERR_OR_ZERO(flagged)
    linux.iommu_domain_free(None if linux.IS_ERR(flagged) else flagged)
    domain = linux.iommu_paging_domain_alloc(dev)
    yield "alloc", linux.IS_ERR(domain)
    yield "map where the bus shows it", linux.iommu_map(domain, bus(1), memory(1), 2 * PAGE, RW)
    yield "map again", linux.iommu_map(domain, bus(2), memory(2), PAGE, RW)
    yield "map elsewhere", linux.iommu_map(domain, bus(8), memory(9), PAGE, RW)
    yield "map misaligned", linux.iommu_map(domain, bus(8) + 1, memory(8), PAGE, RW)
    yield "map without rights", linux.iommu_map(domain, bus(8), memory(8), PAGE, 0)
    yield "map nothing", linux.iommu_map(domain, bus(8), memory(8), 0, RW)
    yield "iova_to_phys", linux.iommu_iova_to_phys(domain, bus(1) + 16) == memory(1) + 16
    yield "iova_to_phys of a hole", linux.iommu_iova_to_phys(domain, bus(3))
    yield "attach", linux.iommu_attach_device(domain, dev)
    yield "attach again", linux.iommu_attach_device(domain, dev)
    yield "write what is mapped", machine.write(bus(1))
    yield "write what is not mapped", machine.write(bus(32))
    yield "unmap up to the hole", linux.iommu_unmap(domain, bus(2), 64 * PAGE)
    yield "write what was unmapped", machine.write(bus(2))
    apart = [Scatterlist(memory(16), PAGE), Scatterlist(memory(18), PAGE)]
    yield "map a list of one piece", linux.iommu_map_sg(domain, bus(16), apart, 1, RW)
    yield "map a list of two", linux.iommu_map_sg(domain, bus(20), apart, 2, RW)
    gather = linux.iommu_iotlb_gather_init(domain)
    yield "unmap and gather", linux.iommu_unmap_fast(domain, bus(16), PAGE, gather)
    linux.iommu_iotlb_sync(domain, gather)
    linux.iommu_flush_iotlb_all(domain)
    yield "invalidations", domain.stats.invalidations > 0
    linux.iommu_detach_device(domain, dev)
    yield "back", linux.iommu_get_domain_for_dev(dev) is default
    linux.iommu_domain_free(domain)
    yield "claim", linux.iommu_device_claim_dma_owner(dev, "vfio")
    yield "use by a driver", linux.iommu_device_use_default_domain(dev)
    yield "write while claimed", machine.write(bus(40))
    yield "type while claimed", linux.iommu_get_domain_for_dev(dev).kernel.type.name
    linux.iommu_device_release_dma_owner(dev)
    yield "use after the release", linux.iommu_device_use_default_domain(dev)
    yield "PASID", linux.iommu_attach_device_pasid(default, dev, 1)
    yield "capabilities", [each.name for each in type(linux.IOMMU_CAP_NOEXEC) if linux.device_iommu_capable(dev, each)]
    yield "regions", [str(region) for region in linux.iommu_get_group_resv_regions(group)]


ANSWERS = [  # hardware, none, stacked
    ("group", 0, 0, 0),
    ("type of the default domain", "DMA_FQ", "DMA", "DMA_FQ"),
    ("flags", 0, -errno.EOPNOTSUPP, 0),
    ("alloc", False, False, False),
    ("map where the bus shows it", 0, 0, 0),
    ("map again", -errno.EADDRINUSE, -errno.EADDRINUSE, -errno.EADDRINUSE),
    ("map elsewhere", 0, -errno.EOPNOTSUPP, 0),
    ("map misaligned", -errno.EINVAL, -errno.EINVAL, -errno.EINVAL),
    ("map without rights", -errno.EINVAL, -errno.EINVAL, -errno.EINVAL),
    ("map nothing", -errno.EINVAL, -errno.EINVAL, -errno.EINVAL),
    ("iova_to_phys", True, True, True),
    ("iova_to_phys of a hole", 0, 0, 0),
    ("attach", 0, 0, 0),
    ("attach again", -errno.EBUSY, -errno.EBUSY, -errno.EBUSY),
    ("write what is mapped", "written", "written", "written"),
    ("write what is not mapped", "fault", "written", "fault"),
    ("unmap up to the hole", PAGE, PAGE, PAGE),
    ("write what was unmapped", "fault", "written", "fault"),
    ("map a list of one piece", PAGE, PAGE, PAGE),
    ("map a list of two", 2 * PAGE, -errno.EOPNOTSUPP, 2 * PAGE),
    ("unmap and gather", PAGE, PAGE, PAGE),
    ("invalidations", True, False, True),
    ("back", True, True, True),
    ("claim", 0, 0, 0),
    ("use by a driver", -errno.EBUSY, -errno.EBUSY, -errno.EBUSY),
    ("write while claimed", "fault", "written", "fault"),
    ("type while claimed", "BLOCKED", "UNMANAGED", "BLOCKED"),
    ("use after the release", 0, 0, 0),
    ("PASID", 0, -errno.EOPNOTSUPP, 0),
    (
        "capabilities",
        ["CACHE_COHERENCY", "NOEXEC", "DEFERRED_FLUSH"],
        [],
        ["CACHE_COHERENCY", "NOEXEC", "DEFERRED_FLUSH"],
    ),
    ("regions", *[["msi region [0x50000000, 0x50100000)"]] * 3),
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_script_runs_everywhere(kind):
    machine = Machine(kind, regions=(Reserved(0x5000_0000, 0x10_0000, "msi"),))
    assert list(script(machine)) == [(row[0], row[1 + KINDS.index(kind)]) for row in ANSWERS]
    machine.group.check()
    machine.group.domain.check()
    linux.iommu_device_unuse_default_domain(machine.device)
    machine.core.release(machine.device)
    if kind == "stacked":
        assert machine.lower.mappings() == []


@pytest.mark.parametrize(
    ("page", "to", "why"),
    [
        (8, 9, "bus 0x40008000 leads to 0x80008000 through delta -0x40000000, never to 0x80009000"),
        (256, 256, "0x1000 bytes at bus 0x40100000 are not inside the window PhysRange(ram:0x80000000+0x100000)"),
    ],
)
def test_why_a_bus_without_translation_refuses(page, to, why):
    domain = linux.iommu_paging_domain_alloc(Machine("none").device)
    code = -errno.EOPNOTSUPP if page != to else -errno.ERANGE
    assert linux.iommu_map(domain, bus(page), memory(to), PAGE, RW) == code
    assert str(linux.last_error()) == why


# -- random scripts beside a dict

PLACES = st.integers(0, PAGES - 1)
LENGTHS = st.integers(1, 12)
CALLS = st.one_of(
    st.tuples(st.just("map"), PLACES, st.one_of(st.none(), PLACES), LENGTHS),
    st.tuples(st.just("unmap"), PLACES, st.booleans(), LENGTHS),
    st.tuples(st.just("map_sg"), PLACES, st.lists(st.tuples(PLACES, st.integers(1, 3)), min_size=1, max_size=3)),
    st.tuples(st.just("where"), PLACES, st.integers(0, PAGE - 1)),
    st.tuples(st.just("write"), PLACES),
)


class Reference:
    """A dict from page to page, and the three rules of a bus without translation."""

    def __init__(self, kind):
        self.kind = kind
        self.pages = {}

    def map(self, at, to, length):
        if self.kind == "none":
            if at != to:
                return -errno.EOPNOTSUPP
            if to + length > PAGES:
                return -errno.ERANGE
        if any(at + page in self.pages for page in range(length)):
            return -errno.EADDRINUSE
        self.pages.update({at + page: to + page for page in range(length)})
        return 0

    def map_sg(self, at, pieces):
        before, done = dict(self.pages), 0
        runs = []
        for to, length in pieces:
            if runs and sum(runs[-1]) == to:
                runs[-1] = (runs[-1][0], runs[-1][1] + length)
            else:
                runs.append((to, length))
        for to, length in runs:
            code = self.map(at + done, to, length)
            if code:
                self.pages = before
                return code
            done += length
        return done * PAGE

    def unmap(self, at, length):
        done = 0
        while done < length and self.pages.pop(at + done, None) is not None:
            done += 1
        return done * PAGE

    def reached(self, at):
        if self.kind == "none":
            return at
        to = self.pages.get(at)
        return to if to is None or self.kind == "hardware" or to < PAGES else None  # below, no more is mapped


@pytest.mark.parametrize("kind", KINDS)
@given(calls=st.lists(CALLS, max_size=25))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
def test_random_scripts_beside_a_dict(kind, calls):
    machine = Machine(kind)
    domain, reference = linux.iommu_paging_domain_alloc(machine.device), Reference(kind)
    assert linux.iommu_attach_device(domain, machine.device) == 0
    for call, at, *rest in calls:
        if call == "map":
            to, length = rest
            to = at if to is None else to
            wanted = reference.map(at, to, length)
            assert linux.iommu_map(domain, bus(at), memory(to), length * PAGE, RW) == wanted
        elif call == "map_sg":
            (pieces,) = rest
            sg = [Scatterlist(memory(to), length * PAGE) for to, length in pieces]
            wanted = reference.map_sg(at, pieces)
            assert linux.iommu_map_sg(domain, bus(at), sg, len(sg), RW) == wanted
        elif call == "unmap":
            fast, length = rest
            wanted = reference.unmap(at, length)
            if fast:
                gather = linux.iommu_iotlb_gather_init(domain)
                assert linux.iommu_unmap_fast(domain, bus(at), length * PAGE, gather) == wanted
                linux.iommu_iotlb_sync(domain, gather)
            else:
                assert linux.iommu_unmap(domain, bus(at), length * PAGE) == wanted
        elif call == "where":
            to = reference.pages.get(at)
            wanted = 0 if to is None else memory(to) + rest[0]
            assert linux.iommu_iova_to_phys(domain, bus(at) + rest[0]) == wanted
        else:
            to = reference.reached(at)
            try:
                machine.device.write(machine.bus.at(bus(at)), b"frame")
            except DeviceFault:
                assert to is None
            else:
                assert machine.ram.read(machine.ram.space.at(memory(to)), 5) == b"frame"
        machine.ram.write(machine.ram.space.at(memory(0)), bytes(16))
    domain.check()
    mapped = {page for start, stop in domain.mapped() for page in range(start, stop, PAGE)}
    assert mapped == {bus(page) for page in reference.pages}
