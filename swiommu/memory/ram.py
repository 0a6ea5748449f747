"""The bytes of a memory, kept only where somebody has written."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from swiommu.address import PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysRange, PhysSpace, as_integer
from swiommu.errors import InvalidArgument, SpaceMismatch
from swiommu.locking import Lock, locked, no_shallow_copy

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SparseRam"]

OFFSET_MASK = PAGE_SIZE - 1


class SparseRam:
    r"""Bytes over a whole space, in 4 KiB pages that appear at the first write; everything else reads as zero.

    Addresses of another space raise `SpaceMismatch`, a range that leaves the space raises `AddressOverflow`, and
    nothing is written then. Zero bytes may be read or written anywhere.

    >>> space = PhysSpace("ram", width=40)
    >>> ram = SparseRam(space)
    >>> ram.write(space.at(0xFFE), b"abcd")
    >>> ram.read(space.at(0xFFD), 6), ram.resident_bytes
    (b'\x00abcd\x00', 8192)
    """

    __slots__ = ("_pages", "_words", "lock", "space")

    def __init__(self, space: PhysSpace) -> None:
        self.space = space
        self.lock = Lock()
        self._pages: dict[int, bytearray | memoryview] = {}
        self._words: dict[int, array[int]] = {}

    __copy__ = no_shallow_copy

    def __getstate__(self) -> tuple[PhysSpace, dict[int, bytes], dict[int, array[int]]]:
        pages = {number: bytes(page) for number, page in self._pages.items() if number not in self._words}
        return self.space, pages, self._words

    def __setstate__(self, state: tuple[PhysSpace, dict[int, bytes], dict[int, array[int]]]) -> None:
        self.space, pages, self._words = state
        self.lock = Lock()
        self._pages = {number: bytearray(page) for number, page in pages.items()}
        self._pages |= {number: memoryview(words).cast("B") for number, words in self._words.items()}

    @property
    def resident_bytes(self) -> int:
        """Bytes of the pages that are held; unwritten memory costs nothing."""
        return len(self._pages) * PAGE_SIZE

    def read(self, addr: PhysAddr, size: int) -> bytes:
        """``size`` bytes from ``addr``; reading makes no page resident."""
        with self.lock:
            pieces: list[bytes | bytearray | memoryview] = []
            for number, low, high in self._spans(addr, size):
                page = self._pages.get(number)
                pieces.append(bytes(high - low) if page is None else page[low:high])
            return b"".join(pieces)

    def write(self, addr: PhysAddr, data: bytes | bytearray | memoryview) -> None:
        """Put ``data`` at ``addr``."""
        source = memoryview(data).cast("B")
        done = 0
        with self.lock:
            for number, low, high in self._spans(addr, len(source)):
                self._page(number)[low:high] = source[done : done + high - low]
                done += high - low

    @locked
    def fill(self, addr: PhysAddr, size: int, byte: int) -> None:
        """Set ``size`` bytes from ``addr`` to ``byte``; pages that are wholly zeroed are no longer held.

        Those given out by `words` stay. Raises `InvalidArgument` for a value that is no byte.

        >>> space = PhysSpace("ram")
        >>> ram = SparseRam(space)
        >>> ram.fill(space.at(0x1800), 0x1000, 0xA5); ram.resident_bytes
        8192
        >>> ram.fill(space.at(0x1000), 0x1000, 0); ram.resident_bytes
        4096
        """
        byte = as_integer(byte, "byte")
        if not 0 <= byte <= 0xFF:
            raise InvalidArgument(f"{byte} is no byte: 0 to 255")
        for number, low, high in self._spans(addr, size):
            if byte or number in self._pages:
                self._page(number)[low:high] = bytes((byte,)) * (high - low)
            if not byte and high - low == PAGE_SIZE and number not in self._words:
                self._pages.pop(number, None)

    @locked
    def words(self, addr: PhysAddr) -> array[int]:
        """The page at ``addr`` as 512 words of 64 bits in the machine's byte order: the bytes themselves, no copy.

        What is written here is read there, and the other way round, for ever: the page stays held. Raises
        `InvalidArgument` if no page begins at ``addr``.

        >>> import sys
        >>> space = PhysSpace("ram")
        >>> ram = SparseRam(space)
        >>> table = ram.words(space.at(0x1000))
        >>> ram.write(space.at(0x1008), (0xABCD).to_bytes(8, sys.byteorder)); hex(table[1])
        '0xabcd'
        >>> table[1] = 0; ram.read(space.at(0x1000), 4096) == bytes(4096)
        True
        """
        if addr.value & OFFSET_MASK:
            raise InvalidArgument(f"no page begins at {addr!r}", start=addr.value)
        [(number, _, _)] = self._spans(addr, PAGE_SIZE)
        words = self._words.get(number)
        if words is None:
            words = self._words[number] = array("Q", self._pages.get(number) or bytes(PAGE_SIZE))
            self._pages[number] = memoryview(words).cast("B")
        return words

    @locked
    def check(self) -> None:
        """Assert: 1. every page is whole, 2. every page begins in the space, 3. words are the bytes of their page."""
        for number, words in self._words.items():
            assert words.tobytes() == bytes(self._pages[number]), f"page {number:#x} and its words differ"
        for number, page in self._pages.items():
            assert len(page) == PAGE_SIZE, f"page {number:#x} has {len(page)} bytes"
            assert 0 <= number << PAGE_SHIFT < self.space.limit, f"page {number:#x} is outside {self.space!r}"

    def _page(self, number: int) -> bytearray | memoryview:
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(PAGE_SIZE)
        return page

    def _spans(self, addr: PhysAddr, size: int) -> Iterator[tuple[int, int, int]]:
        """The range page by page as (page number, first offset, end offset); refused here, before any byte moves."""
        if addr.space is not self.space:
            raise SpaceMismatch(f"{addr!r} is not an address of {self.space!r}")
        if type(size) is not int:
            size = as_integer(size, "size")
        if size < 0:
            raise InvalidArgument(f"{size} bytes at {addr!r}: a size is 0 or more", size=size)
        if not size:
            return
        position, stop = addr.value, PhysRange(addr, size).stop
        while position < stop:
            low = position & OFFSET_MASK
            high = min(PAGE_SIZE, low + stop - position)
            yield position >> PAGE_SHIFT, low, high
            position += high - low
