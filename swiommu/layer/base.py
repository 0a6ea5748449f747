"""What a layer is: a partial function from input ranges to runs, which says exactly why it stopped."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol

import attrs

from swiommu.address import Access, Prot
from swiommu.errors import DeviceFault, InvalidArgument

__all__ = ["Fault", "FaultKind", "Layer", "Run"]


class FaultKind(enum.StrEnum):
    """Why an access found no memory, in the order in which a layer looks."""

    RANGE = "range"
    TRANSLATION = "translation"
    PERMISSION = "permission"
    ADDRESS_SIZE = "address-size"


@attrs.frozen
class Fault:
    """The record of one failing access: ``address`` at the layer that refused, ``iova`` at the top.

    Both are those of the first byte that failed, not of the burst's start. Without layers above they are equal.

    >>> print(Fault("iommu", FaultKind.TRANSLATION, Access.WRITE, 0x1000, 0x1000).error([]))
    translation fault of WRITE access at 0x1000 in layer 'iommu'
    """

    layer: str
    kind: FaultKind
    access: Access
    address: int
    iova: int

    def error(self, runs: list[Run]) -> DeviceFault:
        """The exception for this record; ``runs`` is what the burst reached before it."""
        wanted = "|".join(flag.name or "" for flag in Access if flag & self.access)
        return DeviceFault(
            f"{self.kind} fault of {wanted or 'no'} access at {self.address:#x} in layer {self.layer!r}",
            fault=self,
            runs=runs,
        )


class Run(NamedTuple):
    """``size`` bytes from ``input`` lead to ``output``, through entries of ``page_size`` bytes that allow ``prot``."""

    input: int
    output: int
    size: int
    page_size: int
    prot: Prot


class Layer(Protocol):
    """Anything that translates: a window, a page table, later a router or a stack of them."""

    name: str

    def translate(self, start: int, size: int, access: Access) -> list[Run]:
        """Where ``size`` bytes from ``start`` lead, as runs in ascending order, merged where all their fields agree.

        Raises `DeviceFault` at the first byte that leads nowhere or does not allow ``access``, with the record in
        ``fault`` and the runs before that byte in ``runs``; `InvalidArgument` for a range that is empty or negative.
        """
        ...


def require_range(start: int, size: int) -> None:
    """Refuse what is no range at all; a range beyond the layer is a fault, not an error of the caller."""
    if size < 1 or start < 0:
        raise InvalidArgument(f"{size} bytes at {start:#x} can't be accessed: at least 1 at 0 or above", size=size)
