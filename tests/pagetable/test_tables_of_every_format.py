"""`RadixTable` of every format there is, beside a tree of dicts: no format is named here."""

import importlib.util
from itertools import product
from pathlib import Path

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swiommu.address import Prot
from swiommu.errors import AddressInUse, NoMemory, SwiommuError
from swiommu.pagetable import EMPTY, CountingTables, Leaf, LeafRun, RadixTable, Table
from swiommu.pagetable.formats import AMD_V1, FORMATS, MOCK, amd_v1, arm_lpae, riscv, vtd_ss

_SPEC = importlib.util.spec_from_file_location("tree_twin", Path(__file__).with_name("tree_twin.py"))
tree_twin = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tree_twin)
TreeTwin, Refused = tree_twin.TreeTwin, tree_twin.Refused

NEWER = [
    vtd_ss(profile="7.3"),
    amd_v1(profile="7.3"),
    riscv(profile="7.3"),
    *(arm_lpae(granule, stage, profile="7.3") for granule, stage in ((4096, 1), (16384, 2), (65536, 1))),
]
# what no kernel combines, and the rules allow
MIXED = [
    pytest.param(attrs.evolve(form, rules=attrs.evolve(form.rules, short_unmap=short)), id=f"{form.name}-{short}")
    for form, short in product((MOCK, AMD_V1, FORMATS["riscv-sv48-napot"]), ("split", "refuse"))
]
EVERY = [
    *(pytest.param(form, id=name) for name, form in FORMATS.items()),
    *(pytest.param(form, id=f"{form.name}-7.3") for form in NEWER),
    *MIXED,
]
every_format = pytest.mark.parametrize("form", EVERY)
MANY = 1000  # leaves: to compare them all after every step would take long
SEEN = 80  # of many leaves, those whose surroundings are looked up one by one
PROTS = [Prot.READ, Prot.WRITE, Prot.READ | Prot.WRITE, Prot.READ | Prot.CACHE | Prot.NOEXEC]

kinds = st.sampled_from(["map", "map", "map", "unmap", "unmap", "split", "fail"])
# An address is a digit for each level, so that few addresses meet often, at every level.
digits = st.lists(st.integers(0, 2), min_size=6, max_size=6)
steps = st.lists(
    st.tuples(kinds, digits, st.integers(0, 40), st.integers(1, 4), st.sampled_from(PROTS), st.booleans()), max_size=14
)


def address(form, spots, *, upper):
    at = sum(
        (digit << level.shift) & (1 << form.aperture_width) - 1
        for digit, level in zip(spots[::-1], form.levels[::-1], strict=False)
    )
    if upper and form.sign_extended:
        return (1 << 64) - (1 << form.aperture_width) + at
    return at


def sizes_of(form):
    """The sizes by turns, so that all of few and some of many are drawn."""
    sizes = sorted(size for level in form.levels for size in level.sizes.values())
    return sizes[:5] + [size for size in sizes if size in {level.pgsize for level in form.levels}]


class Pair:
    """The table and its twin, always asked the same."""

    def __init__(self, form):
        self.form, self.tables = form, CountingTables()
        self.table, self.twin = RadixTable(form, self.tables), TreeTwin(form)
        self.sizes = sizes_of(form)
        self.by_calls = form.rules.short_unmap == "whole" and form.rules.entered != "stop"

    def do(self, what, spots, which, count, prot, upper):
        size = self.sizes[which % len(self.sizes)]
        if what == "fail":
            self.tables.fail_nth(count)
        at = address(self.form, spots, upper=upper)
        if what in {"map", "fail"}:
            self.map(at & -size, size, count, prot, armed=what == "fail")
        elif what == "unmap":
            self.unmap(at, size * count)
        else:
            self.split(at)
        self.tables.fail_nth(0)
        self.compare()

    def map(self, at, size, count, prot, *, armed):
        to = (at * 7 + size) % (1 << self.form.output_width - 4) & -size
        before = self.table.leaves.copy()
        try:
            self.table.map_run(at, to, size, count, prot)
        except NoMemory:
            assert armed
            if not self.form.rules.replaces_live:
                assert self.table.leaves == before
            self.adopt()
            return
        except SwiommuError as error:
            if isinstance(error, AddressInUse):
                with pytest.raises(Refused, match=type(error).__name__):
                    self.twin.map(at & self.table.door.mask, to, size, count, prot)
            return  # else it was the door, which knows nothing of what is mapped
        self.twin.map(at & self.table.door.mask, to, size, count, prot)

    def unmap(self, at, size):
        try:
            dry = self.by_calls and self.table.remove(at, size, dry=True)
            gone = self.table.remove(at, size)
        except SwiommuError:
            return
        before, inner = self.twin.listed(), self.table.door.inner
        self.twin.walked.clear()
        assert gone.size == self.twin.unmap(at & self.table.door.mask, size)
        assert not self.by_calls or dry == gone
        walked = [(inner(each.iova), each.pgsize, each.page) for each in gone.walked]
        assert sorted(walked) == sorted({(held.start, held.size, held.oa) for held in self.twin.walked})
        if self.form.rules.drops_tables:
            for run in gone.runs:
                assert (run.iova, self.table.lookup(run.iova)) == (at, None)
                at += run.size
        elif self.form.rules.short_unmap != "split":
            leaves = [(inner(run.iova) + n * run.pgsize, run.pgsize) for run in gone.runs for n in range(run.leaves)]
            assert leaves == [held[:2] for held in before if held not in self.twin.listed()]

    def split(self, at):
        inner = at & self.table.door.mask
        try:
            self.table.split([at])
        except SwiommuError:
            # where the next level can't hold leaves; what could be done before that has not been done either
            trial = TreeTwin(self.form)
            for held in self.twin.listed():
                trial.put(trial.table(self.twin.kind[held.size][0], held.start), self.twin.kind[held.size][0], held)
            assert not trial.split(inner)
            return
        assert self.twin.split(inner)

    def adopt(self):
        """After a failure for want of memory only the leaves matter: which tables stand is the twin's to learn."""
        twin = TreeTwin(self.form)
        for node in self.table.nodes.within(self.table.nodes.root):
            twin.table(node.depth, self.table.nodes.start(node))
        for iova, leaf, size in self.table.each_leaf():
            held = next(each for each in self.twin.listed() if each.start == iova & self.table.door.mask)
            assert (held.size, held.oa) == (size, leaf.oa)
            twin.put(twin.table(twin.kind[size][0], held.start), twin.kind[size][0], held)
        self.twin = twin

    def compare(self):
        found = [(iova & self.table.door.mask, size, leaf.oa, leaf.prot) for iova, leaf, size in self.table.each_leaf()]
        effective = self.form.effective
        assert found == [(held.start, held.size, held.oa, effective(held.prot)) for held in self.twin.listed()]
        self.table.check()
        assert (
            sum(self.form.levels[node.depth].table_bytes for node in self.table.nodes.within(self.table.nodes.root))
            == 4096 * self.table.table_pages
        )

    def mapped(self):
        """By both halves of the input, if there are two."""
        whole = 1 << self.form.aperture_width
        yield from self.table.mapped(0, whole)
        if self.form.sign_extended:
            half = self.table.mapped((1 << 64) - whole, whole)
            yield from ((start & self.table.door.mask, (stop - 1 & self.table.door.mask) + 1) for start, stop in half)

    def stretches(self):
        """The twin's leaves, those that touch merged, but not over the middle of a sign-extended input."""
        merged = []
        for held in self.twin.listed():
            if merged and merged[-1][1] == held.start != 1 << self.form.aperture_width:
                merged[-1] = (merged[-1][0], held.start + held.size)
            else:
                merged.append((held.start, held.start + held.size))
        return merged

    def look_everywhere(self):
        """The twin's leaves at both ends and in the middle, and just outside of them."""
        outer = self.table.door.outer
        listed = self.twin.listed()
        if len(listed) > 3 * SEEN:  # `compare` has seen them all
            listed = listed[:SEEN] + listed[SEEN:-SEEN:31][:SEEN] + listed[-SEEN:]
        assert list(self.mapped()) == self.stretches()
        for held in listed:
            for at in (held.start, held.start + held.size // 2 + 5, held.start + held.size - 1):
                expected = held.oa + at - held.start, held.size, self.form.effective(held.prot)
                assert self.table.lookup(outer(at)) == expected
            for at in (held.start - 1, held.start + held.size):
                if self.table.door.holds(outer(at)) and at >= 0 and self.twin.find(at) is None:
                    assert self.table.lookup(outer(at)) is None


@every_format
@settings(max_examples=15)
@given(todo=steps)
@example(todo=[("map", [0] * 6, 0, 3, PROTS[0], False), ("unmap", [0] * 6, 0, 2, PROTS[0], False)])
def test_map_unmap_and_look_like_a_tree_of_dicts(form, todo):
    pair = Pair(form)
    for step in todo:
        pair.do(*step)
        if len(pair.twin.listed()) > MANY:
            break
    pair.look_everywhere()
    pair.table.dissolve()
    assert (len(pair.tables), pair.table.table_pages) == (0, 0)


@pytest.mark.slow
@every_format
@settings(max_examples=600)
@given(todo=steps)
def test_map_unmap_and_look_like_a_tree_of_dicts_for_long(form, todo):
    pair = Pair(form)
    for step in todo:
        pair.do(*step)
        if len(pair.twin.listed()) > MANY:
            break
    pair.look_everywhere()


def bytes_of(table):
    """What is not empty in memory, by address: an empty table that stays, and the way to it, are not counted."""
    nodes = table.nodes
    return {node.phys: table.dump_bytes(node.phys) for node in nodes.within(nodes.root) if nodes.holds_leaves(node)}


@every_format
def test_every_size_at_every_level_leaves_the_bytes_as_they_were(form):
    for size, (depth, order) in RadixTable(form, CountingTables()).door.leaf_of.items():
        if form.output_width <= size.bit_length():
            continue
        table = RadixTable(form, CountingTables())
        for at in (0, size):  # the first makes the tables, and the root grow
            before = bytes_of(table)
            table.map_run(at, size, size, 1, Prot.READ | Prot.WRITE)
            assert table.walk_refs[size] == len(table.walk(at).steps) == depth + 1 - table.root_depth
            assert table.lookup(at + size - 1) == (2 * size - 1, size, form.effective(Prot.READ | Prot.WRITE))
            words = table.dump_bytes(table.walk(at).steps[-1].table)
            copies = [int.from_bytes(words[n : n + 8], "little") for n in range(0, len(words), 8)]
            assert copies.count(table.walk(at).steps[-1].entry) == 1 << order
            assert sum(run.size for run in table.unmap(at, size)) == size
            assert bytes_of(table) == before
        table.close()


@every_format
def test_leaves_of_any_two_sizes_side_by_side(form):
    sizes = sizes_of(form)
    for first, second in product(sizes, sizes):
        table = RadixTable(form, CountingTables())
        base = 4 * max(first, second)
        if base > 1 << min(form.aperture_width, form.output_width) - 2:
            continue
        for at, size in ((base - first, first), (base, second)):
            table.map_run(at, 0, size, 1, Prot.READ)
        expected = [LeafRun(base - first, first, 1), LeafRun(base, second, 1)]
        if first == second:
            expected = [LeafRun(base - first, first, 2)]
        assert list(table.mapped(0, 2 * base)) == [(base - first, base + second)]
        assert table.met(base - first, first + second) == expected
        gone = table.unmap(base - first, first + second)
        assert sum(run.size for run in gone) == first + second
        assert form.rules.drops_tables or gone == expected
        table.check()
        assert not any(table.leaves.values())


@every_format
def test_a_leaf_that_is_taken_in_part_goes_by_the_rules_and_its_neighbour_goes(form):
    large, granule = form.levels[-2].pgsize, form.granule
    if form.rules.drops_tables or not form.levels[-2].can_leaf:
        return
    table = RadixTable(form, CountingTables())
    table.map_run(2 * large, 0, large, 2, Prot.READ)
    expected = {"whole": 2 * large, "refuse": large, "split": large + granule}[form.rules.short_unmap]
    assert list(table.mapped(2 * large + granule, granule)) == [(2 * large + granule, 2 * large + 2 * granule)]
    assert sum(run.size for run in table.unmap(2 * large, large + granule)) == expected
    table.check()


@every_format
def test_leaves_of_many_entries_are_taken_back_whole(form):
    for depth, level in enumerate(form.levels[1:], 1):
        for order in level.orders[-1:]:
            size = level.pgsize << order
            span = level.pgsize << level.bits
            if 3 * span > 1 << min(form.aperture_width, form.output_width):
                continue
            tables = CountingTables()
            table = RadixTable(form, tables)
            table.map_run(2 * span - size, 0, form.granule, 1, Prot.READ)
            with pytest.raises(AddressInUse):
                table.map_run(span, 0, size, span // size, Prot.READ)
            table.map_run(span - size, 0, size, 1, Prot.READ)
            assert table.unmap(span - size, size) == [LeafRun(span - size, size, 1)]
            tables.fail_nth(1 if standing(table, depth, span) else 2)
            with pytest.raises(SwiommuError):
                table.map_run(span - size, 0, size, 2 + span // size, Prot.READ)
            assert sum(table.leaves.values()) == 1
            table.check()


@every_format
def test_a_leaf_far_above_does_not_replace_live_pages_unless_the_rules_say_so(form):
    for level in form.levels[:-1]:
        size = level.pgsize
        if not level.can_leaf or 2 * size > 1 << min(form.aperture_width, form.output_width):
            continue
        table = RadixTable(form, CountingTables())
        table.map_run(size + form.granule, 0, form.granule, 1, Prot.READ)
        if form.rules.replaces_live:
            table.map_run(size, 0, size, 1, Prot.READ)
        else:
            with pytest.raises(AddressInUse):
                table.map_run(size, 0, size, 1, Prot.READ)
        assert table.leaves[form.granule] == (not form.rules.replaces_live)
        table.check()


@every_format
def test_a_leaf_of_any_size_is_split_into_what_says_the_same(form):
    """At a high address, so that no table on the way is the first of its level; coherent, if that can be enforced."""
    granule, both = form.granule, Prot.READ | Prot.CACHE
    smallest = (min(level.sizes.values()) for level in form.levels if level.sizes)
    for size in sorted({*sizes_of(form), *smallest}):
        at = 1 << form.aperture_width - 1
        if size == granule or at < 2 * size or form.output_width <= size.bit_length():
            continue
        table, fresh = RadixTable(form, CountingTables()), RadixTable(form, CountingTables())
        table.enforce_coherency()
        fresh.enforce_coherency()
        table.map_run(at, size, size, 1, both)
        fresh.map_run(at, size, granule, 1, both)
        try:
            table.split([at + granule, at + size])
        except SwiommuError:
            assert (table.leaves[size], sum(table.leaves.values())) == (1, 1)
            continue
        table.check()
        assert sum(each * count for each, count in table.leaves.items()) == size
        assert table.walk(at).steps[-1].entry == fresh.walk(at).steps[-1].entry
        for place in (0, granule, size // 2, size - 1):
            to, _, prot = table.lookup(at + place)
            assert (to, prot) == (size + place, form.effective(both))
        assert table.lookup(at + size) is None
        assert sum(run.size for run in table.unmap(at, size)) == size
        table.check()


def standing(table, depth, at):
    return at >> table.nodes.shape[depth][1] in table.nodes.by_depth[depth]


@every_format
def test_a_table_goes_with_an_unmap_that_covers_it_and_what_is_above_it_too(form):
    """Of two levels with leaves: the upper table is full of them, but for one entry, which leads to a full table."""
    for depth, level in enumerate(form.levels[1:-1], 1):
        span = level.pgsize << level.bits
        if not level.can_leaf or 2 * span > 1 << min(form.aperture_width, form.output_width):
            continue
        table = RadixTable(form, CountingTables())
        below, last = form.levels[depth + 1], 2 * span - level.pgsize
        table.map_run(span, 0, level.pgsize, (1 << level.bits) - 1, Prot.READ)
        table.map_run(last, 0, below.pgsize, 1 << below.bits, Prot.READ)
        assert standing(table, depth, span)
        assert standing(table, depth + 1, last)
        assert sum(run.size for run in table.unmap(span, span)) == span
        assert not standing(table, depth, span)
        assert not standing(table, depth + 1, last)
        assert not any(table.leaves.values())
        table.check()


@every_format
def test_a_table_that_an_unmap_empties_but_does_not_cover_stays_if_the_rules_say_so(form):
    level, depth = form.levels[-1], len(form.levels) - 1
    size, span = level.pgsize, level.pgsize << level.bits
    for first, count in ((span, 2), (2 * span - 2 * size, 2), (span - size, 2), (2 * span - size, 2)):
        table = RadixTable(form, CountingTables())
        table.map_run(first, 0, size, count, Prot.READ)
        tables = {at & -span for at in (first, first + size)}
        assert sum(run.size for run in table.unmap(first, count * size)) == count * size
        assert all(standing(table, depth, at) == form.rules.keeps_empty for at in tables)
        table.check()


@every_format
def test_whichever_table_page_is_missing_nothing_has_changed(form):
    size = form.granule
    there = (1 << form.aperture_width - 1) + 5 * size
    count = (1 << form.levels[-1].bits) + 3  # into the next table
    needed = 1
    while True:
        tables = CountingTables()
        table = RadixTable(form, tables)
        table.map_run(7 * size, 0, size, 2, Prot.READ)
        before, pages = list(table.each_leaf()), len(tables)
        tables.fail_nth(needed)
        try:
            table.map_run(there, 0, size, count, Prot.READ)
        except NoMemory:
            assert list(table.each_leaf()) == before
            table.check()
            if not form.rules.keeps_empty:
                assert len(tables) == pages
            needed += 1
            continue
        break
    assert needed >= 3
    table.dissolve()
    assert len(tables) == 0


def naive_walk(table, at):
    """A walk as a manual tells it, over words that anybody may have written."""
    form, phys, allows, said = table.format, table.root, Prot.READ | Prot.WRITE, Prot.NONE
    top = form.levels[table.root_depth]
    if (at & table.door.mask) >> top.shift + top.bits:
        return None
    for depth in range(table.root_depth, len(form.levels)):
        level = form.levels[depth]
        item = form.decode(table.entry_at(phys + 8 * (at >> level.shift & (1 << level.bits) - 1)), depth)
        if isinstance(item, Leaf):
            size = 1 << level.shift + item.order
            if item.order not in level.sizes or item.oa % size:
                return None
            kept = item.prot & ~(Prot.READ | Prot.WRITE) | item.prot & allows | said
            return item.oa + at % size, size, kept
        if not isinstance(item, Table) or depth == len(form.levels) - 1:
            return None
        phys, allows, said = item.oa, allows & item.allows, said | item.prot
    return None


def found(look, *args):
    try:
        return look(*args)
    except SwiommuError as error:  # the way leaves the tables
        return str(error)


@every_format
@settings(max_examples=settings.default.max_examples // 6)
@given(
    flips=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.integers(0, 63)), min_size=1, max_size=12
    ),
    data=st.data(),
)
def test_flipped_bits_lead_to_what_the_words_say_or_nowhere(form, flips, data):
    table = RadixTable(form, CountingTables())
    sizes = sizes_of(form)
    for n, size in enumerate(sizes):
        if 4 * size * (n + 1) < 1 << min(form.aperture_width, form.output_width):
            found(table.map_run, (n + 1) * 4 * size, 2 * size, size, 2, PROTS[n % 3])
    nodes = list(table.nodes.within(table.nodes.root))
    used = [(node, index) for node in nodes for index, word in enumerate(node.words) if word]
    for which, other, bit in flips:
        node, index = (
            used[which % len(used)]
            if other % 4
            else (nodes[which % len(nodes)], other % len(nodes[which % len(nodes)].words))
        )
        node.words[index] ^= 1 << bit
    whole = 1 << form.aperture_width
    ats = [(n + 1) * 4 * size + 77 for n, size in enumerate(sizes)] + data.draw(
        st.lists(st.integers(0, whole - 1), max_size=5)
    )
    for at in ats:
        if table.door.holds(at):
            assert found(table.lookup, at) == found(naive_walk, table, at)
            outcome = found(table.walk, at)
            if not isinstance(outcome, str):
                assert len(outcome.steps) <= len(form.levels)
                assert outcome.outcome == EMPTY or outcome.outcome.oa + outcome.pgsize <= 1 << max(
                    form.output_width, 52
                )


BY_CALLS = [form for form in FORMATS.values() if form.rules.entered != "stop"]


@pytest.mark.parametrize("form", BY_CALLS, ids=lambda form: form.name)
def test_unmaps_that_begin_and_end_anywhere_in_leaves(form):
    """Beside one another: pages, a hole, 2 MiB twice, pages, 1 GiB, pages; from and to every kind of place."""
    k4, m2, gib = 1 << 12, 1 << 21, 1 << 30
    leaves = [(gib - 3 * m2, m2, 1), (gib - m2 - k4, k4, 1), (gib - m2, m2, 1), (gib, gib, 1), (2 * gib, k4, 2)]
    leaves += [(2 * gib + m2, m2, 2), (2 * gib + 3 * m2, k4, 3)]
    edges = {edge for at, size, count in leaves for edge in (at, at + size * count)}
    places = sorted({edge + offset for edge in edges for offset in (-k4, 0, k4, 3 * k4, -m2, m2 // 2)})
    for at in places:
        for size in (k4, 3 * k4, m2 // 2, m2, m2 + k4, 2 * m2 + k4, gib // 2, gib, gib + m2 + k4):
            pair = Pair(form)
            for start, pgsize, count in leaves:
                pair.map(start, pgsize, count, Prot.READ, armed=False)
            pair.unmap(at, size)
            pair.compare()
