"""A window: every input of a range leads to output = input - delta. What a bus has without translation hardware."""

from __future__ import annotations

from swiommu.address import Access, Prot
from swiommu.errors import InvalidArgument
from swiommu.layer.base import Fault, FaultKind, Run, require_range

__all__ = ["Window"]

_EVERYTHING = Prot.READ | Prot.WRITE


class Window:
    """``size`` bytes of input from ``base``, with bus = phys + ``delta``; allows reading and writing everywhere.

    ``block`` is the largest power of two that divides base, size and delta: blocks of that size keep their
    alignment through the window and never cross its border. Raises `InvalidArgument` for an empty window or one
    with negative addresses on either side.

    >>> window = Window("ram", base=0x8000_0000, size=0x1000_0000, delta=0x4000_0000)
    >>> window.translate(0x8000_0010, 4, Access.READ)[0].output == 0x4000_0010
    True
    >>> window.translate(0x8FFF_FFFF, 2, Access.WRITE)
    Traceback (most recent call last):
    ...
    swiommu.errors.DeviceFault: range fault of WRITE access at 0x90000000 in layer 'ram'
    """

    __slots__ = ("base", "block", "delta", "name", "size")

    def __init__(self, name: str, *, base: int, size: int, delta: int) -> None:
        if size < 1 or base < 0 or base - delta < 0:
            raise InvalidArgument(f"no window of {size:#x} bytes at {base:#x} with delta {delta:#x}", size=size)
        self.name = name
        self.base = base
        self.size = size
        self.delta = delta
        merged = base | size | delta
        self.block = merged & -merged

    def translate(self, start: int, size: int, access: Access) -> list[Run]:
        """One run, or `DeviceFault` (kind range) at the first byte outside; see `swiommu.layer.Layer`."""
        require_range(start, size)
        stop = self.base + self.size
        inside = min(start + size, stop) - start if start >= self.base else 0
        runs = [Run(start, start - self.delta, inside, self.block, _EVERYTHING)] if inside > 0 else []
        if inside < size:
            at = start + max(inside, 0)
            raise Fault(self.name, FaultKind.RANGE, access, at, at).error(runs)
        return runs
