"""What a page table refuses before it looks at anything: ranges that can't be, whatever is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import Prot
from swiommu.errors import AddressOverflow, InvalidArgument, OutOfRange

if TYPE_CHECKING:
    from swiommu.pagetable.format import Format

__all__ = ["TableDoor"]

_PROT_BITS = 0x3F
_READ_WRITE = int(Prot.READ | Prot.WRITE)


class TableDoor:
    """The limits of a table of ``format``, and the sentences about what is beyond them.

    Inside, an input is its decoded bits; outside, those of a sign-extended format are canonical: `inner` and `outer`.
    ``rightless``: leaves without READ and WRITE are let in.

    >>> from swiommu.pagetable.formats import MOCK
    >>> TableDoor(MOCK).leaf(0x20_0000, 0, 0x20_0000, 1, Prot.READ)
    (2, 0)
    """

    def __init__(self, format: Format, *, rightless: bool = False) -> None:  # noqa: A002 - the word of the field
        self.format = format
        self.rules = format.rules
        self.mask = (1 << format.input_width) - 1
        self.leaf_of = {
            pgsize: (depth, order) for depth, level in enumerate(format.levels) for order, pgsize in level.sizes.items()
        }
        self._output_limit = 1 << format.output_width
        self._half = 1 << format.aperture_width
        self._upper = (1 << 64) - self._half  # where the upper half of a sign-extended format begins
        self._needs = 0 if rightless or self.rules.no_access is None else _READ_WRITE

    def holds(self, iova: int) -> bool:
        """Whether ``iova`` is an input of the format.

        >>> from swiommu.pagetable.formats import MOCK
        >>> TableDoor(MOCK).holds(1 << 48)
        False
        """
        return 0 <= iova < self._half or (self.format.sign_extended and self._upper <= iova < 1 << 64)

    def outer(self, at: int) -> int:
        """The address whose decoded bits are ``at``."""
        return at + self._upper - self._half if at >= self._half else at

    def inner(self, iova: int) -> int:
        """The decoded bits of ``iova``; `OutOfRange` for what is no input of the format."""
        if not self.holds(iova):
            raise OutOfRange(f"{iova:#x} is beyond the {self._inputs()}", iova=iova)
        return iova & self.mask

    def range(self, iova: int, size: int, alignment: int) -> int:
        """The decoded bits of the range's start, if it can be one: not empty, aligned, in one half of the inputs."""
        if size > 0 <= iova and iova + size <= self._half and not (iova | size) & (alignment - 1):
            return iova
        if size < 1:
            raise InvalidArgument(f"a range of {size} bytes at {iova:#x}: at least {alignment} are needed", size=size)
        if (iova | size) & (alignment - 1):
            raise self.rules.misaligned(
                f"{size:#x} bytes at {iova:#x} are not aligned to the page size {alignment:#x}",
                iova=iova,
                size=size,
                align=alignment,
            )
        if iova < 0 or iova + size > 1 << 64:
            raise AddressOverflow(f"{size:#x} bytes at {iova:#x} wrap around 64 bits", iova=iova, size=size)
        last = iova + size - 1
        if not (self.holds(iova) and self.holds(last)) or (iova < self._half) != (last < self._half):
            raise OutOfRange(f"{size:#x} bytes at {iova:#x} leave the {self._inputs()}", iova=iova, size=size)
        return iova & self.mask

    def leaf(self, iova: int, paddr: int, pgsize: int, count: int, prot: int) -> tuple[int, int]:
        """Depth and order of ``count`` leaves that can be written so, wherever there is room."""
        found = self.leaf_of.get(pgsize)
        size, bits = pgsize * count, int(prot)
        if (
            found is not None
            and size > 0 <= (iova | paddr)
            and not (iova | paddr) & (pgsize - 1)
            and iova + size <= self._half
            and paddr + size <= self._output_limit
            and (bits & _READ_WRITE or not self._needs)
            and not bits & ~_PROT_BITS
        ):  # nearly always: what follows finds the words for the other cases
            return found
        if found is None:
            raise InvalidArgument(f"format {self.format.name!r} has no leaf of {pgsize:#x} bytes")
        self.range(iova, size, pgsize)
        if paddr & (pgsize - 1):
            raise self.rules.misaligned(
                f"output {paddr:#x} is not aligned to the page size {pgsize:#x}", paddr=paddr, align=pgsize
            )
        if paddr < 0 or paddr + size > self._output_limit:
            raise OutOfRange(
                f"{size:#x} bytes at output {paddr:#x} leave the {self.format.output_width}-bit output "
                f"of format {self.format.name!r}",
                paddr=paddr,
                size=size,
            )
        if (self._needs and not bits & self._needs) or bits & ~_PROT_BITS:
            raise (self.rules.no_access or InvalidArgument)(
                f"protection {bits:#x}: READ or WRITE is needed, no bit above PRIV exists"
            )
        return found

    def _inputs(self) -> str:
        signed = "sign-extended " if self.format.sign_extended else ""
        return f"{signed}{self.format.input_width}-bit input of format {self.format.name!r}"
