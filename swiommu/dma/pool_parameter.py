"""The bounce pool that a kernel's command line asks for: ``swiotlb=``.

    swiotlb=[SLOTS][,AREAS][,force|noforce]

Numbers are decimal, 0x or 0. What can't be read is ignored, with all that follows. Source: ``setup_io_tlb_npages``,
``round_up_default_nslabs`` and ``swiotlb_init_remap`` of ``kernel/dma/swiotlb.c``.
"""

from __future__ import annotations

import re

import attrs

from swiommu.address import align_up
from swiommu.dma.swiotlb import IO_TLB_DEFAULT_SLOTS, IO_TLB_SEGSIZE
from swiommu.region.mainline import parameters

__all__ = ["PoolParameter", "pool_parameter"]

_NUMBER = re.compile(r"0[xX](?P<hex>[0-9a-fA-F]+)|0(?P<octal>[0-7]*)|(?P<decimal>[1-9][0-9]*)", re.ASCII)
_BASES = {"hex": 16, "octal": 8, "decimal": 10}
_DIGITS = 24  # more digits of any base make a number beyond 64 bits


@attrs.frozen
class PoolParameter:
    """What ``swiotlb=`` says: ``slots`` of 2 KiB and ``areas`` (None: not told), ``force`` and ``noforce``.

    >>> pool_parameter("swiotlb=3000,force").pool_slots(cpus=1, has_areas=True)
    4096
    """

    slots: int | None = None
    areas: int | None = None
    force: bool = False
    noforce: bool = False

    def pool_slots(self, *, cpus: int, has_areas: bool) -> int:
        """Slots of the pool: whole segments, and in kernels with areas (from 6.0 on) a power of two, one area a CPU.

        Half as many, and half of these, where the machine has no memory for so many; that is not known here.
        """
        slots = IO_TLB_DEFAULT_SLOTS if self.slots is None else align_up(self.slots, IO_TLB_SEGSIZE)
        if not has_areas:
            return slots
        areas = _power_of_two(cpus if self.areas is None else self.areas)
        return _power_of_two(max(slots, areas * IO_TLB_SEGSIZE))


def pool_parameter(command_line: str) -> PoolParameter | None:
    """What a kernel's command line says of its bounce pool; None if it says nothing. Later words win.

    >>> pool_parameter("quiet swiotlb=0x100,2,noforce"), pool_parameter("quiet") is None
    (PoolParameter(slots=256, areas=2, force=False, noforce=True), True)
    """
    found = None
    for name, value in parameters(command_line):
        if name == "swiotlb":
            found = _read(value or "", found or PoolParameter())
    return found


def _read(text: str, before: PoolParameter) -> PoolParameter:
    slots, text = _number(text)
    areas, text = _number(text.removeprefix(","))
    word = text.removeprefix(",")
    return PoolParameter(
        before.slots if slots is None else slots,
        before.areas if areas is None else max(areas, 1),
        before.force or word == "force",
        before.noforce or word == "noforce",
    )


def _number(text: str) -> tuple[int | None, str]:
    """A number at the start, as ``simple_strtoul`` reads it, and what follows; None where there is no digit."""
    found = _NUMBER.match(text)
    if found is None:
        return None, text
    base, digits = next((base, digits) for base, digits in found.groupdict().items() if digits is not None)
    return int(digits[:_DIGITS] or "0", _BASES[base]), text[found.end() :]


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
