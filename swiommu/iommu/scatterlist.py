"""Scatter lists: pieces of memory that a device is to see one behind the other (``struct scatterlist``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, SupportsIndex

import attrs

from swiommu.address import Address, as_integer
from swiommu.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import AddressRange, BusAddr, PhysAddr

__all__ = ["Scatterlist"]


class _Pieces(Protocol):
    """Memory in pieces, such as `swiommu.dma.CpuMemory`."""

    @property
    def pieces(self) -> Sequence[AddressRange[PhysAddr]]: ...


def _number(value: SupportsIndex) -> int:
    return as_integer(value, "a number of bytes")


def _place(value: Address | SupportsIndex) -> Address | int:
    return value if isinstance(value, Address) else as_integer(value, "phys")


@attrs.define(eq=False)
class Scatterlist:
    """One entry: ``length`` bytes at ``phys``, an address or, for calls by the kernel's names, its plain number.

    When a list is mapped by the DMA API, the segments that the device gets are in the first entries' ``dma_address``
    and ``dma_length`` (bytes); the others hold None and 0. ``bus_address``: it is memory of a peer on the same bus,
    which needs no map. Raises `InvalidArgument` for an empty entry.

    >>> from swiommu.address import PhysRange, PhysSpace
    >>> from swiommu.dma import CpuMemory
    >>> from swiommu.memory import SparseRam
    >>> ram = SparseRam(PhysSpace("ram"))
    >>> pages = CpuMemory(ram, [PhysRange(ram.space.at(0x1000), 0x3000)])
    >>> [entry.length for entry in Scatterlist.of(pages, longest=0x2000)]
    [8192, 4096]
    """

    phys: PhysAddr | BusAddr | int = attrs.field(converter=_place)
    length: int = attrs.field(converter=_number)
    dma_address: BusAddr | None = None
    dma_length: int = 0
    bus_address: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.length < 1:
            raise InvalidArgument(f"a scatter list entry of {self.length} bytes: at least 1 is needed")

    @classmethod
    def of(cls, memory: _Pieces, *, longest: int | None = None) -> list[Self]:
        """The list of all pieces of ``memory``, in entries of at most ``longest`` bytes."""
        entries = []
        for piece in memory.pieces:
            step = longest or piece.size
            entries += [cls(piece.start + at, min(step, piece.size - at)) for at in range(0, piece.size, step)]
        return entries
