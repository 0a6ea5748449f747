from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import BusSpace, PhysSpace
from swiommu.iommu import IotlbGather, PagedDomain
from swiommu.memory import Frames
from swiommu.pagetable.formats import vtd_ss


def gathered():
    commands = []
    return commands, IotlbGather(lambda start, last: commands.append((start, last)))


def test_an_empty_gather_flushes_nothing():
    commands, gather = gathered()
    gather.sync()
    assert commands == []


def test_one_command_for_all_ranges_and_then_anew():
    commands, gather = gathered()
    gather.add_range(0x5000, 0x1000)
    gather.add_range(0x1000, 0x2000)
    gather.sync()
    gather.sync()
    gather.add_range(0x9000, 0x1000)
    gather.sync()
    assert commands == [(0x1000, 0x5FFF), (0x9000, 0x9FFF)]


def test_touching_is_not_disjoint():
    _, gather = gathered()
    assert not gather.is_disjoint(0x5000, 0x1000)  # nothing gathered yet
    gather.add_range(0x5000, 0x1000)
    assert not gather.is_disjoint(0x6000, 0x1000)
    assert not gather.is_disjoint(0x4000, 0x1000)
    assert gather.is_disjoint(0x6001, 0x1000)
    assert gather.is_disjoint(0x3000, 0x1000)


def test_pages_flush_at_a_gap_and_at_another_size():
    commands, gather = gathered()
    gather.add_page(0x1000, 0x1000)
    gather.add_page(0x2000, 0x1000)
    assert commands == []
    gather.add_page(0x8000, 0x1000)
    assert commands == [(0x1000, 0x2FFF)]
    gather.add_page(0x9000, 0x2000)
    assert commands == [(0x1000, 0x2FFF), (0x8000, 0x8FFF)]
    gather.sync()
    assert commands[2:] == [(0x9000, 0xAFFF)]


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([1, 2, 4]))))
def test_every_page_is_in_the_command_that_follows_it(pages):
    commands, gather = gathered()
    pending = []
    for page, size in pages:
        before = len(commands)
        gather.add_page(page * 0x1000, size * 0x1000)
        if len(commands) > before:
            assert all(commands[-1][0] <= p * 0x1000 and (p + s) * 0x1000 - 1 <= commands[-1][1] for p, s in pending)
            pending = []
        pending.append((page, size))
    gather.sync()
    assert all(commands[-1][0] <= p * 0x1000 and (p + s) * 0x1000 - 1 <= commands[-1][1] for p, s in pending)


def test_a_leaf_of_which_more_goes_than_was_asked_is_gathered_by_the_calls_that_asked():
    """VT-d as in 6.12: two calls, of 2 MiB twice and of a page, of which the last meets a leaf of 1 GiB."""
    ram, bus = PhysSpace("ram", width=40), BusSpace("bus", width=39)
    frames = Frames(ram.at(0), 1 << 20)
    domain = PagedDomain(bus, frames=frames, output_space=ram, format=vtd_ss())
    flushed, plain = [], domain.mapper.invalidation.flush_range
    domain.mapper.invalidation.flush_range = lambda start, last: (flushed.append((start, last)), plain(start, last))
    for size, told in (((4 << 20) + 4096, [(4 << 20) - 1, (1 << 30) - 1]), (1 << 30, [(1 << 30) - 1])):
        domain.map(bus.at(0), ram.at(0), 1 << 30)
        assert domain.unmap(bus.at(0), size) == 1 << 30
        assert [last for _, last in flushed] == told
        flushed.clear()
