import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiommu.address import Access, PhysSpace, Prot
from swiommu.errors import InvalidArgument, NoMemory, OutOfRange
from swiommu.layer import (
    Attributes,
    Chain,
    Fault,
    FaultClass,
    FaultKind,
    Identity,
    Memory,
    MemoryType,
    Node,
    Paged,
    Router,
    Shareability,
    Span,
    Walker,
    Window,
    access,
    extents,
    flatten,
)
from swiommu.memory import Frames, SparseRam
from swiommu.pagetable import MOCK, MOCK64K, CountingTables, FrameTables, RadixTable
from swiommu.pagetable.formats import FORMATS

_SPEC = importlib.util.spec_from_file_location("random_stacks", Path(__file__).parents[1] / "random_stacks.py")
stacks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(stacks)

RW = Prot.READ | Prot.WRITE
PAGE, MB2 = 0x1000, 0x20_0000
EACH = Access.READ, Access.WRITE, Access.EXEC


def paged(name, *runs, **options):
    table = RadixTable(MOCK, CountingTables())
    for iova, paddr, size, count, prot in runs:
        table.map_run(iova, paddr, size, count, prot)
    return Paged(name, table, **options)


def leaves(flat):
    return [(start, leaf.oa, pgsize) for start, leaf, pgsize in flat.layer.table.each_leaf()]


def nested():
    """A guest's table over a host's: 4 KiB on 2 MiB, the guest's tables in the first 2 MiB of its memory."""
    guest = paged("guest", (0x1000, 0x60_0000, PAGE, 2, RW), (0x3000, 0x61_0000, PAGE, 1, Prot.READ))
    host = paged("host", (0, 0x8000_0000, MB2, 1, RW), (0x60_0000, 0x9000_0000, MB2, 1, RW))
    return Chain(guest, host)


def test_it_is_walked_once():
    path = nested()
    flat = flatten(path)
    assert access(path, 0x1234, 4, Access.READ).refs == 4 * (3 + 1) + 3
    assert access(flat, 0x1234, 4, Access.READ).refs == 4
    assert leaves(flat) == [
        (0x1000, 0x9000_0000, PAGE),
        (0x2000, 0x9000_1000, PAGE),
        (0x3000, 0x9001_0000, PAGE),
    ]
    flat.layer.check()


def test_leaves_are_no_larger_than_blocks():
    # A leaf of 2 MiB over a window that moves by 64 KiB: no leaf of the format but the smallest is a block of that.
    path = Chain(paged("s1", (MB2, MB2, MB2, 1, RW)), Identity("bypass"))
    assert leaves(flatten(path)) == [(MB2, MB2, MB2)]
    shifted = Chain(Node(path.upper.layer, walker=Walker.PHYSICAL), Window("w", Span(0, 4 * MB2, 0x1_0000)))
    assert leaves(flatten(shifted)) == [(MB2 + k * PAGE, MB2 + 0x1_0000 + k * PAGE, PAGE) for k in range(512)]
    assert access(shifted, MB2, 1, Access.READ).refs == 3
    assert access(flatten(shifted), MB2, 1, Access.READ).refs == 4  # flattening is not always cheaper


def test_leaves_stay_within_blocks_where_deltas_cancel():
    there, back = Window("there", Span(0, 2 * MB2, 0x1_0000)), Window("back", Span(0x1_0000, 2 * MB2, -0x1_0000))
    path = Chain(there, back)
    assert access(path, 0, 2 * MB2, Access.READ).runs[0].page_size == 0x1_0000
    assert {size for _, _, size in leaves(flatten(path))} == {PAGE}


def test_leaf_of_a_gigabyte_over_an_odd_window():
    # The published counterexample: 2 references, and 4 when it is flat.
    gigabyte = Node(paged("s1", (0, 0, 1 << 30, 1, RW)), walker=Walker.PHYSICAL)
    path = Chain(gigabyte, Window("w", Span(0, 0x3000, 0x1000)))
    assert [access(each, 0x2000, 1, Access.READ).refs for each in (path, flatten(path))] == [2, 4]


@pytest.mark.parametrize(
    ("start", "wanted", "layer", "kind", "address"),
    [
        (0x3008, Access.WRITE, "guest", FaultKind.PERMISSION, 0x3008),
        (0x4008, Access.READ, "guest", FaultKind.TRANSLATION, 0x4008),
        (1 << 50, Access.READ, "guest", FaultKind.RANGE, 1 << 50),
    ],
)
def test_fault_names_the_layer_of_the_source(start, wanted, layer, kind, address):
    path = nested()
    fault = Fault(layer, kind, wanted, address, start)
    assert access(path, start, 8, wanted).fault == fault
    assert access(flatten(path), start, 8, wanted).fault == fault
    alone = access(flatten(path, labelled=False), start, 8, wanted).fault
    assert (alone.layer, alone.kind, alone.address) == ("flat", kind, start)


def test_lower_layers_are_named_at_their_own_address():
    path = nested()
    path.upper.layer.table.map_run(0x5000, 0x7777_7000, PAGE, 1, RW)
    found = access(flatten(path), 0x5018, 8, Access.WRITE)
    assert found.fault == Fault("host", FaultKind.TRANSLATION, Access.WRITE, 0x7777_7018, 0x5018)
    assert found.refs == 4


def test_what_no_walker_gets_through_to_is_not_held():
    path = nested()
    path.lower.layer.table.unmap(0, MB2)  # the guest's tables are gone, its data is there
    assert [piece.input for piece in extents(path)] == [0x1000, 0x3000]
    flat = flatten(path)
    assert leaves(flat) == []
    fault = access(flat, 0x1008, 4, Access.READ).fault
    assert fault == access(path, 0x1008, 4, Access.READ).fault
    assert (fault.layer, fault.fault_class, fault.walk_of) == ("host", FaultClass.WALK, "guest")


def test_below_another_table_its_faults_stay_those_of_a_walk():
    top = paged("top", (0, 0x1000, PAGE, 1, RW))  # its tables at 0x1000 to 0x4fff of the guest, who has no 0x4000
    for lower in (nested(), flatten(nested())):
        fault = access(Chain(top, lower), 0x10, 4, Access.WRITE).fault
        assert (fault.layer, fault.address, fault.fault_class, fault.walk_of, fault.access, fault.iova) == (
            "guest", 0x4000, FaultClass.WALK, "top", Access.WRITE, 0x10,
        )  # fmt: skip


def test_it_is_as_old_as_its_last_sync():
    path = nested()
    flat = flatten(path)
    guest = path.upper.layer.table
    guest.unmap(0x2000, PAGE)
    guest.map_run(0x8000, 0x60_8000, PAGE, 1, RW)
    assert access(flat, 0x2000, 4, Access.READ).fault is None  # a stale entry
    stale = access(flat, 0x8000, 4, Access.READ).fault
    assert stale == Fault("flat", FaultKind.TRANSLATION, Access.READ, 0x8000, 0x8000)  # nobody else refuses
    assert flat.layer.sync() == [(0x2000, PAGE), (0x8000, PAGE)]
    assert flat.layer.sync() == []
    assert access(flat, 0x2000, 4, Access.READ).fault.layer == "guest"
    assert access(flat, 0x8000, 4, Access.READ).runs[0].output == 0x9000_8000
    flat.layer.check()


def test_sync_is_all_or_nothing():
    path, tables = nested(), CountingTables(limit=8)
    flat = flatten(path, tables=tables)
    before, held = leaves(flat), len(tables)
    assert held == 4
    path.upper.layer.table.map_run(1 << 40, 0x60_8000, PAGE, 1, RW)  # seven pages of tables, while the old four stand
    with pytest.raises(NoMemory) as caught:
        flat.layer.sync()
    assert str(caught.value) == "no table page: all 8 are in use"
    assert (leaves(flat), len(tables)) == (before, held)
    flat.layer.check()
    with pytest.raises(NoMemory):
        flatten(path, tables=(few := CountingTables(limit=3)))
    assert len(few) == 0


def test_what_can_not_be_held_is_refused():
    odd = Window("w", Span(0x1000, 0x2000, 0x800))
    with pytest.raises(InvalidArgument) as caught:
        flatten(odd)
    assert str(caught.value) == (
        "shadow 'flat': 0x2000 bytes at 0x1000 to 0x1800 in blocks of 0x800 can't be held in pages of 0x1000"
    )
    with pytest.raises(InvalidArgument) as caught:
        flatten(paged("s1", (0x1000, 0x1000, PAGE, 1, RW)), format=MOCK64K, name="coarse")
    assert str(caught.value) == (
        "shadow 'coarse': 0x1000 bytes at 0x1000 to 0x1000 in blocks of 0x1000 can't be held in pages of 0x10000"
    )
    with pytest.raises(OutOfRange) as caught:
        flatten(Window("w", Span(1 << 48, 0x1000)))
    assert str(caught.value) == "0x1000 bytes at 0x1000000000000 leave the 48-bit input of format 'mock'"


def name_of(value):
    return value.name if hasattr(value, "name") else "-".join(flag.name for flag in Prot if flag & value)


@pytest.mark.parametrize("form", FORMATS.values(), ids=name_of)
@pytest.mark.parametrize("prot", [Prot.READ, Prot.WRITE, RW, RW | Prot.NOEXEC, Prot.NOEXEC, Prot.NONE], ids=name_of)
def test_no_leaf_of_any_format_allows_more_than_the_source(form, prot):
    """Refused, held exactly, or (what neither reads nor writes) not held; but never wider."""
    table = RadixTable(MOCK, CountingTables(), rightless=True)
    table.map_run(0, 0, 0x20_0000, 4, prot)
    source = Node(Paged("source", table), walker=Walker.PHYSICAL)
    seen = form.effective(prot) if prot & RW else None
    if seen is not None and seen & (RW | Prot.NOEXEC) != prot:
        with pytest.raises(InvalidArgument) as caught:
            flatten(source, format=form)
        assert str(caught.value).startswith("shadow 'flat': 0x200000 bytes at 0x0 allow ")
        return
    flat = flatten(source, format=form)
    for wanted in (Access.READ, Access.WRITE, Access.EXEC):
        fault = access(source, 0x1000, 1, wanted).fault
        if prot & RW or fault is not None:
            assert (access(flat, 0x1000, 1, wanted).fault is None) == (fault is None)


def test_what_a_format_would_widen_is_said():
    table = RadixTable(MOCK, CountingTables())
    table.map_run(0x1000, 0, 0x1000, 1, Prot.WRITE)
    with pytest.raises(InvalidArgument) as caught:
        flatten(Node(Paged("guest", table), walker=Walker.PHYSICAL), format=FORMATS["vtd-ss-4"])
    assert str(caught.value) == (
        "shadow 'flat': 0x1000 bytes at 0x1000 allow WRITE|EXEC, and a leaf of format 'vtd-ss-4' for them would "
        "allow READ|WRITE|EXEC"
    )
    assert (caught.value.iova, caught.value.size) == (0x1000, 0x1000)


def test_two_memories_through_one_table():
    router = Node(Router("gpu", Span(0, 0x8000), Span(0x8000, 0x8000, -0x8000, port=1)))
    router.lowers = [Node(Memory(name, SparseRam(PhysSpace(name)), size=0x8000)) for name in ("dram", "vram")]
    upper = Node(paged("s1", (0, 0x8000, PAGE, 2, RW), (0x2000, 0, PAGE, 1, RW)), walker=Walker.PHYSICAL)
    flat = flatten(Chain(upper, router))
    assert (flat.layer.ports, [lower.name for lower in flat.lowers]) == (("dram", "vram"), ["dram", "vram"])
    runs = access(flat, 0, 0x3000, Access.READ).runs
    assert [(run.output, run.size, run.memory) for run in runs] == [(0, 0x2000, "vram"), (0, 0x1000, "dram")]
    # The same table under one memory would say the same of two different bytes: the ports keep them apart.
    assert leaves(flat) == [(0, 0, PAGE), (0x1000, 0x1000, PAGE), (0x2000, 0, PAGE)]
    router.lowers[0] = Node(Memory("other", SparseRam(PhysSpace("other")), size=0x8000))
    with pytest.raises(InvalidArgument) as caught:
        flat.layer.sync()
    assert str(caught.value) == (
        "shadow 'flat': 0x2000 leads to memory 'other' now, but it was made for ['dram', 'vram']"
    )


def test_open_beside_a_memory():
    router = Node(Router("split", Span(0, PAGE), Span(PAGE, PAGE, port=1), ports=("open", "ram")))
    router.lowers = [Node(Identity("hole")), Node(Memory("ram", SparseRam(PhysSpace("ram"))))]
    runs = access(flatten(router), 0, 2 * PAGE, Access.READ).runs
    assert [(run.output, run.memory) for run in runs] == [(0, ""), (PAGE, "ram")]


def test_attributes_that_no_leaf_has_room_for():
    forced = Chain(
        Node(paged("s1", (0, 0, PAGE, 1, RW | Prot.MMIO))),
        paged("s2", (0, 0, PAGE, 8, RW | Prot.CACHE), force_write_back=True),
    )
    for path in (forced, flatten(forced)):
        assert access(path, 0, 1, Access.READ).runs[0].attributes == Attributes(
            MemoryType.WRITE_BACK, Shareability.OUTER, forced=True
        )


def test_its_table_can_be_bytes_of_a_memory():
    space = PhysSpace("dram", width=40)
    ram, frames = SparseRam(space), Frames(space.at(0x100_0000), 16 * PAGE)
    path = Chain(nested(), Memory("dram", ram))
    path.upper.upper.walker = path.upper.lower.walker = Walker.PHYSICAL
    flat = flatten(path, tables=FrameTables(frames, ram))
    assert flat.input_space is path.upper.upper.input_space
    assert frames.free_count == 12
    root = flat.layer.table.root
    assert root >= 0x100_0000
    assert any(ram.read(space.at(root), 8))
    ram.fill(space.at(root), PAGE, 0)
    assert access(flat, 0x1000, 4, Access.READ).fault.layer == "flat"


def test_flat_of_flat():
    once = flatten(nested())
    twice = flatten(once, name="twice")
    assert leaves(twice) == leaves(once)
    for start in range(0, 0x6000, 0x800):
        for wanted in EACH:
            one, two = (access(flat, start, 4, wanted) for flat in (once, twice))
            assert (one.runs, one.fault, one.refs) == (two.runs, two.fault, two.refs)


def test_it_says_what_it_is():
    flat = flatten(nested())
    assert (flat.layer.kind, flat.layer.describe()) == ("shadow", "mock, 48 to 52 bits, 3 leaves")


# -- over random ways


def same(path, flat, at, wanted):
    one, two = (access(each, at, PAGE // 2, wanted) for each in (path, flat))
    assert one.fault == two.fault
    assert [run._replace(page_size=0) for run in one.runs] == [run._replace(page_size=0) for run in two.runs]
    for mine, its in zip(two.runs, one.runs, strict=True):
        assert mine.page_size <= its.page_size


def everywhere(path, flat):
    flat.layer.check()
    for page in range(stacks.PAGES + 1):
        for wanted in EACH:
            same(path, flat, page * PAGE + 0x400, wanted)


@given(stacks.ways())
@settings(max_examples=60)
def test_flat_is_the_same_to_look_at(path):
    try:
        flat = flatten(path)
    except (OutOfRange, InvalidArgument):
        # An identity of 64 bits with nothing below it reaches further than any table.
        assert any(piece.stop > 1 << 48 or piece.output + piece.size > 1 << 52 for piece in extents(path))
        return
    everywhere(path, flat)
    again = flatten(flat)
    assert leaves(again) == leaves(flat)
    everywhere(flat, again)


@given(
    stacks.ways(walkers=(Walker.NESTED, Walker.PHYSICAL)),
    st.lists(st.tuples(stacks.page_maps, st.integers(0, 2)), min_size=1, max_size=3),
)
@settings(max_examples=40)
def test_shadow_is_flat_after_each_sync(path, changes):
    tables = [layer.table for layer in stacks.stages_of(path) if isinstance(layer, Paged)]
    if not tables or any(piece.stop > 1 << 48 for piece in extents(path)):
        return
    pages = CountingTables()
    flat = flatten(path, tables=pages)
    for mapped, which in changes:
        table = tables[which % len(tables)]
        for page, (to, prot) in mapped.items():
            table.unmap(page * PAGE, PAGE)
            table.map_run(page * PAGE, to * PAGE, PAGE, 1, prot)
        before = {at: access(flat, at, 1, Access.READ).runs for at in range(0, stacks.PAGES * PAGE, PAGE)}
        changed = flat.layer.sync()
        for at, runs in before.items():
            now = access(flat, at, 1, Access.READ).runs
            assert now == runs or any(start <= at < start + size for start, size in changed)
        everywhere(path, flat)
        assert len(pages) == flat.layer.table.table_pages
        flat.layer.table.check()
