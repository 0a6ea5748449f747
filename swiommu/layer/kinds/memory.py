"""A memory: where a way ends, because here the bytes are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from swiommu.address import PhysAddr, as_integer
from swiommu.errors import InvalidArgument
from swiommu.layer.attributes import NEUTRAL, READ_WRITE
from swiommu.layer.base import Extent, FaultKind, Layer, Read, largest_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.memory import SparseRam

__all__ = ["Memory"]


class Memory(Layer):
    """``size`` bytes of ``ram`` from ``base``; everything else of its space is nobody's (a range fault).

    By default all of the space. Raises `InvalidArgument` for a range that is empty or leaves the space.

    >>> from swiommu.address import PhysSpace
    >>> from swiommu.memory import SparseRam
    >>> from swiommu.layer import access
    >>> from swiommu.address import Access
    >>> ram = Memory("ram", SparseRam(PhysSpace("ram", width=32)), base=0x8000_0000, size=0x1000_0000)
    >>> print(access(ram, 0x9000_0000, 4, Access.READ).fault)
    range fault of READ access at 0x90000000 in layer 'ram'
    """

    kind: ClassVar[str] = "memory"
    granule = 1
    ports = ()
    fixed = True

    def __init__(self, name: str, ram: SparseRam, *, base: int = 0, size: int | None = None) -> None:
        super().__init__(name)
        base = as_integer(base, "base")
        size = ram.space.limit - base if size is None else as_integer(size, "size")
        if base < 0 or size < 1 or base + size > ram.space.limit:
            raise InvalidArgument(
                f"memory {name!r}: {size:#x} bytes at {base:#x} are not in the {ram.space.width}-bit space", size=size
            )
        self.ram = ram
        self.base = base
        self.size = size
        self.space = ram.space
        self.input_width = self.output_width = ram.space.width

    def look(self, at: int, read: Read) -> Extent | FaultKind:  # noqa: ARG002 - nothing to walk
        """The whole memory; RANGE outside."""
        if not self.base <= at < self.base + self.size:
            return FaultKind.RANGE
        block = largest_block(self.base, self.size, 0, at)
        return Extent(self.base, self.base, self.size, block, READ_WRITE, NEUTRAL)

    def extents(self) -> Iterator[Extent]:
        """One."""
        block = largest_block(self.base, self.size, 0, self.base)
        yield Extent(self.base, self.base, self.size, block, READ_WRITE, NEUTRAL)

    def accepts(self) -> Iterator[tuple[int, int]]:
        """The bytes that it has."""
        yield self.base, self.base + self.size

    def as_memory(self) -> Memory:
        """Itself."""
        return self

    def word(self, at: int, width: int) -> int:
        """``width`` bytes at ``at`` as a number in this machine's byte order, which is that of pages of tables."""
        return int.from_bytes(self.ram.read(PhysAddr(self.ram.space, at), width), sys.byteorder)

    def describe(self) -> str:
        """Where it lies."""
        return f"[{self.base:#x}, {self.base + self.size:#x})"
