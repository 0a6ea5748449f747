"""Domains on domains: one call maps all the way down, and nothing below goes while somebody above still leads to it."""

import pytest

from swiommu.address import Access, BusRange, BusSpace, PhysRange, PhysSpace, Prot
from swiommu.device import BusDevice
from swiommu.errors import (
    Busy,
    DeviceFault,
    InvalidArgument,
    NoMemory,
    NoSpace,
    NotFound,
    SpaceMismatch,
)
from swiommu.iommu import PagedDomain, invalidation
from swiommu.layer import FaultClass, FaultKind, Memory, Node, TranslationCache, access
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import CountingTables, RadixTable

MIB = 1 << 20
PAGE, MEG2 = 0x1000, 0x20_0000
RAM = 0x4000_0000
ram = PhysSpace("ram", width=40)


def host(name="host", size=16 * MIB, **options):
    return PagedDomain(BusSpace(name, width=40), frames=Frames(ram.at(RAM), size), output_space=ram, **options)


def on(lower, name="nic", width=32, **options):
    return PagedDomain(BusSpace(name, width=width), below=lower, **options)


def at(domain, value):
    return domain.input_space.at(value)


def refs(domain, iova):
    return access(domain.node, iova, 1, Access.READ).refs


def free(domain):
    return domain.frames.free_count


# -- one call, all the way down


def test_alloc_maps_from_the_bottom_up_and_release_unmaps_from_the_top_down(monkeypatch):
    lower = host()
    upper = on(lower)
    names = {lower.table: "host", upper.table: "nic"}
    said = []

    def spied(what, real):
        def spy(table, *args, **named):
            # A write is done when it returns, its tables taken; what is cleared is gone before they are given back.
            answer = real(table, *args) if what == "map_run" else None
            said.append((what, names[table], hex(args[0])))
            return answer if what == "map_run" else real(table, *args, **named)

        return spy

    for what in ("map_run", "remove"):
        monkeypatch.setattr(RadixTable, what, spied(what, getattr(RadixTable, what)))
    real_invalidate = invalidation.invalidate

    def invalidate(node, *args):
        said.extend((step.cache, step.place, "") for step in real_invalidate(node, *args))
        said.append(("invalidate", node.name, hex(args[0])))

    monkeypatch.setattr(invalidation, "invalidate", invalidate)
    for node in (lower.node, upper.node):
        node.tlb = TranslationCache()
    buffer = upper.alloc(PAGE)
    data = buffer.below.iova.start.value
    top = buffer.iova.start.value
    assert said[0] == ("map_run", "host", hex(data))
    assert said[-1] == ("map_run", "nic", hex(top))
    assert {place for _, place, _ in said[:-1]} == {"host"}  # the upper tables, too
    said.clear()
    upper.release(buffer)
    own = [step for step in said if step[2] in {hex(data), hex(top), ""}]
    assert own[0] == ("remove", "nic", hex(top))
    assert own[-4:] == [
        ("remove", "host", hex(data)),
        ("tlb", "host", ""),
        ("tlb", "nic", ""),
        ("invalidate", "host", hex(data)),
    ]
    assert own.index(("invalidate", "nic", hex(top))) < own.index(("remove", "host", hex(data)))


def test_what_comes_from_below_goes_back_below():
    lower = host()
    before = free(lower)
    upper = on(lower)
    assert [mapping.size for mapping in lower.mappings()] == [PAGE]  # the root table
    buffer = upper.alloc(3 * MIB + 1)
    assert buffer.size == 3 * MIB + PAGE
    assert (buffer.owns_memory, len(buffer.pieces), buffer.below.domain) == (True, 1, lower)
    assert sum(piece.size for piece in buffer.memory) == buffer.size
    assert all(isinstance(piece, PhysRange) for piece in buffer.memory)
    assert upper.iova_to_phys(buffer.iova.start) == buffer.pieces[0].start
    assert upper.iova_to_memory(buffer.iova.start + 5) == buffer.memory[0].start + 5
    for domain in (upper, lower):
        domain.check()
    upper.release(buffer)
    assert [mapping.size for mapping in lower.mappings()] == [PAGE]
    upper.destroy()
    assert (lower.mappings(), len(lower.uses), free(lower)) == ([], 0, before)
    with pytest.raises(InvalidArgument) as caught:
        upper.alloc(1)
    assert str(caught.value) == "the domain of 'nic' was destroyed"
    lower.destroy()


@pytest.mark.parametrize(("stages", "walker", "cost"), [(2, "nested", 24), (3, "nested", 124), (2, "physical", 8)])
def test_a_walk_costs_what_theory_says(stages, walker, cost):
    domain = host()
    tables = Frames(ram.at(0x8000_0000), MIB)
    for stage in range(1, stages):
        options = {"frames": tables} if walker == "physical" else {}
        domain = on(domain, f"stage{stage}", width=36, walker=walker, **options)
    assert refs(domain, domain.alloc(PAGE).iova.start.value) == cost


def test_a_stack_of_mixed_walkers():
    # 3 stages, the middle one's tables physical: 4 * (W1 + 1) + T2 with W1 = T2 = 4 * (0 + 1) + T3, T3 = 4.
    middle = on(host(), "middle", width=36, walker="physical", frames=Frames(ram.at(0x8000_0000), MIB))
    assert refs(on(middle), 0) == 4 + 4 + 1  # a hole in the root: its one entry was read through both below
    assert refs(middle, middle.alloc(PAGE).iova.start.value) == 8
    top = on(middle, "top")
    assert refs(top, top.alloc(PAGE).iova.start.value) == 4 * (8 + 1) + 8


def test_entries_of_a_nested_table_are_bytes_that_a_device_may_spoil():
    memory = SparseRam(ram)
    lower = host(memory=Node(Memory("ram", memory)))
    upper = on(lower)
    nic = BusDevice("nic", memory)
    upper.attach(nic)
    buffer = upper.alloc(PAGE)
    nic.write(buffer.iova.start, b"frame")
    assert upper.translate(buffer.iova.start, 1, Access.READ)[0].memory == "ram"
    root = lower.iova_to_memory(at(lower, upper.table.root))
    assert memory.read(root, PAGE) == upper.table.dump_bytes(upper.table.root)
    memory.write(root, bytes(PAGE))
    with pytest.raises(DeviceFault, match="translation fault of READ access at 0xfffff000 in layer 'nic'"):
        nic.read(buffer.iova.start, 1)


def test_binding_memory_goes_through_all_stages_and_leaves_the_memory_alone():
    lower = host()
    top = on(on(lower, "guest", width=36), "nic")
    pieces = [PhysRange(ram.at(0x9000_0F00), 0x100), PhysRange(ram.at(0x9100_0000), 0x1234)]
    free_before = free(lower)
    packet = top.bind_memory(pieces, Prot.READ)
    assert (packet.memory, packet.size, packet.iova.start.value & 0xFFF) == (tuple(pieces), 0x1334, 0xF00)
    assert [type(piece) for piece in packet.pieces] == [BusRange]  # one run below: only the bottom scatters
    runs = top.translate(packet.iova.start, packet.size, Access.READ)
    assert [(run.output, run.size) for run in runs] == [(0x9000_0F00, 0x100), (0x9100_0000, 0x1234)]
    with pytest.raises(DeviceFault, match=r"permission fault of WRITE access at 0xff.*f00 in layer 'nic'"):
        top.translate(packet.iova.start, 1, Access.WRITE)
    top.release(packet)
    assert free(lower) == free_before
    with pytest.raises(NotFound):
        top.release(packet)


def test_binding_addresses_of_the_domain_below():
    lower = host()
    upper = on(lower)
    upper.bind([BusRange(at(lower, 0x5000), PAGE)])
    with pytest.raises(SpaceMismatch) as caught:
        upper.bind([PhysRange(ram.at(0x5000), PAGE)])
    assert str(caught.value) == "PhysAddr(ram:0x5000) is no address of the domain's output space 'host'"
    mapping = upper.bind([BusRange(at(lower, 0x5000), 2 * PAGE)])
    with pytest.raises(NotFound) as caught:
        mapping.memory  # noqa: B018 - it is a question
    assert str(caught.value) == "0x5000 of the domain of 'host' leads to no memory"
    lower.map(at(lower, 0x5000), ram.at(0x7000), PAGE)
    lower.map(at(lower, 0x6000), ram.at(0x8000), PAGE)
    assert mapping.memory == (PhysRange(ram.at(0x7000), 2 * PAGE),)


# -- what goes wrong on the way leaves nothing behind


@pytest.mark.parametrize("nth", range(1, 6))
@pytest.mark.parametrize("walker", ["nested", "physical"])
def test_any_failing_step_is_rolled_back(nth, walker):
    lower = host()
    tables = Frames(ram.at(0x8000_0000), MIB)
    upper = on(lower, walker=walker, **({"frames": tables} if walker == "physical" else {}))
    state = free(lower), tables.free_count, lower.iova.free_bytes, upper.iova.free_bytes, len(lower.uses)
    failed = 0
    for switch in (lower.frames, tables, lower.iova, upper.iova):
        for call in (lambda: upper.alloc(5 * PAGE), lambda: upper.bind_memory([PhysRange(ram.at(0x9000_0000), PAGE)])):
            switch.fail_nth(nth)
            try:
                upper.release(call())
            except (NoMemory, NoSpace):
                failed += 1
            setattr(switch, "_fail_in" if isinstance(switch, Frames) else "_countdown", 0)
            for domain in (upper, lower):
                domain.check()
            assert (
                free(lower),
                tables.free_count,
                lower.iova.free_bytes,
                upper.iova.free_bytes,
                len(lower.uses),
            ) == state
    assert failed >= (3 if nth < 4 else 0), (failed, nth)


# -- unmapping below what is mapped above


def stack(policy, **options):
    memory = SparseRam(ram)
    lower = host(in_use=policy)
    upper = on(lower, **options)
    nic = BusDevice("nic", memory)
    upper.attach(nic)
    return lower, upper, nic


@pytest.mark.parametrize("release", [False, True])
def test_refuse(release):
    lower, upper, nic = stack("refuse")
    buffer = upper.alloc(2 * PAGE)
    start, top = buffer.below.iova.start, buffer.iova.start
    with pytest.raises(Busy) as caught:
        lower.release(buffer.below) if release else lower.unmap(start + PAGE, PAGE)
    size, place, above = (0x2000, start, top) if release else (0x1000, start + PAGE, top + PAGE)
    assert str(caught.value) == (
        f"{size:#x} bytes at {place.value:#x} are mapped by the domain of 'nic' at {above.value:#x}: "
        "they can't be unmapped in the domain of 'host'"
    )
    nic.write(top, bytes(2 * PAGE))
    upper.unmap(top + PAGE, PAGE)
    assert lower.unmap(start + PAGE, PAGE) == PAGE
    upper.release(buffer)


@pytest.mark.parametrize("release", [False, True])
def test_notify(release):
    lower, upper, nic = stack("notify")
    told = []
    upper.on_notice.append(told.append)
    buffer = upper.alloc(2 * PAGE)
    old = buffer.memory
    start, top = buffer.below.iova.start, buffer.iova.start
    if release:
        lower.release(buffer.below)
    else:
        assert lower.unmap(start, 2 * PAGE) == 2 * PAGE
    assert told == [BusRange(top, 2 * PAGE)]
    with pytest.raises(DeviceFault) as caught:
        nic.write(top, b"late")
    assert (caught.value.fault.layer, caught.value.fault.kind) == ("nic", FaultKind.TRANSLATION)
    assert nic.ram.read(old[0].start, 4) == bytes(4)
    upper.release(buffer)
    for domain in (upper, lower):
        domain.check()
    assert [mapping.size for mapping in lower.mappings()] == [PAGE]


@pytest.mark.parametrize("release", [False, True])
def test_force(release):
    lower, upper, nic = stack("force")
    for node in (upper.node, lower.node):
        node.tlb = TranslationCache()
    upper.node.iotlb = TranslationCache()
    buffer = upper.alloc(2 * PAGE)
    nic.write(buffer.iova.start, b"in time")
    start = buffer.below.iova.start
    if release:
        lower.release(buffer.below)
    else:
        assert lower.unmap(start, 2 * PAGE) == 2 * PAGE
    with pytest.raises(DeviceFault) as caught:
        nic.write(buffer.iova.start, b"late")
    fault = caught.value.fault
    assert (fault.layer, fault.address, fault.iova) == ("host", start.value, buffer.iova.start.value)
    upper.release(buffer)
    for domain in (upper, lower):
        domain.check()
    assert [mapping.size for mapping in lower.mappings()] == [PAGE]


def test_tables_are_given_up_by_force_only():
    for policy in ("refuse", "notify"):
        lower, upper, _ = stack(policy)
        [root] = lower.mappings()
        with pytest.raises(Busy) as caught:
            lower.release(root)
        assert str(caught.value) == (
            f"0x1000 bytes at {root.iova.start.value:#x} hold tables of the domain of 'nic': "
            "they can't be unmapped in the domain of 'host'"
        )
    lower, upper, nic = stack("force")
    [root] = lower.mappings()
    lower.release(root)
    with pytest.raises(DeviceFault) as caught:
        nic.read(at(upper, 0), 1)
    fault = caught.value.fault
    assert (fault.layer, fault.fault_class, fault.walk_of) == ("host", FaultClass.WALK, "nic")
    upper.detach(nic)
    upper.destroy()
    lower.check()


def test_a_hole_below_is_in_nobodys_way():
    lower, upper, _ = stack("refuse")
    upper.map(at(upper, 0x8000), at(lower, 0x9000), PAGE)  # nothing is there yet
    lower.map(at(lower, 0x7000), ram.at(0x7000), PAGE)
    assert lower.unmap(at(lower, 0x7000), 0x10_0000) == PAGE


def test_fan_in_all_users_count():
    lower = host(in_use="notify")
    one, other = on(lower, "one"), on(lower, "two")
    lower.map(at(lower, 0x5000), ram.at(0x9000), PAGE)
    for upper, place in ((one, 0x1000), (one, 0x3000), (other, 0x2000)):
        upper.map(at(upper, place), at(lower, 0x5000), PAGE)
    lower.check()
    assert lower.unmap(at(lower, 0x5000), PAGE) == PAGE
    assert [
        upper.iova_to_phys(at(upper, place)) for upper, place in ((one, 0x1000), (one, 0x3000), (other, 0x2000))
    ] == [None] * 3


def test_release_asks_for_other_users_before_anything_is_gone():
    lower = host()
    one, other = on(lower, "one"), on(lower, "two")
    buffer = one.alloc(PAGE)
    other.map(at(other, 0x4000), buffer.pieces[0].start, PAGE)
    with pytest.raises(Busy, match="are mapped by the domain of 'two' at 0x4000: they can't be unmapped"):
        one.release(buffer)
    assert one.iova_to_memory(buffer.iova.start) is not None
    other.unmap(at(other, 0x4000), PAGE)
    one.release(buffer)


def test_notice_goes_up_through_all_stages():
    lower = host(in_use="notify")
    middle = on(lower, "middle", width=36, in_use="notify")
    top = on(middle, "top")
    buffer = top.alloc(PAGE)
    lower.release(buffer.below.below)
    assert (top.iova_to_phys(buffer.iova.start), middle.iova_to_phys(buffer.below.iova.start)) == (None, None)
    top.release(buffer)
    middle = on(host(in_use="notify"), "middle", width=36)  # which itself refuses
    top = on(middle, "top")
    buffer = top.alloc(PAGE)
    with pytest.raises(
        Busy, match="are mapped by the domain of 'top' at 0xfffff000: they can't be unmapped in the domai"
    ):
        middle.below.release(buffer.below.below)
    assert top.iova_to_memory(buffer.iova.start) is not None


def test_notice_for_a_part_of_a_large_leaf_needs_a_domain_that_splits():
    for partial, left in ((None, None), ("split", 511)):
        lower = host(in_use="notify", partial="split")
        upper = on(lower, partial=partial)
        buffer = upper.alloc(MEG2)
        assert upper.table.leaves[MEG2] == lower.table.leaves[MEG2] == 1
        start = buffer.below.iova.start
        if left is None:
            with pytest.raises(Busy) as caught:
                lower.unmap(start, PAGE)
            assert str(caught.value) == (
                "0x1000 bytes at 0xffe00000 are a part of a leaf that the domain of 'nic' does not split"
            )
            assert upper.table.leaves[MEG2] == lower.table.leaves[MEG2] == 1
        else:
            assert lower.unmap(start, PAGE) == PAGE
            assert upper.table.leaves[PAGE] == lower.table.leaves[PAGE] - 4 == left  # its four tables are mapped, too
        upper.release(buffer)


# -- unmapping a part of a large leaf


def test_part_of_a_leaf():
    domain = host(partial="kernel")
    domain.map(at(domain, 0), ram.at(0x8000_0000), 2 * MEG2)
    assert (domain.unmap(at(domain, PAGE), PAGE), domain.unmap(at(domain, 0), PAGE)) == (0, MEG2)
    domain = host(partial="refuse")
    domain.map(at(domain, 0), ram.at(0x8000_0000), 2 * MEG2)
    for start, size, leaf in ((0, PAGE, 0), (PAGE, PAGE, 0), (PAGE, MEG2, 0), (0, MEG2 + PAGE, MEG2)):
        with pytest.raises(InvalidArgument) as caught:
            domain.unmap(at(domain, start), size)
        assert str(caught.value) == (
            f"{size:#x} bytes at {start:#x} cover only a part of the leaf of 0x200000 bytes at {leaf:#x}"
        )
    assert domain.unmap(at(domain, 0), 1 << 30) == 2 * MEG2  # the hole behind is no part of a leaf
    domain = host(partial="split")
    domain.map(at(domain, 0), ram.at(0x8000_0000), 2 * MEG2)
    pages = domain.stats.table_pages
    assert domain.unmap(at(domain, PAGE), PAGE) == PAGE
    assert (domain.table.leaves[PAGE], domain.table.leaves[MEG2], domain.stats.table_pages) == (511, 1, pages + 1)
    domain.check()


def test_splitting_is_all_or_nothing_when_no_page_is_left():
    domain = host(tables=CountingTables(limit=3), partial="split")
    domain.map(at(domain, 0), ram.at(0x8000_0000), MEG2)
    with pytest.raises(NoMemory) as caught:
        domain.unmap(at(domain, PAGE), PAGE)
    assert str(caught.value) == "no table page: all 3 are in use"
    assert domain.table.leaves[MEG2] == 1
    domain.check()


def test_stacks_refuse_unless_asked():
    lower = host()
    lower.map(at(lower, 0), ram.at(0x8000_0000), MEG2)
    upper = on(lower)
    upper.map(at(upper, MEG2), at(lower, 0), MEG2)
    for domain, start in ((upper, MEG2), (lower, 0)):
        with pytest.raises(
            InvalidArgument, match=r"0x1000 bytes at 0x.* cover only a part of the leaf of 0x200000 bytes"
        ):
            domain.unmap(at(domain, start), PAGE)
