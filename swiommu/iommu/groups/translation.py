"""How an IOMMU makes the domains that can be mapped into: by page tables, or by a window that shows memory as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from swiommu.errors import InvalidArgument, SpaceMismatch
from swiommu.iommu import LinearDomain, PagedDomain
from swiommu.iommu.groups.untracked_iova import UntrackedIova
from swiommu.iommu.table_memory import ReachedTables
from swiommu.iommu.withheld import Withheld
from swiommu.pagetable import FrameTables

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.address import AddressRange, BusSpace, PhysSpace
    from swiommu.iommu import Domain
    from swiommu.iommu.iova import IovaPolicy
    from swiommu.layer import Node
    from swiommu.memory import Frames
    from swiommu.pagetable import Format, TableMemory
    from swiommu.region import Region

__all__ = ["LinearTranslation", "PagedTranslation", "Translation"]


class Translation(Protocol):
    """Makes domains on one bus.

    ``output_space`` is theirs, a memory or the bus space of the domain below; ``output_limit`` is one past the highest
    address there that may be mapped to.
    """

    @property
    def output_space(self) -> PhysSpace | BusSpace:
        """See the class."""
        ...

    @property
    def output_limit(self) -> int:
        """See the class."""
        ...

    def domain(self, *, for_dma: bool, lazy: bool) -> tuple[Domain[Any], UntrackedIova | None]:
        """A new domain, and what chooses its bus addresses if anybody does.

        ``for_dma``: the DMA API will use it; ``lazy``: flushes may wait.
        """
        ...


class Sources(Protocol):
    """What domains are made of; see `swiommu.iommu.groups.Hardware` for the fields."""

    name: str
    bus: BusSpace
    ram: PhysSpace | None
    frames: Frames | None
    memory: Node | None
    below: Domain[Any] | None
    format: Format | None
    window: AddressRange[Any] | None
    delta: int
    policy: Callable[[], IovaPolicy]
    walker_mask: int | None


class PagedTranslation:
    """Page tables in frames of a memory, or on a domain below, as ``of`` says at the time when a domain is made."""

    def __init__(self, of: Sources) -> None:
        if of.below is not None:
            if of.ram is not None or of.memory is not None or (of.walker_mask is not None and of.frames is None):
                raise InvalidArgument(
                    f"IOMMU {of.name!r} is on the domain of {of.below.input_space.name!r}: that is its "
                    "output space, and its tables are there unless they are in frames"
                )
            self.output_space: PhysSpace | BusSpace = of.below.input_space
        elif of.ram is None or of.frames is None:
            raise InvalidArgument(f"IOMMU {of.name!r} needs frames of a memory, a region, or a domain below")
        else:
            self.output_space = of.ram
        if of.format is None or of.window is not None or of.delta:
            raise InvalidArgument(f"IOMMU {of.name!r} has no region: only one with a region has a window and no format")
        self.output_limit = min(self.output_space.limit, 1 << of.format.output_width)
        self._of = of

    def domain(self, *, for_dma: bool, lazy: bool) -> tuple[Domain[Any], UntrackedIova]:
        """See `Translation`; where the DMA API does not ask, the owner of the domain maps where it likes."""
        of, tables = self._of, self._tables()
        iova = UntrackedIova(of.policy() if for_dma else None)
        where: dict[str, Any] = {"output_space": of.ram, "memory": of.memory, "frames": of.frames}
        if of.below is not None:
            frames = of.frames if tables is None else None
            where = {"below": of.below, "walker": None if of.frames is None else "physical", "frames": frames}
        where |= {"format": of.format, "tables": tables, "flush": "lazy" if lazy else "strict"}
        own: PagedDomain[Any] = PagedDomain(of.bus, **where, iova=iova)
        return own, iova

    def _tables(self) -> TableMemory | None:
        of = self._of
        if of.walker_mask is None or of.frames is None:
            return None
        through = of.memory if of.below is None else of.below.bottom
        if through is None:
            return FrameTables(of.frames, highest=of.walker_mask)
        return ReachedTables(of.frames, through, highest=of.walker_mask)


class LinearTranslation:
    """No translation: a window of memory at its addresses plus a delta, as ``of`` says.

    ``output_limit`` is that of the space: what is outside of the window, a domain refuses in its own words.
    """

    def __init__(self, of: Sources, region: Region[Any]) -> None:
        self.output_space: PhysSpace | BusSpace = region.start.space
        self.output_limit = self.output_space.limit
        if of.ram is not None and of.ram is not self.output_space:
            raise SpaceMismatch(f"{region!r} is no memory of {of.ram.name!r}")
        self._of, self._region, self._withheld = of, region, Withheld(region)
        self.domain(for_dma=False, lazy=False)[0].destroy()  # refuses now what no domain could be made of

    def domain(self, *, for_dma: bool, lazy: bool) -> tuple[Domain[Any], None]:
        """See `Translation`; nothing is chosen: an address of memory has one address on the bus."""
        del for_dma, lazy
        of = self._of
        where: dict[str, Any] = {"window": of.window}
        where |= {"memory": of.memory} if of.below is None else {"below": of.below}
        own: LinearDomain[Any] = LinearDomain(of.bus, self._region, **where, delta=of.delta, withheld=self._withheld)
        return own, None
