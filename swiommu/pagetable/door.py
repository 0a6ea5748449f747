"""What a page table refuses before it looks at anything: ranges that can't be, whatever is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import Prot
from swiommu.errors import AddressOverflow, InvalidArgument, OutOfRange

if TYPE_CHECKING:
    from swiommu.pagetable.format import Format

__all__ = ["CheckedRanges"]

_PROT_BITS = 0x3F
_READ_WRITE = int(Prot.READ | Prot.WRITE)


class CheckedRanges:
    """The door of a table of ``format``: its limits, and the sentences about what is beyond them."""

    def __init__(self, format: Format) -> None:  # noqa: A002 - the word of the field
        self.format = format
        self.granule = format.levels[-1].pgsize
        self._limit = 1 << format.input_width
        self._output_limit = 1 << format.output_width
        self._depth_of = {level.pgsize: depth for depth, level in enumerate(format.levels) if level.can_leaf}

    def _check_range(self, iova: int, size: int, alignment: int) -> None:
        if size < 1:
            raise InvalidArgument(f"a range of {size} bytes at {iova:#x}: at least {alignment} are needed", size=size)
        if (iova | size) & (alignment - 1):
            raise InvalidArgument(
                f"{size:#x} bytes at {iova:#x} are not aligned to the page size {alignment:#x}",
                iova=iova,
                size=size,
                alignment=alignment,
            )
        if iova < 0 or iova + size > 1 << 64:
            raise AddressOverflow(f"{size:#x} bytes at {iova:#x} wrap around 64 bits", iova=iova, size=size)
        if iova + size > self._limit:
            raise OutOfRange(
                f"{size:#x} bytes at {iova:#x} leave the {self.format.input_width}-bit input "
                f"of format {self.format.name!r}",
                iova=iova,
                size=size,
            )

    def _check_map(self, iova: int, paddr: int, pgsize: int, count: int, prot: int) -> int:
        depth = self._depth_of.get(pgsize)
        if depth is None:
            raise InvalidArgument(f"format {self.format.name!r} has no leaf of {pgsize:#x} bytes", pgsize=pgsize)
        self._check_range(iova, pgsize * count, pgsize)
        if paddr & (pgsize - 1):
            raise InvalidArgument(f"output {paddr:#x} is not aligned to the page size {pgsize:#x}", paddr=paddr)
        if paddr < 0 or paddr + pgsize * count > self._output_limit:
            raise OutOfRange(
                f"{pgsize * count:#x} bytes at output {paddr:#x} leave the {self.format.output_width}-bit output "
                f"of format {self.format.name!r}",
                paddr=paddr,
                size=pgsize * count,
            )
        bits = int(prot)
        if not bits & _READ_WRITE or bits & ~_PROT_BITS:
            raise InvalidArgument(f"protection {bits:#x}: READ or WRITE is needed, no bit above PRIV exists", prot=prot)
        return depth
