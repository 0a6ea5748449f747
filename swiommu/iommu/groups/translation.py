"""How an IOMMU makes the domains that can be mapped into: by page tables, or by a window that shows memory as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from swiommu.errors import InvalidArgument, SpaceMismatch
from swiommu.iommu.backing import ReachedTables
from swiommu.iommu.drivers import LinearDomain, PagedDomain
from swiommu.iommu.groups.untracked_iova import UntrackedIova
from swiommu.pagetable import FrameTables

if TYPE_CHECKING:
    from collections.abc import Callable

    from swiommu.address import AddressRange, BusSpace, PhysSpace
    from swiommu.iommu.domain import Domain
    from swiommu.iommu.iova import IovaPolicy
    from swiommu.layer import Node
    from swiommu.memory import Frames
    from swiommu.pagetable import Format, TableMemory
    from swiommu.region import Region

__all__ = ["LinearTranslation", "PagedTranslation", "Translation"]


class Translation(Protocol):
    """Makes domains on one bus.

    ``output_space`` is where they lead, a memory or the bus space of the domain below; ``output_limit`` is one past the
    highest address there that a map may lead to.
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


@attrs.define(kw_only=True)
class PagedTranslation:
    """Page tables of ``format`` in ``frames`` of ``ram``, or on a domain ``below``; see `Hardware` for the fields."""

    name: str
    bus: BusSpace
    ram: PhysSpace | None
    frames: Frames | None
    memory: Node | None
    below: Domain[Any] | None
    format: Format
    policy: Callable[[], IovaPolicy]
    walker_mask: int | None
    output_space: PhysSpace | BusSpace = attrs.field(init=False)
    output_limit: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        if self.below is not None:
            if self.ram is not None or self.memory is not None or (self.walker_mask is not None and not self.frames):
                raise InvalidArgument(
                    f"IOMMU {self.name!r} is on the domain of {self.below.input_space.name!r}: it leads there and "
                    "nowhere else, and reads its tables there unless they are in frames"
                )
            self.output_space = self.below.input_space
        elif self.ram is None or self.frames is None:
            raise InvalidArgument(f"IOMMU {self.name!r} needs frames of a memory, a region, or a domain below")
        else:
            self.output_space = self.ram
        self.output_limit = min(self.output_space.limit, 1 << self.format.output_width)

    def domain(self, *, for_dma: bool, lazy: bool) -> tuple[Domain[Any], UntrackedIova]:
        """See `Translation`; where the DMA API does not ask, the owner of the domain maps where it likes."""
        iova = UntrackedIova(self.policy() if for_dma else None)
        tables = self._tables()
        where: dict[str, Any] = {"output_space": self.ram, "memory": self.memory, "frames": self.frames}
        if self.below is not None:
            frames = self.frames if tables is None else None
            where = {"below": self.below, "walker": None if self.frames is None else "physical", "frames": frames}
        own: PagedDomain[Any] = PagedDomain(
            self.bus,
            **where,
            format=self.format,
            iova=iova,
            tables=tables,
            flush="lazy" if lazy else "strict",
        )
        return own, iova

    def _tables(self) -> TableMemory | None:
        if self.walker_mask is None or self.frames is None:
            return None
        through = self.memory if self.below is None else self.below.bottom
        if through is None:
            return FrameTables(self.frames, highest=self.walker_mask)
        return ReachedTables(self.frames, through, highest=self.walker_mask)


@attrs.define(kw_only=True)
class LinearTranslation:
    """No translation: ``window`` of memory at its addresses plus ``delta``; see `Hardware` for the fields.

    ``output_limit`` is that of the space: what is outside of the window, a domain refuses in its own words.
    """

    bus: BusSpace
    ram: PhysSpace | None
    region: Region[Any]
    window: AddressRange[Any] | None
    delta: int
    memory: Node | None
    below: Domain[Any] | None
    output_space: PhysSpace | BusSpace = attrs.field(init=False)
    output_limit: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.output_space = self.region.start.space
        self.output_limit = self.output_space.limit
        if self.ram is not None and self.ram is not self.output_space:
            raise SpaceMismatch(f"{self.region!r} is no memory of {self.ram.name!r}")
        self.domain(for_dma=False, lazy=False)[0].destroy()  # refuses now what no domain could be made of

    def domain(self, *, for_dma: bool, lazy: bool) -> tuple[Domain[Any], None]:
        """See `Translation`; nobody chooses: an address of memory has one address on the bus."""
        del for_dma, lazy
        where: dict[str, Any] = {"window": self.window}
        where |= {"memory": self.memory} if self.below is None else {"below": self.below}
        own: LinearDomain[Any] = LinearDomain(self.bus, self.region, **where, delta=self.delta)
        return own, None
