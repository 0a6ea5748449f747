"""Laws of what only some formats have: rights that a table entry takes off, roots that grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hypothesis import strategies as st

from swiommu.address import PAGE_SIZE, Prot
from swiommu.layer import Paged
from swiommu.pagetable import CountingTables, RadixTable
from swiommu.testing import laws
from swiommu.testing.case import Case
from swiommu.testing.formats import LAW_FORMATS
from swiommu.testing.probes import Probe
from swiommu.testing.strategies import prots

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TAKEN_OFF", "Right", "format_cases_of"]


class Right(NamedTuple):
    """Bits of a table word without which, or (``when_set``) with which, what is below it lacks ``prot``."""

    prot: Prot
    mask: int
    when_set: bool = False


_WRITE, _NOEXEC = Prot.WRITE, Prot.NOEXEC
_VTD = (Right(Prot.READ, 1 << 0), Right(_WRITE, 1 << 1))
_X86 = (Right(_WRITE, 1 << 1), Right(_NOEXEC, 1 << 63, when_set=True))
_AMD = (Right(Prot.READ, 1 << 61), Right(_WRITE, 1 << 62))
_ARM_1 = (Right(_WRITE, 1 << 62, when_set=True), Right(_NOEXEC, 1 << 60, when_set=True))
_FAMILIES = (("vtd-ss-", _VTD), ("x86-64-", _X86), ("amd-v1", _AMD))

TAKEN_OFF = {
    name: next((rights for start, rights in _FAMILIES if name.startswith(start)), _ARM_1)
    for name in LAW_FORMATS
    if name.startswith(tuple(start for start, _ in _FAMILIES)) or (name.startswith("arm-") and "-s1" in name)
}
"""What table entries can take off, by the name of the format; of the hardware's manuals, not of our decoders."""

_FAR = (0, 1 << 26, 1 << 39, 1 << 47, 1 << 48, 1 << 57, 3 << 62)
"""Where tables of a growing format need one root after the other."""


def _table_entries(name: str, prots: Sequence[Prot], depth: int, which: int, where: int) -> None:
    # One page in each of a few of the lowest tables; an entry on the way to one of the pages gets another word.
    form = LAW_FORMATS[name]
    table, page, apart = RadixTable(form, CountingTables()), form.granule, form.levels[-2].pgsize
    for number, prot in enumerate(prots):
        table.map_run(number * apart, number * page, page, 1, prot)
    probes = [Probe(number * apart + 7) for number in range(len(prots) + 1)]
    steps = table.walk(where % len(prots) * apart).steps[:-1]
    at, right = steps[depth % len(steps)], TAKEN_OFF[name][which % len(TAKEN_OFF[name])]
    below = [probe for probe in probes if at in table.walk(probe.start).steps]
    words = table.nodes.memory.entries(at.table)  # as somebody else writes them

    def take() -> None:
        words[at.slot] = at.entry | right.mask if right.when_set else at.entry & ~right.mask

    laws.taken_off(Paged("iommu", table), probes, take, right.prot, below)


def _growing(name: str, order: Sequence[int], pages: Sequence[int], offset: int) -> None:
    one, other = (RadixTable(LAW_FORMATS[name], CountingTables()) for _ in range(2))
    for table, sequence in ((one, sorted(order)), (other, order)):
        for place in sequence:
            page = pages[place] * PAGE_SIZE
            table.map_run(_FAR[place] + page, page, PAGE_SIZE, 1, Prot.READ | Prot.WRITE)
    probes = [Probe(far + page * PAGE_SIZE + offset, 0x1000) for far, page in zip(_FAR, pages, strict=True)]
    laws.order_independence(Paged("iommu", one), Paged("iommu", other), probes)


def format_cases_of(names: Sequence[str]) -> list[Case]:
    """The laws of what formats of ``names`` have beyond others; none for the others.

    >>> [str(case) for name in ("mock", "x86-64-4", "amd-v1") for case in format_cases_of([name])]
    ['9-table entries', '9-table entries', '19-roots that grow']
    """
    narrow = [name for name in LAW_FORMATS if name in names and name in TAKEN_OFF]
    growing = [name for name in LAW_FORMATS if name in names and LAW_FORMATS[name].start]
    some, any_ = st.lists(prots(), min_size=1, max_size=4), st.integers(0, 5)
    places = st.lists(st.integers(0, len(_FAR) - 1), min_size=1, max_size=len(_FAR), unique=True)
    pages = st.lists(st.integers(0, 31), min_size=len(_FAR), max_size=len(_FAR))
    cases = []
    if narrow:
        drawn = (st.sampled_from(narrow), some, any_, any_, any_)
        cases.append(Case(9, "table entries", drawn, _table_entries))
    if growing:
        cases.append(
            Case(
                19, "roots that grow", (st.sampled_from(growing), places, pages, st.sampled_from((0, 0x800))), _growing
            )
        )
    return cases
