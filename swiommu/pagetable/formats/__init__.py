"""Page-table formats, one module each: level shapes and pure functions, no walking and no memory.

    mock, mock64k                           no hardware's: `swiommu.pagetable.formats.mock`
    vtd-ss-3, -4, -5                        VT-d second stage, 39, 48 and 57 bits
    x86-64-4, -5                            x86-64, VT-d first stage, AMD v2, 48 and 57 bits
    amd-v1                                  AMD v1, 64 bits, its root grows
    arm-lpae-{4k,16k,64k}-{s1,s2}           ARMv8 LPAE by granule and stage, 48 bits
    arm-lpae-64k-s1-52-52                   the same with 52 bits
    riscv-{sv39,sv48,sv57}                  RISC-V first stage
    riscv-{sv39x4,sv48x4,sv57x4}            RISC-V G-stage
    riscv-sv48-napot                        with pages of 64 KiB

These are the usual ones, as a kernel of profile 6.12 has them, by name in `FORMATS`. The functions make others: other
widths, another profile. Each module has the table of its bits and names its source.
"""

from __future__ import annotations

from typing import Any, Final

from swiommu.errors import InvalidArgument
from swiommu.pagetable.format import Format
from swiommu.pagetable.formats.amd_v1 import AMD_V1, amd_v1
from swiommu.pagetable.formats.arm_lpae import arm_lpae
from swiommu.pagetable.formats.arm_shape import LpaeShape
from swiommu.pagetable.formats.mock import MOCK
from swiommu.pagetable.formats.mock64k import MOCK64K
from swiommu.pagetable.formats.riscv import riscv
from swiommu.pagetable.formats.vtd_ss import vtd_ss
from swiommu.pagetable.formats.x86_64 import x86_64
from swiommu.registry import Registry

__all__ = [
    "AMD_V1",
    "FORMATS",
    "MOCK",
    "MOCK64K",
    "LpaeShape",
    "amd_v1",
    "arm_lpae",
    "format_named",
    "riscv",
    "vtd_ss",
    "x86_64",
]


def _format(name: str, part: Any) -> Format:
    if not isinstance(part, Format):
        raise InvalidArgument(f"{part!r} is no page-table format", name=name)
    return part


FORMATS: Final = Registry[Format]("page-table format", group="swiommu.formats", accept=_format)
"""The formats by name; what is said or tried of every format goes through this registry.

Other packages offer theirs as entry points of the group ``swiommu.formats``, each a `swiommu.pagetable.Format`.
"""

for _form in (
    MOCK,
    MOCK64K,
    *(vtd_ss(levels) for levels in (3, 4, 5)),
    *(x86_64(levels) for levels in (4, 5)),
    AMD_V1,
    *(arm_lpae(granule, stage) for granule in (4096, 16384, 65536) for stage in (1, 2)),
    arm_lpae(65536, ias=52, oas=52),
    *(riscv(levels, gstage=gstage) for gstage in (False, True) for levels in (3, 4, 5)),
    riscv(napot=True),
):
    FORMATS.register(_form.name, _form)


def format_named(name: str) -> Format:
    """The format of that name in `FORMATS`; `InvalidArgument` for any other name.

    >>> format_named("vtd-ss-4").input_width
    48
    >>> format_named("vtd-ss")
    Traceback (most recent call last):
    swiommu.errors.InvalidArgument: no page-table format is named 'vtd-ss'; did you mean 'vtd-ss-5'?
    """
    return FORMATS.named(name)
