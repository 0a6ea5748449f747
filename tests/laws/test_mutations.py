"""Each law finds the bug that it is there for: one is planted in the code of layers, domains or allocators.

A mutation belongs to a law by its number. What is planted is a mistake that somebody could make; the law's own check,
tried as everywhere else, has to fail with a message that names the law and what was seen.
"""

import re

import attrs
import pytest

import swiommu.layer.cache.answers as answers_module
import swiommu.layer.cache.invalidating as invalidation_module
import swiommu.layer.node as node_module
import swiommu.layer.path as path_module
import swiommu.layer.translation as translation_module
from swiommu.address import PAGE_SIZE, Access, Prot
from swiommu.iommu import TopDownIova
from swiommu.layer import (
    Attributes,
    Blocked,
    Chain,
    Extent,
    FaultKind,
    Identity,
    MemoryType,
    Node,
    Paged,
    Shadow,
    Window,
)
from swiommu.layer.attributes import meet_prot
from swiommu.layer.extents import pieces
from swiommu.layer.path import Reach
from swiommu.pagetable import Leaf, RadixTable, Table
from swiommu.pagetable.door import TableDoor
from swiommu.pagetable.nodes import Nodes
from swiommu.pagetable.tables import TablePages
from swiommu.pagetable.walk import Narrowing
from swiommu.region import Region
from swiommu.testing import LAWS
from swiommu.testing.cases import CASES, cases_of
from swiommu.testing.formats import LAW_FORMATS

EXAMPLES = 600  # none needs nearly as many


def bypass_has_an_opinion(patch):
    real = Identity.look

    def look(self, at, read):
        found = real(self, at, read)
        if isinstance(found, FaultKind):
            return found
        return found._replace(attributes=Attributes(MemoryType.NON_CACHEABLE))

    patch.setattr(Identity, "look", look)


def blocker_lets_one_page_in_four_through(patch):
    def look(self, at, read):
        return Extent(at, at, 1, 1, Prot(3)) if at & 0x3000 == 0x3000 else FaultKind.TRANSLATION

    patch.setattr(Blocked, "look", look)


def walker_is_bound_to_the_next_chain_only(patch):
    def walk(self, at, why, trip, rest):
        first = self.upper.travel(at, why, trip, (self.lower,))
        return first.then(self.lower.travel(first.to(at), why, trip, rest))

    patch.setattr(Chain, "_walk", walk)


def block_is_that_of_the_upper_layer(patch):
    real = Reach.then
    patch.setattr(Reach, "then", lambda self, lower: real(self, lower)._replace(block=self.block))


def memory_type_below_is_ignored(patch):
    real = Reach.then
    patch.setattr(Reach, "then", lambda self, lower: real(self, lower)._replace(attributes=self.attributes))


def flattening_forgets_the_walkers(patch):
    patch.setattr(Shadow, "_reached", lambda self: pieces(self.source))


def flat_faults_have_no_label(patch):
    patch.setattr(Shadow, "blame", lambda self, fault: fault)


def sync_looks_at_the_number_of_pieces_only(patch):
    real = Shadow.sync

    def sync(self):
        return [] if self._pieces and len(list(self._reached())) == len(self._pieces) else real(self)

    patch.setattr(Shadow, "sync", sync)


def window_ends_one_byte_late(patch):
    real = Window.look

    def look(self, at, read):
        last = [span for span in self.spans if span.stop == at]
        return real(self, at - 1, read) if last else real(self, at, read)

    patch.setattr(Window, "look", look)


def empty_tables_stay(patch):
    patch.setattr(Nodes, "prune", lambda self, node: None)


def unmap_takes_the_neighbour_too(patch):
    real = RadixTable.remove

    def unmap(self, iova, size, **named):
        runs = real(self, iova, size, **named)
        found = self.lookup(iova + size)
        if found and not iova + size & found[1] - 1:
            real(self, iova + size, found[1], **named)
        return runs

    patch.setattr(RadixTable, "remove", unmap)


def execute_never_needs_both(patch):
    def meet(one, other):
        return meet_prot(one, other) & ~Prot.NOEXEC | one & other & Prot.NOEXEC

    patch.setattr(path_module, "meet_prot", meet)


def permission_is_not_asked_for(patch):
    patch.setattr(node_module, "allowed", lambda prot: 7 if prot & Prot.NOEXEC else 3)


def the_top_is_always_blamed(patch):
    real = Node.refusal

    def refusal(self, kind, at, why, trip):
        return real(trip.way[0], kind, at, why, trip)

    patch.setattr(Node, "refusal", refusal)


def lower_layers_are_asked_first(patch):
    # Permission of a layer comes after all that is below it has answered.
    real = Node._own

    def own(self, at, why, trip, rest):
        below = self.lowers or rest[:1]
        found = self.layer.look(at, self.reader(why, trip, rest))
        if isinstance(found, Extent) and below and not self.lowers:
            rest[0].travel(found.output + at - found.input, why, trip, rest[1:])
        return real(self, at, why, trip, rest)

    patch.setattr(Node, "_own", own)


def runs_are_not_cut_below(patch):
    real = Reach.then

    def then(self, lower):
        found = real(self, lower)
        return found._replace(size=self.input + self.size - found.input)

    patch.setattr(Reach, "then", then)


def outputs_are_one_page_low(patch):
    # Those of small pages of the memory that is bound: tables lie elsewhere, and stay what they are.
    real, bound = RadixTable.map_run, range(0x48_0000, 0x80_0000)

    def map_run(self, iova, paddr, pgsize, count, prot):
        low = paddr - PAGE_SIZE if pgsize == PAGE_SIZE and paddr in bound else paddr
        return real(self, iova, low, pgsize, count, prot)

    patch.setattr(RadixTable, "map_run", map_run)


def invalidation_from_the_top_down(patch):
    real = invalidation_module._bottom_up
    patch.setattr(invalidation_module, "_bottom_up", lambda place: real(place)[::-1])


def invalidation_of_the_first_page_only(patch):
    real = invalidation_module._steps
    first = lambda place, start, size, *rest: real(place, start, size and 1, *rest)  # noqa: E731
    patch.setattr(invalidation_module, "_steps", first)


def hits_ask_for_no_permission(patch):
    patch.setattr(answers_module, "allowed", lambda prot: 7)


def uppers_are_not_told(patch):
    patch.setattr(invalidation_module, "_bottom_up", lambda place: [place])


def large_leaves_forget_no_exec(patch):
    real = RadixTable.map_run

    def map_run(self, iova, paddr, pgsize, count, prot):
        return real(self, iova, paddr, pgsize, count, prot if pgsize == self.granule else prot & ~Prot.NOEXEC)

    patch.setattr(RadixTable, "map_run", map_run)


def runs_are_never_joined(patch):
    patch.setattr(translation_module, "_append", lambda runs, run: runs.append(run))


def runs_are_joined_whatever_they_allow(patch):
    def append(runs, run):
        if runs and runs[-1].output + runs[-1].size == run.output:
            runs[-1] = runs[-1]._replace(size=runs[-1].size + run.size)
        else:
            runs.append(run)

    patch.setattr(translation_module, "_append", append)


def marks_are_of_small_pages(patch):
    def touched(self, at, *, write):
        self.marks.note(at & -PAGE_SIZE, PAGE_SIZE, write=write)

    patch.setattr(Paged, "touched", touched)


def tables_are_never_dirty(patch):
    patch.setattr(node_module, "_READ_WRITE", int(Access.READ))


def free_gives_a_page_too_few(patch):
    real = TopDownIova.free

    def free(self, iova, size):
        real(self, iova, size - PAGE_SIZE if size > PAGE_SIZE else size)

    patch.setattr(TopDownIova, "free", free)


def the_account_misses_a_page_of_each_chunk(patch):
    real = Region._remember

    def remember(self, chunk):
        self.free_space += PAGE_SIZE
        return real(self, chunk)

    patch.setattr(Region, "_remember", remember)


def large_leaves_begin_one_page_low(patch):
    # As if the lowest bit of the address were not masked in a large leaf: what lies before it is reached.
    real = Paged._extent

    def extent(self, start, leaf, pgsize):
        found = real(self, start, leaf, pgsize)
        return found if pgsize == PAGE_SIZE else found._replace(output=found.output - PAGE_SIZE)

    patch.setattr(Paged, "_extent", extent)


def the_first_permission_is_everybodys(patch):
    real = RadixTable.map_run

    def map_run(self, iova, paddr, pgsize, count, prot):
        self.first = getattr(self, "first", prot)
        return real(self, iova, paddr, pgsize, count, self.first)

    patch.setattr(RadixTable, "map_run", map_run)


def walks_of_walks_are_not_counted(patch):
    real = Node._read

    def read(self, address, width, why, trip, rest):
        before = trip.refs
        value = real(self, address, width, why, trip, rest)
        trip.refs = before + 1
        return value

    patch.setattr(Node, "_read", read)


def lookup_forgets_the_offset_in_large_leaves(patch):
    real = RadixTable.lookup

    def lookup(self, iova):
        found = real(self, iova)
        if found is None or iova >> 25:  # where the tables of domains above lie, which would be torn
            return found
        output, pgsize, prot = found
        return (output & -pgsize) + (iova & PAGE_SIZE - 1), pgsize, prot

    patch.setattr(RadixTable, "lookup", lookup)


def an_index_is_one_bit_short(patch):
    real = RadixTable.walk
    patch.setattr(RadixTable, "walk", lambda self, iova, read=None: real(self, iova & ~(1 << 23), read))


MUTATIONS = [
    (1, bypass_has_an_opinion),
    (2, blocker_lets_one_page_in_four_through),
    (3, walker_is_bound_to_the_next_chain_only),
    (4, block_is_that_of_the_upper_layer),
    (4, memory_type_below_is_ignored),
    (5, flattening_forgets_the_walkers),
    (5, flat_faults_have_no_label),
    (6, sync_looks_at_the_number_of_pieces_only),
    (7, window_ends_one_byte_late),
    (8, empty_tables_stay),
    (8, unmap_takes_the_neighbour_too),
    (9, execute_never_needs_both),
    (9, permission_is_not_asked_for),
    (10, the_top_is_always_blamed),
    (10, lower_layers_are_asked_first),
    (11, runs_are_not_cut_below),
    (12, large_leaves_begin_one_page_low),
    (13, invalidation_from_the_top_down),
    (13, invalidation_of_the_first_page_only),
    (13, hits_ask_for_no_permission),
    (13, uppers_are_not_told),
    (14, large_leaves_forget_no_exec),
    (15, runs_are_never_joined),
    (15, runs_are_joined_whatever_they_allow),
    (16, marks_are_of_small_pages),
    (16, tables_are_never_dirty),
    (18, free_gives_a_page_too_few),
    (18, the_account_misses_a_page_of_each_chunk),
    (19, the_first_permission_is_everybodys),
    (20, walks_of_walks_are_not_counted),
    (21, lookup_forgets_the_offset_in_large_leaves),
    (22, an_index_is_one_bit_short),
    (23, outputs_are_one_page_low),
]


# -- of formats: each is looked for where only tables of the formats named are drawn


def format_with(patch, name, **functions):
    patch.setitem(LAW_FORMATS, name, attrs.evolve(LAW_FORMATS[name], **functions))


def decoded_as(patch, name, change):
    # The format, with what its decoder says of an entry changed.
    real = LAW_FORMATS[name].decode
    format_with(patch, name, decode=lambda word, depth: change(real(word, depth), depth))


def table_entries_take_nothing_off(patch):
    patch.setattr(Narrowing, "through", lambda self, table: self)


def table_entries_are_not_decoded_for_rights(patch):
    decoded_as(patch, "vtd-ss-4", lambda item, _: Table(item.oa) if isinstance(item, Table) else item)


def only_the_last_table_entry_counts(patch):
    patch.setattr(Narrowing, "through", lambda self, table: Narrowing(table.allows, table.prot))


def no_execution_below_is_overlooked(patch):
    decoded_as(patch, "x86-64-4", lambda item, _: Table(item.oa, item.allows) if isinstance(item, Table) else item)


def size_of_a_leaf_is_one_bit_short(patch):
    def change(item, depth):
        return attrs.evolve(item, order=item.order - 1) if isinstance(item, Leaf) and item.order > 1 else item

    decoded_as(patch, "amd-v1", change)


def size_of_a_leaf_is_written_one_bit_long(patch):
    real = LAW_FORMATS["amd-v1"].leaf_entry
    format_with(
        patch, "amd-v1", leaf_entry=lambda oa, depth, prot, order: real(oa, depth, prot, order + 1 if order else 0)
    )


def pages_of_64k_begin_at_each_of_their_words(patch):
    # As if the bits of the size were a part of the address, which is 32 KiB further then.
    def change(item, depth):
        return attrs.evolve(item, oa=item.oa + 0x8000, order=0) if isinstance(item, Leaf) and item.order else item

    decoded_as(patch, "riscv-sv48-napot", change)


def root_grows_without_its_old_half(patch):
    real = Nodes.grow

    def grow(self, depth, last):
        former = self.root
        real(self, depth, last)
        if former.above is not None:
            former.above.words[0] = 0

    patch.setattr(Nodes, "grow", grow)


def upper_half_is_taken_for_the_lower(patch):
    patch.setattr(TableDoor, "outer", lambda self, at: at)


def large_tables_are_their_first_page(patch):
    def word(self, address):
        page = address & -PAGE_SIZE
        return self.entries(self._inside.get(page, page))[address - page >> 3]

    patch.setattr(TablePages, "word", word)


TABLES_OF_RIGHTS = ["vtd-ss-4", "x86-64-4", "amd-v1", "arm-lpae-4k-s1", "arm-lpae-64k-s1"]
FORMAT_MUTATIONS = [
    (9, TABLES_OF_RIGHTS, table_entries_take_nothing_off),
    (9, ["vtd-ss-4"], table_entries_are_not_decoded_for_rights),
    (9, TABLES_OF_RIGHTS, only_the_last_table_entry_counts),
    (9, ["x86-64-4"], no_execution_below_is_overlooked),
    (14, ["amd-v1"], size_of_a_leaf_is_one_bit_short),
    (14, ["amd-v1"], size_of_a_leaf_is_written_one_bit_long),
    (14, ["riscv-sv48-napot"], pages_of_64k_begin_at_each_of_their_words),
    (19, ["amd-v1"], root_grows_without_its_old_half),
    (11, ["x86-64-4", "riscv-sv39"], upper_half_is_taken_for_the_lower),
    (11, ["arm-lpae-16k-s1"], large_tables_are_their_first_page),
]


def test_every_law_has_a_mutation():
    assert {number for number, _ in MUTATIONS} == set(LAWS)


@pytest.mark.parametrize(("number", "plant"), MUTATIONS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_law_finds_the_planted_bug(number, plant, monkeypatch):
    plant(monkeypatch)
    found(number, plant, CASES)


@pytest.mark.parametrize(
    ("number", "formats", "plant"),
    FORMAT_MUTATIONS,
    ids=[f"{number}-{plant.__name__}" for number, _, plant in FORMAT_MUTATIONS],
)
def test_law_finds_the_bug_planted_in_formats(number, formats, plant, monkeypatch):
    plant(monkeypatch)
    found(number, plant, reversed(cases_of(formats)))  # what is tried on formats alone comes late, and is cheap


def found(number, plant, cases):
    said = next(filter(None, (broken_by(case) for case in cases if case.number == number)), None)
    assert said is not None, f"law {number} holds with {plant.__name__} planted"
    # One line, which begins with the law and shows an address or a number.
    assert re.match(rf"law {number} \({LAWS[number].name}\): [^\n]*\d[^\n]*$", said)


def broken_by(case):
    try:
        case.hold(examples=EXAMPLES, shrink=False)
    except AssertionError as error:
        return str(error)
    return None
