"""Memory as a driver holds it: what a CPU pointer points at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.address import as_integer, as_integers
from swiommu.errors import InvalidArgument, OutOfRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import AddressRange, PhysAddr
    from swiommu.memory import SparseRam

__all__ = ["CpuMemory"]


class CpuMemory:
    """Pieces of memory that the processor sees one behind the other, as a kernel mapping shows scattered pages.

    ``size`` is in bytes. Raises `InvalidArgument` without any piece.

    >>> from swiommu.address import PhysRange, PhysSpace
    >>> from swiommu.memory import SparseRam
    >>> space = PhysSpace("ram")
    >>> memory = CpuMemory(SparseRam(space), [PhysRange(space.at(0x5000), 4), PhysRange(space.at(0x1000), 4)])
    >>> memory.write(b"abcdef"); memory.read(3, 2), memory.ram.read(space.at(0x1000), 2)
    (b'de', b'ef')
    """

    __slots__ = ("pieces", "ram", "size")

    def __init__(self, ram: SparseRam, pieces: Sequence[AddressRange[PhysAddr]]) -> None:
        if not pieces:
            raise InvalidArgument("memory of no pieces: at least one is needed")
        self.ram = ram
        self.pieces = tuple(pieces)
        self.size = sum(piece.size for piece in pieces)

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """``size`` bytes (default: all to the end) from ``offset``; `OutOfRange` beyond the end."""
        offset = as_integer(offset, "offset")
        size = self.size - offset if size is None else size
        return b"".join([self.ram.read(start, count) for start, count in self._spans(offset, size)])

    def write(self, data: bytes, offset: int = 0) -> None:
        """Put ``data`` at ``offset``; `OutOfRange` beyond the end, and nothing is written then."""
        done = 0
        for start, count in self._spans(offset, len(data)):
            self.ram.write(start, data[done : done + count])
            done += count

    def zero(self) -> None:
        """Clear every byte."""
        for piece in self.pieces:
            self.ram.fill(piece.start, piece.size, 0)

    def _spans(self, offset: int, size: int) -> list[tuple[PhysAddr, int]]:
        if type(offset) is not int or type(size) is not int:
            offset, size = as_integers(offset=offset, size=size)
        if offset < 0 or size < 0 or offset + size > self.size:
            raise OutOfRange(f"{size} bytes from {offset} are not in a buffer of {self.size} bytes", size=size)
        spans = []
        for piece in self.pieces:
            here = min(size, piece.size - offset)
            if here > 0:
                spans.append((piece.start + offset, here))
                size -= here
            offset = max(offset - piece.size, 0)
        return spans
