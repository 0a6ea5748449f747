"""The page-table formats that laws are tried on: those there are, and tiny ones whose borders are never far.

Pages of 4, 16 and 64 KiB are what pieces of stages are made of: each format writes them in the largest leaves that it
has up to that size. The tiny ones have all three, and the rules of one family of page-table code each, so that
leaves that are split, tables that large leaves replace and tables that stay behind are met as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from swiommu.pagetable import MOCK, Format, Level
from swiommu.pagetable.formats import FORMATS
from swiommu.pagetable.rules import ARM_LPAE, ARM_LPAE_SPLITTING, GENERIC_PT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swiommu.pagetable import RadixTable

__all__ = ["DRAWN", "LAW_FORMATS", "SIGNED", "TINY", "leaf_size", "leaves_empty_tables", "replaces_live_pages"]

_LEVELS = (
    Level(shift=20, bits=6),
    Level(shift=16, bits=4, can_leaf=True),
    Level(shift=14, bits=2, can_leaf=True),
    Level(shift=12, bits=2, can_leaf=True),
)

TINY = attrs.evolve(MOCK, name="tiny", levels=_LEVELS)
"""Four levels as the mock format has, but 26 bits of input and leaves of 4, 16 and 64 KiB."""

_BY_RULES = (
    attrs.evolve(TINY, name="tiny-generic", rules=GENERIC_PT),
    attrs.evolve(TINY, name="tiny-splitting", rules=ARM_LPAE_SPLITTING),
    attrs.evolve(TINY, name="tiny-refusing", rules=ARM_LPAE),
)

LAW_FORMATS: Final[Mapping[str, Format]] = {form.name: form for form in (TINY, *_BY_RULES, *FORMATS.values())}
"""By name: tiny ones first, then all of `swiommu.pagetable.formats.FORMATS`."""

SIGNED: Final = tuple(name for name, form in LAW_FORMATS.items() if form.sign_extended)
"""The names of those whose inputs have an upper half."""

DRAWN: Final = ("tiny",) * 44 + tuple(form.name for form in _BY_RULES) * 2 + tuple(FORMATS)
"""Names as they are drawn unless somebody says otherwise: mostly "tiny", a third of the time one that there is."""


def leaf_size(form: Format, page: int) -> int:
    """The leaves that a page of ``page`` bytes is made of: the largest that ``form`` has up to that; ``page`` if none.

    >>> from swiommu.pagetable.formats import AMD_V1
    >>> [leaf_size(form, 0x1_0000) for form in (TINY, MOCK, AMD_V1)], leaf_size(LAW_FORMATS["mock64k"], 0x1000)
    ([65536, 4096, 65536], 4096)
    """
    sizes = form.pgsize_bitmap & 2 * page - 1
    return 1 << sizes.bit_length() - 1 if sizes else page


def leaves_empty_tables(form: Format) -> bool:
    """Whether an unmap may leave a table behind that the map before it made.

    Then the bytes of tables, and what a hole costs, are as before only from the second time on.

    >>> leaves_empty_tables(TINY), leaves_empty_tables(LAW_FORMATS["vtd-ss-4"])
    (False, True)
    """
    return form.rules.keeps_empty


def replaces_live_pages(table: RadixTable, at: int, size: int, page: int) -> bool:
    """Whether leaves of up to ``page`` bytes for ``size`` bytes at ``at`` would take the place of live ones.

    Such a map takes away what was there, which no law of mapping is about: a domain in a stack refuses it.

    >>> from swiommu.pagetable import CountingTables, RadixTable
    >>> for name in ("tiny", "tiny-splitting"):
    ...     table = RadixTable(LAW_FORMATS[name], CountingTables())
    ...     table.map_run(0x1_0000, 0, 0x1000, 1, 3)
    ...     print(replaces_live_pages(table, 0x1_0000, 0x4000, 0x4000), replaces_live_pages(table, 0, 0x4000, 0x4000))
    False False
    True False
    """
    if not table.format.rules.replaces_live:
        return False
    larger = leaf_size(table.format, page)
    return any(
        live.pgsize < larger for start, stop in table.mapped(at, size) for live in table.met(start, stop - start)
    )
