"""Which group a PCI function belongs to: the smallest set that can be isolated.

Source: ``pci_device_group`` of drivers/iommu/iommu.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swiommu.iommu.groups.pci import PciFunction

__all__ = ["existing_group"]


def existing_group(function: PciFunction) -> Any:
    """The group that is there already and that ``function`` can't be told apart from; None: it needs one of its own.

    In this order: one met on the way of its DMA aliases; one met on the way up to where peers can't reach each other;
    one of a function that it aliases; one of a function in its slot, if neither is isolated.

    >>> from swiommu.iommu.groups.pci import PciBus, PciFunction
    >>> bus = PciBus(0)
    >>> audio, video = PciFunction(bus, 2, 0, multifunction=True), PciFunction(bus, 2, 1, multifunction=True)
    >>> audio.group = "group 0"
    >>> existing_group(video), existing_group(PciFunction(bus, 3))
    ('group 0', None)
    """
    last = function
    for alias in function.dma_aliases():
        last = alias
        if alias.group is not None:
            return alias.group
    bus = last.bus
    while (bridge := bus.bridge) is not None and not bridge.path_is_isolated:
        last = bridge
        if last.group is not None:
            return last.group
        bus = bridge.bus
    seen: set[tuple[int, int]] = set()
    return _of_aliases(last, seen) or _of_slot(last, seen)


def _of_aliases(function: PciFunction, seen: set[tuple[int, int]]) -> Any:
    if function.devfn in seen:
        return None
    seen.add(function.devfn)
    if function.group is not None:
        return function.group
    for other in function.bus.functions:
        if other is not function and function.is_alias_of(other):
            found = _of_aliases(other, seen) or _of_slot(other, seen)
            if found is not None:
                return found
    return None


def _of_slot(function: PciFunction, seen: set[tuple[int, int]]) -> Any:
    if not function.multifunction or function.is_isolated:
        return None
    for other in function.bus.functions:
        if other is not function and other.slot == function.slot and not other.is_isolated:
            found = _of_aliases(other, seen)
            if found is not None:
                return found
    return None
