"""A stale answer says which change nobody told its cache."""

import pytest

from swiommu.address import Access, Prot
from swiommu.errors import Busy
from swiommu.layer import ChangeLog, FlatTable, Node, Paged, TranslationCache, access, connect, flatten, invalidate
from swiommu.pagetable import MOCK, CountingTables, RadixTable

RW = Prot.READ | Prot.WRITE
PAGE, LARGE = 0x1000, 0x20_0000


def stage(name, *maps, **caches):
    table = RadixTable(MOCK, CountingTables())
    for iova, paddr, pgsize, count in maps:
        table.map_run(iova, paddr, pgsize, count, RW)
    return Node(Paged(name, table), **caches)


def read(path, at):
    return access(path, at, 4, Access.READ)


def remap(node, iova, paddr, prot=RW):
    node.layer.table.unmap(iova, PAGE)
    if paddr is not None:
        node.layer.table.map_run(iova, paddr, PAGE, 1, prot)


def one():
    log = ChangeLog()
    node = stage("s1", (0, 0x8000, PAGE, 8), tlb=TranslationCache(log=log))
    log.watch(node)
    return node, log


def test_the_first_change_that_nobody_told():
    node, log = one()
    for at in range(4):
        read(node, at * PAGE)
    remap(node, 0, 0x20_0000)
    invalidate(node, 0, PAGE)  # told: no event of it
    read(node, 0)
    remap(node, PAGE, 0x20_0000)
    remap(node, 2 * PAGE, 0x8000 + 2 * PAGE, Prot.WRITE)
    assert read(node, 0).stale == ()
    assert [(change.number, change.what, change.start) for change in log] == [
        (1, "unmap", 0),
        (2, "map", 0),
        (3, "unmap", PAGE),
        (4, "map", PAGE),
        (5, "unmap", 2 * PAGE),
        (6, "map", 2 * PAGE),
    ]
    assert read(node, PAGE).stale[0].event == (3, "s1", "unmap", PAGE, PAGE)
    assert read(node, 2 * PAGE).stale[0].event == (5, "s1", "unmap", 2 * PAGE, PAGE)
    assert read(node, 3 * PAGE).stale == ()


def test_a_change_before_the_line_is_not_its():
    node, _ = one()
    remap(node, 0, 0x20_0000)
    read(node, 0)
    remap(node, 0, None)
    assert read(node, 0).stale[0].event.number == 3


def test_what_changed_below():
    log = ChangeLog()
    upper = stage("s1", (0, 0x10_0000, PAGE, 8), iotlb=TranslationCache(log=log), tlb=TranslationCache(log=log))
    lower = stage("s2", (PAGE, 0x4000_0000, PAGE, 15), (0x10_0000, 0x8000_0000, PAGE, 8))
    connect(upper, lower)
    log.watch(upper, lower)
    read(upper, PAGE)
    remap(lower, 0x10_0000, None)  # a neighbour of no concern
    remap(lower, 0x10_1000, 0x9000_0000)
    assert read(upper, PAGE).stale[0].event == (2, "s2", "unmap", 0x10_1000, PAGE)
    # The page of the upper stage's leaf table moves away below: nobody touched what the answer spoke of.
    upper.iotlb = None
    remap(lower, 4 * PAGE, None)
    stale = read(upper, PAGE).stale
    assert [(each.layer, each.now) for each in stale] == [("s1", None)]
    assert stale[0].event[1:] == ("s2", "unmap", 0x10_0000, PAGE)  # any change below since then: the first


def test_a_split_is_named_last():
    log = ChangeLog()
    node = stage("s1", (0, LARGE, LARGE, 1), tlb=TranslationCache(log=log))
    log.watch(node)
    read(node, 0)
    node.layer.table.split([PAGE])
    assert [change.what for change in log] == ["split"]
    assert read(node, 0).stale == ()
    node.layer.table.unmap(0, PAGE)
    assert read(node, 0).stale[0].event.what == "unmap"


def test_flat_tables_tell_too():
    log = ChangeLog()
    gart = FlatTable("gart", base=0, size=16 * PAGE, table=0x8000)
    node = Node(gart, tlb=TranslationCache(log=log))
    log.watch(node)
    gart.map(0, 0x4000, 2 * PAGE)
    read(node, PAGE)
    assert gart.unmap(8 * PAGE, PAGE) == 0  # nothing was there, nothing changed
    gart.unmap(0, 2 * PAGE)
    assert read(node, PAGE).stale[0].event == (2, "gart", "unmap", 0, 2 * PAGE)


def test_shadows_tell_of_what_a_sync_changed():
    source, log = stage("source", (0x1000, 0x8000, PAGE, 1)), ChangeLog()
    flat = flatten(source)
    flat.tlb = TranslationCache(log=log)
    log.watch(flat)
    read(flat, 0x1000)
    source.layer.table.unmap(0x1000, 0x1000)
    assert flat.layer.sync() == [(0x1000, 0x1000)]
    event = access(flat, 0x1000, 1, Access.READ).stale[0].event
    assert (event.layer, event.what, event.start, event.size) == ("flat", "sync", 0x1000, 0x1000)


def test_a_log_forgets_the_oldest():
    log = ChangeLog(limit=1)
    node = stage("s1", (0, 0x8000, PAGE, 8), tlb=TranslationCache(log=log))
    log.watch(node)
    read(node, 0)
    remap(node, 0, None)
    remap(node, PAGE, None)
    assert [change.number for change in log] == [2]
    assert read(node, 0).stale[0].event.number == 2  # of what it kept, one that may have changed tables on the way


def test_one_log_for_a_table():
    node, _ = one()
    with pytest.raises(Busy) as caught:
        ChangeLog().watch(node)
    assert str(caught.value) == "the table of 's1' is watched already"


def test_without_a_log_a_stale_answer_names_nothing():
    node = stage("s1", (0, 0x8000, PAGE, 1), tlb=TranslationCache())
    read(node, 0)
    remap(node, 0, None)
    assert read(node, 0).stale[0].event is None
