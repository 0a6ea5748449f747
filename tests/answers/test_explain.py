"""What `explain` tells is what happened: trees of visits against the hops, and against the closed formulas."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import Access, Prot
from swiommu.answers.explain import explain, pages, permissions, ways
from swiommu.layer import Chain, HopKind, Node, Paged, Span, TranslationCache, Walker, Window, access, flatten
from swiommu.pagetable import MOCK, CountingTables, RadixTable
from swiommu.pagetable.formats import FORMATS
from swiommu.report.walk import walk_text
from swiommu.stackfile import bundled_stacks, read_stack

# Random small ways of every kind of layer.
_spec = importlib.util.spec_from_file_location(
    "random_stacks", Path(__file__).parents[1] / "layer" / "random_stacks.py"
)
random_stacks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(random_stacks)

RW = Prot.READ | Prot.WRITE


def stage(name, pages=16):
    layer = Paged(name, RadixTable(MOCK, CountingTables()))
    layer.table.map_run(0, 0, 0x1000, pages, RW)
    return layer


def visits(way):
    for visit in way:
        yield visit
        for entry in visit.entries:
            yield from visits(entry.inner)


@pytest.mark.parametrize(("stages", "refs"), [(1, 4), (2, 24), (3, 124), (4, 624)])
def test_every_reference_stands_in_the_tree_once(stages, refs):
    path = stage("s0")
    for number in range(1, stages):
        path = Chain(path, stage(f"s{number}"))
    [way] = ways(access(path, 0x1008, 8, Access.READ, watched=True).hops)
    found = [entry.ref for visit in visits(way) for entry in visit.entries]
    assert sorted(found) == list(range(1, refs + 1))
    assert [visit.layer for visit in way] == [f"s{number}" for number in range(stages)]
    assert all(len(visit.entries) == 4 for visit in visits(way))


@given(st.integers(0, 0x9000), st.integers(1, 0x4000), st.sampled_from([Access.READ, Access.WRITE]))
def test_trees_hold_what_the_hops_told(start, size, wanted):
    upper, lower = stage("up", pages=6), stage("down", pages=5)
    answer = access(Chain(upper, lower), start, size, wanted, watched=True)
    found = ways(answer.hops)
    assert len(found) == len(
        {at // 0x1000 for run in answer.runs for at in range(run.input, run.input + run.size)}
    ) + bool(answer.fault)
    flat = [visit for way in found for visit in visits(way)]
    enters = [hop for hop in answer.hops if hop.kind is HopKind.ENTER]
    assert sorted((visit.layer, visit.address) for visit in flat) == sorted((hop.layer, hop.address) for hop in enters)
    reads = [entry for visit in flat for entry in visit.entries if entry.ref is not None]
    assert len(reads) == answer.refs
    assert sum(visit.fault for visit in flat) == bool(answer.fault)
    for visit in flat:
        for entry in visit.entries:
            assert [inner.address for inner in entry.inner[:1]] in ([], [entry.address])


def test_answers_of_caches_are_told():
    node = Node(stage("s1"))
    node.tlb = TranslationCache()
    access(node, 0x1000, 1, Access.READ)
    [[visit]] = ways(access(node, 0x1008, 1, Access.READ, watched=True).hops)
    assert (visit.cached, visit.output, visit.entries) == (True, 0x1008, [])


def test_words_of_addresses():
    stack = read_stack("shared")
    camera = explain(stack["camera"], 0x1000, 1, Access.READ)
    assert [camera.word(name) for name in ("camera", "vm0", "slice0", "host", "ram")] == [
        "iova",
        "iova",
        "ipa",
        "ipa",
        "pa",
    ]
    assert explain(stack["dma"], 0x1000, 1, Access.READ).word("host") == "iova"


def test_refusals_are_of_the_first_byte():
    answer = explain(read_stack("nested")["camera"], 0x14000, 8, Access.READ)
    assert {letter: fault and (fault.layer, fault.kind) for letter, fault in answer.refusals.items()} == {
        "r": None,
        "w": ("guest", "permission"),
        "x": None,
    }


@pytest.mark.parametrize("name", bundled_stacks())
def test_documents_of_bundled_stacks(name):
    stack = read_stack(name)
    for top in stack.tops():
        document = explain(top, 0x1000, 8, Access.READ, stack=name).to_json()
        assert document["schema"] == "swiommu.explain.translate/1"
        assert (document["refs"], document["from"]) == (sum(document["refs_by_layer"].values()), top.name)


def test_explaining_leaves_caches_and_marks_alone():
    stack = read_stack("nested")
    stack["host"].tlb = cache = TranslationCache()
    assert explain(stack["camera"], 0x10010, 8, Access.READ).answer.refs == 24
    access(stack["camera"], 0x10010, 8, Access.READ)
    assert explain(stack["camera"], 0x10010, 8, Access.READ).answer.refs == 24
    assert cache.hits + cache.misses == 5


def test_tables_of_somebody_else_have_no_meaning():
    class Table(Window):
        def look(self, at, read):
            read(0x40, 8)
            return super().look(at, read)

        def stored(self, address, width):
            return 7

    answer = explain(Node(Table("own", Span(0, 0x1000))), 0, 1, Access.READ)
    [[visit]] = answer.ways
    assert (visit.entries[0].value, answer.meaning(visit, visit.entries[0])) == (7, "")


def test_a_root_that_grew_is_read_at_its_own_level():
    table = RadixTable(FORMATS["amd-v1"], CountingTables())
    table.map_run(1 << 50, 0x8000, 0x1000, 1, RW)
    answer = explain(Node(Paged("iommu", table), walker=Walker.PHYSICAL), 1 << 50, 1, Access.READ)
    [[visit]] = answer.ways
    assert [answer.meaning(visit, entry) for entry in visit.entries] == [
        *(f"next table at pa {phys:#x}" for phys in table_addresses(table, 1 << 50)[1:]),
        "page of 4 KiB, rw",
    ]
    assert len(visit.entries) == 5


def table_addresses(table, iova):
    return [step.table for step in table.walk(iova).steps]


def test_what_a_table_entry_withholds_is_said():
    table = RadixTable(FORMATS["amd-v1"], CountingTables())
    table.map_run(0, 0x8000, 0x1000, 1, RW)
    root = table.nodes.memory.entries(table.root)
    root[0] &= ~(1 << 62)  # IW
    answer = explain(Node(Paged("iommu", table), walker=Walker.PHYSICAL), 0, 1, Access.WRITE)
    [[visit]] = answer.ways
    meanings = [answer.meaning(visit, entry) for entry in visit.entries]
    assert (meanings[0].rpartition(" ")[2], meanings[-1]) == ("r", "page of 4 KiB, rw")
    assert answer.answer.fault.kind == "permission"


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        (0, "empty"),
        (0x1000_1000 | 7, "invalid: it would be a page of 0x40000000 bytes at 0x10001000, which is misaligned"),
        (4, "invalid: it is neither a leaf nor a table"),
    ],
)
def test_a_word_that_no_walk_goes_on_from(word, meaning):
    table = RadixTable(MOCK, CountingTables())
    table.map_run(0, 0, 0x1000, 1, RW)
    table.nodes.memory.entries(table.walk(0).steps[1].table)[0] = word
    answer = explain(Node(Paged("iommu", table), walker=Walker.PHYSICAL), 0, 1, Access.READ)
    [[visit]] = answer.ways
    assert answer.meaning(visit, visit.entries[-1]) == meaning
    assert answer.answer.fault.kind == "translation"


def test_a_cached_path_that_refuses_names_the_layer_below():
    stack = read_stack("nested")
    camera = stack["camera"]
    camera.iotlb = TranslationCache()
    access(camera, 0x14000, 1, Access.READ)
    answer = explain(camera, 0x14000, 1, Access.WRITE, again=True)
    [way] = answer.ways
    assert [(visit.layer, visit.output, visit.cached, visit.fault) for visit in way] == [
        ("camera", 0x14000, True, False),
        ("guest", None, False, True),
    ]
    assert answer.answer.fault.layer == "guest"


def test_a_cached_leaf_that_refuses_leads_nowhere():
    node = Node(stage("s1"))
    node.layer.table.map_run(0x40_0000, 0, 0x1000, 1, Prot.READ)
    node.tlb = TranslationCache()
    access(node, 0x40_0000, 1, Access.READ)
    [[visit]] = explain(node, 0x40_0000, 1, Access.WRITE, again=True).ways
    assert (visit.output, visit.cached, visit.fault) == (None, True, True)


def test_a_shadow_names_layers_and_addresses_of_its_source():
    upper, lower = stage("guest", pages=2), stage("host", pages=64)
    shadow = flatten(Chain(upper, lower), name="shadow")
    upper.table.map_run(0x9000, 0x9000, 0x1000, 1, RW)
    lower.table.unmap(0x1000, 0x1000)
    answer = explain(shadow, 0x9000, 1, Access.READ)
    assert [answer.word(name) for name in ("shadow", "guest", "host")] == ["iova", "iova", "ipa"]
    assert answer.answer.fault.layer == "host"  # it refuses the read of the guest's root, which was at 0x1000


def test_entries_that_a_cache_knew_are_where_the_walker_reads():
    stack = read_stack("nested")
    guest = stack["guest"]
    guest.tlb = TranslationCache(1, walk_levels=2)
    access(guest, 0x10000, 1, Access.READ)
    answer = explain(guest, 0x10000, 0x2000, Access.READ, again=True)
    visit = answer.ways[1][0]
    assert [entry.ref is None for entry in visit.entries] == [True, True, False, False]
    assert answer.word_of_tables("guest") == "ipa"
    assert answer.word_of_tables("host") == "pa"
    assert answer.meaning(visit, visit.entries[0]) == "next table at ipa 0x40001000"


def connected(path):
    """A chain of random layers as nodes on each other; None where one of them is on others already."""
    steps = path.steps if isinstance(path, Chain) else (path,)
    for upper, lower in pairwise(steps):
        if upper.lowers:
            return None
        upper.lowers = [lower] * len(upper.layer.ports)
        lower.uppers.append(upper)
    return steps[0]


@given(
    random_stacks.ways(),
    st.integers(0, 16 * 0x1000),
    st.integers(1, 0x3000),
    st.sampled_from(list(Access)),
    st.booleans(),
    st.integers(0, 2),
    st.randoms(use_true_random=False),
)
def test_what_is_told_is_what_was_found(path, at, size, wanted, again, depth, random):
    """References, the layer that refuses and its address, and the way from layer to layer; with caches or without."""
    top = connected(path)
    if top is None:
        return
    below = [top]
    for node in below:
        below += [lower for lower in node.lowers if lower not in below]
        node.tlb = random.choice([None, TranslationCache(random.choice([1, 4]), walk_levels=random.choice([0, 2]))])
        node.iotlb = random.choice([None, TranslationCache(random.choice([1, 4]))])
    if again:
        access(top, at, size, random.choice(list(Access)))
    answer = explain(top, at, size, wanted, again=again)
    told = [visit for way in answer.ways for visit in visits(way)]
    assert sum(entry.ref is not None for visit in told for entry in visit.entries) == answer.answer.refs
    for way in answer.ways:
        assert all(upper.output == lower.address for upper, lower in pairwise(way))
    refused = [(visit.layer, visit.address) for visit in told if visit.fault]
    fault = answer.answer.fault
    assert refused == ([] if fault is None else [(fault.layer, fault.address)])
    text = walk_text(answer, depth=depth)
    assert "None" not in text
    assert ("FAULT" in text) == (fault is not None)


def test_words_for_numbers():
    assert [pages(size) for size in (1, 4096, 1 << 16, 2 << 20, 1 << 30, 1 << 48)] == [
        "1 byte",
        "4 KiB",
        "64 KiB",
        "2 MiB",
        "1 GiB",
        "256 TiB",
    ]
    assert [permissions(prot) for prot in (0, 1, 2, 3, 8 | 3)] == ["nothing", "r", "w", "rw", "rw, no x"]
