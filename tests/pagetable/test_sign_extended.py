"""Formats whose addresses are canonical: two halves of the input, and a hole of 64 bits between them."""

import pytest

from swiommu.address import Prot
from swiommu.errors import OutOfRange
from swiommu.pagetable import CountingTables, LeafRun, RadixTable
from swiommu.pagetable.formats import FORMATS

RW = Prot.READ | Prot.WRITE
SIGNED = [form for form in FORMATS.values() if form.sign_extended]


@pytest.mark.parametrize("form", SIGNED, ids=lambda form: form.name)
def test_the_halves_meet_in_the_table_and_nowhere_else(form):
    table, page = RadixTable(form, CountingTables()), form.granule
    lower, upper = (1 << form.aperture_width) - page, (1 << 64) - (1 << form.aperture_width)
    top = (1 << 64) - page
    for n, at in enumerate((lower, upper, top)):
        table.map_run(at, n * page, page, 1, RW)
    assert [(iova, leaf.oa) for iova, leaf, _ in table.each_leaf()] == [(lower, 0), (upper, page), (top, 2 * page)]
    assert table.lookup(top + page - 1)[0] == 3 * page - 1
    for at in (lower + page, upper - page, upper - 1):
        with pytest.raises(OutOfRange):
            table.lookup(at)
    for call in (table.unmap, table.met):
        for at, size in ((lower, 2 * page), (lower, upper + page - lower), (upper - page, 2 * page)):
            with pytest.raises(OutOfRange):
                call(at, size)
    for at in (lower, upper, top):
        assert list(table.mapped(at, page)) == [(at, at + page)]
        assert table.met(at, page) == [LeafRun(at, page, 1)]
        assert table.unmap(at, page) == [LeafRun(at, page, 1)]
    table.check()


@pytest.mark.parametrize("form", SIGNED, ids=lambda form: form.name)
def test_a_table_of_the_upper_half_is_replaced_at_its_address(form):
    table, told = RadixTable(form, CountingTables()), []
    table.on_replace = lambda iova, size: told.append((iova, size))
    page, large = form.granule, form.levels[-2].pgsize
    at = (1 << 64) - 2 * large
    table.map_run(at + page, 0, page, 1, RW)
    table.unmap(at + page, page)
    table.map_run(at, 0, large, 1, RW)
    assert told == [(at, large)]
