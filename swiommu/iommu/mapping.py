"""What a domain hands out: a live bus range and the memory behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import attrs

from swiommu.address import BusAddr, PhysAddr, PhysRange

if TYPE_CHECKING:
    from swiommu.address import AddressRange, BusRange, Prot
    from swiommu.iommu.domain import Domain

__all__ = ["Mapping"]

A = TypeVar("A", PhysAddr, BusAddr)


@attrs.frozen(eq=False, repr=False)
class Mapping(Generic[A]):
    """A live bus range and the memory behind it, in order; two mappings are equal only if identical.

    ``pieces`` are in the output space of its domain, ``memory`` is where they are in the end. ``owns_memory``: the
    memory came with the mapping and goes with it. ``below``: what was mapped for it in the domain below.

    >>> from swiommu.address import BusSpace, PhysRange, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram")
    >>> domain = PagedDomain(BusSpace("nvme"), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
    >>> domain.bind([PhysRange(ram.at(0x5000_0200), 512)])
    Mapping(nvme:0xfffffffff200+0x200, 1 pieces)
    """

    iova: BusRange
    pieces: tuple[AddressRange[A], ...]
    prot: Prot
    domain: Domain[A]
    owns_memory: bool
    below: Mapping[Any] | None = None

    @property
    def size(self) -> int:
        """Bytes, of the bus range and of all pieces together."""
        return self.iova.size

    @property
    def memory(self) -> tuple[PhysRange, ...]:
        """Where the bytes are: the pieces, or what they lead to through the domains below; `NotFound` for a hole."""
        if self.below is not None:
            return self.below.memory
        lower = self.domain.below
        if lower is None:
            return cast("tuple[PhysRange, ...]", self.pieces)
        return tuple(part for piece in self.pieces for part in lower.memory_behind(piece.start.value, piece.size))

    def __repr__(self) -> str:
        start = self.iova.start
        return f"Mapping({start.space.name}:{start.value:#x}+{self.size:#x}, {len(self.pieces)} pieces)"
