"""What `explain` tells is what happened: trees of visits against the hops, and against the closed formulas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiommu.address import Access, Prot
from swiommu.answers.explain import explain, pages, permissions, ways
from swiommu.layer import (
    Chain,
    HopKind,
    Node,
    Paged,
    Span,
    TranslationCache,
    Window,
    access,
    bundled_stacks,
    read_stack,
)
from swiommu.pagetable import MOCK, CountingTables, RadixTable

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


def test_words_for_numbers():
    assert [pages(size) for size in (1, 4096, 1 << 16, 2 << 20, 1 << 30, 1 << 48)] == [
        "1 bytes",
        "4 KiB",
        "64 KiB",
        "2 MiB",
        "1 GiB",
        "256 TiB",
    ]
    assert [permissions(prot) for prot in (0, 1, 2, 3, 8 | 3)] == ["nothing", "r", "w", "rw", "rw, no x"]
