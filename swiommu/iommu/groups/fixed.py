"""Domains that nothing is mapped into: every address leads to itself, or none leads anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from swiommu.address import BusAddr, PhysAddr
from swiommu.errors import InvalidArgument, NotFound, NotSupported
from swiommu.iommu.domain import READ_WRITE, Domain
from swiommu.layer import Blocked, Identity

if TYPE_CHECKING:
    from swiommu.address import BusSpace, Prot, Space
    from swiommu.iommu.mapping import Mapping
    from swiommu.layer import Layer, Node

__all__ = ["BlockedDomain", "FixedDomain", "IdentityDomain"]

A = TypeVar("A", PhysAddr, BusAddr)


class FixedDomain(Domain[A]):
    """What `IdentityDomain` and `BlockedDomain` share: there is no table.

    ``alloc`` and ``bind`` raise `NotSupported`, ``map`` `InvalidArgument`, ``unmap`` answers 0.
    """

    word: ClassVar[str]
    _whole_granules: ClassVar[bool] = False

    def __init__(
        self, space_in: BusSpace, output_space: Space, layer: Layer, memory: Node | None, below: Domain[Any] | None
    ) -> None:
        # Any byte can be reached, or none; a domain has to have some page size.
        super().__init__(space_in, output_space, layer, 1, space_in.limit - 1, memory=memory, below=below)

    def alloc(self, size: int, align: int = 0, *, prot: Prot = READ_WRITE, limit: int | None = None) -> NoReturn:
        """`NotSupported`: who allocates for a device behind it has to know where the device reaches."""
        del align, prot, limit
        raise NotSupported(f"{size} bytes can't be allocated in {self.word} domain: it gives out no addresses")

    def _bind(self, runs: list[tuple[int, int]], *_: object, **__: object) -> NoReturn:
        raise NotSupported(f"[{runs[0][0]:#x}, {runs[0][1]:#x}) can't be bound in {self.word} domain")

    def _map(self, iova: int, paddr: int, size: int, prot: Prot, *, owned: bool) -> NoReturn:
        del prot, owned
        raise InvalidArgument(
            f"{size:#x} bytes at {iova:#x} can't be mapped to {paddr:#x}: {self.word} domain takes no mappings",
            iova=iova,
            size=size,
        )

    def _unmap(self, iova: int, size: int) -> int:
        del iova, size
        return 0

    def mapped(self) -> list[tuple[int, int]]:
        """Nothing was ever mapped."""
        return []

    def let_go(self, mapping: Mapping[A]) -> None:
        """Nothing was ever mapped: `NotFound`."""
        raise NotFound(f"{mapping!r} is not live in {self.word} domain", iova=mapping.iova.start.value)

    def _require_free(self, first: int, last: int, *, direct: bool) -> None:
        """It gives out no addresses, so that all are free."""

    def _withhold(self, first: int, last: int, *, direct: bool) -> None:
        """It gives out no addresses that could be withheld."""

    def _destroy(self) -> None:
        """There is nothing to give up."""


class IdentityDomain(FixedDomain[A]):
    """Every bus address is the address of memory, or of ``below`` (``IOMMU_DOMAIN_IDENTITY``, "passthrough").

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> ram, bus = PhysSpace("ram", width=40), BusSpace("pci", width=48)
    >>> domain = IdentityDomain(bus, ram)
    >>> domain.iova_to_phys(bus.at(0x1234)), domain.iova_to_phys(bus.at(1 << 40))
    (PhysAddr(ram:0x1234), None)
    """

    enforces: ClassVar[bool] = False
    word: ClassVar[str] = "an identity"

    def __init__(
        self,
        space_in: BusSpace,
        output_space: Space,
        *,
        memory: Node | None = None,
        below: Domain[Any] | None = None,
    ) -> None:
        layer = Identity(space_in.name, width=min(space_in.width, output_space.width))
        super().__init__(space_in, output_space, layer, memory, below)

    def iova_to_phys(self, iova: BusAddr) -> A | None:
        """The same number, if the memory has it."""
        self._require_input(iova)
        return self._at(iova.value) if iova.value < self.output_space.limit else None


class BlockedDomain(FixedDomain[A]):
    """No bus address leads anywhere (``IOMMU_DOMAIN_BLOCKED``).

    >>> from swiommu.address import Access, BusSpace, PhysSpace
    >>> ram, bus = PhysSpace("ram"), BusSpace("pci", width=48)
    >>> domain = BlockedDomain(bus, ram)
    >>> domain.iova_to_phys(bus.at(0x1234)), domain.unmap(bus.at(0x1000), 0x1000)
    (None, 0)
    >>> domain.translate(bus.at(0x1000), 4, Access.READ)
    Traceback (most recent call last):
    ...
    swiommu.errors.DeviceFault: translation fault of READ access at 0x1000 in layer 'pci'
    """

    enforces: ClassVar[bool] = True
    word: ClassVar[str] = "a blocked"

    def __init__(
        self,
        space_in: BusSpace,
        output_space: Space,
        *,
        memory: Node | None = None,
        below: Domain[Any] | None = None,
    ) -> None:
        super().__init__(space_in, output_space, Blocked(space_in.name, width=space_in.width), memory, below)

    def iova_to_phys(self, iova: BusAddr) -> A | None:
        """None, whatever the address."""
        self._require_input(iova)
        return None
