"""Ranges mapped at once, in every format."""

import pytest

from swiommu.address import Prot
from swiommu.errors import AddressInUse, AlreadyMapped, InvalidArgument
from swiommu.pagetable import FORMATS, CountingTables, RadixTable


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
def test_a_range_is_mapped_in_the_largest_pages_or_not_at_all(form):
    granule, sizes = form.granule, form.pgsize_bitmap
    larger = sizes & ~granule
    large = larger & -larger
    table = RadixTable(form, CountingTables())
    start, to, size = large - granule, 3 * large - granule, 2 * large + 2 * granule
    table.map(start, to, size, Prot.READ | Prot.WRITE)
    assert [table.lookup(at)[0] - to for at in range(start, start + size, granule)] == list(range(0, size, granule))
    assert table.lookup(start)[1] == granule
    assert table.lookup(large)[1] == large
    before, pages = list(table.mapped(0, 16 * large)), table.table_pages
    with pytest.raises((AddressInUse, AlreadyMapped)):
        table.map(start - granule, to - granule, 2 * granule, Prot.READ | Prot.WRITE)
    assert (list(table.mapped(0, 16 * large)), table.table_pages) == (before, pages)
    with pytest.raises(InvalidArgument):
        table.map(8 * large, 0, 0, Prot.READ | Prot.WRITE)
    small = RadixTable(form, CountingTables())
    small.map(start, to, size, Prot.READ | Prot.WRITE, pgsizes=granule)
    assert small.leaves == {**dict.fromkeys(small.leaves, 0), granule: size // granule}
