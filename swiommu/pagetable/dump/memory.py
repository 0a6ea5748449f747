"""A dump of memory: pieces of bytes at addresses, one behind the other or with holes; and one of a table of ours."""

from __future__ import annotations

import io
import sys
from array import array
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO, Protocol

from swiommu.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swiommu.pagetable.radix import RadixTable

__all__ = ["FileBytes", "MemoryDump", "dump_table"]


class _Bytes(Protocol):
    """What a piece must be: `bytes`, or `FileBytes`."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> bytes | bytearray | memoryview: ...


class FileBytes:
    """The bytes of an open file, read where they are wanted: a dump may be larger than memory.

    Raises what the file raises. What has been cut off since is missing, as if it had never been there.

    >>> FileBytes(io.BytesIO(b"memory"))[2:4]
    b'mo'
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: slice) -> bytes:
        start, stop, _ = place.indices(self._size)
        self._file.seek(start)
        return self._file.read(max(0, stop - start))


class MemoryDump:
    """Memory as ``pieces`` of bytes by the physical address of the first; pieces may touch each other.

    ``extents`` are the (start, stop) that it holds, ascending, touching ones joined. Raises `InvalidArgument` for
    pieces that overlap, or leave the addresses from 0 to 2**64 - 1.

    >>> dump = MemoryDump({0x1000: bytes(8), 0x1008: (7).to_bytes(8, "little")})
    >>> dump.word(0x1008), dump.word(0x1010), [(hex(start), hex(stop)) for start, stop in dump.extents]
    (7, None, [('0x1000', '0x1010')])
    """

    def __init__(self, pieces: Mapping[int, _Bytes]) -> None:
        kept = sorted((start, piece) for start, piece in pieces.items() if len(piece))
        self._starts = [start for start, _ in kept]
        self._pieces = [piece for _, piece in kept]
        self.extents: list[tuple[int, int]] = []
        for start, piece in kept:
            stop = start + len(piece)
            if start < 0 or stop > 1 << 64:
                raise InvalidArgument(f"{len(piece):#x} bytes at {start:#x} leave the addresses from 0 to 2**64 - 1")
            if self.extents and start < self.extents[-1][1]:
                raise InvalidArgument(f"two pieces of the dump hold {start:#x}", start=start)
            if self.extents and start == self.extents[-1][1]:
                self.extents[-1] = self.extents[-1][0], stop
            else:
                self.extents.append((start, stop))

    def read(self, address: int, size: int) -> bytes:
        """The bytes from ``address`` on, up to ``size`` of them: fewer where the dump has a hole.

        >>> MemoryDump({0: b"abc", 3: b"de", 6: b"g"}).read(1, 100)
        b'bcde'
        """
        found = bytearray()
        place = bisect_right(self._starts, address) - 1
        while 0 <= place < len(self._starts) and len(found) < size:
            offset = address + len(found) - self._starts[place]
            part = self._pieces[place][offset : offset + size - len(found)] if offset >= 0 else b""
            if not len(part):
                break
            found += part
            place += 1
        return bytes(found)

    def words(self, address: int, count: int) -> array[int] | None:
        """``count`` words of 64 bits, little-endian; None if some are not in the dump."""
        data = self.read(address, 8 * count)
        if len(data) != 8 * count:
            return None
        words = array("Q", data)
        if sys.byteorder == "big":
            words.byteswap()
        return words

    def word(self, address: int) -> int | None:
        """The word at ``address``, None outside."""
        data = self.read(address, 8)
        return int.from_bytes(data, "little") if len(data) == 8 else None


def dump_table(table: RadixTable) -> dict[int, bytes]:
    """What memory holds of ``table``: the bytes of each of its tables by physical address, ascending.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0x5000, 0x8000_0000, 0x1000, 1, Prot.READ)
    >>> pieces = dump_table(table)
    >>> [hex(start) for start in pieces], pieces[0x4000][0x28:0x30].hex()
    (['0x1000', '0x2000', '0x3000', '0x4000'], '0700008000000000')
    """
    found = sorted(node.phys for by_prefix in table.nodes.by_depth for node in by_prefix.values())
    assert all(lower < upper for lower, upper in pairwise(found)), "two tables at one address"
    return {phys: table.dump_bytes(phys) for phys in found}
