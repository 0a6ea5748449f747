"""What every domain answers, with a page table or a record: what is mapped, what is cached and flushed."""

import pytest

from swiommu.address import BusSpace, PhysSpace, Prot
from swiommu.errors import Busy, InvalidArgument
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.memory import Frames
from swiommu.pagetable.formats import FORMATS, vtd_ss
from swiommu.region import Region

BASE = 0x4000_0000
RW = Prot.READ | Prot.WRITE


def paged(**options):
    ram = PhysSpace("ram", width=40)
    frames = Frames(ram.at(BASE), 1 << 20)
    return PagedDomain(BusSpace("nic", width=40), frames=frames, output_space=ram, **options)


def linear():
    ram = PhysSpace("ram", width=40)
    return LinearDomain(BusSpace("nic", width=40), Region(ram.at(BASE), 1 << 20), delta=0x1000)


def stacked():
    return PagedDomain(BusSpace("guest", width=32), below=paged())


def place(domain, at, size):
    """Map by hand, where every kind can."""
    domain.map(domain.input_space.at(BASE + 0x1000 + at), domain.output_space.at(BASE + at), size)


KINDS = pytest.mark.parametrize("make", [paged, linear, stacked])


@KINDS
def test_what_is_mapped(make):
    domain = make()
    assert domain.mapped() == []
    place(domain, 0x4000, 0x2000)
    place(domain, 0x2000, 0x1000)
    place(domain, 0x3000, 0x1000)
    assert domain.mapped() == [(BASE + 0x3000, BASE + 0x7000)]
    assert domain.unmap(domain.input_space.at(BASE + 0x4000), 0x1000) == 0x1000
    assert domain.mapped() == [(BASE + 0x3000, BASE + 0x4000), (BASE + 0x5000, BASE + 0x7000)]


def test_what_is_mapped_by_large_leaves_and_on_both_sides_of_a_hole():
    ram = PhysSpace("ram", width=40)
    domain = PagedDomain(
        BusSpace("nic"), frames=Frames(ram.at(BASE), 1 << 20), output_space=ram, format=FORMATS["x86-64-4"]
    )
    upper = (1 << 64) - 0x20_0000
    for iova, size in ((0x20_0000, 0x20_1000), (upper, 0x20_0000), ((1 << 47) - 0x1000, 0x1000)):
        domain.map(domain.input_space.at(iova), ram.at(0x20_0000 if size > 0x1000 else 0), size)
    assert domain.mapped() == [(0x20_0000, 0x40_1000), ((1 << 47) - 0x1000, 1 << 47), (upper, 1 << 64)]


@KINDS
def test_a_gathered_unmap(make):
    domain = make()
    place(domain, 0x2000, 0x2000)
    before, gather = domain.stats.invalidations, domain.gather()
    assert domain.unmap_gathered(domain.input_space.at(BASE + 0x3000), 0x1000, gather) == 0x1000
    assert domain.unmap_gathered(domain.input_space.at(BASE + 0x4000), 0x4000, gather) == 0x1000
    assert domain.stats.invalidations == before
    gather.sync()
    assert domain.stats.invalidations == before + domain.enforces
    domain.check()


@KINDS
def test_a_flush_of_everything(make):
    domain = make()
    before = domain.stats.invalidations, domain.stats.flushes
    domain.invalidate_all()
    assert (domain.stats.invalidations, domain.stats.flushes) == tuple(each + domain.enforces for each in before)


def test_a_flush_of_everything_leaves_what_waits_in_its_queue():
    domain = paged(flush="lazy")
    domain.release(domain.alloc(0x1000))
    assert len(domain.flush_queue) == 1
    domain.advance(1_000_000)
    domain.invalidate_all()
    domain.advance(2_000_000)
    assert (len(domain.flush_queue), domain.exposure.ns) == (1, 1_000_000)


def test_a_policy_does_not_flush_everything_from_inside_a_call():
    domain = paged()
    domain.calls.running.what = "an address policy"
    with pytest.raises(Busy) as caught:
        domain.invalidate_all()
    assert str(caught.value) == ("an address policy may not change the domain of 'nic': it runs inside a call of it")


def test_who_can_enforce_coherency():
    assert [make().enforce_cache_coherency() for make in (paged, linear, stacked)] == [False] * 3
    assert paged(format=vtd_ss()).enforce_cache_coherency()


def test_unmapping_by_a_gather_asks_as_an_unmap_does():
    domain = linear()
    with pytest.raises(InvalidArgument) as caught:
        domain.unmap_gathered(domain.input_space.at(0x800), 0x1000, domain.gather())
    assert str(caught.value) == "0x1000 bytes at 0x800 are not aligned to the granule 0x1000"
