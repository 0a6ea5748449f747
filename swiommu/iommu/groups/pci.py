"""As much of PCI as decides who can be told apart: buses, bridges, functions, aliases, access control services."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs

from swiommu.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HostBridge", "PciBus", "PciFunction", "PciKind"]


class PciKind(enum.Enum):
    """What a function is, as far as requester IDs and isolation go."""

    ENDPOINT = "PCIe endpoint"
    ROOT_PORT = "PCIe root port"
    UPSTREAM = "upstream port of a switch"
    DOWNSTREAM = "downstream port of a switch"
    PCIE_TO_PCI = "PCIe to PCI bridge"
    PCI_TO_PCIE = "PCI to PCIe bridge"
    CONVENTIONAL = "conventional PCI"


_PORTS = (PciKind.ROOT_PORT, PciKind.UPSTREAM, PciKind.DOWNSTREAM)
_ISOLATED_BY_ACS = (PciKind.ROOT_PORT, PciKind.DOWNSTREAM)
_NEVER_ISOLATED = (PciKind.CONVENTIONAL, PciKind.PCIE_TO_PCI, PciKind.PCI_TO_PCIE)


@attrs.frozen
class HostBridge:
    """What a host bridge shows on its root bus: ``windows`` of device memory, and the ``dma_ranges`` that reach memory.

    Both are (start, size) in bus addresses; no ``dma_ranges``: everything does.
    """

    windows: tuple[tuple[int, int], ...] = ()
    dma_ranges: tuple[tuple[int, int], ...] = ()


@attrs.define(eq=False)
class PciBus:
    """A bus below ``bridge``, or below ``host`` if that is None.

    >>> root = PciBus(0)
    >>> port = PciFunction(root, 0x1C, kind=PciKind.ROOT_PORT, acs=True)
    >>> nic = PciFunction(PciBus(3, port), 0)
    >>> str(nic), nic.bus.is_root, [str(function) for function in root.functions]
    ('0000:03:00.0', False, ['0000:00:1c.0'])
    """

    number: int
    bridge: PciFunction | None = None
    host: HostBridge = attrs.field(factory=HostBridge, repr=False)
    functions: list[PciFunction] = attrs.field(factory=list, init=False, repr=False)

    @property
    def is_root(self) -> bool:
        """Whether no bridge is above it."""
        return self.bridge is None

    @property
    def root(self) -> PciBus:
        """The bus where the way up ends."""
        bus = self
        while bus.bridge is not None:
            bus = bus.bridge.bus
        return bus


@attrs.define(eq=False)
class PciFunction:
    """A function in ``slot`` of ``bus``; `InvalidArgument` if that place is taken or can't be.

    ``acs``: whether it keeps what passes through it from its peers. ``aliases``: the (slot, function) numbers that it
    also uses for DMA; ``real_dma``: another function whose requester ID it uses. ``group``: the IOMMU group it is in.

    >>> bus = PciBus(0)
    >>> one, two = PciFunction(bus, 2, 0, multifunction=True), PciFunction(bus, 2, 1, multifunction=True)
    >>> one.is_isolated, PciFunction(bus, 3).is_isolated
    (False, True)
    """

    bus: PciBus = attrs.field(repr=False)
    slot: int
    function: int = 0
    kind: PciKind = attrs.field(default=PciKind.ENDPOINT, kw_only=True)
    acs: bool = attrs.field(default=False, kw_only=True)
    multifunction: bool = attrs.field(default=False, kw_only=True)
    aliases: frozenset[tuple[int, int]] = attrs.field(default=frozenset(), kw_only=True, converter=frozenset)
    real_dma: PciFunction | None = attrs.field(default=None, kw_only=True, repr=False)
    group: Any = attrs.field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not (0 <= self.slot < 32 and 0 <= self.function < 8):
            raise InvalidArgument(
                f"no function {self.function} in slot {self.slot} can be: slots are 0 to 31, functions 0 to 7",
            )
        if any(other.devfn == self.devfn for other in self.bus.functions):
            raise InvalidArgument(f"there is a function {self} already")
        self.bus.functions.append(self)

    def __str__(self) -> str:
        return f"0000:{self.bus.number:02x}:{self.slot:02x}.{self.function}"

    @property
    def devfn(self) -> tuple[int, int]:
        """Its number on the bus."""
        return self.slot, self.function

    @property
    def is_isolated(self) -> bool:
        """Whether peers can't reach each other through it (``pci_acs_enabled``)."""
        if self.kind in _NEVER_ISOLATED:
            return False
        return self.acs or not (self.kind in _ISOLATED_BY_ACS or self.multifunction)

    @property
    def path_is_isolated(self) -> bool:
        """Whether that holds from here to the root (``pci_acs_path_enabled``)."""
        function: PciFunction | None = self
        while function is not None:
            if not function.is_isolated:
                return False
            function = function.bus.bridge
        return True

    def is_alias_of(self, other: PciFunction) -> bool:
        """Whether one of the two uses the other's requester ID on this bus."""
        return (
            other.devfn in self.aliases
            or self.devfn in other.aliases
            or self.real_dma is other
            or other.real_dma is self
        )

    def dma_aliases(self) -> Iterator[PciFunction]:
        """The functions under whose requester IDs its accesses may arrive, itself first, then upwards.

        Source: ``pci_for_each_dma_alias``.
        """
        function = self.real_dma or self
        yield function
        bus = function.bus
        while (bridge := bus.bridge) is not None:
            if bridge.kind not in _PORTS:
                yield bridge
            bus = bridge.bus
