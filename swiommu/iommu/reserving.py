"""Reserved regions in a stack of domains: what one that is reserved below means above, in whatever order both come.

Messages and direct regions are the numbers that a device says, so every domain above withholds the same numbers. What
must not be mapped to is withheld above only where nothing but a window is between, shifted by it: there the address of
a chunk decides its output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from swiommu.layer import Reserved, ReservedKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from swiommu.layer import Node

__all__ = ["NO_TARGET", "Withheld", "consequences", "require_free", "seen_from", "withhold"]

NO_TARGET: Final = (ReservedKind.RESERVED, ReservedKind.MSI)


class Reserving(Protocol):
    """The place of a domain in a stack, as far as regions are reserved in it."""

    node: Node

    @property
    def name(self) -> str:
        """The name of its bus space."""
        ...

    def uppers(self) -> Sequence[Self]:
        """The places that are directly above."""
        ...

    def require_reservable(self, region: Reserved) -> None:
        """`AddressInUse` if some of it is in use."""
        ...

    def withhold_region(self, region: Reserved, *, own: bool) -> None:
        """Withhold ``region``, which is free; ``own``: the node lists it."""
        ...


class Withheld(NamedTuple):
    """``region`` of the bus space at ``place``, which allocates none of it; ``own``: its node lists it."""

    place: Reserving
    region: Reserved
    own: bool


def consequences(place: Reserving, region: Reserved, *, own: bool = True) -> Iterator[Withheld]:
    """What is withheld if ``region`` is reserved at ``place``: there, and in the domains above.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.iommu import PagedDomain
    >>> from swiommu.memory import Frames
    >>> ram = PhysSpace("ram")
    >>> lower = PagedDomain(BusSpace("ipa", width=40), frames=Frames(ram.at(0), 1 << 20), output_space=ram)
    >>> upper = PagedDomain(BusSpace("nic", width=32), below=lower)
    >>> messages = Reserved(0xFEE0_0000, 0x10_0000, "msi")
    >>> [each.place.name for each in consequences(lower.place, messages)]
    ['ipa', 'nic']
    >>> len(list(consequences(lower.place, Reserved(0x8000, 0x1000))))
    1
    """
    yield Withheld(place, region, own)
    for upper in place.uppers():
        yield from seen_from(upper, region)


def seen_from(upper: Reserving, region: Reserved) -> Iterator[Withheld]:
    """The same for a region of the domain below ``upper``."""
    if region.kind in {ReservedKind.MSI, ReservedKind.DIRECT}:
        yield from consequences(upper, region, own=region.kind is ReservedKind.MSI)
    if upper.node.layer.fixed and region.kind in NO_TARGET:
        for extent in upper.node.layer.extents():
            delta = extent.output - extent.input
            low = max(extent.input, region.start - delta)
            high = min(extent.input + extent.size, region.stop - delta)
            if low < high:
                yield from consequences(upper, Reserved(low, high - low, region.kind), own=False)


def require_free(found: Iterable[Withheld]) -> None:
    """Refuse, with `AddressInUse`, to withhold what is in use in one of the domains."""
    for place, region, _ in found:
        place.require_reservable(region)


def withhold(found: Iterable[Withheld]) -> None:
    """Let the domains allocate nothing of it from now on."""
    for place, region, own in found:
        place.withhold_region(region, own=own)
